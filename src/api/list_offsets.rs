//! ListOffsets (key 2), versions 1-11: offsets by time.
//!
//! Special timestamps: -2 earliest, -1 latest (high watermark, or last stable offset for
//! read_committed), -3 the record with the largest timestamp (KIP-734), -4 earliest local (nothing
//! is tiered, so the same as -2), -5 latest tiered and -6 earliest pending upload (none).
//! A time after every record answers offset -1 and no error.

use super::fetch::check_leader_epoch;
use super::job::{Answer, Job, Jobs, Return};
use super::{Begun, Facts, Flow, unexpected};
use crate::base::{ErrorCode, PartitionKey};
use crate::state::{Partition, ShardState};
use crate::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use std::collections::BTreeSet;

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// A request whose partitions are being asked.
#[derive(Debug)]
pub struct Gathering {
    /// What will be answered.
    pub response: ListOffsetsResponse,
    places: Vec<(usize, usize)>,
}

/// Asks each partition's owner.
pub fn begin(state: &mut ShardState, facts: &Facts, request: ListOffsetsRequest) -> Begun {
    let mut flow = Gathering {
        response: ListOffsetsResponse::default(),
        places: Vec::new(),
    };
    let mut jobs = Jobs::new();
    let mut seen = BTreeSet::new();
    for (topic_index, asked) in request.topics.into_iter().enumerate() {
        let topic = state.image.topic(&asked.name).cloned();
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for (index, partition) in asked.partitions.into_iter().enumerate() {
            let key = topic
                .as_ref()
                .and_then(|t| state.partition_key(t, partition.partition_index));
            let code = match key {
                // Each may cost much: one answer for each partition.
                Some(key) if !seen.insert(key) => ErrorCode::InvalidRequest,
                Some(_) => ErrorCode::None,
                None => ErrorCode::UnknownTopicOrPartition,
            };
            partitions.push(unknown(partition.partition_index, code));
            if let Some(key) = key.filter(|_| !code.is_error()) {
                flow.places.push((topic_index, index));
                jobs.push((state.owner(key), Job::ListOffset(key, partition)));
            }
        }
        flow.response.topics.push(ListOffsetsTopicResponse {
            name: asked.name,
            partitions,
        });
    }
    if jobs.is_empty() {
        return facts.reply(&flow.response);
    }
    Begun::Gather(jobs, Flow::ListOffsets(flow))
}

impl Gathering {
    /// Takes the answer of one partition.
    pub fn put(&mut self, slot: usize, answer: Answer) {
        let Answer::ListOffset(answer) = answer else {
            unexpected(&answer)
        };
        let (topic, partition) = self.places[slot];
        self.response.topics[topic].partitions[partition] = answer;
    }
}

/// Looks the offset up on the partition's owner.
pub fn perform(
    state: &mut ShardState,
    to: Return,
    key: PartitionKey,
    request: &ListOffsetsPartition,
) {
    let found = state
        .owned(key)
        .and_then(|partition| look_up(partition, request));
    let answer = found.unwrap_or_else(|code| unknown(request.partition_index, code));
    state.answer(to, Answer::ListOffset(answer));
}

fn unknown(partition_index: i32, error_code: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index,
        error_code,
        ..ListOffsetsPartitionResponse::default()
    }
}

fn look_up(
    partition: &mut Partition,
    request: &ListOffsetsPartition,
) -> Result<ListOffsetsPartitionResponse, ErrorCode> {
    check_leader_epoch(partition, request.current_leader_epoch)?;
    let Partition { log, dir, .. } = partition;
    let mut answer = unknown(request.partition_index, ErrorCode::None);
    let found = match request.timestamp {
        EARLIEST | EARLIEST_LOCAL => {
            answer.offset = log.log_start_offset();
            answer.leader_epoch = log.epoch_at(answer.offset);
            None
        }
        LATEST => {
            answer.offset = log.high_watermark();
            answer.leader_epoch = log.leader_epoch();
            None
        }
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => None,
        MAX_TIMESTAMP => log
            .offset_of_max_timestamp(dir.as_mut())
            .map_err(|e| e.code())?,
        timestamp if timestamp >= 0 => log
            .offset_for_timestamp(dir.as_mut(), timestamp)
            .map_err(|e| e.code())?,
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    if let Some((offset, timestamp, leader_epoch)) = found {
        (answer.offset, answer.timestamp, answer.leader_epoch) = (offset, timestamp, leader_epoch);
    }
    Ok(answer)
}
