//! Scripts against a coordinator with a fake clock and a log in memory.
//!
//! After every step the fixture replays what was appended, checks the invariants, and compares hard
//! state with that of a second coordinator that has only ever seen the log. No token may be
//! answered twice.

mod describe;
mod fuzz;
mod join;
mod lifetime;
mod limits;
mod membership;
mod offsets;
mod records;
mod statics;
mod sync;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::base::TopicId;
use crate::wire::messages::heartbeat::HeartbeatRequest;
use crate::wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use crate::wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use crate::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use crate::wire::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use crate::wire::records::group_metadata::GroupMetadataValue;
use crate::wire::records::offset_commit::OffsetCommitValue;

const GROUP: &str = "g";
const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;

type Hard = BTreeMap<
    String,
    (
        Option<GroupMetadataValue>,
        BTreeMap<String, BTreeMap<i32, OffsetCommitValue>>,
    ),
>;

/// A coordinator, its log, its clock, and the replies that have come.
struct Fixture {
    config: Config,
    coordinator: Coordinator,
    /// Only replays.
    replica: Coordinator,
    log: Vec<(Bytes, Option<Bytes>)>,
    now: Now,
    tokens: u64,
    replies: BTreeMap<Token, Reply>,
    version: i16,
    fails_next: bool,
    seed: u64,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// With other settings than the defaults; there is no initial delay unless it is set.
    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            initial_rebalance_delay_ms: 0,
            ..Config::default()
        };
        change(&mut config);
        let mut fixture = Self {
            coordinator: Coordinator::new(config.clone(), 1),
            replica: Coordinator::new(config.clone(), 0),
            config,
            log: vec![],
            now: Now {
                mono: Mono(1_000_000_000),
                wall_ms: 1_700_000_000_000,
            },
            tokens: 0,
            replies: BTreeMap::new(),
            version: 9,
            fails_next: false,
            seed: 1,
        };
        fixture.coordinator.on_loaded(fixture.now);
        fixture
    }

    /// One call: appends, replays, checks, and delivers.
    fn step(&mut self, act: impl FnOnce(&mut Coordinator, Now, &mut Output)) {
        let mut out = Output::default();
        act(&mut self.coordinator, self.now, &mut out);
        if std::mem::take(&mut self.fails_next) && !out.records.is_empty() {
            let replies = std::mem::take(&mut out.replies).into_iter();
            let error = ErrorCode::NotCoordinator;
            out.replies = replies
                .map(|(token, reply)| (token, reply.failed(error)))
                .collect();
            self.deliver(out.replies);
            return self.reload();
        }
        for (key, value) in &out.records {
            let live = self.coordinator.replay(key.clone(), value.clone());
            live.expect("our own record");
            let replica = self.replica.replay(key.clone(), value.clone());
            replica.expect("our own record");
        }
        self.log.append(&mut out.records);
        self.coordinator.check();
        assert_eq!(hard(&self.coordinator), hard(&self.replica));
        self.deliver(out.replies);
    }

    fn deliver(&mut self, replies: Vec<(Token, Reply)>) {
        for (token, reply) in replies {
            assert!(token.0 <= self.tokens, "nobody asked");
            let earlier = self.replies.insert(token, reply);
            assert_eq!(earlier, None, "{token:?} is answered once");
        }
    }

    /// The append of the next step that has records fails.
    fn fail_append(&mut self) {
        self.fails_next = true;
    }

    /// The coordinator is lost and built again from the log.
    fn reload(&mut self) {
        self.seed += 1;
        let new = Coordinator::new(self.config.clone(), self.seed);
        let old = std::mem::replace(&mut self.coordinator, new);
        let mut out = Output::default();
        old.unload(&mut out);
        assert!(out.records.is_empty());
        self.deliver(out.replies);
        for (key, value) in &self.log {
            let replayed = self.coordinator.replay(key.clone(), value.clone());
            replayed.expect("our own record");
        }
        self.coordinator.check();
        self.coordinator.on_loaded(self.now);
        self.coordinator.check();
        assert_eq!(hard(&self.coordinator), hard(&self.replica));
    }

    /// Lets time pass, timer by timer.
    fn sleep(&mut self, ms: i64) {
        let end = self.now.mono.plus_ms(ms);
        let wall_end = self.now.wall_ms + ms;
        while let Some(at) = self.coordinator.next_deadline().filter(|at| *at <= end) {
            let at = at.max(self.now.mono);
            self.now.wall_ms = wall_end - end.since(at).as_millis() as i64;
            self.now.mono = at;
            self.step(Coordinator::on_deadline);
        }
        self.now.mono = end;
        self.now.wall_ms = wall_end;
        self.step(Coordinator::on_deadline);
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    /// A call of the fixture's version.
    fn call(&mut self, act: impl FnOnce(&mut Coordinator, Now, Caller<'_>, &mut Output)) -> Token {
        let token = self.token();
        let api_version = self.version;
        self.step(|coordinator, now, out| {
            let caller = Caller {
                token,
                api_version,
                client_id: "client",
                client_host: "/127.0.0.1",
            };
            act(coordinator, now, caller, out);
        });
        token
    }

    fn reply(&mut self, token: Token) -> Reply {
        self.replies.remove(&token).expect("answered")
    }

    fn is_parked(&self, token: Token) -> bool {
        !self.replies.contains_key(&token)
    }

    fn state(&self) -> State {
        let group = self.coordinator.groups.get(GROUP);
        group.map_or(State::Dead, Group::state)
    }

    fn generation(&self) -> i32 {
        self.coordinator.groups[GROUP].generation
    }

    fn join(&mut self, request: JoinGroupRequest) -> Token {
        self.call(|coordinator, now, caller, out| coordinator.join(now, caller, request, out))
    }

    /// Joins and expects an answer at once.
    fn joined_now(&mut self, request: JoinGroupRequest) -> JoinGroupResponse {
        let token = self.join(request);
        self.joined(token)
    }

    fn joined(&mut self, token: Token) -> JoinGroupResponse {
        match self.reply(token) {
            Reply::Join(response) => response,
            other => panic!("{other:?}"),
        }
    }

    /// Asks for a member id (version 4 on) and joins with it. The token is that of the join.
    fn enter(&mut self) -> (String, Token) {
        let response = self.joined_now(join(""));
        assert_eq!(response.error_code, ErrorCode::MemberIdRequired);
        let token = self.join(join(&response.member_id));
        (response.member_id, token)
    }

    /// A stable group of so many members, the leader first, in generation 1.
    fn stable(&mut self, count: usize) -> Vec<String> {
        let entered: Vec<_> = (0..count).map(|_| self.enter()).collect();
        self.sleep(i64::from(self.config.initial_rebalance_delay_ms));
        let mut responses: Vec<_> = entered
            .iter()
            .map(|(_, token)| self.joined(*token))
            .collect();
        responses.sort_by_key(|response| response.member_id != response.leader);
        let members: Vec<_> = responses
            .into_iter()
            .map(|response| response.member_id)
            .collect();
        let generation = self.generation();
        for member_id in &members {
            assert_eq!(
                self.synced_now(member_id, generation, &members).1,
                ErrorCode::None
            );
        }
        assert_eq!(self.state(), State::Stable);
        members
    }

    fn sync(&mut self, member_id: &str, generation: i32, assigned: &[String]) -> Token {
        let request = sync(member_id, generation, assigned);
        self.call(|coordinator, now, caller, out| coordinator.sync(now, caller, request, out))
    }

    fn synced(&mut self, token: Token) -> (Bytes, ErrorCode) {
        match self.reply(token) {
            Reply::Sync(response) => (response.assignment, response.error_code),
            other => panic!("{other:?}"),
        }
    }

    fn synced_now(
        &mut self,
        member_id: &str,
        generation: i32,
        assigned: &[String],
    ) -> (Bytes, ErrorCode) {
        let token = self.sync(member_id, generation, assigned);
        self.synced(token)
    }

    fn heartbeat(&mut self, member_id: &str, generation: i32) -> ErrorCode {
        self.heartbeat_as(member_id, None, generation)
    }

    fn heartbeat_as(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: generation,
            member_id: member_id.into(),
            group_instance_id: instance_id.map(Into::into),
        };
        let token = self
            .call(|coordinator, now, caller, out| coordinator.heartbeat(now, caller, request, out));
        match self.reply(token) {
            Reply::Heartbeat(response) => response.error_code,
            other => panic!("{other:?}"),
        }
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<ErrorCode> {
        let members = members
            .iter()
            .map(|(member_id, instance_id)| MemberIdentity {
                member_id: (*member_id).into(),
                group_instance_id: instance_id.map(Into::into),
                reason: None,
            });
        let request = LeaveGroupRequest {
            group_id: GROUP.into(),
            members: members.collect(),
            ..Default::default()
        };
        let response = self.left(request);
        assert_eq!(response.error_code, ErrorCode::None);
        response
            .members
            .iter()
            .map(|member| member.error_code)
            .collect()
    }

    fn left(&mut self, request: LeaveGroupRequest) -> LeaveGroupResponse {
        let token =
            self.call(|coordinator, now, caller, out| coordinator.leave(now, caller, request, out));
        match self.reply(token) {
            Reply::Leave(response) => response,
            other => panic!("{other:?}"),
        }
    }

    /// Commits offset 7 of partition 0 of topic `t`.
    fn commit(&mut self, member_id: &str, generation: i32) -> ErrorCode {
        self.commit_all(commit(member_id, generation))[0]
    }

    /// The codes of all partitions.
    fn commit_all(&mut self, request: OffsetCommitRequest) -> Vec<ErrorCode> {
        let token = self.call(|coordinator, now, caller, out| {
            coordinator.offset_commit(now, caller, request, out);
        });
        match self.reply(token) {
            Reply::OffsetCommit(response) => {
                let partitions = response
                    .topics
                    .into_iter()
                    .flat_map(|topic| topic.partitions);
                partitions.map(|partition| partition.error_code).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn fetch(&mut self, request: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
        let token =
            self.call(|coordinator, _, caller, out| coordinator.offset_fetch(caller, request, out));
        match self.reply(token) {
            Reply::OffsetFetch(response) => response,
            other => panic!("{other:?}"),
        }
    }

    /// The committed offset of a partition of topic `t`.
    fn offset(&mut self, partition: i32) -> i64 {
        let topic = OffsetFetchRequestTopics {
            name: "t".into(),
            topic_id: TopicId::ZERO,
            partition_indexes: vec![partition],
        };
        let response = self.fetch(OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            topics: Some(vec![topic]),
            ..Default::default()
        });
        assert_eq!(response.error_code, ErrorCode::None);
        response.topics[0].partitions[0].committed_offset
    }

    fn delete_group(&mut self, group_id: &str) -> ErrorCode {
        let group_ids = [group_id.to_owned()];
        let token = self
            .call(|coordinator, _, caller, out| coordinator.delete_groups(caller, &group_ids, out));
        match self.reply(token) {
            Reply::DeleteGroups(results) => results[0].error_code,
            other => panic!("{other:?}"),
        }
    }
}

fn hard(coordinator: &Coordinator) -> Hard {
    let groups = coordinator.groups.iter();
    let groups = groups.map(|(group_id, group)| {
        (
            group_id.clone(),
            (group.stored.clone(), group.offsets.clone()),
        )
    });
    groups.collect()
}

fn protocols(names: &[&str]) -> Vec<JoinGroupRequestProtocol> {
    let protocols = names.iter().map(|name| JoinGroupRequestProtocol {
        name: (*name).into(),
        metadata: Bytes::from(format!("metadata of {name}")),
    });
    protocols.collect()
}

fn join(member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: GROUP.into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        member_id: member_id.into(),
        protocol_type: "consumer".into(),
        protocols: protocols(&["range"]),
        ..Default::default()
    }
}

fn join_static(member_id: &str, instance_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_instance_id: Some(instance_id.into()),
        ..join(member_id)
    }
}

/// Gives each member its own id as assignment.
fn sync(member_id: &str, generation: i32, assigned: &[String]) -> SyncGroupRequest {
    let assignments = assigned.iter().map(|member_id| SyncGroupRequestAssignment {
        member_id: member_id.clone(),
        assignment: Bytes::from(member_id.clone()),
    });
    SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id: generation,
        member_id: member_id.into(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: assignments.collect(),
        ..Default::default()
    }
}

fn commit(member_id: &str, generation: i32) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id_or_member_epoch: generation,
        member_id: member_id.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: "t".into(),
            topic_id: topic_id(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: 7,
                committed_leader_epoch: 3,
                committed_metadata: Some("note".into()),
            }],
        }],
        ..Default::default()
    }
}

fn topic_id() -> TopicId {
    TopicId(uuid::Uuid::from_u128(0x77))
}
