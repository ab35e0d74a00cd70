//! DescribeProducers (key 61), version 0: the idempotent producers a partition remembers.

use super::job::{Answer, Job, Return};
use super::scatter::Scatter;
use super::{Begun, Facts, Flow};
use crate::base::{ErrorCode, PartitionKey};
use crate::log::ProducerInfo;
use crate::state::ShardState;
use crate::wire::messages::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState,
    TopicResponse,
};

/// Asks each partition's owner.
pub fn begin(state: &mut ShardState, facts: &Facts, request: DescribeProducersRequest) -> Begun {
    let topics = request.topics.into_iter();
    Scatter::begin(
        state,
        facts,
        topics.map(|topic| (topic.name, topic.partition_indexes)),
        |index| *index,
        answer,
        |key, _| Job::Producers(key),
        Flow::Producers,
    )
}

/// What they have answered.
pub fn response(answers: Scatter<PartitionResponse>) -> DescribeProducersResponse {
    DescribeProducersResponse {
        topics: answers.into_topics(|(name, partitions)| TopicResponse { name, partitions }),
        ..DescribeProducersResponse::default()
    }
}

/// Lists them on the partition's owner.
pub fn perform(state: &mut ShardState, to: Return, key: PartitionKey) {
    let answer = match state.owned(key) {
        Ok(partition) => PartitionResponse {
            active_producers: partition.log.producers().map(producer_state).collect(),
            ..answer(key.partition, ErrorCode::None)
        },
        Err(code) => answer(key.partition, code),
    };
    state.answer(to, Answer::Producers(answer));
}

fn answer(partition_index: i32, error_code: ErrorCode) -> PartitionResponse {
    PartitionResponse {
        partition_index,
        error_code,
        ..PartitionResponse::default()
    }
}

fn producer_state(producer: ProducerInfo) -> ProducerState {
    ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: i32::from(producer.producer_epoch),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.txn_offset_first,
    }
}
