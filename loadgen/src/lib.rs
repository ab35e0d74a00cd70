//! loadgen: the flash sale, put through a Kafka-compatible broker and judged.
//!
//! ```text
//! orders -> produce -> broker -> consume -> lane -> governor -> sink -> store
//!         (open loop)           (a group) (workers) (the model)      (real rows)
//! ```
//!
//! - what is asked for: [`cli`] names it, [`settings`] checks it, [`run`] does it
//! - the arithmetic: [`model`]; the orders and their intended times: [`orders`]
//! - the database: [`governor`] models how fast it is, [`store`] and [`sink`] write real rows
//! - the sale: [`sale`] runs [`produce`] and [`consume`] around one [`engine`], whose [`lane`]s are
//!   the partitions; [`direct`] puts the same load on the same model without a broker
//! - the broker: what the sale needs of one is in [`ports`]; [`kafka`] is any over the wire, on the
//!   sockets of [`transport`]; [`broker`] runs forebay inside the process
//! - for hours: [`soak`], a mixed load with restarts, and what must not grow
//! - what is shown: [`live`] while it runs, then the [`verdict`] in [`report`] and [`json`], with
//!   facts about the [`host`]; a run without a verdict ends in a [`failure`]
//!
//! Everything but the database's thread runs on one thread. Times are those of one [`clock`].

pub mod bench;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod consume;
pub mod direct;
pub mod engine;
pub mod failure;
pub mod governor;
pub mod host;
pub mod json;
pub mod kafka;
pub mod lane;
pub mod live;
pub mod model;
pub mod orders;
pub mod ports;
pub mod produce;
pub mod report;
pub mod run;
pub mod sale;
pub mod settings;
pub mod sink;
pub mod soak;
pub mod store;
pub mod transport;
pub mod verdict;
