//! The fixed head of a batch: 61 bytes, big endian. Parsing checks only what every later step
//! relies on (magic and length); the rest is validation's.

use super::{BatchError, Codec};
use crate::base::limits::BATCH_HEADER_BYTES;
use crate::base::{Epoch, Offset};

/// `producerId` of a batch without idempotence.
pub const NO_PRODUCER_ID: i64 = -1;
/// `producerEpoch` of a batch without idempotence.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// `baseSequence` of a batch without idempotence.
pub const NO_SEQUENCE: i32 = -1;
/// A record without a time.
pub const NO_TIMESTAMP: i64 = -1;

/// The only message format there is since Kafka 4.0.
const MAGIC: i8 = 2;
/// Base offset and length field, which `batchLength` does not count.
const LENGTH_OVERHEAD_BYTES: usize = 12;
/// Smallest `batchLength`: the rest of the head, no records.
const BATCH_LENGTH_MIN: i32 = (BATCH_HEADER_BYTES - LENGTH_OVERHEAD_BYTES) as i32;
/// First byte that the CRC covers.
const CRC_START: usize = 21;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;

/// Whose clock the timestamps of a batch show (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's at the time of the append; all records share the batch's max timestamp.
    LogAppendTime,
}

/// All fields of the head. Magic is 2 by construction.
///
/// Base offset and partition leader epoch lie before the CRC's range, so a broker changes them
/// freely; a change of any other field needs [`Header::seal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Offset of the first record; 0 from a producer.
    pub base_offset: Offset,
    /// Bytes of the batch after this field: [`Header::size_bytes`] - 12.
    pub batch_length: i32,
    /// Leader epoch at the append; -1 from a producer.
    pub partition_leader_epoch: Epoch,
    /// CRC-32C over byte 21 to the end.
    pub crc: u32,
    /// Bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon.
    pub attributes: i16,
    /// Offset of the last record minus base offset.
    pub last_offset_delta: i32,
    /// Timestamp to which the records' deltas add; the delete horizon if attribute bit 6 is set.
    pub base_timestamp: i64,
    /// Largest timestamp of the records, or the time of the append.
    pub max_timestamp: i64,
    /// Id of an idempotent producer, or [`NO_PRODUCER_ID`].
    pub producer_id: i64,
    /// Its epoch, or [`NO_PRODUCER_EPOCH`].
    pub producer_epoch: i16,
    /// Sequence of the first record, or [`NO_SEQUENCE`].
    pub base_sequence: i32,
    /// Number of records; compaction can make it smaller than the offset range.
    pub record_count: i32,
}

impl Header {
    /// Reads the head from the start of `bytes`; what follows it is not looked at.
    ///
    /// Errors: [`BatchError::Torn`] with fewer than 61 bytes, [`BatchError::Length`] and
    /// [`BatchError::Magic`] as early as those fields can be read.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if let Some(length) = bytes
            .get(8..12)
            .map(|_| i32::from_be_bytes(field(bytes, 8)))
        {
            if let Some(&magic) = bytes.get(16)
                && magic as i8 != MAGIC
            {
                return Err(BatchError::Magic(magic as i8));
            }
            if length < BATCH_LENGTH_MIN {
                return Err(BatchError::Length(length));
            }
        }
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(BatchError::Torn {
                need: BATCH_HEADER_BYTES,
                have: bytes.len(),
            });
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            batch_length: i32::from_be_bytes(field(bytes, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(bytes, 12)),
            crc: u32::from_be_bytes(field(bytes, 17)),
            attributes: i16::from_be_bytes(field(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        })
    }

    /// The 61 bytes as they lie on the wire and on disk.
    pub fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        bytes[16] = MAGIC as u8;
        bytes[17..21].copy_from_slice(&self.crc.to_be_bytes());
        bytes[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        bytes[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        bytes[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        bytes[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        bytes[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        bytes[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        bytes[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        bytes[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        bytes
    }

    /// Moves the batch to its place in the log. Not covered by the CRC.
    pub fn set_base_offset(&mut self, base_offset: Offset) {
        self.base_offset = base_offset;
    }

    /// Notes the leader epoch of the append. Not covered by the CRC.
    pub fn set_partition_leader_epoch(&mut self, epoch: Epoch) {
        self.partition_leader_epoch = epoch;
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// Offset after the last record: where the next batch begins.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().saturating_add(1)
    }

    /// Sequence of the last record; after 2^31-1 comes 0. [`NO_SEQUENCE`] without idempotence.
    pub fn last_sequence(&self) -> i32 {
        self.sequence_at(self.last_offset_delta)
    }

    /// Sequence of the record with an offset delta, as in Kafka's
    /// `DefaultRecordBatch.incrementSequence`. [`NO_SEQUENCE`] without idempotence.
    pub fn sequence_at(&self, offset_delta: i32) -> i32 {
        if self.base_sequence < 0 {
            return NO_SEQUENCE;
        }
        ((i64::from(self.base_sequence) + i64::from(offset_delta)) & i64::from(i32::MAX)) as i32
    }

    /// Size of the whole batch with its head.
    pub fn size_bytes(&self) -> usize {
        // Parsing and building keep the length positive.
        LENGTH_OVERHEAD_BYTES + self.batch_length.max(0) as usize
    }

    /// Size of the records section, which follows the head.
    pub fn body_bytes(&self) -> usize {
        self.size_bytes().saturating_sub(BATCH_HEADER_BYTES)
    }

    /// How the records are compressed, or [`BatchError::UnknownCodec`].
    pub fn codec(&self) -> Result<Codec, BatchError> {
        Codec::from_id((self.attributes & CODEC_MASK) as u8)
    }

    /// Whose clock the timestamps show.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME_BIT != 0 {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }

    /// True for batches of a transaction, markers included.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// True for batches that the broker itself writes, such as transaction markers.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// The time from which compaction may drop tombstones (KIP-534), if it is known.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    /// True if the batch comes from an idempotent or transactional producer. Like Kafka, any id
    /// below 0 is none.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// CRC-32C of this head from byte 21 and of `body`.
    pub fn computed_crc(&self, body: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.encode()[CRC_START..]), body)
    }

    /// Checks the CRC; `body` must be the whole records section.
    pub fn check_crc(&self, body: &[u8]) -> Result<(), BatchError> {
        let computed = self.computed_crc(body);
        if computed == self.crc {
            return Ok(());
        }
        Err(BatchError::Crc {
            stored: self.crc,
            computed,
        })
    }

    /// Sets length and CRC to those of `body`, after fields were changed.
    pub fn seal(mut self, body: &[u8]) -> Self {
        let length = BATCH_HEADER_BYTES - LENGTH_OVERHEAD_BYTES + body.len();
        self.batch_length = i32::try_from(length).expect("a batch is far below 2 GiB");
        self.crc = self.computed_crc(body);
        self
    }

    pub(super) fn set_codec(&mut self, codec: Codec) {
        self.attributes = (self.attributes & !CODEC_MASK) | i16::from(codec.id());
    }

    pub(super) fn set_log_append_time(&mut self, now_wall_ms: i64) {
        self.attributes |= LOG_APPEND_TIME_BIT;
        self.max_timestamp = now_wall_ms;
    }

    pub(super) fn set_transactional(&mut self) {
        self.attributes |= TRANSACTIONAL_BIT;
    }

    pub(super) fn set_control(&mut self) {
        self.attributes |= CONTROL_BIT;
    }
}

/// `N` bytes at `at`; the caller checked the length.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("a slice of N bytes is an array of N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            base_offset: 0x0102_0304_0506_0708,
            batch_length: 1000,
            partition_leader_epoch: 0x1112_1314,
            crc: 0xf1f2_f3f4,
            attributes: 0x2122,
            last_offset_delta: 0x3132_3334,
            base_timestamp: 0x4142_4344_4546_4748,
            max_timestamp: 0x5152_5354_5556_5758,
            producer_id: 0x6162_6364_6566_6768,
            producer_epoch: 0x7172,
            base_sequence: 0x0182_8384,
            record_count: 0x0192_9394,
        }
    }

    #[test]
    fn fields_lie_where_kafka_has_them() {
        let bytes = header().encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0102030405060708000003e81112131402f1f2f3f42122313233344142434445464748\
             5152535455565758616263646566676871720182838401929394"
        );
        assert_eq!(Header::parse(&bytes), Ok(header()));
    }

    #[test]
    fn every_truncation_is_torn() {
        let bytes = header().encode();
        for have in 0..bytes.len() {
            assert_eq!(
                Header::parse(&bytes[..have]),
                Err(BatchError::Torn { need: 61, have })
            );
        }
    }

    #[test]
    fn other_formats_and_short_lengths_are_refused() {
        let mut bytes = header().encode();
        bytes[16] = 1;
        assert_eq!(Header::parse(&bytes[..17]), Err(BatchError::Magic(1)));
        for length in [48, 0, -1, i32::MIN] {
            let bytes = Header {
                batch_length: length,
                ..header()
            }
            .encode();
            assert_eq!(Header::parse(&bytes), Err(BatchError::Length(length)));
        }
        let empty = Header {
            batch_length: 49,
            ..header()
        };
        assert_eq!(Header::parse(&empty.encode()), Ok(empty));
        assert_eq!((empty.size_bytes(), empty.body_bytes()), (61, 0));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let last = |base_sequence, last_offset_delta| {
            Header {
                base_sequence,
                last_offset_delta,
                ..header()
            }
            .last_sequence()
        };
        assert_eq!(last(0, 0), 0);
        assert_eq!(last(5, 4), 9);
        assert_eq!(last(i32::MAX, 0), i32::MAX);
        assert_eq!(last(i32::MAX, 1), 0);
        assert_eq!(last(i32::MAX - 1, 5), 3);
        assert_eq!(last(NO_SEQUENCE, 5), NO_SEQUENCE);
    }

    #[test]
    fn attributes() {
        let with = |attributes| Header {
            attributes,
            ..header()
        };
        assert_eq!(with(4).codec(), Ok(Codec::Zstd));
        assert_eq!(with(5).codec(), Err(BatchError::UnknownCodec(5)));
        assert_eq!(with(0).timestamp_type(), TimestampType::CreateTime);
        assert_eq!(with(8).timestamp_type(), TimestampType::LogAppendTime);
        assert!(with(0x10).is_transactional() && !with(0x2f).is_transactional());
        assert!(with(0x20).is_control() && !with(0x1f).is_control());
        assert_eq!(
            with(0x40).delete_horizon_ms(),
            Some(header().base_timestamp)
        );
        assert_eq!(with(0x3f).delete_horizon_ms(), None);
    }

    #[test]
    fn offset_and_epoch_leave_the_crc_alone() {
        let sealed = header().seal(b"body");
        let mut moved = sealed;
        moved.set_base_offset(99);
        moved.set_partition_leader_epoch(7);
        assert_eq!(moved.check_crc(b"body"), Ok(()));
        assert_eq!(moved.size_bytes(), 65);
        assert!(moved.check_crc(b"bodi").is_err());
        assert!(
            Header {
                max_timestamp: 1,
                ..sealed
            }
            .check_crc(b"body")
            .is_err()
        );
    }
}
