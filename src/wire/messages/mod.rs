//! One module per Kafka API, each a table of its request and its response.
//!
//! Versions are those of Kafka 4.3.1. What a broker accepts and advertises stands in the `api`
//! layer; here is only how it is written.
//!
//! To add an API: write its table in a new file (the row language is described in `wire::table`;
//! names and defaults are those of Kafka's JSON schema), add the module and a line in
//! `with_every_request`, add golden bytes to `tests/wire.rs`, and run `scripts/check-schemas`,
//! which
//! holds every row against Kafka's own definition. The round trip, truncation and oracle tests find
//! the new line by themselves. To add a version: widen `versions` and add rows.

pub mod alter_configs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_topic_partitions;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;

use super::{Message, Request};

/// Hands the request type of every API, by key, to a macro; for tests, here and elsewhere.
#[macro_export]
macro_rules! with_every_request {
    ($callback:ident) => {
        $callback! {
            $crate::wire::messages::produce::ProduceRequest,
            $crate::wire::messages::fetch::FetchRequest,
            $crate::wire::messages::list_offsets::ListOffsetsRequest,
            $crate::wire::messages::metadata::MetadataRequest,
            $crate::wire::messages::offset_commit::OffsetCommitRequest,
            $crate::wire::messages::offset_fetch::OffsetFetchRequest,
            $crate::wire::messages::find_coordinator::FindCoordinatorRequest,
            $crate::wire::messages::join_group::JoinGroupRequest,
            $crate::wire::messages::heartbeat::HeartbeatRequest,
            $crate::wire::messages::leave_group::LeaveGroupRequest,
            $crate::wire::messages::sync_group::SyncGroupRequest,
            $crate::wire::messages::describe_groups::DescribeGroupsRequest,
            $crate::wire::messages::list_groups::ListGroupsRequest,
            $crate::wire::messages::api_versions::ApiVersionsRequest,
            $crate::wire::messages::create_topics::CreateTopicsRequest,
            $crate::wire::messages::delete_topics::DeleteTopicsRequest,
            $crate::wire::messages::delete_records::DeleteRecordsRequest,
            $crate::wire::messages::init_producer_id::InitProducerIdRequest,
            $crate::wire::messages::offset_for_leader_epoch::OffsetForLeaderEpochRequest,
            $crate::wire::messages::describe_configs::DescribeConfigsRequest,
            $crate::wire::messages::alter_configs::AlterConfigsRequest,
            $crate::wire::messages::describe_log_dirs::DescribeLogDirsRequest,
            $crate::wire::messages::create_partitions::CreatePartitionsRequest,
            $crate::wire::messages::delete_groups::DeleteGroupsRequest,
            $crate::wire::messages::incremental_alter_configs::IncrementalAlterConfigsRequest,
            $crate::wire::messages::offset_delete::OffsetDeleteRequest,
            $crate::wire::messages::describe_cluster::DescribeClusterRequest,
            $crate::wire::messages::describe_producers::DescribeProducersRequest,
            $crate::wire::messages::list_config_resources::ListConfigResourcesRequest,
            $crate::wire::messages::describe_topic_partitions::DescribeTopicPartitionsRequest,
        }
    };
}
#[cfg(test)]
pub(crate) use with_every_request;

/// First flexible version of an API's requests and responses, `i16::MAX` for none; `None` if the
/// key is not one of ours. It decides the form of the headers.
pub fn flexible_from(api_key: i16) -> Option<i16> {
    macro_rules! flexible_from {
        ($($request:path,)*) => {
            match api_key {
                $(<$request as Request>::KEY => Some(<$request as Message>::FLEXIBLE_FROM),)*
                _ => None,
            }
        };
    }
    with_every_request!(flexible_from)
}
