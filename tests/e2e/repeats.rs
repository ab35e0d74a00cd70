//! What is named more than once in a request: an answer can be thousands of times larger than its
//! question, so each thing asked about is answered, or looked at, once.

use crate::broker::Broker;
use forebay::base::ErrorCode;
use forebay::wire::messages::describe_groups::DescribeGroupsRequest;
use forebay::wire::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use forebay::wire::messages::find_coordinator::FindCoordinatorRequest;
use forebay::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use forebay::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use forebay::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};

#[test]
fn topics_and_groups_named_again_are_answered_once() {
    let broker = Broker::start(2, "auto");
    let mut raw = broker.connect();
    raw.create_topic("t", 1);
    let named = |name: &str| MetadataRequestTopic {
        name: Some(name.to_owned()),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(["t", "missing", "t", "missing"].map(named).into()),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let topics = raw.ask(12, &request).topics;
    let names: Vec<_> = topics.iter().map(|t| t.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["t", "missing"]);

    let coordinator = FindCoordinatorRequest {
        key: "g".to_owned(),
        ..FindCoordinatorRequest::default()
    };
    assert_eq!(raw.ask(3, &coordinator).error_code, ErrorCode::None);
    let request = DescribeGroupsRequest {
        groups: ["g", "h", "g"].map(str::to_owned).into(),
        ..DescribeGroupsRequest::default()
    };
    let groups = raw.ask(5, &request).groups;
    let names: Vec<_> = groups.iter().map(|g| g.group_id.as_str()).collect();
    assert_eq!(names, ["g", "h"]);

    let group = |group_id: &str| OffsetFetchRequestGroup {
        group_id: group_id.to_owned(),
        topics: Some(vec![OffsetFetchRequestTopics {
            name: "t".to_owned(),
            partition_indexes: vec![0, 0, 0],
            ..OffsetFetchRequestTopics::default()
        }]),
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest {
        groups: ["g", "h", "g"].map(group).into(),
        ..OffsetFetchRequest::default()
    };
    let groups = raw.ask(8, &request).groups;
    let partitions = groups.iter().map(|g| g.topics[0].partitions.len());
    assert_eq!(partitions.collect::<Vec<_>>(), [1, 1]);
}

/// Each look at a partition may cost much.
#[test]
fn a_partition_named_again_is_not_looked_at_again() {
    let broker = Broker::start(2, "auto");
    let mut raw = broker.connect();
    raw.create_topic("t", 2);
    let partition = |partition_index| ListOffsetsPartition {
        partition_index,
        timestamp: -1,
        ..ListOffsetsPartition::default()
    };
    let topic = |partitions: &[i32]| ListOffsetsTopic {
        name: "t".to_owned(),
        partitions: partitions.iter().copied().map(partition).collect(),
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic(&[0, 0, 1]), topic(&[1])],
        ..ListOffsetsRequest::default()
    };
    let topics = raw.ask(5, &request).topics;
    let found = topics.iter().flat_map(|topic| &topic.partitions);
    let found: Vec<_> = found
        .map(|found| (found.error_code, found.offset))
        .collect();
    let (first, again) = ((ErrorCode::None, 0), (ErrorCode::InvalidRequest, -1));
    assert_eq!(found, [first, again, first, again]);

    let topic = |partitions: &[i32]| TopicRequest {
        name: "t".to_owned(),
        partition_indexes: partitions.to_owned(),
    };
    let request = DescribeProducersRequest {
        topics: vec![topic(&[0, 0, 1]), topic(&[1])],
    };
    let topics = raw.ask(0, &request).topics;
    let found = topics.iter().flat_map(|topic| &topic.partitions);
    let found: Vec<_> = found.map(|found| found.error_code).collect();
    assert_eq!(found, [first.0, again.0, first.0, again.0]);
}
