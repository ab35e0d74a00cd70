//! What a shard does when its disk is full or broken.
//!
//! | what happens | what follows |
//! |---|---|
//! | less is free than the reserve | producers are refused; retention runs at once and often; all else goes on |
//! | a write finds no room, or no descriptor | the log stalls: what waits for it is answered with an error, the batches stay queued and are written when there is room |
//! | a sync finds no descriptor | nothing is synced yet: it begins when there is one |
//! | a log finds no room or descriptor to be opened | it is tried again |
//! | a write or a sync fails, a sync also for want of room | never tried again: the partition is offline until the next start, the others go on |
//! | the same in a log of `__consumer_offsets` | its groups have no coordinator until then |
//! | the same in the catalog's log | the broker stops, as Kafka's does: topics could be neither made nor deleted |
//! | the sync of everything fails at the start | every log is read from the device, not from the cache |
//!
//! What the high watermark has passed was durable before (acks=all) or is promised no more than a
//! killed process (acks=1), so nothing that may be relied on is lost with a log that goes offline.

use super::directories::Kind;
use super::mail::Mail;
use super::{Life, Shard};
use crate::api::controller::METADATA;
use crate::base::dir::is_out_of_room;
use crate::base::marks::{self, Mark};
use crate::base::{Mono, PartitionKey, ShardId};
use crate::catalog::{Topic, topic_settings};
use crate::io::Io;
use crate::log::{self, OpenError, Report};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};

/// Longest time from one look for expired segments to the next while the disk is full.
const RETENTION_INTERVAL_FULL: Duration = Duration::from_secs(5);

impl<I: Io> Shard<I> {
    /// Looks at the disk if it is time to, or if much was appended since the last look.
    pub(super) fn watch_disk(&mut self) {
        let now = self.state.now.mono;
        if now < self.look_at && !self.state.room.is_used_up() {
            return;
        }
        match self.io.space() {
            Ok(space) => self.on_looked(space),
            // The writes will tell.
            Err(error) => warn!(%error, "cannot see how full the disk is"),
        }
        self.state.room.on_looked(self.state.shards);
        // There may be room again for what is queued, or not open.
        self.state.queued.extend(self.stalled.iter());
        self.open_missing();
        self.look_at = now + self.state.room.look_interval(self.lacks_room());
    }

    fn lacks_room(&self) -> bool {
        !self.stalled.is_empty() || !self.unopened.is_empty()
    }

    /// Opens what found no room before, until something finds none again.
    fn open_missing(&mut self) {
        for key in self.unopened.clone() {
            let Some(topic) = self.state.image.topic_by_id(key.topic).cloned() else {
                continue;
            };
            let settings = Arc::new(topic_settings(&self.state.image, &topic));
            self.open_or_update(key, &topic, &settings, &mut Report::default());
            if self.unopened.contains(&key) {
                return;
            }
        }
    }

    fn on_looked(&mut self, space: crate::base::Space) {
        let disk = &self.state.room.space;
        match disk.update(space, self.state.broker.disk_reserve_bytes) {
            Some(true) => warn!(
                free_bytes = disk.free_bytes(),
                reserve_bytes = disk.reserve_bytes(),
                "the disk is full: producers are refused, the rest is kept for internal topics and \
                 deletion (disk.reserve.bytes)"
            ),
            Some(false) => info!(
                free_bytes = disk.free_bytes(),
                "the disk has room again: producers are served"
            ),
            None => {}
        }
        if disk.is_full() {
            let latest = self.state.now.mono + RETENTION_INTERVAL_FULL;
            self.retain_at = self.retain_at.min(latest);
        }
    }

    /// When the disk is to be looked at even if nothing else happens.
    pub(super) fn next_look(&self) -> Option<Mono> {
        let watched = self.state.room.space.is_full() || self.lacks_room();
        watched.then_some(self.look_at)
    }

    /// Queued data could not be written, or retention not be applied.
    pub(super) fn on_write_failed(&mut self, key: PartitionKey, error: &io::Error) {
        match is_out_of_room(error) {
            true => self.stall(key, error),
            false => self.fail_partition(key, error),
        }
    }

    /// A log cannot grow: nobody waits for what it could not write, which stays queued.
    fn stall(&mut self, key: PartitionKey, error: &io::Error) {
        let Some(partition) = self.state.partitions.get(&key) else {
            return;
        };
        let Some(why) = partition.log.stalled() else {
            return;
        };
        let why = format!("the log cannot grow: {why}");
        let written = partition.log.written_offset();
        if self.stalled.insert(key) {
            warn!(topic = partition.topic.name, partition = key.partition, %error,
                "no room: what is queued is written when there is some");
        }
        for (to, answer) in self.waiting.take_unwritten(key, written) {
            self.deliver(to, answer.into_failed(Some(&why)));
        }
        if key == METADATA {
            self.give_up_publications(&why);
        }
        // A part may have been written before the room ended.
        self.unsynced.insert(key);
        self.advanced.insert(key);
        self.sync_due.insert(key);
        self.count_faults();
    }

    /// A stalled log has written what was queued.
    pub(super) fn end_stall(&mut self, key: PartitionKey) {
        if self.stalled.remove(&key) {
            marks::hit(Mark::StallEnded);
            info!(
                topic = self.state.partitions[&key].topic.name,
                partition = key.partition,
                "what found no room is written"
            );
            self.count_faults();
        }
    }

    /// A partition's log cannot be opened: again when there may be room, or at the next start.
    pub(super) fn on_open_failed(&mut self, key: PartitionKey, topic: &Topic, why: &OpenError) {
        self.closed_clean = false;
        if !matches!(why, OpenError::Io(error) if is_out_of_room(error)) {
            error!(topic = topic.name, partition = key.partition, error = %why,
                "the partition is offline: its log cannot be opened");
            self.unopened.remove(&key);
            let why = format!("the partition is offline, its log cannot be opened: {why}");
            self.set_offline(key, &why);
        } else if self.unopened.insert(key) {
            warn!(topic = topic.name, partition = key.partition, error = %why,
                "no room to open the partition's log: it is opened when there is some");
            self.count_faults();
        }
    }

    /// A partition's log is open.
    pub(super) fn end_unopened(&mut self, key: PartitionKey) {
        if self.unopened.remove(&key) {
            let topic = &self.state.partitions[&key].topic.name;
            info!(
                topic,
                partition = key.partition,
                "what found no room is open"
            );
            self.count_faults();
        }
    }

    /// Takes a partition offline: nobody waits for it any longer.
    pub(super) fn fail_partition(&mut self, key: PartitionKey, error: &io::Error) {
        let partition = self.state.partitions.get_mut(&key);
        let Some(partition) = partition.filter(|p| p.log.poisoned().is_none()) else {
            return;
        };
        error!(topic = %partition.topic.name, partition = key.partition, %error,
            "the partition is offline until the next start: its log cannot be written");
        let why = error.to_string();
        partition.log.on_failed(partition.dir.as_mut(), why.clone());
        self.unsynced.remove(&key);
        self.stalled.remove(&key);
        let why = format!("the partition is offline: {why}");
        self.set_offline(key, &why);
        // A machine whose records cannot be written decides on what never was: it ends here, and
        // comes back from its log at the next start.
        crate::api::groups::unload(&mut self.state, key);
        if key == METADATA {
            self.state.controller = None;
            self.give_up_publications(&why);
            if self.life < Life::Draining {
                self.fatal = Some(io::Error::other(format!(
                    "the broker stops, because the log of its catalog cannot be written: {error}; \
                     look at the disk and start it again"
                )));
            }
        }
        self.give_up(key, Some(&why));
    }

    /// Tells every shard, for their answers about who leads what.
    pub(super) fn set_offline(&mut self, key: PartitionKey, why: &str) {
        self.state.offline.insert(key, why.to_owned());
        for shard in (0..self.state.shards).map(ShardId) {
            if shard != self.state.shard {
                self.mailbox.send(shard, Mail::Offline(key, why.to_owned()));
            }
        }
        self.count_faults();
    }

    /// Answers everything that waits for a partition with an error.
    pub(super) fn give_up(&mut self, key: PartitionKey, why: Option<&str>) {
        for (to, answer) in self.waiting.take_all(key) {
            marks::hit(Mark::AnswersGivenUp);
            self.deliver(to, answer.into_failed(why));
        }
        if let Some(partition) = self.state.partitions.get_mut(&key) {
            for watcher in std::mem::take(&mut partition.watchers) {
                self.wake(watcher);
            }
        }
    }

    fn give_up_publications(&mut self, why: &str) {
        for (to, answer) in self.waiting.take_published(u64::MAX) {
            self.deliver(to, answer.into_failed(Some(why)));
        }
    }

    /// Makes everything durable that an earlier process has written. What cannot be is told from
    /// the rest by reading every log from the device instead of from the page cache.
    pub(super) fn sync_before_reading(&mut self) -> io::Result<()> {
        let Err(error) = self.io.sync_all() else {
            return Ok(());
        };
        error!(%error, "what the last run has written cannot be made durable: everything is read \
            from the device");
        self.mark_all_failed(&error.to_string());
        // The error has been told once; this makes durable what is on its way.
        self.io.sync_all()
    }

    /// Makes the next opening of every log read the device.
    pub(super) fn mark_all_failed(&mut self, why: &str) {
        let names = self.io.list_dirs().unwrap_or_default().into_iter();
        for name in names.filter(|name| Kind::of(name) != Kind::Foreign) {
            if let Ok(mut dir) = self.io.open_dir(&name) {
                log::mark_failed(dir.as_mut(), why);
            }
        }
    }

    /// Counts what does not work.
    pub(super) fn count_faults(&self) {
        let (state, stats) = (&self.state, &self.settings.stats);
        let own = |key: &&PartitionKey| state.owner(**key) == state.shard;
        let offline = state.offline.keys().filter(own).count();
        stats.partitions_offline.set(offline as u64);
        let stalled = self.stalled.len() + self.unopened.len();
        stats.partitions_stalled.set(stalled as u64);
    }
}
