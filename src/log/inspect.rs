//! Looking at one segment on disk: quickly, where it is believed, or batch by batch with the CRC;
//! and replaying batches into the state that they add up to.

use super::files::{INDEX_SUFFIX, LOG_SUFFIX, TIME_INDEX_SUFFIX, file_name};
use super::index::{
    FileIndex, Index, OFFSET_ENTRY_BYTES, OffsetEntry, TIME_ENTRY_BYTES, read_offset_entry,
    read_time_entry,
};
use super::segment::{RELATIVE_MAX, Segment};
use super::walk::{Walk, WalkError};
use super::{Config, Epochs, OpenError, Producers};
use crate::base::dir::Dir;
use crate::base::planted::{self, Bug};
use crate::base::{Epoch, Mono, Offset, WallMs};
use crate::batch::{Header, NO_TIMESTAMP};
use std::collections::BTreeMap;
use std::io;

/// State that batches are replayed into, in the order of their offsets.
pub(super) struct Replay {
    /// The producers before `producers_from`, then before the last batch replayed.
    pub producers: Producers,
    /// Batches below are already in `producers`.
    pub producers_from: Offset,
    /// The leader epochs.
    pub epochs: Epochs,
    /// What the epochs' file held, if it was readable.
    pub stored_epochs: Option<Epochs>,
    /// All batches must be seen to know the epochs.
    pub rebuild_epochs: bool,
    /// Replayed producers count as used now.
    pub mono: Mono,
}

/// What a scan found.
pub(super) struct Scan {
    /// The valid part, as an active segment.
    pub segment: Segment,
    /// Size of the file.
    pub file_bytes: u64,
    /// Where reading with the CRC began.
    pub checked_from: u64,
    /// Leader epoch of the last batch.
    epoch: Epoch,
    /// What is wrong behind the valid part, if anything is there.
    pub invalid: Option<String>,
}

impl Replay {
    /// Replays into nothing, for segments that are only looked at.
    pub fn none() -> Self {
        Self {
            producers: Producers::default(),
            producers_from: Offset::MAX,
            epochs: Epochs::default(),
            stored_epochs: None,
            rebuild_epochs: false,
            mono: Mono(0),
        }
    }

    fn apply(&mut self, header: &Header) {
        self.epochs
            .assign(header.partition_leader_epoch, header.base_offset);
        if header.base_offset >= self.producers_from {
            self.producers.apply(header, self.mono);
        }
    }
}

/// Reads a segment up to the first batch that is not valid: damaged, cut off, not next in offset,
/// or of an older epoch than the one before. What lies below `durable` was synced once and only its
/// heads are read; all else is read with its CRC.
pub(super) fn scan_segment(
    dir: &mut dyn Dir,
    (base_offset, file_bytes): (Offset, u64),
    durable: Offset,
    config: &Config,
    now_ms: WallMs,
    replay: &mut Replay,
) -> io::Result<Scan> {
    let mut scan = Scan {
        segment: Segment::new(base_offset, now_ms),
        file_bytes,
        checked_from: 0,
        epoch: -1,
        invalid: None,
    };
    let file = scan.segment.file.clone();
    let mut heads = Walk::heads(dir, &file, 0, file_bytes);
    while scan.segment.offset_end < durable && scan.take_next(&mut heads, false, config, replay)? {}
    scan.checked_from = scan.segment.size_bytes;
    if scan.invalid.is_none() {
        let mut rest = Walk::scan(dir, &file, scan.checked_from, file_bytes);
        while scan.take_next(&mut rest, true, config, replay)? {}
    }
    Ok(scan)
}

impl Scan {
    /// Takes in the next batch; false at the end of what is valid.
    fn take_next(
        &mut self,
        walk: &mut Walk<'_>,
        check_crc: bool,
        config: &Config,
        replay: &mut Replay,
    ) -> io::Result<bool> {
        let header = match next_checked(walk, check_crc) {
            Ok(None) => return Ok(false),
            Ok(Some(header)) => header,
            Err(WalkError::Invalid(what)) => {
                self.invalid = Some(what);
                return Ok(false);
            }
            Err(WalkError::Io(error)) => return Err(error),
        };
        self.invalid = self.contradiction(&header);
        if self.invalid.is_some() {
            return Ok(false);
        }
        self.epoch = header.partition_leader_epoch;
        self.segment.push(&header, config.index_interval_bytes);
        replay.apply(&header);
        Ok(true)
    }

    /// Why this batch cannot be the next one of the segment.
    fn contradiction(&self, header: &Header) -> Option<String> {
        let any = planted::is(Bug::StaleBatchAccepted);
        if header.base_offset != self.segment.offset_end && !any {
            return Some(format!(
                "the batch begins with offset {}",
                header.base_offset
            ));
        }
        if header.last_offset() - self.segment.base_offset > RELATIVE_MAX {
            return Some("the offsets are too far from the segment's first".into());
        }
        if header.partition_leader_epoch < self.epoch {
            return Some(format!(
                "leader epoch {} follows {}",
                header.partition_leader_epoch, self.epoch
            ));
        }
        if self.segment.size_bytes > u64::from(u32::MAX) {
            return Some("the segment is larger than 4 GiB".into());
        }
        None
    }
}

/// Replays what a segment holds beyond the snapshot, by its heads.
pub(super) fn replay_segment(
    dir: &mut dyn Dir,
    segment: &Segment,
    replay: &mut Replay,
) -> Result<(), OpenError> {
    if segment.offset_end <= replay.producers_from && !replay.rebuild_epochs {
        return Ok(());
    }
    let file = segment.file.clone();
    let mut walk = Walk::heads(dir, &file, 0, segment.size_bytes);
    let mut next = segment.base_offset;
    loop {
        match walk.next() {
            Ok(None) => return Ok(()),
            // The CRC does not cover offsets: only their order tells.
            Ok(Some((_, header))) if header.base_offset < next => {
                let offset = header.base_offset;
                return Err(OpenError::Refused(format!(
                    "{file} is damaged: offset {offset} follows {}",
                    next - 1
                )));
            }
            Ok(Some((_, header))) => {
                next = header.next_offset();
                replay.apply(&header);
            }
            Err(WalkError::Io(error)) => return Err(error.into()),
            Err(WalkError::Invalid(what)) => {
                return Err(OpenError::Refused(format!("{file} is damaged: {what}")));
            }
        }
    }
}

/// A closed segment by its index files and the heads behind their last entry; `None` if they do
/// not fit together.
pub(super) fn inspect_closed(
    dir: &mut dyn Dir,
    base_offset: Offset,
    files: &BTreeMap<String, u64>,
    config: &Config,
    now_ms: WallMs,
) -> io::Result<Option<Segment>> {
    let Some(index) = file_index(base_offset, files) else {
        return Ok(None);
    };
    let mut last_offset_entry = None;
    if index.offsets > 0 {
        let name = file_name(base_offset, INDEX_SUFFIX);
        last_offset_entry = Some(read_offset_entry(dir, &name, index.offsets - 1)?);
    }
    let mut last_time_entry = (NO_TIMESTAMP, base_offset);
    if index.times > 0 {
        let name = file_name(base_offset, TIME_INDEX_SUFFIX);
        let entry = read_time_entry(dir, &name, index.times - 1)?;
        last_time_entry = (entry.timestamp, base_offset + i64::from(entry.last_offset));
    }
    let size_bytes = files[&file_name(base_offset, LOG_SUFFIX)];
    let segment = Segment {
        index: Index::File(index),
        size_bytes,
        max_timestamp: last_time_entry.0,
        max_timestamp_offset: last_time_entry.1,
        ..Segment::new(base_offset, now_ms)
    };
    let interval = config.index_interval_bytes;
    let Some(segment) = with_end(dir, segment, last_offset_entry, interval)? else {
        return Ok(None);
    };
    // The last time entry of a closed segment has its largest timestamp, which retention goes by.
    let complete = (segment.max_timestamp, segment.max_timestamp_offset) == last_time_entry
        && (index.times == 0 || has_max_timestamp(dir, &segment)?);
    Ok(complete.then_some(segment))
}

/// The active segment after a clean stop, with its indexes; `None` if they do not fit together.
pub(super) fn load_active(
    dir: &mut dyn Dir,
    base_offset: Offset,
    files: &BTreeMap<String, u64>,
    config: &Config,
    now_ms: WallMs,
) -> io::Result<Option<Segment>> {
    let Some(mut segment) = inspect_closed(dir, base_offset, files, config, now_ms)? else {
        return Ok(None);
    };
    if !segment.load_index(dir)? {
        return Ok(None);
    }
    Ok(Some(segment))
}

/// Walks from the last index entry to the end of the file, to find the segment's end; and looks
/// at its first batch. `None` if a head is not what index and file size promise.
fn with_end(
    dir: &mut dyn Dir,
    mut segment: Segment,
    last_entry: Option<OffsetEntry>,
    index_interval_bytes: u64,
) -> io::Result<Option<Segment>> {
    if segment.size_bytes == 0 {
        return Ok(last_entry.is_none().then_some(segment));
    }
    let file = segment.file.clone();
    let mut walk = Walk::heads(dir, &file, 0, segment.size_bytes);
    match walk.next() {
        Ok(Some((_, first))) => segment.first_timestamp = Some(first.max_timestamp),
        Err(WalkError::Io(error)) => return Err(error),
        _ => return Ok(None),
    }
    let start = last_entry.map_or(0, |entry| u64::from(entry.position));
    let mut expected = last_entry.map(|entry| segment.base_offset + i64::from(entry.last_offset));
    let mut walk = Walk::heads(dir, &file, start, segment.size_bytes);
    loop {
        let (position, header) = match walk.next() {
            Ok(None) => break,
            Ok(Some(found)) => found,
            Err(WalkError::Io(error)) => return Err(error),
            Err(WalkError::Invalid(_)) => return Ok(None),
        };
        if position - start > index_interval_bytes {
            // This batch would have an entry, were the index whole.
            return Ok(None);
        }
        let in_order = header.base_offset >= segment.offset_end;
        let as_expected = expected
            .take()
            .is_none_or(|offset| offset == header.last_offset());
        if !in_order || !as_expected || header.last_offset() - segment.base_offset > RELATIVE_MAX {
            return Ok(None);
        }
        segment.offset_end = header.next_offset();
        if header.max_timestamp > segment.max_timestamp {
            segment.max_timestamp = header.max_timestamp;
            segment.max_timestamp_offset = header.last_offset();
        }
    }
    Ok(Some(segment))
}

/// True if the batch with the largest timestamp is where the indexes say.
fn has_max_timestamp(dir: &mut dyn Dir, segment: &Segment) -> io::Result<bool> {
    let offset = segment.max_timestamp_offset;
    if !(segment.base_offset..segment.offset_end).contains(&offset) {
        return Ok(false);
    }
    let relative = segment.relative(offset);
    let start = segment
        .index
        .position_of_offset(dir, segment.base_offset, relative)?;
    let file = segment.file.clone();
    let mut walk = Walk::heads(dir, &file, start, segment.size_bytes);
    loop {
        match walk.next() {
            Ok(Some((_, header))) if header.last_offset() < offset => {}
            Ok(Some((_, header))) => {
                let found = (header.last_offset(), header.max_timestamp);
                return Ok(found == (offset, segment.max_timestamp));
            }
            Ok(None) | Err(WalkError::Invalid(_)) => return Ok(false),
            Err(WalkError::Io(error)) => return Err(error),
        }
    }
}

/// The sizes of a segment's index files; `None` if one is missing or ends within an entry.
fn file_index(base_offset: Offset, files: &BTreeMap<String, u64>) -> Option<FileIndex> {
    let count = |suffix: &str, entry_bytes: u64| {
        let size = *files.get(&file_name(base_offset, suffix))?;
        (size % entry_bytes == 0).then_some(size / entry_bytes)
    };
    Some(FileIndex {
        offsets: count(INDEX_SUFFIX, OFFSET_ENTRY_BYTES)?,
        times: count(TIME_INDEX_SUFFIX, TIME_ENTRY_BYTES)?,
    })
}

/// The next batch, with its CRC checked if that is asked for.
fn next_checked(walk: &mut Walk<'_>, check_crc: bool) -> Result<Option<Header>, WalkError> {
    let Some((position, header)) = walk.next()? else {
        return Ok(None);
    };
    if check_crc && !planted::is(Bug::CrcSkipped) {
        walk.check_crc(position, &header)?;
    }
    Ok(Some(header))
}
