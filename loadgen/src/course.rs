//! The course of a sale by arithmetic: how its backlog grows and shrinks over time. Each partition
//! is a queue that orders flow into and writes flow out of; the database's rate is shared among
//! the workers that have work, none getting more than it can write. All rates are constant between
//! the moments at which something changes, so the course is exact. No clock, no IO.

use std::time::Duration;

use serde::Serialize;

use crate::incidents::Span;
use crate::model::Load;

/// Backlogs and times below this are rounding.
const NOTHING: f64 = 1e-6;

/// The backlog at a moment; it changes evenly up to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// Seconds after the start.
    pub at_s: f64,
    /// Orders sent and not taken up by the database.
    pub backlog: f64,
    /// Orders that it has taken up since the start.
    pub taken: f64,
}

/// The whole course.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// The backlog, from the start to the end.
    pub points: Vec<Point>,
    /// Where it is highest; the first such moment.
    pub peak: Point,
    /// When the last order has been taken up; infinite if that never happens.
    pub ended_at_s: f64,
}

impl Course {
    /// Orders that the database takes up in a span whose ends are among the points.
    pub fn taken_in(&self, span: Span) -> f64 {
        let until = |at: Duration| {
            let before = |point: &&Point| point.at_s <= at.as_secs_f64() + NOTHING;
            let last = self.points.iter().rev().find(before);
            last.map_or(0.0, |point| point.taken)
        };
        until(span.to) - until(span.from)
    }
}

/// A partition in the arithmetic.
struct Queue {
    /// Its share of all orders.
    share: f64,
    /// Writes it can have under way at once.
    workers: f64,
    /// Most orders per second those can write.
    writes_per_s: f64,
    /// Nobody reads it between these seconds.
    unread: Option<(f64, f64)>,
    backlog: f64,
}

/// The course that a load must take.
pub fn course(load: &Load) -> Course {
    let mut queues = queues(load);
    let edges = edges(load, &queues);
    let (mut at_s, mut taken) = (0.0, 0.0);
    let mut points = vec![Point::default()];
    loop {
        let edge = edges.iter().copied().find(|edge| *edge > at_s + NOTHING);
        let growths = growths(load, &queues, at_s);
        let empty_at = queues.iter().zip(&growths).filter_map(|(queue, growth)| {
            let shrinks = *growth < -NOTHING && queue.backlog > 0.0;
            shrinks.then(|| at_s + queue.backlog / -growth)
        });
        let until = empty_at.chain(edge).fold(f64::INFINITY, f64::min);
        if until.is_infinite() {
            break;
        }
        let growth: f64 = growths.iter().sum();
        taken += (load.offered_per_s(at_s + NOTHING) - growth) * (until - at_s);
        for (queue, growth) in queues.iter_mut().zip(&growths) {
            queue.backlog += growth * (until - at_s);
            if queue.backlog < NOTHING {
                queue.backlog = 0.0;
            }
        }
        at_s = until;
        let backlog = queues.iter().map(|queue| queue.backlog).sum();
        points.push(Point {
            at_s,
            backlog,
            taken,
        });
    }
    let higher = |best: Point, point: &Point| match point.backlog > best.backlog + NOTHING {
        true => *point,
        false => best,
    };
    let peak = points.iter().fold(Point::default(), higher);
    let emptied = points.iter().rposition(|point| point.backlog > 0.0);
    let emptied_at_s = match emptied {
        Some(last) => points
            .get(last + 1)
            .map_or(f64::INFINITY, |point| point.at_s),
        None => 0.0,
    };
    Course {
        points,
        peak,
        ended_at_s: emptied_at_s.max(load.last_sent_at_s()),
    }
}

fn queues(load: &Load) -> Vec<Queue> {
    let (count, hot) = (load.partitions, load.incidents.hot_key);
    let even = (1.0 - hot) / count as f64;
    let unread = load.incidents.kill_consumer_at.map(|at| {
        let at_s = at.as_secs_f64();
        (at_s, at_s + load.session_timeout.as_secs_f64())
    });
    let queue = |partition| {
        let share = if partition == 0 { even + hot } else { even };
        let mut workers = load.workers as f64;
        if partition == 0 && hot > 0.0 && load.by_key {
            // The orders of the hot key wait for each other, and the others in line behind them.
            workers = workers.min(share / hot);
        }
        Queue {
            share,
            workers,
            writes_per_s: workers * load.writes_per_s_of_key(),
            unread: unread.filter(|_| partition + load.partitions_of_member >= count),
            backlog: 0.0,
        }
    };
    (0..count).map(queue).collect()
}

/// The moments at which a rate changes, in sequence.
fn edges(load: &Load, queues: &[Queue]) -> Vec<f64> {
    let incidents = &load.incidents;
    let mut edges = vec![load.window.as_secs_f64()];
    let spans = [
        incidents.db_slow.map(|slow| slow.span),
        incidents.db_down,
        incidents.burst.map(|burst| burst.span),
    ];
    for span in spans.into_iter().flatten() {
        edges.extend([span.from.as_secs_f64(), span.to.as_secs_f64()]);
    }
    for (from, to) in queues.iter().filter_map(|queue| queue.unread) {
        edges.extend([from, to]);
    }
    edges.sort_by(f64::total_cmp);
    edges
}

/// How fast each backlog grows from `at_s` on.
fn growths(load: &Load, queues: &[Queue], at_s: f64) -> Vec<f64> {
    // Rates hold from an edge on; a time computed to be an edge may lie a rounding before it.
    let now = at_s + NOTHING;
    let offered = load.offered_per_s(now);
    let wanted: Vec<f64> = queues
        .iter()
        .map(|queue| match queue.unread {
            Some((from, to)) if (from..to).contains(&now) => 0.0,
            _ if queue.backlog > 0.0 => queue.writes_per_s,
            _ => queue.writes_per_s.min(offered * queue.share),
        })
        .collect();
    let workers: Vec<f64> = queues.iter().map(|queue| queue.workers).collect();
    let level = level(&wanted, &workers, load.service_per_s_at(now));
    let growth =
        |(queue, wanted): (&Queue, &f64)| offered * queue.share - wanted.min(level * queue.workers);
    queues.iter().zip(&wanted).map(growth).collect()
}

/// The rate of one worker up to which each queue gets what it wants, so that all together get no
/// more than `total`.
fn level(wanted: &[f64], workers: &[f64], total: f64) -> f64 {
    let mut sorted: Vec<(f64, f64)> = wanted
        .iter()
        .copied()
        .zip(workers.iter().copied())
        .collect();
    sorted.sort_by(|one, other| (one.0 / one.1).total_cmp(&(other.0 / other.1)));
    let mut left = total;
    let mut workers_left: f64 = workers.iter().sum();
    for (want, workers) in sorted {
        let each = left / workers_left;
        if want > each * workers {
            return each;
        }
        left -= want;
        workers_left -= workers;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incidents::{Factor, Span};
    use crate::model::tests::sale;
    use std::time::Duration;

    fn near(seen: f64, expected: f64) {
        assert!(
            (seen - expected).abs() < 1e-3,
            "{seen} instead of {expected}"
        );
    }

    fn span(from: u64, to: u64) -> Span {
        let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
        Span { from, to }
    }

    #[test]
    fn the_sale_rises_to_the_end_of_its_window_and_falls_to_nothing() {
        let course = course(&sale(60));
        near(course.peak.backlog, 200_000.0);
        near(course.peak.at_s, 60.0);
        near(course.ended_at_s, 100.0);
    }

    #[test]
    fn a_database_that_is_down_or_slow_adds_what_it_did_not_write() {
        let mut load = sale(60);
        load.incidents.db_down = Some(span(30, 40));
        near(course(&load).peak.backlog, 250_000.0);
        near(course(&load).ended_at_s, 110.0);
        load.incidents.db_down = None;
        load.incidents.db_slow = Some(Factor {
            factor: 0.5,
            span: span(20, 40),
        });
        near(course(&load).peak.backlog, 250_000.0);
        load.incidents.db_slow = Some(Factor {
            factor: 0.5,
            span: span(80, 90),
        });
        near(course(&load).peak.backlog, 200_000.0);
        near(course(&load).ended_at_s, 105.0);
    }

    #[test]
    fn a_slow_database_takes_its_share_as_long_as_there_is_something_to_take() {
        let taken = |span, spoil: fn(&mut Load)| {
            let mut load = sale(60);
            load.incidents.db_slow = Some(Factor { factor: 0.5, span });
            spoil(&mut load);
            course(&load).taken_in(span)
        };
        near(taken(span(20, 40), |_| {}), 50_000.0);
        near(taken(span(0, 20), |_| {}), 50_000.0);
        // All that is left after 50 s of 5,000/s.
        near(taken(span(50, 200), |_| {}), 250_000.0);
        let down = |load: &mut Load| load.incidents.db_down = Some(span(25, 35));
        near(taken(span(20, 40), down), 25_000.0);
        // 25 workers write 2,500/s in any case, 20 of them less.
        near(taken(span(20, 40), |load| load.workers = 25), 50_000.0);
        near(taken(span(20, 40), |load| load.workers = 20), 40_000.0);
        let poison = |load: &mut Load| load.incidents.poison = 0.01;
        near(taken(span(20, 40), poison), 50_000.0 / 1.03);
    }

    #[test]
    fn a_burst_moves_orders_forward_and_adds_none() {
        let mut load = sale(60);
        load.incidents.burst = Some(Factor {
            factor: 10.0,
            span: span(5, 6),
        });
        let course = course(&load);
        near(course.ended_at_s, 100.0);
        near(course.peak.backlog, 200_000.0);
        let after = course.points.iter().find(|point| point.at_s > 5.5).unwrap();
        // 14 of 69 parts of the orders have come by then, and six seconds of writes have gone.
        near(after.backlog, 500_000.0 * 15.0 / 69.0 - 30_000.0);
    }

    #[test]
    fn partitions_nobody_reads_are_drained_later() {
        let mut load = sale(60);
        load.incidents.kill_consumer_at = Some(Duration::from_secs(45));
        // One of ten partitions, which can only ever write 500/s, stands still for ten seconds.
        near(course(&load).peak.backlog, 205_000.0);
        near(course(&load).ended_at_s, 110.0);
    }

    #[test]
    fn a_hot_key_is_as_slow_as_its_orders_one_after_the_other() {
        let mut load = sale(60);
        load.incidents.hot_key = 0.3;
        // And a little more, while the other partitions crowd the database.
        let ended_at_s = course(&load).ended_at_s;
        assert!((14_999.0..15_100.0).contains(&ended_at_s), "{ended_at_s}");
        load.by_key = false;
        // In any order, the partition's workers write 500/s.
        near(course(&load).ended_at_s, 500_000.0 * 0.37 / 500.0);
    }

    #[test]
    fn what_is_scarce_is_shared_and_nobody_gets_more_than_wanted() {
        assert_eq!(level(&[1.0, 5.0, 6.0], &[1.0; 3], 9.0), 4.0);
        assert_eq!(level(&[9.0, 9.0], &[1.0, 2.0], 9.0), 3.0);
        assert_eq!(level(&[1.0, 2.0], &[1.0; 2], 9.0), f64::INFINITY);
        assert_eq!(level(&[1.0, 2.0], &[1.0; 2], 0.0), 0.0);
    }
}
