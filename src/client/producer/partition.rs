//! The state of one partition in a producer, without IO: what waits, what is under way, and how
//! sequences are given.
//!
//! Invariants of an idempotent producer: batches reach the log in the order of `send`; a batch
//! that may be in the log is only ever sent again with the same epoch and sequence; a number that
//! the broker will never see (its batch was refused or gave up) is followed by a new epoch, not by
//! a gap. Without idempotence a resend may duplicate and, with more than one in flight, reorder.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::batch::{Batch, Identity};
use super::{ProduceError, ProducerOptions};
use crate::base::ErrorCode;
use crate::client::error::is_retriable;

/// Longest pause before a resend.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Batches of one partition, from `send` to the answer.
#[derive(Debug)]
pub(super) struct Partition {
    /// Index within the topic.
    pub index: i32,
    /// The broker to send to, if one is known.
    pub leader: Option<i32>,
    /// Not sent, or to be sent again, in order. Only the last can be open.
    pub waiting: VecDeque<Batch>,
    /// Sent and not answered, in order.
    in_flight: VecDeque<Batch>,
    /// To be sent again when nothing is in flight any more, in order.
    failed: VecDeque<Batch>,
    /// Who got the batches in flight: all of them are with one broker.
    sent_to: i32,
    retry_at: Option<Instant>,
    attempts: u32,
    sequences: Sequences,
}

#[derive(Debug)]
struct Sequences {
    producer_id: i64,
    epoch: i16,
    next: i32,
    /// The broker has acknowledged this epoch. Before, it takes a first batch with any sequence
    /// (it knows no producer), so that a second batch in flight could overtake the first.
    is_proven: bool,
    /// A number was lost: start a new epoch as soon as nothing is uncertain.
    has_gap: bool,
}

/// What became of a batch that was sent.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It is in the log (or acks = none and it was written to the socket).
    Stored {
        base_offset: i64,
        log_append_time: i64,
    },
    /// The broker answered with an error.
    Refused {
        code: ErrorCode,
        message: Option<String>,
    },
    /// No answer came; it may be in the log.
    Lost,
    /// It was not sent and cannot be: no common version, for example.
    Unsendable { reason: String },
}

/// What the producer does next.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Bytes that are free again.
    pub bytes_freed: usize,
    /// The leader may have moved.
    pub is_leader_stale: bool,
    /// The producer cannot go on: everything that waits fails with this.
    pub fatal: Option<ProduceError>,
}

enum Decision {
    Stored { base_offset: i64, time: i64 },
    Retry { is_uncertain: Option<bool> },
    Fail { reason: String },
    Fatal { reason: String },
}

impl Partition {
    /// A partition to which nothing was sent yet.
    pub fn new(index: i32, producer_id: i64, epoch: i16) -> Self {
        Self {
            index,
            leader: None,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            failed: VecDeque::new(),
            sent_to: -1,
            retry_at: None,
            attempts: 0,
            sequences: Sequences {
                producer_id,
                epoch,
                next: 0,
                is_proven: false,
                has_gap: false,
            },
        }
    }

    /// True without any batch.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty() && self.failed.is_empty()
    }

    /// Number of the oldest record that is not answered.
    pub fn number_oldest(&self) -> Option<u64> {
        let batches = self.failed.iter().chain(&self.in_flight);
        batches
            .chain(&self.waiting)
            .map(|batch| batch.number_first)
            .min()
    }

    /// When the next batch may be sent; `None` while something else has to happen first.
    /// Records with numbers below `flush_number` do not linger.
    pub fn ready_at(&self, options: &ProducerOptions, flush_number: u64) -> Option<Instant> {
        let batch = self.waiting.front()?;
        let is_alone = self.in_flight.is_empty();
        let in_flight_max = match options.idempotent && !self.sequences.is_proven {
            true => 1,
            false => options.in_flight_max,
        };
        let is_blocked = !self.failed.is_empty()
            || self.in_flight.len() >= in_flight_max
            || (!is_alone && self.leader != Some(self.sent_to))
            || (options.idempotent && batch.identity.is_none() && self.is_unsettled());
        if is_blocked || self.leader.is_none() {
            return None;
        }
        let is_full = batch.is_sealed || self.waiting.len() > 1;
        let at = match is_full || batch.number_first < flush_number {
            true => batch.created,
            false => batch.created + options.linger,
        };
        Some(self.retry_at.map_or(at, |retry_at| at.max(retry_at)))
    }

    /// Takes the next batch for its leader; the caller has found that it is ready.
    pub fn take(&mut self, options: &ProducerOptions) -> Option<(u64, Bytes)> {
        let mut batch = self.waiting.pop_front()?;
        if options.idempotent && batch.identity.is_none() {
            batch.set_identity(self.sequences.give(batch.count()));
        }
        let taken = (batch.id, batch.encode());
        self.sent_to = self.leader.unwrap_or(-1);
        self.retry_at = None;
        self.in_flight.push_back(batch);
        Some(taken)
    }

    /// Size of the batch that [`Partition::take`] would give, before compression.
    pub fn next_size_bytes(&self) -> usize {
        self.waiting.front().map_or(0, Batch::size_bytes)
    }

    /// Learns what became of a batch in flight. A batch that is not in flight is ignored.
    pub fn on_outcome(
        &mut self,
        topic: &str,
        batch_id: u64,
        outcome: Outcome,
        options: &ProducerOptions,
        now: Instant,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        let Some(position) = self.in_flight.iter().position(|batch| batch.id == batch_id) else {
            return verdict;
        };
        let decision = self.decide(batch_id, outcome, options);
        let mut batch = self
            .in_flight
            .remove(position)
            .expect("its position was found just now");
        match decision {
            Decision::Stored { base_offset, time } => {
                self.attempts = 0;
                self.sequences.is_proven = true;
                verdict.bytes_freed = batch.buffered_bytes;
                batch.succeed(self.index, base_offset, time);
            }
            Decision::Retry { is_uncertain } => {
                batch.is_uncertain = is_uncertain.unwrap_or(batch.is_uncertain);
                verdict.is_leader_stale = true;
                self.delay(options, now);
                let place = self.failed.partition_point(|other| other.id < batch.id);
                self.failed.insert(place, batch);
            }
            Decision::Fail { reason } => {
                self.sequences.has_gap |= options.idempotent;
                verdict.bytes_freed = batch.buffered_bytes;
                let may_be_stored = batch.is_uncertain;
                batch.fail(&ProduceError::Refused {
                    topic: topic.to_owned(),
                    partition: Some(self.index),
                    reason,
                    may_be_stored,
                });
            }
            Decision::Fatal { reason } => {
                let error = ProduceError::Fatal { reason };
                verdict.bytes_freed = batch.buffered_bytes;
                batch.fail(&error);
                verdict.fatal = Some(error);
            }
        }
        self.regroup();
        // It may have been due while it was in flight.
        verdict.bytes_freed += self.expire(topic, options, now);
        verdict
    }

    /// Fails what has waited longer than the delivery timeout; gives the bytes that are free.
    pub fn expire(&mut self, topic: &str, options: &ProducerOptions, now: Instant) -> usize {
        let mut bytes_freed = 0;
        while let Some(batch) = self.waiting.front()
            && batch.created + options.delivery_timeout <= now
        {
            let batch = self.waiting.pop_front().expect("it was there just now");
            self.sequences.has_gap |= batch.identity.is_some();
            bytes_freed += batch.buffered_bytes;
            batch.fail(&ProduceError::TimedOut {
                topic: topic.to_owned(),
                partition: Some(self.index),
                after: options.delivery_timeout,
            });
        }
        self.regroup();
        bytes_freed
    }

    /// When [`Partition::expire`] has something to do. What is due already is in flight, and is
    /// looked at again when its answer comes.
    pub fn expires_at(&self, options: &ProducerOptions, now: Instant) -> Option<Instant> {
        let batches = self
            .failed
            .iter()
            .chain(&self.in_flight)
            .chain(&self.waiting);
        let due = batches.map(|batch| batch.created + options.delivery_timeout);
        due.filter(|due| *due > now).min()
    }

    /// Fails everything.
    pub fn fail_all(&mut self, error: &ProduceError) {
        let failed = self.failed.drain(..).chain(self.in_flight.drain(..));
        for batch in failed.chain(self.waiting.drain(..)) {
            batch.fail(error);
        }
    }

    /// Postpones the next sending, longer each time until something succeeds.
    pub fn delay(&mut self, options: &ProducerOptions, now: Instant) {
        let factor = 1 << self.attempts.min(10);
        self.attempts += 1;
        self.retry_at = Some(now + (options.retry_backoff * factor).min(BACKOFF_MAX));
    }

    fn decide(&self, batch_id: u64, outcome: Outcome, options: &ProducerOptions) -> Decision {
        let (code, message) = match outcome {
            Outcome::Stored {
                base_offset,
                log_append_time,
            } => {
                return Decision::Stored {
                    base_offset,
                    time: log_append_time,
                };
            }
            Outcome::Lost => {
                return Decision::Retry {
                    is_uncertain: Some(true),
                };
            }
            Outcome::Unsendable { reason } => return Decision::Fail { reason },
            Outcome::Refused { code, message } => (code, message),
        };
        let reason = match message.filter(|message| !message.is_empty()) {
            Some(message) => format!("{code} ({message})"),
            None => code.to_string(),
        };
        match code {
            // Kafka never says so today; the name promises that the records are there.
            ErrorCode::DuplicateSequenceNumber => Decision::Stored {
                base_offset: -1,
                time: -1,
            },
            // Behind a batch that failed, this one could not be in order; it was not stored.
            ErrorCode::OutOfOrderSequenceNumber if self.follows_failure(batch_id) => {
                Decision::Retry {
                    is_uncertain: Some(false),
                }
            }
            ErrorCode::OutOfOrderSequenceNumber
            | ErrorCode::UnknownProducerId
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::ClusterAuthorizationFailed
                if options.idempotent =>
            {
                Decision::Fatal { reason }
            }
            // These can come after the append.
            ErrorCode::RequestTimedOut
            | ErrorCode::NotEnoughReplicasAfterAppend
            | ErrorCode::KafkaStorageError => Decision::Retry {
                is_uncertain: Some(true),
            },
            code if is_retriable(code) => Decision::Retry { is_uncertain: None },
            _ => Decision::Fail { reason },
        }
    }

    /// True if a batch before this one is not settled, or left a gap.
    fn follows_failure(&self, batch_id: u64) -> bool {
        let mut unsettled = self.failed.iter().chain(&self.in_flight);
        self.sequences.has_gap || unsettled.any(|batch| batch.id < batch_id)
    }

    /// True while new batches must not follow those sent already: a broker recognises a resend only
    /// among the last five batches, and a gap has to be closed first.
    fn is_unsettled(&self) -> bool {
        self.sequences.has_gap || self.in_flight.iter().any(|batch| batch.is_uncertain)
    }

    /// When nothing is in flight: failed batches go back to the front, and a gap is closed by a
    /// new epoch once no batch can be in the log under its old number.
    fn regroup(&mut self) {
        if !self.in_flight.is_empty() {
            return;
        }
        while let Some(batch) = self.failed.pop_back() {
            self.waiting.push_front(batch);
        }
        if self.sequences.has_gap && !self.waiting.iter().any(|batch| batch.is_uncertain) {
            self.sequences.start_epoch();
            for batch in &mut self.waiting {
                batch.identity = None;
            }
        }
    }
}

impl Sequences {
    /// The next `count` numbers; they wrap to 0 after 2^31-1.
    fn give(&mut self, count: usize) -> Identity {
        let base_sequence = self.next;
        self.next = ((self.next as u64 + count as u64) & 0x7fff_ffff) as i32;
        Identity {
            producer_id: self.producer_id,
            epoch: self.epoch,
            base_sequence,
        }
    }

    /// A broker takes the next epoch of an id from sequence 0 (as Java's client counts it on for
    /// itself). Epochs are per partition there, so the others need not know.
    fn start_epoch(&mut self) {
        // 32,767 gaps in one partition: going on would be refused by the broker as fenced.
        self.epoch = self.epoch.saturating_add(1);
        self.next = 0;
        self.is_proven = false;
        self.has_gap = false;
    }
}
