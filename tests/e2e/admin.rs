//! Metrics and health of a running broker over HTTP, as anything that scrapes sees them.

use crate::broker::{Broker, batch};
use forebay::config::ServeArgs;
use forebay::wire::messages::metadata::MetadataRequest;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn broker() -> Broker {
    Broker::with_options(ServeArgs {
        cores: Some("2".to_owned()),
        admin_listen: Some("127.0.0.1:0".to_owned()),
        ..ServeArgs::default()
    })
}

/// Status line and body.
pub fn get(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// Sum of the series that start like this.
pub fn sum(metrics: &str, start: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(start));
    lines
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
}

#[test]
fn what_clients_do_is_in_the_metrics() {
    let broker = broker();
    let admin = broker.server().admin_address().unwrap();
    let metrics = || {
        let (status, body) = get(admin, "GET /metrics");
        assert_eq!(status, "HTTP/1.1 200 OK");
        body
    };
    let before = metrics();
    assert_eq!(sum(&before, "forebay_requests_total"), 0.0);
    assert_eq!(sum(&before, "forebay_connections{"), 0.0);

    let mut raw = broker.connect();
    raw.create_topic("t", 2);
    for partition in [0, 1, 0] {
        let answer = raw.produce("t", partition, batch(&[&[7; 10_000]]));
        assert!(!answer.error_code.is_error());
    }
    let after = metrics();
    let (produced, api) = ("forebay_requests_total", "api=\"Produce\"");
    let produced: f64 = after
        .lines()
        .filter(|line| line.starts_with(produced) && line.contains(api))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum();
    assert_eq!(produced, 3.0);
    assert_eq!(sum(&after, "forebay_requests_total"), 4.0);
    assert_eq!(sum(&after, "forebay_connections{"), 1.0);
    assert_eq!(sum(&after, "forebay_connections_opened_total"), 1.0);
    assert!(sum(&after, "forebay_received_bytes_total") > 30_000.0);
    assert!(sum(&after, "forebay_sent_bytes_total") > 100.0);
    // Three produce requests and the topic's creation each waited for a sync.
    assert!(sum(&after, "forebay_syncs_total") >= 4.0);
    assert!(sum(&after, "forebay_acknowledged_total") >= 3.0);
    assert!(
        sum(&after, "forebay_shard_mail_total") > 0.0,
        "one partition is elsewhere"
    );
    assert!(sum(&after, "forebay_shard_cpu_seconds_total") > 0.0);
    assert!(sum(&after, "forebay_shard_turns_total") >= 8.0);
    assert!(sum(&after, "process_resident_memory_bytes") > 1e6);
}

#[test]
fn health_and_wrong_requests_are_answered() {
    let broker = broker();
    let admin = broker.server().admin_address().unwrap();
    let ask = |request| get(admin, request);
    assert_eq!(
        ask("GET /health"),
        ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned())
    );
    assert_eq!(ask("GET /").0, "HTTP/1.1 404 Not Found");
    assert_eq!(ask("POST /metrics").0, "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(ask("HEAD /health").1, "");
    let mut nonsense = TcpStream::connect(admin).unwrap();
    nonsense.write_all(b"\0\xff nonsense\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = nonsense.read_to_end(&mut answer);
    assert_eq!(ask("GET /health").0, "HTTP/1.1 200 OK");
}

#[test]
fn a_busy_admin_port_is_refused_before_anything_is_touched() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let args = ServeArgs {
        listen: Some("127.0.0.1:0".to_owned()),
        data_dir: Some(data.display().to_string()),
        admin_listen: Some(taken.local_addr().unwrap().to_string()),
        ..ServeArgs::default()
    };
    let config = forebay::config::Config::from_sources(&args, []).unwrap();
    let Err(error) = forebay::server::Server::start(&config) else {
        panic!("the port is taken");
    };
    let text = error.to_string();
    assert!(text.contains("choose another --admin-listen"), "{text}");
    assert!(!data.exists());
}

#[test]
fn a_stop_ends_the_control_thread() {
    let broker = broker();
    let admin = broker.server().admin_address().unwrap();
    // A client that only holds its connection must not hold the broker.
    let _held = TcpStream::connect(admin).unwrap();
    let started = Instant::now();
    drop(broker);
    assert!(started.elapsed() < Duration::from_secs(8));
    assert!(TcpStream::connect(admin).is_err());
}

/// Runs `forebay` with these arguments.
fn forebay(arguments: &[&str]) -> std::process::Output {
    let binary = env!("CARGO_BIN_EXE_forebay");
    std::process::Command::new(binary)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn stats_prints_a_line_per_shard() {
    let broker = broker();
    let admin = broker.server().admin_address().unwrap().to_string();
    let mut held = broker.connect();
    held.ask(4, &MetadataRequest::default());
    let output = forebay(&["stats", "--admin", &admin]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<_>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let column = |name: &str| {
        let is_it = |head: &&str| head.eq_ignore_ascii_case(name);
        let at = rows[0].iter().position(is_it).unwrap();
        rows[1..].iter().map(|row| row[at]).collect::<Vec<_>>()
    };
    assert_eq!(column("shard"), ["0", "1", "all"], "{text}");
    assert_eq!(column("connections"), ["1", "0", "1"], "{text}");
}

#[test]
fn stats_without_a_broker_says_how_to_get_one() {
    // Port 1 is nobody's.
    let nobody = "127.0.0.1:1";
    let output = forebay(&["stats", "--admin", nobody]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("start the broker with --admin-listen"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn tune_works_here_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let output = forebay(&["tune", "--data-dir", data.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for topic in ["cores", "io_uring", "congestion", "filesystem"] {
        assert!(text.lines().any(|line| line.starts_with(topic)), "{text}");
    }
    assert!(!data.exists());
}
