//! DescribeProducers (key 61), version 0: the idempotent producers a partition remembers.

use super::job::{Answer, Job, Jobs, Return};
use super::{Begun, Facts, Flow, unexpected};
use crate::base::{ErrorCode, PartitionKey};
use crate::log::ProducerInfo;
use crate::state::ShardState;
use crate::wire::messages::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState,
    TopicResponse,
};
use std::collections::BTreeSet;

/// A request whose partitions are being asked.
#[derive(Debug)]
pub struct Gathering {
    /// What will be answered.
    pub response: DescribeProducersResponse,
    places: Vec<(usize, usize)>,
}

/// Asks each partition's owner.
pub fn begin(state: &mut ShardState, facts: &Facts, request: DescribeProducersRequest) -> Begun {
    let mut flow = Gathering {
        response: DescribeProducersResponse::default(),
        places: Vec::new(),
    };
    let mut jobs = Jobs::new();
    let mut seen = BTreeSet::new();
    for (topic_index, asked) in request.topics.into_iter().enumerate() {
        let topic = state.image.topic(&asked.name).cloned();
        let mut partitions = Vec::with_capacity(asked.partition_indexes.len());
        for (index, partition) in asked.partition_indexes.into_iter().enumerate() {
            let key = topic
                .as_ref()
                .and_then(|topic| state.partition_key(topic, partition));
            let code = match key {
                // Each may cost much: one answer for each partition.
                Some(key) if !seen.insert(key) => ErrorCode::InvalidRequest,
                Some(_) => ErrorCode::None,
                None => ErrorCode::UnknownTopicOrPartition,
            };
            partitions.push(response(partition, code));
            if let Some(key) = key.filter(|_| !code.is_error()) {
                flow.places.push((topic_index, index));
                jobs.push((state.owner(key), Job::Producers(key)));
            }
        }
        flow.response.topics.push(TopicResponse {
            name: asked.name,
            partitions,
        });
    }
    if jobs.is_empty() {
        return facts.reply(&flow.response);
    }
    Begun::Gather(jobs, Flow::Producers(flow))
}

impl Gathering {
    /// Takes the answer of one partition.
    pub fn put(&mut self, slot: usize, answer: Answer) {
        let Answer::Producers(answer) = answer else {
            unexpected(&answer)
        };
        let (topic, partition) = self.places[slot];
        self.response.topics[topic].partitions[partition] = answer;
    }
}

/// Lists them on the partition's owner.
pub fn perform(state: &mut ShardState, to: Return, key: PartitionKey) {
    let answer = match state.owned(key) {
        Ok(partition) => PartitionResponse {
            active_producers: partition.log.producers().map(producer_state).collect(),
            ..response(key.partition, ErrorCode::None)
        },
        Err(code) => response(key.partition, code),
    };
    state.answer(to, Answer::Producers(answer));
}

fn response(partition_index: i32, error_code: ErrorCode) -> PartitionResponse {
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
