//! One client connection: bytes to frames, and replies back in the order of the requests.
//!
//! Kafka's rule is one request at a time per connection. This keeps it, with one exception that
//! nobody can tell from outside but by its speed: produce requests that follow each other overlap,
//! so that one sync can serve them all. They are started in order, and partition order follows.
//!
//! Back-pressure is the socket itself: nothing is read while a complete frame waits for its turn,
//! while the peer does not take its replies, or while the shard's memory is spent (`budget`). What
//! a connection holds is counted here; whether it may have more is not decided here.

use super::budget::Account;
use crate::base::Few;
use crate::base::time::Mono;
use crate::io::{Chunk, Socket};
use crate::wire::{self, Malformed};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// First capacity of the receive buffer, and what an idle connection costs.
const RECEIVE_BYTES_MIN: usize = 4 * 1024;

/// Largest single receive; a big frame is collected by several of them.
const RECEIVE_BYTES_MAX: usize = 1024 * 1024;

/// Requests that may be under way at once (only produce overlaps).
const REQUESTS_MAX: usize = 64;

/// What a request takes beside the bytes of its frame and of its reply: the call, its answers, and
/// what is left of the memory block in which it came.
const REQUEST_BYTES: usize = 4 * 1024;

/// What a request takes for each partition or group that it names.
const JOB_BYTES: usize = 512;

/// Bytes of replies that were not taken, above which nothing but produce requests start.
const REPLY_BYTES_MAX: usize = 256 * 1024;

/// A connection that holds less than this is not closed to get memory back.
const PRESSED_BYTES_MIN: usize = 16 * 1024;

/// How long a peer may hold memory that others wait for, without sending or taking anything.
const PRESSED_PATIENCE: Duration = Duration::from_secs(10);

/// How long peers may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// `connections.max.idle.ms`: without a byte either way.
    pub idle: Option<Duration>,
    /// `connections.max.first.request.ms`: from connecting to the end of the first request.
    pub first_request: Duration,
    /// `connections.max.request.ms`: from the first byte of a request to its last.
    pub request: Duration,
    /// Others wait for memory.
    pub pressed: bool,
}

/// The place of a reply in the order of the requests.
#[derive(Debug)]
struct Slot {
    /// What it is charged for.
    bytes: usize,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
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
    /// The budget's own notes.
    pub account: Account,
    opened_at: Mono,
    /// No request has come in full yet.
    silent: bool,
    /// When the frame that is here in part began.
    frame_since: Option<Mono>,
    /// Bytes of that frame, once more of it may be received.
    frame_bytes: usize,
    /// Present unless a receive is under way.
    buffer: Option<BytesMut>,
    /// Size of the memory block that the buffer is a part of.
    block_bytes: usize,
    /// Bytes of frames that were split off that block.
    taken_bytes: usize,
    /// A complete frame that waits for its turn.
    postponed: Option<Bytes>,
    /// Its last request waits for a partition; what follows must not pass it.
    held_back: bool,
    /// A send is under way.
    sending: bool,
    /// What that send is charged for.
    sending_bytes: usize,
    /// No more requests are read; the connection ends when everything is sent.
    draining: bool,
    slots: VecDeque<Slot>,
    /// What all slots are charged for.
    slots_bytes: usize,
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
            account: Account::default(),
            opened_at: now,
            silent: true,
            frame_since: None,
            frame_bytes: 0,
            buffer: Some(BytesMut::new()),
            block_bytes: 0,
            taken_bytes: 0,
            postponed: None,
            held_back: false,
            sending: false,
            sending_bytes: 0,
            draining: false,
            slots: VecDeque::new(),
            slots_bytes: 0,
            frame_bytes_max,
        }
    }

    /// Bytes of memory that it holds, above what every connection has for free.
    pub fn held(&self) -> usize {
        let receiving = self.receive_bytes() - RECEIVE_BYTES_MIN;
        receiving + self.frames_bytes() + self.sending_bytes
    }

    /// Bytes that the next receive adds to what is held; `None` if none is due: one is under way,
    /// the peer may not send, a complete frame is waiting, or with requests under way the
    /// connection would hold more than `held_max`.
    pub fn receive_wish(&self, held_max: usize) -> Option<usize> {
        if self.draining || self.postponed.is_some() || self.held_back {
            return None;
        }
        let room = begun_bytes(self.buffer.as_ref()?);
        let wish = room.saturating_sub(self.receive_bytes());
        if self.is_quiet() || self.frame_bytes >= room {
            return Some(wish);
        }
        let wish = wish.max(REQUEST_BYTES);
        (self.held() + wish <= held_max).then_some(wish)
    }

    /// The buffer for a receive that is due and was admitted. A `tight` shard keeps no large buffer
    /// for a request that may never come.
    pub fn start_receive(&mut self, now: Mono, tight: bool) -> BytesMut {
        let mut buffer = self.buffer.take().expect("a receive is due");
        self.frame_bytes = begun_bytes(&buffer);
        match buffer.is_empty() {
            true => self.frame_since = None,
            false => self.frame_since = self.frame_since.or(Some(now)),
        }
        let mut before = buffer.capacity();
        if buffer.is_empty() && self.is_quiet() {
            let keeps = !tight || self.block_bytes <= RECEIVE_BYTES_MIN;
            if !keeps || !buffer.try_reclaim(self.block_bytes) {
                (buffer, before) = (BytesMut::new(), 0);
            }
        }
        // Grows with what has really come, never by the size that the peer announces.
        let grow = buffer.len().clamp(RECEIVE_BYTES_MIN, RECEIVE_BYTES_MAX);
        let room = missing_bytes(&buffer).clamp(RECEIVE_BYTES_MIN, grow);
        if !buffer.try_reclaim(room) {
            // `reserve` would take twice of what there is.
            let mut larger = BytesMut::with_capacity(buffer.len() + room);
            larger.extend_from_slice(&buffer);
            buffer = larger;
        }
        if buffer.capacity() != before {
            (self.block_bytes, self.taken_bytes) = (buffer.capacity(), 0);
        }
        buffer
    }

    /// It has waited for memory and may go on. The peer is not to blame for the time until now.
    pub fn on_granted(&mut self, now: Mono) {
        self.active_at = now;
        self.opened_at = now;
        self.frame_since = None;
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
        let Some(buffer) = &mut self.buffer else {
            return Ok(None);
        };
        let frame = wire::frame::split_frame(buffer, self.frame_bytes_max)?;
        if let Some(frame) = &frame {
            (self.frame_since, self.frame_bytes, self.silent) = (None, 0, false);
            self.taken_bytes += frame.len();
        }
        Ok(frame)
    }

    /// Keeps a frame that must wait for the requests before it; nothing is read until it starts.
    pub fn postpone(&mut self, frame: Bytes) {
        debug_assert!(self.postponed.is_none(), "one frame at a time is taken out");
        self.postponed = Some(frame);
    }

    /// True if a request may start now; `overlaps` is true for a produce request.
    pub fn may_start(&self, overlaps: bool) -> bool {
        let busy = |slot: &Slot| match slot.progress {
            Progress::Waiting {
                overlaps: other, ..
            } => !(overlaps && other),
            Progress::Ready(_) => false,
        };
        let taken = overlaps || self.slots_bytes + self.sending_bytes <= REPLY_BYTES_MAX;
        taken && !self.held_back && self.slots.len() < REQUESTS_MAX && !self.slots.iter().any(busy)
    }

    /// A request was started that came in a frame of so many bytes.
    pub fn on_started(&mut self, call: u64, overlaps: bool, frame_bytes: usize) {
        let bytes = REQUEST_BYTES + frame_bytes;
        self.slots_bytes += bytes;
        let progress = Progress::Waiting { call, overlaps };
        self.slots.push_back(Slot { bytes, progress });
    }

    /// Its last request waits for a partition, or does not any more.
    pub fn hold(&mut self, held_back: bool) {
        self.held_back = held_back;
    }

    /// A request turned out to ask so many partitions or groups.
    pub fn on_gathering(&mut self, call: u64, jobs: usize) {
        let slot = slot(&mut self.slots, call);
        let more = (REQUEST_BYTES + jobs * JOB_BYTES).saturating_sub(slot.bytes);
        slot.bytes += more;
        self.slots_bytes += more;
    }

    /// A request ended; its reply leaves when those before it have left.
    pub fn on_finished(&mut self, call: u64, reply: Option<Few<Chunk>>) {
        let slot = slot(&mut self.slots, call);
        let in_memory = |chunk: &Chunk| match chunk {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::Extent(_) => 0,
        };
        let bytes = REQUEST_BYTES + reply.iter().flatten().map(in_memory).sum::<usize>();
        self.slots_bytes = self.slots_bytes - slot.bytes + bytes;
        let progress = Progress::Ready(reply);
        *slot = Slot { bytes, progress };
        // What has no reply leaves here: no send will end and make the room it takes.
        while let Some(Progress::Ready(None)) = self.slots.front().map(|slot| &slot.progress) {
            self.pop_slot();
        }
    }

    /// All chunks that can be sent now, as one send; empty while one is under way.
    pub fn start_send(&mut self) -> Few<Chunk> {
        let mut chunks = Few::new();
        if self.sending {
            return chunks;
        }
        while let Some(Progress::Ready(_)) = self.slots.front().map(|slot| &slot.progress) {
            if let Some(Slot {
                bytes,
                progress: Progress::Ready(Some(reply)),
            }) = self.pop_slot()
            {
                self.sending_bytes += bytes;
                chunks.extend(reply);
            }
        }
        self.sending = !chunks.is_empty();
        chunks
    }

    /// The send ended well.
    pub fn on_sent(&mut self, now: Mono) {
        (self.sending, self.sending_bytes) = (false, 0);
        self.active_at = now;
    }

    /// Why the connection must close now, if its peer took too long for something.
    pub fn overdue(&self, now: Mono, patience: &Patience) -> Option<&'static str> {
        // With requests under way the peer waits for us, unless it does not take its replies.
        if !self.sending && (!self.slots.is_empty() || self.account.waits()) {
            return None;
        }
        let quiet = now.since(self.active_at);
        let pressed = patience.pressed && self.account.charged() >= PRESSED_BYTES_MIN;
        let frame_since = self.frame_since.filter(|_| !self.sending);
        if patience.idle.is_some_and(|idle| quiet > idle) {
            Some("it was idle for longer than connections.max.idle.ms")
        } else if self.silent && now.since(self.opened_at) > patience.first_request {
            Some("it sent no request within connections.max.first.request.ms")
        } else if frame_since.is_some_and(|since| now.since(since) > patience.request) {
            Some("its request did not come in full within connections.max.request.ms")
        } else if pressed && quiet > PRESSED_PATIENCE {
            Some("it held memory that others waited for, and neither sent nor took anything")
        } else {
            None
        }
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
            .any(|slot| matches!(slot.progress, Progress::Waiting { overlaps: true, .. }))
    }

    /// The calls under way.
    pub fn calls(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().filter_map(|slot| match slot.progress {
            Progress::Waiting { call, .. } => Some(call),
            Progress::Ready(_) => None,
        })
    }

    /// Bytes of the receive buffer's block, without frames of it that are charged by themselves, or
    /// of the frame that may be received into it.
    fn receive_bytes(&self) -> usize {
        let taken = self.taken_bytes.min(self.frames_bytes());
        let block = self.block_bytes.saturating_sub(taken);
        RECEIVE_BYTES_MIN.max(block).max(self.frame_bytes)
    }

    /// What frames that came in full, and replies that do not leave yet, are charged for.
    fn frames_bytes(&self) -> usize {
        self.slots_bytes + self.postponed.as_ref().map_or(0, Bytes::len)
    }

    fn pop_slot(&mut self) -> Option<Slot> {
        let slot = self.slots.pop_front()?;
        self.slots_bytes -= slot.bytes;
        Some(slot)
    }
}

/// The slot of a request under way.
fn slot(slots: &mut VecDeque<Slot>, call: u64) -> &mut Slot {
    let waits =
        |slot: &&mut Slot| matches!(slot.progress, Progress::Waiting { call: c, .. } if c == call);
    slots.iter_mut().find(waits).expect("a call ends once")
}

/// Bytes of the frame at the start of `buffer`, with its size in front, as far as that is known.
fn begun_bytes(buffer: &[u8]) -> usize {
    buffer.len() + missing_bytes(buffer)
}

/// How many bytes the frame at the start of `buffer` still lacks.
fn missing_bytes(buffer: &[u8]) -> usize {
    match buffer.first_chunk::<4>() {
        Some(size) => (4 + u32::from_be_bytes(*size) as usize).saturating_sub(buffer.len()),
        None => 4 - buffer.len(),
    }
}

#[cfg(test)]
mod tests;
