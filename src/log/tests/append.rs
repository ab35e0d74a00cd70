//! Offsets, visibility, idempotence, rolls and rewrites of appended batches.

use super::*;
use crate::base::ErrorCode;
use crate::batch::TimestampType;

fn code(result: Result<Appended, AppendError>) -> ErrorCode {
    result.unwrap_err().code()
}

#[test]
fn offsets_are_dense_and_batches_are_stored_verbatim() {
    let mut rig = Rig::new(Config::default());
    let batch = plain(3, START_MS);
    let first = rig.append(batch.clone(), RELAXED).unwrap();
    let second = rig.append(plain(2, START_MS), RELAXED).unwrap();
    assert_eq!((first.base_offset, first.offset_end), (0, 3));
    assert_eq!((second.base_offset, second.offset_end), (3, 5));
    assert_eq!((first.log_append_time_ms, first.duplicate), (-1, false));
    assert!(rig.write());
    assert!(!rig.write());
    let stored = rig.dir.contents("00000000000000000000.log");
    // All but base offset and leader epoch is as it was sent.
    assert_eq!(stored[8..12], batch[8..12]);
    assert_eq!(stored[16..batch.len()], batch[16..]);
    assert_eq!(stored[12..16], [0, 0, 0, 0]);
    assert_eq!(stored[batch.len()..][..8], 3_i64.to_be_bytes());
}

#[test]
fn one_write_per_turn_and_segment() {
    let mut rig = Rig::new(Config::default());
    rig.put(1);
    for _ in 0..10 {
        rig.append(plain(1, START_MS), RELAXED).unwrap();
    }
    let before = rig.dir.operations();
    rig.write();
    assert_eq!(rig.dir.operations() - before, 1);
}

#[test]
fn acks_one_is_visible_when_written_and_acks_all_when_synced() {
    let mut rig = Rig::new(Config::default());
    rig.append(plain(1, START_MS), RELAXED).unwrap();
    rig.append(plain(1, START_MS), CLIENT).unwrap();
    rig.append(plain(1, START_MS), RELAXED).unwrap();
    assert_eq!((rig.log.high_watermark(), rig.log.log_end_offset()), (0, 3));
    rig.write();
    assert_eq!((rig.log.high_watermark(), rig.log.durable_offset()), (1, 0));
    let plan = rig.log.sync_plan().unwrap();
    let first_files = [
        "partition.metadata",
        "leader-epoch-checkpoint",
        "00000000000000000000.log",
    ];
    assert_eq!(
        (&plan.files[..], plan.names),
        (&first_files.map(String::from)[..], true)
    );
    assert_eq!(plan.offset_end, 3);
    // What comes during the sync is not covered by it.
    rig.append(plain(1, START_MS), CLIENT).unwrap();
    rig.write();
    rig.log.on_synced(&mut rig.dir, plan.offset_end).unwrap();
    assert_eq!((rig.log.high_watermark(), rig.log.durable_offset()), (3, 3));
    assert!(rig.log.unsynced_bytes() > 0);
    assert_eq!(rig.log.unsynced_since(), Some(rig.now.mono));
    rig.sync();
    assert_eq!((rig.log.high_watermark(), rig.log.unsynced_bytes()), (4, 0));
    assert_eq!(rig.log.sync_plan(), None);
    rig.append(plain(1, START_MS), Origin::Coordinator).unwrap();
    rig.write();
    assert_eq!(rig.log.high_watermark(), 4);
}

#[test]
fn write_caching_makes_acks_all_visible_when_written() {
    let mut rig = Rig::new(Config::default());
    rig.append(plain(1, START_MS), CLIENT).unwrap();
    rig.write();
    assert_eq!(rig.log.high_watermark(), 0);
    rig.log.set_config(Config {
        write_caching: true,
        ..Config::default()
    });
    assert_eq!(rig.log.high_watermark(), 1);
    rig.append(plain(1, START_MS), CLIENT).unwrap();
    rig.write();
    assert_eq!((rig.log.high_watermark(), rig.log.durable_offset()), (2, 0));
}

#[test]
fn a_log_with_too_much_unsynced_makes_every_batch_wait_for_its_sync() {
    for write_caching in [false, true] {
        let mut rig = Rig::new(Config {
            unsynced_bytes_max: 100,
            write_caching,
            ..Config::default()
        });
        let relaxed = Origin::Client { durable: false };
        for offset in 0..2 {
            let appended = rig.append(plain(1, START_MS), relaxed).unwrap();
            assert_eq!((appended.base_offset, appended.awaited), (offset, false));
            rig.write();
        }
        assert!(rig.log.unsynced_bytes() >= 100);
        assert!(rig.append(plain(1, START_MS), relaxed).unwrap().awaited);
        assert!(rig.append(plain(1, START_MS), CLIENT).unwrap().awaited);
        rig.write();
        assert_eq!(rig.log.high_watermark(), 2, "what is held is not seen");
        rig.sync();
        assert_eq!(rig.log.high_watermark(), 4);
        assert!(!rig.append(plain(1, START_MS), relaxed).unwrap().awaited);
        rig.write();
        assert_eq!(rig.log.high_watermark(), 5);
    }
}

#[test]
fn write_caching_does_not_hurry_what_a_coordinator_stores() {
    let mut rig = Rig::new(Config {
        write_caching: true,
        ..Config::default()
    });
    let appended = rig.append(plain(1, START_MS), Origin::Coordinator).unwrap();
    assert!(appended.awaited);
    rig.write();
    assert_eq!(rig.log.high_watermark(), 0);
    rig.sync();
    assert_eq!(rig.log.high_watermark(), 1);
}

/// With acks=1 it is visible at once, so the high watermark says nothing about its sync.
#[test]
fn a_duplicate_with_acks_all_waits_for_the_sync_of_what_acks_one_wrote() {
    for write_caching in [false, true] {
        let mut rig = Rig::new(Config {
            write_caching,
            ..Config::default()
        });
        let original = rig.append(sequenced(7, 0, 0, 3), RELAXED).unwrap();
        assert!(!original.awaited);
        rig.write();
        assert_eq!((rig.log.high_watermark(), rig.log.durable_offset()), (3, 0));
        let again = rig.append(sequenced(7, 0, 0, 3), CLIENT).unwrap();
        let expected = Appended {
            duplicate: true,
            awaited: !write_caching,
            ..original
        };
        assert_eq!(again, expected);
    }
}

#[test]
fn duplicates_get_the_original_offsets_and_wait_for_them() {
    let mut rig = Rig::new(Config::default());
    let original = rig.append(sequenced(7, 0, 0, 3), CLIENT).unwrap();
    rig.append(sequenced(7, 0, 3, 1), CLIENT).unwrap();
    let again = rig.append(sequenced(7, 0, 0, 3), CLIENT).unwrap();
    assert_eq!(
        again,
        Appended {
            duplicate: true,
            ..original
        }
    );
    assert_eq!(rig.log.log_end_offset(), 4);
    assert_eq!(
        code(rig.append(sequenced(7, 0, 9, 1), CLIENT)),
        ErrorCode::OutOfOrderSequenceNumber
    );
    rig.append(sequenced(7, 1, 0, 1), CLIENT).unwrap();
    assert_eq!(
        code(rig.append(sequenced(7, 0, 4, 1), CLIENT)),
        ErrorCode::InvalidProducerEpoch
    );
    let info = rig.log.producers().next().unwrap();
    assert_eq!(
        (info.producer_id, info.producer_epoch, info.last_sequence),
        (7, 1, 0)
    );
}

#[test]
fn a_resend_without_a_producer_id_is_stored_again() {
    let mut rig = Rig::new(small());
    for base_offset in [0, 2] {
        let appended = rig.append(plain(2, START_MS), CLIENT).unwrap();
        assert_eq!(
            (appended.base_offset, appended.duplicate),
            (base_offset, false)
        );
    }
}

#[test]
fn duplicates_are_known_after_any_restart() {
    for clean in [true, false] {
        let mut rig = Rig::new(small());
        for sequence in 0..40 {
            rig.append(sequenced(sequence % 2, 0, sequence as i32 / 2, 1), CLIENT)
                .unwrap();
            rig.write();
        }
        rig.sync();
        assert!(rig.segment_files().len() > 2);
        let mut rig = if clean {
            rig.reopen()
        } else {
            rig.kill().unwrap()
        };
        for sequence in 15..20 {
            let again = rig.append(sequenced(1, 0, sequence, 1), CLIENT).unwrap();
            assert!(again.duplicate);
            assert_eq!(again.base_offset, i64::from(sequence) * 2 + 1);
        }
        assert_eq!(
            code(rig.append(sequenced(1, 0, 14, 1), CLIENT)),
            ErrorCode::OutOfOrderSequenceNumber
        );
    }
}

#[test]
fn segments_roll_by_size() {
    let mut rig = Rig::new(small());
    let bytes = plain(10, START_MS).len() as u64;
    for _ in 0..10 {
        rig.append(plain(10, START_MS), RELAXED).unwrap();
    }
    rig.write();
    let per_segment = 1000 / bytes;
    let names: Vec<_> = (0..10)
        .step_by(per_segment as usize)
        .map(|batch| format!("{:020}.log", batch * 10))
        .collect();
    assert_eq!(rig.segment_files(), names);
    for name in &names {
        assert!(rig.dir.contents(name).len() <= 1000);
    }
    assert_eq!(rig.log.size_bytes(), bytes * 10);
    let plan = rig.log.sync_plan().unwrap();
    assert!(
        !plan.names,
        "the checkpoint of the first roll made them durable"
    );
    assert_eq!(
        plan.files[..4],
        [
            "00000000000000000000.log",
            "00000000000000000000.index",
            "00000000000000000000.timeindex",
            "00000000000000000030.snapshot",
        ]
    );
    rig.sync();
    assert_eq!(rig.log.checkpoint.recovery_point, 100);
    rig.put(1);
    assert_eq!(
        rig.log.sync_plan().unwrap().files,
        ["00000000000000000090.log"]
    );
}

#[test]
fn a_segment_that_grows_is_reserved_ahead_and_gives_back_the_rest() {
    let mut rig = Rig::new(Config {
        segment_bytes: 3 << 20,
        ..Config::default()
    });
    let batch = plain(20_000, START_MS);
    let bytes = batch.len() as u64;
    let file = "00000000000000000000.log".to_owned();
    let mut end = 0;
    while end + bytes < 1 << 20 {
        assert_eq!(rig.dir.reserved, [], "small segments reserve nothing");
        rig.append(batch.clone(), RELAXED).unwrap();
        rig.write();
        end += bytes;
    }
    rig.append(batch.clone(), RELAXED).unwrap();
    rig.write();
    end += bytes;
    // As much again as there is, and later no more than the segment may hold.
    assert_eq!(rig.dir.reserved, [(file.clone(), 0, 2 * end)]);
    while end + bytes <= 3 << 20 {
        rig.append(batch.clone(), RELAXED).unwrap();
        rig.write();
        end += bytes;
    }
    let (_, position, length) = rig.dir.reserved.last().unwrap();
    assert_eq!((rig.dir.reserved.len(), position + length), (2, 3 << 20));
    rig.append(batch, RELAXED).unwrap();
    rig.write();
    assert_eq!(rig.segment_files().len(), 2);
    assert_eq!(rig.dir.truncated, [(file, end)]);
}

#[test]
fn segments_roll_by_the_age_of_their_first_record() {
    let config = Config {
        segment_ms: 1000,
        ..Config::default()
    };
    let mut rig = Rig::new(config.clone());
    rig.put(1);
    rig.sleep(1000);
    rig.put(1);
    assert_eq!(rig.segment_files().len(), 1);
    rig.sleep(1);
    rig.put(1);
    assert_eq!(
        rig.segment_files(),
        ["00000000000000000000.log", "00000000000000000002.log"]
    );
    // Without timestamps the clock counts.
    let mut rig = Rig::new(config);
    rig.append(plain(1, -1), RELAXED).unwrap();
    rig.sleep(1001);
    rig.append(plain(1, -1), RELAXED).unwrap();
    rig.write();
    assert_eq!(rig.segment_files().len(), 2);
}

#[test]
fn segments_roll_when_an_index_is_full() {
    let mut rig = Rig::new(Config {
        segment_index_bytes: 24,
        index_interval_bytes: 0,
        ..Config::default()
    });
    for _ in 0..8 {
        rig.put(1);
    }
    rig.sync();
    for name in rig.dir.file_names() {
        if name.ends_with("index") {
            assert!(rig.dir.contents(&name).len() <= 24, "{name}");
        }
    }
    assert!(rig.segment_files().len() > 1);
}

#[test]
fn segments_roll_before_offsets_leave_the_index() {
    let mut rig = Rig::new(Config::default());
    rig.put(1);
    let batch = plain(1, START_MS);
    let mut header = Header::parse(&batch).unwrap();
    header.set_base_offset(i64::from(i32::MAX));
    let full = |header: &Header| {
        rig.log
            .active()
            .is_full_for(&rig.log.config, header, rig.now)
    };
    assert!(!full(&header));
    header.set_base_offset(i64::from(i32::MAX) + 1);
    assert!(full(&header));
}

#[test]
fn log_append_time_overwrites_timestamps() {
    let mut rig = Rig::new(Config {
        timestamp_type: TimestampType::LogAppendTime,
        ..Config::default()
    });
    rig.sleep(5);
    let appended = rig.append(sequenced(7, 0, 0, 2), RELAXED).unwrap();
    assert_eq!(appended.log_append_time_ms, START_MS + 5);
    rig.write();
    rig.sleep(5);
    let again = rig.append(sequenced(7, 0, 0, 2), RELAXED).unwrap();
    assert_eq!(again.log_append_time_ms, START_MS + 5);
    let extent = rig.read(0, 1000).unwrap();
    let (header, body) = rig.batches(&extent).remove(0);
    header.check_crc(&body).unwrap();
    assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(header.max_timestamp, START_MS + 5);
    let found = rig
        .log
        .offset_for_timestamp(&mut rig.dir, START_MS + 1)
        .unwrap();
    assert_eq!(found, Some((0, START_MS + 5, 0)));
}

#[test]
fn compression_type_recompresses_before_the_size_counts() {
    let mut rig = Rig::new(Config {
        compression: Some(Codec::Zstd),
        message_bytes_max: 400,
        ..Config::default()
    });
    let large = plain(100, START_MS);
    assert!(large.len() > 1000);
    rig.append(large, RELAXED).unwrap();
    rig.write();
    assert!(rig.log.size_bytes() < 400);
    assert_eq!(rig.records(0, 10_000).len(), 100);
    rig.log.set_config(Config {
        message_bytes_max: 400,
        ..Config::default()
    });
    assert_eq!(
        code(rig.append(plain(100, START_MS), RELAXED)),
        ErrorCode::MessageTooLarge
    );
}

#[test]
fn the_settings_rules_apply() {
    let mut rig = Rig::new(Config {
        timestamp_before_ms_max: 1000,
        timestamp_after_ms_max: 1000,
        cleanup_compact: true,
        segment_bytes: 500,
        ..Config::default()
    });
    let mut keyed = |timestamp, count| {
        let mut builder = Builder::new(Codec::None);
        for _ in 0..count {
            builder.append(timestamp, Some(b"k"), Some(b"v"), &[]);
        }
        rig.append(builder.build(), RELAXED)
    };
    assert_eq!(code(keyed(START_MS - 1001, 1)), ErrorCode::InvalidTimestamp);
    assert_eq!(code(keyed(START_MS + 1001, 1)), ErrorCode::InvalidTimestamp);
    assert_eq!(code(keyed(START_MS, 100)), ErrorCode::RecordListTooLarge);
    assert!(keyed(START_MS + 1000, 1).is_ok());
    let error = rig.append(plain(2, START_MS), RELAXED).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidRecord);
    assert_eq!(error.record_errors().len(), 2);
    assert_eq!(rig.log.log_end_offset(), 1);
}

#[test]
fn a_false_largest_timestamp_is_corrected() {
    let mut rig = Rig::new(Config::default());
    let batch = plain(1, START_MS);
    let mut header = Header::parse(&batch).unwrap();
    let body = batch.slice(61..);
    header.max_timestamp = START_MS + 50;
    let header = header.seal(&body);
    let lying = Bytes::from([&header.encode()[..], &body].concat());
    rig.append(lying, RELAXED).unwrap();
    rig.write();
    let extent = rig.read(0, 1000).unwrap();
    assert_eq!(rig.batches(&extent)[0].0.max_timestamp, START_MS);
}

#[test]
fn a_poisoned_log_refuses_everything() {
    let mut rig = Rig::new(Config::default());
    rig.put(1);
    rig.dir.fail_next("write", ".log");
    rig.append(plain(1, START_MS), CLIENT).unwrap();
    let error = rig.log.write_queued(&mut rig.dir, rig.now).unwrap_err();
    rig.append(plain(1, START_MS), CLIENT).unwrap();
    rig.log.poison(error.to_string());
    rig.log.poison("later".into());
    assert!(
        rig.log.queue.is_empty(),
        "what cannot be written takes no memory"
    );
    assert!(rig.log.poisoned().unwrap().contains("injected"));
    assert_eq!(
        code(rig.append(plain(1, START_MS), RELAXED)),
        ErrorCode::KafkaStorageError
    );
    let read = rig.log.read(&mut rig.dir, 0, 1000, true);
    assert_eq!(read.unwrap_err().code(), ErrorCode::KafkaStorageError);
    assert!(rig.log.offset_for_timestamp(&mut rig.dir, 0).is_err());
    assert!(rig.log.delete_records(&mut rig.dir, -1).is_err());
    assert_eq!(rig.log.sync_plan(), None);
    assert!(!rig.log.write_queued(&mut rig.dir, rig.now).unwrap());
    rig.log.on_synced(&mut rig.dir, 2).unwrap();
    assert_eq!((rig.log.high_watermark(), rig.log.durable_offset()), (1, 0));
    assert!(rig.log.close(&mut rig.dir, rig.now).is_err());
}

/// A client could stop a coordinator with a request whose records do not fit the limit.
#[test]
fn a_coordinator_has_no_limit_of_size() {
    let mut rig = Rig::new(Config {
        message_bytes_max: 100,
        segment_bytes: 200,
        ..Config::default()
    });
    for base_offset in [0, 100] {
        let batch = plain(100, START_MS);
        let appended = rig.append(batch, Origin::Coordinator).unwrap();
        assert_eq!(appended.base_offset, base_offset);
    }
    rig.write();
    rig.sync();
    assert_eq!(rig.log.high_watermark(), 200);
    let rig = rig.reopen();
    assert_eq!(rig.log.log_end_offset(), 200);
}
