//! The records of the workload: who sent it and which one it is can be read from a record's value,
//! and everything else in it follows from that, so that one flipped bit shows.

use crate::base::prng::Prng;
use crate::batch::{Builder, Codec, Record};
use bytes::Bytes;

/// One record of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordId {
    /// Number of the producer in the run.
    pub producer: u32,
    /// Counts the producer's records, over all partitions.
    pub number: u64,
}

impl RecordId {
    /// The number of the run's nth producer. Odd ones give every record a key.
    pub fn producer(nth: u32, keyed: bool) -> u32 {
        2 * nth + u32::from(keyed)
    }

    /// The record's value: the id in front, and as much behind as the id says.
    pub fn value(self) -> Bytes {
        let mut prng = Prng::new(self.number << 16 ^ u64::from(self.producer));
        let length = match prng.below(100) {
            0..2 => 12_000 + prng.below(8_000),
            2..10 => 1_000 + prng.below(2_000),
            _ => 20 + prng.below(200),
        };
        let mut value = Vec::with_capacity(length as usize + 12);
        value.extend_from_slice(&self.producer.to_be_bytes());
        value.extend_from_slice(&self.number.to_be_bytes());
        // Half of it can be compressed.
        for at in 0..length {
            let byte = if at % 2 == 0 {
                7
            } else {
                prng.next_u64() as u8
            };
            value.push(byte);
        }
        value.into()
    }

    /// The record's key, if it has one.
    pub fn key(self) -> Option<Bytes> {
        let key = format!("key-{}", self.number % 17);
        let keyed = !self.producer.is_multiple_of(2);
        (keyed || !self.number.is_multiple_of(5)).then(|| key.into())
    }

    fn headers(self) -> Vec<(Bytes, Option<Bytes>)> {
        let value = |n: u64| {
            n.is_multiple_of(2)
                .then(|| Bytes::copy_from_slice(&n.to_be_bytes()))
        };
        (0..self.number % 3)
            .map(|n| (Bytes::from_static(b"header"), value(n + self.number)))
            .collect()
    }

    /// Which record this is; an error says what is not as it was sent.
    pub fn of(record: &Record) -> Result<Self, String> {
        let value = record.value.as_ref().ok_or("a record without a value")?;
        let producer = value.first_chunk::<4>().ok_or("a short value")?;
        let number = value[4..].first_chunk::<8>().ok_or("a short value")?;
        let id = Self {
            producer: u32::from_be_bytes(*producer),
            number: u64::from_be_bytes(*number),
        };
        let same = *value == id.value() && record.key == id.key() && record.headers == id.headers();
        match same {
            true => Ok(id),
            false => Err(format!("{id:?} is not as it was sent")),
        }
    }
}

/// A batch of the producer's next records.
pub fn batch(
    codec: Codec,
    timestamp: i64,
    ids: impl Iterator<Item = RecordId>,
    producer: Option<(i64, i16, i32)>,
) -> Bytes {
    let mut builder = Builder::new(codec);
    if let Some((producer_id, epoch, sequence)) = producer {
        builder.set_producer(producer_id, epoch, sequence);
    }
    for id in ids {
        let (key, value) = (id.key(), id.value());
        builder.append(timestamp, key.as_deref(), Some(&value), &id.headers());
    }
    builder.build()
}
