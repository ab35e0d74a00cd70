//! The log is the state: replay gives the same image, and damaged logs are refused.

use super::*;
use crate::base::TopicId;
use crate::base::prng::Prng;
use crate::wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use crate::wire::messages::delete_topics::DeleteTopicsRequest;
use crate::wire::messages::incremental_alter_configs as incremental;
use crate::wire::records::encode_metadata;

/// A random request; its records.
fn random_decision(catalog: &mut Catalog, prng: &mut Prng) -> Vec<Bytes> {
    let name = format!("t{}", prng.below(6));
    let size = prng.below(8) as i32;
    match prng.below(5) {
        0 => {
            let topics = vec![
                configured(&name, &[("flush.ms", "5")]),
                named("fixed", size),
            ];
            catalog
                .create_topics(&CreateTopicsRequest {
                    topics,
                    ..Default::default()
                })
                .0
        }
        1 => {
            let topic_names = vec![name];
            let request = DeleteTopicsRequest {
                topic_names,
                ..Default::default()
            };
            catalog.delete_topics(&request, 1).0
        }
        2 => {
            let topics = vec![CreatePartitionsTopic {
                name,
                count: size,
                assignments: None,
            }];
            let request = CreatePartitionsRequest {
                topics,
                ..Default::default()
            };
            catalog.create_partitions(&request).0
        }
        3 => catalog.auto_create(&[name]).0,
        _ => {
            let (resource_type, resource_name, setting) = match prng.below(3) {
                0 => (2, name, "retention.ms"),
                1 => (4, String::new(), "log.retention.ms"),
                _ => (4, "1".to_owned(), "log.roll.ms"),
            };
            let configs = vec![incremental::AlterableConfig {
                name: setting.to_owned(),
                config_operation: prng.below(2) as i8,
                value: Some((prng.below(3) + 1).to_string()),
            }];
            let resource = incremental::AlterConfigsResource {
                resource_type,
                resource_name,
                configs,
            };
            let request = incremental::IncrementalAlterConfigsRequest {
                resources: vec![resource],
                ..Default::default()
            };
            catalog.incremental_alter_configs(&request).0
        }
    }
}

fn replayed(log: &[Bytes]) -> Catalog {
    let mut catalog = Catalog::new(identity(), 99);
    log.iter()
        .for_each(|record| catalog.replay(record.clone()).unwrap());
    catalog
}

#[test]
fn replay_gives_the_live_state_after_every_step() {
    for seed in 0..20 {
        let mut prng = Prng::new(seed);
        let mut catalog = Catalog::new(identity(), seed);
        let mut log = Vec::new();
        for _ in 0..40 {
            let before = catalog.image();
            let records = random_decision(&mut catalog, &mut prng);
            assert_eq!(
                catalog.image(),
                before,
                "a decision changes nothing by itself"
            );
            log.extend(records.iter().cloned());
            commit(&mut catalog, (records, ()));
            assert_eq!(replayed(&log).image(), catalog.image(), "seed {seed}");
        }
        assert!(catalog.image().topics().len() > 1);
    }
}

#[test]
fn records_are_what_kafka_writes() {
    let mut catalog = catalog();
    let request = CreateTopicsRequest {
        topics: vec![configured("m1", &[("retention.ms", "1000")])],
        ..Default::default()
    };
    let (records, response) = catalog.create_topics(&request);
    let id = response.topics[0].topic_id.0.into_bytes();
    let topic = [b"\x01\x02\x00\x03m1".as_slice(), &id, b"\0"].concat();
    let config = b"\x01\x04\x00\x02\x03m1\x0dretention.ms\x051000\0".as_slice();
    let partition = [
        b"\x01\x03\x02\0\0\0\0".as_slice(),
        &id,
        // Replicas, in sync, none removing, none adding; leader; both epochs; directory.
        b"\x02\0\0\0\x01\x02\0\0\0\x01\x01\x01\0\0\0\x01\0\0\0\0\0\0\0\0\x02",
        &[0; 16],
        b"\0",
    ]
    .concat();
    assert_eq!(records, [&topic[..], config, &partition]);
    let sizes: Vec<_> = records.iter().map(Bytes::len).collect();
    assert_eq!(
        sizes,
        [23, 26, 65],
        "valueSize of the same records in Kafka's log"
    );
}

#[test]
fn damaged_records_are_refused_and_change_nothing() {
    let mut catalog = with_topic();
    let before = catalog.image();
    let id = before.topic("t").unwrap().id;
    let setting = |resource_type, resource_name: &str| ConfigRecord {
        resource_type,
        resource_name: resource_name.to_owned(),
        name: "retention.ms".to_owned(),
        value: Some("1".to_owned()),
    };
    let partition = |topic_id, partition_id| PartitionRecord {
        partition_id,
        topic_id,
        ..Default::default()
    };
    let other = TopicId(uuid::Uuid::from_u128(5));
    let topic = |name: &str, topic_id| TopicRecord {
        name: name.to_owned(),
        topic_id,
    };
    let beyond = ProducerIdsRecord {
        next_producer_id: i64::MAX,
        ..Default::default()
    };
    let bad = [
        encode_metadata(&beyond, 0),
        encode_metadata(&topic("t", other), 0),
        encode_metadata(&topic("u", id), 0),
        encode_metadata(&partition(other, 0), 2),
        encode_metadata(&partition(id, 1), 2),
        encode_metadata(&partition(id, 3), 2),
        encode_metadata(&RemoveTopicRecord { topic_id: other }, 0),
        encode_metadata(&setting(2, "u"), 0),
        encode_metadata(&setting(16, "t"), 0),
        Bytes::from_static(b"\x01\x7f\x00"),
        Bytes::from_static(b"\x02\x02\x00\x02t"),
    ];
    for record in bad {
        assert!(catalog.replay(record.clone()).is_err(), "{record:?}");
    }
    let good = [
        encode_metadata(&topic("u", other), 0),
        encode_metadata(&partition(id, 2), 2),
        encode_metadata(&setting(2, "t"), 0),
    ];
    for record in &good {
        for length in 0..record.len() {
            assert!(
                catalog.replay(record.slice(..length)).is_err(),
                "cut at {length}"
            );
        }
    }
    assert_eq!(catalog.image(), before);
    good.into_iter()
        .for_each(|record| catalog.replay(record).unwrap());
}

#[test]
fn ids_are_new_even_for_the_same_name() {
    let mut catalog = with_topic();
    let old = catalog.image();
    let request = DeleteTopicsRequest {
        topic_names: vec!["t".to_owned()],
        ..Default::default()
    };
    let decision = catalog.delete_topics(&request, 1);
    commit(&mut catalog, decision);
    create(&mut catalog, vec![named("t", 1)]);
    let new = catalog.image();
    let (before, after) = (old.topic("t").unwrap(), new.topic("t").unwrap());
    assert_ne!(before.id, after.id);
    let changes = new.changes_since(&old);
    assert_eq!(
        (changes.removed, changes.changed),
        (vec![before.clone()], vec![after.clone()])
    );
}

#[test]
fn changes_name_what_a_shard_must_do() {
    let mut catalog = with_topic();
    create(&mut catalog, vec![named("other", 1)]);
    let old = catalog.image();
    assert_eq!(old.changes_since(&old), Changes::default());
    let grow = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: "t".to_owned(),
            count: 3,
            assignments: None,
        }],
        ..Default::default()
    };
    let decision = catalog.create_partitions(&grow);
    commit(&mut catalog, decision);
    let new = catalog.image();
    let expected = Changes {
        changed: vec![new.topic("t").unwrap().clone()],
        ..Default::default()
    };
    assert_eq!(new.changes_since(&old), expected);
    let record = ConfigRecord {
        resource_type: 4,
        name: "log.retention.ms".to_owned(),
        value: Some("1".to_owned()),
        ..Default::default()
    };
    catalog.replay(encode_metadata(&record, 0)).unwrap();
    assert!(catalog.image().changes_since(&new).settings);
    assert_eq!(
        old.topic("t").unwrap().partitions,
        2,
        "an image never changes"
    );
}

#[test]
fn topics_can_be_listed_from_a_name_on() {
    let mut catalog = catalog();
    create(
        &mut catalog,
        vec![named("c", 1), named("a", 1), named("b", 1)],
    );
    let image = catalog.image();
    let names: Vec<_> = image
        .topics_from("b")
        .map(|topic| topic.name.as_str())
        .collect();
    assert_eq!(names, ["b", "c"]);
}
