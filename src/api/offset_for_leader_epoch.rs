//! OffsetForLeaderEpoch (key 23), versions 2-4: where a leader epoch ended (KIP-320). Clients ask
//! after a change of the epoch, to see whether what they read is still there.

use super::fetch::check_leader_epoch;
use super::job::{Answer, Job, Return};
use super::scatter::Scatter;
use super::{Begun, Facts, Flow};
use crate::base::{ErrorCode, PartitionKey};
use crate::state::ShardState;
use crate::wire::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};

/// Asks each partition's owner.
pub fn begin(state: &mut ShardState, facts: &Facts, request: OffsetForLeaderEpochRequest) -> Begun {
    let topics = request.topics.into_iter();
    Scatter::begin(
        state,
        facts,
        topics.map(|topic| (topic.topic, topic.partitions)),
        |question| question.partition,
        unknown,
        Job::EpochEnd,
        Flow::EpochEnd,
    )
}

/// What they have answered.
pub fn response(answers: Scatter<EpochEndOffset>) -> OffsetForLeaderEpochResponse {
    OffsetForLeaderEpochResponse {
        topics: answers
            .into_topics(|(topic, partitions)| OffsetForLeaderTopicResult { topic, partitions }),
        ..OffsetForLeaderEpochResponse::default()
    }
}

/// Looks the epoch up on the partition's owner.
pub fn perform(
    state: &mut ShardState,
    to: Return,
    key: PartitionKey,
    request: &OffsetForLeaderPartition,
) {
    let found = state.owned(key).and_then(|partition| {
        check_leader_epoch(partition, request.current_leader_epoch)?;
        Ok(partition.log.end_offset_for_epoch(request.leader_epoch))
    });
    let answer = match found {
        Ok((leader_epoch, end_offset)) => EpochEndOffset {
            leader_epoch,
            end_offset,
            ..unknown(request.partition, ErrorCode::None)
        },
        Err(code) => unknown(request.partition, code),
    };
    state.answer(to, Answer::EpochEnd(answer));
}

fn unknown(partition: i32, error_code: ErrorCode) -> EpochEndOffset {
    EpochEndOffset {
        partition,
        error_code,
        ..EpochEndOffset::default()
    }
}
