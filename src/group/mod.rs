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

mod state;

use bytes::Bytes;

use crate::base::prng::Prng;
use crate::base::{ErrorCode, Mono, Now, TopicId};
use crate::wire::Malformed;
use crate::wire::messages::delete_groups::DeletableGroupResult;
use crate::wire::messages::describe_groups::DescribedGroup;
use crate::wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::wire::messages::join_group::{JoinGroupRequest, JoinGroupResponse};
use crate::wire::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse};
use crate::wire::messages::list_groups::{ListGroupsRequest, ListedGroup};
use crate::wire::messages::offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
use crate::wire::messages::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
use crate::wire::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchResponseGroup};
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

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

/// What a call wants done. Every reply depends on all records of its output.
#[derive(Debug, Default)]
pub struct Output {
    /// Key and value (none for a tombstone) of each record to append, as one batch. Only the
    /// outputs of [`Coordinator::on_deadline`] and [`Coordinator::on_topics_deleted`] may be split
    /// between batches, at any record.
    pub records: Vec<(Bytes, Option<Bytes>)>,
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
    /// The same answer as an error: what the caller hears if its records could not be appended.
    #[must_use]
    pub fn failed(self, error: ErrorCode) -> Self {
        let _ = error;
        self
    }
}

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    prng: Prng,
}

impl Coordinator {
    /// Without any group. Member ids are made from `seed`, which must differ from start to start.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            prng: Prng::new(seed),
        }
    }

    /// Applies a record of the log: the only way to change hard state. Records of group types that
    /// this broker does not serve are skipped.
    ///
    /// # Errors
    /// The record is malformed; nothing has changed.
    pub fn replay(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), Malformed> {
        let _ = (key, value);
        Ok(())
    }

    /// The whole log is replayed: sessions of all members start anew, requests may come.
    pub fn on_loaded(&mut self, now: Now) {
        let _ = (now, &self.config, &mut self.prng);
    }

    /// The coordinator goes away: every parked caller hears `NOT_COORDINATOR`.
    pub fn unload(self, out: &mut Output) {
        let _ = out;
    }

    /// A member enters a group, or comes back for the next generation. Parks until the round of
    /// joins ends.
    pub fn join(
        &mut self,
        now: Now,
        caller: Caller<'_>,
        request: JoinGroupRequest,
        out: &mut Output,
    ) {
        let _ = (now, caller, request, out);
    }

    /// A member asks for its assignment; the leader brings those of all. Parks until the leader
    /// has.
    pub fn sync(
        &mut self,
        now: Now,
        caller: Caller<'_>,
        request: SyncGroupRequest,
        out: &mut Output,
    ) {
        let _ = (now, caller, request, out);
    }

    /// A member is alive, and learns whether it has to rejoin.
    pub fn heartbeat(
        &mut self,
        now: Now,
        caller: Caller<'_>,
        request: HeartbeatRequest,
        out: &mut Output,
    ) {
        let _ = (now, caller, request, out);
    }

    /// Members leave. Answers in the form of the caller's version: one error up to 2, a list from 3.
    pub fn leave(
        &mut self,
        now: Now,
        caller: Caller<'_>,
        request: LeaveGroupRequest,
        out: &mut Output,
    ) {
        let _ = (now, caller, request, out);
    }

    /// Stores positions. The caller has already taken out (and answers itself) partitions that do
    /// not exist, and has filled in both name and id of each topic; the reply has both as well.
    pub fn offset_commit(
        &mut self,
        now: Now,
        caller: Caller<'_>,
        request: OffsetCommitRequest,
        out: &mut Output,
    ) {
        let _ = (now, caller, request, out);
    }

    /// Looks positions up: one group, all versions. Names must be filled in; a topic id, where
    /// given, must match that of the commit. Without topics: all, with names only.
    pub fn offset_fetch(
        &mut self,
        caller: Caller<'_>,
        request: OffsetFetchRequestGroup,
        out: &mut Output,
    ) {
        let _ = (caller, request, out);
    }

    /// Forgets positions in topics that the group does not read (KIP-496).
    pub fn offset_delete(
        &mut self,
        caller: Caller<'_>,
        request: OffsetDeleteRequest,
        out: &mut Output,
    ) {
        let _ = (caller, request, out);
    }

    /// State and members of one group; an unknown one is `Dead`.
    pub fn describe(&self, caller: Caller<'_>, group_id: &str, out: &mut Output) {
        let _ = (caller, group_id, out);
    }

    /// The groups that pass both filters; empty filters pass all.
    pub fn list(&self, caller: Caller<'_>, request: &ListGroupsRequest, out: &mut Output) {
        let _ = (caller, request, out);
    }

    /// Removes empty groups with their offsets.
    pub fn delete_groups(&mut self, caller: Caller<'_>, group_ids: &[String], out: &mut Output) {
        let _ = (caller, group_ids, out);
    }

    /// When [`on_deadline`](Self::on_deadline) has something to do; may be in the past.
    pub fn next_deadline(&self) -> Option<Mono> {
        None
    }

    /// Does what is due, up to the first step that appends records. Call it while
    /// [`next_deadline`](Self::next_deadline) is not after `now`.
    pub fn on_deadline(&mut self, now: Now, out: &mut Output) {
        let _ = (now, out);
    }

    /// The connection of a parked caller is gone: it is not answered any more. Its member stays,
    /// as in Kafka, until its session ends.
    pub fn forget(&mut self, token: Token) {
        let _ = token;
    }

    /// Offsets of deleted topics are forgotten.
    pub fn on_topics_deleted(&mut self, topics: &[(String, TopicId)], out: &mut Output) {
        let _ = (topics, out);
    }

    /// Asserts the invariants: live state agrees with hard state, deadlines and parked callers with
    /// the groups.
    pub fn check(&self) {}
}
