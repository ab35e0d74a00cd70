//! The bytes that members of a group send each other through the coordinator, which does not look
//! into them: Kafka's `ConsumerProtocolSubscription` (written as version 2) and
//! `ConsumerProtocolAssignment` (version 0).
//!
//! Other clients write these bytes: counts are checked against what remains, and fields that later
//! versions add at the end are ignored.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::TopicPartition;
use crate::wire::Malformed;

const SUBSCRIPTION_VERSION: i16 = 2;
const ASSIGNMENT_VERSION: i16 = 0;

/// What a member wants and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MemberSubscription {
    /// The topics it wants to read.
    pub topics: Vec<String>,
    /// The partitions it has not given up (cooperative protocols, KIP-429).
    pub owned: Vec<TopicPartition>,
    /// The generation in which it got them; -1 for unknown (KIP-792).
    pub generation: i32,
}

/// Encodes a subscription.
pub(super) fn encode_subscription(subscription: &MemberSubscription) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(SUBSCRIPTION_VERSION);
    put_count(&mut bytes, subscription.topics.len());
    for topic in &subscription.topics {
        put_string(&mut bytes, topic);
    }
    bytes.put_i32(-1);
    put_partitions(&mut bytes, &subscription.owned);
    bytes.put_i32(subscription.generation);
    bytes.freeze()
}

/// Decodes the subscription of any client.
pub(super) fn decode_subscription(mut bytes: Bytes) -> Result<MemberSubscription, Malformed> {
    let version = take_i16(&mut bytes)?;
    let count = take_count(&mut bytes, 2)?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(take_string(&mut bytes)?);
    }
    skip_bytes(&mut bytes)?;
    let mut subscription = MemberSubscription {
        topics,
        owned: Vec::new(),
        generation: -1,
    };
    if version >= 1 {
        subscription.owned = take_partitions(&mut bytes)?;
    }
    if version >= 2 {
        subscription.generation = take_i32(&mut bytes)?;
    }
    Ok(subscription)
}

/// Encodes an assignment.
pub(super) fn encode_assignment(partitions: &[TopicPartition]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(ASSIGNMENT_VERSION);
    put_partitions(&mut bytes, partitions);
    bytes.put_i32(-1);
    bytes.freeze()
}

/// Decodes the assignment of a member of a consumer group, made by any client
/// (`ConsumerProtocolAssignment`). No bytes at all are no partitions.
///
/// Errors: the bytes end early or are no text where text is due.
pub fn decode_assignment(mut bytes: Bytes) -> Result<Vec<TopicPartition>, Malformed> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    take_i16(&mut bytes)?;
    take_partitions(&mut bytes)
}

fn put_count(bytes: &mut BytesMut, count: usize) {
    bytes.put_i32(i32::try_from(count).expect("lists of names are far below 2^31"));
}

fn put_string(bytes: &mut BytesMut, text: &str) {
    let length = i16::try_from(text.len()).expect("names are shorter than 32 KiB");
    bytes.put_i16(length);
    bytes.put_slice(text.as_bytes());
}

fn put_partitions(bytes: &mut BytesMut, partitions: &[TopicPartition]) {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for each in partitions {
        topics.entry(&each.topic).or_default().push(each.partition);
    }
    put_count(bytes, topics.len());
    for (topic, indexes) in topics {
        put_string(bytes, topic);
        put_count(bytes, indexes.len());
        indexes.iter().for_each(|index| bytes.put_i32(*index));
    }
}

const CUT_OFF: Malformed = Malformed("a group member's bytes are cut off");

fn take_i16(bytes: &mut Bytes) -> Result<i16, Malformed> {
    bytes.try_get_i16().map_err(|_| CUT_OFF)
}

fn take_i32(bytes: &mut Bytes) -> Result<i32, Malformed> {
    bytes.try_get_i32().map_err(|_| CUT_OFF)
}

/// A count of elements that take at least `element_bytes` each.
fn take_count(bytes: &mut Bytes, element_bytes: usize) -> Result<usize, Malformed> {
    let count = usize::try_from(take_i32(bytes)?).map_err(|_| CUT_OFF)?;
    match count <= bytes.len() / element_bytes {
        true => Ok(count),
        false => Err(CUT_OFF),
    }
}

fn take_string(bytes: &mut Bytes) -> Result<String, Malformed> {
    let length = usize::try_from(take_i16(bytes)?).map_err(|_| CUT_OFF)?;
    if length > bytes.len() {
        return Err(CUT_OFF);
    }
    let text = bytes.split_to(length);
    let text = str::from_utf8(&text).map_err(|_| Malformed("a topic name is not UTF-8"))?;
    Ok(text.to_owned())
}

fn skip_bytes(bytes: &mut Bytes) -> Result<(), Malformed> {
    let length = usize::try_from(take_i32(bytes)?.max(0)).map_err(|_| CUT_OFF)?;
    if length > bytes.len() {
        return Err(CUT_OFF);
    }
    bytes.advance(length);
    Ok(())
}

fn take_partitions(bytes: &mut Bytes) -> Result<Vec<TopicPartition>, Malformed> {
    let mut partitions = Vec::new();
    for _ in 0..take_count(bytes, 6)? {
        let topic = take_string(bytes)?;
        for _ in 0..take_count(bytes, 4)? {
            partitions.push(TopicPartition::new(&topic, take_i32(bytes)?));
        }
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> MemberSubscription {
        MemberSubscription {
            topics: vec!["a".to_owned(), "bc".to_owned()],
            owned: vec![TopicPartition::new("a", 0), TopicPartition::new("a", 3)],
            generation: 7,
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = encode_subscription(&sample());
        assert_eq!(decode_subscription(bytes), Ok(sample()));
        let owned = sample().owned;
        assert_eq!(decode_assignment(encode_assignment(&owned)), Ok(owned));
        assert_eq!(decode_assignment(Bytes::new()), Ok(Vec::new()));
    }

    #[test]
    fn a_subscription_of_version_0_has_no_owned_partitions() {
        let bytes = Bytes::from_static(b"\0\0\0\0\0\x01\0\x01x\0\0\0\x02??");
        let decoded = decode_subscription(bytes).expect("it is well formed");
        assert_eq!(decoded.topics, ["x"]);
        assert_eq!(decoded.generation, -1);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = encode_subscription(&sample());
        for length in 0..bytes.len() {
            assert!(
                decode_subscription(bytes.slice(..length)).is_err(),
                "{length}"
            );
        }
        let bytes = Bytes::from_static(b"\0\0\x7f\xff\xff\xff\0\x01x");
        assert_eq!(decode_assignment(bytes), Err(CUT_OFF));
    }
}
