//! Lag in time instead of offsets: how old the order is that the database takes up next, and how
//! long the backlog takes to write. Worked out from the course, second by second; rates and the time
//! until nothing is left are those of `forebay group lag`. Pure.

use forebay::client::lag::Pace;

use crate::sale::Second;

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

/// Seconds until the backlog is written, if orders come and are written as in this second; `None`
/// is never.
pub fn drain_s(second: &Second) -> Option<f64> {
    let pace = Pace {
        produced_per_s: second.acked as f64,
        drained_per_s: second.written as f64,
    };
    pace.empty_in_s(i64::try_from(second.backlog).unwrap_or(i64::MAX))
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
    fn the_backlog_is_written_by_what_is_left_over_from_the_orders_that_come() {
        let course = seconds(&[(0, 10, 50), (5, 10, 50), (10, 10, 50), (9, 0, 0)]);
        let predicted: Vec<_> = course.iter().map(drain_s).collect();
        assert_eq!(predicted, [Some(5.0), Some(10.0), None, Some(0.0)]);
    }
}
