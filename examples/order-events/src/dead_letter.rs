//! Where an event goes that a service can never handle: to its dead letter topic, as it came, with
//! the reason in headers that bear the names of Kafka Connect (KIP-298). All values are text. A
//! crash before the offset is committed sends the letter again, with the same origin.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};

use crate::failure::{Failure, Rejected};
use crate::kafka;
use crate::publisher::{Publisher, Record};
use crate::settings::Settings;

/// What the names of the headers begin with.
const PREFIX: &str = "__connect.errors.";

/// The dead letters of a service.
pub struct DeadLetters {
    topic: String,
    publisher: Publisher,
}

impl DeadLetters {
    /// Creates the topic unless it is there, so that a letter needs nothing but to be published.
    pub fn open(settings: &Settings, service: &str) -> Result<Self, Failure> {
        let topic = format!("{}-{service}-dlt", settings.topic);
        kafka::ensure_topic(settings, &topic)?;
        let publisher = Publisher::new(settings)?;
        Ok(Self { topic, publisher })
    }

    /// Sends a record there, and waits until it is kept.
    pub fn send(&self, message: &BorrowedMessage<'_>, why: &Rejected) -> Result<(), Failure> {
        let (partition, offset) = (message.partition(), message.offset());
        eprintln!(
            "partition {partition} offset {offset} goes to {}: {}",
            self.topic, why.message
        );
        let mut letter = Record::with_opaque_to(&self.topic, Box::new(offset));
        letter.key = message.key();
        letter.payload = message.payload();
        letter.timestamp = message.timestamp().to_millis();
        letter.headers = Some(headers(message, why));
        self.publisher.publish(vec![letter]).1
    }
}

fn headers(message: &BorrowedMessage<'_>, why: &Rejected) -> OwnedHeaders {
    let reasons = [
        ("topic", message.topic()),
        ("partition", &message.partition().to_string()),
        ("offset", &message.offset().to_string()),
        ("exception.class.name", why.class),
        ("exception.message", &why.message),
    ];
    let mut headers = OwnedHeaders::new();
    let given = message.headers().into_iter().flat_map(|given| given.iter());
    // A letter that was replayed bears the reasons of last time.
    for header in given.filter(|header| !header.key.starts_with(PREFIX)) {
        headers = headers.insert(header);
    }
    for (name, reason) in reasons {
        headers = headers.insert(Header {
            key: &format!("{PREFIX}{name}"),
            value: Some(reason),
        });
    }
    headers
}
