//! The operations as the kernel is asked for them. An operation owns all that its entry names, on
//! the heap: it may be moved while the kernel works on it, but not be changed or dropped.

use crate::base::dir::File;
use crate::io::loading::{Load, Target};
use crate::io::sending::{self, Sending};
use crate::io::sockets::{self, Acceptor};
use crate::io::{Socket, files};
use bytes::BytesMut;
use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::{Fd, FsyncFlags};
use std::os::fd::{AsFd, AsRawFd};

/// An operation under way.
pub(super) enum Operation {
    /// Take a connection.
    Accept,
    /// Read into the spare capacity.
    Receive { socket: Socket, buffer: BytesMut },
    /// Send bytes in memory; the message is there while a vectored send is under way.
    Send {
        socket: Socket,
        sending: Sending,
        message: Option<Box<Message>>,
    },
    /// Wait until the socket takes more of a send that is made by plain calls.
    AwaitRoom { socket: Socket, sending: Sending },
    /// Fetch the next bytes of a send's extent from its file.
    Load {
        socket: Socket,
        sending: Sending,
        load: Load,
    },
    /// `fdatasync`, `fsync` of a directory.
    Sync { file: File },
}

/// A vectored send as the kernel reads it; it points into itself and into a [`Sending`].
pub(super) struct Message {
    header: libc::msghdr,
    slices: Vec<libc::iovec>,
}

impl Operation {
    /// The entry that asks the kernel for the operation's next step.
    pub(super) fn entry(&mut self, acceptor: Option<&Acceptor>) -> Entry {
        match self {
            Operation::Accept => {
                let fd = acceptor
                    .expect("accept needs a listener")
                    .as_fd()
                    .as_raw_fd();
                opcode::Accept::new(Fd(fd), std::ptr::null_mut(), std::ptr::null_mut())
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
            Operation::Receive { socket, buffer } => {
                let spare = buffer.spare_capacity_mut();
                let length = u32::try_from(spare.len()).unwrap_or(u32::MAX);
                opcode::Recv::new(raw(socket), spare.as_mut_ptr().cast(), length).build()
            }
            Operation::Send {
                socket,
                sending,
                message,
            } => {
                let (run, more) = sending.run();
                // With WAITALL the kernel goes on by itself after a short send.
                let flags = sending::send_flags(more) | libc::MSG_WAITALL;
                let mut slices = run.map(|bytes| iovec(bytes));
                match (slices.next(), slices.next()) {
                    (Some(slice), None) => {
                        let length = u32::try_from(slice.iov_len).unwrap_or(u32::MAX);
                        opcode::Send::new(raw(socket), slice.iov_base.cast(), length)
                            .flags(flags)
                            .build()
                    }
                    (first, second) => {
                        let slices = first.into_iter().chain(second).chain(slices).collect();
                        let message = message.insert(Message::new(slices));
                        opcode::SendMsg::new(raw(socket), &message.header)
                            .flags(flags as u32)
                            .build()
                    }
                }
            }
            Operation::AwaitRoom { socket, .. } => {
                opcode::PollAdd::new(raw(socket), libc::POLLOUT as u32).build()
            }
            Operation::Load { load, .. } => load_entry(load),
            Operation::Sync { file } => {
                let fd = Fd(files::descriptor(file).as_raw_fd());
                let flags = match files::is_dir(file) {
                    true => FsyncFlags::empty(),
                    false => FsyncFlags::DATASYNC,
                };
                opcode::Fsync::new(fd).flags(flags).build()
            }
        }
    }
}

/// The entry that reads the next stretch of a file.
fn load_entry(load: &mut Load) -> Entry {
    let fd = Fd(files::descriptor(&load.file).as_raw_fd());
    match &mut load.target {
        Target::Buffer(buffer) => {
            let room = buffer.room(load.length);
            opcode::Read::new(fd, room.as_mut_ptr(), room.len() as u32)
                .offset(load.position)
                .build()
        }
        Target::Pipe(pipe) => {
            let writer = Fd(pipe.writer().as_raw_fd());
            // No segment is larger than 4 GiB.
            let position = load.position as i64;
            opcode::Splice::new(fd, position, writer, -1, load.length as u32)
                .flags(libc::SPLICE_F_MOVE)
                .build()
        }
    }
}

impl Message {
    fn new(slices: Vec<libc::iovec>) -> Box<Self> {
        // SAFETY: all fields are integers and pointers, for which zero is a value.
        let header = unsafe { std::mem::zeroed() };
        let mut message = Box::new(Self { header, slices });
        message.header.msg_iov = message.slices.as_mut_ptr();
        message.header.msg_iovlen = message.slices.len() as _;
        message
    }
}

fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

fn raw(socket: &Socket) -> Fd {
    Fd(sockets::descriptor(socket).as_raw_fd())
}
