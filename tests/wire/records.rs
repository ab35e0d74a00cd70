//! Golden bytes of stored records, framing included: what Apache Kafka 4.3.1 writes.

use bytes::Bytes;
use forebay::base::TopicId;
use forebay::wire::records::consumer_protocol::*;
use forebay::wire::records::group_metadata::*;
use forebay::wire::records::metadata::*;
use forebay::wire::records::offset_commit::*;
use forebay::wire::records::{self, Record};
use forebay::wire::{Malformed, Message, Reader};

use crate::{hex, unhex};

fn check_key<R: Record>(expected: &str, key: &R) {
    assert_eq!(hex(&records::encode_key(key)), expected);
    let mut reader = Reader::new(unhex(expected));
    assert_eq!(records::decode_key_type(&mut reader), Ok(R::KEY));
    assert_eq!(R::decode(&mut reader, 0).as_ref(), Ok(key));
}

fn check_value<M: Message>(version: i16, expected: &str, value: &M) {
    assert_eq!(hex(&records::encode_value(value, version)), expected);
    assert_eq!(records::decode_value(unhex(expected)).as_ref(), Ok(value));
}

fn check_metadata<R: Record>(version: i16, expected: &str, record: &R) {
    assert_eq!(hex(&records::encode_metadata(record, version)), expected);
    let mut reader = Reader::new(unhex(expected));
    let frame = records::decode_metadata_frame(&mut reader);
    assert_eq!(frame, Ok((R::KEY, version)));
    assert_eq!(R::decode(&mut reader, version).as_ref(), Ok(record));
    assert_eq!(reader.remaining(), 0);
}

fn id() -> uuid::Uuid {
    uuid::Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)
}

#[test]
fn offset_commit() {
    let key = OffsetCommitKey {
        group: "g".into(),
        topic: "t".into(),
        partition: 2,
    };
    check_key("000100016700017400000002", &key);
    let value = OffsetCommitValue {
        offset: 9,
        leader_epoch: 1,
        metadata: "m".into(),
        commit_timestamp: 1000,
        topic_id: TopicId(id()),
        ..Default::default()
    };
    check_value(
        4,
        "0004000000000000000900000001026d00000000000003e80100100102030405060708090a0b0c0d\
         0e0f10",
        &value,
    );
}

#[test]
fn group_metadata() {
    check_key("0002000167", &GroupMetadataKey { group: "g".into() });
    let value = GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation: 3,
        protocol: Some("range".into()),
        leader: Some("m".into()),
        current_state_timestamp: 1000,
        members: vec![MemberMetadata {
            member_id: "m".into(),
            group_instance_id: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout: 300_000,
            session_timeout: 45_000,
            subscription: Bytes::from_static(&[1]),
            assignment: Bytes::from_static(&[2, 3]),
        }],
    };
    check_value(
        3,
        "00030008636f6e73756d657200000003000572616e676500016d00000000000003e8000000010001\
         6dffff00016300022f68000493e00000afc80000000101000000020203",
        &value,
    );
}

#[test]
fn consumer_protocol() {
    let subscription = ConsumerProtocolSubscription {
        topics: vec!["t".into()],
        ..Default::default()
    };
    check_value(1, "000100000001000174ffffffff00000000", &subscription);
    let partitions = vec![TopicPartition {
        topic: "t".into(),
        partitions: vec![0, 1],
    }];
    let subscription = ConsumerProtocolSubscription {
        owned_partitions: partitions.clone(),
        generation_id: 4,
        rack_id: Some("r".into()),
        ..subscription
    };
    check_value(
        3,
        "000300000001000174ffffffff0000000100017400000002000000000000000100000004000172",
        &subscription,
    );
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: partitions,
        user_data: None,
    };
    check_value(
        0,
        "000000000001000174000000020000000000000001ffffffff",
        &assignment,
    );
}

#[test]
fn metadata() {
    let topic = TopicRecord {
        name: "t".into(),
        topic_id: TopicId(id()),
    };
    check_metadata(0, "01020002740102030405060708090a0b0c0d0e0f1000", &topic);
    let partition = PartitionRecord {
        partition_id: 0,
        topic_id: TopicId(id()),
        replicas: vec![1],
        isr: vec![1],
        leader: 1,
        leader_epoch: 0,
        partition_epoch: 0,
        directories: vec![id()],
        leader_recovery_state: 1,
        eligible_leader_replicas: Some(vec![1]),
        ..Default::default()
    };
    check_metadata(
        2,
        "010302000000000102030405060708090a0b0c0d0e0f100200000001020000000101010000000100\
         00000000000000020102030405060708090a0b0c0d0e0f100200010101050200000001",
        &partition,
    );
    let removed = RemoveTopicRecord {
        topic_id: TopicId(id()),
    };
    check_metadata(0, "0109000102030405060708090a0b0c0d0e0f1000", &removed);
    let config = ConfigRecord {
        resource_type: 2,
        resource_name: "t".into(),
        name: "retention.ms".into(),
        value: Some("1".into()),
    };
    check_metadata(0, "0104000202740d726574656e74696f6e2e6d73023100", &config);
}

#[test]
fn foreign_frames_are_refused() {
    let frame = |bytes: &[u8]| {
        records::decode_metadata_frame(&mut Reader::new(Bytes::copy_from_slice(bytes)))
    };
    assert_eq!(frame(&[1, 2, 0]), Ok((2, 0)));
    let unknown = Malformed("unknown frame version of a metadata record");
    assert_eq!(frame(&[2, 2, 0]), Err(unknown));
    assert!(
        frame(&[1, 0xff, 0xff, 0x7f, 0]).is_err(),
        "type beyond int16"
    );
    let overflowing = [1, 0x82, 0x80, 0x80, 0x80, 0x10, 0];
    assert!(frame(&overflowing).is_err(), "a varint beyond 32 bits");
    let newer = Bytes::from_static(&[0, 9, 0, 0]);
    assert!(records::decode_value::<OffsetCommitValue>(newer).is_err());
}
