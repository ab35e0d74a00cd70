//! loadgen: the flash sale, put through a Kafka-compatible broker and judged.
//!
//! ```text
//! orders -> produce -> broker -> consume -> lane -> governor -> sink -> store
//!         (open loop)           (a group) (workers) (the model)      (real rows)
//! ```
//!
//! - the arithmetic: [`model`]; the orders and their times: [`orders`]
//! - the database: [`governor`] models how fast it is, [`store`] and [`sink`] write real rows
//! - the sale: [`sale`] runs [`produce`] and [`consume`] around one [`engine`], whose [`lane`]s
//!   are the partitions; what it needs of a broker is in [`ports`]
//! - the end: [`verdict`] judges; a run that cannot be judged ends in a [`failure`]

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
pub mod store;
pub mod transport;
pub mod verdict;
