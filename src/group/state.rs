//! One group: its hard state, its state machine, and the soft state of the members it has right
//! now.
//!
//! Here are the data and the steps that keep them whole (add, remove, replace, vote, replay). What
//! requests and timers make of them is in `join`, `rebalance`, `sync`, `heartbeat`, `leave`,
//! `offsets` and `expiry`.
//!
//! Invariant: in `Empty` and `Stable` the members are those of the last metadata record; in the two
//! rebalance states they run ahead of it, until the next record settles the group.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::size::Size;
use super::timers::{Timer, Timers};
use super::turn::{Turn, Waiter};
use crate::base::ErrorCode;
use crate::wire::messages::join_group::JoinGroupRequestProtocol;
use crate::wire::records::group_metadata::{GroupMetadataValue, MemberMetadata};
use crate::wire::records::offset_commit::OffsetCommitValue;

/// The states of a classic group, named as Kafka prints them.
///
/// What each request gets (numbers are error codes; 25 `UNKNOWN_MEMBER_ID`, 22
/// `ILLEGAL_GENERATION`, 27 `REBALANCE_IN_PROGRESS`, 68 `NON_EMPTY_GROUP`, 69
/// `GROUP_ID_NOT_FOUND`), for members of the current generation:
///
/// | | `Empty` | `PreparingRebalance` | `CompletingRebalance` | `Stable` | `Dead` |
/// |---|---|---|---|---|---|
/// | join, newcomer | starts a round | parks | starts a round | starts a round | makes the group |
/// | join, member | 25 | parks | same metadata: the generation again; else a round | follower with the same metadata: the generation again; else a round | 25 |
/// | sync | 25 | 27 | leader: all get theirs; follower: parks | its assignment | 25 |
/// | heartbeat | 25 | 27 | ok | ok | 25 |
/// | leave | 25 | removed | removed, starts a round | removed, starts a round | 25 |
/// | commit | 25; ok without generation | ok | 27 | ok | without generation: makes the group; else 22, from version 9: 69 |
/// | fetch offsets | ok | ok | ok | ok | no offset |
/// | delete offsets | ok | 68, consumers: topics not subscribed | the same | the same | 69 |
/// | delete group | ok | 68 | 68 | 68 | 69 |
///
/// What leaves each state:
///
/// | state | event | next |
/// |---|---|---|
/// | `Empty` | a member joins | `PreparingRebalance`, after the initial delay |
/// | `Empty` | the last offset expires, or the group is deleted | `Dead` |
/// | `PreparingRebalance` | all known members have joined, or the rebalance timeout | `CompletingRebalance` |
/// | `PreparingRebalance` | the same with no member left | `Empty`, with a new generation |
/// | `CompletingRebalance` | the leader's sync is appended | `Stable` |
/// | `CompletingRebalance` | a join with new metadata, a leave, a session or sync timeout | `PreparingRebalance` |
/// | `Stable` | a newcomer, the leader joins, a join with new metadata, a leave, a session or sync timeout | `PreparingRebalance` |
/// | `Stable` | a static member comes back and the protocol stays (KIP-345) | `Stable`, no round |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No members; lingers until its offsets have expired. Also groups that only commit offsets.
    Empty,
    /// Members gather for the next generation.
    PreparingRebalance,
    /// The generation exists; its assignments are with the leader.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
    /// Not there. Never the state of a group that exists.
    Dead,
}

impl State {
    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// The state of a group that exists, with what only that state has.
#[derive(Debug)]
pub(super) enum Phase {
    /// [`State::Empty`]
    Empty,
    /// [`State::PreparingRebalance`]; the delay if the group was empty before.
    Joining(Option<InitialDelay>),
    /// [`State::CompletingRebalance`]
    Syncing,
    /// [`State::Stable`]
    Stable,
}

/// The first round of an empty group waits for more members, and again while they come, but no
/// longer than the rebalance timeout.
#[derive(Debug)]
pub(super) struct InitialDelay {
    /// The wait in progress.
    pub(super) delay_ms: i64,
    /// What may be added to it.
    pub(super) remaining_ms: i64,
    /// A member came during this wait.
    pub(super) extend: bool,
}

/// A member as the group knows it now.
#[derive(Debug)]
pub(super) struct Member {
    /// Names a static member over restarts (KIP-345).
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// By preference. After a reload only the chosen one is known.
    pub(super) protocols: Vec<JoinGroupRequestProtocol>,
    pub(super) assignment: Bytes,
    /// Has not seen the end of a round yet: its session may expire while it waits.
    pub(super) is_new: bool,
    /// Has joined the round in progress.
    pub(super) joined: Option<Waiter>,
    /// Has synced before the leader.
    pub(super) synced: Option<Waiter>,
}

impl Member {
    /// The names of its protocols, by preference.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.protocols.iter().map(|protocol| protocol.name.as_str())
    }

    /// What the member said under a protocol; empty if it does not know it.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let known = self.protocols.iter().find(|known| known.name == protocol);
        known
            .map(|known| known.metadata.clone())
            .unwrap_or_default()
    }

    /// Takes over what a record says, and keeps what no record has.
    fn settle(live: Option<Self>, stored: &MemberMetadata, protocol: &str) -> Self {
        let (is_new, protocols) =
            live.map_or((false, vec![]), |live| (live.is_new, live.protocols));
        let chosen = JoinGroupRequestProtocol {
            name: protocol.to_owned(),
            metadata: stored.subscription.clone(),
        };
        Self {
            instance_id: stored.group_instance_id.clone(),
            client_id: stored.client_id.clone(),
            client_host: stored.client_host.clone(),
            rebalance_timeout_ms: match stored.rebalance_timeout {
                -1 => stored.session_timeout,
                timeout => timeout,
            },
            session_timeout_ms: stored.session_timeout,
            protocols: match protocols.contains(&chosen) {
                true => protocols,
                false => vec![chosen],
            },
            assignment: stored.assignment.clone(),
            is_new,
            joined: None,
            synced: None,
        }
    }
}

/// One group; see the module.
#[derive(Debug)]
pub(super) struct Group {
    /// Hard: the last metadata record. None for a group known by its offsets alone.
    pub(super) stored: Option<GroupMetadataValue>,
    /// Hard: positions by topic and partition.
    pub(super) offsets: BTreeMap<String, BTreeMap<i32, OffsetCommitValue>>,
    pub(super) phase: Phase,
    pub(super) generation: i32,
    /// None while nobody has ever joined.
    pub(super) protocol_type: Option<String>,
    /// The chosen protocol of the generation.
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Ids given out with `MEMBER_ID_REQUIRED` (KIP-394), not used yet.
    pub(super) pending_join: BTreeSet<String>,
    /// Members that have not synced in this generation.
    pub(super) pending_sync: BTreeSet<String>,
    /// Topics that consumers of the last generation read, where known.
    pub(super) subscribed: Option<BTreeSet<String>>,
    pub(super) timers: Timers,
    /// What it takes in memory.
    pub(super) size: Size,
}

impl Group {
    pub(super) fn new() -> Self {
        Self {
            stored: None,
            offsets: BTreeMap::new(),
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            pending_join: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            subscribed: None,
            timers: Timers::default(),
            size: Size::default(),
        }
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Empty => State::Empty,
            Phase::Joining(_) => State::PreparingRebalance,
            Phase::Syncing => State::CompletingRebalance,
            Phase::Stable => State::Stable,
        }
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub(super) fn is_consumer(&self) -> bool {
        self.protocol_type.as_deref() == Some("consumer")
    }

    /// The id that a static member has at present.
    pub(super) fn static_member_id(&self, instance_id: &str) -> Option<&String> {
        let mut members = self.members.iter();
        let found = members.find(|(_, member)| member.instance_id.as_deref() == Some(instance_id));
        found.map(|(member_id, _)| member_id)
    }

    /// The member must exist; an instance id must be its own (KIP-345).
    pub(super) fn validate_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_member_id(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(owner) if owner != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        match self.members.contains_key(member_id) {
            true => Ok(()),
            false => Err(ErrorCode::UnknownMemberId),
        }
    }

    /// How long a round waits for the slowest member.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        let timeouts = self.members.values();
        let timeouts = timeouts.map(|member| i64::from(member.rebalance_timeout_ms));
        timeouts.max().unwrap_or(0).max(0)
    }

    /// True if a member with these protocols would leave at least one that all have.
    pub(super) fn supports(
        &self,
        protocol_type: &str,
        protocols: &[JoinGroupRequestProtocol],
    ) -> bool {
        if let Phase::Empty = self.phase {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let names = protocols.iter().map(|protocol| protocol.name.as_str());
        self.protocol_type.as_deref() == Some(protocol_type) && !self.known_to_all(names).is_empty()
    }

    /// The protocol for the next generation: each member votes for the first of its own that all
    /// know, most votes win, equal votes go by name.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let common = self.known_to_all(self.members.values().next()?.names());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(vote) = member.names().find(|name| common.contains(name)) {
                *votes.entry(vote).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        let (name, _) = votes.into_iter().find(|(_, count)| *count == most)?;
        Some(name.to_owned())
    }

    /// Those of the names that all members know.
    fn known_to_all<'a>(&self, names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let members = self.members.values();
        members.fold(names.collect(), |common: BTreeSet<&'a str>, member| {
            let known = member.names().filter_map(|name| common.get(name).copied());
            known.collect()
        })
    }

    /// Adds a member; the first one leads and says what kind of group this is.
    pub(super) fn add_member(&mut self, member_id: String, protocol_type: &str, member: Member) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.to_owned());
        }
        self.leader.get_or_insert_with(|| member_id.clone());
        self.pending_join.remove(&member_id);
        self.members.insert(member_id, member);
    }

    /// Removes a member, or an id that was only promised. Its waiting calls hear
    /// `UNKNOWN_MEMBER_ID`.
    pub(super) fn remove_member(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        self.pending_join.remove(member_id);
        self.pending_sync.remove(member_id);
        self.timers.cancel(&Timer::Session(member_id.to_owned()));
        let Some(mut member) = self.members.remove(member_id) else {
            return;
        };
        turn.answer_join_error(member.joined.take(), "", ErrorCode::UnknownMemberId);
        turn.answer_sync_error(member.synced.take(), ErrorCode::UnknownMemberId);
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Gives a static member a new id (KIP-345). Who waits under the old one is fenced.
    pub(super) fn replace_static_member(&mut self, turn: &mut Turn<'_>, old: &str, new: &str) {
        let mut member = self
            .members
            .remove(old)
            .expect("the caller found it by its instance id");
        turn.answer_join_error(member.joined.take(), old, ErrorCode::FencedInstanceId);
        turn.answer_sync_error(member.synced.take(), ErrorCode::FencedInstanceId);
        member.is_new = false;
        self.timers.cancel(&Timer::Session(old.to_owned()));
        if self.pending_sync.remove(old) {
            self.pending_sync.insert(new.to_owned());
        }
        if self.is_leader(old) {
            self.leader = Some(new.to_owned());
        }
        self.members.insert(new.to_owned(), member);
    }

    /// The session of a member starts anew.
    pub(super) fn renew_session(&mut self, turn: &Turn<'_>, member_id: &str) {
        if let Some(member) = self.members.get(member_id) {
            let at = turn.deadline(i64::from(member.session_timeout_ms));
            self.timers.set(Timer::Session(member_id.to_owned()), at);
        }
    }

    /// The record that makes the members as they are now a settled generation, with assignments
    /// from elsewhere.
    pub(super) fn metadata_value(
        &self,
        generation: i32,
        wall_ms: i64,
        assignment: impl Fn(&str, &Member) -> Bytes,
    ) -> GroupMetadataValue {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self
            .members
            .iter()
            .map(|(member_id, member)| MemberMetadata {
                member_id: member_id.clone(),
                group_instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout: member.rebalance_timeout_ms,
                session_timeout: member.session_timeout_ms,
                subscription: member.metadata(protocol),
                assignment: assignment(member_id, member),
            });
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: wall_ms,
            members: members.collect(),
        }
    }

    /// The number after this generation; starts over rather than become negative.
    pub(super) fn next_generation(&self) -> i32 {
        self.generation.checked_add(1).unwrap_or(1)
    }

    /// Applies a metadata record. One that is older than the round in progress (the birth of a
    /// group whose first member is joining already) leaves the round alone.
    pub(super) fn replay_metadata(&mut self, mut value: GroupMetadataValue) {
        for member in &mut value.members {
            // Members stay for long; the buffer that the log was read into must not.
            member.subscription = Bytes::copy_from_slice(&member.subscription);
            member.assignment = Bytes::copy_from_slice(&member.assignment);
        }
        let settles = match self.phase {
            Phase::Empty | Phase::Stable => true,
            Phase::Joining(_) => value.generation >= self.next_generation(),
            Phase::Syncing => value.generation >= self.generation,
        };
        if settles {
            self.settle(&value);
        }
        self.stored = Some(value);
    }

    fn settle(&mut self, value: &GroupMetadataValue) {
        let protocol = value.protocol.as_deref().unwrap_or_default();
        let mut live = std::mem::take(&mut self.members);
        for stored in &value.members {
            let member = Member::settle(live.remove(&stored.member_id), stored, protocol);
            self.members.insert(stored.member_id.clone(), member);
        }
        for member_id in live.into_keys() {
            self.timers.cancel(&Timer::Session(member_id));
        }
        self.generation = value.generation;
        self.protocol_type = Some(value.protocol_type.clone()).filter(|name| !name.is_empty());
        self.protocol.clone_from(&value.protocol);
        self.leader.clone_from(&value.leader);
        self.subscribed = self.subscribed_topics();
        self.phase = match self.members.is_empty() {
            true => Phase::Empty,
            false => Phase::Stable,
        };
        self.pending_sync
            .retain(|member_id| self.members.contains_key(member_id));
        self.timers.cancel(&Timer::Join);
        if self.pending_sync.is_empty() {
            self.timers.cancel(&Timer::Sync);
        }
    }
}
