//! A member of a classic consumer group: join, sync, heartbeats, and again at every rebalance.
//!
//! What ends a membership and what follows:
//!
//! | seen | partitions | next |
//! |---|---|---|
//! | `REBALANCE_IN_PROGRESS` | eager: all revoked; cooperative: kept | join with the same id |
//! | `ILLEGAL_GENERATION` | all revoked, they may have a new owner | join with the same id |
//! | `UNKNOWN_MEMBER_ID`, session timeout | all revoked, the same | join as a new member |
//! | coordinator moves or does not answer | kept | look for it again |
//! | anything else | all revoked | the user is told, nothing more |
//!
//! Invariant: partitions are given away only after the user acknowledged it, or after the
//! rebalance timeout; heartbeats go on meanwhile.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::assignor::Member;
use super::protocol::{
    MemberSubscription, decode_assignment, decode_subscription, encode_assignment,
    encode_subscription,
};
use super::{ConsumerError, Queued, Shared, Start, Subscription, TopicPartition, offsets};
use crate::base::ErrorCode;
use crate::client::error::is_coordinator_moved;
use crate::client::transport::Connector;
use crate::client::{Client, ClientError, Node, clock};
use crate::wire::Request;
use crate::wire::messages::heartbeat::HeartbeatRequest;
use crate::wire::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use crate::wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

/// The protocol type of every consumer group.
const PROTOCOL_TYPE: &str = "consumer";

/// Who we are in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    /// Given by the coordinator; empty before.
    pub member_id: String,
    /// Counts the group's rebalances; -1 outside of the group.
    pub generation: i32,
}

impl Default for Membership {
    fn default() -> Self {
        Self {
            member_id: String::new(),
            generation: -1,
        }
    }
}

/// Why a membership, or an attempt to join, ended.
#[derive(Debug, PartialEq, Eq)]
enum Interruption {
    /// The group rebalances.
    Rebalance,
    /// We are out, or the group went on without us.
    Lost { is_member_unknown: bool },
    /// The coordinator cannot be asked now.
    Retry,
    /// It will never work.
    Fatal(ConsumerError),
}

struct Task<C: Connector> {
    shared: Rc<Shared<C>>,
    client: Client<C>,
    group: String,
    topics: Vec<String>,
    owned: Vec<TopicPartition>,
    /// What the assignment was made from, if we are the leader: topics with partition counts.
    watched: Option<BTreeMap<String, i32>>,
}

/// Keeps the place in the group until the consumer is dropped.
pub(super) async fn run<C: Connector>(shared: Rc<Shared<C>>) {
    let (Some(group), Subscription::Topics(topics)) =
        (&shared.options.group, &shared.options.subscription)
    else {
        return;
    };
    let mut task = Task {
        client: shared.client.with_own_connections(),
        group: group.clone(),
        topics: topics.clone(),
        owned: Vec::new(),
        watched: None,
        shared: Rc::clone(&shared),
    };
    loop {
        match task.take_part().await {
            Interruption::Rebalance => {
                if !shared.options.assignor.is_cooperative() {
                    task.revoke_all(true).await;
                }
            }
            Interruption::Lost { is_member_unknown } => {
                task.forget(is_member_unknown);
                task.revoke_all(false).await;
            }
            Interruption::Retry => tokio::time::sleep(task.client.options().retry_backoff).await,
            Interruption::Fatal(error) => {
                task.revoke_all(false).await;
                // The others need not wait for the end of the session. This error tells more.
                let _ = leave(&shared).await;
                shared.tell(Queued::Failed(error));
                return;
            }
        }
    }
}

/// Leaves the group, unless the member is static or not in it.
pub(super) async fn leave<C: Connector>(shared: &Shared<C>) -> Result<(), ConsumerError> {
    let membership = shared.membership.take();
    let Some(group) = &shared.options.group else {
        return Ok(());
    };
    if membership.member_id.is_empty() || shared.options.instance_id.is_some() {
        return Ok(());
    }
    let request = LeaveGroupRequest {
        group_id: group.clone(),
        member_id: membership.member_id.clone(),
        members: vec![MemberIdentity {
            member_id: membership.member_id,
            reason: Some("the consumer was closed".to_owned()),
            ..Default::default()
        }],
    };
    // Both shapes are filled in. Whatever the answer, the session ends by its timeout at latest.
    let node = Node::Coordinator(group.clone());
    shared.client.send(node, request).await?;
    Ok(())
}

impl<C: Connector> Task<C> {
    /// Joins and stays until something ends it.
    async fn take_part(&mut self) -> Interruption {
        match self.join_and_sync().await {
            Ok(true) => Interruption::Rebalance,
            Ok(false) => self.stay().await,
            Err(interruption) => interruption,
        }
    }

    /// True if partitions were given up, which others wait for: join again at once.
    async fn join_and_sync(&mut self) -> Result<bool, Interruption> {
        let joined = self.join().await?;
        let assignment = self.sync(&joined).await?;
        self.shared.rebalances.set(self.shared.rebalances.get() + 1);
        let (kept, revoked): (Vec<_>, Vec<_>) = std::mem::take(&mut self.owned)
            .into_iter()
            .partition(|partition| assignment.contains(partition));
        let added: Vec<_> = assignment
            .iter()
            .filter(|partition| !kept.contains(partition))
            .cloned()
            .collect();
        self.owned = kept;
        let has_revoked = !revoked.is_empty();
        if has_revoked {
            self.revoke(revoked, true).await;
        }
        self.owned.extend(added.iter().cloned());
        if !added.is_empty() || !has_revoked {
            let added = added.into_iter();
            self.shared
                .assign(added.map(|partition| (partition, Start::Committed)));
        }
        Ok(has_revoked)
    }

    async fn join(&mut self) -> Result<JoinGroupResponse, Interruption> {
        let options = &self.shared.options;
        let milliseconds = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
        let within = options.rebalance_timeout + self.client.options().request_timeout;
        loop {
            let membership = self.shared.membership.borrow().clone();
            let subscription = MemberSubscription {
                topics: self.topics.clone(),
                owned: self.owned.clone(),
                generation: membership.generation,
            };
            let request = JoinGroupRequest {
                group_id: self.group.clone(),
                session_timeout_ms: milliseconds(options.session_timeout),
                rebalance_timeout_ms: milliseconds(options.rebalance_timeout),
                member_id: membership.member_id,
                group_instance_id: options.instance_id.clone(),
                protocol_type: PROTOCOL_TYPE.to_owned(),
                protocols: vec![JoinGroupRequestProtocol {
                    name: options.assignor.name().to_owned(),
                    metadata: encode_subscription(&subscription),
                }],
                ..Default::default()
            };
            let response = self.ask(request, within).await?;
            let mut membership = self.shared.membership.borrow_mut();
            if response.error_code == ErrorCode::MemberIdRequired {
                // KIP-394: a member gets its id first, so that a lost answer leaves no ghost.
                membership.member_id = response.member_id;
                continue;
            }
            drop(membership);
            self.check(response.error_code)?;
            let mut membership = self.shared.membership.borrow_mut();
            membership.member_id = response.member_id.clone();
            membership.generation = response.generation_id;
            return Ok(response);
        }
    }

    async fn sync(
        &mut self,
        joined: &JoinGroupResponse,
    ) -> Result<Vec<TopicPartition>, Interruption> {
        let is_leader = joined.leader == joined.member_id;
        self.watched = None;
        let assignments = match is_leader && !joined.skip_assignment {
            true => self.assign(joined).await?,
            false => Vec::new(),
        };
        let options = &self.shared.options;
        let request = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            group_instance_id: options.instance_id.clone(),
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol_name: Some(options.assignor.name().to_owned()),
            assignments,
        };
        let within = options.rebalance_timeout + self.client.options().request_timeout;
        let response = self.ask(request, within).await?;
        self.check(response.error_code)?;
        decode_assignment(response.assignment).map_err(|malformed| {
            Interruption::Fatal(ConsumerError::Client(ClientError::Malformed {
                address: format!("the leader of group \"{}\"", self.group),
                api: "SyncGroup",
                reason: malformed.0,
            }))
        })
    }

    /// The leader's work: divides the partitions of all topics that members want.
    async fn assign(
        &mut self,
        joined: &JoinGroupResponse,
    ) -> Result<Vec<SyncGroupRequestAssignment>, Interruption> {
        let members: Vec<Member> = joined
            .members
            .iter()
            .map(|member| {
                // A member whose bytes cannot be read gets nothing; the others still do.
                let subscription = decode_subscription(member.metadata.clone());
                let subscription = subscription.unwrap_or_default();
                Member {
                    id: member.member_id.clone(),
                    instance_id: member.group_instance_id.clone(),
                    topics: subscription.topics,
                    owned: subscription.owned,
                    generation: subscription.generation,
                }
            })
            .collect();
        let mut topics: Vec<String> = members
            .iter()
            .flat_map(|member| member.topics.iter().cloned())
            .collect();
        topics.sort_unstable();
        topics.dedup();
        let counts = self.partition_counts(topics).await?;
        let assignment = self.shared.options.assignor.assign(&members, &counts);
        self.watched = Some(counts);
        let assignments = assignment.into_iter();
        Ok(assignments
            .map(|(member_id, partitions)| SyncGroupRequestAssignment {
                member_id,
                assignment: encode_assignment(&partitions),
            })
            .collect())
    }

    /// Topics with the number of their partitions; 0 where a topic is not there (yet).
    async fn partition_counts(
        &self,
        topics: Vec<String>,
    ) -> Result<BTreeMap<String, i32>, Interruption> {
        let found = self.shared.client.metadata(&topics).await;
        let found = found.map_err(|error| self.interruption(error))?;
        let mut counts: BTreeMap<String, i32> = topics.into_iter().map(|name| (name, 0)).collect();
        for topic in found {
            let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            counts.insert(topic.name.clone(), count);
        }
        Ok(counts)
    }

    /// Sends heartbeats until one says that it is over.
    async fn stay(&mut self) -> Interruption {
        let mut heard = clock::now();
        loop {
            tokio::time::sleep(self.shared.options.heartbeat_interval).await;
            match self.heartbeat().await {
                Ok(()) => heard = clock::now(),
                Err(Interruption::Retry) if !self.is_session_over(heard) => continue,
                Err(Interruption::Retry) => {
                    return Interruption::Lost {
                        is_member_unknown: true,
                    };
                }
                Err(interruption) => return interruption,
            }
            if self.has_grown().await {
                return Interruption::Rebalance;
            }
        }
    }

    fn is_session_over(&self, heard: Instant) -> bool {
        clock::now().duration_since(heard) >= self.shared.options.session_timeout
    }

    /// True if we are the leader and the topics are not what the assignment was made from.
    async fn has_grown(&self) -> bool {
        let Some(watched) = &self.watched else {
            return false;
        };
        let topics = watched.keys().cloned().collect();
        let counts = self.partition_counts(topics).await;
        counts.is_ok_and(|counts| counts != *watched)
    }

    async fn heartbeat(&self) -> Result<(), Interruption> {
        let membership = self.shared.membership.borrow().clone();
        let options = &self.shared.options;
        let request = HeartbeatRequest {
            group_id: self.group.clone(),
            generation_id: membership.generation,
            member_id: membership.member_id,
            group_instance_id: options.instance_id.clone(),
        };
        let within = self.client.options().request_timeout;
        let response = self
            .ask(request, within.min(options.session_timeout))
            .await?;
        self.check(response.error_code)
    }

    async fn revoke_all(&mut self, is_member: bool) {
        let owned = std::mem::take(&mut self.owned);
        self.revoke(owned, is_member).await;
    }

    /// Tells the user, waits until he has dealt with it, and gives the partitions away.
    async fn revoke(&self, partitions: Vec<TopicPartition>, is_member: bool) {
        if partitions.is_empty() {
            return;
        }
        let (is_acknowledged, mut acknowledged) = oneshot::channel();
        self.shared
            .tell(Queued::Revoked(partitions.clone(), is_acknowledged));
        let deadline = clock::now() + self.shared.options.rebalance_timeout;
        while clock::now() < deadline {
            let pause = tokio::time::sleep(self.shared.options.heartbeat_interval);
            tokio::select! {
                _ = &mut acknowledged => break,
                () = pause => {}
            }
            if is_member {
                // The answer is known: the group rebalances. It is about being heard.
                let _ = self.heartbeat().await;
            }
        }
        if is_member && self.shared.options.auto_commit.is_some() {
            // Without it the next owner repeats a little, which is what it promises.
            let _ = offsets::commit_processed(&self.shared).await;
        }
        self.shared.positions.borrow_mut().remove(&partitions);
    }

    fn forget(&self, is_member_unknown: bool) {
        let mut membership = self.shared.membership.borrow_mut();
        membership.generation = -1;
        if is_member_unknown {
            membership.member_id.clear();
        }
    }

    async fn ask<R: Request>(
        &self,
        request: R,
        within: Duration,
    ) -> Result<R::Response, Interruption> {
        let node = Node::Coordinator(self.group.clone());
        let answer = self.client.send_within(node, request, i16::MAX, within);
        answer.await.map_err(|error| self.interruption(error))
    }

    fn interruption(&self, error: ClientError) -> Interruption {
        match error.is_retriable() {
            true => {
                self.client.forget_coordinator(&self.group);
                Interruption::Retry
            }
            false => Interruption::Fatal(ConsumerError::Client(error)),
        }
    }

    fn check(&self, code: ErrorCode) -> Result<(), Interruption> {
        Err(match code {
            ErrorCode::None => return Ok(()),
            ErrorCode::RebalanceInProgress => Interruption::Rebalance,
            ErrorCode::IllegalGeneration => Interruption::Lost {
                is_member_unknown: false,
            },
            ErrorCode::UnknownMemberId => Interruption::Lost {
                is_member_unknown: true,
            },
            ErrorCode::CoordinatorLoadInProgress => Interruption::Retry,
            code if is_coordinator_moved(code) => {
                self.client.forget_coordinator(&self.group);
                Interruption::Retry
            }
            code => Interruption::Fatal(ConsumerError::Group {
                group: self.group.clone(),
                code,
            }),
        })
    }
}
