//! What a broker takes from its cores when nothing happens.

use crate::broker::Broker;
use forebay::config::ServeArgs;
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
