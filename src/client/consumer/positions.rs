//! Where a consumer is in each of its partitions, without IO: what to fetch next, what has come
//! and waits to be taken, what is paused.
//!
//! Invariants: records of a partition come out in offset order, each once per position; what was
//! fetched before a seek, or before the partition was given away, is never handed out (the token
//! tells); no partition holds more than about twice its fetch limit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::Instant;

use super::chunk::Chunk;
use super::{ConsumedRecord, ConsumerOptions, Start, TopicPartition};
use crate::base::{Epoch, Offset, TopicId};
use crate::batch::BatchError;
use crate::client::metadata::TopicMetadata;

/// All partitions of one consumer.
#[derive(Debug, Default)]
pub(super) struct Positions {
    partitions: BTreeMap<TopicPartition, Partition>,
    next_token: u64,
    /// The partition whose records came out last; the next one is served first.
    served: Option<TopicPartition>,
}

#[derive(Debug)]
struct Partition {
    token: u64,
    place: Place,
    /// Everything before it was taken and, by the next call, worked on.
    processed: Option<Offset>,
    is_paused: bool,
    /// The user knows that it is assigned; before, nothing is fetched.
    is_active: bool,
    leader: Option<Leader>,
    retry_at: Option<Instant>,
    buffered: VecDeque<Chunk>,
    buffered_bytes: usize,
}

#[derive(Clone, Debug)]
enum Place {
    /// To be found out.
    Unknown(Start),
    At {
        /// The next record to hand out.
        position: Offset,
        /// The next record to fetch.
        fetch: Offset,
    },
    /// Cannot be found out; waits for a seek.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Leader {
    node_id: i32,
    epoch: Epoch,
    topic_id: TopicId,
}

/// What to ask of one broker.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub partitions: Vec<Planned>,
    /// A partition was left out because its buffer is full: the broker must not be waited for,
    /// or its records come late.
    pub has_full: bool,
}

/// One partition to fetch.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub partition: TopicPartition,
    pub token: u64,
    pub topic_id: TopicId,
    pub offset: Offset,
    pub leader_epoch: Epoch,
}

/// Records of one partition, on their way to the user.
#[derive(Debug)]
pub(super) struct Taken {
    pub partition: TopicPartition,
    pub records: Vec<ConsumedRecord>,
    pub high_watermark: Offset,
}

/// A batch that cannot be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub partition: TopicPartition,
    pub offset: Offset,
    pub error: BatchError,
}

impl Positions {
    /// Adds a partition, inactive. One that is there already starts anew.
    pub fn assign(&mut self, partition: TopicPartition, start: Start) {
        let token = self.token();
        self.partitions.insert(
            partition,
            Partition {
                token,
                place: place_for(start),
                processed: None,
                is_paused: false,
                is_active: false,
                leader: None,
                retry_at: None,
                buffered: VecDeque::new(),
                buffered_bytes: 0,
            },
        );
    }

    /// The user has been told of these.
    pub fn activate(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if let Some(state) = self.partitions.get_mut(partition) {
                state.is_active = true;
            }
        }
    }

    /// Nothing of these is handed out any more.
    pub fn deactivate(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if let Some(state) = self.partitions.get_mut(partition) {
                state.is_active = false;
            }
        }
    }

    /// Gives partitions away.
    pub fn remove(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }

    /// All partitions.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.partitions.keys().cloned().collect()
    }

    /// The next record to hand out, if it is known.
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        match self.partitions.get(partition)?.place {
            Place::At { position, .. } => Some(position),
            Place::Unknown(_) | Place::Lost => None,
        }
    }

    /// Stops or resumes a partition; true if it is ours.
    pub fn set_paused(&mut self, partition: &TopicPartition, is_paused: bool) -> bool {
        let state = self.partitions.get_mut(partition);
        state.map(|state| state.is_paused = is_paused).is_some()
    }

    /// Moves a partition; true if it is ours.
    pub fn seek(&mut self, partition: &TopicPartition, start: Start) -> bool {
        let token = self.token();
        let Some(state) = self.partitions.get_mut(partition) else {
            return false;
        };
        state.token = token;
        state.place = place_for(start);
        state.retry_at = None;
        state.clear();
        true
    }

    /// Everything handed out so far counts as worked on.
    pub fn acknowledge(&mut self) {
        for state in self.partitions.values_mut() {
            if let Place::At { position, .. } = state.place {
                state.processed = Some(position);
            }
        }
    }

    /// The offset up to which each partition was worked on.
    pub fn processed(&self) -> Vec<(TopicPartition, Offset)> {
        let partitions = self.partitions.iter();
        partitions
            .filter_map(|(partition, state)| Some((partition.clone(), state.processed?)))
            .collect()
    }

    /// Partitions whose position has to be found out.
    pub fn unknown(&self) -> Vec<(TopicPartition, Start, u64)> {
        let active = self.partitions.iter().filter(|(_, state)| state.is_active);
        active
            .filter_map(|(partition, state)| match &state.place {
                Place::Unknown(start) => Some((partition.clone(), *start, state.token)),
                Place::At { .. } | Place::Lost => None,
            })
            .collect()
    }

    /// Learns a position, unless the user has moved the partition since; `None` means that there
    /// is none and the user has been told.
    pub fn on_position(&mut self, partition: &TopicPartition, token: u64, offset: Option<Offset>) {
        if let Some(state) = self.partitions.get_mut(partition)
            && state.token == token
        {
            state.place = offset.map_or(Place::Lost, |offset| place_for(Start::Offset(offset)));
        }
    }

    /// Finds out the position again from `start`, after a step on the way there.
    pub fn on_start(&mut self, partition: &TopicPartition, token: u64, start: Start) {
        if let Some(state) = self.partitions.get_mut(partition)
            && state.token == token
        {
            state.place = place_for(start);
        }
    }

    /// Topics of active partitions without a known leader.
    pub fn leaderless_topics(&self) -> Vec<String> {
        let active = self.partitions.iter().filter(|(_, state)| state.is_active);
        let topics: BTreeSet<&String> = active
            .filter(|(_, state)| state.leader.is_none())
            .map(|(partition, _)| &partition.topic)
            .collect();
        topics.into_iter().cloned().collect()
    }

    /// Learns the leaders of a topic's partitions.
    pub fn on_metadata(&mut self, topic: &TopicMetadata) {
        for known in &topic.partitions {
            let partition = TopicPartition::new(&topic.name, known.partition);
            if let Some(state) = self.partitions.get_mut(&partition) {
                state.leader = known.leader.map(|node_id| Leader {
                    node_id,
                    epoch: known.leader_epoch,
                    topic_id: topic.topic_id,
                });
            }
        }
    }

    /// The leader of a partition has moved or does not answer; it is left alone until `retry_at`.
    pub fn forget_leader(&mut self, partition: &TopicPartition, retry_at: Instant) {
        if let Some(state) = self.partitions.get_mut(partition) {
            state.leader = None;
            state.retry_at = Some(retry_at);
        }
    }

    /// A broker does not answer; its partitions are left alone until `retry_at`.
    pub fn forget_node(&mut self, node_id: i32, retry_at: Instant) {
        for state in self.partitions.values_mut() {
            if state.leader.is_some_and(|leader| leader.node_id == node_id) {
                state.leader = None;
                state.retry_at = Some(retry_at);
            }
        }
    }

    /// The brokers that lead active partitions.
    pub fn leaders(&self) -> BTreeSet<i32> {
        let active = self.partitions.values().filter(|state| state.is_active);
        active
            .filter_map(|state| Some(state.leader?.node_id))
            .collect()
    }

    /// What to ask of a broker now. The partitions rotate by `turn`, so that each comes first:
    /// the broker fills its answer from the front.
    pub fn plan(&self, node_id: i32, options: &ConsumerOptions, turn: usize, now: Instant) -> Plan {
        let total: usize = self
            .partitions
            .values()
            .map(|state| state.buffered_bytes)
            .sum();
        let mut plan = Plan::default();
        for (partition, state) in &self.partitions {
            let Some(leader) = state.leader.filter(|leader| leader.node_id == node_id) else {
                continue;
            };
            let is_waiting = state.retry_at.is_some_and(|at| at > now);
            let Place::At { fetch, .. } = state.place else {
                continue;
            };
            if state.is_paused || !state.is_active || is_waiting {
                continue;
            }
            let is_full = state.buffered_bytes >= options.partition_fetch_bytes_max
                || (state.buffered_bytes > 0 && total >= options.fetch_bytes_max);
            if is_full {
                plan.has_full = true;
                continue;
            }
            plan.partitions.push(Planned {
                partition: partition.clone(),
                token: state.token,
                topic_id: leader.topic_id,
                offset: fetch,
                leader_epoch: leader.epoch,
            });
        }
        let count = plan.partitions.len().max(1);
        plan.partitions.rotate_left(turn % count);
        plan
    }

    /// When a partition of this broker that is left alone may be asked for again.
    pub fn retry_at(&self, node_id: i32) -> Option<Instant> {
        let partitions = self.partitions.values().filter(|state| {
            state.is_active && state.leader.is_some_and(|leader| leader.node_id == node_id)
        });
        partitions.filter_map(|state| state.retry_at).min()
    }

    /// Records came; false if nobody wants them any more. A chunk that ends before what was asked
    /// for brings nothing, and asking again at once would bring it again.
    pub fn on_fetched(
        &mut self,
        planned: &Planned,
        chunk: Option<Chunk>,
        retry_at: Instant,
    ) -> bool {
        let Some(state) = self.partitions.get_mut(&planned.partition) else {
            return false;
        };
        let Place::At { fetch, .. } = &mut state.place else {
            return false;
        };
        if state.token != planned.token || *fetch != planned.offset {
            return false;
        }
        state.retry_at = None;
        let Some(chunk) = chunk else {
            return true;
        };
        if chunk.offset_end <= *fetch {
            state.retry_at = Some(retry_at);
            return true;
        }
        *fetch = chunk.offset_end;
        state.buffered_bytes += chunk.bytes;
        state.buffered.push_back(chunk);
        true
    }

    /// Nothing can be fetched at the position of a partition: go on from `then`, or wait for a
    /// seek. False if that is for later: what waits to be taken is still good and goes first.
    pub fn on_unusable(
        &mut self,
        planned: &Planned,
        then: Option<Start>,
        retry_at: Instant,
    ) -> bool {
        let Some(state) = self.partitions.get_mut(&planned.partition) else {
            return false;
        };
        if state.token != planned.token {
            return false;
        }
        if !state.buffered.is_empty() {
            state.retry_at = Some(retry_at);
            return false;
        }
        state.place = then.map_or(Place::Lost, place_for);
        true
    }

    /// The next records of any partition that is neither paused nor given away, in turn.
    pub fn take(&mut self, count_max: usize) -> Option<Result<Taken, Unreadable>> {
        loop {
            let partition = self.next_served()?;
            let state = self.partitions.get_mut(&partition)?;
            self.served = Some(partition.clone());
            let taken = state.take(&partition, count_max);
            match taken {
                Ok(taken) if taken.records.is_empty() => {}
                taken => return Some(taken),
            }
        }
    }

    fn next_served(&self) -> Option<TopicPartition> {
        use std::ops::Bound::{Excluded, Unbounded};
        let can_serve = |(_, state): &(&TopicPartition, &Partition)| {
            state.is_active && !state.is_paused && !state.buffered.is_empty()
        };
        let later = self.served.as_ref().and_then(|served| {
            let mut later = self.partitions.range((Excluded(served), Unbounded));
            later.find(can_serve)
        });
        let found = later.or_else(|| self.partitions.iter().find(can_serve));
        found.map(|(partition, _)| partition.clone())
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}

impl Partition {
    fn take(&mut self, partition: &TopicPartition, count_max: usize) -> Result<Taken, Unreadable> {
        let mut taken = Taken {
            partition: partition.clone(),
            records: Vec::new(),
            high_watermark: -1,
        };
        let (Some(chunk), Place::At { position, .. }) =
            (self.buffered.front_mut(), &mut self.place)
        else {
            return Ok(taken);
        };
        match chunk.take(*position, count_max) {
            Ok(records) => taken.records = records,
            Err(error) => {
                let offset = *position;
                self.clear();
                self.place = Place::Lost;
                return Err(Unreadable {
                    partition: partition.clone(),
                    offset,
                    error,
                });
            }
        }
        taken.high_watermark = chunk.high_watermark;
        if let Some(last) = taken.records.last() {
            *position = last.offset.saturating_add(1);
        }
        if chunk.is_empty() {
            // Beyond the last record there may be offsets that nobody sees: control records,
            // records that compaction removed.
            *position = (*position).max(chunk.offset_end);
            self.buffered_bytes -= chunk.bytes;
            self.buffered.pop_front();
        }
        Ok(taken)
    }

    fn clear(&mut self) {
        self.buffered.clear();
        self.buffered_bytes = 0;
    }
}

fn place_for(start: Start) -> Place {
    match start {
        Start::Offset(offset) => Place::At {
            position: offset,
            fetch: offset,
        },
        start => Place::Unknown(start),
    }
}
