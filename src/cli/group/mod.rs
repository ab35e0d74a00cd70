//! `forebay group`: list, describe, delete consumer groups, and how late they are.

mod lag;

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Cluster;
use super::output::{Failure, Format, Output, note};
use crate::base::ErrorCode;
use crate::client::consumer::decode_assignment;
use crate::client::error::check;
use crate::client::{Client, ClientError, Isolation, LATEST, Node, Tcp, TopicPartition};
use crate::wire::messages::delete_groups::DeleteGroupsRequest;
use crate::wire::messages::describe_groups::{
    DescribeGroupsRequest, DescribedGroup, DescribedGroupMember,
};
use crate::wire::messages::list_groups::{ListGroupsRequest, ListedGroup};

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List groups
    List(List),
    /// Show members, committed offsets and lag of a group
    Describe(Describe),
    /// Show how late a group is, in records and in seconds, and when it will have read everything
    ///
    /// One line for each partition of the topics that the group reads, and one for all. SECONDS is
    /// the age of the oldest unread record by its timestamp; `-` is no commit, or an age that is
    /// not known. The rates are those between two looks, so the first table takes one interval. Of
    /// groups of the new consumer protocol (KIP-848), only topics with a commit are seen.
    ///
    /// Ends with 0, with 1 if the group or a broker cannot be asked, with 2 for wrong arguments,
    /// and with 3 if the group is later than --max-seconds.
    Lag(lag::Lag),
    /// Delete groups that have no members, with their offsets
    Delete(Delete),
}

#[derive(Debug, Args)]
pub struct List {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
pub struct Describe {
    /// Name of the group
    group: String,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// Names of the groups
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    cluster: Cluster,
}

/// A partition as a group sees it.
#[derive(Debug, Default)]
struct Row {
    committed: Option<i64>,
    end: Option<i64>,
    /// Index of the member that reads it.
    member: Option<usize>,
}

/// Runs the command.
pub async fn run(command: Command, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::List(command) => list(command, output).await,
        Command::Describe(command) => describe(command, output).await,
        Command::Lag(command) => lag::run(command, output).await,
        Command::Delete(command) => delete(command, output).await,
    }
}

async fn list(command: List, output: &mut Output) -> Result<(), Failure> {
    let client = command.cluster.connect().await?;
    let mut groups: BTreeMap<String, ListedGroup> = BTreeMap::new();
    // Every broker knows the groups that it coordinates.
    for node_id in client.nodes() {
        let request = ListGroupsRequest {
            states_filter: Vec::new(),
            types_filter: Vec::new(),
        };
        let response = client.send(Node::Id(node_id), request).await?;
        if response.error_code.is_error() {
            note(&format!(
                "node {node_id} lists no groups: {}",
                response.error_code
            ));
        }
        for group in response.groups {
            groups.insert(group.group_id.clone(), group);
        }
    }
    if command.format == Format::Json {
        let groups = groups.into_values().map(|group| {
            json!({
                "group": group.group_id,
                "protocolType": group.protocol_type,
                "state": group.group_state,
            })
        });
        return output.json(&groups.collect());
    }
    let rows: Vec<[String; 3]> = groups
        .into_values()
        .map(|group| [group.group_id, group.group_state, group.protocol_type])
        .collect();
    output.table(["GROUP", "STATE", "PROTOCOL"], &rows)
}

async fn describe(command: Describe, output: &mut Output) -> Result<(), Failure> {
    let client = command.cluster.connect().await?;
    let name = &command.group;
    let group = describe_group(&client, name).await?;
    let mut rows: BTreeMap<TopicPartition, Row> = BTreeMap::new();
    for (partition, committed) in client.committed(name, None, false).await? {
        rows.entry(partition).or_default().committed = Some(committed.offset);
    }
    if rows.is_empty() && group.members.is_empty() && is_dead(&group) {
        return Err(no_group(name));
    }
    for (index, member) in group.members.iter().enumerate() {
        // Groups that are not of consumers put other things there.
        let assigned = decode_assignment(member.member_assignment.clone());
        for partition in assigned.unwrap_or_default() {
            rows.entry(partition).or_default().member = Some(index);
        }
    }
    let asked: Vec<_> = rows.keys().map(|each| (each.clone(), LATEST)).collect();
    let ends = client
        .list_offsets(&asked, Isolation::ReadUncommitted)
        .await?;
    for (partition, end) in ends {
        rows.entry(partition).or_default().end = end.ok();
    }
    match command.format {
        Format::Json => output.json(&to_json(&group, &rows)),
        Format::Text => print(&group, &rows, output),
    }
}

async fn delete(command: Delete, output: &mut Output) -> Result<(), Failure> {
    let client = command.cluster.connect().await?;
    let mut failures = Vec::new();
    for group in command.groups {
        match delete_one(&client, &group).await {
            Ok(()) => output.line(&format!("deleted group \"{group}\""))?,
            Err(error) => failures.push(match error.code() {
                Some(ErrorCode::NonEmptyGroup) => {
                    format!("group \"{group}\" has members: stop them first")
                }
                Some(ErrorCode::GroupIdNotFound) => no_group(&group).to_string(),
                Some(_) => error.to_string(),
                None => return Err(error.into()),
            }),
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Failure::Failed(failures.join("; "))),
    }
}

async fn delete_one(client: &Client<Tcp>, group: &str) -> Result<(), ClientError> {
    let request = DeleteGroupsRequest {
        groups_names: vec![group.to_owned()],
    };
    let attempt = async || {
        let node = Node::Coordinator(group.to_owned());
        let response = client.send(node, request.clone()).await?;
        let code = response.results.first().map(|result| result.error_code);
        let code = code.unwrap_or(ErrorCode::None);
        check("DeleteGroups", || format!("group \"{group}\""), code, None)
    };
    client.ask_coordinator(group, attempt).await
}

/// All partitions of topics; those that are no more are left out.
async fn partitions_of(
    client: &Client<Tcp>,
    topics: BTreeSet<String>,
) -> Result<Vec<TopicPartition>, ClientError> {
    let topics: Vec<String> = topics.into_iter().collect();
    let attempt = async || {
        let mut partitions = Vec::new();
        for topic in client.refresh_metadata(&topics).await? {
            if topic.error != ErrorCode::UnknownTopicOrPartition {
                let subject = || format!("topic \"{}\"", topic.name);
                check("Metadata", subject, topic.error, None)?;
            }
            let indexes = topic.partitions.iter().map(|each| each.partition);
            partitions.extend(indexes.map(|index| TopicPartition::new(&topic.name, index)));
        }
        Ok(partitions)
    };
    client.retry(attempt).await
}

/// State and members of a group; "Dead" if it is not there.
async fn describe_group(client: &Client<Tcp>, group: &str) -> Result<DescribedGroup, ClientError> {
    let request = DescribeGroupsRequest {
        groups: vec![group.to_owned()],
        ..Default::default()
    };
    let attempt = async || {
        let node = Node::Coordinator(group.to_owned());
        let response = client.send(node, request.clone()).await?;
        let described = response.groups.into_iter().next().unwrap_or_default();
        let subject = || format!("group \"{group}\"");
        check("DescribeGroups", subject, described.error_code, None)?;
        Ok(described)
    };
    client.ask_coordinator(group, attempt).await
}

fn print(
    group: &DescribedGroup,
    rows: &BTreeMap<TopicPartition, Row>,
    output: &mut Output,
) -> Result<(), Failure> {
    output.line(&format!("Group:     {}", group.group_id))?;
    output.line(&format!("State:     {}", group.group_state))?;
    if !group.protocol_data.is_empty() {
        output.line(&format!("Assignor:  {}", group.protocol_data))?;
    }
    output.line(&format!("Members:   {}", group.members.len()))?;
    let text = |offset: Option<i64>| offset.map_or("-".to_owned(), |offset| offset.to_string());
    let table: Vec<[String; 7]> = rows
        .iter()
        .map(|(partition, row)| {
            let member = row.member.and_then(|index| group.members.get(index));
            [
                partition.topic.clone(),
                partition.partition.to_string(),
                text(row.committed),
                text(row.end),
                text(row.lag()),
                member.map_or("-".to_owned(), |member| member.client_host.clone()),
                member.map_or("-".to_owned(), member_name),
            ]
        })
        .collect();
    let heads = [
        "TOPIC",
        "PARTITION",
        "COMMITTED",
        "END",
        "LAG",
        "HOST",
        "MEMBER",
    ];
    output.table(heads, &table)
}

fn to_json(group: &DescribedGroup, rows: &BTreeMap<TopicPartition, Row>) -> Value {
    let members = group.members.iter().map(|member| {
        json!({
            "member": member.member_id,
            "instance": member.group_instance_id,
            "client": member.client_id,
            "host": member.client_host,
        })
    });
    let partitions = rows.iter().map(|(partition, row)| {
        let member = row.member.and_then(|index| group.members.get(index));
        json!({
            "topic": partition.topic,
            "partition": partition.partition,
            "committed": row.committed,
            "end": row.end,
            "lag": row.lag(),
            "member": member.map(|member| &member.member_id),
        })
    });
    json!({
        "group": group.group_id,
        "state": group.group_state,
        "assignor": group.protocol_data,
        "members": members.collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

impl Row {
    /// Records not read yet.
    fn lag(&self) -> Option<i64> {
        Some(self.end?.saturating_sub(self.committed?).max(0))
    }
}

/// Static members by the name that stays, others by the id that the coordinator made.
fn member_name(member: &DescribedGroupMember) -> String {
    let name = member.group_instance_id.as_ref();
    name.unwrap_or(&member.member_id).clone()
}

fn no_group(name: &str) -> Failure {
    Failure::Failed(format!(
        "group \"{name}\" does not exist: see `forebay group list`"
    ))
}

fn is_dead(group: &DescribedGroup) -> bool {
    group.group_state == "Dead" || group.group_state.is_empty()
}
