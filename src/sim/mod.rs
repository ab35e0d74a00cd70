//! The deterministic simulation: whole shards as in production on a simulated clock, network and
//! disk, all from one seed. Faults strike, brokers crash and come back with another number of
//! shards, clients speak the real protocol, and a checker that knows what was promised watches.
//!
//! - `world`, `network`, `disk`, `rot`: what is outside of the broker; `io`: how a shard sees it
//! - `broker`: starts, drives and stops the shards; `run`: one seed from set-up to audit
//! - `clients`: the workload; `records`, `plan`: what it sends and who takes part
//! - `checker`, `group_checker`: what was promised
//!
//! `scripts/sim SEED` replays a seed with its trace. The same seed gives the same trace: no real
//! clock, no real randomness, no map without an order.

pub mod broker;
pub mod checker;
pub mod clients;
pub mod disk;
pub mod group_checker;
pub mod io;
pub mod network;
pub mod plan;
pub mod records;
pub mod rot;
pub mod run;
pub mod trace;
pub mod world;
