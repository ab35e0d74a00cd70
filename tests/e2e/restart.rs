//! What is there after a stop: records, topics, settings, with any number of shards.

use crate::broker::{Broker, batch};
use forebay::base::ErrorCode;
use forebay::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use forebay::wire::messages::metadata::MetadataRequest;

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
