//! One partition's log: batches in, offsets out, in Kafka's own files. It runs on the shard that
//! owns the partition and sees its directory only through [`Dir`], page cache only: it never waits
//! for the device while it runs. Appends are queued in memory and written once per turn; syncing
//! is asked for ([`Log::sync_plan`]) and reported back ([`Log::on_synced`]) by the shell.
//!
//! Invariant: log start offset <= high watermark <= log end offset, durable offset <= written
//! offset, and the high watermark never moves back.

mod config;
mod error;

pub use config::Config;
pub use error::{AppendError, OpenError, ReadError};

use crate::base::dir::Dir;
use crate::base::{Epoch, Mono, Now, Offset, WallMs};
use bytes::Bytes;
use std::io;

/// What the caller knows when it opens a log.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// The time.
    pub now: Now,
    /// The data directory's last stop was clean: every log was closed by [`Log::close`].
    pub clean: bool,
    /// The epoch of this leadership; the log goes on with the largest it knows, if that is larger.
    pub leader_epoch: Epoch,
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
    /// A coordinator of this broker: trusted bytes, durable as acks=all.
    Coordinator,
}

/// A batch that is in the log, or was already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset after the last record: acks=all is answered when the high watermark reaches it.
    pub offset_end: Offset,
    /// The time of the append with `message.timestamp.type=LogAppendTime`, else -1.
    pub log_append_time_ms: WallMs,
    /// First offset of the log.
    pub log_start_offset: Offset,
    /// One of the producer's last five batches, sent again; the offsets are the original ones.
    pub duplicate: bool,
}

/// One round of syncing, to be reported by [`Log::on_synced`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncPlan {
    /// Files with unsynced data, oldest first. All must be synced.
    pub files: Vec<String>,
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

/// The log of one partition.
#[derive(Debug)]
pub struct Log {
    config: Config,
    log_start_offset: Offset,
    leader_epoch: Epoch,
    poisoned: Option<String>,
}

impl Log {
    /// Opens the log in `dir`, or creates it if there is none. After an unclean stop everything
    /// beyond the recovery point is synced, read and checked, and a torn tail is cut off.
    ///
    /// Afterwards all that is in the log is durable, and the high watermark is the log's end.
    pub fn open(
        _dir: &mut dyn Dir,
        _config: Config,
        _opening: Opening,
        _report: &mut Report,
    ) -> Result<Log, OpenError> {
        todo!()
    }

    /// Validates a batch, recognises what an idempotent producer sends again, assigns offsets and
    /// queues it for [`Log::write_queued`]. `batch` is kept, not copied.
    pub fn append(
        &mut self,
        _now: Now,
        _batch: Bytes,
        _origin: Origin,
    ) -> Result<Appended, AppendError> {
        todo!()
    }

    /// Writes everything queued with one vectored write per segment, closing segments when due.
    /// Moves the high watermark over what needs no sync. True if there was something to write.
    ///
    /// After an error the caller must [`Log::poison`] the log.
    pub fn write_queued(&mut self, _dir: &mut dyn Dir, _now: Now) -> io::Result<bool> {
        todo!()
    }

    /// What to sync to make all durable that is written; `None` if it is.
    pub fn sync_plan(&self) -> Option<SyncPlan> {
        todo!()
    }

    /// All files of a [`SyncPlan`] are synced: moves durable offset and high watermark, and the
    /// recovery point if segments were closed. Does nothing in a poisoned log.
    pub fn on_synced(&mut self, _dir: &mut dyn Dir, _offset_end: Offset) -> io::Result<()> {
        todo!()
    }

    /// Takes the log offline after a failed write or sync, which must never be tried again. From
    /// now on every append and read fails with `KAFKA_STORAGE_ERROR`. The first reason stays.
    pub fn poison(&mut self, why: String) {
        self.poisoned.get_or_insert(why);
    }

    /// Why the log is offline, if it is.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// The settings in use.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes the settings, for everything appended from now on.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// First offset that can be read.
    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// Offset of the next record, including what is queued.
    pub fn log_end_offset(&self) -> Offset {
        todo!()
    }

    /// End of what is on stable storage.
    pub fn durable_offset(&self) -> Offset {
        todo!()
    }

    /// End of what consumers may see.
    pub fn high_watermark(&self) -> Offset {
        todo!()
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
        todo!()
    }

    /// Bytes written and not yet durable.
    pub fn unsynced_bytes(&self) -> u64 {
        todo!()
    }

    /// When the oldest of them were written.
    pub fn unsynced_since(&self) -> Option<Mono> {
        todo!()
    }

    /// Whole batches from the one that contains `offset`, up to the high watermark, the end of the
    /// segment or `bytes_max`. `None` if there are none below the high watermark, or if the first
    /// is larger than `bytes_max` and `at_least_one_batch` is false. As in Kafka, an offset
    /// between high watermark and log end is no error.
    pub fn read(
        &mut self,
        _dir: &mut dyn Dir,
        _offset: Offset,
        _bytes_max: u64,
        _at_least_one_batch: bool,
    ) -> Result<Option<Extent>, ReadError> {
        todo!()
    }

    /// About how many bytes a reader at `offset` can get (`fetch.min.bytes`); exact where reading
    /// went on from there before.
    pub fn available_bytes(&self, _offset: Offset) -> u64 {
        todo!()
    }

    /// The first record with at least this timestamp, below the high watermark: offset, its
    /// timestamp, leader epoch. Decompresses one batch.
    pub fn offset_for_timestamp(
        &mut self,
        _dir: &mut dyn Dir,
        _timestamp_ms: WallMs,
    ) -> Result<Option<(Offset, WallMs, Epoch)>, ReadError> {
        todo!()
    }

    /// The first record with the largest timestamp of the log (KIP-734), as
    /// [`Log::offset_for_timestamp`] gives it.
    pub fn offset_of_max_timestamp(
        &mut self,
        _dir: &mut dyn Dir,
    ) -> Result<Option<(Offset, WallMs, Epoch)>, ReadError> {
        todo!()
    }

    /// The largest epoch that is not above `epoch`, and its end offset (KIP-320); (-1, -1) if
    /// unknown.
    pub fn end_offset_for_epoch(&self, _epoch: Epoch) -> (Epoch, Offset) {
        todo!()
    }

    /// The leader epoch of a record, -1 if unknown.
    pub fn epoch_at(&self, _offset: Offset) -> Epoch {
        todo!()
    }

    /// Moves the log start offset to `before` (-1: the high watermark) durably; never back. The
    /// files go with the next [`Log::retain`]. Gives the new low watermark.
    pub fn delete_records(
        &mut self,
        _dir: &mut dyn Dir,
        _before: Offset,
    ) -> Result<Offset, ReadError> {
        todo!()
    }

    /// Removes whole segments that are too old, too many or below the log start offset, and
    /// forgets producers that were silent for long.
    pub fn retain(&mut self, _dir: &mut dyn Dir, _now: Now) -> io::Result<Retained> {
        todo!()
    }

    /// The known producers, by id.
    pub fn producers(&self) -> impl Iterator<Item = ProducerInfo> {
        std::iter::empty()
    }

    /// Clean stop: writes and syncs everything, with indexes, producer snapshot and checkpoint.
    pub fn close(&mut self, _dir: &mut dyn Dir, _now: Now) -> io::Result<()> {
        todo!()
    }

    /// Asserts the invariants.
    pub fn check(&self) {}
}
