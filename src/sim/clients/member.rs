//! A member of the consumer group: joins, assigns if it leads, reads what it owns from where the
//! group has come to, commits, and keeps its heart beating. Sometimes it falls silent for longer
//! than its session, sometimes it leaves and comes back.
//!
//! A static member (KIP-345) also starts anew under its name, without its member id. A cooperative
//! one (KIP-429) keeps what it owns while the group rebalances, says so when it joins, and joins
//! once more when it has lost something; leaders give nobody what somebody else still owns.

use super::consumer::{read, request};
use super::link::{Answer, Heard, Link};
use super::{Client, Scene};
use crate::base::prng::Prng;
use crate::base::{ErrorCode, Mono, Offset, PartitionKey, TopicId};
use crate::sim::world::World;
use crate::wire::messages::fetch::FetchRequest;
use crate::wire::messages::find_coordinator::FindCoordinatorRequest;
use crate::wire::messages::heartbeat::HeartbeatRequest;
use crate::wire::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, JoinGroupResponseMember,
};
use crate::wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use crate::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use crate::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The one group.
const GROUP: &str = "group";

const SESSION_TIMEOUT_MS: i32 = 400;
/// Longest that a member has to wait for the others.
const ROUND_MS_MAX: i64 = 6_000;
const HEARTBEAT_MS: i64 = 60;
const RECONNECT_MS: i64 = 50;

/// First version of OffsetFetch with several groups per request.
const GROUPS_FROM: i16 = 8;
/// First version of OffsetCommit and OffsetFetch with topic ids.
const OFFSETS_BY_ID_FROM: i16 = 10;
/// First version of LeaveGroup with several members per request.
const MEMBERS_FROM: i16 = 3;
/// First version of FindCoordinator with several keys per request.
const KEYS_FROM: i16 = 4;
/// First versions that know static members.
const STATIC_JOIN_FROM: i16 = 5;
const STATIC_FROM: i16 = 3;
const STATIC_COMMIT_FROM: i16 = 7;

/// What a member does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number in the run.
    pub number: u32,
    /// What the group reads.
    pub topic: String,
    /// It has a name that outlives it.
    pub is_static: bool,
    /// It owns partitions through a rebalance.
    pub cooperative: bool,
    /// How long its group waits for a member that does not join.
    pub rebalance_timeout_ms: i32,
    /// Some member of the group is static: leaders must see the names.
    pub with_static: bool,
}

/// A member as its leader sees it.
#[derive(Debug)]
struct Led {
    member_id: String,
    /// Its name if it is static, else its id.
    who: String,
    /// What it owns, if it is cooperative.
    owned: Bytes,
}

/// What the member waits for.
#[derive(Debug)]
enum Asked {
    Coordinator,
    Join,
    Sync,
    Heartbeat,
    /// Positions, with what each must be at least.
    Offsets(BTreeMap<i32, Offset>),
    Records(i32, Offset),
    /// Positions, each with what was committed before.
    Commit(BTreeMap<i32, (Offset, Offset)>),
    Leave,
}

/// How far the member has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Does not know its coordinator.
    Lost,
    /// Must join.
    Outside,
    /// Must sync.
    Joined,
    /// Must fetch positions.
    Assigned,
    /// Reads.
    Working,
    /// Wants no more.
    Gone,
}

/// See the module's text.
pub struct Member {
    plan: Plan,
    link: Link,
    prng: Prng,
    state: State,
    instance_id: Option<String>,
    member_id: String,
    generation: i32,
    /// The members of the generation, if this one leads.
    led: Vec<Led>,
    /// The group rebalances: it joins again, soon.
    called: bool,
    owned: Vec<i32>,
    positions: BTreeMap<i32, Offset>,
    committed: BTreeMap<i32, Offset>,
    asked: Option<Asked>,
    heartbeat_at: Mono,
    rest_until: Mono,
    wake_at: Mono,
}

impl Member {
    /// A member that has not joined.
    pub fn new(plan: Plan, seed: u64) -> Self {
        let name = format!("member-{}", plan.number);
        Self {
            link: Link::new(&name),
            prng: Prng::new(seed),
            instance_id: plan.is_static.then_some(name),
            plan,
            state: State::Lost,
            member_id: String::new(),
            generation: -1,
            led: Vec::new(),
            called: false,
            owned: Vec::new(),
            positions: BTreeMap::new(),
            committed: BTreeMap::new(),
            asked: None,
            heartbeat_at: Mono::default(),
            rest_until: Mono::default(),
            wake_at: Mono::default(),
        }
    }

    fn topic_id(&self, scene: &Scene<'_>) -> TopicId {
        let topic = scene.cluster.topics.get(&self.plan.topic);
        topic.map_or(TopicId::ZERO, |topic| topic.id)
    }

    /// What it is called in the group, by those who assign.
    fn who(&self) -> String {
        self.instance_id.clone().unwrap_or(self.member_id.clone())
    }

    /// A version up to `last`, from `first` on, or from `static_first` on if it is static.
    fn version(&mut self, first: i16, static_first: i16, last: i16) -> i16 {
        let first = if self.plan.is_static {
            static_first
        } else {
            first
        };
        first + self.prng.below((last - first + 1) as u64) as i16
    }

    /// It owns nothing any more.
    fn drop_all(&mut self) {
        self.owned.clear();
        self.positions.clear();
        self.committed.clear();
    }

    /// Its process ends, and another one begins under the same name.
    fn start_anew(&mut self, scene: &mut Scene<'_>) {
        self.link.hang_up(scene);
        self.member_id.clear();
        self.drop_all();
        self.state = State::Lost;
    }

    fn key(&self, scene: &Scene<'_>, partition: i32) -> PartitionKey {
        let topic = self.topic_id(scene);
        PartitionKey { topic, partition }
    }

    /// What to do with the group's refusal; true if it was none.
    fn is_accepted(&mut self, scene: &mut Scene<'_>, error: ErrorCode) -> bool {
        match error {
            ErrorCode::None => return true,
            // What it owns is its own until it joins: it may still commit.
            ErrorCode::RebalanceInProgress if self.state == State::Working => self.called = true,
            ErrorCode::RebalanceInProgress => self.state = State::Outside,
            ErrorCode::IllegalGeneration => {
                self.drop_all();
                self.state = State::Outside;
            }
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => {
                self.drop_all();
                self.member_id.clear();
                self.state = State::Outside;
            }
            ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => {
                self.state = State::Lost;
            }
            ErrorCode::KafkaStorageError if scene.world.faults.disk_may_fail => {
                self.state = State::Lost;
            }
            error => {
                let what = format!("{} got {error:?} in {:?}", self.link.name(), self.asked);
                scene.checker.fail(what);
            }
        }
        self.rest_until = scene.world.now.plus_ms(5);
        false
    }

    /// Asks for the next thing.
    fn ask(&mut self, scene: &mut Scene<'_>) {
        let now = scene.world.now;
        match self.state {
            State::Lost => self.ask_coordinator(scene),
            State::Outside => self.ask_join(scene),
            State::Joined => self.ask_sync(scene),
            State::Assigned if self.owned.iter().all(|p| self.positions.contains_key(p)) => {
                self.state = State::Working;
                self.rest_until = now.plus_ms(1);
            }
            State::Assigned => self.ask_offsets(scene),
            State::Working if self.called && self.prng.percent(50) => self.ask_join(scene),
            State::Working if self.plan.is_static && self.prng.below(200) == 0 => {
                self.start_anew(scene);
            }
            State::Working if scene.quiet || self.prng.below(300) == 0 => self.ask_leave(scene),
            // Perhaps it does not know yet that it has lost its place.
            State::Working if !self.owned.is_empty() && self.prng.percent(10) => {
                self.ask_commit(scene);
            }
            State::Working if self.heartbeat_at <= now => {
                self.heartbeat_at = now.plus_ms(HEARTBEAT_MS);
                let request = HeartbeatRequest {
                    group_id: GROUP.to_owned(),
                    generation_id: self.generation,
                    member_id: self.member_id.clone(),
                    group_instance_id: self.instance_id.clone(),
                };
                self.asked = Some(Asked::Heartbeat);
                let version = self.version(0, STATIC_FROM, 4);
                self.link.ask(scene, version, &request, 0);
            }
            State::Working if self.prng.below(400) == 0 => {
                // Too long for the session.
                self.rest_until = now.plus_ms(2 * i64::from(SESSION_TIMEOUT_MS));
            }
            State::Working if self.owned.is_empty() => self.rest_until = self.heartbeat_at,
            State::Working if self.prng.percent(30) => self.ask_commit(scene),
            State::Working => self.ask_records(scene),
            State::Gone => {}
        }
    }

    fn ask_coordinator(&mut self, scene: &mut Scene<'_>) {
        let version = 1 + self.prng.below(6) as i16;
        let mut request = FindCoordinatorRequest::default();
        match version >= KEYS_FROM {
            true => request.coordinator_keys.push(GROUP.to_owned()),
            false => request.key = GROUP.to_owned(),
        }
        self.asked = Some(Asked::Coordinator);
        self.link.ask(scene, version, &request, 0);
    }

    fn ask_join(&mut self, scene: &mut Scene<'_>) {
        self.called = false;
        self.state = State::Outside;
        if !self.plan.cooperative {
            self.drop_all();
        }
        let owned: Vec<_> = self
            .owned
            .iter()
            .map(|partition| *partition as u8)
            .collect();
        let request = JoinGroupRequest {
            group_id: GROUP.to_owned(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: self.plan.rebalance_timeout_ms,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "sim".to_owned(),
                metadata: owned.into(),
            }],
            ..JoinGroupRequest::default()
        };
        self.asked = Some(Asked::Join);
        let first = if self.plan.with_static {
            STATIC_JOIN_FROM
        } else {
            1
        };
        let version = self.version(first, STATIC_JOIN_FROM, 9);
        let wait_ms = ROUND_MS_MAX;
        self.link.ask(scene, version, &request, wait_ms);
    }

    /// The leader brings every member's share: one byte per partition.
    fn ask_sync(&mut self, scene: &mut Scene<'_>) {
        let topic = scene.cluster.topics.get(&self.plan.topic);
        let partitions = topic.map_or(0, |topic| topic.partitions);
        let count = self.led.len();
        let mut assignments = Vec::new();
        for (at, led) in self.led.iter().enumerate() {
            let others = || self.led.iter().filter(|other| other.who != led.who);
            let free = |p: &i32| others().all(|other| !other.owned.contains(&(*p as u8)));
            let own = (0..partitions).filter(|p| *p as usize % count == at);
            let own = own.filter(free).map(|p| p as u8);
            let assignment: Bytes = own.collect::<Vec<_>>().into();
            let groups = &mut scene.checker.groups;
            groups.on_assigning(GROUP, self.generation, &led.who, &assignment);
            assignments.push(SyncGroupRequestAssignment {
                member_id: led.member_id.clone(),
                assignment,
            });
        }
        let request = SyncGroupRequest {
            group_id: GROUP.to_owned(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some("sim".to_owned()),
            assignments,
        };
        self.asked = Some(Asked::Sync);
        let version = self.version(0, STATIC_FROM, 5);
        let wait_ms = ROUND_MS_MAX;
        self.link.ask(scene, version, &request, wait_ms);
    }

    fn ask_offsets(&mut self, scene: &mut Scene<'_>) {
        let version = 1 + self.prng.below(10) as i16;
        let owned = self.owned.iter().copied();
        let new = owned.filter(|partition| !self.positions.contains_key(partition));
        let new: Vec<i32> = new.collect();
        let mut request = OffsetFetchRequest::default();
        if version >= GROUPS_FROM {
            let by_id = version >= OFFSETS_BY_ID_FROM;
            let topic = OffsetFetchRequestTopics {
                name: self.plan.topic.clone(),
                topic_id: match by_id {
                    true => self.topic_id(scene),
                    false => TopicId::ZERO,
                },
                partition_indexes: new.clone(),
            };
            request.groups.push(OffsetFetchRequestGroup {
                group_id: GROUP.to_owned(),
                topics: Some(vec![topic]),
                ..OffsetFetchRequestGroup::default()
            });
        } else {
            request.group_id = GROUP.to_owned();
            request.topics = Some(vec![OffsetFetchRequestTopic {
                name: self.plan.topic.clone(),
                partition_indexes: new.clone(),
            }]);
        }
        let mut least = BTreeMap::new();
        for partition in new {
            let key = self.key(scene, partition);
            least.insert(partition, scene.checker.groups.committed(GROUP, key));
        }
        self.asked = Some(Asked::Offsets(least));
        self.link.ask(scene, version, &request, 0);
    }

    fn ask_records(&mut self, scene: &mut Scene<'_>) {
        let at = self.prng.below(self.owned.len() as u64) as usize;
        let partition = self.owned[at];
        let position = self.positions.get(&partition).copied().unwrap_or(0);
        let version = 4 + self.prng.below(15) as i16;
        let wanted = [(partition, position)];
        let id = self.topic_id(scene);
        let request = FetchRequest {
            max_wait_ms: 20,
            min_bytes: 1,
            ..request(&self.plan.topic, id, version, &wanted, 10_000)
        };
        self.asked = Some(Asked::Records(partition, position));
        self.link.ask(scene, version, &request, 20);
    }

    fn ask_commit(&mut self, scene: &mut Scene<'_>) {
        let mut offsets = BTreeMap::new();
        for (partition, position) in &self.positions {
            if self.committed.get(partition) != Some(position) {
                let key = self.key(scene, *partition);
                let groups = &mut scene.checker.groups;
                groups.on_committing(GROUP, key, *position);
                offsets.insert(*partition, (groups.committed(GROUP, key), *position));
            }
        }
        if offsets.is_empty() {
            return self.ask_records(scene);
        }
        let version = self.version(2, STATIC_COMMIT_FROM, 10);
        let by_id = version >= OFFSETS_BY_ID_FROM;
        let partition =
            |(partition, (_, offset)): (&i32, &(_, Offset))| OffsetCommitRequestPartition {
                partition_index: *partition,
                committed_offset: *offset,
                committed_metadata: Some(String::new()),
                ..OffsetCommitRequestPartition::default()
            };
        let request = OffsetCommitRequest {
            group_id: GROUP.to_owned(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            topics: vec![OffsetCommitRequestTopic {
                name: self.plan.topic.clone(),
                topic_id: match by_id {
                    true => self.topic_id(scene),
                    false => TopicId::ZERO,
                },
                partitions: offsets.iter().map(partition).collect(),
            }],
            ..OffsetCommitRequest::default()
        };
        self.asked = Some(Asked::Commit(offsets));
        self.link.ask(scene, version, &request, 0);
    }

    fn ask_leave(&mut self, scene: &mut Scene<'_>) {
        let version = self.version(0, STATIC_FROM, 5);
        let mut request = LeaveGroupRequest {
            group_id: GROUP.to_owned(),
            ..LeaveGroupRequest::default()
        };
        match version >= MEMBERS_FROM {
            true => request.members.push(MemberIdentity {
                member_id: self.member_id.clone(),
                group_instance_id: self.instance_id.clone(),
                ..MemberIdentity::default()
            }),
            false => request.member_id = self.member_id.clone(),
        }
        self.asked = Some(Asked::Leave);
        self.link.ask(scene, version, &request, 0);
    }

    fn on_answer(&mut self, scene: &mut Scene<'_>, answer: Answer) {
        match self.asked.take() {
            Some(Asked::Coordinator) => {
                let response = answer.decode::<FindCoordinatorRequest>(scene);
                let found = response.is_some_and(|response| {
                    let one = response.coordinators.first();
                    !one.map_or(response.error_code, |one| one.error_code)
                        .is_error()
                });
                match found {
                    true => self.state = State::Outside,
                    false => self.rest_until = scene.world.now.plus_ms(20),
                }
            }
            Some(Asked::Join) => {
                if let Some(response) = answer.decode::<JoinGroupRequest>(scene) {
                    self.on_joined(scene, response);
                }
            }
            Some(Asked::Sync) => self.on_synced(scene, answer),
            Some(Asked::Heartbeat) => {
                if let Some(response) = answer.decode::<HeartbeatRequest>(scene) {
                    self.is_accepted(scene, response.error_code);
                }
            }
            Some(Asked::Offsets(least)) => self.on_offsets(scene, answer, &least),
            Some(Asked::Records(partition, offset)) => {
                let key = self.key(scene, partition);
                let response = answer.decode::<FetchRequest>(scene);
                let parts = response.iter().flat_map(|r| &r.responses);
                if let Some(part) = parts.flat_map(|t| &t.partitions).next() {
                    let found = read(scene, key, offset, part);
                    if let Some(next) = found.next {
                        self.positions.insert(partition, next);
                    }
                }
            }
            Some(Asked::Commit(offsets)) => self.on_committed(scene, answer, offsets),
            Some(Asked::Leave) => {
                self.member_id.clear();
                self.drop_all();
                self.rest_until = scene.world.now.plus_ms(self.prng.below(500) as i64);
                self.state = match scene.quiet {
                    true => State::Gone,
                    false => State::Lost,
                };
            }
            None => scene.checker.fail("an answer to nothing".to_owned()),
        }
    }

    fn on_joined(&mut self, scene: &mut Scene<'_>, response: JoinGroupResponse) {
        if response.error_code == ErrorCode::MemberIdRequired {
            self.member_id = response.member_id;
            return;
        }
        if !self.is_accepted(scene, response.error_code) {
            return;
        }
        self.member_id = response.member_id;
        self.generation = response.generation_id;
        let led = |m: JoinGroupResponseMember| Led {
            who: m.group_instance_id.unwrap_or(m.member_id.clone()),
            member_id: m.member_id,
            owned: m.metadata,
        };
        self.led = match response.skip_assignment {
            true => Vec::new(),
            false => response.members.into_iter().map(led).collect(),
        };
        self.state = State::Joined;
        if self.link.is_current(scene.world) {
            let groups = &mut scene.checker.groups;
            let joined = groups.on_joined(GROUP, &self.member_id, self.generation);
            if let Err(what) = joined {
                scene.checker.fail(what);
            }
        }
    }

    fn on_synced(&mut self, scene: &mut Scene<'_>, answer: Answer) {
        let Some(response) = answer.decode::<SyncGroupRequest>(scene) else {
            return;
        };
        if !self.is_accepted(scene, response.error_code) {
            return;
        }
        let share = response.assignment;
        let who = self.who();
        let groups = &mut scene.checker.groups;
        let synced = groups.on_synced(GROUP, &who, self.generation, &share);
        if let Err(what) = synced {
            scene.checker.fail(what);
        }
        let before = std::mem::take(&mut self.owned);
        self.owned = share.iter().map(|byte| i32::from(*byte)).collect();
        let owned = &self.owned;
        self.positions
            .retain(|partition, _| owned.contains(partition));
        self.committed
            .retain(|partition, _| owned.contains(partition));
        self.heartbeat_at = scene.world.now.plus_ms(HEARTBEAT_MS);
        self.state = match before.iter().all(|partition| owned.contains(partition)) {
            true => State::Assigned,
            // What it has lost is free for others in the next generation.
            false => State::Outside,
        };
    }

    fn on_offsets(&mut self, scene: &mut Scene<'_>, answer: Answer, least: &BTreeMap<i32, Offset>) {
        let Some(response) = answer.decode::<OffsetFetchRequest>(scene) else {
            return;
        };
        let group = response.groups.first();
        let error = group.map_or(response.error_code, |group| group.error_code);
        let old = response.topics.iter().flat_map(|topic| &topic.partitions);
        let old = old.map(|p| (p.partition_index, p.committed_offset, p.error_code));
        let new = group.iter().flat_map(|group| &group.topics);
        let new = new.flat_map(|topic| &topic.partitions);
        let new = new.map(|p| (p.partition_index, p.committed_offset, p.error_code));
        let found: Vec<_> = old.chain(new).collect();
        let errors = found.iter().map(|(_, _, error)| *error);
        let error = errors.chain([error]).find(|error| error.is_error());
        if !self.is_accepted(scene, error.unwrap_or_default()) {
            return;
        }
        for (partition, offset, _) in found {
            let key = self.key(scene, partition);
            let least = least.get(&partition).copied().unwrap_or(0);
            let groups = &mut scene.checker.groups;
            if let Err(what) = groups.on_fetched(GROUP, key, least, offset) {
                scene.checker.fail(what);
            }
            self.positions.insert(partition, offset.max(0));
            self.committed.insert(partition, offset.max(0));
        }
        if !least
            .keys()
            .all(|partition| self.positions.contains_key(partition))
        {
            let what = format!("{:?} does not answer {least:?}", self.positions);
            scene.checker.fail(what);
        }
        self.state = State::Working;
    }

    fn on_committed(
        &mut self,
        scene: &mut Scene<'_>,
        answer: Answer,
        offsets: BTreeMap<i32, (Offset, Offset)>,
    ) {
        let Some(response) = answer.decode::<OffsetCommitRequest>(scene) else {
            return;
        };
        let parts = response.topics.iter().flat_map(|topic| &topic.partitions);
        for part in parts.cloned().collect::<Vec<_>>() {
            if !self.is_accepted(scene, part.error_code) {
                continue;
            }
            let offset = offsets.get(&part.partition_index).copied();
            let key = self.key(scene, part.partition_index);
            if let Some((least, offset)) = offset {
                let groups = &mut scene.checker.groups;
                if let Err(what) = groups.on_committed(GROUP, key, least, offset) {
                    scene.checker.fail(what);
                }
                self.committed.insert(part.partition_index, offset);
            }
        }
    }
}

impl Client for Member {
    fn name(&self) -> &str {
        self.link.name()
    }

    fn turn(&mut self, scene: &mut Scene<'_>) {
        while let Some(heard) = self.link.hear(scene) {
            match heard {
                Heard::Answer(answer) => self.on_answer(scene, answer),
                Heard::Broken => {
                    self.asked = None;
                    // What was sent has arrived by then, or never will: an old commit must not
                    // overtake a new one.
                    self.rest_until = scene.world.now.plus_ms(RECONNECT_MS);
                    if self.state == State::Joined {
                        // The generation may not have been stored.
                        self.state = State::Outside;
                    }
                }
            }
        }
        let due = self.rest_until <= scene.world.now;
        if self.asked.is_none() && due && self.state != State::Gone && self.link.is_up(scene) {
            self.ask(scene);
        }
        self.wake_at = match (&self.asked, self.state) {
            (Some(_), _) => self.link.next_deadline(),
            (None, State::Gone) => Mono(u64::MAX),
            (None, _) if self.link.is_connected() => self.rest_until,
            (None, _) => self.link.next_deadline().max(self.rest_until),
        };
    }

    fn is_awake(&self, world: &World) -> bool {
        self.link.is_awake(world)
    }

    fn next_deadline(&self) -> Mono {
        self.wake_at
    }

    fn is_idle(&self) -> bool {
        self.state == State::Gone && self.asked.is_none()
    }
}
