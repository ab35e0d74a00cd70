//! What was measured so far: counts and latencies, of the whole counted time and of the current
//! second. Knows no broker and no clock; whoever reports says when it was.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// What got done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests that were answered, or written where no answer comes.
    pub requests: u64,
    /// Their records.
    pub records: u64,
    /// Their bytes: keys and values of what is written, batches of what is read.
    pub bytes: u64,
}

impl Counts {
    fn add(&mut self, more: Counts) {
        self.requests += more.requests;
        self.records += more.records;
        self.bytes += more.bytes;
    }
}

/// One second of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Second {
    /// Its end, in seconds since the start.
    pub at_s: f64,
    /// Whether it is part of the counted time.
    pub counted: bool,
    /// What got done in it.
    #[serde(flatten)]
    pub counts: Counts,
    /// Its latencies in microseconds: the median.
    pub p50_us: u64,
    /// And what 99 of 100 stay below.
    pub p99_us: u64,
}

/// Collects; shared by all connections.
pub struct Meter {
    start: Instant,
    from: Instant,
    until: Rc<Cell<Instant>>,
    all: Cell<Counts>,
    counted: Cell<Counts>,
    second: Cell<Counts>,
    latencies: RefCell<Histogram<u64>>,
    latencies_of_second: RefCell<Histogram<u64>>,
    unsent: Cell<u64>,
}

impl Meter {
    /// Counts for `duration` once `warm_up` is over, which begins at `start`.
    pub fn new(start: Instant, warm_up: Duration, duration: Duration) -> Self {
        let from = start + warm_up;
        Self::between(start, from, Rc::new(Cell::new(from + duration)))
    }

    /// Another for the same time.
    pub fn sibling(&self) -> Self {
        Self::between(self.start, self.from, Rc::clone(&self.until))
    }

    fn between(start: Instant, from: Instant, until: Rc<Cell<Instant>>) -> Self {
        let histogram =
            || Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are those of an hour");
        Self {
            start,
            from,
            until,
            all: Cell::default(),
            counted: Cell::default(),
            second: Cell::default(),
            latencies: RefCell::new(histogram()),
            latencies_of_second: RefCell::new(histogram()),
            unsent: Cell::new(0),
        }
    }

    /// When the load began.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// When the counted time begins.
    pub fn from(&self) -> Instant {
        self.from
    }

    /// When the counted time ends.
    pub fn until(&self) -> Instant {
        self.until.get()
    }

    /// Ends the counted time earlier.
    pub fn end_at(&self, moment: Instant) {
        self.until.set(moment.min(self.until.get()));
    }

    /// Notes that `done` was done at `now`, which was meant to begin at `due`. It is counted by its
    /// end; its latency by its beginning, so that what takes longer than the run is not lost.
    pub fn done(&self, due: Instant, now: Instant, done: Counts) {
        let add = |sum: &Cell<Counts>| {
            let mut counts = sum.get();
            counts.add(done);
            sum.set(counts);
        };
        add(&self.all);
        add(&self.second);
        if self.is_counted(now) {
            add(&self.counted);
        }
        self.latency(due, now);
    }

    /// Notes a request that was due and could not leave by `now`: its latency is longer than that.
    pub fn unsent(&self, due: Instant, now: Instant) {
        self.unsent.set(self.unsent.get() + 1);
        self.latency(due, now);
    }

    fn latency(&self, due: Instant, now: Instant) {
        let latency = now.saturating_duration_since(due).as_micros();
        let latency = u64::try_from(latency).unwrap_or(u64::MAX);
        self.latencies_of_second
            .borrow_mut()
            .saturating_record(latency);
        if self.is_counted(due) {
            self.latencies.borrow_mut().saturating_record(latency);
        }
    }

    fn is_counted(&self, moment: Instant) -> bool {
        moment >= self.from && moment < self.until.get()
    }

    /// Ends a second at `now` and begins the next.
    pub fn second(&self, now: Instant) -> Second {
        let mut latencies = self.latencies_of_second.borrow_mut();
        let second = Second {
            at_s: (now - self.start).as_secs_f64(),
            counted: now > self.from,
            counts: self.second.take(),
            p50_us: latencies.value_at_quantile(0.5),
            p99_us: latencies.value_at_quantile(0.99),
        };
        latencies.reset();
        second
    }

    /// All that was done, counted or not.
    pub fn all(&self) -> Counts {
        self.all.get()
    }

    /// What was done in the counted time.
    pub fn counted(&self) -> Counts {
        self.counted.get()
    }

    /// Requests that were due and never sent.
    pub fn unsent_count(&self) -> u64 {
        self.unsent.get()
    }

    /// Latencies of what began in the counted time, in microseconds.
    pub fn latencies(&self) -> Histogram<u64> {
        self.latencies.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Counts = Counts {
        requests: 1,
        records: 10,
        bytes: 100,
    };

    #[test]
    fn warm_up_and_what_comes_late_are_told_apart() {
        let start = Instant::now();
        let at = |s: f64| start + Duration::from_secs_f64(s);
        let meter = Meter::new(start, Duration::from_secs(2), Duration::from_secs(10));
        meter.done(at(1.0), at(1.5), ONE);
        meter.done(at(1.9), at(2.4), ONE);
        meter.done(at(5.0), at(5.1), ONE);
        meter.done(at(11.9), at(13.9), ONE);
        assert_eq!(meter.all().requests, 4);
        assert_eq!(
            meter.counted().records,
            20,
            "what ended within the counted time"
        );
        let latencies = meter.latencies();
        assert_eq!(latencies.len(), 2, "what began within the counted time");
        assert!(latencies.max() > 1_990_000, "the late answer is there");
    }

    #[test]
    fn an_earlier_end_is_the_end() {
        let start = Instant::now();
        let meter = Meter::new(start, Duration::from_secs(2), Duration::from_secs(10));
        meter.end_at(start + Duration::from_secs(5));
        assert_eq!(meter.until() - start, Duration::from_secs(5));
        meter.end_at(start + Duration::from_secs(6));
        assert_eq!(meter.until() - start, Duration::from_secs(5));
        meter.done(
            start + Duration::from_secs(5),
            start + Duration::from_secs(6),
            ONE,
        );
        assert_eq!((meter.counted().requests, meter.latencies().len()), (0, 0));
    }

    #[test]
    fn a_second_begins_empty() {
        let start = Instant::now();
        let meter = Meter::new(start, Duration::ZERO, Duration::from_secs(10));
        meter.done(start, start + Duration::from_millis(3), ONE);
        let second = meter.second(start + Duration::from_secs(1));
        assert_eq!((second.counts, second.counted), (ONE, true));
        assert!(second.p99_us >= 3_000);
        let next = meter.second(start + Duration::from_secs(2));
        assert_eq!((next.counts, next.p99_us), (Counts::default(), 0));
    }
}
