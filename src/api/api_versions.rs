//! ApiVersions (key 18), versions 0-4: what this broker serves (KIP-511).
//!
//! - A version above ours is answered in the layout of version 0 with `UNSUPPORTED_VERSION` and
//!   the own range, and the body of the request is not read.
//! - No features are finalized: transactions version 2 and the groups of KIP-848 are not served.

use super::{APIS, Begun, Facts};
use crate::base::ErrorCode;
use crate::state::ShardState;
use crate::wire::messages::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};

/// First version that names the client's software.
const SOFTWARE_FROM: i16 = 3;

/// Answers with the table of APIs.
pub fn begin(_state: &mut ShardState, facts: &Facts, request: ApiVersionsRequest) -> Begun {
    let named = is_software_name(&request.client_software_name)
        && is_software_name(&request.client_software_version);
    if facts.version >= SOFTWARE_FROM && !named {
        let error_code = ErrorCode::InvalidRequest;
        return facts.reply(&ApiVersionsResponse {
            error_code,
            ..ApiVersionsResponse::default()
        });
    }
    facts.reply(&response(ErrorCode::None))
}

/// Answers a version that is not served, so that the client can try again with one that is.
pub fn refuse(facts: &Facts) -> Begun {
    Facts {
        version: 0,
        ..facts.clone()
    }
    .reply(&response(ErrorCode::UnsupportedVersion))
}

fn response(error_code: ErrorCode) -> ApiVersionsResponse {
    let api_keys = APIS.iter().map(|api| ApiVersion {
        api_key: api.key,
        min_version: api.advertised_min,
        max_version: *api.versions.end(),
    });
    ApiVersionsResponse {
        error_code,
        api_keys: api_keys.collect(),
        ..ApiVersionsResponse::default()
    }
}

/// Kafka's pattern: `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let ends = [bytes.first(), bytes.last()];
    bytes.iter().all(inner)
        && ends
            .iter()
            .all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_kafkas_pattern() {
        for good in ["a", "apache-kafka-java", "3.9.0", "A1"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "é", "a_b"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
