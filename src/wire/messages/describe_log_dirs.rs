//! `DescribeLogDirs`, API key 35: log directories with the sizes of their partitions.
//!
//! Version 2 is flexible, 3 adds the top-level error, 4 the size of the volume (KIP-827), 5
//! whether the directory takes new partitions.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Partitions to report; null for all.
    request DescribeLogDirsRequest -> DescribeLogDirsResponse
    (key 35, versions 1..=5, flexible 2..) {
        /// Null for all.
        topics: Option<Vec<DescribableLogDirTopic>> => 0.., null 0..;
    }

    /// One topic to report.
    struct DescribableLogDirTopic {
        topic: String => 0..;
        partitions: Vec<i32> => 0..;
    }

    /// The directories.
    message DescribeLogDirsResponse (versions 1..=5, flexible 2..) {
        throttle_time_ms: i32 => 0..;
        error_code: ErrorCode => 3..;
        results: Vec<DescribeLogDirsResult> => 0..;
    }

    /// One directory.
    struct DescribeLogDirsResult {
        error_code: ErrorCode => 0..;
        log_dir: String => 0..;
        topics: Vec<DescribeLogDirsTopic> => 0..;
        /// Size of the volume, -1 for unknown.
        total_bytes: i64 = -1 => 4..;
        usable_bytes: i64 = -1 => 4..;
        /// Takes no new partitions.
        is_cordoned: bool => 5..;
    }

    /// One topic in a directory.
    struct DescribeLogDirsTopic {
        name: String => 0..;
        partitions: Vec<DescribeLogDirsPartition> => 0..;
    }

    /// One partition in a directory.
    struct DescribeLogDirsPartition {
        partition_index: i32 => 0..;
        partition_size: i64 => 0..;
        /// How far the replica is behind.
        offset_lag: i64 => 0..;
        /// The copy of a move between directories.
        is_future_key: bool => 0..;
    }
}
