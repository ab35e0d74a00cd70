//! What a broker takes from its cores when nothing happens, and what it says when it cannot have
//! what it needs.

use crate::broker::Broker;
use forebay::config::ServeArgs;
use std::process::{Command, Output};
use std::time::Duration;

/// How long idleness is watched.
const WATCHED: Duration = Duration::from_secs(3);

/// CPU time that a shard's thread has used, in nanoseconds.
fn cpu_ns(thread_id: u64) -> u64 {
    let path = format!("/proc/self/task/{thread_id}/schedstat");
    let text = std::fs::read_to_string(path).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// The promise is 0.5 % of a core for all shards together.
fn uses_next_to_nothing(io: &str, poll_us: &str) {
    let broker = Broker::with_options(ServeArgs {
        cores: Some("2".to_owned()),
        io: Some(io.to_owned()),
        poll_us: Some(poll_us.to_owned()),
        ..ServeArgs::default()
    });
    // Something has happened, and a client stays.
    let mut raw = broker.connect();
    raw.create_topic("t", 2);
    let stats = broker.server().stats();
    let used = || -> u64 {
        stats
            .iter()
            .map(|shard| cpu_ns(shard.thread_id.get()))
            .sum()
    };
    std::thread::sleep(Duration::from_millis(1500));
    let before = used();
    std::thread::sleep(WATCHED);
    let share = (used() - before) as f64 / WATCHED.as_nanos() as f64;
    assert!(share < 0.005, "{:.2} % of a core", 100.0 * share);
}

#[test]
fn an_idle_ring_rests() {
    uses_next_to_nothing("uring", "0");
}

#[test]
fn an_idle_ring_rests_also_if_it_may_spin() {
    uses_next_to_nothing("uring", "200");
}

#[test]
fn an_idle_posix_rests_also_if_it_may_spin() {
    uses_next_to_nothing("posix", "200");
}

/// `forebay serve` with so many open files; it must end by itself.
fn serve(files: u32, arguments: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_forebay");
    let data = dir.path().display();
    let serve = format!(
        "ulimit -n {files}; exec timeout 20 {binary} serve --listen 127.0.0.1:0 --data-dir \
         {data}/data --log-level warn {arguments}"
    );
    Command::new("sh").args(["-c", &serve]).output().unwrap()
}

#[test]
fn without_descriptors_it_says_so_in_one_line() {
    let output = serve(24, "--io uring --cores 32");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("EMFILE") && text.contains("ulimit -n"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");

    let output = serve(24, "--io posix --cores 32");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("ulimit -n") && text.contains("--cores"),
        "{text}"
    );

    let output = serve(24, "--io auto --cores 32");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("the slower posix back end serves instead"),
        "{text}"
    );
}
