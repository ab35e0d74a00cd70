//! Dealing with dead letters: each open one is skipped, or sent back once per origin. Owns the
//! order in which things are written, and so the promise: a replay that ends anywhere and is run
//! again sends nothing twice.
//!
//! Before a record is sent, the journal has a note with an offset that its partition had not
//! reached; after it, where the record is. A note without its end is settled first by the next run:
//! it looks for the record from that offset on. Records carry their origin in a header for that.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::journal::{Entry, Journal, Note, Sending, State};
use super::letter::Letter;
use super::selection::Position;
use crate::base::Offset;
use crate::cli::output::Failure;
use crate::client::dead_letter::Place;
use crate::client::{ProduceError, ProducerRecord, TopicPartition};

/// The topics, as this work needs them.
pub(super) trait Topics {
    /// Stores notes in the journal, in order; they are durable when it returns.
    async fn note(&mut self, notes: &[Note]) -> Result<(), Failure>;

    /// How many partitions a topic has, or why nothing can be sent there: what is wrong with the
    /// letters that go there, to follow their number.
    async fn partitions(&mut self, topic: &str) -> Result<Result<i32, String>, Failure>;

    /// The offset behind the last record of a partition.
    async fn end(&mut self, partition: &TopicPartition) -> Result<Offset, Failure>;

    /// Looks for copies of these origins in a partition, from this offset on.
    async fn find(
        &mut self,
        partition: &TopicPartition,
        from: Offset,
        origins: &BTreeSet<Place>,
    ) -> Result<Found, Failure>;

    /// Sends records; gives what became of each, in the same order. Records of one partition arrive
    /// in order; one that is refused can take the others of its partition with it.
    async fn send(&mut self, records: Vec<Addressed>) -> Result<Vec<Sent>, Failure>;
}

/// A record and where it goes.
pub(super) type Addressed = (TopicPartition, ProducerRecord);

/// The offset of a record that was sent, or why it was not.
pub(super) type Sent = Result<Offset, ProduceError>;

/// What was found in a partition.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// From here on nothing is overlooked: what was there has been looked at.
    pub first: Offset,
    /// Where the copies are.
    pub at: BTreeMap<Place, Offset>,
}

/// What to do with dead letters.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// The dead letter topic.
    pub letters: String,
    /// Where to send them, instead of where they came from.
    pub to: Option<String>,
    /// A record is not sent more often than this.
    pub replays_max: u32,
    /// Those that were skipped count as open.
    pub takes_skipped: bool,
    /// Those that were sent before count as open.
    pub takes_replayed: bool,
    /// Nothing is written.
    pub is_dry_run: bool,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Sent now, by the topic they went to.
    pub sent: BTreeMap<String, u64>,
    /// Skipped now.
    pub skipped: u64,
    /// Found where a replay that was cut short had sent them.
    pub arrived: u64,
    /// Dealt with before.
    pub dealt_with: u64,
    /// Of the same origin as another one of this run.
    pub twins: u64,
    /// Left as they are: positions, by the reason.
    pub left: BTreeMap<String, Vec<Position>>,
}

impl Report {
    /// How many were dealt with now.
    pub fn done_count(&self) -> u64 {
        self.sent.values().sum::<u64>() + self.skipped
    }

    /// How many were left as they are.
    pub fn left_count(&self) -> usize {
        self.left.values().map(Vec::len).sum()
    }
}

/// A dead letter on its way.
struct Outgoing {
    position: Position,
    origin: Place,
    target: TopicPartition,
    record: ProducerRecord,
    replays: u32,
    /// What is known of its origin until now.
    before: Option<Entry>,
}

/// The work on one dead letter topic.
pub(super) struct Work<'a, T> {
    topics: &'a mut T,
    journal: Journal,
    rules: Rules,
    /// Offsets that these partitions have reached.
    ends: BTreeMap<TopicPartition, Offset>,
    /// Origins that this run has sent.
    ours: BTreeSet<Place>,
    /// Origins of which it cannot be told any more whether they were sent.
    unclear: BTreeSet<Place>,
    /// What was done so far.
    pub report: Report,
}

const UNCLEAR: &str = "were being sent when a replay was cut short, and the records of that time \
                       may be gone: look whether they arrived, skip them, and send those that did \
                       not with --skipped";
const NO_ORIGIN: &str = "do not say which topic they came from: name one with --to";
const OF_LETTERS: &str = "came from the dead letter topic itself: name another one with --to";
const EMPTY: &str = "carry neither key nor value: their records are only where they came from";

impl<'a, T: Topics> Work<'a, T> {
    /// Begins, or goes on where the journal ends; [`Work::settle`] comes first.
    pub fn new(topics: &'a mut T, journal: Journal, rules: Rules) -> Self {
        Self {
            topics,
            journal,
            rules,
            ends: BTreeMap::new(),
            ours: BTreeSet::new(),
            unclear: BTreeSet::new(),
            report: Report::default(),
        }
    }

    /// Finds out what became of what an earlier run was sending when it ended.
    pub async fn settle(&mut self) -> Result<(), Failure> {
        let mut by_target: BTreeMap<TopicPartition, Vec<(Place, Sending)>> = BTreeMap::new();
        for (origin, sending) in self.journal.unsettled() {
            let target = TopicPartition::new(&sending.topic, sending.partition);
            by_target.entry(target).or_default().push((origin, sending));
        }
        for (target, sent) in by_target {
            let from = sent.iter().map(|(_, sending)| sending.end).min();
            let origins = sent.iter().map(|(origin, _)| origin.clone()).collect();
            let found = self.topics.find(&target, from.unwrap_or(0), &origins);
            let found = found.await?;
            let mut notes = Vec::new();
            for (origin, sending) in sent {
                // Before its end is what was sent earlier, if it is sent again.
                let at = found.at.get(&origin).filter(|at| **at >= sending.end);
                match at {
                    Some(offset) => {
                        self.report.arrived += 1;
                        notes.push((origin, Some(replayed(&target, *offset, sending.replays))));
                    }
                    None if found.first <= sending.end => {
                        notes.push((origin, sending.before.map(|before| *before)));
                    }
                    None => drop(self.unclear.insert(origin)),
                }
            }
            self.note(notes).await?;
        }
        Ok(())
    }

    /// Sends those of the letters back that are open, and may be sent.
    pub async fn replay(&mut self, letters: &[Letter]) -> Result<(), Failure> {
        let mut batch = Vec::new();
        for letter in letters {
            if self.unclear.contains(&letter.origin()) {
                self.leave(letter.position(), UNCLEAR.to_owned());
            } else if self.is_open(letter) {
                match self.outgoing(letter).await? {
                    Ok(outgoing) => {
                        self.ours.insert(outgoing.origin.clone());
                        batch.push(outgoing);
                    }
                    Err(reason) => self.leave(letter.position(), reason),
                }
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        if self.rules.is_dry_run {
            batch.iter().for_each(|each| self.report_sent(&each.target));
            return Ok(());
        }
        self.note_sending(&batch).await?;
        // One bad record can have all of its partition refused: each has another try, alone.
        for refused in self.send(batch).await? {
            self.send(vec![refused]).await?;
        }
        Ok(())
    }

    /// Notes for those of the letters that are open that they are to stay where they are.
    pub async fn skip(&mut self, letters: &[Letter], reason: &str) -> Result<(), Failure> {
        let mut notes = Vec::new();
        for letter in letters {
            let origin = letter.origin();
            let place = match self.unclear.remove(&origin) {
                // Somebody has looked what became of the record.
                true => origin,
                false if self.is_open(letter) => letter.place.clone(),
                false => continue,
            };
            let reason = reason.to_owned();
            notes.push((place, Some(Entry::Skipped { reason })));
        }
        let count = notes.len() as u64;
        self.note(notes).await?;
        self.report.skipped += count;
        Ok(())
    }

    /// Whether nobody has dealt with this letter; counts it if somebody has.
    fn is_open(&mut self, letter: &Letter) -> bool {
        if self.ours.contains(&letter.origin()) {
            self.report.twins += 1;
            return false;
        }
        let is_open = match self.journal.state(letter) {
            State::Open => true,
            State::Skipped => self.rules.takes_skipped,
            State::Replayed => self.rules.takes_replayed,
            State::Sending => false,
        };
        self.report.dealt_with += u64::from(!is_open);
        is_open
    }

    /// What is to be sent of a letter, or why it is not.
    async fn outgoing(&mut self, letter: &Letter) -> Result<Result<Outgoing, String>, Failure> {
        let origin = letter.origin();
        let before = self.journal.replays_at(&origin).max(letter.dead.replays);
        let topic = match self.target(letter, before) {
            Ok(topic) => topic,
            Err(reason) => return Ok(Err(reason)),
        };
        let partitions = match self.topics.partitions(&topic).await? {
            Ok(partitions) => partitions,
            Err(reason) => return Ok(Err(reason)),
        };
        let partition = letter.partition_of(&topic, partitions);
        let replays = before.saturating_add(1);
        Ok(Ok(Outgoing {
            position: letter.position(),
            before: self.journal.at(&origin).cloned(),
            origin,
            target: TopicPartition { topic, partition },
            record: letter.to_record(replays),
            replays,
        }))
    }

    /// The topic that a letter goes to, after so many replays, or why it does not.
    fn target(&self, letter: &Letter, before: u32) -> Result<String, String> {
        let rules = &self.rules;
        if letter.is_empty() {
            return Err(EMPTY.to_owned());
        }
        if before >= rules.replays_max {
            return Err(format!(
                "were sent back {} times and failed again: mend the cause and raise \
                 --replays-max, or skip them",
                rules.replays_max
            ));
        }
        let topic = rules.to.as_ref().or(letter.dead.topic.as_ref());
        match topic {
            None => Err(NO_ORIGIN.to_owned()),
            Some(topic) if *topic == rules.letters => Err(OF_LETTERS.to_owned()),
            Some(topic) => Ok(topic.clone()),
        }
    }

    /// Notes what is about to be sent, and how far its partitions have come.
    async fn note_sending(&mut self, batch: &[Outgoing]) -> Result<(), Failure> {
        let mut notes = Vec::new();
        for outgoing in batch {
            let target = &outgoing.target;
            let end = match self.ends.get(target) {
                Some(end) => *end,
                None => self.topics.end(target).await?,
            };
            self.ends.insert(target.clone(), end);
            let sending = Sending {
                topic: target.topic.clone(),
                partition: target.partition,
                end,
                replays: outgoing.replays,
                before: outgoing.before.clone().map(Box::new),
            };
            notes.push((outgoing.origin.clone(), Some(Entry::Sending(sending))));
        }
        self.note(notes).await
    }

    /// Sends, and notes what became of it. What was refused while others were sent with it is
    /// given back.
    async fn send(&mut self, batch: Vec<Outgoing>) -> Result<Vec<Outgoing>, Failure> {
        let is_alone = batch.len() == 1;
        let records = batch.iter();
        let records = records.map(|each| (each.target.clone(), each.record.clone()));
        let results = self.topics.send(records.collect()).await?;
        let (mut notes, mut refused, mut unknown) = (Vec::new(), Vec::new(), None);
        for (outgoing, result) in batch.into_iter().zip(results) {
            match result {
                Ok(offset) => {
                    let target = &outgoing.target;
                    let entry = replayed(target, offset, outgoing.replays);
                    notes.push((outgoing.origin, Some(entry)));
                    self.report_sent(target);
                    self.ends.insert(target.clone(), offset.saturating_add(1));
                }
                Err(error) if is_refusal(&error) && is_alone => {
                    notes.push((outgoing.origin, outgoing.before));
                    self.leave(outgoing.position, format!("were not taken: {error}"));
                }
                Err(error) if is_refusal(&error) => refused.push(outgoing),
                Err(error) => drop(unknown.get_or_insert(error)),
            }
        }
        self.note(notes).await?;
        match unknown {
            Some(error) => Err(Failure::Failed(format!(
                "{error}: run it again, it finds out first what has arrived"
            ))),
            None => Ok(refused),
        }
    }

    async fn note(&mut self, notes: Vec<Note>) -> Result<(), Failure> {
        if !self.rules.is_dry_run && !notes.is_empty() {
            self.topics.note(&notes).await?;
        }
        notes.iter().for_each(|note| self.journal.apply(note));
        Ok(())
    }

    fn report_sent(&mut self, target: &TopicPartition) {
        *self.report.sent.entry(target.topic.clone()).or_default() += 1;
    }

    fn leave(&mut self, position: Position, reason: String) {
        self.report.left.entry(reason).or_default().push(position);
    }
}

fn replayed(target: &TopicPartition, offset: Offset, replays: u32) -> Entry {
    Entry::Replayed {
        topic: target.topic.clone(),
        partition: target.partition,
        offset,
        replays,
    }
}

/// Whether it is certain that the record was not stored.
fn is_refusal(error: &ProduceError) -> bool {
    matches!(
        error,
        ProduceError::Refused {
            may_be_stored: false,
            ..
        } | ProduceError::TooLarge { .. }
            | ProduceError::BufferFull { .. }
    )
}
