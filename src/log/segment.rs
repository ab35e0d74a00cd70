//! One file of batches and what is known about it without reading it. The last segment of a log is
//! active: its indexes are in memory and it grows with every append, ahead of its file by what is
//! queued.

use super::Config;
use super::files::{INDEX_SUFFIX, LOG_SUFFIX, TIME_INDEX_SUFFIX, file_name};
use super::index::{
    FileIndex, Index, MemoryIndex, OFFSET_ENTRY_BYTES, OffsetEntry, TIME_ENTRY_BYTES,
};
use super::watermarks::Place;
use crate::base::dir::Dir;
use crate::base::{Now, Offset, WallMs};
use crate::batch::{Header, NO_TIMESTAMP};
use std::io;

/// Largest offset relative to a segment's base, and largest file: Kafka's indexes hold an i32.
pub(super) const RELATIVE_MAX: i64 = i32::MAX as i64;

/// Segments smaller than this reserve no room: thousands of partitions would fill the disk.
const RESERVE_FROM_BYTES: u64 = 1024 * 1024;

/// Most room that is reserved ahead.
const RESERVE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A segment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Name of the file of batches.
    pub file: String,
    /// Offset in the file names; that of the first record, unless compaction removed it.
    pub base_offset: Offset,
    /// Offset after the last record.
    pub offset_end: Offset,
    /// Bytes of batches.
    pub size_bytes: u64,
    /// Bytes of the file that have room on the device already; 0 if nobody knows.
    pub reserved_bytes: u64,
    /// Its indexes.
    pub index: Index,
    /// Bytes since the batch of the last offset entry began.
    pub bytes_since_entry: u64,
    /// Largest timestamp of the first batch; `None` while empty, unused once closed.
    pub first_timestamp: Option<WallMs>,
    /// Largest timestamp, -1 without any.
    pub max_timestamp: WallMs,
    /// Last offset of the first batch with the largest timestamp.
    pub max_timestamp_offset: Offset,
    /// Creation, or the opening of the log: how old a segment without timestamps is for a roll.
    pub created_ms: WallMs,
    /// Last append, or the opening of the log: how old it is for retention.
    pub written_ms: WallMs,
}

impl Segment {
    /// An empty active segment.
    pub fn new(base_offset: Offset, now_ms: WallMs) -> Self {
        Self {
            file: file_name(base_offset, LOG_SUFFIX),
            base_offset,
            offset_end: base_offset,
            size_bytes: 0,
            reserved_bytes: 0,
            index: Index::Memory(MemoryIndex::default()),
            bytes_since_entry: 0,
            first_timestamp: None,
            max_timestamp: NO_TIMESTAMP,
            max_timestamp_offset: base_offset,
            created_ms: now_ms,
            written_ms: now_ms,
        }
    }

    /// Where its next batch goes.
    pub fn end(&self) -> Place {
        Place {
            offset: self.offset_end,
            base_offset: self.base_offset,
            position: self.size_bytes,
        }
    }

    /// An offset of this segment as its indexes have it.
    pub fn relative(&self, offset: Offset) -> u32 {
        let relative = offset - self.base_offset;
        assert!(
            (0..=RELATIVE_MAX).contains(&relative),
            "the offset is of this segment"
        );
        relative as u32
    }

    /// Takes in the next batch, at the end. By Kafka's rule the first batch after
    /// `index_interval_bytes` gets an index entry.
    pub fn push(&mut self, header: &Header, index_interval_bytes: u64) {
        let last_offset = self.relative(header.last_offset());
        self.first_timestamp.get_or_insert(header.max_timestamp);
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_offset = header.last_offset();
        }
        let time_offset = self.relative(self.max_timestamp_offset);
        if self.bytes_since_entry > index_interval_bytes {
            let index = self.memory_index();
            let position = u32::try_from(index.1).expect("a segment is below 4 GiB");
            index.0.offsets.push(OffsetEntry {
                last_offset,
                position,
            });
            index.0.push_time(index.2, time_offset);
            self.bytes_since_entry = 0;
        }
        let size_bytes = header.size_bytes() as u64;
        self.bytes_since_entry += size_bytes;
        self.size_bytes += size_bytes;
        self.offset_end = header.next_offset();
    }

    /// True if the batch must go to a new segment: by size, by age (the batch's timestamp against
    /// the first one's, or the clock if that has none), by a full index or by its offset.
    pub fn is_full_for(&self, config: &Config, header: &Header, now: Now) -> bool {
        if self.size_bytes == 0 {
            return false;
        }
        let size_bytes_max = config.segment_bytes.min(RELATIVE_MAX as u64);
        let age_ms = match self.first_timestamp {
            Some(first) if first >= 0 => header.max_timestamp.saturating_sub(first),
            _ => now.wall_ms.saturating_sub(self.created_ms),
        };
        let Index::Memory(index) = &self.index else {
            return true;
        };
        let index_full = index.offsets.len() as u64 * OFFSET_ENTRY_BYTES + OFFSET_ENTRY_BYTES
            > config.segment_index_bytes
            || index.times.len() as u64 * TIME_ENTRY_BYTES + TIME_ENTRY_BYTES
                > config.segment_index_bytes;
        self.size_bytes + header.size_bytes() as u64 > size_bytes_max
            || age_ms > config.segment_ms
            || index_full
            || header.last_offset() - self.base_offset > RELATIVE_MAX
    }

    /// Writes the index files, without waiting for the device. As in Kafka the largest timestamp
    /// ends the time index, so that it can be found without reading batches.
    pub fn store_index(&mut self, dir: &mut dyn Dir) -> io::Result<FileIndex> {
        let time_offset = self.relative(self.max_timestamp_offset);
        let base_offset = self.base_offset;
        let (index, _, max_timestamp) = self.memory_index();
        index.push_time(max_timestamp, time_offset);
        index.store(dir, base_offset)
    }

    /// Makes sure of room for the file up to `end_bytes`, and for more in proportion to what it
    /// holds: a segment that grows is reserved in large steps, one that stays small not at all.
    pub fn reserve(&mut self, dir: &mut dyn Dir, end_bytes: u64, config: &Config) {
        if end_bytes <= self.reserved_bytes || end_bytes < RESERVE_FROM_BYTES {
            return;
        }
        let ahead = end_bytes.min(RESERVE_BYTES_MAX);
        let until = (end_bytes + ahead).min(config.segment_bytes).max(end_bytes);
        let position = self.reserved_bytes;
        dir.reserve(&self.file, position, until - position);
        self.reserved_bytes = until;
    }

    /// Gives back what was reserved and is not used.
    pub fn release(&mut self, dir: &mut dyn Dir) -> io::Result<()> {
        if self.reserved_bytes > self.size_bytes {
            dir.truncate(&self.file, self.size_bytes)?;
        }
        self.reserved_bytes = 0;
        Ok(())
    }

    /// Ends the segment's growth: its indexes go to their files and out of memory.
    pub fn close(&mut self, dir: &mut dyn Dir) -> io::Result<()> {
        self.release(dir)?;
        self.index = Index::File(self.store_index(dir)?);
        Ok(())
    }

    /// Takes the indexes out of their files into memory. False if the files were damaged: then they
    /// are empty, and every search begins at the start of the segment.
    pub fn load_index(&mut self, dir: &mut dyn Dir) -> io::Result<bool> {
        let Index::File(files) = self.index else {
            return Ok(true);
        };
        let (base_offset, size_bytes) = (self.base_offset, self.size_bytes);
        let index = MemoryIndex::load(dir, base_offset, files, size_bytes, self.offset_end)?;
        let is_whole = index.is_some();
        let index = index.unwrap_or_default();
        let last_entry = index.offsets.last().map_or(0, |entry| entry.position);
        self.bytes_since_entry = size_bytes - u64::from(last_entry);
        self.index = Index::Memory(index);
        Ok(is_whole)
    }

    /// Makes the index files durable.
    pub fn sync_index(&self, dir: &mut dyn Dir) -> io::Result<()> {
        dir.sync(&file_name(self.base_offset, INDEX_SUFFIX))?;
        dir.sync(&file_name(self.base_offset, TIME_INDEX_SUFFIX))
    }

    /// The time that retention goes by.
    pub fn retention_timestamp(&self) -> WallMs {
        if self.max_timestamp >= 0 {
            self.max_timestamp
        } else {
            self.written_ms
        }
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        assert!(self.base_offset <= self.offset_end, "offsets rise");
        assert_eq!(
            self.size_bytes == 0,
            self.base_offset == self.offset_end,
            "an empty file has no offsets"
        );
        if let Index::Memory(index) = &self.index {
            assert!(index.is_rising(), "index entries rise");
            let last = index.offsets.last().map_or(0, |entry| entry.position);
            assert_eq!(self.size_bytes - u64::from(last), self.bytes_since_entry);
        }
    }

    /// The index of the active segment, with size and largest timestamp of the segment.
    fn memory_index(&mut self) -> (&mut MemoryIndex, u64, WallMs) {
        let Index::Memory(index) = &mut self.index else {
            unreachable!("only the active segment grows");
        };
        (index, self.size_bytes, self.max_timestamp)
    }
}
