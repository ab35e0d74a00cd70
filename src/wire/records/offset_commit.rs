//! Committed offsets in `__consumer_offsets`.
//!
//! Key type 1; Kafka also reads 0 of its oldest versions. Value version 3 adds the leader epoch, 1
//! is written while an offset carries its own expiry, 4 adds the topic id.

use crate::base::TopicId;
use crate::wire::table::messages;

messages! {
    /// Whose position in which partition.
    record OffsetCommitKey (key 1, versions 0..=0, flexible never) {
        group: String => 0..=0;
        topic: String => 0..=0;
        partition: i32 => 0..=0;
    }

    /// A committed position. No value (a tombstone) removes it.
    message OffsetCommitValue (versions 0..=4, flexible 4..) {
        /// The next record to read.
        offset: i64 => 0..;
        leader_epoch: i32 = -1 => 3..;
        metadata: String => 0..;
        /// Milliseconds since 1970.
        commit_timestamp: i64 => 0..;
        /// Only of old clients that set a retention time.
        expire_timestamp: i64 = -1 => 1..=1;
        ..tagged {
            0 => topic_id: TopicId => 4..;
        }
    }
}
