//! Everything that can happen to a shard, and what it does about each.

use super::connection::Connection;
use super::mail::{Mail, Order};
use super::{Life, Shard};
use crate::api::{self, Begun, Facts};
use crate::base::marks::{self, Mark};
use crate::base::placement::CONTROLLER;
use crate::base::{ConnectionId, Few, ShardId};
use crate::io::{Accepted, Completion, Io, Op, Outcome, Token};
use crate::wire::Malformed;
use bytes::{Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tracing::{debug, warn};

/// The closed set of events.
#[derive(Debug)]
pub enum Event {
    /// An operation ended.
    Io(Completion),
    /// Another shard wrote.
    Mail(ShardId, Mail),
    /// The server ordered something.
    Order(Order),
    /// Time has passed: see what is due.
    Deadline,
}

/// What an operation was for; travels through the io layer as its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The next connection.
    Accept,
    /// Bytes of a request.
    Receive(ConnectionId),
    /// A reply.
    Send(ConnectionId),
    /// A file of this round of syncs.
    Sync(u64),
}

/// The upper bits of a token tell the purpose, the others whose.
const PURPOSE_SHIFT: u32 = 60;

impl Purpose {
    /// As a token.
    pub fn token(self) -> Token {
        let (purpose, number) = match self {
            Purpose::Accept => (0, 0),
            Purpose::Receive(connection) => (1, connection.0),
            Purpose::Send(connection) => (2, connection.0),
            Purpose::Sync(round) => (3, round),
        };
        debug_assert!(
            number < 1 << PURPOSE_SHIFT,
            "numbers of one run stay below 2^60"
        );
        purpose << PURPOSE_SHIFT | number
    }

    fn of(token: Token) -> Self {
        let number = token & ((1 << PURPOSE_SHIFT) - 1);
        match token >> PURPOSE_SHIFT {
            0 => Purpose::Accept,
            1 => Purpose::Receive(ConnectionId(number)),
            2 => Purpose::Send(ConnectionId(number)),
            3 => Purpose::Sync(number),
            _ => unreachable!("tokens are made by `token` alone"),
        }
    }
}

/// How often idle connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl<I: Io> Shard<I> {
    /// Does what an event asks for, up to the point where it must wait.
    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Io(completion) => self.on_completion(completion),
            Event::Mail(from, mail) => self.on_mail(from, mail),
            Event::Order(Order::Drain { by }) => self.on_drain(by),
            Event::Order(Order::Close) => self.close_logs(),
            Event::Deadline => self.on_deadline(),
        }
        self.drain_outbox();
    }

    fn on_completion(&mut self, completion: Completion) {
        match (Purpose::of(completion.token), completion.outcome) {
            (Purpose::Accept, Outcome::Accepted(accepted)) => self.on_accepted(accepted),
            (Purpose::Receive(id), Outcome::Received { result, buffer }) => {
                self.on_received(id, result, buffer);
            }
            (Purpose::Send(id), Outcome::Sent(result)) => self.on_sent(id, result),
            (Purpose::Sync(round), Outcome::Synced(result)) => self.on_synced(round, result),
            (purpose, outcome) => unreachable!("{purpose:?} ended with {outcome:?}"),
        }
    }

    fn on_mail(&mut self, from: ShardId, mail: Mail) {
        match mail {
            Mail::Ask { to, job } => api::perform(&mut self.state, to, job),
            Mail::Answer { to, answer } => self.deliver(to, answer),
            Mail::Wake { call } => self.on_wake(call),
            Mail::Image(publication) => self.apply_image(publication),
            Mail::Applied { version } => self.on_applied(from, version),
            Mail::Offline(key) => drop(self.state.offline.insert(key)),
            Mail::Adopt(accepted) => self.adopt(accepted),
            Mail::Accept => self.accept(),
        }
    }

    fn on_accepted(&mut self, accepted: io::Result<Accepted>) {
        let connections_max = self.state.broker.connections_max as usize;
        match accepted {
            Ok(accepted) if self.mailbox.connections() >= connections_max => {
                warn!(peer = %accepted.peer, "refused a connection: max.connections is reached");
            }
            Ok(accepted) if self.life <= Life::Ready => {
                let shard = match self.state.is_steered() {
                    true => self.state.shard,
                    false => self.mailbox.least_loaded(),
                };
                self.mailbox.connection_placed(shard);
                match shard == self.state.shard {
                    true => self.adopt(accepted),
                    false => self.mailbox.send(shard, Mail::Adopt(accepted)),
                }
            }
            Ok(_) => {}
            Err(error) => {
                marks::hit(Mark::AcceptFailed);
                warn!(%error, "cannot accept a connection");
            }
        }
        if self.life <= Life::Ready {
            self.accept();
        }
    }

    fn adopt(&mut self, accepted: Accepted) {
        let id = ConnectionId(self.next_id());
        let Accepted {
            socket,
            peer,
            local,
        } = accepted;
        debug!(%peer, "connected");
        let frame_bytes_max = self.state.broker.request_bytes_max as usize;
        let now = self.state.now.mono;
        let mut connection = Connection::new(socket, peer, local, now, frame_bytes_max);
        if self.life > Life::Ready {
            connection.drain();
        }
        self.connections.insert(id, connection);
        self.settings.stats.connections_opened.add(1);
        self.count_connections();
        self.touched.insert(id);
    }

    fn on_received(&mut self, id: ConnectionId, result: io::Result<usize>, buffer: BytesMut) {
        let now = self.state.now.mono;
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.on_received(buffer, now);
        match result {
            Ok(0) => self.close(id, "the client closed it"),
            Ok(count) => {
                self.settings.stats.bytes_received.add(count as u64);
                self.touched.insert(id);
                self.start_frames(id);
            }
            Err(error) => self.close(id, &error.to_string()),
        }
    }

    fn on_sent(&mut self, id: ConnectionId, result: io::Result<()>) {
        let now = self.state.now.mono;
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match result {
            Ok(()) => {
                connection.on_sent(now);
                self.touched.insert(id);
            }
            Err(error) => self.close(id, &error.to_string()),
        }
    }

    /// Starts every request that has come in full and whose turn it is.
    pub(super) fn start_frames(&mut self, id: ConnectionId) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else {
                return;
            };
            match connection.next_frame() {
                Ok(Some(frame)) => match self.start_frame(id, frame) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(malformed) => return self.close_hostile(id, malformed),
                },
                Ok(None) => return,
                Err(malformed) => return self.close_hostile(id, malformed),
            }
        }
    }

    /// Starts one request; false if it has to wait.
    fn start_frame(&mut self, id: ConnectionId, frame: Bytes) -> Result<bool, Malformed> {
        let overlaps = api::may_overlap(&frame);
        let Some(connection) = self.connections.get_mut(&id) else {
            return Ok(false);
        };
        if !connection.may_start(overlaps) {
            marks::hit(Mark::RequestPostponed);
            connection.postpone(frame);
            return Ok(false);
        }
        let (header, body) = api::decode_header(frame)?;
        self.settings.stats.on_request(header.api_key);
        let (peer, local) = (connection.peer, connection.local);
        self.next_id += 1;
        let facts = Facts {
            key: header.api_key,
            version: header.api_version,
            correlation_id: header.correlation_id,
            client_id: header.client_id.unwrap_or_default(),
            peer,
            local,
            shard: self.state.shard,
            call: self.next_id,
        };
        connection.on_started(facts.call, overlaps);
        self.calls.begin(id, facts.clone());
        let begun = api::begin(&mut self.state, &facts, body)?;
        self.go_on(facts, begun);
        Ok(true)
    }

    /// Takes a request as far as it has come.
    pub(super) fn go_on(&mut self, facts: Facts, begun: Begun) {
        match begun {
            Begun::Reply(reply) => {
                let chunks = self.chunks(reply);
                match chunks {
                    Ok(chunks) => self.finish(facts.call, Some(chunks)),
                    Err(error) => {
                        warn!(%error, "cannot read records for a reply");
                        self.close_call(facts.call, "its records cannot be read");
                    }
                }
            }
            Begun::Silent => self.finish(facts.call, None),
            Begun::Close(reason) => self.close_call(facts.call, reason),
            Begun::Gather(jobs, flow) => {
                self.calls.gather(facts.call, flow, jobs.len());
                for (slot, (owner, job)) in jobs.into_iter().enumerate() {
                    let to = api::job::Return {
                        shard: self.state.shard,
                        call: facts.call,
                        slot: slot as u32,
                    };
                    self.ask(owner, to, job);
                }
            }
            Begun::Park(until, flow) => self.calls.park(facts.call, flow, until),
        }
    }

    pub(super) fn on_wake(&mut self, call: u64) {
        if let Some((flow, facts)) = self.calls.wake(call) {
            marks::hit(Mark::LongPollWoken);
            let begun = flow.resume(&mut self.state, &facts);
            self.go_on(facts, begun);
        }
    }

    pub(super) fn on_applied(&mut self, shard: ShardId, version: u64) {
        debug_assert_eq!(self.state.shard, CONTROLLER, "only the controller is told");
        self.applied[usize::from(shard.0)] = version;
        let everywhere = self.applied.iter().copied().min().unwrap_or_default();
        if everywhere > 0 && !self.accepting {
            self.accepting = true;
            self.accept();
            if self.state.is_steered() {
                for shard in (0..self.state.shards).map(ShardId) {
                    if shard != self.state.shard {
                        self.mailbox.send(shard, Mail::Accept);
                    }
                }
            }
        }
        for (to, answer) in self.waiting.take_published(everywhere) {
            self.deliver(to, answer);
        }
    }

    fn on_deadline(&mut self) {
        let now = self.state.now;
        while let Some((flow, facts)) = self.calls.take_due(now.mono) {
            let begun = flow.resume(&mut self.state, &facts);
            self.go_on(facts, begun);
        }
        crate::api::groups::on_deadline(&mut self.state);
        self.remove_doomed();
        if self.sweep_at <= now.mono {
            self.sweep_at = now.mono + SWEEP_INTERVAL;
            self.close_idle();
        }
        if self.retain_at <= now.mono {
            self.retain_at = now.mono + super::retention_check_interval(&self.state);
            self.retain();
        }
        if self.life == Life::Draining && self.drain_by <= now.mono {
            let late: Vec<_> = self.connections.keys().copied().collect();
            for id in late {
                marks::hit(Mark::DrainTimedOut);
                self.close(id, "the broker stops");
            }
        }
    }

    fn close_idle(&mut self) {
        let Some(idle_ms_max) = self.state.broker.connection_idle_ms_max else {
            return;
        };
        let (now, idle_max) = (
            self.state.now.mono,
            Duration::from_millis(idle_ms_max as u64),
        );
        let idle = |connection: &Connection| {
            connection.is_quiet() && now.since(connection.active_at) > idle_max
        };
        let idle: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, c)| idle(c))
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.close(id, "it was idle for too long");
        }
    }

    fn on_drain(&mut self, by: crate::base::Mono) {
        debug!(
            shard = self.state.shard.0,
            connections = self.connections.len(),
            "draining"
        );
        self.life = Life::Draining;
        self.drain_by = by;
        let mut idle = Vec::new();
        for (id, connection) in &mut self.connections {
            connection.drain();
            // What may be written already deserves its answer; a long poll or a join does not.
            if !connection.is_appending() {
                idle.push(*id);
            }
        }
        for id in idle {
            self.close(id, "the broker stops");
        }
    }

    fn close_hostile(&mut self, id: ConnectionId, malformed: Malformed) {
        if let Some(connection) = self.connections.get(&id) {
            let peer = connection.peer;
            warn!(%peer, reason = malformed.0, "closed a connection: bad request");
        }
        self.close(id, malformed.0);
    }

    /// Closes the connection of a call.
    pub(super) fn close_call(&mut self, call: u64, reason: &str) {
        if let Some(id) = self.calls.connection(call) {
            self.close(id, reason);
        }
    }

    /// Closes a connection at once and forgets what it waits for.
    pub(super) fn close(&mut self, id: ConnectionId, reason: &str) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        debug!(peer = %connection.peer, reason, "disconnected");
        for call in connection.calls() {
            self.calls.end(call);
        }
        self.touched.remove(&id);
        self.io.shutdown(&connection.socket);
        self.mailbox.connection_closed();
        self.count_connections();
    }

    fn count_connections(&self) {
        let connections = self.connections.len() as u64;
        self.settings.stats.connections.set(connections);
    }

    /// A request ended: its reply takes its place in the connection's order.
    fn finish(&mut self, call: u64, reply: Option<Few<crate::io::Chunk>>) {
        let Some(id) = self.calls.end(call) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.on_finished(call, reply);
        self.touched.insert(id);
    }

    /// Starts the next send and receive of a connection that something happened to.
    pub(super) fn advance(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let chunks = connection.start_send();
        let socket = connection.socket.clone();
        if !chunks.is_empty() {
            self.io.submit(
                Purpose::Send(id).token(),
                Op::Send {
                    socket: socket.clone(),
                    chunks,
                    path: self.state.broker.fetch_path,
                },
            );
        }
        if let Some(buffer) = connection.start_receive() {
            self.io
                .submit(Purpose::Receive(id).token(), Op::Receive { socket, buffer });
        }
        if connection.is_drained() {
            self.close(id, "the broker stops");
        }
    }
}
