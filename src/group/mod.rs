//! The classic group coordinator: who is in which consumer group, and how far each group has read.
//!
//! One [`Coordinator`] serves one partition of `__consumer_offsets`; one shard owns it. It is pure:
//! time and callers come as arguments, records and replies leave through [`Output`]. Hard state
//! (committed offsets, and each group as its last generation left it) changes only in
//! [`Coordinator::replay`]; everything else (rounds of joins, callers that wait, sessions) is soft
//! and may vanish. Behaviour is that of Apache Kafka 4.3; see [`State`] for the table of states.
//!
//! # What the shell does with it
//! 1. Calls a handler or [`Coordinator::on_deadline`] with an empty [`Output`].
//! 2. Appends the records as one batch, in order, and calls [`Coordinator::replay`] with each,
//!    before it calls anything else. (Nothing may be decided on state that is not replayed yet;
//!    this is asserted.)
//! 3. Sends the replies when the batch, and all that was appended before, is durable. A token
//!    without a reply is parked: its reply comes out of a later call, once.
//! 4. If the append fails: answers the replies with [`Reply::failed`], calls
//!    [`Coordinator::unload`], and starts over with a new coordinator, the log, and
//!    [`Coordinator::on_loaded`].
//!
//! Not here: which topics exist, what their ids are (requests come with both name and id filled in
//! where the caller knows them), and who may do what.

mod check;
mod describe;
mod expiry;
mod heartbeat;
mod join;
mod leave;
mod offsets;
mod rebalance;
mod records;
mod size;
mod state;
mod sync;
mod timers;
mod turn;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::base::limits::GROUP_ID_BYTES_MAX;
use crate::base::prng::Prng;
use crate::base::{ErrorCode, Mono, Now};
use crate::wire::Malformed;
use crate::wire::messages::delete_groups::DeletableGroupResult;
use crate::wire::messages::describe_groups::DescribedGroup;
use crate::wire::messages::heartbeat::HeartbeatResponse;
use crate::wire::messages::join_group::JoinGroupResponse;
use crate::wire::messages::leave_group::LeaveGroupResponse;
use crate::wire::messages::list_groups::ListedGroup;
use crate::wire::messages::offset_commit::OffsetCommitResponse;
use crate::wire::messages::offset_delete::OffsetDeleteResponse;
use crate::wire::messages::offset_fetch::OffsetFetchResponseGroup;
use crate::wire::messages::sync_group::SyncGroupResponse;

use records::Stored;
use state::Group;
use turn::{Turn, Waiter, join_error, sync_error};

pub use state::State;

/// The settings of all groups, in Kafka's names with the units last.
#[derive(Clone, Debug)]
pub struct Config {
    /// `group.min.session.timeout.ms`
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.count`: groups of one coordinator.
    pub group_count_max: usize,
    /// `group.max.size`
    pub group_size_max: usize,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// How long a newcomer may wait for its first round of joins to end. Kafka's internal
    /// `group.new.member.join.timeout.ms`.
    pub new_member_join_timeout_ms: i64,
}

impl Default for Config {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            group_count_max: i32::MAX as usize,
            group_size_max: i32::MAX as usize,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offsets_retention_check_interval_ms: 600_000,
            new_member_join_timeout_ms: 300_000,
        }
    }
}

/// Names a caller that waits for a reply. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The reply comes with it.
    pub token: Token,
    /// Version of the request, as some answers depend on it.
    pub api_version: i16,
    /// From the request's header; names new members.
    pub client_id: &'a str,
    /// Address of the peer as Kafka prints it: `/127.0.0.1`.
    pub client_host: &'a str,
}

/// A record to append: key, and value or none for a tombstone.
pub type Record = (Bytes, Option<Bytes>);

/// What a call wants done. Every reply depends on all records of its output.
#[derive(Debug, Default)]
pub struct Output {
    /// To be appended in this order, as one batch. Only the outputs of [`Coordinator::on_deadline`]
    /// and [`Coordinator::on_topics_deleted`] may be split
    /// between batches, at any record.
    pub records: Vec<Record>,
    /// To be sent once the records are durable.
    pub replies: Vec<(Token, Reply)>,
}

/// The answer to a call, without what belongs to the connection (throttle time, batching of several
/// groups in one response).
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Coordinator::join`].
    Join(JoinGroupResponse),
    /// To [`Coordinator::sync`].
    Sync(SyncGroupResponse),
    /// To [`Coordinator::heartbeat`].
    Heartbeat(HeartbeatResponse),
    /// To [`Coordinator::leave`].
    Leave(LeaveGroupResponse),
    /// To [`Coordinator::offset_commit`].
    OffsetCommit(OffsetCommitResponse),
    /// To [`Coordinator::offset_fetch`].
    OffsetFetch(OffsetFetchResponseGroup),
    /// To [`Coordinator::offset_delete`].
    OffsetDelete(OffsetDeleteResponse),
    /// To [`Coordinator::describe`].
    Describe(DescribedGroup),
    /// To [`Coordinator::list`].
    List(Vec<ListedGroup>),
    /// To [`Coordinator::delete_groups`].
    DeleteGroups(Vec<DeletableGroupResult>),
}

impl Reply {
    /// The same answer as an error: what the caller hears if the records it depends on could not be
    /// appended. Kafka says `NOT_COORDINATOR` after a storage error.
    #[must_use]
    pub fn failed(self, error: ErrorCode) -> Self {
        match self {
            Self::Join(response) => Self::Join(join_error(&response.member_id, error)),
            Self::Sync(_) => Self::Sync(sync_error(error)),
            Self::Heartbeat(_) => Self::Heartbeat(HeartbeatResponse {
                error_code: error,
                ..Default::default()
            }),
            Self::Leave(_) => Self::Leave(LeaveGroupResponse {
                error_code: error,
                ..Default::default()
            }),
            Self::OffsetCommit(mut response) => {
                let partitions = response.topics.iter_mut().flat_map(|t| &mut t.partitions);
                partitions.for_each(|partition| partition.error_code = error);
                Self::OffsetCommit(response)
            }
            Self::OffsetFetch(response) => Self::OffsetFetch(OffsetFetchResponseGroup {
                group_id: response.group_id,
                error_code: error,
                ..Default::default()
            }),
            Self::OffsetDelete(_) => Self::OffsetDelete(OffsetDeleteResponse {
                error_code: error,
                ..Default::default()
            }),
            Self::Describe(described) => Self::Describe(DescribedGroup {
                error_code: error,
                group_id: described.group_id,
                ..Default::default()
            }),
            Self::List(_) => Self::List(vec![]),
            Self::DeleteGroups(mut results) => {
                results
                    .iter_mut()
                    .for_each(|result| result.error_code = error);
                Self::DeleteGroups(results)
            }
        }
    }
}

/// The groups of one partition of `__consumer_offsets`; see the module for how to drive it.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    prng: Prng,
    groups: BTreeMap<String, Group>,
    /// The earliest deadline of each group that has one.
    deadlines: BTreeSet<(Mono, String)>,
    /// The next look for expired offsets; none while the log is still replayed.
    expiry_at: Option<Mono>,
    /// Who waits, and in which group.
    parked: BTreeMap<Token, String>,
    /// Records given out and not replayed yet.
    unreplayed: usize,
    /// What the groups take; see `size`.
    size_bytes: usize,
    /// What they may take more.
    room_bytes: usize,
}

impl Coordinator {
    /// Without any group. Member ids are made from `seed`, which must differ from start to start.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            prng: Prng::new(seed),
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            expiry_at: None,
            parked: BTreeMap::new(),
            unreplayed: 0,
            size_bytes: 0,
            room_bytes: usize::MAX,
        }
    }

    /// Applies a record of the log: the only way to change hard state. Records of group types that
    /// this broker does not serve are skipped.
    ///
    /// # Errors
    /// The record is malformed; nothing has changed.
    pub fn replay(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), Malformed> {
        self.unreplayed = self.unreplayed.saturating_sub(1);
        match records::decode(key, value)? {
            Stored::Offset(key, Some(value)) => {
                let group = self.group_or_new(&key.group);
                let before = group.size.sum();
                group.put_offset(key.topic, key.partition, value);
                let after = group.size.sum();
                self.size_bytes = self.size_bytes - before + after;
            }
            Stored::Offset(key, None) => {
                if let Some(group) = self.groups.get_mut(&key.group) {
                    let before = group.size.sum();
                    group.remove_offset(&key.topic, key.partition);
                    self.size_bytes = self.size_bytes - before + group.size.sum();
                }
            }
            Stored::Group(group_id, Some(value)) => {
                let group = self.group_or_new(&group_id);
                let before = group.timers.next();
                group.replay_metadata(value);
                self.index_deadline(&group_id, before);
                self.count_members(&group_id);
            }
            Stored::Group(group_id, None) => self.remove_group(group_id),
            Stored::Other => {}
        }
        Ok(())
    }

    /// The whole log is replayed: sessions of all members start anew, requests may come. A group
    /// that is larger than the setting now allows has to rebalance.
    pub fn on_loaded(&mut self, now: Now) {
        self.expiry_at = Some(self.next_expiry(now));
        let mut out = Output::default();
        let group_ids: Vec<String> = self.groups.keys().cloned().collect();
        for group_id in group_ids {
            self.on_group(now, &group_id, &mut out, Group::on_loaded);
            self.count_members(&group_id);
        }
        assert!(
            out.records.is_empty(),
            "nobody has joined, so no round is complete"
        );
    }

    /// The coordinator goes away: every parked caller hears `NOT_COORDINATOR`.
    pub fn unload(mut self, out: &mut Output) {
        let error = ErrorCode::NotCoordinator;
        for group in self.groups.values_mut() {
            for (member_id, member) in &mut group.members {
                if let Some(Waiter(Some(token))) = member.joined.take() {
                    let reply = Reply::Join(join_error(member_id, error));
                    out.replies.push((token, reply));
                }
                if let Some(Waiter(Some(token))) = member.synced.take() {
                    out.replies.push((token, Reply::Sync(sync_error(error))));
                }
            }
        }
    }

    /// When [`on_deadline`](Self::on_deadline) has something to do; may be in the past.
    pub fn next_deadline(&self) -> Option<Mono> {
        let group = self.deadlines.first().map(|(at, _)| *at);
        group.into_iter().chain(self.expiry_at).min()
    }

    /// Does what is due, up to the first step that appends records. Call it while
    /// [`next_deadline`](Self::next_deadline) is not after `now`.
    pub fn on_deadline(&mut self, now: Now, out: &mut Output) {
        let records = out.records.len();
        while out.records.len() == records
            && let Some((at, group_id)) = self.deadlines.first().cloned()
            && at <= now.mono
        {
            self.on_group(now, &group_id, out, Group::on_timer);
            self.count_members(&group_id);
        }
        if out.records.len() == records && self.expiry_at.is_some_and(|at| at <= now.mono) {
            self.expiry_at = Some(self.next_expiry(now));
            self.expire(now, out);
        }
    }

    /// The connection of a parked caller is gone: it is not answered any more. Its member stays,
    /// as in Kafka, until its session ends.
    pub fn forget(&mut self, token: Token) {
        let group_id = self.parked.remove(&token);
        if let Some(group) = group_id.and_then(|group_id| self.groups.get_mut(&group_id)) {
            let members = group.members.values_mut();
            let waiters = members.flat_map(|member| [&mut member.joined, &mut member.synced]);
            for waiter in waiters.flatten().filter(|waiter| waiter.0 == Some(token)) {
                waiter.0 = None;
            }
        }
    }

    fn group_or_new(&mut self, group_id: &str) -> &mut Group {
        let size_bytes = &mut self.size_bytes;
        self.groups.entry(group_id.to_owned()).or_insert_with(|| {
            let group = Group::new();
            *size_bytes += group.size.sum();
            group
        })
    }

    /// Calls into a group, if there is one, and keeps the books: deadlines and records given out.
    fn on_group<R>(
        &mut self,
        now: Now,
        group_id: &str,
        out: &mut Output,
        act: impl FnOnce(&mut Group, &mut Turn<'_>) -> R,
    ) -> Option<R> {
        self.assert_replayed();
        let records = out.records.len();
        let group = self.groups.get_mut(group_id)?;
        let before = group.timers.next();
        let mut turn = Turn {
            now,
            config: &self.config,
            prng: &mut self.prng,
            group_id,
            parked: &mut self.parked,
            out,
        };
        let result = act(group, &mut turn);
        self.unreplayed = out.records.len() - records;
        self.index_deadline(group_id, before);
        Some(result)
    }

    /// Whether there may be one more group of this name.
    fn check_new_group(&self, group_id: &str) -> Result<(), ErrorCode> {
        if group_id.len() > GROUP_ID_BYTES_MAX {
            Err(ErrorCode::InvalidGroupId)
        } else if self.groups.len() >= self.config.group_count_max {
            Err(ErrorCode::PolicyViolation)
        } else {
            Ok(())
        }
    }

    fn push_records(&mut self, records: Vec<Record>, out: &mut Output) {
        self.unreplayed += records.len();
        out.records.extend(records);
    }

    fn index_deadline(&mut self, group_id: &str, before: Option<Mono>) {
        let after = self
            .groups
            .get(group_id)
            .and_then(|group| group.timers.next());
        if before == after {
            return;
        }
        if let Some(at) = before {
            self.deadlines.remove(&(at, group_id.to_owned()));
        }
        if let Some(at) = after {
            self.deadlines.insert((at, group_id.to_owned()));
        }
    }

    /// Offsets that a tombstone of the group alone leaves behind stay, as those of a simple group.
    fn remove_group(&mut self, group_id: String) {
        let Some(group) = self.groups.remove(&group_id) else {
            return;
        };
        self.size_bytes -= group.size.sum();
        self.index_deadline(&group_id, group.timers.next());
        if !group.offsets.is_empty() {
            let mut simple = Group {
                offsets: group.offsets,
                ..Group::new()
            };
            simple.size = simple.counted();
            self.size_bytes += simple.size.sum();
            self.groups.insert(group_id, simple);
        }
    }

    fn next_expiry(&self, now: Now) -> Mono {
        now.mono
            .plus_ms(self.config.offsets_retention_check_interval_ms)
    }

    fn assert_replayed(&self) {
        assert!(
            self.unreplayed == 0,
            "records must be replayed before the next call"
        );
    }
}
