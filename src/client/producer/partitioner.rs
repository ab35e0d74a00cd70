//! Which partition a record goes to: by the hash of its key as Kafka's Java client does it, so
//! that producers in different languages agree; without a key, one partition per batch (KIP-480).

/// The partition of `key` among `count` partitions, which must not be 0.
pub fn partition_of_key(key: &[u8], count: i32) -> i32 {
    assert!(count > 0, "a topic has partitions");
    ((murmur2(key) & 0x7fff_ffff) % count as u32) as i32
}

/// MurmurHash2, 32 bits, with the seed of Kafka's `Utils.murmur2`.
pub fn murmur2(data: &[u8]) -> u32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;

    let mut hash = SEED ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = u32::from_le_bytes(chunk.try_into().expect("chunks of four"));
        word = word.wrapping_mul(MULTIPLIER);
        word ^= word >> 24;
        word = word.wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ word;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_kafka() {
        // The cases of Apache Kafka's UtilsTest.testMurmur2.
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key) as i32, expected);
        }
    }

    #[test]
    fn a_partition_is_never_negative() {
        assert_eq!(
            partition_of_key(b"21", 4),
            ((-973_932_308i32) & 0x7fff_ffff) % 4
        );
        assert!((0..1000u32).all(|key| {
            let partition = partition_of_key(&key.to_be_bytes(), 7);
            (0..7).contains(&partition)
        }));
    }
}
