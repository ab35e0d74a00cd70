//! `ListGroups`, API key 16: the groups this broker coordinates.
//!
//! Version 3 is flexible, 4 adds states and a filter by them (KIP-518), 5 the same for types
//! (KIP-848).

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Which groups to list; empty filters pass all.
    request ListGroupsRequest -> ListGroupsResponse
    (key 16, versions 0..=5, flexible 3..) {
        /// As Kafka spells them, for example `Stable`.
        states_filter: Vec<String> => 4..;
        /// `classic`, `consumer`, ...
        types_filter: Vec<String> => 5..;
    }

    /// The groups.
    message ListGroupsResponse (versions 0..=5, flexible 3..) {
        throttle_time_ms: i32 => 1..;
        error_code: ErrorCode => 0..;
        groups: Vec<ListedGroup> => 0..;
    }

    /// One group.
    struct ListedGroup {
        group_id: String => 0..;
        protocol_type: String => 0..;
        group_state: String => 4..;
        group_type: String => 5..;
    }
}
