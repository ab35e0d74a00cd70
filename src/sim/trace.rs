//! What happened, in order: one line per event. The hash of all lines tells whether two runs were
//! the same; the lines themselves are for whoever has to find out why a seed fails. They go to the
//! log as well, at level `trace`, so that they stand between what the broker logs.

use crate::base::Mono;
use std::collections::VecDeque;
use std::fmt;

/// Start and factor of FNV-1a.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_FACTOR: u64 = 0x0000_0100_0000_01b3;

/// The record of one run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines_max: usize,
    lines: VecDeque<String>,
}

impl Trace {
    /// Keeps the last `lines_max` lines.
    pub fn new(lines_max: usize) -> Self {
        Self {
            hash: HASH_START,
            events: 0,
            lines_max,
            lines: VecDeque::new(),
        }
    }

    /// Notes an event.
    pub fn note(&mut self, now: Mono, what: fmt::Arguments<'_>) {
        let line = format!("{:>12.6} {what}", now.0 as f64 / 1e9);
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(HASH_FACTOR);
        }
        tracing::trace!("{line}");
        self.events += 1;
        if self.lines.len() == self.lines_max {
            self.lines.pop_front();
        }
        if self.lines_max > 0 {
            self.lines.push_back(line);
        }
    }

    /// The same for the same events.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Number of events.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}
