//! Produce (key 0), versions 3-13.
//!
//! - acks: -1 waits for stable storage (see `write.caching`), 1 for the write, 0 has no reply and
//!   closes the connection on an error, as Kafka does.
//! - Transactions are not served: a transactional batch gets `INVALID_TXN_STATE`.
//! - Version 7 is the first that may carry zstd; version 13 names topics by id (KIP-516).
//! - On a full disk (`disk.reserve.bytes`) and on an offline partition a batch gets
//!   `KAFKA_STORAGE_ERROR`, which clients retry, with the reason from version 8 on (KIP-467).
//! - While a partition has more unsynced than `max.unsynced.bytes.per.partition`, every acks waits
//!   for stable storage.
//! - The timeout of the request is not used: a single node either writes or fails.

use super::job::{After, Answer, Job, Jobs, Return};
use super::{Begun, Facts, Flow, unexpected};
use crate::base::planted::{self, Bug};
use crate::base::{ErrorCode, Few, PartitionKey};
use crate::batch::{Codec, Header};
use crate::catalog::Topic;
use crate::log::{AppendError, Origin};
use crate::state::{Outgoing, ShardState};
use crate::wire::messages::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceResponse,
};
use bytes::Bytes;

/// Versions 0-2 are claimed and not served: librdkafka before 2.11.1 looks for version 0 before it
/// compresses (KAFKA-18659), and Kafka claims it for the same reason.
pub const ADVERTISED_MIN: i16 = 0;

/// First version that may carry zstd (KIP-110).
const ZSTD_FROM: i16 = 7;

/// A produce request whose batches are on their way.
#[derive(Debug)]
pub struct Gathering {
    acks: i16,
    response: ProduceResponse,
    /// Topic and partition index in the response, by slot.
    places: Few<(usize, usize)>,
}

/// Sends each partition's batch to its owner.
pub fn begin(state: &mut ShardState, facts: &Facts, request: ProduceRequest) -> Begun {
    let mut flow = Gathering {
        acks: request.acks,
        response: ProduceResponse::default(),
        places: Few::new(),
    };
    let mut jobs = Jobs::new();
    for topic_data in request.topic_data {
        let topic = state.topic(&topic_data.name, topic_data.topic_id).cloned();
        let mut responses = Few::with_capacity(topic_data.partition_data.len());
        for data in topic_data.partition_data {
            let index = data.index;
            let checked = topic.as_ref().map_err(|&code| code).and_then(|topic| {
                check(state, facts, request.acks, topic, &data).map(|key| (key, data.records))
            });
            let mut response = PartitionProduceResponse {
                index,
                ..refused(ErrorCode::None, None)
            };
            match checked {
                Ok((partition, records)) => {
                    flow.places
                        .push((flow.response.responses.len(), responses.len()));
                    let batch = records.unwrap_or_default();
                    let durable = request.acks == -1;
                    jobs.push((
                        state.owner(partition),
                        Job::Append {
                            partition,
                            durable,
                            batch,
                        },
                    ));
                }
                Err(code) => response.error_code = code,
            }
            responses.push(response);
        }
        flow.response.responses.push(TopicProduceResponse {
            name: topic_data.name,
            topic_id: topic_data.topic_id,
            partition_responses: responses,
        });
    }
    if jobs.is_empty() {
        return flow.resume(facts);
    }
    Begun::Gather(jobs, Flow::Produce(flow))
}

/// What can be refused without asking the owner.
fn check(
    state: &ShardState,
    facts: &Facts,
    acks: i16,
    topic: &Topic,
    data: &PartitionProduceData,
) -> Result<PartitionKey, ErrorCode> {
    if !(-1..=1).contains(&acks) {
        return Err(ErrorCode::InvalidRequiredAcks);
    }
    if topic.internal {
        return Err(ErrorCode::InvalidTopic);
    }
    let records = data.records.as_ref().ok_or(ErrorCode::InvalidRecord)?;
    let zstd = Header::parse(records).is_ok_and(|header| header.codec() == Ok(Codec::Zstd));
    if zstd && facts.version < ZSTD_FROM {
        return Err(ErrorCode::UnsupportedCompressionType);
    }
    state
        .partition_key(topic, data.index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)
}

impl Gathering {
    /// Takes the answer of one partition.
    pub fn put(&mut self, slot: usize, answer: Answer) {
        let Answer::Append(answer) = answer else {
            unexpected(&answer)
        };
        let (topic, partition) = self.places[slot];
        let place = &mut self.response.responses[topic].partition_responses[partition];
        *place = PartitionProduceResponse {
            index: place.index,
            ..answer
        };
    }

    /// Replies, unless the client wants no reply.
    pub fn resume(self, facts: &Facts) -> Begun {
        if self.acks != 0 {
            return facts.reply(&self.response);
        }
        let mut partitions = self
            .response
            .responses
            .iter()
            .flat_map(|t| &t.partition_responses);
        match partitions.any(|partition| partition.error_code.is_error()) {
            true => Begun::Close("a produce request with acks=0 failed"),
            false => Begun::Silent,
        }
    }
}

/// Appends one batch on its owner.
pub fn perform(state: &mut ShardState, to: Return, key: PartitionKey, durable: bool, batch: Bytes) {
    let (now, batch_bytes) = (state.now, batch.len() as u64);
    if state.room.space.is_full() && state.owned(key).is_ok() {
        let why = state.room.space.to_string();
        let refused = refused(ErrorCode::KafkaStorageError, Some(why));
        return state.answer(to, Answer::Append(refused));
    }
    let appended = match state.owned(key) {
        Ok(partition) => partition.log.append(now, batch, Origin::Client { durable }),
        Err(code) => {
            let why = state.offline.get(&key).cloned();
            return state.answer(to, Answer::Append(refused(code, why)));
        }
    };
    let appended = match appended {
        Ok(appended) => appended,
        Err(error) => return state.answer(to, Answer::Append(failed(&error))),
    };
    state.room.take(batch_bytes);
    state.queued.insert(key);
    let answer = Answer::Append(PartitionProduceResponse {
        base_offset: appended.base_offset,
        log_append_time_ms: appended.log_append_time_ms,
        log_start_offset: appended.log_start_offset,
        ..PartitionProduceResponse::default()
    });
    let after = match appended.awaited {
        true if planted::is(Bug::AckBeforeSync) => After::Written(key, appended.offset_end),
        true => After::Acknowledged(key, appended.offset_end),
        false if planted::is(Bug::AckBeforeWrite) => After::Now,
        false => After::Written(key, appended.offset_end),
    };
    state.outbox.push(Outgoing { to, answer, after });
}

/// The response for a batch that was not taken.
pub fn refused(error_code: ErrorCode, why: Option<String>) -> PartitionProduceResponse {
    PartitionProduceResponse {
        error_code,
        error_message: why,
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        ..PartitionProduceResponse::default()
    }
}

/// The same with what is wrong, for versions that can say it (KIP-467).
fn failed(error: &AppendError) -> PartitionProduceResponse {
    let record_errors = error
        .record_errors()
        .iter()
        .map(|record| BatchIndexAndErrorMessage {
            batch_index: record.batch_index,
            batch_index_error_message: Some(record.message.to_string()),
        });
    PartitionProduceResponse {
        record_errors: record_errors.collect(),
        ..refused(error.code(), Some(error.to_string()))
    }
}
