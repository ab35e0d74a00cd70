//! `forebay topic`: create, list, describe, alter, delete.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{Failure, Format, Output};
use super::{Cluster, parse_pair};
use crate::base::ErrorCode;
use crate::client::{Client, EARLIEST, Isolation, LATEST, Node, Tcp, TopicPartition};
use crate::wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use crate::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use crate::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use crate::wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
};
use crate::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use crate::wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponsePartition,
    MetadataResponseTopic,
};

/// `ConfigResource.Type.TOPIC`.
const RESOURCE_TOPIC: i8 = 2;

/// `DescribeConfigs`: the value was set on the topic itself.
const SOURCE_TOPIC: i8 = 1;

/// `AlterConfigOp.OpType`.
const SET: i8 = 0;
const DELETE: i8 = 1;

/// How long a broker may take to carry out a change.
const CHANGE_TIMEOUT_MS: i32 = 30_000;

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a topic
    Create(Create),
    /// List topics
    List(List),
    /// Show partitions, offsets and settings of topics
    Describe(Describe),
    /// Add partitions or change settings
    Alter(Alter),
    /// Delete topics with all their records
    Delete(Delete),
}

#[derive(Debug, Args)]
pub struct Create {
    /// Name of the topic
    topic: String,
    /// Number of partitions [default: the broker's num.partitions]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Copies of each partition [default: the broker's default.replication.factor]
    #[arg(long, value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A setting under Kafka's name, such as retention.ms=60000; can be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    config: Vec<(String, String)>,
    /// Succeed if the topic is there already
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
pub struct List {
    /// Show internal topics too, such as __consumer_offsets
    #[arg(long)]
    internal: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
pub struct Describe {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Show settings that have their default too
    #[arg(long)]
    all_settings: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
#[group(id = "changes", required = true, multiple = true, args = ["partitions", "set", "unset"])]
pub struct Alter {
    /// Name of the topic
    topic: String,
    /// New number of partitions; it can only grow
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Set a setting under Kafka's name; can be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    set: Vec<(String, String)>,
    /// Return a setting to its default; can be repeated
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    #[command(flatten)]
    cluster: Cluster,
}

/// Runs the command.
pub async fn run(command: Command, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Create(command) => create(command, output).await,
        Command::List(command) => list(command, output).await,
        Command::Describe(command) => describe(command, output).await,
        Command::Alter(command) => alter(command, output).await,
        Command::Delete(command) => delete(command, output).await,
    }
}

async fn create(command: Create, output: &mut Output) -> Result<(), Failure> {
    let client = command.cluster.connect().await?;
    let configs = command.config.into_iter();
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: command.topic.clone(),
            num_partitions: command.partitions.unwrap_or(-1),
            replication_factor: command.replication_factor.unwrap_or(-1),
            configs: configs
                .map(|(name, value)| CreatableTopicConfig {
                    name,
                    value: Some(value),
                })
                .collect(),
            ..Default::default()
        }],
        timeout_ms: CHANGE_TIMEOUT_MS,
        ..Default::default()
    };
    let response = client.send(Node::Controller, request).await?;
    for result in response.topics {
        if result.error_code == ErrorCode::TopicAlreadyExists && command.if_not_exists {
            return output.line(&format!("topic \"{}\" is there already", result.name));
        }
        check(
            &result.name,
            result.error_code,
            result.error_message.as_deref(),
        )?;
        let partitions = match result.num_partitions {
            // Versions before 5 do not say.
            ..=0 => String::new(),
            1 => " with 1 partition".to_owned(),
            count => format!(" with {count} partitions"),
        };
        output.line(&format!("created topic \"{}\"{partitions}", result.name))?;
    }
    Ok(())
}

async fn list(command: List, output: &mut Output) -> Result<(), Failure> {
    let client = command.cluster.connect().await?;
    let response = metadata(&client, None).await?;
    let mut topics: Vec<&MetadataResponseTopic> = response
        .topics
        .iter()
        .filter(|topic| command.internal || !topic.is_internal)
        .collect();
    topics.sort_unstable_by_key(|topic| &topic.name);
    if command.format == Format::Json {
        let topics = topics.into_iter().map(|topic| {
            json!({
                "topic": topic.name,
                "id": topic.topic_id.to_string(),
                "partitions": topic.partitions.len(),
                "replicationFactor": replication_factor(topic),
                "internal": topic.is_internal,
            })
        });
        return output.json(&topics.collect());
    }
    let rows: Vec<[String; 3]> = topics
        .into_iter()
        .map(|topic| {
            [
                topic.name.clone().unwrap_or_default(),
                topic.partitions.len().to_string(),
                replication_factor(topic).to_string(),
            ]
        })
        .collect();
    output.table(["TOPIC", "PARTITIONS", "REPLICATION"], &rows)
}

async fn describe(command: Describe, output: &mut Output) -> Result<(), Failure> {
    let client = command.cluster.connect().await?;
    let response = metadata(&client, Some(&command.topics)).await?;
    let mut documents = Vec::new();
    for (index, topic) in response.topics.iter().enumerate() {
        let name = topic.name.clone().unwrap_or_default();
        check(&name, topic.error_code, None)?;
        let settings = settings(&client, &name, command.all_settings).await?;
        let offsets = offsets(&client, &name, &topic.partitions).await?;
        match command.format {
            Format::Json => documents.push(to_json(&name, topic, &offsets, &settings)),
            Format::Text => {
                if index > 0 {
                    output.line("")?;
                }
                print(&name, topic, &offsets, &settings, output)?;
            }
        }
    }
    match command.format {
        Format::Json => output.json(&Value::Array(documents)),
        Format::Text => Ok(()),
    }
}

async fn alter(command: Alter, output: &mut Output) -> Result<(), Failure> {
    let client = command.cluster.connect().await?;
    let name = &command.topic;
    if let Some(count) = command.partitions {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: name.clone(),
                count,
                assignments: None,
            }],
            timeout_ms: CHANGE_TIMEOUT_MS,
            ..Default::default()
        };
        let response = client.send(Node::Controller, request).await?;
        for result in response.results {
            check(name, result.error_code, result.error_message.as_deref())?;
        }
    }
    let set = command
        .set
        .into_iter()
        .map(|(name, value)| AlterableConfig {
            name,
            config_operation: SET,
            value: Some(value),
        });
    let unset = command.unset.into_iter().map(|name| AlterableConfig {
        name,
        config_operation: DELETE,
        value: None,
    });
    let configs: Vec<AlterableConfig> = set.chain(unset).collect();
    if !configs.is_empty() {
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: RESOURCE_TOPIC,
                resource_name: name.clone(),
                configs,
            }],
            validate_only: false,
        };
        let response = client.send(Node::Any, request).await?;
        for result in response.responses {
            check(name, result.error_code, result.error_message.as_deref())?;
        }
    }
    output.line(&format!("altered topic \"{name}\""))
}

async fn delete(command: Delete, output: &mut Output) -> Result<(), Failure> {
    let client = command.cluster.connect().await?;
    let states = command.topics.iter().map(|name| DeleteTopicState {
        name: Some(name.clone()),
        ..Default::default()
    });
    // Version 6 has a list of names or ids, earlier ones a list of names: both are filled in.
    let request = DeleteTopicsRequest {
        topics: states.collect(),
        topic_names: command.topics.clone(),
        timeout_ms: CHANGE_TIMEOUT_MS,
    };
    let response = client.send(Node::Controller, request).await?;
    let mut failures = Vec::new();
    for result in response.responses {
        let name = result.name.unwrap_or_default();
        match check(&name, result.error_code, result.error_message.as_deref()) {
            Ok(()) => output.line(&format!("deleted topic \"{name}\""))?,
            Err(Failure::Failed(message)) => failures.push(message),
            Err(failure) => return Err(failure),
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Failure::Failed(failures.join("; "))),
    }
}

/// Metadata of the named topics, or of all.
async fn metadata(
    client: &Client<Tcp>,
    topics: Option<&[String]>,
) -> Result<MetadataResponse, Failure> {
    let named = topics.map(|topics| {
        let topics = topics.iter().map(|name| MetadataRequestTopic {
            name: Some(name.clone()),
            ..Default::default()
        });
        topics.collect()
    });
    let request = MetadataRequest {
        topics: named,
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    Ok(client.send(Node::Any, request).await?)
}

/// The settings of a topic: those that were set on it, or all.
pub(super) async fn settings(
    client: &Client<Tcp>,
    topic: &str,
    all_settings: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, Failure> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: RESOURCE_TOPIC,
            resource_name: topic.to_owned(),
            configuration_keys: None,
        }],
        ..Default::default()
    };
    let response = client.send(Node::Any, request).await?;
    let mut settings = Vec::new();
    for result in response.results {
        check(topic, result.error_code, result.error_message.as_deref())?;
        settings.extend(result.configs);
    }
    settings.retain(|setting| all_settings || setting.config_source == SOURCE_TOPIC);
    settings.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(settings)
}

/// First and last offset by partition; "-" where a leader does not say.
async fn offsets(
    client: &Client<Tcp>,
    topic: &str,
    partitions: &[MetadataResponsePartition],
) -> Result<BTreeMap<i32, [Option<i64>; 2]>, Failure> {
    let mut offsets: BTreeMap<i32, [Option<i64>; 2]> = BTreeMap::new();
    for (column, timestamp) in [EARLIEST, LATEST].into_iter().enumerate() {
        let asked: Vec<_> = partitions
            .iter()
            .map(|each| (TopicPartition::new(topic, each.partition_index), timestamp))
            .collect();
        let found = client
            .list_offsets(&asked, Isolation::ReadUncommitted)
            .await?;
        for (partition, offset) in found {
            let row = offsets.entry(partition.partition).or_default();
            row[column] = offset.ok();
        }
    }
    Ok(offsets)
}

fn print(
    name: &str,
    topic: &MetadataResponseTopic,
    offsets: &BTreeMap<i32, [Option<i64>; 2]>,
    settings: &[DescribeConfigsResourceResult],
    output: &mut Output,
) -> Result<(), Failure> {
    output.line(&format!("Topic:        {name}"))?;
    output.line(&format!("Id:           {}", topic.topic_id))?;
    output.line(&format!("Replication:  {}", replication_factor(topic)))?;
    for (index, setting) in settings.iter().enumerate() {
        let head = if index == 0 { "Settings:" } else { "" };
        let value = setting.value.as_deref().unwrap_or("(hidden)");
        output.line(&format!("{head:<14}{}={value}", setting.name))?;
    }
    let text = |offset: Option<i64>| offset.map_or("-".to_owned(), |offset| offset.to_string());
    let mut rows: Vec<(i32, [String; 6])> = topic
        .partitions
        .iter()
        .map(|partition| {
            let index = partition.partition_index;
            let [first, end] = offsets.get(&index).copied().unwrap_or_default();
            let leader = (partition.leader_id >= 0).then_some(i64::from(partition.leader_id));
            let row = [
                index.to_string(),
                text(leader),
                join(&partition.replica_nodes),
                join(&partition.isr_nodes),
                text(first),
                text(end),
            ];
            (index, row)
        })
        .collect();
    rows.sort_unstable_by_key(|(index, _)| *index);
    let rows: Vec<[String; 6]> = rows.into_iter().map(|(_, row)| row).collect();
    output.table(
        ["PARTITION", "LEADER", "REPLICAS", "ISR", "START", "END"],
        &rows,
    )
}

fn to_json(
    name: &str,
    topic: &MetadataResponseTopic,
    offsets: &BTreeMap<i32, [Option<i64>; 2]>,
    settings: &[DescribeConfigsResourceResult],
) -> Value {
    let partitions = topic.partitions.iter().map(|partition| {
        let index = partition.partition_index;
        let [first, end] = offsets.get(&index).copied().unwrap_or_default();
        json!({
            "partition": index,
            "leader": (partition.leader_id >= 0).then_some(partition.leader_id),
            "leaderEpoch": partition.leader_epoch,
            "replicas": partition.replica_nodes,
            "isr": partition.isr_nodes,
            "startOffset": first,
            "endOffset": end,
        })
    });
    let settings = settings
        .iter()
        .map(|setting| (setting.name.clone(), json!(setting.value)));
    json!({
        "topic": name,
        "id": topic.topic_id.to_string(),
        "internal": topic.is_internal,
        "settings": Value::Object(settings.collect()),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

fn replication_factor(topic: &MetadataResponseTopic) -> usize {
    let replicas = topic.partitions.iter().map(|each| each.replica_nodes.len());
    replicas.max().unwrap_or(0)
}

fn join(nodes: &[i32]) -> String {
    let nodes: Vec<String> = nodes.iter().map(i32::to_string).collect();
    nodes.join(",")
}

/// An error of a topic as one sentence that says how to go on.
fn check(topic: &str, code: ErrorCode, message: Option<&str>) -> Result<(), Failure> {
    Err(Failure::Failed(match code {
        ErrorCode::None => return Ok(()),
        ErrorCode::UnknownTopicOrPartition => {
            format!("topic \"{topic}\" does not exist: see `forebay topic list`")
        }
        ErrorCode::TopicAlreadyExists => format!(
            "topic \"{topic}\" exists already: alter it, or pass --if-not-exists to accept that"
        ),
        code => match message.filter(|message| !message.is_empty()) {
            Some(message) => format!("topic \"{topic}\": {code}: {message}"),
            None => format!("topic \"{topic}\": {code}"),
        },
    }))
}
