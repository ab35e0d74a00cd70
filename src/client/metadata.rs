//! What the client knows about a cluster: brokers, controller, coordinators, topics. A cache only:
//! whoever meets an error that says otherwise has it refreshed.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::{Epoch, ErrorCode, TopicId};
use crate::wire::messages::metadata::{MetadataResponse, MetadataResponseTopic};

/// One topic, as a broker described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its name.
    pub name: String,
    /// Its id; [`TopicId::ZERO`] from brokers before Kafka 2.8.
    pub topic_id: TopicId,
    /// Why it cannot be used, if so: for example `UNKNOWN_TOPIC_OR_PARTITION`.
    pub error: ErrorCode,
    /// True for `__consumer_offsets` and its like.
    pub is_internal: bool,
    /// Its partitions by index.
    pub partitions: Vec<PartitionMetadata>,
}

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Its index within the topic.
    pub partition: i32,
    /// The broker that serves it; `None` during an election.
    pub leader: Option<i32>,
    /// Counts the leaders; -1 where the broker does not say.
    pub leader_epoch: Epoch,
}

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    brokers: BTreeMap<i32, String>,
    controller: Option<i32>,
    coordinators: BTreeMap<String, i32>,
    topics: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    topic: Rc<TopicMetadata>,
    since: Instant,
}

impl TopicMetadata {
    /// The partition of this index.
    pub fn partition(&self, index: i32) -> Option<&PartitionMetadata> {
        let mut partitions = self.partitions.iter();
        partitions.find(|partition| partition.partition == index)
    }

    fn new(topic: &MetadataResponseTopic) -> Self {
        let mut partitions: Vec<PartitionMetadata> = topic
            .partitions
            .iter()
            .map(|partition| PartitionMetadata {
                partition: partition.partition_index,
                leader: (partition.leader_id >= 0).then_some(partition.leader_id),
                leader_epoch: partition.leader_epoch,
            })
            .collect();
        partitions.sort_unstable_by_key(|partition| partition.partition);
        partitions.dedup_by_key(|partition| partition.partition);
        Self {
            name: topic.name.clone().unwrap_or_default(),
            topic_id: topic.topic_id,
            error: topic.error_code,
            is_internal: topic.is_internal,
            partitions,
        }
    }
}

impl Cluster {
    /// Takes in an answer to Metadata; gives its topics in their order.
    pub fn update(&mut self, response: &MetadataResponse, now: Instant) -> Vec<Rc<TopicMetadata>> {
        if !response.brokers.is_empty() {
            self.brokers = response
                .brokers
                .iter()
                .map(|broker| (broker.node_id, join_address(&broker.host, broker.port)))
                .collect();
        }
        self.controller = (response.controller_id >= 0).then_some(response.controller_id);
        let topics = response.topics.iter().map(|topic| {
            let topic = Rc::new(TopicMetadata::new(topic));
            let known = Known {
                topic: Rc::clone(&topic),
                since: now,
            };
            self.topics.insert(topic.name.clone(), known);
            topic
        });
        topics.collect()
    }

    /// A topic that was usable when a broker last spoke of it, not longer than `age_max` ago.
    pub fn topic(&self, name: &str, now: Instant, age_max: Duration) -> Option<Rc<TopicMetadata>> {
        let known = self.topics.get(name)?;
        let topic = &known.topic;
        let is_usable = !topic.error.is_error()
            && topic.partitions.iter().all(|each| each.leader.is_some())
            && now.duration_since(known.since) < age_max;
        is_usable.then(|| Rc::clone(topic))
    }

    /// Address of a broker.
    pub fn address(&self, node_id: i32) -> Option<&str> {
        self.brokers.get(&node_id).map(String::as_str)
    }

    /// Ids of all brokers.
    pub fn nodes(&self) -> Vec<i32> {
        self.brokers.keys().copied().collect()
    }

    /// Addresses of all brokers.
    pub fn addresses(&self) -> impl Iterator<Item = &String> {
        self.brokers.values()
    }

    /// The controller, or whom to ask in its place.
    pub fn controller(&self) -> Option<i32> {
        self.controller
    }

    /// The coordinator of a group, if it was found.
    pub fn coordinator(&self, group: &str) -> Option<i32> {
        self.coordinators.get(group).copied()
    }

    /// Learns the coordinator of a group.
    pub fn set_coordinator(&mut self, group: &str, node_id: i32, host: &str, port: i32) {
        self.coordinators.insert(group.to_owned(), node_id);
        self.brokers.insert(node_id, join_address(host, port));
    }

    /// Forgets the coordinator of a group: it said that it is not, or no longer answers.
    pub fn forget_coordinator(&mut self, group: &str) {
        self.coordinators.remove(group);
    }
}

/// "host:port", with brackets around an IPv6 address.
fn join_address(host: &str, port: i32) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::metadata::{MetadataResponseBroker, MetadataResponsePartition};

    fn topic(name: &str, error_code: ErrorCode, leaders: &[i32]) -> MetadataResponseTopic {
        let partition = |(partition_index, leader_id): (i32, &i32)| MetadataResponsePartition {
            partition_index,
            leader_id: *leader_id,
            ..Default::default()
        };
        let mut partitions: Vec<_> = (0..).zip(leaders).map(partition).collect();
        // Brokers may list them in any order.
        partitions.reverse();
        MetadataResponseTopic {
            name: Some(name.to_owned()),
            error_code,
            partitions,
            ..Default::default()
        }
    }

    #[test]
    fn only_usable_and_fresh_topics_are_found() {
        let now = Instant::from_std(std::time::Instant::now());
        let age_max = Duration::from_secs(10);
        let mut cluster = Cluster::default();
        let response = MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 1,
                host: "::1".to_owned(),
                port: 9092,
                ..Default::default()
            }],
            controller_id: 1,
            topics: vec![
                topic("a", ErrorCode::None, &[1, 1]),
                topic("b", ErrorCode::None, &[1, -1]),
                topic("c", ErrorCode::UnknownTopicOrPartition, &[]),
            ],
            ..Default::default()
        };
        let topics = cluster.update(&response, now);
        assert_eq!(topics.len(), 3);
        let found = cluster.topic("a", now, age_max).expect("it is usable");
        assert_eq!(found.partitions[0].partition, 0);
        assert_eq!(cluster.topic("b", now, age_max), None);
        assert_eq!(cluster.topic("c", now, age_max), None);
        assert_eq!(cluster.topic("a", now + age_max, age_max), None);
        assert_eq!(cluster.address(1), Some("[::1]:9092"));
    }
}
