//! `DescribeGroups`, API key 15: state and members of classic groups.
//!
//! Version 3 adds authorized operations (KIP-430), 4 static members (KIP-345), 5 is flexible.

use bytes::Bytes;

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Groups to describe.
    request DescribeGroupsRequest -> DescribeGroupsResponse
    (key 15, versions 0..=5, flexible 5..) {
        groups: Vec<String> => 0..;
        include_authorized_operations: bool => 3..;
    }

    /// The groups.
    message DescribeGroupsResponse (versions 0..=5, flexible 5..) {
        throttle_time_ms: i32 => 1..;
        /// In the order of the request.
        groups: Vec<DescribedGroup> => 0..;
    }

    /// One group.
    struct DescribedGroup {
        error_code: ErrorCode => 0..;
        group_id: String => 0..;
        /// As Kafka spells it, for example `PreparingRebalance`.
        group_state: String => 0..;
        protocol_type: String => 0..;
        /// The chosen protocol, empty unless the group is stable.
        protocol_data: String => 0..;
        members: Vec<DescribedGroupMember> => 0..;
        authorized_operations: i32 = i32::MIN => 3..;
    }

    /// One member.
    struct DescribedGroupMember {
        member_id: String => 0..;
        group_instance_id: Option<String> = None => 4.., null 4..;
        client_id: String => 0..;
        client_host: String => 0..;
        member_metadata: Bytes => 0..;
        member_assignment: Bytes => 0..;
    }
}
