//! Properties that every message has in every version, with random values: the round trip here,
//! malformed input in `hostile`, agreement with another codec in `oracle`.

mod hostile;
mod oracle;

use bytes::Bytes;

use super::field::Encoding;
use super::messages::with_every_request;
use super::records::{consumer_protocol, group_metadata, metadata, offset_commit};
use super::{Malformed, Message, Reader, Request, Writer};
use crate::base::prng::Prng;

/// Something to do with each message type.
trait Visit {
    fn visit<M: Message>(&mut self);
}

fn every_message(visitor: &mut impl Visit) {
    macro_rules! visit_requests {
        ($($request:path,)*) => {$(
            visitor.visit::<$request>();
            visitor.visit::<<$request as Request>::Response>();
        )*};
    }
    with_every_request!(visit_requests);
    visitor.visit::<offset_commit::OffsetCommitKey>();
    visitor.visit::<offset_commit::OffsetCommitValue>();
    visitor.visit::<group_metadata::GroupMetadataKey>();
    visitor.visit::<group_metadata::GroupMetadataValue>();
    visitor.visit::<consumer_protocol::ConsumerProtocolSubscription>();
    visitor.visit::<consumer_protocol::ConsumerProtocolAssignment>();
    visitor.visit::<metadata::TopicRecord>();
    visitor.visit::<metadata::PartitionRecord>();
    visitor.visit::<metadata::RemoveTopicRecord>();
    visitor.visit::<metadata::ConfigRecord>();
}

/// Random values of `M` in each of its versions, with their bytes.
fn samples<M: Message>(seed: u64) -> impl Iterator<Item = (i16, M, Writer)> {
    let mut prng = Prng::new(seed);
    M::VERSIONS
        .flat_map(|version| [version; 20])
        .map(move |version| {
            let message = M::sample(&mut prng, Encoding::of::<M>(version));
            let mut writer = Writer::new();
            message.encode(&mut writer, version);
            (version, message, writer)
        })
}

/// Decodes and asks that nothing is left over.
fn decode<M: Message>(bytes: Bytes, version: i16) -> Result<M, Malformed> {
    let mut reader = Reader::new(bytes);
    let message = M::decode(&mut reader, version)?;
    assert_eq!(reader.remaining(), 0, "{} v{version}", M::NAME);
    Ok(message)
}

struct RoundTrip;

impl Visit for RoundTrip {
    fn visit<M: Message>(&mut self) {
        for (version, message, writer) in samples::<M>(1) {
            let decoded = decode::<M>(writer.bytes.freeze(), version);
            assert_eq!(decoded.as_ref(), Ok(&message), "{} v{version}", M::NAME);
        }
        for version in M::VERSIONS {
            let mut writer = Writer::new();
            M::default().encode(&mut writer, version);
            let decoded = decode::<M>(writer.bytes.freeze(), version);
            assert_eq!(decoded, Ok(M::default()), "default {} v{version}", M::NAME);
        }
    }
}

#[test]
fn encoding_and_decoding_give_the_same_message() {
    every_message(&mut RoundTrip);
}
