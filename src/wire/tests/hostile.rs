//! Bytes that no honest peer sends: an error each time, never a panic.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::base::limits;

struct CutOff;

impl Visit for CutOff {
    fn visit<M: Message>(&mut self) {
        for (version, message, writer) in samples::<M>(2) {
            let bytes = writer.bytes.freeze();
            for length in 0..bytes.len() {
                let decoded = decode::<M>(bytes.slice(..length), version);
                assert!(decoded.is_err(), "{length} bytes of v{version} {message:?}");
            }
        }
    }
}

#[test]
fn a_message_cut_off_at_any_byte_is_malformed() {
    every_message(&mut CutOff);
}

/// Whatever decodes must also survive its own round trip.
fn decode_anything<M: Message>(bytes: Bytes, version: i16) {
    if let Ok(message) = M::decode(&mut Reader::new(bytes), version) {
        let mut writer = Writer::new();
        message.encode(&mut writer, version);
        let again = decode::<M>(writer.bytes.freeze(), version);
        assert_eq!(again, Ok(message), "{} v{version}", M::NAME);
    }
}

struct Damaged;

impl Visit for Damaged {
    fn visit<M: Message>(&mut self) {
        let mut prng = Prng::new(3);
        for (version, _, writer) in samples::<M>(3).filter(|sample| !sample.2.bytes.is_empty()) {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut bytes = writer.bytes.clone();
                let position = prng.below(bytes.len() as u64) as usize;
                bytes[position] = value;
                decode_anything::<M>(bytes.freeze(), version);
            }
        }
    }
}

#[test]
fn a_damaged_byte_never_panics() {
    every_message(&mut Damaged);
}

struct Decode(Bytes);

impl Visit for Decode {
    fn visit<M: Message>(&mut self) {
        for version in M::VERSIONS {
            decode_anything::<M>(self.0.clone(), version);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        every_message(&mut Decode(bytes.into()));
    }

    #[test]
    fn small_numbers_never_panic(bytes in prop::collection::vec(0u8..4, 0..200)) {
        every_message(&mut Decode(bytes.into()));
    }
}

#[test]
fn null_where_the_version_has_none_is_malformed() {
    use crate::wire::messages::metadata::MetadataRequest;

    let null = || Reader::new(Bytes::from_static(&[0xff; 4]));
    assert_eq!(
        MetadataRequest::decode(&mut null(), 0),
        Err(Malformed("null array"))
    );
    let all = MetadataRequest::decode(&mut null(), 1).expect("null is allowed from 1 on");
    assert_eq!(all.topics, None);
}

#[test]
fn versions_out_of_range_are_malformed() {
    use crate::wire::messages::produce::ProduceRequest;

    for version in [i16::MIN, 2, 14, i16::MAX] {
        let decoded =
            ProduceRequest::decode(&mut Reader::new(Bytes::from_static(&[0; 64])), version);
        assert_eq!(decoded, Err(Malformed("message version out of range")));
    }
}

/// A flexible request with a single int32, then its tagged fields.
fn tagged(fields: &[u8]) -> Result<crate::wire::messages::heartbeat::HeartbeatResponse, Malformed> {
    let bytes = [&[0; 6], fields].concat();
    decode(bytes.into(), 4)
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    assert!(tagged(&[0]).is_ok());
    assert!(tagged(&[2, 5, 1, 0xaa, 0x87, 0x01, 2, 0xbb, 0xcc]).is_ok());
    assert!(tagged(&[1, 5, 2, 0xaa]).is_err(), "value cut off");
}

#[test]
fn tagged_fields_are_bounded() {
    let fields = |count: u8| [&[count][..], &vec![0; usize::from(count) * 2]].concat();
    let most = u8::try_from(limits::TAGGED_FIELDS_MAX).expect("a small limit");
    assert!(tagged(&fields(most)).is_ok());
    assert_eq!(
        tagged(&fields(most + 1)),
        Err(Malformed("too many tagged fields"))
    );
}

#[test]
fn a_known_tagged_field_must_fill_its_size() {
    use crate::wire::messages::api_versions::ApiVersionsResponse;

    // Error 0, no keys, throttle 0, then tag 1 (epoch, int64) in 8 and in 9 bytes.
    let response = |size: u8| {
        let head = [0, 0, 1, 0, 0, 0, 0, 1, 1, size];
        decode::<ApiVersionsResponse>([&head[..], &vec![0; size.into()]].concat().into(), 3)
    };
    assert_eq!(
        response(8).map(|response| response.finalized_features_epoch),
        Ok(0)
    );
    assert!(response(9).is_err());
    assert!(response(7).is_err());
}

#[test]
fn text_must_be_utf8_and_short() {
    use crate::wire::messages::describe_groups::DescribeGroupsRequest;

    let request = |text: &[u8]| {
        let length = u32::try_from(text.len()).expect("a test text");
        let mut writer = Writer::new();
        writer.uvarint(2);
        writer.uvarint(length + 1);
        decode::<DescribeGroupsRequest>([&writer.bytes, text, &[0, 0]].concat().into(), 5)
    };
    assert!(request(&[b'a'; 32767]).is_ok());
    assert_eq!(request(&[b'a'; 32768]), Err(Malformed("string too long")));
    assert_eq!(request(&[0xc3, 0x28]), Err(Malformed("not UTF-8")));
}

#[test]
fn masses_of_empty_elements_are_refused() {
    use crate::wire::messages::describe_groups::DescribeGroupsRequest;

    let groups = |count: u32| {
        let mut writer = Writer::new();
        writer.uvarint(count + 1);
        decode::<DescribeGroupsRequest>(
            [&writer.bytes[..], &vec![1; count as usize], &[0, 0]]
                .concat()
                .into(),
            5,
        )
    };
    assert!(groups(10_000).is_ok());
    assert_eq!(
        groups(100_000),
        Err(Malformed("too many elements for its size"))
    );
}
