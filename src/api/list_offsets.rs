//! ListOffsets (key 2), versions 1-11: offsets by time.
//!
//! Special timestamps: -2 earliest, -1 latest (high watermark, or last stable offset for
//! read_committed), -3 the record with the largest timestamp (KIP-734), -4 earliest local (nothing
//! is tiered, so the same as -2), -5 latest tiered and -6 earliest pending upload (none).
//! A time after every record answers offset -1 and no error.

use super::fetch::check_leader_epoch;
use super::job::{Answer, Job, Return};
use super::scatter::Scatter;
use super::{Begun, Facts, Flow};
use crate::base::{ErrorCode, PartitionKey};
use crate::state::{Partition, ShardState};
use crate::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// Asks each partition's owner.
pub fn begin(state: &mut ShardState, facts: &Facts, request: ListOffsetsRequest) -> Begun {
    let topics = request.topics.into_iter();
    Scatter::begin(
        state,
        facts,
        topics.map(|topic| (topic.name, topic.partitions)),
        |question| question.partition_index,
        unknown,
        Job::ListOffset,
        Flow::ListOffsets,
    )
}

/// What they have answered.
pub fn response(answers: Scatter<ListOffsetsPartitionResponse>) -> ListOffsetsResponse {
    ListOffsetsResponse {
        topics: answers
            .into_topics(|(name, partitions)| ListOffsetsTopicResponse { name, partitions }),
        ..ListOffsetsResponse::default()
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
