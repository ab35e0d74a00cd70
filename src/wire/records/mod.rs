//! Records that Kafka stores, in the same table language as the messages, and the few bytes that
//! Kafka puts around each.
//!
//! Coordinator records (`__consumer_offsets`): the key starts with the record type as int16 and the
//! value with its version. Metadata records: frame version, type and version as varints. Not here:
//! what the records mean, and the batches they lie in.

pub mod consumer_protocol;
pub mod group_metadata;
pub mod metadata;
pub mod offset_commit;

use bytes::{BufMut, Bytes};

use super::{Malformed, Message, Reader, Writer};

/// Version of the frame around metadata records. Kafka: `DEFAULT_FRAME_VERSION`.
const METADATA_FRAME_VERSION: u32 = 1;

/// A stored record with a type number of its own.
pub trait Record: Message {
    /// The type, Kafka's `apiKey` of the schema.
    const KEY: i16;
}

/// Encodes the key of a coordinator record: type, then body.
pub fn encode_key<R: Record>(key: &R) -> Bytes {
    encode_versioned(R::KEY, key, 0)
}

/// Takes the type off the front of a coordinator record's key; the body follows in version 0.
pub fn decode_key_type(reader: &mut Reader) -> Result<i16, Malformed> {
    reader.array().map(i16::from_be_bytes)
}

/// Encodes the value of a coordinator record, or the bytes of the consumer protocol: version, then
/// body.
pub fn encode_value<M: Message>(value: &M, version: i16) -> Bytes {
    encode_versioned(version, value, version)
}

/// Decodes the value of a coordinator record.
///
/// # Errors
/// Written in a version we do not know, or malformed.
pub fn decode_value<M: Message>(bytes: Bytes) -> Result<M, Malformed> {
    let mut reader = Reader::new(bytes);
    let version = reader.array().map(i16::from_be_bytes)?;
    M::decode(&mut reader, version)
}

/// Encodes a metadata record with its frame: frame version, type, version, body.
pub fn encode_metadata<R: Record>(record: &R, version: i16) -> Bytes {
    let mut writer = Writer::new();
    writer.uvarint(METADATA_FRAME_VERSION);
    writer.uvarint(u32::from(R::KEY.cast_unsigned()));
    writer.uvarint(u32::from(version.cast_unsigned()));
    record.encode(&mut writer, version);
    writer.bytes.freeze()
}

/// Takes type and version off the front of a metadata record; the body follows.
///
/// # Errors
/// A frame version we do not know, or numbers beyond int16.
pub fn decode_metadata_frame(reader: &mut Reader) -> Result<(i16, i16), Malformed> {
    if reader.uvarint()? != METADATA_FRAME_VERSION {
        return Err(Malformed("unknown frame version of a metadata record"));
    }
    let mut number = || {
        let number = reader.uvarint()?;
        i16::try_from(number).map_err(|_| Malformed("metadata record type or version too large"))
    };
    Ok((number()?, number()?))
}

fn encode_versioned<M: Message>(prefix: i16, message: &M, version: i16) -> Bytes {
    let mut writer = Writer::new();
    writer.bytes.put_i16(prefix);
    message.encode(&mut writer, version);
    writer.bytes.freeze()
}
