//! Files and directories, as both back ends see them: [`DataDir`] holds one directory per
//! partition, [`FsDir`] is one of them. An [`FsDir`] is a name, not a descriptor: it costs nothing
//! while nothing is read or written, and the directory is created with its first file. Names that
//! would lead elsewhere are refused.
//!
//! Nothing here waits for the device but the calls that say so (`sync`, `sync_dir`, `replace`).

mod limit;
mod open_files;

use super::cached;
use crate::base::Space;
use crate::base::dir::{Dir, File, FileKind, is_out_of_room};
use crate::base::planted::{self, Bug};
pub use limit::raise_open_files_limit;
use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{
    AtFlags, FallocateFlags, OFlag, PosixFadviseAdvice, fallocate, openat, posix_fadvise, renameat,
};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::sys::statvfs::fstatvfs;
use nix::sys::uio::{pread, pwritev};
use nix::unistd::{UnlinkatFlags, fdatasync, fsync, ftruncate, unlinkat};
use open_files::{OpenFiles, Place};
use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

/// Open descriptors known per directory: the active segment, and a few older segments that
/// consumers read, with their indexes.
const DIR_FILES_MAX: usize = 8;

/// Descriptors that a [`DataDir`] keeps open unless told otherwise.
const OPEN_FILES_MAX: usize = 256;

/// Slices the kernel takes in one vectored write (`IOV_MAX`).
const WRITE_SLICES_MAX: usize = 1024;

/// No room is laid by in files any more when less than one part in so many of the disk is free.
const ROOMY: u64 = 8;

/// Ends the name of a file that [`Dir::replace`] has not finished. Such files are never listed: a
/// crash may leave one, and the next replace of the same name writes over it.
pub const UNFINISHED_SUFFIX: &str = ".tmp";

/// The broker's data directory: one directory per partition.
#[derive(Debug)]
pub struct DataDir {
    dir: Rc<OwnedFd>,
    label: String,
    open: Rc<RefCell<OpenFiles>>,
}

/// One directory of the data directory, which need not exist.
#[derive(Debug)]
pub struct FsDir {
    root: Rc<OwnedFd>,
    name: String,
    /// For error texts.
    label: String,
    open: Rc<RefCell<OpenFiles>>,
    /// Where its files are kept open; least recently opened first.
    places: Vec<(String, Place)>,
}

/// An error of the operating system with what was being done to which file.
#[derive(Debug)]
struct FileError {
    operation: &'static str,
    name: String,
    error: io::Error,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.name, self.error)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// The number of the operating system's error behind an error of this layer, also where operation
/// and file name were added to its text.
pub fn errno(error: &io::Error) -> Option<i32> {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<FileError>());
    inner.map_or(error.raw_os_error(), |inner| inner.error.raw_os_error())
}

impl DataDir {
    /// Opens an existing data directory and makes durable what an earlier process created in it
    /// and could not sync any more.
    pub fn open(path: &Path) -> io::Result<Self> {
        let label = path.display().to_string();
        let dir = nix::fcntl::open(path, DIRECTORY, Mode::empty())
            .map_err(|errno| failed("open", &label, errno))?;
        let dir = Self {
            dir: Rc::new(dir),
            label,
            open: Rc::new(RefCell::new(OpenFiles::new(OPEN_FILES_MAX))),
        };
        dir.sync()?;
        Ok(dir)
    }

    /// Keeps at most this many files of all its directories open.
    pub fn with_open_files_max(self, files_max: usize) -> Self {
        let open = Rc::new(RefCell::new(OpenFiles::new(files_max)));
        Self { open, ..self }
    }

    /// The names of all directories in it, sorted.
    pub fn list_dirs(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for (name, kind) in entries(self.dir.as_fd(), ".", &self.label)? {
            if kind == EntryKind::Directory {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The files of the data directory itself.
    pub fn files(&self) -> FsDir {
        self.named(".", self.label.clone())
    }

    /// One of its directories, whether it exists or not.
    pub fn dir(&self, name: &str) -> io::Result<FsDir> {
        self.path(name)?;
        Ok(self.named(name, name.to_owned()))
    }

    fn named(&self, name: &str, label: String) -> FsDir {
        FsDir {
            root: self.dir.clone(),
            name: name.to_owned(),
            label,
            open: self.open.clone(),
            places: Vec::new(),
        }
    }

    /// Renames a directory; durable after [`DataDir::sync`]. What was known of it by its old name
    /// must not be used any more.
    pub fn rename_dir(&self, from: &str, to: &str) -> io::Result<()> {
        let path = self.path(from)?;
        self.path(to)?;
        renameat(&*self.dir, from, &*self.dir, to).map_err(|errno| failed("rename", &path, errno))
    }

    /// Removes a directory and all files in it; durable after [`DataDir::sync`].
    pub fn remove_dir(&self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        for (file, _) in entries(self.dir.as_fd(), name, &path)? {
            let file = format!("{name}/{file}");
            unlinkat(&*self.dir, file.as_str(), UnlinkatFlags::NoRemoveDir)
                .map_err(|errno| failed("remove", &format!("{}/{file}", self.label), errno))?;
        }
        unlinkat(&*self.dir, name, UnlinkatFlags::RemoveDir)
            .map_err(|errno| failed("remove", &path, errno))
    }

    /// Makes renamed and removed directories durable.
    pub fn sync(&self) -> io::Result<()> {
        fsync(&*self.dir).map_err(|errno| sync_failed(&self.label, errno))
    }

    /// What is left of its file system.
    pub fn space(&self) -> io::Result<Space> {
        space(self.dir.as_fd()).map_err(|errno| failed("look at", &self.label, errno))
    }

    /// Makes everything in it durable, contents and names, and with it all of its file system.
    pub fn sync_all(&self) -> io::Result<()> {
        nix::unistd::syncfs(&*self.dir).map_err(|errno| sync_failed(&self.label, errno))
    }

    /// The name for error texts, if it is one that stays inside.
    fn path(&self, name: &str) -> io::Result<String> {
        let path = format!("{}/{name}", self.label);
        check_plain(name, &path)?;
        Ok(path)
    }
}

impl FsDir {
    /// An open descriptor of a file that exists, from those kept or a new one.
    fn file(&mut self, name: &str, operation: &'static str) -> io::Result<File> {
        if let Some(at) = self.places.iter().position(|(kept, _)| kept == name) {
            if let Some(file) = self.open.borrow_mut().get(self.places[at].1) {
                return Ok(file);
            }
            self.places.remove(at);
        }
        let fd = self.open_at(name, OFlag::O_RDWR, operation)?;
        let file = File::new(FileKind::Os(fd));
        if self.places.len() == DIR_FILES_MAX {
            let (_, place) = self.places.remove(0);
            self.open.borrow_mut().close(place);
        }
        let place = self.open.borrow_mut().keep(file.clone());
        self.places.push((name.to_owned(), place));
        Ok(file)
    }

    fn open_at(&self, name: &str, flags: OFlag, operation: &'static str) -> io::Result<OwnedFd> {
        check_plain(name, &self.path(name))?;
        openat(
            &*self.root,
            self.inside(name).as_str(),
            flags | OFlag::O_CLOEXEC,
            Mode::from_bits_truncate(0o644),
        )
        .map_err(|errno| self.failed(operation, name, errno))
    }

    /// The same for a file that may be new, and the first one of the directory.
    fn create_at(&self, name: &str, flags: OFlag, operation: &'static str) -> io::Result<OwnedFd> {
        match self.open_at(name, flags | OFlag::O_CREAT, operation) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        match mkdirat(
            &*self.root,
            self.name.as_str(),
            Mode::from_bits_truncate(0o755),
        ) {
            Ok(()) | Err(Errno::EEXIST) => self.open_at(name, flags | OFlag::O_CREAT, operation),
            Err(errno) => Err(failed("create", &self.label, errno)),
        }
    }

    fn open_dir(&self) -> io::Result<OwnedFd> {
        openat(&*self.root, self.name.as_str(), DIRECTORY, Mode::empty())
            .map_err(|errno| failed("sync", &self.label, errno))
    }

    fn forget(&mut self, name: &str) {
        if let Some(at) = self.places.iter().position(|(kept, _)| kept == name) {
            let (_, place) = self.places.remove(at);
            self.open.borrow_mut().close(place);
        }
    }

    /// A file's path from the data directory.
    fn inside(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.label)
    }

    fn failed(
        &self,
        operation: &'static str,
        name: &str,
        error: impl Into<io::Error>,
    ) -> io::Error {
        failed(operation, &self.path(name), error)
    }
}

impl Drop for FsDir {
    fn drop(&mut self) {
        let mut open = self.open.borrow_mut();
        for (_, place) in &self.places {
            open.close(*place);
        }
    }
}

impl Dir for FsDir {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        let found = match entries(self.root.as_fd(), &self.name, &self.label) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
            found => found?,
        };
        for (name, kind) in found {
            if kind != EntryKind::File || name.ends_with(UNFINISHED_SUFFIX) {
                continue;
            }
            match fstatat(
                &*self.root,
                self.inside(&name).as_str(),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            ) {
                Ok(stat) => files.push((name, u64::try_from(stat.st_size).unwrap_or(0))),
                // Removed since it was listed.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(self.failed("list", &name, errno)),
            }
        }
        Ok(files)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.create_at(name, OFlag::O_RDWR | OFlag::O_EXCL, "create")
            .map(drop)
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        self.file(name, "open")
    }

    fn read_at(&mut self, name: &str, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.file(name, "read")?;
        read_file(descriptor(&file), position, buffer)
            .map_err(|error| self.failed("read", name, error))
    }

    fn is_cached(&mut self, name: &str, position: u64) -> bool {
        let file = self.file(name, "read");
        file.is_ok_and(|file| cached::is_readable(descriptor(&file), position))
    }

    fn write_at(&mut self, name: &str, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let file = self.file(name, "write")?;
        write_file(descriptor(&file), position, slices)
            .map_err(|error| self.failed("write", name, error))
    }

    fn reserve(&mut self, name: &str, position: u64, length: u64) {
        let range = offset(position).and_then(|start| Ok((start, offset(length)?)));
        if let (Ok(file), Ok((start, length))) = (self.file(name, "reserve"), range) {
            // What one file lays by, another could need.
            if space(descriptor(&file)).is_ok_and(|s| s.free_bytes < s.total_bytes / ROOMY) {
                return;
            }
            // A full disk or a file system that cannot do this will be heard of by the write.
            let _ = fallocate(
                descriptor(&file),
                FallocateFlags::FALLOC_FL_KEEP_SIZE,
                start,
                length,
            );
        }
    }

    fn replace(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        let unfinished = format!("{name}{UNFINISHED_SUFFIX}");
        let flags = OFlag::O_WRONLY | OFlag::O_TRUNC;
        let file = self.create_at(&unfinished, flags, "replace")?;
        // Whoever lacks a descriptor must have done nothing yet.
        let dir = self.open_dir()?;
        write_file(file.as_fd(), 0, &[IoSlice::new(contents)])
            .map_err(|error| self.failed("replace", name, error))?;
        fsync(&file).map_err(|errno| self.failed("replace", name, errno))?;
        // A kept descriptor would go on reading the old contents.
        self.forget(name);
        let (from, to) = (self.inside(&unfinished), self.inside(name));
        renameat(&*self.root, from.as_str(), &*self.root, to.as_str())
            .map_err(|errno| self.failed("replace", name, errno))?;
        fsync(dir).map_err(|errno| sync_failed(&self.label, errno))
    }

    fn drop_cached(&mut self, name: &str) -> io::Result<()> {
        let file = self.file(name, "drop from the cache")?;
        let all = (0, 0);
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        posix_fadvise(descriptor(&file), all.0, all.1, advice)
            .map_err(|errno| self.failed("drop from the cache", name, errno))
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let file = self.file(name, "truncate")?;
        let length = offset(length).map_err(|error| self.failed("truncate", name, error))?;
        ftruncate(descriptor(&file), length).map_err(|errno| self.failed("truncate", name, errno))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        check_plain(name, &self.path(name))?;
        self.forget(name);
        unlinkat(
            &*self.root,
            self.inside(name).as_str(),
            UnlinkatFlags::NoRemoveDir,
        )
        .map_err(|errno| self.failed("remove", name, errno))
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let file = self.file(name, "sync")?;
        sync(&file).map_err(|error| sync_failed(&self.path(name), error))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        for file in self.names()? {
            sync(&file).map_err(|error| sync_failed(&self.label, error))?;
        }
        Ok(())
    }

    fn names(&mut self) -> io::Result<Vec<File>> {
        let root = openat(&*self.root, ".", DIRECTORY, Mode::empty())
            .map_err(|errno| failed("sync", &self.label, errno))?;
        let files = [self.open_dir()?, root].map(|fd| File::new(FileKind::OsDir(fd)));
        Ok(files.to_vec())
    }
}

/// Waits until what was written to a file, or what happened to the names in a directory, is on
/// stable storage.
pub(super) fn sync(file: &File) -> io::Result<()> {
    let result = match is_dir(file) {
        true => fsync(descriptor(file)),
        false => fdatasync(descriptor(file)),
    };
    result.map_err(io::Error::from)
}

/// True for what [`Dir::names`] gives.
pub(super) fn is_dir(file: &File) -> bool {
    matches!(file.kind(), FileKind::OsDir(_))
}

fn space(fd: BorrowedFd<'_>) -> Result<Space, Errno> {
    let found = fstatvfs(fd)?;
    let block_bytes = found.fragment_size();
    Ok(Space {
        free_bytes: found.blocks_available().saturating_mul(block_bytes),
        total_bytes: found.blocks().saturating_mul(block_bytes),
    })
}

/// The descriptor behind a file of the operating system.
pub(super) fn descriptor(file: &File) -> BorrowedFd<'_> {
    match file.kind() {
        FileKind::Os(fd) | FileKind::OsDir(fd) => fd.as_fd(),
        _ => unreachable!("a simulated file reached the operating system"),
    }
}

/// How directories are opened.
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum EntryKind {
    Directory,
    File,
    Other,
}

/// Name and kind of everything in a directory, sorted by name.
fn entries(root: BorrowedFd<'_>, dir: &str, label: &str) -> io::Result<Vec<(String, EntryKind)>> {
    let list = |errno| failed("list", label, errno);
    let mut reader = nix::dir::Dir::openat(root, dir, DIRECTORY, Mode::empty()).map_err(list)?;
    let mut entries = Vec::new();
    for entry in reader.iter() {
        let entry = entry.map_err(list)?;
        let Ok(name) = entry.file_name().to_str() else {
            let name = format!("{label}/{}", entry.file_name().to_string_lossy());
            return Err(failed(
                "list",
                &name,
                io::Error::from(io::ErrorKind::InvalidFilename),
            ));
        };
        if matches!(name, "." | "..") {
            continue;
        }
        let kind = match entry.file_type() {
            Some(Type::Directory) => EntryKind::Directory,
            Some(Type::File) => EntryKind::File,
            Some(_) => EntryKind::Other,
            // Not every file system tells.
            None => kind_of(root, &format!("{dir}/{name}")).map_err(list)?,
        };
        entries.push((name.to_owned(), kind));
    }
    entries.sort();
    Ok(entries)
}

fn kind_of(root: BorrowedFd<'_>, path: &str) -> Result<EntryKind, Errno> {
    let stat = match fstatat(root, path, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(EntryKind::Other),
        stat => stat?,
    };
    Ok(
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => EntryKind::Directory,
            SFlag::S_IFREG => EntryKind::File,
            _ => EntryKind::Other,
        },
    )
}

/// Reads until the buffer is full or the file ends.
fn read_file(fd: BorrowedFd<'_>, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
    read_all(position, buffer, |position, rest| {
        pread(fd, rest, offset(position)?).map_err(io::Error::from)
    })
}

/// Reads by single reads, each of which may be short, until the buffer is full or one gives
/// nothing. Gives the number of bytes read.
pub fn read_all(
    position: u64,
    buffer: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read(position.saturating_add(done as u64), &mut buffer[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all slices to a file.
fn write_file(fd: BorrowedFd<'_>, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
    write_all(position, slices, |position, slices| {
        pwritev(fd, slices, offset(position)?).map_err(io::Error::from)
    })
}

/// Writes all slices by vectored writes, each of which may be short and takes a bounded number of
/// slices.
pub fn write_all(
    position: u64,
    slices: &[IoSlice<'_>],
    mut write: impl FnMut(u64, &[IoSlice<'_>]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut position = position;
    for run in slices.chunks(WRITE_SLICES_MAX) {
        let mut left: usize = run.iter().map(|slice| slice.len()).sum();
        let mut rest: &[IoSlice<'_>] = run;
        // Only after a short write are the slices copied, to cut off what was written.
        let mut copy: Vec<IoSlice<'_>>;
        while left > 0 {
            let written = match write(position, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            position = position.saturating_add(written as u64);
            left -= written;
            if planted::is(Bug::ShortWriteIgnored) {
                break;
            }
            if left > 0 {
                copy = rest.to_vec();
                let mut uncut = &mut copy[..];
                IoSlice::advance_slices(&mut uncut, written);
                rest = uncut;
            }
        }
    }
    Ok(())
}

/// A position as the kernel wants it.
fn offset(position: u64) -> io::Result<i64> {
    i64::try_from(position).map_err(|_| Errno::EINVAL.into())
}

/// Refuses names that lead out of the directory.
fn check_plain(name: &str, path: &str) -> io::Result<()> {
    if name.is_empty() || matches!(name, "." | "..") || name.contains('/') {
        return Err(failed(
            "open",
            path,
            io::Error::from(io::ErrorKind::InvalidFilename),
        ));
    }
    Ok(())
}

/// The same for a failed sync, which must not look as if it could be tried again.
fn sync_failed(name: &str, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    let kind = match is_out_of_room(&error) {
        true => io::ErrorKind::Other,
        false => error.kind(),
    };
    file_error(kind, "sync", name, error)
}

/// Adds operation and file name to an error, keeping its kind, if it has one.
fn failed(operation: &'static str, name: &str, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    let kind = match error.raw_os_error().map(Errno::from_raw) {
        // The limit of the process, or of the machine. Only a call that makes a descriptor meets
        // it, and does so before anything else.
        Some(Errno::EMFILE | Errno::ENFILE) => io::ErrorKind::QuotaExceeded,
        _ => error.kind(),
    };
    file_error(kind, operation, name, error)
}

fn file_error(
    kind: io::ErrorKind,
    operation: &'static str,
    name: &str,
    error: io::Error,
) -> io::Error {
    let name = name.to_owned();
    io::Error::new(
        kind,
        FileError {
            operation,
            name,
            error,
        },
    )
}

#[cfg(test)]
mod tests;
