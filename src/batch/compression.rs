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

/// Largest zstd window that is accepted, as a power of 2: 8 MiB, what RFC 8878 recommends
/// decoders to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
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
