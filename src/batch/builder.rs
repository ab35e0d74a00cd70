//! Writing: records in, the bytes of one batch out, as a producer sends them or as the broker
//! writes its internal topics.

use bytes::Bytes;

use super::header::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP};
use super::{Codec, Header, compress, varint};
use crate::base::limits::BATCH_HEADER_BYTES;
use crate::base::{Epoch, Offset};

/// Collects records for one batch. Offsets and sequences are dense from the base.
#[derive(Clone, Debug)]
pub struct Builder {
    header: Header,
    codec: Codec,
    /// Room for the head, then the records as they are before compression.
    bytes: Vec<u8>,
}

impl Builder {
    /// An empty batch: base offset 0, no leader epoch, no producer, timestamps of the producer.
    pub fn new(codec: Codec) -> Self {
        let mut header = Header {
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            crc: 0,
            attributes: 0,
            last_offset_delta: -1,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            record_count: 0,
        };
        header.set_codec(codec);
        Self {
            header,
            codec,
            bytes: vec![0; BATCH_HEADER_BYTES],
        }
    }

    /// Sets the offset of the first record; producers leave it 0.
    pub fn set_base_offset(&mut self, base_offset: Offset) {
        self.header.set_base_offset(base_offset);
    }

    /// Sets the leader epoch; producers leave it -1.
    pub fn set_partition_leader_epoch(&mut self, epoch: Epoch) {
        self.header.set_partition_leader_epoch(epoch);
    }

    /// Makes the batch idempotent: `base_sequence` is that of its first record.
    pub fn set_producer(&mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) {
        self.header.producer_id = producer_id;
        self.header.producer_epoch = producer_epoch;
        self.header.base_sequence = base_sequence;
    }

    /// Marks the batch as part of a transaction.
    pub fn set_transactional(&mut self) {
        self.header.set_transactional();
    }

    /// Marks the batch as one of control records, which only a broker writes.
    pub fn set_control(&mut self) {
        self.header.set_control();
    }

    /// Adds a record. `timestamp` is in milliseconds since the epoch; no key, no value and header
    /// values of `None` are nulls.
    ///
    /// Panics if a field is larger than 2 GiB or after 2^31-1 records: callers bound batches by
    /// [`Builder::size_bytes`].
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(Bytes, Option<Bytes>)],
    ) {
        let header = &mut self.header;
        if header.record_count == 0 {
            header.base_timestamp = timestamp;
            header.max_timestamp = timestamp;
        }
        header.max_timestamp = header.max_timestamp.max(timestamp);
        header.last_offset_delta += 1;
        header.record_count += 1;
        let timestamp_delta = timestamp.wrapping_sub(header.base_timestamp);
        let offset_delta = i64::from(header.last_offset_delta);

        let size = 1
            + varint::size(timestamp_delta)
            + varint::size(offset_delta)
            + field_size(key)
            + field_size(value)
            + varint::size(headers.len() as i64)
            + headers
                .iter()
                .map(|(name, value)| field_size(Some(name)) + field_size(value.as_deref()))
                .sum::<usize>();
        assert!(size <= i32::MAX as usize, "a record is below 2 GiB");
        self.bytes.reserve(size + varint::size(size as i64));
        varint::put(&mut self.bytes, size as i64);
        self.bytes.push(0);
        varint::put(&mut self.bytes, timestamp_delta);
        varint::put(&mut self.bytes, offset_delta);
        put_field(&mut self.bytes, key);
        put_field(&mut self.bytes, value);
        varint::put(&mut self.bytes, headers.len() as i64);
        for (name, value) in headers {
            put_field(&mut self.bytes, Some(name));
            put_field(&mut self.bytes, value.as_deref());
        }
    }

    /// Number of records so far.
    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// True without records.
    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// Size of the batch so far, before compression.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The finished batch. Panics without records: an empty batch has no last offset.
    pub fn build(self) -> Bytes {
        assert!(!self.is_empty(), "a batch has at least one record");
        let mut bytes = self.bytes;
        if self.codec != Codec::None {
            let body = compress(self.codec, &bytes[BATCH_HEADER_BYTES..]);
            bytes.truncate(BATCH_HEADER_BYTES);
            bytes.extend_from_slice(&body);
        }
        let header = self.header.seal(&bytes[BATCH_HEADER_BYTES..]);
        bytes[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode());
        bytes.into()
    }
}

fn field_size(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varint::size(bytes.len() as i64) + bytes.len())
}

fn put_field(section: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        Some(bytes) => {
            varint::put(section, bytes.len() as i64);
            section.extend_from_slice(bytes);
        }
        None => varint::put(section, -1),
    }
}
