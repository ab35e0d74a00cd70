//! Answers that are ready but must not be given yet, by what they wait for. A plain value: no
//! sockets, no files.

use crate::api::job::{Answer, Return};
use crate::base::{Few, Offset, PartitionKey};
use std::collections::{BTreeMap, VecDeque};

/// One answer that waits.
#[derive(Debug)]
struct Parked {
    /// Released when the log is durable up to here (exclusive).
    offset_end: Offset,
    to: Return,
    answer: Answer,
}

/// All answers of one shard that wait.
#[derive(Debug, Default)]
pub struct Waiting {
    written: BTreeMap<PartitionKey, Few<(Return, Answer)>>,
    /// Not sorted by offset: a duplicate waits for its original, which lies further back.
    acknowledged: BTreeMap<PartitionKey, Few<Parked>>,
    published: VecDeque<(u64, Return, Answer)>,
}

impl Waiting {
    /// Parks an answer until the partition's queued writes are done.
    pub fn until_written(&mut self, key: PartitionKey, to: Return, answer: Answer) {
        self.written.entry(key).or_default().push((to, answer));
    }

    /// Parks an answer until the partition's log is durable up to `offset_end`.
    pub fn until_acknowledged(
        &mut self,
        key: PartitionKey,
        offset_end: Offset,
        to: Return,
        answer: Answer,
    ) {
        let parked = Parked {
            offset_end,
            to,
            answer,
        };
        self.acknowledged.entry(key).or_default().push(parked);
    }

    /// Parks an answer until every shard works with this version of the catalog.
    pub fn until_published(&mut self, version: u64, to: Return, answer: Answer) {
        self.published.push_back((version, to, answer));
    }

    /// Takes out what waited for the partition's writes.
    pub fn take_written(&mut self, key: PartitionKey) -> Few<(Return, Answer)> {
        self.written.remove(&key).unwrap_or_default()
    }

    /// Takes out what waited for the partition's log to be durable up to `offset`, in the order of
    /// parking.
    pub fn take_acknowledged(
        &mut self,
        key: PartitionKey,
        offset: Offset,
    ) -> Few<(Return, Answer)> {
        let mut released = Few::new();
        let Some(parked) = self.acknowledged.get_mut(&key) else {
            return released;
        };
        for entry in std::mem::take(parked) {
            match entry.offset_end <= offset {
                true => released.push((entry.to, entry.answer)),
                false => parked.push(entry),
            }
        }
        if parked.is_empty() {
            self.acknowledged.remove(&key);
        }
        released
    }

    /// Takes out what waits for more than is written, because the rest cannot be.
    pub fn take_unwritten(&mut self, key: PartitionKey, written: Offset) -> Few<(Return, Answer)> {
        let mut unwritten = self.take_written(key);
        let Some(parked) = self.acknowledged.get_mut(&key) else {
            return unwritten;
        };
        for entry in std::mem::take(parked) {
            match entry.offset_end > written {
                true => unwritten.push((entry.to, entry.answer)),
                false => parked.push(entry),
            }
        }
        if parked.is_empty() {
            self.acknowledged.remove(&key);
        }
        unwritten
    }

    /// Takes out what waited for the catalog to be at `version` everywhere.
    pub fn take_published(&mut self, version: u64) -> Vec<(Return, Answer)> {
        let released = self
            .published
            .iter()
            .take_while(|(v, ..)| *v <= version)
            .count();
        self.published
            .drain(..released)
            .map(|(_, to, answer)| (to, answer))
            .collect()
    }

    /// Takes out everything that waits for this partition: it failed or was deleted.
    pub fn take_all(&mut self, key: PartitionKey) -> Few<(Return, Answer)> {
        let mut all = self.take_written(key);
        all.extend(self.take_acknowledged(key, Offset::MAX));
        all
    }

    /// True if somebody waits for this partition to be acknowledged further.
    pub fn wants_acknowledged(&self, key: PartitionKey) -> bool {
        self.acknowledged.contains_key(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ShardId, TopicId};

    const KEY: PartitionKey = PartitionKey {
        topic: TopicId::ZERO,
        partition: 0,
    };

    fn to(call: u64) -> Return {
        Return {
            shard: ShardId(0),
            call,
            slot: 0,
        }
    }

    fn answer() -> Answer {
        Answer::LogDirs(Vec::new())
    }

    fn calls(released: impl IntoIterator<Item = (Return, Answer)>) -> Vec<u64> {
        released.into_iter().map(|(to, _)| to.call).collect()
    }

    #[test]
    fn a_duplicate_is_released_with_its_original_and_order_is_kept() {
        let mut waiting = Waiting::default();
        for (call, offset_end) in [(1, 10), (2, 20), (3, 10), (4, 30)] {
            waiting.until_acknowledged(KEY, offset_end, to(call), answer());
        }
        assert_eq!(calls(waiting.take_acknowledged(KEY, 9)), [0; 0]);
        assert_eq!(calls(waiting.take_acknowledged(KEY, 10)), [1, 3]);
        assert!(waiting.wants_acknowledged(KEY));
        assert_eq!(calls(waiting.take_acknowledged(KEY, 30)), [2, 4]);
        assert!(!waiting.wants_acknowledged(KEY));
    }

    #[test]
    fn a_failed_partition_gives_up_everything() {
        let mut waiting = Waiting::default();
        waiting.until_written(KEY, to(1), answer());
        waiting.until_acknowledged(KEY, 5, to(2), answer());
        let other = PartitionKey {
            partition: 1,
            ..KEY
        };
        waiting.until_written(other, to(3), answer());
        assert_eq!(calls(waiting.take_all(KEY)), [1, 2]);
        assert_eq!(calls(waiting.take_written(other)), [3]);
    }

    #[test]
    fn a_stalled_partition_gives_up_what_is_not_written() {
        let mut waiting = Waiting::default();
        waiting.until_written(KEY, to(1), answer());
        for (call, offset_end) in [(2, 10), (3, 20), (4, 10)] {
            waiting.until_acknowledged(KEY, offset_end, to(call), answer());
        }
        assert_eq!(calls(waiting.take_unwritten(KEY, 10)), [1, 3]);
        assert_eq!(calls(waiting.take_acknowledged(KEY, 10)), [2, 4]);
        assert_eq!(calls(waiting.take_unwritten(KEY, 0)), [0; 0]);
    }

    #[test]
    fn publications_are_released_up_to_their_version() {
        let mut waiting = Waiting::default();
        for version in [3, 3, 4] {
            waiting.until_published(version, to(version), answer());
        }
        assert_eq!(calls(waiting.take_published(2)), [0; 0]);
        assert_eq!(calls(waiting.take_published(3)), [3, 3]);
        assert_eq!(calls(waiting.take_published(9)), [4]);
    }
}
