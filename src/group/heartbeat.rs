//! `Heartbeat`: a member says that it lives, and hears whether it has to rejoin.

use super::state::{Group, Phase};
use super::turn::Turn;
use super::{Caller, Coordinator, Output, Reply};
use crate::base::{ErrorCode, Now};
use crate::wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};

impl Coordinator {
    /// A member is alive, and learns whether it has to rejoin.
    pub fn heartbeat(
        &mut self,
        now: Now,
        caller: Caller<'_>,
        request: HeartbeatRequest,
        out: &mut Output,
    ) {
        let error_code = if request.group_id.is_empty() {
            ErrorCode::InvalidGroupId
        } else {
            self.on_group(now, &request.group_id, out, |group, turn| {
                group.heartbeat(turn, &request).err().unwrap_or_default()
            })
            .unwrap_or(ErrorCode::UnknownMemberId)
        };
        let response = HeartbeatResponse {
            error_code,
            ..Default::default()
        };
        out.replies.push((caller.token, Reply::Heartbeat(response)));
    }
}

impl Group {
    fn heartbeat(&mut self, turn: &Turn<'_>, request: &HeartbeatRequest) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        self.renew_session(turn, &request.member_id);
        match self.phase {
            Phase::Joining(_) => Err(ErrorCode::RebalanceInProgress),
            Phase::Empty | Phase::Syncing | Phase::Stable => Ok(()),
        }
    }
}
