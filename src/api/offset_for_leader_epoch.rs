//! OffsetForLeaderEpoch (key 23), versions 2-4: where a leader epoch ended (KIP-320). Clients ask
//! after a change of the epoch, to see whether what they read is still there.

use super::fetch::check_leader_epoch;
use super::job::{Answer, Job, Jobs, Return};
use super::{Begun, Facts, Flow, unexpected};
use crate::base::{ErrorCode, PartitionKey};
use crate::state::ShardState;
use crate::wire::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};

/// A request whose partitions are being asked.
#[derive(Debug)]
pub struct Gathering {
    /// What will be answered.
    pub response: OffsetForLeaderEpochResponse,
    places: Vec<(usize, usize)>,
}

/// Asks each partition's owner.
pub fn begin(state: &mut ShardState, facts: &Facts, request: OffsetForLeaderEpochRequest) -> Begun {
    let mut flow = Gathering {
        response: OffsetForLeaderEpochResponse::default(),
        places: Vec::new(),
    };
    let mut jobs = Jobs::new();
    for (topic_index, asked) in request.topics.into_iter().enumerate() {
        let topic = state.image.topic(&asked.topic).cloned();
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for (index, partition) in asked.partitions.into_iter().enumerate() {
            let key = topic
                .as_ref()
                .and_then(|t| state.partition_key(t, partition.partition));
            let code = match key {
                Some(_) => ErrorCode::None,
                None => ErrorCode::UnknownTopicOrPartition,
            };
            partitions.push(unknown(partition.partition, code));
            if let Some(key) = key {
                flow.places.push((topic_index, index));
                jobs.push((state.owner(key), Job::EpochEnd(key, partition)));
            }
        }
        flow.response.topics.push(OffsetForLeaderTopicResult {
            topic: asked.topic,
            partitions,
        });
    }
    if jobs.is_empty() {
        return facts.reply(&flow.response);
    }
    Begun::Gather(jobs, Flow::EpochEnd(flow))
}

impl Gathering {
    /// Takes the answer of one partition.
    pub fn put(&mut self, slot: usize, answer: Answer) {
        let Answer::EpochEnd(answer) = answer else {
            unexpected(&answer)
        };
        let (topic, partition) = self.places[slot];
        self.response.topics[topic].partitions[partition] = answer;
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
