//! One batch of a producer: the records collected for it, who waits for them, and what is known
//! about its place in the log. Encoded once; a resend carries the same bytes, so that the broker
//! can recognise it.

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Delivery, ProduceError, ProducerOptions, ProducerRecord};
use crate::base::limits::BATCH_HEADER_BYTES;
use crate::batch::{Builder, Codec, Header, NO_TIMESTAMP};

/// What the caller of `send` waits on.
pub(super) type Reply = oneshot::Sender<Result<Delivery, ProduceError>>;

/// Id, epoch and base sequence as the broker sees them (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub producer_id: i64,
    pub epoch: i16,
    pub base_sequence: i32,
}

/// Records of one partition that travel together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Order of creation, over all partitions.
    pub id: u64,
    /// When its first record came: linger and delivery timeout count from here.
    pub created: Instant,
    /// Number of its first record, over all partitions; a flush waits up to a number.
    pub number_first: u64,
    /// Nothing is added any more.
    pub is_sealed: bool,
    /// Given at the first sending and kept by every resend; none without idempotence.
    pub identity: Option<Identity>,
    /// It was sent and may be in the log though no answer said so.
    pub is_uncertain: bool,
    /// What its records count for in the producer's buffer.
    pub buffered_bytes: usize,
    contents: Contents,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
enum Contents {
    Open(Builder),
    Encoded(Bytes),
}

#[derive(Debug)]
struct Waiting {
    timestamp: i64,
    reply: Reply,
}

impl Batch {
    /// An empty batch.
    pub fn new(id: u64, number_first: u64, created: Instant, codec: Codec) -> Self {
        Self {
            id,
            created,
            number_first,
            is_sealed: false,
            identity: None,
            is_uncertain: false,
            buffered_bytes: 0,
            contents: Contents::Open(Builder::new(codec)),
            waiting: Vec::new(),
        }
    }

    /// True if `record` may join, by the size of the batch before compression.
    pub fn has_room(&self, record: &ProducerRecord, options: &ProducerOptions) -> bool {
        match &self.contents {
            Contents::Open(builder) if !self.is_sealed => {
                builder.size_bytes() + record.size_bytes() <= options.batch_bytes_max
            }
            _ => false,
        }
    }

    /// Adds a record; the caller asked [`Batch::has_room`] or has just made the batch.
    pub fn push(&mut self, record: &ProducerRecord, timestamp: i64, reply: Reply) {
        let Contents::Open(builder) = &mut self.contents else {
            unreachable!("only an open batch has room");
        };
        builder.append(
            timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
        self.buffered_bytes += record.size_bytes();
        self.waiting.push(Waiting { timestamp, reply });
    }

    /// Number of records.
    pub fn count(&self) -> usize {
        self.waiting.len()
    }

    /// Size on the wire: before compression while open, as sent afterwards.
    pub fn size_bytes(&self) -> usize {
        match &self.contents {
            Contents::Open(builder) => builder.size_bytes(),
            Contents::Encoded(bytes) => bytes.len(),
        }
    }

    /// Seals the batch and encodes it with its identity; the same bytes every time.
    pub fn encode(&mut self) -> Bytes {
        self.is_sealed = true;
        if let Contents::Open(builder) = &mut self.contents {
            let mut builder = std::mem::replace(builder, Builder::new(Codec::None));
            if let Some(identity) = self.identity {
                builder.set_producer(identity.producer_id, identity.epoch, identity.base_sequence);
            }
            self.contents = Contents::Encoded(builder.build());
        }
        match &self.contents {
            Contents::Encoded(bytes) => bytes.clone(),
            Contents::Open(_) => unreachable!("it was encoded just now"),
        }
    }

    /// Gives the batch another identity. The bytes sent so far must be known not to be in the log.
    pub fn set_identity(&mut self, identity: Identity) {
        assert!(!self.is_uncertain, "a resend must be recognisable");
        self.identity = Some(identity);
        if let Contents::Encoded(bytes) = &mut self.contents {
            let body = bytes.slice(BATCH_HEADER_BYTES..);
            let mut header = Header::parse(bytes).expect("the builder made this head");
            header.producer_id = identity.producer_id;
            header.producer_epoch = identity.epoch;
            header.base_sequence = identity.base_sequence;
            let mut renewed = BytesMut::with_capacity(bytes.len());
            renewed.extend_from_slice(&header.seal(&body).encode());
            renewed.extend_from_slice(&body);
            *bytes = renewed.freeze();
        }
    }

    /// Tells everyone who waits that the batch lies in the log from `base_offset` (-1 if the
    /// broker does not say). `log_append_time` is -1 where the producer's timestamps stand.
    pub fn succeed(self, partition: i32, base_offset: i64, log_append_time: i64) {
        for (offset_delta, waiting) in (0i64..).zip(self.waiting) {
            let delivery = Delivery {
                partition,
                offset: match base_offset {
                    -1 => -1,
                    base => base.saturating_add(offset_delta),
                },
                timestamp: match log_append_time {
                    NO_TIMESTAMP => waiting.timestamp,
                    time => time,
                },
            };
            // A caller who no longer waits does not mind.
            let _ = waiting.reply.send(Ok(delivery));
        }
    }

    /// Tells everyone who waits that the batch failed.
    pub fn fail(self, error: &ProduceError) {
        for waiting in self.waiting {
            let _ = waiting.reply.send(Err(error.clone()));
        }
    }
}
