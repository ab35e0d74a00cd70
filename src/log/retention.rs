//! Forgetting: whole segments by age and size, records by request, producers by silence. A segment
//! goes only when the log start offset behind it is durable, and never the active one: if all of
//! that one is expired, it is closed first, as in Kafka.

use super::files::{
    INDEX_SUFFIX, SNAPSHOT_SUFFIX, TIME_INDEX_SUFFIX, file_name, remove_file, remove_segment,
};
use super::{Log, ReadError, Retained};
use crate::base::dir::{Dir, is_out_of_room};
use crate::base::marks::{self, Mark};
use crate::base::planted::{self, Bug};
use crate::base::{Now, Offset};
use std::io;

/// DeleteRecords' way to say "up to the high watermark".
const HIGH_WATERMARK: Offset = -1;

impl Log {
    /// Moves the log start offset to `before` (-1: the high watermark) durably; never back. The
    /// files go with the next [`Log::retain`]. Gives the new low watermark.
    ///
    /// Waits for the device. After [`ReadError::Io`] of anything but a full disk the caller must
    /// [`Log::on_failed`] the log.
    pub fn delete_records(
        &mut self,
        dir: &mut dyn Dir,
        before: Offset,
    ) -> Result<Offset, ReadError> {
        self.check_readable()?;
        let high = self.high_watermark();
        let before = if before == HIGH_WATERMARK {
            high
        } else {
            before
        };
        if !(0..=high).contains(&before) {
            return Err(ReadError::OffsetOutOfRange {
                offset: before,
                offset_first: self.log_start_offset(),
                offset_end: high,
            });
        }
        self.move_start(dir, before)?;
        Ok(self.log_start_offset())
    }

    /// Removes whole segments that are too old, too many or below the log start offset, and
    /// forgets producers that were silent for long. To be called every
    /// `log.retention.check.interval.ms`, when nothing is queued.
    ///
    /// A full disk does not stop it, unless there is no room even for a new checkpoint: then
    /// nothing has changed. Waits for the device if there is something to remove. After any other
    /// error the caller must [`Log::on_failed`] the log.
    pub fn retain(&mut self, dir: &mut dyn Dir, now: Now) -> io::Result<Retained> {
        if self.poisoned.is_some() {
            return Ok(Retained::default());
        }
        self.write_if_room(dir, now)?;
        let mut retained = Retained {
            producers: self
                .producers
                .expire(now.mono, self.config.producer_id_expiration_ms),
            ..Retained::default()
        };
        let mut count = self.deletable_segments(now);
        if count == self.segments.len() {
            marks::hit(Mark::ActiveSegmentExpired);
            self.queue_roll(now);
            self.write_if_room(dir, now)?;
            count = count.min(self.segment_of(self.marks.written().base_offset));
        }
        if count == 0 {
            return Ok(retained);
        }
        marks::hit(Mark::SegmentsRetained);
        let start = self.segments[count].base_offset;
        if start > self.unsynced_base {
            // Soon nothing else tells of the producers before it.
            dir.sync(&file_name(start, SNAPSHOT_SUFFIX))?;
        }
        self.make_room(dir, count, start)?;
        for segment in self.segments.drain(..count) {
            remove_segment(dir, segment.base_offset)?;
            retained.segments += 1;
            retained.bytes += segment.size_bytes;
        }
        let first = self.segments[0].base_offset;
        self.unsynced_base = self.unsynced_base.max(first);
        self.recent.retain(|place| place.base_offset >= first);
        Ok(retained)
    }

    /// How many segments, from the first on, retention may remove.
    fn deletable_segments(&self, now: Now) -> usize {
        let config = &self.config;
        let total = self.size_bytes();
        let mut removed = 0;
        let mut count = 0;
        for (at, segment) in self.segments.iter().enumerate() {
            // A segment with something queued still has to be closed.
            if !self.queue.is_empty() && segment.base_offset >= self.marks.written().base_offset {
                break;
            }
            let age_ms = now.wall_ms.saturating_sub(segment.retention_timestamp());
            let too_old = config.retention_ms >= 0 && age_ms > config.retention_ms;
            // What is left without this segment still fills the limit. Its own size counts what is
            // queued, the total does not.
            let left = total.saturating_sub(removed + segment.size_bytes);
            let too_many = u64::try_from(config.retention_bytes).is_ok_and(|max| left >= max);
            let below_start = self
                .segments
                .get(at + 1)
                .is_some_and(|next| next.base_offset <= self.log_start_offset());
            let visible = segment.offset_end <= self.high_watermark();
            let expired = config.cleanup_delete && (too_old || too_many);
            if segment.size_bytes == 0 || !visible || !(expired || below_start) {
                break;
            }
            removed += segment.size_bytes;
            count += 1;
        }
        count
    }

    /// Writes what is queued, if it can be.
    fn write_if_room(&mut self, dir: &mut dyn Dir, now: Now) -> io::Result<()> {
        match self.write_queued(dir, now) {
            Err(error) if !is_out_of_room(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Moves the start before the first `count` segments are removed. If the disk has no room for
    /// the file that says so, their indexes make some: memory has them while they are needed, and
    /// recovery would rebuild them.
    fn make_room(&mut self, dir: &mut dyn Dir, count: usize, start: Offset) -> io::Result<()> {
        match self.move_start(dir, start) {
            Err(error) if is_out_of_room(&error) => {}
            result => return result,
        }
        for segment in self.segments.range_mut(..count) {
            segment.load_index(dir)?;
            for suffix in [INDEX_SUFFIX, TIME_INDEX_SUFFIX] {
                remove_file(dir, &file_name(segment.base_offset, suffix))?;
            }
        }
        self.move_start(dir, start)
    }

    /// Makes a new log start offset durable; never moves it back.
    fn move_start(&mut self, dir: &mut dyn Dir, offset: Offset) -> io::Result<()> {
        if offset > self.log_start_offset() {
            let before = self.checkpoint.log_start_offset;
            self.checkpoint.log_start_offset = offset;
            if !planted::is(Bug::LogStartNotStored)
                && let Err(error) = self.store_checkpoint(dir)
            {
                self.checkpoint.log_start_offset = before;
                return Err(error);
            }
            // The file follows with the next epoch; opening cuts it in the same way.
            self.epochs.truncate_start(offset);
        }
        Ok(())
    }
}
