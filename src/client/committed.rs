//! What groups have committed, asked of their coordinators. OffsetFetch is used up to version 9,
//! which names topics.
//!
//! A coordinator may move at any time: [`Client::ask_coordinator`] looks it up again then, and is
//! the way to every question to one that may be repeated.

use std::collections::BTreeMap;

use super::consumer::{CommittedOffset, TopicPartition};
use super::error::{check, is_coordinator_moved};
use super::transport::Connector;
use super::{Client, ClientError, Node};
use crate::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponse,
};

/// The last version of OffsetFetch that names topics.
const VERSION_WITH_NAMES: i16 = 9;

impl<C: Connector> Client<C> {
    /// Like [`Client::retry`] for what a group's coordinator is asked: after an error that says
    /// that it is another one, or without an answer, it is looked up again.
    pub async fn ask_coordinator<T>(
        &self,
        group: &str,
        mut attempt: impl AsyncFnMut() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.retry(async || {
            let result = attempt().await;
            if let Err(error) = &result
                && error.code().is_none_or(is_coordinator_moved)
            {
                self.forget_coordinator(group);
            }
            result
        })
        .await
    }

    /// What a group has committed, of these partitions or of all (`None`). With `is_stable`,
    /// offsets that an open transaction commits are waited for (KIP-447).
    ///
    /// Errors: the coordinator cannot be asked, or refuses.
    pub async fn committed(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
        is_stable: bool,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        let request = request(group, partitions, is_stable);
        let within = self.options().request_timeout;
        self.ask_coordinator(group, async || {
            let (node, request) = (Node::Coordinator(group.to_owned()), request.clone());
            let response = self
                .send_within(node, request, VERSION_WITH_NAMES, within)
                .await?;
            read(group, response)
        })
        .await
    }
}

/// Version 8 asks for groups, earlier ones for one: both shapes are filled in.
fn request(
    group: &str,
    partitions: Option<&[TopicPartition]>,
    is_stable: bool,
) -> OffsetFetchRequest {
    let by_topic = partitions.map(|partitions| {
        let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for each in partitions {
            let indexes = topics.entry(each.topic.clone()).or_default();
            indexes.push(each.partition);
        }
        topics
    });
    let of_group = by_topic.clone().map(|topics| {
        let topics = topics.into_iter();
        let topics = topics.map(|(name, partition_indexes)| OffsetFetchRequestTopics {
            name,
            partition_indexes,
            ..Default::default()
        });
        topics.collect()
    });
    let single = by_topic.map(|topics| {
        let topics = topics.into_iter();
        let topics = topics.map(|(name, partition_indexes)| OffsetFetchRequestTopic {
            name,
            partition_indexes,
        });
        topics.collect()
    });
    OffsetFetchRequest {
        group_id: group.to_owned(),
        topics: single,
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            topics: of_group,
            ..Default::default()
        }],
        require_stable: is_stable,
    }
}

fn read(
    group: &str,
    response: OffsetFetchResponse,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
    let subject = || format!("group \"{group}\"");
    check("OffsetFetch", subject, response.error_code, None)?;
    let mut answers = Vec::new();
    for topic in response.topics {
        for each in topic.partitions {
            let partition = TopicPartition::new(&topic.name, each.partition_index);
            let (offset, metadata) = (each.committed_offset, each.metadata);
            answers.push((partition, each.error_code, offset, metadata));
        }
    }
    for of_group in response.groups {
        check("OffsetFetch", subject, of_group.error_code, None)?;
        for topic in of_group.topics {
            for each in topic.partitions {
                let partition = TopicPartition::new(&topic.name, each.partition_index);
                let (offset, metadata) = (each.committed_offset, each.metadata);
                answers.push((partition, each.error_code, offset, metadata));
            }
        }
    }
    let mut committed = BTreeMap::new();
    for (partition, code, offset, metadata) in answers {
        let subject = || format!("group \"{group}\", {partition}");
        check("OffsetFetch", subject, code, None)?;
        if offset >= 0 {
            committed.insert(partition, CommittedOffset { offset, metadata });
        }
    }
    Ok(committed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorCode;
    use crate::client::ClientOptions;
    use crate::client::scripted::{Received, Reply, Script, answer_basics, run};
    use crate::wire::messages::find_coordinator::{
        Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
    };
    use crate::wire::messages::offset_fetch::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
    };
    use std::cell::Cell;
    use std::rc::Rc;

    fn coordinator(received: &Received, node_id: i32) -> Reply {
        received.answer(&FindCoordinatorResponse {
            coordinators: vec![Coordinator {
                key: "g".to_owned(),
                node_id,
                host: "broker".to_owned(),
                port: node_id,
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    fn stored(received: &Received, error_code: ErrorCode, offset: i64) -> Reply {
        received.answer(&OffsetFetchResponse {
            groups: vec![OffsetFetchResponseGroup {
                group_id: "g".to_owned(),
                error_code,
                topics: vec![OffsetFetchResponseTopics {
                    name: "t".to_owned(),
                    partitions: vec![OffsetFetchResponsePartitions {
                        committed_offset: offset,
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
            }],
            ..Default::default()
        })
    }

    /// Node 2 coordinates, until it dies and node 1 does.
    #[test]
    fn a_coordinator_that_died_or_moved_is_looked_up_again() {
        let check = |how_it_goes: fn(&Received) -> Reply| {
            run(async move {
                let is_gone = Rc::new(Cell::new(false));
                let script = Script::single({
                    let is_gone = Rc::clone(&is_gone);
                    move |received| {
                        if received.is::<FindCoordinatorRequest>() {
                            return coordinator(received, if is_gone.get() { 1 } else { 2 });
                        }
                        let basics = answer_basics(received, 1);
                        basics.unwrap_or_else(|| stored(received, ErrorCode::None, 8))
                    }
                });
                script.serve("broker:2", {
                    let is_gone = Rc::clone(&is_gone);
                    move |received| match answer_basics(received, 1) {
                        Some(reply) => reply,
                        None if is_gone.get() => how_it_goes(received),
                        None => stored(received, ErrorCode::None, 7),
                    }
                });
                let client = Client::connect(script, "broker:1", ClientOptions::default());
                let client = client.await.unwrap();
                let partition = TopicPartition::new("t", 0);
                let offset = async || {
                    let committed = client.committed("g", None, false).await;
                    committed.map(|committed| committed[&partition].offset)
                };
                assert_eq!(offset().await, Ok(7));
                is_gone.set(true);
                assert_eq!(offset().await, Ok(8));
            });
        };
        check(|_| Reply::Close);
        check(|received| stored(received, ErrorCode::NotCoordinator, -1));
    }
}
