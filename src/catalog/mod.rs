//! The catalog: which topics exist and how everything is set.
//!
//! [`Catalog`] is the machine on shard 0 that decides; [`Image`] is the snapshot that every shard
//! works with. Handlers take requests and give back records and a response; the shell appends the
//! records to the log of `__cluster_metadata` and feeds each to [`Catalog::replay`] before it asks
//! anything else. Not owned: the log, the partitions themselves, who may do what.
//!
//! Invariant: only `replay` changes state, so replaying the log gives the same image. Records are
//! KRaft's own, so Kafka's tools read the log.

mod alter;
mod describe;
mod image;
mod names;
mod partitions;
pub mod settings;
#[cfg(test)]
mod tests;
mod topics;

use std::sync::Arc;

use bytes::Bytes;

pub use image::{
    Changes, Identity, Image, METADATA_TOPIC, METADATA_TOPIC_ID, OFFSETS_TOPIC, Topic,
};
pub use names::check_topic_name;
pub use settings::{BrokerSettings, TopicSettings, broker_settings, topic_settings};

use crate::base::ErrorCode;
use crate::base::prng::Prng;
use crate::wire::records::metadata::{
    ConfigRecord, PartitionRecord, ProducerIdsRecord, RemoveTopicRecord, TopicRecord,
};
use crate::wire::records::{Record, decode_metadata_frame, encode_metadata};
use crate::wire::{Malformed, Message, Reader};

/// What a handler decided: records to append and replay, in this order and all or none, and the
/// response to send once they are stored. Without records nothing changes.
pub type Decision<R> = (Vec<Bytes>, R);

/// Most partitions that one request may create. Kafka: `MAX_PARTITIONS_PER_BATCH`.
const PARTITIONS_PER_REQUEST_MAX: i64 = 10_000;

/// Kafka's `ConfigResource.Type` of a topic.
const RESOURCE_TOPIC: i8 = 2;
/// Kafka's `ConfigResource.Type` of a broker; the empty name is the whole cluster.
const RESOURCE_BROKER: i8 = 4;

/// The machine that owns the catalog.
#[derive(Debug)]
pub struct Catalog {
    image: Arc<Image>,
    prng: Prng,
    /// The next producer id to give out.
    producer_id: i64,
    /// End of the block of producer ids that the log says is taken.
    producer_id_end: i64,
}

/// Producer ids taken at a time, so that most need no record. Kafka: `PRODUCER_ID_BLOCK_SIZE`.
const PRODUCER_ID_BLOCK: i64 = 1000;

/// No cluster comes near it; what a damaged record says beyond it could not be counted on from.
const PRODUCER_ID_MAX: i64 = i64::MAX / 2;

/// Why one item of a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    code: ErrorCode,
    message: Option<String>,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: Some(message.into()),
        }
    }
}

impl Catalog {
    /// A catalog without topics. Topic ids are drawn from `seed`, which must differ from run to run
    /// wherever ids must never come back.
    pub fn new(identity: Identity, seed: u64) -> Self {
        Self {
            image: Arc::new(Image::new(identity)),
            prng: Prng::new(seed),
            producer_id: 0,
            producer_id_end: 0,
        }
    }

    /// The whole log is replayed. What is left of the last block of producer ids may have been
    /// given out.
    pub fn on_loaded(&mut self) {
        self.producer_id = self.producer_id_end;
    }

    /// A producer id that was never given out, not even before a crash.
    pub fn next_producer_id(&mut self) -> Decision<i64> {
        let producer_id = self.producer_id;
        self.producer_id += 1;
        if producer_id < self.producer_id_end {
            return (Vec::new(), producer_id);
        }
        let record = ProducerIdsRecord {
            broker_id: self.image.node_id().0,
            next_producer_id: producer_id + PRODUCER_ID_BLOCK,
            ..Default::default()
        };
        (vec![encode_metadata(&record, 0)], producer_id)
    }

    /// The current snapshot.
    pub fn image(&self) -> Arc<Image> {
        self.image.clone()
    }

    /// Applies one stored record.
    ///
    /// # Errors
    /// The record is malformed, of a type we never write, or contradicts those before it: the log
    /// is damaged or belongs to something else. The image is then what it was before the record.
    pub fn replay(&mut self, record: Bytes) -> Result<(), Malformed> {
        let mut reader = Reader::new(record);
        let (key, version) = decode_metadata_frame(&mut reader)?;
        match key {
            TopicRecord::KEY => self.replay_topic(TopicRecord::decode(&mut reader, version)?),
            PartitionRecord::KEY => {
                self.replay_partition(&PartitionRecord::decode(&mut reader, version)?)
            }
            RemoveTopicRecord::KEY => {
                let record = RemoveTopicRecord::decode(&mut reader, version)?;
                match Arc::make_mut(&mut self.image).remove(record.topic_id) {
                    true => Ok(()),
                    false => Err(Malformed("removal of a topic that does not exist")),
                }
            }
            ProducerIdsRecord::KEY => {
                let record = ProducerIdsRecord::decode(&mut reader, version)?;
                if record.next_producer_id > PRODUCER_ID_MAX {
                    return Err(Malformed("producer id beyond all that are given out"));
                }
                self.producer_id_end = self.producer_id_end.max(record.next_producer_id);
                Ok(())
            }
            ConfigRecord::KEY => self.replay_config(ConfigRecord::decode(&mut reader, version)?),
            _ => Err(Malformed("metadata record of an unknown type")),
        }
    }

    fn replay_topic(&mut self, record: TopicRecord) -> Result<(), Malformed> {
        let taken = self.image.topic(&record.name).is_some()
            || self.image.topic_by_id(record.topic_id).is_some();
        if taken {
            return Err(Malformed("topic that exists already"));
        }
        Arc::make_mut(&mut self.image).put(Topic {
            id: record.topic_id,
            internal: Topic::is_internal_name(&record.name),
            name: record.name,
            partitions: 0,
            config: Default::default(),
        });
        Ok(())
    }

    fn replay_partition(&mut self, record: &PartitionRecord) -> Result<(), Malformed> {
        let Some(topic) = self.image.topic_by_id(record.topic_id) else {
            return Err(Malformed("partition of a topic that does not exist"));
        };
        if record.partition_id != topic.partitions {
            return Err(Malformed("partition out of order"));
        }
        let mut topic = Topic::clone(topic);
        topic.partitions += 1;
        Arc::make_mut(&mut self.image).put(topic);
        Ok(())
    }

    fn replay_config(&mut self, record: ConfigRecord) -> Result<(), Malformed> {
        if record.resource_type == RESOURCE_BROKER {
            let node = !record.resource_name.is_empty();
            let settings = Arc::make_mut(&mut self.image).dynamic_settings_mut(node);
            set_or_remove(settings, record);
            return Ok(());
        }
        if record.resource_type != RESOURCE_TOPIC {
            return Err(Malformed("setting of an unknown kind of resource"));
        }
        let Some(topic) = self.image.topic(&record.resource_name) else {
            return Err(Malformed("setting of a topic that does not exist"));
        };
        let mut topic = Topic::clone(topic);
        set_or_remove(&mut topic.config, record);
        Arc::make_mut(&mut self.image).put(topic);
        Ok(())
    }

    /// Asserts what must always hold.
    pub fn check(&self) {
        self.image.check();
    }
}

fn set_or_remove(settings: &mut std::collections::BTreeMap<String, String>, record: ConfigRecord) {
    match record.value {
        Some(value) => settings.insert(record.name, value),
        None => settings.remove(&record.name),
    };
}
