//! `DescribeTopicPartitions`, API key 75: partitions of topics, page by page (KIP-966).
//!
//! Null for the next cursor says that this was the last page. Flexible from the start.

use crate::base::{ErrorCode, TopicId};
use crate::wire::table::messages;

messages! {
    /// Topics to describe, and where to go on.
    request DescribeTopicPartitionsRequest -> DescribeTopicPartitionsResponse
    (key 75, versions 0..=0, flexible 0..) {
        /// By name; none for all.
        topics: Vec<TopicRequest> => 0..;
        response_partition_limit: i32 = 2_000 => 0..;
        cursor: Option<Cursor> = None => 0.., null 0..;
    }

    /// One topic to describe.
    struct TopicRequest {
        name: String => 0..;
    }

    /// The first partition of a page.
    struct Cursor {
        topic_name: String => 0..;
        partition_index: i32 => 0..;
    }

    /// One page of partitions.
    message DescribeTopicPartitionsResponse (versions 0..=0, flexible 0..) {
        throttle_time_ms: i32 => 0..;
        topics: Vec<DescribeTopicPartitionsResponseTopic> => 0..;
        /// Null on the last page.
        next_cursor: Option<Cursor> = None => 0.., null 0..;
    }

    /// One topic.
    struct DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode => 0..;
        name: Option<String> => 0.., null 0..;
        topic_id: TopicId => 0..;
        is_internal: bool => 0..;
        partitions: Vec<DescribeTopicPartitionsResponsePartition> => 0..;
        topic_authorized_operations: i32 = i32::MIN => 0..;
    }

    /// One partition.
    struct DescribeTopicPartitionsResponsePartition {
        error_code: ErrorCode => 0..;
        partition_index: i32 => 0..;
        leader_id: i32 => 0..;
        leader_epoch: i32 = -1 => 0..;
        replica_nodes: Vec<i32> => 0..;
        isr_nodes: Vec<i32> => 0..;
        /// Replicas out of sync that may still lead (KIP-966).
        eligible_leader_replicas: Option<Vec<i32>> = None => 0.., null 0..;
        last_known_elr: Option<Vec<i32>> = None => 0.., null 0..;
        offline_replicas: Vec<i32> => 0..;
    }
}
