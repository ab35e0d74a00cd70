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
    let taken = state.coordinators.values();
    let taken: usize = taken
        .map(|coordinator| coordinator.machine.size_bytes())
        .sum();
    let Some(coordinator) = state.coordinators.get_mut(&key) else {
        return state.answer(to, Answer::NoCoordinator(ErrorCode::NotCoordinator));
    };
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
            machine.offset_delete(caller, request, out_ref);
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
    let due =
        |coordinator: &Coordinator| coordinator.next_deadline().is_some_and(|d| d <= now.mono);
    let keys: Vec<_> = state
        .coordinators
        .iter()
        .filter(|(_, c)| due(c))
        .map(|(key, _)| *key)
        .collect();
    for key in keys {
        let mut out = Output::default();
        if let Some(coordinator) = state.coordinators.get_mut(&key) {
            coordinator.machine.on_deadline(now, &mut out);
        }
        carry_out(state, key, out);
    }
}

/// Forgets the offsets of topics that are gone.
pub fn on_topics_deleted(state: &mut ShardState, topics: &[(String, TopicId)]) {
    let keys: Vec<_> = state.coordinators.keys().copied().collect();
    for key in keys {
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
    let mut failed = None;
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
            Err(error) => failed = Some(error.code()),
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
        let outgoing = match failed {
            None => Outgoing {
                to,
                answer: Answer::Group(reply),
                after,
            },
            Some(code) => Outgoing {
                to,
                answer: Answer::Group(reply.failed(code)),
                after: After::Now,
            },
        };
        state.outbox.push(outgoing);
    }
    if failed.is_some() {
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
