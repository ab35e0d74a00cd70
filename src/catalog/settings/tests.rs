//! The table against the facts of Apache Kafka 4.3.1 (asked with DescribeConfigs and CreateTopics),
//! and the order of the layers.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::{NodeId, TopicId};
use crate::catalog::{Identity, Image, Topic};

/// Topic settings of a fresh Kafka: name, default, type code.
const KAFKA_TOPIC: &[(&str, &str, i8)] = &[
    ("cleanup.policy", "delete", 7),
    ("compression.gzip.level", "-1", 3),
    ("compression.lz4.level", "9", 3),
    ("compression.type", "producer", 2),
    ("compression.zstd.level", "3", 3),
    ("delete.retention.ms", "86400000", 5),
    ("file.delete.delay.ms", "60000", 5),
    ("flush.messages", "9223372036854775807", 5),
    ("flush.ms", "9223372036854775807", 5),
    ("follower.replication.throttled.replicas", "", 7),
    ("index.interval.bytes", "4096", 3),
    ("leader.replication.throttled.replicas", "", 7),
    ("local.retention.bytes", "-2", 5),
    ("local.retention.ms", "-2", 5),
    ("max.compaction.lag.ms", "9223372036854775807", 5),
    ("max.message.bytes", "1048588", 3),
    ("message.timestamp.after.max.ms", "3600000", 5),
    ("message.timestamp.before.max.ms", "9223372036854775807", 5),
    ("message.timestamp.type", "CreateTime", 2),
    ("min.cleanable.dirty.ratio", "0.5", 6),
    ("min.compaction.lag.ms", "0", 5),
    ("min.insync.replicas", "1", 3),
    ("preallocate", "false", 1),
    ("remote.log.copy.disable", "false", 1),
    ("remote.log.delete.on.disable", "false", 1),
    ("remote.storage.enable", "false", 1),
    ("retention.bytes", "-1", 5),
    ("retention.ms", "604800000", 5),
    ("segment.bytes", "1073741824", 3),
    ("segment.index.bytes", "10485760", 3),
    ("segment.jitter.ms", "0", 5),
    ("segment.ms", "604800000", 5),
    ("unclean.leader.election.enable", "false", 1),
];

/// Broker settings of a fresh Kafka: name, default, type code, dynamic.
const KAFKA_BROKER: &[(&str, Option<&str>, i8, bool)] = &[
    ("advertised.listeners", None, 7, false),
    ("auto.create.topics.enable", Some("true"), 1, false),
    ("broker.rack", None, 2, false),
    ("compression.type", Some("producer"), 2, true),
    ("connections.max.idle.ms", Some("600000"), 5, false),
    ("default.replication.factor", Some("1"), 3, false),
    ("delete.topic.enable", Some("true"), 1, false),
    ("fetch.max.bytes", Some("57671680"), 3, false),
    ("group.initial.rebalance.delay.ms", Some("3000"), 3, false),
    ("group.max.session.timeout.ms", Some("1800000"), 3, false),
    // Kafka's own default is no bound.
    ("group.max.size", Some("1000"), 3, false),
    ("group.min.session.timeout.ms", Some("6000"), 3, false),
    ("log.cleanup.policy", Some("delete"), 7, true),
    (
        "log.flush.interval.messages",
        Some("9223372036854775807"),
        5,
        true,
    ),
    ("log.index.interval.bytes", Some("4096"), 3, true),
    ("log.index.size.max.bytes", Some("10485760"), 3, true),
    (
        "log.message.timestamp.after.max.ms",
        Some("3600000"),
        5,
        true,
    ),
    (
        "log.message.timestamp.before.max.ms",
        Some("9223372036854775807"),
        5,
        true,
    ),
    ("log.message.timestamp.type", Some("CreateTime"), 2, true),
    ("log.preallocate", Some("false"), 1, true),
    ("log.retention.bytes", Some("-1"), 5, true),
    ("log.retention.check.interval.ms", Some("300000"), 5, false),
    ("log.retention.hours", Some("168"), 3, false),
    ("log.retention.minutes", None, 3, false),
    ("log.retention.ms", None, 5, true),
    ("log.roll.hours", Some("168"), 3, false),
    ("log.roll.jitter.hours", Some("0"), 3, false),
    ("log.roll.jitter.ms", None, 5, true),
    ("log.roll.ms", None, 5, true),
    ("log.segment.bytes", Some("1073741824"), 3, true),
    ("log.segment.delete.delay.ms", Some("60000"), 5, true),
    ("max.request.partition.size.limit", Some("2000"), 3, false),
    ("message.max.bytes", Some("1048588"), 3, true),
    ("min.insync.replicas", Some("1"), 3, true),
    ("num.partitions", Some("1"), 3, false),
    ("offset.metadata.max.bytes", Some("4096"), 3, false),
    (
        "offsets.retention.check.interval.ms",
        Some("600000"),
        5,
        false,
    ),
    ("offsets.retention.minutes", Some("10080"), 3, false),
    ("offsets.topic.num.partitions", Some("50"), 3, false),
    ("offsets.topic.segment.bytes", Some("104857600"), 3, false),
    ("queued.max.request.bytes", Some("-1"), 5, false),
    ("socket.request.max.bytes", Some("104857600"), 3, false),
    ("unclean.leader.election.enable", Some("false"), 1, true),
];

fn image(fixed: &[(&str, &str)]) -> Image {
    Image::new(Identity {
        cluster_id: "cluster".to_owned(),
        node_id: NodeId(1),
        advertised: None,
        ports_per_shard: Vec::new(),
        static_settings: settings(fixed),
    })
}

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn topic(config: &[(&str, &str)]) -> Topic {
    Topic {
        id: TopicId::ZERO,
        name: "t".to_owned(),
        partitions: 1,
        config: settings(config),
        internal: false,
    }
}

#[test]
fn topic_settings_are_kafkas() {
    // What differs on purpose: a bounded time without sync, and an own setting.
    let ours = [("flush.ms", "1000"), ("write.caching", "false")];
    let mut expected: BTreeMap<_, _> = KAFKA_TOPIC
        .iter()
        .map(|(name, default, code)| (*name, (*default, *code)))
        .collect();
    expected.insert("flush.ms", (ours[0].1, 5));
    expected.insert("write.caching", (ours[1].1, 1));
    let table: BTreeMap<_, _> = TABLE
        .iter()
        .filter_map(|row| Some((row.topic?, (row.default?, row.kind.type_code()))))
        .collect();
    assert_eq!(table, expected);
}

#[test]
fn broker_settings_are_kafkas() {
    for (name, default, code, dynamic) in KAFKA_BROKER {
        let (setting, broker) = broker_setting(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(
            setting.broker_default(broker).as_deref(),
            *default,
            "{name}"
        );
        assert_eq!(setting.broker_kind(broker).type_code(), *code, "{name}");
        assert_eq!(broker.change == Change::Dynamic, *dynamic, "{name}");
    }
}

#[test]
fn the_table_is_consistent() {
    let mut names = BTreeSet::new();
    for row in TABLE {
        assert!(
            row.topic.is_none_or(|name| names.insert(("topic", name))),
            "{row:?}"
        );
        assert!(
            row.broker
                .iter()
                .all(|broker| names.insert(("broker", broker.name))),
            "{row:?}"
        );
        assert!(row.documentation.ends_with('.'), "{row:?}");
        let name = row
            .topic
            .or(row.broker.first().map(|broker| broker.name))
            .unwrap();
        if let Some(default) = row.default {
            assert_eq!(
                row.kind.parse(name, default).as_deref(),
                Ok(default),
                "{name}"
            );
        }
        for broker in row.broker {
            if let Some(default) = row.broker_default(broker) {
                let kind = row.broker_kind(broker);
                assert_eq!(kind.parse(broker.name, &default), Ok(default.clone()));
            }
        }
    }
}

#[test]
fn bad_values_get_kafkas_sentences() {
    let cases = [
        ("bogus", "1", "Unknown topic config name: bogus"),
        (
            "retention.ms",
            "x",
            "Invalid value x for configuration retention.ms: Not a number of type LONG",
        ),
        (
            "retention.ms",
            "-2",
            "Invalid value -2 for configuration retention.ms: Value must be at least -1",
        ),
        (
            "flush.ms",
            "",
            "Invalid value  for configuration flush.ms: Not a number of type LONG",
        ),
        (
            "cleanup.policy",
            "foo",
            "Invalid value foo for configuration cleanup.policy: String must be one of: compact, \
             delete",
        ),
        (
            "compression.type",
            "foo",
            "Invalid value foo for configuration compression.type: String must be one of: \
             uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        (
            "message.timestamp.type",
            "foo",
            "Invalid value foo for configuration message.timestamp.type: String must be one of: \
             CreateTime, LogAppendTime",
        ),
        (
            "preallocate",
            "foo",
            "Invalid value foo for configuration preallocate: Expected value to be either true or \
             false",
        ),
        (
            "segment.bytes",
            "1000",
            "Invalid value 1000 for configuration segment.bytes: Value must be at least 1048576",
        ),
        (
            "segment.bytes",
            "99999999999",
            "Invalid value 99999999999 for configuration segment.bytes: Not a number of type INT",
        ),
        (
            "min.cleanable.dirty.ratio",
            "2",
            "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more \
             than 1",
        ),
        (
            "leader.replication.throttled.replicas",
            "x",
            "Invalid value [x] for configuration leader.replication.throttled.replicas: \
             leader.replication.throttled.replicas must be the literal '*' or a list of replicas \
             in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        ),
    ];
    for (name, value, sentence) in cases {
        assert_eq!(check_topic_value(name, value), Err(sentence.to_owned()));
    }
    let nan = check_topic_value("min.cleanable.dirty.ratio", "NaN");
    assert!(nan.unwrap_err().ends_with("Not a number of type DOUBLE"));
}

#[test]
fn good_values_become_canonical() {
    let cases = [
        ("segment.bytes", " 1048576 ", "1048576"),
        ("preallocate", "TRUE", "true"),
        (
            "cleanup.policy",
            "compact, delete,compact",
            "compact,delete",
        ),
        ("cleanup.policy", "", ""),
        ("min.cleanable.dirty.ratio", "1", "1.0"),
        ("leader.replication.throttled.replicas", "*", "*"),
        (
            "leader.replication.throttled.replicas",
            "0:1, 1:1",
            "0:1,1:1",
        ),
        ("retention.ms", "-1", "-1"),
        ("retention.bytes", "-1", "-1"),
    ];
    for (name, value, canonical) in cases {
        let parsed = check_topic_value(name, value).unwrap();
        assert_eq!(parsed, canonical, "{name}");
        assert_eq!(
            check_topic_value(name, &parsed),
            Ok(parsed.clone()),
            "{name}"
        );
    }
}

#[test]
fn the_finest_name_of_a_time_wins_and_units_are_minded() {
    let retention =
        |fixed: &[(&str, &str)]| topic_settings(&image(fixed), &topic(&[])).retention_ms;
    assert_eq!(retention(&[]), Some(604_800_000));
    let hours = ("log.retention.hours", "2");
    assert_eq!(retention(&[hours]), Some(7_200_000));
    let minutes = ("log.retention.minutes", "3");
    assert_eq!(retention(&[hours, minutes]), Some(180_000));
    let ms = ("log.retention.ms", "4");
    assert_eq!(retention(&[hours, minutes, ms]), Some(4));
    assert_eq!(
        retention(&[("log.retention.hours", "-1")]),
        None,
        "-1 hours is no bound"
    );
    let own = topic_settings(&image(&[ms]), &topic(&[("retention.ms", "5")]));
    assert_eq!(own.retention_ms, Some(5));
}

#[test]
fn a_stored_value_that_we_would_not_accept_counts_as_not_set() {
    let image = image(&[("log.segment.bytes", "2097152")]);
    let odd = topic(&[
        ("segment.bytes", "1"),
        ("retention.ms", "soon"),
        ("new.name", "1"),
    ]);
    let settings = topic_settings(&image, &odd);
    assert_eq!(settings.segment_bytes, 2_097_152);
    assert_eq!(settings.retention_ms, Some(604_800_000));
}

/// A log that another broker wrote can hold a value in any form that Kafka accepts.
#[test]
fn a_stored_value_in_another_form_counts_as_what_it_means() {
    let image = image(&[("log.flush.interval.ms", " 7 "), ("num.partitions", "+3")]);
    let topic = topic(&[("segment.ms", " 5"), ("write.caching", "TRUE")]);
    let typed = topic_settings(&image, &topic);
    assert_eq!((typed.segment_ms, typed.flush_ms), (5, 7));
    assert!(typed.write_caching);
    assert_eq!(broker_settings(&image).num_partitions, 3);
}

#[test]
fn typed_settings_follow_the_texts() {
    let image = image(&[
        ("num.partitions", "4"),
        ("auto.create.topics.enable", "false"),
        ("offsets.retention.minutes", "2"),
        ("connections.max.idle.ms", "-1"),
        ("broker.rack", "r1"),
    ]);
    let broker = broker_settings(&image);
    assert_eq!(
        (broker.num_partitions, broker.auto_create_topics),
        (4, false)
    );
    assert_eq!(broker.offsets_retention_ms, 120_000);
    assert_eq!(
        (broker.connection_idle_ms_max, broker.rack.as_deref()),
        (None, Some("r1"))
    );
    let default = topic_settings(&image, &topic(&[]));
    assert!(default.delete && !default.compact && !default.write_caching && !default.append_time);
    assert_eq!(default.compression, CompressionType::Producer);
    assert_eq!((default.retention_bytes, default.flush_ms), (None, 1000));
    let set = topic_settings(
        &image,
        &topic(&[
            ("cleanup.policy", "compact"),
            ("compression.type", "lz4"),
            ("message.timestamp.type", "LogAppendTime"),
            ("write.caching", "true"),
            ("retention.bytes", "10"),
        ]),
    );
    assert!(!set.delete && set.compact && set.write_caching && set.append_time);
    assert_eq!(
        (set.compression, set.retention_bytes),
        (CompressionType::Lz4, Some(10))
    );
}

/// Catalog, committed offsets, and what counts as synced depend on it.
#[test]
fn nothing_that_is_set_reaches_what_the_brokers_own_topics_need() {
    let image = image(&[
        ("log.cleanup.policy", "delete"),
        ("log.retention.ms", "1"),
        ("write.caching", "true"),
    ]);
    let own = [("cleanup.policy", "delete"), ("write.caching", "true")];
    for (name, compact) in [
        ("__cluster_metadata", false),
        ("__consumer_offsets", true),
        ("__transaction_state", true),
    ] {
        let internal = Topic {
            name: name.to_owned(),
            internal: true,
            ..topic(&own)
        };
        let settings = topic_settings(&image, &internal);
        assert_eq!(
            (settings.delete, settings.compact),
            (false, compact),
            "{name}"
        );
        assert!(!settings.write_caching, "{name}");
    }
    let other = topic_settings(&image, &topic(&own));
    assert!(other.delete && other.write_caching);
}
