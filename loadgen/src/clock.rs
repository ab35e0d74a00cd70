//! The clock of a sale: time since the process set it, and the same moment as wall time. Runs on
//! tokio's clock, so a test can simulate it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Set once; copies tell the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_unix_ns: i64,
}

impl Clock {
    /// A clock that begins at zero now.
    pub fn start() -> Self {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let origin_unix_ns = i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX);
        Self {
            origin: Instant::now(),
            origin_unix_ns,
        }
    }

    /// Time since the clock was started.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The moment `at` for whoever waits for it.
    pub fn instant(&self, at: Duration) -> Instant {
        self.origin + at
    }

    /// The moment `at` in nanoseconds since 1970, without the jumps a wall clock may make.
    pub fn unix_ns(&self, at: Duration) -> i64 {
        self.origin_unix_ns
            .saturating_add(i64::try_from(at.as_nanos()).unwrap_or(i64::MAX))
    }
}
