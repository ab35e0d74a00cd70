//! `OffsetFetch`, API key 9: committed positions of groups.
//!
//! Up to version 7 one group in the top-level fields, from 8 on a list of groups. Null for topics
//! (from 2) means all with a committed offset. Version 5 adds leader epochs, 6 is flexible, 7 asks
//! for stable offsets (KIP-447), 9 serves the new consumer protocol, 10 names topics by id.

use crate::base::{ErrorCode, TopicId};
use crate::wire::table::messages;

messages! {
    /// Positions to look up.
    request OffsetFetchRequest -> OffsetFetchResponse
    (key 9, versions 1..=10, flexible 6..) {
        group_id: String => 0..=7;
        /// Null for all.
        topics: Option<Vec<OffsetFetchRequestTopic>> => 0..=7, null 2..=7;
        groups: Vec<OffsetFetchRequestGroup> => 8..;
        /// Refuse while a transaction on the offsets is open.
        require_stable: bool => 7..;
    }

    /// One topic, up to version 7.
    struct OffsetFetchRequestTopic {
        name: String => 0..=7;
        partition_indexes: Vec<i32> => 0..=7;
    }

    /// One group, from version 8 on.
    struct OffsetFetchRequestGroup {
        group_id: String => 8..;
        member_id: Option<String> = None => 9.., null 9..;
        member_epoch: i32 = -1 => 9..;
        /// Null for all.
        topics: Option<Vec<OffsetFetchRequestTopics>> => 8.., null 8..;
    }

    /// One topic of a group.
    struct OffsetFetchRequestTopics {
        name: String => 8..=9;
        topic_id: TopicId => 10..;
        partition_indexes: Vec<i32> => 8..;
    }

    /// Stored positions.
    message OffsetFetchResponse (versions 1..=10, flexible 6..) {
        throttle_time_ms: i32 => 3..;
        topics: Vec<OffsetFetchResponseTopic> => 0..=7;
        error_code: ErrorCode => 2..=7;
        groups: Vec<OffsetFetchResponseGroup> => 8..;
    }

    /// One topic, up to version 7.
    struct OffsetFetchResponseTopic {
        name: String => 0..=7;
        partitions: Vec<OffsetFetchResponsePartition> => 0..=7;
    }

    /// One position, up to version 7.
    struct OffsetFetchResponsePartition {
        partition_index: i32 => 0..=7;
        /// -1 for none.
        committed_offset: i64 => 0..=7;
        committed_leader_epoch: i32 = -1 => 5..=7;
        metadata: Option<String> => 0..=7, null 0..=7;
        error_code: ErrorCode => 0..=7;
    }

    /// One group, from version 8 on.
    struct OffsetFetchResponseGroup {
        group_id: String => 8..;
        topics: Vec<OffsetFetchResponseTopics> => 8..;
        error_code: ErrorCode => 8..;
    }

    /// One topic of a group.
    struct OffsetFetchResponseTopics {
        name: String => 8..=9;
        topic_id: TopicId => 10..;
        partitions: Vec<OffsetFetchResponsePartitions> => 8..;
    }

    /// One position of a group.
    struct OffsetFetchResponsePartitions {
        partition_index: i32 => 8..;
        /// -1 for none.
        committed_offset: i64 => 8..;
        committed_leader_epoch: i32 = -1 => 8..;
        metadata: Option<String> => 8.., null 8..;
        error_code: ErrorCode => 8..;
    }
}
