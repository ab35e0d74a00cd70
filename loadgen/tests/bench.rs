//! The bench as a user runs it: the program in each mode, small, against a real broker over real
//! sockets.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay::config::{Config, ServeArgs};
use forebay::server::Server;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Runs beside each other would only slow each other down.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn loadgen(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(args);
    command
}

fn run(args: &[&str]) -> Output {
    loadgen(args).output().unwrap()
}

/// Runs a mode for a moment, and gives its document.
fn measured(args: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    let json = ["--json", path.to_str().unwrap()];
    let output = run(&[args, &json].concat());
    let shown = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {shown}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("p99.9"), "{text}");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

const MOMENT: [&str; 4] = ["--warm-up", "100ms", "--duration", "500ms"];

fn number(document: &Value, path: &str) -> u64 {
    let value = document.pointer(path);
    value
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{path} in {document}"))
}

/// A broker of this test, at which several runs look.
struct Broker {
    server: Server,
    _data: TempDir,
}

impl Broker {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let args = ServeArgs {
            listen: Some("127.0.0.1:0".to_owned()),
            data_dir: Some(data.path().display().to_string()),
            cores: Some("1".to_owned()),
            ..ServeArgs::default()
        };
        let config = Config::from_sources(&args, []).unwrap();
        Self {
            server: Server::start(&config).unwrap(),
            _data: data,
        }
    }

    fn address(&self) -> String {
        self.server.address().to_string()
    }
}

#[test]
fn produce_counts_what_the_topic_has() {
    let _alone = alone();
    let loads: [&[&str]; 4] = [
        &[
            "--acks",
            "all",
            "--partitions",
            "3",
            "--connections",
            "2",
            "--codec",
            "lz4",
        ],
        &["--acks", "0", "--connections", "2"],
        &["--rate", "2000", "--batch-bytes", "4KiB", "--keys", "10"],
        &["--record-size", "10-500", "--client-io", "tokio"],
    ];
    for load in loads {
        let document = measured(&[&["produce"], &MOMENT[..], load].concat());
        assert_eq!(document["scenario"], "produce");
        assert!(number(&document, "/result/records") > 0, "{load:?}");
        assert!(number(&document, "/result/latency_us/count") > 0);
        // Warm-up and what came at the end are in the topic, too.
        assert!(number(&document, "/facts/appended") >= number(&document, "/result/records"));
        assert!(document["result"]["broker"]["cpu_s"].is_number());
        assert!(
            document["host"]["kernel"]
                .as_str()
                .unwrap()
                .starts_with("Linux")
        );
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let _alone = alone();
    let rate = ["requests", "--connections", "4", "--rate", "1000"];
    let document = measured(&[&rate, &MOMENT[..]].concat());
    assert_eq!(number(&document, "/result/latency_us/count"), 500);
    assert_eq!(number(&document, "/result/unsent"), 0);
    assert_eq!(
        number(&document, "/facts/appended"),
        600,
        "with the warm-up"
    );
}

#[test]
fn what_is_written_is_read_as_often_as_asked_for() {
    let _alone = alone();
    let broker = Broker::start();
    let address = broker.address();
    let topic = [
        "--bootstrap",
        &address,
        "--topic",
        "kept",
        "--partitions",
        "3",
    ];
    let written = [
        &["produce", "--keep-topic", "--connections", "2"],
        &topic[..],
        &MOMENT,
    ];
    let written = number(&measured(&written.concat()), "/facts/appended");
    let read = [
        "consume",
        "--passes",
        "2",
        "--connections",
        "3",
        "--fetch-bytes",
        "100KiB",
    ];
    for io in ["auto", "tokio"] {
        let document = measured(&[&read, &topic[..], &["--client-io", io]].concat());
        assert_eq!(number(&document, "/facts/topic_records"), written);
        assert_eq!(number(&document, "/result/records"), 6 * written);
    }
    broker.server.stop().unwrap();
}

#[test]
fn a_topic_that_is_empty_is_filled_and_what_was_created_goes_again() {
    let _alone = alone();
    let broker = Broker::start();
    let address = broker.address();
    let target = ["--bootstrap", &address, "--topic", "new"];
    let read = ["consume", "--codec", "snappy", "--passes", "1", "--fill"];
    for (fill, expected) in [("2MiB", 2_048), ("1MiB", 1_024)] {
        let document = measured(&[&read[..], &[fill], &target].concat());
        let records = number(&document, "/result/records");
        assert!((expected..expected + 64).contains(&records), "{records}");
    }
    broker.server.stop().unwrap();
}

#[test]
fn every_record_arrives_at_the_consumer() {
    let _alone = alone();
    for pace in [&["--acks", "all"][..], &["--rate", "400"], &["--acks", "0"]] {
        let document = measured(&[&["end-to-end"], &MOMENT[..], pace].concat());
        let delivered = number(&document, "/result/latency_us/count");
        assert!(delivered > 0);
        assert_eq!(
            delivered,
            number(&document, "/facts/ack_latency_us/count"),
            "{pace:?}"
        );
    }
}

#[test]
fn what_could_not_leave_in_time_counts_with_its_wait() {
    let _alone = alone();
    let rate = ["end-to-end", "--rate", "10000000", "--acks", "all"];
    let document = measured(&[&rate, &MOMENT[..]].concat());
    assert!(number(&document, "/result/unsent") > 1_000_000);
    // Every request that was due has a latency, and half of them waited for the end of the run.
    assert_eq!(number(&document, "/result/latency_us/count"), 5_000_000);
    assert!(number(&document, "/result/latency_us/p50") > 250_000);
}

#[test]
fn idle_connections_stay_while_others_work() {
    let _alone = alone();
    let many = ["connections", "--idle", "200", "--active", "4"];
    let document = measured(&[&many, &MOMENT[..]].concat());
    assert_eq!(number(&document, "/facts/idle"), 200);
    assert!(document["facts"]["connects_per_s"].as_f64().unwrap() > 0.0);
    assert!(number(&document, "/result/requests") > 0);
}

#[test]
fn what_cannot_be_run_is_one_sentence_and_code_2() {
    let _alone = alone();
    let cases: [(&[&str], &str); 4] = [
        (&["produce", "--bootstrap", "127.0.0.1:1"], "127.0.0.1:1"),
        (&["produce", "--rate", "0"], "--rate 0 sends nothing"),
        (&["produce", "--pin", "1000"], "--pin 1000 is not possible"),
        (&["produce", "--topic-set", "no.such=1"], "no.such"),
    ];
    for (args, word) in cases {
        let output = run(args);
        let shown = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {shown}");
        assert!(shown.contains(word), "{shown}");
        assert_eq!(shown.trim().lines().count(), 1, "{shown}");
    }
}

#[test]
fn a_run_that_is_stopped_shows_what_there_is() {
    let _alone = alone();
    let args = [
        "produce",
        "--duration",
        "10m",
        "--warm-up",
        "0s",
        "--rate",
        "100",
    ];
    let mut child = loadgen(&args)
        .args(["--batch-bytes", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stderr.as_mut().unwrap())
        .read_line(&mut first)
        .unwrap();
    assert!(first.contains("requests/s"), "{first}");
    kill(
        Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(
        text.contains("stopped before the end") && text.contains("p99.9"),
        "{text}"
    );
}
