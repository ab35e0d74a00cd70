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
    /// The offset `which` ([`EARLIEST`], [`LATEST`]) of each of these partitions, all of which
    /// must be there: asked of the leaders of now, and again while one moves.
    ///
    /// Errors: a leader cannot be asked within the request timeout, or refuses.
    pub async fn offsets(
        &self,
        partitions: &[TopicPartition],
        which: i64,
        isolation: Isolation,
    ) -> Result<BTreeMap<TopicPartition, Offset>, ClientError> {
        let topics: BTreeSet<String> = partitions.iter().map(|each| each.topic.clone()).collect();
        let topics: Vec<String> = topics.into_iter().collect();
        let partitions = partitions.iter().cloned();
        let asked: Vec<_> = partitions.map(|each| (each, which)).collect();
        self.retry(async || {
            // Whoever leads now is in fresh metadata only.
            self.refresh_metadata(&topics).await?;
            let mut found = self.list_offsets(&asked, isolation).await?;
            let offsets = asked.iter().map(|(partition, _)| {
                let offset = found.remove(partition);
                let offset = offset.unwrap_or(Err(ErrorCode::LeaderNotAvailable));
                let refused = |code| ClientError::broker("ListOffsets", partition, code);
                Ok((partition.clone(), offset.map_err(refused)?))
            });
            offsets.collect()
        })
        .await
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientOptions;
    use crate::client::scripted::{Reply, Script, answer_basics, run};
    use crate::wire::messages::list_offsets::{
        ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
    };

    /// The broker refuses, leaves a partition out, hangs up, and only then answers whole.
    #[test]
    fn offsets_are_asked_again_until_all_are_there() {
        run(async {
            let mut attempts = 0;
            let script = Script::single(move |received| {
                if let Some(reply) = answer_basics(received, 2) {
                    return reply;
                }
                attempts += 1;
                let partition = |index, error_code| ListOffsetsPartitionResponse {
                    partition_index: index,
                    error_code,
                    offset: i64::from(index) + 7,
                    ..Default::default()
                };
                let partitions = match attempts {
                    1 => vec![
                        partition(0, ErrorCode::NotLeaderOrFollower),
                        partition(1, ErrorCode::None),
                    ],
                    2 => vec![partition(0, ErrorCode::None)],
                    3 => return Reply::Close,
                    _ => vec![partition(0, ErrorCode::None), partition(1, ErrorCode::None)],
                };
                received.answer(&ListOffsetsResponse {
                    topics: vec![ListOffsetsTopicResponse {
                        name: "t".to_owned(),
                        partitions,
                    }],
                    ..Default::default()
                })
            });
            let client = Client::connect(script, "broker:1", ClientOptions::default());
            let client = client.await.unwrap();
            let partitions = [0, 1].map(|index| TopicPartition::new("t", index));
            let offsets = client.offsets(&partitions, LATEST, Isolation::default());
            let offsets: Vec<i64> = offsets.await.unwrap().into_values().collect();
            assert_eq!(offsets, [7, 8]);
        });
    }
}
