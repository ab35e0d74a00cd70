//! A disk that is full for a while, in the middle of anything: what was decided stands, what was
//! written stays, and the log goes on when there is room.

use super::*;
use crate::base::ErrorCode;
use crate::base::dir::is_out_of_room;

/// Appends a batch and tries to write it.
fn try_put(rig: &mut Rig, batch: Bytes) -> io::Result<Appended> {
    let appended = rig.append(batch, CLIENT).unwrap();
    let written = rig.log.write_queued(&mut rig.dir, rig.now);
    rig.log.check();
    written.map(|_| appended)
}

#[test]
fn a_full_disk_stalls_the_log_until_there_is_room() {
    let mut rig = Rig::new(Config::default());
    rig.append(sequenced(7, 0, 0, 3), CLIENT).unwrap();
    rig.write();
    rig.sync();
    let file = rig.segment_files()[0].clone();
    let size = rig.dir.contents(&file).len();
    // Room for half a batch: the write is torn.
    rig.dir.capacity_bytes = Some(rig.dir.used_bytes() + 50);
    let error = try_put(&mut rig, sequenced(7, 0, 3, 3)).unwrap_err();
    assert!(is_out_of_room(&error), "{error}");
    assert_eq!(rig.dir.contents(&file).len(), size, "the torn tail is cut");
    assert!(rig.log.stalled().is_some() && rig.log.poisoned().is_none());
    assert_eq!((rig.log.written_offset(), rig.log.log_end_offset()), (3, 6));
    assert_eq!(rig.records(0, 1000).len(), 3, "consumers are served");
    assert_eq!(rig.retain(), Retained::default());
    // Clients are refused, and nothing is taken in; coordinators go on, for a while.
    let refused = rig.append(plain(1, START_MS), RELAXED).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::KafkaStorageError);
    assert!(refused.to_string().starts_with("the log cannot grow"));
    rig.append(plain(1, START_MS), Origin::Coordinator).unwrap();
    assert!(
        rig.log.write_queued(&mut rig.dir, rig.now).is_err(),
        "still"
    );
    rig.dir.capacity_bytes = None;
    rig.write();
    assert!(rig.log.stalled().is_none());
    rig.sync();
    assert_eq!((rig.log.high_watermark(), rig.log.log_end_offset()), (7, 7));
    // What was refused while it was queued is known when it is sent again.
    let again = rig.append(sequenced(7, 0, 3, 3), CLIENT).unwrap();
    assert!(again.duplicate && again.base_offset == 3);
    let rig = rig.kill().unwrap();
    assert_eq!(
        (rig.log.log_end_offset(), rig.report.bytes_truncated),
        (7, 0)
    );
}

/// A stalled log keeps at most what was on its way and what coordinators add up to a bound.
#[test]
fn the_queue_of_a_stalled_log_is_bounded() {
    let mut rig = Rig::new(Config {
        message_bytes_max: 1 << 30,
        ..Config::default()
    });
    rig.put(1);
    rig.dir.capacity_bytes = Some(rig.dir.used_bytes());
    try_put(&mut rig, plain(1, START_MS)).unwrap_err();
    let large = plain(100_000, START_MS);
    let mut taken = 0;
    while rig
        .log
        .append(rig.now, large.clone(), Origin::Coordinator)
        .is_ok()
    {
        taken += large.len();
        assert!(taken < 32 << 20);
    }
    assert!(taken > 8 << 20);
}

#[test]
fn a_log_that_failed_does_not_wait_for_room() {
    let mut rig = Rig::new(Config::default());
    rig.put(1);
    rig.dir.capacity_bytes = Some(rig.dir.used_bytes());
    try_put(&mut rig, plain(1, START_MS)).unwrap_err();
    rig.log.poison("a sync has failed".to_owned());
    assert!(rig.log.stalled().is_none() && rig.log.poisoned().is_some());
}

/// Writes a long history with a disk that is full after every possible number of bytes, once.
#[test]
fn the_disk_may_be_full_at_any_byte() {
    let live = |mut rig: Rig, capacity: Option<u64>| -> (Rig, usize) {
        rig.dir.capacity_bytes = capacity;
        let mut stalls = 0;
        for turn in 0..12 {
            let batch = sequenced(1, 0, turn * 10, 10);
            if let Err(error) = try_put(&mut rig, batch) {
                assert!(is_out_of_room(&error), "{error}");
                stalls += 1;
                rig.dir.capacity_bytes = None;
                rig.write();
            }
            if turn % 3 == 2 {
                rig.sync();
            }
        }
        rig.dir.capacity_bytes = None;
        (rig, stalls)
    };
    let (whole, _) = live(Rig::new(small()), None);
    let (bytes, expected) = (whole.dir.used_bytes(), state(&whole.log));
    assert!(whole.segment_files().len() > 2, "it rolls");
    for capacity in 0..bytes {
        let (mut rig, stalls) = live(Rig::new(small()), Some(capacity));
        assert_eq!(state(&rig.log), expected, "{capacity}");
        assert!(stalls <= 1);
        assert_eq!(rig.records(0, 500).len(), 120, "{capacity}");
        let mut dir = rig.dir.clone();
        dir.restart_machine(&mut Prng::new(capacity));
        let durable = rig.log.durable_offset();
        let rig = rig.reopen();
        assert_eq!(rig.log.log_end_offset(), 120);
        let crashed = Rig::open(dir, small(), false).unwrap();
        assert!(crashed.log.log_end_offset() >= durable, "{capacity}");
    }
}

#[test]
fn retention_makes_room_on_a_disk_without_any() {
    let mut rig = Rig::new(Config {
        retention_bytes: 0,
        ..small()
    });
    for _ in 0..12 {
        rig.put(10);
    }
    rig.sync();
    let segments = rig.segment_files().len();
    assert!(segments > 3);
    rig.dir.capacity_bytes = Some(rig.dir.used_bytes());
    try_put(&mut rig, plain(10, START_MS)).unwrap_err();
    let retained = rig.retain();
    assert_eq!(
        retained.segments as usize,
        segments - 1,
        "all but the stalled one"
    );
    rig.write();
    rig.sync();
    assert_eq!(rig.log.high_watermark(), 130);
    let start = rig.log.log_start_offset();
    let rig = rig.kill().unwrap();
    assert_eq!(
        (rig.log.log_start_offset(), rig.log.log_end_offset()),
        (start, 130)
    );
}

/// Seed 683387278341 of the simulation: the next sync missed them, and the partition went offline.
#[test]
fn indexes_that_made_no_room_are_in_memory() {
    let mut rig = Rig::new(Config {
        retention_bytes: 0,
        ..small()
    });
    for _ in 0..12 {
        rig.append(plain(10, START_MS), RELAXED).unwrap();
        rig.write();
    }
    rig.dir.capacity_bytes = Some(0);
    for _ in 0..2 {
        let error = rig.log.retain(&mut rig.dir, rig.now).unwrap_err();
        assert!(is_out_of_room(&error), "{error}");
        rig.log.check();
    }
    assert!(!rig.dir.has("00000000000000000000.index"));
    assert_eq!(rig.records(15, 1).len(), 110, "consumers are served");
    rig.sync();
    assert_eq!(rig.log.durable_offset(), 120);
    rig.dir.capacity_bytes = None;
    assert!(rig.retain().segments > 3);
    assert_eq!(rig.kill().unwrap().log.log_end_offset(), 120);
}

/// Seed 20 of the simulation: what is queued was taken for stored.
#[test]
fn retention_of_a_stalled_log_counts_what_is_stored() {
    let mut rig = Rig::new(Config {
        retention_bytes: 0,
        ..Config::default()
    });
    rig.put(1);
    rig.sync();
    rig.dir.capacity_bytes = Some(rig.dir.used_bytes());
    try_put(&mut rig, plain(10, START_MS)).unwrap_err();
    assert_eq!(rig.retain().segments, 0);
}

#[test]
fn a_segment_is_not_removed_while_its_end_is_queued() {
    let mut rig = Rig::new(Config {
        retention_ms: 100,
        ..small()
    });
    rig.put(10);
    rig.sync();
    rig.dir.capacity_bytes = Some(rig.dir.used_bytes());
    // All of it is expired, so it is to be closed: there is no room for the next one.
    rig.sleep(1000);
    for _ in 0..2 {
        assert_eq!(rig.retain().segments, 0);
        assert!(rig.log.stalled().is_some());
    }
    rig.dir.capacity_bytes = None;
    assert_eq!(rig.retain().segments, 1);
    assert!(rig.log.stalled().is_none());
    assert_eq!(
        (rig.log.log_start_offset(), rig.log.log_end_offset()),
        (10, 10)
    );
}

#[test]
fn a_checkpoint_that_finds_no_room_can_wait() {
    let mut rig = Rig::new(small());
    while rig.segment_files().len() < 3 {
        rig.put(10);
    }
    rig.dir.capacity_bytes = Some(rig.dir.used_bytes());
    let before = rig.log.checkpoint;
    rig.sync();
    assert_eq!(rig.log.checkpoint, before);
    assert_eq!(rig.log.high_watermark(), rig.log.durable_offset());
    // A deletion must be told, or it did not happen.
    let error = rig.log.delete_records(&mut rig.dir, 5).unwrap_err();
    assert_eq!(error.code(), ErrorCode::KafkaStorageError);
    assert_eq!(rig.log.log_start_offset(), 0);
    rig.dir.capacity_bytes = None;
    assert_eq!(rig.log.delete_records(&mut rig.dir, 5).unwrap(), 5);
}
