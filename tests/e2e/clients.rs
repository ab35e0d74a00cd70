//! Clients that share no code with us: librdkafka (C) and rskafka (pure Rust).

use crate::broker::Broker;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, Timestamp, TopicPartitionList};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, OffsetAt, UnknownTopicHandling};
use rskafka::record::Record;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const COUNT: i64 = 2_000;
const PATIENCE: Duration = Duration::from_secs(40);
/// A fixed time, so that a wrong one is seen.
const TIMESTAMP_MS: i64 = 1_700_000_000_000;

fn produce(broker: &Broker, topic: &str, codec: &str) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", broker.address().to_string())
        .set("enable.idempotence", "true")
        .set("compression.type", codec)
        .create()
        .unwrap();
    for number in 0..COUNT {
        let (key, value) = (format!("key-{}", number % 100), number.to_string());
        let header = Header {
            key: "origin",
            value: Some(codec),
        };
        let record = BaseRecord::to(topic)
            .key(&key)
            .payload(&value)
            .timestamp(TIMESTAMP_MS + number)
            .headers(OwnedHeaders::new().insert(header));
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// Reads the topic as the member of a group and checks every record.
fn consume(broker: &Broker, topic: &str, codec: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.address().to_string())
        .set("group.id", format!("group-{topic}"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let mut last_of_key = BTreeMap::new();
    let mut next_offset = BTreeMap::new();
    let (mut seen, started) = (0, Instant::now());
    while seen < COUNT && started.elapsed() < PATIENCE {
        let Some(message) = consumer.poll(Duration::from_millis(200)) else {
            continue;
        };
        let message = message.unwrap();
        let value: i64 = message
            .payload_view::<str>()
            .unwrap()
            .unwrap()
            .parse()
            .unwrap();
        let key = message.key_view::<str>().unwrap().unwrap().to_owned();
        assert_eq!(key, format!("key-{}", value % 100));
        assert_eq!(
            message.timestamp(),
            Timestamp::CreateTime(TIMESTAMP_MS + value)
        );
        let header = message.headers().unwrap().get(0);
        assert_eq!(
            (header.key, header.value),
            ("origin", Some(codec.as_bytes()))
        );
        let earlier = last_of_key.insert(key, value);
        assert!(
            earlier.is_none_or(|earlier| earlier < value),
            "order per key"
        );
        let next = next_offset.entry(message.partition()).or_insert(0);
        assert_eq!(message.offset(), *next, "dense offsets");
        *next += 1;
        seen += 1;
    }
    assert_eq!(seen, COUNT);
    consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    let mut asked = TopicPartitionList::new();
    for partition in next_offset.keys() {
        asked.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(asked, PATIENCE).unwrap();
    for element in committed.elements() {
        assert_eq!(
            element.offset(),
            Offset::Offset(next_offset[&element.partition()])
        );
    }
}

/// A topic with several partitions, so that every shard owns some.
fn create(broker: &Broker, topic: &str) {
    broker.connect().create_topic(topic, 5);
}

#[test]
fn librdkafka_works_the_same_on_any_shards_and_back_end() {
    for (shards, io) in [
        (1, "uring"),
        (2, "uring"),
        (4, "uring"),
        (1, "posix"),
        (4, "posix"),
    ] {
        let broker = Broker::start(shards, io);
        create(&broker, "round");
        produce(&broker, "round", "lz4");
        consume(&broker, "round", "lz4");
    }
}

#[test]
fn librdkafka_produces_and_consumes_with_every_codec() {
    let broker = Broker::start(2, "auto");
    // The crate builds librdkafka without zstd; rskafka below and kcat have it.
    for codec in ["none", "gzip", "snappy", "lz4"] {
        let topic = format!("codec-{codec}");
        create(&broker, &topic);
        produce(&broker, &topic, codec);
        consume(&broker, &topic, codec);
    }
}

#[test]
fn records_and_committed_offsets_survive_restarts() {
    let mut broker = Broker::start(2, "auto");
    create(&broker, "kept");
    produce(&broker, "kept", "none");
    consume(&broker, "kept", "none");
    broker.restart(3, "posix");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.address().to_string())
        .set("group.id", "group-kept")
        .create()
        .unwrap();
    let mut asked = TopicPartitionList::new();
    for partition in 0..5 {
        asked.add_partition("kept", partition);
    }
    let committed = consumer.committed_offsets(asked, PATIENCE).unwrap();
    let sum: i64 = committed
        .elements()
        .iter()
        .map(|element| match element.offset() {
            Offset::Offset(offset) => offset,
            other => panic!("no offset is committed: {other:?}"),
        })
        .sum();
    assert_eq!(sum, COUNT);
    drop(consumer);
    let group = broker_group(&broker, "again");
    assert_eq!(group, COUNT, "a new group reads everything again");
}

/// How many records a new group finds in `kept`.
fn broker_group(broker: &Broker, group: &str) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.address().to_string())
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["kept"]).unwrap();
    let (mut seen, started) = (0, Instant::now());
    while seen < COUNT && started.elapsed() < PATIENCE {
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            message.unwrap();
            seen += 1;
        }
    }
    seen
}

#[test]
fn rskafka_creates_produces_and_fetches() {
    let broker = Broker::start(2, "auto");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = ClientBuilder::new(vec![broker.address().to_string()])
            .build()
            .await
            .unwrap();
        let controller = client.controller_client().unwrap();
        controller
            .create_topic("rskafka", 2, 1, 10_000)
            .await
            .unwrap();
        let partition = client
            .partition_client("rskafka", 1, UnknownTopicHandling::Retry)
            .await
            .unwrap();
        let codecs = [
            Compression::NoCompression,
            Compression::Gzip,
            Compression::Lz4,
            Compression::Snappy,
            Compression::Zstd,
        ];
        for (round, codec) in codecs.into_iter().enumerate() {
            let record = |number: i64| Record {
                key: Some(b"key".to_vec()),
                value: Some(number.to_string().into_bytes()),
                headers: BTreeMap::from([("h".to_owned(), b"v".to_vec())]),
                timestamp: timestamp(number),
            };
            let first = 100 * round as i64;
            let records = (first..first + 100).map(record).collect();
            let offsets = partition.produce(records, codec).await.unwrap();
            assert_eq!(offsets, (first..first + 100).collect::<Vec<_>>());
        }
        assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), 500);
        assert_eq!(partition.get_offset(OffsetAt::Earliest).await.unwrap(), 0);
        let mut next = 0;
        while next < 500 {
            let (records, high_watermark) = partition
                .fetch_records(next, 1..1_000_000, 1_000)
                .await
                .unwrap();
            assert_eq!(high_watermark, 500);
            let first = next;
            for found in records.into_iter().filter(|found| found.offset >= first) {
                assert_eq!(found.offset, next);
                assert_eq!(found.record.value.unwrap(), next.to_string().into_bytes());
                assert_eq!(found.record.headers["h"], b"v");
                next += 1;
            }
        }
        controller.delete_topic("rskafka", 10_000).await.unwrap();
        assert!(client.list_topics().await.unwrap().is_empty());
    });
}

fn timestamp(number: i64) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_millis(TIMESTAMP_MS + number).unwrap()
}
