//! Stored records of the coordinator: what stands in `__consumer_offsets`, to and from bytes.
//!
//! Written are the versions that Apache Kafka 4.3 writes, so that its tools and Burrow can read
//! them: offsets in version 4 (1 while they carry their own expiry), groups in version 3. Read are
//! all versions. Records of other group types (KIP-848, KIP-932, KIP-1071) are recognised and left
//! alone.

use bytes::Bytes;

use super::Record;
use crate::wire::records::group_metadata::{GroupMetadataKey, GroupMetadataValue};
use crate::wire::records::offset_commit::{OffsetCommitKey, OffsetCommitValue};
use crate::wire::records::{Record as _, decode_key_type, decode_value, encode_key, encode_value};
use crate::wire::{Malformed, Message, Reader};

/// Key type of offsets that brokers before 0.9 wrote; the layout is the same.
const LEGACY_OFFSET_KEY: i16 = 0;
const OFFSET_VERSION: i16 = 4;
const OFFSET_WITH_EXPIRY_VERSION: i16 = 1;
const GROUP_VERSION: i16 = 3;

/// A record of the log, decoded. A value of none is a tombstone.
#[derive(Debug, PartialEq)]
pub(super) enum Stored {
    /// A position of a group.
    Offset(OffsetCommitKey, Option<OffsetCommitValue>),
    /// A classic group.
    Group(String, Option<GroupMetadataValue>),
    /// Not ours.
    Other,
}

/// Reads a record.
pub(super) fn decode(key: Bytes, value: Option<Bytes>) -> Result<Stored, Malformed> {
    let mut reader = Reader::new(key);
    let key_type = decode_key_type(&mut reader)?;
    match key_type {
        LEGACY_OFFSET_KEY | OffsetCommitKey::KEY => Ok(Stored::Offset(
            OffsetCommitKey::decode(&mut reader, 0)?,
            value.map(decode_value).transpose()?,
        )),
        GroupMetadataKey::KEY => Ok(Stored::Group(
            GroupMetadataKey::decode(&mut reader, 0)?.group,
            value.map(decode_value).transpose()?,
        )),
        _ => Ok(Stored::Other),
    }
}

/// Writes a position, or its tombstone.
pub(super) fn offset(
    group_id: &str,
    topic: &str,
    partition: i32,
    value: Option<&OffsetCommitValue>,
) -> Record {
    let key = OffsetCommitKey {
        group: group_id.to_owned(),
        topic: topic.to_owned(),
        partition,
    };
    let value = value.map(|value| {
        let version = match value.expire_timestamp {
            -1 => OFFSET_VERSION,
            _ => OFFSET_WITH_EXPIRY_VERSION,
        };
        encode_value(value, version)
    });
    (encode_key(&key), value)
}

/// Writes a group, or its tombstone.
pub(super) fn group(group_id: &str, value: Option<&GroupMetadataValue>) -> Record {
    let key = GroupMetadataKey {
        group: group_id.to_owned(),
    };
    let value = value.map(|value| encode_value(value, GROUP_VERSION));
    (encode_key(&key), value)
}
