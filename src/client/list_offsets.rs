//! Offsets by time: the first, the last, the one of a timestamp, asked of the leaders.

use std::collections::{BTreeMap, BTreeSet};

use super::consumer::{Isolation, TopicPartition};
use super::transport::Connector;
use super::{Client, ClientError, Node};
use crate::base::{ErrorCode, Offset};
use crate::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};

/// Asks for the first offset of a partition.
pub const EARLIEST: i64 = -2;

/// Asks for the offset behind the last record that the isolation lets through.
pub const LATEST: i64 = -1;

impl<C: Connector> Client<C> {
    /// The offset of the first record with the timestamp (milliseconds) or a later one, or of
    /// [`EARLIEST`] or [`LATEST`], for each partition; -1 if there is none. An error code that can
    /// pass wants fresh metadata first. Partitions that a broker leaves out are left out here.
    ///
    /// Errors: a leader cannot be asked.
    pub async fn list_offsets(
        &self,
        asked: &[(TopicPartition, i64)],
        isolation: Isolation,
    ) -> Result<BTreeMap<TopicPartition, Result<Offset, ErrorCode>>, ClientError> {
        let topics: BTreeSet<String> = asked.iter().map(|(each, _)| each.topic.clone()).collect();
        let topics: Vec<String> = topics.into_iter().collect();
        let known = self.metadata(&topics).await?;
        let mut found = BTreeMap::new();
        let mut by_leader: BTreeMap<i32, BTreeMap<&str, Vec<ListOffsetsPartition>>> =
            BTreeMap::new();
        for (partition, timestamp) in asked {
            let topic = known.iter().find(|topic| topic.name == partition.topic);
            let state = topic.and_then(|topic| topic.partition(partition.partition));
            let Some(leader) = state.and_then(|state| state.leader) else {
                let code = topic.map_or(ErrorCode::UnknownTopicOrPartition, |topic| topic.error);
                let code = match (code, state) {
                    (ErrorCode::None, Some(_)) => ErrorCode::LeaderNotAvailable,
                    (ErrorCode::None, None) => ErrorCode::UnknownTopicOrPartition,
                    (code, _) => code,
                };
                found.insert(partition.clone(), Err(code));
                continue;
            };
            let topics = by_leader.entry(leader).or_default();
            let partitions = topics.entry(&partition.topic).or_default();
            partitions.push(ListOffsetsPartition {
                partition_index: partition.partition,
                timestamp: *timestamp,
                ..Default::default()
            });
        }
        for (leader, topics) in by_leader {
            let topics = topics.into_iter();
            let topics = topics.map(|(name, partitions)| ListOffsetsTopic {
                name: name.to_owned(),
                partitions,
            });
            let request = ListOffsetsRequest {
                replica_id: -1,
                isolation_level: isolation.level(),
                topics: topics.collect(),
                ..Default::default()
            };
            let response = self.send(Node::Id(leader), request).await?;
            for topic in &response.topics {
                for answer in &topic.partitions {
                    let partition = TopicPartition::new(&topic.name, answer.partition_index);
                    let offset = match answer.error_code {
                        ErrorCode::None => Ok(answer.offset),
                        code => Err(code),
                    };
                    found.insert(partition, offset);
                }
            }
        }
        Ok(found)
    }
}
