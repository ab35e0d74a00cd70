//! Shows a segment file as text, in the format of Kafka's `kafka-dump-log`: one line per batch,
//! one per record if asked, one per index entry. Works on any reader, so on files of this broker
//! and of Kafka alike.
//!
//! It reads and never repairs; what it cannot read it counts in [`Damage`]. Control characters in
//! keys and values are escaped, so that a record cannot forge a line.

use std::io::{self, Read, Write};

use bytes::Bytes;

use crate::base::Offset;
use crate::base::limits::BATCH_HEADER_BYTES;
use crate::batch::{BatchError, Header, Record, TimestampType, records};

/// Most bytes that the records of one batch may have when decompressed.
const OUTPUT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// `[offset - base i32][position i32]`
const INDEX_ENTRY_BYTES: usize = 8;
/// `[timestamp i64][offset - base i32]`
const TIME_INDEX_ENTRY_BYTES: usize = 12;

/// What is wrong with a file; all zero for a sound one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Batches whose CRC or records are wrong.
    pub invalid_batches: u64,
    /// Bytes at the end that are no batch: a torn write, or foreign data.
    pub invalid_bytes: u64,
    /// Index entries that do not increase.
    pub invalid_entries: u64,
}

impl Damage {
    /// True if anything is wrong.
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }
}

/// Writes the file `file_name`, whose contents are `reader`, to `out`. The name tells kind
/// (`.log`, `.index` or `.timeindex`) and base offset.
///
/// Errors: `InvalidInput` for any other name, and those of reader and writer. Damage in the file
/// is no error.
pub fn dump(
    file_name: &str,
    reader: &mut dyn Read,
    print_records: bool,
    out: &mut dyn Write,
) -> io::Result<Damage> {
    let base_name = file_name.rsplit('/').next().unwrap_or(file_name);
    let parts = base_name.split_once('.');
    let named = parts.and_then(|(offset, kind)| Some((offset.parse::<Offset>().ok()?, kind)));
    let (base_offset, kind) = match named {
        Some((base_offset, kind @ ("log" | "index" | "timeindex"))) => (base_offset, kind),
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{file_name} is not named like a segment: <offset>.log, .index, .timeindex"
                ),
            ));
        }
    };
    writeln!(out, "Dumping {file_name}")?;
    match kind {
        "log" => {
            writeln!(out, "Log starting offset: {base_offset}")?;
            dump_log(file_name, reader, print_records, out)
        }
        "index" => dump_index(base_offset, reader, out),
        _ => dump_time_index(base_offset, reader, out),
    }
}

fn dump_log(
    file_name: &str,
    reader: &mut dyn Read,
    print_records: bool,
    out: &mut dyn Write,
) -> io::Result<Damage> {
    let mut damage = Damage::default();
    let mut position = 0u64;
    loop {
        let head = read_up_to(reader, BATCH_HEADER_BYTES)?;
        let Ok(header) = Header::parse(&head) else {
            dump_tail(file_name, &head, reader, &mut damage, out)?;
            return Ok(damage);
        };
        let body = Bytes::from(read_up_to(reader, header.body_bytes())?);
        if body.len() < header.body_bytes() {
            damage.invalid_bytes = (head.len() + body.len()) as u64;
            writeln!(
                out,
                "Found {} invalid bytes at the end of {file_name}",
                damage.invalid_bytes
            )?;
            return Ok(damage);
        }
        let mut is_valid = header.check_crc(&body).is_ok();
        write_batch(&header, position, is_valid, out)?;
        if print_records && let Err(error) = write_records(&header, &body, out)? {
            writeln!(out, "| unreadable: {error}")?;
            is_valid = false;
        }
        damage.invalid_batches += u64::from(!is_valid);
        position += header.size_bytes() as u64;
    }
}

/// Counts what follows the last batch. Zeros are the preallocated rest of a live segment, unless
/// they are so few that a torn head looks the same.
fn dump_tail(
    file_name: &str,
    head: &[u8],
    reader: &mut dyn Read,
    damage: &mut Damage,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut count = head.len() as u64;
    let mut zeros = head.iter().all(|byte| *byte == 0);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let read = reader.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        count += read as u64;
        zeros &= chunk[..read].iter().all(|byte| *byte == 0);
    }
    if count == 0 {
        return Ok(());
    }
    if zeros && count >= BATCH_HEADER_BYTES as u64 {
        return writeln!(
            out,
            "Found {count} preallocated bytes at the end of {file_name}"
        );
    }
    damage.invalid_bytes = count;
    writeln!(out, "Found {count} invalid bytes at the end of {file_name}")
}

fn write_batch(
    header: &Header,
    position: u64,
    is_valid: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    write!(
        out,
        "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} \
         producerId: {} producerEpoch: {} partitionLeaderEpoch: {} isTransactional: {} \
         isControl: {} ",
        header.base_offset,
        header.last_offset(),
        header.record_count,
        header.base_sequence,
        header.last_sequence(),
        header.producer_id,
        header.producer_epoch,
        header.partition_leader_epoch,
        header.is_transactional(),
        header.is_control(),
    )?;
    match header.delete_horizon_ms() {
        Some(horizon) => write!(out, "deleteHorizonMs: OptionalLong[{horizon}] ")?,
        None => write!(out, "deleteHorizonMs: OptionalLong.empty ")?,
    }
    let codec = header.codec().map_or("unknown", |codec| codec.name());
    writeln!(
        out,
        "position: {position} {}: {} size: {} magic: 2 compresscodec: {codec} crc: {} \
         isvalid: {is_valid}",
        timestamp_label(header),
        header.max_timestamp,
        header.size_bytes(),
        header.crc,
    )
}

/// The outer error is the writer's, the inner one the batch's.
fn write_records(
    header: &Header,
    body: &Bytes,
    out: &mut dyn Write,
) -> io::Result<Result<(), BatchError>> {
    let records = match records(header, body, OUTPUT_BYTES_MAX) {
        Ok(records) => records,
        Err(error) => return Ok(Err(error)),
    };
    for record in records {
        match record {
            Ok(record) => write_record(header, &record, out)?,
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}

fn write_record(header: &Header, record: &Record, out: &mut dyn Write) -> io::Result<()> {
    let size = |field: &Option<Bytes>| field.as_ref().map_or(-1, |bytes| bytes.len() as i64);
    // Reading a record checked that its delta is within the batch, which is an i32.
    let sequence = header.sequence_at((record.offset - header.base_offset) as i32);
    let names: Vec<_> = record.headers.iter().map(|(name, _)| text(name)).collect();
    write!(
        out,
        "| offset: {} {}: {} keySize: {} valueSize: {} sequence: {sequence} headerKeys: [{}]",
        record.offset,
        timestamp_label(header),
        record.timestamp,
        size(&record.key),
        size(&record.value),
        names.join(","),
    )?;
    if header.is_control() {
        return write_control(record, out);
    }
    if let Some(key) = &record.key {
        write!(out, " key: {}", text(key))?;
    }
    if let Some(value) = &record.value {
        write!(out, " payload: {}", text(value))?;
    }
    writeln!(out)
}

/// The end of a control record's line: `[version i16][type i16]` is its key, and
/// `[version i16][coordinator epoch i32]` the value of a transaction marker (KIP-98).
fn write_control(record: &Record, out: &mut dyn Write) -> io::Result<()> {
    let key = record.key.as_deref().unwrap_or_default();
    let kind = key
        .get(2..4)
        .map_or(-1, |kind| i16::from_be_bytes([kind[0], kind[1]]));
    let marker = match kind {
        0 => "ABORT",
        1 => "COMMIT",
        _ => return writeln!(out, " controlType: {kind}"),
    };
    let value = record.value.as_deref().unwrap_or_default();
    let epoch = value
        .get(2..6)
        .and_then(|epoch| epoch.try_into().ok())
        .map_or(-1, i32::from_be_bytes);
    writeln!(out, " endTxnMarker: {marker} coordinatorEpoch: {epoch}")
}

fn dump_index(
    base_offset: Offset,
    reader: &mut dyn Read,
    out: &mut dyn Write,
) -> io::Result<Damage> {
    let mut last = (base_offset, -1);
    dump_entries::<INDEX_ENTRY_BYTES>(reader, out, |entry, out| {
        let (offset, position) = entry.split_at(4);
        let offset = base_offset.saturating_add(be_i64(offset));
        let position = be_i64(position);
        write!(out, "offset: {offset} position: {position}")?;
        let increases = offset >= last.0 && position > last.1;
        last = (offset, position);
        Ok(increases)
    })
}

fn dump_time_index(
    base_offset: Offset,
    reader: &mut dyn Read,
    out: &mut dyn Write,
) -> io::Result<Damage> {
    let mut last = (i64::MIN, base_offset);
    dump_entries::<TIME_INDEX_ENTRY_BYTES>(reader, out, |entry, out| {
        let (timestamp, offset) = entry.split_at(8);
        let timestamp = be_i64(timestamp);
        let offset = base_offset.saturating_add(be_i64(offset));
        write!(out, "timestamp: {timestamp} offset: {offset}")?;
        let increases = timestamp > last.0 && offset >= last.1;
        last = (timestamp, offset);
        Ok(increases)
    })
}

/// Runs over the entries up to the first of zeros, where the preallocated rest begins. `write`
/// tells whether its entry follows the one before.
fn dump_entries<const N: usize>(
    reader: &mut dyn Read,
    out: &mut dyn Write,
    mut write: impl FnMut(&[u8; N], &mut dyn Write) -> io::Result<bool>,
) -> io::Result<Damage> {
    let mut damage = Damage::default();
    loop {
        let bytes = read_up_to(reader, N)?;
        let Ok(entry) = <&[u8; N]>::try_from(&bytes[..]) else {
            damage.invalid_bytes = bytes.len() as u64;
            if damage.invalid_bytes > 0 {
                writeln!(
                    out,
                    "Found {} invalid bytes at the end",
                    damage.invalid_bytes
                )?;
            }
            return Ok(damage);
        };
        if *entry == [0; N] {
            return Ok(damage);
        }
        if write(entry, out)? {
            writeln!(out)?;
        } else {
            damage.invalid_entries += 1;
            writeln!(out, " (not above the entry before)")?;
        }
    }
}

fn timestamp_label(header: &Header) -> &'static str {
    match header.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

/// UTF-8 with control characters escaped and everything else replaced where it is not text.
fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// A signed big-endian number of up to 8 bytes.
fn be_i64(bytes: &[u8]) -> i64 {
    let sign = bytes.first().map_or(0, |byte| i64::from(*byte as i8 >> 7));
    bytes
        .iter()
        .fold(sign, |number, byte| number << 8 | i64::from(*byte))
}

/// Reads `count` bytes, fewer at the end of the file. Grows with what is there: the count can be
/// a damaged length field.
fn read_up_to(reader: &mut dyn Read, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(count as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Builder, Codec};

    const LOG: &str = "00000000000000000000.log";

    fn dumped(name: &str, contents: &[u8]) -> (String, Damage) {
        let mut out = Vec::new();
        let damage = dump(name, &mut &contents[..], true, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), damage)
    }

    fn last_line(text: &str) -> &str {
        text.lines().last().unwrap_or_default()
    }

    /// Files of Apache Kafka 4.3.1, and what its own DumpLogSegments says about them.
    #[test]
    fn the_same_text_as_kafka() {
        macro_rules! check {
            ($dir:literal, $file:literal, $text:literal) => {
                let contents = include_bytes!(concat!("testdata/", $dir, "/", $file));
                let expected = include_str!(concat!("testdata/", $dir, "/", $text));
                assert_eq!(
                    dumped($file, contents),
                    (expected.to_owned(), Damage::default())
                );
            };
        }
        check!("plain", "00000000000000000000.log", "log.txt");
        check!("plain", "00000000000000000000.index", "index.txt");
        check!("plain", "00000000000000000000.timeindex", "timeindex.txt");
        check!("control", "00000000000000000000.log", "log.txt");
    }

    #[test]
    fn batches_without_their_records() {
        let contents = include_bytes!("testdata/plain/00000000000000000000.log");
        let mut out = Vec::new();
        dump(LOG, &mut &contents[..], false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = include_str!("testdata/plain/log.txt");
        let expected: Vec<_> = expected
            .lines()
            .filter(|line| !line.starts_with('|'))
            .collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_torn_tail_is_reported_at_every_cut() {
        let contents = include_bytes!("testdata/plain/00000000000000000000.log");
        let (last, size) = (917, contents.len());
        for end in last + 1..size {
            let (text, damage) = dumped(LOG, &contents[..end]);
            let invalid_bytes = (end - last) as u64;
            assert_eq!(
                damage,
                Damage {
                    invalid_bytes,
                    ..Damage::default()
                }
            );
            // In the words of Kafka's tool.
            let expected = format!("Found {invalid_bytes} invalid bytes at the end of {LOG}");
            assert_eq!(last_line(&text), expected);
        }
        assert!(!dumped(LOG, &contents[..last]).1.is_any());
    }

    #[test]
    fn foreign_bytes_and_preallocated_zeros_at_the_end() {
        let contents = include_bytes!("testdata/plain/00000000000000000000.log");
        let (text, damage) = dumped(LOG, &[contents, &[0xff; 100][..]].concat());
        assert_eq!(damage.invalid_bytes, 100);
        assert!(last_line(&text).starts_with("Found 100 invalid bytes"));
        let (text, damage) = dumped(LOG, &[contents, &[0; 100_000][..]].concat());
        assert!(!damage.is_any());
        assert!(last_line(&text).starts_with("Found 100000 preallocated bytes"));
    }

    #[test]
    fn a_flipped_bit_makes_the_batch_invalid() {
        let mut contents = *include_bytes!("testdata/plain/00000000000000000000.log");
        contents[131 + 100] ^= 1;
        let (text, damage) = dumped(LOG, &contents);
        assert_eq!(
            damage,
            Damage {
                invalid_batches: 1,
                ..Damage::default()
            }
        );
        assert_eq!(text.matches("isvalid: false").count(), 1);
        assert_eq!(text.matches("isvalid: true").count(), 7);
        // The second record's length: the batch cannot be read further.
        contents[131 + 61] = 0xfe;
        let (text, damage) = dumped(LOG, &contents);
        assert_eq!(damage.invalid_batches, 1);
        assert!(text.contains("| unreadable: "));
    }

    #[test]
    fn compressed_records_and_text_that_is_none() {
        let mut builder = Builder::new(Codec::Zstd);
        builder.set_base_offset(40);
        builder.set_producer(7, 1, i32::MAX);
        builder.append(5, Some(b"a\nb\x1b[2J"), Some(&[0xff, b'x']), &[]);
        builder.append(6, None, Some("Grüße".as_bytes()), &[]);
        let (text, damage) = dumped("data/t-0/00000000000000000040.log", &builder.build());
        assert!(!damage.is_any());
        let records: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(
            records,
            [
                "| offset: 40 CreateTime: 5 keySize: 7 valueSize: 2 sequence: 2147483647 \
                 headerKeys: [] key: a\\nb\\u{1b}[2J payload: \u{fffd}x",
                "| offset: 41 CreateTime: 6 keySize: -1 valueSize: 7 sequence: 0 \
                 headerKeys: [] payload: Grüße",
            ]
        );
        assert!(text.contains("compresscodec: zstd"));
        assert!(text.contains("lastSequence: 0 "));
    }

    #[test]
    fn indexes_that_do_not_increase_or_end_early() {
        let entries = |pairs: &[(i32, i32)]| -> Vec<u8> {
            let bytes = pairs
                .iter()
                .flat_map(|(a, b)| [a.to_be_bytes(), b.to_be_bytes()]);
            bytes.flatten().collect()
        };
        let (text, damage) = dumped(
            "7.index",
            &entries(&[(1, 10), (3, 30), (2, 40), (0, 0), (9, 9)]),
        );
        assert_eq!(damage.invalid_entries, 1);
        assert_eq!(
            last_line(&text),
            "offset: 9 position: 40 (not above the entry before)"
        );
        let (_, damage) = dumped("7.index", &entries(&[(1, 10)])[..7]);
        assert_eq!(damage.invalid_bytes, 7);
        let (_, damage) = dumped("7.index", &entries(&[(1, 10), (2, 10)]));
        assert_eq!(damage.invalid_entries, 1);
        let time = [5i64.to_be_bytes().to_vec(), 1i32.to_be_bytes().to_vec()].concat();
        let (_, damage) = dumped("7.timeindex", &time.repeat(2));
        assert_eq!(damage.invalid_entries, 1);
    }

    #[test]
    fn other_files_are_refused() {
        for name in ["leader-epoch-checkpoint", "x.log", "1.snapshot", ""] {
            let error = dump(name, &mut &b""[..], true, &mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
