//! One send: what of it the socket has not taken yet, and the plain calls that push it without
//! waiting. Bytes in memory go by `sendmsg`. An extent goes by the path that [`FetchPath`] names:
//!
//! - `sendfile`: straight from the page cache; waits for the device where a page is missing.
//! - `auto`: the same, but the page cache is asked first. What is missing is read by somebody who
//!   may wait (the ring, or posix's worker) into a buffer that nobody looks at, and then sent.
//! - `copy`: always read into a buffer, and sent from there.
//! - `splice`: moved into a pipe by somebody who may wait, and from there to the socket.
//!
//! Invariant: with every path but `sendfile` the shard's own thread does not wait for the device,
//! as long as a page that was found in the cache is still there when it is sent.
//! This file decides what comes next; reading ahead is the back end's part ([`Load`]).

use super::sockets::descriptor;
use super::{Chunk, Extent, FetchPath, Socket, cached, files};
use crate::base::{Few, ShardStats};
use bytes::{Buf, Bytes, BytesMut};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, sendmsg};
use nix::unistd::pipe2;
use smallvec::SmallVec;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes one socket is given by plain calls in one turn, so that a fast reader of a long extent
/// does not keep the shard from its other work.
pub(super) const SEND_TURN_BYTES_MAX: u64 = 256 * 1024;

/// Slices put in one vectored send.
const SEND_SLICES_MAX: usize = 64;

/// Bytes read ahead at once: large enough for a disk, small enough to stay in the core's cache.
const LOAD_BYTES_MAX: usize = SEND_TURN_BYTES_MAX as usize;

/// The rest of a send.
#[derive(Debug)]
pub(super) struct Sending {
    /// The next one last, where it is cheap to take off.
    chunks: Few<Chunk>,
    extents: usize,
    path: FetchPath,
    /// Bytes of the first extent that were in the page cache when somebody looked.
    warm: u64,
    /// Bytes of the first extent on their way, with `splice`.
    pipe: Option<Pipe>,
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

/// What fetches the next bytes of an extent, and how many they are at most.
#[derive(Debug)]
pub(super) struct Load {
    /// From where, and how much.
    pub(super) extent: Extent,
    /// To where.
    pub(super) target: Target,
}

/// Where the bytes of a [`Load`] go. It belongs to whoever carries the load out until
/// [`Sending::on_loaded`] takes it back.
#[derive(Debug)]
pub(super) enum Target {
    /// The spare capacity of a buffer, at least as large as the load.
    Buffer(BytesMut),
    /// A pipe, which is empty.
    Pipe(Pipe),
}

/// A pipe between a file and a socket.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: u64,
}

impl Pipe {
    fn new() -> nix::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        // Less room only means more turns.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(LOAD_BYTES_MAX as i32));
        Ok(Self {
            reader,
            writer,
            held: 0,
        })
    }

    /// The end that takes.
    pub(super) fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }
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
            pipe: None,
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
                self.extents -= usize::from(matches!(chunk, Chunk::Extent(_)));
                self.chunks.pop();
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
                return Ok(Progress::Cold);
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

    /// What is to be fetched after [`Progress::Cold`]; `spare` is an empty buffer with room for a
    /// load, if there is one left over.
    pub(super) fn load(&mut self, spare: Option<BytesMut>) -> io::Result<Load> {
        let Some(Chunk::Extent(extent)) = self.chunks.last() else {
            unreachable!("only an extent is cold");
        };
        let extent = Extent {
            length: extent.length.min(LOAD_BYTES_MAX as u64),
            ..extent.clone()
        };
        let target = match (self.path, self.pipe.take()) {
            (FetchPath::Splice, Some(pipe)) => Target::Pipe(pipe),
            (FetchPath::Splice, None) => Target::Pipe(Pipe::new()?),
            _ => Target::Buffer(spare.unwrap_or_else(|| BytesMut::with_capacity(LOAD_BYTES_MAX))),
        };
        Ok(Load { extent, target })
    }

    /// The first `count` bytes of a load are there (0 at the end of the file). Gives the buffer
    /// back if it can serve again.
    pub(super) fn on_loaded(
        &mut self,
        count: usize,
        target: Target,
        stats: &ShardStats,
    ) -> io::Result<Option<BytesMut>> {
        if count == 0 {
            // The file is shorter than the extent: the answer cannot be completed.
            return Err(Errno::ENODATA.into());
        }
        match (target, self.path) {
            (Target::Pipe(mut pipe), _) => {
                pipe.held = count as u64;
                self.pipe = Some(pipe);
                Ok(None)
            }
            (Target::Buffer(buffer), FetchPath::Copy) => {
                self.advance(count as u64);
                self.chunks.push(Chunk::Bytes(buffer.freeze()));
                Ok(None)
            }
            (Target::Buffer(mut buffer), _) => {
                self.warm = count as u64;
                stats.bytes_sent_cold.add(count as u64);
                buffer.clear();
                Ok(Some(buffer))
            }
        }
    }

    /// True if the next bytes are not here yet. With `auto` that is asked of the page cache, for a
    /// turn's worth at a time.
    fn is_cold(&mut self) -> bool {
        let Some(Chunk::Extent(extent)) = self.chunks.last() else {
            return false;
        };
        match self.path {
            FetchPath::Sendfile => false,
            FetchPath::Copy => true,
            FetchPath::Splice => self.pipe.as_ref().is_none_or(|pipe| pipe.held == 0),
            FetchPath::Auto => {
                if self.warm == 0 {
                    let length = extent.length.min(SEND_TURN_BYTES_MAX);
                    self.warm = cached::cached_bytes(&extent.file, extent.position, length);
                }
                self.warm == 0
            }
        }
    }

    /// One system call: a vectored send, a sendfile, or a splice from the pipe.
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
        let count = |bytes: u64| usize::try_from(bytes).map_err(|_| Errno::EINVAL);
        if let Some(pipe) = &mut self.pipe {
            let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
            let sent = splice(&pipe.reader, None, fd, None, count(pipe.held)?, flags)? as u64;
            pipe.held -= sent;
            stats.bytes_sent_splice.add(sent);
            return Ok(sent);
        }
        let mut position = i64::try_from(extent.position).map_err(|_| Errno::EINVAL)?;
        let warm = match self.path {
            FetchPath::Auto => self.warm,
            _ => u64::MAX,
        };
        let length = count(extent.length.min(share).min(warm))?;
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

/// Carries a load out and waits for the device; for a thread that may.
pub(super) fn load(extent: &Extent, target: &mut Target) -> io::Result<usize> {
    match target {
        Target::Buffer(buffer) => cached::read_some(extent, buffer),
        Target::Pipe(pipe) => {
            let length = usize::try_from(extent.length).map_err(|_| Errno::EINVAL)?;
            let mut position = i64::try_from(extent.position).map_err(|_| Errno::EINVAL)?;
            let file = files::descriptor(&extent.file);
            let flags = SpliceFFlags::SPLICE_F_MOVE;
            Ok(splice(
                file,
                Some(&mut position),
                &pipe.writer,
                None,
                length,
                flags,
            )?)
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
    use crate::base::dir::{File, FileKind};
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
        let mut spare = None;
        loop {
            match sending.push(&socket, SEND_TURN_BYTES_MAX, stats).unwrap() {
                Progress::Done => break,
                Progress::Share | Progress::Blocked => std::thread::yield_now(),
                Progress::Cold => {
                    let Load { extent, mut target } = sending.load(spare.take()).unwrap();
                    let count = load(&extent, &mut target).unwrap();
                    spare = sending.on_loaded(count, target, stats).unwrap();
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
        assert!(stats.bytes_sent_cold.get() > 0);
        assert_eq!(stats.bytes_sent_sendfile.get(), length - 2);
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
                    let Load { extent, mut target } = sending.load(None).unwrap();
                    let count = load(&extent, &mut target).unwrap();
                    sending.on_loaded(count, target, &stats).unwrap_err()
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
