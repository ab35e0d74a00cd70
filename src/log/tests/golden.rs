//! Directories as they lay on disk once: one from Apache Kafka 4.3.1 and one of ours. The first
//! must open, the second must also be written again to the byte.

use super::*;
use std::path::Path;

fn load(name: &str) -> TestDir {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let mut dir = TestDir::default();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let contents = std::fs::read(entry.path()).unwrap();
        dir.set(entry.file_name().to_str().unwrap(), Some(contents));
    }
    // Of the topic that the tests open.
    let metadata = format!("version: 0\ntopic_id: {TOPIC}");
    dir.set("partition.metadata", Some(metadata.into_bytes()));
    dir
}

/// Written with index.interval.bytes=200: for each codec a producer sent 12 records in batches of
/// one or two, seconds apart.
#[test]
fn a_directory_from_kafka() {
    let kafka = load("log-kafka-4.3.1");
    let config = Config {
        index_interval_bytes: 200,
        ..Config::default()
    };
    let mut rig = Rig::open(kafka.clone(), config, false).unwrap();
    assert_eq!(rig.report.repairs, Vec::<String>::new());
    assert_eq!((rig.report.segments, rig.log.log_end_offset()), (5, 60));
    let mut values = rig.records(0, 1 << 20).into_iter().map(|record| record.1);
    for codec in Codec::ALL {
        for number in 1..=12 {
            assert_eq!(values.next().unwrap(), format!("value-{codec}-{number}"));
        }
    }
    // The indexes of all segments are built anew, as Kafka built them.
    rig.log.close(&mut rig.dir, rig.now).unwrap();
    for name in kafka.file_names() {
        if !name.ends_with(".snapshot") {
            assert_eq!(rig.dir.contents(&name), kafka.contents(&name), "{name}");
        }
    }
    // Kafka's snapshot at the end knows what replaying the batches gives.
    let snapshot = kafka.contents("00000000000000000060.snapshot");
    let producers = snapshot::decode(&snapshot, rig.now.mono).unwrap();
    let live: Vec<_> = rig.log.producers().collect();
    assert_eq!(producers.infos().collect::<Vec<_>>(), live);
    assert_eq!(live.len(), 5);
    // A retry after the move is recognised.
    let (id, last) = (live[0].producer_id, live[0].last_sequence);
    let again = rig.append(sequenced(id, 0, last, 1), CLIENT).unwrap();
    assert!(again.duplicate);
}

/// The life that the second directory comes from.
fn life() -> TestDir {
    let mut rig = Rig::new(small());
    for turn in 0..18 {
        let batch = sequenced(turn % 2, 0, turn as i32 / 2 * 3, 3);
        rig.append(batch, CLIENT).unwrap();
        rig.write();
    }
    rig.sync();
    rig.log.delete_records(&mut rig.dir, 4).unwrap();
    rig.close()
}

#[test]
fn a_directory_of_ours() {
    let golden = load("log-forebay-1");
    let written = life();
    assert_eq!(written.file_names(), golden.file_names());
    for name in golden.file_names() {
        assert_eq!(written.contents(&name), golden.contents(&name), "{name}");
    }
    for clean in [true, false] {
        let mut rig = Rig::open(golden.clone(), small(), clean).unwrap();
        assert_eq!(rig.report.repairs, Vec::<String>::new());
        assert_eq!(
            (rig.log.log_start_offset(), rig.log.log_end_offset()),
            (4, 54)
        );
        assert_eq!(rig.records(4, 1 << 20).len(), 50);
    }
}
