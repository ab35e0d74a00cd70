//! `forebay serve` as a process: what signals do at each time, and that it serves and stops cleanly
//! also where nobody reads what it says.

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A broker on a free port whose output nobody has looked at yet.
fn serve(dir: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

/// Reads until a line has this in it.
fn await_line(from: impl Read, part: &str) {
    let mut lines = BufReader::new(from).lines();
    let found = lines.any(|line| line.unwrap().contains(part));
    assert!(found, "it ended without {part}");
}

/// Tells it to stop, which it must do cleanly.
fn stop(mut child: Child, dir: &TempDir) {
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(dir.path().join(".kafka_cleanshutdown").exists());
}

#[test]
fn it_stops_cleanly_without_anybody_who_reads_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = serve(dir.path(), &[]);
    drop(child.stderr.take());
    await_line(child.stdout.take().unwrap(), "io ");
    stop(child, &dir);
}

#[test]
fn it_serves_without_anybody_who_reads_where() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = serve(dir.path(), &[]);
    drop(child.stdout.take());
    await_line(child.stderr.take().unwrap(), "serving");
    stop(child, &dir);
}

#[test]
fn it_stops_cleanly_also_with_a_log_file() {
    let dir = tempfile::tempdir().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("log");
    let mut child = serve(dir.path(), &["--log-file", log.to_str().unwrap()]);
    await_line(child.stdout.take().unwrap(), "io ");
    stop(child, &dir);
}

/// The signals that the main thread of a process does not take itself, a bit each.
fn blocked(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let mut lines = status.lines();
    let bits = lines.find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    u64::from_str_radix(bits.trim(), 16).unwrap()
}

#[test]
fn a_signal_ends_a_broker_that_waits_for_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let lock = File::create(dir.path().join(".lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let mut child = serve(dir.path(), &[]);
    while blocked(&child) == 0 {
        std::thread::yield_now();
    }
    signal(&child, Signal::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_second_signal_ends_a_broker_that_stops() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = serve(dir.path(), &["--cores", "8"]);
    await_line(child.stdout.take().unwrap(), "io ");
    // Both are there before it sees one: the first stops it and the second is at once.
    signal(&child, Signal::SIGSTOP);
    signal(&child, Signal::SIGTERM);
    signal(&child, Signal::SIGINT);
    signal(&child, Signal::SIGCONT);
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
}
