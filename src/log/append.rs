//! Appending: a batch is validated, gets its place in memory and is queued; the whole queue is
//! written at the end of the turn. Everything is decided when a batch is appended, also when a
//! segment is full, so that producer snapshots hold exactly what lies before them.

use super::config::DECOMPRESSED_BYTES_MAX;
use super::files::{METADATA_FILE, SNAPSHOT_SUFFIX, file_name, put_file};
use super::index::Index;
use super::segment::{RELATIVE_MAX, Segment};
use super::watermarks::Place;
use super::{AppendError, Appended, Log, Origin, Presence, snapshot};
use crate::base::dir::{Dir, is_out_of_room};
use crate::base::limits::BATCH_HEADER_BYTES;
use crate::base::marks::{self, Mark};
use crate::base::planted::{self, Bug};
use crate::base::{Now, Offset};
use crate::batch::{self, BatchError, Codec, Header, TimestampType};
use bytes::Bytes;
use smallvec::SmallVec;
use std::io::{self, IoSlice};

/// What one write writes; a few batches need no memory of their own.
type Slices<'a> = SmallVec<[IoSlice<'a>; 8]>;

/// Batches that an empty queue keeps room for.
const QUEUE_KEPT_MAX: usize = 4;

/// Bytes that coordinators may add to the queue of a log that cannot grow. Clients add nothing.
const STALLED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What the next write does, in order.
#[derive(Debug)]
pub(super) enum Queued {
    /// Writes a batch to the active segment.
    Batch {
        /// Encoded, with the batch's place in the log.
        head: [u8; BATCH_HEADER_BYTES],
        /// The records, as the client sent them.
        body: Bytes,
    },
    /// Closes the active segment and creates the next one.
    Roll {
        /// Base offset of the new segment.
        base_offset: Offset,
        /// State of the producers before that offset.
        snapshot: Vec<u8>,
    },
}

impl Log {
    /// Validates a batch, recognises what an idempotent producer sends again, assigns offsets and
    /// queues it for [`Log::write_queued`]. `batch` is kept, not copied.
    pub fn append(
        &mut self,
        now: Now,
        batch: Bytes,
        origin: Origin,
    ) -> Result<Appended, AppendError> {
        if let Some(why) = &self.poisoned {
            return Err(AppendError::Poisoned(why.clone()));
        }
        if let Some(why) = &self.stalled
            && (origin != Origin::Coordinator || !self.takes_decisions())
        {
            return Err(AppendError::Stalled(why.clone()));
        }
        let awaited = self.is_behind()
            || match origin {
                Origin::Client { durable } => durable && !self.config.write_caching,
                Origin::Coordinator => true,
            };
        let (mut header, body) = match origin {
            Origin::Client { .. } => self.validate_client(now, &batch)?,
            // No size is too large: what a coordinator has decided must get into its log, whatever
            // limits users set for clients.
            Origin::Coordinator => validate_coordinator(&batch)?,
        };
        if header.has_producer_id()
            && let Some(original) = self.producers.check(&header)?
        {
            marks::hit(Mark::DuplicateBatch);
            return Ok(Appended {
                duplicate: true,
                ..self.appended(
                    original.base_offset(),
                    original.last_offset + 1,
                    original.timestamp,
                    awaited,
                )
            });
        }
        let base_offset = self.log_end_offset();
        if base_offset.checked_add(RELATIVE_MAX + 1).is_none() {
            return Err(AppendError::OffsetsExhausted);
        }
        header.set_base_offset(base_offset);
        header.set_partition_leader_epoch(self.leader_epoch);
        if self.active().is_full_for(&self.config, &header, now) {
            self.queue_roll(now);
        }
        if awaited {
            let start = self.end();
            self.marks.on_awaited(start, header.next_offset());
        }
        let index_interval_bytes = self.config.index_interval_bytes;
        let active = self.active_mut();
        active.push(&header, index_interval_bytes);
        active.written_ms = now.wall_ms;
        self.producers.apply(&header, now.mono);
        self.producers.bound(self.config.producer_ids_max);
        self.queued_bytes += header.size_bytes() as u64;
        self.queue.push(Queued::Batch {
            head: header.encode(),
            body,
        });
        Ok(self.appended(
            base_offset,
            header.next_offset(),
            header.max_timestamp,
            awaited,
        ))
    }

    /// True if the next batch of [`Origin::Coordinator`] is taken: the log can grow, or not too
    /// much waits until it can. Asked before a machine decides, as it cannot take back what it has.
    pub fn takes_decisions(&self) -> bool {
        self.stalled.is_none() || self.queued_bytes <= STALLED_BYTES_MAX
    }

    /// Writes everything queued with one vectored write per segment, closing segments when due.
    /// Moves the high watermark over what needs no sync. True if there was something to write.
    ///
    /// After an error of a full disk ([`is_out_of_room`]) what was written before it counts, the
    /// rest stays queued, and the log is [`Log::stalled`] until a later call succeeds: nothing that
    /// was decided at an append has to be taken back. After any other error the caller must
    /// [`Log::on_failed`] the log.
    pub fn write_queued(&mut self, dir: &mut dyn Dir, now: Now) -> io::Result<bool> {
        if self.queue.is_empty() || self.poisoned.is_some() {
            return Ok(false);
        }
        let mut queue = std::mem::take(&mut self.queue);
        let mut done = 0;
        match self.write_items(dir, &queue, &mut done, now) {
            Ok(()) => {
                self.stalled = None;
                queue.clear();
                // Kept for its memory, unless a flood made it large.
                if queue.capacity() <= QUEUE_KEPT_MAX {
                    self.queue = queue;
                }
                Ok(true)
            }
            Err(error) => {
                queue.drain(..done);
                self.queue = queue;
                if is_out_of_room(&error) {
                    self.stalled = Some(error.to_string());
                    self.cut_torn_tail(dir)?;
                }
                Err(error)
            }
        }
    }

    /// Writes the queue, counting in `done` the items that are written.
    fn write_items(
        &mut self,
        dir: &mut dyn Dir,
        queue: &[Queued],
        done: &mut usize,
        now: Now,
    ) -> io::Result<()> {
        self.prepare_files(dir)?;
        while let Some(item) = queue.get(*done) {
            if let Queued::Roll {
                base_offset,
                snapshot,
            } = item
            {
                let at = self.segment_of(self.marks.written().base_offset);
                self.roll(dir, at, *base_offset, snapshot)?;
                let place = Place {
                    offset: *base_offset,
                    base_offset: *base_offset,
                    position: 0,
                };
                self.marks.on_written(place, 0, now.mono);
                *done += 1;
                continue;
            }
            let rest = &queue[*done..];
            let roll = rest.iter().position(|i| matches!(i, Queued::Roll { .. }));
            let offset_end = match roll.map(|at| &rest[at]) {
                Some(Queued::Roll { base_offset, .. }) => *base_offset,
                _ => self.log_end_offset(),
            };
            let batches = &rest[..roll.unwrap_or(rest.len())];
            self.write_batches(dir, batches, offset_end, now)?;
            *done += batches.len();
        }
        Ok(())
    }

    /// Writes batches that go to one segment and end at `offset_end`.
    fn write_batches(
        &mut self,
        dir: &mut dyn Dir,
        batches: &[Queued],
        offset_end: Offset,
        now: Now,
    ) -> io::Result<()> {
        let mut slices = Slices::new();
        for item in batches {
            if let Queued::Batch { head, body } = item {
                slices.extend([IoSlice::new(head), IoSlice::new(body)]);
            }
        }
        let bytes: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        let written = self.marks.written();
        let at = self.segment_of(written.base_offset);
        let segment = &mut self.segments[at];
        segment.reserve(dir, written.position + bytes, &self.config);
        dir.write_at(&segment.file, written.position, &slices)?;
        self.queued_bytes -= bytes;
        let place = Place {
            offset: offset_end,
            base_offset: segment.base_offset,
            position: written.position + bytes,
        };
        self.marks.on_written(place, bytes, now.mono);
        Ok(())
    }

    /// Cuts off what a failed write may have left behind, and gives back what was laid by.
    fn cut_torn_tail(&mut self, dir: &mut dyn Dir) -> io::Result<()> {
        if self.presence == Presence::Absent {
            return Ok(());
        }
        let written = self.marks.written();
        let at = self.segment_of(written.base_offset);
        let segment = &mut self.segments[at];
        segment.reserved_bytes = 0;
        dir.truncate(&segment.file, written.position)
    }

    /// Before anything is written: creates the first files of a new log, whose names and contents
    /// become durable with the first sync; puts the epochs of an old one in place.
    fn prepare_files(&mut self, dir: &mut dyn Dir) -> io::Result<()> {
        if self.presence == Presence::Absent {
            // A crash may have left some of them.
            let metadata = format!("version: 0\ntopic_id: {}", self.topic_id);
            put_file(dir, METADATA_FILE, metadata.as_bytes())?;
            self.epochs.create(dir)?;
            self.create_segment_file(dir, 0)?;
            self.presence = Presence::Created;
        } else if !self.epochs_stored {
            self.epochs.store(dir)?;
        }
        self.epochs_stored = true;
        Ok(())
    }

    /// Ends the active segment before the next batch.
    pub(super) fn queue_roll(&mut self, now: Now) {
        let base_offset = self.log_end_offset();
        self.segments
            .push_back(Segment::new(base_offset, now.wall_ms));
        self.queue.push(Queued::Roll {
            base_offset,
            snapshot: snapshot::encode(&self.producers),
        });
    }

    /// Where the next batch goes.
    pub(super) fn end(&self) -> Place {
        self.active().end()
    }

    /// Carries out a queued roll: index files of the segment that ends, the producers' snapshot,
    /// the new file. Their contents become durable with the next sync, the new name at once: no
    /// sync of a file vouches for its name. Can be done again after an error of a full disk.
    fn roll(
        &mut self,
        dir: &mut dyn Dir,
        at: usize,
        base_offset: Offset,
        snapshot: &[u8],
    ) -> io::Result<()> {
        marks::hit(Mark::SegmentRolled);
        self.closed_at = None;
        if !self.checkpoint_stored {
            // Of several segments without a checkpoint all but the last count as durable, as in a
            // directory from Kafka.
            self.store_checkpoint(dir)?;
        }
        let segment = &mut self.segments[at];
        if matches!(segment.index, Index::Memory(_)) {
            segment.close(dir)?;
        }
        if segment.offset_end <= self.checkpoint.recovery_point {
            // Recovery would believe these files, and with them older contents of the same name.
            segment.sync_index(dir)?;
        }
        put_file(dir, &file_name(base_offset, SNAPSHOT_SUFFIX), snapshot)?;
        self.create_segment_file(dir, at + 1)?;
        match planted::is(Bug::DirectorySyncSkipped) {
            true => Ok(()),
            false => dir.sync_dir(),
        }
    }

    fn create_segment_file(&self, dir: &mut dyn Dir, at: usize) -> io::Result<()> {
        match dir.create(&self.segments[at].file) {
            // From the attempt that stalled the log.
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists && self.stalled.is_some() =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// Checks a producer's batch and rewrites it as the topic's settings ask.
    fn validate_client(&self, now: Now, batch: &Bytes) -> Result<(Header, Bytes), AppendError> {
        let config = &self.config;
        let rules = config.validation_rules();
        let mut header = batch::validate(batch, &rules, now.wall_ms)?;
        let mut body = batch.slice(BATCH_HEADER_BYTES..);
        // Kafka looks at every record. We do where it needs no decompression or a rule asks for
        // it; otherwise the head's count and the CRC keep the log safe.
        if config.cleanup_compact || header.codec()? == Codec::None {
            let summary = batch::check_records(&header, &body, &rules, now.wall_ms)?;
            header = batch::with_max_timestamp(&header, &body, summary.max_timestamp);
        }
        if let Some(codec) = config.compression {
            (header, body) = batch::recompress(&header, &body, codec, DECOMPRESSED_BYTES_MAX)?;
        }
        if config.timestamp_type == TimestampType::LogAppendTime {
            header = batch::with_log_append_time(&header, &body, now.wall_ms);
        }
        self.check_size(&header)?;
        Ok((header, body))
    }

    fn check_size(&self, header: &Header) -> Result<(), AppendError> {
        let size_bytes = header.size_bytes();
        if size_bytes > self.config.message_bytes_max {
            return Err(AppendError::Batch(BatchError::TooLarge {
                size_bytes,
                size_bytes_max: self.config.message_bytes_max,
            }));
        }
        let segment_bytes = self.config.segment_bytes;
        if size_bytes as u64 > segment_bytes {
            return Err(AppendError::SegmentSize {
                size_bytes: size_bytes as u64,
                segment_bytes,
            });
        }
        Ok(())
    }

    fn appended(
        &self,
        base_offset: Offset,
        offset_end: Offset,
        timestamp: i64,
        awaited: bool,
    ) -> Appended {
        Appended {
            base_offset,
            offset_end,
            log_append_time_ms: match self.config.timestamp_type {
                TimestampType::LogAppendTime => timestamp,
                TimestampType::CreateTime => batch::NO_TIMESTAMP,
            },
            log_start_offset: self.log_start_offset(),
            duplicate: false,
            awaited,
        }
    }

    /// True if so much is written and not synced that every batch waits for its sync.
    fn is_behind(&self) -> bool {
        self.unsynced_bytes() >= self.config.unsynced_bytes_max
    }
}

/// A batch that this broker built itself; only its form is looked at.
fn validate_coordinator(batch: &Bytes) -> Result<(Header, Bytes), BatchError> {
    let header = Header::parse(batch)?;
    if header.size_bytes() != batch.len() {
        return Err(BatchError::Torn {
            need: header.size_bytes(),
            have: batch.len(),
        });
    }
    Ok((header, batch.slice(BATCH_HEADER_BYTES..)))
}
