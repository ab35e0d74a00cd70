//! forebay: a log broker that speaks the Kafka wire protocol, thread per core on io_uring.
//!
//! The tree is the architecture; numbers are layers, and a file imports its own folder and lower
//! layers only:
//!
//! 0. [`base`]: ids, error codes, limits, time, random numbers, the directory seam
//! 1. [`wire`]: frames and message codecs; [`batch`]: the record batch
//! 2. machines, pure and without IO: [`log`], [`group`], [`catalog`]; and [`client`], a Kafka client
//! 3. [`io`]: the ring and its fallback; [`api`]: one file per Kafka API, on a shard's [`state`]
//! 4. [`shard`]: the shell, the only place where machines meet IO
//! 5. [`config`], [`logging`], [`data_dir`] and [`server`]; [`sim`], the simulator
//! 6. [`cli`]

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

pub mod config;
pub mod data_dir;
pub mod logging;
pub mod server;
pub mod sim;

pub mod cli;
