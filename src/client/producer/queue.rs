//! Everything a producer holds, without IO: records that wait for their topic's metadata, and the
//! [`Partition`]s. The sender asks it what is ready for a broker and tells it what became of it.
//!
//! Invariant: records of one partition leave in the order of [`Queue::push`].

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::batch::{Batch, Reply};
use super::partition::{Outcome, Partition};
use super::partitioner::partition_of_key;
use super::{Delivery, ProduceError, ProducerOptions, ProducerRecord};
use crate::base::TopicId;
use crate::client::metadata::TopicMetadata;

/// The receiving end of a record's outcome.
pub(super) type Answer = oneshot::Receiver<Result<Delivery, ProduceError>>;

/// All topics of a producer.
#[derive(Debug)]
pub(super) struct Queue {
    options: ProducerOptions,
    producer_id: i64,
    producer_epoch: i16,
    topics: BTreeMap<String, Topic>,
    buffered_bytes: usize,
    next_batch_id: u64,
    next_number: u64,
    /// Records with numbers below this do not linger.
    flush_number: u64,
    fatal: Option<ProduceError>,
    sticky_first: usize,
}

#[derive(Debug)]
struct Topic {
    id: TopicId,
    partitions: Vec<Partition>,
    /// Came before the number of partitions was known, in order.
    unassigned: VecDeque<Unassigned>,
    /// Where records without a key go, until its batch is full or sent.
    sticky: usize,
    /// Metadata has to be fetched before more can be sent.
    is_stale: bool,
    /// Where the next request to a broker starts looking, so that none starves.
    next_partition: usize,
}

#[derive(Debug)]
struct Unassigned {
    number: u64,
    came: Instant,
    partition: Option<i32>,
    record: ProducerRecord,
    timestamp: i64,
    reply: Reply,
}

/// Who has to look at the queue after a record came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// The record joined a batch that somebody watches.
    Nobody,
    /// The sender of this broker.
    Leader(i32),
    /// Whoever fetches metadata.
    Metadata,
}

/// A batch on its way to a broker.
#[derive(Debug)]
pub(super) struct Taken {
    pub topic: String,
    pub topic_id: TopicId,
    pub partition: i32,
    pub batch_id: u64,
    pub bytes: Bytes,
}

impl Queue {
    /// An empty queue; `producer_id` is -1 without idempotence. The partitions of records without
    /// a key go around from `sticky_first`.
    pub fn new(
        options: ProducerOptions,
        producer_id: i64,
        producer_epoch: i16,
        sticky_first: usize,
    ) -> Self {
        Self {
            options,
            producer_id,
            producer_epoch,
            topics: BTreeMap::new(),
            buffered_bytes: 0,
            next_batch_id: 0,
            next_number: 0,
            flush_number: 0,
            fatal: None,
            sticky_first,
        }
    }

    /// The settings.
    pub fn options(&self) -> &ProducerOptions {
        &self.options
    }

    /// Takes a record in; `wall_ms` is its timestamp if it has none of its own.
    pub fn push(
        &mut self,
        topic: &str,
        partition: Option<i32>,
        record: ProducerRecord,
        now: Instant,
        wall_ms: i64,
    ) -> Result<(Answer, Wake), ProduceError> {
        if let Some(error) = &self.fatal {
            return Err(error.clone());
        }
        let size = record.size_bytes();
        if size > self.options.request_bytes_max {
            return Err(ProduceError::TooLarge {
                bytes: size,
                bytes_max: self.options.request_bytes_max,
            });
        }
        if self.buffered_bytes + size > self.options.buffer_bytes_max {
            return Err(ProduceError::BufferFull {
                bytes_max: self.options.buffer_bytes_max,
            });
        }
        let (reply, answer) = oneshot::channel();
        let unassigned = Unassigned {
            number: self.next_number,
            came: now,
            partition,
            timestamp: record.timestamp.unwrap_or(wall_ms),
            record,
            reply,
        };
        self.next_number += 1;
        self.buffered_bytes += size;
        if !self.topics.contains_key(topic) {
            self.topics
                .insert(topic.to_owned(), Topic::new(self.sticky_first));
        }
        let entry = self.topics.get_mut(topic).expect("it was put there");
        if entry.partitions.is_empty() {
            entry.unassigned.push_back(unassigned);
            return Ok((answer, Wake::Metadata));
        }
        let wake = self.assign(topic, unassigned);
        Ok((answer, wake))
    }

    /// True if a record of `size` bytes would be taken now.
    pub fn has_room(&self, size: usize) -> bool {
        self.fatal.is_some() || self.buffered_bytes + size <= self.options.buffer_bytes_max
    }

    /// True without any record.
    pub fn is_idle(&self) -> bool {
        self.topics.values().all(|topic| {
            topic.unassigned.is_empty() && topic.partitions.iter().all(Partition::is_idle)
        })
    }

    /// Ends the lingering of everything taken so far; gives the number up to which it goes.
    pub fn flush(&mut self) -> u64 {
        self.flush_number = self.next_number;
        self.flush_number
    }

    /// True when every record with a number below `number` has its outcome.
    pub fn is_flushed(&self, number: u64) -> bool {
        self.topics.values().all(|topic| {
            let oldest = topic.unassigned.front().map(|first| first.number);
            let partitions = topic.partitions.iter();
            let mut all = oldest
                .into_iter()
                .chain(partitions.filter_map(Partition::number_oldest));
            all.all(|oldest| oldest >= number)
        })
    }

    /// Topics whose metadata has to be fetched.
    pub fn stale_topics(&self) -> Vec<String> {
        let stale = self.topics.iter().filter(|(_, topic)| topic.is_stale);
        stale.map(|(name, _)| name.clone()).collect()
    }

    /// Learns partitions and leaders of a topic. A topic in error stays stale; one that can never
    /// be written fails its records at once.
    pub fn on_metadata(&mut self, topic: &TopicMetadata) {
        let Some(entry) = self.topics.get_mut(&topic.name) else {
            return;
        };
        if topic.error.is_error() || topic.partitions.is_empty() {
            if topic.error.is_error() && !crate::client::error::is_retriable(topic.error) {
                let error = ProduceError::Refused {
                    topic: topic.name.clone(),
                    partition: None,
                    reason: topic.error.to_string(),
                    may_be_stored: false,
                };
                self.buffered_bytes -= entry.fail_unassigned(&error);
                entry.is_stale = false;
            }
            return;
        }
        entry.id = topic.topic_id;
        for index in entry.partitions.len()..topic.partitions.len() {
            entry.partitions.push(Partition::new(
                index as i32,
                self.producer_id,
                self.producer_epoch,
            ));
        }
        entry.is_stale = false;
        for known in &topic.partitions {
            let index = usize::try_from(known.partition).unwrap_or(usize::MAX);
            if let Some(partition) = entry.partitions.get_mut(index) {
                partition.leader = known.leader;
                entry.is_stale |= known.leader.is_none() && !partition.is_idle();
            }
        }
        let unassigned = std::mem::take(&mut entry.unassigned);
        for record in unassigned {
            self.assign(&topic.name, record);
        }
    }

    /// Every broker that leads a partition of ours.
    pub fn leaders(&self) -> Vec<i32> {
        let topics = self.topics.values();
        let mut leaders: Vec<i32> = topics
            .flat_map(|topic| topic.partitions.iter().filter_map(|each| each.leader))
            .collect();
        leaders.sort_unstable();
        leaders.dedup();
        leaders
    }

    /// When a request to `leader` has something to carry; in the past means now.
    pub fn ready_at(&self, leader: i32) -> Option<Instant> {
        let partitions = self.topics.values().flat_map(|topic| &topic.partitions);
        partitions
            .filter(|partition| partition.leader == Some(leader))
            .filter_map(|partition| partition.ready_at(&self.options, self.flush_number))
            .min()
    }

    /// The contents of one request to `leader`: at most one batch per partition, within
    /// `request_bytes_max` except for the first batch.
    pub fn take(&mut self, leader: i32, now: Instant) -> Vec<Taken> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        for (name, topic) in &mut self.topics {
            let count = topic.partitions.len();
            let start = topic.next_partition;
            for index in (0..count).map(|step| (start + step) % count) {
                let partition = &mut topic.partitions[index];
                let ready_at = partition.ready_at(&self.options, self.flush_number);
                if partition.leader != Some(leader) || ready_at.is_none_or(|at| at > now) {
                    continue;
                }
                bytes += partition.next_size_bytes();
                if !taken.is_empty() && bytes > self.options.request_bytes_max {
                    topic.next_partition = index;
                    return taken;
                }
                if let Some((batch_id, batch)) = partition.take(&self.options) {
                    taken.push(Taken {
                        topic: name.clone(),
                        topic_id: topic.id,
                        partition: partition.index,
                        batch_id,
                        bytes: batch,
                    });
                }
            }
        }
        taken
    }

    /// Learns what became of a batch.
    pub fn on_outcome(
        &mut self,
        topic: &str,
        partition: i32,
        batch_id: u64,
        outcome: Outcome,
        now: Instant,
    ) {
        let Some(entry) = self.topics.get_mut(topic) else {
            return;
        };
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        let Some(state) = entry.partitions.get_mut(index) else {
            return;
        };
        let verdict = state.on_outcome(topic, batch_id, outcome, &self.options, now);
        entry.is_stale |= verdict.is_leader_stale;
        self.buffered_bytes -= verdict.bytes_freed;
        if let Some(error) = verdict.fatal {
            self.fail_all(&error);
        }
    }

    /// `leader` cannot be reached: its partitions pause, and their topics want new metadata.
    pub fn on_unreachable(&mut self, leader: i32, now: Instant) {
        for topic in self.topics.values_mut() {
            for partition in &mut topic.partitions {
                if partition.leader == Some(leader) && !partition.is_idle() {
                    partition.delay(&self.options, now);
                    topic.is_stale = true;
                }
            }
        }
    }

    /// Fails what has waited longer than the delivery timeout.
    pub fn expire(&mut self, now: Instant) {
        for (name, topic) in &mut self.topics {
            for partition in &mut topic.partitions {
                self.buffered_bytes -= partition.expire(name, &self.options, now);
            }
            while let Some(first) = topic.unassigned.front()
                && first.came + self.options.delivery_timeout <= now
            {
                let first = topic.unassigned.pop_front().expect("it was there just now");
                self.buffered_bytes -= first.record.size_bytes();
                let _ = first.reply.send(Err(ProduceError::TimedOut {
                    topic: name.clone(),
                    partition: first.partition,
                    after: self.options.delivery_timeout,
                }));
            }
        }
    }

    /// When [`Queue::expire`] has something to do.
    pub fn expires_at(&self, now: Instant) -> Option<Instant> {
        let topics = self.topics.values();
        let unassigned = topics.clone().filter_map(|topic| {
            let first = topic.unassigned.front()?;
            Some(first.came + self.options.delivery_timeout)
        });
        let partitions = topics.flat_map(|topic| &topic.partitions);
        unassigned
            .chain(partitions.filter_map(|partition| partition.expires_at(&self.options, now)))
            .min()
    }

    /// Fails everything, now and in future.
    pub fn fail_all(&mut self, error: &ProduceError) {
        for topic in self.topics.values_mut() {
            topic.fail_unassigned(error);
            for partition in &mut topic.partitions {
                partition.fail_all(error);
            }
        }
        self.buffered_bytes = 0;
        self.fatal = Some(error.clone());
    }

    /// Puts a record into a batch of its partition. The topic's partitions are known.
    fn assign(&mut self, topic: &str, item: Unassigned) -> Wake {
        let entry = self.topics.get_mut(topic).expect("the caller found it");
        let count = entry.partitions.len();
        let index = match (item.partition, &item.record.key) {
            (Some(partition), _) => usize::try_from(partition).unwrap_or(usize::MAX),
            (None, Some(key)) => partition_of_key(key, count as i32) as usize,
            (None, None) => entry.sticky_for(&item.record, &self.options),
        };
        let Some(partition) = entry.partitions.get_mut(index) else {
            self.buffered_bytes -= item.record.size_bytes();
            let _ = item.reply.send(Err(ProduceError::Refused {
                topic: topic.to_owned(),
                partition: item.partition,
                reason: format!("the topic has {count} partitions, numbered from 0"),
                may_be_stored: false,
            }));
            return Wake::Nobody;
        };
        let is_joining = partition
            .waiting
            .back()
            .is_some_and(|batch| batch.has_room(&item.record, &self.options));
        if !is_joining {
            if let Some(full) = partition.waiting.back_mut() {
                full.is_sealed = true;
            }
            let codec = self.options.compression;
            let batch = Batch::new(self.next_batch_id, item.number, item.came, codec);
            self.next_batch_id += 1;
            partition.waiting.push_back(batch);
        }
        let batch = partition.waiting.back_mut().expect("one has room");
        batch.push(&item.record, item.timestamp, item.reply);
        match partition.leader {
            None => {
                entry.is_stale = true;
                Wake::Metadata
            }
            Some(leader) if !is_joining => Wake::Leader(leader),
            Some(_) => Wake::Nobody,
        }
    }
}

impl Topic {
    fn new(sticky: usize) -> Self {
        Self {
            id: TopicId::ZERO,
            partitions: Vec::new(),
            unassigned: VecDeque::new(),
            sticky,
            is_stale: true,
            next_partition: 0,
        }
    }

    /// The partition of a record without a key: the same until its batch is full or gone, then the
    /// next one, so that batches fill and the load still spreads.
    fn sticky_for(&mut self, record: &ProducerRecord, options: &ProducerOptions) -> usize {
        let count = self.partitions.len();
        let batch = self.partitions[self.sticky % count].waiting.back();
        if !batch.is_some_and(|batch| batch.has_room(record, options)) {
            self.sticky = (self.sticky + 1) % count;
        }
        self.sticky % count
    }

    /// Fails the records that wait for metadata; gives the bytes that are free.
    fn fail_unassigned(&mut self, error: &ProduceError) -> usize {
        let mut bytes_freed = 0;
        for first in self.unassigned.drain(..) {
            bytes_freed += first.record.size_bytes();
            let _ = first.reply.send(Err(error.clone()));
        }
        bytes_freed
    }
}
