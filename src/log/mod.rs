//! One partition's log: batches in, offsets out, in Kafka's own files. It runs on the shard that
//! owns the partition and sees its directory only through [`Dir`], page cache only: it never waits
//! for the device while it runs. Appends are queued in memory and written once per turn; syncing
//! is asked for ([`Log::sync_plan`]) and reported back ([`Log::on_synced`]) by the shell.
//!
//! Invariant: log start offset <= high watermark <= log end offset, durable offset <= written
//! offset, and the high watermark never moves back.

mod append;
mod checkpoint;
mod config;
mod epochs;
mod error;
mod files;
mod index;
mod inspect;
mod lookup;
mod producers;
mod read;
mod recovery;
mod retention;
mod segment;
mod snapshot;
mod walk;
mod watermarks;

#[cfg(test)]
pub mod test_dir;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::{AppendError, OpenError, ReadError};
pub use files::FAILED_FILE;

use crate::base::dir::{Dir, is_out_of_room};
use crate::base::marks::{self, Mark};
use crate::base::planted::{self, Bug};
use crate::base::{Epoch, Mono, Now, Offset, TopicId, WallMs};
use append::Queued;
use checkpoint::Checkpoint;
use epochs::Epochs;
use files::{
    EPOCHS_FILE, INDEX_SUFFIX, METADATA_FILE, SNAPSHOT_SUFFIX, TIME_INDEX_SUFFIX, file_name,
    put_file,
};
use index::Index;
use producers::Producers;
use segment::Segment;
use std::collections::VecDeque;
use std::io;
use watermarks::{Place, Watermarks};

/// What the caller knows when it opens a log.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// The time.
    pub now: Now,
    /// The data directory's last stop was clean: every log was closed by [`Log::close`]. After any
    /// other, the caller has synced the whole data directory since.
    pub clean: bool,
    /// The epoch of this leadership; the log goes on with the largest it knows, if that is larger.
    pub leader_epoch: Epoch,
    /// Whose log this is.
    pub topic_id: TopicId,
}

/// What opening a log did. Summed up over many logs by the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments found or created.
    pub segments: u64,
    /// Bytes of batches read with their CRC.
    pub bytes_scanned: u64,
    /// Bytes of a torn tail that were cut off.
    pub bytes_truncated: u64,
    /// What was put right or ignored, one sentence each.
    pub repairs: Vec<String>,
}

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A producer: the batch is validated in full.
    Client {
        /// acks=all: the batch becomes visible only when it is durable.
        durable: bool,
    },
    /// A coordinator of this broker: trusted bytes, durable as acks=all, also with
    /// `write.caching`.
    Coordinator,
}

/// A batch that is in the log, or was already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset after the last record.
    pub offset_end: Offset,
    /// The time of the append with `message.timestamp.type=LogAppendTime`, else -1.
    pub log_append_time_ms: WallMs,
    /// First offset of the log.
    pub log_start_offset: Offset,
    /// One of the producer's last five batches, sent again; the offsets are the original ones.
    pub duplicate: bool,
    /// To be answered when the log is durable up to `offset_end`, which for a duplicate may be
    /// later than that it is visible: asked for by acks=all without `write.caching`, and with any
    /// acks while the disk does not keep up (`max.unsynced.bytes.per.partition`).
    pub awaited: bool,
}

/// One round of syncing, to be reported by [`Log::on_synced`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncPlan {
    /// Files with unsynced data, oldest first. All must be synced.
    pub files: Vec<String>,
    /// The names of the files, and the directory's own, must be synced too.
    pub names: bool,
    /// End of what is durable after that.
    pub offset_end: Offset,
}

/// Whole batches of one segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The segment's file name.
    pub file: String,
    /// First byte.
    pub position: u64,
    /// Number of bytes.
    pub length: u64,
}

/// What retention did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Segments removed.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Producers forgotten.
    pub producers: u64,
}

/// A producer's state, as DescribeProducers (KIP-664) shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerInfo {
    /// Its id.
    pub producer_id: i64,
    /// Its newest epoch.
    pub producer_epoch: i16,
    /// Sequence of its last record; -1 if unknown.
    pub last_sequence: i32,
    /// Timestamp of its last batch; -1 if unknown.
    pub last_timestamp: i64,
    /// Epoch of the transaction coordinator; -1 if there was none.
    pub coordinator_epoch: i32,
    /// First offset of its ongoing transaction; -1 if there is none.
    pub txn_offset_first: Offset,
}

/// Bytes of synced batches after which the recovery point moves, also within a segment: at most so
/// much more than the unsynced tail is read after an unclean stop.
const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;

/// How much of a new log is in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Nothing: no batch was written yet.
    Absent,
    /// Its first files; their names are not durable.
    Created,
    /// All of it.
    Durable,
}

/// The log of one partition. It takes no place on the disk until a batch is written.
#[derive(Debug)]
pub struct Log {
    config: Config,
    topic_id: TopicId,
    presence: Presence,
    /// Oldest first; the last one is active. What is queued counts.
    segments: VecDeque<Segment>,
    /// Appended and not written.
    queue: Vec<Queued>,
    queued_bytes: u64,
    marks: Watermarks,
    producers: Producers,
    epochs: Epochs,
    /// The epochs' file holds them.
    epochs_stored: bool,
    leader_epoch: Epoch,
    /// What the checkpoint file holds; without a file, what follows from that.
    checkpoint: Checkpoint,
    /// Bytes that were synced since the recovery point moved.
    checkpoint_lag_bytes: u64,
    /// Where the log ended when [`Log::close`] left everything in place, if nothing has changed.
    closed_at: Option<Offset>,
    /// There is a checkpoint file.
    checkpoint_stored: bool,
    /// Base offset of the first segment with files that may not be durable.
    unsynced_base: Offset,
    /// Where recent reads ended, and so where the next ones begin; newest last.
    recent: VecDeque<Place>,
    poisoned: Option<String>,
    /// The last write found no room; its error.
    stalled: Option<String>,
}

/// Makes the next opening of the log in `dir` read what the device has, and not what the page cache
/// believes it has. As good as a failing disk allows: errors are not told.
pub fn mark_failed(dir: &mut dyn Dir, why: &str) {
    let files = dir.list().unwrap_or_default();
    if files.is_empty() {
        return;
    }
    let _ = put_file(dir, FAILED_FILE, why.as_bytes());
    for (name, _) in files {
        let _ = dir.drop_cached(&name);
    }
}

impl Log {
    /// What to sync to make all durable that is written; `None` if it is.
    pub fn sync_plan(&self) -> Option<SyncPlan> {
        let offset_end = self.marks.written().offset;
        if self.marks.durable() == offset_end || self.poisoned.is_some() {
            return None;
        }
        let names = self.presence == Presence::Created;
        let mut files = Vec::new();
        if names {
            files.extend([METADATA_FILE, EPOCHS_FILE].map(str::to_owned));
        }
        let written_base = self.marks.written().base_offset;
        for segment in &self.segments {
            let base_offset = segment.base_offset;
            if base_offset < self.unsynced_base || base_offset > written_base {
                continue;
            }
            files.push(segment.file.clone());
            if base_offset < written_base {
                marks::hit(Mark::SyncOfSeveralFiles);
                // The recovery point will pass this segment: its derived files must not be lost.
                // A full disk may have cost it its indexes already.
                if matches!(segment.index, Index::File(_)) {
                    files.push(file_name(base_offset, INDEX_SUFFIX));
                    files.push(file_name(base_offset, TIME_INDEX_SUFFIX));
                }
                files.push(file_name(segment.offset_end, SNAPSHOT_SUFFIX));
            }
        }
        Some(SyncPlan {
            files,
            names,
            offset_end,
        })
    }

    /// All of a [`SyncPlan`] is synced: moves durable offset and high watermark. If that completes
    /// closed segments, or much was synced, the recovery point moves too and this waits for the
    /// device. Does nothing in a poisoned log.
    ///
    /// After an error the caller must [`Log::on_failed`] the log.
    pub fn on_synced(&mut self, dir: &mut dyn Dir, offset_end: Offset) -> io::Result<()> {
        if self.poisoned.is_some() {
            return Ok(());
        }
        let unsynced_bytes = self.marks.unsynced_bytes();
        self.marks.on_synced(offset_end);
        self.checkpoint_lag_bytes += unsynced_bytes - self.marks.unsynced_bytes();
        self.presence = Presence::Durable;
        // A plan that reaches into a segment was made after the roll that began it, so it had all
        // files of the segments before.
        let base_offset = self.segments[self.segment_of(offset_end - 1)].base_offset;
        let rolled = base_offset > self.unsynced_base;
        if rolled {
            self.unsynced_base = base_offset;
        }
        if rolled || self.checkpoint_lag_bytes >= CHECKPOINT_BYTES {
            let durable = match planted::is(Bug::RecoveryPointAhead) {
                true => self.marks.written().offset,
                false => self.marks.durable(),
            };
            marks::hit(Mark::RecoveryPointMoved);
            self.move_recovery_point(dir, durable)?;
        }
        Ok(())
    }

    /// A write or a sync has failed. After a failed sync the kernel takes what it could not write
    /// for written: it would go on serving it from the page cache, also to the next process. So
    /// that is dropped, and a mark is left for the next opening, which drops it once more and
    /// reads what the device really has. Then the log is offline, see [`Log::poison`].
    ///
    /// The mark need not be durable: a page cache does not outlive the machine either.
    pub fn on_failed(&mut self, dir: &mut dyn Dir, why: String) {
        mark_failed(dir, &why);
        self.poison(why);
    }

    /// Takes the log offline after a failed write or sync, which must never be tried again. From
    /// now on every append and read fails with `KAFKA_STORAGE_ERROR`. The first reason stays.
    pub fn poison(&mut self, why: String) {
        self.queue.clear();
        self.stalled = None;
        self.poisoned.get_or_insert(why);
    }

    /// Why the log is offline, if it is.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Why the log cannot grow at the moment, if it cannot: the disk is full. What is queued is
    /// written by the first [`Log::write_queued`] that finds room; until then clients' appends are
    /// refused. Everything else goes on.
    pub fn stalled(&self) -> Option<&str> {
        self.stalled.as_deref()
    }

    /// End of what is written, as opposed to queued.
    pub fn written_offset(&self) -> Offset {
        self.marks.written().offset
    }

    /// The settings in use.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes the settings, for everything appended from now on. With `write_caching` what waits
    /// for a sync stops waiting.
    pub fn set_config(&mut self, config: Config) {
        if config.write_caching {
            self.marks.forget_awaited();
        }
        self.config = config;
    }

    /// First offset that can be read.
    pub fn log_start_offset(&self) -> Offset {
        self.checkpoint.log_start_offset
    }

    /// Offset of the next record, including what is queued.
    pub fn log_end_offset(&self) -> Offset {
        self.active().offset_end
    }

    /// End of what is on stable storage.
    pub fn durable_offset(&self) -> Offset {
        self.marks.durable()
    }

    /// End of what consumers may see.
    pub fn high_watermark(&self) -> Offset {
        self.marks.high().offset
    }

    /// End of what `read_committed` consumers may see: the high watermark, there are no
    /// transactions.
    pub fn last_stable_offset(&self) -> Offset {
        self.high_watermark()
    }

    /// Epoch that new batches get.
    pub fn leader_epoch(&self) -> Epoch {
        self.leader_epoch
    }

    /// Bytes of all segments, without what is queued.
    pub fn size_bytes(&self) -> u64 {
        let all: u64 = self.segments.iter().map(|segment| segment.size_bytes).sum();
        all - self.queued_bytes
    }

    /// Bytes written and not yet durable.
    pub fn unsynced_bytes(&self) -> u64 {
        self.marks.unsynced_bytes()
    }

    /// When the oldest of them were written.
    pub fn unsynced_since(&self) -> Option<Mono> {
        self.marks.unsynced_since()
    }

    /// The largest epoch that is not above `epoch`, and its end offset (KIP-320); (-1, -1) if
    /// unknown.
    pub fn end_offset_for_epoch(&self, epoch: Epoch) -> (Epoch, Offset) {
        self.epochs.end_offset(epoch, self.log_end_offset())
    }

    /// The leader epoch of a record, -1 if unknown.
    pub fn epoch_at(&self, offset: Offset) -> Epoch {
        self.epochs.epoch_at(offset)
    }

    /// The known producers, by id.
    pub fn producers(&self) -> impl Iterator<Item = ProducerInfo> {
        self.producers.infos()
    }

    /// Clean stop: writes everything, with indexes and producer snapshot; nothing if nothing has
    /// changed since the last one. The stop is clean once the caller has synced the whole data
    /// directory, for all logs at once. A poisoned log is left as it is, and is no clean stop.
    pub fn close(&mut self, dir: &mut dyn Dir, now: Now) -> io::Result<()> {
        if let Some(why) = &self.poisoned {
            return Err(io::Error::other(format!("the log is offline: {why}")));
        }
        self.write_queued(dir, now)?;
        let end = self.log_end_offset();
        if self.presence == Presence::Absent || self.closed_at == Some(end) {
            return Ok(());
        }
        let active = self.active_mut();
        active.release(dir)?;
        active.store_index(dir)?;
        // Its name tells the next opening where the log ended.
        let name = file_name(end, SNAPSHOT_SUFFIX);
        put_file(dir, &name, &snapshot::encode(&self.producers))?;
        self.closed_at = Some(end);
        Ok(())
    }

    /// Moves the recovery point forward, if the disk has room for the file that says so: the old
    /// one holds as well, only the next recovery reads more. Waits for the device.
    fn move_recovery_point(&mut self, dir: &mut dyn Dir, durable: Offset) -> io::Result<()> {
        let before = self.checkpoint.recovery_point;
        self.checkpoint.recovery_point = before.max(durable);
        match self.store_checkpoint(dir) {
            Err(error) if is_out_of_room(&error) => self.checkpoint.recovery_point = before,
            result => {
                result?;
                self.checkpoint_lag_bytes = 0;
            }
        }
        Ok(())
    }

    /// Puts the checkpoint's file in place; waits for the device.
    fn store_checkpoint(&mut self, dir: &mut dyn Dir) -> io::Result<()> {
        if self.presence == Presence::Created {
            // Where there is a checkpoint, the files are known to be ours.
            dir.sync(METADATA_FILE)?;
            dir.sync(EPOCHS_FILE)?;
            dir.sync_dir()?;
            self.presence = Presence::Durable;
        }
        self.checkpoint.store(dir)?;
        self.checkpoint_stored = true;
        Ok(())
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        let end = self.log_end_offset();
        assert!(self.log_start_offset() <= self.high_watermark());
        assert!(self.marks.written().offset <= end);
        assert!(self.checkpoint.recovery_point <= self.marks.durable());
        assert!(self.log_start_offset() >= self.segments[0].base_offset);
        for (at, segment) in self.segments.iter().enumerate() {
            segment.check();
            if let Some(next) = self.segments.get(at + 1) {
                assert_eq!(segment.offset_end, next.base_offset, "offsets are dense");
            }
        }
        self.marks.check();
        self.epochs.check();
        self.producers.check_invariants(end);
    }

    fn active(&self) -> &Segment {
        self.segments.back().expect("a log has an active segment")
    }

    fn active_mut(&mut self) -> &mut Segment {
        self.segments
            .back_mut()
            .expect("a log has an active segment")
    }

    /// The segment whose offsets include `offset`, the first one for what is below.
    fn segment_of(&self, offset: Offset) -> usize {
        let after = self
            .segments
            .partition_point(|segment| segment.base_offset <= offset);
        after.saturating_sub(1)
    }
}
