//! `JoinGroup`, API key 11: a member enters a group and waits for the round of joins to end.
//!
//! Version 1 adds the rebalance timeout, 4 sends newcomers back with a member id (KIP-394), 5
//! static members (KIP-345), 6 is flexible, 7 adds the protocol to the response, 8 the reason
//! (KIP-800), 9 lets the leader skip the assignment (KIP-814).

use bytes::Bytes;

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// A member with the protocols it can follow.
    request JoinGroupRequest -> JoinGroupResponse
    (key 11, versions 0..=9, flexible 6..) {
        group_id: String => 0..;
        session_timeout_ms: i32 => 0..;
        /// How long others wait for this member; version 0 takes the session timeout.
        rebalance_timeout_ms: i32 = -1 => 1..;
        /// Empty for a newcomer.
        member_id: String => 0..;
        /// Set by static members.
        group_instance_id: Option<String> = None => 5.., null 5..;
        /// `consumer` for consumers.
        protocol_type: String => 0..;
        /// By preference.
        protocols: Vec<JoinGroupRequestProtocol> => 0..;
        /// Why it joins, for the log.
        reason: Option<String> = None => 8.., null 8..;
    }

    /// A way to assign partitions that the member knows.
    struct JoinGroupRequestProtocol {
        name: String => 0..;
        /// For the leader, see [`consumer_protocol`](crate::wire::records::consumer_protocol).
        metadata: Bytes => 0..;
    }

    /// The generation that the round of joins led to.
    message JoinGroupResponse (versions 0..=9, flexible 6..) {
        throttle_time_ms: i32 => 2..;
        error_code: ErrorCode => 0..;
        generation_id: i32 = -1 => 0..;
        protocol_type: Option<String> = None => 7.., null 7..;
        protocol_name: Option<String> => 0.., null 7..;
        /// Member id of the leader.
        leader: String => 0..;
        /// The leader need not assign; the assignment stands.
        skip_assignment: bool => 9..;
        member_id: String => 0..;
        /// Empty for all but the leader.
        members: Vec<JoinGroupResponseMember> => 0..;
    }

    /// A member, told to the leader only.
    struct JoinGroupResponseMember {
        member_id: String => 0..;
        group_instance_id: Option<String> = None => 5.., null 5..;
        metadata: Bytes => 0..;
    }
}
