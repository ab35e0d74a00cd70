//! The group APIs: JoinGroup (11), Heartbeat (12), LeaveGroup (13), SyncGroup (14),
//! DescribeGroups (15), ListGroups (16), DeleteGroups (42), OffsetDelete (47). What they mean is
//! the coordinator's matter (`group`); here they find it. OffsetCommit and OffsetFetch are in
//! `offsets`.
//!
//! Without `__consumer_offsets` there is no coordinator: clients are sent to FindCoordinator, which
//! creates it.

use super::job::{After, Answer, GroupJob, GroupRequest, Job, Jobs, Return};
use super::{Begun, Facts, Flow, distinct, unexpected};
use crate::base::marks::{self, Mark};
use crate::base::placement::coordinator_partition;
use crate::base::planted::{self, Bug};
use crate::base::{ErrorCode, Mono, PartitionKey, ShardId, TopicId};
use crate::catalog::OFFSETS_TOPIC;
use crate::catalog::settings::BrokerSettings;
use crate::group::{self, Caller, Output, Reply, Token};
use crate::log::Origin;
use crate::state::{Outgoing, Partition, ShardState, coordinator_batch};
use crate::wire::Request;
use crate::wire::messages::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};
use crate::wire::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup,
};
use crate::wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::wire::messages::join_group::{JoinGroupRequest, JoinGroupResponse};
use crate::wire::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse};
use crate::wire::messages::list_groups::{ListGroupsRequest, ListGroupsResponse};
use crate::wire::messages::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use std::collections::BTreeMap;
use std::io;

/// Every operation on a group, as a bit set of `AclOperation` (KIP-430).
const GROUP_OPERATIONS: i32 = 0b1101_0100_1000;

/// A group coordinator and those who wait for its replies.
pub struct Coordinator {
    machine: group::Coordinator,
    /// Where the reply to each token goes.
    callers: BTreeMap<u64, Return>,
    next_token: u64,
}

/// A request that waits for one or more coordinators.
#[derive(Debug)]
pub enum Gathering {
    /// One coordinator gives the whole response.
    One(Result<Reply, ErrorCode>),
    /// DescribeGroups: one entry per group, in the order of the request.
    Describe {
        /// The response so far.
        groups: Vec<DescribedGroup>,
        /// The client asked for the operations it may do.
        operations: bool,
    },
    /// ListGroups: all coordinators.
    List(ListGroupsResponse),
    /// DeleteGroups: one entry per group, in the order of the request.
    Delete(Vec<DeletableGroupResult>),
}

/// JoinGroup: waits until the group has come together.
pub fn begin_join(state: &mut ShardState, facts: &Facts, request: JoinGroupRequest) -> Begun {
    one(
        state,
        facts,
        &request.group_id.clone(),
        GroupRequest::Join(request),
    )
}

/// SyncGroup: waits until the leader has given the assignment.
pub fn begin_sync(state: &mut ShardState, facts: &Facts, request: SyncGroupRequest) -> Begun {
    one(
        state,
        facts,
        &request.group_id.clone(),
        GroupRequest::Sync(request),
    )
}

/// Heartbeat.
pub fn begin_heartbeat(state: &mut ShardState, facts: &Facts, request: HeartbeatRequest) -> Begun {
    one(
        state,
        facts,
        &request.group_id.clone(),
        GroupRequest::Heartbeat(request),
    )
}

/// LeaveGroup.
pub fn begin_leave(state: &mut ShardState, facts: &Facts, request: LeaveGroupRequest) -> Begun {
    one(
        state,
        facts,
        &request.group_id.clone(),
        GroupRequest::Leave(request),
    )
}

/// OffsetDelete.
pub fn begin_offset_delete(
    state: &mut ShardState,
    facts: &Facts,
    request: OffsetDeleteRequest,
) -> Begun {
    one(
        state,
        facts,
        &request.group_id.clone(),
        GroupRequest::DeleteOffsets(request),
    )
}

/// DescribeGroups: asks each group's coordinator.
pub fn begin_describe(
    state: &mut ShardState,
    facts: &Facts,
    mut request: DescribeGroupsRequest,
) -> Begun {
    distinct(&mut request.groups, String::clone);
    let mut jobs = Jobs::with_capacity(request.groups.len());
    for group_id in &request.groups {
        match group_job(
            state,
            facts,
            group_id,
            GroupRequest::Describe(group_id.clone()),
        ) {
            Ok(job) => jobs.push(job),
            // No coordinator, no groups: Kafka calls a group that is not there dead.
            Err(_) => break,
        }
    }
    let unknown = |group_id: String| DescribedGroup {
        group_id,
        group_state: "Dead".to_owned(),
        ..DescribedGroup::default()
    };
    let groups = request.groups.into_iter().map(unknown).collect();
    let operations = request.include_authorized_operations;
    gather(facts, jobs, Gathering::Describe { groups, operations })
}

/// ListGroups: asks every coordinator there is.
pub fn begin_list(state: &mut ShardState, facts: &Facts, request: ListGroupsRequest) -> Begun {
    let jobs: Jobs = match state.image.topic(OFFSETS_TOPIC) {
        None => Jobs::new(),
        Some(topic) => {
            let topic_id = topic.id;
            let keys = (0..topic.partitions).map(|partition| PartitionKey {
                topic: topic_id,
                partition,
            });
            // Clients ask every broker and put the answers together.
            let asked = facts.shard;
            keys.filter(|key| !state.is_steered() || state.owner(*key) == asked)
                .map(|key| job_at(state, facts, key, GroupRequest::List(request.clone())))
                .collect()
        }
    };
    gather(facts, jobs, Gathering::List(ListGroupsResponse::default()))
}

/// DeleteGroups: asks each group's coordinator.
pub fn begin_delete(state: &mut ShardState, facts: &Facts, request: DeleteGroupsRequest) -> Begun {
    let mut jobs = Jobs::with_capacity(request.groups_names.len());
    for group_id in &request.groups_names {
        match group_job(
            state,
            facts,
            group_id,
            GroupRequest::Delete(group_id.clone()),
        ) {
            Ok(job) => jobs.push(job),
            Err(_) => break,
        }
    }
    let unknown = |group_id| DeletableGroupResult {
        group_id,
        error_code: ErrorCode::NotCoordinator,
    };
    let results = request.groups_names.into_iter().map(unknown).collect();
    gather(facts, jobs, Gathering::Delete(results))
}

fn gather(facts: &Facts, jobs: Jobs, flow: Gathering) -> Begun {
    match jobs.is_empty() {
        true => flow.resume(facts),
        false => Begun::Gather(jobs, Flow::Groups(flow)),
    }
}

impl Gathering {
    /// Takes the answer of one coordinator.
    pub fn put(&mut self, slot: usize, answer: Answer) {
        let reply = match answer {
            Answer::Group(reply) => reply,
            Answer::NoCoordinator(code) => return self.put_failure(slot, code),
            other => unexpected(&other),
        };
        match (self, reply) {
            (Self::One(place), reply) => *place = Ok(reply),
            (Self::Describe { groups, .. }, Reply::Describe(group)) => groups[slot] = group,
            (Self::List(response), Reply::List(groups)) => response.groups.extend(groups),
            (Self::Delete(results), Reply::DeleteGroups(mut deleted)) => {
                results[slot] = deleted.pop().unwrap_or_default();
            }
            (_, reply) => unexpected(&Answer::Group(reply)),
        }
    }

    fn put_failure(&mut self, slot: usize, code: ErrorCode) {
        match self {
            Self::One(place) => *place = Err(code),
            Self::Describe { groups, .. } => groups[slot].error_code = code,
            // As in Kafka: another node would list those groups. Here none does until a restart.
            Self::List(_) if code == ErrorCode::NotCoordinator => {}
            Self::List(response) => response.error_code = code,
            Self::Delete(results) => results[slot].error_code = code,
        }
    }

    /// Replies.
    pub fn resume(self, facts: &Facts) -> Begun {
        match self {
            Self::One(Ok(reply)) => reply_one(facts, &reply),
            Self::One(Err(code)) => refuse(facts, code),
            Self::Describe {
                mut groups,
                operations,
            } => {
                for group in groups.iter_mut().filter(|_| operations) {
                    group.authorized_operations = GROUP_OPERATIONS;
                }
                facts.reply(&DescribeGroupsResponse {
                    groups,
                    ..Default::default()
                })
            }
            Self::List(response) => facts.reply(&response),
            Self::Delete(results) => facts.reply(&DeleteGroupsResponse {
                results,
                ..Default::default()
            }),
        }
    }
}

/// Sends a request of one group to its coordinator.
fn one(state: &ShardState, facts: &Facts, group_id: &str, request: GroupRequest) -> Begun {
    match group_job(state, facts, group_id, request) {
        Ok(job) => {
            let unanswered = Gathering::One(Err(ErrorCode::CoordinatorNotAvailable));
            Begun::Gather(Jobs::from([job]), Flow::Groups(unanswered))
        }
        Err(code) => refuse(facts, code),
    }
}

fn reply_one(facts: &Facts, reply: &Reply) -> Begun {
    match reply {
        Reply::Join(response) => facts.reply(response),
        Reply::Sync(response) => facts.reply(response),
        Reply::Heartbeat(response) => facts.reply(response),
        Reply::Leave(response) => facts.reply(response),
        Reply::OffsetDelete(response) => facts.reply(response),
        other => unexpected(&Answer::Group(other.clone())),
    }
}

/// The response of the request's kind with nothing but an error.
fn refuse(facts: &Facts, error_code: ErrorCode) -> Begun {
    match facts.key {
        JoinGroupRequest::KEY => facts.reply(&JoinGroupResponse {
            error_code,
            ..Default::default()
        }),
        SyncGroupRequest::KEY => facts.reply(&SyncGroupResponse {
            error_code,
            ..Default::default()
        }),
        HeartbeatRequest::KEY => facts.reply(&HeartbeatResponse {
            error_code,
            ..Default::default()
        }),
        LeaveGroupRequest::KEY => facts.reply(&LeaveGroupResponse {
            error_code,
            ..Default::default()
        }),
        _ => facts.reply(&OffsetDeleteResponse {
            error_code,
            ..Default::default()
        }),
    }
}

/// The job for a group's coordinator; `NOT_COORDINATOR` without `__consumer_offsets`.
pub fn group_job(
    state: &ShardState,
    facts: &Facts,
    group_id: &str,
    request: GroupRequest,
) -> Result<(ShardId, Job), ErrorCode> {
    let topic = state
        .image
        .topic(OFFSETS_TOPIC)
        .ok_or(ErrorCode::NotCoordinator)?;
    let partition = coordinator_partition(group_id, topic.partitions);
    let key = PartitionKey {
        topic: topic.id,
        partition,
    };
    Ok(job_at(state, facts, key, request))
}

fn job_at(
    state: &ShardState,
    facts: &Facts,
    partition: PartitionKey,
    request: GroupRequest,
) -> (ShardId, Job) {
    let job = GroupJob {
        partition,
        version: facts.version,
        client_id: facts.client_id.to_string(),
        client_host: facts.peer.ip().to_canonical(),
        request,
    };
    (state.owner(partition), Job::Group(Box::new(job)))
}

impl Coordinator {
    /// Rebuilds a coordinator from its partition's log.
    pub fn load(state: &mut ShardState, partition: &mut Partition) -> io::Result<Self> {
        let seed = state.prng.next_u64();
        let mut machine = group::Coordinator::new(group_config(&state.broker), seed);
        let mut malformed = None;
        partition.replay(|record| {
            let Some(key) = record.key.clone() else {
                return;
            };
            if let Err(why) = machine.replay(key, record.value.clone()) {
                malformed.get_or_insert(format!("record {}: {why}", record.offset));
            }
        })?;
        if let Some(why) = malformed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        marks::hit(Mark::CoordinatorLoaded);
        machine.forget_unknown_topics(|id| state.image.topic_by_id(id).is_some());
        machine.on_loaded(state.now);
        Ok(Self {
            machine,
            callers: BTreeMap::new(),
            next_token: 0,
        })
    }

    /// When its next timer is due.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.machine.next_deadline()
    }
}

/// Does a job of a coordinator.
pub fn perform(state: &mut ShardState, to: Return, job: GroupJob) {
    let (now, key) = (state.now, job.partition);
    let may_decide = state.takes_decisions(key);
    let taken = state.coordinators.values();
    let taken: usize = taken
        .map(|coordinator| coordinator.machine.size_bytes())
        .sum();
    let Some(coordinator) = state.coordinators.get_mut(&key) else {
        return state.answer(to, Answer::NoCoordinator(ErrorCode::NotCoordinator));
    };
    if job.request.decides() && !may_decide {
        let code = ErrorCode::CoordinatorNotAvailable;
        return state.answer(to, Answer::NoCoordinator(code));
    }
    coordinator
        .machine
        .set_room(state.group_bytes_max.saturating_sub(taken));
    coordinator.next_token += 1;
    let token = Token(coordinator.next_token);
    coordinator.callers.insert(token.0, to);
    let client_host = format!("/{}", job.client_host);
    let caller = Caller {
        token,
        api_version: job.version,
        client_id: &job.client_id,
        client_host: &client_host,
    };
    let mut out = Output::default();
    let (machine, out_ref) = (&mut coordinator.machine, &mut out);
    match job.request {
        GroupRequest::Join(request) => machine.join(now, caller, request, out_ref),
        GroupRequest::Sync(request) => machine.sync(now, caller, request, out_ref),
        GroupRequest::Heartbeat(request) => machine.heartbeat(now, caller, request, out_ref),
        GroupRequest::Leave(request) => machine.leave(now, caller, request, out_ref),
        GroupRequest::Commit(request) => machine.offset_commit(now, caller, request, out_ref),
        GroupRequest::Fetch(request) => machine.offset_fetch(caller, request, out_ref),
        GroupRequest::DeleteOffsets(request) => {
            let exists = |topic: &str, partition: i32| {
                let topic = state.image.topic(topic);
                topic.is_some_and(|topic| (0..topic.partitions).contains(&partition))
            };
            machine.offset_delete(caller, request, exists, out_ref);
        }
        GroupRequest::Describe(group_id) => machine.describe(caller, &group_id, out_ref),
        GroupRequest::List(request) => machine.list(caller, &request, out_ref),
        GroupRequest::Delete(group_id) => {
            machine.delete_groups(caller, &[group_id], out_ref);
        }
    }
    carry_out(state, key, out);
}

/// Lets time pass for every coordinator.
pub fn on_deadline(state: &mut ShardState) {
    let now = state.now;
    let due = |coordinator: &Coordinator| {
        let deadline = coordinator.next_deadline();
        deadline.is_some_and(|deadline| deadline <= now.mono)
    };
    let due = state.coordinators.iter().filter(|(_, c)| due(c));
    let keys: Vec<_> = due.map(|(key, _)| *key).collect();
    for key in keys {
        if !state.takes_decisions(key) {
            continue;
        }
        let mut out = Output::default();
        if let Some(coordinator) = state.coordinators.get_mut(&key) {
            coordinator.machine.on_deadline(now, &mut out);
        }
        carry_out(state, key, out);
    }
}

/// Forgets the offsets of topics that are gone. Where that cannot be stored they stay, under ids
/// that nobody asks for.
pub fn on_topics_deleted(state: &mut ShardState, topics: &[(String, TopicId)]) {
    let keys: Vec<_> = state.coordinators.keys().copied().collect();
    for key in keys {
        if !state.takes_decisions(key) {
            continue;
        }
        let mut out = Output::default();
        if let Some(coordinator) = state.coordinators.get_mut(&key) {
            coordinator.machine.on_topics_deleted(topics, &mut out);
        }
        carry_out(state, key, out);
    }
}

/// Appends and replays what a coordinator has decided, and sends its replies when they are durable.
fn carry_out(state: &mut ShardState, key: PartitionKey, out: Output) {
    let (now, Some(coordinator)) = (state.now, state.coordinators.get_mut(&key)) else {
        return;
    };
    let Some(partition) = state.partitions.get_mut(&key) else {
        return;
    };
    let mut has_failed = false;
    if !out.records.is_empty() {
        let records: Vec<_> = out
            .records
            .iter()
            .map(|(key, value)| (Some(key.clone()), value.clone()))
            .collect();
        match partition
            .log
            .append(now, coordinator_batch(now, &records), Origin::Coordinator)
        {
            Ok(_) => {
                state.queued.insert(key);
                for (record_key, value) in out.records {
                    let replayed = coordinator.machine.replay(record_key, value);
                    assert!(
                        replayed.is_ok(),
                        "a coordinator replays what it has decided"
                    );
                }
            }
            Err(_) => has_failed = true,
        }
    }
    // Every reply, also a refusal, may rest on records that are not durable yet.
    let after = After::Acknowledged(key, partition.log.log_end_offset());
    for (token, reply) in out.replies {
        let Some(to) = coordinator.callers.remove(&token.0) else {
            continue;
        };
        let early = planted::is(Bug::CommitBeforeStored);
        let after = match &reply {
            Reply::OffsetCommit(_) if early => After::Now,
            _ => after,
        };
        let (reply, after) = match has_failed {
            false => (reply, after),
            true => (reply.failed(ErrorCode::NotCoordinator), After::Now),
        };
        let answer = Answer::Group(reply);
        state.outbox.push(Outgoing { to, answer, after });
    }
    if has_failed {
        unload(state, key);
    }
}

/// A coordinator whose records cannot be written decides on what never was: it ends here, and
/// comes back from its log at the next start.
pub fn unload(state: &mut ShardState, key: PartitionKey) {
    let Some(mut coordinator) = state.coordinators.remove(&key) else {
        return;
    };
    marks::hit(Mark::CoordinatorUnloaded);
    let mut out = Output::default();
    coordinator.machine.unload(&mut out);
    for (token, reply) in out.replies {
        if let Some(to) = coordinator.callers.remove(&token.0) {
            state.answer(to, Answer::Group(reply));
        }
    }
}

/// What the coordinators need of the broker's settings.
fn group_config(broker: &BrokerSettings) -> group::Config {
    let ms = |ms: i64| i32::try_from(ms).unwrap_or(i32::MAX);
    group::Config {
        session_timeout_min_ms: ms(broker.group_session_timeout_ms_min),
        session_timeout_max_ms: ms(broker.group_session_timeout_ms_max),
        initial_rebalance_delay_ms: ms(broker.group_initial_rebalance_delay_ms),
        group_count_max: broker.group_count_max as usize,
        group_size_max: broker.group_size_max as usize,
        offset_metadata_bytes_max: broker.offset_metadata_bytes_max as usize,
        offsets_retention_ms: broker.offsets_retention_ms,
        offsets_retention_check_interval_ms: broker.offsets_retention_check_interval_ms,
        ..group::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{NodeId, Now};
    use crate::catalog::{Catalog, Identity, METADATA_TOPIC_ID};
    use crate::log::test_dir::TestDir;
    use crate::log::{Config, Log, Opening, Report};
    use crate::wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
    use crate::wire::messages::offset_commit::{
        OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    };
    use crate::wire::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
    use std::sync::Arc;

    /// A shard with one partition of `__consumer_offsets` in memory, and its coordinator.
    fn shard(dir: TestDir) -> (ShardState, PartitionKey) {
        let identity = Identity {
            cluster_id: String::new(),
            node_id: NodeId(1),
            advertised: None,
            ports_per_shard: Vec::new(),
            static_settings: BTreeMap::new(),
        };
        let mut catalog = Catalog::new(identity, 1);
        let topic = |name: &str| CreatableTopic {
            name: name.to_owned(),
            num_partitions: 1,
            replication_factor: -1,
            ..CreatableTopic::default()
        };
        let (records, _) = catalog.create_topics(&CreateTopicsRequest {
            topics: vec![topic(OFFSETS_TOPIC), topic("t")],
            ..CreateTopicsRequest::default()
        });
        for record in records {
            catalog.replay(record).unwrap();
        }
        let image = catalog.image();
        let shards = (ShardId(0), 1);
        let mut state = ShardState::new(shards, Now::default(), 0, String::new(), image, 1);
        let topic = state.image.topic(OFFSETS_TOPIC).unwrap().clone();
        let settings = Arc::new(crate::catalog::topic_settings(&state.image, &topic));
        let opening = Opening {
            now: state.now,
            clean: false,
            leader_epoch: 0,
            topic_id: topic.id,
        };
        let mut dir: Box<TestDir> = Box::new(dir);
        let (config, report) = (Config::default(), &mut Report::default());
        let log = Log::open(dir.as_mut(), config, opening, report).unwrap();
        let key = PartitionKey {
            topic: topic.id,
            partition: 0,
        };
        let mut partition = Partition::new(topic, settings, dir, log);
        let coordinator = Coordinator::load(&mut state, &mut partition).unwrap();
        state.coordinators.insert(key, coordinator);
        state.partitions.insert(key, partition);
        (state, key)
    }

    /// The answer to a request, whatever it would wait for.
    fn ask(state: &mut ShardState, partition: PartitionKey, request: GroupRequest) -> Answer {
        let job = GroupJob {
            partition,
            version: 9,
            client_id: String::new(),
            client_host: [127, 0, 0, 1].into(),
            request,
        };
        let to = Return {
            shard: ShardId(0),
            call: 1,
            slot: 0,
        };
        perform(state, to, job);
        state.outbox.pop().expect("it is answered at once").answer
    }

    /// Commits offset 0 of a topic of this id, with much text.
    fn commit(state: &mut ShardState, key: PartitionKey, topic_id: TopicId) -> Answer {
        let partition = OffsetCommitRequestPartition {
            committed_metadata: Some("x".repeat(4096)),
            ..OffsetCommitRequestPartition::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: "t".to_owned(),
            topic_id,
            partitions: vec![partition; 100],
        };
        let request = OffsetCommitRequest {
            group_id: "g".to_owned(),
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        ask(state, key, GroupRequest::Commit(request))
    }

    #[test]
    fn a_full_disk_makes_a_coordinator_wait_and_does_not_end_it() {
        let mut dir = TestDir::default();
        dir.capacity_bytes = Some(0);
        let (mut state, key) = shard(dir);
        let mut refused = None;
        for _ in 0..100 {
            match commit(&mut state, key, TopicId::ZERO) {
                Answer::NoCoordinator(code) => refused = Some(code),
                answer => assert_eq!(refused, None, "{answer:?}"),
            }
            let partition = state.partitions.get_mut(&key).unwrap();
            let written = partition
                .log
                .write_queued(partition.dir.as_mut(), state.now);
            assert!(written.is_err());
        }
        assert_eq!(refused, Some(ErrorCode::CoordinatorNotAvailable));
        assert_eq!(state.next_deadline(), None, "its timers wait, too");
        let deadline = state.coordinators[&key].next_deadline();
        assert!(deadline.is_some());
        state.now.mono = deadline.unwrap();
        on_deadline(&mut state);
        let topics = [("t".to_owned(), TopicId::ZERO)];
        on_topics_deleted(&mut state, &topics);
        assert_eq!(state.coordinators[&key].next_deadline(), deadline);
        assert!(matches!(
            ask(&mut state, key, GroupRequest::Describe("g".to_owned())),
            Answer::Group(Reply::Describe(_))
        ));
    }

    /// Offsets of an earlier one may still be there; before version 10 nobody asks with an id.
    #[test]
    fn a_topic_asked_for_by_name_is_the_one_that_is_there() {
        let (mut state, key) = shard(TestDir::default());
        let there = state.image.topic("t").unwrap().id;
        for (committed_to, expected) in [(METADATA_TOPIC_ID, -1), (there, 0)] {
            commit(&mut state, key, committed_to);
            let address = "127.0.0.1:9092".parse().unwrap();
            let facts = Facts {
                key: OffsetFetchRequest::KEY,
                version: 7,
                correlation_id: 1,
                client_id: Default::default(),
                peer: address,
                local: address,
                shard: ShardId(0),
                call: 1,
            };
            let request = OffsetFetchRequest {
                group_id: "g".to_owned(),
                topics: Some(vec![OffsetFetchRequestTopic {
                    name: "t".to_owned(),
                    partition_indexes: vec![0],
                }]),
                ..OffsetFetchRequest::default()
            };
            let begun = crate::api::offsets::begin_fetch(&mut state, &facts, request);
            let Begun::Gather(jobs, _) = begun else {
                panic!("the coordinator is asked");
            };
            let Some((_, Job::Group(job))) = jobs.into_iter().next() else {
                panic!("once");
            };
            let Answer::Group(Reply::OffsetFetch(group)) = ask(&mut state, key, job.request) else {
                panic!("a reply of its kind");
            };
            let position = &group.topics[0].partitions[0];
            assert_eq!(position.committed_offset, expected);
        }
    }

    #[test]
    fn a_coordinator_that_is_gone_hides_its_groups_alone() {
        let mut list = Gathering::List(ListGroupsResponse::default());
        let groups = vec![crate::wire::messages::list_groups::ListedGroup::default()];
        list.put(0, Answer::Group(Reply::List(groups)));
        list.put(1, Answer::NoCoordinator(ErrorCode::NotCoordinator));
        let Gathering::List(response) = list else {
            panic!("it stays what it is");
        };
        assert_eq!(response.groups.len(), 1);
        assert_eq!(response.error_code, ErrorCode::None);
    }

    #[test]
    fn who_waits_for_records_that_cannot_be_written_looks_for_another_coordinator() {
        let (mut state, key) = shard(TestDir::default());
        let partition = state.partitions.get_mut(&key).unwrap();
        partition.log.poison("a broken disk".to_owned());
        let Answer::Group(Reply::OffsetCommit(response)) = commit(&mut state, key, TopicId::ZERO)
        else {
            panic!("a reply of its kind");
        };
        let code = response.topics[0].partitions[0].error_code;
        assert_eq!(code, ErrorCode::NotCoordinator);
        assert!(state.coordinators.is_empty());
    }
}
