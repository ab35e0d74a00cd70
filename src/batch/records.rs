//! Reading: the batches of a buffer, and the records of a batch as slices of that buffer (or of
//! its decompressed section). Every length is checked against the bytes that are there.

use std::ops::Range;

use bytes::Bytes;

use super::{BatchError, Codec, Header, TimestampType, decompress, varint};
use crate::base::Offset;
use crate::base::limits::BATCH_HEADER_BYTES;

/// One record; its parts share the batch's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Place in the partition.
    pub offset: Offset,
    /// Milliseconds since the epoch: the producer's time, or that of the append.
    pub timestamp: i64,
    /// The key, if there is one.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone on a compacted topic.
    pub value: Option<Bytes>,
    /// Headers in their order; names are UTF-8 by convention, and can repeat.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// The records of one batch, in order. Ends after the first error.
#[derive(Debug)]
pub struct Records {
    header: Header,
    section: Bytes,
    position: usize,
    remaining: i32,
}

/// The batches of a buffer, in order. A batch that is cut off at the end of the buffer, as fetch
/// responses have it, ends the iteration; any other fault is an error and the last item.
#[derive(Debug)]
pub struct Batches {
    rest: Bytes,
}

/// Where the parts of one encoded record lie in its section.
#[derive(Debug)]
pub(super) struct Layout {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<Range<usize>>,
    pub value: Option<Range<usize>>,
    header_count: i32,
    headers_start: usize,
}

/// The records of a batch whose section is `body`. A compressed section is decompressed at once,
/// into at most `output_bytes_max` bytes.
///
/// Errors: those of [`Header::codec`] and [`decompress`]; the items have [`BatchError::Malformed`].
pub fn records(
    header: &Header,
    body: &Bytes,
    output_bytes_max: usize,
) -> Result<Records, BatchError> {
    let section = match header.codec()? {
        Codec::None => body.clone(),
        codec => decompress(codec, body, output_bytes_max)?.into(),
    };
    Ok(Records {
        header: *header,
        section,
        position: 0,
        remaining: header.record_count,
    })
}

/// The batches of `bytes`, each as head and records section. The CRC is not checked.
pub fn batches(bytes: Bytes) -> Batches {
    Batches { rest: bytes }
}

impl Records {
    /// Reads the next record; the outer `None` is the proper end of the section.
    fn read_next(&mut self) -> Result<Option<Record>, BatchError> {
        if self.remaining <= 0 {
            if self.position < self.section.len() {
                return Err(BatchError::Malformed("bytes follow the last record"));
            }
            return Ok(None);
        }
        let layout = Layout::read(&self.section, &mut self.position)?;
        self.remaining -= 1;
        if !(0..=self.header.last_offset_delta).contains(&layout.offset_delta) {
            return Err(BatchError::Malformed(
                "an offset delta is outside of the batch",
            ));
        }
        let mut headers = Vec::new();
        let mut position = layout.headers_start;
        for _ in 0..layout.header_count {
            let (name, value) = read_header(&self.section, &mut position)?;
            headers.push((
                self.section.slice(name),
                value.map(|value| self.section.slice(value)),
            ));
        }
        Ok(Some(Record {
            offset: self
                .header
                .base_offset
                .saturating_add(i64::from(layout.offset_delta)),
            timestamp: timestamp(&self.header, &layout),
            key: layout.key.map(|key| self.section.slice(key)),
            value: layout.value.map(|value| self.section.slice(value)),
            headers,
        }))
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.read_next();
        if item.is_err() {
            self.remaining = 0;
            self.position = self.section.len();
        }
        item.transpose()
    }
}

impl Iterator for Batches {
    type Item = Result<(Header, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        match Header::parse(&self.rest) {
            Ok(header) if header.size_bytes() <= self.rest.len() => {
                let mut batch = self.rest.split_to(header.size_bytes());
                Some(Ok((header, batch.split_off(BATCH_HEADER_BYTES))))
            }
            Ok(_) | Err(BatchError::Torn { .. }) => None,
            Err(error) => {
                self.rest.clear();
                Some(Err(error))
            }
        }
    }
}

impl Layout {
    /// Walks over one record at `*position`, with all its lengths checked, without copying.
    pub fn read(section: &[u8], position: &mut usize) -> Result<Self, BatchError> {
        let length = varint::read_int(section, position)?;
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| position.checked_add(length))
            .filter(|end| *end <= section.len())
            .ok_or(BatchError::Malformed(
                "a record reaches past the end of its batch",
            ))?;
        let section = &section[..end];
        // Record attributes are unused in format 2; Kafka ignores them as well.
        if *position == end {
            return Err(BatchError::Malformed("a record has no content"));
        }
        *position += 1;
        let timestamp_delta = varint::read(section, position)?;
        let offset_delta = varint::read_int(section, position)?;
        let key = read_range(section, position)?;
        let value = read_range(section, position)?;
        let header_count = varint::read_int(section, position)?;
        if header_count < 0 {
            return Err(BatchError::Malformed(
                "a record has a negative number of headers",
            ));
        }
        let headers_start = *position;
        for _ in 0..header_count {
            read_header(section, position)?;
        }
        if *position != end {
            return Err(BatchError::Malformed("a record is longer than its parts"));
        }
        Ok(Self {
            timestamp_delta,
            offset_delta,
            key,
            value,
            header_count,
            headers_start,
        })
    }
}

/// The time of a record, by the timestamp type of its batch.
pub(super) fn timestamp(header: &Header, layout: &Layout) -> i64 {
    match header.timestamp_type() {
        TimestampType::CreateTime => header.base_timestamp.wrapping_add(layout.timestamp_delta),
        TimestampType::LogAppendTime => header.max_timestamp,
    }
}

type HeaderRanges = (Range<usize>, Option<Range<usize>>);

fn read_header(section: &[u8], position: &mut usize) -> Result<HeaderRanges, BatchError> {
    let name = read_range(section, position)?
        .ok_or(BatchError::Malformed("the name of a record header is null"))?;
    Ok((name, read_range(section, position)?))
}

/// A length and that many bytes. Kafka reads any negative length as null, and so stores them.
fn read_range(section: &[u8], position: &mut usize) -> Result<Option<Range<usize>>, BatchError> {
    let Ok(length) = usize::try_from(varint::read_int(section, position)?) else {
        return Ok(None);
    };
    let start = *position;
    let end = start
        .checked_add(length)
        .filter(|end| *end <= section.len())
        .ok_or(BatchError::Malformed(
            "a field reaches past the end of its record",
        ))?;
    *position = end;
    Ok(Some(start..end))
}
