//! Everything one shard owns, side by side: the machines, and the seams to their directories.
//! No IO but through [`Dir`], no generics, no knowledge of connections or threads: a whole Kafka
//! conversation can be tested on it.

use crate::api::controller::Controller;
use crate::api::job::{After, Answer, Return};
use crate::base::dir::Dir;
use crate::base::placement::shard_of_partition;
use crate::base::time::{Mono, Now};
use crate::base::{Epoch, ErrorCode, Offset, PartitionKey, ShardId, TopicId};
use crate::catalog::{Image, Topic};
use crate::group;
use crate::log::Log;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One partition that this shard owns.
pub struct Partition {
    /// Its topic.
    pub topic: Arc<Topic>,
    /// Its files.
    pub dir: Box<dyn Dir>,
    /// Its log.
    pub log: Log,
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

/// A group coordinator and those who wait for its replies.
pub struct Coordinator {
    /// The machine.
    pub machine: group::Coordinator,
    /// Where the reply of each token goes.
    pub callers: BTreeMap<u64, Return>,
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
    /// The catalog as this shard knows it.
    pub image: Arc<Image>,
    /// The partitions it owns and could open.
    pub partitions: BTreeMap<PartitionKey, Partition>,
    /// Coordinators of the partitions of `__consumer_offsets` it owns.
    pub coordinators: BTreeMap<PartitionKey, Coordinator>,
    /// The catalog itself, on the controller's shard.
    pub controller: Option<Controller>,
    /// Partitions with queued writes.
    pub queued: BTreeSet<PartitionKey>,
    /// Answers to be delivered.
    pub outbox: Vec<Outgoing>,
    /// Token of the next request to a coordinator.
    pub next_token: u64,
}

impl ShardState {
    /// The owner of a partition.
    pub fn owner(&self, partition: PartitionKey) -> ShardId {
        shard_of_partition(partition, self.shards)
    }

    /// Finds a partition of a topic in the catalog: unknown indexes have no key.
    pub fn partition_key(&self, topic: &Topic, partition: i32) -> Option<PartitionKey> {
        let known = (0..topic.partitions).contains(&partition);
        known.then_some(PartitionKey { topic: topic.id, partition })
    }

    /// Finds a topic by id, or by name where the request carries no ids. The error is the one that
    /// Kafka gives for the way it was named.
    pub fn topic(&self, name: &str, id: TopicId) -> Result<&Arc<Topic>, ErrorCode> {
        if id != TopicId::ZERO {
            return self.image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId);
        }
        self.image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)
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
        self.outbox.push(Outgoing { to, answer, after: After::Now });
    }

    /// Gives an answer once a partition's log is acknowledged up to `offset_end`.
    pub fn answer_acknowledged(
        &mut self,
        to: Return,
        answer: Answer,
        key: PartitionKey,
        offset_end: Offset,
    ) {
        self.outbox.push(Outgoing { to, answer, after: After::Acknowledged(key, offset_end) });
    }
}
