//! A broker on the simulated machine, without faults: whole shards as in production, started,
//! driven and stopped step by step, with clients that send whatever they are told to.

use bytes::{Bytes, BytesMut};
use forebay::base::Mono;
use forebay::sim::broker::{Broker, Phase};
use forebay::sim::io::SharedWorld;
use forebay::sim::network::End;
use forebay::sim::trace::Trace;
use forebay::sim::world::World;
use forebay::wire::frame::{decode_response_header, encode_request, split_frame};
use forebay::wire::{Message, Reader, Request};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

/// Simulated time within which a healthy client has its answer.
const ANSWER_MS: i64 = 2_000;

/// Simulated time within which a broker has started or stopped.
const LIFE_MS: i64 = 10_000;

/// Simulated time that connections get to drain at a stop.
const DRAIN_MS: i64 = 500;

/// Turns and events within one wait; more is a loop without progress.
const STEPS_MAX: u64 = 200_000;

/// Largest response that a client takes.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// A machine with its disk and network, and the broker that runs on it.
pub struct Machine {
    /// What is outside of the broker.
    pub world: SharedWorld,
    broker: Option<Broker>,
}

/// A world in which nothing has happened and nothing breaks.
pub fn world(seed: u64) -> SharedWorld {
    let world = World::new(seed, Trace::new(0));
    Rc::new(RefCell::new(world))
}

impl Machine {
    /// A machine without a broker.
    pub fn new(world: SharedWorld) -> Self {
        Self {
            world,
            broker: None,
        }
    }

    /// Starts a broker and waits until it serves.
    ///
    /// # Errors
    /// It refuses to start.
    pub fn start(&mut self, shards: u16) -> io::Result<()> {
        let settings = [
            ("group.initial.rebalance.delay.ms", "0"),
            ("offsets.topic.num.partitions", "1"),
            ("socket.request.max.bytes", "100000"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let broker = Broker::start(&self.world, shards, 7, &BTreeMap::from(settings))?;
        self.broker = Some(broker);
        self.wait_for("the start", LIFE_MS, |machine| {
            machine.phase() == Some(Phase::Serving)
        });
        Ok(())
    }

    /// Stops the broker; true if the stop was clean.
    pub fn stop(&mut self) -> bool {
        self.running().stop(DRAIN_MS);
        self.wait_for("the stop", LIFE_MS, |machine| {
            machine.phase() == Some(Phase::Closed)
        });
        let clean = self.running().finish().expect("the disk is healthy");
        self.kill();
        clean
    }

    /// Ends the process of the broker; what it wrote is in the files.
    pub fn kill(&mut self) {
        self.broker = None;
        self.world.borrow_mut().end_run(false);
    }

    /// Lets the broker work until something is so.
    ///
    /// Panics if that does not happen in `ms` of simulated time, or never.
    pub fn wait_for(&mut self, what: &str, ms: i64, mut done: impl FnMut(&mut Self) -> bool) {
        let by = self.now().plus_ms(ms);
        for _ in 0..STEPS_MAX {
            if done(self) {
                return;
            }
            assert!(self.now() <= by, "{what} takes more than {ms} ms");
            self.step(by);
        }
        panic!("{what}: {STEPS_MAX} steps without progress");
    }

    /// Lets the broker work for some simulated time.
    pub fn run_for(&mut self, ms: i64, mut each: impl FnMut(&mut Self)) {
        let by = self.now().plus_ms(ms);
        self.wait_for("some time", ms, |machine| {
            each(machine);
            machine.now() >= by
        });
    }

    /// Asks a question that a healthy broker answers in time.
    pub fn ask<R: Request>(
        &mut self,
        client: &mut Client,
        version: i16,
        request: &R,
    ) -> R::Response {
        let frame = encode_request(1, version, Some("healthy".into()), request);
        client.send(self, frame.bytes.freeze());
        let mut answer = None;
        self.wait_for(R::NAME, ANSWER_MS, |machine| {
            answer = client.next_frame(machine);
            answer.is_some()
        });
        let mut reader = Reader::new(answer.unwrap_or_default());
        decode_response_header(&mut reader, R::KEY, version).expect("a response has a header");
        R::Response::decode(&mut reader, version).expect("a response decodes")
    }

    fn step(&mut self, by: Mono) {
        let awake = self.running().awake();
        for index in &awake {
            let turn = self.running().turn(*index);
            turn.expect("no turn fails on a healthy machine");
        }
        let deadline = self.running().next_deadline();
        let world = &mut *self.world.borrow_mut();
        world.sweep();
        let next = match awake.is_empty() {
            true => deadline.into_iter().chain(world.next_event()).min(),
            false => None,
        };
        let soon = Mono(world.now.0 + 1_000);
        world.advance_to(next.map_or(soon, |next| next.clamp(soon, Mono(by.0 + 1).max(soon))));
    }

    fn phase(&self) -> Option<Phase> {
        self.broker.as_ref().map(Broker::phase)
    }

    fn running(&mut self) -> &mut Broker {
        self.broker.as_mut().expect("a broker runs")
    }

    fn now(&self) -> Mono {
        self.world.borrow().now
    }
}

/// One connection.
pub struct Client {
    connection: u64,
    inbox: BytesMut,
    /// Why no more will come.
    pub end: Option<End>,
}

impl Client {
    /// Dials the broker.
    pub fn dial(machine: &Machine) -> Self {
        Self {
            connection: machine.world.borrow_mut().dial(),
            inbox: BytesMut::new(),
            end: None,
        }
    }

    /// Sends bytes, which arrive in pieces.
    pub fn send(&self, machine: &Machine, bytes: Bytes) {
        machine.world.borrow_mut().send(self.connection, bytes);
    }

    /// The next whole frame that has come, without its size.
    ///
    /// Panics if what comes is no frame.
    pub fn next_frame(&mut self, machine: &Machine) -> Option<Bytes> {
        let world = &mut *machine.world.borrow_mut();
        if self.end.is_none() && world.is_readable(self.connection) {
            match world.receive(self.connection) {
                Ok(bytes) => self.inbox.extend_from_slice(&bytes),
                Err(end) => self.end = Some(end),
            }
        }
        split_frame(&mut self.inbox, FRAME_BYTES_MAX).expect("the broker sends frames")
    }

    /// Closes the connection.
    pub fn hang_up(&self, machine: &Machine) {
        machine.world.borrow_mut().hang_up(self.connection);
    }
}
