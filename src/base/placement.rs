//! Which shard owns what: pure functions of ids and the number of shards, the same on every
//! shard and after every restart. The data directory does not depend on them, so the number of
//! shards may change between runs.

use super::{PartitionKey, ShardId};

/// The owner of a partition. The partitions of one topic go round the shards, and topics start at
/// different shards, so that placement is even per topic and over topics.
pub fn shard_of_partition(key: PartitionKey, shards: u16) -> ShardId {
    let id = key.topic.0.as_u128();
    let start = (id >> 64) as u64 ^ id as u64;
    let index = start.wrapping_add(u64::from(key.partition.unsigned_abs()));
    ShardId((index % u64::from(shards)) as u16)
}

/// The owner of the catalog, of `__cluster_metadata` and of the listener.
pub const CONTROLLER: ShardId = ShardId(0);

/// The partition of `__consumer_offsets` that holds a group: Kafka's
/// `Utils.abs(groupId.hashCode()) % partitions`.
pub fn coordinator_partition(group_id: &str, partitions: i32) -> i32 {
    let hash = group_id.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    let hash = if hash == i32::MIN { 0 } else { hash.abs() };
    hash % partitions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::TopicId;
    use crate::base::prng::Prng;

    #[test]
    fn partitions_of_a_topic_are_spread_evenly() {
        let mut prng = Prng::new(1);
        for shards in [1, 2, 3, 4, 7] {
            let topic = TopicId(prng.uuid());
            let mut owned = vec![0; usize::from(shards)];
            for partition in 0..i32::from(shards) * 5 {
                let owner = shard_of_partition(PartitionKey { topic, partition }, shards);
                owned[usize::from(owner.0)] += 1;
            }
            assert_eq!(owned, vec![5; usize::from(shards)]);
        }
    }

    #[test]
    fn topics_of_one_partition_use_every_shard() {
        let mut prng = Prng::new(2);
        let mut owned = [0; 4];
        for _ in 0..400 {
            let key = PartitionKey {
                topic: TopicId(prng.uuid()),
                partition: 0,
            };
            owned[usize::from(shard_of_partition(key, 4).0)] += 1;
        }
        assert!(owned.iter().all(|&count| count > 60), "{owned:?}");
    }

    #[test]
    fn groups_are_placed_as_kafka_places_them() {
        // "abc".hashCode() is 96354; "polygenelubricants".hashCode() is Integer.MIN_VALUE.
        assert_eq!(coordinator_partition("abc", 50), 96354 % 50);
        assert_eq!(coordinator_partition("polygenelubricants", 50), 0);
        assert_eq!(coordinator_partition("", 50), 0);
    }
}
