//! Agreement with `kafka-protocol`, a codec generated from Kafka's schemas by other people: what we
//! encode it decodes, and what it encodes from that is byte for byte what we wrote, and therefore
//! what we decode.

use bytes::BytesMut;
use kafka_protocol::messages::{
    ApiKey, ConsumerProtocolAssignment, ConsumerProtocolSubscription, RequestKind, ResponseKind,
};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::*;

/// What it lacks, being made from the schemas of Kafka 4.1 (where version 10 of two requests was
/// not
/// yet stable). Their fields are checked by `scripts/check-schemas` and by golden bytes.
const LACKING: &[(&str, i16)] = &[
    ("ListOffsetsRequest", 11),
    ("ListOffsetsResponse", 11),
    ("OffsetCommitRequest", 10),
    ("OffsetFetchRequest", 10),
    ("DescribeLogDirsRequest", 5),
    ("DescribeLogDirsResponse", 5),
];

/// Decodes our bytes and encodes the result again, the oracle's way.
type Echo = fn(ApiKey, &mut Bytes, i16, &mut BytesMut) -> Result<(), String>;

fn echo_request(
    api: ApiKey,
    ours: &mut Bytes,
    version: i16,
    theirs: &mut BytesMut,
) -> Result<(), String> {
    RequestKind::decode(api, ours, version)
        .and_then(|request| request.encode(theirs, version))
        .map_err(|error| error.to_string())
}

fn echo_response(
    api: ApiKey,
    ours: &mut Bytes,
    version: i16,
    theirs: &mut BytesMut,
) -> Result<(), String> {
    ResponseKind::decode(api, ours, version)
        .and_then(|response| response.encode(theirs, version))
        .map_err(|error| error.to_string())
}

fn check_api<M: Message>(key: i16, echo: Echo) {
    let api = ApiKey::try_from(key).expect("a key of Kafka 4.1");
    for (version, message, writer) in samples::<M>(4) {
        let mut ours = writer.bytes.clone().freeze();
        let mut theirs = BytesMut::new();
        let echoed = echo(api, &mut ours, version, &mut theirs);
        if LACKING.contains(&(M::NAME, version)) {
            assert!(echoed.is_err(), "{} v{version} is not lacking", M::NAME);
            continue;
        }
        assert_eq!(echoed, Ok(()), "{} v{version} {message:?}", M::NAME);
        assert!(ours.is_empty(), "{} v{version} {message:?}", M::NAME);
        assert_eq!(theirs, writer.bytes, "{} v{version} {message:?}", M::NAME);
    }
}

#[test]
fn requests_and_responses_agree() {
    macro_rules! check {
        ($($request:path,)*) => {$(
            check_api::<$request>(<$request>::KEY, echo_request);
            check_api::<<$request as Request>::Response>(<$request>::KEY, echo_response);
        )*};
    }
    with_every_request!(check);
}

fn check_record<M: Message, Theirs: Decodable + Encodable>() {
    for (version, message, writer) in samples::<M>(5) {
        let mut ours = writer.bytes.clone().freeze();
        let mut theirs = BytesMut::new();
        Theirs::decode(&mut ours, version)
            .and_then(|record| record.encode(&mut theirs, version))
            .unwrap_or_else(|error| panic!("v{version} {message:?}: {error}"));
        assert_eq!(theirs, writer.bytes, "v{version} {message:?}");
    }
}

#[test]
fn the_consumer_protocol_agrees() {
    use consumer_protocol as ours;

    check_record::<ours::ConsumerProtocolSubscription, ConsumerProtocolSubscription>();
    check_record::<ours::ConsumerProtocolAssignment, ConsumerProtocolAssignment>();
}
