//! The group APIs: JoinGroup (11), Heartbeat (12), LeaveGroup (13), SyncGroup (14),
//! DescribeGroups (15), ListGroups (16), DeleteGroups (42), OffsetDelete (47). What they mean is
//! the coordinator's matter (`group`); here they find it. OffsetCommit and OffsetFetch are in
//! `offsets`.
//!
//! Without `__consumer_offsets` there is no coordinator: clients are sent to FindCoordinator, which
//! creates it.

use super::job::{Answer, GroupJob, GroupRequest, Job, Return};
use super::{Begun, Facts, Flow, unexpected};
use crate::base::placement::coordinator_partition;
use crate::base::{ErrorCode, PartitionKey, ShardId};
use crate::catalog::OFFSETS_TOPIC;
use crate::group::Reply;
use crate::state::ShardState;
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

/// Every operation on a group, as a bit set of `AclOperation` (KIP-430).
const GROUP_OPERATIONS: i32 = 0b1101_0100_1000;

/// A request that waits for one or more coordinators.
#[derive(Debug)]
pub enum Gathering {
    /// One coordinator gives the whole response.
    One(Option<Reply>),
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
    let member_id = request.member_id.clone();
    match one(state, facts, &request.group_id.clone(), GroupRequest::Join(request)) {
        Ok(begun) => begun,
        Err(error_code) => {
            facts.reply(&JoinGroupResponse { error_code, member_id, ..JoinGroupResponse::default() })
        }
    }
}

/// SyncGroup: waits until the leader has given the assignment.
pub fn begin_sync(state: &mut ShardState, facts: &Facts, request: SyncGroupRequest) -> Begun {
    match one(state, facts, &request.group_id.clone(), GroupRequest::Sync(request)) {
        Ok(begun) => begun,
        Err(error_code) => {
            facts.reply(&SyncGroupResponse { error_code, ..SyncGroupResponse::default() })
        }
    }
}

/// Heartbeat.
pub fn begin_heartbeat(state: &mut ShardState, facts: &Facts, request: HeartbeatRequest) -> Begun {
    match one(state, facts, &request.group_id.clone(), GroupRequest::Heartbeat(request)) {
        Ok(begun) => begun,
        Err(error_code) => {
            facts.reply(&HeartbeatResponse { error_code, ..HeartbeatResponse::default() })
        }
    }
}

/// LeaveGroup.
pub fn begin_leave(state: &mut ShardState, facts: &Facts, request: LeaveGroupRequest) -> Begun {
    match one(state, facts, &request.group_id.clone(), GroupRequest::Leave(request)) {
        Ok(begun) => begun,
        Err(error_code) => {
            facts.reply(&LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() })
        }
    }
}

/// OffsetDelete.
pub fn begin_offset_delete(
    state: &mut ShardState,
    facts: &Facts,
    request: OffsetDeleteRequest,
) -> Begun {
    match one(state, facts, &request.group_id.clone(), GroupRequest::DeleteOffsets(request)) {
        Ok(begun) => begun,
        Err(error_code) => {
            facts.reply(&OffsetDeleteResponse { error_code, ..OffsetDeleteResponse::default() })
        }
    }
}

/// DescribeGroups: asks each group's coordinator.
pub fn begin_describe(
    state: &mut ShardState,
    facts: &Facts,
    request: DescribeGroupsRequest,
) -> Begun {
    let mut jobs = Vec::with_capacity(request.groups.len());
    for group_id in &request.groups {
        match group_job(state, facts, group_id, GroupRequest::Describe(group_id.clone())) {
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
    let jobs = match state.image.topic(OFFSETS_TOPIC) {
        None => Vec::new(),
        Some(topic) => (0..topic.partitions)
            .map(|partition| {
                let key = PartitionKey { topic: topic.id, partition };
                job_at(state, facts, key, GroupRequest::List(request.clone()))
            })
            .collect(),
    };
    gather(facts, jobs, Gathering::List(ListGroupsResponse::default()))
}

/// DeleteGroups: asks each group's coordinator.
pub fn begin_delete(state: &mut ShardState, facts: &Facts, request: DeleteGroupsRequest) -> Begun {
    let mut jobs = Vec::with_capacity(request.groups_names.len());
    for group_id in &request.groups_names {
        match group_job(state, facts, group_id, GroupRequest::Delete(group_id.clone())) {
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

fn gather(facts: &Facts, jobs: Vec<(ShardId, Job)>, flow: Gathering) -> Begun {
    match jobs.is_empty() {
        true => flow.resume(facts),
        false => Begun::Gather(jobs, Flow::Groups(flow)),
    }
}

impl Gathering {
    /// Takes the answer of one coordinator.
    pub fn put(&mut self, slot: usize, answer: Answer) {
        let Answer::Group(reply) = answer else { unexpected(&answer) };
        match (self, reply) {
            (Self::One(place), reply) => *place = Some(reply),
            (Self::Describe { groups, .. }, Reply::Describe(group)) => groups[slot] = group,
            (Self::List(response), Reply::List(groups)) => response.groups.extend(groups),
            (Self::List(response), Reply::Failed(code)) => response.error_code = code,
            (Self::Describe { groups, .. }, Reply::Failed(code)) => groups[slot].error_code = code,
            (Self::Delete(results), Reply::Delete(code) | Reply::Failed(code)) => {
                results[slot].error_code = code;
            }
            (_, reply) => unexpected(&Answer::Group(reply)),
        }
    }

    /// Replies.
    pub fn resume(self, facts: &Facts) -> Begun {
        match self {
            Self::One(Some(reply)) => reply_one(facts, &reply),
            Self::One(None) => Begun::Close("a coordinator gave no answer"),
            Self::Describe { mut groups, operations } => {
                for group in groups.iter_mut().filter(|_| operations) {
                    group.authorized_operations = GROUP_OPERATIONS;
                }
                facts.reply(&DescribeGroupsResponse { groups, ..Default::default() })
            }
            Self::List(response) => facts.reply(&response),
            Self::Delete(results) => {
                facts.reply(&DeleteGroupsResponse { results, ..Default::default() })
            }
        }
    }
}

/// Sends a request of one group to its coordinator.
fn one(
    state: &ShardState,
    facts: &Facts,
    group_id: &str,
    request: GroupRequest,
) -> Result<Begun, ErrorCode> {
    let job = group_job(state, facts, group_id, request)?;
    Ok(Begun::Gather(vec![job], Flow::Groups(Gathering::One(None))))
}

/// The job for a group's coordinator; `NOT_COORDINATOR` without `__consumer_offsets`.
pub fn group_job(
    state: &ShardState,
    facts: &Facts,
    group_id: &str,
    request: GroupRequest,
) -> Result<(ShardId, Job), ErrorCode> {
    let topic = state.image.topic(OFFSETS_TOPIC).ok_or(ErrorCode::NotCoordinator)?;
    let partition = coordinator_partition(group_id, topic.partitions);
    let key = PartitionKey { topic: topic.id, partition };
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
