//! `InitProducerId`, API key 22: a producer id and epoch for idempotent and transactional
//! producers.
//!
//! Version 2 is flexible, 3 lets a producer renew its epoch (KIP-360), 4 may answer
//! PRODUCER_FENCED (KIP-588).

use crate::base::ErrorCode;
use crate::wire::table::messages;

messages! {
    /// Asks for a producer id, or for the next epoch of one.
    request InitProducerIdRequest -> InitProducerIdResponse
    (key 22, versions 0..=5, flexible 2..) {
        /// Null for a producer that is idempotent only.
        transactional_id: Option<String> => 0.., null 0..;
        transaction_timeout_ms: i32 => 0..;
        /// The id that asks for its next epoch, -1 for a new one.
        producer_id: i64 = -1 => 3..;
        producer_epoch: i16 = -1 => 3..;
    }

    /// The id to write with.
    message InitProducerIdResponse (versions 0..=5, flexible 2..) {
        throttle_time_ms: i32 => 0..;
        error_code: ErrorCode => 0..;
        producer_id: i64 = -1 => 0..;
        producer_epoch: i16 => 0..;
    }
}
