//! The arithmetic of lag: how fast a log grows and is read, when nothing will be left to read, how
//! old a record is. Pure: `forebay group lag` takes the figures from a cluster, the load
//! generator's flash sale from its own counts, and both say the same about the same log.

use std::time::Duration;

/// How far a log and its reader are at a moment: offsets of a partition, or counts of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Behind the last record.
    pub end: i64,
    /// The next record to read.
    pub next: i64,
}

/// How fast a log grows and is read, in records per second. Never below 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Records that come.
    pub produced_per_s: f64,
    /// Records that are read.
    pub drained_per_s: f64,
}

impl Span {
    /// Records that are not read; 0 for a reader beyond the end.
    pub fn unread(self) -> i64 {
        self.end.saturating_sub(self.next).max(0)
    }
}

impl Pace {
    /// The mean from `before` to `after`. A log that was deleted, or a reader that was set back,
    /// has not moved.
    pub fn between(before: Span, after: Span, elapsed: Duration) -> Self {
        let elapsed_s = elapsed.as_secs_f64();
        let per_s = |before: i64, after: i64| match after.saturating_sub(before) {
            grown @ 1.. if elapsed_s > 0.0 => grown as f64 / elapsed_s,
            _ => 0.0,
        };
        Self {
            produced_per_s: per_s(before.end, after.end),
            drained_per_s: per_s(before.next, after.next),
        }
    }

    /// Seconds until none of `unread` records is left, if both rates stay as they are. `None` is
    /// never: not more is read than comes.
    pub fn empty_in_s(self, unread: i64) -> Option<f64> {
        let shrinks_by = self.drained_per_s - self.produced_per_s;
        match unread {
            ..=0 => Some(0.0),
            _ if shrinks_by > 0.0 => Some(unread as f64 / shrinks_by),
            _ => None,
        }
    }
}

/// Seconds that have passed since a record's timestamp, both in milliseconds since 1970; 0 for a
/// record from the future, whose producer's clock is ahead. `None` for a record without a timestamp
/// (-1).
pub fn age_s(timestamp_ms: i64, now_ms: i64) -> Option<f64> {
    let age_ms = now_ms.saturating_sub(timestamp_ms).max(0);
    (timestamp_ms >= 0).then_some(age_ms as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(end: i64, next: i64) -> Span {
        Span { end, next }
    }

    #[test]
    fn a_backlog_is_read_at_what_reading_is_faster() {
        let (before, after) = (span(100, 40), span(120, 90));
        let pace = Pace::between(before, after, Duration::from_secs(2));
        assert_eq!((pace.produced_per_s, pace.drained_per_s), (10.0, 25.0));
        assert_eq!(after.unread(), 30);
        assert_eq!(pace.empty_in_s(after.unread()), Some(2.0));
    }

    #[test]
    fn a_backlog_that_does_not_shrink_is_never_read() {
        let pace = |produced_per_s, drained_per_s| Pace {
            produced_per_s,
            drained_per_s,
        };
        assert_eq!(pace(10.0, 10.0).empty_in_s(1), None);
        assert_eq!(pace(10.0, 0.0).empty_in_s(1), None);
        assert_eq!(pace(0.0, 0.0).empty_in_s(1), None);
        assert_eq!(pace(10.0, 0.0).empty_in_s(0), Some(0.0), "it is empty now");
    }

    #[test]
    fn what_goes_back_or_takes_no_time_has_no_rate() {
        let second = Duration::from_secs(1);
        assert_eq!(
            Pace::between(span(9, 9), span(3, 2), second),
            Pace::default()
        );
        assert_eq!(
            Pace::between(span(0, 0), span(9, 9), Duration::ZERO),
            Pace::default()
        );
        assert_eq!(span(5, 9).unread(), 0);
        assert_eq!(span(i64::MAX, -1).unread(), i64::MAX);
    }

    #[test]
    fn a_record_is_as_old_as_its_timestamp_says() {
        assert_eq!(age_s(1_000, 3_500), Some(2.5));
        assert_eq!(age_s(9_000, 3_500), Some(0.0), "from the future");
        assert_eq!(age_s(-1, 3_500), None, "without a timestamp");
        assert_eq!(age_s(0, i64::MAX), Some(i64::MAX as f64 / 1e3));
    }
}
