//! Everything that can happen to a shard, and what it does about each.

use super::appending::Batches;
use super::budget::Budget;
use super::connection::{Connection, Patience};
use super::mail::{Mail, Order};
use super::{Life, Shard};
use crate::api::job::{Job, Jobs};
use crate::api::{self, Begun, Facts, Flow};
use crate::base::marks::{self, Mark};
use crate::base::placement::CONTROLLER;
use crate::base::{ConnectionId, Few, ShardId};
use crate::io::{Accepted, Completion, Io, Op, Outcome, Token};
use crate::wire::Malformed;
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::IpAddr;
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

/// How often connections are looked for whose peer takes too long.
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
            Mail::Offline(key, why) => drop(self.state.offline.insert(key, why)),
            Mail::Adopt(accepted) => self.adopt(accepted),
            Mail::Closed(address) => self.forget_accepted(address),
            Mail::Accept => self.accept(),
        }
    }

    fn on_accepted(&mut self, accepted: io::Result<Accepted>) {
        match accepted {
            Ok(accepted) if self.life <= Life::Ready => match self.accept_refusal(&accepted) {
                Some(reason) => warn!(peer = %accepted.peer, reason, "refused a connection"),
                None => self.place(accepted),
            },
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

    /// Why a new connection cannot be served, if so.
    fn accept_refusal(&self, accepted: &Accepted) -> Option<&'static str> {
        let broker = &self.state.broker;
        let connections = self.mailbox.connections();
        let from_there = self.accepted_from.get(&accepted.peer.ip().to_canonical());
        if connections >= broker.connections_max as usize {
            Some("max.connections is reached")
        } else if connections >= self.settings.connections_max {
            Some("there are as many as --memory has room for")
        } else if connections >= self.settings.connections_max_by_files {
            Some("all open files but those kept for logs are in use (ulimit -n)")
        } else if from_there.is_some_and(|count| *count >= broker.connections_per_ip_max) {
            Some("max.connections.per.ip is reached")
        } else {
            None
        }
    }

    /// Gives a new connection to the shard that shall serve it.
    fn place(&mut self, accepted: Accepted) {
        let shard = match self.state.is_steered() {
            true => self.state.shard,
            false => self.mailbox.least_loaded(),
        };
        let address = accepted.peer.ip().to_canonical();
        *self.accepted_from.entry(address).or_default() += 1;
        self.mailbox.connection_placed(shard);
        match shard == self.state.shard {
            true => self.adopt(accepted),
            false => self.mailbox.send(shard, Mail::Adopt(accepted)),
        }
    }

    /// A connection that was accepted here is closed.
    fn forget_accepted(&mut self, address: IpAddr) {
        if let Some(count) = self.accepted_from.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.accepted_from.remove(&address);
            }
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
        let frame_bytes_max = frame_bytes_max.min(self.budget.frame_bytes_max());
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
        // Replies cannot be known before they are made: while too much is held, only what gives
        // memory back goes on, one request of each connection.
        let gives_back = overlaps && connection.is_quiet();
        if self.budget.is_spent() && !gives_back && !connection.account.is_granted() {
            connection.postpone(frame);
            self.budget.wait(id, &mut connection.account, 0);
            return Ok(false);
        }
        let frame_bytes = frame.len();
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
        connection.on_started(facts.call, overlaps, frame_bytes);
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
            Begun::Gather(jobs, flow) => self.gather(facts.call, jobs, flow),
            Begun::Park(until, flow) => self.calls.park(facts.call, flow, until),
        }
    }

    /// Asks the owners, unless a partition has to have less under way before.
    fn gather(&mut self, call: u64, jobs: Jobs, flow: Flow) {
        let id = self.calls.connection(call);
        let connection = id.and_then(|id| self.connections.get_mut(&id));
        if jobs.len() > 1
            && let Some(connection) = connection
        {
            connection.on_gathering(call, jobs.len());
        }
        let batches = batches(&jobs);
        match self.appending.admits(call, &batches) {
            true => self.ask_all(call, batches, jobs, flow),
            false => {
                self.settings.stats.appends_held.add(1);
                if let Some(connection) = id.and_then(|id| self.connections.get_mut(&id)) {
                    connection.hold(true);
                }
                self.calls.hold(call, jobs, flow);
            }
        }
    }

    fn ask_all(&mut self, call: u64, batches: Batches, jobs: Jobs, flow: Flow) {
        self.calls.set_appending(call, batches);
        self.calls.gather(call, flow, jobs.len());
        for (slot, (owner, job)) in jobs.into_iter().enumerate() {
            let to = api::job::Return {
                shard: self.state.shard,
                call,
                slot: slot as u32,
            };
            self.ask(owner, to, job);
        }
    }

    /// Lets requests go on whose partitions have less under way now.
    pub(super) fn ask_held(&mut self) {
        while let Some(call) = self.appending.take_ready() {
            let Some((jobs, flow)) = self.calls.take_held(call) else {
                continue;
            };
            let batches = batches(&jobs);
            if !self.appending.admits_ready(call, &batches) {
                self.calls.hold(call, jobs, flow);
                continue;
            }
            if let Some(id) = self.calls.connection(call)
                && let Some(connection) = self.connections.get_mut(&id)
            {
                connection.hold(false);
                self.touched.insert(id);
            }
            self.ask_all(call, batches, jobs, flow);
        }
        self.drain_outbox();
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
            self.close_overdue();
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

    fn close_overdue(&mut self) {
        let (now, broker) = (self.state.now.mono, &self.state.broker);
        let ms = |ms: i64| Duration::from_millis(ms.max(0).unsigned_abs());
        let patience = Patience {
            idle: broker.connection_idle_ms_max.map(ms),
            first_request: ms(broker.connection_first_request_ms_max),
            request: ms(broker.connection_request_ms_max),
            pressed: self.budget.is_awaited(),
        };
        let connections = self.connections.iter();
        let overdue: Vec<_> = connections
            .filter_map(|(id, connection)| Some((*id, connection.overdue(now, &patience)?)))
            .collect();
        for (id, reason) in overdue {
            self.close(id, reason);
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
            self.end_call(call);
        }
        self.touched.remove(&id);
        self.io.shutdown(&connection.socket);
        self.budget.close(connection.account);
        self.mailbox.connection_closed();
        let acceptor = match self.state.is_steered() {
            true => self.state.shard,
            false => CONTROLLER,
        };
        let address = connection.peer.ip().to_canonical();
        match acceptor == self.state.shard {
            true => self.forget_accepted(address),
            false => self.mailbox.send(acceptor, Mail::Closed(address)),
        }
        self.count_connections();
    }

    fn count_connections(&self) {
        let connections = self.connections.len() as u64;
        self.settings.stats.connections.set(connections);
    }

    /// A request is over; whose it was, unless it was over before.
    fn end_call(&mut self, call: u64) -> Option<ConnectionId> {
        let (connection, batches) = self.calls.end(call)?;
        self.appending.end(&batches);
        Some(connection)
    }

    /// A request ended: its reply takes its place in the connection's order.
    fn finish(&mut self, call: u64, reply: Option<Few<crate::io::Chunk>>) {
        let Some(id) = self.end_call(call) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.on_finished(call, reply);
        let (held, under_way) = (connection.held(), !connection.is_quiet());
        self.budget.charge(&mut connection.account, held, under_way);
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
        let held_max = self.budget.connection_bytes_max();
        if let Some(wish) = connection.receive_wish(held_max)
            && self.budget.admits(id, &mut connection.account, wish)
        {
            let buffer = connection.start_receive(self.state.now.mono, self.budget.is_tight());
            self.io
                .submit(Purpose::Receive(id).token(), Op::Receive { socket, buffer });
        }
        let (held, under_way) = (connection.held(), !connection.is_quiet());
        self.budget.charge(&mut connection.account, held, under_way);
        Budget::end_grant(&mut connection.account);
        if connection.is_drained() {
            self.close(id, "the broker stops");
        }
    }
}

/// What jobs append.
fn batches(jobs: &Jobs) -> Batches {
    let batches = jobs.iter().filter_map(|(_, job)| match job {
        Job::Append {
            partition, batch, ..
        } => Some((*partition, batch.len())),
        _ => None,
    });
    batches.collect()
}
