//! Sockets, as both back ends see them: the listener, the reception of a new connection, and the
//! plain system calls that receive and send without waiting.
//!
//! A socket's descriptor stays blocking: Linux 6.18 lets a ring operation wait on any other, too,
//! but kernels have differed in that. The calls here say "do not wait" one by one. A socket belongs
//! to one shard at a time.

use super::{Accepted, Socket, SocketKind};
use crate::base::Mono;
use bytes::{BufMut, BytesMut};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Backlog, Shutdown, listen, setsockopt, sockopt};
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Connections that may wait to be accepted; the kernel caps it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long accepting rests when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections closed unheard per pause, when the process has no descriptors left.
const SHED_MAX: usize = 64;

/// A bound and listening TCP socket. No two brokers can share a port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
}

impl Listener {
    /// Binds and listens; port 0 takes any free port. The error's text names address and cause.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::listen(address).map_err(|error| {
            let cause = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another process listens there; stop it or choose another port".to_owned()
                }
                io::ErrorKind::AddrNotAvailable => "this host has no such address".to_owned(),
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE".to_owned()
                }
                _ => error.to_string(),
            };
            io::Error::new(error.kind(), format!("cannot listen on {address}: {cause}"))
        })
    }

    fn listen(address: SocketAddr) -> io::Result<Self> {
        // The standard library sets SO_REUSEADDR, so that a restart need not wait for TIME_WAIT.
        let socket = TcpListener::bind(address)?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    /// Gives the connections it will accept buffers of these sizes in bytes instead of those that
    /// the system adapts. The kernel caps them (`net.core.rmem_max`, `net.core.wmem_max`).
    pub fn set_buffers(&self, receive: Option<usize>, send: Option<usize>) -> io::Result<()> {
        if let Some(receive) = receive {
            setsockopt(&self.socket, sockopt::RcvBuf, &receive)?;
        }
        if let Some(send) = send {
            setsockopt(&self.socket, sockopt::SndBuf, &send)?;
        }
        Ok(())
    }

    /// Where it listens, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// The accepting side of a back end: its listener, and the pause when descriptors run out.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: TcpListener,
    nonblocking: bool,
    /// Given up for a moment to accept and close a connection that cannot be served.
    spare: Option<File>,
    /// Set while accepting rests.
    pub(super) paused_until: Option<Mono>,
    reported: bool,
}

/// What to do after a failed accept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AfterAccept {
    /// That connection is gone; take the next.
    Retry,
    /// No descriptors or memory: rest until `paused_until`.
    Pause,
    /// The listener is broken.
    Fail,
}

impl Acceptor {
    pub(super) fn new(listener: Listener, nonblocking: bool) -> io::Result<Self> {
        let Listener {
            socket: listener, ..
        } = listener;
        listener.set_nonblocking(nonblocking)?;
        Ok(Self {
            listener,
            nonblocking,
            spare: spare(),
            paused_until: None,
            reported: false,
        })
    }

    /// Takes one connection; for a nonblocking listener.
    pub(super) fn accept(&self) -> io::Result<Accepted> {
        let (stream, _) = self.listener.accept()?;
        welcome(stream.into())
    }

    /// Decides how to go on after an error of accept or of [`welcome`].
    pub(super) fn after_error(&mut self, error: &io::Error, now: Mono) -> AfterAccept {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                if !self.reported {
                    tracing::warn!(%error, "cannot accept connections: raise the limit of open \
                         files (ulimit -n); new ones are closed until descriptors are free");
                    self.reported = true;
                }
                self.shed();
                self.paused_until = Some(now + ACCEPT_PAUSE);
                AfterAccept::Pause
            }
            // EAGAIN: the listener is not in the mode that this back end needs.
            Some(
                Errno::EAGAIN | Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP,
            )
            | None => AfterAccept::Fail,
            // All others are errors of the one connection (accept(2), "Error handling").
            Some(_) => AfterAccept::Retry,
        }
    }

    /// Closes waiting connections by means of the spare descriptor: better a quick end than a
    /// client that waits for nothing.
    fn shed(&mut self) {
        self.spare = None;
        if self.listener.set_nonblocking(true).is_ok() {
            let shed = (0..SHED_MAX)
                .take_while(|_| self.listener.accept().is_ok())
                .count();
            tracing::debug!(shed, "closed connections unheard");
            // The flags of an open socket can always be set.
            let _ = self.listener.set_nonblocking(self.nonblocking);
        }
        self.spare = spare();
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Prepares a new connection: no Nagle delay, both addresses. An error means that it is gone.
pub(super) fn welcome(fd: OwnedFd) -> io::Result<Accepted> {
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    let local = stream.local_addr()?;
    Ok(Accepted {
        socket: Socket(Arc::new(SocketKind::Os(stream.into()))),
        peer,
        local,
    })
}

/// The descriptor behind a socket of the operating system.
pub(super) fn descriptor(socket: &Socket) -> BorrowedFd<'_> {
    match &*socket.0 {
        SocketKind::Os(fd) => fd.as_fd(),
        SocketKind::Simulated(_) => unreachable!("a simulated socket reached the operating system"),
    }
}

/// Ends both directions; that the connection has gone already is fine.
pub(super) fn shutdown(socket: &Socket) {
    // The only errors are those of a connection that is not there any more.
    let _ = nix::sys::socket::shutdown(descriptor(socket).as_raw_fd(), Shutdown::Both);
}

/// True if nothing can be sent any more: it was shut down, or the peer has reset it.
pub(super) fn is_gone(socket: &Socket) -> bool {
    // Both are always reported, also when nothing is asked for.
    let mut socket = [PollFd::new(descriptor(socket), PollFlags::empty())];
    poll(&mut socket, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// Receives what is there into the spare capacity of `buffer`, without waiting.
pub(super) fn receive(socket: &Socket, buffer: &mut BytesMut) -> io::Result<usize> {
    let spare = buffer.spare_capacity_mut();
    // SAFETY: `spare` is writable memory of that length, borrowed for the call.
    let count = unsafe {
        libc::recv(
            descriptor(socket).as_raw_fd(),
            spare.as_mut_ptr().cast(),
            spare.len(),
            libc::MSG_DONTWAIT,
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written `count` bytes at the start of the spare capacity.
    unsafe { buffer.advance_mut(count) };
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_shared() {
        let first = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = Listener::bind(first.local_addr()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let text = error.to_string();
        let start = format!("cannot listen on {}: another process", first.local_addr());
        assert!(text.starts_with(&start), "{text}");
        drop(first);
    }

    #[test]
    fn a_foreign_address_is_named() {
        // TEST-NET-1 belongs to nobody.
        let error = Listener::bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot listen on 192.0.2.1:0: this host has no such address"
        );
    }

    #[test]
    fn errors_of_accept_are_of_three_kinds() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut acceptor = Acceptor::new(listener, true).unwrap();
        let mut after = |errno: Errno| acceptor.after_error(&errno.into(), Mono(1));
        assert_eq!(after(Errno::ECONNABORTED), AfterAccept::Retry);
        assert_eq!(after(Errno::ENOTCONN), AfterAccept::Retry);
        assert_eq!(after(Errno::EMFILE), AfterAccept::Pause);
        assert_eq!(after(Errno::EBADF), AfterAccept::Fail);
        assert_eq!(acceptor.paused_until, Some(Mono(100_000_001)));
    }
}
