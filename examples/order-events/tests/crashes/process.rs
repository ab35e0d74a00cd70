//! The processes of the tests: parts of the system, which may be told where to die, and a broker to
//! be killed. None outlives its test, and none is waited for longer than `PATIENCE`.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The longest time that any part may need.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process, and what it shows on both its outputs.
pub struct Part {
    child: Child,
    lines: Receiver<String>,
    shown: String,
    deadline: Instant,
}

impl Part {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let outputs: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for output in outputs {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Self {
            child,
            lines,
            shown: String::new(),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// Waits for a line that contains `text`.
    pub fn shows(&mut self, text: &str) {
        while let Some(line) = self.next_line() {
            if line.contains(text) {
                return;
            }
        }
        panic!("ended without {text:?}:\n{}", self.shown);
    }

    /// Waits for the end: exit status and all that was shown.
    pub fn end(mut self) -> (ExitStatus, String) {
        while self.next_line().is_some() {}
        let status = self.child.wait().unwrap();
        (status, std::mem::take(&mut self.shown))
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// `None` when both outputs have ended.
    fn next_line(&mut self) -> Option<String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                self.shown.push_str(&line);
                self.shown.push('\n');
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no end in {PATIENCE:?}:\n{}", self.shown),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker in a process of its own: this test's executable, which serves when asked to.
pub fn broker(data_dir: &Path, port: u16) -> Part {
    let mut broker = Part::start(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serve_for_another_test", "--ignored"])
            .arg("--nocapture")
            .env("SERVE_PORT", port.to_string())
            .env("SERVE_DATA_DIR", data_dir),
    );
    broker.shows("serving");
    broker
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
