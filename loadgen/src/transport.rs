//! How the load reaches the broker: the Kafka client's sockets on io_uring (`tokio-uring`), or on
//! plain tokio where the kernel does not let us have a ring.
//!
//! The runtime and the sockets belong together: [`Runtime::block_on`] drives both on one thread,
//! and [`Transport`] opens sockets of the kind it drives.

use std::io;
use std::net::Shutdown;

use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use forebay::client::Tcp;
use forebay::client::transport::{Connector, Stream};
use serde::Serialize;
use tokio::net::lookup_host;
use tokio::task::LocalSet;
use tokio_uring::buf::BoundedBuf;

use crate::failure::Failure;

/// Operations the ring has room for between two turns.
const RING_ENTRIES: u32 = 1_024;

/// What `--client-io` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientIo {
    /// io_uring where the kernel permits it, otherwise tokio, and say so.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// tokio's epoll.
    Tokio,
}

/// Drives the client's tasks on the calling thread.
pub enum Runtime {
    /// On a ring.
    Uring(tokio_uring::Runtime),
    /// On epoll.
    Tokio(tokio::runtime::Runtime, LocalSet),
}

impl Runtime {
    /// Sets a runtime up; the text says what became of a wish that could not be granted.
    ///
    /// # Errors
    /// If io_uring was demanded and is not to be had.
    pub fn new(wish: ClientIo) -> Result<(Self, Option<String>), Failure> {
        if wish == ClientIo::Tokio {
            return Ok((Self::on_epoll()?, None));
        }
        let mut ring = tokio_uring::uring_builder();
        // One thread, which looks for completions when it has nothing else to do.
        ring.setup_coop_taskrun();
        let mut builder = tokio_uring::builder();
        builder.entries(RING_ENTRIES).uring_builder(&ring);
        match tokio_uring::Runtime::new(&builder) {
            Ok(runtime) => Ok((Self::Uring(runtime), None)),
            Err(error) if wish == ClientIo::Auto => {
                let word = format!("the load runs on epoll, as io_uring is not to be had: {error}");
                Ok((Self::on_epoll()?, Some(word)))
            }
            Err(error) => Err(Failure::Reason(format!(
                "io_uring is not to be had ({error}): use --client-io auto or tokio"
            ))),
        }
    }

    fn on_epoll() -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => Ok(Self::Tokio(runtime, LocalSet::new())),
            Err(error) => Err(Failure::Reason(format!("cannot poll sockets: {error}"))),
        }
    }

    /// Opens sockets that this runtime drives.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Uring(_) => Transport::Uring,
            Self::Tokio(..) => Transport::Tokio,
        }
    }

    /// Runs `work` and the tasks it spawns.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        match self {
            Self::Uring(runtime) => runtime.block_on(work),
            Self::Tokio(runtime, tasks) => tasks.block_on(runtime, work),
        }
    }
}

/// Opens connections of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Sockets on the ring.
    Uring,
    /// Sockets on epoll.
    Tokio,
}

/// A connection of either kind.
pub enum Socket {
    /// On the ring.
    Uring(UringSocket),
    /// On epoll.
    Tokio(tokio::net::TcpStream),
}

/// A connection on the ring.
pub struct UringSocket(tokio_uring::net::TcpStream);

impl Drop for UringSocket {
    fn drop(&mut self) {
        // A read under way holds the socket open, and only the end of the stream ends the read.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Connector for Transport {
    type Stream = Socket;

    async fn connect(&self, address: &str) -> io::Result<Socket> {
        if *self == Transport::Tokio {
            return Tcp.connect(address).await.map(Socket::Tokio);
        }
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in lookup_host(address).await? {
            match tokio_uring::net::TcpStream::connect(address).await {
                Ok(stream) => {
                    // Requests are whole messages: waiting for more bytes only adds latency.
                    stream.set_nodelay(true)?;
                    return Ok(Socket::Uring(UringSocket(stream)));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

impl Stream for Socket {
    async fn read(&self, buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        match self {
            Socket::Uring(UringSocket(stream)) => {
                let filled = buffer.len();
                let (result, spare) = stream.read(buffer.slice(filled..)).await;
                (result, spare.into_inner())
            }
            Socket::Tokio(stream) => stream.read(buffer).await,
        }
    }

    async fn write_all(&self, bytes: Bytes) -> io::Result<()> {
        match self {
            Socket::Uring(UringSocket(stream)) => stream.write_all(bytes).await.0,
            Socket::Tokio(stream) => stream.write_all(bytes).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Both kinds; the ring only where the kernel has one.
    fn each(check: impl Fn(Runtime)) {
        check(Runtime::new(ClientIo::Tokio).unwrap().0);
        let (runtime, word) = Runtime::new(ClientIo::Auto).unwrap();
        assert_eq!(
            word.is_some(),
            runtime.transport() == Transport::Tokio,
            "{word:?}"
        );
        check(runtime);
    }

    #[test]
    fn bytes_arrive_behind_those_already_in_the_buffer() {
        each(|runtime| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let echo = std::thread::spawn(move || {
                let (mut peer, _) = listener.accept().unwrap();
                let mut request = [0; 5];
                peer.read_exact(&mut request).unwrap();
                peer.write_all(&request).unwrap();
            });
            let transport = runtime.transport();
            runtime.block_on(async {
                let socket = transport.connect(&address).await.unwrap();
                socket
                    .write_all(Bytes::from_static(b"world"))
                    .await
                    .unwrap();
                let mut buffer = BytesMut::from(&b"hello "[..]);
                while buffer.len() < 11 {
                    buffer.reserve(64);
                    let (count, more) = socket.read(buffer).await;
                    assert!(count.unwrap() > 0);
                    buffer = more;
                }
                assert_eq!(buffer, "hello world");
                buffer.reserve(64);
                assert_eq!(
                    socket.read(buffer).await.0.unwrap(),
                    0,
                    "the end of the stream"
                );
            });
            echo.join().unwrap();
        });
    }

    #[test]
    fn dropping_a_socket_closes_it_although_a_read_is_under_way() {
        each(|runtime| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let transport = runtime.transport();
            runtime.block_on(async {
                let socket = transport.connect(&address).await.unwrap();
                let (mut peer, _) = listener.accept().unwrap();
                let read = socket.read(BytesMut::with_capacity(64));
                let soon = std::time::Duration::from_millis(10);
                assert!(
                    tokio::time::timeout(soon, read).await.is_err(),
                    "nothing was sent"
                );
                drop(socket);
                peer.set_read_timeout(Some(std::time::Duration::from_secs(5)))
                    .unwrap();
                assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
            });
        });
    }

    #[test]
    fn nobody_listening_is_an_error() {
        each(|runtime| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            drop(listener);
            let transport = runtime.transport();
            let refused = runtime.block_on(async { transport.connect(&address).await.err() });
            assert_eq!(refused.unwrap().kind(), io::ErrorKind::ConnectionRefused);
        });
    }
}
