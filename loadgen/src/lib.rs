//! loadgen: the flash sale, put through a Kafka-compatible broker and judged.
//!
//! ```text
//! orders -> produce -> broker -> consume -> lane -> governor -> sink -> store
//!         (open loop)           (a group) (workers) (the model)      (real rows)
//! ```
//!
//! - what is asked for: [`cli`] names it, [`settings`] checks it, [`run`] does it
//! - the arithmetic: [`model`] and [`course`]; the orders and their intended times: [`orders`]
//! - what goes wrong: [`incidents`]; writes that fail: [`retry`], [`dead_letter`]; ways to consume and
//!   what they promise: [`promise`], [`seen`]
//! - the database: [`governor`] models how fast it is, [`store`] and [`sink`] write real rows;
//!   without a model, [`measure`] finds out how fast they are
//! - the sale: [`sale`] runs [`produce`] and [`consume`] around one [`engine`], whose [`lane`]s are
//!   the partitions; [`earlier`] is what a run that was killed has left; [`direct`] puts the same load on the same model without a broker
//! - the broker: what the sale needs of one is in [`ports`]; [`kafka`] is any over the wire, on the
//!   sockets of [`transport`], its topics are looked after by [`cluster`]; [`broker`] runs forebay
//!   inside the process or beside it
//! - for hours: [`soak`], a mixed load with restarts, and what must not grow
//! - what is shown: [`live`] while it runs, then the [`verdict`] in [`report`], [`json`] and [`page`],
//!   with [`lag`] in time and facts about the [`host`]; a run without a verdict ends in a [`failure`],
//!   and Ctrl-C, heard by [`stop`], in what there is
//!
//! Beside one sale: [`limit`] searches for the highest rate by many, [`compare`] shows two.
//!
//! Everything but the database's thread runs on one thread. Times are those of one [`clock`].

pub mod bench;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod compare;
pub mod consume;
pub mod course;
pub mod dead_letter;
pub mod direct;
pub mod earlier;
pub mod engine;
pub mod failure;
pub mod governor;
pub mod host;
pub mod incidents;
pub mod json;
pub mod kafka;
pub mod lag;
pub mod lane;
pub mod limit;
pub mod live;
pub mod measure;
pub mod model;
pub mod orders;
pub mod page;
pub mod ports;
pub mod produce;
pub mod promise;
pub mod report;
pub mod retry;
pub mod run;
pub mod sale;
pub mod seen;
pub mod settings;
pub mod sink;
pub mod soak;
pub mod stop;
pub mod store;
pub mod transport;
pub mod verdict;
