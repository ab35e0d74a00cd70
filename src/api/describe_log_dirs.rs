//! DescribeLogDirs (key 35), versions 1-5: sizes of partitions, and of the data directory's file
//! system from version 4 (KIP-827).

use super::job::{Answer, Job, Return};
use super::{Begun, Facts, Flow, unexpected};
use crate::base::PartitionKey;
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
        for (key, size) in &self.sizes {
            let Some(topic) = state.image.topic_by_id(key.topic) else {
                continue;
            };
            let asked = asked.as_ref();
            if asked.is_none_or(|asked| asked.contains(&(topic.name.as_str(), key.partition))) {
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
        let result = DescribeLogDirsResult {
            log_dir: state.data_dir.clone(),
            topics: topics.collect(),
            ..DescribeLogDirsResult::default()
        };
        facts.reply(&DescribeLogDirsResponse {
            results: vec![result],
            ..DescribeLogDirsResponse::default()
        })
    }
}

/// Sums up the partitions of one shard.
pub fn perform(state: &mut ShardState, to: Return) {
    let sizes = state
        .partitions
        .iter()
        .map(|(key, p)| (*key, p.log.size_bytes()))
        .collect();
    state.answer(to, Answer::LogDirs(sizes));
}
