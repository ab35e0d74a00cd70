//! The client's clocks, the only place of the client that reads them. Waiting is by tokio's clock,
//! which the tests can stop.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Monotonic time, for everything that waits.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since the epoch, for record timestamps; 0 before it.
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
