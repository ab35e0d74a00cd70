//! One connection that writes: frames go out when they are due and the depth permits, answers come
//! back in order and each is checked. One task; sending and receiving overlap.
//!
//! Invariant: a request is in flight from before it is written until its answer was found right.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::answer;
use super::frames::Frame;
use super::link::{Inbox, Link};
use super::meter::{Counts, Meter};
use super::pace::{Schedule, Timer};
use crate::failure::Failure;

/// Small requests that are due together leave together, up to this size.
const JOINED_BYTES_MAX: usize = 16 << 10;
/// Room for answers; each is below 100 bytes.
const ANSWER_BYTES: usize = 16 << 10;
/// Requests that are late at the end of an open loop are sent for so much longer.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);
/// How often a connection that has nothing to send looks whether the run is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// When a connection has sent enough.
pub enum Enough {
    /// At the end of the counted time.
    AtEnd,
    /// When all connections together have taken so many requests.
    Requests(Rc<Cell<u64>>),
}

/// Records that were sent and not seen by the consumer yet, in the order of their offsets.
pub struct OnTheWay {
    /// When each was meant to leave.
    pub due: RefCell<VecDeque<Instant>>,
    /// Told when there is room for more.
    pub arrived: Notify,
    /// Where the consumer notes their arrival, and the sender what was due and never left.
    pub delivered: Rc<Meter>,
}

impl OnTheWay {
    /// Nothing yet.
    pub fn new(delivered: Rc<Meter>) -> Self {
        Self {
            due: RefCell::default(),
            arrived: Notify::new(),
            delivered,
        }
    }
}

/// A connection with what it shall send.
pub struct Pipeline {
    /// Where to.
    pub link: Link,
    /// What, over and over.
    pub frames: Vec<Rc<Frame>>,
    /// The version of Produce in which the frames are written.
    pub version: i16,
    /// Requests in flight at most.
    pub depth: usize,
    /// False for acks=0, to which no answers come.
    pub answered: bool,
    /// When each request is due; `None` for as soon as the depth permits.
    pub schedule: Option<Schedule>,
    /// When to end.
    pub enough: Enough,
    /// Where results go.
    pub meter: Rc<Meter>,
    /// Counts towards the depth until a consumer has it, if somebody consumes.
    pub on_the_way: Option<Rc<OnTheWay>>,
    /// What is in flight; empty at the beginning.
    pub flight: Flight,
}

/// What is in flight on a connection.
#[derive(Default)]
pub struct Flight {
    requests: RefCell<VecDeque<(Rc<Frame>, Instant)>>,
    landed: Notify,
}

impl Pipeline {
    /// Sends and receives until enough is sent and everything is answered.
    ///
    /// # Errors
    /// If the connection breaks or an answer is wrong.
    pub async fn run(self) -> Result<(), Failure> {
        tokio::select! {
            biased;
            broken = self.receive() => match broken {
                Err(failure) => Err(failure),
                Ok(never) => match never {},
            },
            sent = self.send() => sent,
        }
    }

    async fn send(&self) -> Result<(), Failure> {
        let mut schedule = self.schedule.clone();
        let timer = match schedule {
            Some(_) => Some(Timer::new().map_err(|error| {
                Failure::Reason(format!("no timer is to be had ({error}): raise ulimit -n"))
            })?),
            None => None,
        };
        let mut frames = self.frames.iter().cycle();
        let mut joined = BytesMut::new();
        while let Some(due) = self.due(schedule.as_ref(), timer.as_ref()).await? {
            let frame = frames.next().expect("a connection has a partition");
            let mut bytes = self.depart(frame, due, &mut schedule);
            let now = Instant::now();
            while bytes.len() + joined.len() < JOINED_BYTES_MAX
                && let Some(due) = self.due_by(now, schedule.as_ref())
            {
                joined.extend_from_slice(&bytes);
                let frame = frames.next().expect("a connection has a partition");
                bytes = self.depart(frame, due, &mut schedule);
            }
            if !joined.is_empty() {
                joined.extend_from_slice(&bytes);
                bytes = joined.split().freeze();
            }
            self.link.write(bytes).await?;
            if !self.answered {
                let now = Instant::now();
                for (frame, due) in self.flight.requests.borrow_mut().drain(..) {
                    self.meter.done(due, now, counts(&frame));
                }
            }
        }
        self.note_unsent(schedule);
        while !self.flight.requests.borrow().is_empty() {
            self.flight.landed.notified().await;
        }
        Ok(())
    }

    /// Puts a request in flight and returns what to write.
    fn depart(&self, frame: &Rc<Frame>, due: Instant, schedule: &mut Option<Schedule>) -> Bytes {
        if let Some(schedule) = schedule {
            schedule.advance();
        }
        if let Enough::Requests(left) = &self.enough {
            left.set(left.get().saturating_sub(1));
        }
        if let Some(on_the_way) = &self.on_the_way {
            on_the_way.due.borrow_mut().push_back(due);
        }
        let mut requests = self.flight.requests.borrow_mut();
        requests.push_back((Rc::clone(frame), due));
        frame.bytes.clone()
    }

    /// Waits until the next request may leave; returns when it was meant to, `None` if that was
    /// enough.
    async fn due(
        &self,
        schedule: Option<&Schedule>,
        timer: Option<&Timer>,
    ) -> Result<Option<Instant>, Failure> {
        loop {
            let now = Instant::now();
            if self.is_enough(now, schedule) {
                return Ok(None);
            }
            if let Some(due) = self.due_by(now, schedule) {
                return Ok(Some(due));
            }
            match (schedule, timer) {
                (Some(schedule), Some(timer)) if self.has_room() => {
                    let moment = schedule.due().min(now + LOOK_EVERY);
                    timer.until(moment).await.map_err(|error| {
                        Failure::Reason(format!("the timer of an open loop failed: {error}"))
                    })?;
                }
                _ => self.room().await,
            }
        }
    }

    /// When the next request was meant to leave, if it may leave at `now`.
    fn due_by(&self, now: Instant, schedule: Option<&Schedule>) -> Option<Instant> {
        if !self.has_room() || self.is_enough(now, schedule) {
            return None;
        }
        match schedule {
            None => Some(now),
            Some(schedule) => Some(schedule.due()).filter(|due| *due <= now),
        }
    }

    fn is_enough(&self, now: Instant, schedule: Option<&Schedule>) -> bool {
        if let Enough::Requests(left) = &self.enough {
            return left.get() == 0;
        }
        let until = self.meter.until();
        match schedule {
            None => now >= until,
            Some(schedule) => schedule.due() >= until || now >= until + CATCH_UP_MAX,
        }
    }

    fn has_room(&self) -> bool {
        let on_the_way = self.on_the_way.as_ref();
        self.flight.requests.borrow().len() < self.depth
            && on_the_way.is_none_or(|records| records.due.borrow().len() < self.depth)
    }

    /// Waits until something landed, or for so long that it is time to look around.
    async fn room(&self) {
        match &self.on_the_way {
            None => self.flight.landed.notified().await,
            Some(on_the_way) => tokio::select! {
                () = self.flight.landed.notified() => {}
                () = on_the_way.arrived.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            },
        }
    }

    /// What was due before the end and could not leave counts with the time it has waited: a rate
    /// that the broker cannot keep must not look good.
    fn note_unsent(&self, schedule: Option<Schedule>) {
        let Some(mut schedule) = schedule else {
            return;
        };
        let now = Instant::now();
        while schedule.due() < self.meter.until() {
            self.meter.unsent(schedule.due(), now);
            if let Some(on_the_way) = &self.on_the_way {
                on_the_way.delivered.unsent(schedule.due(), now);
            }
            schedule.advance();
        }
    }

    async fn receive(&self) -> Result<Infallible, Failure> {
        let mut inbox = Inbox::default();
        loop {
            self.link.read(&mut inbox, ANSWER_BYTES).await?;
            let now = Instant::now();
            while let Some(bytes) = self.link.split(&mut inbox)? {
                self.land(bytes, now)?;
            }
            self.flight.landed.notify_one();
        }
    }

    /// Takes the answer to the oldest request in flight.
    fn land(&self, bytes: Bytes, now: Instant) -> Result<(), Failure> {
        let oldest = self.flight.requests.borrow_mut().pop_front();
        let Some((frame, due)) = oldest.filter(|_| self.answered) else {
            return Err(self.link.failure("answers although nothing was asked"));
        };
        let id = frame.correlation_id;
        answer::appended(&self.link, bytes, id, self.version, frame.partition)?;
        self.meter.done(due, now, counts(&frame));
        Ok(())
    }
}

fn counts(frame: &Frame) -> Counts {
    Counts {
        requests: 1,
        records: frame.records,
        bytes: frame.payload_bytes,
    }
}
