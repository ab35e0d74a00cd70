//! Everything outside of the broker, from one seed: time, network, disk, and what they do to each
//! other. One thread; whoever acts borrows it. Time moves only when [`World::advance_to`] says so.
//!
//! Invariant: no real clock, no real randomness, and no map whose order could differ.

use super::disk::Disk;
use super::network::{Connection, End, SLOW_MS_MAX, Sending, take_chunk};
use super::trace::Trace;
use crate::base::dir::{File, FileKind};
use crate::base::prng::Prng;
use crate::base::{Mono, Now};
use crate::io::{
    Accepted, Bell, BellKind, Chunk, Completion, Extent, Op, Outcome, Socket, SocketKind, Token,
};
use bytes::{Bytes, BytesMut};
use nix::errno::Errno;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wall-clock time at the start of every run, in milliseconds since the Unix epoch.
const WALL_START_MS: i64 = 1_800_000_000_000;

/// Time at the start; zero is a deadline in the past.
const MONO_START: Mono = Mono(1_000_000_000);

/// What is bad about this world. Rates are set by the run and all zero in the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of 100,000 pieces of data that arrive, so many break their connection.
    pub resets: u64,
    /// Longest that an `fdatasync` takes.
    pub sync_ns_max: u64,
    /// Of 100 operations, so many end late, and so out of order.
    pub late: u64,
    /// Of 100 connections, so many are to slow peers.
    pub slow: u64,
    /// Of 100 attempts to accept a connection, so many fail.
    pub refusals: u64,
    /// Writes and syncs fail at times in this run; see also [`Disk::faults`].
    pub disk_may_fail: bool,
}

/// The machine under one shard.
#[derive(Debug)]
struct Port {
    bell: Bell,
    ready: Vec<Completion>,
    accept: Option<Token>,
}

/// Longest that an operation ends late.
const LATE_NS_MAX: u64 = 20_000_000;

#[derive(Debug)]
enum Event {
    /// Something arrives on a connection.
    Arrival(u64),
    /// A new connection reaches the listener.
    Dialled(u64),
    /// A sync of a file ends.
    Synced {
        run: u64,
        shard: usize,
        token: Token,
        target: SyncTarget,
    },
    /// The shard hears of the end of an operation.
    Late {
        run: u64,
        shard: usize,
        completion: Completion,
    },
}

/// What a sync makes durable, up to which mark.
#[derive(Clone, Copy, Debug)]
enum SyncTarget {
    Contents(u64, u64),
    Names(usize, [u64; 2]),
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// All randomness outside of the broker and the clients.
    pub prng: Prng,
    /// The time.
    pub now: Mono,
    /// What happened.
    pub trace: Trace,
    /// The broker's disk.
    pub disk: Disk,
    /// How bad it is.
    pub faults: Faults,
    /// Changes with every start and end of the broker, so that nothing of an earlier one reaches
    /// it; odd while one runs.
    pub run: u64,
    /// The broker has been ordered to stop.
    pub stopping: bool,
    /// By how much the wall clock is wrong.
    clock_error_ms: i64,
    listening: bool,
    backlog: VecDeque<u64>,
    ports: Vec<Port>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    events: BTreeMap<(Mono, u64), Event>,
    next_event: u64,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(seed: u64, trace: Trace) -> Self {
        Self {
            prng: Prng::new(seed),
            now: MONO_START,
            trace,
            disk: Disk::default(),
            faults: Faults::default(),
            run: 0,
            stopping: false,
            clock_error_ms: 0,
            listening: false,
            backlog: VecDeque::new(),
            ports: Vec::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            events: BTreeMap::new(),
            next_event: 0,
        }
    }

    /// Notes an event.
    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.note(self.now, what);
    }

    /// Both clocks.
    pub fn clocks(&self) -> Now {
        Now {
            mono: self.now,
            wall_ms: WALL_START_MS + self.clock_error_ms + (self.now.0 / 1_000_000) as i64,
        }
    }

    /// Sets the wall clock, so that it is wrong by so much.
    pub fn set_clock(&mut self, error_ms: i64) {
        self.clock_error_ms = error_ms;
        self.note(format_args!("the clock is wrong by {error_ms} ms"));
    }

    /// When the next event is due.
    pub fn next_event(&self) -> Option<Mono> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    /// Lets time pass, and everything happen that is due by then.
    pub fn advance_to(&mut self, now: Mono) {
        self.now = self.now.max(now);
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= self.now
        {
            let event = entry.remove();
            self.fire(event);
        }
    }

    fn at(&mut self, at: Mono, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    fn fire(&mut self, event: Event) {
        match event {
            Event::Arrival(id) => {
                let reset = self.faults.resets > self.prng.below(100_000);
                let Some(connection) = self.connections.get_mut(&id) else {
                    return;
                };
                connection.to_broker.arrive(self.now);
                connection.to_client.arrive(self.now);
                if !reset || connection.end.is_some() {
                    return self.pump_receive(id);
                }
                // It breaks at any byte, which may be the broker's last one.
                let here = connection.to_broker.available();
                let length = self.prng.below(here as u64 + 1) as usize;
                connection.to_broker.shorten(length);
                if self.prng.percent(50) {
                    self.pump_receive(id);
                }
                self.reset(id);
            }
            Event::Dialled(id) => match self.listening {
                true if self.connections.contains_key(&id) => {
                    self.backlog.push_back(id);
                    self.pump_accept();
                }
                _ => self.end(id, End::BrokerStopped, true),
            },
            Event::Synced {
                run,
                shard,
                token,
                target,
            } if run == self.run && !self.disk.stopped() => {
                let (disk, prng) = (&mut self.disk, &mut self.prng);
                let result = match target {
                    SyncTarget::Contents(inode, mark) => disk.finish_sync(prng, inode, mark),
                    SyncTarget::Names(dir, marks) => disk.finish_sync_dir(prng, dir, marks),
                };
                if !self.disk.stopped() {
                    self.complete(shard, token, Outcome::Synced(result));
                }
            }
            Event::Late {
                run,
                shard,
                completion,
            } if run == self.run && !self.disk.stopped() => {
                self.ports[shard].ready.push(completion);
            }
            Event::Synced { .. } | Event::Late { .. } => {}
        }
    }

    fn complete(&mut self, shard: usize, token: Token, outcome: Outcome) {
        let completion = Completion { token, outcome };
        if !self.prng.percent(self.faults.late) {
            return self.ports[shard].ready.push(completion);
        }
        let at = Mono(self.now.0 + self.prng.below(LATE_NS_MAX));
        let run = self.run;
        self.at(
            at,
            Event::Late {
                run,
                shard,
                completion,
            },
        );
    }
}

/// The broker's side.
impl World {
    /// A broker starts; gives the bells of its shards. It listens from now on.
    pub fn begin_run(&mut self, shards: u16) -> Vec<Bell> {
        self.run += 1;
        self.stopping = false;
        self.listening = true;
        let port = |_| Port {
            bell: Bell(Arc::new(BellKind::Simulated(AtomicBool::new(false)))),
            ready: Vec::new(),
            accept: None,
        };
        self.ports = (0..shards).map(port).collect();
        self.ports.iter().map(|port| port.bell.clone()).collect()
    }

    /// The broker is gone. A dead machine takes along what was on its way to the clients; after a
    /// mere process the kernel still delivers, mostly.
    pub fn end_run(&mut self, machine: bool) {
        self.run += 1;
        self.listening = false;
        self.backlog.clear();
        self.ports.clear();
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            let lost = machine || self.prng.percent(50);
            let connection = self.connection(id);
            (connection.receive, connection.send) = (None, None);
            self.end(id, End::BrokerStopped, lost);
        }
    }

    /// True if a sync has failed and its shard does not know yet.
    pub fn has_unheard_failure(&self) -> bool {
        let failed = |c: &Completion| matches!(c.outcome, Outcome::Synced(Err(_)));
        let late = |event: &Event| {
            matches!(event, Event::Late { run, completion, .. }
                if *run == self.run && failed(completion))
        };
        let mut ready = self.ports.iter().flat_map(|port| &port.ready);
        ready.any(failed) || self.events.values().any(late)
    }

    /// True if the shard's wait would end.
    pub fn is_awake(&self, shard: usize) -> bool {
        let port = &self.ports[shard];
        let rung = match &*port.bell.0 {
            BellKind::Simulated(flag) => flag.load(Ordering::Acquire),
            BellKind::EventFd(_) => false,
        };
        rung || !port.ready.is_empty()
    }

    /// The bell of a shard.
    pub fn bell(&self, shard: usize) -> Bell {
        self.ports[shard].bell.clone()
    }

    /// What has ended, in any order, and not always all of it.
    pub fn wait(&mut self, shard: usize, completions: &mut Vec<Completion>) {
        let port = &mut self.ports[shard];
        if let BellKind::Simulated(flag) = &*port.bell.0 {
            flag.store(false, Ordering::Release);
        }
        let some = match self.prng.percent(20) {
            true => 1 + self.prng.below(port.ready.len() as u64 + 1) as usize,
            false => port.ready.len(),
        };
        for _ in 0..some.min(port.ready.len()) {
            let at = self.prng.below(port.ready.len() as u64) as usize;
            completions.push(port.ready.swap_remove(at));
        }
    }

    /// Starts an operation of a shard.
    pub fn submit(&mut self, shard: usize, token: Token, op: Op) {
        if self.disk.stopped() {
            return;
        }
        match op {
            Op::Accept => {
                self.ports[shard].accept = Some(token);
                self.pump_accept();
            }
            Op::Receive { socket, buffer } => {
                assert!(buffer.capacity() > buffer.len(), "receive needs room");
                let id = connection_of(&socket);
                let connection = self.connection(id);
                assert!(connection.receive.is_none(), "one receive at a time");
                connection.shard = shard;
                connection.receive = Some((token, buffer));
                self.pump_receive(id);
            }
            // Every path brings the same bytes, and time passes here as the seed has it.
            Op::Send { socket, chunks, .. } => {
                let id = connection_of(&socket);
                let connection = self.connection(id);
                assert!(connection.send.is_none(), "one send at a time");
                connection.shard = shard;
                let chunks = chunks.into_iter().collect();
                connection.send = Some(Sending { token, chunks });
                self.pump_send(id);
            }
            Op::Sync { file } => {
                let target = match file.kind() {
                    FileKind::SimulatedDir(dir) => {
                        SyncTarget::Names(*dir, self.disk.sync_dir_marks(*dir))
                    }
                    _ => {
                        let inode = inode_of(&file);
                        SyncTarget::Contents(inode, self.disk.sync_mark(inode))
                    }
                };
                let taken_ns = self.prng.below(self.faults.sync_ns_max.max(1));
                let at = Mono(self.now.0 + 20_000 + taken_ns);
                let run = self.run;
                self.at(
                    at,
                    Event::Synced {
                        run,
                        shard,
                        token,
                        target,
                    },
                );
            }
        }
    }

    /// The broker ends a connection.
    pub fn shutdown(&mut self, socket: &Socket) {
        if self.disk.stopped() {
            return;
        }
        let end = match self.stopping {
            true => End::BrokerStopped,
            false => End::Broker,
        };
        self.end(connection_of(socket), end, false);
    }

    /// Ends connections that the broker has dropped.
    pub fn sweep(&mut self) {
        if self.disk.stopped() {
            return;
        }
        let dropped = self.connections.iter().filter(|(_, c)| c.is_dropped());
        for id in dropped.map(|(id, _)| *id).collect::<Vec<_>>() {
            let end = match self.stopping {
                true => End::BrokerStopped,
                false => End::Broker,
            };
            self.end(id, end, false);
        }
        let backlog = &self.backlog;
        self.connections.retain(|id, connection| {
            let held = match &connection.socket {
                Some(socket) => socket.strong_count() > 0,
                None => backlog.contains(id),
            };
            held || !connection.hung_up
        });
    }

    /// Copies from a file, unless its pages happen not to be cached; fewer bytes than asked for is
    /// an error.
    pub fn read(&mut self, extent: &Extent, buffer: &mut BytesMut) -> io::Result<bool> {
        if self.prng.below(8) == 0 {
            return Ok(false);
        }
        let held = buffer.len();
        buffer.resize(held + extent.length as usize, 0);
        let inode = inode_of(&extent.file);
        let got = self.disk.read(inode, extent.position, &mut buffer[held..]);
        if got as u64 == extent.length {
            return Ok(true);
        }
        buffer.truncate(held);
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn connection(&mut self, id: u64) -> &mut Connection {
        let connection = self.connections.get_mut(&id);
        connection.expect("connections are kept until both ends are done")
    }

    fn pump_accept(&mut self) {
        if self.backlog.is_empty() || self.ports.is_empty() {
            return;
        }
        let Some(token) = self.ports[0].accept.take() else {
            return;
        };
        if self.prng.percent(self.faults.refusals) {
            let failed = Err(Errno::EMFILE.into());
            return self.complete(0, token, Outcome::Accepted(failed));
        }
        let Some(id) = self.backlog.pop_front() else {
            return;
        };
        let socket = Socket(Arc::new(SocketKind::Simulated(id)));
        self.connection(id).socket = Some(Arc::downgrade(&socket.0));
        let port = 10_000 + (id % 50_000) as u16;
        let accepted = Accepted {
            socket,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            local: SocketAddr::from((Ipv4Addr::LOCALHOST, 9092)),
        };
        self.complete(0, token, Outcome::Accepted(Ok(accepted)));
    }

    fn pump_receive(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let Some((token, mut buffer)) = connection.receive.take() else {
            return;
        };
        let shard = connection.shard;
        let here = connection.to_broker.available();
        let result = if connection.end == Some(End::Network) {
            Err(io::ErrorKind::ConnectionReset.into())
        } else if here > 0 {
            let room = buffer.capacity() - buffer.len();
            let most = here.min(room) as u64;
            let length = match self.prng.percent(30) {
                true => 1 + self.prng.below(most),
                false => most,
            };
            let bytes = connection.to_broker.take(length as usize);
            buffer.extend_from_slice(&bytes);
            Ok(bytes.len())
        } else if connection.to_broker.is_at_end()
            || matches!(connection.end, Some(End::Broker | End::BrokerStopped))
        {
            Ok(0)
        } else {
            connection.receive = Some((token, buffer));
            return;
        };
        self.complete(shard, token, Outcome::Received { result, buffer });
    }

    fn pump_send(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let Some(mut sending) = connection.send.take() else {
            return;
        };
        let (shard, token) = (connection.shard, sending.token);
        if connection.end.is_some() {
            let result = Err(io::ErrorKind::BrokenPipe.into());
            return self.complete(shard, token, Outcome::Sent(result));
        }
        let (disk, ended) = (&self.disk, Cell::new(false));
        let read = |extent: &Extent, length: u64| {
            let mut bytes = BytesMut::zeroed(length as usize);
            let got = disk.read(inode_of(&extent.file), extent.position, &mut bytes);
            // After a failed sync the file may end before the extent does.
            ended.set(got == 0);
            bytes.truncate(got);
            bytes.freeze()
        };
        let mut arrivals = Vec::new();
        loop {
            let used = connection.to_client.in_transit();
            let room = connection.window_bytes.saturating_sub(used);
            if room == 0 {
                break;
            }
            let length = room.min(1 + self.prng.below(64_000) as usize);
            let Some(bytes) = take_chunk(&mut sending.chunks, length, read) else {
                break;
            };
            if ended.get() {
                break;
            }
            let (prng, latency_ns) = (&mut self.prng, connection.latency_ns);
            arrivals.extend(connection.to_client.send(prng, self.now, latency_ns, bytes));
        }
        if ended.get() {
            let result = Err(io::ErrorKind::UnexpectedEof.into());
            self.complete(shard, token, Outcome::Sent(result));
        } else if sending.chunks.iter().all(Chunk::is_empty) {
            self.complete(shard, token, Outcome::Sent(Ok(())));
        } else {
            connection.send = Some(sending);
        }
        for at in arrivals {
            self.at(at, Event::Arrival(id));
        }
    }
}

/// The clients' side.
impl World {
    /// Dials the broker. Whether that works is seen later.
    pub fn dial(&mut self) -> u64 {
        let slow = self.prng.percent(self.faults.slow);
        let connection = Connection::new(&mut self.prng, slow);
        self.next_connection += 1;
        let id = self.next_connection;
        let at = Mono(self.now.0 + connection.latency_ns);
        self.connections.insert(id, connection);
        self.at(at, Event::Dialled(id));
        id
    }

    /// Sends bytes to the broker.
    pub fn send(&mut self, id: u64, bytes: Bytes) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.end.is_some() {
            return;
        }
        let latency_ns = connection.latency_ns;
        let arrivals = connection
            .to_broker
            .send(&mut self.prng, now, latency_ns, bytes);
        for at in arrivals {
            self.at(at, Event::Arrival(id));
        }
    }

    /// How long answers on this connection may take on top of others' time.
    pub fn slack_ms(&self, id: u64) -> i64 {
        match self.connections.get(&id) {
            Some(connection) if connection.is_slow() => SLOW_MS_MAX,
            _ => 0,
        }
    }

    /// True if [`World::receive`] would give something or fail.
    pub fn is_readable(&self, id: u64) -> bool {
        self.connections
            .get(&id)
            .is_none_or(Connection::is_readable)
    }

    /// Takes what has come from the broker.
    ///
    /// # Errors
    /// Everything was taken and the connection has ended.
    pub fn receive(&mut self, id: u64) -> Result<Bytes, End> {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Err(End::Network);
        };
        if connection.to_client.is_at_end() {
            return Err(connection.end.unwrap_or(End::Broker));
        }
        let bytes = connection.to_client.take(usize::MAX);
        self.pump_send(id);
        Ok(bytes)
    }

    /// Closes a connection for good.
    pub fn hang_up(&mut self, id: u64) {
        self.end(id, End::Client, false);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.hung_up = true;
        }
    }

    /// Breaks a random connection.
    pub fn reset_one(&mut self) {
        let open: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, c)| c.end.is_none())
            .map(|(id, _)| *id)
            .collect();
        if !open.is_empty() {
            let id = open[self.prng.below(open.len() as u64) as usize];
            self.reset(id);
        }
    }

    fn reset(&mut self, id: u64) {
        self.note(format_args!("connection {id} is reset"));
        self.end(id, End::Network, true);
    }

    /// Ends both directions; with `lost` what is on its way to the client does not arrive.
    fn end(&mut self, id: u64, end: End, lost: bool) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.end.is_some() {
            if lost {
                connection.to_client.cut();
            }
            return;
        }
        connection.end = Some(end);
        connection.to_broker.close();
        connection.to_client.close();
        if lost {
            connection.to_client.cut();
        }
        self.pump_receive(id);
        self.pump_send(id);
    }
}

fn connection_of(socket: &Socket) -> u64 {
    match &*socket.0 {
        SocketKind::Simulated(id) => *id,
        SocketKind::Os(_) => unreachable!("a real socket in the simulation"),
    }
}

/// The inode behind a file of the simulated disk.
pub fn inode_of(file: &File) -> u64 {
    match file.kind() {
        FileKind::Simulated(inode) => *inode,
        _ => unreachable!("no simulated file"),
    }
}
