//! How often and after which pauses a write is tried again: forever while the database is down,
//! [`ATTEMPTS_MAX`] times if it refuses the order. Pure.

use std::time::Duration;

/// An order that the database refuses is given up after so many attempts.
pub const ATTEMPTS_MAX: u32 = 4;
/// The longest pause between two attempts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);

const BACKOFF: Duration = Duration::from_millis(100);

/// The pause after the attempt with this number, counted from 1: it doubles each time.
pub fn backoff(attempt: u32) -> Duration {
    let doubled = BACKOFF.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    doubled.min(BACKOFF_MAX)
}

/// All pauses of an order that is given up.
pub fn backoffs_in_vain() -> Duration {
    (1..ATTEMPTS_MAX).map(backoff).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second() {
        let ms = |attempt| backoff(attempt).as_millis();
        assert_eq!(
            (ms(1), ms(2), ms(4), ms(5), ms(99)),
            (100, 200, 800, 1_000, 1_000)
        );
        assert_eq!(backoffs_in_vain(), Duration::from_millis(700));
    }
}
