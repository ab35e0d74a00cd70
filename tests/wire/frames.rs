//! Frames, headers, and the gaps of fetch responses.

use bytes::{Bytes, BytesMut};
use forebay::wire::frame::{self, RequestHeader};
use forebay::wire::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use forebay::wire::messages::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use forebay::wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use forebay::wire::messages::metadata::MetadataRequest;
use forebay::wire::{Gap, Malformed, Message, Reader, Records, Writer};

use crate::{hex, unhex};

fn header(api_key: i16, api_version: i16) -> RequestHeader {
    RequestHeader {
        api_key,
        api_version,
        correlation_id: 7,
        client_id: Some("me".into()),
    }
}

/// Bytes as Apache Kafka 4.3.1 writes them.
#[test]
fn request_headers_keep_the_short_client_id() {
    for (expected, header) in [
        ("000c00000000000700026d65", header(12, 0)),
        ("0003000c0000000700026d6500", header(3, 12)),
    ] {
        let mut writer = Writer::new();
        header.encode(&mut writer);
        assert_eq!(hex(&writer.bytes), expected);
        let mut reader = Reader::new(unhex(expected));
        assert_eq!(RequestHeader::decode(&mut reader), Ok(header));
        assert_eq!(reader.remaining(), 0);
    }
}

#[test]
fn a_header_without_client_id_or_cut_off() {
    let anonymous = unhex("000c000000000007ffff");
    let decoded = RequestHeader::decode(&mut Reader::new(anonymous.clone()));
    assert_eq!(decoded.map(|header| header.client_id), Ok(None));
    for length in 0..anonymous.len() {
        let cut = RequestHeader::decode(&mut Reader::new(anonymous.slice(..length)));
        assert!(cut.is_err(), "{length} bytes");
    }
}

#[test]
fn a_header_of_an_unknown_api_is_malformed() {
    // SaslHandshake, which we do not speak.
    let decoded = RequestHeader::decode(&mut Reader::new(unhex("0011000100000007ffff")));
    assert_eq!(decoded, Err(Malformed("unknown api key")));
}

#[test]
fn api_versions_of_the_future_has_a_readable_header() {
    let future = unhex("0012007f0000000700026d6500aabbcc");
    let mut reader = Reader::new(future);
    assert_eq!(RequestHeader::decode(&mut reader), Ok(header(18, 0x7f)));
    assert_eq!(reader.remaining(), 3, "the body nobody can read");
    assert!(ApiVersionsRequest::decode(&mut reader, 0x7f).is_err());
}

#[test]
fn header_tags_are_bounded() {
    let head = "0003000c00000007ffff";
    let mut many = unhex(head).to_vec();
    // 20 million tagged fields of 2 bytes (CVE-2026-111115).
    many.extend([0x80, 0xda, 0xc4, 0x09]);
    many.extend([0; 4000]);
    let decoded = RequestHeader::decode(&mut Reader::new(many.into()));
    assert_eq!(decoded, Err(Malformed("too many tagged fields")));
    let unknown = [&unhex(head)[..], &[1, 9, 2, 0xaa, 0xbb]].concat();
    assert!(RequestHeader::decode(&mut Reader::new(unknown.into())).is_ok());
}

#[test]
fn response_headers_are_tagged_where_flexible_but_never_for_api_versions() {
    let heartbeat = HeartbeatResponse::default();
    for (version, expected) in [
        (3, "0000000a00000007000000000000"),
        (4, "0000000c000000070000000000000000"),
    ] {
        let writer = frame::encode_response(7, 12, version, &heartbeat).expect("small");
        assert_eq!(hex(&writer.bytes), expected, "v{version}");
        let mut reader = Reader::new(writer.bytes.freeze().slice(4..));
        assert_eq!(
            frame::decode_response_header(&mut reader, 12, version),
            Ok(7)
        );
        assert_eq!(
            HeartbeatResponse::decode(&mut reader, version),
            Ok(heartbeat.clone())
        );
        assert_eq!(reader.remaining(), 0);
    }
    let writer = frame::encode_response(7, 18, 3, &ApiVersionsResponse::default()).expect("small");
    assert_eq!(hex(&writer.bytes), "0000000c000000070000010000000000");
    let mut reader = Reader::new(writer.bytes.freeze().slice(4..));
    assert_eq!(frame::decode_response_header(&mut reader, 18, 3), Ok(7));
    assert_eq!(
        ApiVersionsResponse::decode(&mut reader, 3),
        Ok(ApiVersionsResponse::default())
    );
}

#[test]
fn requests_are_framed() {
    let request = HeartbeatRequest {
        group_id: "g".into(),
        ..Default::default()
    };
    let writer = frame::encode_request(7, 0, Some("me".into()), &request);
    let expected = "00000015000c00000000000700026d65000167000000000000";
    assert_eq!(hex(&writer.bytes), expected);
    let mut buffer = writer.bytes;
    let frame = frame::split_frame(&mut buffer, 1 << 20)
        .expect("a good size")
        .expect("complete");
    let mut reader = Reader::new(frame);
    assert_eq!(RequestHeader::decode(&mut reader), Ok(header(12, 0)));
    assert_eq!(HeartbeatRequest::decode(&mut reader, 0), Ok(request));
}

#[test]
fn bytes_behind_a_request_are_ignored_as_kafka_does() {
    let mut reader = Reader::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]));
    assert!(MetadataRequest::decode(&mut reader, 1).is_ok());
    assert_eq!(reader.into_rest(), Bytes::from_static(&[1, 2, 3]));
}

#[test]
fn frames_are_split_when_complete() {
    let whole = [0, 0, 0, 2, 0xaa, 0xbb, 0, 0, 0, 0, 0, 0, 0, 1];
    for length in 0..6 {
        let mut buffer = BytesMut::from(&whole[..length]);
        assert_eq!(
            frame::split_frame(&mut buffer, 100),
            Ok(None),
            "{length} bytes"
        );
        assert_eq!(buffer.len(), length, "an incomplete frame stays");
    }
    let mut buffer = BytesMut::from(&whole[..]);
    let mut next = || frame::split_frame(&mut buffer, 100);
    assert_eq!(next(), Ok(Some(Bytes::from_static(&[0xaa, 0xbb]))));
    assert_eq!(next(), Ok(Some(Bytes::new())));
    assert_eq!(next(), Ok(None));
}

#[test]
fn frame_sizes_out_of_range_are_malformed() {
    let split = |size: i32| {
        let mut buffer = BytesMut::from(&size.to_be_bytes()[..]);
        let split = frame::split_frame(&mut buffer, 100);
        assert!(buffer.capacity() < 100, "reserved by a peer's number");
        split
    };
    assert_eq!(split(100), Ok(None));
    for size in [101, i32::MAX, -1, i32::MIN] {
        assert_eq!(
            split(size),
            Err(Malformed("frame size out of range")),
            "{size}"
        );
    }
}

/// A response with two partitions, each with these records.
fn response(records: [Records; 2]) -> FetchResponse {
    let partitions = records.map(|records| PartitionData {
        records,
        ..Default::default()
    });
    FetchResponse {
        responses: vec![FetchableTopicResponse {
            topic: "t".into(),
            partitions: partitions.into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn filled_gaps_give_the_bytes_of_a_whole_response() {
    let contents = [Bytes::from(vec![0xaa; 300]), Bytes::from(vec![0xbb; 5])];
    let external = |tag: usize| Records::External {
        tag: tag as u32,
        length: contents[tag].len() as u32,
    };
    for version in FetchResponse::VERSIONS {
        let whole = response(contents.clone().map(Records::Bytes));
        let whole = frame::encode_response(7, 1, version, &whole).expect("small");
        let gaps = response([external(0), external(1)]);
        let writer = frame::encode_response(7, 1, version, &gaps).expect("small");
        assert_eq!(writer.wire_bytes(), whole.bytes.len(), "v{version}");

        let mut filled = Vec::new();
        let mut sent = 0;
        for Gap {
            position,
            tag,
            length,
        } in writer.gaps
        {
            filled.extend(&writer.bytes[sent..position]);
            filled.extend(&contents[tag as usize][..length as usize]);
            sent = position;
        }
        filled.extend(&writer.bytes[sent..]);
        assert_eq!(filled, whole.bytes, "v{version}");
    }
}

#[test]
fn what_no_frame_can_hold_is_refused() {
    let half = |tag| Records::External {
        tag,
        length: 1 << 30,
    };
    for version in FetchResponse::VERSIONS {
        let refused = frame::encode_response(7, 1, version, &response([half(0), half(1)]));
        assert_eq!(refused.err(), Some(frame::TooLarge), "v{version}");
        let less = Records::External {
            tag: 1,
            length: (1 << 30) - 1000,
        };
        assert!(frame::encode_response(7, 1, version, &response([half(0), less])).is_ok());
    }
}

#[test]
fn payloads_and_hot_topic_names_share_the_frame() {
    use forebay::wire::messages::produce::ProduceRequest;

    let frame = unhex("ffffffff000075300000000100066f7264657273000000010000000300000003010203");
    let inside = frame.as_ptr_range();
    let request = ProduceRequest::decode(&mut Reader::new(frame.clone()), 3).expect("well formed");
    let topic = &request.topic_data[0];
    assert!(inside.contains(&topic.name.as_ptr()));
    let records = topic.partition_data[0].records.as_ref().expect("not null");
    assert!(inside.contains(&records.as_ptr()));
}
