//! `LeaveGroup`, API key 13: members leave a group.
//!
//! Up to version 2 one member in the top-level field, from 3 on a list (KIP-345). Version 4 is
//! flexible, 5 adds the reason (KIP-800).

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Members that leave.
    request LeaveGroupRequest -> LeaveGroupResponse
    (key 13, versions 0..=5, flexible 4..) {
        group_id: String => 0..;
        /// Up to version 2.
        member_id: String => 0..=2;
        members: Vec<MemberIdentity> => 3..;
    }

    /// A leaving member, by member id or by instance id.
    struct MemberIdentity {
        member_id: String => 3..;
        group_instance_id: Option<String> = None => 3.., null 3..;
        reason: Option<String> = None => 5.., null 5..;
    }

    /// What became of each member.
    message LeaveGroupResponse (versions 0..=5, flexible 4..) {
        throttle_time_ms: i32 => 1..;
        error_code: ErrorCode => 0..;
        members: Vec<MemberResponse> => 3..;
    }

    /// One member of the answer.
    struct MemberResponse {
        member_id: String => 3..;
        group_instance_id: Option<String> => 3.., null 3..;
        error_code: ErrorCode => 3..;
    }
}
