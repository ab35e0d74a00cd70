//! What goes wrong in a sale, as the flags name it: when, for how long, how badly. Pure data with
//! its texts; [`crate::model`] says what must be seen of each, [`crate::sale`] makes it happen.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::duration;
use crate::retry::BACKOFF_MAX;

/// How long a burst lasts unless it is said.
const BURST: Duration = Duration::from_secs(1);
/// The least share of its rate that a database may have: 0.1 %.
const SLOWEST: f64 = 0.001;
/// A killed broker is back, and its clients with it, after this long at most.
const BROKER_BACK_WITHIN: Duration = Duration::from_secs(3);
/// A group has agreed on who reads what after this long at most.
const REBALANCED_WITHIN: Duration = Duration::from_secs(2);

/// A span of the sale, from its start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// The first moment.
    pub from: Duration,
    /// The first moment after it.
    pub to: Duration,
}

impl Span {
    /// Whether a moment of the sale lies in it.
    pub fn contains(&self, at: Duration) -> bool {
        (self.from..self.to).contains(&at)
    }

    /// Its length in seconds.
    pub fn length_s(&self) -> f64 {
        self.to.saturating_sub(self.from).as_secs_f64()
    }
}

/// A factor that holds for a span.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Factor {
    /// What the rate is multiplied by.
    pub factor: f64,
    /// When.
    pub span: Span,
}

/// Everything that goes wrong in one sale.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Incidents {
    /// The broker's process is killed and started again.
    pub kill_broker_at: Option<Duration>,
    /// A member of the group dies without a word.
    pub kill_consumer_at: Option<Duration>,
    /// Another member joins.
    pub rebalance_at: Option<Duration>,
    /// The database has only a share of its rate.
    pub db_slow: Option<Factor>,
    /// The database does nothing; writes under way fail.
    pub db_down: Option<Span>,
    /// Orders come many times faster.
    pub burst: Option<Factor>,
    /// Share of the orders that can never be applied.
    pub poison: f64,
    /// Share of the orders that one user places.
    pub hot_key: f64,
}

impl Incidents {
    /// Whether the database has the same capacity from the first to the last order.
    pub fn leave_the_capacity(&self) -> bool {
        let untouched = self.db_slow.is_none() && self.db_down.is_none();
        untouched && self.kill_consumer_at.is_none() && self.hot_key == 0.0
    }

    /// Service that may be lost beside what the model knows, in seconds of it.
    pub fn slack_s(&self) -> f64 {
        let lost = [
            self.kill_broker_at.map(|_| BROKER_BACK_WITHIN),
            self.kill_consumer_at.map(|_| REBALANCED_WITHIN),
            self.rebalance_at.map(|_| REBALANCED_WITHIN),
            self.db_down.map(|_| BACKOFF_MAX),
        ];
        lost.into_iter()
            .flatten()
            .map(|lost| lost.as_secs_f64())
            .sum()
    }

    /// Whether anything of a group's membership changes during the sale.
    pub fn move_partitions(&self) -> bool {
        self.kill_consumer_at.is_some() || self.rebalance_at.is_some()
    }

    /// The flag and time of whatever happens at a time.
    pub fn times(&self) -> Vec<(&'static str, Duration)> {
        let times = [
            ("--kill-broker-at", self.kill_broker_at),
            ("--kill-consumer-at", self.kill_consumer_at),
            ("--rebalance-at", self.rebalance_at),
            ("--db-slow", self.db_slow.map(|slow| slow.span.from)),
            ("--db-down", self.db_down.map(|down| down.from)),
            ("--burst", self.burst.map(|burst| burst.span.from)),
        ];
        let given = times.into_iter().filter_map(|(flag, at)| Some((flag, at?)));
        given.collect()
    }
}

/// "50%@20s..40s".
pub fn slow(text: &str) -> Result<Factor, String> {
    let parsed = text.split_once('@').and_then(|(share, when)| {
        let (factor, span) = (share_of(share)?, span(when)?);
        (SLOWEST..1.0)
            .contains(&factor)
            .then_some(Factor { factor, span })
    });
    parsed.ok_or_else(|| {
        format!("`{text}` slows nothing down, or too much: write for instance 50%@20s..40s")
    })
}

/// "10s@30s": how long, and from when on.
pub fn down(text: &str) -> Result<Span, String> {
    let parsed = text.split_once('@').and_then(|(long, from)| {
        let (long, from) = (duration(long).ok()?, duration(from).ok()?);
        (!long.is_zero()).then(|| Span {
            from,
            to: from + long,
        })
    });
    parsed.ok_or_else(|| format!("`{text}` is no outage: write for instance 10s@30s"))
}

/// "10x@5s", for one second, or "10x@5s..8s".
pub fn burst(text: &str) -> Result<Factor, String> {
    let parsed = text.split_once('@').and_then(|(factor, when)| {
        let factor: f64 = factor.strip_suffix('x')?.parse().ok()?;
        let from_only = |from: Duration| Span {
            from,
            to: from + BURST,
        };
        let span = span(when).or_else(|| duration(when).ok().map(from_only))?;
        (factor > 1.0 && factor <= 1_000.0).then_some(Factor { factor, span })
    });
    parsed.ok_or_else(|| format!("`{text}` is no burst: write for instance 10x@5s or 10x@5s..8s"))
}

/// "1%": a share above 0 and below 1.
pub fn share(text: &str) -> Result<f64, String> {
    let parsed = share_of(text).filter(|share| *share > 0.0 && *share < 1.0);
    parsed.ok_or_else(|| format!("`{text}` is no share of the orders: write for instance 1%"))
}

fn share_of(text: &str) -> Option<f64> {
    let percent: f64 = text.strip_suffix('%')?.parse().ok()?;
    percent.is_finite().then_some(percent / 100.0)
}

fn span(text: &str) -> Option<Span> {
    let (from, to) = text.split_once("..")?;
    let (from, to) = (duration(from).ok()?, duration(to).ok()?);
    (to > from).then_some(Span { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(from: u64, to: u64) -> Span {
        let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
        Span { from, to }
    }

    #[test]
    fn incidents_are_read_as_the_help_writes_them() {
        let half = Factor {
            factor: 0.5,
            span: s(20, 40),
        };
        assert_eq!(slow("50%@20s..40s"), Ok(half));
        assert_eq!(down("10s@30s"), Ok(s(30, 40)));
        let tenfold = |span| Factor { factor: 10.0, span };
        assert_eq!(burst("10x@5s"), Ok(tenfold(s(5, 6))));
        assert_eq!(burst("10x@5s..8s"), Ok(tenfold(s(5, 8))));
        assert_eq!(share("1%"), Ok(0.01));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_an_example() {
        for wrong in [
            "50%",
            "0%@1s..2s",
            "0.01%@1s..2s",
            "1e-30%@1s..2s",
            "100%@1s..2s",
            "50%@2s..1s",
            "half@1s..2s",
            "50@1s..2s",
        ] {
            assert!(slow(wrong).unwrap_err().contains("50%@20s..40s"), "{wrong}");
        }
        for wrong in ["10s", "@", "0s@1s", "10@30s"] {
            assert!(down(wrong).unwrap_err().contains("10s@30s"), "{wrong}");
        }
        for wrong in ["10@5s", "1x@5s", "x@5s", "10x", "1e9x@5s"] {
            assert!(burst(wrong).unwrap_err().contains("10x@5s"), "{wrong}");
        }
        for wrong in ["1", "0%", "100%", "-1%", "NaN%"] {
            assert!(share(wrong).unwrap_err().contains("1%"), "{wrong}");
        }
    }
}
