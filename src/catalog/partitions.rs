//! How many partitions a topic has: at its creation and when it grows.
//!
//! On one node every partition has this node as its only replica, so an assignment can only be
//! right
//! or wrong; it never changes anything.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use super::{
    Catalog, Decision, Image, PARTITIONS_PER_REQUEST_MAX, Refusal, broker_settings, topics,
};
use crate::base::{ErrorCode, TopicId};
use crate::wire::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResult,
};
use crate::wire::messages::create_topics::CreatableTopic;
use crate::wire::records::encode_metadata;
use crate::wire::records::metadata::PartitionRecord;

impl Catalog {
    /// Answers CreatePartitions (KIP-195).
    pub fn create_partitions(
        &mut self,
        request: &CreatePartitionsRequest,
    ) -> Decision<CreatePartitionsResponse> {
        let names = request.topics.iter().map(|topic| topic.name.as_str());
        let duplicates = topics::duplicates(names);
        let mut records = Vec::new();
        let mut answered = BTreeSet::new();
        let mut left = PARTITIONS_PER_REQUEST_MAX;
        let mut room = room(&self.image);
        let mut results = Vec::new();
        for topic in &request.topics {
            if !answered.insert(&topic.name) {
                continue;
            }
            let decided = match duplicates.contains(topic.name.as_str()) {
                true => Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    "Duplicate topic name.",
                )),
                false => decide_growth(&self.image, topic, &mut left, &mut room),
            };
            let mut result = CreatePartitionsTopicResult {
                name: topic.name.clone(),
                ..Default::default()
            };
            match decided {
                Ok((id, added)) if !request.validate_only => {
                    append(&self.image, id, added, &mut records);
                }
                Ok(_) => {}
                Err(refusal) => {
                    result.error_code = refusal.code;
                    result.error_message = refusal.message;
                }
            }
            results.push(result);
        }
        (
            records,
            CreatePartitionsResponse {
                results,
                ..Default::default()
            },
        )
    }
}

/// The number of partitions of a new topic.
pub(super) fn decide_count(image: &Image, wanted: &CreatableTopic) -> Result<i32, Refusal> {
    let refuse = |code, message: &str| Err(Refusal::new(code, message));
    if wanted.assignments.is_empty() {
        match wanted.replication_factor {
            -1 | 1 => {}
            ..=0 => {
                return refuse(
                    ErrorCode::InvalidReplicationFactor,
                    "Replication factor must be larger than 0, or -1 to use the default value.",
                );
            }
            factor => return Err(too_many_replicas(factor)),
        }
        return match wanted.num_partitions {
            -1 => Ok(broker_settings(image).num_partitions),
            ..=0 => refuse(
                ErrorCode::InvalidPartitions,
                "Number of partitions was set to an invalid non-positive value.",
            ),
            count => Ok(count),
        };
    }
    if wanted.replication_factor != -1 {
        return refuse(
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but replication factor was not set to \
             -1.",
        );
    }
    if wanted.num_partitions != -1 {
        return refuse(
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        );
    }
    let mut indexes = BTreeSet::new();
    for assignment in &wanted.assignments {
        if !indexes.insert(assignment.partition_index) {
            let message = format!(
                "Found multiple manual partition assignments for partition {}",
                assignment.partition_index
            );
            return refuse(ErrorCode::InvalidReplicaAssignment, &message);
        }
        check_replicas(image, &assignment.broker_ids)?;
    }
    let count = i32::try_from(indexes.len()).map_err(|_| too_many())?;
    if !indexes.into_iter().eq(0..count) {
        return refuse(
            ErrorCode::InvalidReplicaAssignment,
            "partitions should be a consecutive 0-based integer sequence",
        );
    }
    Ok(count)
}

/// The records of the partitions `added` of a topic.
pub(super) fn append(image: &Image, topic: TopicId, added: Range<i32>, records: &mut Vec<Bytes>) {
    let node = vec![image.node_id().0];
    records.extend(added.map(|partition_id| {
        let record = PartitionRecord {
            partition_id,
            topic_id: topic,
            replicas: node.clone(),
            isr: node.clone(),
            leader: image.node_id().0,
            leader_epoch: 0,
            partition_epoch: 0,
            // Kafka's DirectoryId.UNASSIGNED: this node has one directory only.
            directories: vec![uuid::Uuid::nil()],
            ..Default::default()
        };
        encode_metadata(&record, 2)
    }));
}

/// Partitions that may still be created: `max.partitions` less those that there are.
pub(super) fn room(image: &Image) -> i64 {
    let there = image.topics().map(|topic| i64::from(topic.partitions));
    i64::from(broker_settings(image).partitions_max) - there.sum::<i64>()
}

/// Takes new partitions off `room`.
pub(super) fn take_room(image: &Image, room: &mut i64, count: i32) -> Result<(), Refusal> {
    if i64::from(count) > *room {
        let message = format!(
            "The broker would have more than {} partitions (max.partitions).",
            broker_settings(image).partitions_max
        );
        return Err(Refusal::new(ErrorCode::PolicyViolation, message));
    }
    *room -= i64::from(count);
    Ok(())
}

/// One request wants more than [`PARTITIONS_PER_REQUEST_MAX`].
pub(super) fn too_many() -> Refusal {
    let message = "Excessively large number of partitions per request.";
    Refusal::new(ErrorCode::PolicyViolation, message)
}

/// The topic's id and the partitions it gets; takes them off `left`.
fn decide_growth(
    image: &Image,
    wanted: &CreatePartitionsTopic,
    left: &mut i64,
    room: &mut i64,
) -> Result<(TopicId, Range<i32>), Refusal> {
    let Some(topic) = image.topic(&wanted.name) else {
        return Err(Refusal {
            code: ErrorCode::UnknownTopicOrPartition,
            message: None,
        });
    };
    let (name, now) = (&topic.name, topic.partitions);
    let refuse = |code, message: String| Err(Refusal::new(code, message));
    if topic.internal {
        // Kafka lets it grow, and loses sight of the groups that then belong elsewhere.
        let message = format!(
            "The internal topic {name} keeps its {now} partition(s): they were shared out among \
             the groups when it was created."
        );
        return refuse(ErrorCode::InvalidRequest, message);
    }
    if wanted.count == now {
        let message = format!("Topic already has {now} partition(s).");
        return refuse(ErrorCode::InvalidPartitions, message);
    }
    if wanted.count < now {
        let message = format!(
            "The topic {name} currently has {now} partition(s); {} would not be an increase.",
            wanted.count
        );
        return refuse(ErrorCode::InvalidPartitions, message);
    }
    let added = wanted.count - now;
    if let Some(assignments) = &wanted.assignments {
        if assignments.len() != added as usize {
            let message = format!(
                "Attempted to add {added} additional partition(s), but only {} assignment(s) were \
                 specified.",
                assignments.len()
            );
            return refuse(ErrorCode::InvalidReplicaAssignment, message);
        }
        assignments
            .iter()
            .try_for_each(|one| check_replicas(image, &one.broker_ids))?;
    }
    if i64::from(added) > *left {
        return Err(too_many());
    }
    take_room(image, room, added)?;
    *left -= i64::from(added);
    Ok((topic.id, now..wanted.count))
}

/// Checks the replicas that a request gives a partition: this node, once.
fn check_replicas(image: &Image, brokers: &[i32]) -> Result<(), Refusal> {
    let node = image.node_id().0;
    let why = match brokers {
        [only] if image.is_node(*only) => return Ok(()),
        [] => "an empty replica list.".to_owned(),
        _ => match brokers.iter().find(|broker| !image.is_node(**broker)) {
            Some(other) => format!("broker {other}, but no such broker is registered."),
            None => format!("the broker {node} more than once."),
        },
    };
    let message = format!("The manual partition assignment includes {why}");
    Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message))
}

fn too_many_replicas(factor: i16) -> Refusal {
    let message = format!(
        "Unable to replicate the partition {factor} time(s): The target replication factor of \
         {factor} cannot be reached because only 1 broker(s) are registered."
    );
    Refusal::new(ErrorCode::InvalidReplicationFactor, message)
}
