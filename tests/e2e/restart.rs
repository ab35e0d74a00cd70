//! What is there after a stop: records, topics, settings, with any number of shards.

use crate::broker::{Broker, Raw, batch};
use forebay::base::ErrorCode;
use forebay::base::placement::coordinator_partition;
use forebay::batch::{Builder, Codec};
use forebay::wire::messages::delete_topics::DeleteTopicsRequest;
use forebay::wire::messages::find_coordinator::FindCoordinatorRequest;
use forebay::wire::messages::list_groups::ListGroupsRequest;
use forebay::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use forebay::wire::messages::metadata::MetadataRequest;
use forebay::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn end_offset(broker: &Broker, topic: &str, partition: i32) -> i64 {
    let partition = ListOffsetsPartition {
        partition_index: partition,
        timestamp: -1,
        ..ListOffsetsPartition::default()
    };
    let topic = ListOffsetsTopic {
        name: topic.to_owned(),
        partitions: vec![partition],
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..ListOffsetsRequest::default()
    };
    let response = broker.connect().ask(5, &request);
    let partition = &response.topics[0].partitions[0];
    assert_eq!(partition.error_code, ErrorCode::None);
    partition.offset
}

#[test]
fn directories_of_others_are_left_alone() {
    let others = ["lost+found", "backup", "photos-delete"];
    let mut broker = Broker::start(1, "auto");
    broker.connect().create_topic("kept", 1);
    let path = broker.dir.path().to_owned();
    broker.restart_after(1, "auto", |path| {
        for name in others.iter().chain(&["gone-0"]) {
            fs::create_dir(path.join(name)).unwrap();
            fs::write(path.join(name).join("file"), "x").unwrap();
        }
    });
    broker.restart(1, "auto");
    for name in others {
        assert!(path.join(name).join("file").exists(), "{name}");
    }
    assert!(!path.join("gone-0").exists(), "no topic owns it");
}

#[test]
fn records_and_topics_survive_with_another_number_of_shards() {
    let mut broker = Broker::start(2, "auto");
    let mut raw = broker.connect();
    raw.create_topic("kept", 6);
    for partition in 0..6 {
        for _ in 0..=partition {
            raw.produce("kept", partition, batch(&[b"a", b"b"]));
        }
    }
    let before = raw.ask(12, &MetadataRequest::default());
    drop(raw);
    for (shards, io) in [(1, "posix"), (4, "auto"), (3, "posix"), (2, "auto")] {
        broker.restart(shards, io);
        for partition in 0..6 {
            assert_eq!(
                end_offset(&broker, "kept", partition),
                2 * i64::from(partition + 1)
            );
        }
        let after = broker.connect().ask(12, &MetadataRequest::default());
        assert_eq!(after.topics, before.topics, "ids and epochs stay");
        assert_eq!(after.cluster_id, before.cluster_id);
    }
}

#[test]
fn a_data_directory_has_one_owner() {
    let broker = Broker::start(1, "auto");
    let args = forebay::config::ServeArgs {
        listen: Some("127.0.0.1:0".to_owned()),
        data_dir: Some(broker.dir.path().display().to_string()),
        ..Default::default()
    };
    let config = forebay::config::Config::from_sources(&args, []).unwrap();
    let refused = forebay::server::Server::start(&config).err().unwrap();
    assert!(
        refused.to_string().contains("in use by another process"),
        "{refused}"
    );
}

#[test]
fn a_busy_port_is_refused_before_anything_is_touched() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let args = forebay::config::ServeArgs {
        listen: Some(taken.local_addr().unwrap().to_string()),
        data_dir: Some(data.display().to_string()),
        ..Default::default()
    };
    let config = forebay::config::Config::from_sources(&args, []).unwrap();
    let refused = forebay::server::Server::start(&config).err().unwrap();
    assert!(
        refused.to_string().contains("choose another port"),
        "{refused}"
    );
    assert!(!data.exists());
}

/// Contents of all files of a directory.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    };
    entries.map(file).collect()
}

/// A broker with segments of one MiB and three and a half of them in `logs-0`, a record in `logs-1`.
fn with_segments() -> (Broker, Raw) {
    let broker = Broker::with(&["log.segment.bytes=1048576"]);
    let mut raw = broker.connect();
    raw.create_topic("logs", 2);
    let value = vec![7; 500_000];
    for _ in 0..7 {
        let produced = raw.produce("logs", 0, batch(&[&value]));
        assert_eq!(produced.error_code, ErrorCode::None);
    }
    raw.produce("logs", 1, batch(&[b"a"]));
    (broker, raw)
}

#[test]
fn a_partition_with_a_missing_segment_is_refused_and_the_others_serve() {
    let (mut broker, raw) = with_segments();
    drop(raw);
    let dir = broker.dir.path().join("logs-0");
    let mut whole = BTreeMap::new();
    broker.restart_after(2, "auto", |_| {
        whole = contents(&dir);
        let middle = whole.keys().filter(|name| name.ends_with(".log")).nth(1);
        fs::remove_file(dir.join(middle.unwrap())).unwrap();
    });
    let mut raw = broker.connect();
    let refused = raw.produce("logs", 0, batch(&[b"b"]));
    assert_eq!(refused.error_code, ErrorCode::KafkaStorageError);
    let why = refused.error_message.unwrap();
    assert!(
        why.contains("offline") && why.contains("cannot be opened"),
        "{why}"
    );
    let served = raw.produce("logs", 1, batch(&[b"b"]));
    assert_eq!(
        (served.error_code, served.base_offset),
        (ErrorCode::None, 1)
    );
    drop(raw);
    // Nothing else was touched: with the segment back in its place all is as before.
    broker.restart_after(2, "auto", |_| {
        for (name, contents) in contents(&dir) {
            assert!(whole[&name] == contents, "{name} was changed");
        }
        for (name, contents) in &whole {
            fs::write(dir.join(name), contents).unwrap();
        }
    });
    assert_eq!(end_offset(&broker, "logs", 0), 7);
    assert_eq!(end_offset(&broker, "logs", 1), 2);
}

/// The error of a look for the coordinator of a group.
fn coordinator(raw: &mut Raw, group_id: &str) -> ErrorCode {
    let request = FindCoordinatorRequest {
        key: group_id.to_owned(),
        ..FindCoordinatorRequest::default()
    };
    raw.ask(3, &request).error_code
}

#[test]
fn groups_that_cannot_be_loaded_have_no_coordinator_and_others_go_on() {
    let mut broker = Broker::start(1, "auto");
    let mut raw = broker.connect();
    raw.create_topic("t", 1);
    assert_eq!(coordinator(&mut raw, "g"), ErrorCode::None);
    let topic = OffsetCommitRequestTopic {
        name: "t".to_owned(),
        partitions: vec![OffsetCommitRequestPartition::default()],
        ..OffsetCommitRequestTopic::default()
    };
    let commit = OffsetCommitRequest {
        group_id: "g".to_owned(),
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    let committed = raw.ask(7, &commit);
    assert_eq!(
        committed.topics[0].partitions[0].error_code,
        ErrorCode::None
    );
    drop(raw);
    broker.restart_after(1, "auto", |dir| {
        let partition = coordinator_partition("g", 50);
        let log = format!("__consumer_offsets-{partition}/00000000000000000000.log");
        let mut builder = Builder::new(Codec::None);
        builder.set_base_offset(1);
        builder.set_partition_leader_epoch(0);
        // The key of an offset, cut off.
        builder.append(0, Some(&[0, 1, 0]), None, &[]);
        let mut bytes = fs::read(dir.join(&log)).unwrap();
        bytes.extend(builder.build());
        fs::write(dir.join(&log), bytes).unwrap();
        fs::remove_file(dir.join(".kafka_cleanshutdown")).unwrap();
    });
    let mut raw = broker.connect();
    let unavailable = ErrorCode::CoordinatorNotAvailable;
    assert_eq!(coordinator(&mut raw, "g"), unavailable);
    assert_eq!(coordinator(&mut raw, "h"), ErrorCode::None);
    let groups = raw.ask(4, &ListGroupsRequest::default());
    assert_eq!(groups.error_code, ErrorCode::None);
}

#[test]
fn a_refused_partition_goes_with_its_topic() {
    let (mut broker, raw) = with_segments();
    drop(raw);
    let dir = broker.dir.path().join("logs-0");
    broker.restart_after(2, "auto", |_| {
        fs::remove_file(dir.join("00000000000000000000.log")).unwrap();
    });
    let request = DeleteTopicsRequest {
        topic_names: vec!["logs".to_owned()],
        timeout_ms: 10_000,
        ..DeleteTopicsRequest::default()
    };
    let deleted = broker.connect().ask(5, &request);
    assert_eq!(deleted.responses[0].error_code, ErrorCode::None);
    assert!(!dir.exists());
    broker.connect().create_topic("logs", 2);
    let produced = broker.connect().produce("logs", 0, batch(&[b"new"]));
    assert_eq!(
        (produced.error_code, produced.base_offset),
        (ErrorCode::None, 0)
    );
}
