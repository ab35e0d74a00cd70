//! What each operation of the log can say, and which [`ErrorCode`] a client is told.

use crate::base::{ErrorCode, Offset};
use crate::batch::{BatchError, RecordError};
use std::{fmt, io};

/// Why a log cannot be opened. The partition stays offline; nothing was lost by us.
#[derive(Debug)]
pub enum OpenError {
    /// The disk refused an operation.
    Io(io::Error),
    /// The directory's contents contradict what was once durable; says what and how to go on.
    Refused(String),
    /// The files are those of an earlier topic of the same name: a crash came between the deletion
    /// of the topic and that of its files.
    EarlierTopic,
    /// The files do not tell whose they are: a crash came before anything in them was durable.
    NeverDurable,
}

/// Why a batch was not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The log's disk failed before; see [`super::Log::poison`].
    Poisoned(String),
    /// The disk has no room for what was appended before; see [`super::Log::stalled`].
    Stalled(String),
    /// The batch itself is at fault.
    Batch(BatchError),
    /// Larger than a whole segment may be.
    SegmentSize {
        /// Size of the batch in bytes.
        size_bytes: u64,
        /// `segment.bytes`.
        segment_bytes: u64,
    },
    /// The producer's sequence does not follow its last one (KIP-98).
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// First sequence of the refused batch.
        sequence: i32,
        /// Last sequence in the log; -1 if the batch starts a new epoch.
        last_sequence: i32,
    },
    /// A newer instance of the producer has written already.
    InvalidProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// Epoch of the refused batch.
        producer_epoch: i16,
        /// Newest epoch in the log.
        current_epoch: i16,
    },
    /// No offsets are left.
    OffsetsExhausted,
}

/// Why a read, a lookup or a deletion of records failed.
#[derive(Debug)]
pub enum ReadError {
    /// The log's disk failed before; see [`super::Log::poison`].
    Poisoned(String),
    /// Below the log start offset or above the end.
    OffsetOutOfRange {
        /// What was asked for.
        offset: Offset,
        /// First offset there is.
        offset_first: Offset,
        /// First offset that is not there.
        offset_end: Offset,
    },
    /// The disk refused an operation.
    Io(io::Error),
    /// A stored batch cannot be read.
    Corrupt(String),
}

impl AppendError {
    /// What the client is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Poisoned(_) | Self::Stalled(_) => ErrorCode::KafkaStorageError,
            Self::Batch(error) => error.code(),
            Self::SegmentSize { .. } => ErrorCode::RecordListTooLarge,
            Self::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
            Self::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            Self::OffsetsExhausted => ErrorCode::KafkaStorageError,
        }
    }

    /// The refused records, empty if the fault is the batch's.
    pub fn record_errors(&self) -> &[RecordError] {
        match self {
            Self::Batch(error) => error.record_errors(),
            _ => &[],
        }
    }
}

impl ReadError {
    /// What the client is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::Corrupt(_) => ErrorCode::CorruptMessage,
            Self::Poisoned(_) | Self::Io(_) => ErrorCode::KafkaStorageError,
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<BatchError> for AppendError {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Refused(why) => f.write_str(why),
            Self::EarlierTopic => f.write_str("the files are those of an earlier topic"),
            Self::NeverDurable => f.write_str("the files do not tell whose they are"),
        }
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poisoned(why) => write!(f, "the log is offline: {why}"),
            Self::Stalled(why) => write!(f, "the log cannot grow: {why}"),
            Self::Batch(error) => error.fmt(f),
            Self::SegmentSize {
                size_bytes,
                segment_bytes,
            } => write!(
                f,
                "the batch has {size_bytes} bytes, a segment may have {segment_bytes}"
            ),
            Self::OutOfOrderSequence {
                producer_id,
                sequence,
                last_sequence,
            } => write!(
                f,
                "out of order sequence number for producer {producer_id}: {sequence} (incoming), \
                 {last_sequence} (last)"
            ),
            Self::InvalidProducerEpoch {
                producer_id,
                producer_epoch,
                current_epoch,
            } => write!(
                f,
                "epoch {producer_epoch} of producer {producer_id} is older than {current_epoch}"
            ),
            Self::OffsetsExhausted => f.write_str("the partition has no offsets left"),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poisoned(why) => write!(f, "the log is offline: {why}"),
            Self::OffsetOutOfRange {
                offset,
                offset_first,
                offset_end,
            } => write!(
                f,
                "offset {offset} is outside of [{offset_first}, {offset_end}]"
            ),
            Self::Io(error) => error.fmt(f),
            Self::Corrupt(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for OpenError {}
impl std::error::Error for AppendError {}
impl std::error::Error for ReadError {}
