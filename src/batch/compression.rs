//! The codecs of a batch: whole sections in, whole sections out, in the forms that Kafka's clients
//! write (gzip members, xerial or raw snappy, LZ4 frames, zstd frames).
//!
//! Invariant: decompression grows its output with the data it really gets, up to the caller's
//! limit; sizes claimed inside a compressed section are never allocated ahead.

use std::fmt;
use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{BatchError, snappy};

/// Largest zstd window that is accepted, as a power of 2. The Java client at level 22 announces
/// 128 MiB for a batch of any size; libzstd reserves that as address space and touches only what
/// the output fills, which the limit bounds.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// First bytes of an LZ4 frame.
const LZ4_MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
/// zstd's own default, and Kafka's (`compression.zstd.level`).
const ZSTD_LEVEL: i32 = 3;

/// How the records of a batch are compressed (attribute bits 0-2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, in xerial frames.
    Snappy,
    /// LZ4 frame format.
    Lz4,
    /// RFC 8878 (KIP-110): Produce from version 7, Fetch from version 10.
    Zstd,
}

impl Codec {
    /// All codecs, by id.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of an id in the attributes; error [`BatchError::UnknownCodec`].
    pub fn from_id(id: u8) -> Result<Self, BatchError> {
        Self::ALL
            .get(usize::from(id))
            .copied()
            .ok_or(BatchError::UnknownCodec(id))
    }

    /// The id in the attributes, 0 to 4.
    pub fn id(self) -> u8 {
        self as u8
    }

    /// The codec with this name, as in the settings of Kafka's clients and topics.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Kafka's name of the codec: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Compresses a whole section. Blocks are independent and no larger than Kafka's Java client can
/// read.
pub fn compress(codec: Codec, input: &[u8]) -> Vec<u8> {
    let compressed = match codec {
        Codec::None => Ok(input.to_vec()),
        Codec::Gzip => gzip(input),
        Codec::Snappy => snappy::compress(input),
        Codec::Lz4 => lz4(input),
        Codec::Zstd => zstd::bulk::compress(input, ZSTD_LEVEL),
    };
    compressed.expect("writing to memory does not fail")
}

/// Decompresses a whole section into at most `output_bytes_max` bytes.
///
/// Errors: [`BatchError::OutputLimit`] if there is more, [`BatchError::Corrupt`] if the section
/// does not follow the codec's format.
pub fn decompress(
    codec: Codec,
    input: &[u8],
    output_bytes_max: usize,
) -> Result<Vec<u8>, BatchError> {
    match codec {
        Codec::None if input.len() > output_bytes_max => Err(BatchError::OutputLimit {
            limit: output_bytes_max,
        }),
        Codec::None => Ok(input.to_vec()),
        Codec::Gzip => read_to_limit(codec, MultiGzDecoder::new(input), output_bytes_max),
        Codec::Snappy => snappy::decompress(input, output_bytes_max),
        // Like the Java client, no legacy and no skippable frames.
        Codec::Lz4 if !input.starts_with(&LZ4_MAGIC) => Err(BatchError::Corrupt(codec)),
        Codec::Lz4 => read_to_limit(codec, FrameDecoder::new(input), output_bytes_max),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)
                .map_err(|_| BatchError::Corrupt(codec))?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(|_| BatchError::Corrupt(codec))?;
            read_to_limit(codec, decoder, output_bytes_max)
        }
    }
}

/// Reads everything, one byte past the limit at most.
fn read_to_limit(
    codec: Codec,
    decoder: impl Read,
    output_bytes_max: usize,
) -> Result<Vec<u8>, BatchError> {
    let mut output = Vec::new();
    let read = decoder
        .take((output_bytes_max as u64).saturating_add(1))
        .read_to_end(&mut output);
    if output.len() > output_bytes_max {
        return Err(BatchError::OutputLimit {
            limit: output_bytes_max,
        });
    }
    read.map_err(|_| BatchError::Corrupt(codec))?;
    Ok(output)
}

fn gzip(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(input)?;
    encoder.finish()
}

fn lz4(input: &[u8]) -> io::Result<Vec<u8>> {
    // The Java client refuses linked blocks.
    let frame = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
    encoder.write_all(input)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn orders(count: usize) -> Vec<u8> {
        (0..count)
            .flat_map(|i| format!("order-{:02};", i % 100).into_bytes())
            .collect()
    }

    #[test]
    fn names_and_ids() {
        for (id, name) in ["none", "gzip", "snappy", "lz4", "zstd"]
            .into_iter()
            .enumerate()
        {
            let codec = Codec::from_id(id as u8).unwrap();
            assert_eq!((codec.name(), codec.id()), (name, id as u8));
            assert_eq!(Codec::from_name(name), Some(codec));
        }
        assert_eq!(Codec::from_id(5), Err(BatchError::UnknownCodec(5)));
        assert_eq!(Codec::from_name("brotli"), None);
    }

    #[test]
    fn sections_come_back_and_the_limit_is_exact() {
        for codec in Codec::ALL {
            for input in [Vec::new(), b"x".to_vec(), orders(30_000)] {
                let compressed = compress(codec, &input);
                assert_eq!(
                    decompress(codec, &compressed, input.len()).as_ref(),
                    Ok(&input)
                );
                if let Some(limit) = input.len().checked_sub(1) {
                    assert_eq!(
                        decompress(codec, &compressed, limit),
                        Err(BatchError::OutputLimit { limit }),
                        "{codec}"
                    );
                }
            }
        }
    }

    #[test]
    fn garbage_and_truncation_are_errors_or_short() {
        let input = orders(10_000);
        for codec in Codec::ALL.into_iter().skip(1) {
            let compressed = compress(codec, &input);
            for end in 0..compressed.len() {
                if let Ok(output) = decompress(codec, &compressed[..end], LIMIT) {
                    assert!(input.starts_with(&output), "{codec} {end}");
                }
            }
            assert_eq!(
                decompress(codec, b"\xff\xff\xff\xffgarbage, nothing else", LIMIT),
                Err(BatchError::Corrupt(codec))
            );
        }
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        let zeros = vec![0; 64 << 20];
        for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd, Codec::Snappy] {
            let bomb = compress(codec, &zeros);
            let limit = LIMIT;
            assert_eq!(
                decompress(codec, &bomb, limit),
                Err(BatchError::OutputLimit { limit })
            );
        }
    }

    #[test]
    fn claimed_sizes_are_not_believed() {
        // A raw snappy block of 7 bytes that claims 4 GiB - 1, and one that claims 64 MiB.
        for block in [
            &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, b'x'][..],
            &[128, 128, 128, 32, 0, b'x'],
        ] {
            assert_eq!(
                decompress(Codec::Snappy, block, LIMIT),
                Err(BatchError::Corrupt(Codec::Snappy))
            );
        }
        // A xerial block that claims 2 GiB of input.
        let mut stream = compress(Codec::Snappy, b"");
        stream.extend_from_slice(&[0x7f, 0xff, 0xff, 0xff, 1]);
        assert_eq!(
            decompress(Codec::Snappy, &stream, LIMIT),
            Err(BatchError::Corrupt(Codec::Snappy))
        );
    }

    #[test]
    fn snappy_without_frame_and_in_several_streams() {
        let input = orders(100);
        let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
        assert_eq!(decompress(Codec::Snappy, &raw, LIMIT).as_ref(), Ok(&input));
        let stream = compress(Codec::Snappy, &input);
        let twice = decompress(Codec::Snappy, &[stream.clone(), stream].concat(), LIMIT);
        assert_eq!(twice, Ok([input.clone(), input].concat()));
    }

    #[test]
    fn lz4_frames_of_other_kinds_are_refused() {
        // The magic of the legacy format, and one block of six literals.
        let legacy = b"\x02\x21\x4c\x18\x07\0\0\0\x60legacy";
        let mut plain = Vec::new();
        FrameDecoder::new(&legacy[..])
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(plain, b"legacy");
        assert_eq!(
            decompress(Codec::Lz4, legacy, LIMIT),
            Err(BatchError::Corrupt(Codec::Lz4))
        );
    }

    #[test]
    fn frames_of_the_reference_libraries() {
        // Written by liblz4 1.9 and libzstd 1.5: linked blocks with all checksums and a content
        // size; independent 256 KiB blocks; a window of 32 MiB.
        let input = orders(30_000);
        let linked = include_bytes!("testdata/linked-checksums.lz4");
        let reads = |codec, bytes: &[u8]| decompress(codec, bytes, LIMIT).as_ref() == Ok(&input);
        assert!(reads(Codec::Lz4, linked));
        let independent = include_bytes!("testdata/independent-256k.lz4");
        assert_eq!(
            decompress(Codec::Lz4, independent, LIMIT).as_ref(),
            Ok(&input)
        );
        let wide = include_bytes!("testdata/window-32m.zst");
        assert!(reads(Codec::Zstd, wide));
        for at in 0..linked.len() {
            let mut flipped = *linked;
            flipped[at] ^= 0x10;
            assert_ne!(
                decompress(Codec::Lz4, &flipped, LIMIT).as_ref(),
                Ok(&input),
                "{at}"
            );
        }
    }
}
