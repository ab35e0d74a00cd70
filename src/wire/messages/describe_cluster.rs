//! `DescribeCluster`, API key 60: the brokers of the cluster (KIP-700).
//!
//! Version 1 can ask for controllers (KIP-919), 2 for fenced brokers too. Flexible from the start.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Asks for the nodes of the cluster.
    request DescribeClusterRequest -> DescribeClusterResponse
    (key 60, versions 0..=2, flexible 0..) {
        include_cluster_authorized_operations: bool => 0..;
        /// 1 brokers, 2 controllers.
        endpoint_type: i8 = 1 => 1..;
        include_fenced_brokers: bool => 2..;
    }

    /// The nodes of the cluster.
    message DescribeClusterResponse (versions 0..=2, flexible 0..) {
        throttle_time_ms: i32 => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<String> = None => 0.., null 0..;
        endpoint_type: i8 = 1 => 1..;
        cluster_id: String => 0..;
        controller_id: i32 = -1 => 0..;
        brokers: Vec<DescribeClusterBroker> => 0..;
        cluster_authorized_operations: i32 = i32::MIN => 0..;
    }

    /// One node.
    struct DescribeClusterBroker {
        broker_id: i32 => 0..;
        host: String => 0..;
        port: i32 => 0..;
        rack: Option<String> = None => 0.., null 0..;
        is_fenced: bool => 2..;
    }
}
