//! What groups take in memory, and that it stays within a bound: bytes of what members say about
//! themselves, of what they are assigned, and of what is committed. Clients choose all of it, and
//! it stays after their requests.
//!
//! Counted are texts and bytes with an allowance for what holds them, members twice: as the group
//! knows them, and as its last record has them. The bound is that of a shard, whose other
//! coordinators count too; so the shell says how much room is left ([`Coordinator::set_room`]).
//! What the log holds is loaded, however much it is; then nothing may grow.
//!
//! Invariant: the coordinator's sum is that of its groups (`Coordinator::check`).

use super::Coordinator;
use super::state::{Group, Member};
use crate::wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use crate::wire::messages::offset_commit::OffsetCommitRequest;
use crate::wire::messages::sync_group::SyncGroupRequestAssignment;
use crate::wire::records::offset_commit::OffsetCommitValue;

/// What a group, a member, a topic with offsets, an offset and a text take beside their bytes.
const GROUP_BYTES: usize = 1024;
const MEMBER_BYTES: usize = 512;
const TOPIC_BYTES: usize = 256;
const OFFSET_BYTES: usize = 128;
const TEXT_BYTES: usize = 64;

/// Bytes of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Of its members, and of ids that were promised.
    members: usize,
    /// Of its offsets.
    offsets: usize,
}

impl Size {
    pub(super) fn sum(self) -> usize {
        GROUP_BYTES + self.members + self.offsets
    }
}

impl Coordinator {
    /// Bytes that its groups take.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// From now on its groups may grow by so much; without a bound before the first call.
    pub fn set_room(&mut self, bytes: usize) {
        self.room_bytes = bytes;
    }

    /// Counts the members of a group anew, after they may have changed.
    pub(super) fn count_members(&mut self, group_id: &str) {
        if let Some(group) = self.groups.get_mut(group_id) {
            let before = group.size.sum();
            group.size.members = group.members_bytes();
            self.size_bytes = self.size_bytes - before + group.size.sum();
        }
    }

    /// True if there is no room for what a member says about itself.
    pub(super) fn lacks_room_for_member(
        &self,
        client_id: &str,
        request: &JoinGroupRequest,
    ) -> bool {
        let group = self.groups.get(&request.group_id);
        let known = group.and_then(|group| group.members.get(&request.member_id));
        let before = known.map_or(0, |m| said_bytes(&m.client_id, &m.protocols));
        let after = said_bytes(client_id, &request.protocols);
        let new = match known {
            Some(_) => 0,
            None => GROUP_BYTES + MEMBER_BYTES,
        };
        new + after.saturating_sub(before) > self.room_bytes
    }

    /// The same for what the members of a group are assigned.
    pub(super) fn lacks_room_for_assignments(
        &self,
        group_id: &str,
        assignments: &[SyncGroupRequestAssignment],
    ) -> bool {
        let members = self.groups.get(group_id).into_iter();
        let members = members.flat_map(|group| group.members.values());
        let before: usize = members.map(|member| 2 * member.assignment.len()).sum();
        let after: usize = assignments.iter().map(|a| 2 * a.assignment.len()).sum();
        after.saturating_sub(before) > self.room_bytes
    }

    /// The same for what is committed.
    pub(super) fn lacks_room_for_offsets(&self, request: &OffsetCommitRequest) -> bool {
        let group = self.groups.get(&request.group_id);
        let mut more = match group {
            Some(_) => 0,
            None => GROUP_BYTES,
        };
        for topic in &request.topics {
            let known = group.and_then(|group| group.offsets.get(&topic.name));
            more += known.map_or(TOPIC_BYTES + topic.name.len(), |_| 0);
            for partition in &topic.partitions {
                let before = known.and_then(|known| known.get(&partition.partition_index));
                let text = partition.committed_metadata.as_deref().unwrap_or_default();
                let after = OFFSET_BYTES + text.len();
                more += after.saturating_sub(before.map_or(0, offset_bytes));
            }
        }
        more > self.room_bytes
    }
}

impl Group {
    /// Stores a position.
    pub(super) fn put_offset(&mut self, topic: String, partition: i32, value: OffsetCommitValue) {
        let name_bytes = TOPIC_BYTES + topic.len();
        let partitions = self.offsets.entry(topic).or_insert_with(|| {
            self.size.offsets += name_bytes;
            Default::default()
        });
        self.size.offsets += offset_bytes(&value);
        let before = partitions.insert(partition, value);
        self.size.offsets -= before.as_ref().map_or(0, offset_bytes);
    }

    /// Forgets one.
    pub(super) fn remove_offset(&mut self, topic: &str, partition: i32) {
        if let Some(partitions) = self.offsets.get_mut(topic) {
            let removed = partitions.remove(&partition);
            self.size.offsets -= removed.as_ref().map_or(0, offset_bytes);
            if partitions.is_empty() {
                self.offsets.remove(topic);
                self.size.offsets -= TOPIC_BYTES + topic.len();
            }
        }
    }

    /// Both parts counted anew.
    pub(super) fn counted(&self) -> Size {
        let topics = self.offsets.iter().map(|(topic, partitions)| {
            let offsets: usize = partitions.values().map(offset_bytes).sum();
            TOPIC_BYTES + topic.len() + offsets
        });
        Size {
            members: self.members_bytes(),
            offsets: topics.sum(),
        }
    }

    fn members_bytes(&self) -> usize {
        let members = self
            .members
            .iter()
            .map(|(id, member)| member_bytes(id, member));
        let promised = self.pending_join.iter();
        let promised = promised.map(|id| MEMBER_BYTES + 2 * id.len());
        let topics = self.subscribed.iter().flatten();
        let topics = topics.map(|topic| TEXT_BYTES + topic.len());
        members.chain(promised).chain(topics).sum()
    }
}

fn member_bytes(member_id: &str, member: &Member) -> usize {
    let instance_id = member.instance_id.as_deref().unwrap_or_default();
    let names = member_id.len() + instance_id.len() + member.client_host.len();
    let said = said_bytes(&member.client_id, &member.protocols);
    MEMBER_BYTES + said + 2 * (names + member.assignment.len())
}

fn said_bytes(client_id: &str, protocols: &[JoinGroupRequestProtocol]) -> usize {
    let protocols = protocols.iter();
    let protocols = protocols.map(|one| TEXT_BYTES + 2 * (one.name.len() + one.metadata.len()));
    2 * client_id.len() + protocols.sum::<usize>()
}

fn offset_bytes(value: &OffsetCommitValue) -> usize {
    OFFSET_BYTES + value.metadata.len()
}
