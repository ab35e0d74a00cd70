//! Inputs to begin with, made from what the broker itself writes: every request and response in
//! every version, batches of every codec, directories as they lie on disk. A message that is new in
//! the tables is here by itself. The kept corpus is what fuzzing made of them.

use crate::connection::{prepare, produce};
use crate::files::{self, DIRECTORIES, ORDERS};
use crate::machine::{Client, Machine, world};
use crate::recovery::TOPIC;
use bytes::Bytes;
use forebay::base::dir::Dir;
use forebay::batch::{Builder, Codec, compress};
use forebay::io::Io;
use forebay::sim::io::{SimDir, SimIo};
use forebay::wire::frame::{encode_request, encode_response};
use forebay::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use forebay::wire::messages::find_coordinator::FindCoordinatorRequest;
use forebay::wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use forebay::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use forebay::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use forebay::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use forebay::wire::records::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription,
};
use forebay::wire::records::group_metadata::{
    GroupMetadataKey, GroupMetadataValue, MemberMetadata,
};
use forebay::wire::records::metadata::{
    ConfigRecord, PartitionRecord, ProducerIdsRecord, RemoveTopicRecord, TopicRecord,
};
use forebay::wire::records::offset_commit::{OffsetCommitKey, OffsetCommitValue};
use forebay::wire::records::{encode_key, encode_metadata, encode_value};
use forebay::wire::{Message, Request};
use std::path::Path;

/// The time of records.
const NOW_MS: i64 = 1_800_000_000_000;

/// The inputs of a target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "request" => requests().iter().map(|frame| frame[4..].to_vec()).collect(),
        "response" => responses(),
        "stored" => stored(),
        "codec" => codecs(),
        "batch" => batches(),
        "recovery" => directories(),
        "start" => data_directories(),
        "connection" => connections(),
        _ => Vec::new(),
    }
}

/// A frame of every request in every version.
fn requests() -> Vec<Bytes> {
    let mut frames = Vec::new();
    macro_rules! encode_all {
        ($($request:path,)*) => {$(
            for version in <$request as Message>::VERSIONS {
                frames.push(frame(version, &<$request>::default()));
            }
        )*};
    }
    forebay::with_every_request!(encode_all);
    frames
}

fn responses() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    fn encode<R: Request>(inputs: &mut Vec<Vec<u8>>) {
        for version in R::VERSIONS {
            let frame = encode_response(1, R::KEY, version, &R::Response::default());
            let frame = frame.expect("an empty response is small").bytes;
            inputs.push([&[R::KEY as u8, version as u8], &frame[4..]].concat());
        }
    }
    macro_rules! encode_all {
        ($($request:path,)*) => {$(
            encode::<$request>(&mut inputs);
        )*};
    }
    forebay::with_every_request!(encode_all);
    inputs
}

fn stored() -> Vec<Vec<u8>> {
    let subscription = ConsumerProtocolSubscription {
        topics: vec!["orders".to_owned()],
        ..Default::default()
    };
    let mut inputs = vec![catalog_records(), group_records()];
    for version in ConsumerProtocolSubscription::VERSIONS {
        inputs.push([&[0], &encode_value(&subscription, version)[..]].concat());
    }
    for version in ConsumerProtocolAssignment::VERSIONS {
        let assignment = ConsumerProtocolAssignment::default();
        inputs.push([&[0], &encode_value(&assignment, version)[..]].concat());
    }
    inputs
}

fn catalog_records() -> Vec<u8> {
    let topic = TopicRecord {
        name: "orders".to_owned(),
        topic_id: TOPIC,
    };
    let partition = |partition_id| PartitionRecord {
        partition_id,
        topic_id: topic.topic_id,
        replicas: vec![1],
        isr: vec![1],
        leader: 1,
        ..Default::default()
    };
    let config = ConfigRecord {
        resource_type: 2,
        resource_name: "orders".to_owned(),
        name: "cleanup.policy".to_owned(),
        value: Some("compact".to_owned()),
    };
    let producers = ProducerIdsRecord {
        next_producer_id: 1000,
        ..Default::default()
    };
    let gone = RemoveTopicRecord {
        topic_id: topic.topic_id,
    };
    let records = [
        encode_metadata(&topic, 0),
        encode_metadata(&partition(0), 0),
        encode_metadata(&partition(1), 1),
        encode_metadata(&config, 0),
        encode_metadata(&producers, 0),
        encode_metadata(&gone, 0),
    ];
    let mut input = vec![1];
    records.iter().for_each(|record| put(&mut input, record));
    input
}

fn group_records() -> Vec<u8> {
    let member = MemberMetadata {
        member_id: "m".to_owned(),
        session_timeout: 45_000,
        rebalance_timeout: 300_000,
        ..Default::default()
    };
    let group = GroupMetadataValue {
        protocol_type: "consumer".to_owned(),
        generation: 1,
        protocol: Some("range".to_owned()),
        leader: Some("m".to_owned()),
        members: vec![member],
        ..Default::default()
    };
    let group_key = GroupMetadataKey {
        group: "g".to_owned(),
    };
    let offset_key = OffsetCommitKey {
        group: "g".to_owned(),
        topic: "orders".to_owned(),
        partition: 0,
    };
    let mut input = vec![2];
    for version in GroupMetadataValue::VERSIONS {
        put(&mut input, &encode_key(&group_key));
        put(&mut input, &encode_value(&group, version));
    }
    for version in OffsetCommitValue::VERSIONS {
        put(&mut input, &encode_key(&offset_key));
        let value = OffsetCommitValue::default();
        put(&mut input, &encode_value(&value, version));
    }
    put(&mut input, &encode_key(&offset_key));
    put(&mut input, &[]);
    input
}

fn codecs() -> Vec<Vec<u8>> {
    let section = b"order-1;order-2;order-3;".repeat(20);
    let compressed = |codec: &Codec| [&[codec.id()], &compress(*codec, &section)[..]].concat();
    let mut inputs: Vec<_> = Codec::ALL.iter().map(compressed).collect();
    // One raw block, which some clients send.
    inputs.push(vec![Codec::Snappy.id(), 3, 8, b'a', b'b', b'c']);
    inputs
}

fn batches() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for codec in Codec::ALL {
        for flags in [1, 1 | 2, 1 | 4] {
            let batch = [&[flags | codec.id() << 3], &batch(codec)[..]].concat();
            inputs.push(batch);
        }
    }
    inputs
}

fn batch(codec: Codec) -> Bytes {
    let mut builder = Builder::new(codec);
    builder.set_producer(4, 0, 0);
    for number in 0..5 {
        let headers = [(Bytes::from_static(b"h"), Some(Bytes::from_static(b"v")))];
        builder.append(NOW_MS + number, Some(b"key"), Some(b"value"), &headers);
        builder.append(NOW_MS - number, None, None, &[]);
    }
    builder.build()
}

/// The directories of `tests/golden`, one from Kafka and one of ours.
fn directories() -> Vec<Vec<u8>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut inputs = Vec::new();
    for name in ["log-forebay-1", "log-kafka-4.3.1"] {
        for flags in 0..16 {
            let mut input = vec![flags];
            let metadata = format!("version: 0\ntopic_id: {TOPIC}");
            files::put(
                &mut input,
                ORDERS,
                "partition.metadata",
                metadata.as_bytes(),
            );
            let entries = std::fs::read_dir(golden.join(name)).expect("it is in the repository");
            let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                let contents = std::fs::read(&path).expect("it is in the repository");
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name != "partition.metadata" {
                    files::put(&mut input, ORDERS, &name, &contents);
                }
            }
            inputs.push(input);
        }
    }
    inputs
}

/// The disk of a broker that has worked, after a clean stop and after a kill.
fn data_directories() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for clean in [true, false] {
        let mut machine = Machine::new(world(1));
        machine.start(1).expect("an empty directory opens");
        let mut client = Client::dial(&machine);
        prepare(&mut machine, &mut client);
        machine.ask(&mut client, 4, &find_group());
        machine.ask(&mut client, 7, &commit());
        match clean {
            true => drop(machine.stop()),
            false => machine.kill(),
        }
        inputs.push(dump(&machine));
    }
    inputs
}

fn dump(machine: &Machine) -> Vec<u8> {
    let mut input = vec![1];
    for (directory, name) in (0..).zip(DIRECTORIES) {
        let mut dir: Box<dyn Dir> = match name {
            "" => Box::new(SimDir::root(machine.world.clone())),
            name => SimIo::new(machine.world.clone(), 0)
                .open_dir(name)
                .expect("the disk is healthy"),
        };
        for (name, size) in dir.list().expect("the disk is healthy") {
            let mut contents = vec![0; size as usize];
            let read = dir.read_at(&name, 0, &mut contents);
            assert_eq!(read.ok(), Some(contents.len()));
            files::put(&mut input, directory, &name, &contents);
        }
    }
    input
}

/// Every request by itself, and conversations.
fn connections() -> Vec<Vec<u8>> {
    let alone = requests().into_iter().map(|frame| vec![frame]);
    let talks = [
        vec![frame(9, &produce("orders")), frame(4, &fetch())],
        vec![frame(9, &produce("new")), frame(12, &ask_for("new"))],
        vec![
            frame(4, &find_group()),
            frame(5, &join()),
            frame(7, &commit()),
        ],
        vec![frame(7, &list_offsets()), frame(11, &fetch())],
    ];
    let streams = alone.chain(talks);
    let inputs = streams.zip(0u8..).map(|(frames, number)| {
        let head = [number, number % 8];
        [&head[..], &frames.concat()].concat()
    });
    inputs.collect()
}

fn ask_for(topic: &str) -> MetadataRequest {
    MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(topic.to_owned()),
            ..Default::default()
        }]),
        ..Default::default()
    }
}

fn fetch() -> FetchRequest {
    FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: "orders".into(),
            partitions: vec![FetchPartition {
                partition_max_bytes: 1000,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn list_offsets() -> ListOffsetsRequest {
    ListOffsetsRequest {
        topics: vec![ListOffsetsTopic {
            name: "orders".to_owned(),
            partitions: vec![ListOffsetsPartition {
                timestamp: -1,
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

fn find_group() -> FindCoordinatorRequest {
    FindCoordinatorRequest {
        coordinator_keys: vec!["g".to_owned()],
        ..Default::default()
    }
}

fn join() -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "g".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata: Bytes::new(),
        }],
        ..Default::default()
    }
}

fn commit() -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: "g".to_owned(),
        topics: vec![OffsetCommitRequestTopic {
            name: "orders".to_owned(),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: 1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A whole frame, with its size.
fn frame<R: Request>(version: i16, request: &R) -> Bytes {
    let name = Some("fuzz".into());
    encode_request(1, version, name, request).bytes.freeze()
}

/// Appends a piece with its length.
fn put(input: &mut Vec<u8>, part: &[u8]) {
    let length = u16::try_from(part.len()).expect("seeds are small");
    input.extend(length.to_be_bytes());
    input.extend(part);
}
