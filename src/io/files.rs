//! Files and directories, as both back ends see them: [`DataDir`] holds one directory per
//! partition, [`FsDir`] is one of them. Every call works relative to an open directory, so a
//! renamed directory stays usable, and names that would leave it are refused.
//!
//! Nothing here waits for the device but the calls that say so (`sync`, `sync_dir`, `replace`, and
//! the durable creation, renaming and removal of directories).

use super::cached;
use crate::base::dir::{Dir, File, FileKind};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, OFlag, fallocate, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::sys::uio::{pread, pwritev};
use nix::unistd::{UnlinkatFlags, fdatasync, fsync, ftruncate, unlinkat};
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Open descriptors kept per directory: the active segment with its two indexes, a checkpoint, and
/// a few older segments that consumers read. Thousands of partitions must fit the process's limit.
const OPEN_FILES_MAX: usize = 8;

/// Slices the kernel takes in one vectored write (`IOV_MAX`).
const WRITE_SLICES_MAX: usize = 1024;

/// Ends the name of a file that [`Dir::replace`] has not finished. Such files are never listed: a
/// crash may leave one, and the next replace of the same name writes over it.
const UNFINISHED_SUFFIX: &str = ".tmp";

/// The broker's data directory: one directory per partition.
#[derive(Debug)]
pub struct DataDir {
    dir: OwnedFd,
    label: String,
}

/// One directory of the data directory.
#[derive(Debug)]
pub struct FsDir {
    dir: OwnedFd,
    label: String,
    /// Least recently used first.
    open: Vec<(String, File)>,
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
        fsync(&dir).map_err(|errno| failed("sync", &label, errno))?;
        Ok(Self { dir, label })
    }

    /// The names of all directories in it, sorted.
    pub fn list_dirs(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for (name, kind, _) in entries(self.dir.as_fd(), &self.label)? {
            if kind == SFlag::S_IFDIR {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The files of the data directory itself.
    pub fn files(&self) -> io::Result<FsDir> {
        let dir = openat(&self.dir, ".", DIRECTORY, Mode::empty())
            .map_err(|errno| failed("open", &self.label, errno))?;
        Ok(FsDir {
            dir,
            label: self.label.clone(),
            open: Vec::new(),
        })
    }

    /// Opens one of its directories; a missing one is created durably.
    pub fn open_dir(&self, name: &str) -> io::Result<FsDir> {
        let path = self.path(name)?;
        match mkdirat(&self.dir, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => self.sync()?,
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed("create", &path, errno)),
        }
        let dir = openat(&self.dir, name, DIRECTORY, Mode::empty())
            .map_err(|errno| failed("open", &path, errno))?;
        Ok(FsDir {
            dir,
            label: name.to_owned(),
            open: Vec::new(),
        })
    }

    /// Renames a directory durably; open handles to it stay usable.
    pub fn rename_dir(&self, from: &str, to: &str) -> io::Result<()> {
        let path = self.path(from)?;
        self.path(to)?;
        renameat(&self.dir, from, &self.dir, to).map_err(|errno| failed("rename", &path, errno))?;
        self.sync()
    }

    /// Removes a directory and all files in it, durably.
    pub fn remove_dir(&self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        let dir = openat(&self.dir, name, DIRECTORY, Mode::empty())
            .map_err(|errno| failed("open", &path, errno))?;
        for (file, _, _) in entries(dir.as_fd(), &path)? {
            unlinkat(&dir, file.as_str(), UnlinkatFlags::NoRemoveDir)
                .map_err(|errno| failed("remove", &format!("{path}/{file}"), errno))?;
        }
        unlinkat(&self.dir, name, UnlinkatFlags::RemoveDir)
            .map_err(|errno| failed("remove", &path, errno))?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        fsync(&self.dir).map_err(|errno| failed("sync", &self.label, errno))
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
        if let Some(at) = self.open.iter().rposition(|(kept, _)| kept == name) {
            self.open[at..].rotate_left(1);
        } else {
            let fd = self.open_at(name, OFlag::O_RDWR, operation)?;
            if self.open.len() == OPEN_FILES_MAX {
                self.open.remove(0);
            }
            self.open
                .push((name.to_owned(), File::new(FileKind::Os(fd))));
        }
        let (_, file) = self.open.last().expect("the file was just put last");
        Ok(file.clone())
    }

    fn open_at(&self, name: &str, flags: OFlag, operation: &'static str) -> io::Result<OwnedFd> {
        check_plain(name, &self.path(name))?;
        openat(
            &self.dir,
            name,
            flags | OFlag::O_CLOEXEC,
            Mode::from_bits_truncate(0o644),
        )
        .map_err(|errno| self.failed(operation, name, errno))
    }

    fn forget(&mut self, name: &str) {
        self.open.retain(|(kept, _)| kept != name);
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

impl Dir for FsDir {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for (name, kind, size) in entries(self.dir.as_fd(), &self.label)? {
            if kind == SFlag::S_IFREG && !name.ends_with(UNFINISHED_SUFFIX) {
                files.push((name, size));
            }
        }
        Ok(files)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.open_at(
            name,
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL,
            "create",
        )
        .map(drop)
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        self.file(name, "open")
    }

    fn read_at(&mut self, name: &str, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.file(name, "read")?;
        read_full(descriptor(&file), position, buffer)
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
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        let file = self.open_at(&unfinished, flags, "replace")?;
        write_file(file.as_fd(), 0, &[IoSlice::new(contents)])
            .map_err(|error| self.failed("replace", name, error))?;
        fsync(&file).map_err(|errno| self.failed("replace", name, errno))?;
        // A kept descriptor would go on reading the old contents.
        self.forget(name);
        renameat(&self.dir, unfinished.as_str(), &self.dir, name)
            .map_err(|errno| self.failed("replace", name, errno))?;
        self.sync_dir()
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let file = self.file(name, "truncate")?;
        let length = offset(length).map_err(|error| self.failed("truncate", name, error))?;
        ftruncate(descriptor(&file), length).map_err(|errno| self.failed("truncate", name, errno))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        check_plain(name, &self.path(name))?;
        self.forget(name);
        unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir)
            .map_err(|errno| self.failed("remove", name, errno))
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let file = self.file(name, "sync")?;
        fdatasync(descriptor(&file)).map_err(|errno| self.failed("sync", name, errno))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        fsync(&self.dir).map_err(|errno| failed("sync", &self.label, errno))
    }
}

/// The descriptor behind a file of the operating system.
pub(super) fn descriptor(file: &File) -> BorrowedFd<'_> {
    match file.kind() {
        FileKind::Os(fd) => fd.as_fd(),
        FileKind::Simulated(_) => unreachable!("a simulated file reached the operating system"),
    }
}

/// How directories are opened.
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// Name, kind and size of everything in a directory, sorted by name.
fn entries(dir: BorrowedFd<'_>, label: &str) -> io::Result<Vec<(String, SFlag, u64)>> {
    let list = |errno| failed("list", label, errno);
    // A second descriptor, because reading the entries moves its position.
    let mut reader = nix::dir::Dir::openat(dir, ".", DIRECTORY, Mode::empty()).map_err(list)?;
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
        match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
                entries.push((
                    name.to_owned(),
                    kind,
                    u64::try_from(stat.st_size).unwrap_or(0),
                ));
            }
            // Removed since it was listed.
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed("list", &format!("{label}/{name}"), errno)),
        }
    }
    entries.sort();
    Ok(entries)
}

/// Reads until the buffer is full or the file ends.
fn read_full(fd: BorrowedFd<'_>, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match pread(
            fd,
            &mut buffer[done..],
            offset(position.saturating_add(done as u64))?,
        ) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
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
fn write_all(
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

/// Adds operation and file name to an error, keeping its kind.
fn failed(operation: &'static str, name: &str, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    let kind = error.kind();
    io::Error::new(
        kind,
        FileError {
            operation,
            name: name.to_owned(),
            error,
        },
    )
}

#[cfg(test)]
mod tests;
