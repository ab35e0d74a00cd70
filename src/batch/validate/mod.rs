//! What a broker checks before it appends a client's batch, and the rewrites that topic settings
//! ask for. The rules are those of Kafka's `ProduceRequest`, `UnifiedLog` and `LogValidator`; what
//! depends on the partition's state (sequences, transactions) is the log's.
//!
//! [`validate`] looks at the head and the CRC only and is enough for the safety of the log;
//! [`check_records`] walks over the records, for topics whose rules need it.
//!
//! Stricter than Kafka 4.3.1, where no client can notice: Kafka cuts off up to 16 stray bytes
//! after a batch, accepts a LogAppendTime bit on a CreateTime topic, judges timestamps by the
//! records alone, and stores uncompressed batches whose offset deltas are not dense.

use bytes::Bytes;

use super::header::NO_TIMESTAMP;
use super::records::{Layout, timestamp};
use super::{BatchError, Codec, Header, RecordError, TimestampType, compress, decompress};
use crate::base::limits::BATCH_HEADER_BYTES;
use crate::base::{ErrorCode, WallMs};

/// Refused records that are reported one by one; the rest is only counted.
const RECORD_ERRORS_MAX: usize = 100;

/// The topic's settings that decide about a batch. `Default` has Kafka's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidationRules {
    /// `max.message.bytes`: largest batch with its head.
    pub size_bytes_max: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `cleanup.policy` contains `compact`: records without a key are refused.
    pub keys_required: bool,
    /// Bytes that the records may have when decompressed.
    pub output_bytes_max: usize,
}

/// What [`check_records`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsSummary {
    /// The largest record timestamp; the head's can be wrong, see [`with_max_timestamp`].
    pub max_timestamp: i64,
}

impl Default for ValidationRules {
    fn default() -> Self {
        Self {
            size_bytes_max: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            keys_required: false,
            output_bytes_max: 100 * 1024 * 1024,
        }
    }
}

/// Checks the one batch that a client sent for a partition: everything that its head and its CRC
/// tell. The result's `codec()` is known to be valid.
pub fn validate(
    bytes: &Bytes,
    rules: &ValidationRules,
    now_wall_ms: WallMs,
) -> Result<Header, BatchError> {
    let header = Header::parse(bytes)?;
    let size_bytes = header.size_bytes();
    if bytes.len() < size_bytes {
        return Err(BatchError::Torn {
            need: size_bytes,
            have: bytes.len(),
        });
    }
    if header.base_offset != 0 {
        return Err(BatchError::BaseOffset(header.base_offset));
    }
    if size_bytes > rules.size_bytes_max {
        return Err(BatchError::TooLarge {
            size_bytes,
            size_bytes_max: rules.size_bytes_max,
        });
    }
    header.check_crc(&bytes[BATCH_HEADER_BYTES..size_bytes])?;
    if bytes.len() > size_bytes {
        return Err(BatchError::TrailingBytes(bytes.len() - size_bytes));
    }
    check_header(&header, rules, now_wall_ms)?;
    Ok(header)
}

/// Walks over the records: their form, that offsets are dense and the count is right, keys if the
/// topic is compacted, timestamps if it keeps those of the producer.
///
/// Errors: [`BatchError::Malformed`] and those of [`decompress`] for the whole batch, else
/// [`BatchError::Records`] with each refused record.
pub fn check_records(
    header: &Header,
    body: &[u8],
    rules: &ValidationRules,
    now_wall_ms: WallMs,
) -> Result<RecordsSummary, BatchError> {
    match header.codec()? {
        Codec::None => check_section(header, body, rules, now_wall_ms),
        codec => {
            let section = decompress(codec, body, rules.output_bytes_max)?;
            check_section(header, &section, rules, now_wall_ms)
        }
    }
}

/// The head for a topic with `message.timestamp.type=LogAppendTime`: readers then take its max
/// timestamp for every record.
pub fn with_log_append_time(header: &Header, body: &[u8], now_wall_ms: WallMs) -> Header {
    let mut header = *header;
    header.set_log_append_time(now_wall_ms);
    header.seal(body)
}

/// The head with the max timestamp that its records really have.
pub fn with_max_timestamp(header: &Header, body: &[u8], max_timestamp: i64) -> Header {
    if header.max_timestamp == max_timestamp {
        return *header;
    }
    Header {
        max_timestamp,
        ..*header
    }
    .seal(body)
}

/// Changes the compression of a batch (topic setting `compression.type`); the records stay as they
/// are. Errors: those of [`decompress`].
pub fn recompress(
    header: &Header,
    body: &Bytes,
    codec: Codec,
    output_bytes_max: usize,
) -> Result<(Header, Bytes), BatchError> {
    let section: Bytes = match header.codec()? {
        same if same == codec => return Ok((*header, body.clone())),
        Codec::None => body.clone(),
        source => decompress(source, body, output_bytes_max)?.into(),
    };
    let body = match codec {
        Codec::None => section,
        codec => compress(codec, &section).into(),
    };
    let mut header = *header;
    header.set_codec(codec);
    Ok((header.seal(&body), body))
}

/// The rules that need nothing but the head.
fn check_header(
    header: &Header,
    rules: &ValidationRules,
    now_wall_ms: WallMs,
) -> Result<(), BatchError> {
    header.codec()?;
    let (record_count, last_offset_delta) = (header.record_count, header.last_offset_delta);
    if record_count <= 0 || record_count.checked_sub(1) != Some(last_offset_delta) {
        return Err(BatchError::Count {
            record_count,
            last_offset_delta,
        });
    }
    if header.is_control() {
        return Err(BatchError::Control);
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(BatchError::Sequence {
            producer_id: header.producer_id,
            base_sequence: header.base_sequence,
        });
    }
    // No transaction is ever ongoing: this release has no transaction coordinator.
    if header.is_transactional() {
        return Err(BatchError::Transactional);
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::TimestampType);
    }
    // The first record's timestamp and the largest; those between need a look at the records.
    check_timestamp(header.base_timestamp, rules, now_wall_ms)?;
    check_timestamp(header.max_timestamp, rules, now_wall_ms)
}

fn check_timestamp(
    timestamp: i64,
    rules: &ValidationRules,
    now_wall_ms: WallMs,
) -> Result<(), BatchError> {
    let timestamp_min = now_wall_ms.saturating_sub(rules.timestamp_before_max_ms);
    let timestamp_max = now_wall_ms.saturating_add(rules.timestamp_after_max_ms);
    if rules.timestamp_type == TimestampType::LogAppendTime
        || timestamp == NO_TIMESTAMP
        || (timestamp_min..=timestamp_max).contains(&timestamp)
    {
        return Ok(());
    }
    Err(BatchError::Timestamp {
        timestamp,
        timestamp_min,
        timestamp_max,
    })
}

fn check_section(
    header: &Header,
    section: &[u8],
    rules: &ValidationRules,
    now_wall_ms: WallMs,
) -> Result<RecordsSummary, BatchError> {
    let mut max_timestamp = NO_TIMESTAMP;
    let mut errors = Vec::new();
    let mut code = ErrorCode::InvalidRecord;
    let mut position = 0;
    for batch_index in 0..header.record_count {
        let layout = Layout::read(section, &mut position)?;
        if layout.offset_delta != batch_index {
            return Err(BatchError::Malformed(
                "the offsets of the records are not dense",
            ));
        }
        let timestamp = timestamp(header, &layout);
        max_timestamp = max_timestamp.max(timestamp);
        let message = if rules.keys_required && layout.key.is_none() {
            "a compacted topic cannot accept a record without a key".to_owned()
        } else if let Err(error) = check_timestamp(timestamp, rules, now_wall_ms) {
            code = error.code();
            error.to_string()
        } else {
            continue;
        };
        if errors.len() < RECORD_ERRORS_MAX {
            errors.push(RecordError {
                batch_index,
                message,
            });
        }
    }
    if position != section.len() {
        return Err(BatchError::Malformed("bytes follow the last record"));
    }
    if errors.is_empty() {
        return Ok(RecordsSummary { max_timestamp });
    }
    Err(BatchError::Records { code, errors })
}

#[cfg(test)]
mod tests;
