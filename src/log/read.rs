//! Finding the bytes of a fetch: from an offset to a position by the sparse index and a short walk
//! over batch heads, and on to a batch boundary below the high watermark. The bytes themselves are
//! never touched.
//!
//! Extents end with a whole batch, so the next fetch of a consumer begins where the last one
//! ended: remembered places make sequential reading free of walks.

use super::index::Index;
use super::segment::Segment;
use super::walk::{Walk, WalkError};
use super::watermarks::Place;
use super::{Extent, Log, ReadError};
use crate::base::Offset;
use crate::base::dir::Dir;

/// Ends of reads that are remembered per log.
const RECENT_MAX: usize = 16;
/// Estimates stop counting here; no fetch asks for more.
const AVAILABLE_BYTES_MAX: u64 = i32::MAX as u64;

impl Log {
    /// Whole batches from the one that contains `offset`, up to the high watermark, the end of the
    /// segment or `bytes_max`. `None` if there are none below the high watermark, or if the first
    /// is larger than `bytes_max` and `at_least_one_batch` is false. As in Kafka, an offset
    /// between high watermark and log end is no error.
    pub fn read(
        &mut self,
        dir: &mut dyn Dir,
        offset: Offset,
        bytes_max: u64,
        at_least_one_batch: bool,
    ) -> Result<Option<Extent>, ReadError> {
        self.check_readable()?;
        let (offset_first, offset_end) = (self.log_start_offset(), self.log_end_offset());
        if !(offset_first..=offset_end).contains(&offset) {
            return Err(ReadError::OffsetOutOfRange {
                offset,
                offset_first,
                offset_end,
            });
        }
        let high = self.marks.high();
        if offset >= high.offset {
            // It will be asked for again as soon as there is more.
            self.remember(high);
            return Ok(None);
        }
        let Some((at, start)) = self.locate(dir, offset)? else {
            return Ok(None);
        };
        let segment = &self.segments[at];
        let limit = self.limit_in(segment);
        let whole = limit - start <= bytes_max;
        let hint = match whole {
            true => limit,
            false => {
                let target = start + bytes_max;
                let index = &segment.index;
                index.boundary_before(dir, segment.base_offset, target)?
            }
        };
        let file = segment.file.clone();
        let extent = |end: u64| Extent {
            file: file.clone(),
            position: start,
            length: end - start,
        };
        if hint > start && !whole && !dir.is_cached(&file, hint) {
            // Looking whether the index is right would wait for the device. If it is not, the
            // client gets a part of a batch, and asks again for what is cached by then.
            return Ok(Some(extent(hint)));
        }
        let end = match whole {
            true => Place {
                offset: segment.offset_end.min(high.offset),
                base_offset: segment.base_offset,
                position: limit,
            },
            false => cut(
                dir,
                segment,
                (start, limit),
                hint,
                bytes_max,
                at_least_one_batch,
            )?,
        };
        let extent = extent(end.position);
        self.remember(end);
        Ok((extent.length > 0).then_some(extent))
    }

    /// About how many bytes a reader at `offset` can get (`fetch.min.bytes`); exact where reading
    /// went on from there before.
    pub fn available_bytes(&self, offset: Offset) -> u64 {
        if offset >= self.high_watermark() || self.poisoned.is_some() {
            return 0;
        }
        let at = self.segment_of(offset);
        let first = &self.segments[at];
        let limit = self.limit_in(first);
        let mut bytes = limit.saturating_sub(self.estimate_position(first, offset));
        for segment in self.segments.range(at + 1..) {
            if bytes >= AVAILABLE_BYTES_MAX {
                break;
            }
            bytes += self.limit_in(segment);
        }
        bytes
    }

    /// Refuses reads of a poisoned log.
    pub(super) fn check_readable(&self) -> Result<(), ReadError> {
        match &self.poisoned {
            Some(why) => Err(ReadError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    /// Bytes of a segment below the high watermark.
    pub(super) fn limit_in(&self, segment: &Segment) -> u64 {
        let high = self.marks.high();
        match segment.base_offset.cmp(&high.base_offset) {
            std::cmp::Ordering::Less => segment.size_bytes,
            std::cmp::Ordering::Equal => high.position,
            std::cmp::Ordering::Greater => 0,
        }
    }

    /// Segment and position of the batch that contains `offset`, or of the next one if compaction
    /// removed it; `None` if there is none below the high watermark.
    fn locate(&self, dir: &mut dyn Dir, offset: Offset) -> Result<Option<(usize, u64)>, ReadError> {
        let mut at = self.segment_of(offset);
        let segment = &self.segments[at];
        let limit = self.limit_in(segment);
        let start = match self.remembered(segment, offset) {
            Some(position) => Some(position),
            None => find(dir, segment, offset, limit)?,
        };
        if let Some(position) = start.filter(|position| *position < limit) {
            return Ok(Some((at, position)));
        }
        // Beyond the last batch of the segment: only compaction leaves such a gap.
        at += 1;
        let next = self.segments.get(at);
        Ok(next.filter(|next| self.limit_in(next) > 0).map(|_| (at, 0)))
    }

    /// The position of a batch that begins with `offset`, if that is known without reading.
    fn remembered(&self, segment: &Segment, offset: Offset) -> Option<u64> {
        if offset == segment.base_offset {
            return Some(0);
        }
        let place = self
            .recent
            .iter()
            .rev()
            .find(|place| place.offset == offset && place.base_offset == segment.base_offset)?;
        Some(place.position)
    }

    /// Keeps the end of a read for the next one.
    fn remember(&mut self, place: Place) {
        if let Some(at) = self.recent.iter().position(|known| *known == place) {
            self.recent.remove(at);
        } else if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(place);
    }

    /// Where `offset` lies, as well as memory can tell.
    fn estimate_position(&self, segment: &Segment, offset: Offset) -> u64 {
        if let Some(position) = self.remembered(segment, offset) {
            return position;
        }
        if offset <= segment.base_offset {
            return 0;
        }
        match &segment.index {
            Index::Memory(index) => {
                let relative = segment.relative(offset);
                let after = index
                    .offsets
                    .partition_point(|entry| entry.last_offset < relative);
                match &index.offsets[..after] {
                    [] => 0,
                    [.., last] => u64::from(last.position),
                }
            }
            Index::File(_) => {
                let offsets = (segment.offset_end - segment.base_offset).max(1) as u128;
                let before = (offset - segment.base_offset) as u128;
                (u128::from(segment.size_bytes) * before / offsets) as u64
            }
        }
    }
}

/// Position of the first batch that ends at or after `offset`, below `limit`.
pub(super) fn find(
    dir: &mut dyn Dir,
    segment: &Segment,
    offset: Offset,
    limit: u64,
) -> Result<Option<u64>, ReadError> {
    let file = segment.file.clone();
    let last = (segment.offset_end - 1).max(segment.base_offset);
    let relative = segment.relative(offset.clamp(segment.base_offset, last));
    let (index, base_offset) = (&segment.index, segment.base_offset);
    // A reader goes on where the index ended its last answer (see [`Log::read`]); the head there
    // came into the cache with that answer, the batches before it may have not.
    if let Some(position) = index.boundary_from_offset(dir, base_offset, relative)?
        && position < limit
        && dir.is_cached(&file, position)
        && let Ok(Some((_, header))) = Walk::heads(dir, &file, position, limit).next()
        && header.base_offset == offset
    {
        return Ok(Some(position));
    }
    let hint = index.position_of_offset(dir, base_offset, relative)?;
    let start = checked_hint(dir, segment, hint, offset)?;
    let mut walk = Walk::heads(dir, &file, start, limit);
    while let Some((position, header)) = walk.next().map_err(|error| corrupt(segment, error))? {
        if header.last_offset() >= offset {
            return Ok(Some(position));
        }
    }
    Ok(None)
}

/// The last batch boundary within `bytes_max` bytes of `start`; the first one of all if that is
/// further away and `at_least_one_batch`, else `start`. `hint` is the index's boundary.
fn cut(
    dir: &mut dyn Dir,
    segment: &Segment,
    (start, limit): (u64, u64),
    hint: u64,
    bytes_max: u64,
    at_least_one_batch: bool,
) -> Result<Place, ReadError> {
    let target = start + bytes_max;
    let file = segment.file.clone();
    let hint = checked_hint(dir, segment, hint, Offset::MAX)?.max(start);
    let mut walk = Walk::heads(dir, &file, hint, limit);
    loop {
        let Some((position, header)) = walk.next().map_err(|error| corrupt(segment, error))? else {
            return Err(ReadError::Corrupt(format!(
                "{file} ends before byte {limit}"
            )));
        };
        let first = position == start && at_least_one_batch;
        let fits = walk.position() <= target;
        if !fits || walk.position() == limit {
            let whole = fits || first;
            return Ok(Place {
                offset: if whole {
                    header.next_offset()
                } else {
                    header.base_offset
                },
                base_offset: segment.base_offset,
                position: if whole { walk.position() } else { position },
            });
        }
    }
}

/// An index entry's position if a batch of this segment that begins at or before `offset` lies
/// there, else the start of the file: an index is only ever a hint.
pub(super) fn checked_hint(
    dir: &mut dyn Dir,
    segment: &Segment,
    position: u64,
    offset: Offset,
) -> Result<u64, ReadError> {
    if position == 0 || matches!(segment.index, Index::Memory(_)) {
        return Ok(position);
    }
    let file = segment.file.clone();
    match Walk::heads(dir, &file, position, segment.size_bytes).next() {
        Ok(Some((_, header)))
            if header.base_offset <= offset
                && (segment.base_offset..segment.offset_end).contains(&header.base_offset) =>
        {
            Ok(position)
        }
        Ok(_) | Err(WalkError::Invalid(_)) => Ok(0),
        Err(WalkError::Io(error)) => Err(error.into()),
    }
}

/// The error of a walk as a reader is told.
pub(super) fn corrupt(segment: &Segment, error: WalkError) -> ReadError {
    match error {
        WalkError::Io(error) => ReadError::Io(error),
        WalkError::Invalid(what) => ReadError::Corrupt(format!("{}: {what}", segment.file)),
    }
}
