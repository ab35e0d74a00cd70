//! Names for the integers of the protocol, so that one cannot be passed for another.

use std::fmt;

/// Position of a record in its partition. Kafka: i64, dense, from 0.
pub type Offset = i64;

/// Leader epoch of a partition. Kafka: i32, -1 for unknown.
pub type Epoch = i32;

/// Id of a broker node, as in `node.id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub i32);

/// Index of a shard: one pinned thread, 0-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A client connection on one shard. Never reused within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Id of a topic (KIP-516): stable, non-zero, new on re-creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub uuid::Uuid);

impl TopicId {
    /// The all-zero id that Kafka uses for "no id".
    pub const ZERO: Self = Self(uuid::Uuid::nil());

    /// Kafka's text form: URL-safe base64 of the 16 bytes, without padding.
    pub fn to_base64(self) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let value = self.0.as_u128();
        // 22 digits of 6 bits hold 132 bits: the last digit carries 2 bits and 4 zeros.
        (0..22)
            .map(|digit| {
                let bits = match digit {
                    21 => (value << 4) & 0x3f,
                    _ => (value >> (122 - 6 * digit)) & 0x3f,
                };
                char::from(ALPHABET[bits as usize])
            })
            .collect()
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

/// One partition of one topic, by the topic's id: the key of everything a shard owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// The topic.
    pub topic: TopicId,
    /// The partition's index within the topic, from 0.
    pub partition: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_id_text_is_what_kafka_prints() {
        // Uuid.METADATA_TOPIC_ID and Uuid.ZERO_UUID of Apache Kafka.
        assert_eq!(
            TopicId(uuid::Uuid::from_u128(1)).to_base64(),
            "AAAAAAAAAAAAAAAAAAAAAQ"
        );
        assert_eq!(TopicId::ZERO.to_base64(), "AAAAAAAAAAAAAAAAAAAAAA");
        let id = uuid::Uuid::from_u128(0xfb7e_1f05_9a3c_4d2e_8811_0f2e_3d4c_5b6a);
        assert_eq!(TopicId(id).to_base64(), "-34fBZo8TS6IEQ8uPUxbag");
    }
}
