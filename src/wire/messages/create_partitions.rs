//! `CreatePartitions`, API key 37: more partitions for existing topics.
//!
//! Version 2 is flexible, 3 may answer THROTTLING_QUOTA_EXCEEDED (KIP-599).

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Topics that shall grow.
    request CreatePartitionsRequest -> CreatePartitionsResponse
    (key 37, versions 0..=3, flexible 2..) {
        topics: Vec<CreatePartitionsTopic> => 0..;
        timeout_ms: i32 => 0..;
        validate_only: bool => 0..;
    }

    /// One topic with its new size.
    struct CreatePartitionsTopic {
        name: String => 0..;
        /// Partitions after the call.
        count: i32 => 0..;
        /// Null to let the broker choose.
        assignments: Option<Vec<CreatePartitionsAssignment>> => 0.., null 0..;
    }

    /// Where the replicas of one new partition shall live.
    struct CreatePartitionsAssignment {
        broker_ids: Vec<i32> => 0..;
    }

    /// What became of each topic.
    message CreatePartitionsResponse (versions 0..=3, flexible 2..) {
        throttle_time_ms: i32 => 0..;
        results: Vec<CreatePartitionsTopicResult> => 0..;
    }

    /// One topic of the answer.
    struct CreatePartitionsTopicResult {
        name: String => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<String> = None => 0.., null 0..;
    }
}
