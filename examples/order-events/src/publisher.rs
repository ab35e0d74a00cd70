//! Publishes records and waits until the broker has said of each that it keeps it. The producer is
//! idempotent: what it repeats after a lost connection or answer is neither doubled nor reordered.
//! That holds within one life of the process; across a crash the outbox publishes again. If the
//! broker refuses a record, nothing behind it in its partition is published.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::failure::Failure;
use crate::kafka;
use crate::settings::Settings;

/// How long to wait for what the broker says of other records after it has refused one: those that
/// were not sent yet are never spoken of.
const LAST_REPORTS: Duration = Duration::from_secs(2);

/// A record to be published, with a number that its sender knows it by.
pub type Record<'a> = BaseRecord<'a, [u8], [u8], Box<i64>>;

/// What became of the record with this number.
type Report = (i64, Result<(), KafkaError>);

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
    type DeliveryOpaque = Box<i64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<i64>) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.clone()),
        };
        // Nobody waits any more only when the process is about to end.
        let _ = self.0.send((*number, result));
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
        let producer = kafka::client(settings)
            .set("enable.idempotence", "true")
            // Never give up on a record and go on with the next: that would break the order.
            .set("message.timeout.ms", "0")
            // Nor after the broker has refused it, with what follows or is under way already.
            .set("enable.gapless.guarantee", "true")
            .set("max.in.flight.requests.per.connection", "1")
            // The partition of a key as the Java client chooses it, and most that follow it.
            .set("partitioner", "murmur2_random")
            .create_with_context(Reports(sender))?;
        Ok(Self { producer, reports })
    }

    /// Publishes these records in order and waits for all. Gives the numbers of those that the
    /// broker keeps; these are not all if it refuses one, and then this producer is of no more use.
    pub fn publish(&self, records: Vec<Record<'_>>) -> (Vec<i64>, Result<(), Failure>) {
        let (mut due, mut kept, mut refused) = (0, Vec::new(), None);
        for record in records {
            if let Err((error, record)) = self.producer.send(record) {
                refused = Some((*record.delivery_opaque, error));
                break;
            }
            due += 1;
        }
        while due > 0 {
            let patience = refused.as_ref().map_or(Duration::MAX, |_| LAST_REPORTS);
            let Ok((number, result)) = self.reports.recv_timeout(patience) else {
                break;
            };
            match result {
                Ok(()) => kept.push(number),
                Err(error) => drop(refused.get_or_insert((number, error))),
            }
            due -= 1;
        }
        (
            kept,
            refused.map_or(Ok(()), |refused| Err(self.refusal(refused))),
        )
    }

    fn refusal(&self, (number, error): (i64, KafkaError)) -> Failure {
        let fatal = self.producer.client().fatal_error();
        let why = fatal.map_or_else(|| error.to_string(), |(_, text)| text);
        Failure::new(format!("record {number} is refused: {why}"))
    }
}
