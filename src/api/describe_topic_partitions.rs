//! DescribeTopicPartitions (key 75), version 0: topics in name order, a bounded number of
//! partitions at a time (KIP-966). What did not fit is named by the cursor.

use super::metadata::TOPIC_OPERATIONS;
use super::{Begun, Facts};
use crate::base::{ErrorCode, PartitionKey};
use crate::catalog::{self, Topic};
use crate::state::ShardState;
use crate::wire::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use std::collections::BTreeSet;

/// Answers from the image.
pub fn begin(
    state: &mut ShardState,
    facts: &Facts,
    request: DescribeTopicPartitionsRequest,
) -> Begun {
    let (first_topic, mut first_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
        None => ("", 0),
    };
    if first_partition < 0 {
        first_partition = 0;
    }
    let names: BTreeSet<&str> = match request.topics.is_empty() {
        true => state
            .image
            .topics()
            .map(|topic| topic.name.as_str())
            .collect(),
        false => request
            .topics
            .iter()
            .map(|topic| topic.name.as_str())
            .collect(),
    };
    let limit = i32::try_from(state.broker.described_partitions_max).unwrap_or(i32::MAX);
    let mut left = request.response_partition_limit.clamp(1, limit.max(1));
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names.into_iter().filter(|name| *name >= first_topic) {
        let first = if name == first_topic {
            first_partition
        } else {
            0
        };
        if left == 0 {
            response.next_cursor = Some(Cursor {
                topic_name: name.to_owned(),
                partition_index: first,
            });
            break;
        }
        let Some(topic) = state.image.topic(name) else {
            response.topics.push(unknown(name));
            continue;
        };
        let end = topic.partitions.min(first.saturating_add(left));
        response.topics.push(known(state, topic, first..end));
        left -= (end - first).max(0);
        if end < topic.partitions {
            response.next_cursor = Some(Cursor {
                topic_name: name.to_owned(),
                partition_index: end,
            });
            break;
        }
    }
    facts.reply(&response)
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error_code = match catalog::check_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopic,
    };
    DescribeTopicPartitionsResponseTopic {
        error_code,
        name: Some(name.to_owned()),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn known(
    state: &ShardState,
    topic: &Topic,
    partitions: std::ops::Range<i32>,
) -> DescribeTopicPartitionsResponseTopic {
    let partition = |partition| {
        let topic = topic.id;
        let key = PartitionKey { topic, partition };
        let (replicas, leader) = (vec![state.leader(key)], state.live_leader(key));
        let online = DescribeTopicPartitionsResponsePartition {
            partition_index: partition,
            leader_id: leader.unwrap_or(-1),
            leader_epoch: state.leader_epoch,
            replica_nodes: replicas.clone(),
            isr_nodes: leader.into_iter().collect(),
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            ..DescribeTopicPartitionsResponsePartition::default()
        };
        match leader {
            Some(_) => online,
            None => DescribeTopicPartitionsResponsePartition {
                error_code: ErrorCode::LeaderNotAvailable,
                offline_replicas: replicas,
                ..online
            },
        }
    };
    DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.internal,
        partitions: partitions.map(partition).collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}
