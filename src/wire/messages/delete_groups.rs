//! `DeleteGroups`, API key 42: removal of empty groups with their offsets.
//!
//! Version 2 is flexible.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Groups to remove.
    request DeleteGroupsRequest -> DeleteGroupsResponse
    (key 42, versions 0..=2, flexible 2..) {
        groups_names: Vec<String> => 0..;
    }

    /// What became of each group.
    message DeleteGroupsResponse (versions 0..=2, flexible 2..) {
        throttle_time_ms: i32 => 0..;
        results: Vec<DeletableGroupResult> => 0..;
    }

    /// One group of the answer.
    struct DeletableGroupResult {
        group_id: String => 0..;
        error_code: ErrorCode => 0..;
    }
}
