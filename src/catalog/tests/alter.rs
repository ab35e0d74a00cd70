//! Changing settings of topics and of the broker.

use std::collections::BTreeMap;

use super::*;
use crate::base::ErrorCode;
use crate::wire::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterableConfig,
};
use crate::wire::messages::incremental_alter_configs as incremental;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

type Change<'a> = (&'a str, i8, Option<&'a str>);

fn incrementally(
    kind: i8,
    name: &str,
    changes: &[Change<'_>],
) -> incremental::AlterConfigsResource {
    let change = |(name, operation, value): &Change<'_>| incremental::AlterableConfig {
        name: (*name).to_owned(),
        config_operation: *operation,
        value: value.map(str::to_owned),
    };
    incremental::AlterConfigsResource {
        resource_type: kind,
        resource_name: name.to_owned(),
        configs: changes.iter().map(change).collect(),
    }
}

/// Changes one resource for good; code and sentence of the answer.
fn change(
    catalog: &mut Catalog,
    kind: i8,
    name: &str,
    changes: &[Change<'_>],
) -> (ErrorCode, String) {
    let resources = vec![incrementally(kind, name, changes)];
    let request = incremental::IncrementalAlterConfigsRequest {
        resources,
        ..Default::default()
    };
    let decision = catalog.incremental_alter_configs(&request);
    let response = commit(catalog, decision).responses.remove(0);
    assert_eq!(
        (response.resource_type, response.resource_name.as_str()),
        (kind, name)
    );
    (
        response.error_code,
        response.error_message.unwrap_or_default(),
    )
}

fn replace(name: &str, configs: &[(&str, Option<&str>)]) -> AlterConfigsResource {
    let config = |(name, value): &(&str, Option<&str>)| AlterableConfig {
        name: (*name).to_owned(),
        value: value.map(str::to_owned),
    };
    AlterConfigsResource {
        resource_type: 2,
        resource_name: name.to_owned(),
        configs: configs.iter().map(config).collect(),
    }
}

fn overrides(catalog: &Catalog) -> BTreeMap<String, String> {
    catalog.image().topic("t").unwrap().config.clone()
}

fn one(name: &str, value: &str) -> BTreeMap<String, String> {
    [(name.to_owned(), value.to_owned())].into()
}

const OK: (ErrorCode, String) = (ErrorCode::None, String::new());

#[test]
fn lists_grow_and_shrink_from_what_applies() {
    let mut catalog = with_topic();
    let steps = [
        (APPEND, "compact", "delete,compact"),
        (APPEND, "compact", "delete,compact"),
        (SUBTRACT, "delete", "compact"),
        (SUBTRACT, "compact", ""),
    ];
    for (operation, value, expected) in steps {
        let changes = [("cleanup.policy", operation, Some(value))];
        assert_eq!(change(&mut catalog, 2, "t", &changes), OK);
        assert_eq!(overrides(&catalog), one("cleanup.policy", expected));
    }
    assert_eq!(
        change(&mut catalog, 2, "t", &[("cleanup.policy", DELETE, None)]),
        OK
    );
    assert_eq!(overrides(&catalog), BTreeMap::new());
}

#[test]
fn settings_not_named_stay() {
    let mut catalog = with_topic();
    let both = [
        ("retention.ms", SET, Some("5")),
        ("flush.ms", SET, Some("6")),
    ];
    assert_eq!(change(&mut catalog, 2, "t", &both), OK);
    assert_eq!(
        change(&mut catalog, 2, "t", &[("flush.ms", DELETE, None)]),
        OK
    );
    assert_eq!(overrides(&catalog), one("retention.ms", "5"));
    let same = incremental::IncrementalAlterConfigsRequest {
        resources: vec![incrementally(2, "t", &[("retention.ms", SET, Some("5"))])],
        ..Default::default()
    };
    assert!(
        catalog.incremental_alter_configs(&same).0.is_empty(),
        "nothing changes: no record"
    );
}

#[test]
fn bad_changes_are_refused() {
    let mut catalog = with_topic();
    let config = ErrorCode::InvalidConfig;
    let request = ErrorCode::InvalidRequest;
    let cases: [(i8, &str, &[Change<'_>], ErrorCode, &str); 16] = [
        (
            2,
            "t",
            &[("bogus", SET, Some("1"))],
            config,
            "Unknown topic config name: bogus",
        ),
        (
            2,
            "nope",
            &[("retention.ms", SET, Some("1"))],
            ErrorCode::UnknownTopicOrPartition,
            "The topic 'nope' does not exist.",
        ),
        (
            2,
            "t",
            &[("retention.ms", SET, None)],
            request,
            "Null value not supported for : retention.ms",
        ),
        (
            2,
            "t",
            &[("retention.ms", APPEND, Some("1"))],
            config,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            2,
            "t",
            &[("retention.ms", 9, Some("1"))],
            request,
            "Unknown operation on retention.ms",
        ),
        (
            2,
            "t",
            &[
                ("retention.ms", SET, Some("5")),
                ("retention.ms", DELETE, None),
            ],
            request,
            "Error due to duplicate config keys",
        ),
        (
            2,
            "t",
            &[("cleanup.policy", APPEND, Some("foo"))],
            config,
            "Invalid value foo for configuration cleanup.policy: String must be one of: compact, \
             delete",
        ),
        (
            2,
            "",
            &[],
            request,
            "Default topic resources are not allowed.",
        ),
        (99, "x", &[], request, "Unknown resource type 99"),
        (
            4,
            "1",
            &[("num.partitions", SET, Some("6"))],
            request,
            "Cannot update these configs dynamically: [num.partitions]",
        ),
        (
            4,
            "1",
            &[("log.retention.hours", SET, Some("1"))],
            request,
            "Cannot update these configs dynamically: [log.retention.hours]",
        ),
        (
            4,
            "9",
            &[("log.retention.ms", SET, Some("6"))],
            request,
            "Unexpected broker id, expected 1, but received 9",
        ),
        (
            4,
            "x",
            &[("log.retention.ms", SET, Some("6"))],
            request,
            "Node id must be an integer, but it is: x",
        ),
        (
            4,
            "1",
            &[("log.retention.ms", SET, Some("x"))],
            request,
            "Invalid value x for configuration log.retention.ms: Not a number of type LONG",
        ),
        (
            4,
            "1",
            &[("log.segment.bytes", SET, Some("10"))],
            request,
            "Invalid value 10 for configuration log.segment.bytes: Value must be at least 1048576",
        ),
        // Kafka takes any name here; we know all that have an effect.
        (
            4,
            "1",
            &[("nope", SET, Some("6"))],
            config,
            "Unknown broker config name: nope",
        ),
    ];
    let before = catalog.image();
    for (kind, name, changes, code, sentence) in cases {
        let answer = change(&mut catalog, kind, name, changes);
        assert_eq!(answer, (code, sentence.to_owned()));
    }
    assert_eq!(catalog.image(), before);
    assert_eq!(
        change(&mut catalog, 2, "t", &[("bogus", DELETE, None)]),
        OK,
        "as Kafka"
    );
}

#[test]
fn rules_between_settings_see_the_old_ones_too() {
    let mut catalog = with_topic();
    change(
        &mut catalog,
        2,
        "t",
        &[("max.compaction.lag.ms", SET, Some("5"))],
    );
    let (code, _) = change(
        &mut catalog,
        2,
        "t",
        &[("min.compaction.lag.ms", SET, Some("10"))],
    );
    assert_eq!(code, ErrorCode::InvalidConfig);
}

#[test]
fn a_resource_named_twice_is_refused() {
    let mut catalog = with_topic();
    let once = |name, value| incrementally(2, "t", &[(name, SET, Some(value))]);
    let request = incremental::IncrementalAlterConfigsRequest {
        resources: vec![once("retention.ms", "5"), once("flush.ms", "6")],
        ..Default::default()
    };
    let (records, response) = catalog.incremental_alter_configs(&request);
    assert!(records.is_empty());
    assert_eq!(response.responses.len(), 2);
    let sentence = "Each resource must appear at most once.";
    assert!(
        response
            .responses
            .iter()
            .all(|one| one.error_message.as_deref() == Some(sentence))
    );
}

#[test]
fn alter_configs_replaces_all() {
    let mut catalog = with_topic();
    change(
        &mut catalog,
        2,
        "t",
        &[("segment.bytes", SET, Some(" 2097152 "))],
    );
    let mut alter = |resource, validate_only| {
        let request = AlterConfigsRequest {
            resources: vec![resource],
            validate_only,
        };
        let decision = catalog.alter_configs(&request);
        let response = commit(&mut catalog, decision).responses.remove(0);
        let message = response.error_message.unwrap_or_default();
        (response.error_code, message, overrides(&catalog))
    };
    let segment = one("segment.bytes", "2097152");
    let ok = |now| (ErrorCode::None, String::new(), now);
    let retention = [("retention.ms", Some("77"))];
    assert_eq!(alter(replace("t", &retention), true), ok(segment.clone()));
    let null = "Null value not supported for : retention.ms".to_owned();
    let refused = (ErrorCode::InvalidRequest, null, segment);
    assert_eq!(
        alter(replace("t", &[("retention.ms", None)]), false),
        refused
    );
    assert_eq!(
        alter(replace("t", &retention), false),
        ok(one("retention.ms", "77"))
    );
    assert_eq!(alter(replace("t", &[]), false), ok(BTreeMap::new()));
}

#[test]
fn broker_settings_apply_to_topics_by_strength() {
    let mut catalog = with_topic();
    let retention = |catalog: &Catalog| {
        let image = catalog.image();
        topic_settings(&image, image.topic("t").unwrap()).retention_ms
    };
    assert_eq!(
        change(
            &mut catalog,
            4,
            "",
            &[("log.retention.ms", SET, Some("66"))]
        ),
        OK
    );
    assert_eq!(retention(&catalog), Some(66));
    assert_eq!(
        change(
            &mut catalog,
            4,
            "1",
            &[("log.retention.ms", SET, Some("77"))]
        ),
        OK
    );
    assert_eq!(retention(&catalog), Some(77));
    change(&mut catalog, 2, "t", &[("retention.ms", SET, Some("88"))]);
    assert_eq!(retention(&catalog), Some(88));
    change(&mut catalog, 2, "t", &[("retention.ms", DELETE, None)]);
    change(&mut catalog, 4, "1", &[("log.retention.ms", DELETE, None)]);
    assert_eq!(retention(&catalog), Some(66));
}

/// Kafka lets retention delete committed offsets, if somebody sets it so.
#[test]
fn what_the_brokers_own_topics_need_cannot_be_changed() {
    let mut catalog = catalog();
    let decision = catalog.auto_create(&[OFFSETS_TOPIC.to_owned()]);
    commit(&mut catalog, decision);
    let config = |catalog: &Catalog| catalog.image().topic(OFFSETS_TOPIC).unwrap().config.clone();
    let before = config(&catalog);
    for (name, operation, value) in [
        ("cleanup.policy", SET, "delete"),
        ("cleanup.policy", APPEND, "delete"),
        ("cleanup.policy", SUBTRACT, "compact"),
        ("write.caching", SET, "true"),
    ] {
        let changes = [(name, operation, Some(value))];
        let (code, why) = change(&mut catalog, 2, OFFSETS_TOPIC, &changes);
        assert_eq!(code, ErrorCode::InvalidConfig);
        assert!(
            why.starts_with(&format!("{name} of the internal topic {OFFSETS_TOPIC} is ")),
            "{why}"
        );
    }
    let configs = [("cleanup.policy", "delete")];
    let refused = create(
        &mut catalog,
        vec![configured("__transaction_state", &configs)],
    );
    assert_eq!(refused[0].error_code, ErrorCode::InvalidConfig);
    assert_eq!(config(&catalog), before);
    // What is not named goes back to the default, which changes nothing here.
    let request = AlterConfigsRequest {
        resources: vec![replace(
            OFFSETS_TOPIC,
            &[("segment.bytes", Some("2097152"))],
        )],
        ..Default::default()
    };
    let decision = catalog.alter_configs(&request);
    let response = commit(&mut catalog, decision).responses.remove(0);
    assert_eq!(response.error_code, ErrorCode::None);
    assert_eq!(config(&catalog), one("segment.bytes", "2097152"));
    let image = catalog.image();
    let settings = topic_settings(&image, image.topic(OFFSETS_TOPIC).unwrap());
    assert!(settings.compact && !settings.delete);
    assert_eq!(
        change(
            &mut catalog,
            2,
            OFFSETS_TOPIC,
            &[("cleanup.policy", SET, Some("compact"))]
        ),
        OK
    );
}
