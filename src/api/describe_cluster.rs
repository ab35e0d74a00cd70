//! DescribeCluster (key 60), versions 0-2: the one node, or with steering one per shard (KIP-700).
//! Only the broker endpoint exists.

use super::metadata::{CLUSTER_OPERATIONS, nodes};
use super::{Begun, Facts};
use crate::base::ErrorCode;
use crate::base::placement::CONTROLLER;
use crate::state::ShardState;
use crate::wire::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};

/// Endpoint type of brokers; 2 would be controllers (KIP-919).
const ENDPOINT_BROKERS: i8 = 1;

/// Answers from the catalog.
pub fn begin(state: &mut ShardState, facts: &Facts, request: DescribeClusterRequest) -> Begun {
    if request.endpoint_type != ENDPOINT_BROKERS {
        return facts.reply(&DescribeClusterResponse {
            error_code: ErrorCode::MismatchedEndpointType,
            error_message: Some("this listener serves brokers".to_owned()),
            endpoint_type: request.endpoint_type,
            ..DescribeClusterResponse::default()
        });
    }
    let broker = |(broker_id, host, port)| DescribeClusterBroker {
        broker_id,
        host,
        port,
        rack: state.broker.rack.clone(),
        ..DescribeClusterBroker::default()
    };
    let mut response = DescribeClusterResponse {
        endpoint_type: ENDPOINT_BROKERS,
        cluster_id: state.image.cluster_id().to_owned(),
        controller_id: state.node_of(CONTROLLER),
        brokers: nodes(state, facts).map(broker).collect(),
        ..DescribeClusterResponse::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    facts.reply(&response)
}
