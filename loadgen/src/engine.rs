//! The sale in progress: the lanes of all partitions, the modelled database they share, the way of
//! its rows into the real one, and the counts from which the verdict is drawn.
//!
//! One owner, no task of its own: producers tell it what was sent and acknowledged, group members
//! bring it orders and ask which partitions to pause, and a ticking task calls
//! [`Engine::advance`]. All times are those of the sale's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock::Clock;
use crate::dead_letter::Letter;
use crate::earlier::Earlier;
use crate::failure::Failure;
use crate::governor::{Governor, Write};
use crate::incidents::{Factor, Incidents};
use crate::lane::{Finished, Lane, Limits, Received, Seq};
use crate::retry::{ATTEMPTS_MAX, backoff};
use crate::seen::Seen;
use crate::sink::Sink;
use crate::store::Row;

/// The largest latency told apart from others: ten minutes, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What is noted of an assignment that changes.
const REBALANCE: &str = "rebalance";

/// An empty histogram of microseconds with three significant digits.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are in order")
}

/// An attempt to write an order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ticket {
    lane: usize,
    seq: Seq,
    /// Counted from 1.
    attempt: u32,
}

/// How many orders have come how far. Every figure only grows, but that orders which come again
/// are not taken up any more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Handed to the producer.
    pub sent: u64,
    /// How many of them were handed over in the burst.
    pub sent_in_burst: u64,
    /// How many of them the handler refuses, or had refused when the sale was resumed.
    pub poison: u64,
    /// Acknowledged by the broker.
    pub acked: u64,
    /// Given up by the producer.
    pub failed: u64,
    /// Delivered to the group.
    pub received: u64,
    /// Taken up by the database: the write has its slot.
    pub taken: u64,
    /// Permanent in the real database: rows, and offsets without one.
    pub written: u64,
    /// Turned away as known already, by the database or the window of seen ids.
    pub turned_away: u64,
    /// Delivered a second time.
    pub redelivered: u64,
    /// Forgotten by a member that died after it had committed their offsets.
    pub forgotten: u64,
    /// Writes that failed and were tried again.
    pub retries: u64,
    /// In the dead letter topic.
    pub buried: u64,
    /// Sent back from there into the topic of the sale.
    pub replayed: u64,
    /// Times a partition was paused.
    pub pauses: u64,
    /// Assignments that changed after the start of the sale.
    pub rebalances: u64,
    /// Times the broker was killed and came back.
    pub broker_restarts: u64,
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

/// Something that happened in a sale.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Seconds after the start.
    pub at_s: f64,
    /// What.
    pub what: String,
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
    /// The modelled database's slots per second; `None` if the real one is the limit.
    pub db_writes_per_s: Option<u32>,
    /// The length of a write.
    pub db_latency: Duration,
    /// Ids of orders that are remembered to notice those that come again.
    pub seen_max: Option<usize>,
    /// What goes wrong.
    pub incidents: Incidents,
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
    is_modelled: bool,
    incidents: Incidents,
    /// Writes to be tried again, by the time for it; the number tells those of one time apart.
    retries: BTreeMap<(Duration, u64), Ticket>,
    /// Orders that were given up and are not in the dead letter topic yet.
    letters: Vec<(Ticket, Letter)>,
    seen: Option<Seen>,
    events: Vec<Event>,
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
            is_modelled: shape.db_writes_per_s.is_some(),
            incidents: shape.incidents.clone(),
            retries: BTreeMap::new(),
            letters: Vec::new(),
            seen: shape.seen_max.map(Seen::new),
            events: Vec::new(),
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

    /// What an earlier run of the same sale had achieved in the broker, and how many orders of each
    /// partition it had `written`.
    pub fn inherit(&mut self, earlier: &Earlier, written: &BTreeMap<i32, i64>) {
        for (partition, count) in &earlier.records {
            self.flow(*partition).acked += count;
        }
        let sent: u64 = earlier.sent().values().sum();
        self.counts.sent += sent;
        self.counts.acked += sent;
        self.counts.replayed += earlier.replayed.values().sum::<u64>();
        self.counts.poison += earlier.buried;
        for (partition, next_offset) in written {
            let count = u64::try_from(*next_offset).unwrap_or(0);
            self.flow(*partition).taken += count;
            self.counts.received += count;
            self.counts.taken += count;
            self.counts.written += count;
        }
    }

    /// An order was handed to the producer.
    pub fn sent(&mut self, is_poison: bool) {
        self.counts.sent += 1;
        self.counts.poison += u64::from(is_poison && self.incidents.poison > 0.0);
        let in_burst = |burst: Factor| burst.span.contains(self.sale_time());
        self.counts.sent_in_burst += u64::from(self.incidents.burst.is_some_and(in_burst));
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
            let now_s = self.sale_time().as_secs_f64();
            let noted = self.events.last();
            // A rebalance is news to several members.
            if noted.is_none_or(|event| event.what != REBALANCE || now_s - event.at_s > 1.0) {
                self.note(REBALANCE);
            }
        }
    }

    /// The broker was killed and listens again.
    pub fn broker_restarted(&mut self) {
        self.counts.broker_restarts += 1;
        self.note("the broker is back");
    }

    /// Something happens now.
    pub fn note(&mut self, what: &str) {
        self.events.push(Event {
            at_s: self.sale_time().as_secs_f64(),
            what: what.to_owned(),
        });
    }

    /// Every order was sent, and acknowledged or given up.
    pub fn sending_ended(&mut self) {
        self.sending = false;
    }

    /// Whether nothing is left to do, as far as the counts can tell.
    pub fn is_drained(&self) -> bool {
        let is_reached = |(lane, flow): (&Lane, &Flow)| {
            u64::try_from(lane.reached()).is_ok_and(|reached| reached >= flow.acked)
        };
        let mut lanes = self.lanes.iter().zip(&self.flows);
        !self.sending && self.buffer() == 0 && lanes.all(is_reached)
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
        let again = self.lanes[lane].accept(now, orders);
        self.counts.redelivered += again;
        self.return_to_backlog(lane, again);
        self.counts.buffer_max = self.counts.buffer_max.max(self.buffer());
        self.take_up(lane, now);
        Ok(())
    }

    /// The partition's state: its pauses and where it continues.
    pub fn lane(&mut self, partition: i32) -> &mut Lane {
        &mut self.lanes[usize::try_from(partition).expect("partitions count from 0")]
    }

    /// The partition was taken from its owner; the next one reads again what is not handed out.
    pub fn revoke(&mut self, partition: i32) {
        let taken = self.lane(partition).revoke();
        self.return_to_backlog(usize::try_from(partition).expect("it has a lane"), taken);
    }

    /// The partition's owner died after it had committed all it received.
    pub fn lose(&mut self, partition: i32) {
        self.counts.forgotten += self.lane(partition).lose();
        self.lane(partition).revoke();
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
        let pace = self
            .incidents
            .db_slow
            .filter(|slow| slow.span.contains(self.sale_time()));
        let pace = pace.map_or(1.0, |slow| slow.factor);
        self.governor.set_pace(pace, now);
        while let Some(again) = self
            .retries
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            let ((due, _), ticket) = again.remove_entry();
            self.governor.begin(due, now, ticket);
        }
        let mut touched = false;
        while let Some(write) = self.governor.finish(now) {
            touched |= self.ended(&write, now);
        }
        if touched {
            self.hand_out()?;
        }
        for commit in self.sink.committed()? {
            for (partition, rows) in commit.rows {
                self.lane(partition).committed(rows);
                self.counts.written += rows as u64;
            }
            self.counts.turned_away += commit.turned_away;
            self.written_last_at = self.sale_time();
        }
        let has_backlog = |flow: &Flow| flow.acked >= flow.taken + self.workers as u64;
        if self.started.is_some() && self.flows.iter().all(has_backlog) {
            let since = self.busy.map_or(now, |(since, _)| since);
            self.busy = Some((since, now));
        }
        Ok(())
    }

    /// The orders that were given up since this was last asked.
    pub fn take_letters(&mut self) -> Vec<(Ticket, Letter)> {
        std::mem::take(&mut self.letters)
    }

    /// The order is in the dead letter topic.
    ///
    /// # Errors
    /// If the database has failed.
    pub fn buried(&mut self, ticket: Ticket) -> Result<(), Failure> {
        let now = self.clock.now();
        self.counts.buried += 1;
        self.lanes[ticket.lane].finish(ticket.seq, now, now);
        self.take_up(ticket.lane, now);
        self.hand_out()
    }

    /// Orders acknowledged and not yet taken up by the database: a modelled one takes an order up
    /// with its slot, a real one has it when it is permanent.
    pub fn backlog(&self) -> u64 {
        let taken = match self.is_modelled {
            true => self.counts.taken,
            false => self.counts.written,
        };
        self.counts.acked.saturating_sub(taken)
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
            started_ns: self.clock.unix_ns(self.started.unwrap_or_default()),
            events: self.events,
            acks: self.acks,
        };
        Ok((outcome, self.sink.close()?))
    }

    fn flow(&mut self, partition: i32) -> &mut Flow {
        &mut self.flows[usize::try_from(partition).expect("partitions count from 0")]
    }

    fn take_up(&mut self, lane: usize, now: Duration) {
        while let Some((seq, ready)) = self.lanes[lane].take() {
            let attempt = 1;
            self.governor
                .begin(ready, now, Ticket { lane, seq, attempt });
            self.counts.taken += 1;
            self.flows[lane].taken += 1;
        }
    }

    /// Orders that had been taken up are to be taken up again.
    fn return_to_backlog(&mut self, lane: usize, orders: u64) {
        self.counts.taken = self.counts.taken.saturating_sub(orders);
        self.flows[lane].taken = self.flows[lane].taken.saturating_sub(orders);
    }

    /// An attempt has ended: in a finished order, whose worker is free then, or in another attempt,
    /// or in vain. A worker keeps its order until that is decided.
    fn ended(&mut self, write: &Write<Ticket>, now: Duration) -> bool {
        let Ticket { lane, seq, attempt } = write.item;
        let at = write
            .finished
            .saturating_sub(self.started.unwrap_or_default());
        let is_down = self.incidents.db_down.is_some_and(|down| down.contains(at));
        let letter = self.lanes[lane].letter(seq);
        if self.lanes[lane].holds(seq) && (is_down || letter.is_some()) {
            match letter {
                Some(letter) if !is_down && attempt >= ATTEMPTS_MAX => {
                    let attempts = attempt;
                    let letter = Letter {
                        attempts,
                        ..letter.clone()
                    };
                    self.letters.push((write.item, letter));
                }
                _ => {
                    self.counts.retries += 1;
                    let number = self.counts.retries;
                    let ticket = Ticket {
                        attempt: attempt + 1,
                        ..write.item
                    };
                    self.retries
                        .insert((write.finished + backoff(attempt), number), ticket);
                }
            }
            return false;
        }
        self.lanes[lane].finish(seq, write.started, write.finished);
        self.take_up(lane, now);
        true
    }

    fn hand_out(&mut self) -> Result<(), Failure> {
        let mut rows = Vec::new();
        let mut finished = Vec::new();
        for (partition, lane) in self.lanes.iter_mut().enumerate() {
            lane.hand_out(&mut finished);
            let partition = i32::try_from(partition).expect("Kafka counts partitions in an int32");
            for finished in finished.drain(..) {
                let (started_ns, finished_ns) = (
                    self.clock.unix_ns(finished.started),
                    self.clock.unix_ns(finished.finished),
                );
                let Finished { received, .. } = finished;
                let mut order = Some(received.order).filter(|_| received.letter.is_none());
                if let (Some(seen), Some(known)) = (&mut self.seen, &order)
                    && !seen.is_new(known.order_id)
                {
                    self.counts.turned_away += 1;
                    order = None;
                }
                rows.push(Row {
                    partition,
                    offset: received.offset,
                    order,
                    started_ns,
                    finished_ns,
                });
            }
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
    /// The start of the sale, in nanoseconds since 1970.
    pub started_ns: i64,
    /// What happened.
    pub events: Vec<Event>,
    /// Latencies of the acknowledgements from the intended send time, in microseconds.
    pub acks: Histogram<u64>,
}
