//! Few descriptors: peers cannot take those of the logs, and where there are none for a while
//! nothing is lost and nothing stays offline.

use crate::admin::{get, sum};
use crate::broker::{Broker, Raw, batch, produce_request};
use forebay::base::{ErrorCode, ShardStats};
use forebay::config::ServeArgs;
use forebay::wire::messages::produce::ProduceRequest;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Descriptors of these brokers.
const LIMIT: u64 = 256;

/// Two batches with such a value do not fit one segment.
const SEGMENT: &str = "log.segment.bytes=1048576";
static VALUE: [u8; 600_000] = [7; 600_000];

/// Waits for a condition that comes about soon.
fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let started = Instant::now();
    while !check() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A broker in a process of its own, which has few descriptors.
struct Narrow {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    _data: tempfile::TempDir,
}

impl Narrow {
    fn start(io: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let serve = format!(
            "ulimit -n {LIMIT}; exec {} serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
             --data-dir {} --cores 2 --no-pin --io {io} --set {SEGMENT} --log-level error",
            env!("CARGO_BIN_EXE_forebay"),
            data.path().display()
        );
        let mut command = Command::new("sh");
        let mut child = command
            .args(["-c", &serve])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = |start: &str| {
            let found = lines.find_map(|line| Some(line.unwrap().strip_prefix(start)?.to_owned()));
            found.expect("it says how it serves")
        };
        let address = said("forebay listens on ").parse().unwrap();
        assert_eq!(said("  clients "), "at most 96 connections (ulimit -n 256)");
        let admin = said("  admin   http://");
        let admin = admin.strip_suffix("/metrics").unwrap().parse().unwrap();
        Self {
            child,
            address,
            admin,
            _data: data,
        }
    }

    fn metric(&self, name: &str) -> f64 {
        sum(&get(self.admin, "GET /metrics").1, name)
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        self.child.wait().unwrap();
    }
}

#[test]
fn connections_leave_descriptors_to_the_logs() {
    for io in ["auto", "posix"] {
        let broker = Narrow::start(io);
        let mut raw = Raw::connect(broker.address);
        raw.create_topic("before", 1);
        let connect = |_| TcpStream::connect(broker.address).unwrap();
        let mut greedy: Vec<_> = (0..2 * LIMIT).map(connect).collect();
        let mut last = greedy.pop().unwrap();
        last.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let end = last.read(&mut [0]);
        assert!(!matches!(end, Ok(1..)), "it is refused: {end:?}");
        // More partitions than files that are kept open, and segments that are closed.
        for topic in 0..6 {
            let name = format!("after-{topic}");
            raw.create_topic(&name, 10);
            for round in 0..2 {
                for partition in 0..10 {
                    let answer = raw.produce(&name, partition, batch(&[&VALUE]));
                    let seen = (answer.error_code, answer.base_offset);
                    assert_eq!(seen, (ErrorCode::None, round), "{io}: {answer:?}");
                }
            }
        }
        let answer = raw.produce("before", 0, batch(&[&VALUE]));
        assert_eq!(answer.error_code, ErrorCode::None, "{answer:?}");
        assert_eq!(broker.metric("forebay_connections{"), 96.0);
        for what in ["offline", "stalled"] {
            let count = broker.metric(&format!("forebay_partitions_{what}"));
            assert_eq!(count, 0.0, "{what} with {io}");
        }
    }
}

/// Runs the test of this name in a process of its own, because the limit is the process's. True in
/// that process, where the limit is in force.
fn is_alone(test: &str) -> bool {
    const CHILD: &str = "FOREBAY_TEST_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        setrlimit(Resource::RLIMIT_NOFILE, LIMIT, LIMIT).unwrap();
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&format!("descriptors::{test}"), "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{output:?}"
    );
    false
}

fn broker(settings: &[&str]) -> Broker {
    Broker::with_options(ServeArgs {
        cores: Some("1".to_owned()),
        set: settings.iter().map(|set| (*set).to_owned()).collect(),
        ..ServeArgs::default()
    })
}

fn count(broker: &Broker, count: impl Fn(&ShardStats) -> u64) -> u64 {
    broker
        .server()
        .stats()
        .iter()
        .map(|shard| count(shard))
        .sum()
}

/// All descriptors that are left.
fn hoard(raw: &Raw) -> Vec<TcpStream> {
    std::iter::from_fn(|| raw.socket.try_clone().ok()).collect()
}

/// Sends a batch again and again, as a client does, until it is taken.
fn insist(raw: &mut Raw, topic: &str, partition: i32) {
    eventually("there is room again", || {
        let answer = raw.produce(topic, partition, batch(&[b"again"]));
        assert!(matches!(
            answer.error_code,
            ErrorCode::None | ErrorCode::KafkaStorageError
        ));
        answer.error_code == ErrorCode::None
    });
}

#[test]
fn without_descriptors_logs_wait_and_go_on() {
    if !is_alone("without_descriptors_logs_wait_and_go_on") {
        return;
    }
    let broker = broker(&[SEGMENT, "log.flush.interval.ms=600000"]);
    let mut raw = broker.connect();
    for topic in ["full", "fresh", "unsynced"] {
        raw.create_topic(topic, 1);
    }
    let taken = raw.produce("full", 0, batch(&[&VALUE]));
    assert_eq!(taken.error_code, ErrorCode::None);
    let relaxed = produce_request("unsynced", 0, 1, batch(&[b"x"]));
    raw.ask(9, &relaxed);
    let mut other = broker.connect();
    other.ask(9, &produce_request("full", 0, 1, batch(&[b"x"])));
    let hoard = hoard(&raw);
    // It is opened when it can be, and the next batch of one needs a new segment; the first of the
    // other needs all its files.
    raw.create_topic("late", 2);
    for topic in ["late", "full", "fresh"] {
        let refused = raw.produce(topic, 0, batch(&[&VALUE]));
        assert_eq!(refused.error_code, ErrorCode::KafkaStorageError, "{topic}");
        let why = refused.error_message.unwrap_or_default();
        assert!(topic == "late" || why.contains("os error 24"), "{why}");
    }
    // Its names cannot be synced yet.
    other.send(9, &produce_request("unsynced", 0, -1, batch(&[b"y"])));
    assert_eq!(count(&broker, |stats| stats.partitions_offline.get()), 0);
    assert_eq!(count(&broker, |stats| stats.partitions_stalled.get()), 4);
    drop(hoard);
    let (_, response) = other.receive::<ProduceRequest>(9);
    let synced = &response.responses[0].partition_responses[0];
    assert_eq!(
        (synced.error_code, synced.base_offset),
        (ErrorCode::None, 1)
    );
    for (topic, partition) in [("late", 0), ("late", 1), ("full", 0), ("fresh", 0)] {
        insist(&mut raw, topic, partition);
    }
    assert_eq!(count(&broker, |stats| stats.partitions_offline.get()), 0);
    eventually("nothing is stalled", || {
        count(&broker, |stats| stats.partitions_stalled.get()) == 0
    });
}

#[test]
fn a_stall_that_retention_began_ends_before_its_next_turn() {
    if !is_alone("a_stall_that_retention_began_ends_before_its_next_turn") {
        return;
    }
    let broker = broker(&["log.retention.check.interval.ms=4000"]);
    let mut raw = broker.connect();
    raw.create_topic("expired", 1);
    raw.produce("expired", 0, batch(&[b"x"]));
    raw.alter(2, "expired", "retention.ms", "1");
    let hoard = hoard(&raw);
    let stalled = || count(&broker, |stats| stats.partitions_stalled.get());
    eventually("retention finds no descriptor", || stalled() == 1);
    let since = Instant::now();
    drop(hoard);
    eventually("it goes on", || stalled() == 0);
    assert!(since.elapsed() < Duration::from_secs(2));
    let answer = raw.produce("expired", 0, batch(&[b"y"]));
    assert_eq!(
        (answer.error_code, answer.base_offset),
        (ErrorCode::None, 1)
    );
}
