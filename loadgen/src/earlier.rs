//! What an earlier run of a sale has left in the broker: the orders in its log, those of them that
//! were sent back from the dead letter topic, and the letters that still lie there. Pure: whoever
//! reads the topics tells it record by record.
//!
//! Invariant: an order counts once, however often it stands in the log.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What is known of the earlier run before the sale goes on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Earlier {
    /// Records of each partition.
    pub records: BTreeMap<i32, u64>,
    /// How many of them are orders that stand in the log already.
    pub replayed: BTreeMap<i32, u64>,
    /// Orders that were given up and not sent back: the sale does not see them again.
    pub buried: u64,
}

impl Earlier {
    /// The orders of each partition that have been sent.
    pub fn sent(&self) -> BTreeMap<i32, u64> {
        let replayed = |partition| self.replayed.get(partition).copied().unwrap_or(0);
        let records = self.records.iter();
        records
            .map(|(partition, records)| (*partition, records - replayed(partition)))
            .collect()
    }
}

/// The topics of the sale while they are read.
#[derive(Debug, Default)]
pub struct Reading {
    earlier: Earlier,
    /// Partition and offset at which an order stands first.
    places: HashMap<u64, (i32, i64)>,
    replayed: HashSet<u64>,
    letters: HashSet<u64>,
}

impl Reading {
    /// A record of the sale's topic; those of a partition in the sequence of their offsets.
    pub fn order(&mut self, order_id: u64, partition: i32, offset: i64) {
        *self.earlier.records.entry(partition).or_default() += 1;
        match self.places.entry(order_id) {
            Entry::Vacant(place) => _ = place.insert((partition, offset)),
            Entry::Occupied(_) => {
                *self.earlier.replayed.entry(partition).or_default() += 1;
                self.replayed.insert(order_id);
            }
        }
    }

    /// A record of the dead letter topic.
    pub fn letter(&mut self, order_id: u64) {
        self.letters.insert(order_id);
    }

    /// What that comes to for a database that goes on at these offsets.
    pub fn end(mut self, next_offsets: &BTreeMap<i32, i64>) -> Earlier {
        let is_behind = |order_id: &&u64| {
            let place = self.places.get(order_id);
            place.is_some_and(|(partition, offset)| {
                next_offsets
                    .get(partition)
                    .is_some_and(|next| offset < next)
            })
        };
        let kept = self.letters.difference(&self.replayed).filter(is_behind);
        self.earlier.buried = kept.count() as u64;
        self.earlier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_counts_once_and_a_letter_until_it_was_sent_back() {
        let mut reading = Reading::default();
        for (order_id, partition, offset) in [(1, 0, 0), (2, 0, 1), (3, 1, 0), (4, 1, 1)] {
            reading.order(order_id, partition, offset);
        }
        reading.order(2, 0, 2);
        // The last one is read again: the database has not come to it.
        for letter in [2, 2, 3, 4] {
            reading.letter(letter);
        }
        let earlier = reading.end(&BTreeMap::from([(0, 2), (1, 1)]));
        assert_eq!(earlier.records, BTreeMap::from([(0, 3), (1, 2)]));
        assert_eq!(earlier.sent(), BTreeMap::from([(0, 2), (1, 2)]));
        assert_eq!(earlier.buried, 1);
    }
}
