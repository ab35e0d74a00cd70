//! One run from one seed: what kind of world it is, who takes part, when things break, and in the
//! end a quiet time in which everybody must come to an end.

use super::broker::{Broker, Phase};
use super::checker::{Checker, Crash};
use super::clients::admin::Admin;
use super::clients::auditor::Auditor;
use super::clients::consumer::Consumer;
use super::clients::member::Member;
use super::clients::producer::Producer;
use super::clients::{Client, Cluster, Scene};
use super::disk::DiskFaults;
use super::io::SharedWorld;
use super::plan::{MIXED, Plan, SOLID};
use super::rot;
use super::trace::Trace;
use super::world::{Faults, World};
use crate::api::controller::METADATA;
use crate::base::prng::Prng;
use crate::base::{Mono, PartitionKey};
use crate::log::FAILED_FILE;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// Virtual time in which everything must come to an end once nothing breaks any more.
const QUIET_MS_MAX: i64 = 60_000;

/// Longest that the disk is full.
const FULL_MS_MAX: u64 = 1_500;

/// Longest that connections may take to drain at a stop.
const DRAIN_PATIENCE_MS_MAX: u64 = 500;

/// Steps of a run; more is a loop without progress.
const STEPS_MAX: u64 = 3_000_000;

/// What a run shall do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Writes and syncs fail often.
    pub failing_disk: bool,
    /// Lines of the trace to keep.
    pub lines_max: usize,
}

/// What a run has shown.
#[derive(Debug)]
pub struct Report {
    /// The first thing that was wrong.
    pub failure: Option<String>,
    /// The same for the same options.
    pub trace: Trace,
    /// Starts of the broker.
    pub runs: u64,
    /// Requests sent.
    pub operations: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records read.
    pub read: u64,
    /// Generations that group members worked in.
    pub generations: u64,
    /// Positions committed.
    pub commits: u64,
}

/// Runs one seed to its end or to the first failure, which may be a panic of the broker.
pub fn run(options: Options) -> Report {
    let trace = Trace::new(options.lines_max);
    let world = World::new(options.seed, trace);
    let world = Rc::new(RefCell::new(world));
    let mut simulation = Simulation::new(world.clone(), options);
    let result = catch_unwind(AssertUnwindSafe(|| simulation.run()));
    let Simulation { mut checker, .. } = simulation;
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        checker.fail(format!("panic: {}", text.unwrap_or("of unknown kind")));
    }
    let World { trace, run, .. } = &mut *world.borrow_mut();
    Report {
        failure: checker.failure().map(str::to_owned),
        trace: std::mem::replace(trace, Trace::new(0)),
        runs: run.div_ceil(2),
        operations: checker.operations,
        acked: checker.acked,
        read: checker.read,
        generations: checker.groups.generations,
        commits: checker.groups.commits,
    }
}

struct Simulation {
    world: SharedWorld,
    plan: Plan,
    prng: Prng,
    checker: Checker,
    cluster: Cluster,
    broker: Option<Broker>,
    clients: Vec<Box<dyn Client>>,
    /// When a broker that is down starts again.
    start_at: Mono,
    /// When the next fault strikes.
    fault_at: Mono,
    /// How the broker ends when its disk stops.
    crash: Crash,
    /// When a fault that waits for the disk strikes at the latest.
    crash_by: Option<Mono>,
    /// When the disk has room again.
    room_at: Option<Mono>,
    quiet: bool,
    steps: u64,
}

impl Simulation {
    fn new(world: SharedWorld, options: Options) -> Self {
        let mut prng = Prng::new(options.seed ^ 0x5eed);
        let plan = Plan::new(&mut prng, options.failing_disk);
        let start_at = world.borrow().now;
        Self {
            world,
            plan,
            prng,
            checker: Checker::default(),
            cluster: Cluster::default(),
            broker: None,
            clients: Vec::new(),
            start_at,
            fault_at: Mono(u64::MAX),
            crash: Crash::Process,
            crash_by: None,
            room_at: None,
            quiet: false,
            steps: 0,
        }
    }

    fn run(&mut self) {
        self.set_up();
        let end = self.now().plus_ms(self.plan.duration_ms);
        self.fault_at = self.next_fault();
        self.let_disk_fail();
        while self.now() < end && self.step() {}
        if self.checker.failure().is_some() {
            return;
        }
        self.calm_down();
        self.audit();
        self.restart();
        self.audit();
        if self.plan.rot {
            self.rot();
            self.audit();
            let crash = self.random_crash();
            self.end_broker(crash);
            self.run_until("start", |s| s.phase() == Some(Phase::Serving));
            self.audit();
            self.checker.on_all_read();
        }
    }

    /// Creates the topics, in a world without faults, and lets everybody in.
    fn set_up(&mut self) {
        let plan = format!("{:?}", self.plan);
        self.note(format_args!("{plan}"));
        self.let_world_rest();
        self.world.borrow_mut().disk.faults = DiskFaults {
            write_failures: 0,
            sync_failures: 0,
            ..self.plan.disk
        };
        self.checker.flush_may_fail = self.plan.faults.disk_may_fail;
        self.checker.write_caching = self.plan.write_caching;
        let admin = Admin::new(self.plan.topics.clone(), self.prng.next_u64());
        self.clients.push(Box::new(admin));
        let topics = self.plan.topics.len();
        self.run_until("set-up", |s| s.cluster.topics.len() >= topics);
        for plan in std::mem::take(&mut self.plan.producers) {
            let producer = Producer::new(plan, self.prng.next_u64());
            self.clients.push(Box::new(producer));
        }
        for (number, topic) in (0..).zip(std::mem::take(&mut self.plan.consumers)) {
            let consumer = Consumer::new(number, topic, self.prng.next_u64());
            self.clients.push(Box::new(consumer));
        }
        for plan in std::mem::take(&mut self.plan.members) {
            let member = Member::new(plan, self.prng.next_u64());
            self.clients.push(Box::new(member));
        }
        self.world.borrow_mut().faults = self.plan.faults;
    }

    /// Nothing breaks, as far as it has not been broken already.
    fn let_world_rest(&mut self) {
        self.world.borrow_mut().faults = Faults {
            sync_ns_max: self.plan.faults.sync_ns_max,
            disk_may_fail: self.plan.faults.disk_may_fail,
            ..Faults::default()
        };
    }

    fn let_disk_fail(&mut self) {
        let disk = &mut self.world.borrow_mut().disk;
        disk.faults.write_failures = self.plan.disk.write_failures;
        disk.faults.sync_failures = self.plan.disk.sync_failures;
    }

    fn let_disk_work(&mut self) {
        let disk = &mut self.world.borrow_mut().disk;
        disk.faults.write_failures = 0;
        disk.faults.sync_failures = 0;
        disk.full = false;
        self.room_at = None;
    }

    /// Nothing breaks any more, nothing new is begun: everybody must come to an end.
    fn calm_down(&mut self) {
        self.note(format_args!("quiet"));
        self.quiet = true;
        self.fault_at = Mono(u64::MAX);
        self.let_world_rest();
        self.let_disk_work();
        self.crash_by = None;
        self.world.borrow_mut().disk.disarm();
        let DiskFaults {
            write_failures,
            sync_failures,
            ..
        } = self.plan.disk;
        if write_failures + sync_failures > 0 {
            // What the disk has broken stays broken until the broker starts anew; a full disk does
            // not need that.
            let crash = self.random_crash();
            self.end_broker(crash);
        }
        self.run_until("quiet time", |s| {
            let serving = s.phase() == Some(Phase::Serving);
            serving && s.clients.iter().all(|client| client.is_idle())
        });
    }

    /// Bits of stored records flip: one in each partition of the workload, perhaps.
    fn rot(&mut self) {
        if self.checker.failure().is_some() {
            return;
        }
        for topic in [SOLID, MIXED] {
            let partitions = self.cluster.topics.get(topic).map_or(0, |t| t.partitions);
            for partition in 0..partitions {
                let world = &mut *self.world.borrow_mut();
                let flip = rot::pick(&mut self.prng, &world.disk, &format!("{topic}-{partition}"));
                let key = self.cluster.key(topic, partition);
                if let (Some(flip), Some(key)) = (flip, key) {
                    world.note(format_args!("a bit of {topic}-{partition} flips: {flip:?}"));
                    world.disk.flip(flip.inode, flip.position, flip.bit);
                    self.checker.on_rot(key, flip.offsets);
                }
            }
        }
    }

    /// Reads everything.
    fn audit(&mut self) {
        if self.checker.failure().is_some() {
            return;
        }
        self.note(format_args!("audit"));
        let seed = self.prng.next_u64();
        let auditor = Auditor::new(&self.scene(&mut self.world.clone().borrow_mut()), seed);
        self.clients.push(Box::new(auditor));
        self.run_until("audit", |s| s.clients.iter().all(|client| client.is_idle()));
    }

    /// A clean stop and a start.
    fn restart(&mut self) {
        self.stop_broker();
        self.run_until("clean stop", |s| s.broker.is_none());
        self.run_until("start", |s| s.phase() == Some(Phase::Serving));
    }

    /// Goes on until something is true; it must become so in time.
    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let by = self.now().plus_ms(QUIET_MS_MAX);
        while !done(self) && self.step() {
            if self.now() > by {
                let late = self.clients.iter().filter(|client| !client.is_idle());
                let late: Vec<_> = late.map(|client| client.name().to_owned()).collect();
                let phase = self.phase();
                let what = format!("{what} has no end: {phase:?}, {late:?} are not done");
                self.checker.fail(what);
            }
        }
    }

    /// One thing happens. False once something is wrong.
    fn step(&mut self) -> bool {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            let awake = self.awake_clients().into_iter();
            let awake: Vec<_> = awake.map(|at| self.clients[at].name()).collect();
            let (now, next) = (self.now(), self.next_time());
            let what = format!("no progress at {now:?}, next {next:?}, {awake:?}");
            self.checker.fail(what);
        }
        if self.checker.failure().is_some() {
            return false;
        }
        self.tend_broker();
        let shards = self.broker.as_ref().map_or(Vec::new(), Broker::awake);
        let clients = self.awake_clients();
        let count = shards.len() + clients.len();
        if count == 0 {
            let next = self.next_time();
            self.world.borrow_mut().advance_to(next);
            return true;
        }
        let pick = self.prng.below(count as u64) as usize;
        match pick < shards.len() {
            true => self.turn_shard(shards[pick]),
            false => self.turn_client(clients[pick - shards.len()]),
        }
        let taken_ns = match self.prng.percent(1) {
            true => self.prng.below(2_000_000),
            false => 1 + self.prng.below(15_000),
        };
        let world = &mut *self.world.borrow_mut();
        world.sweep();
        world.advance_to(Mono(world.now.0 + taken_ns));
        true
    }

    fn turn_shard(&mut self, index: usize) {
        let Some(broker) = &mut self.broker else {
            return;
        };
        let before = broker.phase();
        self.world.borrow_mut().note(format_args!("shard {index}"));
        if let Err(error) = broker.turn(index)
            && !self.world.borrow().disk.stopped()
        {
            // Without its catalog's log the broker stops.
            match self.plan.faults.disk_may_fail {
                true => return self.end_broker(Crash::Process),
                false => self.checker.fail(format!("shard {index}: {error}")),
            }
        }
        if self.world.borrow().disk.stopped() {
            return;
        }
        let Some(shard) = broker.shards().nth(index) else {
            return;
        };
        for (key, partition) in &shard.state().partitions {
            let log = &partition.log;
            if log.poisoned().is_some() {
                continue;
            }
            let (start, high) = (log.log_start_offset(), log.high_watermark());
            self.checker.on_marks(*key, start, high);
        }
        match (before, broker.phase()) {
            (Phase::Starting, Phase::Serving) => self.on_serving(),
            (Phase::Serving, Phase::Serving) => self.check_page_cache(),
            _ => {}
        }
    }

    /// Whoever hears of a failed sync drops at once what the page cache believes to be stored, or
    /// leaves a mark: the process may end, and the next one would believe it too.
    fn check_page_cache(&mut self) {
        let world = self.world.borrow();
        if let Some(name) = world.disk.believed(FAILED_FILE)
            && !world.has_unheard_failure()
        {
            let what = format!("a failed sync in {name} has been heard of and not acted upon");
            self.checker.fail(what);
        }
    }

    fn turn_client(&mut self, index: usize) {
        let world = self.world.clone();
        let mut client = self.clients.swap_remove(index);
        client.turn(&mut self.scene(&mut world.borrow_mut()));
        self.clients.push(client);
        let last = self.clients.len() - 1;
        self.clients.swap(index, last);
    }

    fn scene<'a>(&'a mut self, world: &'a mut World) -> Scene<'a> {
        Scene {
            world,
            checker: &mut self.checker,
            cluster: &mut self.cluster,
            quiet: self.quiet,
        }
    }

    fn awake_clients(&self) -> Vec<usize> {
        let world = self.world.borrow();
        let awake =
            |client: &dyn Client| client.next_deadline() <= world.now || client.is_awake(&world);
        let clients = self.clients.iter().enumerate();
        clients
            .filter(|(_, client)| awake(client.as_ref()))
            .map(|(index, _)| index)
            .collect()
    }

    /// When something can happen next, if everybody sleeps.
    fn next_time(&self) -> Mono {
        let world = self.world.borrow();
        let broker = match &self.broker {
            Some(broker) => broker.next_deadline(),
            None => Some(self.start_at),
        };
        let strike = (self.phase() == Some(Phase::Serving)).then_some(self.fault_at);
        let clients = self.clients.iter().map(|client| client.next_deadline());
        let next = clients
            .chain(broker)
            .chain(world.next_event())
            .chain(self.crash_by)
            .chain(self.room_at)
            .chain(strike)
            .min();
        // Never so far that a hang could not be seen.
        let most = world.now.plus_ms(1_000);
        next.unwrap_or(most).min(most)
    }
}

/// Starts, ends and faults of the broker.
impl Simulation {
    fn tend_broker(&mut self) {
        let now = self.now();
        let stopped = self.world.borrow().disk.stopped();
        if self.room_at.is_some_and(|at| at <= now) {
            self.note(format_args!("the disk has room again"));
            self.world.borrow_mut().disk.full = false;
            self.room_at = None;
        }
        let crash_due = self.crash_by.is_some_and(|by| by <= now);
        if stopped || (crash_due && self.broker.is_some()) {
            return self.end_broker(self.crash);
        }
        if self.broker.is_none() {
            if self.start_at <= now {
                self.start_broker();
            }
            return;
        }
        self.check_stop();
        if self.fault_at <= now && self.phase() == Some(Phase::Serving) {
            self.fault_at = self.next_fault();
            self.strike();
        }
    }

    fn start_broker(&mut self) {
        let shards = 1 + self.prng.below(4) as u16;
        let seed = self.prng.next_u64();
        self.note(format_args!("the broker starts with {shards} shards"));
        if !self.quiet && self.prng.percent(25) && self.fault_at != Mono(u64::MAX) {
            // The next crash comes while it opens its logs.
            self.arm(120);
        }
        match Broker::start(&self.world, shards, seed, &self.plan.settings) {
            Ok(broker) => self.broker = Some(broker),
            Err(_) if self.world.borrow().disk.stopped() => self.end_broker(self.crash),
            Err(error) => self.checker.fail(format!("cannot start: {error}")),
        }
    }

    fn on_serving(&mut self) {
        self.note(format_args!("the broker serves"));
        // None of this while the topics are being created.
        if !self.quiet && self.fault_at != Mono(u64::MAX) {
            self.let_disk_fail();
        }
        let Some(broker) = &self.broker else {
            return;
        };
        let Some(image) = broker.shards().next().map(|s| s.state().image.clone()) else {
            return;
        };
        for topic in image.topics() {
            for partition in 0..topic.partitions {
                let topic = topic.id;
                let key = PartitionKey { topic, partition };
                let found = broker.shards().find_map(|s| s.state().partitions.get(&key));
                let ends = found.map(|p| (p.log.log_start_offset(), p.log.log_end_offset()));
                self.checker.on_ready(key, ends);
            }
        }
        debug_assert!(image.topic_by_id(METADATA.topic).is_none());
    }

    /// Something breaks.
    fn strike(&mut self) {
        let error_ms_max = self.plan.clock_error_ms_max;
        if error_ms_max > 0 && self.prng.percent(30) {
            let range = 2 * error_ms_max as u64 + 1;
            let error_ms = self.prng.below(range) as i64 - error_ms_max;
            return self.world.borrow_mut().set_clock(error_ms);
        }
        if self.plan.full_disk && self.prng.percent(40) {
            return self.fill_disk();
        }
        match self.prng.below(10) {
            0..6 => match self.prng.percent(60) {
                true => self.arm(60),
                false => {
                    let crash = self.random_crash();
                    self.end_broker(crash);
                }
            },
            6..8 => {
                self.stop_broker();
                if self.prng.percent(30) {
                    self.arm(60);
                }
            }
            _ => self.world.borrow_mut().reset_one(),
        }
    }

    /// The disk is full for a while.
    fn fill_disk(&mut self) {
        self.note(format_args!("the disk is full"));
        let full_ms = self.prng.below(FULL_MS_MAX) as i64;
        self.room_at = Some(self.now().plus_ms(full_ms));
        self.world.borrow_mut().disk.full = true;
    }

    fn stop_broker(&mut self) {
        self.note(format_args!("the broker is ordered to stop"));
        let patience_ms = self.prng.below(DRAIN_PATIENCE_MS_MAX) as i64;
        if let Some(broker) = &mut self.broker {
            broker.stop(patience_ms);
        }
    }

    /// The broker will end in the middle of something that it does to its disk.
    fn arm(&mut self, operations_max: u64) {
        self.crash = self.random_crash();
        let operations = self.prng.below(operations_max);
        self.crash_by = Some(self.now().plus_ms(300));
        self.world.borrow_mut().disk.stop_after(operations);
    }

    fn random_crash(&mut self) -> Crash {
        match self.prng.percent(50) {
            true => Crash::Process,
            false => Crash::Power,
        }
    }

    /// Ends a stop that was ordered.
    fn check_stop(&mut self) {
        let Some(broker) = &self.broker else {
            return;
        };
        if broker.is_late() {
            let phase = broker.phase();
            self.checker
                .fail(format!("the broker does not stop: {phase:?}"));
        }
        if broker.phase() != Phase::Closed {
            return;
        }
        match broker.finish() {
            Ok(true) => {
                self.note(format_args!("the broker has stopped cleanly"));
                self.checker.on_settled();
                let crash = self.random_crash();
                self.end_broker(crash);
            }
            Ok(false) if self.plan.faults.disk_may_fail => self.end_broker(Crash::Process),
            Ok(false) => self.checker.fail("the stop was not clean".to_owned()),
            Err(_) if self.world.borrow().disk.stopped() => self.end_broker(self.crash),
            Err(_) if self.plan.faults.disk_may_fail => self.end_broker(Crash::Process),
            Err(error) => self.checker.fail(format!("cannot stop: {error}")),
        }
    }

    /// The broker is gone, at once.
    fn end_broker(&mut self, crash: Crash) {
        // What a sync has failed to store is gone like what was never synced.
        let damaged = std::mem::take(&mut self.world.borrow_mut().disk.damaged);
        let lost = if damaged { Crash::Power } else { crash };
        // A process that ends before it hears of it can leave no mark: nobody will ever know.
        let crash = match self.world.borrow().has_unheard_failure() {
            true => Crash::Power,
            false => crash,
        };
        self.note(format_args!("the broker ends: {crash:?}"));
        self.broker = None;
        self.crash_by = None;
        self.let_disk_work();
        let down_ms = self.prng.below(200) as i64;
        let world = &mut *self.world.borrow_mut();
        self.start_at = world.now.plus_ms(down_ms);
        world.end_run(lost == Crash::Power);
        let World {
            disk, prng, now, ..
        } = world;
        if crash == Crash::Power {
            disk.lose_power(prng);
        }
        disk.restart();
        self.checker.on_crash(*now, lost);
    }

    fn next_fault(&mut self) -> Mono {
        let pause_ms = self.prng.below(2 * self.plan.fault_pause_ms);
        self.now().plus_ms(pause_ms as i64)
    }

    fn phase(&self) -> Option<Phase> {
        self.broker.as_ref().map(Broker::phase)
    }

    fn now(&self) -> Mono {
        self.world.borrow().now
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.world.borrow_mut().note(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Topics, with nobody who does anything to them, on a broker with these settings.
    fn at_rest(settings: &[(&str, &str)]) -> Simulation {
        let world = Rc::new(RefCell::new(World::new(1, Trace::new(0))));
        let mut simulation = Simulation::new(world, Options::default());
        let plan = &mut simulation.plan;
        let set = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        plan.settings.extend(settings.iter().map(set));
        plan.producers.clear();
        plan.consumers.clear();
        plan.members.clear();
        simulation.set_up();
        simulation.quiet = true;
        simulation
    }

    fn run_for(simulation: &mut Simulation, ms: i64) {
        let end = simulation.now().plus_ms(ms);
        while simulation.now() < end && simulation.step() {}
    }

    /// Retention once took the catalog's log for one like any other: after seven days without a
    /// change it was gone, and at the next start every partition was set aside as a stray.
    #[test]
    fn the_catalog_outlives_whatever_retention_there_is() {
        const DAY_MS: i64 = 86_400_000;
        let settings: [&[_]; 3] = [
            &[],
            &[("log.retention.ms", "1")],
            &[("log.retention.bytes", "0"), ("log.roll.ms", "1")],
        ];
        for settings in settings {
            let mut simulation = at_rest(settings);
            simulation.world.borrow_mut().set_clock(8 * DAY_MS);
            run_for(&mut simulation, 2_000);
            simulation.restart();
            let topics = simulation.cluster.topics.len();
            simulation.cluster.topics.clear();
            let admin = Admin::new(Vec::new(), 7);
            simulation.clients.push(Box::new(admin));
            simulation.run_until("a look", |s| !s.cluster.topics.is_empty());
            assert_eq!(simulation.checker.failure(), None, "{settings:?}");
            assert_eq!(simulation.cluster.topics.len(), topics);
        }
    }
}
