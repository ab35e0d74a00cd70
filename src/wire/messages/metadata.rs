//! `Metadata`, API key 3: brokers, topics and who leads which partition.
//!
//! In version 0 an empty topic list asks for all topics, from 1 on null does. Version 4 lets the
//! client forbid auto-creation, 9 is flexible, 10 adds topic ids and 12 lookup by id (KIP-516), 13
//! a top-level error (KIP-1102).

use crate::base::{ErrorCode, TopicId};
use crate::wire::table::messages;

messages! {
    /// Topics to describe.
    request MetadataRequest -> MetadataResponse
    (key 3, versions 0..=13, flexible 9..) {
        /// Null for all topics; in version 0 empty means all.
        topics: Option<Vec<MetadataRequestTopic>> => 0.., null 1..;
        allow_auto_topic_creation: bool = true => 4..;
        include_cluster_authorized_operations: bool => 8..=10;
        include_topic_authorized_operations: bool => 8..;
    }

    /// A topic by name, or by id from version 12 on.
    struct MetadataRequestTopic {
        topic_id: TopicId => 10..;
        /// Null where the id stands.
        name: Option<String> => 0.., null 10..;
    }

    /// The cluster as this broker sees it.
    message MetadataResponse (versions 0..=13, flexible 9..) {
        throttle_time_ms: i32 => 3..;
        brokers: Vec<MetadataResponseBroker> => 0..;
        cluster_id: Option<String> = None => 2.., null 2..;
        controller_id: i32 = -1 => 1..;
        topics: Vec<MetadataResponseTopic> => 0..;
        /// Bits of allowed operations (KIP-430); the least number for "not asked".
        cluster_authorized_operations: i32 = i32::MIN => 8..=10;
        error_code: ErrorCode => 13..;
    }

    /// Where a broker listens.
    struct MetadataResponseBroker {
        node_id: i32 => 0..;
        host: String => 0..;
        port: i32 => 0..;
        rack: Option<String> = None => 1.., null 1..;
    }

    /// One topic.
    struct MetadataResponseTopic {
        error_code: ErrorCode => 0..;
        /// Null if an unknown id was asked for.
        name: Option<String> => 0.., null 12..;
        topic_id: TopicId => 10..;
        is_internal: bool => 1..;
        partitions: Vec<MetadataResponsePartition> => 0..;
        topic_authorized_operations: i32 = i32::MIN => 8..;
    }

    /// One partition.
    struct MetadataResponsePartition {
        error_code: ErrorCode => 0..;
        partition_index: i32 => 0..;
        /// -1 for none.
        leader_id: i32 => 0..;
        leader_epoch: i32 = -1 => 7..;
        replica_nodes: Vec<i32> => 0..;
        isr_nodes: Vec<i32> => 0..;
        offline_replicas: Vec<i32> => 5..;
    }
}
