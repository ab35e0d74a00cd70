//! Produce requests, built once and sent again and again: what a bench sends must cost it nothing.
//!
//! A frame carries its own correlation id, so that frames are shared by all connections and never
//! changed; the answers on a connection must come back with the ids in the order of sending.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use bytestring::ByteString;
use forebay::base::prng::Prng;
use forebay::batch::Builder;
use forebay::wire::frame;
use forebay::wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

use super::args::Load;
use super::link::CLIENT_ID;

/// Different batches per partition at most, and as many as stay within this size, so that the
/// load's own cache misses are not measured.
const VARIANTS_MAX: usize = 16;
const VARIANT_BYTES_MAX: u64 = 1 << 20;
/// How long the broker may wait for replicas.
const TIMEOUT_MS: i32 = 30_000;
/// What values are made of: they compress about as well as text does.
const WORDS: [&str; 16] = [
    "basin ",
    "canal ",
    "channel ",
    "crest ",
    "dam ",
    "delta ",
    "flood ",
    "flow ",
    "gate ",
    "intake ",
    "penstock ",
    "reservoir ",
    "river ",
    "spillway ",
    "turbine ",
    "weir ",
];

/// One request.
#[derive(Clone, Debug)]
pub struct Frame {
    /// As it goes over the wire.
    pub bytes: Bytes,
    /// Comes back in the answer.
    pub correlation_id: i32,
    /// The one partition that gets a batch.
    pub partition: i32,
    /// Records of the batch.
    pub records: u64,
    /// Keys and values of the batch before compression, in bytes.
    pub payload_bytes: u64,
}

/// Builds the frames for the partitions of one topic.
pub struct Frames<'a> {
    load: &'a Load,
    topic: ByteString,
    version: i16,
    variants: usize,
    prng: Prng,
    now_ms: i64,
}

impl<'a> Frames<'a> {
    /// Frames of `load` for `topic` of so many partitions, in this version of Produce.
    pub fn new(load: &'a Load, topic: &str, partitions: usize, version: i16) -> Self {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let of_all = (load.sizes.mean() * load.records_per_request).max(1) * partitions as u64;
        let variants = usize::try_from(VARIANT_BYTES_MAX / of_all).unwrap_or(VARIANTS_MAX);
        Self {
            load,
            topic: ByteString::from(topic),
            version,
            variants: variants.clamp(1, VARIANTS_MAX),
            prng: Prng::new(1),
            now_ms: i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// All frames for one partition.
    pub fn of_partition(&mut self, partition: i32) -> Vec<Rc<Frame>> {
        let variants = i32::try_from(self.variants).expect("at most 16");
        let first = partition.wrapping_mul(variants);
        (0..variants)
            .map(|variant| Rc::new(self.frame(partition, first.wrapping_add(variant))))
            .collect()
    }

    fn frame(&mut self, partition: i32, correlation_id: i32) -> Frame {
        let (batch, payload_bytes) = self.batch();
        let data = PartitionProduceData {
            index: partition,
            records: Some(batch),
        };
        let topic = TopicProduceData {
            name: self.topic.clone(),
            partition_data: vec![data].into(),
            ..TopicProduceData::default()
        };
        let request = ProduceRequest {
            acks: self.load.acks.code(),
            timeout_ms: TIMEOUT_MS,
            topic_data: vec![topic].into(),
            ..ProduceRequest::default()
        };
        let version = self.version;
        let encoded = frame::encode_request(correlation_id, version, Some(CLIENT_ID), &request);
        Frame {
            bytes: encoded.bytes.freeze(),
            correlation_id,
            partition,
            records: self.load.records_per_request,
            payload_bytes,
        }
    }

    fn batch(&mut self) -> (Bytes, u64) {
        let mut builder = Builder::new(self.load.codec);
        let mut payload_bytes = 0;
        let mut value = Vec::new();
        for _ in 0..self.load.records_per_request {
            let sizes = self.load.sizes;
            let size = sizes.min + self.prng.below(sizes.max - sizes.min + 1);
            self.fill(&mut value, usize::try_from(size).expect("at most 64 MiB"));
            let key = match self.load.keys {
                0 => None,
                keys => Some(format!("key-{}", self.prng.below(keys))),
            };
            let key = key.as_ref().map(String::as_bytes);
            payload_bytes += size + key.map_or(0, |key| key.len() as u64);
            builder.append(self.now_ms, key, Some(&value), &[]);
        }
        (builder.build(), payload_bytes)
    }

    fn fill(&mut self, value: &mut Vec<u8>, size: usize) {
        value.clear();
        while value.len() < size {
            let word = WORDS[self.prng.below(WORDS.len() as u64) as usize];
            value.extend_from_slice(word.as_bytes());
        }
        value.truncate(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::args::{Acks, Sizes};
    use forebay::batch::{Codec, batches, records};
    use forebay::wire::{Message, Reader};

    fn load() -> Load {
        Load {
            sizes: Sizes { min: 10, max: 20 },
            keys: 3,
            codec: Codec::Lz4,
            acks: Acks::All,
            connections: 1,
            depth: 1,
            records_per_request: 50,
            rate: None,
        }
    }

    #[test]
    fn a_frame_is_a_request_with_the_records_that_were_asked_for() {
        let load = load();
        let frames = Frames::new(&load, "t", 4, 9).of_partition(3);
        assert_eq!(frames.len(), VARIANTS_MAX);
        assert!(frames[0].bytes != frames[1].bytes);
        let mut reader = Reader::new(frames[2].bytes.slice(4..));
        let header = frame::RequestHeader::decode(&mut reader).unwrap();
        assert_eq!(header.correlation_id, frames[2].correlation_id);
        let request = ProduceRequest::decode(&mut reader, 9).unwrap();
        assert_eq!(request.acks, -1);
        let data = &request.topic_data[0].partition_data[0];
        assert_eq!((&*request.topic_data[0].name, data.index), ("t", 3));
        let found: Vec<_> = batches(data.records.clone().unwrap()).collect();
        let (head, body) = found[0].clone().unwrap();
        head.check_crc(&body).unwrap();
        let records: Vec<_> = records(&head, &body, 1 << 20)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!((found.len(), records.len()), (1, 50));
        let sizes = records
            .iter()
            .map(|record| record.value.as_ref().unwrap().len());
        assert!(sizes.clone().all(|size| (10..=20).contains(&size)));
        assert!(
            sizes.clone().min() != sizes.clone().max(),
            "sizes are drawn"
        );
        let keys = records
            .iter()
            .map(|record| record.key.as_ref().unwrap().len());
        assert_eq!(
            sizes.sum::<usize>() + keys.sum::<usize>(),
            frames[2].payload_bytes as usize
        );
    }

    #[test]
    fn correlation_ids_tell_all_frames_apart() {
        let load = load();
        let mut frames = Frames::new(&load, "t", 4, 9);
        let all = (0..4).flat_map(|partition| frames.of_partition(partition));
        let ids: std::collections::BTreeSet<_> = all.map(|frame| frame.correlation_id).collect();
        assert_eq!(ids.len(), 4 * VARIANTS_MAX);
    }
}
