//! Records of the cluster metadata log that describe topics.
//!
//! All are flexible. [`encode_metadata`](super::encode_metadata) puts key and version before each.

use uuid::Uuid;

use crate::base::TopicId;
use crate::wire::table::messages;

messages! {
    /// A topic was created.
    record TopicRecord (key 2, versions 0..=0, flexible 0..) {
        name: String => 0..;
        topic_id: TopicId => 0..;
    }

    /// A partition with its replicas and leader.
    record PartitionRecord (key 3, versions 0..=2, flexible 0..) {
        partition_id: i32 = -1 => 0..;
        topic_id: TopicId => 0..;
        /// By preference.
        replicas: Vec<i32> => 0..;
        isr: Vec<i32> => 0..;
        removing_replicas: Vec<i32> => 0..;
        adding_replicas: Vec<i32> => 0..;
        /// -1 for none.
        leader: i32 = -1 => 0..;
        leader_epoch: i32 = -1 => 0..;
        /// Counts the changes of this partition.
        partition_epoch: i32 = -1 => 0..;
        /// Of the replicas, in their order (KIP-858).
        directories: Vec<Uuid> => 1..;
        ..tagged {
            /// 1 while it recovers from an unclean election.
            0 => leader_recovery_state: i8 => 0..;
            1 => eligible_leader_replicas: Option<Vec<i32>> = None => 2.., null 2..;
            2 => last_known_elr: Option<Vec<i32>> = None => 2.., null 2..;
        }
    }

    /// A topic was deleted with all its partitions.
    record RemoveTopicRecord (key 9, versions 0..=0, flexible 0..) {
        topic_id: TopicId => 0..;
    }

    /// A setting was set or removed.
    record ConfigRecord (key 4, versions 0..=0, flexible 0..) {
        /// 2 topic, 4 broker.
        resource_type: i8 => 0..;
        resource_name: String => 0..;
        name: String => 0..;
        /// Null removes the setting.
        value: Option<String> => 0.., null 0..;
    }

    /// A block of producer ids was taken.
    record ProducerIdsRecord (key 15, versions 0..=0, flexible 0..) {
        broker_id: i32 => 0..;
        broker_epoch: i64 = -1 => 0..;
        /// First id after the block.
        next_producer_id: i64 => 0..;
    }
}
