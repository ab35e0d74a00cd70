//! Dead letters for the tests of this folder.

use bytes::Bytes;

use super::letter::Letter;
use crate::client::{ConsumedRecord, TopicPartition};

/// A letter at `partition:offset` of `orders-dlt` with Connect's headers.
pub fn letter(position: (i32, i64), origin: (i32, i64), key: &str) -> Letter {
    let header = |name: &str, value: &str| {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        (bytes(name), Some(bytes(value)))
    };
    let record = ConsumedRecord {
        offset: position.1,
        timestamp: 1_000 + position.1,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::from(format!("value of {}", origin.1))),
        headers: vec![
            header("trace", "abc"),
            header("__connect.errors.topic", "orders"),
            header("__connect.errors.partition", &origin.0.to_string()),
            header("__connect.errors.offset", &origin.1.to_string()),
            header("__connect.errors.exception.class.name", "NoStock"),
            header("__connect.errors.exception.message", "none left"),
        ],
    };
    Letter::new(&TopicPartition::new("orders-dlt", position.0), record)
}
