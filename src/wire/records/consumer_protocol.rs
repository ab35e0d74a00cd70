//! What consumers put into the opaque bytes of the group protocol.
//!
//! The broker never looks inside; clients and tools do. The bytes start with the version as int16.
//! Version 1 adds owned partitions, 2 the generation that owned them, 3 the rack.

use bytes::Bytes;

use crate::wire::table::messages;

messages! {
    /// What a consumer tells its leader: the `metadata` of a join.
    message ConsumerProtocolSubscription (versions 0..=3, flexible never) {
        topics: Vec<String> => 0..;
        user_data: Option<Bytes> = None => 0.., null 0..;
        /// What it holds now, for cooperative rebalancing (KIP-429).
        owned_partitions: Vec<TopicPartition> => 1..;
        generation_id: i32 = -1 => 2..;
        rack_id: Option<String> = None => 3.., null 3..;
    }

    /// Partitions of one topic.
    struct TopicPartition {
        topic: String => 0..;
        partitions: Vec<i32> => 0..;
    }

    /// What the leader tells a consumer: the `assignment` of a sync.
    message ConsumerProtocolAssignment (versions 0..=3, flexible never) {
        assigned_partitions: Vec<TopicPartition> => 0..;
        user_data: Option<Bytes> = None => 0.., null 0..;
    }
}
