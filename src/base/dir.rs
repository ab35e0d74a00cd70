//! The one seam through which pure code sees a directory: [`Dir`]. The io layer implements it on
//! the file system, the simulator on a disk with faults. Every call is plain and synchronous and
//! meant for the page cache; what must wait for the device goes through the ring by [`File`].

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An open file that can be shared between shards: an extent of a fetch keeps it alive even after
/// the segment was deleted.
#[derive(Clone, Debug)]
pub struct File(Arc<FileKind>);

/// What stands behind a [`File`].
#[derive(Debug)]
pub enum FileKind {
    /// A descriptor of the operating system.
    Os(OwnedFd),
    /// The same of a directory: a sync makes names durable, not contents.
    OsDir(OwnedFd),
    /// An inode of the simulated disk.
    Simulated(u64),
    /// A directory of the simulated disk.
    SimulatedDir(usize),
}

impl File {
    /// Wraps an open file.
    pub fn new(kind: FileKind) -> Self {
        Self(Arc::new(kind))
    }

    /// What stands behind it.
    pub fn kind(&self) -> &FileKind {
        &self.0
    }
}

/// A stretch of a file that goes to a socket without passing through user space.
#[derive(Clone, Debug)]
pub struct Extent {
    /// The segment's file.
    pub file: File,
    /// First byte.
    pub position: u64,
    /// Number of bytes; the file holds at least that many.
    pub length: u64,
}

/// How an [`Extent`] travels to its socket (`fetch.path`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FetchPath {
    /// `sendfile` for what is in the page cache; what is not is read first, by others than the
    /// shard's thread.
    #[default]
    Auto,
    /// `sendfile` for everything: a missing page makes the shard wait for the device.
    Sendfile,
    /// Through a pipe, filled by others than the shard's thread.
    Splice,
    /// Read into memory, and sent from there.
    Copy,
}

/// The directory of one partition (or of the broker), by plain file names. It need not exist: then
/// it has no files, and the first one that is created creates it.
///
/// Errors are those of the operating system; the implementation adds operation and file name to
/// their text, so that callers can pass them on as they are. Those of a full disk or quota, or of a
/// process without descriptors ([`is_out_of_room`]), say that the call may be made again once there
/// is room: what it syncs it had not begun to. A failed sync never is one of them, whatever its
/// number: the kernel counts what it could not write as written, and a second try would only seem
/// to succeed.
pub trait Dir {
    /// All files with their sizes in bytes, sorted by name.
    fn list(&mut self) -> io::Result<Vec<(String, u64)>>;

    /// Creates an empty file; it must not exist. The name is durable after [`Dir::sync_dir`].
    fn create(&mut self, name: &str) -> io::Result<()>;

    /// An open handle, for sync and sendfile.
    fn open(&mut self, name: &str) -> io::Result<File>;

    /// Reads up to `buffer.len()` bytes at `position`; fewer only at the end of the file.
    fn read_at(&mut self, name: &str, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// True if reading at `position` would not wait for the device, as far as can be known.
    fn is_cached(&mut self, _name: &str, _position: u64) -> bool {
        true
    }

    /// Writes all slices one after the other at `position`.
    fn write_at(&mut self, name: &str, position: u64, slices: &[io::IoSlice<'_>])
    -> io::Result<()>;

    /// Asks for room on the device behind what is written, without changing the file's size: blocks
    /// allocated in one piece make the writes into them cheaper. Best effort: where it cannot be
    /// had, writes allocate as they go. What is not used is given back by [`Dir::truncate`].
    fn reserve(&mut self, _name: &str, _position: u64, _length: u64) {}

    /// Puts a whole small file in place at once and durably: temporary file, sync, rename, sync of
    /// the directory. After a crash it holds either the old or the new contents.
    fn replace(&mut self, name: &str, contents: &[u8]) -> io::Result<()>;

    /// Forgets what the page cache holds of a file and the device should hold too, so that reads
    /// see what the device really has. What was written and not synced stays.
    fn drop_cached(&mut self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    /// Cuts a file to `length` bytes.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Removes a file; handles to it stay usable.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Waits until the file's contents are on stable storage (`fdatasync`). For start-up, roll and
    /// shutdown; the running log syncs through the ring.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Makes created, renamed and removed names durable, and the directory's own.
    fn sync_dir(&mut self) -> io::Result<()>;

    /// What to sync through the ring for the same effect as [`Dir::sync_dir`].
    fn names(&mut self) -> io::Result<Vec<File>>;
}

/// True for the error of a call that found no room on the disk or in a quota, of descriptors too.
pub fn is_out_of_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
