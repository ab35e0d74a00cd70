//! Recovery of one partition: arbitrary files in its directory.
//!
//! Held on top of the common rules: a log that opens keeps its own invariants, can be read from
//! start to end, takes an append, and opens again to the same bounds.

use crate::files::{ORDERS, files, store};
use crate::machine::world;
use crate::memory::bounded;
use bytes::Bytes;
use forebay::base::dir::Dir;
use forebay::base::{Mono, Now, Offset, TopicId};
use forebay::batch::{Builder, Codec, batches};
use forebay::io::Io;
use forebay::log::{Config, Log, Opening, Origin, Report};
use forebay::sim::io::SimIo;
use std::io;

/// Whose log it should be; the seeds say the same.
pub const TOPIC: TopicId = forebay::catalog::METADATA_TOPIC_ID;

/// The time.
const NOW: Now = Now {
    mono: Mono(1_000_000_000),
    wall_ms: 1_800_000_000_000,
};

/// Reads of a log from start to end; more is a loop without progress.
const READS_MAX: usize = 100_000;

/// Flags (first byte), then files; see `files`.
pub fn recovery(input: &[u8]) {
    let Some((&flags, rest)) = input.split_first() else {
        return;
    };
    let world = world(0);
    for mut file in files(rest) {
        file.directory = ORDERS;
        store(&world, &file, flags & 1 != 0).expect("the disk is healthy");
    }
    let clean = flags & 2 != 0;
    let config = Config {
        segment_bytes: 2_000,
        index_interval_bytes: 200,
        cleanup_compact: flags & 4 != 0,
        retention_ms: if flags & 8 != 0 { 1_000 } else { -1 },
        ..Config::default()
    };
    let mut dir = SimIo::new(world, 0)
        .open_dir("orders-0")
        .expect("the disk is healthy");
    let dir = dir.as_mut();
    let opened = bounded(input.len(), || open(dir, &config, clean));
    let Some(mut log) = opened else {
        return;
    };
    log.check();
    read_all(&mut log, dir);
    use_log(&mut log, dir);
    let bounds = (log.log_start_offset(), log.log_end_offset());
    log.close(dir, NOW).expect("the disk is healthy");
    // Whoever believed the files after a clean stop has not looked at every byte.
    let ways: &[bool] = if clean { &[true] } else { &[true, false] };
    for clean in ways {
        let log = open(dir, &config, *clean).expect("what was written can be read");
        log.check();
        let again = (log.log_start_offset(), log.log_end_offset());
        assert_eq!(again, bounds, "clean: {clean}");
    }
}

fn open(dir: &mut dyn Dir, config: &Config, clean: bool) -> Option<Log> {
    let opening = Opening {
        now: NOW,
        clean,
        leader_epoch: 5,
        topic_id: TOPIC,
    };
    Log::open(dir, config.clone(), opening, &mut Report::default()).ok()
}

/// Reads as fetches do. The bytes below a recovery point were not looked at, so they may be
/// anything; what is said about them must still fit the files.
fn read_all(log: &mut Log, dir: &mut dyn Dir) {
    let high = log.high_watermark();
    let mut offset = log.log_start_offset();
    for _ in 0..READS_MAX {
        if offset >= high {
            return;
        }
        let Ok(Some(extent)) = log.read(dir, offset, 500, true) else {
            return;
        };
        let mut bytes = vec![0; extent.length as usize];
        let read = dir.read_at(&extent.file, extent.position, &mut bytes);
        assert_eq!(read.ok(), Some(bytes.len()), "an extent lies in its file");
        let Some(next) = last_offset(bytes).filter(|next| *next > offset) else {
            return;
        };
        offset = next;
    }
    panic!("reading a log has no end");
}

fn last_offset(bytes: Vec<u8>) -> Option<Offset> {
    let mut next = None;
    for found in batches(Bytes::from(bytes)) {
        next = Some(found.ok()?.0.next_offset());
    }
    next
}

/// Everything that a shard does with a log.
fn use_log(log: &mut Log, dir: &mut dyn Dir) {
    let (start, high) = (log.log_start_offset(), log.high_watermark());
    for offset in [start, high - 1, high, Offset::MAX] {
        log.epoch_at(offset);
        log.available_bytes(offset);
    }
    for timestamp in [0, 1_700_000_000_000, i64::MAX] {
        let _ = log.offset_for_timestamp(dir, timestamp);
    }
    let _ = log.offset_of_max_timestamp(dir);
    log.end_offset_for_epoch(5);
    assert!(log.producers().count() <= 1 << 16);
    let mut batch = Builder::new(Codec::None);
    batch.append(NOW.wall_ms, Some(b"key"), Some(&[7; 300]), &[]);
    let batch = batch.build();
    for _ in 0..10 {
        let origin = Origin::Client { durable: true };
        if log.append(NOW, batch.clone(), origin).is_err() {
            return;
        }
        log.check();
        write(log, dir).expect("the disk is healthy");
        log.check();
    }
    let middle = start + (log.high_watermark() - start) / 2;
    if log.delete_records(dir, middle).is_ok() {
        log.check();
    }
    log.retain(dir, NOW).expect("the disk is healthy");
    log.check();
    write(log, dir).expect("the disk is healthy");
}

/// What a shard does at the end of a turn.
fn write(log: &mut Log, dir: &mut dyn Dir) -> io::Result<()> {
    log.write_queued(dir, NOW)?;
    if let Some(plan) = log.sync_plan() {
        for file in &plan.files {
            dir.sync(file)?;
        }
        if plan.names {
            dir.sync_dir()?;
        }
        log.on_synced(dir, plan.offset_end)?;
    }
    Ok(())
}
