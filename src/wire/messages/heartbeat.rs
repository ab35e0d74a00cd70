//! `Heartbeat`, API key 12: a member says that it lives and hears of a rebalance.
//!
//! Version 3 adds static members (KIP-345), 4 is flexible.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// A sign of life.
    request HeartbeatRequest -> HeartbeatResponse
    (key 12, versions 0..=4, flexible 4..) {
        group_id: String => 0..;
        generation_id: i32 => 0..;
        member_id: String => 0..;
        group_instance_id: Option<String> = None => 3.., null 3..;
    }

    /// Whether the generation still stands.
    message HeartbeatResponse (versions 0..=4, flexible 4..) {
        throttle_time_ms: i32 => 1..;
        error_code: ErrorCode => 0..;
    }
}
