//! One client connection: bytes to frames, and replies back in the order of the requests.
//!
//! Kafka's rule is one request at a time per connection. This keeps it, with one exception that
//! nobody can tell from outside but by its speed: produce requests that follow each other overlap,
//! so that one sync can serve them all. They are started in order, and partition order follows.
//!
//! Back-pressure is the socket itself: nothing is read while a complete frame waits for its turn
//! or while the peer does not take its replies.

use crate::base::Few;
use crate::base::time::Mono;
use crate::io::{Chunk, Socket};
use crate::wire::{self, Malformed};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// First capacity of the receive buffer, and what an idle connection costs.
const RECEIVE_BYTES_MIN: usize = 4 * 1024;

/// Largest single receive; a big frame is collected by several of them.
const RECEIVE_BYTES_MAX: usize = 1024 * 1024;

/// Requests that may be under way at once (only produce overlaps).
const REQUESTS_MAX: usize = 64;

/// How a reply slot is filled.
#[derive(Debug)]
enum Slot {
    /// Request `call` is under way; `overlaps` tells whether the next may start before it ends.
    Waiting { call: u64, overlaps: bool },
    /// Finished; `None` for requests that have no reply.
    Ready(Option<Few<Chunk>>),
}

/// State of one connection.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: Socket,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address the client dialled.
    pub local: SocketAddr,
    /// When bytes last moved.
    pub active_at: Mono,
    /// Present unless a receive is under way.
    buffer: Option<BytesMut>,
    /// A complete frame that waits for its turn.
    postponed: Option<Bytes>,
    /// A send is under way.
    sending: bool,
    /// No more requests are read; the connection ends when everything is sent.
    draining: bool,
    slots: VecDeque<Slot>,
    frame_bytes_max: usize,
}

impl Connection {
    /// A new connection that accepts frames up to `frame_bytes_max`.
    pub fn new(
        socket: Socket,
        peer: SocketAddr,
        local: SocketAddr,
        now: Mono,
        frame_bytes_max: usize,
    ) -> Self {
        Self {
            socket,
            peer,
            local,
            active_at: now,
            buffer: Some(BytesMut::new()),
            postponed: None,
            sending: false,
            draining: false,
            slots: VecDeque::new(),
            frame_bytes_max,
        }
    }

    /// The buffer for the next receive, if one is due: none is under way, the peer may send, and
    /// no complete frame is waiting.
    pub fn start_receive(&mut self) -> Option<BytesMut> {
        if self.draining || self.postponed.is_some() {
            return None;
        }
        let mut buffer = self.buffer.take()?;
        // Grows with what has really come, never by the size that the peer announces.
        let grow = buffer.len().clamp(RECEIVE_BYTES_MIN, RECEIVE_BYTES_MAX);
        buffer.reserve(missing_bytes(&buffer).clamp(RECEIVE_BYTES_MIN, grow));
        Some(buffer)
    }

    /// Takes the buffer back from a receive.
    pub fn on_received(&mut self, buffer: BytesMut, now: Mono) {
        debug_assert!(self.buffer.is_none(), "one receive at a time");
        self.buffer = Some(buffer);
        self.active_at = now;
    }

    /// The next complete frame, without its size. The caller starts it, or gives it back to
    /// [`Connection::postpone`].
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, Malformed> {
        if self.draining {
            return Ok(None);
        }
        if let Some(frame) = self.postponed.take() {
            return Ok(Some(frame));
        }
        match &mut self.buffer {
            Some(buffer) => wire::frame::split_frame(buffer, self.frame_bytes_max),
            None => Ok(None),
        }
    }

    /// Keeps a frame that must wait for the requests before it; nothing is read until it starts.
    pub fn postpone(&mut self, frame: Bytes) {
        debug_assert!(self.postponed.is_none(), "one frame at a time is taken out");
        self.postponed = Some(frame);
    }

    /// True if a request may start now; `overlaps` is true for a produce request.
    pub fn may_start(&self, overlaps: bool) -> bool {
        let busy = |slot: &Slot| match slot {
            Slot::Waiting {
                overlaps: other, ..
            } => !(overlaps && *other),
            Slot::Ready(_) => false,
        };
        self.slots.len() < REQUESTS_MAX && !self.slots.iter().any(busy)
    }

    /// A request was started.
    pub fn on_started(&mut self, call: u64, overlaps: bool) {
        self.slots.push_back(Slot::Waiting { call, overlaps });
    }

    /// A request ended; its reply leaves when those before it have left.
    pub fn on_finished(&mut self, call: u64, reply: Option<Few<Chunk>>) {
        let waits = |slot: &&mut Slot| matches!(slot, Slot::Waiting { call: c, .. } if *c == call);
        let slot = self.slots.iter_mut().find(waits).expect("a call ends once");
        *slot = Slot::Ready(reply);
        // What has no reply leaves here: no send will end and make the room it takes.
        while let Some(Slot::Ready(None)) = self.slots.front() {
            self.slots.pop_front();
        }
    }

    /// All chunks that can be sent now, as one send; empty while one is under way.
    pub fn start_send(&mut self) -> Few<Chunk> {
        let mut chunks = Few::new();
        if self.sending {
            return chunks;
        }
        while let Some(Slot::Ready(_)) = self.slots.front() {
            if let Some(Slot::Ready(Some(reply))) = self.slots.pop_front() {
                chunks.extend(reply);
            }
        }
        self.sending = !chunks.is_empty();
        chunks
    }

    /// The send ended well.
    pub fn on_sent(&mut self, now: Mono) {
        self.sending = false;
        self.active_at = now;
    }

    /// Reads no more requests.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// True if nothing is owed to the peer.
    pub fn is_quiet(&self) -> bool {
        !self.sending && self.slots.is_empty()
    }

    /// True if the connection should be closed now: draining, and everything is sent.
    pub fn is_drained(&self) -> bool {
        self.draining && self.is_quiet()
    }

    /// True if produce requests are under way.
    pub fn is_appending(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| matches!(slot, Slot::Waiting { overlaps: true, .. }))
    }

    /// The calls under way.
    pub fn calls(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Waiting { call, .. } => Some(*call),
            Slot::Ready(_) => None,
        })
    }
}

/// How many bytes the frame at the start of `buffer` still lacks.
fn missing_bytes(buffer: &[u8]) -> usize {
    match buffer.first_chunk::<4>() {
        Some(size) => (4 + u32::from_be_bytes(*size) as usize).saturating_sub(buffer.len()),
        None => 4 - buffer.len(),
    }
}
