//! The broker under test: this very binary as a child process, which can be killed at any moment
//! and started again on the same directory and port.

use crate::cli::output::Failure;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// How long a broker may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ports that no outgoing connection is given.
const PORTS: std::ops::Range<u16> = 21_000..31_000;

/// How the broker is started, every time.
#[derive(Debug)]
pub struct Start {
    exe: PathBuf,
    port: u16,
    data_dir: PathBuf,
    log: PathBuf,
    /// What the user wants it to be told.
    args: Vec<String>,
}

impl Start {
    /// A broker on a free port with its data in `data_dir` and its log in `log`.
    pub fn new(data_dir: PathBuf, log: PathBuf, args: &[String]) -> Result<Self, Failure> {
        let exe = std::env::current_exe()
            .map_err(|error| Failure::Failed(format!("cannot find this program: {error}")))?;
        // Not always the same first: several tests may run at once.
        let spread = PORTS.start + (std::process::id() % 9_000) as u16;
        let mut ports = (spread..PORTS.end).chain(PORTS.start..spread);
        let port = ports
            .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .ok_or_else(|| {
                Failure::Failed("no port of 127.0.0.1 from 21000 to 31000 is free".to_owned())
            })?;
        Ok(Self {
            exe,
            port,
            data_dir,
            log,
            args: args.to_vec(),
        })
    }

    /// Where it listens.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the process; it may not serve yet, or ever.
    pub fn spawn(&self) -> Result<Broker, Failure> {
        let cannot = |error| Failure::Failed(format!("cannot start the broker: {error}"));
        let log = File::options().create(true).append(true).open(&self.log);
        let mut command = Command::new(&self.exe);
        command
            .arg("serve")
            .args(["--listen", &self.bootstrap(), "--data-dir"])
            .arg(&self.data_dir)
            .args(["--set", "group.initial.rebalance.delay.ms=0"])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.map_err(cannot)?)
            // An interrupt from the terminal is for us, not for it.
            .process_group(0);
        let mut child = command.spawn().map_err(cannot)?;
        Ok(Broker {
            stdout: child.stdout.take(),
            child,
            log: self.log.clone(),
            started: Instant::now(),
        })
    }
}

/// A running broker; dropping it kills it.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    stdout: Option<ChildStdout>,
    log: PathBuf,
    started: Instant,
}

impl Broker {
    /// Waits until it serves; gives the time since it was started.
    ///
    /// # Errors
    /// A sentence with its last words, if it ends or takes too long.
    pub async fn ready(&mut self) -> Result<Duration, Failure> {
        let stdout = self.stdout.take();
        let serves = tokio::task::spawn_blocking(move || {
            let mut lines = stdout
                .into_iter()
                .flat_map(|out| BufReader::new(out).lines());
            // They come in one write: it does not matter that nobody reads the rest.
            lines.any(|line| line.is_ok_and(|line| line.starts_with("forebay listens")))
        });
        match tokio::time::timeout(PATIENCE, serves).await {
            Ok(Ok(true)) => Ok(self.started.elapsed()),
            Ok(_) => Err(self.failed("ended instead of serving")),
            Err(_) => Err(self.failed(&format!("does not serve within {PATIENCE:?}"))),
        }
    }

    /// Kills it at once (SIGKILL) and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// Halts all of its threads (SIGSTOP) and waits until they have: it answers nothing any more.
    pub fn halt(&self) -> Result<(), Failure> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let halted = kill(pid, Signal::SIGSTOP).and_then(|()| {
            waitid(
                Id::Pid(pid),
                WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
            )
        });
        halted
            .map(drop)
            .map_err(|errno| Failure::Failed(format!("cannot halt the broker: {errno}")))
    }

    /// Stops it cleanly (SIGTERM).
    pub async fn stop(mut self) -> Result<(), Failure> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // It cannot be gone before it was waited for.
        let _ = kill(pid, Signal::SIGTERM);
        match self.wait().await {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.failed(&format!("was told to stop: {status}"))),
            None => Err(self.failed(&format!("does not stop within {PATIENCE:?}"))),
        }
    }

    async fn wait(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }

    fn end(&mut self) {
        match self.child.kill() {
            // It has ended by itself and was waited for.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            _ => drop(self.child.wait()),
        }
    }

    fn failed(&self, what: &str) -> Failure {
        let words = last_words(&self.log);
        Failure::Failed(format!("the broker {what}; its last words: {words}"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last line of a log that is not empty.
fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    line.unwrap_or("none").to_owned()
}
