//! `Fetch`, API key 1: consumers and followers read record batches.
//!
//! Version 7 brings fetch sessions (KIP-227), 9 the leader epoch check (KIP-320), 11 reading from
//! a follower (KIP-392), 12 is flexible, 13 names topics by id (KIP-516), 15 moves the follower's
//! id to a tagged field, 16 adds endpoints of new leaders (KIP-951), 18 the follower's high
//! watermark.

use bytestring::ByteString;
use uuid::Uuid;

use crate::base::{ErrorCode, TopicId};
use crate::wire::Records;
use crate::wire::table::messages;

messages! {
    /// Positions to read from, with the limits of the response.
    request FetchRequest -> FetchResponse
    (key 1, versions 4..=18, flexible 12..) {
        /// Broker id of a follower; -1 for a consumer.
        replica_id: i32 = -1 => 0..=14;
        /// How long to wait for `min_bytes`.
        max_wait_ms: i32 => 0..;
        min_bytes: i32 => 0..;
        /// Limit of the whole response; the first batch may exceed it (KIP-74).
        max_bytes: i32 = i32::MAX => 3..;
        /// 0 read_uncommitted, 1 read_committed.
        isolation_level: i8 => 4..;
        /// Incremental fetch session, 0 for none.
        session_id: i32 => 7..;
        /// 0 opens a session, -1 closes it or goes without.
        session_epoch: i32 = -1 => 7..;
        topics: Vec<FetchTopic> => 0..;
        forgotten_topics_data: Vec<ForgottenTopic> => 7..;
        /// Where the consumer is, to be sent to a near replica.
        rack_id: String => 11..;
        ..tagged {
            /// A follower's cluster, to refuse strangers.
            0 => cluster_id: Option<String> = None => 12.., null 12..;
            1 => replica_state: ReplicaState => 15..;
        }
    }

    /// Who a follower is.
    struct ReplicaState {
        replica_id: i32 = -1 => 15..;
        replica_epoch: i64 = -1 => 15..;
    }

    /// One topic to read.
    struct FetchTopic {
        topic: ByteString => 0..=12;
        topic_id: TopicId => 13..;
        partitions: Vec<FetchPartition> => 0..;
    }

    /// One partition to read.
    struct FetchPartition {
        partition: i32 => 0..;
        /// What the client believes, -1 for no check.
        current_leader_epoch: i32 = -1 => 9..;
        fetch_offset: i64 => 0..;
        /// Epoch of the last record fetched, to notice truncation; -1 for unknown.
        last_fetched_epoch: i32 = -1 => 12..;
        /// A follower's own first offset.
        log_start_offset: i64 = -1 => 5..;
        partition_max_bytes: i32 => 0..;
        ..tagged {
            /// A follower's log directory (KIP-853).
            0 => replica_directory_id: Uuid => 17..;
            /// The high watermark the follower knows.
            1 => high_watermark: i64 = i64::MAX => 18..;
        }
    }

    /// Partitions that leave the fetch session.
    struct ForgottenTopic {
        topic: ByteString => 7..=12;
        topic_id: TopicId => 13..;
        partitions: Vec<i32> => 7..;
    }

    /// Batches, one partition after the other.
    message FetchResponse (versions 4..=18, flexible 12..) {
        throttle_time_ms: i32 => 1..;
        error_code: ErrorCode => 7..;
        /// 0 if there is no session.
        session_id: i32 => 7..;
        responses: Vec<FetchableTopicResponse> => 0..;
        ..tagged {
            0 => node_endpoints: Vec<NodeEndpoint> => 16..;
        }
    }

    /// One topic of a fetch response.
    struct FetchableTopicResponse {
        topic: ByteString => 0..=12;
        topic_id: TopicId => 13..;
        partitions: Vec<PartitionData> => 0..;
    }

    /// What one partition yields.
    struct PartitionData {
        partition_index: i32 => 0..;
        error_code: ErrorCode => 0..;
        /// End of what consumers may read.
        high_watermark: i64 => 0..;
        /// End of what has no open transaction before it.
        last_stable_offset: i64 = -1 => 4..;
        log_start_offset: i64 = -1 => 5..;
        /// By ascending first offset; null for read_uncommitted.
        aborted_transactions: Option<Vec<AbortedTransaction>> => 4.., null 4..;
        /// A nearer replica to read from, -1 for none (KIP-392).
        preferred_read_replica: i32 = -1 => 11..;
        /// Whole batches as stored; empty rather than null where there are none.
        records: Records => 0..;
        ..tagged {
            0 => diverging_epoch: EpochEndOffset => 12..;
            1 => current_leader: LeaderIdAndEpoch => 12..;
            2 => snapshot_id: SnapshotId => 12..;
        }
    }

    /// Where a follower's log parted from the leader's.
    struct EpochEndOffset {
        epoch: i32 = -1 => 12..;
        /// Where it ends, exclusive; -1 for none.
        end_offset: i64 = -1 => 12..;
    }

    /// Who leads now, for a client that asked the wrong broker.
    struct LeaderIdAndEpoch {
        leader_id: i32 = -1 => 12..;
        leader_epoch: i32 = -1 => 12..;
    }

    /// A snapshot to fetch instead (metadata log only).
    struct SnapshotId {
        end_offset: i64 = -1 => 0..;
        epoch: i32 = -1 => 0..;
    }

    /// A transaction whose records a read_committed reader must skip.
    struct AbortedTransaction {
        producer_id: i64 => 4..;
        first_offset: i64 => 4..;
    }

    /// Where a leader named in the response listens.
    struct NodeEndpoint {
        node_id: i32 => 16..;
        host: String => 16..;
        port: i32 => 16..;
        rack: Option<String> = None => 16.., null 16..;
    }
}
