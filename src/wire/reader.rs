//! Takes primitive values off the front of a frame. Knows lengths and their bounds, no messages.
//!
//! Invariant: never reads past `end`. What a message takes in memory is bounded by the size of its
//! frame, whatever counts it claims: see [`Reader::charge`].

use bytes::Bytes;
use bytestring::ByteString;

use super::Malformed;
use crate::base::limits;

/// Longest string on the wire in bytes, in compact form too. Kafka: `Short.MAX_VALUE`.
pub(super) const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// A cursor over a frame. Byte strings it returns are slices that share the frame's memory.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
    position: usize,
    /// Exclusive; short of `bytes.len()` only inside a tagged field.
    end: usize,
    /// Bytes that array elements may still take in memory.
    memory: usize,
}

impl Reader {
    /// Starts at the first byte.
    pub fn new(bytes: Bytes) -> Self {
        let end = bytes.len();
        Self {
            bytes,
            position: 0,
            end,
            memory: end
                .saturating_mul(limits::DECODED_BYTES_RATIO_MAX)
                .saturating_add(limits::DECODED_BYTES_FREE),
        }
    }

    /// The same for a request: its arrays take no more than
    /// [`limits::DECODED_REQUEST_BYTES_MAX`], however large its frame is.
    pub fn of_request(bytes: Bytes) -> Self {
        let reader = Self::new(bytes);
        Self {
            memory: reader.memory.min(limits::DECODED_REQUEST_BYTES_MAX),
            ..reader
        }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// The rest, as a slice of the frame.
    pub fn into_rest(self) -> Bytes {
        self.bytes.slice(self.position..self.end)
    }

    /// The next `N` bytes, for big-endian numbers.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let rest = &self.bytes[self.position..self.end];
        let array = *rest.first_chunk::<N>().ok_or(Malformed("cut off"))?;
        self.position += N;
        Ok(array)
    }

    /// The next `length` bytes, shared with the frame.
    pub(super) fn slice(&mut self, length: usize) -> Result<Bytes, Malformed> {
        let range = self.advance(length)?;
        Ok(self.bytes.slice(range))
    }

    /// The next `length` bytes as text, copied.
    pub(super) fn string(&mut self, length: usize) -> Result<String, Malformed> {
        let range = self.advance(length)?;
        let text = str::from_utf8(&self.bytes[range]).map_err(|_| Malformed("not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// The next `length` bytes as text, shared with the frame.
    pub(super) fn byte_string(&mut self, length: usize) -> Result<ByteString, Malformed> {
        let bytes = self.slice(length)?;
        ByteString::try_from(bytes).map_err(|_| Malformed("not UTF-8"))
    }

    /// An unsigned number of 7 bits per byte, lowest first; at most 5 bytes.
    pub(super) fn uvarint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("varint longer than 32 bits"))
    }

    /// Length of a byte string or array, `None` for null: int32, or compact (length + 1).
    pub(super) fn length(&mut self, flexible: bool) -> Result<Option<usize>, Malformed> {
        if flexible {
            return Ok(self.uvarint()?.checked_sub(1).map(|length| length as usize));
        }
        to_length(i32::from_be_bytes(self.array()?))
    }

    /// Length of a string in bytes, `None` for null: int16, or compact (length + 1).
    pub(super) fn string_length(&mut self, flexible: bool) -> Result<Option<usize>, Malformed> {
        if !flexible {
            return to_length(i16::from_be_bytes(self.array()?).into());
        }
        let length = self.length(true)?;
        if length.is_some_and(|length| length > STRING_BYTES_MAX) {
            return Err(Malformed("string too long"));
        }
        Ok(length)
    }

    /// Reads the tagged fields of one struct. `known` gets each tag with a reader that ends with
    /// the field, and says whether it knows the tag; unknown ones are skipped without a copy.
    pub(super) fn tagged_fields(
        &mut self,
        mut known: impl FnMut(u32, &mut Self) -> Result<bool, Malformed>,
    ) -> Result<(), Malformed> {
        let count = self.uvarint()? as usize;
        if count > limits::TAGGED_FIELDS_MAX {
            return Err(Malformed("too many tagged fields"));
        }
        for _ in 0..count {
            let tag = self.uvarint()?;
            let length = self.uvarint()? as usize;
            if length > self.remaining() {
                return Err(Malformed("cut off"));
            }
            let end = std::mem::replace(&mut self.end, self.position + length);
            if !known(tag, self)? {
                self.position = self.end;
            }
            if self.remaining() > 0 {
                return Err(Malformed("tagged field longer than its value"));
            }
            self.end = end;
        }
        Ok(())
    }

    /// Takes the elements of an array out of the frame's allowance. An empty string is one byte in
    /// a
    /// frame and 24 in memory: without a bound 100 MiB of them would become several GiB.
    pub(super) fn charge(&mut self, count: usize, element_bytes: usize) -> Result<(), Malformed> {
        let left = count
            .checked_mul(element_bytes)
            .and_then(|bytes| self.memory.checked_sub(bytes));
        self.memory = left.ok_or(Malformed("too many elements for its size"))?;
        Ok(())
    }

    /// Steps over `length` bytes and returns where they were.
    fn advance(&mut self, length: usize) -> Result<std::ops::Range<usize>, Malformed> {
        if length > self.remaining() {
            return Err(Malformed("cut off"));
        }
        let start = self.position;
        self.position += length;
        Ok(start..self.position)
    }
}

/// -1 is null; Kafka never writes another negative length.
fn to_length(length: i32) -> Result<Option<usize>, Malformed> {
    match length {
        -1 => Ok(None),
        _ => usize::try_from(length)
            .map(Some)
            .map_err(|_| Malformed("negative length")),
    }
}
