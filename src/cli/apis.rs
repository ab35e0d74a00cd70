//! `forebay apis`: the APIs that this broker serves, or what another one says it serves.

use clap::Args;
use serde_json::json;

use super::Cluster;
use super::output::{Failure, Format, Output};
use crate::api::APIS;
use crate::client::Node;
use crate::wire::messages::api_versions::ApiVersionsRequest;

/// Kafka's names, by key.
const NAMES: [&str; 94] = [
    "Produce",
    "Fetch",
    "ListOffsets",
    "Metadata",
    "LeaderAndIsr",
    "StopReplica",
    "UpdateMetadata",
    "ControlledShutdown",
    "OffsetCommit",
    "OffsetFetch",
    "FindCoordinator",
    "JoinGroup",
    "Heartbeat",
    "LeaveGroup",
    "SyncGroup",
    "DescribeGroups",
    "ListGroups",
    "SaslHandshake",
    "ApiVersions",
    "CreateTopics",
    "DeleteTopics",
    "DeleteRecords",
    "InitProducerId",
    "OffsetForLeaderEpoch",
    "AddPartitionsToTxn",
    "AddOffsetsToTxn",
    "EndTxn",
    "WriteTxnMarkers",
    "TxnOffsetCommit",
    "DescribeAcls",
    "CreateAcls",
    "DeleteAcls",
    "DescribeConfigs",
    "AlterConfigs",
    "AlterReplicaLogDirs",
    "DescribeLogDirs",
    "SaslAuthenticate",
    "CreatePartitions",
    "CreateDelegationToken",
    "RenewDelegationToken",
    "ExpireDelegationToken",
    "DescribeDelegationToken",
    "DeleteGroups",
    "ElectLeaders",
    "IncrementalAlterConfigs",
    "AlterPartitionReassignments",
    "ListPartitionReassignments",
    "OffsetDelete",
    "DescribeClientQuotas",
    "AlterClientQuotas",
    "DescribeUserScramCredentials",
    "AlterUserScramCredentials",
    "Vote",
    "BeginQuorumEpoch",
    "EndQuorumEpoch",
    "DescribeQuorum",
    "AlterPartition",
    "UpdateFeatures",
    "Envelope",
    "FetchSnapshot",
    "DescribeCluster",
    "DescribeProducers",
    "BrokerRegistration",
    "BrokerHeartbeat",
    "UnregisterBroker",
    "DescribeTransactions",
    "ListTransactions",
    "AllocateProducerIds",
    "ConsumerGroupHeartbeat",
    "ConsumerGroupDescribe",
    "ControllerRegistration",
    "GetTelemetrySubscriptions",
    "PushTelemetry",
    "AssignReplicasToDirs",
    "ListConfigResources",
    "DescribeTopicPartitions",
    "ShareGroupHeartbeat",
    "ShareGroupDescribe",
    "ShareFetch",
    "ShareAcknowledge",
    "AddRaftVoter",
    "RemoveRaftVoter",
    "UpdateRaftVoter",
    "InitializeShareGroupState",
    "ReadShareGroupState",
    "WriteShareGroupState",
    "DeleteShareGroupState",
    "ReadShareGroupStateSummary",
    "StreamsGroupHeartbeat",
    "StreamsGroupDescribe",
    "DescribeShareGroupOffsets",
    "AlterShareGroupOffsets",
    "DeleteShareGroupOffsets",
    "StreamsGroupTopologyDescriptionUpdate",
];

/// Which broker to ask.
#[derive(Debug, Args)]
pub struct Apis {
    /// Ask this broker instead of printing the own table
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One API with its versions, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The number in request headers.
    pub key: i16,
    /// First version.
    pub version_min: i16,
    /// Last version.
    pub version_max: i16,
}

/// Prints the own table, or asks the broker for its.
pub async fn run(command: Apis, output: &mut Output) -> Result<(), Failure> {
    let Some(bootstrap) = command.bootstrap else {
        let own = APIS.iter().map(|api| Row {
            key: api.key,
            version_min: api.advertised_min,
            version_max: *api.versions.end(),
        });
        return print(&own.collect::<Vec<_>>(), command.format, output);
    };
    let client = Cluster { bootstrap }.connect().await?;
    let request = ApiVersionsRequest {
        client_software_name: env!("CARGO_PKG_NAME").to_owned(),
        client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let response = client.send(Node::Any, request).await?;
    let mut rows: Vec<Row> = response
        .api_keys
        .iter()
        .map(|row| Row {
            key: row.api_key,
            version_min: row.min_version,
            version_max: row.max_version,
        })
        .collect();
    rows.sort_unstable_by_key(|row| row.key);
    print(&rows, command.format, output)
}

/// Prints a table of APIs.
pub fn print(rows: &[Row], format: Format, output: &mut Output) -> Result<(), Failure> {
    if format == Format::Json {
        let rows = rows.iter().map(|row| {
            json!({
                "key": row.key,
                "name": name(row.key),
                "min": row.version_min,
                "max": row.version_max,
            })
        });
        return output.json(&rows.collect());
    }
    let rows: Vec<[String; 3]> = rows
        .iter()
        .map(|row| {
            let versions = match row.version_min == row.version_max {
                true => row.version_min.to_string(),
                false => format!("{}-{}", row.version_min, row.version_max),
            };
            [row.key.to_string(), name(row.key).to_owned(), versions]
        })
        .collect();
    output.table(["KEY", "API", "VERSIONS"], &rows)
}

/// Kafka's name of an API.
fn name(key: i16) -> &'static str {
    let index = usize::try_from(key).unwrap_or(usize::MAX);
    NAMES.get(index).copied().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Message, Request, messages};

    #[test]
    fn names_are_those_of_the_messages() {
        fn check<R: Request>() {
            let expected = <R as Message>::NAME.strip_suffix("Request");
            assert_eq!(Some(name(R::KEY)), expected);
        }
        check::<messages::produce::ProduceRequest>();
        check::<messages::describe_topic_partitions::DescribeTopicPartitionsRequest>();
        check::<messages::describe_producers::DescribeProducersRequest>();
        check::<messages::offset_delete::OffsetDeleteRequest>();
        check::<messages::init_producer_id::InitProducerIdRequest>();
        assert_eq!(name(-1), "?");
        assert_eq!(name(9999), "?");
    }
}
