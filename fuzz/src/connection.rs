//! A whole connection: whatever bytes a peer sends, and however they are cut, goes through shards
//! as in production, on the simulated machine.
//!
//! Held on top of the common rules: every reply answers a request that was sent, in order, and
//! decodes completely; another client is served during and after it; the broker stops cleanly and
//! starts again with what was stored.

use crate::machine::{Client, Machine, world};
use crate::memory::bounded_with;
use bytes::{Bytes, BytesMut};
use forebay::api::APIS;
use forebay::base::ErrorCode;
use forebay::batch::{Builder, Codec};
use forebay::wire::frame::{RequestHeader, decode_response_header, split_frame};
use forebay::wire::messages::api_versions::ApiVersionsRequest;
use forebay::wire::messages::create_partitions::CreatePartitionsRequest;
use forebay::wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use forebay::wire::messages::metadata::MetadataRequest;
use forebay::wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use forebay::wire::{Message, Reader, Request};
use std::collections::VecDeque;

/// The largest frame that the broker takes here (`socket.request.max.bytes`).
const FRAME_BYTES_MAX: usize = 100_000;

/// Simulated time that the peer gets: requests that wait are answered in it, or not at all.
const PATIENCE_MS: i64 = 1_000;

/// Topics and partitions that a peer creates are state, not requests: what an input may make is
/// bounded below, and takes this much in memory.
const STATE_BYTES: usize = 8 << 20;

/// Partitions that an input may ask for. Creating more is slow and is what it says.
const PARTITIONS_MAX: i32 = 50;

/// A request whose answer is due.
#[derive(Debug)]
struct Asked {
    key: i16,
    version: i16,
    correlation_id: i32,
}

/// Two bytes that decide how things are cut and how the peer behaves, then what it sends.
pub fn connection(input: &[u8]) {
    let [seed, manners, stream @ ..] = input else {
        return;
    };
    let Some(mut asked) = expected(stream) else {
        return;
    };
    let mut machine = Machine::new(world(u64::from(*seed)));
    let shards = 1 + u16::from(manners & 1);
    machine.start(shards).expect("an empty directory opens");
    let mut healthy = Client::dial(&machine);
    prepare(&mut machine, &mut healthy);

    let mut peer = Client::dial(&machine);
    bounded_with(input.len(), STATE_BYTES, || {
        peer.send(&machine, Bytes::copy_from_slice(stream));
        let reads = manners & 2 == 0;
        machine.run_for(PATIENCE_MS, |machine| {
            while reads && let Some(frame) = peer.next_frame(machine) {
                check_reply(asked.pop_front(), frame);
            }
        });
    });
    check_served(&mut machine, &mut healthy);
    peer.hang_up(&machine);
    let mut late = Client::dial(&machine);
    check_served(&mut machine, &mut late);

    match manners & 4 == 0 {
        true => assert!(machine.stop(), "the stop was not clean"),
        false => machine.kill(),
    }
    let started = machine.start(shards);
    started.expect("what the broker wrote, it reads");
    let mut again = Client::dial(&machine);
    check_served(&mut machine, &mut again);
}

/// What must be answered, in order; `None` for inputs that only ask for masses of partitions.
fn expected(stream: &[u8]) -> Option<VecDeque<Asked>> {
    let mut stream = BytesMut::from(stream);
    let mut asked = VecDeque::new();
    while let Ok(Some(frame)) = split_frame(&mut stream, FRAME_BYTES_MAX) {
        let mut reader = Reader::new(frame);
        let Ok(header) = RequestHeader::decode(&mut reader) else {
            break;
        };
        let (key, version) = (header.api_key, header.api_version);
        let answered = match key {
            ProduceRequest::KEY => {
                ProduceRequest::decode(&mut reader, version).is_ok_and(|produce| produce.acks != 0)
            }
            _ => true,
        };
        if partitions(key, version, reader) > PARTITIONS_MAX {
            return None;
        }
        if answered {
            asked.push_back(Asked {
                key,
                version,
                correlation_id: header.correlation_id,
            });
        }
    }
    Some(asked)
}

/// How many partitions a request wants made.
fn partitions(key: i16, version: i16, mut reader: Reader) -> i32 {
    match key {
        CreateTopicsRequest::KEY => {
            let request = CreateTopicsRequest::decode(&mut reader, version).unwrap_or_default();
            let counts = request.topics.iter().map(|topic| {
                let assigned = topic.assignments.len() as i32;
                topic.num_partitions.max(assigned).max(1)
            });
            counts.fold(0, i32::saturating_add)
        }
        CreatePartitionsRequest::KEY => {
            let request = CreatePartitionsRequest::decode(&mut reader, version).unwrap_or_default();
            let counts = request.topics.iter().map(|topic| topic.count.max(0));
            counts.fold(0, i32::saturating_add)
        }
        _ => 0,
    }
}

/// A topic with a record in it.
pub(crate) fn prepare(machine: &mut Machine, client: &mut Client) {
    let create = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: "orders".to_owned(),
            num_partitions: 2,
            replication_factor: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let created = machine.ask(client, 7, &create);
    assert_eq!(created.topics[0].error_code, ErrorCode::None);
    check_served(machine, client);
}

/// A client that asks for what the cluster has and produces a record gets both.
fn check_served(machine: &mut Machine, client: &mut Client) {
    let all = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    let metadata = machine.ask(client, 12, &all);
    let known = |name: &str| {
        let mut topics = metadata.topics.iter();
        topics.any(|topic| topic.name.as_deref() == Some(name))
    };
    let produced = machine.ask(client, 9, &produce("orders"));
    let code = produced.responses[0].partition_responses[0].error_code;
    // A peer may delete topics and change their settings, but not make the broker fail.
    match known("orders") {
        true => assert_ne!(code, ErrorCode::KafkaStorageError),
        false => assert_eq!(code, ErrorCode::UnknownTopicOrPartition),
    }
}

/// One record for the first partition of a topic.
pub(crate) fn produce(topic: &'static str) -> ProduceRequest {
    let mut batch = Builder::new(Codec::None);
    batch.append(1_800_000_000_000, Some(b"key"), Some(b"value"), &[]);
    let partition = PartitionProduceData {
        index: 0,
        records: Some(batch.build()),
    };
    let topic = TopicProduceData {
        name: topic.into(),
        partition_data: [partition].into_iter().collect(),
        ..Default::default()
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 1_000,
        topic_data: [topic].into_iter().collect(),
        ..Default::default()
    }
}

/// A reply is the answer to the oldest request, in its version, and nothing else.
fn check_reply(asked: Option<Asked>, frame: Bytes) {
    let asked = asked.expect("a reply to nothing");
    let mut version = asked.version;
    let served = APIS.iter().find(|api| api.key == asked.key);
    let served = served.is_some_and(|api| api.versions.contains(&version));
    if asked.key == ApiVersionsRequest::KEY && !served {
        // KIP-511: whoever asks in an unknown version is answered in the oldest.
        version = 0;
    }
    let mut reader = Reader::new(frame);
    let header = decode_response_header(&mut reader, asked.key, version);
    assert_eq!(header, Ok(asked.correlation_id), "{asked:?}");
    macro_rules! decode_by_key {
        ($($request:path,)*) => {
            match asked.key {
                $(<$request as Request>::KEY => {
                    <$request as Request>::Response::decode(&mut reader, version).is_ok()
                })*
                _ => false,
            }
        };
    }
    let decodes = forebay::with_every_request!(decode_by_key);
    assert!(decodes, "a reply to {asked:?} that does not decode");
    assert_eq!(reader.remaining(), 0, "bytes behind a reply to {asked:?}");
}
