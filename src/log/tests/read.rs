//! Extents of fetches and answers of lookups.

use super::*;
use crate::base::ErrorCode;
use std::fmt::Debug;

/// Three segments of batches with 1 to 4 records, all written.
fn three_segments() -> Rig {
    let mut rig = Rig::new(small());
    for batch in 0.. {
        rig.put(1 + batch % 4);
        rig.sleep(10);
        if rig.segment_files().len() == 3 {
            break;
        }
    }
    rig.put(2);
    rig
}

fn out_of_range<T: Debug>(result: Result<T, ReadError>) {
    assert_eq!(result.unwrap_err().code(), ErrorCode::OffsetOutOfRange);
}

#[test]
fn every_offset_leads_to_its_batch() {
    let mut rig = three_segments();
    for restarted in [false, true] {
        let end = rig.log.log_end_offset();
        for offset in 0..end {
            for bytes_max in [1, 100, 150, 333, 1000, 1 << 20] {
                let extent = rig.read(offset, bytes_max).unwrap();
                let batches = rig.batches(&extent);
                let first = batches[0].0;
                assert!((first.base_offset..=first.last_offset()).contains(&offset));
                assert!(batches.len() == 1 || extent.length <= bytes_max);
            }
        }
        assert_eq!(rig.read(end, 1000), None);
        out_of_range(rig.log.read(&mut rig.dir, end + 1, 1000, true));
        out_of_range(rig.log.read(&mut rig.dir, -1, 1000, true));
        for bytes_max in [1, 200, 1 << 20] {
            let offsets: Vec<_> = rig.records(0, bytes_max).iter().map(|it| it.0).collect();
            assert_eq!(offsets, (0..end).collect::<Vec<_>>());
        }
        if !restarted {
            rig = rig.reopen();
        }
    }
}

#[test]
fn the_first_batch_comes_whole_or_not_at_all() {
    let mut rig = Rig::new(Config::default());
    rig.put(10);
    let size = plain(10, START_MS).len() as u64;
    let read = |rig: &mut Rig, bytes_max, at_least_one| {
        let extent = rig.log.read(&mut rig.dir, 5, bytes_max, at_least_one);
        extent
            .unwrap()
            .map(|extent| (extent.position, extent.length))
    };
    assert_eq!(read(&mut rig, size - 1, false), None);
    assert_eq!(read(&mut rig, size - 1, true), Some((0, size)));
    assert_eq!(read(&mut rig, size, false), Some((0, size)));
    assert_eq!(read(&mut rig, 0, true), Some((0, size)));
}

#[test]
fn nothing_is_read_beyond_the_high_watermark() {
    let mut rig = Rig::new(small());
    let mut visible = 0;
    for turn in 0..30 {
        let origin = if turn % 3 == 0 { CLIENT } else { RELAXED };
        rig.append(plain(3, START_MS), origin).unwrap();
        rig.write();
        if turn % 5 == 4 {
            rig.sync();
        }
        let high = rig.log.high_watermark();
        assert!(high >= visible);
        visible = high;
        assert_eq!(rig.records(0, 250).len() as i64, high);
        assert_eq!(rig.log.read(&mut rig.dir, high, 1000, true).unwrap(), None);
        let end = rig.log.log_end_offset();
        assert_eq!(rig.log.read(&mut rig.dir, end, 1000, true).unwrap(), None);
    }
    assert!(visible > 0);
}

#[test]
fn sequential_reading_needs_no_walk() {
    let mut rig = Rig::new(Config::default());
    for _ in 0..1000 {
        rig.put(10);
    }
    let mut offset = 0;
    let mut fetches = 0;
    rig.dir.reads = (0, 0);
    while let Some(extent) = rig.read(offset, 50_000) {
        offset = rig.batches(&extent).last().unwrap().0.next_offset();
        fetches += 1;
    }
    // Only the end of each extent is looked for, from the index entry before it.
    assert!(
        rig.dir.reads.0 <= fetches * 3 / 2,
        "{:?} {fetches}",
        rig.dir.reads
    );
    // A consumer at the end gets what comes without any reading, also if it began there.
    let mut rig = rig.reopen();
    assert_eq!(rig.read(offset, 50_000), None);
    rig.dir.reads = (0, 0);
    for _ in 0..10 {
        rig.put(1);
        let size = plain(1, START_MS).len() as u64;
        assert_eq!(rig.log.available_bytes(offset), size);
        assert_eq!(rig.read(offset, 50_000).unwrap().length, size);
        offset += 1;
    }
    assert_eq!(rig.dir.reads, (0, 0));
}

#[test]
fn the_end_of_a_read_is_taken_from_the_index_where_looking_would_wait() {
    let mut rig = three_segments();
    let warm = rig.read(0, 500).unwrap();
    rig.dir.cached = Some(0..0);
    let cold = rig.read(0, 500).unwrap();
    assert_eq!(rig.dir.cold_reads, 0);
    assert!(cold.length > 0 && cold.length <= warm.length);
    rig.batches(&cold);
    let end = rig.log.log_end_offset();
    for bytes_max in [1, 200, 500, 1 << 20] {
        let offsets: Vec<_> = rig.records(0, bytes_max).iter().map(|it| it.0).collect();
        assert_eq!(offsets, (0..end).collect::<Vec<_>>());
    }
}

#[test]
fn reading_on_after_a_cold_end_looks_at_the_next_head_only() {
    let mut rig = three_segments().reopen();
    rig.dir.cached = Some(0..0);
    let cold = rig.read(0, 500).unwrap();
    let (last, _) = rig.batches(&cold).pop().unwrap();
    // What follows the extent came into the cache with it.
    let end = cold.position + cold.length;
    rig.dir.cached = Some(end..end + 1);
    let next = rig.read(last.next_offset(), 500).unwrap();
    assert_eq!(next.position, end);
    assert_eq!(rig.dir.cold_reads, 0);
}

#[test]
fn available_bytes_are_about_right() {
    let rig = three_segments().reopen();
    let total = rig.log.size_bytes();
    let end = rig.log.log_end_offset();
    assert_eq!(rig.log.available_bytes(0), total);
    assert_eq!(rig.log.available_bytes(end), 0);
    for offset in 0..end {
        let expected = total as f64 * (end - offset) as f64 / end as f64;
        let available = rig.log.available_bytes(offset) as f64;
        assert!(
            (available - expected).abs() < 400.0,
            "{offset}: {available} {expected}"
        );
    }
}

#[test]
fn a_wrong_index_entry_only_costs_time() {
    let mut rig = three_segments();
    let name = "00000000000000000000.index";
    let mut index = rig.dir.contents(name);
    assert!(index.len() >= 16);
    // The first entry points into the middle of a batch.
    index[7] ^= 5;
    rig.dir.set(name, Some(index));
    let all = rig.log.log_end_offset();
    for offset in 0..all {
        let extent = rig.read(offset, 150).unwrap();
        let first = rig.batches(&extent)[0].0;
        assert!((first.base_offset..=first.last_offset()).contains(&offset));
    }
}

#[test]
fn a_damaged_batch_is_reported() {
    let mut rig = three_segments();
    let name = "00000000000000000000.log";
    let mut log = rig.dir.contents(name);
    log[16] = 9;
    rig.dir.set(name, Some(log));
    let read = rig.log.read(&mut rig.dir, 1, 100, true);
    assert_eq!(read.unwrap_err().code(), ErrorCode::CorruptMessage);
}

#[test]
fn timestamps_are_found_to_the_record() {
    let mut rig = Rig::new(small());
    // Timestamps that go up and down, within batches and between them.
    let times: Vec<i64> = (0..200).map(|at| START_MS + (at * 37 % 50) + at).collect();
    for (batch, times) in times.chunks(4).enumerate() {
        let codec = Codec::ALL[batch % Codec::ALL.len()];
        let mut builder = Builder::new(codec);
        for time in times {
            builder.append(*time, None, Some(b"some value that is not short"), &[]);
        }
        rig.append(builder.build(), RELAXED).unwrap();
        rig.write();
    }
    assert!(rig.segment_files().len() > 3);
    for start in [0, 57] {
        rig.log.delete_records(&mut rig.dir, start).unwrap();
        rig.retain();
        for restarted in [false, true] {
            for asked in (START_MS - 5)..(START_MS + 260) {
                let expected = (start as usize..200)
                    .find(|at| times[*at] >= asked)
                    .map(|at| (at as i64, times[at], 0));
                let found = rig.log.offset_for_timestamp(&mut rig.dir, asked).unwrap();
                assert_eq!(found, expected, "{asked} from {start}");
            }
            let latest = *times.iter().max().unwrap();
            let at = times.iter().position(|time| *time == latest).unwrap();
            let found = rig.log.offset_of_max_timestamp(&mut rig.dir).unwrap();
            assert_eq!(found, Some((at as i64, latest, 0)));
            if !restarted {
                rig = rig.reopen();
            }
        }
    }
}

#[test]
fn the_largest_timestamp_may_be_deleted_or_invisible() {
    let mut rig = Rig::new(Config::default());
    assert_eq!(rig.log.offset_of_max_timestamp(&mut rig.dir).unwrap(), None);
    for (time, origin) in [(90, RELAXED), (50, RELAXED), (60, RELAXED), (99, CLIENT)] {
        rig.append(plain(1, START_MS + time), origin).unwrap();
    }
    rig.write();
    let mut largest = |start| {
        rig.log.delete_records(&mut rig.dir, start).unwrap();
        rig.log.offset_of_max_timestamp(&mut rig.dir).unwrap()
    };
    assert_eq!(largest(0), Some((0, START_MS + 90, 0)));
    assert_eq!(largest(1), Some((2, START_MS + 60, 0)));
    rig.sync();
    let found = rig.log.offset_of_max_timestamp(&mut rig.dir).unwrap();
    assert_eq!(found, Some((3, START_MS + 99, 0)));
}

#[test]
fn epochs_answer_what_kafka_answers() {
    let mut rig = Rig::new(Config::default());
    rig.put(5);
    let mut dir = rig.close();
    let opening = Opening {
        now: Now::default(),
        clean: true,
        leader_epoch: 3,
        topic_id: TOPIC,
    };
    let mut report = Report::default();
    let mut log = Log::open(&mut dir, Config::default(), opening, &mut report).unwrap();
    assert_eq!(log.leader_epoch(), 3);
    log.append(Now::default(), plain(2, -1), RELAXED).unwrap();
    // Durable before the first batch of the epoch.
    assert_eq!(dir.contents("leader-epoch-checkpoint"), b"0\n1\n0 0\n");
    log.write_queued(&mut dir, Now::default()).unwrap();
    assert_eq!(dir.contents("leader-epoch-checkpoint"), b"0\n2\n0 0\n3 5\n");
    assert_eq!(log.end_offset_for_epoch(0), (0, 5));
    assert_eq!(log.end_offset_for_epoch(2), (0, 5));
    assert_eq!(log.end_offset_for_epoch(3), (3, 7));
    assert_eq!(log.end_offset_for_epoch(4), (-1, -1));
    assert_eq!((log.epoch_at(4), log.epoch_at(5)), (0, 3));
    // A caller that knows less does not take the epoch back.
    log.close(&mut dir, Now::default()).unwrap();
    let opening = Opening {
        leader_epoch: 1,
        ..opening
    };
    let log = Log::open(&mut dir, Config::default(), opening, &mut report).unwrap();
    assert_eq!(log.leader_epoch(), 3);
}

#[test]
fn epochs_follow_the_bounds_of_the_log() {
    let open = |dir: &mut TestDir, clean, leader_epoch| {
        let opening = Opening {
            now: Now::default(),
            clean,
            leader_epoch,
            topic_id: TOPIC,
        };
        Log::open(dir, small(), opening, &mut Report::default()).unwrap()
    };
    let mut rig = Rig::new(small());
    rig.put(5);
    let file = rig.log.active().file.clone();
    let mut dir = rig.close();
    let mut log = open(&mut dir, true, 3);
    assert_eq!(log.leader_epoch(), 3);
    log.append(Now::default(), plain(4, -1), RELAXED).unwrap();
    log.write_queued(&mut dir, Now::default()).unwrap();
    // The batch of epoch 3 is lost, and with it the epoch.
    let mut lost = dir.clone();
    let mut contents = lost.contents(&file);
    contents.pop();
    lost.set(&file, Some(contents));
    let mut cut = open(&mut lost, false, 1);
    assert_eq!(cut.leader_epoch(), 1);
    cut.append(Now::default(), plain(1, -1), RELAXED).unwrap();
    cut.write_queued(&mut lost, Now::default()).unwrap();
    assert_eq!(
        lost.contents("leader-epoch-checkpoint"),
        b"0\n2\n0 0\n1 5\n"
    );
    // The records of epoch 0 are deleted, and with them the epoch.
    log.delete_records(&mut dir, 7).unwrap();
    assert_eq!(log.end_offset_for_epoch(0), (0, 7));
    log.close(&mut dir, Now::default()).unwrap();
    assert_eq!(open(&mut dir, true, 3).end_offset_for_epoch(0), (0, 7));
}
