//! A client of the tests' own: publishes what the system would not, and reads what is in a topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

const PATIENCE: Duration = Duration::from_secs(20);

/// Creates a topic of four partitions with these settings.
pub fn create_topic(bootstrap: &str, topic: &str, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let mut new = NewTopic::new(topic, 4, TopicReplication::Fixed(1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let created = admin.create_topics([&new], &AdminOptions::new());
    let created = runtime.unwrap().block_on(created).unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
}

pub fn publish(bootstrap: &str, topic: &str, values: &[String]) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    for value in values {
        let record = BaseRecord::to(topic).key("ada").payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// All records of a topic, each partition's in order.
pub fn records(bootstrap: &str, topic: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let (mut records, mut ended) = (Vec::new(), BTreeSet::new());
    let deadline = Instant::now() + PATIENCE;
    while ended.len() < 4 {
        assert!(Instant::now() < deadline, "no end of {topic}");
        match consumer.poll(PATIENCE) {
            Some(Ok(record)) => records.push(record.detach()),
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
            Some(Err(error)) => panic!("{error}"),
            // An event of the client's own, such as a rebalance.
            None => {}
        }
    }
    records
}

/// The value of a header, which must be there, as text.
pub fn header(record: &OwnedMessage, name: &str) -> String {
    let headers = record.headers().unwrap();
    let found = headers.iter().find(|header| header.key == name).unwrap();
    String::from_utf8(found.value.unwrap().to_vec()).unwrap()
}

/// The value of a record, as text.
pub fn value(record: &OwnedMessage) -> &str {
    std::str::from_utf8(record.payload().unwrap()).unwrap()
}

/// Checks that each customer's orders come in the order in which they were placed, but for events
/// that come again; gives the number of orders.
pub fn orders_in_order(bootstrap: &str) -> usize {
    let mut seen = BTreeSet::new();
    let mut numbers: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for record in records(bootstrap, "orders") {
        let event: serde_json::Value = serde_json::from_str(value(&record)).unwrap();
        if event["type"] != "OrderPlaced" || !seen.insert(event["id"].to_string()) {
            continue;
        }
        let number = numbers.entry(record.key().unwrap().to_vec()).or_default();
        *number += 1;
        assert_eq!(event["data"]["number"], *number, "{event}");
    }
    seen.len()
}
