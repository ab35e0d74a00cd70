//! What each idempotent producer wrote last (KIP-98): enough to recognise a batch that is sent
//! again, to refuse one out of order and to fence an old instance. Kept per partition, in memory;
//! [`super::snapshot`] stores it.
//!
//! Invariant: the state is a function of the batches in the log, so replaying them rebuilds it;
//! only the time of the last use is not, and is taken from the monotonic clock. Producers beyond
//! the bound are the exception: a replay may remember more of them.

use super::{AppendError, ProducerInfo};
use crate::base::limits::PRODUCER_BATCHES_MAX;
use crate::base::{Mono, Offset};
use crate::batch::{Header, NO_SEQUENCE, NO_TIMESTAMP};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// One remembered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchSummary {
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Number of its records, minus one.
    pub offset_delta: i32,
    /// Its largest timestamp.
    pub timestamp: i64,
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Producer {
    /// Newest epoch.
    pub epoch: i16,
    /// Last batches of that epoch, oldest first, at most [`PRODUCER_BATCHES_MAX`]. Empty only
    /// after a transaction marker.
    pub batches: VecDeque<BatchSummary>,
    /// Epoch of the transaction coordinator, -1 without; kept for directories from Kafka.
    pub coordinator_epoch: i32,
    /// First offset of the ongoing transaction, -1 without; kept for directories from Kafka.
    pub txn_offset_first: Offset,
    /// Last use in this run.
    pub used: Mono,
}

/// The producers of one log.
#[derive(Clone, Debug, Default)]
pub(super) struct Producers(BTreeMap<i64, Producer>);

impl BatchSummary {
    /// The summary of a batch that has its place in the log.
    fn of(header: &Header) -> Self {
        Self {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        }
    }

    /// Offset of its first record.
    pub fn base_offset(&self) -> Offset {
        self.last_offset - i64::from(self.offset_delta)
    }
}

impl Producer {
    /// A producer of which nothing but its epoch is known.
    pub fn new(epoch: i16, used: Mono) -> Self {
        Self {
            epoch,
            batches: VecDeque::new(),
            coordinator_epoch: -1,
            txn_offset_first: -1,
            used,
        }
    }

    fn last_sequence(&self) -> i32 {
        self.batches
            .back()
            .map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn remember(&mut self, batch: BatchSummary) {
        if self.batches.len() == PRODUCER_BATCHES_MAX {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
    }
}

impl Producers {
    /// Judges a client's batch: `Some` is the batch of the log that it repeats, `None` means it is
    /// the next one. Changes nothing.
    pub fn check(&self, header: &Header) -> Result<Option<BatchSummary>, AppendError> {
        let Some(producer) = self.0.get(&header.producer_id) else {
            // Expired or never seen: any sequence starts it.
            return Ok(None);
        };
        if header.producer_epoch < producer.epoch {
            return Err(AppendError::InvalidProducerEpoch {
                producer_id: header.producer_id,
                producer_epoch: header.producer_epoch,
                current_epoch: producer.epoch,
            });
        }
        let last_sequence = if header.producer_epoch > producer.epoch {
            NO_SEQUENCE
        } else {
            let same = |batch: &&BatchSummary| {
                batch.last_sequence == header.last_sequence()
                    && batch.offset_delta == header.last_offset_delta
            };
            if let Some(batch) = producer.batches.iter().find(same) {
                return Ok(Some(*batch));
            }
            producer.last_sequence()
        };
        if header.base_sequence == next_sequence(last_sequence) {
            return Ok(None);
        }
        Err(AppendError::OutOfOrderSequence {
            producer_id: header.producer_id,
            sequence: header.base_sequence,
            last_sequence,
        })
    }

    /// Takes in a batch that has its place in the log, live or while replaying.
    pub fn apply(&mut self, header: &Header, now: Mono) {
        if !header.has_producer_id() {
            return;
        }
        let producer = self
            .0
            .entry(header.producer_id)
            .or_insert_with(|| Producer::new(header.producer_epoch, now));
        producer.used = now;
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        if header.is_control() {
            producer.txn_offset_first = -1;
            return;
        }
        producer.remember(BatchSummary::of(header));
        if header.is_transactional() && producer.txn_offset_first < 0 {
            producer.txn_offset_first = header.base_offset;
        }
    }

    /// Forgets the producers that have not written for longest, a tenth at a time, if there are
    /// more than `count_max`. Which they are follows from their place in the log.
    pub fn bound(&mut self, count_max: usize) {
        if self.0.len() <= count_max {
            return;
        }
        let last_offset = |producer: &Producer| {
            let last = producer.batches.back();
            last.map_or(-1, |batch| batch.last_offset)
        };
        let mut ends: Vec<_> = self.0.values().map(last_offset).collect();
        let forgotten = (ends.len() - count_max + count_max / 10).min(ends.len() - 1);
        let from = *ends.select_nth_unstable(forgotten).1;
        self.0
            .retain(|_, producer| producer.txn_offset_first >= 0 || last_offset(producer) >= from);
    }

    /// Puts in a producer from a snapshot.
    pub fn insert(&mut self, producer_id: i64, producer: Producer) {
        self.0.insert(producer_id, producer);
    }

    /// Forgets producers unused for `expiration_ms` without an ongoing transaction; gives their
    /// number.
    pub fn expire(&mut self, now: Mono, expiration_ms: i64) -> u64 {
        let expiration = Duration::from_millis(expiration_ms.max(0) as u64);
        let before = self.0.len();
        self.0.retain(|_, producer| {
            producer.txn_offset_first >= 0 || now.since(producer.used) < expiration
        });
        (before - self.0.len()) as u64
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i64, &Producer)> {
        self.0.iter().map(|(id, producer)| (*id, producer))
    }

    /// All of them, as clients are shown.
    pub fn infos(&self) -> impl Iterator<Item = ProducerInfo> {
        self.iter().map(|(producer_id, producer)| ProducerInfo {
            producer_id,
            producer_epoch: producer.epoch,
            last_sequence: producer.last_sequence(),
            last_timestamp: producer
                .batches
                .back()
                .map_or(NO_TIMESTAMP, |batch| batch.timestamp),
            coordinator_epoch: producer.coordinator_epoch,
            txn_offset_first: producer.txn_offset_first,
        })
    }

    /// True if all of it can have been written before `offset`. What a snapshot holds is used to
    /// answer duplicates: one that contradicts itself is no snapshot of this log, whatever its CRC.
    pub fn fit_before(&self, offset: Offset) -> bool {
        let fits = |batch: &BatchSummary| {
            batch.last_offset < offset && batch.offset_delta >= 0 && batch.base_offset() >= 0
        };
        self.0.values().all(|producer| {
            let offsets = producer.batches.iter().map(|batch| batch.last_offset);
            offsets.is_sorted() && producer.batches.iter().all(fits)
        })
    }

    /// Asserts the invariants.
    pub fn check_invariants(&self, log_end_offset: Offset) {
        for (id, producer) in self.iter() {
            assert!(producer.batches.len() <= PRODUCER_BATCHES_MAX);
            let offsets = producer.batches.iter().map(|batch| batch.last_offset);
            assert!(offsets.is_sorted(), "batches of producer {id} are in order");
            let last = producer
                .batches
                .back()
                .map_or(-1, |batch| batch.last_offset);
            assert!(last < log_end_offset, "producer {id} wrote into the log");
        }
    }
}

/// The sequence after `sequence`; after 2^31-1 comes 0.
fn next_sequence(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Builder, Codec};

    const NOW: Mono = Mono(1_000_000);

    fn header(epoch: i16, base_sequence: i32, count: usize, base_offset: Offset) -> Header {
        let mut builder = Builder::new(Codec::None);
        builder.set_producer(7, epoch, base_sequence);
        builder.set_base_offset(base_offset);
        for record in 0..count {
            builder.append(100 + record as i64, None, Some(b"v"), &[]);
        }
        Header::parse(&builder.build()).unwrap()
    }

    #[test]
    fn what_contradicts_itself_is_no_snapshot() {
        let batch = |last_offset, offset_delta| BatchSummary {
            last_sequence: 0,
            last_offset,
            offset_delta,
            timestamp: 0,
        };
        let fit = |batches: &[BatchSummary]| {
            let mut producer = Producer::new(0, NOW);
            producer.batches.extend(batches);
            let mut producers = Producers::default();
            producers.insert(7, producer);
            producers.fit_before(10)
        };
        assert!(fit(&[batch(4, 4), batch(9, 0)]));
        assert!(!fit(&[batch(10, 0)]), "beyond the offset");
        assert!(!fit(&[batch(9, 0), batch(4, 4)]), "not in order");
        assert!(!fit(&[batch(4, 5)]), "begins below 0");
        assert!(!fit(&[batch(4, -1)]), "ends before it begins");
    }

    fn out_of_order(sequence: i32, last_sequence: i32) -> Result<Option<Offset>, AppendError> {
        Err(AppendError::OutOfOrderSequence {
            producer_id: 7,
            sequence,
            last_sequence,
        })
    }

    /// The base offset of the duplicate, if it is one.
    fn judge(producers: &Producers, header: &Header) -> Result<Option<Offset>, AppendError> {
        Ok(producers.check(header)?.map(|batch| batch.base_offset()))
    }

    #[test]
    fn sequences_go_on_and_the_last_five_are_recognised() {
        let mut producers = Producers::default();
        for batch in 0..7 {
            let header = header(0, batch * 2, 2, i64::from(batch) * 10);
            assert_eq!(judge(&producers, &header), Ok(None));
            producers.apply(&header, NOW);
        }
        for batch in 2..7 {
            let again = header(0, batch * 2, 2, 0);
            let original = i64::from(batch) * 10;
            assert_eq!(
                judge(&producers, &again),
                Ok(Some(original)),
                "batch {batch}"
            );
        }
        assert_eq!(judge(&producers, &header(0, 2, 2, 0)), out_of_order(2, 13));
        assert_eq!(
            judge(&producers, &header(0, 15, 1, 0)),
            out_of_order(15, 13)
        );
        // The end is that of a known batch, the start is not.
        assert_eq!(
            judge(&producers, &header(0, 13, 1, 0)),
            out_of_order(13, 13)
        );
        assert_eq!(judge(&producers, &header(0, 14, 1, 0)), Ok(None));
        producers.check_invariants(100);
    }

    #[test]
    fn unknown_producers_may_start_anywhere() {
        assert_eq!(
            judge(&Producers::default(), &header(3, 999, 1, 0)),
            Ok(None)
        );
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
        let mut producers = Producers::default();
        producers.apply(&header(1, 0, 5, 0), NOW);
        assert_eq!(judge(&producers, &header(2, 5, 1, 0)), out_of_order(5, -1));
        let bumped = header(2, 0, 5, 5);
        assert_eq!(judge(&producers, &bumped), Ok(None));
        producers.apply(&bumped, NOW);
        assert_eq!(
            judge(&producers, &header(1, 5, 1, 0)),
            Err(AppendError::InvalidProducerEpoch {
                producer_id: 7,
                producer_epoch: 1,
                current_epoch: 2
            })
        );
        // Same sequences, but the epoch's own batch is meant.
        assert_eq!(judge(&producers, &header(2, 0, 5, 0)), Ok(Some(5)));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut producers = Producers::default();
        producers.apply(&header(0, i32::MAX - 1, 2, 0), NOW);
        assert_eq!(
            judge(&producers, &header(0, 1, 1, 0)),
            out_of_order(1, i32::MAX)
        );
        let wrapped = header(0, 0, 1, 2);
        assert_eq!(judge(&producers, &wrapped), Ok(None));
        // A batch may also wrap inside.
        let mut producers = Producers::default();
        let across = header(0, i32::MAX, 3, 0);
        assert_eq!(across.last_sequence(), 1);
        producers.apply(&across, NOW);
        assert_eq!(judge(&producers, &across), Ok(Some(0)));
        assert_eq!(judge(&producers, &header(0, 2, 1, 0)), Ok(None));
    }

    #[test]
    fn of_too_many_producers_the_last_ones_stay() {
        let mut producers = Producers::default();
        for id in 0..100 {
            let mut header = header(0, 0, 1, id);
            header.producer_id = 1_000 - id;
            producers.apply(&header, NOW);
            producers.bound(50);
        }
        let left: Vec<_> = producers.iter().map(|(id, _)| id).collect();
        assert!((45..=50).contains(&left.len()), "{left:?}");
        let newest = 901..901 + left.len() as i64;
        assert_eq!(left, newest.collect::<Vec<_>>());
    }

    #[test]
    fn silent_producers_are_forgotten() {
        let mut producers = Producers::default();
        producers.apply(&header(0, 0, 1, 0), Mono(0));
        assert_eq!(producers.expire(Mono(0).plus_ms(999), 1000), 0);
        producers.apply(&header(0, 1, 1, 1), Mono(0).plus_ms(500));
        assert_eq!(producers.expire(Mono(0).plus_ms(1499), 1000), 0);
        assert_eq!(producers.expire(Mono(0).plus_ms(1500), 1000), 1);
        assert_eq!(producers.infos().count(), 0);
    }
}
