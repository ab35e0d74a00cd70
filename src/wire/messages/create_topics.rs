//! `CreateTopics`, API key 19: new topics.
//!
//! Version 4 allows -1 for the broker's default of partitions and replicas (KIP-464), 5 is
//! flexible and returns the effective settings (KIP-525), 7 returns the topic id.

use crate::base::{ErrorCode, TopicId};
use crate::wire::table::messages;

messages! {
    /// Topics to create.
    request CreateTopicsRequest -> CreateTopicsResponse
    (key 19, versions 2..=7, flexible 5..) {
        topics: Vec<CreatableTopic> => 0..;
        timeout_ms: i32 = 60_000 => 0..;
        /// Check, create nothing.
        validate_only: bool => 1..;
    }

    /// One topic to create.
    struct CreatableTopic {
        name: String => 0..;
        /// -1 for the broker's default, or where assignments are given.
        num_partitions: i32 => 0..;
        /// -1 as above.
        replication_factor: i16 => 0..;
        assignments: Vec<CreatableReplicaAssignment> => 0..;
        configs: Vec<CreatableTopicConfig> => 0..;
    }

    /// Where the replicas of one partition shall live.
    struct CreatableReplicaAssignment {
        partition_index: i32 => 0..;
        broker_ids: Vec<i32> => 0..;
    }

    /// A setting of the new topic.
    struct CreatableTopicConfig {
        name: String => 0..;
        value: Option<String> => 0.., null 0..;
    }

    /// What became of each topic.
    message CreateTopicsResponse (versions 2..=7, flexible 5..) {
        throttle_time_ms: i32 => 2..;
        topics: Vec<CreatableTopicResult> => 0..;
    }

    /// One topic of the answer.
    struct CreatableTopicResult {
        name: String => 0..;
        topic_id: TopicId => 7..;
        error_code: ErrorCode => 0..;
        error_message: Option<String> => 1.., null 0..;
        num_partitions: i32 = -1 => 5..;
        replication_factor: i16 = -1 => 5..;
        configs: Option<Vec<CreatableTopicConfigs>> => 5.., null 5..;
        ..tagged {
            /// Why `configs` are missing.
            0 => topic_config_error_code: ErrorCode => 5..;
        }
    }

    /// An effective setting of the new topic.
    struct CreatableTopicConfigs {
        name: String => 5..;
        value: Option<String> => 5.., null 5..;
        read_only: bool => 5..;
        /// See DescribeConfigs.
        config_source: i8 = -1 => 5..;
        is_sensitive: bool => 5..;
    }
}
