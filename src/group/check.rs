//! The invariants of the coordinator, for tests and simulations to assert after every step.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{Group, Member, Phase};
use super::timers::Timer;
use super::turn::Waiter;
use super::{Coordinator, Token};
use crate::base::Mono;

impl Coordinator {
    /// Asserts the invariants: live state agrees with hard state, deadlines and parked callers with
    /// the groups.
    pub fn check(&self) {
        self.assert_replayed();
        let mut parked: BTreeMap<Token, &str> = BTreeMap::new();
        let mut deadlines: BTreeSet<(Mono, &str)> = BTreeSet::new();
        let mut size_bytes = 0;
        for (group_id, group) in &self.groups {
            assert_eq!(group.size, group.counted(), "{group_id} is counted");
            size_bytes += group.size.sum();
            group.check(self.expiry_at.is_some());
            deadlines.extend(group.timers.next().map(|at| (at, group_id.as_str())));
            let waiters = group.members.values().flat_map(|m| [&m.joined, &m.synced]);
            for Waiter(token) in waiters.flatten() {
                if let Some(token) = token {
                    let earlier = parked.insert(*token, group_id);
                    assert_eq!(earlier, None, "{token:?} waits once");
                }
            }
        }
        assert_eq!(self.size_bytes, size_bytes, "the sum is that of the groups");
        let indexed = self.deadlines.iter().map(|(at, id)| (*at, id.as_str()));
        assert!(indexed.eq(deadlines), "deadlines are those of the groups");
        let indexed = self.parked.iter().map(|(token, id)| (*token, id.as_str()));
        assert!(
            indexed.eq(parked),
            "parked callers are those of the members"
        );
    }
}

impl Group {
    fn check(&self, is_loaded: bool) {
        match self.phase {
            Phase::Empty | Phase::Stable => self.check_settled(),
            Phase::Joining(_) => {
                assert!(self.pending_sync.is_empty(), "nobody syncs during a round");
                assert!(self.timers.is_set(&Timer::Join), "a round ends");
            }
            Phase::Syncing => {
                let leader = self.leader.as_ref().expect("a generation has a leader");
                assert!(
                    self.pending_sync.contains(leader),
                    "it waits for the leader"
                );
            }
        }
        let is_joining = matches!(self.phase, Phase::Joining(_));
        let is_syncing = matches!(self.phase, Phase::Syncing);
        assert_eq!(self.timers.is_set(&Timer::Join), is_joining);
        assert_eq!(
            self.timers.is_set(&Timer::Sync),
            !self.pending_sync.is_empty()
        );
        assert_eq!(
            self.members.is_empty(),
            self.leader.is_none(),
            "who is there has a leader"
        );
        for member_id in self.leader.iter().chain(&self.pending_sync) {
            assert!(
                self.members.contains_key(member_id),
                "{member_id} is a member"
            );
        }
        for member_id in &self.pending_join {
            assert!(
                !self.members.contains_key(member_id),
                "{member_id} is no member yet"
            );
            assert!(self.timers.is_set(&Timer::Session(member_id.clone())));
        }
        for (member_id, member) in &self.members {
            assert!(
                member.joined.is_none() || is_joining,
                "{member_id} waits for a round"
            );
            assert!(
                member.synced.is_none() || is_syncing,
                "{member_id} waits for a leader"
            );
            let waits = member.joined.is_some() || member.synced.is_some();
            let has_session = self.timers.is_set(&Timer::Session(member_id.clone()));
            assert!(
                waits || has_session || !is_loaded,
                "{member_id} has a session"
            );
        }
    }

    /// Between rounds the group is what its last record says.
    fn check_settled(&self) {
        let Some(stored) = &self.stored else {
            assert!(self.members.is_empty(), "members come with a record");
            return;
        };
        let since = stored.current_state_timestamp;
        let assignment = |_: &str, member: &Member| member.assignment.clone();
        let live = self.metadata_value(self.generation, since, assignment);
        // Members come in order of id; records of other brokers may have another.
        let mut stored = stored.clone();
        stored.members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
        for member in &mut stored.members {
            if member.rebalance_timeout == -1 {
                member.rebalance_timeout = member.session_timeout;
            }
        }
        assert_eq!(live, stored, "the group is what its record says");
    }
}
