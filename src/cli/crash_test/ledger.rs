//! What was promised and what is there: every record sent, its outcome, every record read back,
//! every commit. Pure bookkeeping; [`super::load`] fills in the promises, [`super::check`] what is
//! there.
//!
//! Invariant: an outcome that nobody knows (a timeout, an error that may have come after the
//! append) promises nothing: such a record may be there once, or not at all.

use super::topics::Topics;
use crate::base::Offset;
use crate::base::prng::Prng;
use crate::client::TopicPartition;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Faults that are told in words; further ones are only counted.
const FAULTS_TOLD_MAX: usize = 20;

/// Longest filling of a record, in bytes.
const FILLING_BYTES_MAX: u64 = 600;

/// A record by who sent it and its number there. Its contents follow from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordId {
    /// Number of the producer.
    pub producer: u32,
    /// Number of the record, in the order of sending.
    pub number: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.producer, self.number)
    }
}

impl RecordId {
    /// The whole value of the record: its id, then bytes that no other record has.
    pub fn value(self) -> Vec<u8> {
        let mut prng = Prng::new((u64::from(self.producer) << 40) ^ self.number);
        let mut value = format!("{self}:").into_bytes();
        let length = value.len() + prng.below(FILLING_BYTES_MAX) as usize;
        while value.len() < length {
            value.extend(prng.next_u64().to_le_bytes());
        }
        value
    }

    /// The record with this value; `None` if no record has it.
    pub fn of_value(value: &[u8]) -> Option<Self> {
        let mut parts = value.splitn(3, |byte| *byte == b':');
        let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
        let id = Self {
            producer: u32::try_from(number()?).ok()?,
            number: number()?,
        };
        (id.value() == value).then_some(id)
    }
}

/// What a promise to keep a record was made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The answer to its producer.
    Acknowledged,
    /// A consumer was given it.
    Delivered,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acknowledged => "acknowledged",
            Self::Delivered => "given to a consumer",
        })
    }
}

/// Counts of one run. Everything below `unacknowledged_found` is a fault, but for the topics made
/// and deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Records handed to an idempotent producer with acks=all.
    pub sent: u64,
    /// Of these, acknowledged.
    pub acknowledged: u64,
    /// Of these, with an outcome that nobody knows.
    pub unknown: u64,
    /// Records read back.
    pub found: u64,
    /// Records that were read back and had not been acknowledged, which is allowed.
    pub unacknowledged_found: u64,
    /// Records that were promised and are not there.
    pub lost: u64,
    /// Records that are there a second time.
    pub duplicated: u64,
    /// Records that are behind a later one of the same producer.
    pub out_of_order: u64,
    /// Records that are not where, or not what, they were before.
    pub changed: u64,
    /// Committed offsets that went back.
    pub commits_back: u64,
    /// Records that the broker refused for good, though nothing was wrong with them.
    pub refused: u64,
    /// Topics that were made while others came and went.
    pub topics_made: u64,
    /// Topics that were deleted.
    pub topics_deleted: u64,
    /// Topics that are back, or gone, though they were deleted, or made; and such that hold records
    /// of an earlier one.
    pub topics_wrong: u64,
}

impl Counts {
    /// Faults of all kinds.
    pub fn faults(&self) -> u64 {
        self.lost
            + self.duplicated
            + self.out_of_order
            + self.changed
            + self.commits_back
            + self.refused
            + self.topics_wrong
    }
}

/// One partition.
#[derive(Debug, Default)]
struct Book {
    /// What was read, by offset: offsets are dense and begin at 0.
    read: Vec<RecordId>,
    /// Promised and not read yet.
    promised: BTreeMap<Offset, (RecordId, Promise)>,
    /// Number of the last record read, by producer.
    newest: BTreeMap<u32, u64>,
    /// Largest offset whose commit was acknowledged, or that was read back as committed.
    committed: Offset,
}

/// The books of all partitions.
#[derive(Debug, Default)]
pub struct Ledger {
    books: BTreeMap<TopicPartition, Book>,
    found: BTreeSet<RecordId>,
    acknowledged: BTreeSet<RecordId>,
    /// What was counted so far.
    pub counts: Counts,
    /// The first faults, a sentence each.
    pub faults: Vec<String>,
}

impl Ledger {
    /// A record was handed to its producer.
    pub fn on_sent(&mut self) {
        self.counts.sent += 1;
    }

    /// A producer heard that its record is stored. An answer that does not say where (-1) promises
    /// nothing that could be checked, and counts as unknown.
    pub fn on_acknowledged(&mut self, at: &TopicPartition, offset: Offset, id: RecordId) {
        if offset < 0 {
            return self.on_unknown();
        }
        self.counts.acknowledged += 1;
        self.acknowledged.insert(id);
        self.promise(at, offset, id, Promise::Acknowledged);
    }

    /// A producer does not know what became of its record.
    pub fn on_unknown(&mut self) {
        self.counts.unknown += 1;
    }

    /// A producer was refused for good.
    pub fn on_refused(&mut self, id: RecordId, why: &str) {
        self.counts.refused += 1;
        self.fault(format!("record {id} was refused: {why}"));
    }

    /// A consumer of the group was given this value.
    pub fn on_delivered(&mut self, at: &TopicPartition, offset: Offset, value: &[u8]) {
        match RecordId::of_value(value) {
            Some(id) => self.promise(at, offset, id, Promise::Delivered),
            None => self.on_damaged(at, offset),
        }
    }

    fn promise(&mut self, at: &TopicPartition, offset: Offset, id: RecordId, by: Promise) {
        let book = self.books.entry(at.clone()).or_default();
        let known = match book.read.get(offset as usize) {
            Some(known) => Some(*known),
            None => {
                let promised = book.promised.entry(offset).or_insert((id, by));
                Some(promised.0)
            }
        };
        if known != Some(id) {
            self.on_changed(at, offset, id, known);
        }
    }

    /// The offset from which a partition was not read yet.
    pub fn unread_from(&self, at: &TopicPartition) -> Offset {
        self.books.get(at).map_or(0, |book| book.read.len() as i64)
    }

    /// A record was read back. Records are given in the order of their offsets, from
    /// [`Ledger::unread_from`]; what was read before is compared with what it was then.
    pub fn on_read(&mut self, at: &TopicPartition, offset: Offset, value: &[u8]) {
        let Some(id) = RecordId::of_value(value) else {
            return self.on_damaged(at, offset);
        };
        let book = self.books.entry(at.clone()).or_default();
        if let Some(before) = book.read.get(offset as usize).copied() {
            if before != id {
                self.on_changed(at, offset, id, Some(before));
            }
            return;
        }
        if offset != book.read.len() as i64 {
            let expected = book.read.len();
            self.counts.changed += 1;
            return self.fault(format!(
                "{at}: offset {expected} is skipped, {offset} follows"
            ));
        }
        book.read.push(id);
        let promised = book.promised.remove(&offset).map(|(promised, _)| promised);
        let last = book.newest.insert(id.producer, id.number);
        if promised.is_some_and(|promised| promised != id) {
            self.on_changed(at, offset, id, promised);
        }
        if !self.found.insert(id) {
            self.counts.duplicated += 1;
            self.fault(format!(
                "{at}: record {id} is there again at offset {offset}"
            ));
        } else if last.is_some_and(|last| last > id.number) {
            self.counts.out_of_order += 1;
            self.fault(format!(
                "{at}: record {id} at offset {offset} follows a later one"
            ));
        }
        self.counts.found += 1;
        if !self.acknowledged.contains(&id) {
            self.counts.unacknowledged_found += 1;
        }
    }

    /// Everything below `end` was read, and the partition ends there: what was promised beyond is
    /// lost.
    pub fn on_end(&mut self, at: &TopicPartition, end: Offset) {
        let book = self.books.entry(at.clone()).or_default();
        let vanished = book
            .read
            .split_off(book.read.len().min(end.max(0) as usize));
        let vanished = (end..).zip(vanished);
        let vanished = vanished.map(|(offset, id)| (offset, id, Promise::Delivered));
        let unread = std::mem::take(&mut book.promised).into_iter();
        let unread = unread.map(|(offset, (id, by))| (offset, id, by));
        let lost: Vec<_> = vanished.chain(unread).collect();
        for (offset, id, by) in lost {
            self.counts.lost += 1;
            self.fault(format!(
                "{at}: record {id}, {by} at offset {offset}, is lost; the log ends at {end}"
            ));
        }
    }

    /// The group heard that this offset is committed.
    pub fn on_committed(&mut self, at: &TopicPartition, offset: Offset) {
        let book = self.books.entry(at.clone()).or_default();
        book.committed = book.committed.max(offset);
    }

    /// What must be committed, by what was heard until now.
    pub fn committed(&self) -> BTreeMap<TopicPartition, Offset> {
        let books = self.books.iter();
        books
            .map(|(at, book)| (at.clone(), book.committed))
            .collect()
    }

    /// The broker says that this offset is committed (0 for none), where `expected` or more was
    /// when it was asked.
    pub fn on_committed_read(&mut self, at: &TopicPartition, expected: Offset, offset: Offset) {
        if offset < expected {
            self.counts.commits_back += 1;
            self.fault(format!(
                "{at}: the group's offset went back from {expected} to {offset}"
            ));
        }
        self.on_committed(at, offset);
    }

    /// So many acknowledged records of a topic that comes and goes are not there.
    pub fn on_turnover(&mut self, name: &str, lost: u64) {
        self.counts.lost += lost;
        if lost > 0 {
            self.fault(format!("{name}: {lost} acknowledged records are lost"));
        }
    }

    /// Takes over what is known of such topics.
    pub fn on_topics(&mut self, topics: &mut Topics) {
        (self.counts.topics_made, self.counts.topics_deleted) = (topics.made, topics.deleted);
        for why in std::mem::take(&mut topics.wrong) {
            self.counts.topics_wrong += 1;
            self.fault(why);
        }
    }

    /// Something is wrong that has no count of its own; `why` is a sentence.
    pub fn fault(&mut self, why: String) {
        if self.faults.len() < FAULTS_TOLD_MAX {
            self.faults.push(why);
        }
    }

    fn on_damaged(&mut self, at: &TopicPartition, offset: Offset) {
        self.counts.changed += 1;
        self.fault(format!("{at}: nobody sent what is at offset {offset}"));
    }

    fn on_changed(
        &mut self,
        at: &TopicPartition,
        offset: Offset,
        id: RecordId,
        before: Option<RecordId>,
    ) {
        let before = before.map_or_else(|| "nothing".to_owned(), |before| before.to_string());
        self.counts.changed += 1;
        self.fault(format!(
            "{at}: offset {offset} holds record {id}, and held {before} before"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: RecordId = RecordId {
        producer: 7,
        number: 1,
    };
    const TWO: RecordId = RecordId {
        producer: 7,
        number: 2,
    };

    fn at() -> TopicPartition {
        TopicPartition::new("orders", 0)
    }

    /// A ledger in which both records were acknowledged and read.
    fn read() -> Ledger {
        let mut ledger = Ledger::default();
        for (offset, id) in [(0, ONE), (1, TWO)] {
            ledger.on_sent();
            ledger.on_acknowledged(&at(), offset, id);
            ledger.on_delivered(&at(), offset, &id.value());
            ledger.on_read(&at(), offset, &id.value());
        }
        ledger.on_end(&at(), 2);
        assert_eq!(ledger.counts.faults(), 0, "{:?}", ledger.faults);
        ledger
    }

    #[test]
    fn values_tell_their_record_and_every_change() {
        for number in 0..50 {
            let id = RecordId {
                producer: 3,
                number,
            };
            let value = id.value();
            assert_eq!(RecordId::of_value(&value), Some(id));
            assert_eq!(RecordId::of_value(&value[..value.len() - 1]), None);
            let mut damaged = value.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(RecordId::of_value(&damaged), None);
        }
        assert_eq!(RecordId::of_value(b""), None);
    }

    #[test]
    fn what_was_promised_and_is_beyond_the_end_is_lost() {
        let mut ledger = Ledger::default();
        ledger.on_acknowledged(&at(), 0, ONE);
        ledger.on_delivered(&at(), 1, &TWO.value());
        ledger.on_unknown();
        ledger.on_end(&at(), 0);
        assert_eq!(ledger.counts.lost, 2);
        ledger.on_end(&at(), 0);
        assert_eq!(ledger.counts.lost, 2, "once each");
        // Also what was there at an earlier look.
        let mut ledger = read();
        ledger.on_end(&at(), 1);
        assert_eq!((ledger.counts.lost, ledger.unread_from(&at())), (1, 1));
    }

    #[test]
    fn a_record_that_is_there_again_is_doubled() {
        let mut ledger = read();
        ledger.on_read(&at(), 2, &ONE.value());
        ledger.on_read(&TopicPartition::new("orders", 1), 0, &TWO.value());
        assert_eq!((ledger.counts.duplicated, ledger.counts.faults()), (2, 2));
    }

    #[test]
    fn records_of_one_producer_stay_in_order() {
        let mut ledger = Ledger::default();
        ledger.on_read(&at(), 0, &TWO.value());
        ledger.on_read(&at(), 1, &ONE.value());
        assert_eq!((ledger.counts.out_of_order, ledger.counts.faults()), (1, 1));
        assert_eq!(ledger.counts.unacknowledged_found, 2);
    }

    #[test]
    fn one_offset_holds_one_record_for_ever() {
        let mut ledger = read();
        ledger.on_acknowledged(&at(), 0, TWO);
        ledger.on_delivered(&at(), 1, &ONE.value());
        ledger.on_read(&at(), 1, &ONE.value());
        ledger.on_read(&at(), 0, b"7:1:something else");
        ledger.on_acknowledged(&at(), 2, ONE);
        ledger.on_acknowledged(&at(), 2, TWO);
        ledger.on_read(&at(), 3, &ONE.value());
        assert_eq!((ledger.counts.changed, ledger.counts.faults()), (6, 6));
        assert_eq!(ledger.faults.len(), 6);
    }

    #[test]
    fn committed_offsets_do_not_go_back() {
        let mut ledger = Ledger::default();
        ledger.on_committed(&at(), 5);
        ledger.on_committed_read(&at(), 5, 7);
        assert_eq!(ledger.committed()[&at()], 7);
        assert_eq!(ledger.counts.commits_back, 0);
        ledger.on_committed_read(&at(), 7, 6);
        assert_eq!(ledger.counts.commits_back, 1);
    }
}
