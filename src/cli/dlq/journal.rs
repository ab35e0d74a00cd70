//! What became of dead letters: the journal, a topic beside the dead letter topic with one entry
//! per place. What was sent is noted at its origin, as two letters of one record are sent once;
//! what was skipped at the place of the letter. Only the last entry of a place counts, so that the
//! journal may be compacted. Pure: what is read becomes state, what is to be stored becomes bytes.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::letter::Letter;
use crate::client::ConsumedRecord;
use crate::client::dead_letter::Place;

/// What follows the name of the dead letter topic in that of its journal.
const SUFFIX: &str = "-journal";

/// The journal of a dead letter topic.
pub fn topic_of(letters: &str) -> String {
    format!("{letters}{SUFFIX}")
}

/// The last that is known of a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Entry {
    /// It is about to be sent, or was.
    Sending(Sending),
    /// It was sent.
    Replayed {
        /// Where it is.
        topic: String,
        /// The partition there.
        partition: i32,
        /// The offset there.
        offset: i64,
        /// How often it was sent, this time included.
        replays: u32,
    },
    /// Nobody wants it.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// What is about to be sent, or was: if so, it stands at `end` or behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// Where it is sent to.
    pub topic: String,
    /// The partition there.
    pub partition: i32,
    /// An offset that the partition had not reached.
    pub end: i64,
    /// How often it is sent then, this time included.
    pub replays: u32,
    /// The entry that holds if it did not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Entry>>,
}

/// How far a dead letter is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody has dealt with it.
    Open,
    /// A replay ended before it was known whether it arrived: the next one finds out.
    Sending,
    /// It was sent.
    Replayed,
    /// It is to stay where it is.
    Skipped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Sending => "sending",
            Self::Replayed => "replayed",
            Self::Skipped => "skipped",
        })
    }
}

/// What is stored under a key; `None` takes back what was stored before.
pub type Note = (Place, Option<Entry>);

/// All that was noted about one dead letter topic.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    entries: BTreeMap<Place, Entry>,
    /// How often what stands at these places was sent.
    replays: BTreeMap<Place, u32>,
}

impl Journal {
    /// Takes in a record of the journal.
    ///
    /// Errors: it is not of a journal, in words that follow the record's place.
    pub fn read(&mut self, record: &ConsumedRecord) -> Result<(), String> {
        let key = record.key.as_deref().unwrap_or_default();
        let origin = str::from_utf8(key).ok().and_then(|key| key.parse().ok());
        let origin = origin.ok_or("has no place of a record as its key")?;
        let entry = match &record.value {
            Some(value) => {
                let entry = serde_json::from_slice(value);
                Some(entry.map_err(|error| format!("cannot be read: {error}"))?)
            }
            None => None,
        };
        self.apply(&(origin, entry));
        Ok(())
    }

    /// Takes in what was noted.
    pub fn apply(&mut self, (origin, entry): &Note) {
        match entry {
            Some(entry) => {
                if let Some((place, replays)) = entry.replayed_to() {
                    self.replays.insert(place, replays);
                }
                self.entries.insert(origin.clone(), entry.clone());
            }
            None => {
                self.entries.remove(origin);
            }
        }
    }

    /// What became of a letter.
    pub fn state(&self, letter: &Letter) -> State {
        match self.entry(letter) {
            None => State::Open,
            Some(Entry::Sending(_)) => State::Sending,
            Some(Entry::Replayed { .. }) => State::Replayed,
            Some(Entry::Skipped { .. }) => State::Skipped,
        }
    }

    /// The entry that says what became of a letter: that of its origin, or else its own.
    pub fn entry(&self, letter: &Letter) -> Option<&Entry> {
        let is_skipped = |entry: &&Entry| matches!(entry, Entry::Skipped { .. });
        let own = || self.at(&letter.place).filter(is_skipped);
        self.at(&letter.origin()).or_else(own)
    }

    /// The last entry of a place.
    pub fn at(&self, place: &Place) -> Option<&Entry> {
        self.entries.get(place)
    }

    /// How often the record at this place was sent before: by replays that are in the journal, so
    /// that consumers may lose the header that counts them.
    pub fn replays_at(&self, place: &Place) -> u32 {
        self.replays.get(place).copied().unwrap_or(0)
    }

    /// Everything of which it is not known whether it arrived, by its origin.
    pub fn unsettled(&self) -> Vec<(Place, Sending)> {
        let entries = self.entries.iter();
        let unsettled = entries.filter_map(|(origin, entry)| match entry {
            Entry::Sending(sending) => Some((origin.clone(), sending.clone())),
            Entry::Replayed { .. } | Entry::Skipped { .. } => None,
        });
        unsettled.collect()
    }
}

impl Entry {
    fn replayed_to(&self) -> Option<(Place, u32)> {
        match self {
            Self::Replayed {
                topic,
                partition,
                offset,
                replays,
            } => {
                let place = Place {
                    topic: topic.clone(),
                    partition: *partition,
                    offset: *offset,
                };
                Some((place, *replays))
            }
            Self::Sending(_) | Self::Skipped { .. } => None,
        }
    }
}

/// Key and value of the record that stores a note.
pub fn encode((origin, entry): &Note) -> (Bytes, Option<Bytes>) {
    let json = |entry| serde_json::to_vec(entry).expect("plain fields become JSON");
    let value = entry.as_ref().map(|entry| Bytes::from(json(entry)));
    (Bytes::from(origin.to_string()), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::dlq::test_letter::letter;

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    fn record(key: &str, value: Option<&str>) -> ConsumedRecord {
        ConsumedRecord {
            offset: 0,
            timestamp: 0,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
            headers: Vec::new(),
        }
    }

    fn skipped(reason: &str) -> Option<Entry> {
        let reason = reason.to_owned();
        Some(Entry::Skipped { reason })
    }

    fn notes() -> [Note; 4] {
        let origin = place("orders/3/41");
        let (topic, partition, replays) = ("orders".to_owned(), 3, 2);
        let sending = Entry::Sending(Sending {
            topic: topic.clone(),
            partition,
            end: 90,
            replays,
            before: skipped("a test").map(Box::new),
        });
        let replayed = Entry::Replayed {
            topic,
            partition,
            offset: 91,
            replays,
        };
        let entries = [Some(sending), None, skipped("a test"), Some(replayed)];
        entries.map(|entry| (origin.clone(), entry))
    }

    #[test]
    fn the_last_note_of_an_origin_counts_and_comes_back_from_its_record() {
        let mut journal = Journal::default();
        let letter = letter((0, 7), (3, 41), "alice");
        assert_eq!(journal.state(&letter), State::Open);
        let states = [State::Sending, State::Open, State::Skipped, State::Replayed];
        for (note, state) in notes().iter().zip(states) {
            let (key, value) = encode(note);
            let key = str::from_utf8(&key).unwrap();
            let value = value.as_deref().map(|value| str::from_utf8(value).unwrap());
            journal.read(&record(key, value)).unwrap();
            assert_eq!(journal.state(&letter), state);
            assert_eq!(journal.entry(&letter), note.1.as_ref());
            assert_eq!(
                journal.unsettled().len(),
                usize::from(state == State::Sending)
            );
        }
        assert_eq!(journal.replays_at(&place("orders/3/91")), 2);
        assert_eq!(journal.replays_at(&place("orders/3/92")), 0);
        // As it was written before there was anything to go back to.
        let sending = r#"{"state":"sending","topic":"orders","partition":3,"end":90,"replays":1}"#;
        journal.read(&record("orders/3/41", Some(sending))).unwrap();
        assert_eq!(journal.state(&letter), State::Sending);
    }

    #[test]
    fn a_letter_that_was_skipped_is_not_another_one_of_the_same_record() {
        let mut journal = Journal::default();
        let (one, other) = (letter((0, 7), (3, 41), ""), letter((0, 8), (3, 41), ""));
        journal.apply(&(one.place.clone(), skipped("a test")));
        assert_eq!(journal.state(&one), State::Skipped);
        assert_eq!(journal.state(&other), State::Open);
        // The record itself was sent: both are letters of it.
        journal.apply(&notes()[3]);
        assert_eq!(journal.state(&one), State::Replayed);
        assert_eq!(journal.state(&other), State::Replayed);
        // What was sent as a copy of this very letter does not speak for its record.
        let mut journal = Journal::default();
        journal.apply(&(one.place.clone(), notes()[3].1.clone()));
        assert_eq!(journal.state(&one), State::Open);
    }

    #[test]
    fn a_record_of_something_else_is_refused() {
        let mut journal = Journal::default();
        for (key, value) in [
            ("", Some("{}")),
            ("orders", None),
            ("orders/3/41", Some("{}")),
            ("orders/3/41", Some("replayed")),
            ("orders/3/41", Some(r#"{"state":"sending"}"#)),
        ] {
            assert!(
                journal.read(&record(key, value)).is_err(),
                "{key} {value:?}"
            );
        }
        let mut keyless = record("", None);
        keyless.key = None;
        assert!(journal.read(&keyless).is_err());
    }
}
