//! One sale from the forming of the group to the last row: puts producers, members and the ticking
//! engine together, makes the incidents happen, samples it all every second, and says when it is
//! over.

#[cfg(test)]
mod incident_tests;
#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, timeout};

use crate::clock::Clock;
use crate::consume::{Group, Over, Owners, consume};
use crate::dead_letter::Letter;
use crate::earlier::Earlier;
use crate::engine::{Counts, Engine, Outcome, Shape, Ticket};
use crate::failure::Failure;
use crate::incidents::Incidents;
use crate::lag;
use crate::orders::Orders;
use crate::ports::{Feed, Publisher};
use crate::produce::produce;
use crate::promise::Delivery;
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
    /// What an earlier run has left in the broker.
    pub earlier: Earlier,
    /// Where the database continues in each partition.
    pub next_offsets: BTreeMap<i32, i64>,
    /// When the group's offsets are committed.
    pub delivery: Delivery,
    /// The sale is given up when nothing has moved for this long.
    pub patience: Duration,
}

/// Something that is begun only when its time has come.
pub type Later<T> = Pin<Box<dyn Future<Output = Result<T, Failure>>>>;

/// What the incidents need from outside the sale.
pub struct Upsets<F> {
    /// Kills the broker and starts it again.
    pub crash: Option<Later<()>>,
    /// Makes another member.
    pub newcomer: Option<Later<F>>,
}

impl<F> Default for Upsets<F> {
    fn default() -> Self {
        let (crash, newcomer) = (None, None);
        Self { crash, newcomer }
    }
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
    /// Age of the oldest order that waits, in seconds.
    pub lag_s: f64,
    /// Seconds until the backlog is written, if orders come and are written as in this second;
    /// `None` is never.
    pub drain_s: Option<f64>,
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
    upsets: Upsets<F>,
    sink: S,
    stop: impl Future<Output = ()>,
    observe: &mut dyn FnMut(&Second),
) -> Result<Ended, Failure> {
    let engine = Engine::new(&plan.shape, plan.clock, &plan.next_offsets, sink);
    let engine = Rc::new(RefCell::new(engine));
    engine
        .borrow_mut()
        .inherit(&plan.earlier, &plan.next_offsets);
    let owners = Rc::new(Owners::new(plan.shape.partitions, feeds.len()));
    let room = Rc::new(Notify::new());
    let (over, is_over) = watch::channel(false);
    let is_over = Over(is_over);
    let group = Group {
        engine: Rc::clone(&engine),
        owners,
        room,
        delivery: plan.delivery,
        refuses: plan.shape.incidents.poison > 0.0,
    };
    let (begin, has_begun) = watch::channel(false);
    let publisher = Rc::new(publisher);
    let ticking = tick(group.clone(), Rc::clone(&publisher), is_over.clone());
    let incidents = plan.shape.incidents.clone();
    let mut members = spawn_members(feeds, upsets, incidents, &group, &has_begun, &is_over);
    members.spawn_local(ticking);

    let mut course = Course::default();
    let interrupted = {
        let run = course.run(plan, publisher, &group, begin, observe);
        tokio::pin!(run, stop);
        loop {
            tokio::select! {
                ended = &mut run => break ended.map(|()| false)?,
                ended = members.join_next() => match ended {
                    Some(Ok(Ok(()))) => {}
                    failed => return Err(failure_of(failed)),
                },
                () = &mut stop => break true,
            }
        }
    };
    // Members leave before the engine is taken apart; the silence has shown that nothing is lost.
    over.send_replace(true);
    while let Some(ended) = members.join_next().await {
        ended.unwrap_or_else(|error| Err(Failure::Reason(error.to_string())))?;
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

/// The members of the group and what happens to them and the broker. Until the sale is over, a task
/// ends with an error, or as a member that dies, or as an incident that has passed.
fn spawn_members<F: Feed, S: Sink + 'static>(
    feeds: Vec<F>,
    upsets: Upsets<F>,
    incidents: Incidents,
    group: &Group<S>,
    has_begun: &watch::Receiver<bool>,
    is_over: &Over,
) -> JoinSet<Result<(), Failure>> {
    let at = |time| reached(time, has_begun.clone());
    let mut members = JoinSet::new();
    let newcomer_number = feeds.len();
    for (member, feed) in feeds.into_iter().enumerate() {
        let dies = at(incidents.kill_consumer_at.filter(|_| member == 0));
        members.spawn_local(consume(member, feed, group.clone(), is_over.clone(), dies));
    }
    if let Some(crash) = upsets.crash {
        let time = at(incidents.kill_broker_at);
        members.spawn_local(crash_at(time, crash, group.clone(), is_over.clone()));
    }
    if let Some(newcomer) = upsets.newcomer {
        let (time, number) = (at(incidents.rebalance_at), newcomer_number);
        members.spawn_local(join_at(
            time,
            newcomer,
            number,
            group.clone(),
            is_over.clone(),
        ));
    }
    members.spawn_local(note(
        group.clone(),
        incidents,
        has_begun.clone(),
        is_over.clone(),
    ));
    members
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
        publisher: Rc<P>,
        group: &Group<S>,
        begin: watch::Sender<bool>,
        observe: &mut dyn FnMut(&Second),
    ) -> Result<(), Failure> {
        let formed = timeout(GROUP_WITHIN, group.owners.complete()).await;
        formed.map_err(|_| {
            let within = GROUP_WITHIN.as_secs();
            Failure::Reason(format!("the consumer group did not form within {within} s"))
        })?;
        let engine = &group.engine;
        engine.borrow_mut().start();
        begin.send_replace(true);
        let before = engine.borrow().counts().clone();
        let sent = plan.earlier.sent();
        let produce = produce(plan.orders, sent, publisher, Rc::clone(engine));
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
        Some(Err(error)) => Failure::Reason(format!("a group member failed: {error}")),
        Some(Ok(Ok(()))) | None => Failure::Reason("a group member ended early".to_owned()),
    }
}

/// Resolves at this time of the sale; never without one.
async fn reached(time: Option<Duration>, mut has_begun: watch::Receiver<bool>) {
    match time {
        Some(time) if has_begun.wait_for(|begun| *begun).await.is_ok() => sleep(time).await,
        _ => std::future::pending().await,
    }
}

/// Notes when the incidents that need nothing else begin and end.
async fn note<S: Sink>(
    group: Group<S>,
    incidents: Incidents,
    mut has_begun: watch::Receiver<bool>,
    mut over: Over,
) -> Result<(), Failure> {
    let spans = [
        (
            incidents.db_slow.map(|slow| slow.span),
            "the database is slow",
            "it is fast again",
        ),
        (
            incidents.db_down,
            "the database is down",
            "the database is up again",
        ),
        (
            incidents.burst.map(|burst| burst.span),
            "a burst of orders",
            "the burst ends",
        ),
    ];
    let mut news = Vec::new();
    for (span, begins, ends) in spans {
        news.extend(
            span.into_iter()
                .flat_map(|span| [(span.from, begins), (span.to, ends)]),
        );
    }
    news.sort_unstable();
    let tell = async {
        if has_begun.wait_for(|begun| *begun).await.is_err() {
            return;
        }
        let begun = Instant::now();
        for (at, what) in news {
            tokio::time::sleep_until(begun + at).await;
            group.engine.borrow_mut().note(what);
        }
    };
    tokio::select! {
        () = tell => {}
        () = over.wait() => {}
    }
    Ok(())
}

async fn crash_at<S: Sink>(
    time: impl Future<Output = ()>,
    crash: Later<()>,
    group: Group<S>,
    mut over: Over,
) -> Result<(), Failure> {
    if happens(&group, time, &mut over, "the broker is killed").await {
        crash.await?;
        group.engine.borrow_mut().broker_restarted();
    }
    Ok(())
}

async fn join_at<F: Feed, S: Sink>(
    time: impl Future<Output = ()>,
    newcomer: Later<F>,
    number: usize,
    group: Group<S>,
    mut over: Over,
) -> Result<(), Failure> {
    match happens(&group, time, &mut over, "a member joins").await {
        true => consume(number, newcomer.await?, group, over, std::future::pending()).await,
        false => Ok(()),
    }
}

/// Notes `what` when its time has come; false if the sale is over before.
async fn happens<S: Sink>(
    group: &Group<S>,
    time: impl Future<Output = ()>,
    over: &mut Over,
    what: &str,
) -> bool {
    tokio::select! {
        () = time => group.engine.borrow_mut().note(what),
        () = over.wait() => return false,
    }
    true
}

/// Advances the engine, tells members whose partitions have room again, and sees to it that orders
/// that were given up get into the dead letter topic.
async fn tick<P: Publisher, S: Sink + 'static>(
    group: Group<S>,
    publisher: Rc<P>,
    mut over: Over,
) -> Result<(), Failure> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut burials = JoinSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(ended) = burials.join_next() => {
                ended.unwrap_or_else(|error| Err(Failure::Reason(error.to_string())))?;
                continue;
            }
            () = over.wait() => return Ok(()),
        }
        let mut engine = group.engine.borrow_mut();
        engine.advance()?;
        for (ticket, letter) in engine.take_letters() {
            burials.spawn_local(bury(ticket, letter, Rc::clone(&publisher), group.clone()));
        }
        if engine.wants_resume() {
            group.room.notify_waiters();
        }
    }
}

async fn bury<P: Publisher, S: Sink>(
    ticket: Ticket,
    letter: Letter,
    publisher: Rc<P>,
    group: Group<S>,
) -> Result<(), Failure> {
    let sent = publisher.bury(&letter).await;
    sent.map_err(|reason| {
        Failure::Reason(format!(
            "an order did not get into the dead letter topic: {reason}"
        ))
    })?;
    group.engine.borrow_mut().buried(ticket)
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
            seconds.push(second);
            let lag_s = lag::age_s(seconds);
            let second = seconds.last_mut().expect("it was just noted");
            (second.lag_s, second.drain_s) = (lag_s, lag::drain_s(second));
            observe(second);
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
        lag_s: 0.0,
        drain_s: None,
        ack_p99_us: if acks.is_empty() {
            0
        } else {
            acks.value_at_quantile(0.99)
        },
    }
}
