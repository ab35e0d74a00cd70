//! Creating, growing and deleting topics.

use super::*;
use crate::base::{ErrorCode, TopicId};
use crate::wire::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use crate::wire::messages::create_topics::CreatableReplicaAssignment;
use crate::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};

/// Partition indexes with their brokers.
type Assignments<'a> = &'a [(i32, &'a [i32])];

/// Code and sentence of the only topic asked for.
fn refused(catalog: &mut Catalog, topic: CreatableTopic) -> (ErrorCode, String) {
    let before = catalog.image();
    let result = create(catalog, vec![topic]).remove(0);
    assert_eq!(catalog.image(), before, "a refused topic changes nothing");
    assert_eq!((result.num_partitions, result.replication_factor), (-1, -1));
    assert_eq!(
        (result.topic_id, result.configs),
        (TopicId::ZERO, Some(Vec::new()))
    );
    (result.error_code, result.error_message.unwrap_or_default())
}

fn assigned(assignments: Assignments<'_>) -> CreatableTopic {
    let assignments = assignments
        .iter()
        .map(|(index, brokers)| CreatableReplicaAssignment {
            partition_index: *index,
            broker_ids: brokers.to_vec(),
        });
    CreatableTopic {
        assignments: assignments.collect(),
        ..named("a", -1)
    }
}

#[test]
fn a_created_topic_is_answered_with_all_about_it() {
    let mut catalog = catalog();
    let mut wanted = named("orders", 3);
    wanted.configs = vec![config("retention.ms", Some(" 1000 "))];
    let result = create(&mut catalog, vec![wanted]).remove(0);
    assert_eq!(
        (result.error_code, result.error_message),
        (ErrorCode::None, None)
    );
    assert_eq!((result.num_partitions, result.replication_factor), (3, 1));
    let configs = result.configs.unwrap();
    let found = configs
        .iter()
        .find(|config| config.name == "retention.ms")
        .unwrap();
    assert_eq!(
        (found.value.as_deref(), found.config_source),
        (Some("1000"), 1)
    );
    let default = configs
        .iter()
        .find(|config| config.name == "segment.ms")
        .unwrap();
    assert_eq!(
        (default.value.as_deref(), default.config_source),
        (Some("604800000"), 5)
    );
    assert!(
        configs
            .iter()
            .all(|config| !config.read_only && !config.is_sensitive)
    );

    let image = catalog.image();
    let topic = image.topic("orders").unwrap();
    assert_eq!(
        (topic.id, topic.partitions, topic.internal),
        (result.topic_id, 3, false)
    );
    assert_eq!(
        topic.config,
        [("retention.ms".to_owned(), "1000".to_owned())].into()
    );
    assert_eq!(image.topic_by_id(topic.id), Some(topic));
    assert_ne!(topic.id, TopicId::ZERO);
}

#[test]
fn defaults_of_the_broker_apply() {
    let mut catalog = catalog();
    create(&mut catalog, vec![named("t", -1)]);
    assert_eq!(catalog.image().topic("t").unwrap().partitions, 4);
}

#[test]
fn validate_only_checks_and_creates_nothing() {
    let mut catalog = catalog();
    let request = CreateTopicsRequest {
        topics: vec![named("good", 1), named("a b", 1)],
        validate_only: true,
        ..Default::default()
    };
    let (records, response) = catalog.create_topics(&request);
    assert!(records.is_empty());
    let codes: Vec<_> = response
        .topics
        .iter()
        .map(|topic| topic.error_code)
        .collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::InvalidTopic]);
}

#[test]
fn bad_names_are_refused() {
    let mut catalog = catalog();
    let cases = [
        ("", "the empty string is not allowed"),
        (".", "'.' is not allowed"),
        ("..", "'..' is not allowed"),
        (
            "a b",
            "'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and \
             '-'",
        ),
    ];
    for (name, why) in cases {
        let sentence = format!("Topic name is invalid: {why}");
        let refusal = refused(&mut catalog, named(name, 1));
        assert_eq!(refusal, (ErrorCode::InvalidTopic, sentence));
    }
    let (code, _) = refused(&mut catalog, named(&"x".repeat(250), 1));
    assert_eq!(code, ErrorCode::InvalidTopic);
    let longest = create(&mut catalog, vec![named(&"x".repeat(249), 1)]).remove(0);
    assert_eq!(longest.error_code, ErrorCode::None);
    let (code, sentence) = refused(&mut catalog, named("__cluster_metadata", 1));
    assert_eq!(code, ErrorCode::InvalidRequest);
    assert_eq!(
        sentence,
        "Creation of internal topic __cluster_metadata is prohibited."
    );
}

#[test]
fn taken_names_are_refused() {
    let mut catalog = catalog();
    create(&mut catalog, vec![named("a-b.c", 2)]);
    assert_eq!(
        refused(&mut catalog, named("a-b.c", 2)),
        (
            ErrorCode::TopicAlreadyExists,
            "Topic 'a-b.c' already exists.".to_owned()
        )
    );
    assert_eq!(
        refused(&mut catalog, named("a-b_c", 2)),
        (
            ErrorCode::InvalidTopic,
            "Topic 'a-b_c' collides with existing topic: a-b.c".to_owned()
        )
    );
    let results = create(
        &mut catalog,
        vec![named("d", 1), named("e", 1), named("d", 2)],
    );
    let seen: Vec<_> = results
        .iter()
        .map(|topic| (topic.name.as_str(), topic.error_code))
        .collect();
    assert_eq!(
        seen,
        [("d", ErrorCode::InvalidRequest), ("e", ErrorCode::None)]
    );
    assert_eq!(
        results[0].error_message.as_deref(),
        Some("Duplicate topic name.")
    );
}

#[test]
fn bad_counts_are_refused() {
    let mut catalog = catalog();
    let mut factor = |factor| {
        let topic = CreatableTopic {
            replication_factor: factor,
            ..named("t", 1)
        };
        refused(&mut catalog, topic)
    };
    let (code, sentence) = factor(2);
    assert_eq!(code, ErrorCode::InvalidReplicationFactor);
    assert!(sentence.starts_with(
        "Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot \
         be reached because only 1 broker(s) are registered"
    ));
    for wrong in [0, -2] {
        let sentence = "Replication factor must be larger than 0, or -1 to use the default value.";
        assert_eq!(
            factor(wrong),
            (ErrorCode::InvalidReplicationFactor, sentence.to_owned())
        );
    }
    for wrong in [0, -2, i32::MIN] {
        let sentence = "Number of partitions was set to an invalid non-positive value.";
        let refusal = refused(&mut catalog, named("t", wrong));
        assert_eq!(refusal, (ErrorCode::InvalidPartitions, sentence.to_owned()));
    }
}

#[test]
fn a_request_cannot_ask_for_too_many_partitions() {
    let mut catalog = catalog();
    let sentence = "Excessively large number of partitions per request.";
    let refusal = refused(&mut catalog, named("t", i32::MAX));
    assert_eq!(refusal, (ErrorCode::PolicyViolation, sentence.to_owned()));
    let both = create(&mut catalog, vec![named("a", 9000), named("b", 9000)]);
    assert!(
        both.iter()
            .all(|topic| topic.error_code == ErrorCode::PolicyViolation)
    );
    let most = create(&mut catalog, vec![named("a", 10_000)]).remove(0);
    assert_eq!(most.error_code, ErrorCode::None);
}

#[test]
fn assignments_must_name_this_node_once_per_partition() {
    let mut catalog = catalog();
    let cases: [(Assignments<'_>, &str); 6] = [
        (
            &[(1, &[1])],
            "partitions should be a consecutive 0-based integer sequence",
        ),
        (
            &[(0, &[2])],
            "The manual partition assignment includes broker 2, but no such broker is registered.",
        ),
        (
            &[(0, &[1, 1])],
            "The manual partition assignment includes the broker 1 more than once.",
        ),
        (
            &[(0, &[])],
            "The manual partition assignment includes an empty replica list.",
        ),
        (
            &[(0, &[1, 2]), (1, &[1])],
            "The manual partition assignment includes broker 2, but no such broker is registered.",
        ),
        (
            &[(0, &[1]), (0, &[1])],
            "Found multiple manual partition assignments for partition 0",
        ),
    ];
    for (assignments, sentence) in cases {
        let refusal = refused(&mut catalog, assigned(assignments));
        assert_eq!(
            refusal,
            (ErrorCode::InvalidReplicaAssignment, sentence.to_owned())
        );
    }
    let good: Assignments<'_> = &[(1, &[1]), (0, &[1])];
    let counted = CreatableTopic {
        num_partitions: 2,
        ..assigned(good)
    };
    let sentence =
        "A manual partition assignment was specified, but numPartitions was not set to -1.";
    assert_eq!(
        refused(&mut catalog, counted),
        (ErrorCode::InvalidRequest, sentence.to_owned())
    );
    let replicated = CreatableTopic {
        replication_factor: 1,
        ..assigned(good)
    };
    let sentence =
        "A manual partition assignment was specified, but replication factor was not set to -1.";
    assert_eq!(
        refused(&mut catalog, replicated),
        (ErrorCode::InvalidRequest, sentence.to_owned())
    );
    create(&mut catalog, vec![assigned(good)]);
    assert_eq!(catalog.image().topic("a").unwrap().partitions, 2);
}

#[test]
fn bad_settings_are_refused() {
    let mut catalog = catalog();
    let cases: [(&[(&str, &str)], &str); 3] = [
        (
            &[("bogus", "1"), ("retention.ms", "x")],
            "Unknown topic config name: bogus",
        ),
        (
            &[
                ("min.compaction.lag.ms", "10"),
                ("max.compaction.lag.ms", "5"),
            ],
            "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)",
        ),
        (
            &[("remote.storage.enable", "true")],
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
             with remote log storage.",
        ),
    ];
    for (configs, sentence) in cases {
        let refusal = refused(&mut catalog, configured("t", configs));
        assert_eq!(refusal, (ErrorCode::InvalidConfig, sentence.to_owned()));
    }
    let null = CreatableTopic {
        configs: vec![config("retention.ms", None)],
        ..named("t", 1)
    };
    let sentence = "Null value not supported for topic configs: retention.ms";
    assert_eq!(
        refused(&mut catalog, null),
        (ErrorCode::InvalidConfig, sentence.to_owned())
    );
}

#[test]
fn missing_topics_are_created_on_demand() {
    let mut catalog = with_topic();
    let names = ["t", "new", "a b", "__consumer_offsets", "new"].map(str::to_owned);
    let decision = catalog.auto_create(&names);
    let results = commit(&mut catalog, decision);
    let expected = [
        ("__consumer_offsets", ErrorCode::None),
        ("a b", ErrorCode::InvalidTopic),
        ("new", ErrorCode::None),
        ("t", ErrorCode::None),
    ];
    assert_eq!(
        results,
        expected.map(|(name, code)| (name.to_owned(), code))
    );
    let image = catalog.image();
    assert_eq!(image.topic("new").unwrap().partitions, 4);
    let offsets = image.topic("__consumer_offsets").unwrap();
    assert_eq!((offsets.partitions, offsets.internal), (50, true));
    let settings = topic_settings(&image, offsets);
    assert!(settings.compact && !settings.delete);
    assert_eq!(settings.segment_bytes, 104_857_600);
}

#[test]
fn auto_creation_can_be_off_and_is_bounded() {
    let mut off = identity();
    off.static_settings
        .insert("auto.create.topics.enable".to_owned(), "false".to_owned());
    let mut catalog = Catalog::new(off, 1);
    let names = ["new", "__consumer_offsets"].map(str::to_owned);
    let decision = catalog.auto_create(&names);
    let results = commit(&mut catalog, decision);
    assert_eq!(
        results[0],
        ("__consumer_offsets".to_owned(), ErrorCode::None)
    );
    assert_eq!(
        results[1],
        ("new".to_owned(), ErrorCode::UnknownTopicOrPartition)
    );

    let mut catalog = self::catalog();
    let decision = catalog.auto_create(&["__transaction_state".to_owned()]);
    let results = commit(&mut catalog, decision);
    assert_eq!(results[0].1, ErrorCode::UnknownTopicOrPartition);

    let names: Vec<_> = (0..3000).map(|number| format!("t{number:04}")).collect();
    let decision = catalog.auto_create(&names);
    let results = commit(&mut catalog, decision);
    let created = results
        .iter()
        .filter(|result| result.1 == ErrorCode::None)
        .count();
    assert_eq!((created, catalog.image().topics().len()), (2500, 2500));
    assert_eq!(
        results[2999].1,
        ErrorCode::LeaderNotAvailable,
        "the rest when asked again"
    );
}

fn delete(catalog: &mut Catalog, topics: &[(Option<&str>, TopicId)]) -> Vec<(ErrorCode, String)> {
    let topics = topics.iter().map(|(name, topic_id)| DeleteTopicState {
        name: name.map(str::to_owned),
        topic_id: *topic_id,
    });
    let request = DeleteTopicsRequest {
        topics: topics.collect(),
        ..Default::default()
    };
    let decision = catalog.delete_topics(&request, 6);
    let response = commit(catalog, decision);
    let answer = |result: crate::wire::messages::delete_topics::DeletableTopicResult| {
        (result.error_code, result.error_message.unwrap_or_default())
    };
    response.responses.into_iter().map(answer).collect()
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut catalog = catalog();
    create(
        &mut catalog,
        vec![named("a", 1), named("b", 1), named("c", 1)],
    );
    let id = catalog.image().topic("b").unwrap().id;
    let answers = delete(&mut catalog, &[(Some("a"), TopicId::ZERO), (None, id)]);
    assert_eq!(
        answers,
        [
            (ErrorCode::None, String::new()),
            (ErrorCode::None, String::new())
        ]
    );
    let image = catalog.image();
    let left: Vec<_> = image.topics().map(|topic| topic.name.as_str()).collect();
    assert_eq!(left, ["c"]);
    assert_eq!(image.topic_by_id(id), None);
    let old = DeleteTopicsRequest {
        topic_names: vec!["c".to_owned()],
        ..Default::default()
    };
    let decision = catalog.delete_topics(&old, 5);
    let response = commit(&mut catalog, decision);
    assert_eq!(response.responses[0].name.as_deref(), Some("c"));
    assert_eq!(catalog.image().topics().len(), 0);
}

#[test]
fn bad_deletions_are_refused() {
    let mut catalog = with_topic();
    let id = catalog.image().topic("t").unwrap().id;
    let other = TopicId(uuid::Uuid::from_u128(7));
    let invalid = |why: &str| (ErrorCode::InvalidRequest, why.to_owned());
    let answers = delete(
        &mut catalog,
        &[
            (Some("nope"), TopicId::ZERO),
            (None, TopicId::ZERO),
            (None, other),
            (Some("t"), id),
        ],
    );
    let unknown = "This server does not host this topic-partition.".to_owned();
    let unknown_id = "This server does not host this topic ID.".to_owned();
    let expected = [
        (ErrorCode::UnknownTopicOrPartition, unknown),
        invalid("Neither topic name nor id were specified."),
        (ErrorCode::UnknownTopicId, unknown_id),
        invalid("You may not specify both topic name and topic id."),
    ];
    assert_eq!(answers, expected);
    let twice = delete(
        &mut catalog,
        &[(Some("t"), TopicId::ZERO), (Some("t"), TopicId::ZERO)],
    );
    assert_eq!(twice, [invalid("Duplicate topic name.")]);
    assert_eq!(
        delete(&mut catalog, &[(None, id), (None, id)]),
        [invalid("Duplicate topic id.")]
    );
    assert_eq!(catalog.image().topics().len(), 1);
    let both = delete(&mut catalog, &[(Some("t"), TopicId::ZERO), (None, id)]);
    let clash = "The provided topic name maps to an ID that was already supplied.";
    assert_eq!(both, [(ErrorCode::None, String::new()), invalid(clash)]);
}

#[test]
fn deletion_can_be_off() {
    let mut off = identity();
    off.static_settings
        .insert("delete.topic.enable".to_owned(), "false".to_owned());
    let mut catalog = Catalog::new(off, 1);
    create(&mut catalog, vec![named("t", 1)]);
    let request = DeleteTopicsRequest {
        topic_names: vec!["t".to_owned()],
        ..Default::default()
    };
    let code = |catalog: &mut Catalog, version| {
        let (records, response) = catalog.delete_topics(&request, version);
        assert!(records.is_empty());
        response.responses[0].error_code
    };
    assert_eq!(code(&mut catalog, 2), ErrorCode::InvalidRequest);
    assert_eq!(code(&mut catalog, 3), ErrorCode::TopicDeletionDisabled);
}

#[test]
fn topics_only_grow() {
    let mut catalog = with_topic();
    create(&mut catalog, vec![named(OFFSETS_TOPIC, 2)]);
    let request = |name: &str, count, brokers: Option<&[&[i32]]>| CreatePartitionsTopic {
        name: name.to_owned(),
        count,
        assignments: brokers.map(|all| {
            let one = |ids: &&[i32]| CreatePartitionsAssignment {
                broker_ids: ids.to_vec(),
            };
            all.iter().map(one).collect()
        }),
    };
    let assignment = ErrorCode::InvalidReplicaAssignment;
    let cases = [
        (
            request("nope", 4, None),
            ErrorCode::UnknownTopicOrPartition,
            "",
        ),
        (
            request("t", 1, None),
            ErrorCode::InvalidPartitions,
            "The topic t currently has 2 partition(s); 1 would not be an increase.",
        ),
        (
            request("t", 2, None),
            ErrorCode::InvalidPartitions,
            "Topic already has 2 partition(s).",
        ),
        (
            request(OFFSETS_TOPIC, 3, None),
            ErrorCode::InvalidRequest,
            "The internal topic __consumer_offsets keeps its 2 partition(s): they were shared out \
             among the groups when it was created.",
        ),
        (
            request("t", i32::MIN, None),
            ErrorCode::InvalidPartitions,
            "The topic t currently has 2 partition(s); -2147483648 would not be an increase.",
        ),
        (
            request("t", 4, Some(&[&[1]])),
            assignment,
            "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
        ),
        (
            request("t", 3, Some(&[&[2]])),
            assignment,
            "The manual partition assignment includes broker 2, but no such broker is registered.",
        ),
        (
            request("t", i32::MAX, None),
            ErrorCode::PolicyViolation,
            "Excessively large number of partitions per request.",
        ),
        (request("t", 3, Some(&[&[1]])), ErrorCode::None, ""),
    ];
    for (topic, code, sentence) in cases {
        let request = CreatePartitionsRequest {
            topics: vec![topic],
            validate_only: true,
            ..Default::default()
        };
        let (records, response) = catalog.create_partitions(&request);
        assert!(records.is_empty());
        let result = &response.results[0];
        let message = result.error_message.as_deref().unwrap_or_default();
        assert_eq!((result.error_code, message), (code, sentence));
    }
    let topics = vec![
        request("t", 5, None),
        request("u", 5, None),
        request("t", 6, None),
    ];
    let twice = CreatePartitionsRequest {
        topics,
        ..Default::default()
    };
    let (records, response) = catalog.create_partitions(&twice);
    assert!(records.is_empty());
    assert_eq!(response.results.len(), 2);
    assert_eq!(
        response.results[0].error_message.as_deref(),
        Some("Duplicate topic name.")
    );
    let topics = vec![request("t", 5, None)];
    let grow = CreatePartitionsRequest {
        topics,
        ..Default::default()
    };
    let decision = catalog.create_partitions(&grow);
    commit(&mut catalog, decision);
    assert_eq!(catalog.image().topic("t").unwrap().partitions, 5);
}

#[test]
fn there_are_only_so_many_partitions() {
    let mut identity = identity();
    let setting = ("max.partitions".to_owned(), "5".to_owned());
    identity.static_settings.extend([setting]);
    let mut catalog = Catalog::new(identity, 1);
    let results = create(
        &mut catalog,
        vec![named("a", 3), named("b", 3), named("c", 2)],
    );
    let codes: Vec<_> = results.iter().map(|topic| topic.error_code).collect();
    let (none, full) = (ErrorCode::None, ErrorCode::PolicyViolation);
    assert_eq!(codes, [none, full, none]);
    let sentence = results[1].error_message.as_deref().unwrap();
    assert!(sentence.contains("max.partitions"), "{sentence}");
    let decision = catalog.auto_create(&["d".to_owned(), OFFSETS_TOPIC.to_owned()]);
    let codes = commit(&mut catalog, decision);
    let expected = [(OFFSETS_TOPIC.to_owned(), none), ("d".to_owned(), full)];
    assert_eq!(codes, expected, "the broker's own topic is always created");
    let request = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: "a".to_owned(),
            count: 4,
            assignments: None,
        }],
        ..Default::default()
    };
    let decision = catalog.create_partitions(&request);
    assert_eq!(commit(&mut catalog, decision).results[0].error_code, full);
}
