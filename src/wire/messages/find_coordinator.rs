//! `FindCoordinator`, API key 10: which broker coordinates a group or a transactional id.
//!
//! Up to version 3 one key in the top-level fields, from 4 on a list (KIP-699). Version 1 adds the
//! key type, 3 is flexible, 6 allows share groups (KIP-932).

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Keys to find the coordinators of.
    request FindCoordinatorRequest -> FindCoordinatorResponse
    (key 10, versions 0..=6, flexible 3..) {
        key: String => 0..=3;
        /// 0 group, 1 transactional id, 2 share group.
        key_type: i8 => 1..;
        coordinator_keys: Vec<String> => 4..;
    }

    /// Where the coordinators listen.
    message FindCoordinatorResponse (versions 0..=6, flexible 3..) {
        throttle_time_ms: i32 => 1..;
        error_code: ErrorCode => 0..=3;
        error_message: Option<String> => 1..=3, null 1..=3;
        node_id: i32 => 0..=3;
        host: String => 0..=3;
        port: i32 => 0..=3;
        coordinators: Vec<Coordinator> => 4..;
    }

    /// The coordinator of one key.
    struct Coordinator {
        key: String => 4..;
        node_id: i32 => 4..;
        host: String => 4..;
        port: i32 => 4..;
        error_code: ErrorCode => 4..;
        error_message: Option<String> => 4.., null 4..;
    }
}
