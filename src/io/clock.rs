//! The two clocks of the machine, read together. Monotonic time counts from the first reading of
//! the process, so that deadlines mean the same on every shard.

use crate::base::{Mono, Now};
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Both clocks.
pub fn now() -> Now {
    Now {
        mono: mono(),
        wall_ms: wall_ms(),
    }
}

/// Time since the first reading of the process, never zero: zero is a deadline in the past.
pub(super) fn mono() -> Mono {
    static START: OnceLock<Instant> = OnceLock::new();
    let passed = START.get_or_init(Instant::now).elapsed();
    Mono(
        u64::try_from(passed.as_nanos())
            .unwrap_or(u64::MAX)
            .saturating_add(1),
    )
}

/// Milliseconds since the Unix epoch; a clock before it counts as zero.
fn wall_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
