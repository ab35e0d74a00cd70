//! `OffsetForLeaderEpoch`, API key 23: where a leader epoch ends, so that a reader notices
//! truncation.
//!
//! Version 3 adds the replica id (its default, -2, marks requests that cannot say who asks), 4 is
//! flexible.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Epochs to find the ends of.
    request OffsetForLeaderEpochRequest -> OffsetForLeaderEpochResponse
    (key 23, versions 2..=4, flexible 4..) {
        /// Broker id of a follower, -1 for a consumer.
        replica_id: i32 = -2 => 3..;
        topics: Vec<OffsetForLeaderTopic> => 0..;
    }

    /// One topic to look at.
    struct OffsetForLeaderTopic {
        topic: String => 0..;
        partitions: Vec<OffsetForLeaderPartition> => 0..;
    }

    /// One partition to look at.
    struct OffsetForLeaderPartition {
        partition: i32 => 0..;
        current_leader_epoch: i32 = -1 => 2..;
        /// The epoch whose end is asked for.
        leader_epoch: i32 => 0..;
    }

    /// The ends of the epochs.
    message OffsetForLeaderEpochResponse (versions 2..=4, flexible 4..) {
        throttle_time_ms: i32 => 2..;
        topics: Vec<OffsetForLeaderTopicResult> => 0..;
    }

    /// One topic of the answer.
    struct OffsetForLeaderTopicResult {
        topic: String => 0..;
        partitions: Vec<EpochEndOffset> => 0..;
    }

    /// End of the epoch in one partition.
    struct EpochEndOffset {
        error_code: ErrorCode => 0..;
        partition: i32 => 0..;
        /// The largest epoch not above the asked one, -1 for none.
        leader_epoch: i32 = -1 => 1..;
        /// Where it ends, exclusive; -1 for none.
        end_offset: i64 = -1 => 0..;
    }
}
