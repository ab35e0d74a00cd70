//! The broker of a soak: a process of its own, that can be stopped and killed and started again on
//! the same port and directory, and looked at from outside.

use crate::failure::Failure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// How long a broker may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Settings under which a few minutes show retention at work.
const SETTINGS: [&str; 4] = [
    "log.retention.check.interval.ms=1000",
    "group.initial.rebalance.delay.ms=0",
    "log.segment.bytes=1048576",
    "offsets.topic.num.partitions=4",
];

/// How a broker is started, every time.
pub struct Process {
    program: PathBuf,
    data_dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

/// What a broker's process holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Open file descriptors.
    pub files: usize,
}

impl Process {
    /// A broker on a free port with its data and its log below `dir`.
    ///
    /// # Errors
    /// There is no such program, or no free port.
    pub fn new(program: &Path, dir: &Path) -> Result<Self, Failure> {
        if !program.is_file() {
            return Err(Failure::Reason(format!(
                "there is no broker at {}: build it (cargo build --release) or name it with \
                 --forebay",
                program.display()
            )));
        }
        let listener = TcpListener::bind("127.0.0.1:0");
        let address = listener.and_then(|listener| listener.local_addr());
        let address = address.map_err(|error| Failure::Reason(format!("no free port: {error}")))?;
        Ok(Self {
            program: program.to_owned(),
            data_dir: dir.join("data"),
            port: address.port(),
            child: None,
        })
    }

    /// Where it listens.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it and waits until it takes connections.
    ///
    /// # Errors
    /// It does not, in a sentence that names its log.
    pub async fn start(&mut self) -> Result<(), Failure> {
        let name = self.data_dir.with_file_name("broker.log");
        let log = File::options().create(true).append(true).open(&name);
        let cannot = |why: &str| {
            Failure::Reason(format!(
                "the broker does not start ({why}), see {}",
                name.display()
            ))
        };
        let log = log.map_err(|error| cannot(&error.to_string()))?;
        let child = Command::new(&self.program)
            .args(["serve", "--listen", &self.bootstrap(), "--data-dir"])
            .arg(&self.data_dir)
            .args(SETTINGS.iter().flat_map(|setting| ["--set", setting]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = self
            .child
            .insert(child.map_err(|error| cannot(&error.to_string()))?);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(cannot(&status.to_string()));
            }
            if Instant::now() > deadline {
                return Err(cannot("it takes no connections"));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Ends it, cleanly or at once, and waits until it is gone.
    ///
    /// # Errors
    /// It was gone already, does not stop, or says that its stop was not clean.
    pub async fn end(&mut self, clean: bool) -> Result<(), Failure> {
        let failed = |why: String| Failure::Reason(format!("the broker {why}"));
        // Who stops waiting here drops it with the rest.
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        if let Ok(Some(status)) = child.try_wait() {
            return Err(failed(format!("has ended by itself: {status}")));
        }
        let signal = if clean {
            Signal::SIGTERM
        } else {
            Signal::SIGKILL
        };
        let sent = kill(Pid::from_raw(child.id() as i32), signal);
        sent.map_err(|errno| failed(format!("cannot be told to stop: {errno}")))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match child.try_wait() {
                Ok(Some(status)) if clean && !status.success() => {
                    return Err(failed(format!("did not stop cleanly: {status}")));
                }
                Ok(Some(_)) => {
                    self.child = None;
                    return Ok(());
                }
                _ if Instant::now() > deadline => {
                    let _ = child.kill();
                    return Err(failed(format!("did not stop within {PATIENCE:?}")));
                }
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// What it holds now; `None` while none runs.
    pub fn held(&self) -> Option<Held> {
        let folder = format!("/proc/{}", self.child.as_ref()?.id());
        let statm = fs::read_to_string(format!("{folder}/statm")).ok()?;
        let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
        let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        Some(Held {
            rss_bytes: pages * page_bytes as u64,
            files: fs::read_dir(format!("{folder}/fd")).ok()?.count(),
        })
    }

    /// Bytes in the partitions of a topic.
    pub fn data_bytes(&self, topic: &str) -> u64 {
        let dirs = fs::read_dir(&self.data_dir).into_iter().flatten().flatten();
        let of_topic = dirs.filter(|dir| {
            let name = dir.file_name();
            let name = name.to_string_lossy();
            name.rsplit_once('-').is_some_and(|(name, _)| name == topic)
        });
        let files = of_topic.flat_map(|dir| fs::read_dir(dir.path()).into_iter().flatten());
        files
            .flatten()
            .filter_map(|file| file.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
