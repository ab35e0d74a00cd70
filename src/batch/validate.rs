//! What a broker checks before it appends a client's batch, and the rewrites that topic settings
//! ask for. The rules are those of Kafka's `ProduceRequest`, `UnifiedLog` and `LogValidator`; what
//! depends on the partition's state (sequences, transactions) is the log's.
//!
//! [`validate`] looks at the head and the CRC only and is enough for the safety of the log;
//! [`check_records`] walks over the records, for topics whose rules need it.
//!
//! Stricter than Kafka 4.3.1, where no client can notice: Kafka cuts off up to 16 stray bytes
//! after a batch, accepts a LogAppendTime bit on a CreateTime topic, judges timestamps by the
//! records alone, and stores uncompressed batches whose offset deltas are not dense.

use bytes::Bytes;

use super::header::NO_TIMESTAMP;
use super::records::{Layout, timestamp};
use super::{BatchError, Codec, Header, RecordError, TimestampType, compress, decompress};
use crate::base::limits::BATCH_HEADER_BYTES;
use crate::base::{ErrorCode, WallMs};

/// Refused records that are reported one by one; the rest is only counted.
const RECORD_ERRORS_MAX: usize = 100;

/// The topic's settings that decide about a batch. `Default` has Kafka's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidationRules {
    /// `max.message.bytes`: largest batch with its head.
    pub size_bytes_max: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `cleanup.policy` contains `compact`: records without a key are refused.
    pub keys_required: bool,
    /// Bytes that the records may have when decompressed.
    pub output_bytes_max: usize,
}

/// What [`check_records`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsSummary {
    /// The largest record timestamp; the head's can be wrong, see [`with_max_timestamp`].
    pub max_timestamp: i64,
}

impl Default for ValidationRules {
    fn default() -> Self {
        Self {
            size_bytes_max: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            keys_required: false,
            output_bytes_max: 100 * 1024 * 1024,
        }
    }
}

/// Checks the one batch that a client sent for a partition: everything that its head and its CRC
/// tell. The result's `codec()` is known to be valid.
pub fn validate(
    bytes: &Bytes,
    rules: &ValidationRules,
    now_wall_ms: WallMs,
) -> Result<Header, BatchError> {
    let header = Header::parse(bytes)?;
    let size_bytes = header.size_bytes();
    if bytes.len() < size_bytes {
        return Err(BatchError::Torn {
            need: size_bytes,
            have: bytes.len(),
        });
    }
    if header.base_offset != 0 {
        return Err(BatchError::BaseOffset(header.base_offset));
    }
    if size_bytes > rules.size_bytes_max {
        return Err(BatchError::TooLarge {
            size_bytes,
            size_bytes_max: rules.size_bytes_max,
        });
    }
    header.check_crc(&bytes[BATCH_HEADER_BYTES..size_bytes])?;
    if bytes.len() > size_bytes {
        return Err(BatchError::TrailingBytes(bytes.len() - size_bytes));
    }
    check_header(&header, rules, now_wall_ms)?;
    Ok(header)
}

/// Walks over the records: their form, that offsets are dense and the count is right, keys if the
/// topic is compacted, timestamps if it keeps those of the producer.
///
/// Errors: [`BatchError::Malformed`] and those of [`decompress`] for the whole batch, else
/// [`BatchError::Records`] with each refused record.
pub fn check_records(
    header: &Header,
    body: &[u8],
    rules: &ValidationRules,
    now_wall_ms: WallMs,
) -> Result<RecordsSummary, BatchError> {
    match header.codec()? {
        Codec::None => check_section(header, body, rules, now_wall_ms),
        codec => {
            let section = decompress(codec, body, rules.output_bytes_max)?;
            check_section(header, &section, rules, now_wall_ms)
        }
    }
}

/// The head for a topic with `message.timestamp.type=LogAppendTime`: readers then take its max
/// timestamp for every record.
pub fn with_log_append_time(header: &Header, body: &[u8], now_wall_ms: WallMs) -> Header {
    let mut header = *header;
    header.set_log_append_time(now_wall_ms);
    header.seal(body)
}

/// The head with the max timestamp that its records really have.
pub fn with_max_timestamp(header: &Header, body: &[u8], max_timestamp: i64) -> Header {
    if header.max_timestamp == max_timestamp {
        return *header;
    }
    Header {
        max_timestamp,
        ..*header
    }
    .seal(body)
}

/// Changes the compression of a batch (topic setting `compression.type`); the records stay as they
/// are. Errors: those of [`decompress`].
pub fn recompress(
    header: &Header,
    body: &Bytes,
    codec: Codec,
    output_bytes_max: usize,
) -> Result<(Header, Bytes), BatchError> {
    let section: Bytes = match header.codec()? {
        same if same == codec => return Ok((*header, body.clone())),
        Codec::None => body.clone(),
        source => decompress(source, body, output_bytes_max)?.into(),
    };
    let body = match codec {
        Codec::None => section,
        codec => compress(codec, &section).into(),
    };
    let mut header = *header;
    header.set_codec(codec);
    Ok((header.seal(&body), body))
}

/// The rules that need nothing but the head.
fn check_header(
    header: &Header,
    rules: &ValidationRules,
    now_wall_ms: WallMs,
) -> Result<(), BatchError> {
    header.codec()?;
    let (record_count, last_offset_delta) = (header.record_count, header.last_offset_delta);
    if record_count <= 0 || record_count.checked_sub(1) != Some(last_offset_delta) {
        return Err(BatchError::Count {
            record_count,
            last_offset_delta,
        });
    }
    if header.is_control() {
        return Err(BatchError::Control);
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(BatchError::Sequence {
            producer_id: header.producer_id,
            base_sequence: header.base_sequence,
        });
    }
    // No transaction is ever ongoing: this release has no transaction coordinator.
    if header.is_transactional() {
        return Err(BatchError::Transactional);
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::TimestampType);
    }
    // The first record's timestamp and the largest; those between need a look at the records.
    check_timestamp(header.base_timestamp, rules, now_wall_ms)?;
    check_timestamp(header.max_timestamp, rules, now_wall_ms)
}

fn check_timestamp(
    timestamp: i64,
    rules: &ValidationRules,
    now_wall_ms: WallMs,
) -> Result<(), BatchError> {
    let timestamp_min = now_wall_ms.saturating_sub(rules.timestamp_before_max_ms);
    let timestamp_max = now_wall_ms.saturating_add(rules.timestamp_after_max_ms);
    if rules.timestamp_type == TimestampType::LogAppendTime
        || timestamp == NO_TIMESTAMP
        || (timestamp_min..=timestamp_max).contains(&timestamp)
    {
        return Ok(());
    }
    Err(BatchError::Timestamp {
        timestamp,
        timestamp_min,
        timestamp_max,
    })
}

fn check_section(
    header: &Header,
    section: &[u8],
    rules: &ValidationRules,
    now_wall_ms: WallMs,
) -> Result<RecordsSummary, BatchError> {
    let mut max_timestamp = NO_TIMESTAMP;
    let mut errors = Vec::new();
    let mut code = ErrorCode::InvalidRecord;
    let mut position = 0;
    for batch_index in 0..header.record_count {
        let layout = Layout::read(section, &mut position)?;
        if layout.offset_delta != batch_index {
            return Err(BatchError::Malformed(
                "the offsets of the records are not dense",
            ));
        }
        let timestamp = timestamp(header, &layout);
        max_timestamp = max_timestamp.max(timestamp);
        let message = if rules.keys_required && layout.key.is_none() {
            "a compacted topic cannot accept a record without a key".to_owned()
        } else if let Err(error) = check_timestamp(timestamp, rules, now_wall_ms) {
            code = error.code();
            error.to_string()
        } else {
            continue;
        };
        if errors.len() < RECORD_ERRORS_MAX {
            errors.push(RecordError {
                batch_index,
                message,
            });
        }
    }
    if position != section.len() {
        return Err(BatchError::Malformed("bytes follow the last record"));
    }
    if errors.is_empty() {
        return Ok(RecordsSummary { max_timestamp });
    }
    Err(BatchError::Records { code, errors })
}

#[cfg(test)]
mod tests {
    use super::super::{Builder, batches, records};
    use super::*;
    use crate::base::ErrorCode as Code;

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
}
