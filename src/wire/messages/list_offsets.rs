//! `ListOffsets`, API key 2: offsets by timestamp or by one of the special timestamps.
//!
//! Special: -1 latest, -2 earliest, -3 largest timestamp (from 7), -4 earliest local (8), -5
//! latest tiered (9), -6 earliest not yet uploaded (11). Version 2 adds the isolation level, 4
//! leader epochs, 6 is flexible, 10 adds a time limit for tiered storage.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Timestamps to find the offsets of.
    request ListOffsetsRequest -> ListOffsetsResponse
    (key 2, versions 1..=11, flexible 6..) {
        /// Broker id of a follower; -1 for a consumer.
        replica_id: i32 => 0..;
        /// 0 read_uncommitted, 1 read_committed: moves what "latest" is.
        isolation_level: i8 => 2..;
        topics: Vec<ListOffsetsTopic> => 0..;
        timeout_ms: i32 => 10..;
    }

    /// One topic to search.
    struct ListOffsetsTopic {
        name: String => 0..;
        partitions: Vec<ListOffsetsPartition> => 0..;
    }

    /// One partition to search.
    struct ListOffsetsPartition {
        partition_index: i32 => 0..;
        current_leader_epoch: i32 = -1 => 4..;
        /// Milliseconds since 1970, or special (see the module).
        timestamp: i64 => 0..;
    }

    /// The offsets found.
    message ListOffsetsResponse (versions 1..=11, flexible 6..) {
        throttle_time_ms: i32 => 2..;
        topics: Vec<ListOffsetsTopicResponse> => 0..;
    }

    /// One topic of the answer.
    struct ListOffsetsTopicResponse {
        name: String => 0..;
        partitions: Vec<ListOffsetsPartitionResponse> => 0..;
    }

    /// The first record at or after the timestamp.
    struct ListOffsetsPartitionResponse {
        partition_index: i32 => 0..;
        error_code: ErrorCode => 0..;
        /// Of the record found, -1 for none.
        timestamp: i64 = -1 => 1..;
        /// Of the record found, -1 for none.
        offset: i64 = -1 => 1..;
        leader_epoch: i32 = -1 => 4..;
    }
}
