//! CreateTopics (key 19), versions 2-7, DeleteTopics (key 20), versions 1-6, and CreatePartitions
//! (key 37), versions 0-3. What they mean is the catalog's matter; here the request goes to its
//! shard, and the reply comes back when every shard works with the new catalog.

use super::job::{CatalogAnswer, CatalogJob, Job, Jobs};
use super::{Begun, Facts, Flow, init_producer_id};
use crate::base::placement::CONTROLLER;
use crate::state::ShardState;
use crate::wire::messages::create_partitions::CreatePartitionsRequest;
use crate::wire::messages::create_topics::CreateTopicsRequest;
use crate::wire::messages::delete_topics::DeleteTopicsRequest;

/// CreateTopics.
pub fn begin_create(_: &mut ShardState, _: &Facts, request: CreateTopicsRequest) -> Begun {
    ask(CatalogJob::CreateTopics(request))
}

/// DeleteTopics.
pub fn begin_delete(_: &mut ShardState, facts: &Facts, request: DeleteTopicsRequest) -> Begun {
    ask(CatalogJob::DeleteTopics(request, facts.version))
}

/// CreatePartitions.
pub fn begin_create_partitions(
    _: &mut ShardState,
    _: &Facts,
    request: CreatePartitionsRequest,
) -> Begun {
    ask(CatalogJob::CreatePartitions(request))
}

/// Sends a job to the catalog.
pub fn ask(job: CatalogJob) -> Begun {
    let job = Job::Catalog(Box::new(job));
    Begun::Gather(Jobs::from([(CONTROLLER, job)]), Flow::Catalog(None))
}

/// Replies with the catalog's answer.
pub fn resume(answer: Option<CatalogAnswer>, facts: &Facts) -> Begun {
    match answer {
        Some(CatalogAnswer::CreateTopics(response)) => facts.reply(&response),
        Some(CatalogAnswer::DeleteTopics(response)) => facts.reply(&response),
        Some(CatalogAnswer::CreatePartitions(response)) => facts.reply(&response),
        Some(CatalogAnswer::AlterConfigs(response)) => facts.reply(&response),
        Some(CatalogAnswer::IncrementalAlterConfigs(response)) => facts.reply(&response),
        Some(CatalogAnswer::ProducerId(id)) => facts.reply(&init_producer_id::response(id)),
        // The catalog's log failed: nothing is known about the outcome.
        Some(CatalogAnswer::Failed | CatalogAnswer::AutoCreate) | None => {
            Begun::Close("the catalog cannot be written")
        }
    }
}
