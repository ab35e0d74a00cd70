//! forebay: a log broker that speaks the Kafka wire protocol, thread per core on io_uring.
//!
//! The tree is the architecture; numbers are layers, and a file imports its own folder and lower
//! layers only (`tests/tidy.rs` holds it to that):
//!
//! 0. [`base`]: ids, error codes, limits, time, random numbers, the directory seam
//! 1. [`wire`]: frames and message codecs; [`batch`]: the record batch
//! 2. machines, pure but for the directory seam: [`log`], [`group`], [`catalog`]; and [`client`],
//!    a Kafka client
//! 3. [`io`]: the ring and its fallback; [`api`]: one file per Kafka API, on a shard's [`state`]
//! 4. [`shard`]: the shell, the only place where machines meet IO
//! 5. [`config`], [`logging`], [`data_dir`], [`admin`] and [`server`]; [`sim`], the simulator
//! 6. [`cli`]
//!
//! # How a record travels (produce, acks=all)
//! [`io`] completes a receive, [`shard`] takes a frame off the connection, [`wire`] decodes it,
//! `api::produce` finds the owner of each partition (another shard's: by mail), [`log`] checks the
//! [`batch`], assigns offsets and queues it. At the end of the turn `shard::settle` writes what is
//! queued, starts a sync, and, when that ended, releases the answer that waited for its offset.
//!
//! # How records travel back (fetch)
//! `api::fetch` asks the owners, each [`log`] finds an extent of its file, and the reply holds gaps
//! for them. `io::sending` fills the gaps from the page cache to the socket; what is not cached is
//! read first by the ring, never by the shard's thread.
//!
//! # Invariants
//! - One thread owns a partition, its log, its waiting answers: nothing is locked.
//! - A reply leaves when what it says is true after a crash: it carries the offset it depends on.
//! - Hard state of the coordinators and the catalog changes only by replaying records of their
//!   logs, live and at start alike.
//! - Memory follows bytes received, never a number that a peer wrote; and what requests take is
//!   charged before it is received: beyond its share a shard reads no sockets (`shard::budget`).
//! - A failed write or sync is never tried again: the partition goes offline.
//!
//! # Non-obvious
//! - The high watermark is the acknowledgement: it passes an acks=all batch only when it is
//!   durable, and acks=1 data at once, unless an acks=all batch before it is not durable yet.
//! - A full disk stalls a log, a failed one ends it: what finds no room stays queued, so that
//!   nothing decided at an append is ever taken back. A sync without room is a failed one. A process
//!   without descriptors stalls it, too: what could not be opened was neither written nor synced.
//! - A duplicate batch is answered with the offsets of its original, and waits for them.
//! - Produce requests of one connection overlap, all others run one at a time, as in Kafka.
//! - An image is published after its records are durable, and answered after every shard has it.
//! - The leader epoch is the node's and grows with every unclean stop, not with every start.

pub mod base;

pub mod batch;
pub mod wire;

pub mod catalog;
pub mod client;
pub mod group;
pub mod log;

pub mod api;
pub mod io;
pub mod state;

pub mod shard;

pub mod admin;
pub mod config;
pub mod data_dir;
pub mod logging;
pub mod server;
pub mod sim;

pub mod cli;
