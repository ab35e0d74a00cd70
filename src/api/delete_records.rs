//! DeleteRecords (key 21), versions 0-2: moves the log start offset of partitions forward.
//! Offset -1 means the high watermark.

use super::job::{Answer, Job, Jobs, Return};
use super::{Begun, Facts, Flow, unexpected};
use crate::base::dir::is_disk_full;
use crate::base::{ErrorCode, PartitionKey};
use crate::log::ReadError;
use crate::state::{Partition, ShardState};
use crate::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteRecordsTopicResult,
};

/// A request whose partitions are being cut.
#[derive(Debug)]
pub struct Gathering {
    /// What will be answered.
    pub response: DeleteRecordsResponse,
    places: Vec<(usize, usize)>,
}

/// Asks each partition's owner.
pub fn begin(state: &mut ShardState, facts: &Facts, request: DeleteRecordsRequest) -> Begun {
    let mut flow = Gathering {
        response: DeleteRecordsResponse::default(),
        places: Vec::new(),
    };
    let mut jobs = Jobs::new();
    for (topic_index, asked) in request.topics.into_iter().enumerate() {
        let topic = state.image.topic(&asked.name).cloned();
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for (index, partition) in asked.partitions.into_iter().enumerate() {
            let key = match &topic {
                // Kafka protects its internal topics from this with a policy violation.
                Some(topic) if topic.internal => Err(ErrorCode::PolicyViolation),
                Some(topic) => state
                    .partition_key(topic, partition.partition_index)
                    .ok_or(ErrorCode::UnknownTopicOrPartition),
                None => Err(ErrorCode::UnknownTopicOrPartition),
            };
            partitions.push(refused(
                partition.partition_index,
                key.err().unwrap_or_default(),
            ));
            if let Ok(key) = key {
                flow.places.push((topic_index, index));
                jobs.push((state.owner(key), Job::DeleteRecords(key, partition)));
            }
        }
        flow.response.topics.push(DeleteRecordsTopicResult {
            name: asked.name,
            partitions,
        });
    }
    if jobs.is_empty() {
        return facts.reply(&flow.response);
    }
    Begun::Gather(jobs, Flow::DeleteRecords(flow))
}

impl Gathering {
    /// Takes the answer of one partition.
    pub fn put(&mut self, slot: usize, answer: Answer) {
        let Answer::DeleteRecords(answer) = answer else {
            unexpected(&answer)
        };
        let (topic, partition) = self.places[slot];
        self.response.topics[topic].partitions[partition] = answer;
    }
}

/// Cuts the log on the partition's owner.
pub fn perform(
    state: &mut ShardState,
    to: Return,
    key: PartitionKey,
    request: &DeleteRecordsPartition,
) {
    let cut = match state.owned(key) {
        Ok(Partition { log, dir, .. }) => log.delete_records(dir.as_mut(), request.offset),
        Err(code) => {
            let answer = refused(request.partition_index, code);
            return state.answer(to, Answer::DeleteRecords(answer));
        }
    };
    let answer = match cut {
        Ok(low_watermark) => DeleteRecordsPartitionResult {
            low_watermark,
            ..refused(request.partition_index, ErrorCode::None)
        },
        Err(error) => {
            let code = error.code();
            if let ReadError::Io(error) = error
                && !is_disk_full(&error)
            {
                state.broken.push((key, error));
            }
            refused(request.partition_index, code)
        }
    };
    state.answer(to, Answer::DeleteRecords(answer));
}

fn refused(partition_index: i32, error_code: ErrorCode) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult {
        partition_index,
        error_code,
        low_watermark: -1,
    }
}
