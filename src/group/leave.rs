//! `LeaveGroup`: members leave by themselves, or an administrator removes static ones by instance
//! id
//! (KIP-345, version 3). Up to version 2 one member and one error, from 3 on a list.

use super::state::{Group, Phase};
use super::turn::Turn;
use super::{Caller, Coordinator, Output, Reply};
use crate::base::{ErrorCode, Now};
use crate::wire::messages::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse,
};

/// First version with a list of members.
const LIST_FROM: i16 = 3;

impl Coordinator {
    /// Members leave. Answers in the form of the caller's version: one error up to 2, a list from
    /// 3.
    pub fn leave(
        &mut self,
        now: Now,
        caller: Caller<'_>,
        request: LeaveGroupRequest,
        out: &mut Output,
    ) {
        let mut leaving = request.members;
        if caller.api_version < LIST_FROM {
            leaving = vec![MemberIdentity {
                member_id: request.member_id,
                ..Default::default()
            }];
        }
        let mut response = LeaveGroupResponse::default();
        if request.group_id.is_empty() {
            response.error_code = ErrorCode::InvalidGroupId;
        } else {
            let errors = self.on_group(now, &request.group_id, out, |group, turn| {
                group.leave(turn, &leaving)
            });
            let errors = errors.unwrap_or_else(|| vec![ErrorCode::UnknownMemberId; leaving.len()]);
            self.count_members(&request.group_id);
            response.members = answers(leaving, errors);
        }
        if caller.api_version < LIST_FROM {
            for member in response.members.drain(..) {
                response.error_code = member.error_code;
            }
        }
        out.replies.push((caller.token, Reply::Leave(response)));
    }
}

fn answers(leaving: Vec<MemberIdentity>, errors: Vec<ErrorCode>) -> Vec<MemberResponse> {
    let pairs = leaving.into_iter().zip(errors);
    let answers = pairs.map(|(member, error_code)| MemberResponse {
        member_id: member.member_id,
        group_instance_id: member.group_instance_id,
        error_code,
    });
    answers.collect()
}

impl Group {
    /// One code per leaving member; one round for all of them.
    fn leave(&mut self, turn: &mut Turn<'_>, leaving: &[MemberIdentity]) -> Vec<ErrorCode> {
        let errors = leaving.iter().map(|member| self.leave_one(turn, member));
        let errors: Vec<ErrorCode> = errors.map(|left| left.err().unwrap_or_default()).collect();
        if errors.contains(&ErrorCode::None) && !matches!(self.phase, Phase::Empty) {
            self.rebalance_or_complete(turn);
        }
        errors
    }

    fn leave_one(
        &mut self,
        turn: &mut Turn<'_>,
        leaving: &MemberIdentity,
    ) -> Result<(), ErrorCode> {
        let instance_id = leaving.group_instance_id.as_deref();
        let member_id = if leaving.member_id.is_empty() {
            let owner = instance_id.and_then(|id| self.static_member_id(id));
            owner.ok_or(ErrorCode::UnknownMemberId)?.clone()
        } else {
            if !self.pending_join.contains(&leaving.member_id) {
                self.validate_member(&leaving.member_id, instance_id)?;
            }
            leaving.member_id.clone()
        };
        self.remove_member(turn, &member_id);
        Ok(())
    }
}
