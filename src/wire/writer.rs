//! Appends primitive values to a buffer, and notes the holes that somebody else fills.
//!
//! Invariant: a gap's bytes are counted in every length written around it, but are not in `bytes`.

use bytes::{BufMut, BytesMut};

use super::reader::STRING_BYTES_MAX;

/// A hole in a message: `length` bytes that come from elsewhere (a file, by sendfile).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Bytes of [`Writer::bytes`] that go out before the hole.
    pub position: usize,
    /// Whatever the encoder of the message wants to find again.
    pub tag: u32,
    /// Size of the hole in bytes.
    pub length: u32,
}

/// Where messages are encoded to.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    /// What was encoded so far, gaps left out.
    pub bytes: BytesMut,
    /// The holes, by ascending position.
    pub gaps: Vec<Gap>,
}

impl Writer {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that go over the wire: those here and those of the gaps.
    pub fn wire_bytes(&self) -> usize {
        let gaps: usize = self.gaps.iter().map(|gap| gap.length as usize).sum();
        self.bytes.len() + gaps
    }

    /// An unsigned number of 7 bits per byte, lowest first.
    pub(super) fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.put_u8(value as u8);
    }

    /// Length of a byte string or array, `None` for null.
    pub(super) fn length(&mut self, length: Option<usize>, flexible: bool) {
        let length = length.map(|n| i32::try_from(n).expect("a message is smaller than 2 GiB"));
        match length {
            Some(n) if flexible => self.uvarint(n as u32 + 1),
            None if flexible => self.uvarint(0),
            Some(n) => self.bytes.put_i32(n),
            None => self.bytes.put_i32(-1),
        }
    }

    /// A string or null. Text longer than the wire allows (32,767 bytes) is cut at a character:
    /// names that long never get in, so this can only hit an error message that quotes one.
    pub(super) fn string(&mut self, text: Option<&str>, flexible: bool) {
        let text = text.map(cut);
        match text {
            _ if flexible => self.length(text.map(str::len), true),
            Some(text) => self.bytes.put_i16(text.len() as i16),
            None => self.bytes.put_i16(-1),
        }
        self.bytes.put_slice(text.unwrap_or_default().as_bytes());
    }

    /// Leaves room for `length` bytes right here.
    pub(super) fn leave_gap(&mut self, tag: u32, length: u32) {
        self.gaps.push(Gap {
            position: self.bytes.len(),
            tag,
            length,
        });
    }

    /// The tagged fields that a struct ends with.
    pub(super) fn tagged_fields(&mut self, fields: &TaggedFields) {
        self.uvarint(fields.count);
        self.bytes.put_slice(&fields.encoded.bytes);
    }
}

/// Collects tagged fields, whose number must be written before them.
#[derive(Default)]
pub(super) struct TaggedFields {
    count: u32,
    encoded: Writer,
}

impl TaggedFields {
    /// Adds a field; tags must ascend.
    pub(super) fn add(&mut self, tag: u32, write: impl FnOnce(&mut Writer)) {
        let mut field = Writer::new();
        write(&mut field);
        debug_assert!(field.gaps.is_empty(), "records are never tagged");
        self.count += 1;
        self.encoded.uvarint(tag);
        self.encoded.uvarint(field.bytes.len() as u32);
        self.encoded.bytes.put_slice(&field.bytes);
    }
}

/// As much of a text as the wire allows, in whole characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(STRING_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
