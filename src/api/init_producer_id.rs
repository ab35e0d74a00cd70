//! InitProducerId (key 22), versions 0-5: ids for idempotent producers (KIP-98, KIP-360).
//!
//! - Without a transactional id a new id with epoch 0 is given, whatever the client had before:
//!   Kafka does the same.
//! - A transactional id gets `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`: fatal for every client, so
//!   that it stops with an error instead of trying again for ever. Transactions are not served.

use super::job::CatalogJob;
use super::{Begun, Facts, topics};
use crate::base::ErrorCode;
use crate::state::ShardState;
use crate::wire::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

/// Asks the catalog for an id.
pub fn begin(_: &mut ShardState, facts: &Facts, request: InitProducerIdRequest) -> Begun {
    if request.transactional_id.is_some() {
        let error_code = ErrorCode::TransactionalIdAuthorizationFailed;
        let producer_epoch = -1;
        return facts.reply(&InitProducerIdResponse {
            error_code,
            producer_epoch,
            ..InitProducerIdResponse::default()
        });
    }
    topics::ask(CatalogJob::ProducerId)
}

/// The response with a new id, in its first epoch.
pub fn response(producer_id: i64) -> InitProducerIdResponse {
    InitProducerIdResponse {
        producer_id,
        ..InitProducerIdResponse::default()
    }
}
