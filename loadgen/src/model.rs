//! The arithmetic of the flash sale: from the rates to what must be seen.
//!
//! A sale sends `orders` evenly over `window`; a database finishes `service_per_s` of them. The
//! backlog therefore grows by the difference until the window closes and then shrinks at the
//! database's rate. Everything the verdict expects comes from here, so a sale of another size or
//! length is judged by the same formulas. No clock, no IO.

use std::time::Duration;

/// Orders of the sale that gave this tool its name.
pub const ORDERS_DEFAULT: u64 = 500_000;
/// The window in which they arrive.
pub const WINDOW_DEFAULT: Duration = Duration::from_secs(60);
/// How long a web request waits for its turn at the database before the shop gives up.
pub const REQUEST_WAIT_MAX: Duration = Duration::from_secs(1);

/// Share of an expected value by which the seen one may differ: 2 %.
const TOLERANCE: f64 = 0.02;
/// Share of the window by which the peak may come earlier or later: 1 s in 60 s.
const PEAK_AT_TOLERANCE: f64 = 1.0 / 60.0;
/// Starting up (first acknowledgement, first fetch, last commit) takes the same time in a short
/// sale as in a long one, so no tolerance in time is smaller than this.
const START_UP: Duration = Duration::from_millis(500);

/// What is put through the broker, and what stands behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Orders sent in all.
    pub orders: u64,
    /// The time over which they are sent, evenly.
    pub window: Duration,
    /// Writes per second the modelled database can start.
    pub db_writes_per_s: u32,
    /// How long one write takes.
    pub db_latency: Duration,
    /// Writes that may be under way at once, over all partitions.
    pub db_concurrent: usize,
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
    /// Orders sent per second.
    pub fn orders_per_s(&self) -> f64 {
        self.orders as f64 / self.window.as_secs_f64()
    }

    /// Writes per second the database sustains: its own limit, or what its connections allow.
    pub fn service_per_s(&self) -> f64 {
        let by_connections = if self.db_latency.is_zero() {
            f64::INFINITY
        } else {
            self.db_concurrent as f64 / self.db_latency.as_secs_f64()
        };
        f64::from(self.db_writes_per_s).min(by_connections)
    }

    /// Whether orders come faster than they can be written; otherwise there is nothing to shave.
    pub fn overloads(&self) -> bool {
        self.orders_per_s() > self.service_per_s()
    }

    /// Most orders that wait for the database: acknowledged, and no write of them begun.
    pub fn peak_backlog(&self) -> Expected {
        let written = self.service_per_s() * self.window.as_secs_f64();
        let value = (self.orders as f64 - written).max(0.0);
        let start_up = self.service_per_s() * START_UP.as_secs_f64();
        Expected {
            value,
            tolerance: (value * TOLERANCE).max(start_up),
        }
    }

    /// When the backlog is largest, in seconds after the start.
    pub fn peak_at_s(&self) -> Expected {
        let value = self.window.as_secs_f64();
        Expected {
            value,
            tolerance: (value * PEAK_AT_TOLERANCE).max(START_UP.as_secs_f64()),
        }
    }

    /// When the last order is written, in seconds after the start.
    pub fn drained_at_s(&self) -> Expected {
        let serving = self.orders as f64 / self.service_per_s();
        let value = serving.max(self.window.as_secs_f64()) + self.db_latency.as_secs_f64();
        Expected {
            value,
            tolerance: (value * TOLERANCE).max(START_UP.as_secs_f64()),
        }
    }

    /// Writes per second while there is a backlog.
    pub fn db_rate(&self) -> Expected {
        let value = self.service_per_s();
        Expected {
            value,
            tolerance: value * TOLERANCE,
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
mod tests {
    use super::*;

    fn sale(window: Duration) -> Load {
        Load {
            orders: orders_in(window),
            window,
            db_writes_per_s: 5_000,
            db_latency: Duration::from_millis(100),
            db_concurrent: 500,
        }
    }

    #[test]
    fn the_whole_sale_peaks_at_200_000_and_drains_at_100_s() {
        let sale = sale(WINDOW_DEFAULT);
        assert_eq!(
            sale.peak_backlog(),
            Expected {
                value: 200_000.0,
                tolerance: 4_000.0
            }
        );
        assert_eq!(
            sale.peak_at_s(),
            Expected {
                value: 60.0,
                tolerance: 1.0
            }
        );
        let drained = sale.drained_at_s();
        assert!(
            (drained.value - 100.1).abs() < 1e-9,
            "100 s of service and the last write"
        );
        assert!((drained.tolerance - 2.002).abs() < 1e-9);
        assert_eq!(
            sale.db_rate(),
            Expected {
                value: 5_000.0,
                tolerance: 100.0
            }
        );
        assert_eq!(sale.direct_timeouts(), 195_000.0);
        assert!(sale.overloads());
    }

    #[test]
    fn a_shorter_window_keeps_the_rates() {
        let sale = sale(Duration::from_secs(6));
        assert_eq!(sale.orders, 50_000);
        assert!((sale.orders_per_s() - 8_333.333).abs() < 0.001);
        assert_eq!(sale.peak_backlog().value, 20_000.0);
        assert_eq!(
            sale.peak_at_s(),
            Expected {
                value: 6.0,
                tolerance: 0.5
            }
        );
        assert!((sale.drained_at_s().value - 10.1).abs() < 1e-9);
        assert_eq!(sale.db_rate().value, 5_000.0);
    }

    #[test]
    fn too_few_connections_are_the_limit_instead_of_the_rate() {
        let sale = Load {
            db_concurrent: 250,
            ..sale(WINDOW_DEFAULT)
        };
        assert_eq!(sale.service_per_s(), 2_500.0);
        assert_eq!(sale.peak_backlog().value, 350_000.0);
    }

    #[test]
    fn a_load_the_database_can_take_has_no_backlog() {
        let sale = Load {
            orders: 60_000,
            ..sale(WINDOW_DEFAULT)
        };
        assert!(!sale.overloads());
        assert_eq!(sale.peak_backlog().value, 0.0);
        assert!((sale.drained_at_s().value - 60.1).abs() < 1e-9);
        assert_eq!(sale.direct_timeouts(), 0.0);
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
