//! `OffsetDelete`, API key 47: removal of committed offsets of topics that the group no longer
//! reads (KIP-496). Never flexible.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Offsets to forget.
    request OffsetDeleteRequest -> OffsetDeleteResponse
    (key 47, versions 0..=0, flexible never) {
        group_id: String => 0..;
        topics: Vec<OffsetDeleteRequestTopic> => 0..;
    }

    /// One topic of the group.
    struct OffsetDeleteRequestTopic {
        name: String => 0..;
        partitions: Vec<OffsetDeleteRequestPartition> => 0..;
    }

    /// One partition of the topic.
    struct OffsetDeleteRequestPartition {
        partition_index: i32 => 0..;
    }

    /// What became of each offset.
    message OffsetDeleteResponse (versions 0..=0, flexible never) {
        error_code: ErrorCode => 0..;
        throttle_time_ms: i32 => 0..;
        topics: Vec<OffsetDeleteResponseTopic> => 0..;
    }

    /// One topic of the answer.
    struct OffsetDeleteResponseTopic {
        name: String => 0..;
        partitions: Vec<OffsetDeleteResponsePartition> => 0..;
    }

    /// One partition of the answer.
    struct OffsetDeleteResponsePartition {
        partition_index: i32 => 0..;
        error_code: ErrorCode => 0..;
    }
}
