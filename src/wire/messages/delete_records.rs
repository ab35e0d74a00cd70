//! `DeleteRecords`, API key 21: moves the start of partitions forward.
//!
//! Version 2 is flexible.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Offsets before which records shall go.
    request DeleteRecordsRequest -> DeleteRecordsResponse
    (key 21, versions 0..=2, flexible 2..) {
        topics: Vec<DeleteRecordsTopic> => 0..;
        timeout_ms: i32 => 0..;
    }

    /// One topic to cut.
    struct DeleteRecordsTopic {
        name: String => 0..;
        partitions: Vec<DeleteRecordsPartition> => 0..;
    }

    /// One partition to cut.
    struct DeleteRecordsPartition {
        partition_index: i32 => 0..;
        /// -1 for the high watermark.
        offset: i64 => 0..;
    }

    /// Where the partitions start now.
    message DeleteRecordsResponse (versions 0..=2, flexible 2..) {
        throttle_time_ms: i32 => 0..;
        topics: Vec<DeleteRecordsTopicResult> => 0..;
    }

    /// One topic of the answer.
    struct DeleteRecordsTopicResult {
        name: String => 0..;
        partitions: Vec<DeleteRecordsPartitionResult> => 0..;
    }

    /// One partition of the answer.
    struct DeleteRecordsPartitionResult {
        partition_index: i32 => 0..;
        /// The new first offset, -1 on error.
        low_watermark: i64 => 0..;
        error_code: ErrorCode => 0..;
    }
}
