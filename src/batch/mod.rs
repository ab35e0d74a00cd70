//! The record batch, magic 2 (KIP-98): the unit that producers send, the log stores verbatim and
//! consumers receive. This folder owns its bytes: head, records, compression, validation, builder.
//! It knows no partition, no producer state and no file.
//!
//! Invariant: bytes from outside never reach a panic, and no allocation follows a number that a
//! peer wrote; every decompression has an output limit.
//!
//! A broker patches only base offset and leader epoch, which the CRC does not cover; see
//! [`Header`].

mod builder;
mod compression;
mod error;
mod header;
mod records;
mod snappy;
mod validate;
mod varint;

pub use builder::Builder;
pub use compression::{Codec, compress, decompress};
pub use error::{BatchError, RecordError};
pub use header::{
    Header, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType,
};
pub use records::{Batches, Record, Records, batches, records};
pub use validate::{
    RecordsSummary, ValidationRules, check_records, recompress, validate, with_log_append_time,
    with_max_timestamp,
};

#[cfg(test)]
mod tests;
