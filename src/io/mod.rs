//! What a shard asks of the machine it runs on. It knows bytes, sockets, files and time, and
//! nothing of Kafka. Three implementations: [`ring`] on io_uring, [`posix`] as the fallback where
//! io_uring is blocked, and the simulator's. [`backend`] chooses between the first two, which share
//! [`files`] and [`sockets`].
//!
//! Operations that may wait are submitted with a token and complete later, in any order; a buffer
//! belongs to the implementation until its completion. Everything else is a plain call that works
//! on the page cache and returns at once.

pub mod backend;
mod buffers;
mod cached;
pub mod clock;
pub mod files;
mod loading;
pub mod pace;
pub mod posix;
pub mod ring;
mod sending;
mod slab;
pub mod sockets;

#[cfg(test)]
mod conformance;

pub use crate::base::FetchPath;
pub use crate::base::dir::Extent;
use crate::base::dir::{Dir, File};
use crate::base::{Few, Mono, Now, Space};
use bytes::{Bytes, BytesMut};
pub use loading::BUFFER_BYTES;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Names an operation in its [`Completion`]; chosen by the caller, opaque here.
pub type Token = u64;

/// A connected socket. It closes when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Socket(pub Arc<SocketKind>);

/// What stands behind a [`Socket`].
#[derive(Debug)]
pub enum SocketKind {
    /// A blocking descriptor of the operating system.
    Os(OwnedFd),
    /// A connection of the simulated network.
    Simulated(u64),
}

/// A piece of a response.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes in the page cache.
    Extent(Extent),
}

impl Chunk {
    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Chunk::Bytes(bytes) => bytes.len() as u64,
            Chunk::Extent(extent) => extent.length,
        }
    }

    /// True if nothing would be sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An operation that may wait.
#[derive(Debug)]
pub enum Op {
    /// Take one connection from the listener this `Io` was made with.
    Accept,
    /// Read at least one byte into the spare capacity of `buffer` (which must have some), after
    /// what it already holds. At most one receive per socket is under way at a time.
    Receive {
        /// From where.
        socket: Socket,
        /// Comes back in the completion.
        buffer: BytesMut,
    },
    /// Send all chunks in order. At most one send per socket is under way at a time.
    Send {
        /// To where.
        socket: Socket,
        /// What to send.
        chunks: Few<Chunk>,
        /// How its extents travel.
        path: FetchPath,
    },
    /// Wait until everything written to the file before this call is on stable storage
    /// (`fdatasync`); of a directory, all names in it (`fsync`).
    Sync {
        /// The file, or what [`Dir::names`] gave.
        file: File,
    },
}

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    /// As given to [`Io::submit`].
    pub token: Token,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an operation ended.
#[derive(Debug)]
pub enum Outcome {
    /// A connection was taken.
    Accepted(io::Result<Accepted>),
    /// Bytes came, or 0 at the end of the stream; the buffer comes back either way.
    Received {
        /// Number of bytes appended to the buffer.
        result: io::Result<usize>,
        /// The buffer of the operation.
        buffer: BytesMut,
    },
    /// Everything was sent, or the socket is broken.
    Sent(io::Result<()>),
    /// The sync ended. After an error it must not be tried again: the kernel may have dropped the
    /// dirty pages (fsyncgate).
    Synced(io::Result<()>),
}

/// A new connection.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub socket: Socket,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address the client dialled.
    pub local: SocketAddr,
}

/// Wakes the shard that owns it out of [`Io::wait`], from any thread.
#[derive(Clone, Debug)]
pub struct Bell(pub Arc<BellKind>);

/// What stands behind a [`Bell`].
#[derive(Debug)]
pub enum BellKind {
    /// An eventfd.
    EventFd(nix::sys::eventfd::EventFd),
    /// A flag that the simulator's scheduler looks at.
    Simulated(std::sync::atomic::AtomicBool),
}

impl Bell {
    /// Rings: the owner's current or next wait returns soon.
    pub fn ring(&self) {
        match &*self.0 {
            // A full counter means that the owner has not even read the earlier rings.
            BellKind::EventFd(eventfd) => drop(eventfd.write(1)),
            BellKind::Simulated(flag) => flag.store(true, std::sync::atomic::Ordering::Release),
        }
    }
}

/// The machine under one shard.
pub trait Io {
    /// Both clocks.
    fn now(&mut self) -> Now;

    /// Starts an operation.
    fn submit(&mut self, token: Token, op: Op);

    /// Appends finished operations to `completions`. Waits for one until `deadline` (`None`: for
    /// as long as it takes), or until the bell rings; a deadline in the past only looks.
    fn wait(&mut self, deadline: Option<Mono>, completions: &mut Vec<Completion>)
    -> io::Result<()>;

    /// Ends both directions of a connection at once; its operations complete soon.
    fn shutdown(&mut self, socket: &Socket);

    /// The bell that ends this shard's wait.
    fn bell(&self) -> Bell;

    /// Copies from a file, for answers too small to be worth a sendfile. False, and nothing copied,
    /// if that would have to wait for the device.
    fn read(&mut self, extent: &Extent, buffer: &mut BytesMut) -> io::Result<bool>;

    /// The names of all directories in the data directory, sorted.
    fn list_dirs(&mut self) -> io::Result<Vec<String>>;

    /// A directory of the data directory, by its name, whether it exists or not.
    fn open_dir(&mut self, name: &str) -> io::Result<Box<dyn Dir>>;

    /// Renames a directory; durable after [`Io::sync_dirs`].
    fn rename_dir(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a directory and all files in it; durable after [`Io::sync_dirs`].
    fn remove_dir(&mut self, name: &str) -> io::Result<()>;

    /// Makes renamed and removed directories durable.
    fn sync_dirs(&mut self) -> io::Result<()>;

    /// What is left of the file system under the data directory (`statvfs`).
    fn space(&mut self) -> io::Result<Space>;

    /// Makes everything in the data directory durable, contents and names (`syncfs`).
    fn sync_all(&mut self) -> io::Result<()>;
}
