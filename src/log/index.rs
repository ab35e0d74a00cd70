//! The two sparse indexes of a segment, in Kafka's form. The active segment has them in memory; a
//! closed one has files that are searched where they lie. Both are derived from the batches:
//! missing or implausible files are built anew, and whoever follows an entry checks the batch it
//! finds there.
//!
//! An offset entry is (last offset of a batch, its position); a time entry says that up to this
//! offset no record has a larger timestamp. Offsets are relative to the segment's base offset.

use super::files::{INDEX_SUFFIX, TIME_INDEX_SUFFIX, file_name, put_file, read_range};
use crate::base::dir::Dir;
use crate::base::{Offset, WallMs};
use bytes::{Buf, BufMut};
use std::io;

/// Size of an entry of the offset index in bytes.
pub(super) const OFFSET_ENTRY_BYTES: u64 = 8;
/// Size of an entry of the time index in bytes.
pub(super) const TIME_ENTRY_BYTES: u64 = 12;

/// The batch that ends with this offset lies at this position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OffsetEntry {
    /// Relative to the base offset.
    pub last_offset: u32,
    /// In the file, in bytes.
    pub position: u32,
}

/// The largest timestamp of all records up to this offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeEntry {
    /// In milliseconds.
    pub timestamp: WallMs,
    /// Relative to the base offset.
    pub last_offset: u32,
}

/// The indexes of the active segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MemoryIndex {
    /// By offset and by position.
    pub offsets: Vec<OffsetEntry>,
    /// By timestamp and by offset.
    pub times: Vec<TimeEntry>,
}

/// The indexes of a closed segment, as far as they are in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FileIndex {
    /// Entries in the offset index.
    pub offsets: u64,
    /// Entries in the time index.
    pub times: u64,
}

/// Where a segment's indexes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Index {
    /// Active.
    Memory(MemoryIndex),
    /// Closed.
    File(FileIndex),
}

impl MemoryIndex {
    /// Adds a time entry if it says more than the last one.
    pub fn push_time(&mut self, timestamp: WallMs, last_offset: u32) {
        let last = self.times.last().map_or(-1, |entry| entry.timestamp);
        if timestamp > last {
            self.times.push(TimeEntry {
                timestamp,
                last_offset,
            });
        }
    }

    /// Writes both files, without waiting for the device.
    pub fn store(&self, dir: &mut dyn Dir, base_offset: Offset) -> io::Result<FileIndex> {
        let mut offsets = Vec::with_capacity(self.offsets.len() * OFFSET_ENTRY_BYTES as usize);
        for entry in &self.offsets {
            offsets.put_u32(entry.last_offset);
            offsets.put_u32(entry.position);
        }
        let mut times = Vec::with_capacity(self.times.len() * TIME_ENTRY_BYTES as usize);
        for entry in &self.times {
            times.put_i64(entry.timestamp);
            times.put_u32(entry.last_offset);
        }
        put_file(dir, &file_name(base_offset, INDEX_SUFFIX), &offsets)?;
        put_file(dir, &file_name(base_offset, TIME_INDEX_SUFFIX), &times)?;
        Ok(FileIndex {
            offsets: self.offsets.len() as u64,
            times: self.times.len() as u64,
        })
    }

    /// Reads both files whole; `None` unless every entry is plausible for a segment of
    /// `size_bytes` that ends before `offset_end`.
    pub fn load(
        dir: &mut dyn Dir,
        base_offset: Offset,
        files: FileIndex,
        size_bytes: u64,
        offset_end: Offset,
    ) -> io::Result<Option<Self>> {
        let mut index = Self::default();
        let name = file_name(base_offset, INDEX_SUFFIX);
        let bytes = read_range(dir, &name, 0, files.offsets * OFFSET_ENTRY_BYTES)?;
        for entry in bytes.chunks_exact(OFFSET_ENTRY_BYTES as usize) {
            index.offsets.push(decode_offset_entry(entry));
        }
        let name = file_name(base_offset, TIME_INDEX_SUFFIX);
        let bytes = read_range(dir, &name, 0, files.times * TIME_ENTRY_BYTES)?;
        for entry in bytes.chunks_exact(TIME_ENTRY_BYTES as usize) {
            index.times.push(decode_time_entry(entry));
        }
        let in_segment = |offset: u32| base_offset + i64::from(offset) < offset_end;
        let plausible = index.is_rising()
            && index.offsets.last().is_none_or(|entry| {
                in_segment(entry.last_offset) && u64::from(entry.position) < size_bytes
            })
            && index
                .times
                .last()
                .is_none_or(|entry| in_segment(entry.last_offset));
        Ok(plausible.then_some(index))
    }

    /// True if the entries are in order, as every search relies on.
    pub fn is_rising(&self) -> bool {
        let offsets = self.offsets.windows(2).all(|pair| {
            pair[0].last_offset < pair[1].last_offset && pair[0].position < pair[1].position
        });
        let times = self.times.windows(2).all(|pair| {
            pair[0].timestamp < pair[1].timestamp && pair[0].last_offset <= pair[1].last_offset
        });
        offsets && times
    }
}

impl Index {
    /// A position at or before the batch that contains the relative offset.
    pub fn position_of_offset(
        &self,
        dir: &mut dyn Dir,
        base_offset: Offset,
        offset: u32,
    ) -> io::Result<u64> {
        let entry =
            self.last_offset_entry(dir, base_offset, |entry| entry.last_offset <= offset)?;
        Ok(entry.map_or(0, |entry| u64::from(entry.position)))
    }

    /// The first known batch boundary whose batch ends at or after the relative offset.
    pub fn boundary_from_offset(
        &self,
        dir: &mut dyn Dir,
        base_offset: Offset,
        offset: u32,
    ) -> io::Result<Option<u64>> {
        let before = |entry: &OffsetEntry| entry.last_offset < offset;
        let entry = match self {
            Self::Memory(index) => {
                let at = index.offsets.partition_point(before);
                index.offsets.get(at).copied()
            }
            Self::File(files) => {
                let name = file_name(base_offset, INDEX_SUFFIX);
                let at = search(files.offsets, |at| {
                    let entry = read_offset_entry(dir, &name, at)?;
                    Ok(before(&entry).then_some(at + 1))
                })?;
                match at.unwrap_or(0) {
                    at if at < files.offsets => Some(read_offset_entry(dir, &name, at)?),
                    _ => None,
                }
            }
        };
        Ok(entry.map(|entry| u64::from(entry.position)))
    }

    /// The largest known batch boundary that is not above `position`.
    pub fn boundary_before(
        &self,
        dir: &mut dyn Dir,
        base_offset: Offset,
        position: u64,
    ) -> io::Result<u64> {
        let entry = self.last_offset_entry(dir, base_offset, |entry| {
            u64::from(entry.position) <= position
        })?;
        Ok(entry.map_or(0, |entry| u64::from(entry.position)))
    }

    /// A relative offset up to which all timestamps are below `timestamp`; 0 if none is known.
    pub fn offset_before_timestamp(
        &self,
        dir: &mut dyn Dir,
        base_offset: Offset,
        timestamp: WallMs,
    ) -> io::Result<u32> {
        let entry = match self {
            Self::Memory(index) => {
                let after = index
                    .times
                    .partition_point(|entry| entry.timestamp < timestamp);
                index.times[..after].last().copied()
            }
            Self::File(files) => {
                let name = file_name(base_offset, TIME_INDEX_SUFFIX);
                search(files.times, |at| {
                    let entry = read_time_entry(dir, &name, at)?;
                    Ok((entry.timestamp < timestamp).then_some(entry))
                })?
            }
        };
        Ok(entry.map_or(0, |entry| entry.last_offset))
    }

    /// The last entry of the offset index for which `holds`; it holds up to some entry.
    fn last_offset_entry(
        &self,
        dir: &mut dyn Dir,
        base_offset: Offset,
        holds: impl Fn(&OffsetEntry) -> bool,
    ) -> io::Result<Option<OffsetEntry>> {
        match self {
            Self::Memory(index) => {
                let after = index.offsets.partition_point(holds);
                Ok(index.offsets[..after].last().copied())
            }
            Self::File(files) => {
                let name = file_name(base_offset, INDEX_SUFFIX);
                search(files.offsets, |at| {
                    let entry = read_offset_entry(dir, &name, at)?;
                    Ok(holds(&entry).then_some(entry))
                })
            }
        }
    }
}

/// Reads one entry of an offset index file.
pub(super) fn read_offset_entry(dir: &mut dyn Dir, name: &str, at: u64) -> io::Result<OffsetEntry> {
    let mut bytes = [0; OFFSET_ENTRY_BYTES as usize];
    read_exact(dir, name, at * OFFSET_ENTRY_BYTES, &mut bytes)?;
    Ok(decode_offset_entry(&bytes))
}

/// Reads one entry of a time index file.
pub(super) fn read_time_entry(dir: &mut dyn Dir, name: &str, at: u64) -> io::Result<TimeEntry> {
    let mut bytes = [0; TIME_ENTRY_BYTES as usize];
    read_exact(dir, name, at * TIME_ENTRY_BYTES, &mut bytes)?;
    Ok(decode_time_entry(&bytes))
}

/// Finds the last of `count` entries that `probe` gives; those it gives come first.
fn search<T>(
    count: u64,
    mut probe: impl FnMut(u64) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let (mut low, mut high, mut found) = (0, count, None);
    while low < high {
        let middle = low + (high - low) / 2;
        match probe(middle)? {
            Some(entry) => {
                found = Some(entry);
                low = middle + 1;
            }
            None => high = middle,
        }
    }
    Ok(found)
}

fn read_exact(dir: &mut dyn Dir, name: &str, position: u64, buffer: &mut [u8]) -> io::Result<()> {
    if dir.read_at(name, position, buffer)? == buffer.len() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{name} is shorter than it was"),
    ))
}

fn decode_offset_entry(mut bytes: &[u8]) -> OffsetEntry {
    OffsetEntry {
        last_offset: bytes.get_u32(),
        position: bytes.get_u32(),
    }
}

fn decode_time_entry(mut bytes: &[u8]) -> TimeEntry {
    TimeEntry {
        timestamp: bytes.get_i64(),
        last_offset: bytes.get_u32(),
    }
}
