//! `JoinGroup`: newcomers, members that come back, static members that return under a new id.
//!
//! A call either gets an answer at once or waits in its member until `rebalance` ends the round.
//! Versions: 4 sends newcomers back with a member id (KIP-394), 5 static members (KIP-345), 9 lets
//! the leader skip the assignment (KIP-814).

use super::rebalance::generation_response;
use super::records;
use super::state::{Group, Member, Phase};
use super::timers::Timer;
use super::turn::{Turn, join_error};
use super::{Caller, Coordinator, Output, Record, Reply};
use crate::base::limits::{
    GROUP_ID_BYTES_MAX, GROUP_METADATA_BYTES_MAX, MEMBER_METADATA_BYTES_MAX, MEMBER_PROTOCOLS_MAX,
};
use crate::base::marks::{self, Mark};
use crate::base::{ErrorCode, Now};
use crate::wire::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use crate::wire::records::group_metadata::GroupMetadataValue;
use bytes::Bytes;

/// First version that must join with a member id it was given.
const KNOWN_MEMBER_ID_FROM: i16 = 4;
/// First version whose leader can be told that the assignment stands.
const SKIP_ASSIGNMENT_FROM: i16 = 9;

impl Coordinator {
    /// A member enters a group, or comes back for the next generation. Parks until the round of
    /// joins ends.
    pub fn join(
        &mut self,
        now: Now,
        caller: Caller<'_>,
        mut request: JoinGroupRequest,
        out: &mut Output,
    ) {
        let timeouts = self.config.session_timeout_min_ms..=self.config.session_timeout_max_ms;
        let is_new_group = !self.groups.contains_key(&request.group_id);
        let error = if request.group_id.is_empty() {
            ErrorCode::InvalidGroupId
        } else if !timeouts.contains(&request.session_timeout_ms) {
            ErrorCode::InvalidSessionTimeout
        } else if is_new_group && !request.member_id.is_empty() {
            ErrorCode::UnknownMemberId
        } else if let Err(error) = check_bounds(&request) {
            error
        } else if is_new_group && let Err(error) = self.check_new_group(&request.group_id) {
            error
        } else if self.lacks_room_for_member(caller.client_id, &request) {
            ErrorCode::PolicyViolation
        } else {
            ErrorCode::None
        };
        if error.is_error() {
            let response = join_error(&request.member_id, error);
            return out.replies.push((caller.token, Reply::Join(response)));
        }
        if caller.api_version == 0 {
            request.rebalance_timeout_ms = request.session_timeout_ms;
        }
        for protocol in &mut request.protocols {
            // A member stays for long; the frame that it came in must not.
            protocol.metadata = Bytes::copy_from_slice(&protocol.metadata);
        }
        let group_id = std::mem::take(&mut request.group_id);
        if is_new_group {
            self.group_or_new(&group_id);
        }
        self.on_group(now, &group_id, out, |group, turn| {
            group.join(turn, caller, request);
            if is_new_group {
                turn.push_record(birth(turn.group_id, now));
            }
        });
        self.count_members(&group_id);
    }
}

/// What a member may be called and may say.
fn check_bounds(request: &JoinGroupRequest) -> Result<(), ErrorCode> {
    let instance_id = request.group_instance_id.as_deref().unwrap_or_default();
    if instance_id.len() > GROUP_ID_BYTES_MAX || request.protocols.len() > MEMBER_PROTOCOLS_MAX {
        Err(ErrorCode::InvalidRequest)
    } else if said(&request.protocols) > MEMBER_METADATA_BYTES_MAX {
        Err(ErrorCode::MessageTooLarge)
    } else {
        Ok(())
    }
}

/// Bytes of what a member says about itself.
fn said(protocols: &[JoinGroupRequestProtocol]) -> usize {
    let protocols = protocols.iter();
    protocols
        .map(|protocol| protocol.name.len() + protocol.metadata.len())
        .sum()
}

/// The record of a group that has no generation yet. Kafka writes it with the first join, whatever
/// becomes of that.
fn birth(group_id: &str, now: Now) -> Record {
    let value = GroupMetadataValue {
        protocol: None,
        leader: None,
        current_state_timestamp: now.wall_ms,
        ..Default::default()
    };
    records::group(group_id, Some(&value))
}

impl Group {
    fn join(&mut self, turn: &mut Turn<'_>, caller: Caller<'_>, request: JoinGroupRequest) {
        // Ids given out for a second try (KIP-394) are bounded as members are.
        let ids_out =
            self.pending_join.len() >= turn.config.group_size_max && request.member_id.is_empty();
        let others = self.members.iter();
        let others = others.filter(|(member_id, _)| **member_id != request.member_id);
        let said_by_others: usize = others.map(|(_, member)| said(&member.protocols)).sum();
        let too_much = said_by_others + said(&request.protocols) > GROUP_METADATA_BYTES_MAX;
        let answer = if ids_out || too_much {
            let error = ErrorCode::GroupMaxSizeReached;
            Some(join_error(&request.member_id, error))
        } else if !self.has_room_for(turn, &request.member_id) {
            self.remove_member(turn, &request.member_id);
            Some(join_error("", ErrorCode::GroupMaxSizeReached))
        } else if !self.supports(&request.protocol_type, &request.protocols) {
            let error = ErrorCode::InconsistentGroupProtocol;
            Some(join_error(&request.member_id, error))
        } else if request.member_id.is_empty() {
            self.join_newcomer(turn, caller, request)
        } else {
            self.join_known(turn, caller, request)
        };
        if let Some(response) = answer {
            turn.reply(caller.token, Reply::Join(response));
        }
    }

    /// KIP-389: in a round those who have joined count, else all members.
    fn has_room_for(&self, turn: &Turn<'_>, member_id: &str) -> bool {
        let member = self.members.get(member_id);
        match self.phase {
            Phase::Empty => true,
            Phase::Joining(_) => {
                member.is_some_and(|member| member.joined.is_some())
                    || self.joined_count() < turn.config.group_size_max
            }
            Phase::Syncing | Phase::Stable => {
                member.is_some() || self.members.len() < turn.config.group_size_max
            }
        }
    }

    /// The answer, unless the caller waits for it.
    fn join_newcomer(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller<'_>,
        request: JoinGroupRequest,
    ) -> Option<JoinGroupResponse> {
        if let Some(instance_id) = &request.group_instance_id {
            let member_id = turn.member_id(instance_id);
            match self.static_member_id(instance_id).cloned() {
                Some(old) => self.join_replacing(turn, caller, request, &old, &member_id),
                None => self.join_added(turn, caller, request, member_id),
            }
            return None;
        }
        let member_id = turn.member_id(caller.client_id);
        if caller.api_version < KNOWN_MEMBER_ID_FROM {
            self.join_added(turn, caller, request, member_id);
            return None;
        }
        let at = turn.deadline(i64::from(request.session_timeout_ms));
        self.timers.set(Timer::Session(member_id.clone()), at);
        let response = join_error(&member_id, ErrorCode::MemberIdRequired);
        self.pending_join.insert(member_id);
        Some(response)
    }

    /// The same for who comes with a member id.
    fn join_known(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller<'_>,
        request: JoinGroupRequest,
    ) -> Option<JoinGroupResponse> {
        let member_id = request.member_id.clone();
        let instance_id = request.group_instance_id.as_deref();
        if self.pending_join.contains(&member_id) {
            if instance_id.is_some() {
                // Only dynamic members are sent back with an id; Kafka fails the same way.
                return Some(join_error("", ErrorCode::UnknownServerError));
            }
            self.join_added(turn, caller, request, member_id);
            return None;
        }
        if let Err(error) = self.validate_member(&member_id, instance_id) {
            return Some(join_error(&member_id, error));
        }
        let same = self.members[&member_id].protocols == request.protocols;
        let stays = match self.phase {
            Phase::Empty | Phase::Joining(_) => false,
            Phase::Syncing => same,
            Phase::Stable => same && !self.is_leader(&member_id),
        };
        if stays {
            return Some(generation_response(self, &member_id));
        }
        self.rejoin(turn, caller, request, &member_id);
        self.rebalance_or_complete(turn);
        None
    }

    /// A member of the group joins the round, or the one that it starts, with new metadata.
    fn rejoin(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller<'_>,
        request: JoinGroupRequest,
        member_id: &str,
    ) {
        let member = self.members.get_mut(member_id).expect("the caller checked");
        member.protocols = request.protocols;
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        // Kafka never answers the earlier call; its connection would wait forever.
        let earlier = member.joined.replace(turn.park(caller.token));
        turn.answer_join_error(earlier, member_id, ErrorCode::RebalanceInProgress);
    }

    fn join_added(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller<'_>,
        request: JoinGroupRequest,
        member_id: String,
    ) {
        let member = Member {
            instance_id: request.group_instance_id,
            client_id: caller.client_id.to_owned(),
            client_host: caller.client_host.to_owned(),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            is_new: true,
            joined: Some(turn.park(caller.token)),
            synced: None,
        };
        if let Phase::Joining(Some(initial)) = &mut self.phase {
            initial.extend = true;
        }
        let at = turn.deadline(turn.config.new_member_join_timeout_ms);
        self.timers.set(Timer::Session(member_id.clone()), at);
        self.add_member(member_id, &request.protocol_type, member);
        self.rebalance_or_complete(turn);
    }

    /// A static member returns without its member id: it gets a new one and takes the place of the
    /// old. No round if the group is stable and would choose the same protocol.
    fn join_replacing(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller<'_>,
        request: JoinGroupRequest,
        old: &str,
        new: &str,
    ) {
        let old_leader = self.leader.clone().unwrap_or_default();
        marks::hit(Mark::StaticMemberReplaced);
        self.replace_static_member(turn, old, new);
        self.renew_session(turn, new);
        self.rejoin(turn, caller, request, new);
        match self.phase {
            Phase::Stable if self.select_protocol() == self.protocol => {
                self.take_over(turn, caller.api_version, new, old_leader);
            }
            Phase::Stable | Phase::Syncing => self.prepare_rebalance(turn),
            Phase::Joining(_) | Phase::Empty => self.maybe_complete_join(turn),
        }
    }

    /// Stores the generation with the new id of a static member, and lets the member go on.
    fn take_over(
        &mut self,
        turn: &mut Turn<'_>,
        api_version: i16,
        member_id: &str,
        old_leader: String,
    ) {
        let since = self
            .stored
            .as_ref()
            .map_or(-1, |stored| stored.current_state_timestamp);
        let value = self.metadata_value(self.generation, since, |_, member| {
            member.assignment.clone()
        });
        turn.push_record(records::group(turn.group_id, Some(&value)));
        let mut response = generation_response(self, member_id);
        if api_version >= SKIP_ASSIGNMENT_FROM {
            response.skip_assignment = self.is_leader(member_id);
        } else {
            // It could not skip the assignment, so it is not told that it leads.
            response.leader = old_leader;
            response.members.clear();
        }
        let member = self.members.get_mut(member_id).expect("just replaced");
        turn.answer_join(member.joined.take(), response);
    }
}
