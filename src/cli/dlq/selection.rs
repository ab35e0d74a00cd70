//! Which dead letters a command is about: by what they say, or by their positions. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clap::Args;

use super::letter::Letter;
use crate::cli::output::Failure;
use crate::cli::time::parse_time;
use crate::client::{Start, TopicPartition};

/// A place in the dead letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// What dead letters must say; nothing means all.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Only those whose error, or what it says, contains this
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only those with this key
    #[arg(long)]
    key: Option<String>,
    /// Only those from this time on, such as 2026-01-31T12:00:00Z or @MILLISECONDS
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<i64>,
    /// Only those before this time
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<i64>,
    /// Only those that came from this topic
    #[arg(long, value_name = "TOPIC")]
    origin_topic: Option<String>,
    /// Only those that came from this partition
    #[arg(long, value_name = "PARTITION", value_parser = clap::value_parser!(i32).range(0..))]
    origin_partition: Option<i32>,
}

/// Which dead letters to deal with. What is not said is not guessed.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Where they are in the dead letter topic, as `forebay dlq list` shows
    #[arg(value_name = "PARTITION:OFFSET", value_parser = parse_position)]
    positions: Vec<Position>,
    /// All of them
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
}

/// Reads "3:41".
pub fn parse_position(text: &str) -> Result<Position, String> {
    let parsed = text.split_once(':').and_then(|(partition, offset)| {
        let position = Position {
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        };
        (position.partition >= 0 && position.offset >= 0).then_some(position)
    });
    parsed.ok_or_else(|| "write PARTITION:OFFSET, for instance 3:41".to_owned())
}

/// Milliseconds since 1970.
fn parse_moment(text: &str) -> Result<i64, String> {
    let moment = match text.strip_prefix('@') {
        Some(milliseconds) => milliseconds.parse().ok().filter(|ms| *ms >= 0),
        None => parse_time(text),
    };
    moment.ok_or_else(|| "write a time like 2026-01-31T12:00:00Z, or @MILLISECONDS".to_owned())
}

impl Filter {
    /// Whether a letter says what it must.
    pub fn matches(&self, letter: &Letter) -> bool {
        let dead = &letter.dead;
        let contains = |text: &Option<String>, part: &str| {
            let text = text.as_ref();
            text.is_some_and(|text| text.contains(part))
        };
        let error = self
            .error
            .as_deref()
            .is_none_or(|part| contains(&dead.error, part) || contains(&dead.message, part));
        let key = self.key.as_deref().map(str::as_bytes);
        let key = key.is_none_or(|key| letter.record.key.as_deref() == Some(key));
        let time = letter.record.timestamp;
        let topic = self.origin_topic.as_ref();
        let partition = self.origin_partition;
        error
            && key
            && self.since.is_none_or(|since| time >= since)
            && self.until.is_none_or(|until| time < until)
            && topic.is_none_or(|topic| dead.topic.as_ref() == Some(topic))
            && partition.is_none_or(|partition| dead.partition == Some(partition))
    }

    /// Where to start reading a topic of so many partitions.
    pub fn starts(&self, topic: &str, partitions: i32) -> Vec<(TopicPartition, Start)> {
        let start = self.since.map_or(Start::Earliest, Start::Timestamp);
        let partitions = 0..partitions;
        partitions
            .map(|index| (TopicPartition::new(topic, index), start))
            .collect()
    }

    fn is_set(&self) -> bool {
        self.error.is_some()
            || self.key.is_some()
            || self.since.is_some()
            || self.until.is_some()
            || self.origin_topic.is_some()
            || self.origin_partition.is_some()
    }
}

impl Selection {
    /// Refuses what is said in two ways, or in none.
    pub fn check(&self) -> Result<(), Failure> {
        let sentence = match (self.positions.is_empty(), self.filter.is_set(), self.all) {
            (true, false, false) => {
                "say which dead letters: PARTITION:OFFSET, a filter such as --error TEXT, or --all"
            }
            (true, true, true) => "--all contradicts the filter: leave one of them out",
            (false, _, true) => "--all contradicts the positions: leave one of them out",
            (false, true, false) => "a filter contradicts the positions: leave one of them out",
            _ => return Ok(()),
        };
        Err(Failure::Usage(sentence.to_owned()))
    }

    /// Whether a letter is selected.
    pub fn matches(&self, letter: &Letter) -> bool {
        match self.positions.is_empty() {
            true => self.filter.matches(letter),
            false => self.positions.contains(&letter.position()),
        }
    }

    /// Where to start reading a topic of so many partitions.
    ///
    /// Errors: a position is in none of them.
    pub fn starts(
        &self,
        topic: &str,
        partitions: i32,
    ) -> Result<Vec<(TopicPartition, Start)>, Failure> {
        if self.positions.is_empty() {
            return Ok(self.filter.starts(topic, partitions));
        }
        let mut firsts: BTreeMap<i32, i64> = BTreeMap::new();
        for position in &self.positions {
            if position.partition >= partitions {
                let index = position.partition;
                return Err(Failure::no_partition(topic, index, partitions));
            }
            let first = firsts.entry(position.partition).or_insert(position.offset);
            *first = (*first).min(position.offset);
        }
        let starts = firsts.into_iter().map(|(partition, offset)| {
            (TopicPartition::new(topic, partition), Start::Offset(offset))
        });
        Ok(starts.collect())
    }

    /// The positions that are to be found.
    pub fn wanted(&self) -> BTreeSet<Position> {
        self.positions.iter().copied().collect()
    }

    /// True once nothing more can be selected, while these positions were not found yet.
    pub fn is_complete(&self, missing: &BTreeSet<Position>) -> bool {
        !self.positions.is_empty() && missing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::dlq::test_letter::letter;

    fn filter(change: impl FnOnce(&mut Filter)) -> Filter {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    }

    #[test]
    fn each_filter_takes_what_it_names_and_all_must_agree() {
        let letter = letter((2, 7), (3, 41), "alice");
        let check = |change: fn(&mut Filter), expected| {
            assert_eq!(filter(change).matches(&letter), expected);
        };
        check(|_| {}, true);
        check(|filter| filter.error = Some("NoSt".to_owned()), true);
        check(|filter| filter.error = Some("none left".to_owned()), true);
        check(|filter| filter.error = Some("Timeout".to_owned()), false);
        check(|filter| filter.key = Some("alice".to_owned()), true);
        check(|filter| filter.key = Some("alic".to_owned()), false);
        check(|filter| filter.since = Some(1_007), true);
        check(|filter| filter.since = Some(1_008), false);
        check(|filter| filter.until = Some(1_008), true);
        check(|filter| filter.until = Some(1_007), false);
        check(
            |filter| filter.origin_topic = Some("orders".to_owned()),
            true,
        );
        check(
            |filter| filter.origin_topic = Some("order".to_owned()),
            false,
        );
        check(|filter| filter.origin_partition = Some(3), true);
        check(|filter| filter.origin_partition = Some(2), false);
        check(
            |filter| {
                filter.key = Some("alice".to_owned());
                filter.until = Some(0);
            },
            false,
        );
    }

    #[test]
    fn positions_are_read_from_the_first_that_is_wanted() {
        let positions = ["3:41", "1:7", "3:5"].map(|text| parse_position(text).unwrap());
        let selection = Selection {
            positions: positions.to_vec(),
            ..Selection::default()
        };
        selection.check().unwrap();
        let starts = selection.starts("dlq", 4).unwrap();
        let start =
            |partition, offset| (TopicPartition::new("dlq", partition), Start::Offset(offset));
        assert_eq!(starts, [start(1, 7), start(3, 5)]);
        assert!(selection.matches(&letter((3, 41), (0, 0), "")));
        assert!(!selection.matches(&letter((1, 41), (0, 0), "")));
        let mut missing = selection.wanted();
        assert!(!selection.is_complete(&missing));
        missing.clear();
        assert!(selection.is_complete(&missing));
        assert!(
            !Selection::default().is_complete(&missing),
            "there may be more"
        );
        let refusal = selection.starts("dlq", 3).unwrap_err().to_string();
        assert!(refusal.contains("no partition 3"), "{refusal}");
    }

    #[test]
    fn what_is_said_twice_or_not_at_all_is_refused() {
        let all = Selection {
            all: true,
            ..Selection::default()
        };
        let keyed = Selection {
            filter: filter(|filter| filter.key = Some("alice".to_owned())),
            ..Selection::default()
        };
        let one = Selection {
            positions: vec![parse_position("0:0").unwrap()],
            ..Selection::default()
        };
        all.check().unwrap();
        keyed.check().unwrap();
        one.check().unwrap();
        let both = |one: &Selection, other: &Selection| Selection {
            positions: [&one.positions[..], &other.positions].concat(),
            all: one.all || other.all,
            filter: match one.filter.is_set() {
                true => one.filter.clone(),
                false => other.filter.clone(),
            },
        };
        for wrong in [
            Selection::default(),
            both(&all, &keyed),
            both(&all, &one),
            both(&one, &keyed),
        ] {
            assert!(matches!(wrong.check(), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in ["", "3", "3:", ":41", "-1:0", "0:-1", "a:b", "3:41:5"] {
            assert!(parse_position(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "@", "@-1", "yesterday", "12:00"] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_moment("@5"), Ok(5));
        assert_eq!(parse_moment("1970-01-02"), Ok(86_400_000));
    }
}
