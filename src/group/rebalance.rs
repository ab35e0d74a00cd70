//! Rounds: how one starts, when it is complete, who leads the next generation, who is dropped.
//!
//! Only here does a group change between its states, except for `Stable` and `Empty`, which come
//! with the record that settles a generation.

use super::records;
use super::state::{Group, InitialDelay, Phase};
use super::timers::Timer;
use super::turn::{Turn, sync_error};
use crate::base::ErrorCode;
use crate::base::marks::{self, Mark};
use crate::wire::messages::join_group::{JoinGroupResponse, JoinGroupResponseMember};

/// A round to which nobody came lasts at least so long when it is repeated: its members may have
/// asked for a rebalance timeout of 0, and would keep the shard in rounds without end.
const EMPTY_ROUND_MS_MIN: i64 = 1_000;

/// Tells a member about the current generation; the leader also hears of all members.
pub(super) fn generation_response(group: &Group, member_id: &str) -> JoinGroupResponse {
    let protocol = group.protocol.as_deref().unwrap_or_default();
    let members = group
        .members
        .iter()
        .map(|(id, member)| JoinGroupResponseMember {
            member_id: id.clone(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        });
    JoinGroupResponse {
        generation_id: group.generation,
        protocol_type: group.protocol_type.clone(),
        protocol_name: group.protocol.clone(),
        leader: group.leader.clone().unwrap_or_default(),
        member_id: member_id.to_owned(),
        members: match group.is_leader(member_id) {
            true => members.collect(),
            false => vec![],
        },
        ..Default::default()
    }
}

impl Group {
    /// Carries out the next timer that is due, if any.
    pub(super) fn on_timer(&mut self, turn: &mut Turn<'_>) {
        match self.timers.pop_due(turn.now.mono) {
            Some(Timer::Join) => self.on_join_timeout(turn),
            Some(Timer::Sync) => self.on_sync_timeout(turn),
            Some(Timer::Session(member_id)) => self.on_session_timeout(turn, &member_id),
            None => {}
        }
    }

    /// The log is replayed: every member has a full session to show up.
    pub(super) fn on_loaded(&mut self, turn: &mut Turn<'_>) {
        for member_id in self.members.keys().cloned().collect::<Vec<_>>() {
            self.renew_session(turn, &member_id);
        }
        if self.members.len() > turn.config.group_size_max {
            self.prepare_rebalance(turn);
        }
    }

    /// Something has changed: starts a round, or sees whether the one in progress is complete.
    pub(super) fn rebalance_or_complete(&mut self, turn: &mut Turn<'_>) {
        match self.phase {
            Phase::Joining(_) => self.maybe_complete_join(turn),
            Phase::Empty | Phase::Syncing | Phase::Stable => self.prepare_rebalance(turn),
        }
    }

    /// Ends the round if all are there. The first round of an empty group only ends by its delay.
    pub(super) fn maybe_complete_join(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.phase, Phase::Joining(None)) && self.all_joined() {
            self.complete_join(turn);
        }
    }

    /// Starts a round. Members that wait for an assignment learn that it will not come.
    pub(super) fn prepare_rebalance(&mut self, turn: &mut Turn<'_>) {
        if let Phase::Syncing = self.phase {
            self.reset_assignments(turn);
        }
        self.pending_sync.clear();
        self.timers.cancel(&Timer::Sync);
        if let Phase::Empty = self.phase {
            let delay_ms = i64::from(turn.config.initial_rebalance_delay_ms.max(0));
            self.timers.set(Timer::Join, turn.deadline(delay_ms));
            self.phase = Phase::Joining(Some(InitialDelay {
                delay_ms,
                remaining_ms: (self.rebalance_timeout_ms() - delay_ms).max(0),
                extend: false,
            }));
            return;
        }
        self.phase = Phase::Joining(None);
        if self.all_joined() {
            self.complete_join(turn);
        } else {
            let at = turn.deadline(self.rebalance_timeout_ms());
            self.timers.set(Timer::Join, at);
        }
    }

    /// Members that have joined the round in progress.
    pub(super) fn joined_count(&self) -> usize {
        let members = self.members.values();
        members.filter(|member| member.joined.is_some()).count()
    }

    fn all_joined(&self) -> bool {
        self.joined_count() == self.members.len() && self.pending_join.is_empty()
    }

    fn reset_assignments(&mut self, turn: &mut Turn<'_>) {
        let mut answered = vec![];
        for (member_id, member) in &mut self.members {
            member.assignment.clear();
            if let Some(waiter) = member.synced.take() {
                turn.answer_sync(Some(waiter), sync_error(ErrorCode::RebalanceInProgress));
                answered.push(member_id.clone());
            }
        }
        for member_id in answered {
            self.renew_session(turn, &member_id);
        }
    }

    /// The next generation begins with those who are there. Dynamic members that are not are
    /// dropped; static ones stay until their session ends (KIP-345).
    fn complete_join(&mut self, turn: &mut Turn<'_>) {
        self.timers.cancel(&Timer::Join);
        let missing = self.members.iter();
        let missing = missing.filter(|(_, m)| m.joined.is_none() && m.instance_id.is_none());
        let missing: Vec<String> = missing.map(|(id, _)| id.clone()).collect();
        if !missing.is_empty() {
            marks::hit(Mark::RoundWithoutMember);
        }
        for member_id in missing {
            self.remove_member(turn, &member_id);
        }
        if self.members.is_empty() {
            self.protocol = None;
            let generation = self.next_generation();
            let value = self.metadata_value(generation, turn.now.wall_ms, |_, member| {
                member.assignment.clone()
            });
            return turn.push_record(records::group(turn.group_id, Some(&value)));
        }
        if !self.elect_leader() {
            // Static members only, and none came: they get another round's time.
            let round_ms = self.rebalance_timeout_ms().max(EMPTY_ROUND_MS_MIN);
            let at = turn.deadline(round_ms);
            return self.timers.set(Timer::Join, at);
        }
        self.generation = self.next_generation();
        self.protocol = self.select_protocol();
        self.subscribed = self.subscribed_topics();
        self.phase = Phase::Syncing;
        self.pending_sync = self.members.keys().cloned().collect();
        let at = turn.deadline(self.rebalance_timeout_ms());
        self.timers.set(Timer::Sync, at);
        for member_id in self.pending_sync.clone() {
            let response = generation_response(self, &member_id);
            let member = self.members.get_mut(&member_id).expect("one of its keys");
            member.is_new = false;
            turn.answer_join(member.joined.take(), response);
            self.renew_session(turn, &member_id);
        }
    }

    /// Keeps a leader that has joined, else takes another member that has. False if none has.
    fn elect_leader(&mut self) -> bool {
        let has_joined = |id: &String| self.members.get(id).is_some_and(|m| m.joined.is_some());
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        match self.members.keys().find(|id| has_joined(id)).cloned() {
            Some(member_id) => self.leader = Some(member_id),
            None => return false,
        }
        true
    }

    fn on_join_timeout(&mut self, turn: &mut Turn<'_>) {
        if let Phase::Joining(Some(initial)) = &mut self.phase
            && initial.extend
            && initial.remaining_ms > 0
        {
            let delay_ms = i64::from(turn.config.initial_rebalance_delay_ms);
            let next = InitialDelay {
                delay_ms: delay_ms.min(initial.remaining_ms),
                remaining_ms: (initial.remaining_ms - initial.delay_ms).max(0),
                extend: false,
            };
            self.timers.set(Timer::Join, turn.deadline(next.delay_ms));
            *initial = next;
            return;
        }
        self.complete_join(turn);
    }

    fn on_sync_timeout(&mut self, turn: &mut Turn<'_>) {
        for member_id in std::mem::take(&mut self.pending_sync) {
            self.remove_member(turn, &member_id);
        }
        self.prepare_rebalance(turn);
    }

    fn on_session_timeout(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        let member = self.members.get(member_id);
        let is_member = member.is_some();
        if member.is_some_and(|m| !m.is_new && (m.joined.is_some() || m.synced.is_some())) {
            // A call that waits is a sign of life; the session starts anew with its answer.
            return;
        }
        marks::hit(Mark::SessionExpired);
        self.remove_member(turn, member_id);
        match self.phase {
            Phase::Joining(_) if self.all_joined() => self.complete_join(turn),
            Phase::Syncing | Phase::Stable if is_member => self.prepare_rebalance(turn),
            _ => {}
        }
    }
}
