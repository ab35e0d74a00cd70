//! Retention by time and size, deletion of records, expiry of producers.

use super::*;
use crate::base::ErrorCode;

/// Batches a second apart, two per segment.
fn hourglass(config: Config) -> Rig {
    let mut rig = Rig::new(Config {
        segment_bytes: 2 * plain(1, START_MS).len() as u64,
        ..config
    });
    for _ in 0..7 {
        rig.put(1);
        rig.sleep(1000);
    }
    assert_eq!(rig.segment_files().len(), 4);
    rig
}

#[test]
fn old_segments_go_by_their_largest_timestamp() {
    let mut rig = hourglass(Config {
        retention_ms: 6000,
        ..small()
    });
    // Segment [0, 2) has records of 7 and 6 seconds ago: not older than 6.
    assert_eq!(rig.retain().segments, 0);
    rig.sleep(1);
    let retained = rig.retain();
    assert_eq!((retained.segments, rig.log.log_start_offset()), (1, 2));
    assert_eq!(retained.bytes, 2 * plain(1, START_MS).len() as u64);
    assert!(
        rig.dir
            .file_names()
            .iter()
            .all(|name| !name.starts_with("00000000000000000000"))
    );
    let read = rig.log.read(&mut rig.dir, 1, 1000, true);
    assert_eq!(read.unwrap_err().code(), ErrorCode::OffsetOutOfRange);
    assert_eq!(rig.records(2, 1000).len(), 5);
}

#[test]
fn an_expired_active_segment_is_closed_first() {
    let mut rig = hourglass(Config {
        retention_ms: 6000,
        ..small()
    });
    rig.sleep(100_000);
    assert_eq!(rig.retain().segments, 4);
    assert_eq!(rig.segment_files(), ["00000000000000000007.log"]);
    assert_eq!(
        (rig.log.log_start_offset(), rig.log.log_end_offset()),
        (7, 7)
    );
    assert_eq!(rig.retain(), Retained::default());
    assert_eq!(rig.read(7, 1000), None);
    rig.put(1);
    rig.sync();
    assert_eq!(rig.records(7, 1000).len(), 1);
    let rig = rig.kill().unwrap();
    assert_eq!(
        (rig.log.log_start_offset(), rig.log.log_end_offset()),
        (7, 8)
    );
}

#[test]
fn segments_without_timestamps_count_from_their_last_write() {
    let mut rig = Rig::new(Config {
        retention_ms: 1000,
        ..Config::default()
    });
    rig.append(plain(1, -1), RELAXED).unwrap();
    rig.write();
    rig.sleep(1000);
    assert_eq!(rig.retain().segments, 0);
    rig.sleep(1);
    assert_eq!(rig.retain().segments, 1);
}

#[test]
fn size_keeps_at_least_the_limit() {
    let batch = plain(1, START_MS).len() as i64;
    for (retention_bytes, kept) in [(7 * batch, 4), (6 * batch, 4), (5 * batch, 3), (0, 1)] {
        let mut rig = hourglass(Config {
            retention_bytes,
            ..small()
        });
        rig.retain();
        assert_eq!(rig.segment_files().len(), kept, "{retention_bytes}");
    }
}

#[test]
fn only_what_is_visible_goes() {
    let mut rig = Rig::new(Config {
        retention_ms: 10,
        ..small()
    });
    rig.append(plain(1, START_MS), CLIENT).unwrap();
    rig.write();
    rig.sleep(1000);
    assert_eq!(rig.retain().segments, 0);
    rig.sync();
    assert_eq!(rig.retain().segments, 1);
}

#[test]
fn compaction_alone_keeps_everything() {
    let mut rig = Rig::new(Config {
        retention_ms: 10,
        retention_bytes: 0,
        cleanup_delete: false,
        ..small()
    });
    rig.put(1);
    rig.sleep(1000);
    assert_eq!(rig.retain().segments, 0);
}

#[test]
fn deleting_records_moves_the_start_and_files_follow() {
    let mut rig = hourglass(small());
    let delete = |rig: &mut Rig, before| {
        let result = rig.log.delete_records(&mut rig.dir, before);
        rig.log.check();
        result.map_err(|error| error.code())
    };
    assert_eq!(delete(&mut rig, 3), Ok(3));
    assert_eq!(delete(&mut rig, 1), Ok(3));
    assert_eq!(delete(&mut rig, 8), Err(ErrorCode::OffsetOutOfRange));
    assert_eq!(delete(&mut rig, -2), Err(ErrorCode::OffsetOutOfRange));
    let read = rig.log.read(&mut rig.dir, 2, 1000, true);
    assert_eq!(read.unwrap_err().code(), ErrorCode::OffsetOutOfRange);
    // The batch that holds the offset comes whole.
    assert!(rig.read(3, 1000).is_some());
    assert_eq!(rig.retain().segments, 1);
    assert_eq!(rig.segment_files()[0], "00000000000000000002.log");
    let mut rig = rig.kill().unwrap();
    assert_eq!(rig.log.log_start_offset(), 3);
    assert_eq!(delete(&mut rig, -1), Ok(7));
    assert_eq!(rig.read(7, 1000), None);
    let rig = rig.reopen();
    assert_eq!(
        (rig.log.log_start_offset(), rig.log.log_end_offset()),
        (7, 7)
    );
}

#[test]
fn the_start_is_durable_before_a_file_goes() {
    let mut rig = hourglass(Config {
        retention_bytes: 0,
        ..small()
    });
    rig.dir.fail_next("replace", "forebay-checkpoint");
    assert!(rig.log.retain(&mut rig.dir, rig.now).is_err());
    // The fifth is the new active one.
    assert_eq!(rig.segment_files().len(), 5);
}

#[test]
fn producers_expire_with_retention() {
    let mut rig = Rig::new(Config {
        producer_id_expiration_ms: 1000,
        ..small()
    });
    rig.append(sequenced(7, 0, 0, 1), RELAXED).unwrap();
    rig.sleep(999);
    assert_eq!(rig.retain().producers, 0);
    rig.sleep(1);
    assert_eq!(rig.retain().producers, 1);
    // Any sequence is welcome again.
    let appended = rig.append(sequenced(7, 0, 50, 1), RELAXED).unwrap();
    assert!(!appended.duplicate);
}
