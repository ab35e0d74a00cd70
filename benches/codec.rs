//! Encoding and decoding of the three messages that carry the load. Run with `cargo bench --bench
//! codec`; under `cargo test --benches` every case runs once, with tiny input.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::base::TopicId;
use forebay::wire::messages::{fetch, metadata, produce};
use forebay::wire::{Message, Reader, Records, Writer};

/// Topics and partitions per topic: a busy client, or one of each as a test, when cargo does not
/// pass `--bench`.
fn sizes() -> (usize, i32) {
    let bench = std::env::args().any(|argument| argument == "--bench");
    if bench { (10, 10) } else { (1, 1) }
}

fn topic_id(topic: usize) -> TopicId {
    TopicId(uuid::Uuid::from_u128(topic as u128 + 1))
}

fn produce_request() -> produce::ProduceRequest {
    let (topics, partitions) = sizes();
    let records = Bytes::from(vec![0x5a; 1024]);
    let partition_data = (0..partitions)
        .map(|index| produce::PartitionProduceData {
            index,
            records: Some(records.clone()),
        })
        .collect();
    let topic = produce::TopicProduceData {
        name: "orders".into(),
        partition_data,
        ..Default::default()
    };
    produce::ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![topic; topics].into(),
        ..Default::default()
    }
}

fn fetch_request() -> fetch::FetchRequest {
    let (topics, partitions) = sizes();
    let topic = |topic| fetch::FetchTopic {
        topic_id: topic_id(topic),
        partitions: (0..partitions)
            .map(|partition| fetch::FetchPartition {
                partition,
                partition_max_bytes: 1 << 20,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    fetch::FetchRequest {
        topics: (0..topics).map(topic).collect(),
        ..Default::default()
    }
}

/// With gaps where the data goes, as the broker sends it.
fn fetch_response() -> fetch::FetchResponse {
    let (topics, partitions) = sizes();
    let topic = |topic| fetch::FetchableTopicResponse {
        topic_id: topic_id(topic),
        partitions: (0..partitions)
            .map(|partition_index| fetch::PartitionData {
                partition_index,
                records: Records::External {
                    tag: partition_index as u32,
                    length: 1 << 20,
                },
                aborted_transactions: None,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    fetch::FetchResponse {
        responses: (0..topics).map(topic).collect(),
        ..Default::default()
    }
}

fn metadata_response() -> metadata::MetadataResponse {
    let (topics, partitions) = sizes();
    let topic = |topic| metadata::MetadataResponseTopic {
        name: Some(format!("topic-{topic}")),
        topic_id: topic_id(topic),
        partitions: (0..partitions)
            .map(|partition_index| metadata::MetadataResponsePartition {
                partition_index,
                replica_nodes: vec![1, 2, 3],
                isr_nodes: vec![1, 2, 3],
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    metadata::MetadataResponse {
        topics: (0..topics).map(topic).collect(),
        ..Default::default()
    }
}

fn encode<M: Message>(message: &M, version: i16) -> Writer {
    let mut writer = Writer::new();
    message.encode(&mut writer, version);
    writer
}

fn bench_encode<M: Message>(criterion: &mut Criterion, version: i16, message: &M) {
    let mut group = criterion.benchmark_group(format!("encode/{}", M::NAME));
    let bytes = encode(message, version).bytes.len();
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(format!("v{version}"), |bencher| {
        bencher.iter(|| encode(black_box(message), version));
    });
    group.finish();
}

fn bench_decode<M: Message>(criterion: &mut Criterion, version: i16, message: &M) {
    let mut group = criterion.benchmark_group(format!("decode/{}", M::NAME));
    let bytes = encode(message, version).bytes.freeze();
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function(format!("v{version}"), |bencher| {
        bencher.iter(|| {
            M::decode(&mut Reader::new(black_box(bytes.clone())), version).expect("just encoded")
        });
    });
    group.finish();
}

fn produce(criterion: &mut Criterion) {
    let request = produce_request();
    for version in [7, 9] {
        bench_encode(criterion, version, &request);
        bench_decode(criterion, version, &request);
    }
}

fn fetch(criterion: &mut Criterion) {
    bench_decode(criterion, 18, &fetch_request());
    bench_encode(criterion, 18, &fetch_response());
}

fn metadata(criterion: &mut Criterion) {
    bench_encode(criterion, 13, &metadata_response());
    bench_decode(criterion, 13, &metadata_response());
}

criterion_group!(codec, produce, fetch, metadata);
criterion_main!(codec);
