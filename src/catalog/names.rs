//! The rules for topic names, with Kafka's words.

use crate::base::limits::TOPIC_NAME_LENGTH_MAX;

/// Checks a topic name (Kafka: `Topic.validate`).
///
/// # Errors
/// Kafka's sentence, to be sent with `INVALID_TOPIC_EXCEPTION`.
pub fn check_topic_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let why = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if matches!(name, "." | "..") {
        format!("'{name}' is not allowed")
    } else if name.len() > TOPIC_NAME_LENGTH_MAX {
        format!(
            "the length of '{name}' is longer than the max allowed length {TOPIC_NAME_LENGTH_MAX}"
        )
    } else if !name.bytes().all(allowed) {
        format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        )
    } else {
        return Ok(());
    };
    Err(format!("Topic name is invalid: {why}"))
}

/// True if two different names look alike where '.' is written '_', as in metric names.
pub(super) fn collide(one: &str, other: &str) -> bool {
    let normal = |byte: u8| if byte == b'.' { b'_' } else { byte };
    one.len() == other.len() && one.bytes().map(normal).eq(other.bytes().map(normal))
}
