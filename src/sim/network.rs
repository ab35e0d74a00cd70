//! Connections between clients and the broker: bytes that arrive in pieces, late, and sometimes
//! not at all. This file knows pipes and their ends; who is told what and when is the world's
//! matter (`world`).
//!
//! Invariant: what arrives is a prefix of what was sent, in order.

use crate::base::Mono;
use crate::base::prng::Prng;
use crate::io::{Chunk, SocketKind, Token};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Weak;

/// Largest piece that travels as one.
const PIECE_BYTES_MAX: u64 = 16 * 1024;

/// The same to and from a slow peer, and the most time between two of them.
const DRIP_BYTES_MAX: u64 = 300;
const DRIP_NS_MAX: u64 = 1_000_000;

/// How long a slow peer may take for an answer, on top of all others' time.
pub const SLOW_MS_MAX: i64 = 20_000;

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Pipe {
    /// Pieces on their way, by time of arrival.
    flying: VecDeque<(Mono, Bytes)>,
    /// Bytes that have arrived and were not read.
    here: BytesMut,
    in_transit: usize,
    /// The sender has closed it: no more pieces.
    closed: bool,
    /// It brings little at a time, with pauses.
    drips: bool,
}

impl Pipe {
    /// Sends bytes in pieces, the first of which arrives after `latency` at the earliest. Gives the
    /// times of arrival.
    pub fn send(
        &mut self,
        prng: &mut Prng,
        now: Mono,
        latency_ns: u64,
        mut bytes: Bytes,
    ) -> Vec<Mono> {
        let mut arrivals = Vec::new();
        while !bytes.is_empty() && !self.closed {
            let bound = match prng.below(4) {
                _ if self.drips => DRIP_BYTES_MAX,
                0 => 16,
                1 => 700,
                _ => PIECE_BYTES_MAX,
            };
            let length = (1 + prng.below(bound)).min(bytes.len() as u64) as usize;
            let jitter = prng.below(latency_ns + 1);
            let last = self.flying.back().map_or(Mono::default(), |(at, _)| *at);
            let earliest = match self.drips {
                true => Mono(last.0 + prng.below(DRIP_NS_MAX)),
                false => last,
            };
            let at = Mono(now.0 + latency_ns + jitter).max(earliest);
            self.in_transit += length;
            self.flying.push_back((at, bytes.split_to(length)));
            arrivals.push(at);
        }
        arrivals
    }

    /// Lets arrive what is due.
    pub fn arrive(&mut self, now: Mono) {
        while let Some((at, piece)) = self.flying.front()
            && *at <= now
        {
            self.here.extend_from_slice(piece);
            self.flying.pop_front();
        }
    }

    /// Takes up to `length` bytes of those that are here.
    pub fn take(&mut self, length: usize) -> Bytes {
        let taken = self.here.split_to(length.min(self.here.len())).freeze();
        self.in_transit -= taken.len();
        taken
    }

    /// Bytes that can be taken.
    pub fn available(&self) -> usize {
        self.here.len()
    }

    /// Bytes sent and not taken.
    pub fn in_transit(&self) -> usize {
        self.in_transit
    }

    /// No more is sent.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Everything was taken and no more will come.
    pub fn is_at_end(&self) -> bool {
        self.closed && self.in_transit == 0
    }

    /// Of what is here only the first `length` bytes have come; for a connection that breaks now.
    pub fn shorten(&mut self, length: usize) {
        let lost = self.here.len().saturating_sub(length);
        self.here.truncate(length);
        self.in_transit -= lost;
    }

    /// What was not taken is lost, also what has arrived: whoever is told of a power cut before it
    /// reads an answer could not know what the answer is still worth.
    pub fn cut(&mut self) {
        self.closed = true;
        self.flying.clear();
        self.here.clear();
        self.in_transit = 0;
    }
}

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed it.
    Client,
    /// The broker closed it, without being asked to stop.
    Broker,
    /// The broker was stopping or dead.
    BrokerStopped,
    /// The network broke it.
    Network,
}

/// A send of the broker that is under way.
#[derive(Debug)]
pub struct Sending {
    /// Its name.
    pub token: Token,
    /// What is left of it.
    pub chunks: VecDeque<Chunk>,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// The broker's end, once it was accepted; gone when the broker has dropped it.
    pub socket: Option<Weak<SocketKind>>,
    /// The shard that uses it.
    pub shard: usize,
    /// From the client to the broker.
    pub to_broker: Pipe,
    /// From the broker to the client.
    pub to_client: Pipe,
    /// A receive of the broker that waits for bytes.
    pub receive: Option<(Token, BytesMut)>,
    /// A send of the broker that waits for room.
    pub send: Option<Sending>,
    /// One way, without jitter.
    pub latency_ns: u64,
    /// Bytes that fit between the broker and the client.
    pub window_bytes: usize,
    /// Set when it has ended for both; bytes that have arrived can still be read.
    pub end: Option<End>,
    /// The client has let go of it.
    pub hung_up: bool,
}

impl Connection {
    /// A fresh one, of random quality; `slow` to a peer that sends and takes little at a time.
    pub fn new(prng: &mut Prng, slow: bool) -> Self {
        let window_bytes = match prng.below(3) {
            _ if slow => 8_000,
            0 => 2_000,
            1 => 30_000,
            _ => 300_000,
        };
        let pipe = || Pipe {
            drips: slow,
            ..Pipe::default()
        };
        Self {
            socket: None,
            shard: 0,
            to_broker: pipe(),
            to_client: pipe(),
            receive: None,
            send: None,
            latency_ns: 5_000 + prng.below(400_000),
            window_bytes,
            end: None,
            hung_up: false,
        }
    }

    /// True if its peer is slow.
    pub fn is_slow(&self) -> bool {
        self.to_broker.drips
    }

    /// True if the client would learn something by reading.
    pub fn is_readable(&self) -> bool {
        self.to_client.available() > 0 || self.to_client.is_at_end()
    }

    /// True if the broker has dropped its end without a word.
    pub fn is_dropped(&self) -> bool {
        self.end.is_none()
            && self
                .socket
                .as_ref()
                .is_some_and(|socket| socket.strong_count() == 0)
    }
}

/// Takes up to `length` bytes off the front of a send; extents are read by `read`.
pub fn take_chunk(
    chunks: &mut VecDeque<Chunk>,
    length: usize,
    mut read: impl FnMut(&crate::io::Extent, u64) -> Bytes,
) -> Option<Bytes> {
    while chunks.front().is_some_and(Chunk::is_empty) {
        chunks.pop_front();
    }
    match chunks.front_mut()? {
        Chunk::Bytes(bytes) => {
            let taken = bytes.slice(..length.min(bytes.len()));
            bytes.advance(taken.len());
            Some(taken)
        }
        Chunk::Extent(extent) => {
            let taken = read(extent, extent.length.min(length as u64));
            extent.position += taken.len() as u64;
            extent.length -= taken.len() as u64;
            Some(taken)
        }
    }
}
