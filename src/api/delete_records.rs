//! DeleteRecords (key 21), versions 0-2: moves the log start offset of partitions forward.
//! Offset -1 means the high watermark.

use super::job::{Answer, Job, Return};
use super::scatter::Scatter;
use super::{Begun, Facts, Flow};
use crate::base::dir::is_out_of_room;
use crate::base::{ErrorCode, Offset, PartitionKey};
use crate::log::ReadError;
use crate::state::ShardState;
use crate::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteRecordsTopicResult,
};

/// Asks each partition's owner.
pub fn begin(state: &mut ShardState, facts: &Facts, request: DeleteRecordsRequest) -> Begun {
    let topics = request.topics.into_iter();
    Scatter::begin(
        state,
        facts,
        topics.map(|topic| (topic.name, topic.partitions)),
        |question| question.partition_index,
        refused,
        Job::DeleteRecords,
        Flow::DeleteRecords,
    )
}

/// What they have answered.
pub fn response(answers: Scatter<DeleteRecordsPartitionResult>) -> DeleteRecordsResponse {
    DeleteRecordsResponse {
        topics: answers
            .into_topics(|(name, partitions)| DeleteRecordsTopicResult { name, partitions }),
        ..DeleteRecordsResponse::default()
    }
}

/// Cuts the log on the partition's owner.
pub fn perform(
    state: &mut ShardState,
    to: Return,
    key: PartitionKey,
    request: &DeleteRecordsPartition,
) {
    let answer = match cut(state, key, request.offset) {
        Ok(low_watermark) => DeleteRecordsPartitionResult {
            low_watermark,
            ..refused(request.partition_index, ErrorCode::None)
        },
        Err(code) => refused(request.partition_index, code),
    };
    state.answer(to, Answer::DeleteRecords(answer));
}

fn cut(state: &mut ShardState, key: PartitionKey, before: Offset) -> Result<Offset, ErrorCode> {
    let partition = state.owned(key)?;
    // As Kafka protects its internal topics, and those that only compaction may shorten.
    if partition.topic.internal {
        return Err(ErrorCode::InvalidTopic);
    }
    if partition.settings.compact && !partition.settings.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let cut = partition.log.delete_records(partition.dir.as_mut(), before);
    cut.map_err(|error| {
        let code = error.code();
        if let ReadError::Io(error) = error
            && !is_out_of_room(&error)
        {
            state.broken.push((key, error));
        }
        code
    })
}

fn refused(partition_index: i32, error_code: ErrorCode) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult {
        partition_index,
        error_code,
        low_watermark: -1,
    }
}
