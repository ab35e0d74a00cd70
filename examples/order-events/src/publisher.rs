//! Publishes records and waits until the broker has said of each that it keeps it. The producer is
//! idempotent: what it repeats after a lost connection or answer is neither doubled nor reordered.
//! That holds within one life of the process; across a crash the outbox publishes again.

use std::sync::mpsc::{Receiver, Sender, channel};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};

use crate::failure::Failure;
use crate::kafka;
use crate::settings::Settings;

/// A record to be published.
#[derive(Debug)]
pub struct Record<'a> {
    /// Decides about the partition, and so about what keeps its order.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// When it happened, milliseconds since 1970; now, if none.
    pub time_ms: Option<i64>,
    /// Headers, if any.
    pub headers: Option<OwnedHeaders>,
}

/// What became of the record with this index.
type Report = (usize, Result<(), KafkaError>);

/// Hands delivery reports over to whoever waits for them.
struct Reports(Sender<Report>);

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, _: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            eprintln!("waiting for the broker: {error}");
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.clone()),
        };
        // Nobody waits any more only when the process is about to end.
        let _ = self.0.send((*index, result));
    }
}

/// A connection for publishing.
pub struct Publisher {
    producer: ThreadedProducer<Reports>,
    reports: Receiver<Report>,
}

impl Publisher {
    /// Prepares to publish; connects with the first record.
    pub fn new(settings: &Settings) -> Result<Self, Failure> {
        let (sender, reports) = channel();
        let mut config: ClientConfig = kafka::client(settings);
        config
            .set("enable.idempotence", "true")
            // Never give up on a record and go on with the next: that would break the order.
            .set("message.timeout.ms", "0");
        let producer = config.create_with_context(Reports(sender))?;
        Ok(Self { producer, reports })
    }

    /// Publishes these records in order, and returns when all are kept. If one is refused (it may
    /// be too large), those behind it may have been kept all the same.
    pub fn publish(&self, topic: &str, records: &[Record<'_>]) -> Result<(), Failure> {
        for (index, record) in records.iter().enumerate() {
            let mut message = BaseRecord::with_opaque_to(topic, Box::new(index));
            message.key = record.key;
            message.payload = record.value;
            message.timestamp = record.time_ms;
            message.headers = record.headers.clone();
            self.producer.send(message).map_err(|(error, _)| error)?;
        }
        let mut refused = Ok(());
        for _ in records {
            let report = self.reports.recv();
            let (index, result) = report.expect("the producer lives and holds the sender");
            if let Err(error) = result {
                refused = Err(Failure::new(format!(
                    "the broker refuses record {index} of {} for {topic}: {error}",
                    records.len()
                )));
            }
        }
        refused
    }
}
