//! Reading stored batches one after the other: heads only, or with their CRC. Reads in blocks and
//! never allocates by a length that a file states.

use super::files::read_range;
use crate::base::dir::Dir;
use crate::base::limits::BATCH_HEADER_BYTES;
use crate::batch::{BatchError, Header};
use bytes::Bytes;
use std::io;

/// Bytes read at once when only heads are wanted.
const HEAD_BLOCK_BYTES: u64 = 4096;
/// Bytes read at once when all is wanted.
const SCAN_BLOCK_BYTES: u64 = 256 * 1024;

/// Why a batch cannot be read.
#[derive(Debug)]
pub(super) enum WalkError {
    /// The disk refused to read.
    Io(io::Error),
    /// The bytes are no batch, or a torn one.
    Invalid(String),
}

/// A cursor over the batches of one file, up to `end`.
pub(super) struct Walk<'a> {
    dir: &'a mut dyn Dir,
    file: &'a str,
    position: u64,
    end: u64,
    block_bytes: u64,
    block: Vec<u8>,
    block_position: u64,
}

impl From<io::Error> for WalkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<BatchError> for WalkError {
    fn from(error: BatchError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl<'a> Walk<'a> {
    /// Starts at a batch boundary; only whole batches up to `end` are seen.
    pub fn heads(dir: &'a mut dyn Dir, file: &'a str, position: u64, end: u64) -> Self {
        Self {
            dir,
            file,
            position,
            end,
            block_bytes: HEAD_BLOCK_BYTES,
            block: Vec::new(),
            block_position: 0,
        }
    }

    /// The same with large blocks, for [`Walk::check_crc`] on every batch.
    pub fn scan(dir: &'a mut dyn Dir, file: &'a str, position: u64, end: u64) -> Self {
        Self {
            block_bytes: SCAN_BLOCK_BYTES,
            ..Self::heads(dir, file, position, end)
        }
    }

    /// Where the next batch begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next batch's position and head; `None` at the end. The batch is whole, its offsets make
    /// sense, its CRC is not checked.
    pub fn next(&mut self) -> Result<Option<(u64, Header)>, WalkError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let header = Header::parse(self.bytes(position, BATCH_HEADER_BYTES as u64)?)?;
        let size = header.size_bytes() as u64;
        let left = self.end - position;
        if size > left {
            return Err(WalkError::Invalid(format!(
                "the batch needs {size} bytes, {left} are there"
            )));
        }
        if header.base_offset < 0 || header.last_offset_delta < 0 {
            return Err(WalkError::Invalid(
                "the batch has impossible offsets".into(),
            ));
        }
        self.position += size;
        Ok(Some((position, header)))
    }

    /// Checks the CRC of a batch that [`Walk::next`] gave.
    pub fn check_crc(&mut self, position: u64, header: &Header) -> Result<(), WalkError> {
        let end = position + header.size_bytes() as u64;
        let mut at = position + BATCH_HEADER_BYTES as u64;
        let mut crc = header.computed_crc(&[]);
        while at < end {
            let chunk = self.bytes(at, end - at)?;
            if chunk.is_empty() {
                return Err(WalkError::Invalid("the file is shorter than it was".into()));
            }
            crc = crc32c::crc32c_append(crc, chunk);
            at += chunk.len() as u64;
        }
        if crc == header.crc {
            return Ok(());
        }
        Err(WalkError::Invalid(
            BatchError::Crc {
                stored: header.crc,
                computed: crc,
            }
            .to_string(),
        ))
    }

    /// The records section of a batch that [`Walk::next`] gave.
    pub fn body(&mut self, position: u64, header: &Header) -> Result<Bytes, WalkError> {
        // The batch was found to lie within the file, so its size is no mere claim.
        let start = position + BATCH_HEADER_BYTES as u64;
        let body = read_range(self.dir, self.file, start, header.body_bytes() as u64)?;
        let body = Bytes::from(body);
        header.check_crc(&body)?;
        Ok(body)
    }

    /// Up to `want` bytes at `position`, at most a block; empty at the end of the file.
    fn bytes(&mut self, position: u64, want: u64) -> Result<&[u8], WalkError> {
        let want = want.min(self.block_bytes).min(self.end - position);
        let held = self.block_position + self.block.len() as u64;
        let starts_in_block = (self.block_position..held).contains(&position);
        // Rather a short chunk than reading bytes twice, unless it is a head.
        let enough = held.saturating_sub(position) >= want.min(BATCH_HEADER_BYTES as u64);
        if !starts_in_block || !enough {
            let length = self.block_bytes.min(self.end - position);
            self.block = read_range(self.dir, self.file, position, length)?;
            self.block_position = position;
        }
        let start = (position - self.block_position) as usize;
        let end = (start + want as usize).min(self.block.len());
        Ok(self.block.get(start..end).unwrap_or_default())
    }
}
