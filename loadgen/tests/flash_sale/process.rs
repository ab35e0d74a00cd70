//! The processes of the tests: a sale, and a broker to be killed.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where a broker listens that takes any free port.
pub const ANY_PORT: &str = "127.0.0.1:0";

/// Where nobody listens: the port is reserved for a service that nobody runs.
pub const NOBODY: &str = "127.0.0.1:1";

/// A sale for what is not a question of how fast this machine is.
pub const SMALL: [&str; 6] = [
    "--window",
    "6s",
    "--orders",
    "12000",
    "--db-writes-per-s",
    "1200",
];

/// Two sales at once would be judged by times that neither of them can keep.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running sale, and what it shows.
pub struct Sale {
    child: Child,
    progress: BufReader<std::process::ChildStderr>,
}

impl Sale {
    pub fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .arg("flash-sale")
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let progress = BufReader::new(child.stderr.take().unwrap());
        Self { child, progress }
    }

    /// Waits for the line of this second.
    pub fn reach(&mut self, second: u64) {
        let mut line = String::new();
        while !line.trim_start().starts_with(&format!("{second} s ")) {
            line.clear();
            assert!(
                self.progress.read_line(&mut line).unwrap() > 0,
                "ended before {second} s"
            );
        }
    }

    /// The processes that it has started and that live.
    pub fn children(&self) -> Vec<String> {
        let own = self.child.id().to_string();
        let is_child = |pid: &String| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // After the name, which may hold anything: state and parent.
            let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            rest.split_whitespace().nth(1) == Some(&own)
        };
        let entries = std::fs::read_dir("/proc").unwrap().map(Result::unwrap);
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(is_child).collect()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As Ctrl-C does.
    pub fn interrupt(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    }

    /// Waits for the end: exit status and all that was shown since.
    pub fn end(mut self) -> (ExitStatus, String) {
        let mut shown = String::new();
        self.progress.read_to_string(&mut shown).unwrap();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut shown)
            .unwrap();
        (self.child.wait().unwrap(), shown)
    }

    pub fn must_pass(self) -> String {
        let (status, shown) = self.end();
        assert!(status.success(), "{status}\n{shown}");
        assert!(shown.ends_with("PASS\n"), "{shown}");
        shown
    }
}

/// A broker in a process of its own.
pub struct Broker {
    child: Child,
    /// Where it listens.
    pub address: String,
    /// Held open: the test harness inside writes to it as long as it lives.
    _shown: BufReader<std::process::ChildStdout>,
}

impl Broker {
    pub fn start(data_dir: &Path, listen: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "serve_for_another_test",
                "--ignored",
                "--nocapture",
            ])
            .env("SERVE_AT", listen)
            .env("SERVE_DATA_DIR", data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut shown = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            let count = shown.read_line(&mut line).unwrap();
            assert!(count > 0, "the broker did not start");
            if let Some((_, address)) = line.split_once("serving at ") {
                break address.trim().to_owned();
            }
        };
        Self {
            child,
            address,
            _shown: shown,
        }
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
