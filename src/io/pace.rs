//! How a wait begins: by looking again and again for a while (`--poll-us`), or by blocking at once.
//! A blocked thread takes tens of microseconds to come back; one that looks takes none, and burns
//! its core meanwhile.
//!
//! So a wait only spins if the one before it was short, as under load: an idle shard blocks, and
//! what spinning costs is bounded by the work there is. And it never spins while a worker thread
//! does something for this shard: the worker runs on the same core, which it would not get.

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
    /// Operations under way on worker threads.
    on_workers: usize,
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
            on_workers: 0,
        }
    }

    /// A worker got something to do.
    pub(super) fn worker_began(&mut self) {
        self.on_workers += 1;
    }

    /// A worker has done it.
    pub(super) fn worker_ended(&mut self) {
        self.on_workers -= 1;
    }

    /// Asked whenever there is nothing: true if the wait shall look again instead of blocking.
    pub(super) fn spins(&mut self) -> bool {
        if self.poll.is_zero() || self.on_workers > 0 {
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

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_millis(5);

    /// A wait in which nothing comes for so long; true if it spun.
    fn wait(pace: &mut Pace, nothing_for: Duration) -> bool {
        let began = clock::mono();
        let mut spun = false;
        while clock::mono().since(began) < nothing_for {
            match pace.spins() {
                true => spun = true,
                false => std::thread::sleep(nothing_for),
            }
        }
        pace.end();
        spun
    }

    #[test]
    fn only_a_short_wait_makes_the_next_one_spin() {
        let mut pace = Pace::new(POLL, Arc::default());
        assert!(!wait(&mut pace, POLL / 5), "nothing is known yet");
        assert!(wait(&mut pace, POLL / 5));
        let spun = pace.stats.spin_ns.get();
        assert!(spun > 0 && spun <= POLL.as_nanos() as u64, "{spun} ns");
        assert!(wait(&mut pace, 5 * POLL), "it could not know");
        assert!(pace.stats.spin_ns.get() <= spun + POLL.as_nanos() as u64);
        assert!(!wait(&mut pace, 5 * POLL));
        assert!(!wait(&mut pace, POLL / 5), "the last one was long");
        assert!(wait(&mut pace, POLL / 5));
    }

    #[test]
    fn a_worker_gets_the_core() {
        let mut pace = Pace::new(POLL, Arc::default());
        wait(&mut pace, POLL / 5);
        pace.worker_began();
        assert!(!wait(&mut pace, POLL / 5));
        pace.worker_ended();
        wait(&mut pace, POLL / 5);
        assert!(wait(&mut pace, POLL / 5));
    }

    #[test]
    fn without_a_bound_nothing_spins_or_is_counted() {
        let mut pace = Pace::new(Duration::ZERO, Arc::default());
        assert!(!wait(&mut pace, POLL / 5));
        assert!(!wait(&mut pace, POLL / 5));
        assert_eq!(pace.stats.spin_ns.get(), 0);
    }
}
