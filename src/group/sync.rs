//! `SyncGroup`: the leader brings the assignments, every member gets its own.
//!
//! The leader's call makes the generation a record; all that wait are answered with it. Version 5
//! repeats the protocol so that both sides can check it (KIP-559).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::records;
use super::state::{Group, Phase};
use super::timers::Timer;
use super::turn::{Turn, sync_error};
use super::{Caller, Coordinator, Output, Reply};
use crate::base::limits::GROUP_METADATA_BYTES_MAX;
use crate::base::{ErrorCode, Now};
use crate::wire::messages::sync_group::{
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};

/// First version that must name the protocol.
const PROTOCOL_REQUIRED_FROM: i16 = 5;

impl Coordinator {
    /// A member asks for its assignment; the leader brings those of all. Parks until the leader
    /// has.
    pub fn sync(
        &mut self,
        now: Now,
        caller: Caller<'_>,
        mut request: SyncGroupRequest,
        out: &mut Output,
    ) {
        let lacks_protocol = request.protocol_type.is_none() || request.protocol_name.is_none();
        let error = if caller.api_version >= PROTOCOL_REQUIRED_FROM && lacks_protocol {
            ErrorCode::InconsistentGroupProtocol
        } else if request.group_id.is_empty() {
            ErrorCode::InvalidGroupId
        } else if assignment_bytes(&request) > GROUP_METADATA_BYTES_MAX {
            ErrorCode::MessageTooLarge
        } else if self.lacks_room_for_assignments(&request.group_id, &request.assignments) {
            ErrorCode::PolicyViolation
        } else {
            ErrorCode::None
        };
        if error.is_error() {
            return out
                .replies
                .push((caller.token, Reply::Sync(sync_error(error))));
        }
        let group_id = std::mem::take(&mut request.group_id);
        let done = self.on_group(now, &group_id, out, |group, turn| {
            if let Err(error) = group.sync(turn, caller, request) {
                turn.reply(caller.token, Reply::Sync(sync_error(error)));
            }
        });
        if done.is_none() {
            let response = sync_error(ErrorCode::UnknownMemberId);
            out.replies.push((caller.token, Reply::Sync(response)));
        }
    }
}

fn assignment_bytes(request: &SyncGroupRequest) -> usize {
    let assignments = request.assignments.iter();
    assignments.map(|given| given.assignment.len()).sum()
}

impl Group {
    fn sync(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller<'_>,
        request: SyncGroupRequest,
    ) -> Result<(), ErrorCode> {
        self.validate_sync(&request)?;
        let member_id = request.member_id;
        if let Phase::Joining(_) = self.phase {
            return Err(ErrorCode::RebalanceInProgress);
        }
        self.pending_sync.remove(&member_id);
        if self.pending_sync.is_empty() {
            self.timers.cancel(&Timer::Sync);
        }
        let member = self.members.get_mut(&member_id).expect("validated");
        if let Phase::Stable = self.phase {
            let assignment = member.assignment.clone();
            let response = self.assigned(assignment);
            turn.reply(caller.token, Reply::Sync(response));
            return Ok(());
        }
        // Kafka never answers the earlier call; its connection would wait forever.
        let earlier = member.synced.replace(turn.park(caller.token));
        turn.answer_sync_error(earlier, ErrorCode::RebalanceInProgress);
        if self.is_leader(&member_id) {
            self.complete_sync(turn, request.assignments);
        }
        Ok(())
    }

    fn validate_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |theirs: &Option<String>, ours: &Option<String>| {
            theirs.is_some() && ours.is_some() && theirs != ours
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    /// Stores the generation and answers all that wait. Members that the leader has forgotten get
    /// an empty assignment, others that it made up are ignored.
    fn complete_sync(&mut self, turn: &mut Turn<'_>, assignments: Vec<SyncGroupRequestAssignment>) {
        let assignments = assignments.into_iter();
        let assignments: BTreeMap<String, Bytes> = assignments
            .map(|one| (one.member_id, one.assignment))
            .collect();
        let assignment = |member_id: &str| assignments.get(member_id).cloned().unwrap_or_default();
        let value = self.metadata_value(self.generation, turn.now.wall_ms, |member_id, _| {
            assignment(member_id)
        });
        turn.push_record(records::group(turn.group_id, Some(&value)));
        let waiting = self.members.iter_mut();
        let waiting = waiting.filter_map(|(id, m)| Some((id.clone(), m.synced.take()?)));
        for (member_id, waiter) in waiting.collect::<Vec<_>>() {
            turn.answer_sync(Some(waiter), self.assigned(assignment(&member_id)));
            self.renew_session(turn, &member_id);
        }
    }

    fn assigned(&self, assignment: Bytes) -> SyncGroupResponse {
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment,
            ..Default::default()
        }
    }
}
