//! Classic groups in `__consumer_offsets`, written when a generation is complete.
//!
//! Key type 2. Value version 1 adds the rebalance timeout, 2 the time of the last change of state,
//! 3 static members, 4 is flexible.

use bytes::Bytes;

use crate::wire::table::messages;

messages! {
    /// Which group.
    record GroupMetadataKey (key 2, versions 0..=0, flexible never) {
        group: String => 0..=0;
    }

    /// A group as its generation left it. No value (a tombstone) removes it.
    message GroupMetadataValue (versions 0..=4, flexible 4..) {
        protocol_type: String => 0..;
        generation: i32 => 0..;
        /// Null while the group is empty.
        protocol: Option<String> => 0.., null 0..;
        /// Null while the group is empty.
        leader: Option<String> => 0.., null 0..;
        /// When the group got into its state, ms since 1970; -1 for unknown.
        current_state_timestamp: i64 = -1 => 2..;
        members: Vec<MemberMetadata> => 0..;
    }

    /// One member of the generation.
    struct MemberMetadata {
        member_id: String => 0..;
        group_instance_id: Option<String> = None => 3.., null 3..;
        client_id: String => 0..;
        client_host: String => 0..;
        /// Milliseconds.
        rebalance_timeout: i32 = -1 => 1..;
        /// Milliseconds.
        session_timeout: i32 => 0..;
        subscription: Bytes => 0..;
        assignment: Bytes => 0..;
    }
}
