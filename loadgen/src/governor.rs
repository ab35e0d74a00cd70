//! The modelled production database: how fast it starts writes, how many it carries at once and
//! how long each takes. It is a model; the rows are written to a real database when it says so.
//!
//! A write books the next free slot on the database's own clock: slots lie `1 / writes_per_s`
//! apart, and the write is finished `latency` after its slot. Booking may happen a little late,
//! because the process looks at the clock in ticks: then the slot lies in the past, but never so
//! far that the write's end would lie there too. So lateness of the process costs no throughput,
//! and no span of time ever holds more slots than the rate allows. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

/// A write the database has under way or has finished.
#[derive(Clone, Debug, PartialEq)]
pub struct Write<T> {
    /// The booked slot, on the clock of the sale.
    pub started: Duration,
    /// `latency` later.
    pub finished: Duration,
    /// What is being written.
    pub item: T,
}

/// The database's capacity and the writes it has under way.
#[derive(Debug)]
pub struct Governor<T> {
    /// Between two slots at the full rate.
    spacing_full: Duration,
    /// Between two slots now.
    spacing: Duration,
    latency: Duration,
    concurrent_max: usize,
    slot_next: Duration,
    under_way: VecDeque<Write<T>>,
}

impl<T> Governor<T> {
    /// A database that starts `writes_per_s` writes (at least 1; `None` for as many as there are),
    /// each `latency` long, and carries `concurrent_max` at once.
    pub fn new(writes_per_s: Option<u32>, latency: Duration, concurrent_max: usize) -> Self {
        // Rounded up: a slot may come a fraction of a nanosecond late, never early.
        let spacing = writes_per_s.map_or(0, |rate| 1_000_000_000_u64.div_ceil(rate.max(1).into()));
        let spacing = Duration::from_nanos(spacing);
        Self {
            spacing_full: spacing,
            spacing,
            latency,
            concurrent_max,
            slot_next: Duration::ZERO,
            under_way: VecDeque::new(),
        }
    }

    /// From now on the database has this share of its rate, above 0. Writes that have not begun by
    /// now move to the slots of the new pace; they have all been ready for theirs.
    pub fn set_pace(&mut self, share: f64, now: Duration) {
        let spacing = self.spacing_full.div_f64(share);
        if spacing == self.spacing {
            return;
        }
        self.spacing = spacing;
        let begun = self.under_way.partition_point(|write| write.started <= now);
        let first = self.under_way.get(begun).map(|write| write.started);
        self.slot_next = first.unwrap_or(self.slot_next).min(now + spacing);
        for write in self.under_way.range_mut(begun..) {
            write.started = self.slot_next;
            write.finished = self.slot_next + self.latency;
            self.slot_next += spacing;
        }
    }

    /// Whether another write may be begun.
    pub fn has_room(&self) -> bool {
        self.under_way.len() < self.concurrent_max
    }

    /// Writes under way.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// The slot a write would get that could begin at `ready`.
    pub fn next_slot(&self, ready: Duration, now: Duration) -> Duration {
        ready
            .max(self.slot_next)
            .max(now.saturating_sub(self.latency))
    }

    /// Begins a write that could begin at `ready`; the caller has seen [`Governor::has_room`].
    pub fn begin(&mut self, ready: Duration, now: Duration, item: T) -> Duration {
        assert!(
            self.has_room(),
            "the database carries {} writes at once",
            self.concurrent_max
        );
        let started = self.next_slot(ready, now);
        self.slot_next = started + self.spacing;
        self.under_way.push_back(Write {
            started,
            finished: started + self.latency,
            item,
        });
        started
    }

    /// When the next write ends.
    pub fn next_finish(&self) -> Option<Duration> {
        self.under_way.front().map(|write| write.finished)
    }

    /// The next write that has ended by `now`, in the sequence of their ends.
    pub fn finish(&mut self, now: Duration) -> Option<Write<T>> {
        if self.next_finish()? > now {
            return None;
        }
        self.under_way.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(100);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Saturates the database with `workers` that each write again at once, looking at the clock
    /// at the given moments only. Returns the slots.
    fn saturate(workers: usize, ticks: impl Iterator<Item = Duration>) -> Vec<Duration> {
        let mut governor = Governor::new(Some(5_000), LATENCY, workers);
        let mut slots = Vec::new();
        for now in ticks {
            while let Some(write) = governor.finish(now) {
                slots.push(governor.begin(write.finished, now, ()));
            }
            while governor.has_room() {
                slots.push(governor.begin(now, now, ()));
            }
        }
        slots
    }

    #[test]
    fn five_hundred_writers_get_exactly_the_rate_although_the_clock_is_read_in_ticks() {
        let slots = saturate(500, (0..=2_000).map(|tick| ms(tick * 5)));
        let in_steady = slots
            .iter()
            .filter(|at| **at >= ms(1_000) && **at < ms(9_000))
            .count();
        assert_eq!(in_steady, 5_000 * 8);
    }

    #[test]
    fn no_second_holds_more_than_the_rate_even_after_a_stall() {
        let ticks = (0..400)
            .map(|t| ms(t * 5))
            .chain((800..1_600).map(|t| ms(t * 5)));
        let slots = saturate(600, ticks);
        for pair in slots.windows(5_001) {
            assert!(pair[5_000] - pair[0] >= Duration::from_secs(1));
        }
        let idle = slots.windows(2).map(|w| w[1] - w[0]).max().unwrap();
        assert!(
            idle >= ms(1_800),
            "a stall of 2 s is lost for good, not caught up: {idle:?}"
        );
    }

    #[test]
    fn fewer_writers_are_the_limit() {
        let slots = saturate(50, (0..=2_000).map(|tick| ms(tick * 5)));
        let in_steady = slots
            .iter()
            .filter(|at| **at >= ms(1_000) && **at < ms(9_000))
            .count();
        assert_eq!(in_steady, 500 * 8);
    }

    #[test]
    fn a_write_ends_its_latency_after_its_slot_and_not_before() {
        let mut governor = Governor::new(Some(5_000), LATENCY, 2);
        assert_eq!(governor.begin(ms(7), ms(7), 'a'), ms(7));
        assert_eq!(
            governor.begin(ms(7), ms(7), 'b'),
            ms(7) + Duration::from_micros(200)
        );
        assert!(!governor.has_room());
        assert_eq!(governor.finish(ms(106)), None);
        let a = governor.finish(ms(107)).unwrap();
        assert_eq!((a.item, a.finished), ('a', ms(107)));
        assert_eq!(governor.finish(ms(107)), None);
        assert_eq!(governor.finish(ms(108)).unwrap().item, 'b');
        assert_eq!(governor.next_finish(), None);
    }

    #[test]
    fn a_slower_pace_spaces_the_slots_and_ends_with_it() {
        for share in [0.5, 0.1, 0.05, 0.01] {
            let mut governor = Governor::new(Some(5_000), LATENCY, 500);
            let mut slots = Vec::new();
            for now in (0..=2_000).map(|tick| ms(tick * 5)) {
                let is_slow = (ms(2_000)..ms(6_000)).contains(&now);
                governor.set_pace(if is_slow { share } else { 1.0 }, now);
                while let Some(write) = governor.finish(now) {
                    slots.push(write.started);
                    governor.begin(write.finished, now, ());
                }
                while governor.has_room() {
                    governor.begin(now, now, ());
                }
            }
            let between = |from, to| slots.iter().filter(|at| (from..to).contains(*at)).count();
            let slow = between(ms(2_000), ms(6_000)) as f64;
            assert!((slow - 20_000.0 * share).abs() < 20.0, "{slow} at {share}");
            let after = between(ms(6_000), ms(9_800));
            assert!((18_950..=19_000).contains(&after), "{after} after {share}");
            assert!(
                slots
                    .windows(2)
                    .all(|pair| pair[1] - pair[0] >= Duration::from_micros(200))
            );
        }
    }

    #[test]
    fn a_slot_in_the_past_still_ends_in_the_present() {
        let mut governor = Governor::new(Some(5_000), LATENCY, 2);
        assert_eq!(governor.begin(ms(10), ms(500), ()), ms(400));
    }

    #[test]
    #[should_panic(expected = "carries 1 writes at once")]
    fn a_write_beyond_the_connections_is_a_bug() {
        let mut governor = Governor::new(Some(10), LATENCY, 1);
        governor.begin(ms(0), ms(0), ());
        governor.begin(ms(0), ms(0), ());
    }
}
