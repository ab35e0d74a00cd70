//! What can be wrong with a batch, and the one place that says which [`ErrorCode`] each fault
//! means. Codes are those that Apache Kafka 4.3.1 answers to a produce request; where it only has
//! `UNKNOWN_SERVER_ERROR` (codec bits 5 to 7, undecodable sections), the code that says why.

use std::fmt;

use super::Codec;
use crate::base::ErrorCode;

/// One record that a topic's rules refuse; Kafka's `BatchIndexAndErrorMessage` (KIP-467).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Position of the record in its batch, from 0.
    pub batch_index: i32,
    /// What is wrong with it, for the producer's log.
    pub message: String,
}

/// Why a batch is refused. [`BatchError::code`] gives the answer for the client, `Display` the
/// `error_message` of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// The bytes end before the batch does. In a file: a torn tail.
    Torn {
        /// Bytes that the batch needs, as far as they are known.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// The length field is below the fixed head.
    Length(i32),
    /// A message format other than 2.
    Magic(i8),
    /// The checksum does not fit the bytes.
    Crc {
        /// What the head says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// More bytes than one batch: a produce request carries exactly one per partition.
    TrailingBytes(usize),
    /// A producer must send base offset 0.
    BaseOffset(i64),
    /// Larger than `max.message.bytes`.
    TooLarge {
        /// Size of the batch in bytes.
        size_bytes: usize,
        /// The bound of the topic.
        size_bytes_max: usize,
    },
    /// Record count not above 0, or not equal to last offset delta + 1.
    Count {
        /// `recordCount` of the head.
        record_count: i32,
        /// `lastOffsetDelta` of the head.
        last_offset_delta: i32,
    },
    /// Clients must not write control batches.
    Control,
    /// Transactional batch outside of an ongoing transaction.
    Transactional,
    /// A producer id without a sequence, or with one below 0.
    Sequence {
        /// `producerId` of the head.
        producer_id: i64,
        /// `baseSequence` of the head.
        base_sequence: i32,
    },
    /// Codec bits 5, 6 or 7.
    UnknownCodec(u8),
    /// Only the broker may set timestamp type LogAppendTime.
    TimestampType,
    /// A record timestamp outside of `message.timestamp.{before,after}.max.ms`.
    Timestamp {
        /// The offending timestamp.
        timestamp: i64,
        /// Earliest accepted.
        timestamp_min: i64,
        /// Latest accepted.
        timestamp_max: i64,
    },
    /// Single records break the topic's rules (no key on a compacted topic, bad timestamps).
    Records {
        /// `INVALID_TIMESTAMP` if any record has a bad timestamp, else `INVALID_RECORD`.
        code: ErrorCode,
        /// The refused records, by index.
        errors: Vec<RecordError>,
    },
    /// The bytes of a record do not follow the format.
    Malformed(&'static str),
    /// The compressed section cannot be decompressed.
    Corrupt(Codec),
    /// The records are larger than the limit when decompressed.
    OutputLimit {
        /// The limit in bytes.
        limit: usize,
    },
}

impl BatchError {
    /// What a client is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Length(_) | Self::Crc { .. } => ErrorCode::CorruptMessage,
            // Kafka reads formats 0 and 1 and then refuses them; it cannot read others.
            Self::Magic(magic) if !(0..=2).contains(magic) => ErrorCode::CorruptMessage,
            Self::Torn { .. }
            | Self::Magic(_)
            | Self::TrailingBytes(_)
            | Self::BaseOffset(_)
            | Self::Count { .. }
            | Self::Control
            | Self::Sequence { .. }
            | Self::Malformed(_)
            // Not CORRUPT_MESSAGE, which clients retry: the CRC says that these bytes were sent.
            | Self::Corrupt(_) => ErrorCode::InvalidRecord,
            Self::TooLarge { .. } | Self::OutputLimit { .. } => ErrorCode::MessageTooLarge,
            Self::Transactional => ErrorCode::InvalidTxnState,
            Self::UnknownCodec(_) => ErrorCode::UnsupportedCompressionType,
            Self::TimestampType | Self::Timestamp { .. } => ErrorCode::InvalidTimestamp,
            Self::Records { code, .. } => *code,
        }
    }

    /// The refused records, empty if the fault is the batch's.
    pub fn record_errors(&self) -> &[RecordError] {
        match self {
            Self::Records { errors, .. } => errors,
            _ => &[],
        }
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Torn { need, have } => format!("the batch needs {need} bytes, there are {have}"),
            Self::Length(length) => format!("batch length {length} is less than the batch head"),
            Self::Magic(magic) => format!("message format {magic}; only format 2 is accepted"),
            Self::Crc { stored, computed } => {
                format!("CRC {stored:#010x} in the head, {computed:#010x} over the bytes")
            }
            Self::TrailingBytes(count) => {
                format!("{count} bytes follow the batch; exactly one batch is allowed")
            }
            Self::BaseOffset(offset) => format!("the base offset is {offset}, it must be 0"),
            Self::TooLarge {
                size_bytes,
                size_bytes_max,
            } => {
                format!("the batch has {size_bytes} bytes, the topic allows {size_bytes_max}")
            }
            Self::Count {
                record_count,
                last_offset_delta,
            } => format!(
                "record count {record_count} does not fit last offset delta {last_offset_delta}"
            ),
            Self::Control => "clients are not allowed to write control records".to_owned(),
            Self::Transactional => "the batch is not part of an ongoing transaction".to_owned(),
            Self::Sequence {
                producer_id,
                base_sequence,
            } => {
                format!("sequence {base_sequence} is invalid with producer id {producer_id}")
            }
            Self::UnknownCodec(bits) => format!("unknown compression type {bits}"),
            Self::TimestampType => {
                "producers must not set the timestamp type to LogAppendTime".to_owned()
            }
            Self::Timestamp {
                timestamp,
                timestamp_min,
                timestamp_max,
            } => {
                format!("timestamp {timestamp} is out of range [{timestamp_min}, {timestamp_max}]")
            }
            Self::Records { errors, .. } => format!("{} records were rejected", errors.len()),
            Self::Malformed(what) => (*what).to_owned(),
            Self::Corrupt(codec) => format!("the {codec} section cannot be decompressed"),
            Self::OutputLimit { limit } => {
                format!("the records are larger than {limit} bytes when decompressed")
            }
        };
        f.write_str(&text)
    }
}

impl std::error::Error for BatchError {}
