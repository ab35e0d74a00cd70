//! The bytes in the log: those of Apache Kafka 4.3.1, read from its `__consumer_offsets`.

use super::*;
use crate::group::records;

/// A group whose first member was sent back for its id.
const BIRTH: (&str, &str) = (
    "0002000867302d3136323630",
    "0003000000000000ffffffff000001a1fe8c004e00000000",
);
/// Group `g101-24025`, generation 2, protocol `b`, one static member `s0` that leads.
const STABLE: (&str, &str) = (
    "0002000a673130312d3234303235",
    "000300056f7468657200000002000162002773302d64666438303461312d366366332d343365352d616330642d3838\
     33363061353633353565000001a1fe930e4300000001002773302d64666438303461312d366366332d343365352d61\
     6330642d383833363061353633353565000273300006636c69656e74000a2f3132372e302e302e310001d4c00000ea\
     600000000e0000000000010001750000000162000000056173322d35",
);
/// Offset 2 of partition 0 of `t`, with the topic's id.
const OFFSET: (&str, &str) = (
    "0001000867342d313933323100017400000000",
    "000400000000000000000000000204787878000001a1fe8f37c9010010b5a16078abd24f32a61e9fd5f555a3be",
);
/// Offset 7, to be kept for one day.
const OFFSET_WITH_EXPIRY: (&str, &str) = (
    "0001000372657400017400000000",
    "0001000000000000000700046e6f7465000001a1fe959071000001a203bbec71",
);

fn bytes(hex: &str) -> Bytes {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn decoded((key, value): (&str, &str)) -> Stored {
    records::decode(bytes(key), Some(bytes(value))).expect("a record of Kafka")
}

#[test]
fn what_kafka_wrote_is_written_again_byte_by_byte() {
    for record in [BIRTH, STABLE, OFFSET, OFFSET_WITH_EXPIRY] {
        let again = match decoded(record) {
            Stored::Group(group_id, value) => records::group(&group_id, value.as_ref()),
            Stored::Offset(key, value) => {
                records::offset(&key.group, &key.topic, key.partition, value.as_ref())
            }
            Stored::Other => panic!("ours"),
        };
        assert_eq!(again, (bytes(record.0), Some(bytes(record.1))));
    }
}

#[test]
fn what_kafka_wrote_is_understood() {
    let Stored::Group(group_id, Some(group)) = decoded(STABLE) else {
        panic!("a group")
    };
    assert_eq!((group_id.as_str(), group.generation), ("g101-24025", 2));
    assert_eq!(group.protocol_type, "other");
    assert_eq!(group.protocol.as_deref(), Some("b"));
    assert_eq!(group.leader.as_ref(), Some(&group.members[0].member_id));
    let member = &group.members[0];
    assert_eq!(member.group_instance_id.as_deref(), Some("s0"));
    assert_eq!(
        (&*member.client_id, &*member.client_host),
        ("client", "/127.0.0.1")
    );
    assert_eq!(
        (member.rebalance_timeout, member.session_timeout),
        (120_000, 60_000)
    );
    assert_eq!(member.assignment, "as2-5");
    let Stored::Offset(key, Some(value)) = decoded(OFFSET) else {
        panic!("an offset")
    };
    assert_eq!((&*key.topic, key.partition), ("t", 0));
    assert_eq!(
        (value.offset, value.leader_epoch, &*value.metadata),
        (0, 2, "xxx")
    );
    assert_ne!(value.topic_id, TopicId::ZERO);
    let Stored::Offset(_, Some(value)) = decoded(OFFSET_WITH_EXPIRY) else {
        panic!("an offset")
    };
    assert_eq!(value.expire_timestamp - value.commit_timestamp, 86_400_000);
}

#[test]
fn a_coordinator_takes_over_the_groups_of_kafka() {
    let mut coordinator = Coordinator::new(Config::default(), 1);
    for (key, value) in [BIRTH, STABLE, OFFSET, OFFSET_WITH_EXPIRY] {
        let replayed = coordinator.replay(bytes(key), Some(bytes(value)));
        replayed.expect("a record of Kafka");
    }
    coordinator.on_loaded(Now::default());
    coordinator.check();
    let states = coordinator.groups.values().map(Group::state);
    assert_eq!(
        states.collect::<Vec<_>>(),
        [State::Empty, State::Stable, State::Empty, State::Empty]
    );
}

#[test]
fn older_versions_are_read() {
    // Offset 5, metadata "m", time 9; and the time 10 at which it expires.
    let plain = "0000000000000000000500016d0000000000000009";
    let expiring = "0001000000000000000500016d0000000000000009000000000000000a";
    let with_epoch = "000300000000000000050000000200016d0000000000000009";
    for (value, epoch, expire) in [(plain, -1, -1), (expiring, -1, 10), (with_epoch, 2, -1)] {
        for key in [OFFSET.0.to_owned(), OFFSET.0.replacen("0001", "0000", 1)] {
            let Stored::Offset(_, Some(offset)) = decoded((&key, value)) else {
                panic!("an offset")
            };
            assert_eq!((offset.offset, offset.leader_epoch), (5, epoch));
            assert_eq!(
                (offset.expire_timestamp, offset.commit_timestamp),
                (expire, 9)
            );
        }
    }
    // Version 0 of a group knows neither times, rebalance timeouts nor instance ids.
    let group =
        "0000000163000000030001720001610000000100016100016300016800001388000000016d0000000178";
    let Stored::Group(_, Some(group)) = decoded((BIRTH.0, group)) else {
        panic!("a group")
    };
    assert_eq!((group.generation, group.current_state_timestamp), (3, -1));
    assert_eq!(group.members[0].rebalance_timeout, -1);
    let mut coordinator = Coordinator::new(Config::default(), 1);
    let (key, value) = records::group(GROUP, Some(&group));
    coordinator.replay(key, value).expect("a record");
    assert_eq!(coordinator.groups[GROUP].rebalance_timeout_ms(), 5_000);
}

#[test]
fn records_of_other_kinds_of_groups_are_left_alone() {
    let mut coordinator = Coordinator::new(Config::default(), 1);
    for key_type in [3_u8, 8, 16, 23] {
        let key = Bytes::from(vec![0, key_type, 0, 1, b'g']);
        coordinator
            .replay(key, Some(Bytes::from_static(b"?")))
            .expect("skipped");
    }
    assert!(coordinator.groups.is_empty());
}

#[test]
fn malformed_records_change_nothing() {
    for (key, value) in [BIRTH, STABLE, OFFSET, OFFSET_WITH_EXPIRY] {
        let (key, value) = (bytes(key), bytes(value));
        let mut coordinator = Coordinator::new(Config::default(), 1);
        for end in 0..key.len() {
            let replayed = coordinator.replay(key.slice(..end), Some(value.clone()));
            replayed.expect_err("cut key");
        }
        for end in 0..value.len() {
            let replayed = coordinator.replay(key.clone(), Some(value.slice(..end)));
            replayed.expect_err("cut value");
        }
        assert!(coordinator.groups.is_empty());
    }
}

#[test]
fn a_tombstone_of_a_group_leaves_its_offsets_to_their_own() {
    let mut f = Fixture::new();
    f.commit("", -1);
    let (key, value) = records::group(GROUP, None);
    f.coordinator.replay(key, value).expect("a tombstone");
    f.coordinator.check();
    assert_eq!(f.state(), State::Empty);
    assert_eq!(f.coordinator.groups[GROUP].offsets.len(), 1);
}
