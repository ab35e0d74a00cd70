//! What of a file is in the page cache, and reading without waiting for what is not.
//!
//! Answers are hints: a page can go between the question and the use. Where the kernel cannot say
//! (cachestat needs Linux 6.5, and not every file system knows reads that do not wait), everything
//! counts as cached, and a missing page makes the caller wait after all.

use super::files::descriptor;
use crate::base::dir::{Extent, File};
use bytes::BytesMut;
use nix::errno::Errno;
use nix::sys::uio::pread;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Page size of the smallest page; larger ones only make the count coarser.
const PAGE_BYTES: u64 = 4096;

/// Number of the system call `cachestat`, the same on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// The `cachestat_range` of the kernel.
#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// The `cachestat` of the kernel: numbers of pages.
#[repr(C)]
#[derive(Default)]
struct Pages {
    cache: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many bytes from `position` on are in the page cache: all `length`, or none if a page is
/// missing.
pub(super) fn cached_bytes(file: &File, position: u64, length: u64) -> u64 {
    let fd = descriptor(file);
    let Some(last) = length.checked_sub(1) else {
        return 0;
    };
    let pages = (position + last) / PAGE_BYTES - position / PAGE_BYTES + 1;
    let missing = cached_pages(fd, position, length).is_some_and(|cached| cached < pages);
    // A page that is being read counts as cached, and those at the end are read last.
    match missing || !is_readable(fd, position + last) {
        true => 0,
        false => length,
    }
}

/// Appends exactly the extent to `buffer`; false, and nothing appended, if a page is missing.
pub(super) fn read_cached(extent: &Extent, buffer: &mut BytesMut) -> io::Result<bool> {
    let fd = descriptor(&extent.file);
    let held = buffer.len();
    let length = usize::try_from(extent.length).map_err(|_| Errno::EINVAL)?;
    buffer.resize(held + length, 0);
    let result = match read_now(fd, extent.position, &mut buffer[held..]) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
            pread(fd, &mut buffer[held..], offset(extent.position)?)
        }
        result => result,
    };
    if result == Ok(length) {
        return Ok(true);
    }
    buffer.truncate(held);
    match result {
        // A short read ends where the next page is missing, or the file.
        Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Pages in the cache, those being read included; `None` if the kernel does not tell.
fn cached_pages(fd: BorrowedFd<'_>, offset: u64, length: u64) -> Option<u64> {
    let range = Range { offset, length };
    let mut pages = Pages::default();
    // SAFETY: both structs have the kernel's layout and live through the call.
    let result = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            fd.as_raw_fd(),
            &raw const range,
            &raw mut pages,
            0,
        )
    };
    (result == 0).then_some(pages.cache)
}

/// True if the byte at `position` can be read at once, or if there is no way to know.
pub(super) fn is_readable(fd: BorrowedFd<'_>, position: u64) -> bool {
    read_now(fd, position, &mut [0]) != Err(Errno::EAGAIN)
}

/// `preadv2` with `RWF_NOWAIT`.
fn read_now(fd: BorrowedFd<'_>, position: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let position = i64::try_from(position).map_err(|_| Errno::EINVAL)?;
    let slice = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: the one slice is writable memory of that length, borrowed for the call.
    let count = unsafe { libc::preadv2(fd.as_raw_fd(), &slice, 1, position, libc::RWF_NOWAIT) };
    usize::try_from(count).map_err(|_| Errno::last())
}

fn offset(position: u64) -> io::Result<i64> {
    i64::try_from(position).map_err(|_| Errno::EINVAL.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::dir::FileKind;
    use std::io::Write;

    fn extent(contents: &[u8], position: u64, length: u64) -> Extent {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(contents).unwrap();
        Extent {
            file: File::new(FileKind::Os(file.into())),
            position,
            length,
        }
    }

    #[test]
    fn what_was_just_written_is_cached() {
        let Extent { file, .. } = extent(&[1; 10_000], 0, 0);
        assert_eq!(cached_bytes(&file, 5_000, 5_000), 5_000);
        assert_eq!(cached_bytes(&file, 5_000, 0), 0);
        assert_eq!(cached_bytes(&file, 4_095, 2), 2);
    }

    #[test]
    fn a_cached_read_is_exact_or_nothing() {
        let mut buffer = BytesMut::from(&b"> "[..]);
        assert!(read_cached(&extent(b"0123456789", 3, 4), &mut buffer).unwrap());
        assert_eq!(buffer, "> 3456");
        assert!(!read_cached(&extent(b"0123", 3, 4), &mut buffer).unwrap());
        assert_eq!(buffer, "> 3456");
    }
}
