//! Lag in time instead of offsets: how old the order is that the database takes up next, and how
//! long the backlog takes to write. Worked out from the course, second by second. Pure.

use crate::sale::Second;

/// The rate of now is that of so many seconds.
const RATE_OVER_S: usize = 5;

/// Seconds since the oldest waiting order was acknowledged, at the end of the last second.
pub fn age_s(seconds: &[Second]) -> f64 {
    let Some(last) = seconds.last() else {
        return 0.0;
    };
    // Orders are taken up in the sequence of their acknowledgement, over all partitions.
    let mut younger = last.backlog as f64;
    let mut age_s = 0.0;
    for second in seconds.iter().rev() {
        let acked = second.acked as f64;
        if younger <= acked {
            return age_s + if acked > 0.0 { younger / acked } else { 0.0 };
        }
        younger -= acked;
        age_s += 1.0;
    }
    age_s
}

/// Seconds until the backlog is written at the rate of the last seconds, if nothing else comes; 0
/// while nothing is written.
pub fn drain_s(seconds: &[Second]) -> f64 {
    let recent = &seconds[seconds.len().saturating_sub(RATE_OVER_S)..];
    let written: u64 = recent.iter().map(|second| second.written).sum();
    match (recent.last(), written) {
        (Some(last), 1..) => last.backlog as f64 * recent.len() as f64 / written as f64,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(course: &[(u64, u64, u64)]) -> Vec<Second> {
        let second = |(acked, written, backlog): &(u64, u64, u64)| Second {
            acked: *acked,
            written: *written,
            backlog: *backlog,
            ..Second::default()
        };
        course.iter().map(second).collect()
    }

    #[test]
    fn the_oldest_waiting_order_is_found_by_counting_back() {
        assert_eq!(age_s(&[]), 0.0);
        let rising = seconds(&[(100, 50, 50), (100, 50, 100), (100, 50, 150)]);
        assert_eq!(age_s(&rising), 1.5);
        let after = seconds(&[(100, 50, 50), (0, 50, 10)]);
        assert_eq!(age_s(&after), 1.1);
        let empty = seconds(&[(100, 100, 0)]);
        assert_eq!(age_s(&empty), 0.0);
    }

    #[test]
    fn the_backlog_is_written_at_the_rate_of_the_last_seconds() {
        let course = seconds(&[
            (0, 999, 0),
            (9, 10, 50),
            (9, 10, 50),
            (9, 10, 50),
            (9, 10, 50),
        ]);
        assert_eq!(drain_s(&course[1..]), 5.0);
        assert_eq!(drain_s(&seconds(&[(9, 0, 9)])), 0.0);
    }
}
