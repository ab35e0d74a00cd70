//! Kafka's error codes, the only place that knows the numbers.

use std::fmt;

/// What a client is told. Only codes that this broker or its client uses have a name here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum ErrorCode {
    /// `UNKNOWN_SERVER_ERROR`
    UnknownServerError = -1,
    /// `NONE`
    #[default]
    None = 0,
    /// `OFFSET_OUT_OF_RANGE`
    OffsetOutOfRange = 1,
    /// `CORRUPT_MESSAGE`
    CorruptMessage = 2,
    /// `UNKNOWN_TOPIC_OR_PARTITION`
    UnknownTopicOrPartition = 3,
    /// `LEADER_NOT_AVAILABLE`
    LeaderNotAvailable = 5,
    /// `NOT_LEADER_OR_FOLLOWER`
    NotLeaderOrFollower = 6,
    /// `REQUEST_TIMED_OUT`
    RequestTimedOut = 7,
    /// `REPLICA_NOT_AVAILABLE`
    ReplicaNotAvailable = 9,
    /// `MESSAGE_TOO_LARGE`
    MessageTooLarge = 10,
    /// `OFFSET_METADATA_TOO_LARGE`
    OffsetMetadataTooLarge = 12,
    /// `COORDINATOR_LOAD_IN_PROGRESS`
    CoordinatorLoadInProgress = 14,
    /// `COORDINATOR_NOT_AVAILABLE`
    CoordinatorNotAvailable = 15,
    /// `NOT_COORDINATOR`
    NotCoordinator = 16,
    /// `INVALID_TOPIC_EXCEPTION`
    InvalidTopic = 17,
    /// `RECORD_LIST_TOO_LARGE`
    RecordListTooLarge = 18,
    /// `NOT_ENOUGH_REPLICAS`
    NotEnoughReplicas = 19,
    /// `NOT_ENOUGH_REPLICAS_AFTER_APPEND`
    NotEnoughReplicasAfterAppend = 20,
    /// `INVALID_REQUIRED_ACKS`
    InvalidRequiredAcks = 21,
    /// `ILLEGAL_GENERATION`
    IllegalGeneration = 22,
    /// `INCONSISTENT_GROUP_PROTOCOL`
    InconsistentGroupProtocol = 23,
    /// `INVALID_GROUP_ID`
    InvalidGroupId = 24,
    /// `UNKNOWN_MEMBER_ID`
    UnknownMemberId = 25,
    /// `INVALID_SESSION_TIMEOUT`
    InvalidSessionTimeout = 26,
    /// `REBALANCE_IN_PROGRESS`
    RebalanceInProgress = 27,
    /// `TOPIC_AUTHORIZATION_FAILED`
    TopicAuthorizationFailed = 29,
    /// `GROUP_AUTHORIZATION_FAILED`
    GroupAuthorizationFailed = 30,
    /// `CLUSTER_AUTHORIZATION_FAILED`
    ClusterAuthorizationFailed = 31,
    /// `INVALID_TIMESTAMP`
    InvalidTimestamp = 32,
    /// `UNSUPPORTED_SASL_MECHANISM`
    UnsupportedSaslMechanism = 33,
    /// `UNSUPPORTED_VERSION`
    UnsupportedVersion = 35,
    /// `TOPIC_ALREADY_EXISTS`
    TopicAlreadyExists = 36,
    /// `INVALID_PARTITIONS`
    InvalidPartitions = 37,
    /// `INVALID_REPLICATION_FACTOR`
    InvalidReplicationFactor = 38,
    /// `INVALID_REPLICA_ASSIGNMENT`
    InvalidReplicaAssignment = 39,
    /// `INVALID_CONFIG`
    InvalidConfig = 40,
    /// `NOT_CONTROLLER`
    NotController = 41,
    /// `INVALID_REQUEST`
    InvalidRequest = 42,
    /// `UNSUPPORTED_FOR_MESSAGE_FORMAT`
    UnsupportedForMessageFormat = 43,
    /// `POLICY_VIOLATION`
    PolicyViolation = 44,
    /// `OUT_OF_ORDER_SEQUENCE_NUMBER`
    OutOfOrderSequenceNumber = 45,
    /// `DUPLICATE_SEQUENCE_NUMBER`
    DuplicateSequenceNumber = 46,
    /// `INVALID_PRODUCER_EPOCH`
    InvalidProducerEpoch = 47,
    /// `INVALID_TXN_STATE`
    InvalidTxnState = 48,
    /// `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`
    TransactionalIdAuthorizationFailed = 53,
    /// `KAFKA_STORAGE_ERROR`
    KafkaStorageError = 56,
    /// `LOG_DIR_NOT_FOUND`
    LogDirNotFound = 57,
    /// `UNKNOWN_PRODUCER_ID`
    UnknownProducerId = 59,
    /// `INVALID_PRINCIPAL_TYPE`
    InvalidPrincipalType = 67,
    /// `NON_EMPTY_GROUP`
    NonEmptyGroup = 68,
    /// `GROUP_ID_NOT_FOUND`
    GroupIdNotFound = 69,
    /// `FETCH_SESSION_ID_NOT_FOUND`
    FetchSessionIdNotFound = 70,
    /// `INVALID_FETCH_SESSION_EPOCH`
    InvalidFetchSessionEpoch = 71,
    /// `LISTENER_NOT_FOUND`
    ListenerNotFound = 72,
    /// `TOPIC_DELETION_DISABLED`
    TopicDeletionDisabled = 73,
    /// `FENCED_LEADER_EPOCH`
    FencedLeaderEpoch = 74,
    /// `UNKNOWN_LEADER_EPOCH`
    UnknownLeaderEpoch = 75,
    /// `UNSUPPORTED_COMPRESSION_TYPE`
    UnsupportedCompressionType = 76,
    /// `OFFSET_NOT_AVAILABLE`
    OffsetNotAvailable = 78,
    /// `MEMBER_ID_REQUIRED`
    MemberIdRequired = 79,
    /// `GROUP_MAX_SIZE_REACHED`
    GroupMaxSizeReached = 81,
    /// `FENCED_INSTANCE_ID`
    FencedInstanceId = 82,
    /// `GROUP_SUBSCRIBED_TO_TOPIC`
    GroupSubscribedToTopic = 86,
    /// `INVALID_RECORD`
    InvalidRecord = 87,
    /// `UNSTABLE_OFFSET_COMMIT`
    UnstableOffsetCommit = 88,
    /// `THROTTLING_QUOTA_EXCEEDED`
    ThrottlingQuotaExceeded = 89,
    /// `UNKNOWN_TOPIC_ID`
    UnknownTopicId = 100,
    /// `INCONSISTENT_TOPIC_ID`
    InconsistentTopicId = 103,
    /// `MISMATCHED_ENDPOINT_TYPE`
    MismatchedEndpointType = 114,
}

/// Number, variant and Kafka's name, in numeric order.
const TABLE: &[(i16, ErrorCode, &str)] = &[
    (-1, ErrorCode::UnknownServerError, "UNKNOWN_SERVER_ERROR"),
    (0, ErrorCode::None, "NONE"),
    (1, ErrorCode::OffsetOutOfRange, "OFFSET_OUT_OF_RANGE"),
    (2, ErrorCode::CorruptMessage, "CORRUPT_MESSAGE"),
    (
        3,
        ErrorCode::UnknownTopicOrPartition,
        "UNKNOWN_TOPIC_OR_PARTITION",
    ),
    (5, ErrorCode::LeaderNotAvailable, "LEADER_NOT_AVAILABLE"),
    (6, ErrorCode::NotLeaderOrFollower, "NOT_LEADER_OR_FOLLOWER"),
    (7, ErrorCode::RequestTimedOut, "REQUEST_TIMED_OUT"),
    (9, ErrorCode::ReplicaNotAvailable, "REPLICA_NOT_AVAILABLE"),
    (10, ErrorCode::MessageTooLarge, "MESSAGE_TOO_LARGE"),
    (
        12,
        ErrorCode::OffsetMetadataTooLarge,
        "OFFSET_METADATA_TOO_LARGE",
    ),
    (
        14,
        ErrorCode::CoordinatorLoadInProgress,
        "COORDINATOR_LOAD_IN_PROGRESS",
    ),
    (
        15,
        ErrorCode::CoordinatorNotAvailable,
        "COORDINATOR_NOT_AVAILABLE",
    ),
    (16, ErrorCode::NotCoordinator, "NOT_COORDINATOR"),
    (17, ErrorCode::InvalidTopic, "INVALID_TOPIC_EXCEPTION"),
    (18, ErrorCode::RecordListTooLarge, "RECORD_LIST_TOO_LARGE"),
    (19, ErrorCode::NotEnoughReplicas, "NOT_ENOUGH_REPLICAS"),
    (
        20,
        ErrorCode::NotEnoughReplicasAfterAppend,
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    ),
    (21, ErrorCode::InvalidRequiredAcks, "INVALID_REQUIRED_ACKS"),
    (22, ErrorCode::IllegalGeneration, "ILLEGAL_GENERATION"),
    (
        23,
        ErrorCode::InconsistentGroupProtocol,
        "INCONSISTENT_GROUP_PROTOCOL",
    ),
    (24, ErrorCode::InvalidGroupId, "INVALID_GROUP_ID"),
    (25, ErrorCode::UnknownMemberId, "UNKNOWN_MEMBER_ID"),
    (
        26,
        ErrorCode::InvalidSessionTimeout,
        "INVALID_SESSION_TIMEOUT",
    ),
    (27, ErrorCode::RebalanceInProgress, "REBALANCE_IN_PROGRESS"),
    (
        29,
        ErrorCode::TopicAuthorizationFailed,
        "TOPIC_AUTHORIZATION_FAILED",
    ),
    (
        30,
        ErrorCode::GroupAuthorizationFailed,
        "GROUP_AUTHORIZATION_FAILED",
    ),
    (
        31,
        ErrorCode::ClusterAuthorizationFailed,
        "CLUSTER_AUTHORIZATION_FAILED",
    ),
    (32, ErrorCode::InvalidTimestamp, "INVALID_TIMESTAMP"),
    (
        33,
        ErrorCode::UnsupportedSaslMechanism,
        "UNSUPPORTED_SASL_MECHANISM",
    ),
    (35, ErrorCode::UnsupportedVersion, "UNSUPPORTED_VERSION"),
    (36, ErrorCode::TopicAlreadyExists, "TOPIC_ALREADY_EXISTS"),
    (37, ErrorCode::InvalidPartitions, "INVALID_PARTITIONS"),
    (
        38,
        ErrorCode::InvalidReplicationFactor,
        "INVALID_REPLICATION_FACTOR",
    ),
    (
        39,
        ErrorCode::InvalidReplicaAssignment,
        "INVALID_REPLICA_ASSIGNMENT",
    ),
    (40, ErrorCode::InvalidConfig, "INVALID_CONFIG"),
    (41, ErrorCode::NotController, "NOT_CONTROLLER"),
    (42, ErrorCode::InvalidRequest, "INVALID_REQUEST"),
    (
        43,
        ErrorCode::UnsupportedForMessageFormat,
        "UNSUPPORTED_FOR_MESSAGE_FORMAT",
    ),
    (44, ErrorCode::PolicyViolation, "POLICY_VIOLATION"),
    (
        45,
        ErrorCode::OutOfOrderSequenceNumber,
        "OUT_OF_ORDER_SEQUENCE_NUMBER",
    ),
    (
        46,
        ErrorCode::DuplicateSequenceNumber,
        "DUPLICATE_SEQUENCE_NUMBER",
    ),
    (
        47,
        ErrorCode::InvalidProducerEpoch,
        "INVALID_PRODUCER_EPOCH",
    ),
    (48, ErrorCode::InvalidTxnState, "INVALID_TXN_STATE"),
    (
        53,
        ErrorCode::TransactionalIdAuthorizationFailed,
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    ),
    (56, ErrorCode::KafkaStorageError, "KAFKA_STORAGE_ERROR"),
    (57, ErrorCode::LogDirNotFound, "LOG_DIR_NOT_FOUND"),
    (59, ErrorCode::UnknownProducerId, "UNKNOWN_PRODUCER_ID"),
    (
        67,
        ErrorCode::InvalidPrincipalType,
        "INVALID_PRINCIPAL_TYPE",
    ),
    (68, ErrorCode::NonEmptyGroup, "NON_EMPTY_GROUP"),
    (69, ErrorCode::GroupIdNotFound, "GROUP_ID_NOT_FOUND"),
    (
        70,
        ErrorCode::FetchSessionIdNotFound,
        "FETCH_SESSION_ID_NOT_FOUND",
    ),
    (
        71,
        ErrorCode::InvalidFetchSessionEpoch,
        "INVALID_FETCH_SESSION_EPOCH",
    ),
    (72, ErrorCode::ListenerNotFound, "LISTENER_NOT_FOUND"),
    (
        73,
        ErrorCode::TopicDeletionDisabled,
        "TOPIC_DELETION_DISABLED",
    ),
    (74, ErrorCode::FencedLeaderEpoch, "FENCED_LEADER_EPOCH"),
    (75, ErrorCode::UnknownLeaderEpoch, "UNKNOWN_LEADER_EPOCH"),
    (
        76,
        ErrorCode::UnsupportedCompressionType,
        "UNSUPPORTED_COMPRESSION_TYPE",
    ),
    (78, ErrorCode::OffsetNotAvailable, "OFFSET_NOT_AVAILABLE"),
    (79, ErrorCode::MemberIdRequired, "MEMBER_ID_REQUIRED"),
    (81, ErrorCode::GroupMaxSizeReached, "GROUP_MAX_SIZE_REACHED"),
    (82, ErrorCode::FencedInstanceId, "FENCED_INSTANCE_ID"),
    (
        86,
        ErrorCode::GroupSubscribedToTopic,
        "GROUP_SUBSCRIBED_TO_TOPIC",
    ),
    (87, ErrorCode::InvalidRecord, "INVALID_RECORD"),
    (
        88,
        ErrorCode::UnstableOffsetCommit,
        "UNSTABLE_OFFSET_COMMIT",
    ),
    (
        89,
        ErrorCode::ThrottlingQuotaExceeded,
        "THROTTLING_QUOTA_EXCEEDED",
    ),
    (100, ErrorCode::UnknownTopicId, "UNKNOWN_TOPIC_ID"),
    (103, ErrorCode::InconsistentTopicId, "INCONSISTENT_TOPIC_ID"),
    (
        114,
        ErrorCode::MismatchedEndpointType,
        "MISMATCHED_ENDPOINT_TYPE",
    ),
];

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The code for a number from a peer; an unknown one reads as `UNKNOWN_SERVER_ERROR`.
    pub fn from_code(code: i16) -> Self {
        TABLE
            .iter()
            .find(|row| row.0 == code)
            .map_or(Self::UnknownServerError, |row| row.1)
    }

    /// Kafka's name of the code.
    pub fn name(self) -> &'static str {
        TABLE
            .iter()
            .find(|row| row.1 == self)
            .map_or("UNKNOWN_SERVER_ERROR", |row| row.2)
    }

    /// True for anything but `NONE`.
    pub fn is_error(self) -> bool {
        self != Self::None
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_variants_agree() {
        for (number, code, _) in TABLE {
            assert_eq!(code.code(), *number);
            assert_eq!(ErrorCode::from_code(*number), *code);
        }
        assert_eq!(ErrorCode::from_code(9999), ErrorCode::UnknownServerError);
    }
}
