//! Metadata (key 3), versions 0-13: the node, the topics and who leads their partitions.
//!
//! - No topics named: all in version 0 (empty) and from version 1 (null); none if empty since 1.
//! - Missing topics are created if both the request and `auto.create.topics.enable` allow it, and
//!   the answer waits until every shard knows them.
//! - From version 10 topics can be named by id; unknown ids get `UNKNOWN_TOPIC_ID`.
//! - A partition whose disk has failed has no leader and gets `LEADER_NOT_AVAILABLE`, so that
//!   clients wait and ask again.
//! - The node's address is the advertised one, or else the one that the client dialled.
//! - With steering every shard is a broker, on a port of its own, and leads what it owns. A request
//!   that comes to another one is served all the same.

use super::job::{CatalogJob, Job, Jobs};
use super::{Begun, Facts, Flow, distinct};
use crate::base::placement::CONTROLLER;
use crate::base::{ErrorCode, PartitionKey, ShardId, TopicId};
use crate::catalog::{self, Topic};
use crate::state::ShardState;
use crate::wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};

/// Every operation on a topic, as a bit set of `AclOperation` (KIP-430): nothing is forbidden.
pub const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;

/// Every operation on the cluster.
pub const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// A request that waits for topics to be created.
#[derive(Debug)]
pub struct Creating {
    request: MetadataRequest,
}

/// Answers from the image, after creating what is missing.
pub fn begin(state: &mut ShardState, facts: &Facts, mut request: MetadataRequest) -> Begun {
    if let Some(topics) = &mut request.topics {
        distinct(topics, |topic| (topic.name.clone(), topic.topic_id));
    }
    let missing = missing_topics(state, facts, &request);
    if missing.is_empty() {
        return facts.reply(&response(state, facts, &request));
    }
    let job = Job::Catalog(Box::new(CatalogJob::AutoCreate(missing)));
    Begun::Gather(
        Jobs::from([(CONTROLLER, job)]),
        Flow::Metadata(Creating { request }),
    )
}

impl Creating {
    /// Answers with what there is now.
    pub fn resume(self, state: &mut ShardState, facts: &Facts) -> Begun {
        facts.reply(&response(state, facts, &self.request))
    }
}

/// A broker as clients see it: its id, host and port. The one behind a shard, with steering.
pub fn node(state: &ShardState, facts: &Facts, shard: ShardId) -> (i32, String, i32) {
    let own_port = state.image.ports_per_shard().get(usize::from(shard.0));
    let (host, port) = match state.image.advertised() {
        // The configuration has seen to it that there are so many ports.
        Some((host, port)) if own_port.is_some() => (host.to_owned(), port + shard.0),
        Some((host, port)) => (host.to_owned(), port),
        None => {
            let host = facts.local.ip().to_canonical().to_string();
            (host, *own_port.unwrap_or(&facts.local.port()))
        }
    };
    (state.node_of(shard), host, i32::from(port))
}

/// Every broker that clients see.
pub fn nodes(state: &ShardState, facts: &Facts) -> impl Iterator<Item = (i32, String, i32)> {
    let count = state.image.ports_per_shard().len().max(1) as u16;
    (0..count).map(|shard| node(state, facts, ShardId(shard)))
}

fn missing_topics(state: &ShardState, facts: &Facts, request: &MetadataRequest) -> Vec<String> {
    let allowed = request.allow_auto_topic_creation || facts.version < 4;
    if !allowed || !state.broker.auto_create_topics {
        return Vec::new();
    }
    let names = request
        .topics
        .iter()
        .flatten()
        .filter_map(|topic| topic.name.as_ref());
    names
        .filter(|name| catalog::check_topic_name(name).is_ok() && state.image.topic(name).is_none())
        .cloned()
        .collect()
}

fn response(state: &ShardState, facts: &Facts, request: &MetadataRequest) -> MetadataResponse {
    let broker = |(node_id, host, port)| MetadataResponseBroker {
        node_id,
        host,
        port,
        rack: state.broker.rack.clone(),
    };
    let mut response = MetadataResponse {
        brokers: nodes(state, facts).map(broker).collect(),
        cluster_id: Some(state.image.cluster_id().to_owned()),
        controller_id: state.node_of(CONTROLLER),
        ..MetadataResponse::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    let all = match &request.topics {
        None => true,
        Some(topics) => topics.is_empty() && facts.version == 0,
    };
    response.topics = match (&request.topics, all) {
        (Some(topics), false) => topics
            .iter()
            .map(|asked| asked_topic(state, asked))
            .collect(),
        _ => state
            .image
            .topics()
            .map(|topic| known_topic(state, topic))
            .collect(),
    };
    if request.include_topic_authorized_operations {
        for topic in &mut response.topics {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    response
}

fn asked_topic(state: &ShardState, asked: &MetadataRequestTopic) -> MetadataResponseTopic {
    let failed = |error_code| MetadataResponseTopic {
        error_code,
        name: asked.name.clone(),
        topic_id: asked.topic_id,
        ..MetadataResponseTopic::default()
    };
    let Some(name) = &asked.name else {
        return match state.image.topic_by_id(asked.topic_id) {
            Some(topic) => known_topic(state, topic),
            None if asked.topic_id == TopicId::ZERO => failed(ErrorCode::UnknownTopicOrPartition),
            None => failed(ErrorCode::UnknownTopicId),
        };
    };
    match state.image.topic(name) {
        Some(topic) => known_topic(state, topic),
        None if catalog::check_topic_name(name).is_err() => failed(ErrorCode::InvalidTopic),
        None => failed(ErrorCode::UnknownTopicOrPartition),
    }
}

fn known_topic(state: &ShardState, topic: &Topic) -> MetadataResponseTopic {
    let partition = |partition| {
        let topic = topic.id;
        let key = PartitionKey { topic, partition };
        let (replicas, leader) = (vec![state.leader(key)], state.live_leader(key));
        let online = MetadataResponsePartition {
            partition_index: partition,
            leader_id: leader.unwrap_or(-1),
            leader_epoch: state.leader_epoch,
            replica_nodes: replicas.clone(),
            isr_nodes: leader.into_iter().collect(),
            ..MetadataResponsePartition::default()
        };
        match leader {
            Some(_) => online,
            None => MetadataResponsePartition {
                error_code: ErrorCode::LeaderNotAvailable,
                offline_replicas: replicas,
                ..online
            },
        }
    };
    MetadataResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.internal,
        partitions: (0..topic.partitions).map(partition).collect(),
        ..MetadataResponseTopic::default()
    }
}
