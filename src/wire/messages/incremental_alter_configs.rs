//! `IncrementalAlterConfigs`, API key 44: sets, deletes, appends to or subtracts from single
//! settings (KIP-339).
//!
//! Version 1 is flexible.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Resources with changes to their settings.
    request IncrementalAlterConfigsRequest -> IncrementalAlterConfigsResponse
    (key 44, versions 0..=1, flexible 1..) {
        resources: Vec<AlterConfigsResource> => 0..;
        validate_only: bool => 0..;
    }

    /// One resource.
    struct AlterConfigsResource {
        resource_type: i8 => 0..;
        resource_name: String => 0..;
        configs: Vec<AlterableConfig> => 0..;
    }

    /// One change of one setting.
    struct AlterableConfig {
        name: String => 0..;
        /// 0 set, 1 delete, 2 append to the list, 3 subtract from the list.
        config_operation: i8 => 0..;
        value: Option<String> => 0.., null 0..;
    }

    /// What became of each resource.
    message IncrementalAlterConfigsResponse (versions 0..=1, flexible 1..) {
        throttle_time_ms: i32 => 0..;
        responses: Vec<AlterConfigsResourceResponse> => 0..;
    }

    /// One resource of the answer.
    struct AlterConfigsResourceResponse {
        error_code: ErrorCode => 0..;
        error_message: Option<String> => 0.., null 0..;
        resource_type: i8 => 0..;
        resource_name: String => 0..;
    }
}
