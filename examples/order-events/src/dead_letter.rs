//! Where an event goes that a service can never read: to its dead letter topic, as it came, with
//! the reason in headers that bear the names of Kafka Connect (KIP-298). All values are text. A
//! crash before the offset is committed sends the letter again, with the same origin.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};

use crate::failure::Failure;
use crate::kafka;
use crate::publisher::{Publisher, Record};
use crate::settings::Settings;
use crate::upcast::Unreadable;

/// What the names of the headers begin with.
const PREFIX: &str = "__connect.errors.";

/// Sends a record that `service` cannot read to its dead letter topic, and waits until it is kept.
pub fn send(
    settings: &Settings,
    service: &str,
    message: &BorrowedMessage<'_>,
    why: &Unreadable,
) -> Result<(), Failure> {
    let topic = format!("{}-{service}-dlt", settings.topic);
    let (partition, offset) = (message.partition(), message.offset());
    eprintln!(
        "{service}: partition {partition} offset {offset} goes to {topic}: {}",
        why.message
    );
    kafka::ensure_topic(settings, &topic)?;
    let reasons = [
        ("topic", message.topic()),
        ("partition", &partition.to_string()),
        ("offset", &offset.to_string()),
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
    let record = Record {
        key: message.key(),
        value: message.payload(),
        time_ms: message.timestamp().to_millis(),
        headers: Some(headers),
    };
    Publisher::new(settings)?.publish(&topic, &[record])
}
