//! A cluster as bench and sale need it beside the load, asked through forebay's Kafka client:
//! versions, topics, who leads their partitions and where they end.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay::base::ErrorCode;
use forebay::client::{Client, ClientError, ClientOptions, EARLIEST, LATEST, Node};
use forebay::wire::messages::api_versions::ApiVersionsRequest;
use forebay::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use forebay::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use forebay::wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use forebay::wire::messages::fetch::FetchRequest;
use forebay::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use forebay::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use forebay::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use forebay::wire::messages::produce::ProduceRequest;
use forebay::wire::{Message, Request};
use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use crate::transport::Transport;

/// The last versions of Produce and Fetch that name topics instead of numbering them.
const NAMED_VERSION_MAX: i16 = 12;
/// A new topic can be written to after this long, or never.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Pause before the cluster is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Kafka's number for brokers as resources with settings.
const BROKER_RESOURCE: i8 = 4;

/// A connected cluster.
pub struct Cluster {
    client: Client<Transport>,
    /// What opens sockets.
    pub transport: Transport,
    /// The version of Produce to use.
    pub produce_version: i16,
    /// The version of Fetch to use.
    pub fetch_version: i16,
}

/// A partition and who leads it.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Its index.
    pub index: i32,
    /// The leader's id.
    pub node: i32,
    /// The leader's address.
    pub address: String,
    /// Its first offset.
    pub start: i64,
    /// The offset after its last record.
    pub end: i64,
}

/// A topic that can be used.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions, by index.
    pub partitions: Vec<Partition>,
    /// Whether it was created here.
    pub created: bool,
}

impl Topic {
    /// Partitions with the addresses of their leaders.
    pub fn leaders(&self) -> Vec<(i32, String)> {
        let partitions = self.partitions.iter();
        partitions
            .map(|each| (each.index, each.address.clone()))
            .collect()
    }

    /// Records in it, if none was compacted away.
    pub fn records(&self) -> u64 {
        let partitions = self.partitions.iter();
        partitions.map(|each| each.end.abs_diff(each.start)).sum()
    }
}

impl Cluster {
    /// Connects and agrees on versions.
    ///
    /// # Errors
    /// If no broker answers at `bootstrap`, or there is none with versions in common.
    pub async fn connect(transport: Transport, bootstrap: &str) -> Result<Self, Failure> {
        let options = ClientOptions {
            client_id: "loadgen".to_owned(),
            allow_auto_topic_creation: false,
            ..ClientOptions::default()
        };
        let client = Client::connect(transport, bootstrap, options)
            .await
            .map_err(broker)?;
        let request = ApiVersionsRequest {
            client_software_name: "loadgen".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let answer = client.send(Node::Any, request).await.map_err(broker)?;
        let rows = answer.api_keys.iter();
        let ranges: BTreeMap<i16, (i16, i16)> = rows
            .map(|row| (row.api_key, (row.min_version, row.max_version)))
            .collect();
        Ok(Self {
            client,
            transport,
            produce_version: version::<ProduceRequest>(&ranges)?,
            fetch_version: version::<FetchRequest>(&ranges)?,
        })
    }

    /// The client that all of this goes through.
    pub fn client(&self) -> &Client<Transport> {
        &self.client
    }

    async fn ask<R: Request>(&self, node: Node, request: R) -> Result<R::Response, Failure> {
        self.client.send(node, request).await.map_err(broker)
    }

    /// The topic `name`, which must be there and served.
    ///
    /// # Errors
    /// If it is not.
    pub async fn existing(&self, name: &str) -> Result<Topic, Failure> {
        let looked = self.look(name, false).await?;
        looked.map_err(|code| unusable(name, &format!("cannot be used: {code}")))
    }

    /// The topic `name`, created with these partitions and settings if it is not there, as soon as
    /// all its leaders serve it.
    ///
    /// # Errors
    /// If the cluster refuses, or leaders do not serve within a minute.
    pub async fn topic(
        &self,
        name: &str,
        partitions: usize,
        settings: &[(String, String)],
    ) -> Result<Topic, Failure> {
        let created = match self.metadata(name).await?.topics.first() {
            Some(topic) if !topic.error_code.is_error() => false,
            _ => {
                self.create(name, partitions, settings).await?;
                true
            }
        };
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            match self.look(name, created).await? {
                Ok(topic) if !created || topic.partitions.len() == partitions => return Ok(topic),
                Ok(_) if Instant::now() < deadline => {}
                Err(code) if may_pass(code) && Instant::now() < deadline => {}
                Ok(_) => return Err(unusable(name, "has not all its partitions after a minute")),
                Err(code) => return Err(unusable(name, &format!("cannot be used: {code}"))),
            }
            sleep(ASK_AGAIN_AFTER).await;
        }
    }

    async fn create(
        &self,
        name: &str,
        partitions: usize,
        settings: &[(String, String)],
    ) -> Result<(), Failure> {
        let settings = settings.iter().map(|(name, value)| CreatableTopicConfig {
            name: name.clone(),
            value: Some(value.clone()),
        });
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            replication_factor: -1,
            configs: settings.collect(),
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let answer = self.ask(Node::Controller, request).await?;
        match answer
            .topics
            .iter()
            .find(|topic| topic.error_code.is_error())
        {
            Some(topic) => {
                let message = topic.error_message.as_deref().unwrap_or_default();
                let why = format!("is not created: {} {message}", topic.error_code);
                Err(unusable(name, why.trim_end()))
            }
            None => Ok(()),
        }
    }

    /// The topic as its leaders have it now; the code if it, or a partition, is not served.
    ///
    /// # Errors
    /// If a broker does not answer.
    pub async fn look(
        &self,
        name: &str,
        created: bool,
    ) -> Result<Result<Topic, ErrorCode>, Failure> {
        let metadata = self.metadata(name).await?;
        let addresses: BTreeMap<i32, String> = metadata
            .brokers
            .iter()
            .map(|broker| (broker.node_id, format!("{}:{}", broker.host, broker.port)))
            .collect();
        let Some(found) = metadata.topics.first() else {
            return Ok(Err(ErrorCode::UnknownTopicOrPartition));
        };
        if found.error_code.is_error() {
            return Ok(Err(found.error_code));
        }
        let mut partitions = Vec::new();
        for each in &found.partitions {
            let Some(address) = addresses.get(&each.leader_id) else {
                return Ok(Err(ErrorCode::LeaderNotAvailable));
            };
            partitions.push(Partition {
                index: each.partition_index,
                node: each.leader_id,
                address: address.clone(),
                start: 0,
                end: 0,
            });
        }
        partitions.sort_unstable_by_key(|partition| partition.index);
        for timestamp in [EARLIEST, LATEST] {
            if let Err(code) = self.offsets(name, &mut partitions, timestamp).await? {
                return Ok(Err(code));
            }
        }
        Ok(Ok(Topic {
            name: name.to_owned(),
            partitions,
            created,
        }))
    }

    /// Asks all leaders for one end of their partitions.
    async fn offsets(
        &self,
        name: &str,
        partitions: &mut [Partition],
        timestamp: i64,
    ) -> Result<Result<(), ErrorCode>, Failure> {
        let mut nodes: Vec<i32> = partitions.iter().map(|each| each.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            let of_node = partitions.iter().filter(|each| each.node == node);
            let asked = of_node.map(|each| ListOffsetsPartition {
                partition_index: each.index,
                timestamp,
                ..ListOffsetsPartition::default()
            });
            let topic = ListOffsetsTopic {
                name: name.to_owned(),
                partitions: asked.collect(),
            };
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![topic],
                ..Default::default()
            };
            let answer = self.ask(Node::Id(node), request).await?;
            for found in answer.topics.iter().flat_map(|topic| &topic.partitions) {
                if found.error_code.is_error() {
                    return Ok(Err(found.error_code));
                }
                let index = partitions.binary_search_by_key(&found.partition_index, |p| p.index);
                if let Ok(index) = index {
                    let partition = &mut partitions[index];
                    match timestamp {
                        EARLIEST => partition.start = found.offset,
                        _ => partition.end = found.offset,
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    async fn metadata(&self, name: &str) -> Result<MetadataResponse, Failure> {
        // The client learns the addresses of the leaders, too.
        let names = [name.to_owned()];
        self.client.refresh_metadata(&names).await.map_err(broker)?;
        let topic = MetadataRequestTopic {
            name: Some(name.to_owned()),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        self.ask(Node::Any, request).await
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub async fn delete(&self, name: &str) -> Result<(), Failure> {
        let topic = DeleteTopicState {
            name: Some(name.to_owned()),
            ..DeleteTopicState::default()
        };
        let request = DeleteTopicsRequest {
            topics: vec![topic],
            topic_names: vec![name.to_owned()],
            timeout_ms: 10_000,
        };
        let answer = self.ask(Node::Controller, request).await?;
        match answer
            .responses
            .iter()
            .find(|topic| topic.error_code.is_error())
        {
            Some(topic) => Err(unusable(
                name,
                &format!("is not deleted: {}", topic.error_code),
            )),
            None => Ok(()),
        }
    }

    /// A setting of the first broker; `None` if it has no such setting.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn broker_setting(&self, name: &str) -> Result<Option<String>, Failure> {
        let Some(node) = self.client.nodes().first().copied() else {
            return Ok(None);
        };
        let resource = DescribeConfigsResource {
            resource_type: BROKER_RESOURCE,
            resource_name: node.to_string(),
            configuration_keys: Some(vec![name.to_owned()]),
        };
        let request = DescribeConfigsRequest {
            resources: vec![resource],
            ..DescribeConfigsRequest::default()
        };
        let answer = self.ask(Node::Id(node), request).await?;
        let mut settings = answer.results.into_iter().flat_map(|result| result.configs);
        Ok(settings
            .find(|setting| setting.name == name)
            .and_then(|setting| setting.value))
    }

    /// Changes a setting of every broker.
    ///
    /// # Errors
    /// If one refuses it.
    pub async fn set_of_brokers(&self, name: &str, value: &str) -> Result<(), Failure> {
        for node in self.client.nodes() {
            let config = AlterableConfig {
                name: name.to_owned(),
                config_operation: 0,
                value: Some(value.to_owned()),
            };
            let resource = AlterConfigsResource {
                resource_type: BROKER_RESOURCE,
                resource_name: node.to_string(),
                configs: vec![config],
            };
            let request = IncrementalAlterConfigsRequest {
                resources: vec![resource],
                validate_only: false,
            };
            let answer = self.ask(Node::Id(node), request).await?;
            if let Some(refused) = answer
                .responses
                .iter()
                .find(|each| each.error_code.is_error())
            {
                let message = refused.error_message.as_deref().unwrap_or_default();
                return Err(Failure::Reason(format!(
                    "the broker does not take {name}={value}: {} {message}",
                    refused.error_code
                )));
            }
        }
        Ok(())
    }
}

/// In the client's own words.
fn broker(error: ClientError) -> Failure {
    Failure::Reason(error.to_string())
}

fn unusable(name: &str, why: &str) -> Failure {
    Failure::Reason(format!("the topic {name} {why}"))
}

/// What a topic that was just created may answer for a while.
fn may_pass(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UnknownTopicOrPartition
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::ReplicaNotAvailable
    )
}

/// The highest version in common that names topics.
fn version<R: Request>(theirs: &BTreeMap<i16, (i16, i16)>) -> Result<i16, Failure> {
    let ours = <R as Message>::VERSIONS;
    let common = theirs.get(&R::KEY).and_then(|(first, last)| {
        let version = NAMED_VERSION_MAX.min(*ours.end()).min(*last);
        (version >= *ours.start() && version >= *first).then_some(version)
    });
    common.ok_or_else(|| {
        Failure::Reason(format!(
            "the broker has no version of {} in common with this tool: use Kafka 2.1 or later",
            <R as Message>::NAME
        ))
    })
}
