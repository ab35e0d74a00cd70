//! DescribeConfigs and ListConfigResources.

use super::*;
use crate::base::ErrorCode;
use crate::wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResult,
};
use crate::wire::messages::list_config_resources::ListConfigResourcesRequest;
use crate::wire::records::encode_metadata;

fn set(catalog: &mut Catalog, kind: i8, resource: &str, name: &str, value: &str) {
    let record = ConfigRecord {
        resource_type: kind,
        resource_name: resource.to_owned(),
        name: name.to_owned(),
        value: Some(value.to_owned()),
    };
    catalog.replay(encode_metadata(&record, 0)).unwrap();
}

fn resource(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResource {
    let keys = keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect());
    DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.to_owned(),
        configuration_keys: keys,
    }
}

fn describe(
    catalog: &Catalog,
    kind: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let request = DescribeConfigsRequest {
        resources: vec![resource(kind, name, keys)],
        include_synonyms: true,
        include_documentation: true,
    };
    catalog.image().describe_configs(&request).results.remove(0)
}

/// Value, source, read-only and synonyms of the only key asked for.
fn key(catalog: &Catalog, kind: i8, name: &str, key: &str) -> String {
    let mut result = describe(catalog, kind, name, Some(&[key]));
    assert_eq!(
        (result.error_code, result.configs.len()),
        (ErrorCode::None, 1)
    );
    let DescribeConfigsResourceResult {
        value,
        config_source,
        read_only,
        synonyms,
        ..
    } = result.configs.remove(0);
    let synonyms = synonyms.iter().map(|synonym| {
        let value = synonym.value.as_deref().unwrap_or("null");
        format!("{}={value}/{}", synonym.name, synonym.source)
    });
    let synonyms: Vec<_> = synonyms.collect();
    let value = value.as_deref().unwrap_or("null");
    format!(
        "{value}/{config_source} {read_only} [{}]",
        synonyms.join(" ")
    )
}

#[test]
fn values_come_with_source_and_synonyms() {
    let mut catalog = with_topic();
    let topic = |catalog: &Catalog, name| key(catalog, 2, "t", name);
    let broker = |catalog: &Catalog, name| key(catalog, 4, "1", name);
    assert_eq!(
        topic(&catalog, "cleanup.policy"),
        "delete/5 false [log.cleanup.policy=delete/5]"
    );
    assert_eq!(
        broker(&catalog, "num.partitions"),
        "4/4 true [num.partitions=4/4 num.partitions=1/5]"
    );
    assert_eq!(broker(&catalog, "log.retention.minutes"), "null/5 true []");
    assert_eq!(broker(&catalog, "node.id"), "1/4 true [node.id=1/4]");
    set(&mut catalog, 4, "", "log.retention.ms", "66000");
    set(&mut catalog, 4, "1", "log.retention.ms", "77000");
    let brokers = "log.retention.ms=77000/2 log.retention.ms=66000/3 log.retention.hours=168/5";
    assert_eq!(
        broker(&catalog, "log.retention.ms"),
        format!("77000/2 false [{brokers}]")
    );
    assert_eq!(
        topic(&catalog, "retention.ms"),
        format!("77000/2 false [{brokers}]")
    );
    set(&mut catalog, 2, "t", "retention.ms", "77");
    let own = format!("77/1 false [retention.ms=77/1 {brokers}]");
    assert_eq!(topic(&catalog, "retention.ms"), own);
}

#[test]
fn an_answer_is_only_so_large() {
    let mut catalog = catalog();
    create(
        &mut catalog,
        vec![named("a", 1), named("b", 1), named("c", 1)],
    );
    let resources = ["a", "b", "c"].map(|name| resource(2, name, None));
    let request = DescribeConfigsRequest {
        resources: resources.to_vec(),
        include_synonyms: true,
        include_documentation: true,
    };
    let described = |bytes_max| catalog.image().describe_within(&request, bytes_max).results;
    assert!(
        described(1 << 20)
            .iter()
            .all(|result| !result.error_code.is_error())
    );
    let results = described(6_000);
    assert_eq!(results[1].error_code, ErrorCode::None);
    assert_eq!(results[2].error_code, ErrorCode::InvalidRequest);
    assert!(results[2].error_message.as_ref().unwrap().contains("fewer"));
    assert!(results[2].configs.is_empty());
}

#[test]
fn all_keys_are_described_unless_some_are_named() {
    let mut catalog = with_topic();
    for keys in [None, Some([].as_slice())] {
        let topic = describe(&catalog, 2, "t", keys);
        assert_eq!(topic.configs.len(), 34, "33 of Kafka and one of ours");
        let names: Vec<_> = topic
            .configs
            .iter()
            .map(|config| config.name.as_str())
            .collect();
        assert!(names.is_sorted());
        assert!(
            topic
                .configs
                .iter()
                .all(|config| config.documentation.is_some())
        );
        assert_eq!(topic.error_message.as_deref(), Some(""));
    }
    let some = describe(&catalog, 2, "t", Some(&["segment.ms", "nope", "flush.ms"])).configs;
    let names: Vec<_> = some.iter().map(|config| config.name.as_str()).collect();
    assert_eq!(names, ["flush.ms", "segment.ms"]);
    assert_eq!(some[0].config_type, 5);
    assert!(describe(&catalog, 4, "1", None).configs.len() > 50);

    assert!(
        describe(&catalog, 4, "", None).configs.is_empty(),
        "nothing set on the cluster"
    );
    set(&mut catalog, 4, "", "log.retention.ms", "66000");
    set(&mut catalog, 4, "1", "log.retention.ms", "77000");
    assert_eq!(describe(&catalog, 4, "", None).configs.len(), 1);
    assert_eq!(
        key(&catalog, 4, "", "log.retention.ms"),
        "66000/3 false [log.retention.ms=66000/3]"
    );
}

#[test]
fn extras_come_only_when_asked_for() {
    let catalog = with_topic();
    let request = DescribeConfigsRequest {
        resources: vec![resource(2, "t", Some(&["segment.ms"]))],
        ..Default::default()
    };
    let result = catalog.image().describe_configs(&request).results.remove(0);
    let config = &result.configs[0];
    assert_eq!(
        (config.synonyms.len(), config.documentation.as_deref()),
        (0, None)
    );
}

#[test]
fn unknown_resources_are_refused() {
    let catalog = with_topic();
    let cases = [
        (2, "nope", ErrorCode::UnknownTopicOrPartition, ""),
        (
            2,
            "a b",
            ErrorCode::InvalidTopic,
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII \
             alphanumerics, '.', '_' and '-'",
        ),
        (
            2,
            "",
            ErrorCode::InvalidTopic,
            "Topic name is invalid: the empty string is not allowed",
        ),
        (
            4,
            "9",
            ErrorCode::InvalidRequest,
            "Unexpected broker id, expected 1 or empty string, but received 9",
        ),
        (
            4,
            "x",
            ErrorCode::InvalidRequest,
            "Broker id must be an integer, but it is: x",
        ),
        (
            99,
            "x",
            ErrorCode::InvalidRequest,
            "Resources of type 99 have no settings here.",
        ),
    ];
    for kind in [8, 16, 32] {
        let result = describe(&catalog, kind, "x", None);
        assert_eq!(
            (result.error_code, result.configs.len()),
            (ErrorCode::None, 0)
        );
    }
    for (kind, name, code, sentence) in cases {
        let result = describe(&catalog, kind, name, None);
        assert_eq!(result.error_code, code, "{name}");
        assert_eq!(result.error_message.as_deref(), Some(sentence));
        assert!(result.configs.is_empty());
    }
}

#[test]
fn a_resource_is_described_once_per_request() {
    let catalog = with_topic();
    let request = DescribeConfigsRequest {
        resources: vec![resource(2, "t", None), resource(2, "t", None)],
        ..Default::default()
    };
    let results = catalog.image().describe_configs(&request).results;
    assert_eq!(results[0].error_code, ErrorCode::None);
    assert_eq!(results[1].error_code, ErrorCode::InvalidRequest);
    assert!(results[1].configs.is_empty());
}

#[test]
fn resources_are_listed_by_type() {
    let image = with_topic().image();
    let list = |types: &[i8], version| {
        let request = ListConfigResourcesRequest {
            resource_types: types.to_vec(),
        };
        let response = image.list_config_resources(&request, version);
        let names = response.config_resources.into_iter();
        let names: Vec<_> = names
            .map(|one| format!("{}/{}", one.resource_name, one.resource_type))
            .collect();
        (response.error_code, names.join(" "))
    };
    assert_eq!(list(&[], 1), (ErrorCode::None, "1/4 t/2".to_owned()));
    assert_eq!(list(&[2], 1), (ErrorCode::None, "t/2".to_owned()));
    assert_eq!(list(&[4, 16], 1), (ErrorCode::None, "1/4".to_owned()));
    assert_eq!(
        list(&[4, 99], 1),
        (ErrorCode::UnsupportedVersion, String::new())
    );
    assert_eq!(list(&[], 0), (ErrorCode::None, String::new()));
}

#[test]
fn what_cannot_be_changed_is_read_only() {
    let mut catalog = catalog();
    set(&mut catalog, 4, "", "log.cleanup.policy", "delete");
    let decision = catalog.auto_create(&[OFFSETS_TOPIC.to_owned()]);
    commit(&mut catalog, decision);
    let policy = key(&catalog, 2, OFFSETS_TOPIC, "cleanup.policy");
    assert_eq!(policy, "compact/1 true [cleanup.policy=compact/1]");
}
