//! Commit, fetch, delete.

use super::*;
use crate::wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use crate::wire::records::consumer_protocol::ConsumerProtocolSubscription;
use crate::wire::records::encode_value;

#[test]
fn commits_by_state() {
    let mut f = Fixture::new();
    let (member_id, _) = f.enter();
    assert_eq!(f.commit(&member_id, 0), ErrorCode::None, "in a round");
    f.sleep(0);
    let in_progress = ErrorCode::RebalanceInProgress;
    assert_eq!(
        f.commit(&member_id, 1),
        in_progress,
        "before the assignment"
    );
    f.synced_now(&member_id, 1, &[]);
    assert_eq!(f.commit(&member_id, 1), ErrorCode::None);
    assert_eq!(f.commit(&member_id, 0), ErrorCode::IllegalGeneration);
    assert_eq!(f.commit(&member_id, -1), ErrorCode::IllegalGeneration);
    assert_eq!(f.commit("x", 1), ErrorCode::UnknownMemberId);
    assert_eq!(
        f.commit("", -1),
        ErrorCode::UnknownMemberId,
        "not while it lives"
    );
    let mut request = commit(&member_id, 1);
    request.group_instance_id = Some("x".into());
    assert_eq!(f.commit_all(request), [ErrorCode::UnknownMemberId]);
    f.leave(&[(&member_id, None)]);
    assert_eq!(f.commit(&member_id, 1), ErrorCode::UnknownMemberId);
    assert_eq!(f.commit("", -1), ErrorCode::None);
    assert_eq!(f.offset(0), 7);
}

#[test]
fn a_commit_without_generation_makes_a_simple_group() {
    let mut f = Fixture::new();
    assert_eq!(f.commit("", 0), ErrorCode::GroupIdNotFound);
    f.version = 8;
    assert_eq!(f.commit("", 0), ErrorCode::IllegalGeneration);
    assert_eq!(f.state(), State::Dead);
    assert_eq!(f.commit("", -1), ErrorCode::None);
    assert_eq!(f.state(), State::Empty);
    f.reload();
    assert_eq!(f.offset(0), 7);
    assert_eq!(f.offset(1), -1);
}

#[test]
fn metadata_that_is_too_long_fails_its_partition_alone() {
    let mut f = Fixture::new();
    let mut request = commit("", -1);
    let mut long = request.topics[0].partitions[0].clone();
    long.partition_index = 1;
    long.committed_metadata = Some("x".repeat(4_097));
    let mut most = long.clone();
    most.partition_index = 2;
    most.committed_metadata = Some("é".repeat(4_096));
    request.topics[0].partitions.extend([long, most]);
    let errors = f.commit_all(request);
    let too_large = ErrorCode::OffsetMetadataTooLarge;
    assert_eq!(errors, [ErrorCode::None, too_large, ErrorCode::None]);
    assert_eq!([f.offset(0), f.offset(1), f.offset(2)], [7, -1, 7]);
}

#[test]
fn a_fetch_gives_back_all_that_was_committed() {
    let mut f = Fixture::new();
    f.commit("", -1);
    let response = f.fetch(OffsetFetchRequestGroup {
        group_id: GROUP.into(),
        topics: None,
        ..Default::default()
    });
    assert_eq!(response.group_id, GROUP);
    let topic = &response.topics[0];
    assert_eq!((topic.name.as_str(), topic.topic_id), ("t", TopicId::ZERO));
    let partition = &topic.partitions[0];
    assert_eq!(partition.committed_offset, 7);
    assert_eq!(partition.committed_leader_epoch, 3);
    assert_eq!(partition.metadata.as_deref(), Some("note"));
    let unknown = f.fetch(OffsetFetchRequestGroup {
        group_id: "other".into(),
        topics: None,
        ..Default::default()
    });
    assert_eq!(
        (unknown.topics, unknown.error_code),
        (vec![], ErrorCode::None)
    );
}

#[test]
fn a_topic_made_anew_does_not_inherit_offsets() {
    let mut f = Fixture::new();
    f.commit("", -1);
    for (id, expected) in [(0, 7), (0x77, 7), (0x78, -1)] {
        let topic = OffsetFetchRequestTopics {
            name: "t".into(),
            topic_id: TopicId(uuid::Uuid::from_u128(id)),
            partition_indexes: vec![0],
        };
        let response = f.fetch(OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            topics: Some(vec![topic]),
            ..Default::default()
        });
        let topic = &response.topics[0];
        assert_eq!(topic.topic_id, TopicId(uuid::Uuid::from_u128(id)));
        assert_eq!(topic.partitions[0].committed_offset, expected);
        assert!(topic.partitions[0].metadata.is_some());
    }
}

#[test]
fn a_commit_that_cannot_be_stored_is_as_if_it_had_not_been() {
    let mut f = Fixture::new();
    f.commit("", -1);
    let mut request = commit("", -1);
    request.topics[0].partitions[0].committed_offset = 8;
    f.fail_append();
    assert_eq!(f.commit_all(request), [ErrorCode::NotCoordinator]);
    assert_eq!(f.offset(0), 7);
}

#[test]
fn deleted_topics_take_their_offsets_along() {
    let mut f = Fixture::new();
    f.commit("", -1);
    let other = TopicId(uuid::Uuid::from_u128(0x78));
    f.step(|coordinator, _, out| {
        coordinator.on_topics_deleted(&[("t".into(), other), ("u".into(), topic_id())], out);
    });
    assert_eq!(f.offset(0), 7);
    f.step(|coordinator, _, out| coordinator.on_topics_deleted(&[("t".into(), topic_id())], out));
    assert_eq!(f.offset(0), -1);
    assert_eq!(f.state(), State::Empty, "the group stays");
}

/// A power cut may have taken the tombstones.
#[test]
fn offsets_that_outlived_their_topic_are_forgotten_with_the_next_start() {
    let mut f = Fixture::new();
    f.commit("", -1);
    let mut old = commit("", -1);
    old.topics[0].topic_id = TopicId::ZERO;
    old.topics[0].partitions[0].partition_index = 1;
    f.commit_all(old);
    f.coordinator.forget_unknown_topics(|id| id == topic_id());
    assert_eq!((f.offset(0), f.offset(1)), (7, 7));
    f.coordinator.forget_unknown_topics(|_| false);
    f.coordinator.check();
    // The replica has seen the log only.
    f.replica.forget_unknown_topics(|_| false);
    assert_eq!((f.offset(0), f.offset(1)), (-1, 7), "it had no id then");
}

#[test]
fn there_is_nothing_to_delete_where_there_is_neither_a_topic_nor_an_offset() {
    let mut f = Fixture::new();
    let mut request = commit("", -1);
    request.topics[0].name = "gone".into();
    f.commit_all(request);
    let unknown = Some(ErrorCode::UnknownTopicOrPartition);
    for expected in [Some(ErrorCode::None), unknown] {
        assert_eq!(delete(&mut f, GROUP, "gone"), (ErrorCode::None, expected));
    }
    assert_eq!(
        delete(&mut f, GROUP, "t"),
        (ErrorCode::None, Some(ErrorCode::None)),
        "as in Kafka"
    );
}

fn delete(f: &mut Fixture, group_id: &str, topic: &str) -> (ErrorCode, Option<ErrorCode>) {
    let request = OffsetDeleteRequest {
        group_id: group_id.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    let exists = |topic: &str, _| topic != "gone";
    let token = f.call(|coordinator, _, caller, out| {
        coordinator.offset_delete(caller, request, exists, out);
    });
    let Reply::OffsetDelete(response) = f.reply(token) else {
        panic!()
    };
    let partition = response
        .topics
        .first()
        .map(|topic| topic.partitions[0].error_code);
    (response.error_code, partition)
}

/// A join whose metadata is that of a consumer of topic `u`.
fn join_consumer(version: i16) -> JoinGroupRequest {
    let subscription = ConsumerProtocolSubscription {
        topics: vec!["u".into()],
        ..Default::default()
    };
    let mut request = join("");
    let mut metadata = encode_value(&subscription, version.min(3)).to_vec();
    metadata[1] = version as u8;
    request.protocols[0].metadata = metadata.into();
    request
}

#[test]
fn offsets_of_topics_that_are_not_read_can_be_deleted() {
    for subscription_version in [0, 3, 9] {
        let mut f = Fixture::new();
        f.version = 3;
        let token = f.join(join_consumer(subscription_version));
        f.sleep(0);
        let member_id = f.joined(token).member_id;
        f.synced_now(&member_id, 1, &[]);
        f.commit(&member_id, 1);
        let subscribed = Some(ErrorCode::GroupSubscribedToTopic);
        assert_eq!(delete(&mut f, GROUP, "u"), (ErrorCode::None, subscribed));
        assert_eq!(
            delete(&mut f, GROUP, "t"),
            (ErrorCode::None, Some(ErrorCode::None))
        );
        assert_eq!(f.offset(0), -1);
    }
}

#[test]
fn a_consumer_we_cannot_read_may_read_everything() {
    let mut f = Fixture::new();
    let members = f.stable(1);
    f.commit(&members[0], 1);
    let subscribed = Some(ErrorCode::GroupSubscribedToTopic);
    assert_eq!(delete(&mut f, GROUP, "t"), (ErrorCode::None, subscribed));
    f.leave(&[(&members[0], None)]);
    assert_eq!(
        delete(&mut f, GROUP, "t"),
        (ErrorCode::None, Some(ErrorCode::None))
    );
}

#[test]
fn offsets_of_other_groups_can_be_deleted_while_they_are_empty() {
    let mut f = Fixture::new();
    assert_eq!(delete(&mut f, "", "t").0, ErrorCode::InvalidGroupId);
    assert_eq!(delete(&mut f, GROUP, "t").0, ErrorCode::GroupIdNotFound);
    let mut request = join("");
    request.protocol_type = "connect".into();
    f.version = 3;
    f.join(request);
    assert_eq!(delete(&mut f, GROUP, "t").0, ErrorCode::NonEmptyGroup);
}
