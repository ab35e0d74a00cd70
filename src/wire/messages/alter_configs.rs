//! `AlterConfigs`, API key 33: replaces all settings of a resource at once.
//!
//! Kept for old clients; IncrementalAlterConfigs is its successor. Version 2 is flexible.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Resources with all their new settings.
    request AlterConfigsRequest -> AlterConfigsResponse
    (key 33, versions 0..=2, flexible 2..) {
        resources: Vec<AlterConfigsResource> => 0..;
        validate_only: bool => 0..;
    }

    /// One resource; settings not named go back to default.
    struct AlterConfigsResource {
        resource_type: i8 => 0..;
        resource_name: String => 0..;
        configs: Vec<AlterableConfig> => 0..;
    }

    /// One setting.
    struct AlterableConfig {
        name: String => 0..;
        value: Option<String> => 0.., null 0..;
    }

    /// What became of each resource.
    message AlterConfigsResponse (versions 0..=2, flexible 2..) {
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
