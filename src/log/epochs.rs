//! Which leader epoch wrote which offsets: a short list of (epoch, start offset), both strictly
//! rising, stored in Kafka's text form (KIP-101, KIP-320).
//!
//! Invariant: an entry is durable before the first batch of its epoch is. A lost file costs no more
//! than reading the heads of all batches.

use super::files::{EPOCHS_FILE, put_file, read_file};
use crate::base::dir::Dir;
use crate::base::{Epoch, Offset};
use std::collections::BTreeMap;
use std::io;

/// No epoch, no offset: Kafka's `UNDEFINED_EPOCH` and `UNDEFINED_EPOCH_OFFSET`.
const UNDEFINED: (Epoch, Offset) = (-1, -1);
/// Version in the first line of the file.
const VERSION: &str = "0";
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The epochs of one log, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Epochs(Vec<(Epoch, Offset)>);

impl Epochs {
    /// Reads the file; `None` if it is missing or damaged and must be rebuilt from the batches.
    pub fn load(dir: &mut dyn Dir, files: &BTreeMap<String, u64>) -> io::Result<Option<Self>> {
        let contents = read_file(dir, files, EPOCHS_FILE, FILE_BYTES_MAX)?;
        Ok(contents.and_then(|contents| Self::decode(&contents)))
    }

    /// Puts the file in place; waits for the device.
    pub fn store(&self, dir: &mut dyn Dir) -> io::Result<()> {
        dir.replace(EPOCHS_FILE, self.encode().as_bytes())
    }

    /// Puts the first file in place, without waiting for the device.
    pub fn create(&self, dir: &mut dyn Dir) -> io::Result<()> {
        put_file(dir, EPOCHS_FILE, self.encode().as_bytes())
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<Epoch> {
        self.0.last().map(|entry| entry.0)
    }

    /// Notes that `epoch` begins at `offset`, if it is newer than all before. Entries that turned
    /// out to be empty are dropped. True if something changed.
    pub fn assign(&mut self, epoch: Epoch, offset: Offset) -> bool {
        if epoch < 0 || self.latest().is_some_and(|latest| latest >= epoch) {
            return false;
        }
        self.truncate_end(offset);
        self.0.push((epoch, offset));
        true
    }

    /// Forgets epochs that begin at or after `offset`, the new end of the log.
    pub fn truncate_end(&mut self, offset: Offset) {
        self.0.retain(|entry| entry.1 < offset);
    }

    /// Forgets epochs that end at or before `offset`, the new start of the log.
    pub fn truncate_start(&mut self, offset: Offset) {
        let below = self.0.partition_point(|entry| entry.1 <= offset);
        if below == 0 {
            return;
        }
        self.0.drain(..below - 1);
        self.0[0].1 = offset;
    }

    /// The largest epoch that is not above `epoch`, and where it ends; see
    /// [`super::Log::end_offset_for_epoch`].
    pub fn end_offset(&self, epoch: Epoch, log_end_offset: Offset) -> (Epoch, Offset) {
        let above = self.0.partition_point(|entry| entry.0 <= epoch);
        if epoch < 0 {
            return UNDEFINED;
        }
        match (self.0[..above].last(), self.0.get(above)) {
            (Some(&(floor, _)), Some(&(_, next_start))) => (floor, next_start),
            (None, Some(&(_, next_start))) => (epoch, next_start),
            (Some(&(floor, _)), None) if floor == epoch => (epoch, log_end_offset),
            // Newer than any that is known here.
            (_, None) => UNDEFINED,
        }
    }

    /// The epoch that wrote `offset`, -1 if unknown.
    pub fn epoch_at(&self, offset: Offset) -> Epoch {
        let after = self.0.partition_point(|entry| entry.1 <= offset);
        self.0[..after].last().map_or(UNDEFINED.0, |entry| entry.0)
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        for pair in self.0.windows(2) {
            assert!(pair[0].0 < pair[1].0, "epochs rise");
            assert!(pair[0].1 < pair[1].1, "epochs are not empty");
        }
    }

    fn encode(&self) -> String {
        let mut text = format!("{VERSION}\n{}\n", self.0.len());
        for (epoch, offset) in &self.0 {
            text.push_str(&format!("{epoch} {offset}\n"));
        }
        text
    }

    fn decode(contents: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(contents).ok()?.lines();
        if lines.next()? != VERSION {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut epochs = Self::default();
        for line in lines {
            let (epoch, offset) = line.split_once(' ')?;
            epochs.0.push((epoch.parse().ok()?, offset.parse().ok()?));
        }
        let rising = epochs
            .0
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        (rising && epochs.0.len() == count).then_some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(Epoch, Offset)]) -> Epochs {
        Epochs(entries.to_vec())
    }

    #[test]
    fn end_offsets_are_those_of_kafka() {
        let epochs = epochs(&[(2, 10), (4, 30), (7, 50)]);
        for (asked, answer) in [
            (-1, (-1, -1)),
            (0, (0, 10)),
            (2, (2, 30)),
            (3, (2, 30)),
            (4, (4, 50)),
            (6, (4, 50)),
            (7, (7, 90)),
            (8, (-1, -1)),
        ] {
            assert_eq!(epochs.end_offset(asked, 90), answer, "epoch {asked}");
        }
        assert_eq!(Epochs::default().end_offset(0, 0), (-1, -1));
        assert_eq!(
            [9, 10, 29, 30, 1000].map(|offset| epochs.epoch_at(offset)),
            [-1, 2, 2, 4, 7]
        );
    }

    #[test]
    fn assigning_replaces_empty_epochs() {
        let mut list = Epochs::default();
        assert!(list.assign(0, 0));
        assert!(list.assign(1, 5));
        assert!(list.assign(2, 5));
        assert!(!list.assign(2, 9));
        assert!(!list.assign(1, 9));
        assert!(!list.assign(-1, 9));
        assert_eq!(list, epochs(&[(0, 0), (2, 5)]));
        list.check();
    }

    #[test]
    fn truncation_at_both_ends() {
        let full = epochs(&[(0, 0), (1, 10), (2, 20)]);
        let start = |offset| {
            let mut list = full.clone();
            list.truncate_start(offset);
            list
        };
        assert_eq!(start(0), full);
        assert_eq!(start(9), epochs(&[(0, 9), (1, 10), (2, 20)]));
        assert_eq!(start(10), epochs(&[(1, 10), (2, 20)]));
        assert_eq!(start(25), epochs(&[(2, 25)]));
        let end = |offset| {
            let mut list = full.clone();
            list.truncate_end(offset);
            list
        };
        assert_eq!(end(20), epochs(&[(0, 0), (1, 10)]));
        assert_eq!(end(21), full);
        assert_eq!(end(0), epochs(&[]));
    }

    #[test]
    fn the_file_is_kafkas() {
        let list = epochs(&[(0, 0), (3, 17)]);
        assert_eq!(list.encode(), "0\n2\n0 0\n3 17\n");
        assert_eq!(Epochs::decode(list.encode().as_bytes()), Some(list));
        for damaged in [
            "",
            "1\n0\n",
            "0\n1\n",
            "0\n1\n1 2\n3 4\n",
            "0\n2\n3 4\n1 9\n",
            "0\nx\n",
        ] {
            assert_eq!(Epochs::decode(damaged.as_bytes()), None, "{damaged:?}");
        }
    }
}
