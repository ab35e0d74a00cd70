//! From timestamps to offsets (ListOffsets, KIP-79 and KIP-734): the time index narrows the search
//! down, batch heads find the batch, its records the answer. Answers lie below the high watermark.

use super::config::DECOMPRESSED_BYTES_MAX;
use super::read::{checked_hint, corrupt};
use super::segment::Segment;
use super::walk::Walk;
use super::{Log, ReadError};
use crate::base::dir::Dir;
use crate::base::{Epoch, Offset, WallMs};
use crate::batch::{self, BatchError, Header, TimestampType};
use bytes::Bytes;

/// A record's offset, its timestamp and its leader epoch.
type Found = (Offset, WallMs, Epoch);

impl Log {
    /// The first record with at least this timestamp, below the high watermark: offset, its
    /// timestamp, leader epoch. Decompresses one batch.
    pub fn offset_for_timestamp(
        &mut self,
        dir: &mut dyn Dir,
        timestamp_ms: WallMs,
    ) -> Result<Option<(Offset, WallMs, Epoch)>, ReadError> {
        self.check_readable()?;
        for segment in &self.segments {
            if segment.max_timestamp < timestamp_ms {
                continue;
            }
            if let Some(found) = self.first_in(dir, segment, timestamp_ms)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp of the log (KIP-734), as
    /// [`Log::offset_for_timestamp`] gives it.
    pub fn offset_of_max_timestamp(
        &mut self,
        dir: &mut dyn Dir,
    ) -> Result<Option<(Offset, WallMs, Epoch)>, ReadError> {
        self.check_readable()?;
        let mut largest = batch::NO_TIMESTAMP;
        for segment in &self.segments {
            // Most segments are ruled out by what is known of them without reading.
            if segment.max_timestamp > largest {
                largest = largest.max(self.max_timestamp_in(dir, segment)?);
            }
        }
        if largest == batch::NO_TIMESTAMP {
            return Ok(None);
        }
        self.offset_for_timestamp(dir, largest)
    }

    /// The first visible record of a segment with at least this timestamp.
    fn first_in(
        &self,
        dir: &mut dyn Dir,
        segment: &Segment,
        timestamp_ms: WallMs,
    ) -> Result<Option<Found>, ReadError> {
        let index = &segment.index;
        let before = index.offset_before_timestamp(dir, segment.base_offset, timestamp_ms)?;
        let from = self
            .log_start_offset()
            .max(segment.base_offset + i64::from(before));
        if from >= segment.offset_end {
            return Ok(None);
        }
        let relative = segment.relative(from);
        let hint = index.position_of_offset(dir, segment.base_offset, relative)?;
        let start = checked_hint(dir, segment, hint, from)?;
        let file = segment.file.clone();
        let mut walk = Walk::heads(dir, &file, start, self.limit_in(segment));
        while let Some((position, header)) = walk.next().map_err(|error| corrupt(segment, error))? {
            if header.max_timestamp < timestamp_ms || header.last_offset() < from {
                continue;
            }
            let body = walk
                .body(position, &header)
                .map_err(|error| corrupt(segment, error))?;
            let found = first_record(&header, &body, from, timestamp_ms)
                .map_err(|error| corrupt(segment, error.into()))?;
            // A head may promise more than its records have.
            if let Some((offset, timestamp)) = found {
                return Ok(Some((offset, timestamp, header.partition_leader_epoch)));
            }
        }
        Ok(None)
    }

    /// The largest timestamp of the visible batches of a segment, -1 without any.
    fn max_timestamp_in(&self, dir: &mut dyn Dir, segment: &Segment) -> Result<WallMs, ReadError> {
        let visible = self.log_start_offset()..self.high_watermark();
        if visible.contains(&segment.max_timestamp_offset) {
            return Ok(segment.max_timestamp);
        }
        let file = segment.file.clone();
        let mut largest = batch::NO_TIMESTAMP;
        let mut walk = Walk::heads(dir, &file, 0, self.limit_in(segment));
        while let Some((_, header)) = walk.next().map_err(|error| corrupt(segment, error))? {
            if header.last_offset() >= visible.start {
                largest = largest.max(header.max_timestamp);
            }
        }
        Ok(largest)
    }
}

/// The first record at or after `from` with at least this timestamp.
fn first_record(
    header: &Header,
    body: &Bytes,
    from: Offset,
    timestamp_ms: WallMs,
) -> Result<Option<(Offset, WallMs)>, BatchError> {
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Ok(Some((header.base_offset.max(from), header.max_timestamp)));
    }
    for record in batch::records(header, body, DECOMPRESSED_BYTES_MAX)? {
        let record = record?;
        if record.offset >= from && record.timestamp >= timestamp_ms {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}
