//! How far the log is written, durable and visible. What came with acks=all becomes visible when
//! it is durable; anything else when it is written, but never before what comes ahead of it.
//!
//! Invariant: durable <= written, high watermark <= written, and none of them ever moves back.

use crate::base::planted::{self, Bug};
use crate::base::{Mono, Offset};
use std::collections::VecDeque;

/// A boundary between two batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Offset of the batch that begins here.
    pub offset: Offset,
    /// Base offset of the segment.
    pub base_offset: Offset,
    /// Position in its file; at a roll this may be the end of the old file.
    pub position: u64,
}

/// Batches in a row that wait for durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: Place,
    offset_end: Offset,
}

/// One turn's write that is not durable.
#[derive(Clone, Copy, Debug)]
struct Write {
    end: Place,
    bytes: u64,
    at: Mono,
}

/// The marks of one log.
#[derive(Clone, Debug)]
pub(super) struct Watermarks {
    written: Place,
    durable: Place,
    high: Place,
    awaited: VecDeque<Run>,
    unsynced: VecDeque<Write>,
    unsynced_bytes: u64,
}

impl Watermarks {
    /// Everything up to `end` is written, durable and visible.
    pub fn new(end: Place) -> Self {
        Self {
            written: end,
            durable: end,
            high: end,
            awaited: VecDeque::new(),
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
        }
    }

    /// End of what is written.
    pub fn written(&self) -> Place {
        self.written
    }

    /// End of what is durable.
    pub fn durable(&self) -> Offset {
        self.durable.offset
    }

    /// End of what is visible.
    pub fn high(&self) -> Place {
        self.high
    }

    /// Bytes written and not durable.
    pub fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes
    }

    /// When the first of them were written.
    pub fn unsynced_since(&self) -> Option<Mono> {
        self.unsynced.front().map(|write| write.at)
    }

    /// A batch from `start` is queued that must not be seen before it is durable.
    pub fn on_awaited(&mut self, start: Place, offset_end: Offset) {
        match self.awaited.back_mut() {
            Some(run) if run.offset_end == start.offset => run.offset_end = offset_end,
            _ => self.awaited.push_back(Run { start, offset_end }),
        }
    }

    /// Everything queued is written, `bytes` in all; none if it was only a roll.
    pub fn on_written(&mut self, end: Place, bytes: u64, at: Mono) {
        assert!(end.offset >= self.written.offset, "writing goes forward");
        self.written = end;
        if bytes > 0 {
            self.unsynced_bytes += bytes;
            self.unsynced.push_back(Write { end, bytes, at });
            self.advance();
        }
    }

    /// Everything up to `offset_end` is synced.
    pub fn on_synced(&mut self, offset_end: Offset) {
        while let Some(write) = self.unsynced.front()
            && write.end.offset <= offset_end
        {
            self.durable = write.end;
            self.unsynced_bytes -= write.bytes;
            self.unsynced.pop_front();
        }
        self.advance();
    }

    /// acks=all counts as durable once written, from now on and for all that waits.
    pub fn forget_awaited(&mut self) {
        self.awaited.clear();
        self.advance();
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        assert!(self.durable.offset <= self.written.offset);
        assert!(self.high.offset <= self.written.offset);
        let bytes: u64 = self.unsynced.iter().map(|write| write.bytes).sum();
        assert_eq!(bytes, self.unsynced_bytes);
        assert_eq!(
            self.unsynced.is_empty(),
            self.durable.offset == self.written.offset
        );
        if let Some(run) = self.awaited.front() {
            assert!(
                self.high.offset <= run.start.offset,
                "nothing is seen before its time"
            );
            assert!(self.durable.offset <= run.start.offset);
        }
    }

    /// Moves the high watermark up to the first batch that still waits.
    fn advance(&mut self) {
        while let Some(run) = self.awaited.front_mut()
            && run.start.offset < self.durable.offset
        {
            if run.offset_end <= self.durable.offset {
                self.awaited.pop_front();
            } else {
                run.start = self.durable;
            }
        }
        let limit = match self.awaited.front() {
            _ if planted::is(Bug::HighWatermarkAhead) => self.written,
            Some(run) if run.start.offset < self.written.offset => run.start,
            _ => self.written,
        };
        if limit.offset > self.high.offset {
            self.high = limit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: Offset) -> Place {
        Place {
            offset,
            base_offset: 0,
            position: offset as u64 * 10,
        }
    }

    /// Marks after writing [0, 10) with acks=1, [10, 20) with acks=all, [20, 30) with acks=1.
    fn mixed() -> Watermarks {
        let mut marks = Watermarks::new(place(0));
        marks.on_written(place(10), 100, Mono(1));
        marks.on_awaited(place(10), place(20).offset);
        marks.on_written(place(20), 100, Mono(2));
        marks.on_written(place(30), 100, Mono(3));
        marks
    }

    #[test]
    fn acks_all_hides_itself_and_all_behind_it() {
        let mut marks = mixed();
        assert_eq!(marks.high(), place(10));
        marks.on_synced(10);
        assert_eq!((marks.high(), marks.durable()), (place(10), 10));
        marks.on_synced(20);
        assert_eq!((marks.high(), marks.durable()), (place(30), 20));
        marks.check();
    }

    #[test]
    fn a_sync_in_the_middle_of_a_run_shows_its_first_part() {
        let mut marks = Watermarks::new(place(0));
        for start in [0, 10, 20] {
            marks.on_awaited(place(start), start + 10);
            marks.on_written(place(start + 10), 100, Mono(start as u64));
        }
        assert_eq!(marks.high(), place(0));
        assert_eq!(
            (marks.unsynced_bytes(), marks.unsynced_since()),
            (300, Some(Mono(0)))
        );
        marks.on_synced(20);
        assert_eq!(marks.high(), place(20));
        assert_eq!(
            (marks.unsynced_bytes(), marks.unsynced_since()),
            (100, Some(Mono(20)))
        );
        marks.check();
        // A late or repeated report changes nothing.
        marks.on_synced(10);
        assert_eq!((marks.high(), marks.durable()), (place(20), 20));
        marks.on_synced(30);
        assert_eq!((marks.high(), marks.unsynced_since()), (place(30), None));
        marks.check();
    }

    #[test]
    fn what_is_queued_is_not_visible() {
        let mut marks = Watermarks::new(place(0));
        marks.on_written(place(10), 1, Mono(1));
        marks.on_awaited(place(20), 30);
        marks.on_synced(10);
        marks.check();
        assert_eq!(marks.high(), place(10));
        marks.on_written(place(30), 1, Mono(1));
        assert_eq!(marks.high(), place(20));
    }

    #[test]
    fn without_waiting_all_that_is_written_is_visible() {
        let mut marks = mixed();
        marks.forget_awaited();
        assert_eq!((marks.high(), marks.durable()), (place(30), 0));
        marks.check();
    }
}
