//! DescribeLogDirs (key 35), versions 1-5: sizes of the partitions in service, and
//! from version 4 of the disk (KIP-827).
//!
//! Kafka tells a failed disk as a log directory with `KAFKA_STORAGE_ERROR` and nothing in it. Here
//! partitions fail one by one, so the directory of each offline one is told in the same way.

use super::job::{Answer, Job, Return};
use super::{Begun, Facts, Flow, unexpected};
use crate::base::{ErrorCode, PartitionKey};
use crate::state::ShardState;
use crate::wire::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};
use std::collections::{BTreeMap, BTreeSet};

/// A request that collects sizes from all shards.
#[derive(Debug)]
pub struct Gathering {
    request: DescribeLogDirsRequest,
    sizes: BTreeMap<PartitionKey, u64>,
}

/// Asks every shard that belongs to the broker asked.
pub fn begin(state: &mut ShardState, _facts: &Facts, request: DescribeLogDirsRequest) -> Begun {
    let shards = state.shards_of_node();
    let jobs = shards.map(|shard| (shard, Job::LogDirs)).collect();
    Begun::Gather(
        jobs,
        Flow::LogDirs(Gathering {
            request,
            sizes: BTreeMap::new(),
        }),
    )
}

impl Gathering {
    /// Takes the sizes of one shard.
    pub fn put(&mut self, answer: Answer) {
        let Answer::LogDirs(sizes) = answer else {
            unexpected(&answer)
        };
        self.sizes.extend(sizes);
    }

    /// Replies with what was asked for: all topics if the request names none.
    pub fn resume(self, state: &mut ShardState, facts: &Facts) -> Begun {
        let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
        let asked = self.request.topics.as_ref().map(|topics| {
            let partitions = topics.iter().flat_map(|topic| {
                let indexes = topic.partitions.iter();
                indexes.map(|index| (topic.topic.as_str(), *index))
            });
            partitions.collect::<BTreeSet<_>>()
        });
        let is_asked = |topic: &str, partition: i32| {
            let asked = asked.as_ref();
            asked.is_none_or(|asked| asked.contains(&(topic, partition)))
        };
        for (key, size) in &self.sizes {
            let Some(topic) = state.image.topic_by_id(key.topic) else {
                continue;
            };
            if is_asked(&topic.name, key.partition) {
                topics
                    .entry(topic.name.clone())
                    .or_default()
                    .push(DescribeLogDirsPartition {
                        partition_index: key.partition,
                        partition_size: i64::try_from(*size).unwrap_or(i64::MAX),
                        ..DescribeLogDirsPartition::default()
                    });
            }
        }
        let topics = topics
            .into_iter()
            .map(|(name, partitions)| DescribeLogDirsTopic { name, partitions });
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let result = DescribeLogDirsResult {
            log_dir: state.data_dir.clone(),
            topics: topics.collect(),
            total_bytes: bytes(state.room.space.total_bytes()),
            usable_bytes: bytes(state.room.space.free_bytes()),
            ..DescribeLogDirsResult::default()
        };
        let mut results = vec![result];
        results.extend(offline(state, is_asked));
        facts.reply(&DescribeLogDirsResponse {
            results,
            ..DescribeLogDirsResponse::default()
        })
    }
}

/// The directories of the offline partitions that were asked for.
fn offline(
    state: &ShardState,
    is_asked: impl Fn(&str, i32) -> bool,
) -> impl Iterator<Item = DescribeLogDirsResult> {
    let asked = move |key: &PartitionKey| {
        let topic = state.image.topic_by_id(key.topic)?;
        is_asked(&topic.name, key.partition).then(|| DescribeLogDirsResult {
            error_code: ErrorCode::KafkaStorageError,
            log_dir: format!("{}/{}-{}", state.data_dir, topic.name, key.partition),
            ..DescribeLogDirsResult::default()
        })
    };
    state.offline.keys().filter_map(asked)
}

/// Sums up the partitions of one shard.
pub fn perform(state: &mut ShardState, to: Return) {
    let sizes = state
        .partitions
        .iter()
        .filter(|(key, _)| !state.offline.contains_key(key))
        .map(|(key, p)| (*key, p.log.size_bytes()))
        .collect();
    state.answer(to, Answer::LogDirs(sizes));
}
