//! A dead letter: an order that was given up, as it stands in the dead letter topic. Key and value
//! are those of the order, the partition is the one it came from.
//!
//! The headers bear the names that Kafka Connect gives them (KIP-298): they are part of Apache
//! Kafka, and all their values are text, so that any tool shows them. Connect has no header for the
//! attempts; that one is forebay's.

use bytes::Bytes;
use forebay::client::dead_letter::{ATTEMPTS, CONNECT};

/// What follows the topic's name in that of its dead letter topic, as in Spring Kafka.
const TOPIC_SUFFIX: &str = "-dlt";

/// The kind of error of an order that the handler refuses.
pub const ERROR_REFUSED: &str = "OrderRefused";

/// An order that was given up.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// The partition it was read from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The record's key.
    pub key: Bytes,
    /// The record's value.
    pub value: Bytes,
    /// Why it was refused.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// The dead letter topic of a topic.
pub fn topic_of(topic: &str) -> String {
    format!("{topic}{TOPIC_SUFFIX}")
}

impl Letter {
    /// The headers of a letter from `topic`, names and values.
    pub fn headers(&self, topic: &str) -> Vec<(Bytes, Option<Bytes>)> {
        let headers = [
            (CONNECT.topic, topic.to_owned()),
            (CONNECT.partition, self.partition.to_string()),
            (CONNECT.offset, self.offset.to_string()),
            (CONNECT.error, ERROR_REFUSED.to_owned()),
            (CONNECT.message, self.reason.clone()),
            (ATTEMPTS, self.attempts.to_string()),
        ];
        let bytes = |(name, value): (&'static str, String)| {
            (
                Bytes::from_static(name.as_bytes()),
                Some(Bytes::from(value)),
            )
        };
        headers.into_iter().map(bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay::client::dead_letter::DeadLetter;

    #[test]
    fn a_letter_says_where_it_came_from_what_was_wrong_and_how_often_it_was_tried() {
        let letter = Letter {
            partition: 3,
            offset: 41,
            key: "user-1".into(),
            value: "{}".into(),
            reason: "no such item".to_owned(),
            attempts: 4,
        };
        let expected = DeadLetter {
            topic: Some("orders".to_owned()),
            partition: Some(3),
            offset: Some(41),
            error: Some(ERROR_REFUSED.to_owned()),
            message: Some("no such item".to_owned()),
            attempts: Some(4),
            ..DeadLetter::default()
        };
        assert_eq!(DeadLetter::read(&letter.headers("orders")), expected);
        assert_eq!(topic_of("orders"), "orders-dlt");
    }
}
