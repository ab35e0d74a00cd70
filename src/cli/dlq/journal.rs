//! What became of dead letters: the journal, a topic beside the dead letter topic with one entry
//! per origin. Only the last entry of an origin counts, so that the journal may be compacted. Pure:
//! what is read becomes state, what is to be stored becomes bytes.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::client::ConsumedRecord;
use crate::client::consumer::TopicPartition;
use crate::client::dead_letter::Place;

/// What follows the name of the dead letter topic in that of its journal.
const SUFFIX: &str = "-journal";

/// The journal of a dead letter topic.
pub fn topic_of(letters: &str) -> String {
    format!("{letters}{SUFFIX}")
}

/// The last that is known of an origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Entry {
    /// It is about to be sent, or was: if so, it stands at `end` or behind.
    Sending {
        /// Where it is sent to.
        topic: String,
        /// The partition there.
        partition: i32,
        /// An offset that the partition had not reached.
        end: i64,
        /// How often it is sent then, this time included.
        replays: u32,
    },
    /// It was sent, once.
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

/// What is stored under a key; nothing takes back what was stored before.
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

    /// What is known of an origin.
    pub fn state(&self, origin: &Place) -> State {
        match self.entries.get(origin) {
            None => State::Open,
            Some(Entry::Sending { .. }) => State::Sending,
            Some(Entry::Replayed { .. }) => State::Replayed,
            Some(Entry::Skipped { .. }) => State::Skipped,
        }
    }

    /// The last entry of an origin.
    pub fn entry(&self, origin: &Place) -> Option<&Entry> {
        self.entries.get(origin)
    }

    /// How often the record at this place was sent before: by replays that are in the journal, so
    /// that consumers may lose the header that counts them.
    pub fn replays_at(&self, place: &Place) -> u32 {
        self.replays.get(place).copied().unwrap_or(0)
    }

    /// Everything of which it is not known whether it arrived: the origin, where it was sent to,
    /// the offset from which it may stand there, and how often it is sent then.
    pub fn unsettled(&self) -> Vec<(Place, TopicPartition, i64, u32)> {
        let entries = self.entries.iter();
        let unsettled = entries.filter_map(|(origin, entry)| match entry {
            Entry::Sending {
                topic,
                partition,
                end,
                replays,
            } => {
                let target = TopicPartition::new(topic, *partition);
                Some((origin.clone(), target, *end, *replays))
            }
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
            Self::Sending { .. } | Self::Skipped { .. } => None,
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

    fn notes() -> [Note; 4] {
        let origin = place("orders/3/41");
        let (topic, partition, replays) = ("orders".to_owned(), 3, 2);
        [
            (
                origin.clone(),
                Some(Entry::Sending {
                    topic: topic.clone(),
                    partition,
                    end: 90,
                    replays,
                }),
            ),
            (origin.clone(), None),
            (
                origin.clone(),
                Some(Entry::Skipped {
                    reason: "a test".to_owned(),
                }),
            ),
            (
                origin,
                Some(Entry::Replayed {
                    topic,
                    partition,
                    offset: 91,
                    replays,
                }),
            ),
        ]
    }

    #[test]
    fn the_last_note_of_an_origin_counts_and_comes_back_from_its_record() {
        let mut journal = Journal::default();
        let origin = place("orders/3/41");
        assert_eq!(journal.state(&origin), State::Open);
        let states = [State::Sending, State::Open, State::Skipped, State::Replayed];
        for (note, state) in notes().iter().zip(states) {
            let (key, value) = encode(note);
            let key = str::from_utf8(&key).unwrap();
            let value = value.as_deref().map(|value| str::from_utf8(value).unwrap());
            journal.read(&record(key, value)).unwrap();
            assert_eq!(journal.state(&origin), state);
            assert_eq!(journal.entry(&origin), note.1.as_ref());
            assert_eq!(
                journal.unsettled().len(),
                usize::from(state == State::Sending)
            );
        }
        assert_eq!(journal.replays_at(&place("orders/3/91")), 2);
        assert_eq!(journal.replays_at(&place("orders/3/92")), 0);
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
