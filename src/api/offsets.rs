//! OffsetCommit (key 8), versions 2-10, and OffsetFetch (key 9), versions 1-10. Here topics are
//! resolved (version 10 names them by id, KIP-848) and the two shapes of OffsetFetch (one group, or
//! several from version 8, KIP-709) become one request per group; the rest is the coordinator's.

use super::groups::group_job;
use super::job::{Answer, GroupRequest, Jobs};
use super::{Begun, Facts, Flow, distinct, unexpected};
use crate::base::ErrorCode;
use crate::group::Reply;
use crate::state::ShardState;
use crate::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use std::collections::{BTreeMap, BTreeSet};

/// First version of OffsetFetch with several groups per request.
const GROUPS_FROM: i16 = 8;

/// First version of OffsetFetch with an error for the group as a whole.
const GROUP_ERROR_FROM: i16 = 2;

/// First version of both that names topics by id.
const TOPIC_IDS_FROM: i16 = 10;

/// A commit on its way.
#[derive(Debug)]
pub struct Committing {
    request: OffsetCommitRequest,
    /// Topics that are not there.
    unknown: Vec<OffsetCommitResponseTopic>,
    outcome: Result<Option<Reply>, ErrorCode>,
}

/// A fetch of offsets on its way.
#[derive(Debug)]
pub struct Fetching {
    groups: Vec<OffsetFetchResponseGroup>,
    /// Topics per group that are not there.
    unknown: Vec<Vec<OffsetFetchResponseTopics>>,
    /// Group index by slot.
    places: Vec<usize>,
    /// What was asked for, where an error has no other place than each partition.
    asked: Vec<OffsetFetchRequestTopic>,
}

/// Sends what can be committed to the group's coordinator.
pub fn begin_commit(
    state: &mut ShardState,
    facts: &Facts,
    mut request: OffsetCommitRequest,
) -> Begun {
    let mut flow = Committing {
        request: OffsetCommitRequest::default(),
        unknown: Vec::new(),
        outcome: Ok(None),
    };
    let topics = std::mem::take(&mut request.topics);
    for mut topic in topics {
        match state
            .topic(&topic.name, topic.topic_id)
            .map(|known| (known.clone(), known.id))
        {
            Ok((known, topic_id)) => {
                (topic.name, topic.topic_id) = (known.name.clone(), topic_id);
                let partitions = std::mem::take(&mut topic.partitions);
                let (there, missing): (Vec<_>, Vec<_>) = partitions
                    .into_iter()
                    .partition(|p| state.partition_key(&known, p.partition_index).is_some());
                if !missing.is_empty() {
                    let missing = OffsetCommitRequestTopic {
                        partitions: missing,
                        ..topic.clone()
                    };
                    flow.unknown
                        .push(failed(&missing, ErrorCode::UnknownTopicOrPartition));
                }
                request.topics.push(OffsetCommitRequestTopic {
                    partitions: there,
                    ..topic
                });
            }
            Err(code) => flow.unknown.push(failed(&topic, code)),
        }
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    if request.topics.is_empty() {
        return flow.resume(facts);
    }
    flow.request = request.clone();
    let group_id = request.group_id.clone();
    match group_job(state, facts, &group_id, GroupRequest::Commit(request)) {
        Ok(job) => Begun::Gather(Jobs::from([job]), Flow::Commit(flow)),
        Err(code) => {
            flow.outcome = Err(code);
            flow.resume(facts)
        }
    }
}

fn failed(topic: &OffsetCommitRequestTopic, error_code: ErrorCode) -> OffsetCommitResponseTopic {
    let partition = |partition_index| OffsetCommitResponsePartition {
        partition_index,
        error_code,
    };
    OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|p| partition(p.partition_index))
            .collect(),
    }
}

impl Committing {
    /// Takes the coordinator's answer.
    pub fn put(&mut self, answer: Answer) {
        self.outcome = match answer {
            Answer::Group(reply) => Ok(Some(reply)),
            Answer::NoCoordinator(code) => Err(code),
            other => unexpected(&other),
        };
    }

    /// Replies for the topics that were there and those that were not.
    pub fn resume(self, facts: &Facts) -> Begun {
        let mut topics = match self.outcome {
            Ok(Some(Reply::OffsetCommit(response))) => response.topics,
            Ok(Some(reply)) => unexpected(&Answer::Group(reply)),
            Ok(None) => Vec::new(),
            Err(code) => self
                .request
                .topics
                .iter()
                .map(|topic| failed(topic, code))
                .collect(),
        };
        topics.extend(self.unknown);
        facts.reply(&OffsetCommitResponse {
            topics,
            ..OffsetCommitResponse::default()
        })
    }
}

/// Asks the coordinator of each group.
pub fn begin_fetch(state: &mut ShardState, facts: &Facts, request: OffsetFetchRequest) -> Begun {
    let asked = match facts.version >= GROUP_ERROR_FROM {
        true => Vec::new(),
        false => request.topics.clone().unwrap_or_default(),
    };
    let mut groups = match facts.version >= GROUPS_FROM {
        true => request.groups,
        false => vec![OffsetFetchRequestGroup {
            group_id: request.group_id,
            topics: request.topics.map(|topics| {
                let topic = |t: OffsetFetchRequestTopic| OffsetFetchRequestTopics {
                    name: t.name,
                    partition_indexes: t.partition_indexes,
                    ..OffsetFetchRequestTopics::default()
                };
                topics.into_iter().map(topic).collect()
            }),
            ..OffsetFetchRequestGroup::default()
        }],
    };
    distinct(&mut groups, |group| group.group_id.clone());
    groups.iter_mut().for_each(ask_once);
    let mut flow = Fetching {
        groups: Vec::new(),
        unknown: Vec::new(),
        places: Vec::new(),
        asked,
    };
    let mut jobs = Jobs::with_capacity(groups.len());
    for (index, mut group) in groups.into_iter().enumerate() {
        let mut response = OffsetFetchResponseGroup {
            group_id: group.group_id.clone(),
            ..OffsetFetchResponseGroup::default()
        };
        let unknown = match facts.version >= TOPIC_IDS_FROM {
            true => resolve(state, &mut group),
            false => {
                identify(state, &mut group);
                Vec::new()
            }
        };
        let group_id = group.group_id.clone();
        match group_job(state, facts, &group_id, GroupRequest::Fetch(group)) {
            Ok(job) => {
                flow.places.push(index);
                jobs.push(job);
            }
            Err(code) => response.error_code = code,
        }
        flow.groups.push(response);
        flow.unknown.push(unknown);
    }
    match jobs.is_empty() {
        true => flow.resume(state, facts),
        false => Begun::Gather(jobs, Flow::OffsetFetch(flow)),
    }
}

/// Takes out partitions that a group is asked for again: each may have a text of its own.
fn ask_once(group: &mut OffsetFetchRequestGroup) {
    let mut seen: BTreeMap<_, BTreeSet<i32>> = BTreeMap::new();
    for topic in group.topics.iter_mut().flatten() {
        let seen = seen
            .entry((topic.name.clone(), topic.topic_id))
            .or_default();
        topic.partition_indexes.retain(|index| seen.insert(*index));
    }
}

/// Gives topics that are there their ids: what was committed to earlier ones of the same name is
/// not for them.
fn identify(state: &ShardState, group: &mut OffsetFetchRequestGroup) {
    for topic in group.topics.iter_mut().flatten() {
        if let Some(known) = state.image.topic(&topic.name) {
            topic.topic_id = known.id;
        }
    }
}

/// Gives topics their names; takes out those whose id is unknown.
fn resolve(
    state: &ShardState,
    group: &mut OffsetFetchRequestGroup,
) -> Vec<OffsetFetchResponseTopics> {
    let mut unknown = Vec::new();
    if let Some(topics) = &mut group.topics {
        topics.retain_mut(|topic| match state.image.topic_by_id(topic.topic_id) {
            Some(known) => {
                topic.name = known.name.clone();
                true
            }
            None => {
                let partition = |partition_index| OffsetFetchResponsePartitions {
                    partition_index,
                    committed_offset: -1,
                    metadata: Some(String::new()),
                    error_code: ErrorCode::UnknownTopicId,
                    ..OffsetFetchResponsePartitions::default()
                };
                unknown.push(OffsetFetchResponseTopics {
                    topic_id: topic.topic_id,
                    partitions: topic
                        .partition_indexes
                        .iter()
                        .copied()
                        .map(partition)
                        .collect(),
                    ..OffsetFetchResponseTopics::default()
                });
                false
            }
        });
    }
    unknown
}

impl Fetching {
    /// Takes one coordinator's answer.
    pub fn put(&mut self, slot: usize, answer: Answer) {
        let place = &mut self.groups[self.places[slot]];
        match answer {
            Answer::Group(Reply::OffsetFetch(group)) => *place = group,
            Answer::NoCoordinator(code) => place.error_code = code,
            other => unexpected(&other),
        }
    }

    /// Replies in the shape of the version.
    pub fn resume(self, state: &ShardState, facts: &Facts) -> Begun {
        let mut groups = self.groups;
        for (group, unknown) in groups.iter_mut().zip(self.unknown) {
            if facts.version >= TOPIC_IDS_FROM {
                // Offsets of topics that are gone have no id to be named by.
                group
                    .topics
                    .retain_mut(|topic| match state.image.topic(&topic.name) {
                        Some(known) => {
                            topic.topic_id = known.id;
                            true
                        }
                        None => false,
                    });
            }
            group.topics.extend(unknown);
        }
        if facts.version >= GROUPS_FROM {
            return facts.reply(&OffsetFetchResponse {
                groups,
                ..OffsetFetchResponse::default()
            });
        }
        let group = groups.into_iter().next().unwrap_or_default();
        let error_code = group.error_code;
        let topics = match error_code.is_error() && facts.version < GROUP_ERROR_FROM {
            // No topics and no error would mean that nothing was ever committed.
            true => self
                .asked
                .into_iter()
                .map(|t| refused_topic(t, error_code))
                .collect(),
            false => group.topics.into_iter().map(flat_topic).collect(),
        };
        facts.reply(&OffsetFetchResponse {
            error_code,
            topics,
            ..OffsetFetchResponse::default()
        })
    }
}

/// The error of the group in the place that version 1 has for it.
fn refused_topic(
    topic: OffsetFetchRequestTopic,
    error_code: ErrorCode,
) -> OffsetFetchResponseTopic {
    let partition = |partition_index| OffsetFetchResponsePartition {
        partition_index,
        committed_offset: -1,
        metadata: Some(String::new()),
        error_code,
        ..OffsetFetchResponsePartition::default()
    };
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partition_indexes.into_iter().map(partition).collect(),
    }
}

/// The form of versions up to 7.
fn flat_topic(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partition = |p: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: p.partition_index,
        committed_offset: p.committed_offset,
        committed_leader_epoch: p.committed_leader_epoch,
        metadata: p.metadata,
        error_code: p.error_code,
    };
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{NodeId, Now, ShardId};
    use crate::catalog::{Identity, Image};
    use crate::wire::{Message, Reader, Request, frame};
    use std::sync::Arc;

    const KEY: i16 = OffsetFetchRequest::KEY;

    fn facts(version: i16) -> Facts {
        let address = "127.0.0.1:9092".parse().unwrap();
        Facts {
            key: KEY,
            version,
            correlation_id: 1,
            client_id: Default::default(),
            peer: address,
            local: address,
            shard: ShardId(0),
            call: 1,
        }
    }

    /// Asks a broker without coordinators for the position of partition 3.
    fn fetch(version: i16) -> OffsetFetchResponse {
        let identity = Identity {
            cluster_id: String::new(),
            node_id: NodeId(1),
            advertised: None,
            ports_per_shard: Vec::new(),
            static_settings: BTreeMap::new(),
        };
        let image = Arc::new(Image::new(identity));
        let shards = (ShardId(0), 1);
        let mut state = ShardState::new(shards, Now::default(), 0, String::new(), image, 1);
        let request = OffsetFetchRequest {
            topics: Some(vec![OffsetFetchRequestTopic {
                name: "t".to_owned(),
                partition_indexes: vec![3],
            }]),
            ..OffsetFetchRequest::default()
        };
        let Begun::Reply(reply) = begin_fetch(&mut state, &facts(version), request) else {
            panic!("there is nobody to wait for");
        };
        let mut reader = Reader::new(reply.head.bytes.freeze().slice(4..));
        frame::decode_response_header(&mut reader, KEY, version).unwrap();
        OffsetFetchResponse::decode(&mut reader, version).unwrap()
    }

    #[test]
    fn a_partition_is_looked_up_once_however_often_it_is_named() {
        let topic = |name: &str, indexes: &[i32]| OffsetFetchRequestTopics {
            name: name.to_owned(),
            partition_indexes: indexes.to_vec(),
            ..OffsetFetchRequestTopics::default()
        };
        let topics = vec![
            topic("t", &[3, 1, 3]),
            topic("u", &[3]),
            topic("t", &[1, 2]),
        ];
        let mut group = OffsetFetchRequestGroup {
            topics: Some(topics),
            ..OffsetFetchRequestGroup::default()
        };
        ask_once(&mut group);
        let expected = vec![topic("t", &[3, 1]), topic("u", &[3]), topic("t", &[2])];
        assert_eq!(group.topics, Some(expected));
    }

    #[test]
    fn a_refusal_is_never_taken_for_no_position() {
        let old = fetch(1);
        let partition = &old.topics[0].partitions[0];
        assert_eq!(partition.partition_index, 3);
        assert_eq!(partition.error_code, ErrorCode::NotCoordinator);
        let new = fetch(2);
        assert_eq!(new.error_code, ErrorCode::NotCoordinator);
        assert!(new.topics.is_empty());
    }
}
