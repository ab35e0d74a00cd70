//! A small real file system that can be filled and broken: ext4 in a file, mounted by the loop
//! device. It needs root; without, or where the tools are missing, the reason is printed and there
//! is none. It is unmounted when it is dropped.

use crate::skipped;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written any more.
const NO_LOG_FLUSH: u32 = 2;

nix::ioctl_read!(ext4_shutdown, b'X', 125, u32);

pub struct LoopDisk {
    dir: TempDir,
    image: PathBuf,
    /// In the order of mounting.
    mounted: Vec<PathBuf>,
}

impl LoopDisk {
    /// An empty file system of so many MiB.
    pub fn new(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let mounted = Vec::new();
        let disk = Self {
            dir,
            image,
            mounted,
        };
        disk.format(mib, &["-J", "size=4"]).then_some(disk)
    }

    /// The same for [`LoopDisk::stop_storing`].
    pub fn deceitful(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let backing = dir.path().join("backing");
        std::fs::create_dir(&backing).unwrap();
        let size = format!("size={}m", 2 * mib);
        let mut disk = Self {
            image: backing.join("image"),
            dir,
            mounted: Vec::new(),
        };
        if !run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs", text(&backing)],
        ) {
            return None;
        }
        disk.mounted.push(backing);
        // With a journal the whole file system would become read-only.
        disk.format(mib, &["-b", "4096", "-O", "^has_journal"])
            .then_some(disk)
    }

    /// From now on the file system goes on taking data that it cannot write back, and tells so at a
    /// sync: what lies below it has no room any more.
    pub fn stop_storing(&self) {
        let filler = self.mounted[0].join("filler");
        let full = std::fs::write(filler, vec![1; 256 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn format(&self, mib: u64, options: &[&str]) -> bool {
        if !nix::unistd::geteuid().is_root() {
            skipped("mounting a file system needs root");
            return false;
        }
        let file = std::fs::File::create(&self.image).unwrap();
        file.set_len(mib << 20).unwrap();
        let options = [&["-q", "-F", "-m", "0"], options, &[text(&self.image)]];
        run("mkfs.ext4", &options.concat())
    }

    /// Mounts it there, on a directory that may be missing.
    pub fn mount(&mut self, at: &Path) -> bool {
        std::fs::create_dir_all(at).unwrap();
        let mounted = run("mount", &["-o", "loop", text(&self.image), text(at)]);
        if mounted {
            self.mounted.push(at.to_owned());
        }
        mounted
    }

    /// Mounts it in a place of its own, and gives that.
    pub fn mount_anywhere(&mut self) -> Option<PathBuf> {
        let at = self.dir.path().join("mounted");
        self.mount(&at).then_some(at)
    }

    /// Undoes the last mount.
    pub fn unmount(&mut self) {
        let at = self.mounted.pop().unwrap();
        // The kernel may still be ending the ring that had files open there.
        for _ in 0..50 {
            if Command::new("umount")
                .arg(&at)
                .output()
                .unwrap()
                .status
                .success()
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(run("umount", &["-l", text(&at)]), "{} stays", at.display());
    }

    /// From now on every access to the device fails with EIO, and what was not synced is lost.
    pub fn break_it(&self) {
        let at = self.mounted.last().unwrap();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let dir = nix::fcntl::open(at, flags, Mode::empty()).unwrap();
        let mut how = NO_LOG_FLUSH;
        // SAFETY: the descriptor is open and `how` lives for the call, which reads a u32.
        unsafe { ext4_shutdown(dir.as_raw_fd(), &raw mut how) }.unwrap();
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        while !self.mounted.is_empty() {
            self.unmount();
        }
    }
}

/// True if it worked; else the reason is printed.
fn run(program: &str, arguments: &[&str]) -> bool {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            skipped(&format!("{program} {arguments:?}: {why}"));
            false
        }
        Err(error) => {
            skipped(&format!("{program}: {error}"));
            false
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
