//! A dead letter: an order that was given up, as it stands in the dead letter topic. Key and value
//! are those of the order, the partition is the one it came from.
//!
//! The headers bear the names that Kafka Connect gives them (KIP-298): they are part of Apache
//! Kafka, and all their values are text, so that any tool shows them. Connect has no header for the
//! attempts; that one is Spring Kafka's, which is text here like the others.

use bytes::Bytes;

/// What follows the topic's name in that of its dead letter topic, as in Spring Kafka.
const TOPIC_SUFFIX: &str = "-dlt";
/// The topic the record came from.
pub const HEADER_TOPIC: &str = "__connect.errors.topic";
/// Its partition there.
pub const HEADER_PARTITION: &str = "__connect.errors.partition";
/// Its offset there.
pub const HEADER_OFFSET: &str = "__connect.errors.offset";
/// The kind of the error.
pub const HEADER_ERROR: &str = "__connect.errors.exception.class.name";
/// What it says.
pub const HEADER_MESSAGE: &str = "__connect.errors.exception.message";
/// How many attempts were made.
pub const HEADER_ATTEMPT: &str = "kafka_deliveryAttempt";

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
            (HEADER_TOPIC, topic.to_owned()),
            (HEADER_PARTITION, self.partition.to_string()),
            (HEADER_OFFSET, self.offset.to_string()),
            (HEADER_ERROR, ERROR_REFUSED.to_owned()),
            (HEADER_MESSAGE, self.reason.clone()),
            (HEADER_ATTEMPT, self.attempts.to_string()),
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
        let headers = letter.headers("orders");
        let value = |name: &str| {
            let found = headers.iter().find(|(header, _)| header == name.as_bytes());
            String::from_utf8(found.unwrap().1.clone().unwrap().to_vec()).unwrap()
        };
        assert_eq!(value(HEADER_TOPIC), "orders");
        assert_eq!(
            (value(HEADER_PARTITION), value(HEADER_OFFSET)),
            ("3".into(), "41".into())
        );
        assert_eq!(
            (value(HEADER_MESSAGE), value(HEADER_ATTEMPT)),
            ("no such item".into(), "4".into())
        );
        assert_eq!(topic_of("orders"), "orders-dlt");
    }
}
