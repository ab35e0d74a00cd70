//! `DescribeProducers`, API key 61: the producers that wrote to partitions lately (KIP-664).
//! Flexible from the start.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Partitions to look at.
    request DescribeProducersRequest -> DescribeProducersResponse
    (key 61, versions 0..=0, flexible 0..) {
        topics: Vec<TopicRequest> => 0..;
    }

    /// One topic to look at.
    struct TopicRequest {
        name: String => 0..;
        partition_indexes: Vec<i32> => 0..;
    }

    /// The producers, by partition.
    message DescribeProducersResponse (versions 0..=0, flexible 0..) {
        throttle_time_ms: i32 => 0..;
        topics: Vec<TopicResponse> => 0..;
    }

    /// One topic of the answer.
    struct TopicResponse {
        name: String => 0..;
        partitions: Vec<PartitionResponse> => 0..;
    }

    /// One partition of the answer.
    struct PartitionResponse {
        partition_index: i32 => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<String> = None => 0.., null 0..;
        active_producers: Vec<ProducerState> => 0..;
    }

    /// What the partition remembers of one producer.
    struct ProducerState {
        producer_id: i64 => 0..;
        producer_epoch: i32 => 0..;
        last_sequence: i32 = -1 => 0..;
        /// Milliseconds since 1970.
        last_timestamp: i64 = -1 => 0..;
        coordinator_epoch: i32 => 0..;
        /// -1 outside a transaction.
        current_txn_start_offset: i64 = -1 => 0..;
    }
}
