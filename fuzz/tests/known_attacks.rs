//! Attacks that servers of this protocol are known to have fallen to, each as it was published, and
//! what it takes here. The README lists them with their numbers. What fuzzing adds is in `replay`.

use bytes::{BufMut, Bytes, BytesMut};
use forebay::base::ErrorCode;
use forebay::batch::{
    BatchError, Codec, Header, ValidationRules, check_records, compress, decompress, records,
};
use forebay::wire::frame::{RequestHeader, encode_request};
use forebay::wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use forebay::wire::messages::describe_topic_partitions::DescribeTopicPartitionsRequest;
use forebay::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use forebay::wire::messages::metadata::MetadataRequest;
use forebay::wire::messages::offset_delete::OffsetDeleteRequest;
use forebay::wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use forebay::wire::{Malformed, Message, Reader, Request};
use forebay_fuzz::machine::{Client, Machine, world};
use forebay_fuzz::memory::peak_of;

/// What any of these may take beyond its own bytes.
const EXTRA_BYTES_MAX: usize = 1 << 20;

/// The time of records.
const NOW_MS: i64 = 1_800_000_000_000;

/// The bytes of a batch's head.
const HEAD_BYTES: usize = 61;

/// Asserts that something took no more than an attack may, and gives its result.
fn cheap<T>(attack: impl FnOnce() -> T) -> T {
    let (peak, result) = peak_of(attack);
    assert!(peak <= EXTRA_BYTES_MAX, "{peak} bytes");
    result
}

fn uvarint(bytes: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        bytes.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

/// A request header of version 2 (flexible) without its tagged fields.
fn flexible_header(api_key: i16, version: i16) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_i16(api_key);
    bytes.put_i16(version);
    bytes.put_i32(7);
    bytes.put_i16(-1);
    bytes
}

/// A machine with a broker and a topic `orders`, and a client of it.
fn served() -> (Machine, Client) {
    let mut machine = Machine::new(world(3));
    machine.start(1).expect("an empty directory opens");
    let mut client = Client::dial(&machine);
    let create = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: "orders".to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let created = machine.ask(&mut client, 7, &create);
    assert_eq!(created.topics[0].error_code, ErrorCode::None);
    (machine, client)
}

/// Sends a batch to `orders`.
fn produce(machine: &mut Machine, client: &mut Client, batch: Bytes) -> ErrorCode {
    let partition = PartitionProduceData {
        index: 0,
        records: Some(batch),
    };
    let topic = TopicProduceData {
        name: "orders".into(),
        partition_data: [partition].into_iter().collect(),
        ..Default::default()
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 1_000,
        topic_data: [topic].into_iter().collect(),
        ..Default::default()
    };
    let response = machine.ask(client, 9, &request);
    response.responses[0].partition_responses[0].error_code
}

/// A batch with this head and records section, its length and CRC right.
fn sealed(codec: Codec, record_count: i32, section: &[u8]) -> (Header, Bytes) {
    let header = Header {
        base_offset: 0,
        batch_length: 0,
        partition_leader_epoch: -1,
        crc: 0,
        attributes: i16::from(codec.id()),
        last_offset_delta: record_count - 1,
        base_timestamp: NOW_MS,
        max_timestamp: NOW_MS,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count,
    };
    let header = header.seal(section);
    let batch = [&header.encode()[..], section].concat();
    (header, batch.into())
}

/// CVE-2026-111115: twenty million tagged fields in the header, before authentication.
#[test]
fn millions_of_tagged_fields_in_a_header() {
    let mut bytes = flexible_header(MetadataRequest::KEY, 12);
    uvarint(&mut bytes, 20_000_000);
    for tag in 0..1_000_000u32 {
        bytes.put_u8(tag as u8 & 0x7f);
        bytes.put_u8(0);
    }
    let frame = bytes.freeze();
    let header = cheap(|| RequestHeader::decode(&mut Reader::new(frame)));
    assert_eq!(header, Err(Malformed("too many tagged fields")));
}

/// The same in every structure of the body.
#[test]
fn tagged_fields_in_nested_structures() {
    let mut bytes = BytesMut::new();
    uvarint(&mut bytes, 2);
    bytes.put_u8(7);
    bytes.put_slice(b"orders");
    uvarint(&mut bytes, 20_000_000);
    bytes.put_bytes(0, 4 << 20);
    let mut reader = Reader::new(bytes.freeze());
    let decoded = cheap(|| DescribeTopicPartitionsRequest::decode(&mut reader, 0));
    assert_eq!(decoded, Err(Malformed("too many tagged fields")));
}

/// CVE-2026-111108: arrays within arrays, each with a count that its bytes could just hold.
#[test]
fn arrays_that_multiply() {
    let topics = 1 << 18;
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(topics);
    for topic in (0..topics).rev() {
        // Without a name, and with as many partitions as there are bytes behind them.
        bytes.put_i16(0);
        bytes.put_i32(topic * 6 / 4);
    }
    let mut reader = Reader::new(bytes.freeze());
    let decoded = cheap(|| OffsetDeleteRequest::decode(&mut reader, 0));
    assert!(decoded.is_err());
}

/// CVE-2022-34917: a size without the bytes, from whoever connects.
#[test]
fn an_announced_frame_reserves_nothing() {
    let (mut machine, mut healthy) = served();
    let peers: Vec<_> = (0..50).map(|_| Client::dial(&machine)).collect();
    cheap(|| {
        for peer in &peers {
            let mut start = BytesMut::new();
            start.put_i32(99_999);
            start.put_slice(b"\0\x03\0\x0c");
            peer.send(&machine, start.freeze());
        }
        machine.run_for(1_000, |_| {});
    });
    machine.ask(&mut healthy, 12, &MetadataRequest::default());
}

/// A frame above `socket.request.max.bytes` ends its connection, and nothing else.
#[test]
fn an_oversized_frame_ends_its_connection() {
    let (mut machine, mut healthy) = served();
    for size in [100_001, i32::MAX, -1, i32::MIN] {
        let mut peer = Client::dial(&machine);
        peer.send(&machine, Bytes::copy_from_slice(&size.to_be_bytes()));
        machine.run_for(100, |machine| {
            assert!(peer.next_frame(machine).is_none());
        });
        assert!(peer.end.is_some(), "size {size}");
        machine.ask(&mut healthy, 12, &MetadataRequest::default());
    }
}

/// CVE-2026-111073, RabbitMQ's CVE-2026-67232: 50 KB that become 5 GB.
#[test]
fn decompression_stops_at_its_limit() {
    let zeros = vec![0; 64 << 20];
    let limit = 64 << 10;
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Zstd] {
        let bomb = compress(codec, &zeros);
        let decompressed = cheap(|| decompress(codec, &bomb, limit));
        assert_eq!(
            decompressed,
            Err(BatchError::OutputLimit { limit }),
            "{codec}"
        );
    }
    // The decoder of LZ4 reserves its blocks, of at most 4 MiB, before it looks at the first.
    let bomb = compress(Codec::Lz4, &zeros);
    let (peak, decompressed) = peak_of(|| decompress(Codec::Lz4, &bomb, limit));
    assert_eq!(decompressed, Err(BatchError::OutputLimit { limit }));
    assert!(peak <= EXTRA_BYTES_MAX + (12 << 20), "{peak} bytes");
}

/// The same as a produce request: the broker stores what it need not look into, and takes no
/// memory for it.
#[test]
fn a_bomb_in_a_produce_request_is_not_unpacked() {
    let (mut machine, mut client) = served();
    let section = compress(Codec::Zstd, &vec![0; 64 << 20]);
    let (_, batch) = sealed(Codec::Zstd, 1, &section);
    let code = cheap(|| produce(&mut machine, &mut client, batch));
    assert_eq!(code, ErrorCode::None);
}

/// A window of gigabytes in the head of a zstd frame.
#[test]
fn a_zstd_window_beyond_the_limit_is_refused() {
    // Magic, no single segment, windows of 2 to the power of 28 and 41.
    for exponent in [18u8, 31] {
        let frame = [
            0x28,
            0xb5,
            0x2f,
            0xfd,
            0x00,
            exponent << 3,
            0x01,
            0x00,
            0x00,
        ];
        let decompressed = cheap(|| decompress(Codec::Zstd, &frame, 1 << 20));
        assert_eq!(decompressed, Err(BatchError::Corrupt(Codec::Zstd)));
    }
}

/// kafka-protocol-rs: a record count in the head of a batch, believed (issue 156).
#[test]
fn record_counts_are_not_believed() {
    let (header, batch) = sealed(Codec::None, i32::MAX, b"\x0c\0\0\0\x01\x01\0");
    let body = batch.slice(HEAD_BYTES..);
    let rules = ValidationRules::default();
    let checked = cheap(|| check_records(&header, &body, &rules, NOW_MS));
    assert!(
        matches!(checked, Err(BatchError::Malformed(_))),
        "{checked:?}"
    );
    let read = cheap(|| {
        let records = records(&header, &body, 1 << 20).expect("nothing is decompressed");
        records.filter(Result::is_err).count()
    });
    assert_eq!(read, 1, "it ends after the first error");
}

/// ydb's `resize(INT_MAX)`, RabbitMQ's CVE-2026-67235: lengths within a record, and their sums.
#[test]
fn lengths_within_a_record_are_not_believed() {
    // The record's, the key's, the value's length, and the number of headers, in turn.
    for place in 0..4 {
        let mut fields: [&[u8]; 4] = [&[0x14, 0, 0, 0], &[1], &[1], &[0]];
        fields[place] = match place {
            0 => b"\xfe\xff\xff\xff\x0f\0\0\0",
            _ => b"\xfe\xff\xff\xff\x0f",
        };
        let (header, batch) = sealed(Codec::None, 1, &fields.concat());
        let body = batch.slice(HEAD_BYTES..);
        let rules = ValidationRules::default();
        let checked = cheap(|| check_records(&header, &body, &rules, NOW_MS));
        assert!(
            matches!(checked, Err(BatchError::Malformed(_))),
            "{place}: {checked:?}"
        );
    }
}

/// CVE-2018-1288: a client that says in a fetch that it is a follower. Here that gives no power.
#[test]
fn a_fetch_as_a_follower_changes_nothing() {
    let (mut machine, mut client) = served();
    let (_, batch) = sealed(Codec::None, 1, b"\x0c\0\0\0\x01\x01\0");
    assert_eq!(produce(&mut machine, &mut client, batch), ErrorCode::None);
    let fetch = |replica_id, fetch_offset| FetchRequest {
        replica_id,
        topics: vec![FetchTopic {
            topic: "orders".into(),
            partitions: vec![FetchPartition {
                fetch_offset,
                partition_max_bytes: 1000,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut answer = |replica_id, offset| {
        let response = machine.ask(&mut client, 11, &fetch(replica_id, offset));
        response.responses[0].partitions[0].clone()
    };
    let before = answer(-1, 0);
    for replica_id in [0, 1, 2, i32::MAX] {
        answer(replica_id, 0);
        answer(replica_id, 1);
        answer(replica_id, 1_000_000);
    }
    assert_eq!(answer(-1, 0), before);
}

/// A frame that says nothing, byte by byte, to be sure that the attacks above reach the broker.
#[test]
fn the_machine_serves() {
    let (mut machine, mut client) = served();
    let frame = encode_request(1, 12, None, &MetadataRequest::default()).bytes;
    let mut peer = Client::dial(&machine);
    for byte in &frame {
        peer.send(&machine, Bytes::copy_from_slice(&[*byte]));
    }
    let mut answered = false;
    machine.run_for(1_000, |machine| {
        answered |= peer.next_frame(machine).is_some()
    });
    assert!(answered);
    machine.ask(&mut client, 12, &MetadataRequest::default());
    assert!(machine.stop());
}
