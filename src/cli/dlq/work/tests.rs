//! The work on topics in memory that fail after any number of stored records, as a process that is
//! killed does: what was stored stays, and nobody learns how much that was.

use super::*;
use crate::cli::dlq::journal::encode;
use crate::cli::dlq::test_letter::letter;
use crate::client::ConsumedRecord;
use crate::client::dead_letter::{ORIGIN, REPLAYS, last};

const PARTITIONS: i32 = 4;

/// Topics as a cluster keeps them.
#[derive(Default)]
struct Memory {
    journal: Vec<ConsumedRecord>,
    partitions: BTreeMap<TopicPartition, Vec<ProducerRecord>>,
    /// So many records were deleted from the beginning of each partition.
    deleted: Offset,
    /// The process dies when so many more records are stored.
    fuse: Option<usize>,
    /// Batches arrive in the opposite order of their partitions.
    is_reversed: bool,
    /// These origins are refused by the broker, with all that is in a batch with them.
    refused: BTreeSet<Place>,
    /// Nothing can be sent to this topic.
    missing: Option<&'static str>,
}

impl Memory {
    /// A record is stored; dies if it was the last.
    fn burn(&mut self) -> Result<(), Failure> {
        match &mut self.fuse {
            None => Ok(()),
            Some(0) => Err(Failure::Failed("dead".to_owned())),
            Some(left) => {
                *left -= 1;
                match *left {
                    0 => Err(Failure::Failed("dead".to_owned())),
                    _ => Ok(()),
                }
            }
        }
    }

    fn is_dead(&self) -> bool {
        self.fuse == Some(0)
    }

    fn journal(&self) -> Journal {
        let mut journal = Journal::default();
        for record in &self.journal {
            journal.read(record).unwrap();
        }
        journal
    }

    /// How often a copy of each origin is in the topic.
    fn copies(&self, topic: &str) -> BTreeMap<Place, usize> {
        let mut copies = BTreeMap::new();
        let partitions = self.partitions.iter();
        let of_topic = partitions.filter(|(partition, _)| partition.topic == topic);
        for record in of_topic.flat_map(|(_, records)| records) {
            if let Some(origin) = origin_of(record) {
                *copies.entry(origin).or_default() += 1;
            }
        }
        copies
    }
}

fn origin_of(record: &ProducerRecord) -> Option<Place> {
    let origin = last(&record.headers, ORIGIN)?;
    Some(str::from_utf8(origin).unwrap().parse().unwrap())
}

impl Topics for Memory {
    async fn note(&mut self, notes: &[Note]) -> Result<(), Failure> {
        for note in notes {
            if self.is_dead() {
                return self.burn();
            }
            let (key, value) = encode(note);
            self.journal.push(ConsumedRecord {
                offset: self.journal.len() as i64,
                timestamp: 0,
                key: Some(key),
                value,
                headers: Vec::new(),
            });
            self.burn()?;
        }
        Ok(())
    }

    async fn partitions(&mut self, topic: &str) -> Result<Result<i32, String>, Failure> {
        Ok(match self.missing == Some(topic) {
            true => Err(format!("go to {topic:?}, which does not exist")),
            false => Ok(PARTITIONS),
        })
    }

    async fn end(&mut self, partition: &TopicPartition) -> Result<Offset, Failure> {
        Ok(self.partitions.get(partition).map_or(0, Vec::len) as Offset)
    }

    async fn find(
        &mut self,
        partition: &TopicPartition,
        from: Offset,
        origins: &BTreeSet<Place>,
    ) -> Result<Found, Failure> {
        let records = self.partitions.get(partition).into_iter().flatten();
        let mut found = Found {
            first: self.deleted,
            at: BTreeMap::new(),
        };
        for (offset, record) in (0..).zip(records).skip(from.max(self.deleted) as usize) {
            if let Some(origin) = origin_of(record).filter(|origin| origins.contains(origin)) {
                found.at.insert(origin, offset);
            }
        }
        Ok(found)
    }

    async fn send(&mut self, records: Vec<Addressed>) -> Result<Vec<Sent>, Failure> {
        let mut order: Vec<usize> = (0..records.len()).collect();
        if self.is_reversed {
            // Stable: those of one partition stay in order.
            order.sort_by_key(|index| std::cmp::Reverse(records[*index].0.clone()));
        }
        let is_bad = |(_, record): &&Addressed| self.refused.contains(&origin_of(record).unwrap());
        let bad: BTreeSet<_> = records
            .iter()
            .filter(is_bad)
            .map(|each| each.0.clone())
            .collect();
        let mut sent = BTreeMap::new();
        for index in order {
            let (target, record) = &records[index];
            if self.is_dead() {
                self.burn()?;
            }
            if bad.contains(target) {
                sent.insert(index, Err(refused(false)));
                continue;
            }
            let stored = self.partitions.entry(target.clone()).or_default();
            // Somebody else writes there too.
            stored.push(ProducerRecord::default());
            stored.push(record.clone());
            sent.insert(index, Ok(stored.len() as Offset - 1));
            self.burn()?;
        }
        Ok(sent.into_values().collect())
    }
}

fn refused(may_be_stored: bool) -> ProduceError {
    ProduceError::Refused {
        topic: "orders".to_owned(),
        partition: Some(0),
        reason: "MESSAGE_TOO_LARGE".to_owned(),
        may_be_stored,
    }
}

fn rules() -> Rules {
    Rules {
        letters: "orders-dlt".to_owned(),
        to: None,
        replays_max: 3,
        takes_skipped: false,
        takes_replayed: false,
        is_dry_run: false,
    }
}

/// Eight letters of seven records on three partitions.
fn letters() -> Vec<Letter> {
    let origins = [
        (0, 10),
        (1, 10),
        (2, 10),
        (0, 11),
        (1, 11),
        (0, 10),
        (2, 12),
        (0, 13),
    ];
    let letters = (0..).zip(origins);
    letters
        .map(|(offset, origin)| letter((0, offset), origin, "alice"))
        .collect()
}

/// One run of the command, which may die.
async fn run(memory: &mut Memory, rules: Rules, letters: &[Letter]) -> Result<Report, Failure> {
    let journal = memory.journal();
    let mut work = Work::new(memory, journal, rules);
    work.settle().await?;
    for batch in letters.chunks(3) {
        work.replay(batch).await?;
    }
    Ok(work.report)
}

/// One run of `forebay dlq skip`.
async fn skip(memory: &mut Memory, letters: &[Letter]) -> Report {
    let journal = memory.journal();
    let mut work = Work::new(memory, journal, rules());
    work.settle().await.unwrap();
    work.skip(letters, "a test order").await.unwrap();
    work.report
}

#[tokio::test]
async fn however_often_a_replay_dies_each_record_arrives_once() {
    let letters = letters();
    // Seven records, each with two notes, and what settling writes.
    for (first, second, is_reversed) in (1..=25)
        .flat_map(|first| (0..=25).map(move |second| (first, second)))
        .flat_map(|(first, second)| [(first, second, false), (first, second, true)])
    {
        let mut memory = Memory {
            is_reversed,
            ..Memory::default()
        };
        for fuse in [Some(first), Some(second).filter(|fuse| *fuse > 0), None] {
            memory.fuse = fuse;
            let ended = run(&mut memory, rules(), &letters).await;
            assert_eq!(ended.is_err(), memory.is_dead(), "{first} {second}");
            let copies = memory.copies("orders");
            assert!(
                copies.values().all(|count| *count == 1),
                "{first} {second} {copies:?}"
            );
        }
        assert_eq!(memory.copies("orders").len(), 7, "{first} {second}");
        assert_eq!(memory.journal().unsettled(), []);
        // And once more for nothing.
        let report = run(&mut memory, rules(), &letters).await.unwrap();
        assert_eq!((report.done_count(), report.dealt_with), (0, 8));
    }
}

#[tokio::test]
async fn two_letters_of_one_record_are_sent_as_one() {
    let mut memory = Memory::default();
    let report = run(&mut memory, rules(), &letters()).await.unwrap();
    assert_eq!((report.done_count(), report.twins), (7, 1));
    assert_eq!(report.sent["orders"], 7);
    // In the order in which they were given up.
    let partition = TopicPartition::new("orders", 0);
    let sent = memory.partitions[&partition].iter().filter_map(origin_of);
    let offsets: Vec<i64> = sent.map(|origin| origin.offset).collect();
    assert_eq!(offsets, [10, 11, 13]);
}

#[tokio::test]
async fn a_selective_replay_after_a_death_settles_the_others_too() {
    let letters = letters();
    let mut memory = Memory {
        // Three intents and two of the three records.
        fuse: Some(5),
        ..Memory::default()
    };
    run(&mut memory, rules(), &letters).await.unwrap_err();
    memory.fuse = None;
    let report = run(&mut memory, rules(), &letters[7..]).await.unwrap();
    assert_eq!((report.done_count(), report.arrived), (1, 2));
    let state = |index: usize| memory.journal().state(&letters[index]);
    let states = [state(0), state(1), state(2), state(7)];
    let (open, replayed) = (State::Open, State::Replayed);
    assert_eq!(states, [replayed, replayed, open, replayed]);
}

#[tokio::test]
async fn what_came_back_too_often_is_left_even_without_the_header_that_counts() {
    let mut memory = Memory::default();
    let mut at = (0, 10);
    for round in 1..=4 {
        // The consumer gives the copy up again, and keeps no headers.
        let again = [letter((0, round), at, "alice")];
        let report = run(&mut memory, rules(), &again).await.unwrap();
        let copy = memory.partitions.values().next().unwrap();
        let expected = round.min(3).to_string();
        let counted = last(&copy.last().unwrap().headers, REPLAYS).unwrap();
        assert_eq!(counted, expected.as_bytes());
        assert_eq!(report.done_count(), u64::from(round <= 3));
        assert_eq!(report.left_count(), usize::from(round > 3));
        at = (0, copy.len() as i64 - 1);
    }
    let mut counted = letter((0, 9), (1, 1), "bob");
    counted.dead.replays = 3;
    let counted_at = counted.position();
    let report = run(&mut memory, rules(), &[counted]).await.unwrap();
    let (reason, positions) = report.left.first_key_value().unwrap();
    assert!(
        reason.contains("3 times") && positions == &[counted_at],
        "{reason}"
    );
}

#[tokio::test]
async fn what_cannot_be_found_out_any_more_is_not_sent_again() {
    let letters = letters();
    let mut memory = Memory {
        fuse: Some(4),
        ..Memory::default()
    };
    run(&mut memory, rules(), &letters[..3]).await.unwrap_err();
    memory.fuse = None;
    memory.deleted = 100;
    let report = run(&mut memory, rules(), &letters[..3]).await.unwrap();
    assert_eq!((report.done_count(), report.left_count()), (0, 3));
    assert!(report.left.contains_key(UNCLEAR));
    // Somebody looked, and decides.
    skip(&mut memory, &letters[..1]).await;
    assert_eq!(memory.journal().state(&letters[0]), State::Skipped);
    assert_eq!(memory.journal().unsettled().len(), 2);
}

#[tokio::test]
async fn what_a_broker_refuses_stays_open_and_does_not_hold_up_its_neighbours() {
    let letters = letters();
    let mut memory = Memory {
        refused: BTreeSet::from([letters[3].origin()]),
        ..Memory::default()
    };
    let mut work = Work::new(&mut memory, Journal::default(), rules());
    // All at once, so that three records of one partition share a batch.
    work.replay(&letters).await.unwrap();
    let report = work.report;
    assert_eq!((report.done_count(), report.left_count()), (6, 1));
    assert_eq!(
        report.left.values().next().unwrap(),
        &[letters[3].position()]
    );
    assert_eq!(memory.journal().state(&letters[3]), State::Open);
    assert_eq!(memory.journal().unsettled(), []);
    memory.refused.clear();
    let report = run(&mut memory, rules(), &letters).await.unwrap();
    assert_eq!(report.done_count(), 1);
}

#[test]
fn what_was_refused_only_when_it_was_sent_again_may_have_arrived() {
    assert!(is_refusal(&refused(false)));
    assert!(!is_refusal(&refused(true)));
}

#[tokio::test]
async fn one_topic_that_is_not_there_does_not_hold_up_the_others() {
    let mut lost = letter((0, 9), (0, 10), "alice");
    lost.dead.topic = Some("gone".to_owned());
    let letters = [&[lost], &letters()[..]].concat();
    let mut memory = Memory {
        missing: Some("gone"),
        ..Memory::default()
    };
    let report = run(&mut memory, rules(), &letters).await.unwrap();
    assert_eq!((report.done_count(), report.left_count()), (7, 1));
    assert!(
        report
            .left
            .keys()
            .next()
            .unwrap()
            .contains("does not exist")
    );
    memory.missing = None;
    let report = run(&mut memory, rules(), &letters).await.unwrap();
    assert_eq!((report.sent["gone"], report.done_count()), (1, 1));
}

#[tokio::test]
async fn what_was_skipped_is_sent_only_on_request() {
    let letters = letters();
    let mut memory = Memory::default();
    assert_eq!(skip(&mut memory, &letters).await.skipped, 8);
    assert_eq!(skip(&mut memory, &letters).await.skipped, 0);

    let report = run(&mut memory, rules(), &letters).await.unwrap();
    assert_eq!((report.done_count(), report.dealt_with), (0, 8));
    let takes_skipped = Rules {
        takes_skipped: true,
        ..rules()
    };
    let report = run(&mut memory, takes_skipped.clone(), &letters)
        .await
        .unwrap();
    assert_eq!((report.done_count(), report.twins), (7, 1));
    let report = run(&mut memory, takes_skipped, &letters).await.unwrap();
    assert_eq!((report.done_count(), report.dealt_with), (0, 8));
}

#[tokio::test]
async fn the_letter_of_another_group_is_not_skipped_with_it() {
    let letters = letters();
    let mut memory = Memory::default();
    // Letters 0 and 5 are of one record.
    assert_eq!(skip(&mut memory, &letters[..1]).await.skipped, 1);
    let report = run(&mut memory, rules(), &letters).await.unwrap();
    assert_eq!((report.done_count(), report.dealt_with), (7, 1));
    assert_eq!(memory.copies("orders")[&letters[5].origin()], 1);
}

#[tokio::test]
async fn what_was_sent_before_is_sent_again_only_on_request() {
    let letters = letters();
    let again = Rules {
        takes_replayed: true,
        ..rules()
    };
    // However far the second time comes, and the third; 0 is to the end.
    for fuse in 0..=14 {
        let mut memory = Memory::default();
        run(&mut memory, rules(), &letters).await.unwrap();
        memory.fuse = Some(fuse).filter(|fuse| *fuse > 0);
        let ended = run(&mut memory, again.clone(), &letters).await;
        assert_eq!(ended.is_err(), memory.is_dead(), "{fuse}");
        memory.fuse = None;
        let report = run(&mut memory, rules(), &letters).await.unwrap();
        assert_eq!((report.done_count(), report.dealt_with), (0, 8), "{fuse}");
        assert_eq!(memory.journal().unsettled(), []);
        let copies = memory.copies("orders");
        let copies: usize = copies.values().sum();
        let sent = ended.map_or(report.arrived, |report| report.done_count());
        assert!(fuse > 0 || sent == 7);
        assert!((7 + sent as usize..=14).contains(&copies), "{fuse}");
    }
}

#[tokio::test]
async fn a_copy_of_an_earlier_time_is_not_taken_for_one_of_now() {
    let letters = [letter((0, 0), (0, 10), ""), letter((0, 1), (0, 11), "")];
    let mut memory = Memory::default();
    run(&mut memory, rules(), &letters).await.unwrap();
    let target = TopicPartition::new("orders", 0);
    let ends = [memory.end(&target).await.unwrap(), 0];
    let mut notes = Vec::new();
    for (letter, end) in letters.iter().zip(ends) {
        let before = memory.journal().at(&letter.origin()).cloned();
        let sending = Sending {
            topic: "orders".to_owned(),
            partition: 0,
            end,
            replays: 1,
            before: before.map(Box::new),
        };
        notes.push((letter.origin(), Some(Entry::Sending(sending))));
    }
    memory.note(&notes).await.unwrap();
    // Both were sent, but the first before it was sent again.
    let report = run(&mut memory, rules(), &letters).await.unwrap();
    assert_eq!((report.arrived, report.dealt_with), (1, 2));
}

#[tokio::test]
async fn what_is_refused_is_again_what_it_was_before() {
    let letters = &letters()[..1];
    let mut memory = Memory::default();
    skip(&mut memory, letters).await;
    run(&mut memory, rules(), letters).await.unwrap();
    let takes_all = Rules {
        takes_skipped: true,
        takes_replayed: true,
        ..rules()
    };
    let origin = BTreeSet::from([letters[0].origin()]);
    memory.refused = origin.clone();
    run(&mut memory, takes_all.clone(), letters).await.unwrap();
    assert_eq!(memory.journal().state(&letters[0]), State::Skipped);
    memory.refused.clear();
    run(&mut memory, takes_all.clone(), letters).await.unwrap();
    memory.refused = origin;
    run(&mut memory, takes_all, letters).await.unwrap();
    assert_eq!(memory.journal().state(&letters[0]), State::Replayed);
}

#[tokio::test]
async fn letters_that_cannot_be_sent_are_left_with_the_reason() {
    let mut nameless = letter((0, 0), (0, 10), "alice");
    nameless.dead.topic = None;
    let mut empty = letter((0, 1), (0, 11), "alice");
    (empty.record.key, empty.record.value) = (None, None);
    let mut own = letter((0, 2), (0, 12), "alice");
    own.dead.topic = Some("orders-dlt".to_owned());
    let letters = [nameless, empty, own];
    let mut memory = Memory::default();
    let report = run(&mut memory, rules(), &letters).await.unwrap();
    let left = |reason| report.left[reason].clone();
    assert_eq!(left(NO_ORIGIN), [letters[0].position()]);
    assert_eq!(left(EMPTY), [letters[1].position()]);
    assert_eq!(left(OF_LETTERS), [letters[2].position()]);
    let elsewhere = Rules {
        to: Some("elsewhere".to_owned()),
        ..rules()
    };
    let report = run(&mut memory, elsewhere, &letters).await.unwrap();
    assert_eq!((report.sent["elsewhere"], report.left_count()), (2, 1));
    assert_eq!(memory.copies("elsewhere").len(), 2);
}

#[tokio::test]
async fn a_dry_run_counts_the_same_and_writes_nothing() {
    let letters = letters();
    let mut memory = Memory {
        fuse: Some(5),
        ..Memory::default()
    };
    run(&mut memory, rules(), &letters).await.unwrap_err();
    memory.fuse = None;
    let stored = |memory: &Memory| (memory.journal.len(), memory.copies("orders"));
    let before = stored(&memory);
    let dry = Rules {
        is_dry_run: true,
        ..rules()
    };
    let said = run(&mut memory, dry, &letters).await.unwrap();
    assert_eq!(stored(&memory), before);
    let done = run(&mut memory, rules(), &letters).await.unwrap();
    assert_eq!(said, done);
    assert_eq!((done.done_count(), done.arrived), (5, 2));
}
