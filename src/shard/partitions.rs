//! Brings what this shard has open in line with the catalog: opens, configures, deletes and closes
//! partitions, and loads the machines that live in internal topics.

use super::directories::{Kind, deleted_name, dir_name, stray_name};
use super::mail::Mail;
use super::{Life, Shard};
use crate::api::controller::{Controller, METADATA, Publication};
use crate::api::groups::Coordinator;
use crate::base::PartitionKey;
use crate::base::dir::is_out_of_room;
use crate::base::marks::{self, Mark};
use crate::base::placement::CONTROLLER;
use crate::catalog::settings::TopicSettings;
use crate::catalog::{Image, METADATA_TOPIC, OFFSETS_TOPIC, Topic, topic_settings};
use crate::io::Io;
use crate::log::{Log, OpenError, Opening, Report};
use crate::state::{Partition, log_config};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use tracing::{error, info, warn};

/// Deleted partitions whose files are removed in one turn: thousands at once would hold up
/// everybody.
const REMOVALS_PER_TURN: usize = 8;

impl<I: Io> Shard<I> {
    /// Opens and replays the catalog's own log, and makes sure that the data directory holds
    /// nothing else than what the catalog knows.
    pub(super) fn open_catalog(&mut self) -> io::Result<Publication> {
        let topic = Arc::new(metadata_topic());
        let name = dir_name(&topic, METADATA.partition);
        let report = &mut Report::default();
        let settings = Arc::new(topic_settings(&self.state.image, &topic));
        let mut partition = self
            .open_partition(METADATA, &topic, &settings, report)
            .map_err(|error| {
                io::Error::other(format!("the catalog in {name} cannot be opened: {error}"))
            })?;
        let (identity, seed) = (self.settings.identity.clone(), self.settings.seed);
        let controller = Controller::load(identity, seed, &mut partition)?;
        let publication = controller.publication();
        self.state.controller = Some(controller);
        self.state.partitions.insert(METADATA, partition);
        self.tidy_dirs(&publication.image)?;
        Ok(publication)
    }

    /// Finishes interrupted deletions and sets aside partitions that no topic owns.
    fn tidy_dirs(&mut self, image: &Image) -> io::Result<()> {
        let known: BTreeSet<String> = image
            .topics()
            .flat_map(|topic| (0..topic.partitions).map(|index| dir_name(topic, index)))
            .chain([dir_name(&metadata_topic(), METADATA.partition)])
            .collect();
        for name in self.io.list_dirs()? {
            match Kind::of(&name) {
                Kind::Deleted => {
                    marks::hit(Mark::DeletionFinished);
                    self.doomed.push(name);
                }
                Kind::Partition if !known.contains(&name) => {
                    warn!(
                        name,
                        "no topic owns this directory; it is set aside, not deleted"
                    );
                    self.rename_aside(&name)?;
                }
                Kind::Partition | Kind::Stray | Kind::Foreign => {}
            }
        }
        Ok(())
    }

    /// Gives a directory a name that says that no topic owns it.
    fn rename_aside(&mut self, name: &str) -> io::Result<()> {
        let aside = stray_name(name, self.state.prng.next_u64());
        self.io.rename_dir(name, &aside)?;
        self.io.sync_dirs()?;
        info!(name, aside, "renamed");
        Ok(())
    }

    /// Works with this image from now on.
    pub(super) fn apply_image(&mut self, publication: Publication) {
        let Publication { version, image } = publication;
        let changes = image.changes_since(&self.state.image);
        self.state.set_image(image.clone());
        self.drop_deleted(&changes.removed);
        self.count_faults();
        let deleted: Vec<_> = changes
            .removed
            .iter()
            .map(|topic| (topic.name.clone(), topic.id))
            .collect();
        crate::api::groups::on_topics_deleted(&mut self.state, &deleted);
        let mut report = Report::default();
        let started = self.io.now().mono;
        // A setting of the broker may be that of any topic.
        let all = changes.settings || self.life == Life::Starting;
        let changed: Vec<_> = match all {
            true => image.topics().cloned().collect(),
            false => changes.changed,
        };
        for topic in &changed {
            let settings = Arc::new(topic_settings(&image, topic));
            for index in 0..topic.partitions {
                let key = PartitionKey {
                    topic: topic.id,
                    partition: index,
                };
                if self.state.owner(key) == self.state.shard {
                    self.open_or_update(key, topic, &settings, &mut report);
                }
            }
        }
        if self.life == Life::Starting {
            self.life = Life::Ready;
            let ms = self.io.now().mono.since(started).as_millis() as u64;
            info!(
                shard = self.state.shard.0,
                partitions = self.state.partitions.len(),
                segments = report.segments,
                scanned_bytes = report.bytes_scanned,
                truncated_bytes = report.bytes_truncated,
                ms,
                "opened"
            );
        }
        match self.state.shard == CONTROLLER {
            true => self.on_applied(CONTROLLER, version),
            false => self.mailbox.send(CONTROLLER, Mail::Applied { version }),
        }
    }

    pub(super) fn open_or_update(
        &mut self,
        key: PartitionKey,
        topic: &Arc<Topic>,
        settings: &Arc<TopicSettings>,
        report: &mut Report,
    ) {
        if let Some(partition) = self.state.partitions.get_mut(&key) {
            partition.settings = settings.clone();
            partition.topic = topic.clone();
            partition
                .log
                .set_config(log_config(&partition.settings, &self.state.broker));
            return;
        }
        let opened = self.open_partition(key, topic, settings, report);
        match opened.and_then(|partition| self.insert_partition(key, partition)) {
            Ok(()) => self.end_unopened(key),
            Err(error) => self.on_open_failed(key, topic, &error),
        }
    }

    fn insert_partition(
        &mut self,
        key: PartitionKey,
        mut partition: Partition,
    ) -> Result<(), OpenError> {
        if partition.topic.name == OFFSETS_TOPIC {
            match Coordinator::load(&mut self.state, &mut partition) {
                Ok(coordinator) => {
                    self.state.coordinators.insert(key, coordinator);
                }
                Err(error) if is_out_of_room(&error) => return Err(error.into()),
                Err(error) => {
                    error!(partition = key.partition, %error, "the groups cannot be loaded");
                    let why =
                        format!("the partition is offline, its groups cannot be loaded: {error}");
                    self.set_offline(key, &why);
                }
            }
        }
        self.state.partitions.insert(key, partition);
        Ok(())
    }

    fn open_partition(
        &mut self,
        key: PartitionKey,
        topic: &Arc<Topic>,
        settings: &Arc<TopicSettings>,
        report: &mut Report,
    ) -> Result<Partition, OpenError> {
        let name = dir_name(topic, key.partition);
        let config = log_config(settings, &self.state.broker);
        let opening = Opening {
            now: self.state.now,
            // What failed may have changed something.
            clean: self.settings.clean && !self.unopened.contains(&key),
            leader_epoch: self.state.leader_epoch,
            topic_id: topic.id,
        };
        let repairs = report.repairs.len();
        let mut dir = self.io.open_dir(&name)?;
        let mut opened = Log::open(dir.as_mut(), config.clone(), opening, report);
        if let Err(why @ (OpenError::EarlierTopic | OpenError::NeverDurable)) = &opened {
            marks::hit(Mark::StrayDirectory);
            // Set aside, not deleted: they may be all that is left of somebody's records.
            warn!(directory = name, %why, "set aside");
            self.rename_aside(&name)?;
            dir = self.io.open_dir(&name)?;
            opened = Log::open(dir.as_mut(), config, opening, report);
        }
        for repair in &report.repairs[repairs..] {
            warn!(directory = name, repair, "repaired");
        }
        Ok(Partition::new(
            topic.clone(),
            settings.clone(),
            dir,
            opened?,
        ))
    }

    /// Drops the partitions of topics that are gone. Their directories are renamed, durably, so
    /// that a crash leaves them marked as deleted, and removed little by little.
    fn drop_deleted(&mut self, removed: &[Arc<Topic>]) {
        let mut renamed = false;
        for topic in removed {
            for index in 0..topic.partitions {
                let key = PartitionKey {
                    topic: topic.id,
                    partition: index,
                };
                renamed |= self.drop_partition(topic, key);
            }
        }
        if renamed && let Err(error) = self.io.sync_dirs() {
            error!(%error, "the deletion of partitions is not durable yet");
        }
    }

    /// Drops one partition, open or refused; true if it had a directory.
    fn drop_partition(&mut self, topic: &Topic, key: PartitionKey) -> bool {
        self.state.queued.remove(&key);
        self.unsynced.remove(&key);
        self.end_round(key);
        self.stalled.remove(&key);
        self.unopened.remove(&key);
        crate::api::groups::unload(&mut self.state, key);
        self.give_up(key, None);
        if self.state.owner(key) != self.state.shard {
            return false;
        }
        drop(self.state.partitions.remove(&key));
        let name = dir_name(topic, key.partition);
        let aside = deleted_name(&name, self.state.prng.next_u64());
        match self.io.rename_dir(&name, &aside) {
            Ok(()) => self.doomed.push(aside),
            // Nothing was ever written.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(error) => {
                error!(name, %error, "cannot delete the files of a deleted partition");
            }
        }
        true
    }

    /// Removes some of the files that belong to no partition any more.
    pub(super) fn remove_doomed(&mut self) {
        let left = self.doomed.len().saturating_sub(REMOVALS_PER_TURN);
        for name in self.doomed.split_off(left) {
            if let Err(error) = self.io.remove_dir(&name) {
                error!(name, %error, "cannot delete the files of a deleted partition");
            }
        }
    }

    /// Applies retention to every log.
    pub(super) fn retain(&mut self) {
        let now = self.state.now;
        let mut failed = Vec::new();
        for (key, partition) in &mut self.state.partitions {
            let retained = partition.log.retain(partition.dir.as_mut(), now);
            if partition.log.stalled().is_some() {
                // Expired as a whole, and without room for the segment that follows.
                self.stalled.insert(*key);
            }
            match retained {
                Ok(retained) if retained.segments > 0 => info!(
                    topic = partition.topic.name,
                    partition = key.partition,
                    segments = retained.segments,
                    bytes = retained.bytes,
                    "retention removed segments"
                ),
                Ok(_) => {}
                Err(error) => failed.push((*key, error)),
            }
        }
        for (key, error) in failed {
            warn!(partition = key.partition, %error, "retention could not be applied");
            self.on_write_failed(key, &error);
        }
        self.count_faults();
    }

    /// Closes every log: written, with indexes and producers, and all synced at once.
    pub(super) fn close_logs(&mut self) {
        let now = self.state.now;
        for (key, partition) in &mut self.state.partitions {
            if partition.log.poisoned().is_some() {
                self.closed_clean = false;
            } else if let Err(error) = partition.log.close(partition.dir.as_mut(), now) {
                error!(topic = partition.topic.name, partition = key.partition, %error,
                    "the log cannot be closed cleanly");
                self.closed_clean = false;
            }
        }
        if let Err(error) = self.io.sync_all() {
            error!(%error, "the logs cannot be closed cleanly");
            self.closed_clean = false;
            self.mark_all_failed(&error.to_string());
        }
        self.state.partitions.clear();
        self.life = Life::Closed;
    }
}

/// The topic of the catalog's own log, as Kafka names it.
fn metadata_topic() -> Topic {
    Topic {
        id: METADATA.topic,
        name: METADATA_TOPIC.to_owned(),
        partitions: 1,
        config: BTreeMap::new(),
        internal: true,
    }
}
