//! The same load without a broker: every order is a web request that writes to the same modelled
//! database itself and waits at most [`REQUEST_WAIT_MAX`] for its turn, as a shop would. Rows are
//! real here too. Requests are served in the sequence of their intended times.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::engine::{Shape, latencies};
use crate::failure::Failure;
use crate::governor::Governor;
use crate::model::REQUEST_WAIT_MAX;
use crate::orders::{Order, Orders};
use crate::sink::Sink;
use crate::store::{Row, Store};

const TICK: Duration = Duration::from_millis(2);

/// One line of the course.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DirectSecond {
    /// Seconds since the start.
    pub at_s: u64,
    /// Requests that came in this second.
    pub requested: u64,
    /// Writes that ended.
    pub written: u64,
    /// Requests that gave up.
    pub timed_out: u64,
    /// Requests that wait for their turn at the end of the second.
    pub waiting: usize,
}

/// What came of the load without a broker.
#[derive(Debug)]
pub struct DirectEnded {
    /// Requests in all.
    pub requested: u64,
    /// Requests that gave up: orders the shop has lost.
    pub timed_out: u64,
    /// When the last write ended, after the start.
    pub ended_at: Duration,
    /// From the intended time of a request to the end of its write, in microseconds.
    pub answers: hdrhistogram::Histogram<u64>,
    /// The course.
    pub seconds: Vec<DirectSecond>,
    /// The rows.
    pub store: Store,
    /// The user stopped it before the end.
    pub interrupted: bool,
}

/// Requests on their way into the database.
struct Shop<S> {
    clock: Clock,
    started: Duration,
    /// Requests that wait, with their intended times after the start.
    waiting: VecDeque<(Duration, Order)>,
    /// Since when each idle connection has had nothing to do, longest first.
    idle: VecDeque<Duration>,
    governor: Governor<(Duration, Order)>,
    sink: S,
    written: u64,
    ended: DirectCounts,
}

struct DirectCounts {
    requested: u64,
    timed_out: u64,
    ended_at: Duration,
    answers: hdrhistogram::Histogram<u64>,
}

/// Runs the load until every request was written or gave up, or `stop` resolves. `observe` gets each second.
///
/// # Errors
/// If the database fails.
pub async fn run<S: Sink>(
    mut orders: Orders,
    shape: &Shape,
    sink: S,
    stop: impl Future<Output = ()>,
    observe: &mut dyn FnMut(&DirectSecond),
) -> Result<DirectEnded, Failure> {
    let mut shop = Shop::open(shape, sink);
    let mut seconds = Vec::new();
    let mut before = (0, 0, 0);
    let mut interrupted = false;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    while orders.next_due().is_some() || shop.is_open() {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut stop => {
                interrupted = true;
                break;
            }
        }
        let now = shop.clock.now();
        let sale_time = now.saturating_sub(shop.started);
        shop.finish(now)?;
        while orders.next_due().is_some_and(|due| due <= sale_time) {
            let planned = orders.next().expect("it is due");
            let order = serde_json::from_slice(&planned.value).expect("it was just written");
            shop.ended.requested += 1;
            shop.waiting.push_back((planned.due, order));
        }
        shop.serve(now);
        if sale_time.as_secs() > seconds.len() as u64 {
            let counts = (shop.ended.requested, shop.written, shop.ended.timed_out);
            let second = DirectSecond {
                at_s: sale_time.as_secs(),
                requested: counts.0 - before.0,
                written: counts.1 - before.1,
                timed_out: counts.2 - before.2,
                waiting: shop.waiting.len(),
            };
            before = counts;
            observe(&second);
            seconds.push(second);
        }
    }
    let Shop { ended, sink, .. } = shop;
    Ok(DirectEnded {
        requested: ended.requested,
        timed_out: ended.timed_out,
        ended_at: ended.ended_at,
        answers: ended.answers,
        seconds,
        store: sink.close()?,
        interrupted,
    })
}

impl<S: Sink> Shop<S> {
    fn open(shape: &Shape, sink: S) -> Self {
        let connections = shape.partitions * shape.lane.workers;
        let clock = Clock::start();
        Self {
            clock,
            started: clock.now(),
            waiting: VecDeque::new(),
            idle: vec![Duration::ZERO; connections].into(),
            governor: Governor::new(shape.db_writes_per_s, shape.db_latency, connections),
            sink,
            written: 0,
            ended: DirectCounts {
                requested: 0,
                timed_out: 0,
                ended_at: Duration::ZERO,
                answers: latencies(),
            },
        }
    }

    fn is_open(&self) -> bool {
        !self.waiting.is_empty() || self.governor.under_way() > 0
    }

    /// Ends the writes whose time has come; each connection at once takes the next request.
    fn finish(&mut self, now: Duration) -> Result<(), Failure> {
        let mut rows = Vec::new();
        while let Some(write) = self.governor.finish(now) {
            let (due, order) = write.item;
            let offset = i64::try_from(self.written).unwrap_or(i64::MAX);
            rows.push(Row {
                partition: 0,
                offset,
                order: Some(order),
                started_ns: self.clock.unix_ns(write.started),
                finished_ns: self.clock.unix_ns(write.finished),
            });
            self.written += 1;
            self.ended.ended_at = write.finished.saturating_sub(self.started);
            let answer = self.ended.ended_at.saturating_sub(due).as_micros();
            self.ended
                .answers
                .saturating_record(u64::try_from(answer).unwrap_or(u64::MAX).max(1));
            self.idle.push_back(write.finished);
            self.serve(now);
        }
        if !rows.is_empty() {
            self.sink.submit(rows)?;
        }
        self.sink.committed().map(drop)
    }

    /// Begins writes while there are requests and connections; turns away who would wait too long.
    fn serve(&mut self, now: Duration) {
        while let (Some((due, _)), Some(idle)) = (self.waiting.front(), self.idle.front()) {
            let asked = self.started + *due;
            let slot = self.governor.next_slot(asked.max(*idle), now);
            let request = self.waiting.pop_front().expect("it was just looked at");
            if slot > asked + REQUEST_WAIT_MAX {
                self.ended.timed_out += 1;
                continue;
            }
            self.idle.pop_front();
            self.governor.begin(slot, now, request);
        }
        let too_old = |due: Duration| now > self.started + due + REQUEST_WAIT_MAX;
        while self.waiting.front().is_some_and(|(due, _)| too_old(*due)) {
            self.waiting.pop_front();
            self.ended.timed_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Limits;
    use crate::sale::memory::InlineSink;

    fn sell(orders: u64) -> DirectEnded {
        until(orders, std::future::pending())
    }

    fn until(orders: u64, stop: impl Future<Output = ()>) -> DirectEnded {
        let limits = Limits {
            workers: 50,
            by_key: true,
            pause_at: 900,
            resume_below: 800,
        };
        let shape = Shape {
            partitions: 10,
            lane: limits,
            db_writes_per_s: Some(5_000),
            db_latency: Duration::from_millis(100),
            seen_max: None,
            incidents: crate::incidents::Incidents::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let orders = Orders::new(1, orders, Duration::from_secs(6), 10);
        let store = Store::memory();
        let sink = InlineSink::new(store, Box::new(|_| {}));
        runtime
            .block_on(run(orders, &shape, sink, stop, &mut |_| {}))
            .unwrap()
    }

    /// 8,333/s against 5,000/s: the queue grows to one second's worth, then 3,333/s give up.
    #[test]
    fn what_the_database_cannot_take_within_a_second_times_out() {
        let ended = sell(50_000);
        let expected = 50_000 - 5_000 * (6 + 1);
        assert!(
            ended.timed_out.abs_diff(expected) <= 50,
            "{} of {expected}",
            ended.timed_out
        );
        let rows = ended.store.audit(50_000, 5_000).unwrap();
        assert_eq!(rows.distinct + ended.timed_out, 50_000);
        assert!(
            rows.fastest_second_ns.unwrap() >= 1_000_000_000,
            "the model holds here too"
        );
        let slowest = Duration::from_micros(ended.answers.max());
        let longest = REQUEST_WAIT_MAX + Duration::from_millis(101);
        assert!(
            slowest <= longest && slowest > REQUEST_WAIT_MAX,
            "{slowest:?}"
        );
        let requested: u64 = ended.seconds.iter().map(|second| second.requested).sum();
        assert!(requested <= 50_000 && requested > 49_000);
    }

    #[test]
    fn a_load_that_is_stopped_comes_with_what_there_is() {
        let ended = until(50_000, async {
            tokio::time::sleep(Duration::from_secs(3)).await
        });
        assert!(ended.interrupted && ended.seconds.len() >= 2);
        assert!((24_000..26_000).contains(&ended.requested));
        assert!(ended.timed_out > 0 && !ended.answers.is_empty());
    }

    #[test]
    fn a_load_the_database_can_take_times_out_nowhere() {
        let ended = sell(29_000);
        assert_eq!((ended.requested, ended.timed_out), (29_000, 0));
        assert!(
            ended.answers.max() < 120_000,
            "no queue: {} us",
            ended.answers.max()
        );
    }
}
