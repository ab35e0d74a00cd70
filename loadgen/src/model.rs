//! The arithmetic of the flash sale: from the rates to what must be seen.
//!
//! A sale sends `orders` evenly over `window`; a database finishes `service_per_s` of them. The
//! backlog therefore grows by the difference until the window closes and then shrinks at the
//! database's rate ([`crate::course`]). Everything the verdict expects comes from here, so a sale
//! of another size or length, or one in which things go wrong, is judged by the same formulas. No
//! clock, no IO.

use std::time::Duration;

use crate::course::{Course, course};
use crate::incidents::{Factor, Incidents};
use crate::retry::{ATTEMPTS_MAX, backoffs_in_vain};

/// Orders of the sale that gave this tool its name.
pub const ORDERS_DEFAULT: u64 = 500_000;
/// The window in which they arrive.
pub const WINDOW_DEFAULT: Duration = Duration::from_secs(60);
/// How long a web request waits for its turn at the database before the shop gives up.
pub const REQUEST_WAIT_MAX: Duration = Duration::from_secs(1);

/// Share of an expected value by which the seen one may differ: 2 %.
const TOLERANCE: f64 = 0.02;
/// The same where the database's rate was measured before it had to share the machine.
const TOLERANCE_MEASURED: f64 = 0.3;
/// Share of the window by which the peak may come earlier or later: 1 s in 60 s.
const PEAK_AT_TOLERANCE: f64 = 1.0 / 60.0;
/// Starting up (first acknowledgement, first fetch, last commit) takes the same time in a short
/// sale as in a long one, so no tolerance in time is smaller than this.
const START_UP: Duration = Duration::from_millis(500);
/// Most that a sale without a core is excused for.
pub const HELD_UP_MAX: Duration = Duration::from_millis(600);

/// What is put through the broker, and what stands behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Orders sent in all.
    pub orders: u64,
    /// The time over which they are sent: evenly, but for a burst.
    pub window: Duration,
    /// Writes per second the modelled database can start, or the real one was found to sustain.
    pub db_writes_per_s: u32,
    /// There is no model: the rate was measured, on a machine that had nothing else to do.
    pub is_measured: bool,
    /// How long one write takes.
    pub db_latency: Duration,
    /// Partitions of the topic.
    pub partitions: usize,
    /// Most partitions that one member of the group reads.
    pub partitions_of_member: usize,
    /// Writes that may be under way at once in a partition.
    pub workers: usize,
    /// The orders of a key wait for each other.
    pub by_key: bool,
    /// The group notices after this long that a member is dead.
    pub session_timeout: Duration,
    /// The sale was ready to go on and had no core for so long in all.
    pub held_up: Duration,
    /// What goes wrong.
    pub incidents: Incidents,
}

/// One expected value with the distance that is still right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// What the formula says.
    pub value: f64,
    /// How far the seen value may be from it, up or down.
    pub tolerance: f64,
}

impl Expected {
    /// Whether `seen` is near enough.
    pub fn admits(&self, seen: f64) -> bool {
        (seen - self.value).abs() <= self.tolerance
    }
}

/// The orders of a window at the default rate: a shorter sale, not a thinner one.
pub fn orders_in(window: Duration) -> u64 {
    let share = window.as_secs_f64() / WINDOW_DEFAULT.as_secs_f64();
    (ORDERS_DEFAULT as f64 * share).round() as u64
}

impl Load {
    /// Orders sent per second, where there is no burst.
    pub fn orders_per_s(&self) -> f64 {
        let more = self.incidents.burst.map_or(0.0, |burst| {
            let until_end = burst
                .span
                .to
                .min(self.window)
                .saturating_sub(burst.span.from);
            (burst.factor - 1.0) * until_end.as_secs_f64()
        });
        self.orders as f64 / (self.window.as_secs_f64() + more)
    }

    /// Orders sent in a burst.
    pub fn sent_in_burst(&self, burst: Factor) -> Expected {
        let in_window = burst
            .span
            .to
            .min(self.window)
            .saturating_sub(burst.span.from);
        let per_s = self.orders_per_s() * burst.factor;
        let value = per_s * in_window.as_secs_f64();
        Expected {
            value,
            tolerance: value * TOLERANCE + per_s * self.room().as_secs_f64(),
        }
    }

    /// Orders sent per second at a moment of the sale.
    pub fn offered_per_s(&self, at_s: f64) -> f64 {
        let at = Duration::from_secs_f64(at_s);
        let burst = self.incidents.burst.filter(|burst| burst.span.contains(at));
        match at < self.window {
            true => self.orders_per_s() * burst.map_or(1.0, |burst| burst.factor),
            false => 0.0,
        }
    }

    /// When the last order is sent, in seconds after the start: a distance before the window ends.
    pub fn last_sent_at_s(&self) -> f64 {
        let window_s = self.window.as_secs_f64();
        let bursts = |burst: &Factor| burst.span.from < self.window && burst.span.to >= self.window;
        let factor = self
            .incidents
            .burst
            .filter(bursts)
            .map_or(1.0, |b| b.factor);
        (window_s - 1.0 / (self.orders_per_s() * factor)).max(0.0)
    }

    /// Longest time in which a right sale shows no progress, beside what goes wrong for a time.
    pub fn quiet_max(&self) -> Duration {
        let slowest = self.incidents.db_slow.map_or(1.0, |slow| slow.factor);
        // A search may try a rate at which there is no order at all.
        let apart_s = 1.0 / self.orders_per_s().max(1e-6);
        let quiet_s = apart_s + 1.0 / (f64::from(self.db_writes_per_s) * slowest);
        let down = self.incidents.db_down.map(|down| down.to - down.from);
        self.db_latency + Duration::from_secs_f64(quiet_s) + down.unwrap_or_default()
    }

    /// Writes per second the database sustains: its own limit, or what its connections allow.
    pub fn service_per_s(&self) -> f64 {
        self.db_orders_per_s()
            .min(self.writes_per_s_of_partition() * self.partitions as f64)
    }

    /// Orders per second the database itself takes at a moment of the sale.
    pub fn service_per_s_at(&self, at_s: f64) -> f64 {
        let at = Duration::from_secs_f64(at_s);
        let slow = self.incidents.db_slow.filter(|slow| slow.span.contains(at));
        match self.incidents.db_down.is_some_and(|down| down.contains(at)) {
            true => 0.0,
            false => self.db_orders_per_s() * slow.map_or(1.0, |slow| slow.factor),
        }
    }

    /// Each attempt is a write.
    fn db_orders_per_s(&self) -> f64 {
        f64::from(self.db_writes_per_s) / self.attempts_per_order()
    }

    fn attempts_per_order(&self) -> f64 {
        1.0 + self.incidents.poison * f64::from(ATTEMPTS_MAX - 1)
    }

    /// Orders per second that the workers of one partition can write.
    pub fn writes_per_s_of_partition(&self) -> f64 {
        self.workers as f64 * self.writes_per_s_of_key()
    }

    /// Orders per second of one key, which wait for each other: also, of one worker.
    pub fn writes_per_s_of_key(&self) -> f64 {
        let pauses_s = self.incidents.poison * backoffs_in_vain().as_secs_f64();
        1.0 / (self.db_latency.as_secs_f64() * self.attempts_per_order() + pauses_s)
    }

    /// What the backlog must do.
    pub fn course(&self) -> Course {
        course(self)
    }

    /// Whether more orders come than can be written, for long enough to tell when they do;
    /// otherwise there is nothing to shave.
    pub fn overloads(&self) -> bool {
        !self.peak_but_for(0.0).admits(0.0)
    }

    /// Whether there is a backlog, but what goes wrong may hide all of it.
    pub fn hides_its_backlog(&self) -> bool {
        self.overloads() && self.peak_backlog().admits(0.0)
    }

    /// Most orders that wait for the database: acknowledged, and no write of them begun.
    pub fn peak_backlog(&self) -> Expected {
        self.peak_but_for(self.slack_s())
    }

    fn peak_but_for(&self, slack_s: f64) -> Expected {
        let value = self.course().peak.backlog;
        let lost_s = START_UP.as_secs_f64() + slack_s;
        let tolerance = (value * self.tolerance()).max(self.service_per_s() * lost_s);
        Expected { value, tolerance }
    }

    /// When the backlog is largest, in seconds after the start.
    pub fn peak_at_s(&self) -> Expected {
        let value = self.course().peak.at_s;
        let near = (value * PEAK_AT_TOLERANCE).max(START_UP.as_secs_f64());
        Expected {
            value,
            tolerance: near + self.slack_s(),
        }
    }

    /// When the last order is written, in seconds after the start.
    pub fn drained_at_s(&self) -> Expected {
        let value = self.course().ended_at_s + self.db_latency.as_secs_f64();
        let near = (value * self.tolerance()).max(START_UP.as_secs_f64());
        Expected {
            value,
            tolerance: near + self.slack_s(),
        }
    }

    /// Rows per second while there is a backlog.
    pub fn db_rate(&self) -> Expected {
        let value = self.service_per_s() * (1.0 - self.incidents.poison);
        let held_up = self.room().as_secs_f64() / self.window.as_secs_f64();
        Expected {
            value,
            tolerance: value * (self.tolerance() + held_up),
        }
    }

    /// Rows while the database is slow.
    pub fn rows_while_slow(&self, slow: Factor) -> Expected {
        let value = self.course().taken_in(slow.span) * (1.0 - self.incidents.poison);
        let rate = self.db_rate().value;
        // What is taken up near the ends of the span may begin beyond them.
        let moved_s = (self.db_latency + self.room()).as_secs_f64();
        let slow_rate = rate.min(self.db_orders_per_s() * slow.factor);
        Expected {
            value,
            tolerance: value * self.tolerance() + rate * moved_s + slow_rate * self.slack_s(),
        }
    }

    /// Service that may be lost beside what the course knows, in seconds of it.
    fn slack_s(&self) -> f64 {
        // The last order may be poison.
        let poison_s = match self.incidents.poison > 0.0 {
            true => (self.db_latency * ATTEMPTS_MAX + backoffs_in_vain()).as_secs_f64(),
            false => 0.0,
        };
        self.incidents.slack_s() + self.room().as_secs_f64() + poison_s
    }

    /// What being held up excuses: in short sales it counts, in long ones it is made up for.
    fn room(&self) -> Duration {
        self.held_up.min(HELD_UP_MAX)
    }

    fn tolerance(&self) -> f64 {
        if self.is_measured {
            TOLERANCE_MEASURED
        } else {
            TOLERANCE
        }
    }

    /// Requests that time out when the shop writes to the database itself: of the orders that come
    /// in the window, all but those the database can start before the last request gives up.
    pub fn direct_timeouts(&self) -> f64 {
        let patience = self.window + REQUEST_WAIT_MAX;
        (self.orders as f64 - self.service_per_s() * patience.as_secs_f64()).max(0.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::incidents::Span;

    /// The sale of the defaults in a window of so many seconds.
    pub(crate) fn sale(window_s: u64) -> Load {
        let window = Duration::from_secs(window_s);
        Load {
            orders: orders_in(window),
            window,
            db_writes_per_s: 5_000,
            is_measured: false,
            db_latency: Duration::from_millis(100),
            partitions: 10,
            partitions_of_member: 1,
            workers: 50,
            by_key: true,
            session_timeout: Duration::from_secs(10),
            held_up: Duration::ZERO,
            incidents: Incidents::default(),
        }
    }

    fn near(expected: Expected, value: f64, tolerance: f64) {
        let distance = (expected.value - value).abs() + (expected.tolerance - tolerance).abs();
        assert!(
            distance < 1e-3,
            "{expected:?} instead of {value} +-{tolerance}"
        );
    }

    #[test]
    fn the_whole_sale_peaks_at_200_000_and_drains_at_100_s() {
        let sale = sale(60);
        near(sale.peak_backlog(), 200_000.0, 4_000.0);
        near(sale.peak_at_s(), 60.0, 1.0);
        // 100 s of service and the last write.
        near(sale.drained_at_s(), 100.1, 2.002);
        near(sale.db_rate(), 5_000.0, 100.0);
        assert_eq!(sale.direct_timeouts(), 195_000.0);
        assert!(sale.overloads());
    }

    #[test]
    fn a_shorter_window_keeps_the_rates() {
        let sale = sale(6);
        assert_eq!(sale.orders, 50_000);
        assert!((sale.orders_per_s() - 8_333.333).abs() < 0.001);
        near(sale.peak_backlog(), 20_000.0, 2_500.0);
        near(sale.peak_at_s(), 6.0, 0.5);
        near(sale.drained_at_s(), 10.1, 0.5);
        near(sale.db_rate(), 5_000.0, 100.0);
    }

    #[test]
    fn too_few_connections_are_the_limit_instead_of_the_rate() {
        let sale = Load {
            workers: 25,
            ..sale(60)
        };
        near(sale.db_rate(), 2_500.0, 50.0);
        near(sale.peak_backlog(), 350_000.0, 7_000.0);
    }

    #[test]
    fn a_load_the_database_can_take_has_no_backlog() {
        let sale = Load {
            orders: 60_000,
            ..sale(60)
        };
        assert!(!sale.overloads());
        assert_eq!(sale.peak_backlog().value, 0.0);
        // The last order comes a thousandth of a second before the end.
        assert!((sale.drained_at_s().value - 60.099).abs() < 1e-9);
        assert_eq!(sale.direct_timeouts(), 0.0);
    }

    #[test]
    fn a_measured_database_and_one_that_fails_leave_more_room() {
        let mut sale = sale(60);
        sale.is_measured = true;
        near(sale.peak_backlog(), 200_000.0, 60_000.0);
        sale.is_measured = false;
        sale.incidents.kill_broker_at = Some(Duration::from_secs(30));
        near(sale.drained_at_s(), 100.1, 5.002);
    }

    #[test]
    fn a_backlog_is_expected_however_much_what_goes_wrong_may_hide() {
        let mut sale = sale(6);
        sale.incidents.kill_broker_at = Some(Duration::from_secs(2));
        assert!(sale.overloads() && !sale.hides_its_backlog());
        sale.incidents.rebalance_at = Some(Duration::from_secs(3));
        assert!(sale.overloads() && sale.hides_its_backlog());
        let longer = Load {
            window: Duration::from_secs(60),
            orders: 500_000,
            ..sale
        };
        assert!(!longer.hides_its_backlog());
    }

    #[test]
    fn few_orders_end_before_the_window_does_and_leave_long_pauses() {
        let mut sale = Load {
            orders: 20,
            ..sale(60)
        };
        near(sale.drained_at_s(), 57.1, 1.142);
        assert_eq!(sale.quiet_max().as_millis(), 3_100);
        let nothing = Load {
            orders: 0,
            ..sale.clone()
        };
        assert!(nothing.quiet_max() > Duration::from_secs(60));
        let (from, to) = (Duration::from_secs(50), Duration::from_secs(60));
        let (factor, span) = (10.0, Span { from, to });
        sale.incidents.burst = Some(Factor { factor, span });
        // 20 orders in 150 s of the common rate.
        near(sale.drained_at_s(), 59.35, 1.187);
    }

    #[test]
    fn what_the_machine_withholds_is_allowed_for() {
        let mut sale = sale(60);
        sale.held_up = Duration::from_millis(300);
        near(sale.peak_backlog(), 200_000.0, 4_000.0);
        near(sale.peak_at_s(), 60.0, 1.3);
        near(sale.drained_at_s(), 100.1, 2.302);
        near(sale.db_rate(), 5_000.0, 125.0);
        sale.held_up = Duration::from_secs(50);
        near(sale.peak_at_s(), 60.0, 1.6);
    }

    #[test]
    fn poison_costs_attempts_and_the_time_of_workers() {
        let mut sale = sale(60);
        sale.incidents.poison = 0.01;
        // 0.1 s for each of 1.03 attempts, and 7 ms of pauses.
        near(
            sale.db_rate(),
            500.0 / 0.11 * 0.99,
            500.0 / 0.11 * 0.99 * 0.02,
        );
    }

    #[test]
    fn a_value_is_admitted_within_its_tolerance_only() {
        let expected = Expected {
            value: 100.0,
            tolerance: 2.0,
        };
        assert!(expected.admits(98.0) && expected.admits(102.0));
        assert!(!expected.admits(97.9) && !expected.admits(102.1));
    }
}
