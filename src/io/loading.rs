//! Fetching bytes of a file that are not in the page cache: the part of a send that may wait for
//! the device. The ring hands a [`Load`] to the kernel, posix to its worker; nobody else waits.
//!
//! With `auto` a file is opened once more to be read past the page cache, into a buffer that is
//! used over and over. Where the file system cannot do that, and at the end of an extent, the read
//! goes through the cache; then the kernel is told not to read ahead, because it would allocate
//! those pages (megabytes, often) on the thread that asks.

use super::buffers::Ticket;
use super::files::descriptor;
use crate::base::dir::{Extent, File, FileKind};
use nix::errno::Errno;
use nix::fcntl::{
    FcntlArg, OFlag, PosixFadviseAdvice, SpliceFFlags, fcntl, open, posix_fadvise, splice,
};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;
use nix::unistd::pipe2;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes fetched at once: large enough for a disk, small enough to stay in the core's cache.
pub(super) const LOAD_BYTES_MAX: usize = 256 * 1024;

/// The last bytes of a cold extent, which are read through the page cache, and as many behind them:
/// the next fetch of the same reader looks at the batch head there.
const COLD_END_BYTES: u64 = 8 * 1024;

/// What reads past the page cache begin and end with, in the file and in memory: enough for every
/// device.
const ALIGNMENT: u64 = 4096;

/// Memory of one buffer.
pub const BUFFER_BYTES: usize = LOAD_BYTES_MAX + ALIGNMENT as usize;

/// What fetches the next bytes of an extent.
#[derive(Debug)]
pub(super) struct Load {
    /// From where.
    pub(super) file: File,
    /// First byte that is read.
    pub(super) position: u64,
    /// Bytes to read; there may be fewer at the end of the file.
    pub(super) length: usize,
    /// To where.
    pub(super) target: Target,
    /// The bytes of those read that are wanted.
    wanted: Range<usize>,
}

/// Where the bytes of a [`Load`] go. It belongs to whoever carries the load out until it is done.
#[derive(Debug)]
pub(super) enum Target {
    /// Memory.
    Buffer(Buffer),
    /// A pipe, which is empty.
    Pipe(Pipe),
}

/// Memory for loads, aligned as reads past the page cache need it.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    ready: Range<usize>,
    _ticket: Ticket,
}

/// A pipe between a file and a socket.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: u64,
    _ticket: Ticket,
}

/// A second handle to a file, for reads past the page cache; the file itself where there is none.
pub(super) fn past_the_cache(file: &File) -> File {
    let path = format!("/proc/self/fd/{}", descriptor(file).as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECT | OFlag::O_CLOEXEC;
    match open(path.as_str(), flags, Mode::empty()) {
        Ok(direct) => File::new(FileKind::Os(direct)),
        Err(_) => file.clone(),
    }
}

impl Load {
    /// The first bytes of an extent, as they lie in the file.
    pub(super) fn through_the_cache(extent: &Extent, target: Target) -> Self {
        // A hint; without it there is only more to read.
        let advice = PosixFadviseAdvice::POSIX_FADV_RANDOM;
        let _ = posix_fadvise(descriptor(&extent.file), 0, 0, advice);
        let length = extent.length.min(LOAD_BYTES_MAX as u64) as usize;
        Self {
            file: extent.file.clone(),
            position: extent.position,
            length,
            target,
            wanted: 0..length,
        }
    }

    /// The first bytes of an extent, read from a file of [`past_the_cache`].
    pub(super) fn past_the_cache(extent: &Extent, file: &File, target: Target) -> Self {
        if extent.length <= COLD_END_BYTES {
            let mut load = Self::through_the_cache(extent, target);
            load.length += COLD_END_BYTES as usize;
            return load;
        }
        let wanted = extent.position..extent.position + extent.length - COLD_END_BYTES;
        let position = wanted.start - wanted.start % ALIGNMENT;
        let length = wanted.end.next_multiple_of(ALIGNMENT) - position;
        let length = length.min(LOAD_BYTES_MAX as u64);
        let wanted = wanted.start - position..length.min(wanted.end - position);
        Self {
            file: file.clone(),
            position,
            length: length as usize,
            target,
            wanted: wanted.start as usize..wanted.end as usize,
        }
    }

    /// Carries it out and waits for the device; for a thread that may. The bytes read.
    pub(super) fn run(&mut self) -> io::Result<usize> {
        let file = descriptor(&self.file);
        let position = i64::try_from(self.position).map_err(|_| Errno::EINVAL)?;
        match &mut self.target {
            Target::Buffer(buffer) => Ok(pread(file, buffer.room(self.length), position)?),
            Target::Pipe(pipe) => {
                let (writer, flags) = (&pipe.writer, SpliceFFlags::SPLICE_F_MOVE);
                let mut position = position;
                let position = Some(&mut position);
                Ok(splice(file, position, writer, None, self.length, flags)?)
            }
        }
    }

    /// `count` bytes were read. `None` if nothing of what was wanted is among them: the file is
    /// shorter than the extent.
    pub(super) fn end(self, count: usize) -> Option<Target> {
        let ready = self.wanted.start..self.wanted.end.min(count);
        let mut target = self.target;
        match &mut target {
            Target::Buffer(buffer) => buffer.ready = ready.clone(),
            Target::Pipe(pipe) => pipe.held = ready.len() as u64,
        }
        (!ready.is_empty()).then_some(target)
    }
}

impl Target {
    /// Bytes that wait to be sent.
    pub(super) fn held(&self) -> u64 {
        match self {
            Target::Buffer(buffer) => buffer.ready.len() as u64,
            Target::Pipe(pipe) => pipe.held,
        }
    }

    /// Sends what is held, as much as the socket takes without waiting.
    pub(super) fn push(&mut self, socket: BorrowedFd<'_>, flags: MsgFlags) -> Result<u64, Errno> {
        match self {
            Target::Buffer(buffer) => {
                let start = buffer.start();
                let ready = start + buffer.ready.start..start + buffer.ready.end;
                let sent = send(socket.as_raw_fd(), &buffer.memory[ready], flags)?;
                buffer.ready.start += sent;
                Ok(sent as u64)
            }
            Target::Pipe(pipe) => {
                let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
                let length = usize::try_from(pipe.held).map_err(|_| Errno::EINVAL)?;
                let sent = splice(&pipe.reader, None, socket, None, length, flags)? as u64;
                pipe.held -= sent;
                Ok(sent)
            }
        }
    }
}

impl Buffer {
    pub(super) fn new(ticket: Ticket) -> Self {
        Self {
            memory: vec![0; BUFFER_BYTES],
            ready: 0..0,
            _ticket: ticket,
        }
    }

    /// Aligned memory for a load of `length` bytes.
    pub(super) fn room(&mut self, length: usize) -> &mut [u8] {
        let start = self.start();
        &mut self.memory[start..start + length]
    }

    fn start(&self) -> usize {
        let address = self.memory.as_ptr().addr();
        address.next_multiple_of(ALIGNMENT as usize) - address
    }
}

impl Pipe {
    pub(super) fn new(ticket: Ticket) -> nix::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        // Less room only means more turns.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(LOAD_BYTES_MAX as i32));
        Ok(Self {
            reader,
            writer,
            held: 0,
            _ticket: ticket,
        })
    }

    /// The end that takes.
    pub(super) fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::FetchPath;
    use crate::io::buffers::Buffers;

    fn extent(position: u64, length: u64) -> Extent {
        let file = File::new(FileKind::Os(tempfile::tempfile().unwrap().into()));
        Extent {
            file,
            position,
            length,
        }
    }

    /// Where the load of an extent reads, and what of the file it wants.
    fn window(position: u64, length: u64) -> (u64, usize, Range<u64>) {
        let extent = extent(position, length);
        let target = Buffers::new(1).target(FetchPath::Auto).unwrap().unwrap();
        let load = Load::past_the_cache(&extent, &extent.file, target);
        let wanted = load.wanted.start as u64..load.wanted.end as u64;
        let wanted = load.position + wanted.start..load.position + wanted.end;
        (load.position, load.length, wanted)
    }

    #[test]
    fn reads_past_the_cache_are_aligned_and_leave_the_end_of_the_extent() {
        let full = LOAD_BYTES_MAX as u64;
        let far = 10 * full;
        assert_eq!(window(0, far), (0, LOAD_BYTES_MAX, 0..full));
        let odd = 4_096..4_096 + full;
        assert_eq!(window(5_000, far), (4_096, LOAD_BYTES_MAX, 5_000..odd.end));
        let short = 40_000;
        let end = 5_000 + short - COLD_END_BYTES;
        assert_eq!(window(5_000, short), (4_096, 32_768, 5_000..end));
        // The end goes through the cache, as it lies, with a little more.
        let end = COLD_END_BYTES;
        let read = 2 * end as usize;
        assert_eq!(window(5_001, end), (5_001, read, 5_001..5_001 + end));
    }

    #[test]
    fn a_read_that_ends_before_what_is_wanted_brings_nothing() {
        let load = |count| {
            let extent = extent(5_000, 1 << 20);
            let target = Buffers::new(1).target(FetchPath::Auto).unwrap().unwrap();
            let load = Load::past_the_cache(&extent, &extent.file, target);
            load.end(count).map(|target| target.held())
        };
        assert_eq!(load(904), None);
        assert_eq!(load(905), Some(1));
    }
}
