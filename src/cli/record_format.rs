//! How `forebay consume` prints a record. Text is the bytes as they are, so that binary values come
//! out unharmed; JSON has everything, with bytes that are not UTF-8 in base64.

use clap::Args;
use serde_json::{Map, Value, json};

use crate::client::{ConsumedRecord, TopicPartition};

/// What stands before the value in text, with tabs between.
#[derive(Debug, Default, Args)]
pub struct Columns {
    /// Print partition and offset before the value
    #[arg(long)]
    offsets: bool,
    /// Print the timestamp in milliseconds before the value
    #[arg(long)]
    timestamps: bool,
    /// Print the headers as name=value,... before the value
    #[arg(long)]
    headers: bool,
    /// Print the key before the value
    #[arg(long)]
    keys: bool,
}

/// A line of text; a record without a value has an empty one.
pub fn to_text(partition: &TopicPartition, record: &ConsumedRecord, columns: &Columns) -> Vec<u8> {
    let mut line = Vec::new();
    if columns.offsets {
        line.extend(format!("{}\t{}\t", partition.partition, record.offset).as_bytes());
    }
    if columns.timestamps {
        line.extend(format!("{}\t", record.timestamp).as_bytes());
    }
    if columns.headers {
        for (index, (name, value)) in record.headers.iter().enumerate() {
            if index > 0 {
                line.push(b',');
            }
            line.extend_from_slice(name);
            line.push(b'=');
            line.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        line.push(b'\t');
    }
    if columns.keys {
        line.extend_from_slice(record.key.as_deref().unwrap_or_default());
        line.push(b'\t');
    }
    line.extend_from_slice(record.value.as_deref().unwrap_or_default());
    line.push(b'\n');
    line
}

/// A JSON object. Where `key` or `value` is not UTF-8, `keyBase64` or `valueBase64` stands in its
/// place; the same in headers.
pub fn to_json(partition: &TopicPartition, record: &ConsumedRecord) -> Value {
    let mut object = Map::new();
    object.insert("topic".to_owned(), json!(partition.topic));
    object.insert("partition".to_owned(), json!(partition.partition));
    object.insert("offset".to_owned(), json!(record.offset));
    object.insert("timestamp".to_owned(), json!(record.timestamp));
    let headers = record.headers.iter().map(|(name, value)| {
        let mut header = Map::new();
        put(&mut header, "name", Some(name));
        put(&mut header, "value", value.as_deref());
        Value::Object(header)
    });
    object.insert("headers".to_owned(), headers.collect());
    put(&mut object, "key", record.key.as_deref());
    put(&mut object, "value", record.value.as_deref());
    Value::Object(object)
}

fn put(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, str::from_utf8(bytes))) {
        None => object.insert(name.to_owned(), Value::Null),
        Some((_, Ok(text))) => object.insert(name.to_owned(), json!(text)),
        Some((bytes, Err(_))) => object.insert(format!("{name}Base64"), json!(base64(bytes))),
    };
}

/// Base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            text.push(match digit <= chunk.len() {
                true => char::from(ALPHABET[(bits >> (18 - 6 * digit) & 63) as usize]),
                false => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn record() -> ConsumedRecord {
        ConsumedRecord {
            offset: 7,
            timestamp: 5,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"\xff\0v")),
            headers: vec![
                (Bytes::from_static(b"a"), Some(Bytes::from_static(b"1"))),
                (Bytes::from_static(b"b"), None),
            ],
        }
    }

    #[test]
    fn text_keeps_every_byte() {
        let partition = TopicPartition::new("t", 3);
        let line = to_text(&partition, &record(), &Columns::default());
        assert_eq!(line, b"\xff\0v\n");
        let columns = Columns {
            offsets: true,
            timestamps: true,
            headers: true,
            keys: true,
        };
        let line = to_text(&partition, &record(), &columns);
        assert_eq!(line, b"3\t7\t5\ta=1,b=\tk\t\xff\0v\n");
    }

    #[test]
    fn json_has_everything() {
        let json = to_json(&TopicPartition::new("t", 3), &record());
        let expected = json!({
            "topic": "t",
            "partition": 3,
            "offset": 7,
            "timestamp": 5,
            "headers": [{"name": "a", "value": "1"}, {"name": "b", "value": null}],
            "key": "k",
            "valueBase64": "/wB2",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
