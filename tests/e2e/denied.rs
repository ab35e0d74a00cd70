//! What the broker does where the machine denies it files, threads or locked memory: it says so and
//! what to do about it in one line, and serves without a ring unless one was asked for.

use crate::broker::{Raw, batch};
use crate::skipped;
use forebay::base::ErrorCode;
use forebay::wire::messages::metadata::MetadataRequest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use std::fs::{Permissions, set_permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A user without rights, in Linux's own numbering.
const NOBODY: u32 = 65_534;

/// Nobody else's, so that the broker's threads are all that count against its limit.
const ALONE: u32 = 65_533;

/// How a broker came up, or not.
struct Seen {
    /// What serves, in the words of the start-up lines; empty if it ended by itself.
    io: String,
    /// Its log.
    log: String,
    code: Option<i32>,
}

/// `forebay serve` with a limit of the shell and these arguments: until it serves, and a client was
/// answered, or until it ends by itself.
fn serve(limit: &str, arguments: &str) -> Seen {
    let dir = tempfile::tempdir().unwrap();
    set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    let serve = format!(
        "ulimit {limit}; exec timeout 20 {} serve --listen 127.0.0.1:0 --data-dir {}/data \
         --log-level warn {arguments}",
        env!("CARGO_BIN_EXE_forebay"),
        dir.path().display()
    );
    let mut command = Command::new("sh");
    if Uid::effective().is_root() {
        // Whom limits do not concern.
        command.uid(NOBODY).gid(NOBODY);
    }
    command.args(["-c", &serve]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut address, mut io) = (String::new(), String::new());
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(listens) = line.strip_prefix("forebay listens on ") {
            address = listens.to_owned();
        } else if let Some(name) = line.trim().strip_prefix("io ") {
            io = name.trim().to_owned();
            let mut raw = Raw::connect(address.parse().unwrap());
            raw.ask(4, &MetadataRequest::default());
            kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
        }
    }
    let output = child.wait_with_output().unwrap();
    Seen {
        io,
        log: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code(),
    }
}

/// It ended, with one line that has these words.
fn assert_refused(seen: &Seen, words: &[&str]) {
    assert_eq!((seen.code, seen.io.as_str()), (Some(1), ""), "{}", seen.log);
    for word in words {
        assert!(seen.log.contains(word), "{}", seen.log);
    }
    assert_eq!(seen.log.lines().count(), 1, "{}", seen.log);
}

#[test]
fn without_descriptors_it_says_so_in_one_line() {
    let seen = serve("-n 24", "--io uring --cores 32");
    assert_refused(&seen, &["EMFILE", "ulimit -n"]);
    let seen = serve("-n 24", "--io posix --cores 32");
    assert_refused(&seen, &["ulimit -n", "--cores"]);
    let seen = serve("-n 24", "--io auto --cores 32");
    assert_eq!(seen.code, Some(1), "{}", seen.log);
    let fallback = "the slower posix back end serves instead";
    assert!(seen.log.contains(fallback), "{}", seen.log);
}

#[test]
fn without_locked_memory_it_serves_without_a_ring_or_says_so() {
    let seen = serve("-l 0", "--io uring --cores 2");
    if seen.io == "io_uring" {
        return skipped("this kernel does not count rings as locked memory");
    }
    assert_refused(&seen, &["ENOMEM", "ulimit -l", "--io posix"]);
    let seen = serve("-l 0", "--io auto --cores 2");
    assert!(seen.io.starts_with("posix, because"), "{}", seen.log);
    assert!(seen.log.contains("ulimit -l"), "{}", seen.log);
    assert_eq!(seen.log.lines().count(), 1, "{}", seen.log);
}

#[test]
fn without_workers_of_the_ring_it_syncs_by_itself() {
    if !Uid::effective().is_root() {
        return skipped("only root can run a broker as a user without other processes");
    }
    let dir = tempfile::tempdir().unwrap();
    set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    // Its main thread, the one for signals and the shard.
    let mut child = Command::new("prlimit")
        .args(["--nproc=3", env!("CARGO_BIN_EXE_forebay"), "serve"])
        .args(["--listen", "127.0.0.1:0", "--io", "uring"])
        .args(["--cores", "1", "--no-pin", "--log-level", "warn"])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .uid(ALONE)
        .gid(ALONE)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().map(Result::unwrap).unwrap_or_default();
    if let Some(address) = first.strip_prefix("forebay listens on ") {
        let mut raw = Raw::connect(address.parse().unwrap());
        raw.create_topic("orders", 1);
        for offset in 0..3 {
            let answer = raw.produce("orders", 0, batch(&[b"x"]));
            let seen = (answer.error_code, answer.base_offset);
            assert_eq!(seen, (ErrorCode::None, offset));
        }
    } else {
        skipped("there is no ring here");
    }
    // It may have ended by itself.
    let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
    let log = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    if !first.is_empty() {
        assert!(log.contains("cannot start a worker"), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
    }
}
