//! How the client reaches a broker: [`Connector`] opens a [`Stream`], and that is all the rest of
//! the client knows about sockets. [`Tcp`] is the implementation on tokio; io_uring and the
//! scripted brokers of the tests are others.
//!
//! Buffers travel by ownership, because io_uring keeps them while the kernel works on them, and
//! both methods of a stream take `&self`, because reading and writing overlap.

use std::future::Future;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

/// Opens connections. A clone opens the same kind.
pub trait Connector: Clone + 'static {
    /// What it opens.
    type Stream: Stream;

    /// Connects to `address` ("host:port").
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Self::Stream>>;
}

/// One open connection; dropping it closes it.
pub trait Stream: 'static {
    /// Reads into the spare capacity behind the contents of `buffer`, of which the caller leaves
    /// some. Gives back the buffer and how many bytes came; 0 is the end of the stream. At most
    /// one read is under way at a time.
    fn read(&self, buffer: BytesMut) -> impl Future<Output = (io::Result<usize>, BytesMut)>;

    /// Writes all of `bytes`. At most one write is under way at a time.
    fn write_all(&self, bytes: Bytes) -> impl Future<Output = io::Result<()>>;
}

/// TCP by tokio.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Connector for Tcp {
    type Stream = TcpStream;

    async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        // Requests are whole messages: waiting for more bytes to fill a packet only adds latency.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Stream for TcpStream {
    async fn read(&self, mut buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        loop {
            if let Err(error) = self.readable().await {
                return (Err(error), buffer);
            }
            match self.try_read_buf(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return (result, buffer),
            }
        }
    }

    async fn write_all(&self, bytes: Bytes) -> io::Result<()> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.writable().await?;
            match self.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
