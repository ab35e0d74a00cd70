//! The decision table of `recovery.rs`, a test per row, and that recovered state is live state.

use super::*;

const FIRST: &str = "00000000000000000000.log";

/// A log with some segments of batches of three records, all synced: [0, 9) [9, 18) ...
fn segments(count: usize) -> Rig {
    let mut rig = Rig::new(small());
    for batch in 0.. {
        rig.append(sequenced(batch % 3, 0, batch as i32 / 3 * 3, 3), CLIENT)
            .unwrap();
        rig.write();
        if rig.segment_files().len() == count && rig.log.active().size_bytes > 500 {
            break;
        }
    }
    rig.sync();
    rig
}

/// The same, of which only the first segment is durable.
fn unsynced_segments(count: usize) -> Rig {
    let mut rig = Rig::new(small());
    while rig.segment_files().len() < count || rig.log.active().size_bytes < 500 {
        rig.put(3);
        if rig.segment_files().len() == 1 {
            rig.sync();
        }
    }
    assert_eq!(rig.log.checkpoint.recovery_point, 0);
    rig
}

/// Changes a file behind the log's back.
fn change(rig: &mut Rig, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut contents = rig.dir.contents(name);
    change(&mut contents);
    rig.dir.set(name, Some(contents));
}

fn name(rig: &Rig, at: usize, suffix: &str) -> String {
    file_name(rig.log.segments[at].base_offset, suffix)
}

fn refusal(result: Result<Rig, String>, words: &str) {
    let why = result.err().expect("the log is refused");
    assert!(why.contains(words), "{why}");
}

fn unclean(rig: Rig) -> Result<Rig, String> {
    let mut rig = rig.kill()?;
    // What was recovered can be used, and a second crash finds nothing to do.
    let state_before = state(&rig.log);
    let rig_again = Rig::open_at(rig.dir.clone(), rig.log.config.clone(), false, rig.now)?;
    assert!(state_before == state(&rig_again.log));
    assert_eq!(rig_again.report.bytes_truncated, 0);
    let end = rig.log.log_end_offset();
    assert_eq!(rig.put(1).base_offset, end);
    Ok(rig)
}

#[test]
fn recovered_state_is_live_state() {
    for count in [1, 2, 5] {
        let rig = segments(count);
        let live = state(&rig.log);
        let rig = rig.kill().unwrap();
        assert_eq!(rig.report.repairs, Vec::<String>::new());
        assert!(
            rig.report.bytes_scanned <= 1000,
            "only what is beyond the recovery point"
        );
        assert_eq!(state(&rig.log), live);
        let rig = rig.reopen();
        assert_eq!(state(&rig.log), live);
        assert_eq!(rig.report.bytes_scanned, 0);
    }
}

#[test]
fn empty_directory() {
    let rig = Rig::new(small());
    assert_eq!(rig.dir.operations(), 0);
    assert_eq!((rig.report.segments, rig.log.log_end_offset()), (1, 0));
    let rig = rig.kill().unwrap();
    assert_eq!(rig.log.log_end_offset(), 0);
    let mut rig = rig.reopen();
    assert_eq!(rig.log.log_end_offset(), 0);
    assert_eq!(
        rig.dir.file_names(),
        [""; 0],
        "a stop leaves no traces of it either"
    );
    rig.put(1);
    let first_files = [FIRST, "leader-epoch-checkpoint", "partition.metadata"];
    assert_eq!(rig.dir.file_names(), first_files);
}

#[test]
fn interrupted_creation() {
    let mut whole = Rig::new(small());
    let before = whole.dir.operations();
    whole.put(1);
    for operations in 1..whole.dir.operations() - before {
        let mut rig = Rig::new(small());
        rig.append(plain(1, START_MS), CLIENT).unwrap();
        rig.dir.cut_power_after(operations);
        assert!(rig.log.write_queued(&mut rig.dir, rig.now).is_err());
        let kept = rig.dir.file_names();
        // Only the process dies.
        match rig.kill() {
            Ok(mut rig) => {
                assert_eq!(rig.log.log_end_offset(), 0);
                assert_eq!(rig.put(2).base_offset, 0);
                rig.sync();
                assert_eq!(rig.kill().unwrap().log.log_end_offset(), 2);
            }
            Err(why) => {
                assert!(why.contains("do not tell whose they are"), "{why}");
                assert_eq!(kept, ["partition.metadata"], "it is empty");
            }
        }
    }
}

#[test]
fn files_of_an_earlier_topic() {
    let mut rig = segments(2);
    let metadata = format!("version: 0\ntopic_id: {}\n", TopicId::ZERO);
    rig.dir.set("partition.metadata", Some(metadata.into()));
    let before = rig.dir.operations();
    let mut dir = rig.dir.clone();
    refusal(rig.kill(), "of an earlier topic");
    assert_eq!(dir.operations(), before, "nothing was touched");
    // As another program may end the file.
    let metadata = format!("version: 0\ntopic_id: {TOPIC}\n");
    dir.set("partition.metadata", Some(metadata.into()));
    Rig::open(dir, small(), false).unwrap();
}

#[test]
fn files_without_an_owner() {
    for metadata in [None, Some("version: 0\ntopic_id: AAAA")] {
        let metadata = metadata.map(|text| text.as_bytes().to_vec());
        let mut rig = unsynced_segments(1);
        rig.dir.set("partition.metadata", metadata.clone());
        refusal(rig.kill(), "do not tell whose they are");
        let mut rig = segments(2);
        rig.dir.set("partition.metadata", metadata);
        refusal(rig.kill(), "is missing or damaged");
    }
}

#[test]
fn recovery_point_within_a_segment() {
    let mut rig = Rig::new(Config {
        segment_bytes: 1 << 30,
        ..small()
    });
    rig.put(3);
    let size_bytes = rig.dir.contents(FIRST).len();
    rig.put(3);
    rig.sync();
    assert_eq!(rig.log.checkpoint.recovery_point, 0, "not for so little");
    rig.log.checkpoint_lag_bytes = CHECKPOINT_BYTES;
    rig.put(3);
    rig.sync();
    assert_eq!(rig.log.checkpoint.recovery_point, 9);
    rig.put(3);
    let live = state(&rig.log);
    let mut dir = rig.dir.clone();
    let rig = rig.kill().unwrap();
    assert_eq!(rig.report.bytes_scanned, size_bytes as u64);
    assert_eq!(state(&rig.log), live);
    // A torn tail is cut down to it and no further.
    let mut contents = dir.contents(FIRST);
    contents.truncate(3 * size_bytes + 1);
    dir.set(FIRST, Some(contents.clone()));
    let rig = Rig::open(dir.clone(), small(), false).unwrap();
    assert_eq!(
        (rig.log.log_end_offset(), rig.report.bytes_truncated),
        (9, 1)
    );
    contents.truncate(3 * size_bytes - 1);
    dir.set(FIRST, Some(contents));
    refusal(Rig::open(dir, small(), false), "is damaged");
}

#[test]
fn clean_stop() {
    let mut dir = segments(4).close();
    let before = dir.operations();
    dir.reads = (0, 0);
    let rig = Rig::open(dir, small(), true).unwrap();
    assert_eq!(rig.dir.operations(), before, "nothing is written");
    assert_eq!(rig.report.bytes_scanned, 0);
    assert!(rig.dir.reads.0 < 40);
    let last = name(&rig, 3, ".index");
    assert!(rig.dir.has(&last));
}

#[test]
fn clean_stop_with_an_unexpected_end() {
    let rig = segments(2);
    let (config, now) = (rig.log.config.clone(), rig.now);
    let end = rig.log.log_end_offset();
    let file = rig.log.active().file.clone();
    let mut dir = rig.close();
    let mut contents = dir.contents(&file);
    contents.extend([1, 2, 3]);
    dir.set(&file, Some(contents));
    let rig = Rig::open_at(dir, config, true, now).unwrap();
    assert!(rig.report.repairs[0].contains("the stop was clean, but"));
    assert_eq!(
        (rig.report.bytes_truncated, rig.log.log_end_offset()),
        (3, end)
    );
}

#[test]
fn a_clean_stop_is_no_excuse_for_lost_data() {
    let mut rig = Rig::new(small());
    rig.put(1);
    rig.put(1);
    let mut dir = rig.close();
    let mut contents = dir.contents(FIRST);
    contents.truncate(plain(1, START_MS).len());
    dir.set(FIRST, Some(contents));
    refusal(Rig::open(dir, small(), true), "but was durable up to 2");
}

#[test]
fn clean_stop_below_the_recovery_point() {
    // As if older files had been put back, but for the checkpoint.
    let mut older = Rig::new(small());
    older.put(1);
    let mut dir = older.close();
    let newer = segments(3).close().contents("forebay-checkpoint");
    dir.set("forebay-checkpoint", Some(newer));
    refusal(Rig::open(dir, small(), true), "but was durable up to");
}

/// Damages the tail of the only segment at each of its bytes and expects the whole batches before.
fn tails(damage: impl Fn(&mut Vec<u8>, usize)) {
    let mut rig = unsynced_segments(1);
    let size = plain(3, START_MS).len();
    for at in 0..rig.dir.contents(FIRST).len() {
        let kept = rig.dir.contents(FIRST);
        change(&mut rig, FIRST, |contents| damage(contents, at));
        let opened = Rig::open(rig.dir.clone(), small(), false).unwrap();
        let batches = at / size;
        assert_eq!(opened.log.log_end_offset(), 3 * batches as i64, "byte {at}");
        assert_eq!(opened.dir.contents(FIRST).len(), batches * size);
        rig.dir.set(FIRST, Some(kept));
    }
}

#[test]
fn torn_tail() {
    tails(|contents, at| contents.truncate(at));
}

#[test]
fn zeroed_tail() {
    // A batch may end with zeros: those are no damage.
    tails(|contents, at| {
        contents[at] ^= 0xff;
        contents[at + 1..].fill(0);
    });
}

#[test]
fn garbage_tail() {
    tails(|contents, at| {
        let mut prng = Prng::new(at as u64);
        contents[at] ^= 0x55;
        contents[at + 1..].fill_with(|| prng.next_u64() as u8);
    });
}

#[test]
fn old_and_repeated_batches_are_garbage() {
    let mut rig = unsynced_segments(1);
    let end = rig.log.log_end_offset();
    let size = plain(3, START_MS).len();
    change(&mut rig, FIRST, |contents| {
        contents.extend_from_within(..size)
    });
    let rig = unclean(rig).unwrap();
    assert_eq!(rig.log.log_end_offset(), end + 1);
    assert!(rig.report.repairs[0].contains("begins with offset 0"));
    // Right in offset, but of an older epoch.
    let mut rig = unsynced_segments(1);
    let mut header = Header::parse(&rig.dir.contents(FIRST)).unwrap();
    header.set_base_offset(end);
    header.set_partition_leader_epoch(-1);
    change(&mut rig, FIRST, |contents| {
        let body = contents[61..size].to_vec();
        contents.extend(header.encode());
        contents.extend(body);
    });
    let rig = unclean(rig).unwrap();
    assert_eq!(rig.log.log_end_offset(), end + 1);
    assert!(rig.report.repairs[0].contains("leader epoch"));
}

#[test]
fn torn_tail_below_later_segments() {
    let mut rig = unsynced_segments(4);
    let second = name(&rig, 1, ".log");
    let size = plain(3, START_MS).len();
    change(&mut rig, &second, |contents| contents[size + 70] ^= 1);
    let expected = rig.log.segments[1].base_offset + 3;
    let rig = unclean(rig).unwrap();
    assert_eq!(rig.log.log_end_offset(), expected + 1);
    assert_eq!(rig.segment_files().len(), 2);
    assert!(rig.dir.file_names().iter().all(|name| {
        let number = name.get(..20).and_then(|digits| digits.parse().ok());
        number.unwrap_or(0) <= expected
    }));
}

#[test]
fn short_segment_beyond_the_recovery_point() {
    for cleanup_compact in [false, true] {
        let mut rig = unsynced_segments(4);
        rig.log.config.cleanup_compact = cleanup_compact;
        let second = name(&rig, 1, ".log");
        let size = plain(3, START_MS).len();
        change(&mut rig, &second, |contents| contents.truncate(2 * size));
        let expected = rig.log.segments[1].base_offset + 6;
        let rig = rig.kill().unwrap();
        assert_eq!(rig.log.log_end_offset(), expected);
        assert_eq!(rig.segment_files().len(), 2);
        rig.log.check();
    }
}

/// A batch is gone, and those behind it have moved up; with compaction that would be no fault.
#[test]
fn a_gap_within_a_segment() {
    let mut rig = unsynced_segments(1);
    rig.log.config.cleanup_compact = true;
    let size = plain(3, START_MS).len();
    change(&mut rig, FIRST, |log| drop(log.drain(size..2 * size)));
    assert_eq!(rig.kill().unwrap().log.log_end_offset(), 3);
}

#[test]
fn damage_below_the_recovery_point() {
    // In the segment that holds the recovery point.
    let rig = segments(3).kill().unwrap();
    let mut dir = rig.dir;
    let file = rig.log.active().file.clone();
    let mut contents = dir.contents(&file);
    contents[100] ^= 1;
    dir.set(&file, Some(contents));
    let before = dir.contents(&file);
    refusal(
        Rig::open(dir.clone(), small(), false),
        "is damaged at byte 94",
    );
    assert_eq!(dir.contents(&file), before, "nothing is cut");
    // In one before, where index and heads do not fit any more.
    let mut rig = segments(3);
    change(&mut rig, FIRST, |contents| contents.truncate(400));
    refusal(rig.kill(), "is damaged");
    // Offsets, which no CRC covers, where the heads are read again for the leader epochs.
    let rig = segments(3);
    let (config, now) = (rig.log.config.clone(), rig.now);
    let mut dir = rig.close();
    let mut contents = dir.contents(FIRST);
    let second = Header::parse(&contents).unwrap().size_bytes();
    contents[second..second + 8].fill(0);
    dir.set(FIRST, Some(contents));
    dir.set(EPOCHS_FILE, None);
    refusal(
        Rig::open_at(dir, config, true, now),
        "is damaged: offset 0 follows 2",
    );
}

#[test]
fn end_below_the_recovery_point() {
    let rig = segments(3).kill().unwrap();
    let mut dir = rig.dir;
    let file = rig.log.active().file.clone();
    let mut contents = dir.contents(&file);
    let first = Header::parse(&contents).unwrap();
    contents.truncate(first.size_bytes());
    dir.set(&file, Some(contents));
    refusal(Rig::open(dir, small(), false), "but was durable up to");
}

#[test]
fn missing_middle_segment() {
    for cleanup_compact in [false, true] {
        let mut rig = segments(4);
        rig.log.config.cleanup_compact = cleanup_compact;
        let second = name(&rig, 1, ".log");
        rig.dir.set(&second, None);
        refusal(rig.kill(), "are missing");
    }
}

#[test]
fn missing_first_segment() {
    let mut rig = segments(3);
    rig.dir.set(FIRST, None);
    refusal(rig.kill(), "the segments with offsets 0 to");
}

#[test]
fn missing_all_segments() {
    let mut rig = segments(3);
    for file in rig.segment_files() {
        rig.dir.set(&file, None);
    }
    refusal(rig.kill(), "the segments with offsets 0 to");
}

#[test]
fn overlapping_segments() {
    let mut rig = unsynced_segments(3);
    let third = rig.dir.contents(&name(&rig, 2, ".log"));
    let base_offset = rig.log.segments[2].base_offset;
    rig.dir
        .set(&file_name(base_offset - 1, ".log"), Some(third));
    refusal(rig.kill(), "into the segment that begins at");
}

#[test]
fn start_beyond_the_end() {
    let mut rig = Rig::new(small());
    rig.append(sequenced(7, 0, 0, 3), RELAXED).unwrap();
    for _ in 0..3 {
        rig.put(3);
    }
    rig.log.delete_records(&mut rig.dir, 11).unwrap();
    change(&mut rig, FIRST, |contents| contents.truncate(300));
    let rig = unclean(rig).unwrap();
    assert_eq!(rig.log.log_start_offset(), 11);
    assert_eq!(rig.log.log_end_offset(), 12);
    assert_eq!(rig.segment_files(), ["00000000000000000011.log"]);
    // The producer of what was left is not forgotten, now or later.
    let mut rig = rig.kill().unwrap();
    assert!(rig.append(sequenced(7, 0, 0, 3), CLIENT).unwrap().duplicate);
}

#[test]
fn segments_below_the_start() {
    let mut rig = segments(4);
    let start = rig.log.segments[2].base_offset + 1;
    rig.log.delete_records(&mut rig.dir, start).unwrap();
    let rig = unclean(rig).unwrap();
    assert_eq!(rig.log.log_start_offset(), start);
    assert_eq!(rig.segment_files().len(), 2);
}

#[test]
fn segments_below_the_start_are_kept_while_they_alone_know_a_producer() {
    let mut rig = Rig::new(small());
    rig.append(sequenced(7, 0, 0, 3), CLIENT).unwrap();
    while rig.segment_files().len() < 3 {
        rig.put(3);
    }
    rig.sync();
    let start = rig.log.segments[1].base_offset;
    rig.log.delete_records(&mut rig.dir, start).unwrap();
    rig.dir.set(&file_name(start, SNAPSHOT_SUFFIX), None);
    let mut rig = rig.kill().unwrap();
    assert!(rig.append(sequenced(7, 0, 0, 3), CLIENT).unwrap().duplicate);
    assert_eq!(rig.retain().segments, 1);
}

#[test]
fn leftover_files() {
    let mut rig = segments(2);
    let leftovers = [
        "00000000000000000000.log.deleted",
        "x.tmp",
        "00000000000000000009.index.swap",
    ];
    for name in leftovers {
        rig.dir.set(name, Some(vec![1, 2, 3]));
    }
    let rig = unclean(rig).unwrap();
    assert!(leftovers.iter().all(|name| !rig.dir.has(name)));
    assert_eq!(rig.report.repairs.len(), 3);
}

#[test]
fn orphaned_index() {
    let mut rig = segments(2);
    let orphan = "00000000000000000001.timeindex";
    rig.dir.set(orphan, Some(vec![0; 12]));
    let rig = unclean(rig).unwrap();
    assert!(!rig.dir.has(orphan));
    assert!(rig.report.repairs[0].contains("whose segment is gone"));
}

#[test]
fn empty_segment() {
    // A roll was the last thing that happened.
    for clean in [true, false] {
        let mut rig = segments(2);
        let end = rig.log.log_end_offset();
        rig.log.queue_roll(rig.now);
        rig.write();
        assert!(rig.dir.contents(&file_name(end, ".log")).is_empty());
        let live = rig.log.log_end_offset();
        let mut rig = if clean {
            rig.reopen()
        } else {
            unclean(rig).unwrap()
        };
        rig.put(1);
        assert_eq!(rig.segment_files().len(), 3);
        assert_eq!(rig.records(0, 500).len() as i64, rig.log.log_end_offset());
        assert!(rig.log.log_end_offset() > live);
    }
    // The records of one that was not empty are gone.
    let mut rig = segments(3);
    let second = name(&rig, 1, ".log");
    change(&mut rig, &second, Vec::clear);
    refusal(rig.kill(), "are missing");
}

#[test]
fn read_only_files() {
    for suffix in [".log", "forebay-checkpoint", "partition.metadata"] {
        let mut rig = segments(3);
        let live = state(&rig.log);
        rig.dir.restart_process();
        let before = rig.dir.operations();
        rig.dir.forbidden = Some(suffix);
        let opened = Rig::open_at(rig.dir.clone(), small(), false, rig.now);
        let why = opened.err().expect("the log is refused");
        assert!(
            why.contains(suffix) && why.contains("permission denied"),
            "{why}"
        );
        assert_eq!(rig.dir.operations(), before, "nothing was touched");
        rig.dir.forbidden = None;
        assert_eq!(state(&rig.kill().unwrap().log), live);
    }
}

#[test]
fn swapped_segment() {
    let mut rig = segments(2);
    rig.dir
        .set("00000000000000000000.log.swap", Some(Vec::new()));
    refusal(rig.kill(), "interrupted");
}

#[test]
fn foreign_files() {
    let mut rig = segments(2);
    rig.dir.set("notes.txt", Some(vec![1]));
    let rig = unclean(rig).unwrap();
    assert!(rig.dir.has("notes.txt"));
    assert_eq!(rig.report.repairs, ["ignored unknown file notes.txt"]);
}

/// Breaks an index file of a closed segment and expects it rebuilt to the byte.
fn broken_index(suffix: &str, damage: impl Fn(Vec<u8>) -> Option<Vec<u8>>) {
    for clean in [true, false] {
        let rig = segments(3);
        let (config, now) = (rig.log.config.clone(), rig.now);
        let file = name(&rig, 0, suffix);
        let live = state(&rig.log);
        let mut dir = if clean { rig.close() } else { rig.dir };
        let whole = dir.contents(&file);
        assert!(!whole.is_empty());
        dir.set(&file, damage(whole.clone()));
        let rig = Rig::open_at(dir, config, clean, now).unwrap();
        assert_eq!(rig.report.repairs, ["rebuilt the indexes of segment 0"]);
        assert_eq!(rig.dir.contents(&file), whole);
        assert_eq!(state(&rig.log), live);
    }
}

#[test]
fn missing_index() {
    broken_index(".index", |_| None);
    broken_index(".timeindex", |_| None);
}

#[test]
fn short_index() {
    broken_index(".index", |_| Some(Vec::new()));
    broken_index(".timeindex", |_| Some(Vec::new()));
    broken_index(".index", |mut index| index.pop().map(|_| index));
}

#[test]
fn index_older_than_the_log() {
    broken_index(".index", |index| Some(index[..8].to_vec()));
    broken_index(".timeindex", |index| Some(index[..0].to_vec()));
}

#[test]
fn index_newer_than_the_log() {
    // The index of a closed segment was stored, the end of its log was not.
    let mut rig = unsynced_segments(4);
    let (log, index) = (name(&rig, 1, ".log"), name(&rig, 1, ".index"));
    let entries = rig.dir.contents(&index).len();
    let size = plain(3, START_MS).len();
    change(&mut rig, &log, |contents| contents.truncate(2 * size));
    let mut rig = unclean(rig).unwrap();
    assert_eq!(
        rig.dir.contents(&index).len(),
        entries,
        "what it promises is not there"
    );
    // The segment grows past where it was, and is closed anew.
    while rig.segment_files().len() < 4 {
        rig.put(2);
    }
    rig.sync();
    let live = rig.records(0, 500);
    assert_eq!(live.len() as i64, rig.log.log_end_offset());
    let mut rig = rig.kill().unwrap().reopen();
    for (offset, value) in &live {
        // A read gives whole batches.
        let mut found = rig.records(*offset, 1).into_iter();
        let found = found.find(|(at, _)| at >= offset);
        assert_eq!(found.as_ref(), Some(&(*offset, value.clone())));
    }
}

#[test]
fn damaged_index() {
    // Kafka leaves indexes padded with zeros if it does not stop cleanly.
    broken_index(".index", |mut index| {
        index.resize(8000, 0);
        Some(index)
    });
    broken_index(".timeindex", |mut index| {
        index.resize(12_000, 0);
        Some(index)
    });
    broken_index(".index", |index| Some(vec![0xff; index.len()]));
    broken_index(".timeindex", |index| Some(vec![0x7f; index.len()]));
    // Entries of a longer file.
    broken_index(".index", |mut index| {
        index.extend([0, 0, 0, 8, 0, 0, 0x40, 0]);
        Some(index)
    });
}

#[test]
fn damaged_snapshot() {
    for clean in [true, false] {
        let rig = segments(3);
        let (config, now) = (rig.log.config.clone(), rig.now);
        let live = state(&rig.log);
        let mut dir = if clean { rig.close() } else { rig.dir };
        let newest = dir
            .file_names()
            .into_iter()
            .rfind(|name| name.ends_with(".snapshot"));
        let newest = newest.unwrap();
        dir.set(&newest, Some(vec![9; 50]));
        let rig = Rig::open_at(dir, config, clean, now).unwrap();
        assert_eq!(rig.report.repairs, [format!("removed damaged {newest}")]);
        assert_eq!(state(&rig.log), live);
    }
}

#[test]
fn stray_snapshots() {
    let mut rig = segments(3);
    for offset in [1, 1000] {
        let name = file_name(offset, ".snapshot");
        rig.dir
            .set(&name, Some(snapshot::encode(&Producers::default())));
    }
    let live = state(&rig.log);
    let rig = rig.kill().unwrap();
    assert_eq!(state(&rig.log), live);
    let mut names = rig.dir.file_names();
    names.retain(|name| name.ends_with(".snapshot"));
    let expected: Vec<_> = (1..3).map(|at| name(&rig, at, ".snapshot")).collect();
    assert_eq!(names, expected);
}

#[test]
fn missing_epochs() {
    for clean in [true, false] {
        let rig = segments(3);
        let live = state(&rig.log);
        let mut dir = if clean { rig.close() } else { rig.dir };
        dir.set("leader-epoch-checkpoint", Some(b"nonsense".to_vec()));
        let rig = Rig::open(dir, small(), clean).unwrap();
        assert_eq!(
            rig.report.repairs,
            ["rebuilt the leader epochs from the batches"]
        );
        assert_eq!(state(&rig.log), live);
        assert_eq!(rig.dir.contents("leader-epoch-checkpoint"), b"0\n1\n0 0\n");
    }
}

#[test]
fn damaged_checkpoint() {
    let mut rig = segments(2);
    rig.dir.set(
        "forebay-checkpoint",
        Some(b"forebay-checkpoint 2\n".to_vec()),
    );
    refusal(rig.kill(), "forebay-checkpoint is damaged");
}

#[test]
fn no_checkpoint() {
    let mut rig = segments(3);
    let live = state(&rig.log);
    rig.dir.set("forebay-checkpoint", None);
    let mut torn = rig.dir.clone();
    let rig = rig.kill().unwrap();
    assert_eq!(state(&rig.log), live);
    assert_eq!(rig.report.bytes_scanned, rig.log.size_bytes());
    // The end of the last segment may be torn, nothing else.
    let last = rig.log.active().file.clone();
    let mut contents = torn.contents(&last);
    contents.pop();
    torn.set(&last, Some(contents));
    assert!(
        Rig::open(torn.clone(), small(), false)
            .unwrap()
            .report
            .bytes_truncated
            > 0
    );
    let mut contents = torn.contents(FIRST);
    contents[80] ^= 1;
    torn.set(FIRST, Some(contents));
    refusal(Rig::open(torn, small(), false), "is damaged at byte 0");
}

#[test]
fn mark_of_a_failed_sync() {
    let mut rig = Rig::new(small());
    rig.put(3);
    rig.sync();
    rig.put(3);
    rig.dir.fail_next("sync", ".log");
    let plan = rig.log.sync_plan().unwrap();
    let error = rig.dir.sync(&plan.files[0]).unwrap_err();
    rig.dir.restart_process();
    let (mut unmarked, config) = (rig.dir.clone(), rig.log.config.clone());
    rig.log.on_failed(&mut rig.dir, error.to_string());
    assert!(rig.log.poisoned().unwrap().contains("injected"));
    let rig = rig.kill().unwrap();
    assert_eq!(rig.log.log_end_offset(), 3, "what was synced is there");
    assert!(
        rig.report.repairs[0].contains("a sync has failed"),
        "{:?}",
        rig.report.repairs
    );
    assert!(!rig.dir.has("forebay-failed"), "the next one is believed");
    // Without the mark a new process believes its cache, and a power cut takes what it has shown.
    unmarked.sync_all().unwrap();
    let rig = Rig::open(unmarked, config, false).unwrap();
    assert_eq!(
        rig.log.log_end_offset(),
        6,
        "the test's disk lies as a real one does"
    );
}

#[test]
fn what_is_recovered_is_synced_before_it_is_believed() {
    let mut rig = Rig::new(small());
    rig.put(3);
    rig.dir.restart_process();
    rig.dir.fail_next("sync", ".log");
    let failed = Rig::open(rig.dir.clone(), small(), false);
    assert!(failed.err().unwrap().contains("injected"));
    rig.dir.restart_process();
    let mut rig = Rig::open(rig.dir, small(), false).unwrap();
    assert_eq!(rig.log.durable_offset(), 3);
    // No power cut can take it now.
    rig.dir.restart_machine(&mut Prng::new(1));
    let rig = Rig::open(rig.dir, small(), false).unwrap();
    assert_eq!(rig.log.log_end_offset(), 3);
}
