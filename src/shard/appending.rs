//! What one shard's produce requests have under way in each partition: a count of bytes, and the
//! queue of requests for partitions that have their share. Such a request waits before anything of
//! it is appended, and its connection is not read meanwhile, so the peer's TCP slows down: one hot
//! partition, or one that waits for its disk, leaves the rest of the memory to the others.
//!
//! - A partition takes a request while it has less than its share under way. So it has that share
//!   and one request more at most.
//! - The queue of a partition is served in its order; newcomers wait behind it.
//! - A request for several partitions waits for one full one after the other.
//!
//! Invariant: who waits, waits for a partition with something under way: its end wakes the queue.

use crate::base::{Few, PartitionKey};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Batches of one request: partition and bytes.
pub type Batches = Few<(PartitionKey, usize)>;

/// The partitions that requests of one shard append to.
#[derive(Debug)]
pub struct Appending {
    bytes_max: usize,
    under_way: BTreeMap<PartitionKey, usize>,
    /// Calls that wait, some of which may have ended.
    queues: BTreeMap<PartitionKey, VecDeque<u64>>,
    /// Partitions of which something ended while others waited.
    ready: BTreeSet<PartitionKey>,
}

impl Appending {
    /// Nothing under way; each partition may have `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            under_way: BTreeMap::new(),
            queues: BTreeMap::new(),
            ready: BTreeSet::new(),
        }
    }

    /// True if a new call may append its batches now, which are under way from then on; else it is
    /// in a queue.
    pub fn admits(&mut self, call: u64, batches: &Batches) -> bool {
        let waits = |key: &PartitionKey| self.is_full(key) || self.queues.contains_key(key);
        let full = batches.iter().map(|(key, _)| *key).find(waits);
        self.begin_or_queue(call, batches, full)
    }

    /// The same for a call of [`Appending::take_ready`]: it does not wait behind others once more.
    pub fn admits_ready(&mut self, call: u64, batches: &Batches) -> bool {
        let mut keys = batches.iter().map(|(key, _)| *key);
        let full = keys.find(|key| self.is_full(key));
        self.begin_or_queue(call, batches, full)
    }

    /// These batches are not under way any more.
    pub fn end(&mut self, batches: &Batches) {
        for (key, bytes) in batches {
            if let Some(under_way) = self.under_way.get_mut(key) {
                *under_way -= bytes;
                if *under_way == 0 {
                    self.under_way.remove(key);
                }
            }
            if self.queues.contains_key(key) {
                self.ready.insert(*key);
            }
        }
    }

    /// True if [`Appending::take_ready`] should be asked.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes a call out of its queue that may go on, as far as that partition is concerned.
    pub fn take_ready(&mut self) -> Option<u64> {
        while let Some(key) = self.ready.first().copied() {
            let has_room = !self.is_full(&key);
            match self.queues.get_mut(&key).filter(|_| has_room) {
                Some(queue) => {
                    let call = queue.pop_front();
                    if queue.is_empty() {
                        self.queues.remove(&key);
                    }
                    if call.is_some() {
                        return call;
                    }
                }
                None => drop(self.ready.remove(&key)),
            }
        }
        None
    }

    fn is_full(&self, key: &PartitionKey) -> bool {
        let under_way = self.under_way.get(key).copied();
        under_way.is_some_and(|bytes| bytes >= self.bytes_max)
    }

    fn begin_or_queue(&mut self, call: u64, batches: &Batches, full: Option<PartitionKey>) -> bool {
        if let Some(key) = full {
            self.queues.entry(key).or_default().push_back(call);
            return false;
        }
        for (key, bytes) in batches {
            *self.under_way.entry(*key).or_default() += bytes;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::TopicId;

    fn batch(partition: i32, bytes: usize) -> (PartitionKey, usize) {
        let topic = TopicId::ZERO;
        (PartitionKey { topic, partition }, bytes)
    }

    /// Calls with their batches, as the shard has them.
    struct Table {
        appending: Appending,
        calls: BTreeMap<u64, Batches>,
    }

    impl Table {
        fn new() -> Self {
            Self {
                appending: Appending::new(100),
                calls: BTreeMap::new(),
            }
        }

        fn ask(&mut self, call: u64, batches: &[(PartitionKey, usize)]) -> bool {
            let batches: Batches = batches.iter().copied().collect();
            let admitted = self.appending.admits(call, &batches);
            self.calls.insert(call, batches);
            admitted
        }

        fn finish(&mut self, call: u64) {
            let batches = self.calls.remove(&call).unwrap();
            self.appending.end(&batches);
        }

        /// Ends a call; gives those that go on.
        fn end(&mut self, call: u64) -> Vec<u64> {
            self.finish(call);
            let mut admitted = Vec::new();
            while let Some(next) = self.appending.take_ready() {
                if let Some(batches) = self.calls.get(&next)
                    && self.appending.admits_ready(next, batches)
                {
                    admitted.push(next);
                }
            }
            admitted
        }
    }

    #[test]
    fn a_partition_has_its_share_and_leaves_the_others_alone() {
        let mut table = Table::new();
        assert!(table.ask(1, &[batch(0, 99)]));
        assert!(table.ask(2, &[batch(0, 500)]), "it has less than its share");
        assert!(!table.ask(3, &[batch(0, 1)]));
        assert!(table.ask(4, &[batch(1, 70)]));
        assert_eq!(table.end(1), [0; 0], "500 are still under way");
        assert_eq!(table.end(2), [3]);
        assert_eq!(table.end(3), [0; 0]);
        assert_eq!(table.end(4), [0; 0]);
        assert!(table.appending.under_way.is_empty() && table.appending.queues.is_empty());
    }

    #[test]
    fn a_queue_keeps_its_order_and_newcomers_wait_behind_it() {
        let mut table = Table::new();
        assert!(table.ask(1, &[batch(0, 60)]) && table.ask(2, &[batch(0, 60)]));
        assert!(!table.ask(3, &[batch(0, 90)]) && !table.ask(4, &[batch(0, 90)]));
        assert_eq!(table.end(1), [3]);
        table.finish(2);
        table.finish(3);
        assert!(!table.ask(5, &[batch(0, 1)]), "4 has waited for longer");
        assert!(table.ask(1, &[batch(1, 1)]));
        table.calls.remove(&4);
        assert_eq!(table.end(1), [5], "who has gone holds up nobody");
        assert!(table.ask(6, &[batch(0, 1)]), "nobody waits any more");
    }

    #[test]
    fn several_full_partitions_are_waited_for_one_after_the_other() {
        let mut table = Table::new();
        assert!(table.ask(1, &[batch(0, 100)]) && table.ask(2, &[batch(1, 100)]));
        assert!(!table.ask(3, &[batch(2, 5), batch(0, 5), batch(1, 5)]));
        assert!(
            table.ask(4, &[batch(2, 100)]),
            "nothing of it is under way yet"
        );
        assert_eq!(table.end(1), [0; 0]);
        assert_eq!(table.end(2), [0; 0]);
        assert_eq!(table.end(4), [3]);
    }
}
