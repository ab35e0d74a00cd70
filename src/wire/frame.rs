//! Frames and headers: what stands around every request and response.
//!
//! A frame is a 4-byte size and that many bytes. A request starts with a header that names API,
//! version and correlation id; a response only repeats the correlation id. The form of a header
//! follows from the API's first flexible version, with two exceptions that Kafka made so that
//! strangers can talk: the client id is never compact, and the response to ApiVersions never has
//! tagged fields.
//!
//! Invariant: a frame is handed out only when all of it is here, and the size a peer names reserves
//! nothing. A response that no frame can hold is an error and no panic: what it holds is the peer's
//! choice.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use std::cell::Cell;
use std::fmt;

use super::messages::api_versions::ApiVersionsRequest;
use super::messages::flexible_from;
use super::writer::TaggedFields;
use super::{Malformed, Message, Reader, Request, Writer};

thread_local! {
    /// Memory of the next frames of this thread; no contents.
    static BLOCK: Cell<BytesMut> = Cell::default();
}

/// Room that most frames need; a larger one grows on its own.
const FRAME_BYTES_MIN: usize = 512;

/// Size of a block.
const BLOCK_BYTES: usize = 16 * 1024;

/// Bytes of the size in front of a frame.
const SIZE_BYTES: usize = 4;

/// A message that no frame can hold: its size is a number below 2 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message is larger than 2 GiB")
    }
}

impl std::error::Error for TooLarge {}

/// What every request starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Which API.
    pub api_key: i16,
    /// Version of header, request and response.
    pub api_version: i16,
    /// Chosen by the client, repeated in the response.
    pub correlation_id: i32,
    /// Name the client gives itself, for logs and quotas.
    pub client_id: Option<ByteString>,
}

impl RequestHeader {
    /// Takes the header off the front of a frame. The version is not checked here: an ApiVersions
    /// request of any version must get its answer (KIP-511), and its header has had the same form
    /// ever since.
    ///
    /// # Errors
    /// The key is not one of ours (Kafka closes the connection too), or the header is cut off.
    pub fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let api_key = i16::from_be_bytes(reader.array()?);
        let api_version = i16::from_be_bytes(reader.array()?);
        let correlation_id = i32::from_be_bytes(reader.array()?);
        let flexible_from = flexible_from(api_key).ok_or(Malformed("unknown api key"))?;
        let client_id = match reader.string_length(false)? {
            Some(length) => Some(reader.byte_string(length)?),
            None => None,
        };
        if api_version >= flexible_from {
            reader.tagged_fields(|_, _| Ok(false))?;
        }
        Ok(Self {
            api_key,
            api_version,
            correlation_id,
            client_id,
        })
    }

    /// Appends the header in the form that goes with its key and version.
    pub fn encode(&self, writer: &mut Writer) {
        writer.bytes.put_i16(self.api_key);
        writer.bytes.put_i16(self.api_version);
        writer.bytes.put_i32(self.correlation_id);
        writer.string(self.client_id.as_deref(), false);
        if flexible_from(self.api_key).is_some_and(|from| self.api_version >= from) {
            writer.tagged_fields(&TaggedFields::default());
        }
    }
}

/// Takes the next frame, without its size, off a receive buffer; `None` until all of it is there.
/// The frame shares the buffer's memory.
///
/// # Errors
/// The size is negative or above `frame_bytes_max`.
pub fn split_frame(
    buffer: &mut BytesMut,
    frame_bytes_max: usize,
) -> Result<Option<Bytes>, Malformed> {
    let Some(size) = buffer.first_chunk::<SIZE_BYTES>() else {
        return Ok(None);
    };
    let size = usize::try_from(i32::from_be_bytes(*size))
        .ok()
        .filter(|size| *size <= frame_bytes_max)
        .ok_or(Malformed("frame size out of range"))?;
    if buffer.len() - SIZE_BYTES < size {
        return Ok(None);
    }
    buffer.advance(SIZE_BYTES);
    Ok(Some(buffer.split_to(size).freeze()))
}

/// A whole response frame: size, header, body. The size counts the gaps.
///
/// # Errors
/// The response is too large for any frame.
pub fn encode_response<M: Message>(
    correlation_id: i32,
    api_key: i16,
    version: i16,
    response: &M,
) -> Result<Writer, TooLarge> {
    frame(|writer| {
        writer.bytes.put_i32(correlation_id);
        if has_tagged_response_header(api_key, version) {
            writer.tagged_fields(&TaggedFields::default());
        }
        response.encode(writer, version);
    })
}

/// A whole request frame: size, header, body.
pub fn encode_request<R: Request>(
    correlation_id: i32,
    version: i16,
    client_id: Option<ByteString>,
    request: &R,
) -> Writer {
    let header = RequestHeader {
        api_key: R::KEY,
        api_version: version,
        correlation_id,
        client_id,
    };
    frame(|writer| {
        header.encode(writer);
        request.encode(writer, version);
    })
    .expect("a client of ours sends nothing that is larger than its own memory bounds allow")
}

/// Takes the header off the front of a response frame and returns its correlation id. Key and
/// version are those of the request, which the client must remember.
///
/// # Errors
/// The header is cut off.
pub fn decode_response_header(
    reader: &mut Reader,
    api_key: i16,
    version: i16,
) -> Result<i32, Malformed> {
    let correlation_id = i32::from_be_bytes(reader.array()?);
    if has_tagged_response_header(api_key, version) {
        reader.tagged_fields(|_, _| Ok(false))?;
    }
    Ok(correlation_id)
}

fn has_tagged_response_header(api_key: i16, version: i16) -> bool {
    api_key != ApiVersionsRequest::KEY && flexible_from(api_key).is_some_and(|from| version >= from)
}

/// Puts the size in front of what `encode` writes.
fn frame(encode: impl FnOnce(&mut Writer)) -> Result<Writer, TooLarge> {
    // Frames are cut off one block, which serves again once the frames before are gone.
    let mut block = BLOCK.take();
    if block.capacity() < FRAME_BYTES_MIN {
        block.reserve(BLOCK_BYTES);
    }
    let mut writer = Writer {
        bytes: block,
        gaps: Vec::new(),
    };
    writer.bytes.put_bytes(0, SIZE_BYTES);
    encode(&mut writer);
    let size = i32::try_from(writer.wire_bytes() - SIZE_BYTES).map_err(|_| TooLarge)?;
    writer.bytes[..SIZE_BYTES].copy_from_slice(&size.to_be_bytes());
    let frame = writer.bytes.split();
    BLOCK.set(std::mem::replace(&mut writer.bytes, frame));
    Ok(writer)
}
