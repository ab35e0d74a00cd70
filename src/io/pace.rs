//! How a wait begins: by looking again and again for a while (`--poll-us`), or by blocking at once.
//! A blocked thread takes tens of microseconds to come back; one that looks takes none, and burns
//! its core meanwhile.
//!
//! So a wait only spins if the one before it was short, as under load: an idle shard blocks, and
//! what spinning costs is bounded by the work there is.

use super::clock;
use crate::base::{Mono, ShardStats};
use std::sync::Arc;
use std::time::Duration;

/// After a wait shorter than this many times the bound on spinning, the next one spins. Above one,
/// because a wait that blocked is longer by the very delay that spinning saves.
const SHORT_WAIT: u32 = 4;

/// The waits of one back end, and the counters that it shares with its shard.
#[derive(Debug)]
pub struct Pace {
    pub(super) stats: Arc<ShardStats>,
    poll: Duration,
    /// The last wait was short.
    eager: bool,
    /// This wait has looked once. That look also submits, which is work.
    looked: bool,
    /// When this wait was found to have nothing yet.
    began: Option<Mono>,
}

impl Pace {
    /// Waits that spin at most for `poll` before they block; zero never spins.
    pub fn new(poll: Duration, stats: Arc<ShardStats>) -> Self {
        Self {
            stats,
            poll,
            eager: false,
            looked: false,
            began: None,
        }
    }

    /// Asked whenever there is nothing: true if the wait shall look again instead of blocking.
    pub(super) fn spins(&mut self) -> bool {
        if self.poll.is_zero() {
            return false;
        }
        if self.eager && !self.looked {
            self.looked = true;
            return true;
        }
        let now = clock::mono();
        let began = *self.began.get_or_insert(now);
        self.eager && now.since(began) < self.poll
    }

    /// The wait is over.
    pub(super) fn end(&mut self) {
        self.looked = false;
        let Some(began) = self.began.take() else {
            return;
        };
        let waited = clock::mono().since(began);
        if self.eager {
            let spun = waited.min(self.poll);
            self.stats.spin_ns.add(spun.as_nanos() as u64);
        }
        self.eager = waited < self.poll * SHORT_WAIT;
    }
}
