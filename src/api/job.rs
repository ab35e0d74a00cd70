//! What the shard of a connection (the front) asks of the shard that owns a partition, a group or
//! the catalog, and what comes back. A front asks its own shard in the same words, so that one
//! shard and many behave the same.

use crate::base::dir::Extent;
use crate::base::time::Mono;
use crate::base::{ErrorCode, Few, Offset, PartitionKey, ShardId};
use crate::group::Reply;
use crate::wire::messages as m;
use bytes::Bytes;
use std::net::IpAddr;

/// The place in a waiting request where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Return {
    /// The front.
    pub shard: ShardId,
    /// The request on that shard.
    pub call: u64,
    /// The answer's index in the request.
    pub slot: u32,
}

/// Work for the owner of something.
#[derive(Debug)]
pub enum Job {
    /// Append one batch to a partition.
    Append {
        /// The partition.
        partition: PartitionKey,
        /// True for acks=all.
        durable: bool,
        /// One record batch as the client sent it.
        batch: Bytes,
    },
    /// Find records of a partition.
    Read {
        /// The partition.
        partition: PartitionKey,
        /// What the client asks of it.
        request: m::fetch::FetchPartition,
        /// Wake the asking call once more is visible than was found, until then.
        watch_until: Option<Mono>,
    },
    /// Look up an offset by time.
    ListOffset(PartitionKey, m::list_offsets::ListOffsetsPartition),
    /// Move the log start offset.
    DeleteRecords(PartitionKey, m::delete_records::DeleteRecordsPartition),
    /// Find the end of a leader epoch.
    EpochEnd(
        PartitionKey,
        m::offset_for_leader_epoch::OffsetForLeaderPartition,
    ),
    /// List the producers of a partition.
    Producers(PartitionKey),
    /// Sizes of all partitions in service that the asked shard owns.
    LogDirs,
    /// Something for the coordinator of a group.
    Group(Box<GroupJob>),
    /// Something for the catalog.
    Catalog(Box<CatalogJob>),
}

/// The jobs of one request, each with its owner.
pub type Jobs = Few<(ShardId, Job)>;

/// Who asks a coordinator.
#[derive(Clone, Debug)]
pub struct GroupJob {
    /// The partition of `__consumer_offsets` that holds the group.
    pub partition: PartitionKey,
    /// Version of the client's request.
    pub version: i16,
    /// The client's id, may be empty.
    pub client_id: String,
    /// The client's address.
    pub client_host: IpAddr,
    /// What is asked.
    pub request: GroupRequest,
}

/// What is asked of a coordinator.
#[derive(Clone, Debug)]
pub enum GroupRequest {
    /// Become a member.
    Join(m::join_group::JoinGroupRequest),
    /// Give or get the assignment.
    Sync(m::sync_group::SyncGroupRequest),
    /// Stay a member.
    Heartbeat(m::heartbeat::HeartbeatRequest),
    /// End a membership.
    Leave(m::leave_group::LeaveGroupRequest),
    /// Store offsets; topics are resolved and known.
    Commit(m::offset_commit::OffsetCommitRequest),
    /// Read the offsets of one group; topics are resolved.
    Fetch(m::offset_fetch::OffsetFetchRequestGroup),
    /// Forget offsets.
    DeleteOffsets(m::offset_delete::OffsetDeleteRequest),
    /// Describe one group.
    Describe(String),
    /// List the groups of one coordinator partition.
    List(m::list_groups::ListGroupsRequest),
    /// Delete one group.
    Delete(String),
}

impl GroupRequest {
    /// True if the answer may need records.
    pub fn decides(&self) -> bool {
        match self {
            Self::Join(_) | Self::Sync(_) | Self::Leave(_) => true,
            Self::Commit(_) | Self::DeleteOffsets(_) | Self::Delete(_) => true,
            Self::Heartbeat(_) | Self::Fetch(_) | Self::Describe(_) | Self::List(_) => false,
        }
    }
}

/// What is asked of the catalog. Where the version decides what is answered, it comes along.
#[derive(Clone, Debug)]
pub enum CatalogJob {
    /// CreateTopics.
    CreateTopics(m::create_topics::CreateTopicsRequest),
    /// Create topics by their defaults, because somebody asked for them.
    AutoCreate(Vec<String>),
    /// DeleteTopics.
    DeleteTopics(m::delete_topics::DeleteTopicsRequest, i16),
    /// CreatePartitions.
    CreatePartitions(m::create_partitions::CreatePartitionsRequest),
    /// AlterConfigs.
    AlterConfigs(m::alter_configs::AlterConfigsRequest),
    /// IncrementalAlterConfigs.
    IncrementalAlterConfigs(m::incremental_alter_configs::IncrementalAlterConfigsRequest),
    /// A producer id that was never given out.
    ProducerId,
}

/// The result of a [`Job`].
#[derive(Debug)]
pub enum Answer {
    /// To [`Job::Append`]; its index is the asker's to fill.
    Append(m::produce::PartitionProduceResponse),
    /// To [`Job::Read`]: `records` stands for the extent, if there is one.
    Read {
        /// The partition's part of the response.
        response: m::fetch::PartitionData,
        /// Where its records are.
        extent: Option<Extent>,
    },
    /// To [`Job::ListOffset`].
    ListOffset(m::list_offsets::ListOffsetsPartitionResponse),
    /// To [`Job::DeleteRecords`].
    DeleteRecords(m::delete_records::DeleteRecordsPartitionResult),
    /// To [`Job::EpochEnd`].
    EpochEnd(m::offset_for_leader_epoch::EpochEndOffset),
    /// To [`Job::Producers`].
    Producers(m::describe_producers::PartitionResponse),
    /// To [`Job::LogDirs`]: partition and size in bytes.
    LogDirs(Vec<(PartitionKey, u64)>),
    /// To [`Job::Group`].
    Group(Reply),
    /// To [`Job::Group`], if there is no coordinator.
    NoCoordinator(ErrorCode),
    /// To [`Job::Catalog`].
    Catalog(CatalogAnswer),
}

/// The result of a [`CatalogJob`].
#[derive(Debug)]
pub enum CatalogAnswer {
    /// To CreateTopics.
    CreateTopics(m::create_topics::CreateTopicsResponse),
    /// To automatic creation: the image tells what is there.
    AutoCreate,
    /// To DeleteTopics.
    DeleteTopics(m::delete_topics::DeleteTopicsResponse),
    /// To CreatePartitions.
    CreatePartitions(m::create_partitions::CreatePartitionsResponse),
    /// To AlterConfigs.
    AlterConfigs(m::alter_configs::AlterConfigsResponse),
    /// To IncrementalAlterConfigs.
    IncrementalAlterConfigs(m::incremental_alter_configs::IncrementalAlterConfigsResponse),
    /// The new id.
    ProducerId(i64),
    /// The catalog's log cannot be written.
    Failed,
}

impl Answer {
    /// What to say instead if the log that this answer depends on has failed.
    pub fn into_failed(self, why: Option<&str>) -> Self {
        match self {
            Self::Append(_) => {
                let why = why.map(str::to_owned);
                Self::Append(super::produce::refused(ErrorCode::KafkaStorageError, why))
            }
            Self::Group(reply) => Self::Group(reply.failed(ErrorCode::CoordinatorNotAvailable)),
            Self::Catalog(_) => Self::Catalog(CatalogAnswer::Failed),
            other => other,
        }
    }
}

/// What must have happened before an answer may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Now,
    /// The partition's log is written up to this offset (exclusive).
    Written(PartitionKey, Offset),
    /// The partition's log is on stable storage up to this offset (exclusive).
    Acknowledged(PartitionKey, Offset),
    /// Every shard works with this version of the catalog.
    Published(u64),
}
