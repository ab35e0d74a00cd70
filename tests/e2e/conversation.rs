//! Raw conversations: order of responses, long polls, back-pressure, versions.

use crate::broker::{Broker, batch, produce_request};
use forebay::base::ErrorCode;
use forebay::wire::Records;
use forebay::wire::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use forebay::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use forebay::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use forebay::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use forebay::wire::messages::find_coordinator::FindCoordinatorRequest;
use forebay::wire::messages::metadata::MetadataRequest;
use forebay::wire::messages::produce::ProduceRequest;
use forebay::wire::{Message, Reader};
use std::io::Write;
use std::time::{Duration, Instant};

pub fn fetch(topic: &str, offset: i64, wait_ms: i32, bytes_max: i32) -> FetchRequest {
    let partition = FetchPartition {
        fetch_offset: offset,
        partition_max_bytes: bytes_max,
        ..FetchPartition::default()
    };
    let topic = FetchTopic {
        topic: topic.into(),
        partitions: vec![partition],
        ..FetchTopic::default()
    };
    FetchRequest {
        max_wait_ms: wait_ms,
        min_bytes: 1,
        max_bytes: bytes_max,
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

fn record_bytes(records: &Records) -> usize {
    match records {
        Records::Bytes(bytes) => bytes.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn responses_come_in_the_order_of_the_requests() {
    let broker = Broker::start(4, "auto");
    let mut raw = broker.connect();
    raw.create_topic("order", 8);
    let mut sent = Vec::new();
    for round in 0..50 {
        for partition in 0..8 {
            let request = produce_request("order", partition, -1, batch(&[b"x"]));
            sent.push((raw.send(9, &request), true));
        }
        if round % 7 == 0 {
            sent.push((raw.send(4, &MetadataRequest::default()), false));
        }
    }
    for (id, produce) in sent {
        let got = match produce {
            true => {
                let (got, response) = raw.receive::<ProduceRequest>(9);
                let partition = &response.responses[0].partition_responses[0];
                assert_eq!(partition.error_code, ErrorCode::None);
                got
            }
            false => raw.receive::<MetadataRequest>(4).0,
        };
        assert_eq!(got, id);
    }
    // Requests that overlapped were still appended in their order: offsets are dense.
    for partition in 0..8 {
        let last = raw.produce("order", partition, batch(&[b"y"]));
        assert_eq!(last.base_offset, 50);
    }
}

#[test]
fn a_long_poll_waits_for_data_and_not_longer() {
    let broker = Broker::start(2, "auto");
    let (mut reader, mut writer) = (broker.connect(), broker.connect());
    writer.create_topic("poll", 1);
    let started = Instant::now();
    let response = reader.ask(11, &fetch("poll", 0, 300, 1000));
    assert!(
        started.elapsed() >= Duration::from_millis(300),
        "an empty poll waits its time"
    );
    assert_eq!(
        record_bytes(&response.responses[0].partitions[0].records),
        0
    );

    let started = Instant::now();
    reader.send(11, &fetch("poll", 0, 10_000, 1000));
    assert_eq!(writer.produce("poll", 0, batch(&[b"here"])).base_offset, 0);
    let (_, response) = reader.receive::<FetchRequest>(11);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "data ends a poll"
    );
    assert!(record_bytes(&response.responses[0].partitions[0].records) > 61);
    assert_eq!(response.responses[0].partitions[0].high_watermark, 1);
}

#[test]
fn a_peer_that_does_not_read_stops_being_served_and_harms_nobody() {
    let broker = Broker::start(1, "auto");
    let (mut greedy, mut polite) = (broker.connect(), broker.connect());
    polite.create_topic("greedy", 1);
    let big = vec![7; 900_000];
    for _ in 0..8 {
        polite.produce("greedy", 0, batch(&[&big]));
    }
    // Each response is several MB; the peer asks for 200 and reads none.
    let request = forebay::wire::frame::encode_request(
        1,
        11,
        Some("greedy".into()),
        &fetch("greedy", 0, 0, 8_000_000),
    );
    greedy.socket.set_nonblocking(true).unwrap();
    for _ in 0..200 {
        if greedy.socket.write_all(&request.bytes).is_err() {
            break;
        }
    }
    let started = Instant::now();
    for _ in 0..20 {
        polite.ask(4, &MetadataRequest::default());
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "others do not notice"
    );
    greedy.socket.set_nonblocking(false).unwrap();
    let (_, response) = greedy.receive::<FetchRequest>(11);
    assert!(record_bytes(&response.responses[0].partitions[0].records) > 900_000);
}

#[test]
fn a_fetch_is_the_same_by_copy_and_by_sendfile() {
    for io in ["uring", "posix"] {
        let broker = Broker::start(1, io);
        let mut raw = broker.connect();
        raw.create_topic("sizes", 1);
        let mut expected = Vec::new();
        for size in [1usize, 100, 8_000, 8_200, 300_000] {
            let value = vec![size as u8; size];
            raw.produce("sizes", 0, batch(&[&value]));
            expected.push(value);
        }
        for (offset, value) in expected.iter().enumerate() {
            let response = raw.ask(11, &fetch("sizes", offset as i64, 0, 1));
            let Records::Bytes(bytes) = &response.responses[0].partitions[0].records else {
                panic!("{response:?}");
            };
            let (header, body) = forebay::batch::batches(bytes.clone())
                .next()
                .unwrap()
                .unwrap();
            header.check_crc(&body).unwrap();
            assert_eq!(header.base_offset, offset as i64);
            let mut records = forebay::batch::records(&header, &body, 1 << 20).unwrap();
            assert_eq!(records.next().unwrap().unwrap().value.unwrap(), value);
        }
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let broker = Broker::start(1, "auto");
    let mut raw = broker.connect();
    // Key 18, version 99, correlation id 5, no client id, and a body that nobody can parse.
    let frame = [
        0, 0, 0, 14, 0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 0, 0xde, 0xad, 0xbe,
    ];
    raw.socket.write_all(&frame).unwrap();
    let frame = raw.frame().unwrap();
    assert_eq!(frame[..4], [0, 0, 0, 5]);
    let response = ApiVersionsResponse::decode(&mut Reader::new(frame.slice(4..)), 0).unwrap();
    assert_eq!(response.error_code, ErrorCode::UnsupportedVersion);
    let row = response
        .api_keys
        .iter()
        .find(|row| row.api_key == 18)
        .unwrap();
    assert_eq!((row.min_version, row.max_version), (0, 4));
    let produce = response
        .api_keys
        .iter()
        .find(|row| row.api_key == 0)
        .unwrap();
    assert_eq!((produce.min_version, produce.max_version), (0, 13));
    let request = ApiVersionsRequest {
        client_software_name: "a b".to_owned(),
        client_software_version: "1".to_owned(),
    };
    assert_eq!(raw.ask(3, &request).error_code, ErrorCode::InvalidRequest);
}

/// Java's consumer, kafka-python and aiokafka fail on a partition with a part of a batch only.
#[test]
fn every_partition_of_an_answer_has_whole_batches() {
    let broker = Broker::start(2, "auto");
    let mut raw = broker.connect();
    raw.create_topic("whole", 4);
    for partition in [0, 1, 2, 2, 3] {
        let request = produce_request("whole", partition, -1, batch(&[&[b'x'; 1000]]));
        raw.ask(9, &request);
    }
    let batch_bytes = batch(&[&[b'x'; 1000]]).len();
    let mut ask = |bytes_max: usize| {
        let mut request = fetch("whole", 0, 0, bytes_max as i32);
        let partition = request.topics[0].partitions[0].clone();
        request.topics[0].partitions = (0..4)
            .map(|index| FetchPartition {
                partition: index,
                partition_max_bytes: 1 << 20,
                ..partition.clone()
            })
            .collect();
        let answer = raw.ask(4, &request);
        let partitions = answer.responses[0].partitions.iter();
        partitions
            .map(|each| record_bytes(&each.records) / batch_bytes)
            .collect::<Vec<_>>()
    };
    assert_eq!(ask(1), [1, 0, 0, 0], "the first comes whatever its size");
    assert_eq!(ask(2 * batch_bytes - 1), [1, 0, 0, 0]);
    assert_eq!(
        ask(3 * batch_bytes),
        [1, 1, 0, 1],
        "two do not fit, the last one does"
    );
    assert_eq!(ask(5 * batch_bytes), [1, 1, 2, 1]);
}

/// KIP-227: what no session of ours can go on with.
#[test]
fn fetch_sessions_begin_and_end_and_none_goes_on() {
    let broker = Broker::start(1, "auto");
    let mut raw = broker.connect();
    raw.create_topic("s", 1);
    let mut ask = |session_id, session_epoch| {
        let request = FetchRequest {
            session_id,
            session_epoch,
            ..fetch("s", 0, 0, 1000)
        };
        let answer = raw.ask(12, &request);
        (answer.error_code, answer.session_id, answer.responses.len())
    };
    for (id, epoch) in [(0, -1), (0, 0), (9, -1), (9, 0)] {
        assert_eq!(ask(id, epoch), (ErrorCode::None, 0, 1), "{id}, {epoch}");
    }
    for (id, epoch) in [(9, 1), (0, 1)] {
        let refused = (ErrorCode::FetchSessionIdNotFound, 0, 0);
        assert_eq!(ask(id, epoch), refused, "{id}, {epoch}");
    }
}

/// Kafka: the setting counts as no more than there are replicas.
#[test]
fn more_in_sync_replicas_are_not_asked_for_than_there_are() {
    let broker = Broker::with(&["min.insync.replicas=2"]);
    let mut raw = broker.connect();
    raw.create_topic("one", 1);
    let answer = raw.ask(9, &produce_request("one", 0, -1, batch(&[b"x"])));
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(
        (partition.error_code, partition.base_offset),
        (ErrorCode::None, 0)
    );
}

/// With the codes of Kafka 4.3.1.
#[test]
fn records_of_internal_and_of_compacted_topics_cannot_be_deleted() {
    let broker = Broker::start(2, "auto");
    let mut raw = broker.connect();
    let group = FindCoordinatorRequest {
        key: "group".to_owned(),
        ..FindCoordinatorRequest::default()
    };
    assert_eq!(raw.ask(3, &group).error_code, ErrorCode::None);
    let topic = |(name, policy): (&str, &str)| CreatableTopic {
        name: name.to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        configs: vec![CreatableTopicConfig {
            name: "cleanup.policy".to_owned(),
            value: Some(policy.to_owned()),
        }],
        ..CreatableTopic::default()
    };
    let topics = [("compacted", "compact"), ("both", "compact,delete")];
    let request = CreateTopicsRequest {
        topics: topics.map(topic).into(),
        timeout_ms: 10_000,
        ..CreateTopicsRequest::default()
    };
    let created = raw.ask(7, &request).topics;
    assert!(created.iter().all(|topic| !topic.error_code.is_error()));
    for (name, expected) in [
        ("__consumer_offsets", ErrorCode::InvalidTopic),
        ("__cluster_metadata", ErrorCode::UnknownTopicOrPartition),
        ("compacted", ErrorCode::PolicyViolation),
        ("both", ErrorCode::None),
    ] {
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: name.to_owned(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: 0,
                    offset: -1,
                }],
            }],
            timeout_ms: 10_000,
        };
        let deleted = &raw.ask(2, &request).topics[0].partitions[0];
        assert_eq!(deleted.error_code, expected, "{name}");
    }
}
