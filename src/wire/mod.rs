//! The Kafka protocol as bytes: frames, headers and the codec of every message and version we
//! speak, plus the records that Kafka stores with the same codec.
//!
//! Owned here: what lies on the wire ([`frame`], [`messages`], [`records`]). Not owned: what a
//! message means (the `api` layer), record batches (the `batch` module).
//!
//! Invariant: bytes from a peer never panic, and memory follows bytes received, never a number that
//! a peer wrote. Every count is checked against the bytes that remain before anything is reserved.
//! Payloads and the topic names of produce and fetch are slices of the frame, not copies.

mod field;
pub mod frame;
pub mod messages;
mod reader;
pub mod records;
mod table;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::ops::RangeInclusive;

use field::{Encoding, Field};

pub use field::Records;
pub use reader::Reader;
pub use writer::{Gap, Writer};

/// Bytes that are not what they claim to be, with what is wrong in a few words. The connection
/// they came from has lost its place in the stream and must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// A message of the protocol or a stored record: one struct that holds all versions. A field that a
/// version does not have is not written, and reads as the schema's default.
pub trait Message: Field + Clone + fmt::Debug + Default + PartialEq {
    /// Name of the message in Kafka's schemas, such as `FetchRequest`.
    const NAME: &'static str;
    /// The versions that can be decoded and encoded.
    const VERSIONS: RangeInclusive<i16>;
    /// First version with compact lengths and tagged fields (KIP-482); `i16::MAX` for none.
    const FLEXIBLE_FROM: i16;

    /// Reads the message from the front of `reader` and leaves what follows it there: Kafka ignores
    /// bytes behind a request body, so do we.
    ///
    /// # Errors
    /// The version is not ours, or the bytes are cut off or contradict the schema.
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, Malformed> {
        if !Self::VERSIONS.contains(&version) {
            return Err(Malformed("message version out of range"));
        }
        Self::read(reader, Encoding::of::<Self>(version))
    }

    /// Appends the message. `version` must be one of [`Message::VERSIONS`].
    fn encode(&self, writer: &mut Writer, version: i16) {
        debug_assert!(Self::VERSIONS.contains(&version), "{}", Self::NAME);
        self.write(writer, Encoding::of::<Self>(version));
    }
}

/// A message that a client sends.
pub trait Request: Message {
    /// The API key in the request header.
    const KEY: i16;
    /// What the broker answers, in the version of the request.
    type Response: Message;
}
