//! The wire layer from outside: golden bytes of Apache Kafka for messages and stored records, and
//! frames with their headers. What holds for every message is tested inside the module.

#[path = "wire/frames.rs"]
mod frames;
#[path = "wire/golden.rs"]
mod golden;
#[path = "wire/records.rs"]
mod records;

use bytes::Bytes;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
    (0..text.len()).step_by(2).map(digit).collect()
}
