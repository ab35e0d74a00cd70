//! Kafka's APIs, one file each: what a request means for the machines of [`ShardState`]. No
//! sockets, no threads; files only through the seam of a partition's directory.
//!
//! A request begins on the shard of its connection, the *front* ([`begin`]). What it needs from a
//! partition, a group or the catalog goes to the owner as a [`Job`]; each file says in `begin`
//! which
//! jobs it needs, and in its [`Flow`] how the answers become the reply. The owner's half is
//! [`perform`].
//!
//! **How to add an API:** a message file in `wire`, a file here with `begin` (and a flow if it
//! needs others), one row in [`APIS`], a test. `forebay apis` and ApiVersions print the table.

pub mod controller;
pub mod groups;
pub mod job;

pub mod api_versions;
pub mod configs;
pub mod delete_records;
pub mod describe_cluster;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_topic_partitions;
pub mod fetch;
pub mod find_coordinator;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod offsets;
pub mod produce;
pub mod topics;

use crate::base::ShardId;
use crate::base::dir::Extent;
use crate::base::time::Mono;
use crate::state::ShardState;
use crate::wire::frame::{self, RequestHeader};
use crate::wire::{Malformed, Message, Reader, Request, Writer};
use bytes::Bytes;
use job::{Answer, Job, Jobs, Return};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// One API that this broker serves.
pub struct Api {
    /// Number on the wire.
    pub key: i16,
    /// Kafka's name.
    pub name: &'static str,
    /// Versions that work.
    pub versions: RangeInclusive<i16>,
    /// Lowest version that ApiVersions claims; differs for Produce only, see its file.
    pub advertised_min: i16,
    /// First version with tagged fields and header version 2.
    pub flexible_from: i16,
    begin: fn(&mut ShardState, &Facts, Reader) -> Result<Begun, Malformed>,
}

/// One row: key, versions and the first flexible version come from the request's own table.
macro_rules! api {
    ($name:literal, $request:path, $begin:path) => {
        api!(
            $name,
            $request,
            $begin,
            *<$request as Message>::VERSIONS.start()
        )
    };
    ($name:literal, $request:path, $begin:path, $advertised_min:expr) => {
        Api {
            key: <$request as Request>::KEY,
            name: $name,
            versions: <$request as Message>::VERSIONS,
            advertised_min: $advertised_min,
            flexible_from: <$request as Message>::FLEXIBLE_FROM,
            begin: |state, facts, mut body| {
                let request = <$request as Message>::decode(&mut body, facts.version)?;
                Ok($begin(state, facts, request))
            },
        }
    };
}

use crate::wire::messages as m;

/// Every API, in the order of the keys.
#[rustfmt::skip]
pub const APIS: &[Api] = &[
    api!("Produce", m::produce::ProduceRequest, produce::begin, produce::ADVERTISED_MIN),
    api!("Fetch", m::fetch::FetchRequest, fetch::begin),
    api!("ListOffsets", m::list_offsets::ListOffsetsRequest, list_offsets::begin),
    api!("Metadata", m::metadata::MetadataRequest, metadata::begin),
    api!("OffsetCommit", m::offset_commit::OffsetCommitRequest, offsets::begin_commit),
    api!("OffsetFetch", m::offset_fetch::OffsetFetchRequest, offsets::begin_fetch),
    api!("FindCoordinator", m::find_coordinator::FindCoordinatorRequest, find_coordinator::begin),
    api!("JoinGroup", m::join_group::JoinGroupRequest, groups::begin_join),
    api!("Heartbeat", m::heartbeat::HeartbeatRequest, groups::begin_heartbeat),
    api!("LeaveGroup", m::leave_group::LeaveGroupRequest, groups::begin_leave),
    api!("SyncGroup", m::sync_group::SyncGroupRequest, groups::begin_sync),
    api!("DescribeGroups", m::describe_groups::DescribeGroupsRequest, groups::begin_describe),
    api!("ListGroups", m::list_groups::ListGroupsRequest, groups::begin_list),
    api!("ApiVersions", m::api_versions::ApiVersionsRequest, api_versions::begin),
    api!("CreateTopics", m::create_topics::CreateTopicsRequest, topics::begin_create),
    api!("DeleteTopics", m::delete_topics::DeleteTopicsRequest, topics::begin_delete),
    api!("DeleteRecords", m::delete_records::DeleteRecordsRequest, delete_records::begin),
    api!("InitProducerId", m::init_producer_id::InitProducerIdRequest, init_producer_id::begin),
    api!("OffsetForLeaderEpoch", m::offset_for_leader_epoch::OffsetForLeaderEpochRequest, offset_for_leader_epoch::begin),
    api!("DescribeConfigs", m::describe_configs::DescribeConfigsRequest, configs::begin_describe),
    api!("AlterConfigs", m::alter_configs::AlterConfigsRequest, configs::begin_alter),
    api!("DescribeLogDirs", m::describe_log_dirs::DescribeLogDirsRequest, describe_log_dirs::begin),
    api!("CreatePartitions", m::create_partitions::CreatePartitionsRequest, topics::begin_create_partitions),
    api!("DeleteGroups", m::delete_groups::DeleteGroupsRequest, groups::begin_delete),
    api!("IncrementalAlterConfigs", m::incremental_alter_configs::IncrementalAlterConfigsRequest, configs::begin_incremental_alter),
    api!("OffsetDelete", m::offset_delete::OffsetDeleteRequest, groups::begin_offset_delete),
    api!("DescribeCluster", m::describe_cluster::DescribeClusterRequest, describe_cluster::begin),
    api!("DescribeProducers", m::describe_producers::DescribeProducersRequest, describe_producers::begin),
    api!("ListConfigResources", m::list_config_resources::ListConfigResourcesRequest, configs::begin_list_resources),
    api!("DescribeTopicPartitions", m::describe_topic_partitions::DescribeTopicPartitionsRequest, describe_topic_partitions::begin),
];

/// What every part of a request's way knows about it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Number of the API.
    pub key: i16,
    /// Version of the request, and of its reply.
    pub version: i16,
    /// The client's number for it.
    pub correlation_id: i32,
    /// The client's name for itself, may be empty.
    pub client_id: bytestring::ByteString,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that the client dialled.
    pub local: SocketAddr,
    /// The shard of its connection.
    pub shard: ShardId,
    /// The request's number on this shard.
    pub call: u64,
}

impl Facts {
    /// Encodes a response for the client.
    pub fn reply(&self, response: &impl Message) -> Begun {
        self.reply_with(response, Vec::new())
    }

    /// The same with records in its gaps. A response that no frame can hold closes the connection:
    /// the client asked for it.
    pub fn reply_with(&self, response: &impl Message, extents: Vec<Extent>) -> Begun {
        match frame::encode_response(self.correlation_id, self.key, self.version, response) {
            Ok(head) => Begun::Reply(Reply { head, extents }),
            Err(frame::TooLarge) => Begun::Close("its answer would be larger than 2 GiB"),
        }
    }
}

/// An encoded response.
#[derive(Debug)]
pub struct Reply {
    /// Everything but the records; its gaps name the extents that go between, by index.
    pub head: Writer,
    /// Records that go from the page cache to the socket.
    pub extents: Vec<Extent>,
}

/// How far a request has come.
#[derive(Debug)]
pub enum Begun {
    /// It is answered.
    Reply(Reply),
    /// It is done and has no answer (acks=0).
    Silent,
    /// Its connection must close, for this reason.
    Close(&'static str),
    /// It waits for the answers to these jobs.
    Gather(Jobs, Flow),
    /// It waits for a wake-up, or until a time.
    Park(Mono, Flow),
}

/// A request that waits: it collects answers and then goes on.
#[derive(Debug)]
pub enum Flow {
    /// See [`produce`].
    Produce(produce::Gathering),
    /// See [`fetch`].
    Fetch(fetch::Gathering),
    /// See [`list_offsets`].
    ListOffsets(list_offsets::Gathering),
    /// See [`delete_records`].
    DeleteRecords(delete_records::Gathering),
    /// See [`offset_for_leader_epoch`].
    EpochEnd(offset_for_leader_epoch::Gathering),
    /// See [`describe_producers`].
    Producers(describe_producers::Gathering),
    /// See [`describe_log_dirs`].
    LogDirs(describe_log_dirs::Gathering),
    /// See [`metadata`].
    Metadata(metadata::Creating),
    /// See [`find_coordinator`].
    FindCoordinator(find_coordinator::Creating),
    /// See [`groups`].
    Groups(groups::Gathering),
    /// See [`offsets`].
    Commit(offsets::Committing),
    /// See [`offsets`].
    OffsetFetch(offsets::Fetching),
    /// The catalog's answer is the response.
    Catalog(Option<job::CatalogAnswer>),
}

impl Flow {
    /// Takes the answer of the job at `slot`.
    pub fn put(&mut self, slot: usize, answer: Answer) {
        match self {
            Flow::Produce(flow) => flow.put(slot, answer),
            Flow::Fetch(flow) => flow.put(slot, answer),
            Flow::ListOffsets(flow) => flow.put(slot, answer),
            Flow::DeleteRecords(flow) => flow.put(slot, answer),
            Flow::EpochEnd(flow) => flow.put(slot, answer),
            Flow::Producers(flow) => flow.put(slot, answer),
            Flow::LogDirs(flow) => flow.put(answer),
            Flow::Metadata(_) | Flow::FindCoordinator(_) => {}
            Flow::Groups(flow) => flow.put(slot, answer),
            Flow::Commit(flow) => flow.put(answer),
            Flow::OffsetFetch(flow) => flow.put(slot, answer),
            Flow::Catalog(place) => match answer {
                Answer::Catalog(answer) => *place = Some(answer),
                other => unexpected(&other),
            },
        }
    }

    /// Goes on once all answers are there, or after a park.
    pub fn resume(self, state: &mut ShardState, facts: &Facts) -> Begun {
        match self {
            Flow::Produce(flow) => flow.resume(facts),
            Flow::Fetch(flow) => flow.resume(state, facts),
            Flow::ListOffsets(flow) => facts.reply(&flow.response),
            Flow::DeleteRecords(flow) => facts.reply(&flow.response),
            Flow::EpochEnd(flow) => facts.reply(&flow.response),
            Flow::Producers(flow) => facts.reply(&flow.response),
            Flow::LogDirs(flow) => flow.resume(state, facts),
            Flow::Metadata(flow) => flow.resume(state, facts),
            Flow::FindCoordinator(flow) => flow.resume(state, facts),
            Flow::Groups(flow) => flow.resume(facts),
            Flow::Commit(flow) => flow.resume(facts),
            Flow::OffsetFetch(flow) => flow.resume(state, facts),
            Flow::Catalog(answer) => topics::resume(answer, facts),
        }
    }

    /// Tells a long poll that there may be more.
    pub fn on_wake(&mut self) {
        if let Flow::Fetch(flow) = self {
            flow.on_wake();
        }
    }
}

/// Answers are routed by call and slot, so one of the wrong kind is a bug here, never a peer's.
fn unexpected(answer: &Answer) -> ! {
    unreachable!("an answer of the wrong kind: {answer:?}")
}

/// The row of an API.
pub fn api(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key)
        .ok()
        .map(|index| &APIS[index])
}

/// A request's header and the rest of its frame.
pub fn decode_header(frame: Bytes) -> Result<(RequestHeader, Reader), Malformed> {
    let mut reader = Reader::of_request(frame);
    let header = RequestHeader::decode(&mut reader)?;
    Ok((header, reader))
}

/// True for requests that may be under way together on one connection: those that append.
pub fn may_overlap(frame: &[u8]) -> bool {
    let key = <m::produce::ProduceRequest as Request>::KEY;
    frame
        .first_chunk::<2>()
        .is_some_and(|bytes| i16::from_be_bytes(*bytes) == key)
}

/// Starts a request. An error closes the connection, as it does in Kafka.
pub fn begin(state: &mut ShardState, facts: &Facts, body: Reader) -> Result<Begun, Malformed> {
    let api = api(facts.key).ok_or(Malformed("an API that is not served"))?;
    if api.versions.contains(&facts.version) {
        return (api.begin)(state, facts, body);
    }
    match facts.key {
        <m::api_versions::ApiVersionsRequest as Request>::KEY => Ok(api_versions::refuse(facts)),
        _ => Err(Malformed("a version that is not served")),
    }
}

/// Drops what repeats an earlier item of a request: an answer can be thousands of times larger than
/// its question, so there is one for each thing asked about.
fn distinct<T, K: Ord>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    if items.len() > 1 {
        let mut seen = BTreeSet::new();
        items.retain(|item| seen.insert(key(item)));
    }
}

/// Does a job on its owner; the answer goes to the outbox, now or later.
pub fn perform(state: &mut ShardState, to: Return, job: Job) {
    match job {
        Job::Append {
            partition,
            durable,
            batch,
        } => {
            produce::perform(state, to, partition, durable, batch);
        }
        Job::Read {
            partition,
            request,
            watch_until,
        } => {
            fetch::perform(state, to, partition, &request, watch_until);
        }
        Job::ListOffset(key, request) => list_offsets::perform(state, to, key, &request),
        Job::DeleteRecords(key, request) => delete_records::perform(state, to, key, &request),
        Job::EpochEnd(key, request) => offset_for_leader_epoch::perform(state, to, key, &request),
        Job::Producers(key) => describe_producers::perform(state, to, key),
        Job::LogDirs => describe_log_dirs::perform(state, to),
        Job::Group(job) => groups::perform(state, to, *job),
        Job::Catalog(job) => controller::perform(state, to, *job),
    }
}
