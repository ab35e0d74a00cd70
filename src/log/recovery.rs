//! Opening a log. After a clean stop the files are believed as far as a quick look supports them.
//! After any other, everything from the recovery point on is read with its CRC; the caller has
//! synced the whole data directory before, so that no decision rests on data that was never
//! durable. Nothing is written that the next opening would find out again: opening is quick also
//! for thousands of partitions.
//!
//! A log that is refused stays as it is, and its partition offline: the others serve, the broker's
//! log says why, and clients hear `KAFKA_STORAGE_ERROR`. Nothing that may be somebody's records is
//! ever deleted.
//!
//! Offsets are dense, also with `cleanup.policy=compact`: nothing compacts yet, so a gap is a loss.
//! A directory that Kafka has compacted is refused.
//!
//! What is found decides (each row has a test of this name in `tests/recovery.rs`):
//!
//! | found | done |
//! |---|---|
//! | `empty_directory` | nothing: files come with the first write |
//! | `interrupted_creation` | the same, whichever of the first files are there |
//! | `files_of_an_earlier_topic` | refused, to be set aside |
//! | `files_without_an_owner` | without a checkpoint nothing was ever durable: refused, to be set aside; else refused: damaged |
//! | `read_only_files` | refused: nothing can be put right |
//! | `clean_stop` | nothing is read but heads at the end of each segment, nothing written |
//! | `clean_stop_with_an_unexpected_end` | treated as an unclean stop |
//! | `clean_stop_below_the_recovery_point` | the same, and so refused: durable data is missing |
//! | `recovery_point_within_a_segment` | below it only heads are read |
//! | `torn_tail`, `zeroed_tail`, `garbage_tail` | cut after the last whole batch |
//! | `torn_tail_below_later_segments` | cut, later segments removed: they were never durable |
//! | `short_segment_beyond_the_recovery_point` | the same: its end was lost |
//! | `damage_below_the_recovery_point` | refused: durable data is damaged |
//! | `end_below_the_recovery_point` | refused: durable data is missing |
//! | `empty_segment` | the last one is the active one; else refused: its records are missing |
//! | `missing_middle_segment` | refused |
//! | `missing_first_segment` | refused |
//! | `missing_all_segments` | refused |
//! | `overlapping_segments` | refused: which one counts is unclear |
//! | `start_beyond_the_end` | log starts anew at the log start offset: what was deleted is gone |
//! | `segments_below_the_start` | removed, as retention would |
//! | `leftover_files` | removed |
//! | `orphaned_index` | removed |
//! | `swapped_segment` | refused: Kafka's compaction must finish first |
//! | `foreign_files` | ignored, with a note |
//! | `missing_index`, `short_index`, `damaged_index`, `index_older_than_the_log` | rebuilt from the batches |
//! | `index_newer_than_the_log` | not believed; written anew when its segment is closed |
//! | `damaged_snapshot` | removed; producers come from an older one and the batches behind it |
//! | `stray_snapshots` | removed |
//! | `missing_epochs` | rebuilt from the batches |
//! | `damaged_checkpoint` | refused |
//! | `mark_of_a_failed_sync` | the page cache is dropped first, and with it what never reached the device |
//! | `no_checkpoint` | a new log or a directory from Kafka: all is read, only the last segment may be cut |

use super::files::{
    CHECKPOINT_FILE, FAILED_FILE, FileKind, LOG_SUFFIX, METADATA_FILE, SNAPSHOT_SUFFIX, file_kind,
    file_name, put_file, read_file, read_range, remove_file, remove_segment,
};
use super::inspect::{Replay, Scan, inspect_closed, load_active, replay_segment, scan_segment};
use super::segment::Segment;
use super::watermarks::Watermarks;
use super::{
    CHECKPOINT_BYTES, Checkpoint, Config, Epochs, Log, OpenError, Opening, Presence, Producers,
    Report, snapshot,
};
use crate::base::dir::Dir;
use crate::base::marks::{self, Mark};
use crate::base::planted::{self, Bug};
use crate::base::{Offset, TopicId};
use std::collections::{BTreeMap, VecDeque};
use std::io;

/// Largest producer snapshot that is read.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// More than any file that names a topic's id.
const METADATA_BYTES_MAX: u64 = 4096;

/// An opening in progress.
struct Recovery<'a> {
    dir: &'a mut dyn Dir,
    config: &'a Config,
    opening: Opening,
    report: &'a mut Report,
    /// Sizes of all files by name.
    files: BTreeMap<String, u64>,
    /// Base offsets of the segments found.
    bases: Vec<Offset>,
    log_start_offset: Offset,
    recovery_point: Offset,
    segments: VecDeque<Segment>,
    /// Bytes read with their CRC.
    bytes_scanned: u64,
    /// After a clean stop, where the log ended then.
    left_at: Option<Offset>,
    /// It is as it was left then.
    trusted: bool,
}

impl Log {
    /// Opens the log in `dir`, or begins a new one if there is none. After an unclean stop
    /// everything beyond the recovery point is read and checked, and a torn tail is cut off.
    ///
    /// Afterwards all that is in the log is durable, and the high watermark is the log's end.
    pub fn open(
        dir: &mut dyn Dir,
        config: Config,
        opening: Opening,
        report: &mut Report,
    ) -> Result<Log, OpenError> {
        let mut files: BTreeMap<_, _> = dir.list()?.into_iter().collect();
        let failed = files.remove(FAILED_FILE).is_some();
        let opening = match failed {
            true => after_failure(dir, &files, opening, report)?,
            false => opening,
        };
        check_owner(dir, &files, opening.topic_id)?;
        let stored = Checkpoint::load(dir, &files)?;
        let mut recovery = Recovery::new(dir, &config, opening, report, files);
        recovery.take_inventory()?;
        recovery.find_bounds(stored)?;
        let presence = match recovery.bases.is_empty() && stored.is_none() {
            true => Presence::Absent,
            false => Presence::Durable,
        };
        let replay = recovery.recover(stored)?;
        recovery.remove_snapshots(|_, stray| stray)?;
        let Recovery {
            segments,
            log_start_offset,
            recovery_point,
            bytes_scanned,
            trusted,
            ..
        } = recovery;
        report.segments += segments.len() as u64;
        report.bytes_scanned += bytes_scanned;
        let active = segments.back().expect("recovery leaves an active segment");
        let end = active.end();
        let segments_behind = segments.iter().filter(|it| it.offset_end > recovery_point);
        let lag_bytes = segments_behind.map(|segment| segment.size_bytes).sum();
        let mut log = Log {
            unsynced_base: end.base_offset,
            config,
            topic_id: opening.topic_id,
            presence,
            segments,
            queue: Vec::new(),
            queued_bytes: 0,
            marks: Watermarks::new(end),
            producers: replay.producers,
            leader_epoch: opening.leader_epoch,
            epochs: replay.epochs,
            epochs_stored: false,
            checkpoint: Checkpoint {
                log_start_offset,
                recovery_point,
            },
            checkpoint_lag_bytes: lag_bytes,
            checkpoint_stored: stored.is_some(),
            closed_at: trusted.then_some(end.offset),
            recent: VecDeque::new(),
            poisoned: None,
            stalled: None,
        };
        log.begin_epoch(dir, replay.stored_epochs)?;
        if log.checkpoint_lag_bytes >= CHECKPOINT_BYTES && !trusted {
            log.move_recovery_point(dir, end.offset)?;
        }
        if failed {
            remove_file(dir, FAILED_FILE)?;
        }
        Ok(log)
    }

    /// Fits the epochs to the bounds of the log and begins that of this leadership. Its entry goes
    /// to the file before the first batch does.
    fn begin_epoch(&mut self, dir: &mut dyn Dir, stored: Option<Epochs>) -> io::Result<()> {
        let end = self.log_end_offset();
        self.epochs.truncate_end(end);
        self.epochs.truncate_start(self.log_start_offset());
        let known = self.epochs.latest().unwrap_or(0);
        self.epochs.assign(self.leader_epoch.max(known), end);
        self.leader_epoch = self.epochs.latest().unwrap_or(0);
        self.epochs_stored = stored.as_ref() == Some(&self.epochs);
        if stored.is_none() && self.presence == Presence::Durable {
            // They were read from all batches, which should not be needed again.
            self.epochs.store(dir)?;
            self.epochs_stored = true;
        }
        Ok(())
    }
}

/// Makes everything that follows read what the device has, and believe no clean stop.
fn after_failure(
    dir: &mut dyn Dir,
    files: &BTreeMap<String, u64>,
    opening: Opening,
    report: &mut Report,
) -> io::Result<Opening> {
    for name in files.keys() {
        dir.drop_cached(name)?;
    }
    let note = "a sync has failed in the last run: what never reached the device is forgotten";
    report.repairs.push(note.to_owned());
    let clean = false;
    Ok(Opening { clean, ..opening })
}

/// Refuses files that are not those of this topic.
fn check_owner(
    dir: &mut dyn Dir,
    files: &BTreeMap<String, u64>,
    topic_id: TopicId,
) -> Result<(), OpenError> {
    if files.is_empty() {
        return Ok(());
    }
    let metadata = read_file(dir, files, METADATA_FILE, METADATA_BYTES_MAX)?.unwrap_or_default();
    let text = std::str::from_utf8(&metadata).unwrap_or_default();
    let id = |line: &str| {
        line.strip_prefix("topic_id:")
            .map(|id| id.trim().to_owned())
    };
    match text.lines().find_map(id) {
        Some(id) if id == topic_id.to_string() => Ok(()),
        // 22 characters of base64; fewer were cut off.
        Some(id) if id.len() == topic_id.to_string().len() => Err(OpenError::EarlierTopic),
        _ if files.contains_key(CHECKPOINT_FILE) => Err(OpenError::Refused(format!(
            "{METADATA_FILE} is missing or damaged: it must say version: 0 and topic_id: {topic_id}"
        ))),
        _ => Err(OpenError::NeverDurable),
    }
}

impl<'a> Recovery<'a> {
    fn new(
        dir: &'a mut dyn Dir,
        config: &'a Config,
        opening: Opening,
        report: &'a mut Report,
        files: BTreeMap<String, u64>,
    ) -> Self {
        Self {
            dir,
            config,
            opening,
            report,
            files,
            bases: Vec::new(),
            log_start_offset: 0,
            recovery_point: 0,
            segments: VecDeque::new(),
            bytes_scanned: 0,
            left_at: None,
            trusted: false,
        }
    }

    /// Sorts the files by what they are; removes what an interrupted operation left.
    fn take_inventory(&mut self) -> Result<(), OpenError> {
        let mut derived = Vec::new();
        for name in self.files.keys() {
            match file_kind(name) {
                FileKind::Log(offset) => self.bases.push(offset),
                FileKind::Derived(offset) => derived.push((offset, name.clone())),
                FileKind::Snapshot(_) | FileKind::Metadata => {}
                FileKind::Leftover => {
                    self.dir.remove(name)?;
                    self.report
                        .repairs
                        .push(format!("removed leftover file {name}"));
                }
                FileKind::SwappedLog => {
                    return Err(OpenError::Refused(format!(
                        "{name} is from a compaction that was interrupted; open the directory \
                         with Kafka once, which finishes it"
                    )));
                }
                FileKind::Foreign => {
                    self.report
                        .repairs
                        .push(format!("ignored unknown file {name}"));
                }
            }
        }
        for (offset, name) in derived {
            if self.bases.binary_search(&offset).is_err() {
                self.dir.remove(&name)?;
                self.files.remove(&name);
                self.report
                    .repairs
                    .push(format!("removed {name}, whose segment is gone"));
            }
        }
        Ok(())
    }

    /// Settles log start offset and recovery point and removes what lies below the start.
    fn find_bounds(&mut self, stored: Option<Checkpoint>) -> Result<(), OpenError> {
        let Some(checkpoint) = stored else {
            self.log_start_offset = self.bases.first().copied().unwrap_or(0);
            self.recovery_point = self.bases.last().copied().unwrap_or(0);
            return Ok(());
        };
        self.log_start_offset = checkpoint.log_start_offset;
        self.recovery_point = checkpoint.recovery_point;
        let below = self
            .bases
            .partition_point(|base| *base <= self.log_start_offset)
            .saturating_sub(1);
        // Without a snapshot behind them they are still needed, to know the producers.
        if below > 0 && self.load_snapshot(self.bases[below])?.is_some() {
            self.dir
                .sync(&file_name(self.bases[below], SNAPSHOT_SUFFIX))?;
            marks::hit(Mark::SegmentsBelowStart);
            for base_offset in self.bases.drain(..below).collect::<Vec<_>>() {
                self.remove_segment(base_offset)?;
            }
        }
        let missing_end = match self.bases.first() {
            Some(first) if *first > self.log_start_offset => *first,
            None if self.recovery_point > self.log_start_offset => self.recovery_point,
            _ => return Ok(()),
        };
        Err(OpenError::Refused(format!(
            "the segments with offsets {} to {} are missing",
            self.log_start_offset,
            missing_end - 1
        )))
    }

    /// Fills `segments`; gives the state that the batches add up to.
    fn recover(&mut self, stored: Option<Checkpoint>) -> Result<Replay, OpenError> {
        let stored_epochs = Epochs::load(self.dir, &self.files)?;
        let Some(last) = self.bases.last().copied() else {
            self.trusted = stored.is_none();
            match stored {
                None => self.segments.push_back(self.first_segment()),
                Some(_) => self.start_anew()?,
            }
            return self.replay(self.log_start_offset, stored_epochs);
        };
        let believed = self.opening.clean || planted::is(Bug::IndexTrusted);
        if believed {
            self.left_at = self.snapshots().last().copied();
        }
        let active = match self.left_at {
            Some(end) => self.load_trusted_active(last, end)?,
            None => None,
        };
        let scan_from = match (&active, stored) {
            (Some(_), _) => self.bases.len() - 1,
            (None, Some(_)) => {
                let after = self
                    .bases
                    .partition_point(|base| *base <= self.recovery_point);
                after.saturating_sub(1)
            }
            (None, None) => 0,
        };
        let replay_limit = match &active {
            Some(segment) => segment.offset_end,
            None => self.bases[scan_from],
        };
        let mut replay = self.replay(replay_limit, stored_epochs)?;
        for at in 0..scan_from {
            let segment = self.inspect(at)?;
            replay_segment(self.dir, &segment, &mut replay)?;
            self.segments.push_back(segment);
        }
        match active {
            Some(segment) => {
                replay_segment(self.dir, &segment, &mut replay)?;
                self.segments.push_back(segment);
                self.trusted = true;
                marks::hit(Mark::CleanStopBelieved);
            }
            None => {
                let durable = stored.map_or(0, |checkpoint| checkpoint.recovery_point);
                self.scan_rest(scan_from, durable, &mut replay)?;
            }
        }
        Ok(replay)
    }

    /// The active segment after a clean stop, if it ends where it ended then and nothing durable
    /// lies behind.
    fn load_trusted_active(
        &mut self,
        base_offset: Offset,
        end: Offset,
    ) -> Result<Option<Segment>, OpenError> {
        let now_ms = self.opening.now.wall_ms;
        let as_left = |segment: &Segment| segment.offset_end == end && end >= self.recovery_point;
        let active = load_active(self.dir, base_offset, &self.files, self.config, now_ms)?
            .filter(|segment| as_left(segment) || planted::is(Bug::IndexTrusted));
        if active.is_none() {
            self.report.repairs.push(format!(
                "the stop was clean, but segment {base_offset} is not as it was left"
            ));
        }
        Ok(active)
    }

    /// A closed segment below the recovery point.
    fn inspect(&mut self, at: usize) -> Result<Segment, OpenError> {
        let (base_offset, next_base) = (self.bases[at], self.bases[at + 1]);
        let now_ms = self.opening.now.wall_ms;
        if let Some(segment) =
            inspect_closed(self.dir, base_offset, &self.files, self.config, now_ms)?
            && segment.offset_end == next_base
        {
            return Ok(segment);
        }
        let mut ignored = Replay::none();
        let scan = self.scan(base_offset, 0, &mut ignored)?;
        if let Some(what) = &scan.invalid {
            return Err(damaged(&scan, what, self.recovery_point));
        }
        if scan.segment.offset_end != next_base {
            return Err(not_joined(&scan, next_base));
        }
        marks::hit(Mark::IndexRebuilt);
        self.report
            .repairs
            .push(format!("rebuilt the indexes of segment {base_offset}"));
        self.close_scanned(scan.segment)
    }

    /// Reads everything from segment `at` on and cuts what was not written whole.
    fn scan_rest(
        &mut self,
        at: usize,
        durable: Offset,
        replay: &mut Replay,
    ) -> Result<(), OpenError> {
        for at in at..self.bases.len() {
            let base_offset = self.bases[at];
            if !self.segments.is_empty() {
                self.put_snapshot(base_offset, replay)?;
            }
            let scan = self.scan(base_offset, durable, replay)?;
            let end = scan.segment.offset_end;
            let next_base = self.bases.get(at + 1).copied();
            let joined = match next_base {
                None => true,
                Some(next) if end > next => return Err(not_joined(&scan, next)),
                Some(next) => end == next,
            };
            let durable_end = self.recovery_point.max(self.left_at.unwrap_or(0));
            if end < durable_end {
                if let Some(what) = &scan.invalid {
                    return Err(damaged(&scan, what, durable_end));
                }
                match next_base {
                    Some(next) if !joined => return Err(not_joined(&scan, next)),
                    Some(_) => {}
                    None => return Err(lost(end, durable_end)),
                }
            }
            if scan.invalid.is_some() || !joined || next_base.is_none() {
                return self.finish_at(at, scan, replay);
            }
            let segment = self.close_scanned(scan.segment)?;
            self.segments.push_back(segment);
        }
        Ok(())
    }

    /// Makes the scanned segment the active one: cuts its tail and what follows.
    fn finish_at(&mut self, at: usize, mut scan: Scan, replay: &Replay) -> Result<(), OpenError> {
        if planted::is(Bug::SizeTrusted) {
            scan.segment.size_bytes = scan.file_bytes;
        }
        let mut truncated = scan.file_bytes - scan.segment.size_bytes;
        let removed = self.bases.split_off(at + 1);
        for base_offset in removed.iter().rev() {
            marks::hit(Mark::SegmentNeverDurable);
            truncated += self.size_of(*base_offset);
            self.remove_segment(*base_offset)?;
            self.report.repairs.push(format!(
                "removed segment {base_offset}, which was never durable"
            ));
        }
        if !removed.is_empty() {
            // Before this one grows into the offsets of a name that could come back.
            self.dir.sync_dir()?;
        }
        let file = scan.segment.file.clone();
        if truncated > 0 {
            marks::hit(Mark::TailCut);
            self.dir.truncate(&file, scan.segment.size_bytes)?;
            self.dir.sync(&file)?;
            self.report.bytes_truncated += truncated;
            self.report.repairs.push(format!(
                "cut {truncated} bytes behind offset {} of {file}: {}",
                scan.segment.offset_end,
                scan.invalid.as_deref().unwrap_or("its end was lost"),
            ));
        }
        if scan.segment.offset_end < self.log_start_offset {
            self.segments.push_back(scan.segment);
            self.put_snapshot(self.log_start_offset, replay)?;
            self.dir.sync_dir()?;
            for segment in std::mem::take(&mut self.segments) {
                self.remove_segment(segment.base_offset)?;
            }
            return self.start_anew();
        }
        self.segments.push_back(scan.segment);
        Ok(())
    }

    /// Creates the first segment at the log start offset.
    fn start_anew(&mut self) -> Result<(), OpenError> {
        marks::hit(Mark::LogStartedAnew);
        let segment = self.first_segment();
        self.dir.create(&segment.file)?;
        self.dir.sync_dir()?;
        self.segments.push_back(segment);
        Ok(())
    }

    fn first_segment(&self) -> Segment {
        Segment::new(self.log_start_offset, self.opening.now.wall_ms)
    }

    fn remove_segment(&mut self, base_offset: Offset) -> Result<(), OpenError> {
        remove_segment(self.dir, base_offset)?;
        self.files.remove(&file_name(base_offset, SNAPSHOT_SUFFIX));
        Ok(())
    }

    /// Reads a segment; below `durable` its heads only.
    fn scan(
        &mut self,
        base_offset: Offset,
        durable: Offset,
        replay: &mut Replay,
    ) -> Result<Scan, OpenError> {
        let file_bytes = self.size_of(base_offset);
        let scan = scan_segment(
            self.dir,
            (base_offset, file_bytes),
            durable,
            self.config,
            self.opening.now.wall_ms,
            replay,
        )?;
        if scan.checked_from > 0 {
            marks::hit(Mark::HeadsBelowRecoveryPoint);
        }
        self.bytes_scanned += scan.segment.size_bytes - scan.checked_from;
        Ok(scan)
    }

    /// Stores the indexes of a scanned segment that is not active, durably.
    fn close_scanned(&mut self, mut segment: Segment) -> Result<Segment, OpenError> {
        segment.close(self.dir)?;
        segment.sync_index(self.dir)?;
        Ok(segment)
    }

    /// Stores the producers as they were before a segment, durably, so that the next recovery can
    /// begin there.
    fn put_snapshot(&mut self, base_offset: Offset, replay: &Replay) -> Result<(), OpenError> {
        let name = file_name(base_offset, SNAPSHOT_SUFFIX);
        put_file(self.dir, &name, &snapshot::encode(&replay.producers))?;
        self.dir.sync(&name)?;
        self.files.insert(name, 0);
        Ok(())
    }

    /// State to replay onto: that of the newest good snapshot not beyond `limit`, and the epochs
    /// of the file.
    fn replay(&mut self, limit: Offset, epochs: Option<Epochs>) -> Result<Replay, OpenError> {
        self.remove_snapshots(|offset, _| offset > limit)?;
        let mut loaded = None;
        for offset in self.snapshots().into_iter().rev() {
            if let Some(producers) = self.load_snapshot(offset)? {
                loaded = Some((offset, producers));
                break;
            }
            let name = file_name(offset, SNAPSHOT_SUFFIX);
            self.dir.remove(&name)?;
            self.files.remove(&name);
            marks::hit(Mark::SnapshotDamaged);
            self.report.repairs.push(format!("removed damaged {name}"));
        }
        if epochs.is_none() && !self.bases.is_empty() {
            marks::hit(Mark::EpochsRebuilt);
            let note = "rebuilt the leader epochs from the batches";
            self.report.repairs.push(note.into());
        }
        if planted::is(Bug::ProducersForgotten) {
            loaded = Some((Offset::MAX, Producers::default()));
        }
        let (producers_from, producers) = loaded.unwrap_or((0, Producers::default()));
        Ok(Replay {
            producers,
            producers_from,
            rebuild_epochs: epochs.is_none(),
            epochs: epochs.clone().unwrap_or_default(),
            stored_epochs: epochs,
            mono: self.opening.now.mono,
        })
    }

    /// The producers of a snapshot, if there is one and it is good.
    fn load_snapshot(&mut self, offset: Offset) -> Result<Option<Producers>, OpenError> {
        let name = file_name(offset, SNAPSHOT_SUFFIX);
        let Some(size) = self.files.get(&name) else {
            return Ok(None);
        };
        let contents = read_range(self.dir, &name, 0, (*size).min(SNAPSHOT_BYTES_MAX))?;
        let producers = snapshot::decode(&contents, self.opening.now.mono);
        Ok(producers.filter(|producers| producers.fit_before(offset)))
    }

    /// Removes the snapshots that the rule picks, by offset and whether they are neither at a
    /// segment's start nor at the log's end.
    fn remove_snapshots(&mut self, rule: impl Fn(Offset, bool) -> bool) -> Result<(), OpenError> {
        let end = self.segments.back().map(|segment| segment.offset_end);
        for offset in self.snapshots() {
            let at_base = self
                .segments
                .iter()
                .any(|segment| segment.base_offset == offset);
            if rule(offset, !at_base && Some(offset) != end) {
                let name = file_name(offset, SNAPSHOT_SUFFIX);
                remove_file(self.dir, &name)?;
                self.files.remove(&name);
            }
        }
        Ok(())
    }

    /// Offsets of the snapshots found, in order.
    fn snapshots(&self) -> Vec<Offset> {
        let kinds = self.files.keys().map(|name| file_kind(name));
        kinds
            .filter_map(|kind| match kind {
                FileKind::Snapshot(offset) => Some(offset),
                _ => None,
            })
            .collect()
    }

    fn size_of(&self, base_offset: Offset) -> u64 {
        let name = file_name(base_offset, LOG_SUFFIX);
        self.files.get(&name).copied().unwrap_or(0)
    }
}

fn damaged(scan: &Scan, what: &str, recovery_point: Offset) -> OpenError {
    marks::hit(Mark::DamageRefused);
    OpenError::Refused(format!(
        "{} is damaged at byte {} (offset {}), below the recovery point {recovery_point}: {what}; \
         restore the file, or delete the partition's directory to give its records up",
        scan.segment.file.clone(),
        scan.segment.size_bytes,
        scan.segment.offset_end,
    ))
}

fn lost(end: Offset, recovery_point: Offset) -> OpenError {
    OpenError::Refused(format!(
        "the log ends at offset {end}, but was durable up to {recovery_point}; restore its files, \
         or delete the partition's directory to give its records up"
    ))
}

fn not_joined(scan: &Scan, next_base: Offset) -> OpenError {
    let (file, end) = (scan.segment.file.clone(), scan.segment.offset_end);
    OpenError::Refused(if end > next_base {
        format!("{file} reaches to offset {end}, into the segment that begins at {next_base}")
    } else {
        format!(
            "the records from offset {end}, the end of {file}, to {} are missing",
            next_base - 1
        )
    })
}
