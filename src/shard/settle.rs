//! The end of a turn. The order is fixed, because each step makes the next one true:
//!
//! 1. write: every log with queued batches, one vectored write each
//! 2. release: answers whose offset is durable; long polls that can see more
//! 3. sync: one round under way per log, where somebody still waits or it is due (group commit);
//!    only partitions that something happened to are looked at
//! 4. publish: a new catalog, once its records are durable
//! 5. reply: start what waited for its turn or for memory, send what is ready, receive again
//! 6. mail: hand over to other shards, one ring each at most

use super::event::Purpose;
use super::mail::Mail;
use super::{Life, Shard};
use crate::api::Reply;
use crate::api::controller::{Controller, METADATA};
use crate::api::job::After;
use crate::base::dir::{Dir, File, is_out_of_room};
use crate::base::marks::{self, Mark};
use crate::base::planted::{self, Bug};
use crate::base::{ConnectionId, FetchPath, Few, Mono, Offset, PartitionKey};
use crate::io::{Chunk, Io, Op};
use crate::log::SyncPlan;
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::time::Duration;
use tracing::warn;

/// Answers up to this size are copied instead of sent with sendfile: below it two more system
/// calls cost more than the copy. Both cost the same at twice this size (`loadgen zero-copy
/// --batch-bytes 16KiB --fetch-bytes 16KiB`).
const COPY_BYTES_MAX: u64 = 8 * 1024;

/// Bytes of one answer that are copied so: many small pieces take memory that nobody counted.
const COPIED_BYTES_MAX: u64 = 1024 * 1024;

/// How often logs with unsynced data are looked at.
const FLUSH_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Unsynced bytes that start a sync though nobody waits for it, so that the kernel never has to
/// write back a flood at once.
const UNSYNCED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A sync that takes longer is told.
const SLOW_SYNC: Duration = Duration::from_secs(10);

/// A round of syncs of one log.
#[derive(Debug)]
pub struct Syncing {
    /// Number of the round; every file's completion carries it.
    round: u64,
    since: Mono,
    /// The log has said that it takes long.
    told: bool,
    /// Names of the files, for the error.
    files: Vec<String>,
    files_missing: usize,
    /// What is durable afterwards.
    offset_end: Offset,
    failed: Option<io::Error>,
}

impl<I: Io> Shard<I> {
    /// Asserts that a round of syncs is known by its partition and by its number, or not at all.
    pub fn check(&self) {
        let rounds = self.syncing.iter();
        let rounds = rounds.map(|(key, syncing)| (syncing.round, *key));
        assert_eq!(rounds.collect::<BTreeMap<_, _>>(), self.rounds);
    }

    /// Puts everything in order before the next wait.
    pub(super) fn settle(&mut self) {
        for (key, error) in std::mem::take(&mut self.state.broken) {
            self.fail_partition(key, &error);
        }
        if planted::is(Bug::AckBeforeWrite) {
            self.drain_outbox();
            self.reply();
        }
        self.write();
        self.release();
        self.sync();
        self.publish_durable();
        self.reply();
        self.mailbox.flush();
        self.settings.stats.mail_out.set(self.mailbox.sent());
    }

    fn write(&mut self) {
        while let Some(key) = self.state.queued.pop_first() {
            let now = self.state.now;
            let Some(partition) = self.state.partitions.get_mut(&key) else {
                continue;
            };
            match partition.log.write_queued(partition.dir.as_mut(), now) {
                Ok(_) => {
                    self.unsynced.insert(key);
                    self.advanced.insert(key);
                    if self.waiting.wants_acknowledged(key) {
                        self.sync_due.insert(key);
                    }
                    self.end_stall(key);
                }
                Err(error) => {
                    marks::hit(Mark::WriteFailed);
                    self.on_write_failed(key, &error);
                    continue;
                }
            }
            for (to, answer) in self.waiting.take_written(key) {
                self.deliver(to, answer);
            }
        }
    }

    fn sync(&mut self) {
        let now = self.state.now.mono;
        let flush_due = self.flush_at <= now;
        if flush_due {
            self.flush_at = now + FLUSH_CHECK_INTERVAL;
            self.count_unsynced();
            self.tell_slow_syncs();
            self.sync_lacks_files &= !self.sync_put_off.is_empty();
            self.sync_due.append(&mut self.sync_put_off);
            let due = self.unsynced.iter().filter(|key| self.is_flush_due(**key));
            let due: Vec<_> = due.copied().collect();
            self.sync_due.extend(due);
        }
        if self.wants_durable_image() && self.unsynced.contains(&METADATA) {
            self.sync_due.insert(METADATA);
        }
        while self.syncing.len() < self.settings.syncs_max
            && let Some(key) = self.take_sync_due()
        {
            // A round under way is followed by another one, if somebody still waits then.
            if self.syncing.contains_key(&key) {
                marks::hit(Mark::SyncUnderWay);
            }
            if self.syncing.contains_key(&key) || !self.unsynced.contains(&key) {
                continue;
            }
            let asked = self.waiting.wants_acknowledged(key) || key == METADATA;
            if asked || self.is_flush_due(key) {
                self.start_sync(key);
            }
        }
    }

    fn count_unsynced(&self) {
        let partitions = self.unsynced.iter();
        let partitions = partitions.filter_map(|key| self.state.partitions.get(key));
        let (mut bytes, mut oldest) = (0, self.state.now.mono);
        for partition in partitions {
            bytes += partition.log.unsynced_bytes();
            oldest = oldest.min(partition.log.unsynced_since().unwrap_or(oldest));
        }
        let age = self.state.now.mono.since(oldest);
        self.settings.stats.unsynced_bytes.set(bytes);
        self.settings.stats.unsynced_ms.set(age.as_millis() as u64);
    }

    fn tell_slow_syncs(&mut self) {
        let now = self.state.now.mono;
        for (key, syncing) in &mut self.syncing {
            if !syncing.told && now.since(syncing.since) >= SLOW_SYNC {
                syncing.told = true;
                let topic = self.state.partitions.get(key).map(|p| &p.topic.name);
                let files = syncing.files.join(", ");
                warn!(
                    topic,
                    partition = key.partition,
                    files,
                    seconds = SLOW_SYNC.as_secs(),
                    "the disk is slow: a sync has not ended for long"
                );
            }
        }
    }

    /// The next partition in turn, so that none is passed over for ever.
    fn take_sync_due(&mut self) -> Option<PartitionKey> {
        let after = (Bound::Excluded(self.synced_last), Bound::Unbounded);
        let next = self.sync_due.range(after).next();
        let key = next.or(self.sync_due.first()).copied()?;
        self.sync_due.remove(&key);
        self.synced_last = key;
        Some(key)
    }

    /// Answers about topics wait for an image, not for an offset of the catalog's log.
    fn wants_durable_image(&self) -> bool {
        let controller = self.state.controller.as_ref();
        controller.is_some_and(Controller::wants_durable)
    }

    fn is_flush_due(&self, key: PartitionKey) -> bool {
        let Some(partition) = self.state.partitions.get(&key) else {
            return false;
        };
        let log = &partition.log;
        let age = log
            .unsynced_since()
            .map_or(Duration::ZERO, |s| self.state.now.mono.since(s));
        log.unsynced_bytes() >= UNSYNCED_BYTES_MAX || age >= partition.flush_interval()
    }

    /// Starts a round of syncs, or finds that there is nothing left to sync.
    fn start_sync(&mut self, key: PartitionKey) {
        let round = self.next_id();
        let Some(partition) = self.state.partitions.get_mut(&key) else {
            return;
        };
        let Some(plan) = partition.log.sync_plan() else {
            self.unsynced.remove(&key);
            return;
        };
        let files = match planted::is(Bug::SyncSkipped) {
            true => Ok(Vec::new()),
            false => sync_files(partition.dir.as_mut(), &plan),
        };
        let files = match files {
            Err(error) if is_out_of_room(&error) => return self.put_off_sync(key, &error),
            files => files,
        };
        let mut syncing = Syncing {
            round,
            since: self.state.now.mono,
            told: false,
            files: Vec::new(),
            files_missing: 0,
            offset_end: plan.offset_end,
            failed: None,
        };
        match files {
            Ok(files) => {
                syncing.files_missing = files.len();
                for file in files {
                    self.settings.stats.syncs.add(1);
                    self.io
                        .submit(Purpose::Sync(round).token(), Op::Sync { file });
                }
            }
            Err(error) => syncing.failed = Some(error),
        }
        syncing.files = plan.files;
        self.rounds.insert(round, key);
        self.syncing.insert(key, syncing);
        self.finish_sync(key);
    }

    /// There is no descriptor for what a round needs: nothing is synced yet, and it is due again
    /// with the next look at what is unsynced.
    fn put_off_sync(&mut self, key: PartitionKey, error: &io::Error) {
        self.sync_put_off.insert(key);
        if !std::mem::replace(&mut self.sync_lacks_files, true) {
            warn!(%error, "syncs wait until files can be opened again");
        }
    }

    /// One file of a round is synced.
    pub(super) fn on_synced(&mut self, round: u64, result: io::Result<()>) {
        // The partition may be gone since the round began, or the round have failed already.
        let Some(&key) = self.rounds.get(&round) else {
            return;
        };
        let Some(syncing) = self.syncing.get_mut(&key) else {
            return;
        };
        syncing.files_missing -= 1;
        if let Err(error) = result {
            marks::hit(Mark::SyncFailed);
            let files = syncing.files.join(", ");
            let error = io::Error::other(format!("sync {files}: {error}"));
            syncing.failed.get_or_insert(error);
        }
        self.finish_sync(key);
    }

    fn finish_sync(&mut self, key: PartitionKey) {
        // A failure counts at once: what was written of the log is in the page cache only, and if
        // the process ended before it has said so, the next one would take it for stored.
        let under_way = |s: &Syncing| s.files_missing > 0 && s.failed.is_none();
        if self.syncing.get(&key).is_none_or(under_way) {
            return;
        }
        let Some(syncing) = self.end_round(key) else {
            return;
        };
        let took = self.state.now.mono.since(syncing.since);
        self.settings.stats.on_sync(took);
        let Some(partition) = self.state.partitions.get_mut(&key) else {
            return;
        };
        let synced = match syncing.failed {
            Some(error) => Err(error),
            None => partition
                .log
                .on_synced(partition.dir.as_mut(), syncing.offset_end),
        };
        match synced {
            Ok(()) => {
                if partition.log.unsynced_bytes() == 0 {
                    self.unsynced.remove(&key);
                } else {
                    self.sync_due.insert(key);
                }
                self.advanced.insert(key);
            }
            Err(_) if planted::is(Bug::SyncRetried) => {
                self.sync_due.insert(key);
            }
            // A second try could succeed without the data being there: the kernel may have
            // dropped the pages that it could not write.
            Err(error) => self.fail_partition(key, &error),
        }
    }

    /// Forgets the round under way of a log; what of it still ends is not heard any more.
    pub(super) fn end_round(&mut self, key: PartitionKey) -> Option<Syncing> {
        let syncing = self.syncing.remove(&key)?;
        self.rounds.remove(&syncing.round);
        Some(syncing)
    }

    fn release(&mut self) {
        while let Some(key) = self.advanced.pop_first() {
            let now = self.state.now.mono;
            let Some(partition) = self.state.partitions.get_mut(&key) else {
                continue;
            };
            let visible = partition.log.high_watermark();
            // What acks=1 has written is visible at once; sent again with acks=all it must wait.
            let durable = partition.log.durable_offset();
            if partition.visible != visible {
                partition.visible = visible;
                for watcher in std::mem::take(&mut partition.watchers) {
                    if watcher.until > now {
                        self.wake(watcher);
                    }
                }
            }
            let acknowledged = self.waiting.take_acknowledged(key, durable);
            self.settings
                .stats
                .acknowledged
                .add(acknowledged.len() as u64);
            for (to, answer) in acknowledged {
                self.deliver(to, answer);
            }
        }
        self.drain_outbox();
    }

    pub(super) fn wake(&mut self, watcher: crate::state::Watcher) {
        match watcher.shard == self.state.shard {
            true => self.on_wake(watcher.call),
            false => self
                .mailbox
                .send(watcher.shard, Mail::Wake { call: watcher.call }),
        }
    }

    fn publish_durable(&mut self) {
        let Some(controller) = &mut self.state.controller else {
            return;
        };
        let durable = self.state.partitions.get(&METADATA);
        let durable = durable.map_or(0, |partition| partition.log.durable_offset());
        if let Some(publication) = controller.take_durable(durable) {
            self.publish(publication);
        }
    }

    fn reply(&mut self) {
        self.ask_held();
        while let Some(id) = self.touched.pop_first().or_else(|| self.grant_next()) {
            self.start_frames(id);
            self.drain_outbox();
            self.advance(id);
        }
        let stats = &self.settings.stats;
        stats.request_bytes.set(self.budget.used() as u64);
        stats.connections_waiting.set(self.budget.waiting() as u64);
        if self.life == Life::Draining && self.connections.is_empty() {
            self.life = Life::Drained;
        }
    }

    /// The next connection that has waited for memory and can have it.
    fn grant_next(&mut self) -> Option<ConnectionId> {
        while let Some(id) = self.budget.first() {
            let connection = self.connections.get_mut(&id);
            let Some(connection) = connection.filter(|found| found.account.waits()) else {
                self.budget.drop_first();
                continue;
            };
            if !self.budget.grant(&mut connection.account) {
                return None;
            }
            connection.on_granted(self.state.now.mono);
            return Some(id);
        }
        None
    }

    /// Gives every answer that may be given, and parks the others.
    pub(super) fn drain_outbox(&mut self) {
        while !self.state.outbox.is_empty() {
            let mut outbox = std::mem::replace(
                &mut self.state.outbox,
                std::mem::take(&mut self.spare_outbox),
            );
            for outgoing in outbox.drain(..) {
                let (to, answer) = (outgoing.to, outgoing.answer);
                match outgoing.after {
                    After::Now => self.deliver(to, answer),
                    After::Written(key, _) => self.waiting.until_written(key, to, answer),
                    After::Acknowledged(key, offset_end) => {
                        self.advanced.insert(key);
                        self.sync_due.insert(key);
                        self.waiting.until_acknowledged(key, offset_end, to, answer);
                    }
                    After::Published(version) => self.waiting.until_published(version, to, answer),
                }
            }
            self.spare_outbox = outbox;
        }
    }

    /// A reply as what goes to the socket: small records are copied, large ones stay in the page
    /// cache.
    pub(super) fn chunks(&mut self, reply: Reply) -> io::Result<Few<Chunk>> {
        let Reply { head, extents } = reply;
        let mut rest = head.bytes;
        let mut chunks = Few::with_capacity(2 * head.gaps.len() + 1);
        let mut bytes = BytesMut::new();
        let (mut position, mut copied_bytes) = (0, 0);
        let path = self.state.broker.fetch_path;
        for gap in &head.gaps {
            let before = rest.split_to(gap.position - position);
            position = gap.position;
            match bytes.is_empty() {
                true => bytes = before,
                false => bytes.extend_from_slice(&before),
            }
            let extent = extents[gap.tag as usize].clone();
            let tiny = extent.length <= COPY_BYTES_MAX
                && copied_bytes < COPIED_BYTES_MAX
                && path == FetchPath::Auto;
            let copied = tiny && self.io.read(&extent, &mut bytes)?;
            if tiny && !copied {
                marks::hit(Mark::ColdRead);
            }
            if copied {
                copied_bytes += extent.length;
            } else {
                chunks.push(Chunk::Bytes(bytes.split().freeze()));
                chunks.push(Chunk::Extent(extent));
            }
        }
        match bytes.is_empty() {
            true => bytes = rest,
            false => bytes.extend_from_slice(&rest),
        }
        if !bytes.is_empty() {
            chunks.push(Chunk::Bytes(bytes.freeze()));
        }
        Ok(chunks)
    }
}

/// Everything that a round has to sync.
fn sync_files(dir: &mut dyn Dir, plan: &SyncPlan) -> io::Result<Vec<File>> {
    let files = plan.files.iter().map(|name| dir.open(name));
    let mut files = files.collect::<io::Result<Vec<_>>>()?;
    if plan.names && !planted::is(Bug::DirectorySyncSkipped) {
        files.extend(dir.names()?);
    }
    Ok(files)
}
