//! What the broker has promised and what came back, per partition. Pure bookkeeping: the load tells
//! it what it hears, and it says what is wrong.
//!
//! Invariant: an outcome that nobody knows (a timeout) promises nothing. Memory follows what is
//! acknowledged and not read yet, and a window of what was read.

use std::collections::BTreeMap;

/// Places that are remembered after they were read, per partition: an acknowledgement can come
/// later than the record.
const READ_KEPT: usize = 50_000;

/// Faults that are told in words; further ones are only counted.
const FAULTS_TOLD_MAX: usize = 20;

/// The books of all partitions.
#[derive(Debug, Default)]
pub struct Ledger {
    partitions: BTreeMap<i32, Partition>,
    /// Records acknowledged.
    pub acked: u64,
    /// Records read by the group for the first time.
    pub read: u64,
    /// Records that the group has read again, as at-least-once delivery allows.
    pub read_again: u64,
    /// Things that must not happen.
    pub faults: u64,
    /// The first of them, in words.
    pub told: Vec<String>,
}

#[derive(Debug, Default)]
struct Partition {
    /// Acknowledged and not read: number of the record by offset.
    unread: BTreeMap<i64, u64>,
    /// The same for the last that were read.
    read: BTreeMap<i64, u64>,
    /// Where the group has come to: offset and number of the last record.
    last: Option<(i64, u64)>,
    /// The last position that the group has committed.
    committed: i64,
}

impl Ledger {
    /// A record was acknowledged at this offset.
    pub fn on_acked(&mut self, partition: i32, offset: i64, number: u64) {
        self.acked += 1;
        let books = self.partitions.entry(partition).or_default();
        let passed = books.last.is_some_and(|(last, _)| offset <= last);
        if !passed {
            books.unread.insert(offset, number);
            return;
        }
        let oldest = books.read.keys().next().copied();
        match books.read.get(&offset) {
            Some(found) if *found == number => {}
            None if oldest.is_none_or(|oldest| offset < oldest) => {}
            found => {
                let what = format!(
                    "{partition}@{offset}: record {number} was acknowledged, {found:?} was read"
                );
                self.fault(what);
            }
        }
    }

    /// The group was given a record; `number` is missing if its contents make no sense.
    pub fn on_read(&mut self, partition: i32, offset: i64, number: Option<u64>) {
        let Some(number) = number else {
            return self.fault(format!("{partition}@{offset}: the record is damaged"));
        };
        let books = self.partitions.entry(partition).or_default();
        let mut faults = Vec::new();
        if books.last.is_some_and(|(last, _)| offset <= last) {
            self.read_again += 1;
            if books
                .read
                .get(&offset)
                .is_some_and(|found| *found != number)
            {
                faults.push(format!(
                    "{partition}@{offset}: read {number}, and another before"
                ));
            }
        } else {
            self.read += 1;
            if let Some((last, before)) = books.last {
                if offset > last + 1 {
                    faults.push(format!(
                        "{partition}: offsets {} to {offset} are missing",
                        last + 1
                    ));
                }
                if number <= before {
                    faults.push(format!(
                        "{partition}@{offset}: {number} comes after {before}"
                    ));
                }
            }
            books.last = Some((offset, number));
            let behind = books.unread.split_off(&(offset + 1));
            for (at, acked) in std::mem::replace(&mut books.unread, behind) {
                if (at, acked) != (offset, number) {
                    faults.push(format!("{partition}@{at}: record {acked} is lost"));
                }
            }
            books.read.insert(offset, number);
            if books.read.len() > READ_KEPT {
                books.read.pop_first();
            }
        }
        for fault in faults {
            self.fault(fault);
        }
    }

    /// The group has committed a position.
    pub fn on_committed(&mut self, partition: i32, offset: i64) {
        let books = self.partitions.entry(partition).or_default();
        books.committed = books.committed.max(offset);
    }

    /// The last position that is known to be committed.
    pub fn committed(&self, partition: i32) -> i64 {
        self.partitions
            .get(&partition)
            .map_or(0, |books| books.committed)
    }

    /// The broker says what the group has committed; at least `promised` was, when it was asked.
    pub fn on_committed_read(&mut self, partition: i32, promised: i64, offset: i64) {
        if offset < promised {
            self.fault(format!(
                "{partition}: the committed position is {offset} and was {promised}"
            ));
        }
    }

    /// Acknowledged records that the group has not read yet.
    pub fn unread(&self) -> usize {
        self.partitions
            .values()
            .map(|books| books.unread.len())
            .sum()
    }

    /// Something must not have happened.
    pub fn fault(&mut self, what: String) {
        self.faults += 1;
        if self.told.len() < FAULTS_TOLD_MAX {
            self.told.push(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(happened: impl Fn(&mut Ledger)) -> Vec<String> {
        let mut ledger = Ledger::default();
        happened(&mut ledger);
        assert_eq!(ledger.faults as usize, ledger.told.len());
        ledger.told
    }

    #[test]
    fn a_good_course_has_no_faults() {
        let told = after(|ledger| {
            ledger.on_acked(0, 0, 1);
            ledger.on_read(0, 0, Some(1));
            // Read before it was acknowledged, and a record without outcome between.
            ledger.on_read(0, 1, Some(2));
            ledger.on_read(0, 2, Some(4));
            ledger.on_acked(0, 1, 2);
            // After a rebalance, from the committed position.
            ledger.on_read(0, 1, Some(2));
            ledger.on_read(0, 2, Some(4));
            ledger.on_committed(0, 3);
            ledger.on_committed_read(0, 3, 3);
            assert_eq!((ledger.read, ledger.read_again, ledger.unread()), (3, 2, 0));
        });
        assert_eq!(told, Vec::<String>::new());
    }

    #[test]
    fn what_is_lost_is_told() {
        let lost = after(|ledger| {
            ledger.on_read(0, 0, Some(1));
            ledger.on_acked(0, 1, 2);
            ledger.on_read(0, 2, Some(3));
        });
        assert_eq!(lost.len(), 2, "the gap and the record: {lost:?}");
        let other = after(|ledger| {
            ledger.on_acked(0, 0, 1);
            ledger.on_read(0, 0, Some(2));
        });
        assert_eq!(other, ["0@0: record 1 is lost"]);
        let late = after(|ledger| {
            ledger.on_read(0, 0, Some(2));
            ledger.on_acked(0, 0, 1);
        });
        assert_eq!(late.len(), 1);
    }

    #[test]
    fn what_is_doubled_or_changed_is_told() {
        let doubled = after(|ledger| {
            ledger.on_read(0, 0, Some(1));
            ledger.on_read(0, 1, Some(1));
        });
        assert_eq!(doubled, ["0@1: 1 comes after 1"]);
        let changed = after(|ledger| {
            ledger.on_read(0, 0, Some(1));
            ledger.on_read(0, 0, Some(2));
        });
        assert_eq!(changed, ["0@0: read 2, and another before"]);
        assert_eq!(after(|ledger| ledger.on_read(0, 0, None)).len(), 1);
    }

    #[test]
    fn a_commit_that_goes_back_is_told() {
        let back = after(|ledger| {
            ledger.on_committed(2, 9);
            ledger.on_committed_read(2, ledger.committed(2), 8);
        });
        assert_eq!(back, ["2: the committed position is 8 and was 9"]);
    }
}
