//! `forebay dlq show`: one dead letter, readable.

use std::fmt::Write;

use clap::Args;
use serde_json::{Value, json};

use super::journal::{Entry, Journal};
use super::letter::Letter;
use super::partitions;
use super::reading::Reader;
use super::selection::{Position, parse_position};
use super::wire::read_journal;
use crate::cli::Cluster;
use crate::cli::output::{Failure, Format, Output};
use crate::cli::record_format;
use crate::cli::time::format_time;
use crate::client::dead_letter::is_of_letter;
use crate::client::{Client, Isolation, Start, Tcp, TopicPartition};

/// Bytes in a row of a hexadecimal dump.
const ROW_BYTES: usize = 16;

/// What to show.
#[derive(Debug, Args)]
pub struct Show {
    /// Name of the dead letter topic
    topic: String,
    /// Where it is, as `forebay dlq list` shows
    #[arg(value_name = "PARTITION:OFFSET", value_parser = parse_position)]
    position: Position,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    cluster: Cluster,
}

/// Shows one dead letter.
pub async fn run(command: Show, output: &mut Output) -> Result<(), Failure> {
    let client = command.cluster.connect().await?;
    let letter = read(&client, &command.topic, command.position).await?;
    let journal = read_journal(&client, &command.topic).await?;
    match command.format {
        Format::Json => output.json(&to_json(&letter, &journal)),
        Format::Text => output.bytes(to_text(&letter, &journal).as_bytes()),
    }
}

async fn read(client: &Client<Tcp>, topic: &str, position: Position) -> Result<Letter, Failure> {
    let Position { partition, offset } = position;
    let count = partitions(client, topic).await?;
    if partition >= count {
        return Err(Failure::no_partition(topic, partition, count));
    }
    let place = TopicPartition::new(topic, partition);
    let start = vec![(place.clone(), Start::Offset(offset))];
    let mut reader = Reader::open(client, start, Isolation::ReadCommitted).await?;
    let records = reader.next().await?.map(|(_, records)| records);
    let first = records.and_then(|records| records.into_iter().next());
    match first.filter(|record| record.offset == offset) {
        Some(record) => Ok(Letter::new(&place, record)),
        None => Err(Failure::Failed(format!(
            "{place} has no record at offset {offset}: see `forebay dlq list {topic}`"
        ))),
    }
}

fn to_text(letter: &Letter, journal: &Journal) -> String {
    let (dead, record) = (&letter.dead, &letter.record);
    let origin = letter.origin();
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{:<11} {}", format!("{name}:"), printable(value));
    };
    let or_not_said = |value: &Option<String>| value.clone().unwrap_or("(not said)".to_owned());
    row("Letter", &letter.place.to_string());
    row("Time", &format_time(record.timestamp));
    row("State", &state(journal.entry(letter)));
    let came_from = match dead.origin() {
        Some(origin) => origin.to_string(),
        None => or_not_said(&dead.topic),
    };
    row("Came from", &came_from);
    if let Some(time) = dead.timestamp {
        row("Sent there", &format_time(time));
    }
    row("Error", &or_not_said(&dead.error));
    row("Which says", &or_not_said(&dead.message));
    if let Some(attempts) = dead.attempts {
        row("Attempts", &attempts.to_string());
    }
    let replays = dead.replays.max(journal.replays_at(&origin));
    row("Replays", &replays.to_string());
    for (name, value) in &record.headers {
        let kind = if is_of_letter(name) {
            "Of letter"
        } else {
            "Header"
        };
        let name = String::from_utf8_lossy(name);
        let value = value.as_deref().map_or("(null)".to_owned(), inline);
        row(kind, &format!("{name} = {value}"));
    }
    row(
        "Key",
        &record.key.as_deref().map_or("(none)".to_owned(), inline),
    );
    match record.value.as_deref() {
        None => row("Value", "(null)"),
        Some(value) => {
            row("Value", &format!("{} bytes", value.len()));
            text.push_str(&block(value));
        }
    }
    text
}

fn state(entry: Option<&Entry>) -> String {
    match entry {
        None => "open".to_owned(),
        Some(Entry::Sending(sending)) => format!(
            "being sent to {}/{} when a replay was cut short; the next one finds out",
            sending.topic, sending.partition
        ),
        Some(Entry::Replayed {
            topic,
            partition,
            offset,
            ..
        }) => format!("replayed, is at {topic}/{partition}/{offset}"),
        Some(Entry::Skipped { reason }) => format!("skipped: {reason}"),
    }
}

/// Text as it is, anything else in hexadecimal, on one line.
fn inline(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => {
            let mut hex = "0x".to_owned();
            for byte in bytes {
                let _ = write!(hex, "{byte:02x}");
            }
            hex
        }
    }
}

/// Text as it is, anything else as a dump.
fn block(bytes: &[u8]) -> String {
    let is_odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains(is_odd) => format!("{text}\n"),
        _ => dump(bytes),
    }
}

fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, row) in bytes.chunks(ROW_BYTES).enumerate() {
        let mut hex = String::new();
        let mut plain = String::new();
        for byte in row {
            let _ = write!(hex, "{byte:02x} ");
            let is_plain = byte.is_ascii_graphic() || *byte == b' ';
            plain.push(if is_plain { char::from(*byte) } else { '.' });
        }
        let _ = writeln!(text, "{:08x}  {hex:<48} {plain}", index * ROW_BYTES);
    }
    text
}

/// Without what would change the terminal.
fn printable(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.collect()
}

fn to_json(letter: &Letter, journal: &Journal) -> Value {
    let (dead, origin) = (&letter.dead, letter.origin());
    let place = TopicPartition::new(&letter.place.topic, letter.place.partition);
    json!({
        "record": record_format::to_json(&place, &letter.record),
        "state": journal.state(letter),
        "journal": journal.entry(letter),
        "originTopic": dead.topic,
        "originPartition": dead.partition,
        "originOffset": dead.offset,
        "originTimestamp": dead.timestamp,
        "error": dead.error,
        "message": dead.message,
        "attempts": dead.attempts,
        "replays": dead.replays.max(journal.replays_at(&origin)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::dlq::test_letter::letter;
    use bytes::Bytes;

    #[test]
    fn everything_is_there_and_readable() {
        let mut letter = letter((1, 7), (3, 41), "alice");
        letter.record.value = Some(Bytes::from_static(b"\x00\x01text"));
        let mut journal = Journal::default();
        let entry = Entry::Replayed {
            topic: "orders".to_owned(),
            partition: 3,
            offset: 90,
            replays: 1,
        };
        journal.apply(&(letter.origin(), Some(entry)));
        let text = to_text(&letter, &journal);
        for line in [
            "Letter:     orders-dlt/1/7",
            "Time:       1970-01-01T00:00:01.007Z",
            "State:      replayed, is at orders/3/90",
            "Came from:  orders/3/41",
            "Error:      NoStock",
            "Which says: none left",
            "Header:     trace = abc",
            "Of letter:  __connect.errors.topic = orders",
            "Key:        alice",
            "Value:      6 bytes",
            "00000000  00 01 74 65 78 74                                ..text",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
        let json = to_json(&letter, &journal);
        assert_eq!(json["state"], "replayed");
        assert_eq!(json["journal"]["offset"], 90);
        assert_eq!(json["record"]["key"], "alice");
        assert_eq!(
            (&json["originOffset"], &json["error"]),
            (&json!(41), &json!("NoStock"))
        );
    }

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        assert_eq!(inline(b"\x1b[2J"), "0x1b5b324a");
        assert_eq!(block(b"a\n\tb"), "a\n\tb\n");
        assert!(block(b"a\x1bb").starts_with("00000000  61 1b 62"));
        assert_eq!(printable("a\x1b[2J\nb"), "a [2J b");
    }
}
