//! The settings of one log: a plain value, checked where it is parsed, replaced as a whole when a
//! topic is altered.

use crate::batch::{Codec, TimestampType, ValidationRules};

/// Bytes that one batch may have when decompressed, for its validation and for time lookups: 16
/// times the largest batch that topics accept by default.
pub(super) const DECOMPRESSED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Topic settings as the log needs them; each field names Kafka's. `Default` has Kafka's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `segment.bytes`: a segment is closed before it would grow beyond this.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment is closed when a batch is this much younger than its first one.
    pub segment_ms: i64,
    /// `segment.index.bytes`: a segment is closed when one of its indexes has this size.
    pub segment_index_bytes: u64,
    /// `index.interval.bytes`: bytes of batches between two index entries.
    pub index_interval_bytes: u64,
    /// `retention.ms`; -1 for no limit.
    pub retention_ms: i64,
    /// `retention.bytes`; -1 for no limit.
    pub retention_bytes: i64,
    /// `max.message.bytes`: largest batch, after recompression.
    pub message_bytes_max: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_ms_max: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_ms_max: i64,
    /// `compression.type`; `None` is `producer`: batches stay as they came.
    pub compression: Option<Codec>,
    /// `cleanup.policy` contains `compact`: records need keys.
    pub cleanup_compact: bool,
    /// `cleanup.policy` contains `delete`: retention by time and size applies.
    pub cleanup_delete: bool,
    /// `producer.id.expiration.ms`: how long a silent producer's sequence state is kept.
    pub producer_id_expiration_ms: i64,
    /// `max.producer.ids.per.partition`: producers remembered.
    pub producer_ids_max: usize,
    /// `write.caching` (Redpanda's name): acks=all counts as durable once written.
    pub write_caching: bool,
    /// `max.unsynced.bytes.per.partition`: with so much unsynced every batch waits for its sync.
    pub unsynced_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: 604_800_000,
            retention_bytes: -1,
            message_bytes_max: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_ms_max: i64::MAX,
            timestamp_after_ms_max: 3_600_000,
            compression: None,
            cleanup_compact: false,
            cleanup_delete: true,
            producer_id_expiration_ms: 86_400_000,
            producer_ids_max: 10_000,
            write_caching: false,
            unsynced_bytes_max: 512 << 20,
        }
    }
}

impl Config {
    /// What a client's batch is checked against. Its size counts only after recompression, so it
    /// is unlimited here if the topic recompresses.
    pub(super) fn validation_rules(&self) -> ValidationRules {
        ValidationRules {
            size_bytes_max: match self.compression {
                None => self.message_bytes_max,
                Some(_) => usize::MAX,
            },
            timestamp_type: self.timestamp_type,
            timestamp_before_max_ms: self.timestamp_before_ms_max,
            timestamp_after_max_ms: self.timestamp_after_ms_max,
            keys_required: self.cleanup_compact,
            output_bytes_max: DECOMPRESSED_BYTES_MAX,
        }
    }
}
