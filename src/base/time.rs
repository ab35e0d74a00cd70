//! Time as a value. Machines get [`Now`] as an argument and never ask a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Wall-clock time in milliseconds since the Unix epoch: record timestamps only.
pub type WallMs = i64;

/// Monotonic time in nanoseconds from an arbitrary start: timeouts, sessions, latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// Time passed since `earlier`, zero if it is in the future.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This time plus a protocol timeout; a negative one counts as zero.
    pub fn plus_ms(self, ms: i64) -> Mono {
        Mono(
            self.0
                .saturating_add((ms.max(0) as u64).saturating_mul(1_000_000)),
        )
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;

    fn add(self, duration: Duration) -> Mono {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Mono(self.0.saturating_add(nanos))
    }
}

impl Sub<Mono> for Mono {
    type Output = Duration;

    fn sub(self, earlier: Mono) -> Duration {
        self.since(earlier)
    }
}

/// Both clocks, read once per turn of the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For everything that waits.
    pub mono: Mono,
    /// For record timestamps and retention.
    pub wall_ms: WallMs,
}
