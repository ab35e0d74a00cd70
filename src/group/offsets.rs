//! Committed offsets: commit, fetch, delete.
//!
//! Not here: whether a topic or partition exists. Callers take unknown ones out of a commit and
//! answer for them, and fill in both name and id of the rest, so that a topic that is created anew
//! under an old name does not inherit offsets.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::records;
use super::state::{Group, Phase};
use super::{Caller, Coordinator, Output, Record, Reply};
use crate::base::marks::{self, Mark};
use crate::base::planted::{self, Bug};
use crate::base::{ErrorCode, Now, TopicId};
use crate::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};
use crate::wire::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use crate::wire::records::consumer_protocol::ConsumerProtocolSubscription;
use crate::wire::records::offset_commit::OffsetCommitValue;
use crate::wire::{Malformed, Message, Reader};

/// Topics of a group that are remembered one by one; with more it counts as reading every topic.
const SUBSCRIBED_TOPICS_MAX: usize = 50_000;

/// First version that may say `GROUP_ID_NOT_FOUND` (KIP-848).
const GROUP_ID_NOT_FOUND_FROM: i16 = 9;

impl Coordinator {
    /// Stores positions. The caller has already taken out (and answers itself) partitions that do
    /// not exist, and has filled in both name and id of each topic; the reply has both as well.
    pub fn offset_commit(
        &mut self,
        now: Now,
        caller: Caller<'_>,
        request: OffsetCommitRequest,
        out: &mut Output,
    ) {
        let valid = self
            .on_group(now, &request.group_id, out, |group, turn| {
                group.validate_commit(&request)?;
                if let Phase::Stable | Phase::Joining(_) = group.phase {
                    group.renew_session(turn, &request.member_id);
                }
                Ok(())
            })
            .unwrap_or_else(|| {
                validate_commit_to_unknown(&request, caller.api_version)?;
                self.check_new_group(&request.group_id)
            });
        let valid = match valid {
            Ok(()) if self.lacks_room_for_offsets(&request) => Err(ErrorCode::PolicyViolation),
            valid => valid,
        };
        let response = match valid {
            Ok(()) => self.commit(now, request, out),
            Err(error) => commit_response(request, |_, _| error),
        };
        out.replies
            .push((caller.token, Reply::OffsetCommit(response)));
    }

    fn commit(
        &mut self,
        now: Now,
        request: OffsetCommitRequest,
        out: &mut Output,
    ) -> OffsetCommitResponse {
        let expire_timestamp = match request.retention_time_ms {
            -1 => -1,
            retention_ms => now.wall_ms.saturating_add(retention_ms),
        };
        let mut committed = vec![];
        for topic in &request.topics {
            for partition in &topic.partitions {
                if self.fits(partition) {
                    let value = OffsetCommitValue {
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: partition.committed_metadata.clone().unwrap_or_default(),
                        commit_timestamp: now.wall_ms,
                        expire_timestamp,
                        topic_id: topic.topic_id,
                    };
                    let index = partition.partition_index;
                    let record =
                        records::offset(&request.group_id, &topic.name, index, Some(&value));
                    committed.push(record);
                }
            }
        }
        self.push_records(committed, out);
        commit_response(request, |_, partition| match self.fits(partition) {
            true => ErrorCode::None,
            false => ErrorCode::OffsetMetadataTooLarge,
        })
    }

    /// Kafka counts UTF-16 units, whatever the name of the setting says.
    fn fits(&self, partition: &OffsetCommitRequestPartition) -> bool {
        let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
        metadata.encode_utf16().count() <= self.config.offset_metadata_bytes_max
    }

    /// Looks positions up: one group, all versions. Names must be filled in; a topic id, where
    /// given, must match that of the commit. Without topics: all, with names only.
    pub fn offset_fetch(
        &self,
        caller: Caller<'_>,
        request: OffsetFetchRequestGroup,
        out: &mut Output,
    ) {
        self.assert_replayed();
        let nothing = BTreeMap::new();
        let group = self.groups.get(&request.group_id);
        let offsets = group.map_or(&nothing, |group| &group.offsets);
        let topics = match request.topics {
            None => fetch_all(offsets),
            Some(topics) => topics
                .into_iter()
                .map(|topic| fetch(offsets, topic))
                .collect(),
        };
        let response = OffsetFetchResponseGroup {
            group_id: request.group_id,
            topics,
            ..Default::default()
        };
        out.replies
            .push((caller.token, Reply::OffsetFetch(response)));
    }

    /// Forgets positions in topics that the group does not read (KIP-496). `exists` tells whether a
    /// topic has a partition: the position of one that is gone can be forgotten, if there is one.
    pub fn offset_delete(
        &mut self,
        caller: Caller<'_>,
        request: OffsetDeleteRequest,
        exists: impl Fn(&str, i32) -> bool,
        out: &mut Output,
    ) {
        self.assert_replayed();
        let group = self.groups.get(&request.group_id);
        let mut response = OffsetDeleteResponse::default();
        match validate_delete(&request.group_id, group) {
            Ok(group) => {
                let (tombstones, topics) = group.delete_offsets(request, exists);
                response.topics = topics;
                self.push_records(tombstones, out);
            }
            Err(error) => response.error_code = error,
        }
        out.replies
            .push((caller.token, Reply::OffsetDelete(response)));
    }

    /// The log is replayed: forgets offsets of topics that were deleted, where a crash, or a shard
    /// that did not know yet, has left some. No record says so: the next start does it again.
    pub fn forget_unknown_topics(&mut self, exists: impl Fn(TopicId) -> bool) {
        for group in self.groups.values_mut() {
            let before = group.size.sum();
            let topics = group.offsets.iter();
            let unknown = topics.flat_map(|(name, partitions)| {
                let partitions = partitions.iter().filter(|(_, offset)| {
                    offset.topic_id != TopicId::ZERO && !exists(offset.topic_id)
                });
                partitions.map(move |(partition, _)| (name.clone(), *partition))
            });
            for (topic, partition) in unknown.collect::<Vec<_>>() {
                group.remove_offset(&topic, partition);
            }
            self.size_bytes = self.size_bytes - before + group.size.sum();
        }
    }

    /// Offsets of deleted topics are forgotten.
    pub fn on_topics_deleted(&mut self, topics: &[(String, TopicId)], out: &mut Output) {
        self.assert_replayed();
        let mut tombstones = vec![];
        for (group_id, group) in &self.groups {
            for (name, topic_id) in topics {
                for (partition, offset) in group.offsets.get(name).into_iter().flatten() {
                    if offset.topic_id == TopicId::ZERO || offset.topic_id == *topic_id {
                        tombstones.push(records::offset(group_id, name, *partition, None));
                    }
                }
            }
        }
        self.push_records(tombstones, out);
    }
}

/// A commit from outside any generation makes a group; others come from a member of a lost one.
fn validate_commit_to_unknown(
    request: &OffsetCommitRequest,
    api_version: i16,
) -> Result<(), ErrorCode> {
    match request.generation_id_or_member_epoch {
        ..0 => Ok(()),
        _ if api_version >= GROUP_ID_NOT_FOUND_FROM => Err(ErrorCode::GroupIdNotFound),
        _ => Err(ErrorCode::IllegalGeneration),
    }
}

fn commit_response(
    request: OffsetCommitRequest,
    error: impl Fn(&str, &OffsetCommitRequestPartition) -> ErrorCode,
) -> OffsetCommitResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|partition| OffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: error(&topic.name, partition),
        });
        OffsetCommitResponseTopic {
            partitions: partitions.collect(),
            name: topic.name,
            topic_id: topic.topic_id,
        }
    });
    OffsetCommitResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn fetch(
    offsets: &BTreeMap<String, BTreeMap<i32, OffsetCommitValue>>,
    topic: OffsetFetchRequestTopics,
) -> OffsetFetchResponseTopics {
    let by_partition = offsets.get(&topic.name);
    let is_same_topic = |offset: &&OffsetCommitValue| {
        offset.topic_id == TopicId::ZERO
            || topic.topic_id == TopicId::ZERO
            || offset.topic_id == topic.topic_id
    };
    let partitions = topic.partition_indexes.iter().map(|index| {
        let offset = by_partition.and_then(|partitions| partitions.get(index));
        fetched(*index, offset.filter(is_same_topic))
    });
    OffsetFetchResponseTopics {
        partitions: partitions.collect(),
        name: topic.name,
        topic_id: topic.topic_id,
    }
}

fn fetch_all(
    offsets: &BTreeMap<String, BTreeMap<i32, OffsetCommitValue>>,
) -> Vec<OffsetFetchResponseTopics> {
    let topics = offsets.iter().map(|(name, partitions)| {
        let partitions = partitions.iter();
        OffsetFetchResponseTopics {
            name: name.clone(),
            topic_id: TopicId::ZERO,
            partitions: partitions
                .map(|(index, offset)| fetched(*index, Some(offset)))
                .collect(),
        }
    });
    topics.collect()
}

/// A position that is not known reads -1, without an error.
fn fetched(index: i32, offset: Option<&OffsetCommitValue>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset: offset.map_or(-1, |offset| offset.offset),
        committed_leader_epoch: offset.map_or(-1, |offset| offset.leader_epoch),
        metadata: Some(
            offset
                .map(|offset| offset.metadata.clone())
                .unwrap_or_default(),
        ),
        ..Default::default()
    }
}

fn validate_delete<'a>(group_id: &str, group: Option<&'a Group>) -> Result<&'a Group, ErrorCode> {
    if group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let group = group.ok_or(ErrorCode::GroupIdNotFound)?;
    match group.phase {
        Phase::Empty => Ok(group),
        _ if group.is_consumer() => Ok(group),
        _ => Err(ErrorCode::NonEmptyGroup),
    }
}

impl Group {
    /// See the table at [`State`](super::State).
    fn validate_commit(&self, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        let instance_id = request.group_instance_id.as_deref();
        let is_empty = matches!(self.phase, Phase::Empty);
        if planted::is(Bug::FencingSkipped) {
            return Ok(());
        }
        if generation < 0 && is_empty {
            return Ok(());
        }
        if generation < 0 && request.member_id.is_empty() && instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.validate_member(&request.member_id, instance_id)?;
        if generation != self.generation {
            marks::hit(Mark::CommitRefused);
            return Err(ErrorCode::IllegalGeneration);
        }
        match self.phase {
            Phase::Syncing => Err(ErrorCode::RebalanceInProgress),
            Phase::Empty | Phase::Joining(_) | Phase::Stable => Ok(()),
        }
    }

    /// True if members of the last generation read the topic. If they are consumers and say
    /// something we cannot read: to be safe, always.
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_consumer(),
        }
    }

    /// Topics of all members, by what they say under the chosen protocol. None for groups of other
    /// types than `consumer`, whose metadata means nothing to us.
    pub(super) fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.is_consumer() {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let protocol = self.protocol.as_deref()?;
            topics.extend(subscribed_topics(member.metadata(protocol)).ok()?);
            if topics.len() > SUBSCRIBED_TOPICS_MAX {
                return None;
            }
        }
        Some(topics)
    }

    fn delete_offsets(
        &self,
        request: OffsetDeleteRequest,
        exists: impl Fn(&str, i32) -> bool,
    ) -> (Vec<Record>, Vec<OffsetDeleteResponseTopic>) {
        let mut tombstones = vec![];
        let mut topics = vec![];
        for topic in request.topics {
            let is_read = self.is_subscribed(&topic.name);
            let offsets = self.offsets.get(&topic.name);
            let mut partitions = vec![];
            for partition in topic.partitions {
                let index = partition.partition_index;
                let is_stored = offsets.is_some_and(|offsets| offsets.contains_key(&index));
                if !is_read && is_stored {
                    let group_id = &request.group_id;
                    tombstones.push(records::offset(group_id, &topic.name, index, None));
                }
                partitions.push(OffsetDeleteResponsePartition {
                    partition_index: index,
                    error_code: match is_read {
                        _ if !is_stored && !exists(&topic.name, index) => {
                            ErrorCode::UnknownTopicOrPartition
                        }
                        true => ErrorCode::GroupSubscribedToTopic,
                        false => ErrorCode::None,
                    },
                });
            }
            topics.push(OffsetDeleteResponseTopic {
                name: topic.name,
                partitions,
            });
        }
        (tombstones, topics)
    }
}

/// Every version of a subscription starts with what version 0 has.
fn subscribed_topics(metadata: Bytes) -> Result<Vec<String>, Malformed> {
    if metadata.len() < 2 || metadata[0] & 0x80 != 0 {
        return Err(Malformed("subscription without a version"));
    }
    let mut reader = Reader::new(metadata.slice(2..));
    Ok(ConsumerProtocolSubscription::decode(&mut reader, 0)?.topics)
}
