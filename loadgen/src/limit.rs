//! The search for the highest rate that a node sustains: whole short sales without a modelled
//! database, each at a rate that the last ones suggest, until the rates that pass and fail lie
//! close together. A rate passes if every order was acknowledged and the 99th percentile of the
//! time to that, from the intended send time, is within the bound.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::engine::Outcome;

/// The first rate, in orders per second.
const RATE_FIRST: u64 = 5_000;
/// The search ends when the rates that pass and fail are this close: 5 %.
const CLOSE: f64 = 0.05;
/// Nobody needs more than this from one load generator.
const RATE_MAX: u64 = 10_000_000;

/// A sale at one rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Orders per second.
    pub rate: u64,
    /// Orders that were acknowledged, of those sent.
    pub acked: u64,
    /// Orders sent.
    pub sent: u64,
    /// 99th percentile of the acknowledgements.
    pub ack_p99_us: u64,
    /// Whether the rate is sustained.
    pub passed: bool,
}

impl Trial {
    /// Judges what came of a sale at `rate`.
    pub fn judge(rate: u64, outcome: &Outcome, p99_max: Duration) -> Self {
        let (sent, acked) = (outcome.counts.sent, outcome.counts.acked);
        let ack_p99_us = outcome.acks.value_at_quantile(0.99);
        Self {
            rate,
            acked,
            sent,
            ack_p99_us,
            passed: sent > 0 && acked == sent && u128::from(ack_p99_us) <= p99_max.as_micros(),
        }
    }
}

/// The trials so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Search {
    /// In sequence.
    pub trials: Vec<Trial>,
}

impl Search {
    /// The highest rate that passed.
    pub fn limit(&self) -> Option<u64> {
        let passed = self.trials.iter().filter(|trial| trial.passed);
        let fails = self.fails();
        // A rate above one that failed passed by chance.
        passed
            .map(|trial| trial.rate)
            .filter(|rate| fails.is_none_or(|fails| *rate < fails))
            .max()
    }

    fn fails(&self) -> Option<u64> {
        let failed = self.trials.iter().filter(|trial| !trial.passed);
        failed.map(|trial| trial.rate).min()
    }

    /// The rate to try next; `None` when the limit is found.
    pub fn next_rate(&self) -> Option<u64> {
        let next = match (self.limit(), self.fails()) {
            (None, None) => RATE_FIRST,
            (Some(passes), None) => passes * 2,
            (None, Some(fails)) => fails / 2,
            (Some(passes), Some(fails)) => {
                let apart = fails - passes;
                let close = apart <= 1 || apart as f64 <= passes as f64 * CLOSE;
                return (!close).then_some(passes.midpoint(fails));
            }
        };
        (next > 0 && next <= RATE_MAX).then_some(next)
    }

    /// The trials and what they come to.
    pub fn text(&self, p99_max: Duration, is_over: bool) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "\n{:>12}  {:>12}  {:>14}  verdict",
            "orders/s", "ack p99", "not acked"
        );
        for trial in &self.trials {
            let _ = writeln!(
                text,
                "{:>12}  {:>9.1} ms  {:>14}  {}",
                trial.rate,
                trial.ack_p99_us as f64 / 1e3,
                trial.sent - trial.acked,
                if trial.passed {
                    "sustained"
                } else {
                    "too much"
                },
            );
        }
        let bound = format!(
            "with an ack p99 of at most {} ms",
            p99_max.as_secs_f64() * 1e3
        );
        let _ = match (is_over, self.limit()) {
            (false, _) => writeln!(text, "\nstopped before the end: this is no verdict"),
            (true, Some(rate)) => writeln!(text, "\nlimit: {rate} orders/s {bound}"),
            (true, None) => writeln!(text, "\nno rate was sustained {bound}"),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(sustained: u64) -> Search {
        let mut search = Search::default();
        while let Some(rate) = search.next_rate() {
            search.trials.push(Trial {
                rate,
                acked: 1,
                sent: 1,
                ack_p99_us: 1_000,
                passed: rate <= sustained,
            });
        }
        search
    }

    #[test]
    fn the_limit_is_found_within_five_percent_in_few_trials() {
        for sustained in [1, 10, 19, 700, 5_000, 123_456, 3_000_000] {
            let search = search(sustained);
            let limit = search.limit().unwrap();
            assert!(
                limit <= sustained && (limit + 1) as f64 > sustained as f64 * 0.95,
                "{limit}"
            );
            assert!(search.trials.len() < 20, "{}", search.trials.len());
        }
    }

    #[test]
    fn a_node_that_sustains_nothing_or_everything_ends_the_search() {
        assert_eq!(search(0).limit(), None);
        assert!(search(u64::MAX).limit().unwrap() > RATE_MAX / 2);
    }

    #[test]
    fn a_trial_needs_every_acknowledgement_within_the_bound() {
        let judged = |sent, acked, micros| {
            let mut outcome = crate::verdict::tests::right().outcome;
            outcome.counts.sent = sent;
            outcome.counts.acked = acked;
            outcome.acks.record_n(micros, 100).unwrap();
            Trial::judge(10, &outcome, Duration::from_millis(50)).passed
        };
        assert!(judged(100, 100, 40_000));
        assert!(!judged(100, 99, 40_000) && !judged(100, 100, 60_000));
        assert!(!judged(0, 0, 40_000), "a sale of nothing sustains nothing");
    }

    #[test]
    fn the_text_names_each_trial_and_the_limit_but_not_of_a_stopped_search() {
        let search = search(7_000);
        let text = search.text(Duration::from_millis(50), true);
        assert!(
            text.contains("limit: 6") && text.contains("too much"),
            "{text}"
        );
        let stopped = search.text(Duration::from_millis(50), false);
        assert!(
            stopped.contains("no verdict") && !stopped.contains("limit:"),
            "{stopped}"
        );
    }
}
