//! `OffsetCommit`, API key 8: members and simple consumers store their positions in a group.
//!
//! Version 5 drops the retention time, 6 adds the leader epoch of the committed position, 7 static
//! members (KIP-345), 8 is flexible, 9 serves the new consumer protocol (KIP-848), 10 names topics
//! by id.

use crate::base::{ErrorCode, TopicId};
use crate::wire::table::messages;

messages! {
    /// Positions to store.
    request OffsetCommitRequest -> OffsetCommitResponse
    (key 8, versions 2..=10, flexible 8..) {
        group_id: String => 0..;
        /// -1 for a consumer outside any generation.
        generation_id_or_member_epoch: i32 = -1 => 1..;
        member_id: String => 1..;
        group_instance_id: Option<String> = None => 7.., null 7..;
        /// -1 for the broker's setting.
        retention_time_ms: i64 = -1 => 2..=4;
        topics: Vec<OffsetCommitRequestTopic> => 0..;
    }

    /// One topic of a commit.
    struct OffsetCommitRequestTopic {
        name: String => 0..=9;
        topic_id: TopicId => 10..;
        partitions: Vec<OffsetCommitRequestPartition> => 0..;
    }

    /// The position in one partition.
    struct OffsetCommitRequestPartition {
        partition_index: i32 => 0..;
        /// The next record to read.
        committed_offset: i64 => 0..;
        committed_leader_epoch: i32 = -1 => 6..;
        /// Free text of the client.
        committed_metadata: Option<String> => 0.., null 0..;
    }

    /// What became of each position.
    message OffsetCommitResponse (versions 2..=10, flexible 8..) {
        throttle_time_ms: i32 => 3..;
        topics: Vec<OffsetCommitResponseTopic> => 0..;
    }

    /// One topic of the answer.
    struct OffsetCommitResponseTopic {
        name: String => 0..=9;
        topic_id: TopicId => 10..;
        partitions: Vec<OffsetCommitResponsePartition> => 0..;
    }

    /// One partition of the answer.
    struct OffsetCommitResponsePartition {
        partition_index: i32 => 0..;
        error_code: ErrorCode => 0..;
    }
}
