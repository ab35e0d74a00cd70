//! The catalog: which topics exist and how everything is set.
//!
//! [`Catalog`] is the machine on shard 0 that decides; [`Image`] is the snapshot that every shard
//! works with. Handlers take requests and give back records and a response; the shell appends the
//! records to the log of `__cluster_metadata` and feeds them to [`Catalog::replay`]. Not owned: the
//! log, the partitions themselves, who may do what.
//!
//! Invariant: only `replay` changes state, so replaying the log gives the same image.

mod image;
pub mod settings;

pub use image::{
    Changes, Identity, Image, METADATA_TOPIC, METADATA_TOPIC_ID, OFFSETS_TOPIC, Topic,
};
pub use settings::{BrokerSettings, TopicSettings, broker_settings, topic_settings};
