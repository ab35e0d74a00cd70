//! FindCoordinator (key 10), versions 0-6: who coordinates a group. One node: always this one
//! (with steering the shard that owns the group's partition), once `__consumer_offsets` exists;
//! the first group creates it.
//!
//! A group whose partition is offline has no coordinator: clients ask again until it has one.
//!
//! Transactional ids get `TRANSACTIONAL_ID_AUTHORIZATION_FAILED` (see `init_producer_id`), share
//! groups and unknown kinds `INVALID_REQUEST`.

use super::job::{CatalogJob, Job, Jobs};
use super::metadata::node;
use super::{Begun, Facts, Flow};
use crate::base::placement::{CONTROLLER, coordinator_partition};
use crate::base::{ErrorCode, PartitionKey};
use crate::catalog::OFFSETS_TOPIC;
use crate::state::ShardState;
use crate::wire::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};

const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;

/// First version with several keys per request.
const BATCHED_FROM: i16 = 4;

/// A request that waits for `__consumer_offsets`.
#[derive(Debug)]
pub struct Creating {
    request: FindCoordinatorRequest,
}

/// Names this node, after making sure that it can coordinate.
pub fn begin(state: &mut ShardState, facts: &Facts, request: FindCoordinatorRequest) -> Begun {
    let flow = Creating { request };
    if flow.request.key_type != KEY_TYPE_GROUP || state.image.topic(OFFSETS_TOPIC).is_some() {
        return flow.resume(state, facts);
    }
    let create = CatalogJob::AutoCreate(vec![OFFSETS_TOPIC.to_owned()]);
    let job = Job::Catalog(Box::new(create));
    Begun::Gather(Jobs::from([(CONTROLLER, job)]), Flow::FindCoordinator(flow))
}

impl Creating {
    /// Answers with what there is now.
    pub fn resume(self, state: &mut ShardState, facts: &Facts) -> Begun {
        let request = self.request;
        let find = |key: String| coordinator(state, facts, request.key_type, key);
        if facts.version >= BATCHED_FROM {
            let coordinators = request.coordinator_keys.into_iter().map(find).collect();
            let response = FindCoordinatorResponse {
                coordinators,
                ..Default::default()
            };
            return facts.reply(&response);
        }
        let found = find(request.key);
        facts.reply(&FindCoordinatorResponse {
            error_code: found.error_code,
            error_message: found.error_message,
            node_id: found.node_id,
            host: found.host,
            port: found.port,
            ..FindCoordinatorResponse::default()
        })
    }
}

fn coordinator(state: &ShardState, facts: &Facts, key_type: i8, key: String) -> Coordinator {
    let place = state.image.topic(OFFSETS_TOPIC).map(|topic| PartitionKey {
        topic: topic.id,
        partition: coordinator_partition(&key, topic.partitions),
    });
    let place = place.filter(|place| !state.offline.contains_key(place));
    let error_code = match key_type {
        KEY_TYPE_GROUP if place.is_some() => ErrorCode::None,
        KEY_TYPE_GROUP => ErrorCode::CoordinatorNotAvailable,
        KEY_TYPE_TRANSACTION => ErrorCode::TransactionalIdAuthorizationFailed,
        _ => ErrorCode::InvalidRequest,
    };
    if error_code.is_error() {
        let error_message = match key_type {
            KEY_TYPE_TRANSACTION => Some("transactions are not served".to_owned()),
            _ => None,
        };
        let (node_id, port) = (-1, -1);
        return Coordinator {
            key,
            node_id,
            port,
            error_code,
            error_message,
            host: String::new(),
        };
    }
    let owner = place.map_or(CONTROLLER, |place| state.owner(place));
    let (node_id, host, port) = node(state, facts, owner);
    Coordinator {
        key,
        node_id,
        host,
        port,
        error_code,
        error_message: None,
    }
}
