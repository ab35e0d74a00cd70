//! Record batches: everything a broker does with the bytes of a produce request before and when it
//! appends them, and what a consumer does with those of a fetch; and the codecs by themselves.

use crate::memory::{bounded, bounded_with};
use bytes::Bytes;
use forebay::base::limits::BATCH_HEADER_BYTES;
use forebay::batch::{
    BatchError, Codec, Header, TimestampType, ValidationRules, batches, check_records, compress,
    decompress, recompress, records, validate, with_max_timestamp,
};

/// Bytes that records may have here when decompressed: small, so that the bound of memory means
/// something.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// An LZ4 frame names the size of its blocks, at most 4 MiB (which Go's clients use), and its
/// decoder reserves a block in and two out with a window before it reads the first. The other
/// codecs keep the common bound.
const LZ4_BYTES: usize = 3 * (4 << 20) + (64 << 10);

/// The time at which batches arrive.
const NOW_MS: i64 = 1_800_000_000_000;

/// Where a batch has its length, its magic and its CRC.
const LENGTH_AT: usize = 8;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const CRC_START: usize = 21;

/// A codec (first byte) and a compressed section. What decompresses also compresses, and comes
/// back; so does the section itself, taken as records.
pub fn codec(input: &[u8]) {
    let Some((id, section)) = input.split_first() else {
        return;
    };
    let codec = Codec::ALL[usize::from(*id) % Codec::ALL.len()];
    let decompressed = bounded_with(section.len(), extra_bytes(codec), || {
        decompress(codec, section, OUTPUT_BYTES_MAX)
    });
    for bytes in decompressed.as_deref().into_iter().chain([section]) {
        let again = decompress(codec, &compress(codec, bytes), bytes.len());
        assert_eq!(again.as_deref(), Ok(bytes), "{codec}");
    }
    if let Ok(bytes) = decompressed {
        assert!(bytes.len() <= OUTPUT_BYTES_MAX, "{codec}");
    }
}

/// Flags (first byte), then one batch of a produce request: validation, the walk over its records,
/// recompression, and reading. All ways of looking at a batch agree.
pub fn batch(input: &[u8]) {
    let Some((flags, bytes)) = input.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if flags & 1 != 0 {
        seal(&mut bytes);
    }
    let bytes = Bytes::from(bytes);
    let rules = ValidationRules {
        keys_required: flags & 2 != 0,
        timestamp_type: match flags & 4 != 0 {
            true => TimestampType::LogAppendTime,
            false => TimestampType::CreateTime,
        },
        output_bytes_max: OUTPUT_BYTES_MAX,
        ..ValidationRules::default()
    };
    read_all(&bytes);
    let Ok(header) = bounded(input.len(), || validate(&bytes, &rules, NOW_MS)) else {
        return;
    };
    let codec = header.codec().expect("validation has looked at it");
    let body = bytes.slice(BATCH_HEADER_BYTES..);
    let checked = bounded_with(input.len(), extra_bytes(codec), || {
        check_records(&header, &body, &rules, NOW_MS)
    });
    let target = Codec::ALL[usize::from(flags >> 3) % Codec::ALL.len()];
    if let Ok((again, section)) = recompress(&header, &body, target, OUTPUT_BYTES_MAX) {
        assert_eq!(again.check_crc(&section), Ok(()));
        let same = check_records(&again, &section, &rules, NOW_MS);
        assert_eq!(same, checked, "{codec} to {target}");
    }
    match checked {
        Ok(summary) => {
            let header = with_max_timestamp(&header, &body, summary.max_timestamp);
            assert_eq!(header.check_crc(&body), Ok(()));
            let found = records(&header, &body, OUTPUT_BYTES_MAX).expect("it was checked");
            let mut count = 0;
            for record in found {
                let record = record.expect("it was checked");
                assert_eq!(record.offset, count, "offsets are dense");
                count += 1;
            }
            assert_eq!(count, i64::from(header.record_count));
        }
        Err(BatchError::Records { errors, .. }) => {
            assert!(!errors.is_empty() && errors.len() < 101)
        }
        Err(_) => {}
    }
}

/// What a consumer does: no CRC is checked here.
fn read_all(bytes: &Bytes) {
    for found in batches(bytes.clone()) {
        let Ok((header, body)) = found else {
            return;
        };
        let extra_bytes = header.codec().map_or(0, extra_bytes);
        bounded_with(bytes.len(), extra_bytes, || {
            let Ok(records) = records(&header, &body, OUTPUT_BYTES_MAX) else {
                return;
            };
            for record in records {
                if record.is_err() {
                    return;
                }
            }
        });
    }
}

/// What decompressing may take beyond the common bound.
fn extra_bytes(codec: Codec) -> usize {
    match codec {
        Codec::None => 0,
        // Grows by doubling.
        Codec::Gzip | Codec::Snappy | Codec::Zstd => 3 * OUTPUT_BYTES_MAX,
        Codec::Lz4 => LZ4_BYTES,
    }
}

/// Makes the bytes one batch from a producer, as far as its length, magic and CRC go.
pub(crate) fn seal(bytes: &mut [u8]) {
    if bytes.len() < BATCH_HEADER_BYTES {
        return;
    }
    let length = (bytes.len() - LENGTH_AT - 4) as u32;
    bytes[..LENGTH_AT].fill(0);
    bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
    bytes[MAGIC_AT] = 2;
    seal_crc(bytes);
}

/// Sets the CRC of one whole batch.
pub(crate) fn seal_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[CRC_AT..CRC_START].copy_from_slice(&crc.to_be_bytes());
}

/// Sets the CRC of every whole batch of a file.
pub(crate) fn seal_all(mut file: &mut [u8]) {
    while let Ok(header) = Header::parse(file)
        && header.size_bytes() <= file.len()
    {
        let (batch, rest) = file.split_at_mut(header.size_bytes());
        seal_crc(batch);
        file = rest;
    }
}
