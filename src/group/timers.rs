//! The deadlines of one group: at most one per timer, the earliest at hand.
//!
//! Nothing here knows what a deadline means.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::Mono;

/// What a group can wait for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The round of joins ends, whoever is there.
    Join,
    /// Members that have not synced are dropped.
    Sync,
    /// The member with this id (or one that was only promised the id) is gone.
    Session(String),
}

/// Timers that are set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<Timer, Mono>,
    due: BTreeSet<(Mono, Timer)>,
}

impl Timers {
    /// Sets a timer, or moves it.
    pub(super) fn set(&mut self, timer: Timer, at: Mono) {
        self.cancel(&timer);
        self.at.insert(timer.clone(), at);
        self.due.insert((at, timer));
    }

    /// Does nothing if the timer is not set.
    pub(super) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.at.remove(timer) {
            self.due.remove(&(at, timer.clone()));
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Mono> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the earliest timer if its deadline is not after `now`.
    pub(super) fn pop_due(&mut self, now: Mono) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.due.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }

    /// True if the timer is set.
    pub(super) fn is_set(&self, timer: &Timer) -> bool {
        self.at.contains_key(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_a_timer_has_one_deadline() {
        let mut timers = Timers::default();
        timers.set(Timer::Join, Mono(30));
        timers.set(Timer::Sync, Mono(20));
        timers.set(Timer::Join, Mono(10));
        assert_eq!(timers.pop_due(Mono(9)), None);
        assert_eq!(timers.pop_due(Mono(25)), Some(Timer::Join));
        assert_eq!(timers.next(), Some(Mono(20)));
        timers.cancel(&Timer::Sync);
        assert!(!timers.is_set(&Timer::Sync));
        assert_eq!(timers.pop_due(Mono(99)), None);
    }
}
