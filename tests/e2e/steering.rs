//! One port and node id per shard: what clients are told, and that librdkafka, which knows nothing
//! of it, goes straight to the shard that owns the partition.

use crate::broker::{Broker, Raw};
use forebay::config::ServeArgs;
use forebay::wire::messages::describe_cluster::DescribeClusterRequest;
use forebay::wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use forebay::wire::messages::find_coordinator::FindCoordinatorRequest;
use forebay::wire::messages::list_groups::ListGroupsRequest;
use forebay::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);
const PARTITIONS: i32 = 4;
const COUNT: u64 = 400;

fn broker(listeners_per_core: bool) -> Broker {
    Broker::with_options(ServeArgs {
        cores: Some("2".to_owned()),
        listeners_per_core,
        ..ServeArgs::default()
    })
}

#[test]
fn every_shard_is_a_broker_of_its_own() {
    let broker = broker(true);
    let ports: Vec<i32> = broker
        .server()
        .addresses()
        .iter()
        .map(|address| i32::from(address.port()))
        .collect();
    assert_eq!(ports.len(), 2);
    let expected: Vec<_> = [1, 2].into_iter().zip(ports.iter().copied()).collect();

    let mut raw = broker.connect();
    raw.create_topic("t", PARTITIONS);
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some("t".to_owned()),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    };
    for address in broker.server().addresses() {
        let metadata = Raw::connect(*address).ask(12, &request);
        let brokers = metadata.brokers.iter().map(|b| (b.node_id, b.port));
        assert_eq!(brokers.collect::<Vec<_>>(), expected);
        assert_eq!(metadata.controller_id, 1);
        let mut led = [0; 2];
        for partition in &metadata.topics[0].partitions {
            led[partition.leader_id as usize - 1] += 1;
            assert_eq!(partition.replica_nodes, [partition.leader_id]);
        }
        assert_eq!(led, [PARTITIONS / 2; 2], "placement is even");
    }

    let cluster = raw.ask(
        1,
        &DescribeClusterRequest {
            endpoint_type: 1,
            ..Default::default()
        },
    );
    let brokers = cluster.brokers.iter().map(|b| (b.broker_id, b.port));
    assert_eq!(brokers.collect::<Vec<_>>(), expected);

    let keys: Vec<String> = (0..20).map(|number| format!("group-{number}")).collect();
    let request = FindCoordinatorRequest {
        coordinator_keys: keys,
        ..Default::default()
    };
    let found = raw.ask(4, &request).coordinators;
    assert!(
        found
            .iter()
            .all(|one| expected.contains(&(one.node_id, one.port)))
    );
    assert!((1..=2).all(|node| found.iter().any(|one| one.node_id == node)));

    let describe = |name: &str| DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 4,
            resource_name: name.to_owned(),
            ..DescribeConfigsResource::default()
        }],
        ..DescribeConfigsRequest::default()
    };
    assert!(!raw.ask(4, &describe("2")).results[0].error_code.is_error());
    assert!(raw.ask(4, &describe("3")).results[0].error_code.is_error());
}

#[test]
fn connections_stay_on_the_shard_they_dialled() {
    let broker = broker(true);
    let addresses = broker.server().addresses();
    let request = DescribeClusterRequest {
        endpoint_type: 1,
        ..Default::default()
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::connect(addresses[1]);
        raw.ask(1, &request);
        held.push(raw);
    }
    let connections = broker
        .server()
        .stats()
        .iter()
        .map(|stats| stats.connections.get());
    assert_eq!(connections.collect::<Vec<_>>(), [0, 3]);
}

#[test]
fn without_steering_connections_go_to_the_least_loaded_shard() {
    let broker = broker(false);
    let request = DescribeClusterRequest {
        endpoint_type: 1,
        ..Default::default()
    };
    let mut held: Vec<Raw> = (0..6).map(|_| broker.connect()).collect();
    for raw in &mut held {
        raw.ask(1, &request);
    }
    let connections = broker.server().stats().iter();
    let connections = connections.map(|stats| stats.connections.get());
    assert_eq!(connections.collect::<Vec<_>>(), [3, 3]);
}

fn produce(broker: &Broker) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", broker.address().to_string())
        .create()
        .unwrap();
    for number in 0..COUNT {
        let value = number.to_string();
        let partition = (number % PARTITIONS as u64) as i32;
        let record = BaseRecord::<(), str>::to("t")
            .partition(partition)
            .payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    assert_eq!(producer.in_flight_count(), 0);
}

/// Mail between shards that producing takes, and Produce requests by shard.
fn cost_of_producing(broker: &Broker) -> (u64, Vec<u64>) {
    broker.connect().create_topic("t", PARTITIONS);
    let stats = broker.server().stats();
    let mail = || stats.iter().map(|stats| stats.mail_in.get()).sum::<u64>();
    let before = mail();
    produce(broker);
    let requests = stats.iter().map(|stats| stats.requests[0].get());
    (mail() - before, requests.collect())
}

#[test]
fn a_stock_client_meets_the_owner_without_a_hop() {
    let (mail, requests) = cost_of_producing(&broker(true));
    assert_eq!(mail, 0);
    assert!(requests.iter().all(|count| *count > 0), "{requests:?}");
    let (mail, _) = cost_of_producing(&broker(false));
    assert!(
        mail > 0,
        "without steering half of the partitions are elsewhere"
    );
}

#[test]
fn a_group_reads_everything_and_is_listed_once() {
    let broker = broker(true);
    broker.connect().create_topic("t", PARTITIONS);
    produce(&broker);
    for group in ["a", "b", "c"] {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker.address().to_string())
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        consumer.subscribe(&["t"]).unwrap();
        let (mut seen, started) = (0, Instant::now());
        while seen < COUNT && started.elapsed() < PATIENCE {
            if let Some(message) = consumer.poll(Duration::from_millis(200)) {
                message.unwrap();
                seen += 1;
            }
        }
        assert_eq!(seen, COUNT);
        consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    }
    let mut listed = Vec::new();
    for address in broker.server().addresses() {
        let response = Raw::connect(*address).ask(4, &ListGroupsRequest::default());
        listed.extend(response.groups.into_iter().map(|group| group.group_id));
    }
    listed.sort();
    assert_eq!(listed, ["a", "b", "c"]);
}
