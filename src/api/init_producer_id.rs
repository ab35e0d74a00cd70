//! InitProducerId (key 22), versions 0-5: ids for idempotent producers (KIP-98, KIP-360).
//!
//! - Without a transactional id a new id with epoch 0 is given, whatever the client had before:
//!   Kafka does the same.
//! - A transactional id gets `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`: fatal for every client, so
//!   that it stops with an error instead of trying again for ever. Transactions are not served.

use super::job::{CatalogJob, Job};
use super::{Begun, Facts, Flow};
use crate::base::ErrorCode;
use crate::base::placement::CONTROLLER;
use crate::state::ShardState;
use crate::wire::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

/// Asks the catalog for an id.
pub fn begin(_state: &mut ShardState, facts: &Facts, request: InitProducerIdRequest) -> Begun {
    if request.transactional_id.is_some() {
        return facts.reply(&refused(ErrorCode::TransactionalIdAuthorizationFailed));
    }
    let job = Job::Catalog(Box::new(CatalogJob::ProducerId));
    Begun::Gather(vec![(CONTROLLER, job)], Flow::Catalog(None))
}

/// The response for the catalog's answer.
pub fn response(producer_id: Option<i64>) -> InitProducerIdResponse {
    match producer_id {
        Some(producer_id) => InitProducerIdResponse {
            producer_id,
            producer_epoch: 0,
            ..InitProducerIdResponse::default()
        },
        None => refused(ErrorCode::CoordinatorNotAvailable),
    }
}

fn refused(error_code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse { error_code, producer_epoch: -1, ..InitProducerIdResponse::default() }
}
