//! Power cuts before every single operation of a short life, several times over: nothing durable
//! is lost, nothing deleted comes back.

use super::*;

/// What the shell was told before the power went.
#[derive(Debug, Default)]
struct Promised {
    durable: Offset,
    start: Offset,
}

/// A life with rolls, syncs, deletions, retention and a clean stop.
fn live(dir: &mut TestDir, promised: &mut Promised) -> io::Result<()> {
    let now = Now {
        mono: Mono(1),
        wall_ms: START_MS,
    };
    let opening = Opening {
        now,
        clean: false,
        leader_epoch: 0,
        topic_id: TOPIC,
    };
    let log = Log::open(dir, small(), opening, &mut Report::default());
    let mut log = log.map_err(io::Error::other)?;
    for turn in 0..12 {
        let batch = sequenced(1, 0, turn * 10, 10);
        log.append(now, batch, CLIENT).map_err(io::Error::other)?;
        log.write_queued(dir, now)?;
        if turn % 3 == 2 {
            let plan = log.sync_plan().expect("there is something to sync");
            for file in &plan.files {
                dir.sync(file)?;
            }
            if plan.names {
                dir.sync_dir()?;
            }
            promised.durable = plan.offset_end;
            log.on_synced(dir, plan.offset_end)?;
        }
        if turn == 7 {
            let start = log.delete_records(dir, 35).map_err(io::Error::other)?;
            promised.start = start;
            log.retain(dir, now)?;
        }
    }
    log.close(dir, now)?;
    dir.sync_all()?;
    promised.durable = log.log_end_offset();
    Ok(())
}

#[test]
fn a_cut_at_any_operation_keeps_what_was_promised() {
    let mut whole = TestDir::default();
    live(&mut whole, &mut Promised::default()).unwrap();
    let operations = whole.operations();
    assert!(operations > 50);
    for cut in 0..=operations {
        for seed in 0..8 {
            let (mut dir, mut promised) = (TestDir::default(), Promised::default());
            dir.cut_power_after(cut);
            assert_eq!(live(&mut dir, &mut promised).is_ok(), cut == operations);
            dir.restart_machine(&mut Prng::new(seed * 1000 + cut));
            let mut rig = match Rig::open(dir, small(), false) {
                Ok(rig) => rig,
                Err(why) => {
                    assert!(why.contains("do not tell whose they are"), "{why}");
                    assert_eq!((promised.durable, promised.start), (0, 0), "{cut} {seed}");
                    continue;
                }
            };
            assert!(rig.log.log_end_offset() >= promised.durable, "{cut} {seed}");
            let start = rig.log.log_start_offset();
            assert!([promised.start, 35].contains(&start), "{cut} {seed}");
            let values = rig.records(start, 500);
            for (offset, value) in &values {
                assert_eq!(*value, format!("1-{offset}"));
            }
            assert_eq!(values.len() as i64, rig.log.log_end_offset() - start);
            // The producer goes on where the log ends.
            let next = rig.log.log_end_offset();
            let appended = rig.append(sequenced(1, 0, next as i32, 1), CLIENT).unwrap();
            assert_eq!((appended.base_offset, appended.duplicate), (next, false));
        }
    }
}

#[test]
fn producers_outlive_their_last_segment() {
    let mut rig = Rig::new(Config {
        retention_ms: 1000,
        ..small()
    });
    rig.append(sequenced(7, 0, 0, 3), CLIENT).unwrap();
    rig.write();
    rig.sync();
    rig.sleep(2000);
    assert_eq!(rig.retain().segments, 1);
    for seed in 0..100 {
        let mut dir = rig.dir.clone();
        dir.restart_machine(&mut Prng::new(seed));
        let mut rig = Rig::open(dir, small(), false).unwrap();
        let again = rig.append(sequenced(7, 0, 0, 3), CLIENT).unwrap();
        assert!(again.duplicate, "seed {seed}");
    }
}

#[test]
fn an_index_from_before_is_not_believed() {
    // The clean stop leaves index files behind, which the segment outgrows.
    let mut rig = Rig::new(small());
    rig.put(3);
    let mut rig = rig.reopen();
    rig.sleep(1000);
    rig.put(3);
    rig.sleep(-1000);
    for _ in 0..3 {
        rig.put(3);
    }
    rig.sync();
    // It ends at the recovery point when it is closed.
    let mut rig = rig.kill().unwrap();
    rig.log.queue_roll(rig.now);
    rig.put(3);
    for seed in 0..200 {
        let mut dir = rig.dir.clone();
        dir.restart_machine(&mut Prng::new(seed));
        let mut rig = Rig::open(dir, small(), false).unwrap();
        let found = rig.log.offset_for_timestamp(&mut rig.dir, START_MS + 1);
        assert_eq!(found.unwrap(), Some((3, START_MS + 1000, 0)), "seed {seed}");
    }
}
