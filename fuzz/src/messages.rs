//! The decoders of messages: requests as a broker gets them, responses as a client gets them, and
//! what lies in internal topics or travels between the members of a group.
//!
//! Held on top of the common rules: what was decoded can be encoded, and then decodes to the same.

use crate::memory::bounded;
use bytes::Bytes;
use forebay::base::{Mono, NodeId, Now};
use forebay::catalog::{Catalog, Identity};
use forebay::client::consumer::decode_assignment;
use forebay::group;
use forebay::wire::frame::{RequestHeader, decode_response_header};
use forebay::wire::records::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription,
};
use forebay::wire::records::decode_value;
use forebay::wire::{Message, Reader, Request, Writer};
use std::collections::BTreeMap;

/// A request frame without its size: header and body.
pub fn request(input: &[u8]) {
    let frame = Bytes::copy_from_slice(input);
    let mut reader = Reader::new(frame);
    let Ok(header) = bounded(input.len(), || RequestHeader::decode(&mut reader)) else {
        return;
    };
    let (key, version) = (header.api_key, header.api_version);
    macro_rules! decode_by_key {
        ($($request:path,)*) => {
            match key {
                $(<$request as Request>::KEY => decode::<$request>(reader, version, input.len()),)*
                _ => unreachable!("a header with an unknown key is refused"),
            }
        };
    }
    forebay::with_every_request!(decode_by_key)
}

/// The key and the version of a request (a byte each), then the frame of its response.
pub fn response(input: &[u8]) {
    let [key, version, frame @ ..] = input else {
        return;
    };
    let (key, version) = (i16::from(*key), i16::from(*version));
    let mut reader = Reader::new(Bytes::copy_from_slice(frame));
    if decode_response_header(&mut reader, key, version).is_err() {
        return;
    }
    macro_rules! decode_by_key {
        ($($request:path,)*) => {
            match key {
                $(<$request as Request>::KEY => {
                    decode::<<$request as Request>::Response>(reader, version, input.len());
                })*
                _ => {}
            }
        };
    }
    forebay::with_every_request!(decode_by_key)
}

/// What is stored or handed on by the coordinators. The first byte chooses: the bytes that members
/// of a group write for each other, or records of `__cluster_metadata`, or of `__consumer_offsets`,
/// which are replayed one after the other.
pub fn stored(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 3 {
        0 => consumer_protocol(bytes),
        1 => catalog(bytes),
        _ => groups(bytes),
    }
}

fn decode<M: Message>(mut reader: Reader, version: i16, input_bytes: usize) {
    let decoded = bounded(input_bytes, || M::decode(&mut reader, version));
    if let Ok(message) = decoded {
        let mut writer = Writer::new();
        message.encode(&mut writer, version);
        let mut reader = Reader::new(writer.bytes.freeze());
        let again = M::decode(&mut reader, version);
        assert_eq!(again, Ok(message), "{} v{version}", M::NAME);
        assert_eq!(reader.remaining(), 0, "{} v{version}", M::NAME);
    }
}

fn consumer_protocol(bytes: &[u8]) {
    let (length, bytes) = (bytes.len(), Bytes::copy_from_slice(bytes));
    let subscription = || decode_value::<ConsumerProtocolSubscription>(bytes.clone());
    let _ = bounded(length, subscription);
    let _ = bounded(length, || {
        decode_value::<ConsumerProtocolAssignment>(bytes.clone())
    });
    let _ = bounded(length, || decode_assignment(bytes.clone()));
}

fn catalog(bytes: &[u8]) {
    let mut catalog = Catalog::new(identity(), 1);
    bounded(bytes.len(), || {
        for record in parts(bytes) {
            let _ = catalog.replay(record);
            catalog.check();
        }
        catalog.on_loaded();
        catalog.next_producer_id();
    });
}

fn groups(bytes: &[u8]) {
    let mut coordinator = group::Coordinator::new(group::Config::default(), 1);
    bounded(bytes.len(), || {
        let mut parts = parts(bytes);
        while let Some(key) = parts.next() {
            // Groups of other brokers need not be as ours would be, so they are not checked for
            // that; they must do no harm.
            let _ = coordinator.replay(key, parts.next().filter(|value| !value.is_empty()));
        }
        let mut now = Now {
            mono: Mono(1_000_000_000),
            wall_ms: 1_800_000_000_000,
        };
        coordinator.on_loaded(now);
        // A day later every session and every position has expired.
        now.mono = now.mono.plus_ms(86_400_000);
        let mut out = group::Output::default();
        coordinator.on_deadline(now, &mut out);
        for (key, value) in out.records {
            let replayed = coordinator.replay(key, value);
            assert!(replayed.is_ok(), "a coordinator reads what it wrote");
        }
    });
}

/// Who the node is; no decoder looks at it.
fn identity() -> Identity {
    Identity {
        cluster_id: "fuzz".to_owned(),
        node_id: NodeId(1),
        advertised: None,
        ports_per_shard: Vec::new(),
        static_settings: BTreeMap::new(),
    }
}

/// Pieces with their length (two bytes) in front; the last one may be shorter.
fn parts(bytes: &[u8]) -> impl Iterator<Item = Bytes> {
    let mut rest = Bytes::copy_from_slice(bytes);
    std::iter::from_fn(move || {
        if rest.len() < 2 {
            return None;
        }
        let length = rest.split_to(2);
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        Some(rest.split_to(length.min(rest.len())))
    })
}
