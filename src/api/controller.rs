//! The catalog on its shard: decides, appends the records to the log of `__cluster_metadata`,
//! replays them, and hands the new image on once the records are durable. An answer is given when
//! every shard works with the image that holds what it says.

use super::job::{After, Answer, CatalogAnswer, CatalogJob, Return};
use crate::base::marks::{self, Mark};
use crate::base::planted::{self, Bug};
use crate::base::{Offset, PartitionKey};
use crate::catalog::{Catalog, Identity, Image, METADATA_TOPIC_ID};
use crate::log::Origin;
use crate::state::{Outgoing, Partition, ShardState, coordinator_batch};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// The catalog's own partition; always on the controller's shard, and in no image.
pub const METADATA: PartitionKey = PartitionKey {
    topic: METADATA_TOPIC_ID,
    partition: 0,
};

/// A numbered image: shards tell by the number how far they are.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Grows by one with every change of this run.
    pub version: u64,
    /// The catalog.
    pub image: Arc<Image>,
}

/// The catalog with what is on its way to the shards.
pub struct Controller {
    catalog: Catalog,
    version: u64,
    /// Images whose records are not durable yet, with the end of these records.
    undurable: VecDeque<(Offset, Publication)>,
}

impl Controller {
    /// Replays the catalog's log.
    pub fn load(identity: Identity, seed: u64, partition: &mut Partition) -> io::Result<Self> {
        let mut catalog = Catalog::new(identity, seed);
        let mut unreadable = None;
        partition.replay(|record| {
            let Some(value) = record.value.clone() else {
                return;
            };
            let replayed = catalog.replay(value);
            if let Err(why) = replayed {
                unreadable.get_or_insert(format!("record {}: {why}", record.offset));
            }
        })?;
        catalog.on_loaded();
        match unreadable {
            Some(why) => Err(io::Error::new(io::ErrorKind::InvalidData, why)),
            None => Ok(Self {
                catalog,
                version: 1,
                undurable: VecDeque::new(),
            }),
        }
    }

    /// The newest image, durable or not.
    pub fn publication(&self) -> Publication {
        Publication {
            version: self.version,
            image: self.catalog.image(),
        }
    }

    /// Whether images, and the answers that wait for them, wait for the log to be synced.
    pub fn wants_durable(&self) -> bool {
        !self.undurable.is_empty()
    }

    /// The newest image whose records end at or before `offset`, if there is a new one.
    pub fn take_durable(&mut self, offset: Offset) -> Option<Publication> {
        let offset = match planted::is(Bug::CatalogBeforeStored) {
            true => Offset::MAX,
            false => offset,
        };
        let durable = self
            .undurable
            .iter()
            .take_while(|(end, _)| *end <= offset)
            .count();
        self.undurable
            .drain(..durable)
            .next_back()
            .map(|(_, publication)| publication)
    }
}

/// Does a job of the catalog.
pub fn perform(state: &mut ShardState, to: Return, job: CatalogJob) {
    let Some(controller) = &mut state.controller else {
        return state.answer(to, Answer::Catalog(CatalogAnswer::Failed));
    };
    let catalog = &mut controller.catalog;
    let (records, answer) = match job {
        CatalogJob::CreateTopics(request) => {
            let (records, response) = catalog.create_topics(&request);
            (records, CatalogAnswer::CreateTopics(response))
        }
        CatalogJob::AutoCreate(names) => {
            let (records, _) = catalog.auto_create(&names);
            (records, CatalogAnswer::AutoCreate)
        }
        CatalogJob::DeleteTopics(request, version) => {
            let (records, response) = catalog.delete_topics(&request, version);
            (records, CatalogAnswer::DeleteTopics(response))
        }
        CatalogJob::CreatePartitions(request) => {
            let (records, response) = catalog.create_partitions(&request);
            (records, CatalogAnswer::CreatePartitions(response))
        }
        CatalogJob::AlterConfigs(request) => {
            let (records, response) = catalog.alter_configs(&request);
            (records, CatalogAnswer::AlterConfigs(response))
        }
        CatalogJob::IncrementalAlterConfigs(request) => {
            let (records, response) = catalog.incremental_alter_configs(&request);
            (records, CatalogAnswer::IncrementalAlterConfigs(response))
        }
        CatalogJob::ProducerId => {
            let (records, id) = catalog.next_producer_id();
            (records, CatalogAnswer::ProducerId(id))
        }
    };
    let after = match append(state, &records) {
        Ok(after) => after,
        Err(()) => return state.answer(to, Answer::Catalog(CatalogAnswer::Failed)),
    };
    state.outbox.push(Outgoing {
        to,
        answer: Answer::Catalog(answer),
        after,
    });
}

/// Appends and replays; tells what an answer has to wait for.
fn append(state: &mut ShardState, records: &[Bytes]) -> Result<After, ()> {
    let now = state.now;
    let controller = state.controller.as_mut().ok_or(())?;
    let Some(partition) = state.partitions.get_mut(&METADATA) else {
        return Err(());
    };
    if partition.log.poisoned().is_some() {
        return Err(());
    }
    if records.is_empty() {
        // Even a refusal may rest on records that a crash could still take back, or on an image
        // that not every shard has.
        return match controller.undurable.is_empty() {
            true => Ok(After::Acknowledged(
                METADATA,
                partition.log.log_end_offset(),
            )),
            false => {
                marks::hit(Mark::ImageWaited);
                Ok(After::Published(controller.version))
            }
        };
    }
    let values: Vec<_> = records
        .iter()
        .map(|record| (None, Some(record.clone())))
        .collect();
    let batch = coordinator_batch(now, &values);
    let appended = partition
        .log
        .append(now, batch, Origin::Coordinator)
        .map_err(|_| ())?;
    state.queued.insert(METADATA);
    let before = controller.catalog.image();
    for record in records {
        let replayed = controller.catalog.replay(record.clone());
        assert!(
            replayed.is_ok(),
            "the catalog replays what it has decided: {replayed:?}"
        );
    }
    let image = controller.catalog.image();
    if Arc::ptr_eq(&before, &image) {
        return Ok(After::Acknowledged(METADATA, appended.offset_end));
    }
    controller.version += 1;
    let publication = controller.publication();
    controller
        .undurable
        .push_back((appended.offset_end, publication));
    Ok(After::Published(controller.version))
}
