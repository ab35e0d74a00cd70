//! Bad input: the connection is closed or gets Kafka's code, and nobody else notices.

use crate::broker::{Broker, batch, produce_request};
use crate::conversation::fetch;
use bytes::{BufMut, BytesMut};
use forebay::base::ErrorCode;
use forebay::batch::Header;
use forebay::wire::messages::init_producer_id::InitProducerIdRequest;
use forebay::wire::messages::metadata::MetadataRequest;
use std::io::{Read, Write};

/// A frame with its size in front.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

#[test]
fn frames_that_make_no_sense_close_only_their_connection() {
    let broker = Broker::start(2, "auto");
    let mut healthy = broker.connect();
    let frames: [(&str, Vec<u8>); 8] = [
        ("a negative size", vec![0xff, 0xff, 0xff, 0xff]),
        ("a size above the limit", vec![0x7f, 0xff, 0xff, 0xff]),
        ("an empty frame", framed(&[])),
        ("a cut header", framed(&[0, 3, 0])),
        (
            "an unknown API",
            framed(&[0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff]),
        ),
        (
            "a version that is not served",
            framed(&[0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff]),
        ),
        ("a count far above the body", {
            framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff])
        }),
        (
            "text of another protocol",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        ),
    ];
    for (what, bytes) in frames {
        let mut raw = broker.connect();
        raw.socket.write_all(&bytes).unwrap();
        assert!(raw.frame().is_none(), "{what} must close the connection");
        healthy.ask(4, &MetadataRequest::default());
    }
}

#[test]
fn a_frame_may_come_in_any_pieces() {
    let broker = Broker::start(1, "auto");
    let mut raw = broker.connect();
    let request = MetadataRequest::default();
    let frame = forebay::wire::frame::encode_request(1, 4, Some("slow".into()), &request).bytes;
    for byte in frame.iter() {
        raw.socket.write_all(&[*byte]).unwrap();
    }
    assert_eq!(raw.receive::<MetadataRequest>(4).0, 1);
}

#[test]
fn an_answer_without_bounds_ends_nothing() {
    let broker = Broker::with(&["fetch.max.bytes=2147483647"]);
    let mut healthy = broker.connect();
    healthy.create_topic("large", 1);
    let big = vec![7; 900_000];
    for _ in 0..5 {
        assert_eq!(
            healthy.produce("large", 0, batch(&[&big])).error_code,
            ErrorCode::None
        );
    }
    // The same 4.5 MB so often that they do not fit a frame.
    let mut request = fetch("large", 0, 0, i32::MAX);
    let partition = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = vec![partition; 600];
    let mut greedy = broker.connect();
    greedy.send(11, &request);
    let mut size = [0; 4];
    greedy.socket.read_exact(&mut size).unwrap();
    let size = i32::from_be_bytes(size);
    let (bound, part, heads) = (1 << 30, 5 << 20, 1 << 20);
    assert!((bound - part..bound + heads).contains(&size), "{size}");
    healthy.ask(4, &MetadataRequest::default());
}

#[test]
fn bad_batches_get_kafkas_codes() {
    let broker = Broker::start(2, "auto");
    let mut raw = broker.connect();
    raw.create_topic("codes", 1);
    let good = batch(&[b"value"]);
    let flip = |position: usize| {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[position] ^= 0x40;
        bytes.freeze()
    };
    let mut old = BytesMut::from(&good[..]);
    old[16] = 1;
    let mut twice = BytesMut::from(&good[..]);
    twice.put_slice(&good);
    let mut counted = Header::parse(&good).unwrap();
    counted.record_count = 2;
    let counted = counted.seal(&good[61..]);
    let mut miscounted = BytesMut::from(&counted.encode()[..]);
    miscounted.put_slice(&good[61..]);
    let cases = [
        (
            "a flipped bit",
            flip(good.len() - 1),
            ErrorCode::CorruptMessage,
        ),
        ("an old magic", old.freeze(), ErrorCode::InvalidRecord),
        ("two batches", twice.freeze(), ErrorCode::InvalidRecord),
        (
            "a wrong count",
            miscounted.freeze(),
            ErrorCode::InvalidRecord,
        ),
        (
            "too large",
            batch(&[&vec![0; 1_100_000]]),
            ErrorCode::MessageTooLarge,
        ),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(raw.produce("codes", 0, bytes).error_code, code, "{what}");
    }
    let unknown = raw.produce("nowhere", 0, good.clone());
    assert_eq!(unknown.error_code, ErrorCode::UnknownTopicOrPartition);
    let unknown = raw.produce("codes", 1, good.clone());
    assert_eq!(unknown.error_code, ErrorCode::UnknownTopicOrPartition);
    let response = raw.ask(9, &produce_request("codes", 0, 2, good.clone()));
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, ErrorCode::InvalidRequiredAcks);
    assert_eq!(
        raw.produce("codes", 0, good).base_offset,
        0,
        "nothing bad was stored"
    );
}

#[test]
fn acks_0_has_no_response_and_a_failure_closes() {
    let broker = Broker::start(2, "auto");
    let mut raw = broker.connect();
    raw.create_topic("silent", 1);
    raw.send(9, &produce_request("silent", 0, 0, batch(&[b"1"])));
    let sent = raw.send(4, &MetadataRequest::default());
    assert_eq!(
        raw.receive::<MetadataRequest>(4).0,
        sent,
        "only the metadata is answered"
    );
    raw.send(9, &produce_request("nowhere", 0, 0, batch(&[b"1"])));
    assert!(raw.frame().is_none());
}

#[test]
fn transactions_are_refused_in_words_that_clients_understand() {
    let broker = Broker::start(1, "auto");
    let request = InitProducerIdRequest {
        transactional_id: Some("t".to_owned()),
        transaction_timeout_ms: 1000,
        ..InitProducerIdRequest::default()
    };
    let response = broker.connect().ask(4, &request);
    assert_eq!(
        response.error_code,
        ErrorCode::TransactionalIdAuthorizationFailed
    );
}
