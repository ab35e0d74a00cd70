//! The sale in progress: the lanes of all partitions, the modelled database they share, the way of
//! its rows into the real one, and the counts from which the verdict is drawn.
//!
//! One owner, no task of its own: producers tell it what was sent and acknowledged, group members
//! bring it orders and ask which partitions to pause, and a ticking task calls
//! [`Engine::advance`]. All times are those of the sale's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::Clock;
use crate::failure::Failure;
use crate::governor::Governor;
use crate::lane::{Lane, Limits, Received, Seq};
use crate::sink::Sink;
use crate::store::Row;

/// The largest latency told apart from others: ten minutes, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// An empty histogram of microseconds with three significant digits.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are in order")
}

/// The write of an order: its lane and its number there.
type Ticket = (usize, Seq);

/// How many orders have come how far. Every figure only grows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Handed to the producer.
    pub sent: u64,
    /// Acknowledged by the broker.
    pub acked: u64,
    /// Given up by the producer.
    pub failed: u64,
    /// Delivered to the group.
    pub received: u64,
    /// Taken up by the database: the write has its slot.
    pub taken: u64,
    /// Permanent in the real database.
    pub written: u64,
    /// Times a partition was paused.
    pub pauses: u64,
    /// Assignments that changed after the start of the sale.
    pub rebalances: u64,
    /// Most orders the group held at once.
    pub buffer_max: usize,
}

/// Where the backlog stood highest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Peak {
    /// Orders acknowledged and not taken up by the database.
    pub backlog: u64,
    /// When, after the start of the sale.
    pub at: Duration,
}

/// Counts of one partition.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    acked: u64,
    taken: u64,
}

/// What the engine is built for.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Partitions of the topic.
    pub partitions: usize,
    /// Limits of each lane.
    pub lane: Limits,
    /// The database's slots per second.
    pub db_writes_per_s: u32,
    /// The length of a write.
    pub db_latency: Duration,
}

/// The state of the sale.
#[derive(Debug)]
pub struct Engine<S> {
    clock: Clock,
    /// Zero of the sale on the clock; orders may already flow before (what a resumed sale finds).
    started: Option<Duration>,
    /// Orders are still to be sent, or to be acknowledged or given up.
    sending: bool,
    lanes: Vec<Lane>,
    flows: Vec<Flow>,
    workers: usize,
    governor: Governor<Ticket>,
    sink: S,
    counts: Counts,
    peak: Peak,
    /// First and last moment at which every partition had a backlog for all its workers.
    busy: Option<(Duration, Duration)>,
    written_last_at: Duration,
    acks: Histogram<u64>,
    acks_of_second: Histogram<u64>,
}

impl<S: Sink> Engine<S> {
    /// An engine before the sale; each partition continues at its offset in `next_offsets`.
    pub fn new(shape: &Shape, clock: Clock, next_offsets: &BTreeMap<i32, i64>, sink: S) -> Self {
        let lanes = (0..shape.partitions).map(|partition| {
            let known = i32::try_from(partition)
                .ok()
                .and_then(|p| next_offsets.get(&p));
            Lane::new(shape.lane, known.copied().unwrap_or(0))
        });
        let concurrent_max = shape.partitions * shape.lane.workers;
        Self {
            clock,
            started: None,
            sending: true,
            lanes: lanes.collect(),
            flows: vec![Flow::default(); shape.partitions],
            workers: shape.lane.workers,
            governor: Governor::new(shape.db_writes_per_s, shape.db_latency, concurrent_max),
            sink,
            counts: Counts::default(),
            peak: Peak::default(),
            busy: None,
            written_last_at: Duration::ZERO,
            acks: latencies(),
            acks_of_second: latencies(),
        }
    }

    /// The sale begins now.
    pub fn start(&mut self) {
        self.started = Some(self.clock.now());
    }

    /// The counts so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What an earlier run of the same sale had achieved: `logged` orders of each partition were in
    /// the broker's log and `written` rows in the database.
    pub fn inherit(&mut self, logged: &BTreeMap<i32, u64>, written: &BTreeMap<i32, i64>) {
        for (partition, count) in logged {
            self.flow(*partition).acked += count;
            self.counts.sent += count;
            self.counts.acked += count;
        }
        for (partition, next_offset) in written {
            let count = u64::try_from(*next_offset).unwrap_or(0);
            self.flow(*partition).taken += count;
            self.counts.received += count;
            self.counts.taken += count;
            self.counts.written += count;
        }
    }

    /// An order was handed to the producer.
    pub fn sent(&mut self) {
        self.counts.sent += 1;
    }

    /// An order was acknowledged that should have been sent at `due`, counted from the start.
    pub fn acked(&mut self, partition: i32, due: Duration) {
        self.counts.acked += 1;
        self.flow(partition).acked += 1;
        let latency = self.sale_time().saturating_sub(due);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.acks.saturating_record(micros.max(1));
        self.acks_of_second.saturating_record(micros.max(1));
        self.note_backlog();
    }

    /// The producer gave an order up.
    pub fn failed(&mut self) {
        self.counts.failed += 1;
    }

    /// The assignment of partitions changed.
    pub fn rebalanced(&mut self) {
        if self.started.is_some() {
            self.counts.rebalances += 1;
        }
    }

    /// Every order was sent, and acknowledged or given up.
    pub fn sending_ended(&mut self) {
        self.sending = false;
    }

    /// Whether nothing is left to do, as far as the counts can tell.
    pub fn is_drained(&self) -> bool {
        !self.sending && self.counts.written >= self.counts.acked && self.buffer() == 0
    }

    /// Whether a paused partition has room again.
    pub fn wants_resume(&self) -> bool {
        self.lanes.iter().any(Lane::wants_resume)
    }

    /// Orders the broker delivered.
    ///
    /// # Errors
    /// If the database has failed.
    pub fn accept(&mut self, partition: i32, orders: Vec<Received>) -> Result<(), Failure> {
        // Writes that have ended since the last tick free their workers first: their next writes
        // come before those of workers that were idle all along.
        self.advance()?;
        let now = self.clock.now();
        let lane = usize::try_from(partition).expect("the broker knows no other partitions");
        self.counts.received += orders.len() as u64;
        self.lanes[lane].accept(now, orders);
        self.counts.buffer_max = self.counts.buffer_max.max(self.buffer());
        self.take_up(lane, now);
        Ok(())
    }

    /// The partition's state: its pauses and where it continues.
    pub fn lane(&mut self, partition: i32) -> &mut Lane {
        &mut self.lanes[usize::try_from(partition).expect("partitions count from 0")]
    }

    /// Whether the partition must be paused now; says so once.
    pub fn take_pause(&mut self, partition: i32) -> bool {
        let pause = self.lane(partition).take_pause();
        self.counts.pauses += u64::from(pause);
        pause
    }

    /// Ends the writes whose time has come, begins those that follow, passes finished orders on to
    /// the real database and learns which have become permanent.
    ///
    /// # Errors
    /// If the database has failed.
    pub fn advance(&mut self) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut touched = false;
        while let Some(write) = self.governor.finish(now) {
            let (lane, seq) = write.item;
            self.lanes[lane].finish(seq, write.started, write.finished);
            self.take_up(lane, now);
            touched = true;
        }
        if touched {
            self.hand_out()?;
        }
        for commit in self.sink.committed()? {
            for (partition, rows) in commit.rows {
                self.lane(partition).committed(rows);
                self.counts.written += rows as u64;
            }
            self.written_last_at = self.sale_time();
        }
        let has_backlog = |flow: &Flow| flow.acked >= flow.taken + self.workers as u64;
        if self.started.is_some() && self.flows.iter().all(has_backlog) {
            let since = self.busy.map_or(now, |(since, _)| since);
            self.busy = Some((since, now));
        }
        Ok(())
    }

    /// When [`Engine::advance`] has something to do, at the latest.
    pub fn next_finish(&self) -> Option<Duration> {
        self.governor.next_finish()
    }

    /// Orders acknowledged and not yet taken up by the database.
    pub fn backlog(&self) -> u64 {
        self.counts.acked.saturating_sub(self.counts.taken)
    }

    /// Orders the group holds, up to the commit of their rows.
    pub fn buffer(&self) -> usize {
        self.lanes.iter().map(Lane::held).sum()
    }

    /// Partitions that are paused.
    pub fn paused(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.is_paused()).count()
    }

    /// Time since the start of the sale.
    pub fn sale_time(&self) -> Duration {
        self.clock
            .now()
            .saturating_sub(self.started.unwrap_or_default())
    }

    /// The acknowledgement latencies since this was last asked.
    pub fn take_acks_of_second(&mut self) -> Histogram<u64> {
        std::mem::replace(&mut self.acks_of_second, latencies())
    }

    /// Waits for the database and ends the sale.
    ///
    /// # Errors
    /// If the database has failed.
    pub fn close(mut self) -> Result<(Outcome, crate::store::Store), Failure> {
        self.advance()?;
        let busy_ns = self
            .busy
            .map(|(from, to)| (self.clock.unix_ns(from), self.clock.unix_ns(to)));
        let outcome = Outcome {
            counts: self.counts,
            peak: self.peak,
            drained_at: self.written_last_at,
            busy_ns,
            acks: self.acks,
        };
        Ok((outcome, self.sink.close()?))
    }

    fn flow(&mut self, partition: i32) -> &mut Flow {
        &mut self.flows[usize::try_from(partition).expect("partitions count from 0")]
    }

    fn take_up(&mut self, lane: usize, now: Duration) {
        while let Some((seq, ready)) = self.lanes[lane].take() {
            self.governor.begin(ready, now, (lane, seq));
            self.counts.taken += 1;
            self.flows[lane].taken += 1;
        }
    }

    fn hand_out(&mut self) -> Result<(), Failure> {
        let mut rows = Vec::new();
        let mut finished = Vec::new();
        for (partition, lane) in self.lanes.iter_mut().enumerate() {
            lane.hand_out(&mut finished);
            rows.extend(finished.drain(..).map(|finished| Row {
                partition: i32::try_from(partition).expect("Kafka counts partitions in an int32"),
                offset: finished.received.offset,
                order: finished.received.order,
                started_ns: self.clock.unix_ns(finished.started),
                finished_ns: self.clock.unix_ns(finished.finished),
            }));
        }
        if rows.is_empty() {
            Ok(())
        } else {
            self.sink.submit(rows)
        }
    }

    fn note_backlog(&mut self) {
        let backlog = self.backlog();
        if self.started.is_some() && backlog > self.peak.backlog {
            self.peak = Peak {
                backlog,
                at: self.sale_time(),
            };
        }
    }
}

/// What a sale has come to, apart from what the database says.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The counts at the end.
    pub counts: Counts,
    /// The highest backlog.
    pub peak: Peak,
    /// When the last row became permanent, after the start of the sale.
    pub drained_at: Duration,
    /// From when to when every partition had a backlog, in nanoseconds since 1970.
    pub busy_ns: Option<(i64, i64)>,
    /// Latencies of the acknowledgements from the intended send time, in microseconds.
    pub acks: Histogram<u64>,
}
