//! Producer state on disk: Kafka's `ProducerSnapshot` version 1, which holds the last batch of
//! each producer, and behind its entries, where Kafka does not look, the up to four batches before
//! it. So a restart forgets no duplicate, and Kafka reads the file all the same.
//!
//! ```text
//! i16 version 1 · u32 CRC-32C of all that follows · i32 count
//!   count x { i64 producer id · i16 epoch · i32 last sequence · i64 last offset · i32 offset delta
//!             i64 timestamp · i32 coordinator epoch · i64 first offset of the transaction }
//! "FB01", then per entry: u8 number of earlier batches, oldest first
//!   number x { i32 last sequence · i64 last offset · i32 offset delta · i64 timestamp }
//! ```

use super::producers::{BatchSummary, Producer, Producers};
use crate::base::Mono;
use crate::base::limits::PRODUCER_BATCHES_MAX;
use bytes::{Buf, BufMut};

const VERSION: i16 = 1;
const CRC_START: usize = 6;
const ENTRY_BYTES: usize = 46;
const EARLIER_BYTES: usize = 24;
const EARLIER_MARK: &[u8; 4] = b"FB01";

/// The file for these producers.
pub(super) fn encode(producers: &Producers) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_i16(VERSION);
    bytes.put_u32(0);
    let count = producers.iter().len();
    bytes.put_i32(i32::try_from(count).expect("a producer takes more memory than 2 bytes"));
    for (producer_id, producer) in producers.iter() {
        let last = producer.batches.back().copied().unwrap_or(BatchSummary {
            last_sequence: -1,
            last_offset: -1,
            offset_delta: 0,
            timestamp: -1,
        });
        bytes.put_i64(producer_id);
        bytes.put_i16(producer.epoch);
        bytes.put_i32(last.last_sequence);
        bytes.put_i64(last.last_offset);
        bytes.put_i32(last.offset_delta);
        bytes.put_i64(last.timestamp);
        bytes.put_i32(producer.coordinator_epoch);
        bytes.put_i64(producer.txn_offset_first);
    }
    bytes.put_slice(EARLIER_MARK);
    for (_, producer) in producers.iter() {
        let earlier = producer.batches.len().saturating_sub(1);
        bytes.put_u8(earlier as u8);
        for batch in producer.batches.iter().take(earlier) {
            bytes.put_i32(batch.last_sequence);
            bytes.put_i64(batch.last_offset);
            bytes.put_i32(batch.offset_delta);
            bytes.put_i64(batch.timestamp);
        }
    }
    let crc = crc32c::crc32c(&bytes[CRC_START..]);
    bytes[2..CRC_START].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The producers of a file, ours or Kafka's, as if used `now`; `None` if it is damaged.
pub(super) fn decode(contents: &[u8], now: Mono) -> Option<Producers> {
    let mut rest = contents.get(CRC_START..)?;
    let version = i16::from_be_bytes(contents[..2].try_into().ok()?);
    let crc = u32::from_be_bytes(contents[2..CRC_START].try_into().ok()?);
    if version != VERSION || crc != crc32c::crc32c(rest) || rest.len() < 4 {
        return None;
    }
    let count = usize::try_from(rest.get_i32()).ok()?;
    if rest.len() / ENTRY_BYTES < count {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(decode_entry(&mut rest, now));
    }
    let earlier_follows = rest.starts_with(EARLIER_MARK);
    if earlier_follows {
        rest.advance(EARLIER_MARK.len());
    }
    let mut producers = Producers::default();
    for (producer_id, mut producer) in entries {
        if earlier_follows {
            decode_earlier(&mut rest, &mut producer)?;
        }
        producers.insert(producer_id, producer);
    }
    Some(producers)
}

/// One of Kafka's entries; the caller checked that it is there.
fn decode_entry(rest: &mut &[u8], now: Mono) -> (i64, Producer) {
    let producer_id = rest.get_i64();
    let mut producer = Producer::new(rest.get_i16(), now);
    let last = decode_batch(rest);
    producer.coordinator_epoch = rest.get_i32();
    producer.txn_offset_first = rest.get_i64();
    if last.last_offset >= 0 {
        producer.batches.push_back(last);
    }
    (producer_id, producer)
}

fn decode_earlier(rest: &mut &[u8], producer: &mut Producer) -> Option<()> {
    let earlier = usize::from(rest.try_get_u8().ok()?);
    if earlier >= PRODUCER_BATCHES_MAX || rest.len() / EARLIER_BYTES < earlier {
        return None;
    }
    for at in 0..earlier {
        producer.batches.insert(at, decode_batch(rest));
    }
    Some(())
}

fn decode_batch(rest: &mut &[u8]) -> BatchSummary {
    BatchSummary {
        last_sequence: rest.get_i32(),
        last_offset: rest.get_i64(),
        offset_delta: rest.get_i32(),
        timestamp: rest.get_i64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono(5);

    fn some() -> Producers {
        let mut producers = Producers::default();
        for (producer_id, batches) in [(4, 5), (9, 1), (11, 0)] {
            let mut producer = Producer::new(3, NOW);
            for batch in 0..batches {
                producer.batches.push_back(BatchSummary {
                    last_sequence: batch * 10 + 9,
                    last_offset: i64::from(batch) * 100 + producer_id,
                    offset_delta: 9,
                    timestamp: 1_700_000_000_000,
                });
            }
            producers.insert(producer_id, producer);
        }
        producers
    }

    fn list(producers: &Producers) -> Vec<(i64, Producer)> {
        let items = producers.iter();
        items.map(|(id, producer)| (id, producer.clone())).collect()
    }

    #[test]
    fn all_batches_come_back() {
        let decoded = decode(&encode(&some()), NOW).unwrap();
        assert_eq!(list(&decoded), list(&some()));
        assert!(list(&decode(&encode(&Producers::default()), NOW).unwrap()).is_empty());
    }

    #[test]
    fn damage_is_seen() {
        let contents = encode(&some());
        for position in 0..contents.len() {
            assert!(decode(&contents[..position], NOW).is_none());
            let mut damaged = contents.clone();
            damaged[position] ^= 0x40;
            assert!(decode(&damaged, NOW).is_none(), "byte {position}");
        }
    }

    #[test]
    fn numbers_of_a_file_are_not_trusted() {
        let mut contents = encode(&Producers::default());
        contents[CRC_START..CRC_START + 4].copy_from_slice(&i32::MAX.to_be_bytes());
        let crc = crc32c::crc32c(&contents[CRC_START..]);
        contents[2..CRC_START].copy_from_slice(&crc.to_be_bytes());
        assert!(decode(&contents, NOW).is_none());
    }

    #[test]
    fn a_file_from_kafka_has_one_batch_per_producer() {
        let ours = encode(&some());
        let mut contents = ours[..CRC_START + 4 + 3 * ENTRY_BYTES].to_vec();
        let crc = crc32c::crc32c(&contents[CRC_START..]);
        contents[2..CRC_START].copy_from_slice(&crc.to_be_bytes());
        let decoded = decode(&contents, NOW).unwrap();
        let batches = decoded.iter().map(|(_, producer)| producer.batches.len());
        assert_eq!(batches.collect::<Vec<_>>(), [1, 1, 0]);
    }
}
