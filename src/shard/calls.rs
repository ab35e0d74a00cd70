//! Requests under way on their front: what they wait for and whose they are.

use super::appending::Batches;
use crate::api::job::{Answer, Jobs, Return};
use crate::api::{Facts, Flow};
use crate::base::ConnectionId;
use crate::base::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
struct Call {
    connection: ConnectionId,
    facts: Facts,
    /// What it appends.
    batches: Batches,
    state: CallState,
}

#[derive(Debug)]
enum CallState {
    /// Begun, and not yet known to wait.
    Running,
    /// Not asked yet: a partition has its share of appends under way.
    Held { jobs: Jobs, flow: Flow },
    /// Answers are missing.
    Gathering { flow: Flow, missing: usize },
    /// Waits for a wake-up or a time.
    Parked { flow: Flow, until: Mono },
}

/// All requests under way on one shard.
#[derive(Debug, Default)]
pub struct Calls {
    calls: BTreeMap<u64, Call>,
    parked: BTreeSet<(Mono, u64)>,
}

impl Calls {
    /// A request begins.
    pub fn begin(&mut self, connection: ConnectionId, facts: Facts) {
        let call = Call {
            connection,
            facts,
            batches: Batches::new(),
            state: CallState::Running,
        };
        let earlier = self.calls.insert(call.facts.call, call);
        debug_assert!(earlier.is_none(), "call numbers are used once");
    }

    /// It waits for `missing` answers.
    pub fn gather(&mut self, call: u64, flow: Flow, missing: usize) {
        if let Some(call) = self.calls.get_mut(&call) {
            call.state = CallState::Gathering { flow, missing };
        }
    }

    /// It waits before anything of it is asked.
    pub fn hold(&mut self, call: u64, jobs: Jobs, flow: Flow) {
        if let Some(call) = self.calls.get_mut(&call) {
            call.state = CallState::Held { jobs, flow };
        }
    }

    /// Takes out what a call waits with that is held, unless it has ended.
    pub fn take_held(&mut self, call: u64) -> Option<(Jobs, Flow)> {
        let call = self.calls.get_mut(&call)?;
        match std::mem::replace(&mut call.state, CallState::Running) {
            CallState::Held { jobs, flow } => Some((jobs, flow)),
            other => {
                call.state = other;
                None
            }
        }
    }

    /// Its batches are under way.
    pub fn set_appending(&mut self, call: u64, batches: Batches) {
        if let Some(call) = self.calls.get_mut(&call) {
            call.batches = batches;
        }
    }

    /// It waits for a wake-up, or until a time.
    pub fn park(&mut self, number: u64, flow: Flow, until: Mono) {
        if let Some(call) = self.calls.get_mut(&number) {
            call.state = CallState::Parked { flow, until };
            self.parked.insert((until, number));
        }
    }

    /// Takes an answer; gives the flow back when it was the last one. Answers to calls that ended
    /// with their connection are dropped.
    pub fn put(&mut self, to: Return, answer: Answer) -> Option<(Flow, Facts)> {
        let call = self.calls.get_mut(&to.call)?;
        let CallState::Gathering { flow, missing } = &mut call.state else {
            return None;
        };
        flow.put(to.slot as usize, answer);
        *missing -= 1;
        if *missing > 0 {
            return None;
        }
        self.take_flow(to.call)
    }

    /// A watched partition shows more: gives the flow back if it was parked.
    pub fn wake(&mut self, number: u64) -> Option<(Flow, Facts)> {
        let call = self.calls.get_mut(&number)?;
        match &mut call.state {
            CallState::Parked { .. } => self.take_flow(number),
            CallState::Gathering { flow, .. } => {
                flow.on_wake();
                None
            }
            CallState::Running | CallState::Held { .. } => None,
        }
    }

    /// A parked call whose time has come.
    pub fn take_due(&mut self, now: Mono) -> Option<(Flow, Facts)> {
        let (until, number) = *self.parked.first()?;
        match until <= now {
            true => self.take_flow(number),
            false => None,
        }
    }

    /// When the next parked call must go on.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.parked.first().map(|(until, _)| *until)
    }

    /// A request ended: whose it was and what it had under way, unless it had ended before.
    pub fn end(&mut self, number: u64) -> Option<(ConnectionId, Batches)> {
        let call = self.calls.remove(&number)?;
        if let CallState::Parked { until, .. } = call.state {
            self.parked.remove(&(until, number));
        }
        Some((call.connection, call.batches))
    }

    /// The connection of a request under way.
    pub fn connection(&self, number: u64) -> Option<ConnectionId> {
        self.calls.get(&number).map(|call| call.connection)
    }

    fn take_flow(&mut self, number: u64) -> Option<(Flow, Facts)> {
        let call = self.calls.get_mut(&number)?;
        match std::mem::replace(&mut call.state, CallState::Running) {
            CallState::Gathering { flow, .. } => Some((flow, call.facts.clone())),
            CallState::Parked { flow, until } => {
                self.parked.remove(&(until, number));
                Some((flow, call.facts.clone()))
            }
            CallState::Running | CallState::Held { .. } => None,
        }
    }
}
