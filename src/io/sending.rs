//! One send: what of it the socket has not taken yet, and the plain calls that push it without
//! waiting. Bytes in memory go by `sendmsg`. An extent goes by the path that [`FetchPath`] names:
//!
//! - `sendfile`: straight from the page cache; waits for the device where a page is missing.
//! - `auto`: the same, but the page cache is asked first. What is missing is read by somebody who
//!   may wait (the ring, or posix's worker) and past the page cache, into a buffer that is used
//!   over and over: a reader of old data neither has pages allocated on the shard nor drives the
//!   hot ones out.
//! - `copy`: always read into a buffer, through the page cache, and sent from there.
//! - `splice`: moved into a pipe by somebody who may wait, and from there to the socket.
//!
//! Invariant: with every path but `sendfile` the shard's own thread does not wait for the device,
//! as long as a page that was found in the cache is still there when it is sent.
//! This file decides what comes next; carrying out a [`Load`] is the back end's part.

use super::buffers::Buffers;
use super::loading::{Load, Target, past_the_cache};
use super::sockets::{self, descriptor};
use super::{Chunk, FetchPath, Socket, cached, files};
use crate::base::dir::File;
use crate::base::{Few, ShardStats};
use bytes::{Buf, Bytes};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, sendmsg};
use smallvec::SmallVec;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes one socket is given by plain calls in one turn, so that a fast reader of a long extent
/// does not keep the shard from its other work.
pub(super) const SEND_TURN_BYTES_MAX: u64 = 256 * 1024;

/// Slices put in one vectored send.
const SEND_SLICES_MAX: usize = 64;

/// The rest of a send.
#[derive(Debug)]
pub(super) struct Sending {
    /// The next one last, where it is cheap to take off.
    chunks: Few<Chunk>,
    extents: usize,
    path: FetchPath,
    /// Bytes of the first extent that were in the page cache when somebody looked.
    warm: u64,
    /// The first bytes of the first extent, fetched by somebody who may wait.
    loaded: Option<Target>,
    /// The file of the first extent, as cold bytes are read from it.
    cold: Option<File>,
}

/// How far plain calls came in one turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Everything is sent.
    Done,
    /// The socket takes no more for now.
    Blocked,
    /// The turn's share is used up.
    Share,
    /// The next bytes must be fetched by somebody who may wait: see [`Sending::load`].
    Cold,
}

impl Sending {
    pub(super) fn new(mut chunks: Few<Chunk>, path: FetchPath) -> Self {
        chunks.retain(|chunk| !chunk.is_empty());
        chunks.reverse();
        let extents = chunks
            .iter()
            .filter(|chunk| matches!(chunk, Chunk::Extent(_)))
            .count();
        Self {
            chunks,
            extents,
            path,
            warm: 0,
            loaded: None,
            cold: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.chunks.is_empty()
    }

    /// True if only bytes in memory are left.
    pub(super) fn is_memory(&self) -> bool {
        self.extents == 0
    }

    /// The bytes in memory before the next extent, at most as many pieces as one send takes; and
    /// whether more follows them.
    pub(super) fn run(&self) -> (impl Iterator<Item = &Bytes> + Clone, bool) {
        let bytes = |chunk: &'_ Chunk| matches!(chunk, Chunk::Bytes(_));
        let chunks = self.chunks.iter().rev();
        let count = chunks
            .clone()
            .take(SEND_SLICES_MAX)
            .take_while(|&c| bytes(c))
            .count();
        let run = chunks.take(count).filter_map(|chunk| match chunk {
            Chunk::Bytes(bytes) => Some(bytes),
            Chunk::Extent(_) => None,
        });
        (run, count < self.chunks.len())
    }

    /// Takes off bytes that were sent.
    pub(super) fn advance(&mut self, mut sent: u64) {
        while sent > 0 {
            let chunk = self
                .chunks
                .last_mut()
                .expect("no more is sent than was there");
            let length = chunk.len();
            if sent >= length {
                if let Some(Chunk::Extent(_)) = self.chunks.pop() {
                    self.extents -= 1;
                    self.cold = None;
                }
                sent -= length;
                continue;
            }
            match chunk {
                Chunk::Bytes(bytes) => bytes.advance(sent as usize),
                Chunk::Extent(extent) => {
                    extent.position += sent;
                    extent.length -= sent;
                }
            }
            break;
        }
    }

    /// Sends by plain calls, without waiting, until done, blocked, cold, or the turn's `share` of
    /// bytes is used up (bytes in memory go whole, as far as the socket takes them).
    pub(super) fn push(
        &mut self,
        socket: &Socket,
        mut share: u64,
        stats: &ShardStats,
    ) -> io::Result<Progress> {
        let fd = descriptor(socket);
        let _nonblocking = match self.is_memory() {
            true => None,
            // `sendfile` has no flag for one call. Nobody else meets the descriptor like this: the
            // socket belongs to this shard, and the ring looks at its flags only when it starts an
            // operation or goes on with one, which with DEFER_TASKRUN happens on this very thread,
            // inside `io_uring_enter`.
            false => Some(Nonblocking::new(fd)?),
        };
        while !self.is_done() {
            if share == 0 {
                return Ok(Progress::Share);
            }
            if self.is_cold() {
                // Fetched for nobody, it would keep others from the disk.
                return match sockets::is_gone(socket) {
                    true => Err(Errno::EPIPE.into()),
                    false => Ok(Progress::Cold),
                };
            }
            match self.push_once(fd, share, stats) {
                Ok(sent) => {
                    self.advance(sent);
                    share = share.saturating_sub(sent);
                }
                Err(Errno::EAGAIN) => return Ok(Progress::Blocked),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Progress::Done)
    }

    /// What is to be fetched after [`Progress::Cold`]; `None` while there is no memory for it.
    pub(super) fn load(&mut self, buffers: &mut Buffers) -> io::Result<Option<Load>> {
        let Some(Chunk::Extent(extent)) = self.chunks.last() else {
            unreachable!("only an extent is cold");
        };
        let target = match self.loaded.take() {
            Some(target) => Some(target),
            None => buffers.target(self.path)?,
        };
        let Some(target) = target else {
            return Ok(None);
        };
        if self.path != FetchPath::Auto {
            return Ok(Some(Load::through_the_cache(extent, target)));
        }
        let file = &extent.file;
        let file = self.cold.get_or_insert_with(|| past_the_cache(file));
        Ok(Some(Load::past_the_cache(extent, file, target)))
    }

    /// A load is done; it read `count` bytes (0 at the end of the file).
    pub(super) fn on_loaded(
        &mut self,
        load: Load,
        count: usize,
        stats: &ShardStats,
    ) -> io::Result<()> {
        // The file may be shorter than the extent: the answer cannot be completed.
        let target = load.end(count).ok_or(Errno::ENODATA)?;
        if self.path == FetchPath::Auto {
            stats.bytes_sent_cold.add(target.held());
        }
        self.loaded = Some(target);
        Ok(())
    }

    /// Gives up what was fetched and not sent: it is fetched again when the socket has room.
    pub(super) fn unload(&mut self) -> Option<Target> {
        self.loaded.take()
    }

    /// True if the next bytes are not here yet. With `auto` that is asked of the page cache, for a
    /// turn's worth at a time.
    fn is_cold(&mut self) -> bool {
        let Some(Chunk::Extent(extent)) = self.chunks.last() else {
            return false;
        };
        if self.held() > 0 {
            return false;
        }
        match self.path {
            FetchPath::Sendfile => false,
            FetchPath::Copy | FetchPath::Splice => true,
            FetchPath::Auto => {
                if self.warm == 0 {
                    let length = extent.length.min(SEND_TURN_BYTES_MAX);
                    self.warm = cached::cached_bytes(&extent.file, extent.position, length);
                }
                self.warm == 0
            }
        }
    }

    /// Bytes that were loaded and not sent yet.
    fn held(&self) -> u64 {
        self.loaded.as_ref().map_or(0, Target::held)
    }

    /// One system call: a vectored send, a sendfile, or a part of what was loaded.
    fn push_once(
        &mut self,
        fd: BorrowedFd<'_>,
        share: u64,
        stats: &ShardStats,
    ) -> Result<u64, Errno> {
        let Some(Chunk::Extent(extent)) = self.chunks.last() else {
            let (run, more) = self.run();
            let slices: SmallVec<[IoSlice<'_>; 4]> = run.map(|bytes| IoSlice::new(bytes)).collect();
            let flags = MsgFlags::from_bits_retain(send_flags(more)) | MsgFlags::MSG_DONTWAIT;
            let sent = sendmsg::<()>(fd.as_raw_fd(), &slices, &[], flags, None)?;
            stats.bytes_sent_copy.add(sent as u64);
            return Ok(sent as u64);
        };
        if let Some(loaded) = self.loaded.as_mut().filter(|loaded| loaded.held() > 0) {
            let more = extent.length > loaded.held() || self.chunks.len() > 1;
            let flags = MsgFlags::from_bits_retain(send_flags(more)) | MsgFlags::MSG_DONTWAIT;
            let sent = loaded.push(fd, flags)?;
            match loaded {
                Target::Buffer(_) => stats.bytes_sent_copy.add(sent),
                Target::Pipe(_) => stats.bytes_sent_splice.add(sent),
            }
            return Ok(sent);
        }
        let mut position = i64::try_from(extent.position).map_err(|_| Errno::EINVAL)?;
        let warm = match self.path {
            FetchPath::Auto => self.warm,
            _ => u64::MAX,
        };
        let length = extent.length.min(share).min(warm);
        let length = usize::try_from(length).map_err(|_| Errno::EINVAL)?;
        let file = files::descriptor(&extent.file);
        match sendfile64(fd, file, Some(&mut position), length)? as u64 {
            // The file is shorter than the extent: the answer cannot be completed.
            0 => Err(Errno::ENODATA),
            sent => {
                self.warm = self.warm.saturating_sub(sent);
                stats.bytes_sent_sendfile.add(sent);
                Ok(sent)
            }
        }
    }
}

/// The flags of every send: a broken connection is an error and no signal (`sendfile` has no such
/// flag; there Rust's own start-up code has the signal ignored), and a small head waits for the
/// extent behind it instead of leaving as a packet of its own.
pub(super) fn send_flags(more: bool) -> i32 {
    libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 }
}

/// Keeps a socket nonblocking as long as it lives.
struct Nonblocking<'a>(BorrowedFd<'a>);

impl<'a> Nonblocking<'a> {
    fn new(fd: BorrowedFd<'a>) -> nix::Result<Self> {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self(fd))
    }
}

impl Drop for Nonblocking<'_> {
    fn drop(&mut self) {
        // Setting the flags of an open socket cannot fail.
        let _ = fcntl(self.0, FcntlArg::F_SETFL(OFlag::empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::dir::{Extent, FileKind};
    use crate::io::SocketKind;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    fn file(contents: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, contents).unwrap();
        File::new(FileKind::Os(file.into()))
    }

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Socket(Arc::new(SocketKind::Os(ours.into()))), theirs)
    }

    #[test]
    fn a_send_shrinks_from_its_front() {
        let chunks = vec![
            Chunk::Bytes(Bytes::from_static(b"abc")),
            Chunk::Bytes(Bytes::new()),
            Chunk::Bytes(Bytes::from_static(b"defg")),
        ];
        let mut sending = Sending::new(chunks.into(), FetchPath::Auto);
        sending.advance(2);
        assert_eq!(sending.run().0.collect::<Vec<_>>(), ["c", "defg"]);
        sending.advance(1);
        sending.advance(3);
        assert_eq!(sending.run().0.collect::<Vec<_>>(), ["g"]);
        assert!(!sending.is_done());
        sending.advance(1);
        assert!(sending.is_done());
    }

    #[test]
    fn a_turn_sends_no_more_than_its_share_of_an_extent() {
        use std::io::Read;
        let (socket, mut theirs) = pair();
        let extent = Extent {
            file: file(b"0123456789"),
            position: 1,
            length: 9,
        };
        let mut sending = Sending::new(Few::from([Chunk::Extent(extent)]), FetchPath::Sendfile);
        let stats = ShardStats::default();
        for (expected, progress) in [
            ("1234", Progress::Share),
            ("5678", Progress::Share),
            ("9", Progress::Done),
        ] {
            assert_eq!(sending.push(&socket, 4, &stats).unwrap(), progress);
            let mut received = [0; 10];
            let count = theirs.read(&mut received).unwrap();
            assert_eq!(received[..count], *expected.as_bytes());
        }
        assert_eq!(stats.bytes_sent_sendfile.get(), 9);
        assert_eq!(stats.bytes_sent_copy.get(), 0);
    }

    /// Sends all of an extent between two words and gives what arrived.
    fn sent(path: FetchPath, file: &File, length: u64, stats: &ShardStats) -> Vec<u8> {
        let (socket, mut theirs) = pair();
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            io::Read::read_to_end(&mut theirs, &mut received).unwrap();
            received
        });
        let extent = Extent {
            file: file.clone(),
            position: 1,
            length,
        };
        let chunks = vec![
            Chunk::Bytes(Bytes::from_static(b"<")),
            Chunk::Extent(extent),
            Chunk::Bytes(Bytes::from_static(b">")),
        ];
        let mut sending = Sending::new(chunks.into(), path);
        loop {
            match sending.push(&socket, SEND_TURN_BYTES_MAX, stats).unwrap() {
                Progress::Done => break,
                Progress::Share | Progress::Blocked => std::thread::yield_now(),
                Progress::Cold => {
                    let mut load = sending.load(&mut Buffers::new(1)).unwrap().unwrap();
                    let count = load.run().unwrap();
                    sending.on_loaded(load, count, stats).unwrap();
                }
            }
        }
        drop(socket);
        reader.join().unwrap()
    }

    #[test]
    fn every_path_brings_the_same_bytes() {
        let contents: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let file = file(&contents);
        let length = contents.len() as u64 - 2;
        let mut expected = vec![b'<'];
        expected.extend(&contents[1..contents.len() - 1]);
        expected.push(b'>');
        let paths = [
            (FetchPath::Auto, [2, length, 0]),
            (FetchPath::Sendfile, [2, length, 0]),
            (FetchPath::Splice, [2, 0, length]),
            (FetchPath::Copy, [length + 2, 0, 0]),
        ];
        for (path, bytes) in paths {
            let stats = ShardStats::default();
            assert!(sent(path, &file, length, &stats) == expected, "{path:?}");
            let counted = [
                &stats.bytes_sent_copy,
                &stats.bytes_sent_sendfile,
                &stats.bytes_sent_splice,
            ];
            assert_eq!(counted.map(|counter| counter.get()), bytes, "{path:?}");
        }
    }

    #[test]
    fn what_is_not_in_the_page_cache_is_fetched_before_it_is_sent() {
        let mut named = tempfile::NamedTempFile::new_in(".").unwrap();
        let contents = vec![7; 1 << 20];
        io::Write::write_all(&mut named, &contents).unwrap();
        named.as_file().sync_all().unwrap();
        let file = File::new(FileKind::Os(named.reopen().unwrap().into()));
        let length = contents.len() as u64;
        assert_eq!(cached::cached_bytes(&file, 0, length), length);
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        nix::fcntl::posix_fadvise(named.as_file(), 0, 0, advice).unwrap();
        if cached::cached_bytes(&file, 0, length) > 0 {
            return eprintln!("this file system keeps its pages");
        }
        let stats = ShardStats::default();
        assert_eq!(
            sent(FetchPath::Auto, &file, length - 2, &stats).len(),
            1 << 20
        );
        let cold = stats.bytes_sent_cold.get();
        assert!(cold > 0);
        // Besides the bytes in front and behind, only what was loaded is copied.
        assert_eq!(stats.bytes_sent_copy.get(), cold + 2);
        assert_eq!(stats.bytes_sent_sendfile.get(), length - 2 - cold);
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error() {
        let (socket, _theirs) = pair();
        let extent = Extent {
            file: file(b"0123"),
            position: 4,
            length: 1,
        };
        for path in [FetchPath::Auto, FetchPath::Splice, FetchPath::Copy] {
            let stats = ShardStats::default();
            let mut sending = Sending::new(Few::from([Chunk::Extent(extent.clone())]), path);
            let error = match sending.push(&socket, 9, &stats) {
                Ok(Progress::Cold) => {
                    let mut load = sending.load(&mut Buffers::new(1)).unwrap().unwrap();
                    let count = load.run().unwrap();
                    sending.on_loaded(load, count, &stats).unwrap_err()
                }
                Ok(progress) => panic!("{path:?}: {progress:?}"),
                Err(error) => error,
            };
            assert_eq!(
                error.raw_os_error(),
                Some(Errno::ENODATA as i32),
                "{path:?}"
            );
        }
    }
}
