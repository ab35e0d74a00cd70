//! A producer: [`Producer::send`] enqueues a record at once and gives a future for its outcome.
//! Order, sequences and resends are decided in `queue` and `partition`, which do no IO; `sender`
//! has one task per broker that carries them out.
//!
//! Records of one partition leave in the order of the calls of `send`. With
//! [`ProducerOptions::idempotent`] they also arrive in that order, each at most once per call.

mod batch;
mod partition;
mod partitioner;
mod queue;
mod sender;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

pub use partitioner::{murmur2, partition_of_key};

use super::clock;
use super::error::ClientError;
use super::tasks::Tasks;
use super::transport::Connector;
use super::{Client, Node};
use crate::batch::Codec;
use crate::wire::messages::init_producer_id::InitProducerIdRequest;
use queue::{Queue, Wake};
use sender::Sender;

/// When a broker answers. Kafka: `acks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// Never: the client does not learn whether a record was stored.
    None,
    /// When the leader has written it.
    Leader,
    /// When it is as safe as the cluster makes it: on all in-sync replicas.
    #[default]
    All,
}

/// How a producer works. The defaults are those of Kafka's Java client, but for larger batches.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// When a broker answers.
    pub acks: Acks,
    /// Resends neither duplicate nor reorder (KIP-98). Needs [`Acks::All`] and at most 5 requests
    /// in flight. Kafka: `enable.idempotence`.
    pub idempotent: bool,
    /// How long a record waits for others to share its batch. Kafka: `linger.ms`.
    pub linger: Duration,
    /// A batch is full at this size before compression; a larger record has a batch of its own.
    /// Kafka: `batch.size`.
    pub batch_bytes_max: usize,
    /// Codec of the batches. Kafka: `compression.type`.
    pub compression: Codec,
    /// Unanswered requests per broker, and so batches per partition. Kafka:
    /// `max.in.flight.requests.per.connection`.
    pub in_flight_max: usize,
    /// A record has its outcome after this time, plus that of one request. Kafka:
    /// `delivery.timeout.ms`.
    pub delivery_timeout: Duration,
    /// First pause before a resend; doubles up to one second. Kafka: `retry.backoff.ms`.
    pub retry_backoff: Duration,
    /// Records held, before compression. Kafka: `buffer.memory`.
    pub buffer_bytes_max: usize,
    /// A request is not made larger, nor a record accepted. Kafka: `max.request.size`.
    pub request_bytes_max: usize,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotent: true,
            linger: Duration::from_millis(5),
            batch_bytes_max: 64 << 10,
            compression: Codec::None,
            in_flight_max: 5,
            delivery_timeout: Duration::from_secs(120),
            retry_backoff: Duration::from_millis(100),
            buffer_bytes_max: 32 << 20,
            request_bytes_max: 1 << 20,
        }
    }
}

/// A record to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    /// Decides the partition, if there is one.
    pub key: Option<Bytes>,
    /// The payload; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order: name (UTF-8 by convention) and value.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Milliseconds since the epoch; `None` is the time of `send`.
    pub timestamp: Option<i64>,
}

impl ProducerRecord {
    /// An upper bound of its size in a batch.
    pub fn size_bytes(&self) -> usize {
        // Length, attributes, timestamp and offset deltas, key and value lengths, header count.
        const FRAMING_BYTES: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
        let length = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| 10 + name.len() + length(value));
        FRAMING_BYTES + length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }
}

/// Where a record was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The partition.
    pub partition: i32,
    /// Its offset there; -1 if the broker does not say (acks = none).
    pub offset: i64,
    /// Its timestamp in milliseconds: the producer's, or that of the append where the topic says
    /// so.
    pub timestamp: i64,
}

/// A record was not stored, or it is not known that it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProduceError {
    /// Settings that contradict each other.
    Options(&'static str),
    /// Preparing the producer failed.
    Client(ClientError),
    /// The records that wait fill the buffer; [`Producer::ready`] waits for room.
    BufferFull {
        /// The bound.
        bytes_max: usize,
    },
    /// The record does not fit a request.
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// The broker refused it for good.
    Refused {
        /// The topic.
        topic: String,
        /// The partition, if it was chosen.
        partition: Option<i32>,
        /// Kafka's name of the error and the broker's words.
        reason: String,
        /// It was sent before, and no answer came to that.
        may_be_stored: bool,
    },
    /// The delivery timeout passed; the record may still have been stored.
    TimedOut {
        /// The topic.
        topic: String,
        /// The partition, if it was chosen.
        partition: Option<i32>,
        /// The delivery timeout.
        after: Duration,
    },
    /// The producer cannot go on without breaking its promises.
    Fatal {
        /// Kafka's name of the error.
        reason: String,
    },
    /// The producer was dropped.
    Closed,
}

impl fmt::Display for ProduceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |topic: &String, partition: &Option<i32>| match partition {
            Some(partition) => format!("partition {partition} of topic \"{topic}\""),
            None => format!("topic \"{topic}\""),
        };
        match self {
            Self::Options(reason) => f.write_str(reason),
            Self::Client(error) => error.fmt(f),
            Self::BufferFull { bytes_max } => write!(
                f,
                "the producer's buffer of {bytes_max} bytes is full: wait for records to be sent"
            ),
            Self::TooLarge { bytes, bytes_max } => write!(
                f,
                "a record of {bytes} bytes does not fit a request of {bytes_max} bytes"
            ),
            Self::Refused {
                topic,
                partition,
                reason,
                may_be_stored,
            } => {
                write!(f, "{} refused: {reason}", place(topic, partition))?;
                match may_be_stored {
                    true => f.write_str("; an earlier attempt may have been stored"),
                    false => Ok(()),
                }
            }
            Self::TimedOut {
                topic,
                partition,
                after,
            } => write!(
                f,
                "{} acknowledged nothing within {after:?}; the record may have been stored",
                place(topic, partition)
            ),
            Self::Fatal { reason } => write!(f, "the producer cannot go on: {reason}"),
            Self::Closed => f.write_str("the producer was closed"),
        }
    }
}

impl std::error::Error for ProduceError {}

/// Sends records. Dropping it drops what still waits: [`Producer::flush`] first.
pub struct Producer<C: Connector> {
    sender: Rc<Sender<C>>,
    _tasks: Tasks,
}

impl<C: Connector> Producer<C> {
    /// Makes a producer with connections of its own; an idempotent one gets its id from the
    /// cluster first.
    ///
    /// Errors: [`ProduceError::Options`], [`ProduceError::Client`].
    pub async fn new(client: &Client<C>, options: ProducerOptions) -> Result<Self, ProduceError> {
        check(&options)?;
        let client = client.with_own_connections();
        let (producer_id, producer_epoch) = match options.idempotent {
            true => acquire_id(&client).await.map_err(ProduceError::Client)?,
            false => (-1, -1),
        };
        // Where records without a key begin; producers should not all begin with one partition.
        let sticky_first = RandomState::new().build_hasher().finish() as usize % 1024;
        let queue = Queue::new(options, producer_id, producer_epoch, sticky_first);
        let sender = Rc::new(Sender::new(client, queue));
        let tasks = Tasks::default();
        tasks.spawn(sender::run(Rc::clone(&sender)));
        Ok(Self {
            sender,
            _tasks: tasks,
        })
    }

    /// Enqueues a record before it returns, so that the order of calls is the order of records;
    /// the future resolves when the broker has answered. Dropping the future does not take the
    /// record back. Without `partition`, the key decides as in Kafka's Java client; without a key
    /// a partition is kept for a whole batch.
    ///
    /// Errors: at once [`ProduceError::BufferFull`] and [`ProduceError::TooLarge`]; otherwise what
    /// became of the record.
    pub fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        record: ProducerRecord,
    ) -> impl Future<Output = Result<Delivery, ProduceError>> + use<C> {
        let pushed = self.sender.queue.borrow_mut().push(
            topic,
            partition,
            record,
            clock::now(),
            clock::wall_ms(),
        );
        if let Ok((_, wake)) = &pushed {
            self.sender.wake(*wake);
        }
        async move {
            let (answer, _) = pushed?;
            answer.await.unwrap_or(Err(ProduceError::Closed))
        }
    }

    /// Waits until the buffer has room for a record of this size
    /// ([`ProducerRecord::size_bytes`]).
    pub async fn ready(&self, size_bytes: usize) {
        let sender = &self.sender;
        sender
            .wait_until(|queue| queue.has_room(size_bytes) || queue.is_idle())
            .await;
    }

    /// Sends what waits without lingering, and waits until every record so far has its outcome.
    pub async fn flush(&self) {
        let number = self.sender.queue.borrow_mut().flush();
        self.sender.wake_all();
        self.sender
            .wait_until(|queue| queue.is_flushed(number))
            .await;
    }
}

fn check(options: &ProducerOptions) -> Result<(), ProduceError> {
    if options.in_flight_max == 0 {
        return Err(ProduceError::Options(
            "a producer needs at least one request in flight",
        ));
    }
    if options.idempotent && (options.acks != Acks::All || options.in_flight_max > 5) {
        return Err(ProduceError::Options(
            "an idempotent producer needs acks = all and at most 5 requests in flight",
        ));
    }
    Ok(())
}

/// Asks any broker for a producer id (`InitProducerId` without a transactional id).
async fn acquire_id<C: Connector>(client: &Client<C>) -> Result<(i64, i16), ClientError> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        ..Default::default()
    };
    client
        .retry(async || {
            let response = client.send(Node::Any, request.clone()).await?;
            super::error::check(
                "InitProducerId",
                || "a producer".to_owned(),
                response.error_code,
                None,
            )?;
            Ok((response.producer_id, response.producer_epoch))
        })
        .await
}

/// Kept apart from `send` for the sender's use.
impl<C: Connector> Sender<C> {
    fn wake(&self, wake: Wake) {
        match wake {
            Wake::Nobody => {}
            Wake::Leader(leader) => self.wake_leader(leader),
            Wake::Metadata => self.wake_metadata(),
        }
    }
}
