//! `DescribeConfigs`, API key 32: settings of topics, brokers and groups with their sources.
//!
//! Version 1 adds source and synonyms, 3 type and documentation (KIP-569), 4 is flexible.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Resources to describe.
    request DescribeConfigsRequest -> DescribeConfigsResponse
    (key 32, versions 1..=4, flexible 4..) {
        resources: Vec<DescribeConfigsResource> => 0..;
        include_synonyms: bool => 1..;
        include_documentation: bool => 3..;
    }

    /// One resource.
    struct DescribeConfigsResource {
        /// 2 topic, 4 broker, 8 logger, 16 client metrics, 32 group.
        resource_type: i8 => 0..;
        resource_name: String => 0..;
        /// Null for all.
        configuration_keys: Option<Vec<String>> => 0.., null 0..;
    }

    /// The settings.
    message DescribeConfigsResponse (versions 1..=4, flexible 4..) {
        throttle_time_ms: i32 => 0..;
        results: Vec<DescribeConfigsResult> => 0..;
    }

    /// One resource with its settings.
    struct DescribeConfigsResult {
        error_code: ErrorCode => 0..;
        error_message: Option<String> => 0.., null 0..;
        resource_type: i8 => 0..;
        resource_name: String => 0..;
        configs: Vec<DescribeConfigsResourceResult> => 0..;
    }

    /// One setting.
    struct DescribeConfigsResourceResult {
        name: String => 0..;
        /// Null for secrets.
        value: Option<String> => 0.., null 0..;
        read_only: bool => 0..;
        /// 1 topic, 2 broker, 3 all brokers, 4 settings file, 5 default.
        config_source: i8 = -1 => 1..;
        is_sensitive: bool => 0..;
        synonyms: Vec<DescribeConfigsSynonym> => 1..;
        /// 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password.
        config_type: i8 => 3..;
        documentation: Option<String> => 3.., null 0..;
    }

    /// One level a setting's value can come from, strongest first.
    struct DescribeConfigsSynonym {
        name: String => 1..;
        value: Option<String> => 1.., null 0..;
        source: i8 => 1..;
    }
}
