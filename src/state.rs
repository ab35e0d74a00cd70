//! Everything one shard owns, side by side: the machines, and the seams to their directories.
//! No IO but through [`Dir`], no generics, no knowledge of connections or threads: a whole Kafka
//! conversation can be tested on it.

use crate::api::controller::{Controller, METADATA};
use crate::api::groups::Coordinator;
use crate::api::job::{After, Answer, Return};
use crate::base::dir::Dir;
use crate::base::placement::shard_of_partition;
use crate::base::prng::Prng;
use crate::base::time::{Mono, Now};
use crate::base::{Epoch, ErrorCode, Offset, PartitionKey, Room, ShardId, TopicId};
use crate::batch::{self, Codec, Record, TimestampType};
use crate::catalog::settings::{BrokerSettings, CompressionType, TopicSettings};
use crate::catalog::{Image, Topic, broker_settings};
use crate::log::{self, Log, ReadError};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Bytes per read when a log is replayed.
const REPLAY_BYTES: u64 = 1024 * 1024;

/// Largest decompressed batch of a log that this broker wrote itself.
const REPLAY_BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One partition that this shard owns.
pub struct Partition {
    /// Its topic.
    pub topic: Arc<Topic>,
    /// What applies to the topic.
    pub settings: Arc<TopicSettings>,
    /// Its files.
    pub dir: Box<dyn Dir>,
    /// Its log.
    pub log: Log,
    /// The high watermark when the watchers were last woken.
    pub visible: Offset,
    /// Long polls that want to know when more becomes visible.
    pub watchers: Vec<Watcher>,
}

/// A long poll on some shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watcher {
    /// The front.
    pub shard: ShardId,
    /// The request there.
    pub call: u64,
    /// When it gives up by itself.
    pub until: Mono,
}

/// An answer on its way to a front.
#[derive(Debug)]
pub struct Outgoing {
    /// Where it goes.
    pub to: Return,
    /// The answer.
    pub answer: Answer,
    /// What must have happened first.
    pub after: After,
}

/// What one shard owns.
pub struct ShardState {
    /// This shard.
    pub shard: ShardId,
    /// Number of shards.
    pub shards: u16,
    /// Both clocks, read once per turn.
    pub now: Now,
    /// Epoch under which this run appends; grows with every unclean stop.
    pub leader_epoch: Epoch,
    /// The data directory, as clients are told.
    pub data_dir: String,
    /// The catalog as this shard knows it.
    pub image: Arc<Image>,
    /// What the image says about the broker.
    pub broker: BrokerSettings,
    /// The partitions it owns and could open.
    pub partitions: BTreeMap<PartitionKey, Partition>,
    /// Coordinators, by the partitions of `__consumer_offsets` it owns.
    pub coordinators: BTreeMap<PartitionKey, Coordinator>,
    /// Bytes that the groups of all of them may take.
    pub group_bytes_max: usize,
    /// The catalog itself, on the controller's shard.
    pub controller: Option<Controller>,
    /// Partitions with queued writes.
    pub queued: BTreeSet<PartitionKey>,
    /// Partitions whose disk has refused a change; the shell takes them offline.
    pub broken: Vec<(PartitionKey, io::Error)>,
    /// Partitions of any shard that cannot be served, with the reason as a sentence: their disk has
    /// failed, or their log cannot be opened.
    pub offline: BTreeMap<PartitionKey, String>,
    /// What producers may still append.
    pub room: Room,
    /// Answers to be delivered.
    pub outbox: Vec<Outgoing>,
    /// All randomness.
    pub prng: Prng,
}

impl ShardState {
    /// The state of a shard that has opened nothing.
    pub fn new(
        (shard, shards): (ShardId, u16),
        now: Now,
        leader_epoch: Epoch,
        data_dir: String,
        image: Arc<Image>,
        seed: u64,
    ) -> Self {
        Self {
            shard,
            shards,
            now,
            leader_epoch,
            data_dir,
            broker: broker_settings(&image),
            image,
            partitions: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            group_bytes_max: usize::MAX,
            controller: None,
            queued: BTreeSet::new(),
            broken: Vec::new(),
            offline: BTreeMap::new(),
            room: Room::default(),
            outbox: Vec::new(),
            prng: Prng::new(seed ^ u64::from(shard.0)),
        }
    }

    /// Works with this image from now on.
    pub fn set_image(&mut self, image: Arc<Image>) {
        self.broker = broker_settings(&image);
        self.offline
            .retain(|key, _| image.topic_by_id(key.topic).is_some() || *key == METADATA);
        self.image = image;
    }

    /// The owner of a partition.
    pub fn owner(&self, partition: PartitionKey) -> ShardId {
        shard_of_partition(partition, self.shards)
    }

    /// True if clients see each shard as a broker of its own.
    pub fn is_steered(&self) -> bool {
        !self.image.ports_per_shard().is_empty()
    }

    /// The id of the broker that clients see behind a shard.
    pub fn node_of(&self, shard: ShardId) -> i32 {
        let first = self.image.node_id().0;
        match self.is_steered() {
            true => first + i32::from(shard.0),
            false => first,
        }
    }

    /// The id of the broker that leads a partition for clients.
    pub fn leader(&self, partition: PartitionKey) -> i32 {
        self.node_of(self.owner(partition))
    }

    /// The id of the broker that leads a partition for clients, unless it is offline.
    pub fn live_leader(&self, partition: PartitionKey) -> Option<i32> {
        (!self.offline.contains_key(&partition)).then(|| self.leader(partition))
    }

    /// The shards that answer for the broker of this connection where every broker of a cluster
    /// speaks for what is its own: all, or with steering this one.
    pub fn shards_of_node(&self) -> impl Iterator<Item = ShardId> + use<> {
        let (first, end) = match self.is_steered() {
            true => (self.shard.0, self.shard.0 + 1),
            false => (0, self.shards),
        };
        (first..end).map(ShardId)
    }

    /// Finds a partition of a topic in the catalog: unknown indexes have no key.
    pub fn partition_key(&self, topic: &Topic, partition: i32) -> Option<PartitionKey> {
        let known = (0..topic.partitions).contains(&partition);
        known.then_some(PartitionKey {
            topic: topic.id,
            partition,
        })
    }

    /// Finds a topic by id, or by name where the request carries no ids. The error is the one that
    /// Kafka gives for the way it was named.
    pub fn topic(&self, name: &str, id: TopicId) -> Result<&Arc<Topic>, ErrorCode> {
        if id != TopicId::ZERO {
            return self.image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId);
        }
        self.image
            .topic(name)
            .ok_or(ErrorCode::UnknownTopicOrPartition)
    }

    /// The partition, if it is owned here and healthy. A partition of the catalog that is missing
    /// here could not be opened, or is just being created or deleted.
    pub fn owned(&mut self, key: PartitionKey) -> Result<&mut Partition, ErrorCode> {
        match self.partitions.get_mut(&key) {
            Some(partition) if partition.log.poisoned().is_none() => Ok(partition),
            Some(_) => Err(ErrorCode::KafkaStorageError),
            None if self.image.topic_by_id(key.topic).is_some() => {
                Err(ErrorCode::KafkaStorageError)
            }
            None => Err(ErrorCode::UnknownTopicOrPartition),
        }
    }

    /// Gives an answer that depends on nothing.
    pub fn answer(&mut self, to: Return, answer: Answer) {
        self.outbox.push(Outgoing {
            to,
            answer,
            after: After::Now,
        });
    }

    /// When the next timer of a machine that may decide is due.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.coordinators
            .iter()
            .filter(|(key, _)| self.takes_decisions(**key))
            .filter_map(|(_, coordinator)| coordinator.next_deadline())
            .min()
    }

    /// True if the log of a machine takes what it decides; else the machine waits.
    pub fn takes_decisions(&self, key: PartitionKey) -> bool {
        let partition = self.partitions.get(&key);
        partition.is_some_and(|partition| partition.log.takes_decisions())
    }
}

impl Partition {
    /// An open partition.
    pub fn new(
        topic: Arc<Topic>,
        settings: Arc<TopicSettings>,
        dir: Box<dyn Dir>,
        log: Log,
    ) -> Self {
        let visible = log.high_watermark();
        Self {
            topic,
            settings,
            dir,
            log,
            visible,
            watchers: Vec::new(),
        }
    }

    /// How long written data may stay unsynced when nobody waits for it: `flush.ms`.
    pub fn flush_interval(&self) -> Duration {
        Duration::from_millis(self.settings.flush_ms.max(0).unsigned_abs())
    }

    /// Gives every visible record of the log, in order. For logs that this broker writes itself.
    pub fn replay(&mut self, mut each: impl FnMut(&Record)) -> io::Result<()> {
        let corrupt = |error: &dyn std::fmt::Display| {
            io::Error::new(io::ErrorKind::InvalidData, error.to_string())
        };
        let mut offset = self.log.log_start_offset();
        while offset < self.log.high_watermark() {
            let extent = self.log.read(self.dir.as_mut(), offset, REPLAY_BYTES, true);
            let extent = extent.map_err(|error| match error {
                ReadError::Io(error) => error,
                error => corrupt(&error),
            });
            let Some(extent) = extent? else {
                break;
            };
            let mut bytes = BytesMut::zeroed(extent.length as usize);
            let read = self
                .dir
                .read_at(&extent.file, extent.position, &mut bytes)?;
            bytes.truncate(read);
            let before = offset;
            for found in batch::batches(bytes.freeze()) {
                let (header, body) = found.map_err(|error| corrupt(&error))?;
                let records = batch::records(&header, &body, REPLAY_BATCH_BYTES_MAX);
                for record in records.map_err(|error| corrupt(&error))? {
                    each(&record.map_err(|error| corrupt(&error))?);
                }
                offset = header.next_offset();
            }
            if offset == before {
                return Err(corrupt(&"a batch of the log is cut off"));
            }
        }
        Ok(())
    }
}

/// What the log needs to know of a topic's settings.
pub fn log_config(settings: &TopicSettings, broker: &BrokerSettings) -> log::Config {
    log::Config {
        segment_bytes: u64::from(settings.segment_bytes),
        segment_ms: settings.segment_ms,
        segment_index_bytes: u64::from(settings.segment_index_bytes),
        index_interval_bytes: u64::from(settings.index_interval_bytes),
        retention_ms: settings.retention_ms.unwrap_or(-1),
        retention_bytes: settings
            .retention_bytes
            .map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        message_bytes_max: settings.message_bytes_max as usize,
        timestamp_type: match settings.append_time {
            true => TimestampType::LogAppendTime,
            false => TimestampType::CreateTime,
        },
        timestamp_before_ms_max: settings.timestamp_before_max_ms,
        timestamp_after_ms_max: settings.timestamp_after_max_ms,
        compression: match settings.compression {
            CompressionType::Producer => None,
            CompressionType::Uncompressed => Some(Codec::None),
            CompressionType::Gzip => Some(Codec::Gzip),
            CompressionType::Snappy => Some(Codec::Snappy),
            CompressionType::Lz4 => Some(Codec::Lz4),
            CompressionType::Zstd => Some(Codec::Zstd),
        },
        cleanup_compact: settings.compact,
        cleanup_delete: settings.delete,
        producer_id_expiration_ms: broker.producer_id_expiration_ms,
        producer_ids_max: broker.producer_ids_max as usize,
        write_caching: settings.write_caching,
        unsynced_bytes_max: broker.unsynced_bytes_max,
    }
}

/// One batch of records for a log that this broker writes itself.
pub fn coordinator_batch(now: Now, records: &[(Option<Bytes>, Option<Bytes>)]) -> Bytes {
    let mut builder = batch::Builder::new(Codec::None);
    for (key, value) in records {
        builder.append(now.wall_ms, key.as_deref(), value.as_deref(), &[]);
    }
    builder.build()
}
