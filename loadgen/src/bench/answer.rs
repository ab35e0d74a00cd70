//! What a broker says to a produce request, held against what was asked.

use bytes::Bytes;
use forebay::wire::messages::produce::{ProduceRequest, ProduceResponse};

use super::link::Link;
use crate::failure::Failure;

/// The offset that the broker gave the first record of the batch for `partition`.
///
/// # Errors
/// If the answer is one to another request, or says that the batch was not appended.
pub fn appended(
    link: &Link,
    frame: Bytes,
    correlation_id: i32,
    version: i16,
    partition: i32,
) -> Result<i64, Failure> {
    let response: ProduceResponse =
        link.decode::<ProduceRequest>(frame, correlation_id, version)?;
    let mut answers = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    let (Some(answer), None) = (answers.next(), answers.next()) else {
        return Err(link.failure("does not answer for exactly the partition it was asked for"));
    };
    if answer.index != partition {
        return Err(link.failure(format_args!(
            "answers for partition {} instead of {partition}",
            answer.index
        )));
    }
    if answer.error_code.is_error() {
        let why = answer.error_message.as_deref().unwrap_or_default();
        let text = format!(
            "refuses a batch for partition {partition}: {} {why}",
            answer.error_code
        );
        return Err(link.failure(text.trim_end()));
    }
    Ok(answer.base_offset)
}
