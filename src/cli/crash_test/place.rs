//! Where the broker under test has its data: a temporary directory, or a small file system of its
//! own in a loop-mounted image, whose power can be cut. Dropping it leaves nothing behind.
//!
//! The cut is the file system's shutdown ioctl without flushing its log: from that moment every
//! operation fails, and what was not synced is gone after the next mount. It is what a power loss
//! leaves on a disk that keeps what it has confirmed.

use super::broker::Broker;
use crate::cli::output::{Failure, note};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

nix::ioctl_read!(
    /// `EXT4_IOC_SHUTDOWN`, and the same number for xfs (`XFS_IOC_GOINGDOWN`). Declared as reading
    /// in the kernel, though it takes the flags from the pointer.
    shutdown,
    b'X',
    125,
    u32
);

/// Flag of the ioctl: the file system's own log is not flushed.
const NO_LOG_FLUSH: u32 = 2;

/// Size of the image, which takes only as much room as is written.
const IMAGE_BYTES: u64 = 2 << 30;

/// A killed process can hold its files for a moment while the kernel ends its ring.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(10);

/// The file system of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FileSystem {
    /// ext4 with its journal.
    #[default]
    Ext4,
    /// xfs; needs mkfs.xfs.
    Xfs,
}

impl FileSystem {
    fn maker(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
        }
    }
}

/// A directory for one run.
#[derive(Debug)]
pub struct Place {
    root: PathBuf,
    keep: bool,
    /// It has a file system of its own.
    has_image: bool,
    mounted: bool,
}

impl Place {
    /// A new directory among the temporary ones; `keep` leaves it behind.
    pub fn new(keep: bool) -> Result<Self, Failure> {
        let template = std::env::temp_dir().join("forebay-crash-test-XXXXXX");
        let root = nix::unistd::mkdtemp(&template).map_err(|errno| {
            let shown = template.display();
            Failure::Failed(format!("cannot create {shown}: {errno}; set TMPDIR"))
        })?;
        Ok(Self {
            root,
            keep,
            has_image: false,
            mounted: false,
        })
    }

    /// The same with a file system in an image, mounted.
    pub fn with_image(kind: FileSystem, keep: bool) -> Result<Self, Failure> {
        let mut place = Self::new(keep)?;
        if !nix::unistd::geteuid().is_root() {
            return Err(refused("only root may mount"));
        }
        let image = place.image();
        let made = File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES));
        made.and_then(|()| fs::create_dir(place.mount_point()))
            .map_err(|error| Failure::Failed(format!("{}: {error}", image.display())))?;
        run(kind.maker(), &["-q"], &[&image]).map_err(|why| refused(&why))?;
        place.has_image = true;
        place.mount().map_err(|why| refused(&why))?;
        Ok(place)
    }

    /// Where the broker's data goes.
    pub fn data_dir(&self) -> PathBuf {
        match self.has_image {
            true => self.mount_point().join("data"),
            false => self.root.join("data"),
        }
    }

    /// Where the broker logs to: not a place that loses its power.
    pub fn log(&self) -> PathBuf {
        self.root.join("broker.log")
    }

    /// Cuts the power of disk and processor, if this is a place that can. The broker is halted
    /// first: a sync that the shutdown overtakes can report success for what is lost, because the
    /// file system drops its pages without an error for the file; with the power, nobody would
    /// hear of it.
    pub fn cut(&self, broker: &Broker) -> Result<(), Failure> {
        if !self.has_image {
            return Ok(());
        }
        broker.halt()?;
        let mount_point = self.mount_point();
        let cannot = |why: String| refused(&format!("{}: {why}", mount_point.display()));
        let file = File::open(&mount_point).map_err(|error| cannot(error.to_string()))?;
        let mut flags = NO_LOG_FLUSH;
        // SAFETY: the kernel reads four bytes at the pointer, which are those of `flags`; `file` is
        // open as long as the call takes.
        let cut = unsafe { shutdown(file.as_raw_fd(), &mut flags) };
        cut.map(drop).map_err(|errno| cannot(errno.to_string()))
    }

    /// Gives the power back, if it was cut. No process may use the files any more.
    pub fn restore(&mut self) -> Result<(), Failure> {
        if !self.has_image {
            return Ok(());
        }
        let remounted = self.unmount().and_then(|()| self.mount());
        remounted.map_err(|why| Failure::Failed(format!("cannot mount the image again: {why}")))
    }

    fn image(&self) -> PathBuf {
        self.root.join("image")
    }

    fn mount_point(&self) -> PathBuf {
        self.root.join("mounted")
    }

    fn mount(&mut self) -> Result<(), String> {
        run(
            "mount",
            &["-o", "loop"],
            &[&self.image(), &self.mount_point()],
        )?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        let since = Instant::now();
        loop {
            match run("umount", &[], &[&self.mount_point()]) {
                Ok(()) => break,
                Err(_) if since.elapsed() < UNMOUNT_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(why) => return Err(why),
            }
        }
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.mounted
            && let Err(why) = self.unmount()
        {
            return note(&format!("forebay: {why}; unmount and remove it by hand"));
        }
        let shown = self.root.display();
        if self.keep {
            note(&format!("kept {shown}"));
        } else if let Err(error) = fs::remove_dir_all(&self.root) {
            note(&format!("forebay: cannot remove {shown}: {error}"));
        }
    }
}

/// Runs a program to its end; the error is what it says.
fn run(program: &str, args: &[&str], paths: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(args).args(paths).output();
    let output = output.map_err(|error| format!("cannot run {program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let words = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program}: {}", words.trim().replace('\n', "; ")))
        }
    }
}

fn refused(why: &str) -> Failure {
    Failure::Usage(format!(
        "power cuts need root, a loop device and mkfs for a file system that can be shut down \
         ({why}); run as root outside of a container, or test kills alone with --power-cuts 0"
    ))
}
