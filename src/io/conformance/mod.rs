//! What every back end promises, as one suite over [`Io`], run on each of them: [`sockets`] on
//! connections, [`turns`] on waits, bells, syncs, load and the end.
//!
//! Every wait has a limit, so a lost completion or wake-up fails a test instead of hanging it.

mod ping_pong;
mod sockets;
mod turns;

use super::files::DataDir;
use super::pace::Pace;
use super::posix::Posix;
use super::ring::{Ring, RingConfig};
use super::sockets::Listener;
use super::*;
use crate::base::ShardStats;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tempfile::TempDir;

/// No test waits longer for anything.
const LIMIT: Duration = Duration::from_secs(20);

/// Long enough for something that must not happen, if it is about to.
const MOMENT: Duration = Duration::from_millis(30);

/// Few buffers, so that the suite runs beyond them.
const BUFFERS_MAX: usize = 2;

/// A way to wait that the suite runs with, on one of the back ends.
trait Make {
    type Io: Io;
    /// The module of its tests.
    const NAME: &'static str;
    fn make(data_dir: DataDir, listener: Option<Listener>, stats: Arc<ShardStats>) -> Self::Io;
}

/// The ring, with waits that spin for so many microseconds.
struct OnRing<const POLL_US: u64>;

/// The posix back end, the same.
struct OnPosix<const POLL_US: u64>;

impl<const POLL_US: u64> Make for OnRing<POLL_US> {
    type Io = Ring;
    const NAME: &'static str = if POLL_US == 0 {
        "ring"
    } else {
        "spinning_ring"
    };

    fn make(data_dir: DataDir, listener: Option<Listener>, stats: Arc<ShardStats>) -> Ring {
        // Few entries, so that the suite runs beyond them.
        Ring::new(RingConfig {
            data_dir,
            listener,
            entries: 8,
            buffers_max: BUFFERS_MAX,
            pace: Pace::new(Duration::from_micros(POLL_US), stats),
        })
        .expect("io_uring is available")
    }
}

impl<const POLL_US: u64> Make for OnPosix<POLL_US> {
    type Io = Posix;
    const NAME: &'static str = if POLL_US == 0 {
        "posix"
    } else {
        "spinning_posix"
    };

    fn make(data_dir: DataDir, listener: Option<Listener>, stats: Arc<ShardStats>) -> Posix {
        let pace = Pace::new(Duration::from_micros(POLL_US), stats);
        Posix::new(data_dir, listener, pace, BUFFERS_MAX).unwrap()
    }
}

/// Runs generic tests on both back ends, blocking at once and spinning first.
macro_rules! on_each {
    ($($name:ident),* $(,)?) => {
        mod ring {
            $(#[test] fn $name() { super::$name::<crate::io::conformance::OnRing<0>>(); })*
        }
        mod spinning_ring {
            $(#[test] fn $name() { super::$name::<crate::io::conformance::OnRing<200>>(); })*
        }
        mod posix {
            $(#[test] fn $name() { super::$name::<crate::io::conformance::OnPosix<0>>(); })*
        }
        mod spinning_posix {
            $(#[test] fn $name() { super::$name::<crate::io::conformance::OnPosix<200>>(); })*
        }
    };
}
use on_each;

/// A back end with a listener and a data directory of its own.
struct Bench<I: Make> {
    io: I::Io,
    address: SocketAddr,
    /// Completions not asked for yet.
    early: Vec<Completion>,
    tokens: Token,
    /// How extents of the next sends travel.
    path: FetchPath,
    stats: Arc<ShardStats>,
    _data: TempDir,
}

impl<I: Make> Bench<I> {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr();
        let stats = Arc::<ShardStats>::default();
        let data_dir = DataDir::open(data.path()).unwrap();
        let io = I::make(data_dir, Some(listener), stats.clone());
        Self {
            io,
            address,
            early: Vec::new(),
            tokens: 0,
            path: FetchPath::Auto,
            stats,
            _data: data,
        }
    }

    fn submit(&mut self, op: Op) -> Token {
        self.tokens += 1;
        self.io.submit(self.tokens, op);
        self.tokens
    }

    /// The outcome of one operation; those of others are kept.
    fn outcome(&mut self, token: Token) -> Outcome {
        let deadline = self.io.now().mono + LIMIT;
        loop {
            if let Some(at) = self
                .early
                .iter()
                .position(|completion| completion.token == token)
            {
                return self.early.remove(at).outcome;
            }
            self.io.wait(Some(deadline), &mut self.early).unwrap();
            assert!(
                self.io.now().mono < deadline,
                "operation {token} does not complete"
            );
        }
    }

    /// Asserts that nothing completes for a moment.
    fn stays_quiet(&mut self) {
        let deadline = self.io.now().mono + MOMENT;
        while self.io.now().mono < deadline {
            self.io.wait(Some(deadline), &mut self.early).unwrap();
            assert!(self.early.is_empty(), "{:?}", self.early);
        }
    }

    /// Has the peer take so many bytes, of a send that does not end with them.
    fn takes_some(&mut self, peer: &mut TcpStream, bytes: usize) {
        let deadline = self.io.now().mono + LIMIT;
        let mut taken = vec![0; bytes];
        let mut count = 0;
        peer.set_nonblocking(true).unwrap();
        while count < bytes {
            assert!(self.io.now().mono < deadline, "{count} bytes came");
            self.stays_quiet();
            match peer.read(&mut taken[count..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => count += read.unwrap(),
            }
        }
        peer.set_nonblocking(false).unwrap();
    }

    /// A new connection: our end and the peer's.
    fn connect(&mut self) -> (Socket, TcpStream) {
        let token = self.submit(Op::Accept);
        let peer = TcpStream::connect(self.address).unwrap();
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        peer.set_write_timeout(Some(LIMIT)).unwrap();
        let Outcome::Accepted(accepted) = self.outcome(token) else {
            panic!("not accepted")
        };
        (accepted.unwrap().socket, peer)
    }

    fn submit_receive(&mut self, socket: &Socket, capacity: usize) -> Token {
        let buffer = BytesMut::with_capacity(capacity);
        self.submit(Op::Receive {
            socket: socket.clone(),
            buffer,
        })
    }

    fn received(&mut self, token: Token) -> io::Result<BytesMut> {
        let Outcome::Received { result, buffer } = self.outcome(token) else {
            panic!("not received")
        };
        let count = result?;
        assert_eq!(count, buffer.len());
        Ok(buffer)
    }

    fn submit_send(&mut self, socket: &Socket, chunks: Vec<Chunk>) -> Token {
        let path = self.path;
        self.submit(Op::Send {
            socket: socket.clone(),
            chunks: chunks.into(),
            path,
        })
    }

    fn sent(&mut self, token: Token) -> io::Result<()> {
        let Outcome::Sent(result) = self.outcome(token) else {
            panic!("not sent")
        };
        result
    }

    fn synced(&mut self, token: Token) -> io::Result<()> {
        let Outcome::Synced(result) = self.outcome(token) else {
            panic!("not synced")
        };
        result
    }

    /// A file in the data directory.
    fn file(&mut self, name: &str, contents: &[u8]) -> File {
        let mut dir = self.io.open_dir("files-0").unwrap();
        dir.create(name).unwrap();
        dir.write_at(name, 0, &[io::IoSlice::new(contents)])
            .unwrap();
        dir.open(name).unwrap()
    }

    /// What makes the names in the data directory durable.
    fn names(&mut self) -> Vec<File> {
        self.io.open_dir("files-0").unwrap().names().unwrap()
    }
}

/// Bytes that tell their position.
fn pattern(length: usize) -> Bytes {
    (0..length)
        .map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8)
        .collect()
}

fn extent(file: &File, position: u64, length: u64) -> Chunk {
    Chunk::Extent(Extent {
        file: file.clone(),
        position,
        length,
    })
}

/// Every way of an extent.
const PATHS: [FetchPath; 4] = [
    FetchPath::Auto,
    FetchPath::Sendfile,
    FetchPath::Splice,
    FetchPath::Copy,
];

/// Writes the file's pages back and drops them, where the file system does that.
fn forget_pages(file: &File) {
    let fd = files::descriptor(file);
    nix::unistd::fdatasync(fd).unwrap();
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    nix::fcntl::posix_fadvise(fd, 0, 0, advice).unwrap();
}

fn errno(error: &io::Error) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(error.raw_os_error().expect("an error of the system"))
}

/// What this thread has used so far.
fn thread_usage() -> Usage {
    getrusage(UsageWho::RUSAGE_THREAD).unwrap()
}
