//! `forebay dlq list`: dead letters by their errors.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde_json::json;

use super::journal::State;
use super::letter::Letter;
use super::partitions;
use super::reading::Reader;
use super::selection::{Filter, Position};
use super::wire::read_journal;
use crate::cli::Cluster;
use crate::cli::output::{Failure, Format, Output, note};
use crate::cli::time::format_time;
use crate::client::Isolation;

/// What a table shows of an error's words.
const MESSAGE_CHARS_MAX: usize = 60;

/// What to list.
#[derive(Debug, Args)]
pub struct List {
    /// Name of the dead letter topic
    topic: String,
    /// Only those in this state
    #[arg(long, value_enum, default_value = "open", conflicts_with = "any_state")]
    state: State,
    /// Those in any state
    #[arg(long)]
    any_state: bool,
    #[command(flatten)]
    filter: Filter,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    cluster: Cluster,
}

/// Dead letters of one error in one state.
#[derive(Debug)]
struct Group {
    count: u64,
    first_ms: i64,
    last_ms: i64,
    /// Where the first of them is, and what it says.
    example: Position,
    message: Option<String>,
    origin_topics: BTreeSet<String>,
}

/// Groups by error and state.
type Groups = BTreeMap<(String, State), Group>;

/// Lists what there is.
pub async fn run(command: List, output: &mut Output) -> Result<(), Failure> {
    let client = command.cluster.connect().await?;
    let topic = &command.topic;
    let starts = command
        .filter
        .starts(topic, partitions(&client, topic).await?);
    let journal = read_journal(&client, topic).await?;
    let mut reader = Reader::open(&client, starts, Isolation::ReadCommitted).await?;
    let mut groups = Groups::new();
    let mut others: BTreeMap<State, u64> = BTreeMap::new();
    while let Some((partition, records)) = reader.next().await? {
        for record in records {
            let letter = Letter::new(&partition, record);
            if !command.filter.matches(&letter) {
                continue;
            }
            let state = journal.state(&letter);
            // What was cut short is not dealt with.
            let is_wanted =
                state == command.state || (command.state == State::Open && state == State::Sending);
            match is_wanted || command.any_state {
                true => add(&mut groups, &letter, state),
                false => *others.entry(state).or_default() += 1,
            }
        }
    }
    match command.format {
        Format::Json => output.json(&groups.iter().map(to_json).collect())?,
        Format::Text if groups.is_empty() => {}
        Format::Text => print(&groups, output)?,
    }
    output.flush()?;
    if command.format == Format::Text {
        let others = others
            .iter()
            .map(|(state, count)| format!("{count} {state}"));
        let others: Vec<String> = others.collect();
        match (groups.is_empty(), others.is_empty()) {
            (true, true) => note(&format!("no dead letters in topic \"{topic}\" there")),
            (_, false) => note(&format!("not shown: {} (--any-state)", others.join(", "))),
            (false, true) => {}
        }
    }
    Ok(())
}

fn add(groups: &mut Groups, letter: &Letter, state: State) {
    let time = letter.record.timestamp;
    let key = (letter.error().to_owned(), state);
    let group = groups.entry(key).or_insert_with(|| Group {
        count: 0,
        first_ms: time,
        last_ms: time,
        example: letter.position(),
        message: letter.dead.message.clone(),
        origin_topics: BTreeSet::new(),
    });
    group.count += 1;
    group.first_ms = group.first_ms.min(time);
    group.last_ms = group.last_ms.max(time);
    if let Some(topic) = &letter.dead.topic {
        group.origin_topics.insert(topic.clone());
    }
}

fn print(groups: &Groups, output: &mut Output) -> Result<(), Failure> {
    let rows: Vec<[String; 8]> = groups
        .iter()
        .map(|((error, state), group)| {
            let topics: Vec<&str> = group.origin_topics.iter().map(String::as_str).collect();
            [
                one_line(error),
                state.to_string(),
                group.count.to_string(),
                format_time(group.first_ms),
                format_time(group.last_ms),
                one_line(&topics.join(",")),
                group.example.to_string(),
                one_line(group.message.as_deref().unwrap_or_default()),
            ]
        })
        .collect();
    output.table(
        [
            "ERROR",
            "STATE",
            "COUNT",
            "FIRST",
            "LAST",
            "FROM",
            "EXAMPLE",
            "WHICH SAYS",
        ],
        &rows,
    )
}

/// The beginning of a text, without what would break a table or a terminal.
fn one_line(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let short: String = clean.take(MESSAGE_CHARS_MAX).collect();
    match text.chars().count() > MESSAGE_CHARS_MAX {
        true => format!("{short}…"),
        false => short,
    }
}

fn to_json(((error, state), group): (&(String, State), &Group)) -> serde_json::Value {
    json!({
        "error": error,
        "state": state,
        "count": group.count,
        "firstMs": group.first_ms,
        "lastMs": group.last_ms,
        "originTopics": group.origin_topics,
        "example": group.example.to_string(),
        "message": group.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::dlq::test_letter::letter;

    #[test]
    fn letters_are_counted_by_error_and_state_with_the_first_as_the_example() {
        let mut groups = Groups::new();
        for offset in [5, 3, 9] {
            add(
                &mut groups,
                &letter((1, offset), (0, offset), ""),
                State::Open,
            );
        }
        add(&mut groups, &letter((0, 1), (0, 1), ""), State::Replayed);
        assert_eq!(groups.len(), 2);
        let group = &groups[&("NoStock".to_owned(), State::Open)];
        assert_eq!(
            (group.count, group.first_ms, group.last_ms),
            (3, 1_003, 1_009)
        );
        assert_eq!(group.example.to_string(), "1:5");
        assert_eq!(group.message.as_deref(), Some("none left"));
        assert!(group.origin_topics.contains("orders"));
    }

    #[test]
    fn a_message_stays_on_its_line() {
        assert_eq!(one_line("a\nb\x1b[31m"), "a b [31m");
        assert_eq!(one_line(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
        assert_eq!(one_line(&"é".repeat(60)), "é".repeat(60));
    }
}
