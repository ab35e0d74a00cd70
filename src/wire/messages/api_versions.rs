//! `ApiVersions`, API key 18: what the broker speaks; the first request of every client.
//!
//! A request above our maximum is answered in version 0 without a look at its body (KIP-511), and
//! the response header never has tagged fields. Version 3 is flexible, 4 allows features whose
//! minimum is 0.

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Asks for the APIs, and says which client asks.
    request ApiVersionsRequest -> ApiVersionsResponse
    (key 18, versions 0..=4, flexible 3..) {
        /// Letters, digits, dots and dashes.
        client_software_name: String => 3..;
        client_software_version: String => 3..;
    }

    /// APIs and features of this broker.
    message ApiVersionsResponse (versions 0..=4, flexible 3..) {
        error_code: ErrorCode => 0..;
        api_keys: Vec<ApiVersion> => 0..;
        throttle_time_ms: i32 => 1..;
        ..tagged {
            0 => supported_features: Vec<SupportedFeatureKey> => 3..;
            /// -1 for unknown: the finalized features do not count.
            1 => finalized_features_epoch: i64 = -1 => 3..;
            2 => finalized_features: Vec<FinalizedFeatureKey> => 3..;
            /// Always false by now.
            3 => zk_migration_ready: bool => 3..;
        }
    }

    /// The versions of one API.
    struct ApiVersion {
        api_key: i16 => 0..;
        min_version: i16 => 0..;
        max_version: i16 => 0..;
    }

    /// A feature this broker can do (KIP-584).
    struct SupportedFeatureKey {
        name: String => 3..;
        min_version: i16 => 3..;
        max_version: i16 => 3..;
    }

    /// A feature the whole cluster has switched on.
    struct FinalizedFeatureKey {
        name: String => 3..;
        max_version_level: i16 => 3..;
        min_version_level: i16 => 3..;
    }
}
