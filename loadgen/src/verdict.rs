//! The verdict: what was expected, what was seen, PASS or FAIL for each.
//!
//! A pure function of [`Facts`]: the counts of the run, what the database answered, and the load
//! whose arithmetic says what is right. Nothing passes because it was not measured.

use serde::Serialize;

use crate::engine::Outcome;
use crate::model::{Expected, Load};
use crate::promise::Promise;
use crate::store::Audit;

/// Everything the verdict is drawn from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What was put through the broker.
    pub load: Load,
    /// Most orders the group was allowed to hold.
    pub buffer_limit: usize,
    /// What the run counted.
    pub outcome: Outcome,
    /// What the database says.
    pub audit: Audit,
    /// What the way of consuming promises.
    pub promise: Promise,
    /// Writes the database began while every partition had a backlog.
    pub busy_writes: u64,
    /// Rows whose writes began while the database was slow, if it was.
    pub slow_writes: Option<u64>,
    /// Rows whose writes would have ended while the database was down, if it was.
    pub down_writes: Option<u64>,
    /// Records in the dead letter topic, if there is one; those that count for a resumed sale.
    pub dead_letters: Option<u64>,
    /// The sale was continued after a crash: its course in time is not that of one sale.
    pub resumed: bool,
}

/// One line of the verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What is judged.
    pub name: &'static str,
    /// What should be seen.
    pub expected: String,
    /// What was seen.
    pub seen: String,
    /// Whether that is right.
    pub pass: bool,
}

/// The whole verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// All checks, in the sequence of the report.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// Whether every check passed.
    pub fn pass(&self) -> bool {
        self.checks.iter().all(|check| check.pass)
    }
}

/// Judges a sale.
pub fn judge(facts: &Facts) -> Verdict {
    let mut checks = completeness(facts);
    if !facts.resumed {
        checks.extend(course(facts));
    }
    checks.extend(database(facts));
    let counts = &facts.outcome.counts;
    let (limit, seen) = (facts.buffer_limit, counts.buffer_max);
    checks.push(check(
        "buffer",
        format!("at most {limit}"),
        seen.to_string(),
        seen <= limit,
    ));
    checks.extend(incidents(facts));
    Verdict { checks }
}

/// Every order once, in order: from the counts and from SQL.
fn completeness(facts: &Facts) -> Vec<Check> {
    let (counts, audit, promise) = (&facts.outcome.counts, &facts.audit, facts.promise);
    // What the handler refuses becomes no row.
    let applied = counts.acked.saturating_sub(counts.poison);
    let lost = applied.saturating_sub(audit.distinct);
    let surplus = audit.rows - audit.distinct - audit.unknown;
    let least = applied.saturating_sub(promise.lost_max);
    let violations = audit.order_violations;
    vec![
        exactly("orders sent", facts.load.orders, counts.sent),
        exactly("orders acknowledged", counts.sent, counts.acked),
        between(
            "rows in the database",
            least,
            applied + promise.duplicates_max,
            audit.rows,
        ),
        between(
            "distinct orders in the database",
            least,
            applied,
            audit.distinct,
        ),
        between("lost", 0, promise.lost_max, lost),
        between("duplicates", 0, promise.duplicates_max, surplus),
        exactly("unknown orders", 0, audit.unknown),
        match promise.key_order {
            true => exactly("order violations per key", 0, violations),
            false => check(
                "order violations per key",
                "not promised".to_owned(),
                violations.to_string(),
                true,
            ),
        },
    ]
}

/// What must be seen of the things that went wrong, and that the group held together otherwise.
fn incidents(facts: &Facts) -> Vec<Check> {
    let (counts, incidents) = (&facts.outcome.counts, &facts.load.incidents);
    let mut checks = Vec::new();
    if incidents.kill_broker_at.is_some() {
        checks.push(exactly("broker restarts", 1, counts.broker_restarts));
    }
    match incidents.move_partitions() {
        true => checks.push(at_least_one("rebalances", counts.rebalances)),
        false => checks.push(exactly("rebalances", 0, counts.rebalances)),
    }
    if let (Some(slow), Some(seen)) = (incidents.db_slow, facts.slow_writes) {
        let expected = facts.load.rows_while_slow(slow);
        checks.push(within("writes while slow", expected, seen as f64, count));
    }
    if let Some(seen) = facts.down_writes {
        checks.push(exactly("writes while down", 0, seen));
        checks.push(at_least_one("writes tried again", counts.retries));
    }
    if let Some(seen) = facts.dead_letters.filter(|_| !facts.resumed) {
        let promise = facts.promise;
        let least = counts.poison.saturating_sub(promise.lost_max);
        let most = counts.poison + promise.letters_again_max;
        checks.push(between("dead letters", least, most, seen));
    }
    checks
}

/// Height and times of the backlog.
fn course(facts: &Facts) -> Vec<Check> {
    let (load, outcome) = (&facts.load, &facts.outcome);
    let mut checks = vec![within(
        "peak backlog",
        load.peak_backlog(),
        outcome.peak.backlog as f64,
        count,
    )];
    if load.overloads() {
        let at = outcome.peak.at.as_secs_f64();
        checks.push(within("peak at", load.peak_at_s(), at, seconds));
    }
    if let Some(burst) = load.incidents.burst {
        let (expected, seen) = (load.sent_in_burst(burst), outcome.counts.sent_in_burst);
        checks.push(within("orders in the burst", expected, seen as f64, count));
    }
    let drained = outcome.drained_at.as_secs_f64();
    checks.push(within("drained at", load.drained_at_s(), drained, seconds));
    checks
}

/// How fast the database was kept busy, and that it was never faster than it can be.
fn database(facts: &Facts) -> Vec<Check> {
    let load = &facts.load;
    let mut checks = Vec::new();
    // What is left of a sale may be no backlog worth timing.
    if !facts.resumed && load.overloads() && load.incidents.leave_the_capacity() {
        let seen = busy_rate(facts);
        let pass = seen.is_some_and(|rate| load.db_rate().admits(rate));
        let expected = expected_text(load.db_rate(), per_s);
        let seen = seen.map_or("no backlog was seen".to_owned(), per_s);
        checks.push(check("database rate with backlog", expected, seen, pass));
    }
    // What a real database does at its best is not for the tool to limit.
    if load.is_measured {
        return checks;
    }
    let limit = f64::from(load.db_writes_per_s);
    let fastest = fastest_rate(facts);
    let seen = fastest.map_or(format!("{} writes in all", facts.audit.rows), per_s);
    let pass = fastest.unwrap_or(0.0) <= limit;
    checks.push(check(
        "database rate in any second",
        format!("at most {limit:.0}/s"),
        seen,
        pass,
    ));
    checks
}

/// Writes per second from the first to the last moment at which every partition had a backlog.
pub fn busy_rate(facts: &Facts) -> Option<f64> {
    let (from_ns, to_ns) = facts.outcome.busy_ns?;
    let busy_s = (to_ns - from_ns) as f64 / 1e9;
    (busy_s > 0.0).then(|| facts.busy_writes as f64 / busy_s)
}

/// The highest rate over as many writes as fit a second: an interval of one second, wherever it
/// begins. `None` if there were fewer writes than that.
pub fn fastest_rate(facts: &Facts) -> Option<f64> {
    let shortest_s = facts.audit.fastest_second_ns? as f64 / 1e9;
    Some(f64::from(facts.load.db_writes_per_s) / shortest_s.max(1e-9))
}

fn exactly(name: &'static str, expected: u64, seen: u64) -> Check {
    check(
        name,
        expected.to_string(),
        seen.to_string(),
        expected == seen,
    )
}

fn between(name: &'static str, least: u64, most: u64, seen: u64) -> Check {
    let expected = match (least, most) {
        (least, most) if least == most => most.to_string(),
        (0, most) => format!("at most {most}"),
        (least, most) => format!("{least} to {most}"),
    };
    check(
        name,
        expected,
        seen.to_string(),
        (least..=most).contains(&seen),
    )
}

fn at_least_one(name: &'static str, seen: u64) -> Check {
    check(name, "at least 1".to_owned(), seen.to_string(), seen > 0)
}

fn within(name: &'static str, expected: Expected, seen: f64, text: fn(f64) -> String) -> Check {
    check(
        name,
        expected_text(expected, text),
        text(seen),
        expected.admits(seen),
    )
}

fn expected_text(expected: Expected, text: fn(f64) -> String) -> String {
    format!("{} +-{}", text(expected.value), text(expected.tolerance))
}

fn count(n: f64) -> String {
    format!("{n:.0}")
}

fn seconds(s: f64) -> String {
    format!("{s:.2} s")
}

fn per_s(rate: f64) -> String {
    format!("{rate:.0}/s")
}

fn check(name: &'static str, expected: String, seen: String, pass: bool) -> Check {
    Check {
        name,
        expected,
        seen,
        pass,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::Duration;

    use crate::engine::{Counts, Peak, latencies};
    use crate::incidents::{Factor, Span};
    use crate::model::tests::sale;

    /// A sale in which everything went as the arithmetic says.
    pub(crate) fn right() -> Facts {
        let load = sale(60);
        let orders = load.orders;
        let counts = Counts {
            sent: orders,
            acked: orders,
            received: orders,
            taken: orders,
            written: orders,
            pauses: 40,
            buffer_max: 9_900,
            ..Counts::default()
        };
        Facts {
            load,
            buffer_limit: 10_000,
            outcome: Outcome {
                counts,
                peak: Peak {
                    backlog: 200_100,
                    at: Duration::from_millis(60_020),
                },
                drained_at: Duration::from_millis(100_200),
                busy_ns: Some((0, 99_000_000_000)),
                started_ns: 0,
                events: Vec::new(),
                acks: latencies(),
            },
            audit: Audit {
                rows: orders,
                distinct: orders,
                unknown: 0,
                order_violations: 0,
                fastest_second_ns: Some(1_000_000_000),
            },
            promise: Promise {
                key_order: true,
                ..Promise::default()
            },
            busy_writes: 495_000,
            slow_writes: None,
            down_writes: None,
            dead_letters: None,
            resumed: false,
        }
    }

    /// The names of the checks that fail once `spoil` has changed a right sale.
    fn failing(spoil: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
        let mut facts = right();
        spoil(&mut facts);
        let verdict = judge(&facts);
        let failing: Vec<_> = verdict
            .checks
            .iter()
            .filter(|c| !c.pass)
            .map(|c| c.name)
            .collect();
        assert_eq!(verdict.pass(), failing.is_empty());
        failing
    }

    #[test]
    fn a_right_sale_passes_every_check() {
        assert_eq!(failing(|_| {}), Vec::<&str>::new());
        assert_eq!(judge(&right()).checks.len(), 15);
    }

    #[test]
    fn one_lost_order_fails() {
        let lost = failing(|facts| {
            facts.audit.rows -= 1;
            facts.audit.distinct -= 1;
        });
        assert_eq!(
            lost,
            [
                "rows in the database",
                "distinct orders in the database",
                "lost"
            ]
        );
    }

    #[test]
    fn one_doubled_order_fails() {
        assert_eq!(
            failing(|facts| facts.audit.rows += 1),
            ["rows in the database", "duplicates"]
        );
    }

    #[test]
    fn a_row_of_an_order_that_never_was_fails_and_is_no_double() {
        let unknown = |facts: &mut Facts| {
            facts.promise.duplicates_max = 10;
            facts.audit.rows += 1;
            facts.audit.unknown = 1;
        };
        assert_eq!(failing(unknown), ["unknown orders"]);
    }

    #[test]
    fn one_lost_and_one_doubled_do_not_cancel_out() {
        assert_eq!(
            failing(|facts| facts.audit.distinct -= 1),
            ["distinct orders in the database", "lost", "duplicates"]
        );
    }

    #[test]
    fn one_order_that_was_not_acknowledged_fails() {
        let failed = failing(|facts| facts.outcome.counts.acked -= 1);
        assert!(failed.contains(&"orders acknowledged"), "{failed:?}");
    }

    #[test]
    fn one_order_that_was_never_sent_fails() {
        let failed = failing(|facts| facts.outcome.counts.sent -= 1);
        assert!(failed.contains(&"orders sent"), "{failed:?}");
    }

    #[test]
    fn one_violation_of_a_keys_order_fails() {
        assert_eq!(
            failing(|facts| facts.audit.order_violations = 1),
            ["order violations per key"]
        );
    }

    #[test]
    fn a_peak_of_another_height_or_time_fails() {
        assert_eq!(
            failing(|f| f.outcome.peak.backlog = 204_001),
            ["peak backlog"]
        );
        assert_eq!(
            failing(|f| f.outcome.peak.backlog = 195_999),
            ["peak backlog"]
        );
        let late = Duration::from_millis(61_001);
        assert_eq!(failing(|f| f.outcome.peak.at = late), ["peak at"]);
        let early = Duration::from_millis(58_999);
        assert_eq!(failing(|f| f.outcome.peak.at = early), ["peak at"]);
    }

    #[test]
    fn draining_too_late_or_too_early_fails() {
        let at = |ms| failing(|f| f.outcome.drained_at = Duration::from_millis(ms));
        assert_eq!(at(102_200), ["drained at"]);
        assert_eq!(at(98_000), ["drained at"]);
    }

    #[test]
    fn a_database_that_idles_or_runs_too_fast_fails() {
        assert_eq!(
            failing(|f| f.busy_writes = 485_000),
            ["database rate with backlog"]
        );
        assert_eq!(
            failing(|f| f.outcome.busy_ns = None),
            ["database rate with backlog"]
        );
        assert_eq!(
            failing(|f| f.audit.fastest_second_ns = Some(999_999_000)),
            ["database rate in any second"]
        );
    }

    #[test]
    fn one_order_too_many_in_the_buffer_fails() {
        assert_eq!(
            failing(|f| f.outcome.counts.buffer_max = 10_001),
            ["buffer"]
        );
    }

    #[test]
    fn one_rebalance_fails() {
        assert_eq!(failing(|f| f.outcome.counts.rebalances = 1), ["rebalances"]);
    }

    #[test]
    fn a_resumed_sale_is_not_judged_by_the_time_it_took() {
        let late = Duration::from_secs(500);
        assert_eq!(
            failing(|facts| {
                facts.resumed = true;
                facts.outcome.drained_at = late;
            }),
            Vec::<&str>::new()
        );
        // Too little was left for a backlog.
        let quick = failing(|facts| {
            facts.resumed = true;
            facts.outcome.busy_ns = None;
        });
        assert_eq!(quick, Vec::<&str>::new());
        let lost = failing(|facts| {
            facts.resumed = true;
            facts.audit.distinct -= 1;
            facts.audit.rows -= 1;
        });
        assert!(lost.contains(&"lost"));
    }

    #[test]
    fn a_way_of_consuming_is_judged_by_what_it_promises() {
        let double = |facts: &mut Facts, doubles| {
            facts.promise.duplicates_max = 10;
            facts.audit.rows += doubles;
        };
        assert_eq!(failing(|facts| double(facts, 10)), Vec::<&str>::new());
        assert_eq!(
            failing(|facts| double(facts, 11)),
            ["rows in the database", "duplicates"]
        );
        let lose = |facts: &mut Facts, lost| {
            facts.promise.lost_max = 10;
            facts.audit.rows -= lost;
            facts.audit.distinct -= lost;
        };
        assert_eq!(failing(|facts| lose(facts, 10)), Vec::<&str>::new());
        assert!(failing(|facts| lose(facts, 11)).contains(&"lost"));
        let unordered = |facts: &mut Facts| {
            facts.promise.key_order = false;
            facts.audit.order_violations = 7;
        };
        assert_eq!(failing(unordered), Vec::<&str>::new());
    }

    #[test]
    fn members_that_come_and_go_must_be_seen_to() {
        let moved = |facts: &mut Facts| {
            facts.load.incidents.rebalance_at = Some(Duration::from_secs(20));
        };
        assert_eq!(failing(moved), ["rebalances"]);
        assert_eq!(
            failing(|facts| {
                moved(facts);
                facts.outcome.counts.rebalances = 2;
            }),
            Vec::<&str>::new()
        );
    }

    #[test]
    fn a_broker_that_was_to_be_killed_must_have_come_back_once() {
        let killed = |restarts| {
            failing(|facts| {
                facts.load.incidents.kill_broker_at = Some(Duration::from_secs(30));
                facts.outcome.counts.broker_restarts = restarts;
            })
        };
        assert_eq!(killed(0), ["broker restarts"]);
        assert_eq!(killed(1), Vec::<&str>::new());
    }

    #[test]
    fn a_burst_must_have_been_one() {
        let (from, to) = (Duration::from_secs(5), Duration::from_secs(6));
        let sent = |orders| {
            failing(|facts| {
                let (factor, span) = (10.0, Span { from, to });
                facts.load.incidents.burst = Some(Factor { factor, span });
                facts.outcome.counts.sent_in_burst = orders;
            })
        };
        // 10 of the 69 parts of the orders.
        assert_eq!(sent(72_464), Vec::<&str>::new());
        assert_eq!(sent(8_333), ["orders in the burst"]);
        assert_eq!(sent(76_000), ["orders in the burst"]);
    }

    #[test]
    fn poison_must_be_in_the_dead_letter_topic_and_nowhere_else() {
        let poison = |facts: &mut Facts, letters| {
            facts.outcome.counts.poison = 100;
            facts.audit.rows -= 100;
            facts.audit.distinct -= 100;
            facts.dead_letters = Some(letters);
            facts.load.incidents.poison = 1e-9;
        };
        assert_eq!(failing(|facts| poison(facts, 100)), Vec::<&str>::new());
        assert_eq!(failing(|facts| poison(facts, 99)), ["dead letters"]);
        assert_eq!(failing(|facts| poison(facts, 101)), ["dead letters"]);
        // A member that dies may lose letters, or send them twice.
        let promised = |letters| {
            failing(|facts| {
                poison(facts, letters);
                facts.promise.lost_max = 2;
                facts.promise.letters_again_max = 3;
            })
        };
        assert_eq!(promised(98), Vec::<&str>::new());
        assert_eq!(promised(103), Vec::<&str>::new());
        assert_eq!(promised(97), ["dead letters"]);
        assert_eq!(promised(104), ["dead letters"]);
    }

    #[test]
    fn a_database_that_was_slow_or_down_must_have_been() {
        let span = Span {
            from: Duration::from_secs(20),
            to: Duration::from_secs(40),
        };
        let slow = |facts: &mut Facts, writes| {
            facts.load.incidents.db_slow = Some(Factor { factor: 0.5, span });
            facts.slow_writes = Some(writes);
            facts.outcome.peak.backlog = 250_000;
            facts.outcome.drained_at = Duration::from_secs(110);
        };
        assert_eq!(failing(|facts| slow(facts, 50_000)), Vec::<&str>::new());
        assert_eq!(failing(|facts| slow(facts, 60_000)), ["writes while slow"]);
        let down = |facts: &mut Facts, writes, retries| {
            facts.down_writes = Some(writes);
            facts.outcome.counts.retries = retries;
        };
        assert_eq!(failing(|facts| down(facts, 0, 1)), Vec::<&str>::new());
        assert_eq!(failing(|facts| down(facts, 1, 1)), ["writes while down"]);
        assert_eq!(failing(|facts| down(facts, 0, 0)), ["writes tried again"]);
    }
}
