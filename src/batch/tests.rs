//! The batch against others: bytes that real clients wrote, an independent codec in both
//! directions, truncation and bit flips, and random records.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record as OracleRecord, RecordBatchDecoder, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType as OracleTimestampType,
};
use proptest::prelude::*;

use super::*;
use crate::base::limits::BATCH_HEADER_BYTES;

const LIMIT: usize = 1 << 20;
const NOW: i64 = 1_800_000_000_000;

macro_rules! golden {
    ($client:literal) => {
        [
            (
                Codec::None,
                &include_bytes!(concat!("testdata/", $client, "-none.log"))[..],
            ),
            (
                Codec::Gzip,
                include_bytes!(concat!("testdata/", $client, "-gzip.log")),
            ),
            (
                Codec::Snappy,
                include_bytes!(concat!("testdata/", $client, "-snappy.log")),
            ),
            (
                Codec::Lz4,
                include_bytes!(concat!("testdata/", $client, "-lz4.log")),
            ),
            (
                Codec::Zstd,
                include_bytes!(concat!("testdata/", $client, "-zstd.log")),
            ),
        ]
    };
}

fn some(bytes: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(bytes.as_bytes()))
}

fn read_all(bytes: &Bytes) -> Vec<Record> {
    let mut all = Vec::new();
    for batch in batches(bytes.clone()) {
        let (header, body) = batch.unwrap();
        header.check_crc(&body).unwrap();
        all.extend(records(&header, &body, LIMIT).unwrap().map(Result::unwrap));
    }
    all
}

/// Four records that were sent through three clients to Apache Kafka 4.3.1; the segment files are
/// the broker's. The last value fills several blocks of each codec.
#[test]
fn segments_of_real_clients() {
    let clients = [
        ("java", golden!("java"), None),
        ("librdkafka", golden!("librdkafka"), None),
        // kafka-python has no null header values.
        ("python", golden!("python"), some("z")),
    ];
    for (client, files, second_header) in clients {
        for (codec, file) in files {
            let bytes = Bytes::from_static(file);
            let (header, body) = batches(bytes.clone()).next().unwrap().unwrap();
            assert_eq!(header.codec(), Ok(codec));
            assert_eq!(header.size_bytes(), file.len());
            assert_eq!(header.encode(), file[..BATCH_HEADER_BYTES]);
            check_records(&header, &body, &ValidationRules::default(), NOW).unwrap();

            let records = read_all(&bytes);
            let parts: Vec<_> = records
                .iter()
                .map(|r| (r.offset, &r.key, &r.value))
                .collect();
            let big: String = (0..if codec == Codec::None { 2 } else { 12_000 })
                .map(|i| format!("order-{:02};", i % 100))
                .collect();
            assert_eq!(
                parts,
                [
                    (0, &some("k1"), &some("hello")),
                    (1, &None, &some("no key")),
                    (2, &some("tomb"), &None),
                    (3, &some("big"), &some(&big)),
                ],
                "{client} {codec}"
            );
            let name = |name: &'static str| Bytes::from_static(name.as_bytes());
            assert_eq!(
                records[0].headers,
                [
                    (name("h1"), some("x")),
                    (name("h2"), second_header.clone()),
                    (name("h1"), some("")),
                ]
            );
            assert!(records[1..].iter().all(|record| record.headers.is_empty()));
            if client != "java" {
                let times: Vec<_> = records
                    .iter()
                    .map(|record| record.timestamp - 1_700_000_000_000)
                    .collect();
                assert_eq!(times, [0, 5, -5, 1]);
                assert_eq!(header.max_timestamp, 1_700_000_000_005);
            }
        }
    }
}

/// What the builder makes of the records that librdkafka sent is what librdkafka made of them.
#[test]
fn the_builder_writes_the_bytes_of_librdkafka() {
    let file = include_bytes!("testdata/librdkafka-none.log");
    let header = Header::parse(file).unwrap();
    let mut builder = Builder::new(Codec::None);
    builder.set_producer(
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
    );
    builder.set_partition_leader_epoch(header.partition_leader_epoch);
    for record in read_all(&Bytes::from_static(file)) {
        builder.append(
            record.timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
    }
    assert_eq!(builder.size_bytes(), file.len());
    assert_eq!(builder.build(), file[..]);
}

fn oracle_compression(codec: Codec) -> Compression {
    match codec {
        Codec::None => Compression::None,
        Codec::Gzip => Compression::Gzip,
        Codec::Snappy => Compression::Snappy,
        Codec::Lz4 => Compression::Lz4,
        Codec::Zstd => Compression::Zstd,
    }
}

fn to_oracle(header: &Header, record: &Record) -> OracleRecord {
    let delta = (record.offset - header.base_offset) as i32;
    OracleRecord {
        transactional: header.is_transactional(),
        control: header.is_control(),
        delete_horizon: false,
        partition_leader_epoch: header.partition_leader_epoch,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        timestamp_type: OracleTimestampType::Creation,
        offset: record.offset,
        sequence: header.base_sequence.wrapping_add(delta),
        timestamp: record.timestamp,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    StrBytes::try_from(name.clone()).expect("names are UTF-8"),
                    value.clone(),
                )
            })
            .collect(),
    }
}

fn build(codec: Codec, input: &[Record]) -> Bytes {
    let mut builder = Builder::new(codec);
    builder.set_base_offset(1000);
    builder.set_partition_leader_epoch(3);
    builder.set_producer(77, 2, 40);
    for record in input {
        builder.append(
            record.timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
    }
    assert_eq!(builder.record_count() as usize, input.len());
    builder.build()
}

fn codec_strategy() -> impl Strategy<Value = Codec> {
    prop::sample::select(&Codec::ALL[..])
}

/// Records with dense offsets from 1000 and header names without repetition, which the oracle's
/// map could not hold.
fn records_strategy() -> impl Strategy<Value = Vec<Record>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let headers = prop::collection::btree_map("[a-z]{0,8}", prop::option::of(bytes()), 0..4);
    let timestamp = NOW - 10_000..NOW + 10_000;
    let record = (
        timestamp,
        prop::option::of(bytes()),
        prop::option::of(bytes()),
        headers,
    );
    prop::collection::vec(record, 1..40).prop_map(|parts| {
        let with_offsets = (1000..).zip(parts);
        with_offsets
            .map(|(offset, (timestamp, key, value, headers))| Record {
                offset,
                timestamp,
                key,
                value,
                headers: headers
                    .into_iter()
                    .map(|(name, value)| (name.into(), value))
                    .collect(),
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn records_come_back(codec in codec_strategy(), input in records_strategy()) {
        let bytes = build(codec, &input);
        prop_assert_eq!(&read_all(&bytes), &input);
        let (header, body) = batches(bytes).next().unwrap().unwrap();
        prop_assert_eq!(header.next_offset(), 1000 + input.len() as i64);
        let max_timestamp = input.iter().map(|record| record.timestamp).max().unwrap();
        prop_assert_eq!(header.max_timestamp, max_timestamp);
        let summary = check_records(&header, &body, &ValidationRules::default(), NOW);
        prop_assert_eq!(summary, Ok(RecordsSummary { max_timestamp }));
    }

    #[test]
    fn the_oracle_reads_what_the_builder_writes(
        codec in codec_strategy(),
        input in records_strategy(),
    ) {
        let mut bytes = build(codec, &input);
        let header = Header::parse(&bytes).unwrap();
        let read = RecordBatchDecoder::decode(&mut bytes).unwrap();
        prop_assert_eq!(read.compression, oracle_compression(codec));
        let expected: Vec<_> = input.iter().map(|record| to_oracle(&header, record)).collect();
        prop_assert_eq!(read.records, expected);
    }

    #[test]
    fn what_the_oracle_writes_is_read(codec in codec_strategy(), input in records_strategy()) {
        let header = Header::parse(&build(codec, &input)).unwrap();
        let given: Vec<_> = input.iter().map(|record| to_oracle(&header, record)).collect();
        let options = RecordEncodeOptions { version: 2, compression: oracle_compression(codec) };
        let mut bytes = BytesMut::new();
        RecordBatchEncoder::encode(&mut bytes, &given, &options).unwrap();
        let bytes = bytes.freeze();
        let (written, body) = batches(bytes.clone()).next().unwrap().unwrap();
        prop_assert_eq!(
            Header { base_timestamp: header.base_timestamp, ..written }.seal(&body),
            header.seal(&body)
        );
        prop_assert_eq!(read_all(&bytes), input);
    }

    #[test]
    fn compression_can_be_changed(
        from in codec_strategy(),
        to in codec_strategy(),
        input in records_strategy(),
    ) {
        let bytes = build(from, &input);
        let (header, body) = batches(bytes).next().unwrap().unwrap();
        let (header, body) = recompress(&header, &body, to, LIMIT).unwrap();
        prop_assert_eq!(header.codec(), Ok(to));
        prop_assert_eq!(header.body_bytes(), body.len());
        prop_assert_eq!(header.check_crc(&body), Ok(()));
        let read: Vec<_> = records(&header, &body, LIMIT).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(read, input);
    }

    /// A right CRC over wrong records: what a hostile client sends.
    #[test]
    fn damaged_sections_never_panic(
        codec in codec_strategy(),
        input in records_strategy(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let bytes = build(codec, &input);
        let (header, body) = batches(bytes).next().unwrap().unwrap();
        let mut body = body.to_vec();
        for (index, byte) in edits {
            let at = index.index(body.len());
            body[at] = byte;
        }
        let body = Bytes::from(body);
        let header = header.seal(&body);
        let checked = check_records(&header, &body, &ValidationRules::default(), NOW);
        if let Ok(items) = records(&header, &body, LIMIT) {
            // Whatever the check lets through can be read.
            prop_assert!(checked.is_err() || items.into_iter().all(|item| item.is_ok()));
        }
    }

    #[test]
    fn random_bytes_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        attributes in 0..8u8,
        count in 0..5u8,
    ) {
        // Steer past magic, length and CRC now and then: random bytes alone die there.
        if bytes.len() > BATCH_HEADER_BYTES {
            let length = bytes.len() as u32 - 12;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[16] = 2;
            bytes[21..23].copy_from_slice(&[0, attributes]);
            bytes[57..61].copy_from_slice(&[0, 0, 0, count]);
        }
        let bytes = Bytes::from(bytes);
        let _ = validate(&bytes, &ValidationRules::default(), NOW);
        for (header, body) in batches(bytes).flatten() {
            let header = header.seal(&body);
            let _ = check_records(&header, &body, &ValidationRules::default(), NOW);
            let items = records(&header, &body, LIMIT).map_or(0, Iterator::count);
            prop_assert!(items <= body.len() + 1);
        }
    }
}

fn small_batch() -> Bytes {
    let mut builder = Builder::new(Codec::None);
    builder.set_producer(1, 0, 0);
    builder.append(
        NOW,
        Some(b"k"),
        Some(b"v"),
        &[(Bytes::from_static(b"h"), None)],
    );
    builder.append(NOW, None, Some(b"w"), &[]);
    builder.build()
}

#[test]
fn every_truncation_is_torn() {
    let bytes = small_batch();
    let rules = ValidationRules::default();
    assert!(validate(&bytes, &rules, NOW).is_ok());
    for end in 0..bytes.len() {
        let cut = bytes.slice(..end);
        assert!(
            matches!(validate(&cut, &rules, NOW), Err(BatchError::Torn { .. })),
            "{end}"
        );
        assert!(batches(cut).next().is_none());
    }
}

/// Only the leader epoch, which the broker writes itself, may change without a trace.
#[test]
fn every_flipped_bit_is_seen() {
    let bytes = small_batch();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = BytesMut::from(&bytes[..]);
        flipped[bit / 8] ^= 1 << (bit % 8);
        let result = validate(&flipped.freeze(), &ValidationRules::default(), NOW);
        assert_eq!(
            result.is_ok(),
            (12..16).contains(&(bit / 8)),
            "bit {bit}: {result:?}"
        );
    }
}

#[test]
fn a_fetched_buffer_ends_with_a_torn_batch_or_an_error() {
    let batch = small_batch();
    let buffer = |tail: &[u8]| Bytes::from([&batch, &batch, tail].concat());
    assert_eq!(batches(buffer(&batch[..30])).flatten().count(), 2);
    let mut items = batches(buffer(&[0; 30]));
    assert!(items.next().unwrap().is_ok() && items.next().unwrap().is_ok());
    assert_eq!(items.next(), Some(Err(BatchError::Magic(0))));
    assert_eq!(items.next(), None);
}

#[test]
fn records_stop_after_the_first_error() {
    let batch = small_batch();
    let (header, body) = batches(batch).next().unwrap().unwrap();
    let read = |header: Header, body: Bytes| -> Vec<_> {
        records(&header, &body, LIMIT)
            .unwrap()
            .map(|item| item.map(|r| r.offset))
            .collect()
    };
    let error = |what| Err(BatchError::Malformed(what));
    assert_eq!(read(header, body.clone()), [Ok(0), Ok(1)]);
    assert_eq!(
        read(
            Header {
                record_count: 1,
                ..header
            },
            body.clone()
        ),
        [Ok(0), error("bytes follow the last record")]
    );
    assert_eq!(
        read(
            Header {
                record_count: 9,
                ..header
            },
            body.clone()
        ),
        [Ok(0), Ok(1), error("a varint reaches past the end")]
    );
    assert_eq!(
        read(
            Header {
                last_offset_delta: 0,
                ..header
            },
            body.clone()
        ),
        [Ok(0), error("an offset delta is outside of the batch")]
    );
    assert_eq!(
        read(header, body.slice(..body.len() - 1)),
        [Ok(0), error("a record reaches past the end of its batch")]
    );
}

#[test]
fn control_and_transactional_batches() {
    let mut builder = Builder::new(Codec::None);
    assert!(builder.is_empty());
    builder.set_control();
    builder.set_transactional();
    builder.append(NOW, Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0, 0]), &[]);
    let header = Header::parse(&builder.build()).unwrap();
    assert_eq!(
        (header.is_control(), header.is_transactional()),
        (true, true)
    );
    assert_eq!(header.attributes, 0x30);
    assert_eq!(header.last_sequence(), NO_SEQUENCE);
}
