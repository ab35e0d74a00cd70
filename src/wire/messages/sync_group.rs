//! `SyncGroup`, API key 14: the leader hands in the assignment, every member picks up its own.
//!
//! Version 3 adds static members (KIP-345), 4 is flexible, 5 repeats the protocol so that both
//! sides can check it.

use bytes::Bytes;

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// The assignment from the leader, nothing from the others.
    request SyncGroupRequest -> SyncGroupResponse
    (key 14, versions 0..=5, flexible 4..) {
        group_id: String => 0..;
        generation_id: i32 => 0..;
        member_id: String => 0..;
        group_instance_id: Option<String> = None => 3.., null 3..;
        protocol_type: Option<String> = None => 5.., null 5..;
        protocol_name: Option<String> = None => 5.., null 5..;
        /// Empty from all but the leader.
        assignments: Vec<SyncGroupRequestAssignment> => 0..;
    }

    /// What one member shall read.
    struct SyncGroupRequestAssignment {
        member_id: String => 0..;
        assignment: Bytes => 0..;
    }

    /// What this member shall read.
    message SyncGroupResponse (versions 0..=5, flexible 4..) {
        throttle_time_ms: i32 => 1..;
        error_code: ErrorCode => 0..;
        protocol_type: Option<String> = None => 5.., null 5..;
        protocol_name: Option<String> = None => 5.., null 5..;
        assignment: Bytes => 0..;
    }
}
