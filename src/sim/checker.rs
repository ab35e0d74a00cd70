//! What the broker has promised, and whether it keeps it. Clients tell what they sent, what was
//! acknowledged and what they read; the run tells of crashes. Unknown outcomes may be there or not.
//!
//! | promise | found by |
//! |---|---|
//! | acks=all: there after a power cut | `on_ready`, `on_placed`, audit |
//! | acks=1: there after a process died; durable after `flush.ms` | the same |
//! | one offset, one record, for ever; no record twice | `on_placed` |
//! | a producer's records keep their order | `on_placed` |
//! | what acks=all readers saw stays | an entry that was seen counts as acknowledged |
//! | high watermark and log start never go back, but with a power cut to what is durable |
//! [`Checker::on_marks`], [`Checker::on_crash`] |
//! | a deleted topic stays deleted | [`Checker::on_ready`], the admin client |
//! | a flipped bit is noticed, and nothing wrong is given | [`Checker::on_rot`], `consumer::read` |
//! | groups: see `group_checker` | |
//!
//! Each rule is seen to fail in the tests below, the whole by the bugs in `tests/planted.rs`.

use super::group_checker::GroupChecker;
use super::records::RecordId;
use crate::base::{Mono, Offset, PartitionKey, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// acks=1 is durable this long after its acknowledgement: `flush.ms` and the time that the sync,
/// and one before it, may take.
const FLUSHED_AFTER_MS: i64 = 1_500;

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Where to.
    pub partition: PartitionKey,
    /// 0, 1 or -1 for all.
    pub acks: i16,
    /// Records of one session, or of an idempotent producer, keep their order.
    pub session: u64,
    /// The record's timestamp.
    pub timestamp: i64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process died; the page cache lives.
    Process,
    /// The machine lost its power.
    Power,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: RecordId,
    acks: i16,
    acked_at: Option<Mono>,
    seen: bool,
    /// It survived a restart, so it is on stable storage.
    settled: bool,
    /// The power was cut, and this may be gone; if so, all that follows is gone as well.
    uncertain: bool,
}

#[derive(Debug, Default)]
struct History {
    entries: BTreeMap<Offset, Entry>,
    offsets: BTreeMap<RecordId, Offset>,
    log_start: Offset,
    high_watermark: Offset,
}

/// Everything known about one run.
#[derive(Debug, Default)]
pub struct Checker {
    sent: BTreeMap<RecordId, Sent>,
    histories: BTreeMap<PartitionKey, History>,
    deleted: BTreeSet<TopicId>,
    /// Those of them whose deletion was acknowledged.
    gone: BTreeSet<TopicId>,
    /// Offsets of batches with a flipped bit, and whether somebody was told.
    rotten: BTreeMap<PartitionKey, (Range<Offset>, bool)>,
    producer_ids: BTreeSet<i64>,
    failure: Option<String>,
    /// A fault of the disk can make a broker late.
    pub flush_may_fail: bool,
    /// acks=all promises as much as acks=1, but in the topics that say something else.
    pub write_caching: bool,
    /// Times that the power was cut.
    pub power_cuts: u64,
    /// Consumer groups.
    pub groups: GroupChecker,
    /// Requests sent.
    pub operations: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records read.
    pub read: u64,
}

impl Checker {
    /// What is wrong, if something is.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Notes what is wrong; the first counts.
    pub fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    /// A producer got this id.
    pub fn on_producer_id(&mut self, producer_id: i64) {
        if !self.producer_ids.insert(producer_id) {
            self.fail(format!("producer id {producer_id} was given twice"));
        }
    }

    /// A record is about to be sent.
    pub fn on_sent(&mut self, id: RecordId, sent: Sent) {
        self.sent.insert(id, sent);
    }

    /// What was sent under this id.
    pub fn sent(&self, id: RecordId) -> Option<&Sent> {
        self.sent.get(&id)
    }

    /// A record was acknowledged at an offset, to a request with these acks: a record that was sent
    /// with acks=1 at first is promised more if it was sent again with acks=all.
    pub fn on_acked(&mut self, now: Mono, id: RecordId, offset: Offset, acks: i16) {
        self.acked += 1;
        if let Some(sent) = self.sent.get(&id).copied() {
            let placed = self.on_placed(sent.partition, offset, id);
            if let Some(entry) = placed {
                entry.acked_at.get_or_insert(now);
                entry.acks = entry.acks.min(acks);
            }
        }
    }

    /// A record was read at an offset.
    pub fn on_read(&mut self, key: PartitionKey, offset: Offset, id: RecordId, timestamp: i64) {
        self.read += 1;
        match self.sent.get(&id) {
            Some(sent) if sent.partition != key => {
                self.fail(format!("{id:?} was read from {key:?}, not {sent:?}"));
            }
            Some(sent) if sent.timestamp != timestamp => {
                self.fail(format!("{id:?} was read with timestamp {timestamp}"));
            }
            None => self.fail(format!("{id:?} was never sent")),
            Some(_) => {
                if let Some(entry) = self.on_placed(key, offset, id) {
                    entry.seen = true;
                }
            }
        }
    }

    /// It is known that this record lies at this offset.
    fn on_placed(&mut self, key: PartitionKey, offset: Offset, id: RecordId) -> Option<&mut Entry> {
        if self.deleted.contains(&key.topic) {
            return None;
        }
        let sent = *self.sent.get(&id)?;
        let history = self.histories.entry(key).or_default();
        if let Err(what) = history.place(offset, id, &sent) {
            self.failure.get_or_insert(format!("{key:?}: {what}"));
            return None;
        }
        if let Err(what) = history.check_order(offset, id, &sent, &self.sent) {
            self.failure.get_or_insert(format!("{key:?}: {what}"));
        }
        history.entries.get_mut(&offset)
    }

    /// High watermark and log start offset of a partition, as its owner has them.
    pub fn on_marks(&mut self, key: PartitionKey, log_start: Offset, high_watermark: Offset) {
        if self.deleted.contains(&key.topic) {
            return;
        }
        let history = self.histories.entry(key).or_default();
        let before = (history.log_start, history.high_watermark);
        if log_start < before.0 || high_watermark < before.1 {
            let now = (log_start, high_watermark);
            self.fail(format!(
                "{key:?}: log start and high watermark went from {before:?} back to {now:?}"
            ));
            return;
        }
        (history.log_start, history.high_watermark) = (log_start, high_watermark);
    }

    /// The high watermark, as far as it is known.
    pub fn high_watermark(&self, key: PartitionKey) -> Offset {
        self.histories.get(&key).map_or(0, |h| h.high_watermark)
    }

    /// The log start offset, as far as it is known.
    pub fn log_start(&self, key: PartitionKey) -> Offset {
        self.histories.get(&key).map_or(0, |h| h.log_start)
    }

    /// Records up to this offset were deleted, and that was acknowledged.
    pub fn on_records_deleted(&mut self, key: PartitionKey, low_watermark: Offset) {
        let history = self.histories.entry(key).or_default();
        history.log_start = history.log_start.max(low_watermark);
    }

    /// The deletion of a topic was asked for: nothing about it is promised any more.
    pub fn on_topic_deleted(&mut self, topic: TopicId) {
        self.deleted.insert(topic);
        self.histories.retain(|key, _| key.topic != topic);
    }

    /// True if the deletion of a topic was asked for.
    pub fn is_deleted(&self, topic: TopicId) -> bool {
        self.deleted.contains(&topic)
    }

    /// The deletion of a topic was acknowledged.
    pub fn on_topic_gone(&mut self, topic: TopicId) {
        self.gone.insert(topic);
    }

    /// A bit has flipped in the stored batch with these offsets.
    pub fn on_rot(&mut self, key: PartitionKey, offsets: Range<Offset>) {
        self.rotten.insert(key, (offsets, false));
    }

    /// Takes note that somebody was told of damage in a partition: that its log is offline, that
    /// records cannot be read, or by a batch's own CRC. False if there is none.
    pub fn on_damage(&mut self, key: PartitionKey) -> bool {
        let rotten = self.rotten.get_mut(&key);
        rotten.map(|(_, told)| *told = true).is_some()
    }

    /// Everything was read: by now somebody was told of every flipped bit.
    pub fn on_all_read(&mut self) {
        for (key, (offsets, told)) in std::mem::take(&mut self.rotten) {
            let history = self.histories.get(&key);
            let retained = history.is_none_or(|history| history.log_start <= offsets.start);
            if retained && !told && !self.deleted.contains(&key.topic) {
                self.fail(format!(
                    "nobody was told of a wrong bit in {offsets:?} of {key:?}"
                ));
            }
        }
    }

    /// The broker has stopped cleanly: everything is on stable storage.
    pub fn on_settled(&mut self) {
        for history in self.histories.values_mut() {
            for entry in history.entries.values_mut() {
                entry.settled |= !entry.uncertain;
            }
        }
    }

    /// The broker is gone.
    pub fn on_crash(&mut self, now: Mono, crash: Crash) {
        self.groups.on_crash();
        self.power_cuts += u64::from(crash == Crash::Power);
        for history in self.histories.values_mut() {
            if crash == Crash::Power {
                let durable = history.lose(now, self.flush_may_fail);
                history.high_watermark = history.high_watermark.min(durable);
            }
        }
    }

    /// A broker serves again, with this log: `None` if it could not open it. What it has is on
    /// stable storage, because opening a log syncs it.
    pub fn on_ready(&mut self, key: PartitionKey, ends: Option<(Offset, Offset)>) {
        if self.gone.contains(&key.topic) {
            return self.fail(format!("{key:?} is back after its deletion"));
        }
        let Some((log_start, log_end)) = ends else {
            if self.on_damage(key) {
                return;
            }
            return self.fail(format!("{key:?} is offline after a restart"));
        };
        self.on_end(key, log_end);
        let before = self.log_start(key);
        if log_start < before {
            let what = format!("{key:?}: log start went back from {before} to {log_start}");
            self.fail(what);
        }
        let Some(history) = self.histories.get_mut(&key) else {
            return;
        };
        for (offset, entry) in &mut history.entries {
            entry.settled |= !entry.uncertain;
            if *offset >= log_end {
                history.offsets.remove(&entry.id);
            }
        }
        history.entries.retain(|offset, _| *offset < log_end);
    }

    /// A log that nobody writes to ends here.
    pub fn on_end(&mut self, key: PartitionKey, log_end: Offset) {
        let Some(history) = self.histories.get(&key) else {
            return;
        };
        let certain = history.entries.iter().rev().find(|(_, e)| !e.uncertain);
        if let Some((offset, entry)) = certain
            && *offset >= log_end
        {
            let what = format!("{key:?} ends at {log_end}: {entry:?} at {offset} is lost");
            self.fail(what);
        }
    }
}

impl History {
    fn place(&mut self, offset: Offset, id: RecordId, sent: &Sent) -> Result<(), String> {
        if let Some(&other) = self.offsets.get(&id)
            && other != offset
        {
            match self.entries.get(&other) {
                Some(entry) if entry.uncertain => self.forget_from(other),
                _ => return Err(format!("{id:?} is at {other} and at {offset}")),
            }
        }
        match self.entries.get(&offset).copied() {
            Some(entry) if entry.id == id => {
                if entry.uncertain {
                    for (_, entry) in self.entries.range_mut(..=offset) {
                        entry.uncertain = false;
                    }
                }
                return Ok(());
            }
            Some(entry) if entry.uncertain => self.forget_from(offset),
            Some(entry) => return Err(format!("{offset} holds {id:?}, and held {entry:?}")),
            None => {}
        }
        let entry = Entry {
            id,
            acks: sent.acks,
            acked_at: None,
            seen: false,
            settled: false,
            uncertain: false,
        };
        self.entries.insert(offset, entry);
        self.offsets.insert(id, offset);
        Ok(())
    }

    /// A record at `offset` is gone, and so is every uncertain one behind it.
    fn forget_from(&mut self, offset: Offset) {
        let uncertain = self.entries.range(offset..).filter(|(_, e)| e.uncertain);
        let gone: Vec<_> = uncertain.map(|(offset, e)| (*offset, e.id)).collect();
        for (offset, id) in gone {
            self.entries.remove(&offset);
            self.offsets.remove(&id);
        }
    }

    fn check_order(
        &self,
        offset: Offset,
        id: RecordId,
        sent: &Sent,
        all: &BTreeMap<RecordId, Sent>,
    ) -> Result<(), String> {
        let comparable = |other: &RecordId, at: Offset| {
            let certain = self.entries.get(&at).is_some_and(|e| !e.uncertain);
            let same = all.get(other).is_some_and(|s| s.session == sent.session);
            certain && same && other.producer == id.producer
        };
        let before = self.offsets.range(..id).next_back();
        let after = RecordId {
            number: id.number + 1,
            ..id
        };
        let after = self.offsets.range(after..).next();
        for (other, at) in before.into_iter().chain(after) {
            if comparable(other, *at) && (*at < offset) != (*other < id) {
                let what = format!("{id:?} at {offset} and {other:?} at {at} are out of order");
                return Err(what);
            }
        }
        Ok(())
    }

    /// The power was cut: what lies behind the last record that must be durable may be gone. Gives
    /// the end of what may not.
    fn lose(&mut self, now: Mono, flush_may_fail: bool) -> Offset {
        let durable = |entry: &Entry| {
            let flushed = entry.acked_at.map(|at| at.plus_ms(FLUSHED_AFTER_MS) < now);
            let acked = entry.acked_at.is_some() || entry.seen;
            let flushed = flushed == Some(true) && !flush_may_fail;
            !entry.uncertain && (entry.settled || flushed || (acked && entry.acks == -1))
        };
        let last = self.entries.iter().rev().find(|(_, e)| durable(e));
        let end = last.map_or(0, |(offset, _)| offset + 1);
        for (_, entry) in self.entries.range_mut(end..) {
            entry.uncertain = true;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PartitionKey = PartitionKey {
        topic: TopicId::ZERO,
        partition: 0,
    };

    fn id(number: u64) -> RecordId {
        let producer = 1;
        RecordId { producer, number }
    }

    /// Five records at offsets 0 to 4, acknowledged at time 0.
    fn acked(acks: i16) -> Checker {
        let mut checker = Checker::default();
        for number in 0..10 {
            let sent = Sent {
                partition: KEY,
                acks,
                session: 0,
                timestamp: 7,
            };
            checker.on_sent(id(number), sent);
        }
        for number in 0..5 {
            checker.on_acked(Mono(0), id(number), number as Offset, acks);
        }
        assert_eq!(checker.failure(), None);
        checker
    }

    fn failure(mut checker: Checker, act: impl Fn(&mut Checker)) -> Option<String> {
        act(&mut checker);
        checker.failure().map(str::to_owned)
    }

    fn crash(kind: Crash, log_end: Offset) -> impl Fn(&mut Checker) {
        move |checker| {
            checker.on_crash(Mono(1), kind);
            checker.on_ready(KEY, Some((0, log_end)));
        }
    }

    #[test]
    fn one_offset_one_record() {
        assert!(failure(acked(-1), |c| c.on_read(KEY, 2, id(2), 7)).is_none());
        assert!(failure(acked(-1), |c| c.on_read(KEY, 2, id(5), 7)).is_some());
        assert!(failure(acked(-1), |c| c.on_read(KEY, 6, id(2), 7)).is_some());
        assert!(failure(acked(-1), |c| c.on_acked(Mono(1), id(6), 4, -1)).is_some());
    }

    #[test]
    fn records_are_as_they_were_sent() {
        assert!(failure(acked(-1), |c| c.on_read(KEY, 5, id(5), 8)).is_some());
        assert!(failure(acked(-1), |c| c.on_read(KEY, 5, id(99), 7)).is_some());
        let other = PartitionKey {
            partition: 1,
            ..KEY
        };
        assert!(failure(acked(-1), |c| c.on_read(other, 5, id(5), 7)).is_some());
    }

    #[test]
    fn a_session_keeps_its_order() {
        let read = |c: &mut Checker| {
            c.on_read(KEY, 6, id(6), 7);
            c.on_read(KEY, 5, id(7), 7);
        };
        assert!(failure(acked(-1), read).is_some());
    }

    #[test]
    fn acks_all_outlives_everything_and_acks_one_a_process() {
        for kind in [Crash::Process, Crash::Power] {
            assert!(failure(acked(-1), crash(kind, 5)).is_none());
            assert!(failure(acked(-1), crash(kind, 4)).is_some());
        }
        assert!(failure(acked(1), crash(Crash::Process, 4)).is_some());
        assert!(failure(acked(1), crash(Crash::Power, 4)).is_none());
    }

    #[test]
    fn acks_one_is_durable_after_a_while_or_a_restart() {
        let late = |c: &mut Checker| {
            c.on_crash(Mono(0).plus_ms(FLUSHED_AFTER_MS + 1), Crash::Power);
            c.on_ready(KEY, Some((0, 4)));
        };
        assert!(failure(acked(1), late).is_some());
        let twice = |c: &mut Checker| {
            crash(Crash::Process, 5)(c);
            crash(Crash::Power, 4)(c);
        };
        assert!(failure(acked(1), twice).is_some());
    }

    #[test]
    fn what_a_power_cut_has_taken_may_be_written_anew() {
        let anew = |c: &mut Checker| {
            c.on_crash(Mono(1), Crash::Power);
            // Offset 3 is another record now, so 4 is gone as well.
            c.on_acked(Mono(2), id(5), 3, 1);
            c.on_acked(Mono(2), id(6), 4, 1);
        };
        assert!(failure(acked(1), anew).is_none());
        let kept = |c: &mut Checker| {
            c.on_crash(Mono(1), Crash::Power);
            // Offset 3 is still the same record, so 2 is as well.
            c.on_read(KEY, 3, id(3), 7);
            c.on_read(KEY, 2, id(5), 7);
        };
        assert!(failure(acked(1), kept).is_some());
    }

    #[test]
    fn acks_all_promises_more_than_the_acks_one_before() {
        let mut checker = acked(1);
        checker.on_acked(Mono(1), id(3), 3, -1);
        assert!(failure(checker, crash(Crash::Power, 3)).is_some());
        let mut checker = acked(1);
        checker.on_acked(Mono(1), id(3), 3, -1);
        assert!(failure(checker, crash(Crash::Power, 4)).is_none());
    }

    #[test]
    fn what_was_seen_stays() {
        let mut checker = acked(-1);
        checker.on_read(KEY, 5, id(5), 7);
        assert!(failure(checker, crash(Crash::Power, 5)).is_some());
    }

    #[test]
    fn marks_never_go_back() {
        for (start, high) in [(1, 5), (2, 4)] {
            let mut checker = acked(-1);
            checker.on_marks(KEY, 2, 5);
            assert!(failure(checker, |c| c.on_marks(KEY, start, high)).is_some());
        }
        let deleted = |c: &mut Checker| {
            c.on_records_deleted(KEY, 3);
            c.on_ready(KEY, Some((2, 5)));
        };
        assert!(failure(acked(-1), deleted).is_some());
        assert!(failure(acked(-1), |c| c.on_ready(KEY, None)).is_some());
    }

    #[test]
    fn the_high_watermark_goes_back_to_what_is_durable_and_no_further() {
        for (acks, crash, high, good) in [
            (-1, Crash::Power, 5, true),
            (-1, Crash::Power, 4, false),
            (1, Crash::Process, 4, false),
            (1, Crash::Power, 4, true),
        ] {
            let mut checker = acked(acks);
            checker.on_marks(KEY, 0, 5);
            checker.on_crash(Mono(1), crash);
            let failed = failure(checker, |c| c.on_marks(KEY, 0, high)).is_some();
            assert_eq!(failed, !good, "acks={acks}, {crash:?}, {high}");
        }
    }

    #[test]
    fn damage_must_be_told() {
        let read = |c: &mut Checker| {
            c.on_rot(KEY, 1..3);
            c.on_all_read();
        };
        assert!(failure(acked(-1), read).is_some());
        let told = |c: &mut Checker| {
            c.on_rot(KEY, 1..3);
            c.on_ready(KEY, None);
            c.on_all_read();
        };
        assert!(failure(acked(-1), told).is_none());
    }

    #[test]
    fn producer_ids_are_given_once() {
        let twice = |c: &mut Checker| {
            c.on_producer_id(5);
            c.on_producer_id(5);
        };
        assert!(failure(acked(-1), twice).is_some());
    }

    #[test]
    fn nothing_is_promised_about_a_deleted_topic() {
        let deleted = |c: &mut Checker| {
            c.on_topic_deleted(KEY.topic);
            c.on_read(KEY, 2, id(5), 7);
            crash(Crash::Process, 0)(c);
        };
        assert!(failure(acked(-1), deleted).is_none());
        let back = |c: &mut Checker| {
            c.on_topic_deleted(KEY.topic);
            c.on_topic_gone(KEY.topic);
            c.on_ready(KEY, Some((0, 0)));
        };
        assert!(failure(acked(-1), back).is_some());
    }
}
