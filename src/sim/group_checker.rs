//! What consumer groups were promised: a generation has one assignment and comes after all that
//! worked before, and a committed position is never forgotten.
//!
//! The members of the simulation commit only what they own, and only forward, so a position that
//! goes back is a commit lost or one accepted from a member that no longer owned the partition.

use crate::base::{Offset, PartitionKey};
use bytes::Bytes;
use std::collections::BTreeMap;

/// All groups of a run.
#[derive(Debug, Default)]
pub struct GroupChecker {
    groups: BTreeMap<String, Group>,
    /// Generations that members worked in.
    pub generations: u64,
    /// Positions committed.
    pub commits: u64,
}

#[derive(Debug, Default)]
struct Group {
    /// Largest generation that had its assignment stored.
    synced: i32,
    /// The same when the broker started: it must not begin before.
    stored: i32,
    /// What leaders have assigned, by generation and member.
    assigned: BTreeMap<(i32, String), Bytes>,
    /// By member, the generation it has worked in last.
    members: BTreeMap<String, i32>,
    committed: BTreeMap<PartitionKey, Committed>,
}

#[derive(Debug, Default)]
struct Committed {
    acked: Offset,
    sent: Offset,
}

impl GroupChecker {
    fn group(&mut self, group: &str) -> &mut Group {
        self.groups.entry(group.to_owned()).or_default()
    }

    /// The broker is gone; generations that were not stored are forgotten.
    pub fn on_crash(&mut self) {
        for group in self.groups.values_mut() {
            group.stored = group.synced;
            group.members.clear();
        }
    }

    /// A member has joined a generation.
    pub fn on_joined(&mut self, group: &str, member: &str, generation: i32) -> Result<(), String> {
        let state = self.group(group);
        let last = state.members.get(member).copied().unwrap_or(state.stored);
        if generation < last {
            return Err(format!(
                "{member} of {group} joined generation {generation} after {last}"
            ));
        }
        state.members.insert(member.to_owned(), generation);
        Ok(())
    }

    /// A leader hands in the assignment of a generation.
    pub fn on_assigning(&mut self, group: &str, generation: i32, member: &str, what: &Bytes) {
        let state = self.group(group);
        let key = (generation, member.to_owned());
        state.assigned.insert(key, what.clone());
    }

    /// A member got its assignment.
    pub fn on_synced(
        &mut self,
        group: &str,
        member: &str,
        generation: i32,
        what: &Bytes,
    ) -> Result<(), String> {
        self.generations += 1;
        let state = self.group(group);
        let known = state.assigned.get(&(generation, member.to_owned()));
        if known.is_some_and(|known| known != what) || (known.is_none() && !what.is_empty()) {
            return Err(format!(
                "{member} of {group} got an assignment in generation {generation} that no leader \
                 has made"
            ));
        }
        state.synced = state.synced.max(generation);
        Ok(())
    }

    /// A member is about to commit.
    pub fn on_committing(&mut self, group: &str, key: PartitionKey, offset: Offset) {
        let committed = self.group(group).committed.entry(key).or_default();
        committed.sent = committed.sent.max(offset);
    }

    /// A commit was acknowledged; `least` is what [`GroupChecker::committed`] gave when it was
    /// sent. Who may still commit has read on from there: less is from a member that has lost its
    /// place.
    pub fn on_committed(
        &mut self,
        group: &str,
        key: PartitionKey,
        least: Offset,
        offset: Offset,
    ) -> Result<(), String> {
        self.commits += 1;
        let committed = self.group(group).committed.entry(key).or_default();
        committed.acked = committed.acked.max(offset);
        match offset >= least {
            true => Ok(()),
            false => Err(format!(
                "{group} was let commit {offset} in {key:?} after {least}: somebody else owns it"
            )),
        }
    }

    /// The position that every later fetch must give at least, and every later commit has.
    pub fn committed(&mut self, group: &str, key: PartitionKey) -> Offset {
        self.group(group).committed.entry(key).or_default().acked
    }

    /// A position was fetched; `least` is what [`GroupChecker::committed`] gave when it was asked
    /// for.
    pub fn on_fetched(
        &mut self,
        group: &str,
        key: PartitionKey,
        least: Offset,
        offset: Offset,
    ) -> Result<(), String> {
        let committed = self.group(group).committed.entry(key).or_default();
        match (least..=committed.sent).contains(&offset.max(0)) {
            true => Ok(()),
            false => Err(format!(
                "{group} has committed {offset} in {key:?}; {least} was acknowledged and {} sent",
                committed.sent
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::TopicId;

    const KEY: PartitionKey = PartitionKey {
        topic: TopicId::ZERO,
        partition: 0,
    };

    #[test]
    fn a_position_lies_between_what_was_acknowledged_and_what_was_sent() {
        let mut checker = GroupChecker::default();
        checker.on_committing("g", KEY, 5);
        checker.on_committed("g", KEY, 0, 5).unwrap();
        checker.on_committing("g", KEY, 9);
        let least = checker.committed("g", KEY);
        for (offset, good) in [(-1, false), (4, false), (5, true), (9, true), (10, false)] {
            let fetched = checker.on_fetched("g", KEY, least, offset);
            assert_eq!(fetched.is_ok(), good, "{offset}");
        }
    }

    #[test]
    fn an_accepted_commit_never_goes_back() {
        let mut checker = GroupChecker::default();
        checker.on_committed("g", KEY, 0, 5).unwrap();
        let least = checker.committed("g", KEY);
        assert!(checker.on_committed("g", KEY, least, 4).is_err());
        checker.on_committed("g", KEY, least, 5).unwrap();
    }

    #[test]
    fn a_generation_never_comes_again() {
        let mut checker = GroupChecker::default();
        checker.on_joined("g", "m", 3).unwrap();
        assert!(checker.on_joined("g", "m", 2).is_err());
        checker.on_synced("g", "m", 3, &Bytes::new()).unwrap();
        checker.on_joined("g", "m", 5).unwrap();
        // Nobody has worked in 4 or 5.
        checker.on_crash();
        checker.on_joined("g", "m", 4).unwrap();
        assert!(checker.on_joined("g", "n", 2).is_err());
    }

    #[test]
    fn members_get_what_their_leader_has_assigned() {
        let mut checker = GroupChecker::default();
        let share = Bytes::from_static(b"share");
        checker.on_assigning("g", 3, "m", &share);
        checker.on_synced("g", "m", 3, &share).unwrap();
        assert!(checker.on_synced("g", "m", 3, &Bytes::new()).is_err());
        assert!(checker.on_synced("g", "m", 4, &share).is_err());
        assert!(checker.on_synced("g", "n", 3, &share).is_err());
    }
}
