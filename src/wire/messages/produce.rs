//! `Produce`, API key 0: producers append record batches.
//!
//! Versions below 3 carry old message formats and are gone, yet the broker advertises 0 (old
//! librdkafka looks for it). Version 9 is flexible, 10 adds the current leader to refusals
//! (KIP-951), 13 names topics by id instead of by name (KIP-516).

use bytes::Bytes;
use bytestring::ByteString;

use crate::base::{ErrorCode, Few, TopicId};
use crate::wire::table::messages;

messages! {
    /// Batches to append, by topic and partition.
    request ProduceRequest -> ProduceResponse
    (key 0, versions 3..=13, flexible 9..) {
        /// Only for transactional producers.
        transactional_id: Option<String> = None => 3.., null 3..;
        /// 0: no response; 1: after the write; -1: after all in-sync replicas.
        acks: i16 => 0..;
        /// How long to wait for the replicas.
        timeout_ms: i32 => 0..;
        topic_data: Few<TopicProduceData> => 0..;
    }

    /// One topic of a produce request.
    struct TopicProduceData {
        name: ByteString => 0..=12;
        topic_id: TopicId => 13..;
        partition_data: Few<PartitionProduceData> => 0..;
    }

    /// What one partition gets.
    struct PartitionProduceData {
        index: i32 => 0..;
        /// One batch of magic 2, a slice of the request.
        records: Option<Bytes> = None => 0.., null 0..;
    }

    /// Where the batches went. There is none for acks=0.
    message ProduceResponse (versions 3..=13, flexible 9..) {
        responses: Few<TopicProduceResponse> => 0..;
        throttle_time_ms: i32 => 1..;
        ..tagged {
            0 => node_endpoints: Vec<NodeEndpoint> => 10..;
        }
    }

    /// One topic of a produce response.
    struct TopicProduceResponse {
        name: ByteString => 0..=12;
        topic_id: TopicId => 13..;
        partition_responses: Few<PartitionProduceResponse> => 0..;
    }

    /// The fate of one partition's batch.
    struct PartitionProduceResponse {
        index: i32 => 0..;
        error_code: ErrorCode => 0..;
        /// Offset given to the first record.
        base_offset: i64 => 0..;
        /// The broker's time if it stamps the topic's records, else -1.
        log_append_time_ms: i64 = -1 => 2..;
        log_start_offset: i64 = -1 => 5..;
        /// Why single records were refused.
        record_errors: Vec<BatchIndexAndErrorMessage> => 8..;
        error_message: Option<String> = None => 8.., null 8..;
        ..tagged {
            0 => current_leader: LeaderIdAndEpoch => 10..;
        }
    }

    /// A record that made its batch fail (KIP-467).
    struct BatchIndexAndErrorMessage {
        /// Index of the record in its batch, from 0.
        batch_index: i32 => 8..;
        batch_index_error_message: Option<String> = None => 8.., null 8..;
    }

    /// Who leads now, for a client that asked the wrong broker.
    struct LeaderIdAndEpoch {
        leader_id: i32 = -1 => 10..;
        leader_epoch: i32 = -1 => 10..;
    }

    /// Where a leader named in the response listens.
    struct NodeEndpoint {
        node_id: i32 => 10..;
        host: String => 10..;
        port: i32 => 10..;
        rack: Option<String> = None => 10.., null 10..;
    }
}
