//! `DeleteTopics`, API key 20: removal of topics.
//!
//! Up to version 5 by name only, from 6 on by name or id. Version 4 is flexible, 5 adds the error
//! message (KIP-599).

use crate::base::{ErrorCode, TopicId};
use crate::wire::table::messages;

messages! {
    /// Topics to remove.
    request DeleteTopicsRequest -> DeleteTopicsResponse
    (key 20, versions 1..=6, flexible 4..) {
        topics: Vec<DeleteTopicState> => 6..;
        /// Up to version 5.
        topic_names: Vec<String> => 0..=5;
        timeout_ms: i32 => 0..;
    }

    /// A topic by name or by id.
    struct DeleteTopicState {
        /// Null where the id stands.
        name: Option<String> = None => 6.., null 6..;
        topic_id: TopicId => 6..;
    }

    /// What became of each topic.
    message DeleteTopicsResponse (versions 1..=6, flexible 4..) {
        throttle_time_ms: i32 => 1..;
        responses: Vec<DeletableTopicResult> => 0..;
    }

    /// One topic of the answer.
    struct DeletableTopicResult {
        name: Option<String> => 0.., null 6..;
        topic_id: TopicId => 6..;
        error_code: ErrorCode => 0..;
        error_message: Option<String> = None => 5.., null 5..;
    }
}
