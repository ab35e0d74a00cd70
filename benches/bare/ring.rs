//! The ring: accepts, receives, sends. A connection has one receive buffer and at most one receive
//! and one send under way; whatever was received goes to the file by `pwrite` at once.
//!
//! Invariant: a connection stays in its slot until the kernel has given back all that it was given
//! of it, and the ring's memory is never freed: the program ends with the loop.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::mem;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use io_uring::squeue::Entry;
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};

use crate::protocol::{Broker, Conversation, HEAD_BYTES_MAX};

const ENTRIES: u32 = 1024;

/// Of one receive buffer: small enough for the second level cache, where the copy to the file
/// finds it again.
const INPUT_BYTES: usize = 256 << 10;

const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

/// The whole program.
pub struct Bare {
    ring: IoUring,
    listener: TcpListener,
    broker: Broker,
    connections: Vec<Option<Connection>>,
    /// None to discard.
    file: Option<File>,
    file_bytes: u64,
}

struct Connection {
    socket: OwnedFd,
    conversation: Conversation,
    input: Box<[u8]>,
    /// Bytes of `input` that hold what is not done with.
    filled: usize,
    /// What the kernel sends; empty if nothing is under way.
    sending: Vec<u8>,
    sent: usize,
    /// Nothing is received any more.
    ended: bool,
}

impl Bare {
    /// Takes connections from `listener` and appends to `file`.
    ///
    /// # Errors
    /// The kernel gives no ring.
    pub fn new(listener: TcpListener, file: Option<File>, broker: Broker) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(ENTRIES)?;
        Ok(Self {
            ring,
            listener,
            broker,
            connections: Vec::new(),
            file,
            file_bytes: 0,
        })
    }

    /// Runs until the process ends.
    pub fn run(self) -> ! {
        // The kernel may still write to the buffers when the loop fails: they are never freed.
        let mut bare = mem::ManuallyDrop::new(self);
        let Err(error) = bare.turns();
        eprintln!("bare: {error}");
        std::process::exit(1);
    }

    fn turns(&mut self) -> io::Result<Infallible> {
        self.accept()?;
        let mut completions = Vec::new();
        loop {
            self.ring.submit_and_wait(1)?;
            let finished = self.ring.completion();
            completions.extend(finished.map(|entry| (entry.user_data(), entry.result())));
            for (key, result) in completions.drain(..) {
                let (slot, kind) = ((key >> 2) as usize, key & 3);
                match kind {
                    ACCEPT => self.accepted(result)?,
                    RECEIVE => self.received(slot, result)?,
                    _ => self.sent(slot, result)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let fd = Fd(self.listener.as_raw_fd());
        let entry = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build();
        self.push(ACCEPT, entry)
    }

    fn accepted(&mut self, result: i32) -> io::Result<()> {
        let fd = checked(result)? as i32;
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::TcpNoDelay, &true)?;
        let connection = Connection {
            socket,
            conversation: Conversation::default(),
            input: vec![0; INPUT_BYTES].into(),
            filled: 0,
            sending: Vec::new(),
            sent: 0,
            ended: false,
        };
        let free = self.connections.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.connections[slot] = Some(connection);
        self.receive(slot)?;
        self.accept()
    }

    fn receive(&mut self, slot: usize) -> io::Result<()> {
        let connection = self.connections[slot].as_mut().expect("it is in use");
        let room = &mut connection.input[connection.filled..];
        let fd = Fd(connection.socket.as_raw_fd());
        let entry = opcode::Recv::new(fd, room.as_mut_ptr(), room.len() as u32).build();
        self.push((slot as u64) << 2 | RECEIVE, entry)
    }

    fn received(&mut self, slot: usize, result: i32) -> io::Result<()> {
        let connection = self.connections[slot].as_mut().expect("it is in use");
        let Some(bytes) = checked(result).ok().filter(|bytes| *bytes > 0) else {
            connection.ended = true;
            return self.close_if_idle(slot);
        };
        connection.filled += bytes;
        let append = |records: &[u8]| {
            if let Some(file) = &self.file {
                file.write_all_at(records, self.file_bytes)?;
                self.file_bytes += records.len() as u64;
            }
            Ok(())
        };
        let received = &connection.input[..connection.filled];
        let taken = connection
            .conversation
            .take(received, &self.broker, append)
            .and_then(|taken| match connection.filled - taken {
                left if left + HEAD_BYTES_MAX > INPUT_BYTES => Err(io::Error::other("too large")),
                _ => Ok(taken),
            });
        match taken {
            Ok(taken) => {
                connection.input.copy_within(taken..connection.filled, 0);
                connection.filled -= taken;
                self.send(slot)?;
                self.receive(slot)
            }
            Err(error) => {
                eprintln!("bare: a connection is closed: {error}");
                connection.ended = true;
                self.close_if_idle(slot)
            }
        }
    }

    /// Begins to send what there is to send, if nothing is under way.
    fn send(&mut self, slot: usize) -> io::Result<()> {
        let connection = self.connections[slot].as_mut().expect("it is in use");
        if !connection.sending.is_empty() || connection.conversation.answers.is_empty() {
            return Ok(());
        }
        mem::swap(
            &mut connection.sending,
            &mut connection.conversation.answers,
        );
        connection.sent = 0;
        self.send_rest(slot)
    }

    fn send_rest(&mut self, slot: usize) -> io::Result<()> {
        let connection = self.connections[slot].as_mut().expect("it is in use");
        let rest = &connection.sending[connection.sent..];
        let fd = Fd(connection.socket.as_raw_fd());
        let entry = opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32).build();
        self.push((slot as u64) << 2 | SEND, entry)
    }

    fn sent(&mut self, slot: usize, result: i32) -> io::Result<()> {
        let connection = self.connections[slot].as_mut().expect("it is in use");
        // What cannot be sent is dropped; the receive that is under way tells that the peer is gone.
        let bytes = checked(result).unwrap_or(usize::MAX);
        connection.sent = connection.sent.saturating_add(bytes);
        if connection.sent < connection.sending.len() {
            return self.send_rest(slot);
        }
        connection.sending.clear();
        if connection.ended {
            return self.close_if_idle(slot);
        }
        self.send(slot)
    }

    /// Frees the slot of a connection that has ended, once the kernel sends nothing of it.
    fn close_if_idle(&mut self, slot: usize) -> io::Result<()> {
        self.connections[slot].take_if(|connection| connection.sending.is_empty());
        Ok(())
    }

    fn push(&mut self, key: u64, entry: Entry) -> io::Result<()> {
        let entry = entry.user_data(key);
        // SAFETY: descriptor and buffer belong to a connection that keeps its slot and does not
        // touch the buffer until the completion, or to the listener; see the top of the file.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }
}

/// The result of an operation, a negative error number or a count.
fn checked(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
