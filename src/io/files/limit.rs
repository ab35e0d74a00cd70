//! The number of files that this process may have open (`RLIMIT_NOFILE`).

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// Raises the process's own limit to what it may raise it to. Gives the limit before and after.
pub fn raise_open_files_limit() -> io::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok((soft, hard))
}
