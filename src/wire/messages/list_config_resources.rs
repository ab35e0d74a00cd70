//! `ListConfigResources`, API key 74: resources that have settings of their own.
//!
//! Version 0 lists client metrics subscriptions only (KIP-714), 1 any kind (KIP-1142). Flexible
//! from the start.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// The kinds of resources wanted; none for all.
    request ListConfigResourcesRequest -> ListConfigResourcesResponse
    (key 74, versions 0..=1, flexible 0..) {
        resource_types: Vec<i8> => 1..;
    }

    /// The resources.
    message ListConfigResourcesResponse (versions 0..=1, flexible 0..) {
        throttle_time_ms: i32 => 0..;
        error_code: ErrorCode => 0..;
        config_resources: Vec<ConfigResource> => 0..;
    }

    /// One resource.
    struct ConfigResource {
        resource_name: String => 0..;
        /// 2 topic, 4 broker, 8 logger, 16 client metrics, 32 group.
        resource_type: i8 = 16 => 1..;
    }
}
