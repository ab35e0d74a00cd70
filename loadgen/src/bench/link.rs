//! One connection of the bench and its receive buffer. Knows frames and nothing inside them, but
//! for [`Link::call`], which sends one request and waits for its answer.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use forebay::client::transport::{Connector, Stream};
use forebay::wire::{Malformed, Message, Reader, Request, frame};

use crate::failure::Failure;
use crate::transport::{Socket, Transport};

/// The name by which brokers know the load.
pub const CLIENT_ID: ByteString = ByteString::from_static("loadgen");
/// No answer of a sane broker is larger: fetches are bounded by what they ask for.
const FRAME_BYTES_MAX: usize = (1 << 30) + (64 << 20);

/// An open connection.
pub struct Link {
    socket: Socket,
    address: String,
}

/// What a connection has received and nobody has looked at yet. The memory is used again and
/// again.
#[derive(Default)]
pub struct Inbox(BytesMut);

impl Link {
    /// Connects to `address`, "host:port".
    ///
    /// # Errors
    /// If nobody accepts there.
    pub async fn open(transport: Transport, address: &str) -> Result<Self, Failure> {
        match transport.connect(address).await {
            Ok(socket) => Ok(Self {
                socket,
                address: address.to_owned(),
            }),
            Err(error) => Err(Failure::Reason(format!(
                "cannot connect to {address}: {error}"
            ))),
        }
    }

    /// The failure of a broker that did what `why` says.
    pub fn failure(&self, why: impl std::fmt::Display) -> Failure {
        Failure::Reason(format!("the broker at {} {why}", self.address))
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn write(&self, bytes: Bytes) -> Result<(), Failure> {
        let written = self.socket.write_all(bytes).await;
        written.map_err(|error| self.failure(format_args!("does not take a request: {error}")))
    }

    /// Waits for more bytes, for which `inbox` gets room of `room` bytes.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn read(&self, inbox: &mut Inbox, room: usize) -> Result<(), Failure> {
        let mut buffer = std::mem::take(&mut inbox.0);
        buffer.reserve(room);
        let (result, buffer) = self.socket.read(buffer).await;
        inbox.0 = buffer;
        match result {
            Ok(0) => Err(self.failure("closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(self.failure(format_args!("is gone: {error}"))),
        }
    }

    /// The next frame that is here as a whole.
    ///
    /// # Errors
    /// If its size cannot be.
    pub fn split(&self, inbox: &mut Inbox) -> Result<Option<Bytes>, Failure> {
        frame::split_frame(&mut inbox.0, FRAME_BYTES_MAX).map_err(|error| self.unreadable(error))
    }

    /// Waits for the next frame; `room` as for [`Link::read`], more where the frame is larger.
    ///
    /// # Errors
    /// If the connection is gone, or the frame's size cannot be.
    pub async fn frame(&self, inbox: &mut Inbox, room: usize) -> Result<Bytes, Failure> {
        loop {
            if let Some(frame) = self.split(inbox)? {
                return Ok(frame);
            }
            self.read(inbox, room).await?;
        }
    }

    /// Sends one request and waits for its answer; nothing else may be under way.
    ///
    /// # Errors
    /// If the connection is gone, or the answer is not one to this request.
    pub async fn call<R: Request>(
        &self,
        inbox: &mut Inbox,
        room: usize,
        correlation_id: i32,
        version: i16,
        request: &R,
    ) -> Result<R::Response, Failure> {
        let request = frame::encode_request(correlation_id, version, Some(CLIENT_ID), request);
        self.write(request.bytes.freeze()).await?;
        let frame = self.frame(inbox, room).await?;
        self.decode::<R>(frame, correlation_id, version)
    }

    /// Takes an answer apart.
    ///
    /// # Errors
    /// If it is not one to the request with this id.
    pub fn decode<R: Request>(
        &self,
        frame: Bytes,
        correlation_id: i32,
        version: i16,
    ) -> Result<R::Response, Failure> {
        let mut reader = Reader::new(frame);
        let decoded = frame::decode_response_header(&mut reader, R::KEY, version).and_then(|id| {
            match id == correlation_id {
                true => R::Response::decode(&mut reader, version),
                false => Err(Malformed("it belongs to another request")),
            }
        });
        decoded.map_err(|error| self.unreadable(error))
    }

    fn unreadable(&self, error: Malformed) -> Failure {
        self.failure(format_args!("sent an answer that cannot be used: {error}"))
    }
}
