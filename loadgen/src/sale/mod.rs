//! One sale from the forming of the group to the last row: puts producers, members and the ticking
//! engine together, samples them every second, and says when it is over.

#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};

use crate::clock::Clock;
use crate::consume::{Group, Over, Owners, consume};
use crate::engine::{Counts, Engine, Outcome, Shape};
use crate::failure::Failure;
use crate::orders::Orders;
use crate::ports::{Feed, Publisher};
use crate::produce::produce;
use crate::sink::Sink;
use crate::store::Store;

/// How often the engine looks for writes that have ended.
const TICK: Duration = Duration::from_millis(2);
/// The group has this long to form.
const GROUP_WITHIN: Duration = Duration::from_secs(60);
/// After the last row, this much silence shows that nothing more (a doubled order) comes.
const SILENCE: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// The clock of the sale; zero may be any moment before the sale.
    pub clock: Clock,
    /// All orders of the sale.
    pub orders: Orders,
    /// Partitions, workers, buffer and database.
    pub shape: Shape,
    /// Orders of each partition that an earlier run has brought into the log.
    pub logged: BTreeMap<i32, u64>,
    /// Where the database continues in each partition.
    pub next_offsets: BTreeMap<i32, i64>,
    /// The sale is given up when nothing has moved for this long.
    pub patience: Duration,
}

/// One line of the sale's course.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Second {
    /// Seconds since the start.
    pub at_s: u64,
    /// Orders sent in this second.
    pub produced: u64,
    /// Orders acknowledged.
    pub acked: u64,
    /// Rows made permanent.
    pub written: u64,
    /// Orders acknowledged and not taken up by the database, at the end of the second.
    pub backlog: u64,
    /// Orders the group holds.
    pub buffer: usize,
    /// Partitions paused.
    pub paused: usize,
    /// 99 % of this second's acknowledgements took at most this long from the intended time.
    pub ack_p99_us: u64,
}

/// How a sale ended.
#[derive(Debug)]
pub struct Ended {
    /// What was counted.
    pub outcome: Outcome,
    /// The database with its rows.
    pub store: Store,
    /// The course, second by second.
    pub seconds: Vec<Second>,
    /// Why the producer gave an order up, the first time.
    pub given_up: Option<String>,
    /// The user stopped it before the end.
    pub interrupted: bool,
}

/// Runs the sale until everything acknowledged is a row, nothing moves any more, or `stop`
/// resolves. Must run inside a local task set. `observe` gets each second as it passes.
///
/// # Errors
/// If the group does not form, or broker or database fail for good.
pub async fn run<P: Publisher, F: Feed, S: Sink + 'static>(
    plan: Plan,
    publisher: P,
    feeds: Vec<F>,
    sink: S,
    stop: impl Future<Output = ()>,
    observe: &mut dyn FnMut(&Second),
) -> Result<Ended, Failure> {
    let engine = Engine::new(&plan.shape, plan.clock, &plan.next_offsets, sink);
    let engine = Rc::new(RefCell::new(engine));
    engine
        .borrow_mut()
        .inherit(&plan.logged, &plan.next_offsets);
    let owners = Rc::new(Owners::new(plan.shape.partitions, feeds.len()));
    let room = Rc::new(Notify::new());
    let (over, is_over) = watch::channel(false);
    let is_over = Over(is_over);
    let group = Group {
        engine: Rc::clone(&engine),
        owners,
        room,
    };

    // Each ends with an error only, until the sale is over.
    let mut members = JoinSet::new();
    for (member, feed) in feeds.into_iter().enumerate() {
        members.spawn_local(consume(member, feed, group.clone(), is_over.clone()));
    }
    members.spawn_local(tick(group.clone(), is_over));

    let mut course = Course::default();
    let run = course.run(plan, publisher, &group, observe);
    let interrupted = tokio::select! {
        ended = run => ended.map(|()| false)?,
        failed = members.join_next() => return Err(failure_of(failed)),
        () = stop => true,
    };
    // Members leave before the engine is taken apart; the silence has shown that nothing is lost.
    over.send_replace(true);
    while let Some(ended) = members.join_next().await {
        ended.unwrap_or_else(|error| Err(Failure::Broker(error.to_string())))?;
    }
    drop(group);
    // An interrupted sale leaves tasks that are dropped when they would run next.
    while Rc::strong_count(&engine) > 1 {
        tokio::task::yield_now().await;
    }
    let engine = Rc::into_inner(engine).expect("all who shared the engine have ended");
    let (outcome, store) = engine.into_inner().close()?;
    Ok(Ended {
        outcome,
        store,
        seconds: course.seconds,
        given_up: course.given_up,
        interrupted,
    })
}

/// What is noted while the sale runs; outlives it if it is stopped.
#[derive(Default)]
struct Course {
    seconds: Vec<Second>,
    given_up: Option<String>,
}

impl Course {
    /// From the forming of the group to the last row.
    async fn run<P: Publisher, S: Sink + 'static>(
        &mut self,
        plan: Plan,
        publisher: P,
        group: &Group<S>,
        observe: &mut dyn FnMut(&Second),
    ) -> Result<(), Failure> {
        let formed = timeout(GROUP_WITHIN, group.owners.complete()).await;
        formed.map_err(|_| {
            let within = GROUP_WITHIN.as_secs();
            Failure::Broker(format!("the consumer group did not form within {within} s"))
        })?;
        let engine = &group.engine;
        engine.borrow_mut().start();
        let before = engine.borrow().counts().clone();
        let produce = produce(plan.orders, plan.logged, publisher, Rc::clone(engine));
        let watch = watch_over(engine, before, plan.patience, &mut self.seconds, observe);
        tokio::pin!(watch);
        tokio::select! {
            reason = produce => {
                self.given_up = reason;
                engine.borrow_mut().sending_ended();
                watch.await;
            }
            () = &mut watch => {}
        }
        Ok(())
    }
}

fn failure_of(ended: Option<Result<Result<(), Failure>, tokio::task::JoinError>>) -> Failure {
    match ended {
        Some(Ok(Err(failure))) => failure,
        Some(Err(error)) => Failure::Broker(format!("a group member failed: {error}")),
        Some(Ok(Ok(()))) | None => Failure::Broker("a group member ended early".to_owned()),
    }
}

/// Advances the engine and tells members whose partitions have room again.
async fn tick<S: Sink>(group: Group<S>, mut over: Over) -> Result<(), Failure> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = over.wait() => return Ok(()),
        }
        let mut engine = group.engine.borrow_mut();
        engine.advance()?;
        if engine.wants_resume() {
            group.room.notify_waiters();
        }
    }
}

/// Samples every second; returns when the sale has drained or nothing has moved for `patience`.
async fn watch_over<S: Sink>(
    engine: &RefCell<Engine<S>>,
    mut before: Counts,
    patience: Duration,
    seconds: &mut Vec<Second>,
    observe: &mut dyn FnMut(&Second),
) {
    const LOOKS_PER_S: u32 = 10;
    let look = Duration::from_secs(1) / LOOKS_PER_S;
    let mut looks = interval_at(Instant::now() + look, look);
    let mut at_last_look = before.clone();
    let mut moved_at = Instant::now();
    for number in 1_u64.. {
        looks.tick().await;
        let mut engine = engine.borrow_mut();
        if *engine.counts() != at_last_look {
            at_last_look = engine.counts().clone();
            moved_at = Instant::now();
        }
        if number % u64::from(LOOKS_PER_S) == 0 {
            let at_s = number / u64::from(LOOKS_PER_S);
            let second = sample(&mut engine, at_s, &before);
            before = engine.counts().clone();
            observe(&second);
            seconds.push(second);
        }
        let silent = moved_at.elapsed();
        if (engine.is_drained() && silent >= SILENCE) || silent >= patience {
            return;
        }
    }
}

fn sample<S: Sink>(engine: &mut Engine<S>, at_s: u64, before: &Counts) -> Second {
    let acks = engine.take_acks_of_second();
    let counts = engine.counts();
    Second {
        at_s,
        produced: counts.sent - before.sent,
        acked: counts.acked - before.acked,
        written: counts.written - before.written,
        backlog: engine.backlog(),
        buffer: engine.buffer(),
        paused: engine.paused(),
        ack_p99_us: if acks.is_empty() {
            0
        } else {
            acks.value_at_quantile(0.99)
        },
    }
}
