//! The catalog against the answers of Apache Kafka 4.3.1: each request here was sent to one (node
//! 1,
//! `num.partitions=4`), the codes and sentences are what it said.

mod alter;
mod describe;
mod replay;
mod topics;

use bytes::Bytes;

use super::*;
use crate::base::NodeId;
use crate::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreatableTopicResult, CreateTopicsRequest,
};

fn identity() -> Identity {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Identity {
        cluster_id: "cluster".to_owned(),
        node_id: NodeId(1),
        advertised: None,
        ports_per_shard: Vec::new(),
        static_settings: [setting("num.partitions", "4"), setting("node.id", "1")].into(),
    }
}

fn catalog() -> Catalog {
    Catalog::new(identity(), 1)
}

/// Replays the records of a decision and gives its response.
fn commit<R>(catalog: &mut Catalog, (records, response): Decision<R>) -> R {
    for record in records {
        catalog.replay(record).unwrap();
        catalog.check();
    }
    response
}

fn named(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: -1,
        ..Default::default()
    }
}

fn config(name: &str, value: Option<&str>) -> CreatableTopicConfig {
    CreatableTopicConfig {
        name: name.to_owned(),
        value: value.map(str::to_owned),
    }
}

fn configured(name: &str, configs: &[(&str, &str)]) -> CreatableTopic {
    let configs = configs
        .iter()
        .map(|(name, value)| config(name, Some(value)))
        .collect();
    CreatableTopic {
        configs,
        ..named(name, 1)
    }
}

/// Creates topics for good.
fn create(catalog: &mut Catalog, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest {
        topics,
        ..Default::default()
    };
    let decision = catalog.create_topics(&request);
    commit(catalog, decision).topics
}

/// A catalog with one topic `t` of two partitions.
fn with_topic() -> Catalog {
    let mut catalog = catalog();
    create(&mut catalog, vec![named("t", 2)]);
    catalog
}
