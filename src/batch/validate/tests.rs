//! Validation against the answers of Apache Kafka 4.3.1, and the rewrites.

use super::*;
use crate::base::ErrorCode as Code;
use crate::batch::{Builder, batches, records};

const NOW: WallMs = 1_800_000_000_000;
const LIMIT: usize = 1 << 20;

fn rules() -> ValidationRules {
    ValidationRules::default()
}

/// Two records with keys, at `NOW`.
fn batch() -> (Header, Bytes) {
    built(Codec::None, &[(NOW, Some("k")), (NOW, Some("k"))])
}

fn built(codec: Codec, input: &[(i64, Option<&str>)]) -> (Header, Bytes) {
    let mut builder = Builder::new(codec);
    for (timestamp, key) in input {
        builder.append(*timestamp, key.map(str::as_bytes), Some(b"v"), &[]);
    }
    batches(builder.build()).next().unwrap().unwrap()
}

fn join(header: &Header, body: &[u8]) -> Bytes {
    Bytes::from([&header.encode()[..], body].concat())
}

/// The code for the batch after `change`, with a right CRC.
fn answer(rules: &ValidationRules, change: impl FnOnce(&mut Header)) -> Code {
    let (mut header, body) = batch();
    change(&mut header);
    let bytes = join(&header.seal(&body), &body);
    validate(&bytes, rules, NOW)
        .err()
        .map_or(Code::None, |error| error.code())
}

/// Each line was sent to Apache Kafka 4.3.1 by Produce v8 and got this code.
#[test]
fn answers_of_kafka_to_heads() {
    let check = |expected: Code, change: fn(&mut Header)| {
        assert_eq!(answer(&rules(), change), expected);
    };
    check(Code::None, |_| ());
    check(Code::InvalidRecord, |h| h.base_offset = 5);
    check(Code::InvalidRecord, |h| h.base_offset = -1);
    check(Code::InvalidRecord, |h| h.record_count = 3);
    check(Code::InvalidRecord, |h| h.record_count = -1);
    check(Code::InvalidRecord, |h| h.record_count = 0);
    check(Code::InvalidRecord, |h| {
        (h.record_count, h.last_offset_delta) = (0, -1)
    });
    check(Code::InvalidRecord, |h| {
        (h.record_count, h.last_offset_delta) = (-1, -2)
    });
    check(Code::InvalidRecord, |h| {
        (h.record_count, h.last_offset_delta) = (i32::MIN, i32::MAX)
    });
    check(Code::InvalidRecord, |h| h.attributes = 0x20);
    check(Code::InvalidRecord, |h| {
        (h.producer_id, h.producer_epoch) = (1, 0)
    });
    check(Code::InvalidRecord, |h| {
        (h.producer_id, h.base_sequence) = (1, -5)
    });
    check(Code::None, |h| (h.producer_id, h.base_sequence) = (1, 0));
    check(Code::None, |h| {
        (h.producer_id, h.base_sequence) = (1, i32::MAX)
    });
    check(Code::None, |h| h.producer_id = -5);
    check(Code::None, |h| h.base_sequence = 5);
    check(Code::InvalidTimestamp, |h| {
        h.base_timestamp = NOW + 3_600_001
    });
    check(Code::None, |h| h.base_timestamp = NOW + 3_600_000);
    check(Code::None, |h| {
        (h.base_timestamp, h.max_timestamp) = (-1, -1)
    });
    check(Code::None, |h| {
        (h.base_timestamp, h.max_timestamp) = (-2, -2)
    });
    check(Code::None, |h| h.attributes = 0x40);
    check(Code::None, |h| h.attributes = 0x7f80);
    check(Code::None, |h| h.partition_leader_epoch = 7);
}

/// Where this broker differs from Kafka on purpose; see the module and [`BatchError`].
#[test]
fn answers_that_are_ours() {
    let check = |expected: Code, change: fn(&mut Header)| {
        assert_eq!(answer(&rules(), change), expected);
    };
    check(Code::UnsupportedCompressionType, |h| h.attributes = 5);
    check(Code::UnsupportedCompressionType, |h| h.attributes = 7);
    check(Code::InvalidTimestamp, |h| h.attributes = 8);
    check(Code::InvalidTimestamp, |h| {
        h.max_timestamp = NOW + 3_600_001
    });
    check(Code::InvalidTxnState, |h| {
        (h.attributes, h.producer_id, h.base_sequence) = (0x10, 1, 0);
    });
}

#[test]
fn settings_of_the_topic() {
    let size_bytes = batch().0.size_bytes();
    let size = |size_bytes_max| ValidationRules {
        size_bytes_max,
        ..rules()
    };
    assert_eq!(answer(&size(size_bytes), |_| ()), Code::None);
    assert_eq!(answer(&size(size_bytes - 1), |_| ()), Code::MessageTooLarge);
    // Kafka looks at the base offset first and at the CRC after the size.
    assert_eq!(answer(&size(1), |h| h.base_offset = 1), Code::InvalidRecord);

    let before = ValidationRules {
        timestamp_before_max_ms: 1000,
        ..rules()
    };
    assert_eq!(
        answer(&before, |h| h.base_timestamp = NOW - 1000),
        Code::None
    );
    assert_eq!(
        answer(&before, |h| h.base_timestamp = NOW - 1001),
        Code::InvalidTimestamp
    );
    assert_eq!(
        answer(&before, |h| (h.base_timestamp, h.max_timestamp) = (-1, -1)),
        Code::None
    );
    let append_time = ValidationRules {
        timestamp_type: TimestampType::LogAppendTime,
        ..rules()
    };
    assert_eq!(
        answer(&append_time, |h| h.max_timestamp = i64::MAX),
        Code::None
    );
    assert_eq!(
        answer(&append_time, |h| h.attributes = 8),
        Code::InvalidTimestamp
    );
}

#[test]
fn answers_of_kafka_to_frames() {
    let (header, body) = batch();
    let good = join(&header, &body);
    let check = |bytes: Bytes, expected: Code| {
        let error = validate(&bytes, &rules(), NOW).unwrap_err();
        assert_eq!(error.code(), expected, "{error}");
    };
    check(Bytes::new(), Code::InvalidRecord);
    check(
        Bytes::from([&good[..], &good].concat()),
        Code::InvalidRecord,
    );
    check(good.slice(..good.len() - 1), Code::InvalidRecord);
    check(good.slice(..40), Code::InvalidRecord);
    for (magic, code) in [
        (0, Code::InvalidRecord),
        (1, Code::InvalidRecord),
        (3, Code::CorruptMessage),
        (0xff, Code::CorruptMessage),
    ] {
        let mut bytes = good.to_vec();
        bytes[16] = magic;
        check(bytes.into(), code);
    }
    let length = |change: i32| {
        let batch_length = header.batch_length + change;
        join(
            &Header {
                batch_length,
                ..header
            },
            &body,
        )
    };
    check(length(-header.batch_length), Code::CorruptMessage);
    check(length(14 - header.batch_length), Code::CorruptMessage);
    check(length(-1 - header.batch_length), Code::CorruptMessage);
    check(length(1), Code::InvalidRecord);
    check(length(-1), Code::CorruptMessage);
    check(
        join(&Header { crc: 1, ..header }, &body),
        Code::CorruptMessage,
    );
    check(
        join(
            &Header {
                crc: 1,
                base_offset: 5,
                ..header
            },
            &body,
        ),
        Code::InvalidRecord,
    );
    let small = ValidationRules {
        size_bytes_max: 1,
        ..rules()
    };
    let bad_crc = join(&Header { crc: 1, ..header }, &body);
    assert_eq!(
        validate(&bad_crc, &small, NOW).unwrap_err().code(),
        Code::MessageTooLarge
    );
}

#[test]
fn refused_records_are_named() {
    let compacted = ValidationRules {
        keys_required: true,
        ..rules()
    };
    let input = [(NOW, Some("k")), (NOW, None), (NOW, Some("k")), (NOW, None)];
    for codec in Codec::ALL {
        let (header, body) = built(codec, &input);
        assert!(check_records(&header, &body, &rules(), NOW).is_ok());
        let error = check_records(&header, &body, &compacted, NOW).unwrap_err();
        let indexes: Vec<_> = error
            .record_errors()
            .iter()
            .map(|e| e.batch_index)
            .collect();
        assert_eq!(
            (error.code(), indexes),
            (Code::InvalidRecord, vec![1, 3]),
            "{codec}"
        );
    }

    // As Kafka: one bad timestamp decides about the code.
    let (header, body) = built(
        Codec::None,
        &[(NOW, Some("k")), (NOW + 3_600_001, Some("k")), (NOW, None)],
    );
    let error = check_records(&header, &body, &compacted, NOW).unwrap_err();
    let indexes: Vec<_> = error
        .record_errors()
        .iter()
        .map(|e| e.batch_index)
        .collect();
    assert_eq!(
        (error.code(), indexes),
        (Code::InvalidTimestamp, vec![1, 2])
    );
    assert!(error.record_errors()[0].message.contains("out of range"));
}

#[test]
fn the_count_must_be_that_of_the_records() {
    for codec in Codec::ALL {
        let (header, body) = built(codec, &[(NOW, None); 3]);
        let with = |record_count| Header {
            record_count,
            ..header
        };
        assert!(check_records(&with(3), &body, &rules(), NOW).is_ok());
        for count in [2, 4, i32::MAX] {
            let error = check_records(&with(count), &body, &rules(), NOW).unwrap_err();
            assert_eq!(error.code(), Code::InvalidRecord, "{codec} {error}");
        }
    }
}

/// Sections of one record, with Kafka's answers.
#[test]
fn malformed_records() {
    let (header, _) = built(Codec::None, &[(NOW, None)]);
    let check = |section: &[u8], expected: bool| {
        let result = check_records(&header, section, &rules(), NOW);
        assert_eq!(result.is_ok(), expected, "{section:?} {result:?}");
        if let Err(error) = result {
            assert_eq!(error.code(), Code::InvalidRecord);
        }
    };
    // Zigzag: 12 = 6, 1 = -1, 3 = -2. Length, attributes, deltas, key, value, headers.
    check(&[12, 0, 0, 0, 1, 1, 0], true);
    check(&[12, 0x7f, 0, 0, 1, 1, 0], true);
    check(&[12, 0, 0, 0, 3, 1, 0], true);
    check(&[12, 0, 0, 0, 1, 1, 1], false);
    check(&[14, 0, 0, 0, 1, 1, 0, b'x'], false);
    check(&[16, 0, 0, 0, 1, 1, 2, 1, 1], false);
    check(&[10, 0, 0, 0, 200, 1, b'a'], false);
    check(&[0], false);
    check(&[1], false);
    check(&[], false);
    // A record hidden in the rest of another.
    let (pair, _) = built(Codec::None, &[(NOW, None); 2]);
    let apart = [12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 2, 1, 1, 0];
    assert!(check_records(&pair, &apart, &rules(), NOW).is_ok());
    let hidden = [26, 0, 0, 0, 1, 1, 0, 12, 0, 0, 2, 1, 1, 0];
    assert!(check_records(&pair, &hidden, &rules(), NOW).is_err());
    // Ours: the only record of a batch has offset delta 0.
    check(&[12, 0, 0, 2, 1, 1, 0], false);
}

#[test]
fn sections_that_cannot_be_decompressed() {
    let (mut header, body) = batch();
    for codec in Codec::ALL.into_iter().skip(1) {
        header.set_codec(codec);
        let error = check_records(&header, &body, &rules(), NOW).unwrap_err();
        assert_eq!(error, BatchError::Corrupt(codec));
        assert_eq!(error.code(), Code::InvalidRecord);
    }
    let (header, body) = built(Codec::Zstd, &[(NOW, None); 100]);
    let small = ValidationRules {
        output_bytes_max: 100,
        ..rules()
    };
    let error = check_records(&header, &body, &small, NOW).unwrap_err();
    assert_eq!(error.code(), Code::MessageTooLarge);
}

#[test]
fn append_time_replaces_all_timestamps() {
    let (header, body) = built(Codec::Gzip, &[(5, None), (9, None)]);
    let stamped = with_log_append_time(&header, &body, NOW);
    assert_eq!(stamped.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(stamped.check_crc(&body), Ok(()));
    let times = records(&stamped, &body, LIMIT)
        .unwrap()
        .map(|record| record.unwrap().timestamp);
    assert_eq!(times.collect::<Vec<_>>(), [NOW, NOW]);
}

#[test]
fn a_wrong_max_timestamp_is_found_and_put_right() {
    let (header, body) = built(
        Codec::None,
        &[(NOW, None), (NOW + 9, None), (NOW - 5, None)],
    );
    let wrong = Header {
        max_timestamp: NOW,
        ..header
    }
    .seal(&body);
    let summary = check_records(&wrong, &body, &rules(), NOW).unwrap();
    assert_eq!(
        summary,
        RecordsSummary {
            max_timestamp: NOW + 9
        }
    );
    assert_eq!(
        with_max_timestamp(&wrong, &body, summary.max_timestamp),
        header
    );
    assert_eq!(with_max_timestamp(&header, &body, NOW + 9), header);
}
