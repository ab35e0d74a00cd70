//! One partition's orders between the broker and the database: received, waiting for a worker,
//! being written, finished, permanent.
//!
//! A lane has a fixed number of workers; each carries one write. Whichever worker is free takes the
//! next order in offset sequence. With [`Limits::by_key`], if an earlier order of the same key is
//! still being written, the order waits for that one, while later orders of other keys go ahead: so
//! the orders of a key are applied in order, and no worker idles while it could write. Orders leave
//! the lane only
//! as the contiguous run of finished ones from its beginning: an offset counts as done when all
//! before it are. Everything a lane holds, up to the commit of its row, counts against its share of
//! the buffer. Pure: time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::dead_letter::Letter;
use crate::orders::Order;

/// An order with its place in the partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// The record's offset.
    pub offset: i64,
    /// What its value says.
    pub order: Order,
    /// What becomes of it, if the handler refuses it.
    pub letter: Option<Box<Letter>>,
}

/// An order whose write has ended and before which nothing is unfinished.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The order and its offset.
    pub received: Received,
    /// When its write began, on the clock of the sale.
    pub started: Duration,
    /// When it ended.
    pub finished: Duration,
}

/// The number of an order in its lane, counted from 0 in the sequence of arrival.
pub type Seq = u64;

/// How much a lane carries.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Writes at once.
    pub workers: usize,
    /// The orders of a key wait for each other.
    pub by_key: bool,
    /// Orders held at which the lane asks for a pause.
    pub pause_at: usize,
    /// Orders held below which it asks for more.
    pub resume_below: usize,
}

/// The state of one partition.
#[derive(Debug)]
pub struct Lane {
    limits: Limits,
    /// Everything received and not yet handed out, in offset sequence.
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: Seq,
    /// Slots no worker has taken, in offset sequence.
    waiting: VecDeque<Seq>,
    /// Keys with a write under way, each with the orders that wait for its end.
    behind: HashMap<String, Vec<Seq>>,
    /// Since when each idle worker has had nothing to do, longest first.
    idle: VecDeque<Duration>,
    /// Offsets of the orders handed out whose rows are not permanent yet.
    uncommitted: VecDeque<i64>,
    /// How many of those a member has handed out that has died since.
    disowned: usize,
    next_offset: i64,
    done_offset: i64,
    /// The offset after the furthest order handed out; lies ahead while orders come again.
    handed: i64,
    /// The offset after the furthest order that is permanent or lost for good.
    reached: i64,
    paused: bool,
}

#[derive(Debug)]
struct Slot {
    received: Received,
    /// From when on it could be written.
    ready: Duration,
    /// Start and end of its write, once it has ended.
    written: Option<(Duration, Duration)>,
}

impl Lane {
    /// An empty lane that continues at `next_offset`.
    pub fn new(limits: Limits, next_offset: i64) -> Self {
        Self {
            limits,
            slots: VecDeque::new(),
            first: 0,
            waiting: VecDeque::new(),
            behind: HashMap::new(),
            idle: vec![Duration::ZERO; limits.workers].into(),
            uncommitted: VecDeque::new(),
            disowned: 0,
            next_offset,
            done_offset: next_offset,
            handed: next_offset,
            reached: next_offset,
            paused: false,
        }
    }

    /// Orders held: received, and their rows not yet permanent.
    pub fn held(&self) -> usize {
        self.slots.len() + self.uncommitted.len()
    }

    /// The offset after the last order handed out: where a new owner of the partition continues.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The offset after the last order whose row is permanent: what the group may commit.
    pub fn done_offset(&self) -> i64 {
        self.done_offset
    }

    /// The offset before which nothing is to be done any more.
    pub fn reached(&self) -> i64 {
        self.reached
    }

    /// Whether the lane has asked for a pause.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// True once when the lane has become full: the partition must be paused now.
    pub fn take_pause(&mut self) -> bool {
        let pause = !self.paused && self.held() >= self.limits.pause_at;
        self.paused |= pause;
        pause
    }

    /// Whether the lane is paused and has room again.
    pub fn wants_resume(&self) -> bool {
        self.paused && self.held() < self.limits.resume_below
    }

    /// True once when a paused lane has room again: the partition may be resumed now.
    pub fn take_resume(&mut self) -> bool {
        let resume = self.wants_resume();
        self.paused &= !resume;
        resume
    }

    /// Orders from the broker, at `now`; returns how many have been handed out before.
    pub fn accept(&mut self, now: Duration, orders: impl IntoIterator<Item = Received>) -> u64 {
        let mut again = 0;
        for received in orders {
            again += u64::from(received.offset < self.handed);
            self.waiting.push_back(self.first + self.slots.len() as u64);
            self.slots.push_back(Slot {
                received,
                ready: now,
                written: None,
            });
        }
        again
    }

    /// Whether the order is still this lane's affair.
    pub fn holds(&self, seq: Seq) -> bool {
        seq >= self.first
    }

    /// What becomes of the order if the handler refuses it; `None` if it does not.
    pub fn letter(&self, seq: Seq) -> Option<&Letter> {
        let slot = self.slots.get(seq.checked_sub(self.first)? as usize)?;
        slot.received.letter.as_deref()
    }

    /// The next order a worker takes, and from when on it could be written; `None` while all
    /// workers are busy or nothing may be written.
    pub fn take(&mut self) -> Option<(Seq, Duration)> {
        let idle_since = *self.idle.front()?;
        while let Some(seq) = self.waiting.pop_front() {
            let slot = &self.slots[(seq - self.first) as usize];
            if !self.limits.by_key {
                self.idle.pop_front();
                return Some((seq, slot.ready.max(idle_since)));
            }
            let key = &slot.received.order.user_id;
            if let Some(followers) = self.behind.get_mut(key) {
                followers.push(seq);
                continue;
            }
            self.behind.insert(key.clone(), Vec::new());
            self.idle.pop_front();
            return Some((seq, slot.ready.max(idle_since)));
        }
        None
    }

    /// The write of `seq` has ended; its worker is free, and so is its key.
    pub fn finish(&mut self, seq: Seq, started: Duration, finished: Duration) {
        self.idle.push_back(finished);
        // Taken before the partition was revoked: whoever owns it next reads it again.
        let Some(at) = seq.checked_sub(self.first) else {
            return;
        };
        let slot = &mut self.slots[at as usize];
        slot.written = Some((started, finished));
        let followers = self
            .behind
            .remove(&slot.received.order.user_id)
            .unwrap_or_default();
        for seq in followers.into_iter().rev() {
            let follower = &mut self.slots[(seq - self.first) as usize];
            // Another worker may have been idle for longer: the key was not free before.
            follower.ready = follower.ready.max(finished);
            self.waiting.push_front(seq);
        }
    }

    /// Hands out the finished orders before which nothing is unfinished.
    pub fn hand_out(&mut self, out: &mut Vec<Finished>) {
        while let Some((started, finished)) = self.slots.front().and_then(|slot| slot.written) {
            let slot = self.slots.pop_front().expect("it was just looked at");
            self.first += 1;
            self.uncommitted.push_back(slot.received.offset);
            self.next_offset = slot.received.offset + 1;
            self.handed = self.handed.max(self.next_offset);
            out.push(Finished {
                received: slot.received,
                started,
                finished,
            });
        }
    }

    /// The rows of the first `count` orders handed out and not yet permanent have become so.
    pub fn committed(&mut self, count: usize) {
        assert!(
            count <= self.uncommitted.len(),
            "only what was handed out becomes permanent"
        );
        let owned = count > self.disowned;
        self.disowned = self.disowned.saturating_sub(count);
        if let Some(last) = self.uncommitted.drain(..count).next_back() {
            self.reached = self.reached.max(last + 1);
            if owned {
                self.done_offset = last + 1;
            }
        }
    }

    /// Forgets what has not been handed out: the partition was taken away, and its next owner reads
    /// it again. Returns how many of those orders a worker had taken.
    pub fn revoke(&mut self) -> u64 {
        let behind: usize = self.behind.values().map(Vec::len).sum();
        let taken = self.slots.len() - self.waiting.len() - behind;
        self.first += self.slots.len() as u64;
        self.slots.clear();
        self.waiting.clear();
        self.behind.clear();
        self.paused = false;
        taken as u64
    }

    /// Nobody reads again what has been received and not handed out; returns how much that is. To
    /// be called before [`Lane::revoke`].
    pub fn lose(&mut self) -> u64 {
        if let Some(last) = self.slots.back() {
            self.reached = self.reached.max(last.received.offset + 1);
        }
        self.slots.len() as u64
    }

    /// The partition has an owner that knows nothing but the group's committed offset: what others
    /// have handed out is not for it to commit.
    pub fn begin_again(&mut self) {
        self.disowned = self.uncommitted.len();
        self.done_offset = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        workers: 2,
        by_key: true,
        pause_at: 4,
        resume_below: 2,
    };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn lane(users: &str) -> Lane {
        let mut lane = Lane::new(LIMITS, 100);
        lane.accept(ms(1), orders(users, 100));
        lane
    }

    /// One order for each letter, the letter being its key.
    fn orders(users: &str, offset: i64) -> Vec<Received> {
        users
            .chars()
            .zip(offset..)
            .map(|(user, offset)| Received {
                offset,
                order: Order {
                    user_id: user.to_string(),
                    ..Order::default()
                },
                letter: None,
            })
            .collect()
    }

    fn handed_out(lane: &mut Lane) -> Vec<i64> {
        let mut out = Vec::new();
        lane.hand_out(&mut out);
        out.iter()
            .map(|finished| finished.received.offset)
            .collect()
    }

    #[test]
    fn as_many_orders_are_written_at_once_as_there_are_workers() {
        let mut lane = lane("abc");
        assert_eq!(lane.take(), Some((0, ms(1))));
        assert_eq!(lane.take(), Some((1, ms(1))));
        assert_eq!(lane.take(), None);
        lane.finish(0, ms(1), ms(11));
        assert_eq!(
            lane.take(),
            Some((2, ms(11))),
            "ready when the worker became free"
        );
    }

    #[test]
    fn only_the_contiguous_run_of_finished_orders_counts_as_done() {
        let mut lane = lane("abc");
        let (first, _) = lane.take().unwrap();
        let (second, _) = lane.take().unwrap();
        lane.finish(second, ms(1), ms(2));
        assert_eq!(handed_out(&mut lane), Vec::<i64>::new());
        assert_eq!(lane.next_offset(), 100);
        lane.finish(first, ms(1), ms(3));
        assert_eq!(handed_out(&mut lane), [100, 101]);
        assert_eq!(lane.next_offset(), 102);
    }

    #[test]
    fn an_order_waits_for_the_earlier_one_of_its_key_while_others_go_ahead() {
        let mut lane = lane("aab");
        assert_eq!(lane.take().unwrap().0, 0);
        assert_eq!(
            lane.take().unwrap().0,
            2,
            "the second of a waits, b does not"
        );
        lane.finish(2, ms(1), ms(5));
        assert_eq!(lane.take(), None, "a worker is free, but not the key");
        lane.finish(0, ms(1), ms(9));
        assert_eq!(
            lane.take(),
            Some((1, ms(9))),
            "not before the first of a has ended"
        );
    }

    #[test]
    fn a_run_of_one_key_is_written_one_by_one_in_sequence() {
        let mut lane = lane("aaaba");
        let mut sequence = Vec::new();
        let mut now = ms(1);
        for _ in 0..5 {
            let taken: Vec<_> = std::iter::from_fn(|| lane.take()).collect();
            now += ms(10);
            for (seq, _) in taken {
                sequence.push(seq);
                lane.finish(seq, now - ms(10), now);
            }
        }
        assert_eq!(sequence, [0, 3, 1, 2, 4]);
        assert_eq!(handed_out(&mut lane), [100, 101, 102, 103, 104]);
    }

    #[test]
    fn a_full_lane_pauses_once_and_resumes_once_below_the_low_watermark() {
        let mut lane = lane("abc");
        assert!(!lane.take_pause());
        lane.accept(ms(1), orders("d", 103));
        assert!(lane.take_pause() && lane.is_paused());
        assert!(!lane.take_pause());
        for _ in 0..2 {
            let taken: Vec<_> = std::iter::from_fn(|| lane.take()).collect();
            taken
                .iter()
                .for_each(|(seq, _)| lane.finish(*seq, ms(1), ms(2)));
        }
        assert_eq!(handed_out(&mut lane).len(), 4);
        assert!(!lane.take_resume(), "held until the rows are permanent");
        lane.committed(2);
        assert!(!lane.take_resume(), "2 held is not below 2");
        assert_eq!((lane.done_offset(), lane.next_offset()), (102, 104));
        lane.committed(1);
        assert!(lane.take_resume() && !lane.is_paused());
        assert!(!lane.take_resume());
    }

    #[test]
    fn a_revoked_lane_forgets_what_was_not_handed_out() {
        let mut lane = lane("abc");
        let (first, _) = lane.take().unwrap();
        let (second, _) = lane.take().unwrap();
        lane.finish(first, ms(1), ms(2));
        assert_eq!(handed_out(&mut lane), [100]);
        assert_eq!(
            lane.revoke(),
            1,
            "a worker had the second, and nobody the third"
        );
        assert_eq!((lane.held(), lane.next_offset()), (1, 101));
        lane.accept(ms(5), orders("bc", 101));
        // The late end of a forgotten write frees its worker and nothing else.
        lane.finish(second, ms(1), ms(6));
        assert_eq!(handed_out(&mut lane), Vec::<i64>::new());
        assert_eq!(lane.take().map(|taken| taken.0), Some(3));
        assert_eq!(lane.take().map(|taken| taken.0), Some(4));
        assert_eq!(lane.take(), None);
    }

    #[test]
    fn without_keys_in_order_every_worker_takes_what_comes() {
        let limits = Limits {
            by_key: false,
            ..LIMITS
        };
        let mut lane = Lane::new(limits, 100);
        lane.accept(ms(1), orders("aaa", 100));
        assert_eq!((lane.take().unwrap().0, lane.take().unwrap().0), (0, 1));
        lane.finish(1, ms(1), ms(2));
        lane.finish(0, ms(1), ms(3));
        assert_eq!(handed_out(&mut lane), [100, 101], "offsets stay contiguous");
    }

    #[test]
    fn an_owner_that_begins_again_commits_only_its_own_rows() {
        let mut lane = lane("abc");
        for _ in 0..2 {
            let (seq, _) = lane.take().unwrap();
            lane.finish(seq, ms(1), ms(2));
        }
        assert_eq!(handed_out(&mut lane), [100, 101]);
        lane.committed(1);
        lane.revoke();
        lane.begin_again();
        lane.committed(1);
        assert_eq!((lane.done_offset(), lane.reached()), (0, 102));
        assert_eq!(lane.accept(ms(5), orders("abc", 100)), 2, "two come again");
        for _ in 0..2 {
            let (seq, _) = lane.take().unwrap();
            lane.finish(seq, ms(5), ms(6));
        }
        assert_eq!(handed_out(&mut lane), [100, 101]);
        lane.committed(2);
        assert_eq!((lane.done_offset(), lane.reached()), (102, 102));
    }

    #[test]
    fn what_is_lost_counts_as_reached() {
        let mut lane = lane("abc");
        assert_eq!(lane.lose(), 3);
        lane.revoke();
        assert_eq!((lane.reached(), lane.held()), (103, 0));
    }
}
