//! The flash sale as a user runs it: the program against real brokers over real sockets, with real
//! files. The broker that gets killed is this test's own executable, which serves when asked to.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay::config::{Config, ServeArgs};
use forebay::server::Server;
use serde_json::Value;

/// Two sales at once would be judged by times that neither of them can keep.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running sale, and what it shows.
struct Sale {
    child: Child,
    progress: BufReader<std::process::ChildStderr>,
}

impl Sale {
    fn start(args: &[&str]) -> Self {
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
    fn reach(&mut self, second: u64) {
        let mut line = String::new();
        while !line.trim_start().starts_with(&format!("{second} s ")) {
            line.clear();
            assert!(
                self.progress.read_line(&mut line).unwrap() > 0,
                "ended before {second} s"
            );
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end: exit status and all that was shown since.
    fn end(mut self) -> (ExitStatus, String) {
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

    fn must_pass(self) -> String {
        let (status, shown) = self.end();
        assert!(status.success(), "{status}\n{shown}");
        assert!(shown.ends_with("PASS\n"), "{shown}");
        shown
    }
}

/// A broker in a process of its own.
struct Broker {
    child: Child,
    /// Held open: the test harness inside writes to it as long as it lives.
    _shown: BufReader<std::process::ChildStdout>,
}

impl Broker {
    fn start(data_dir: &Path, port: u16) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "serve_for_another_test",
                "--ignored",
                "--nocapture",
            ])
            .env("SERVE_PORT", port.to_string())
            .env("SERVE_DATA_DIR", data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut shown = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("serving") {
            line.clear();
            assert!(
                shown.read_line(&mut line).unwrap() > 0,
                "the broker did not start"
            );
        }
        Self {
            child,
            _shown: shown,
        }
    }

    fn kill(mut self) {
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

/// Not a test: the broker of the others. Serves until its standard input ends.
#[test]
#[ignore = "a broker for the other tests"]
fn serve_for_another_test() {
    let Ok(port) = std::env::var("SERVE_PORT") else {
        return;
    };
    let args = ServeArgs {
        listen: Some(format!("127.0.0.1:{port}")),
        data_dir: Some(std::env::var("SERVE_DATA_DIR").unwrap()),
        set: vec!["group.initial.rebalance.delay.ms=0".to_owned()],
        ..ServeArgs::default()
    };
    let server = Server::start(&Config::from_sources(&args, []).unwrap()).unwrap();
    println!("serving at {}", server.address());
    let _ = std::io::stdin().read(&mut [0]);
    server.stop().unwrap();
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn a_sale_through_the_broker_inside_passes_and_everything_is_written_down() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("sale.json");
    let quick = "group.initial.rebalance.delay.ms=0";
    let json_text = json.to_str().unwrap();
    Sale::start(&["--window", "6s", "--set", quick, "--json", json_text]).must_pass();
    let document: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(document["pass"], true);
    assert_eq!(document["database"]["rows"], 50_000);
    assert!(document["broker"]["cpu_s"].as_f64().unwrap() > 0.0);
    assert!(document["seconds"].as_array().unwrap().len() >= 10);
}

#[test]
fn a_broker_killed_in_the_middle_of_the_sale_loses_and_doubles_nothing() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let bootstrap = format!("127.0.0.1:{port}");
    let broker = Broker::start(folder.path(), port);
    let mut sale = Sale::start(&["--window", "6s", "--bootstrap", &bootstrap]);
    sale.reach(4);
    broker.kill();
    let _broker = Broker::start(folder.path(), port);
    sale.must_pass();
}

#[test]
fn a_sale_killed_in_the_middle_is_resumed_with_every_order_once() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let bootstrap = format!("127.0.0.1:{port}");
    let db = folder.path().join("sale.db");
    let db = ["--bootstrap", &bootstrap, "--db", db.to_str().unwrap()];
    let _broker = Broker::start(&folder.path().join("broker"), port);
    let mut sale = Sale::start(&[&db[..], &["--window", "6s"]].concat());
    sale.reach(4);
    sale.kill();
    let shown = Sale::start(&[&db[..], &["--resume"]].concat()).must_pass();
    assert!(shown.contains("resumed"), "{shown}");
}

#[test]
fn a_broker_that_cannot_be_reached_is_named_in_one_sentence() {
    let bootstrap = format!("127.0.0.1:{}", free_port());
    let (status, shown) = Sale::start(&["--bootstrap", &bootstrap]).end();
    assert_eq!(status.code(), Some(2));
    assert!(
        shown.contains(&bootstrap) && shown.lines().count() == 1,
        "{shown}"
    );
}

#[test]
fn a_sale_that_is_stopped_shows_what_there_is_and_is_no_verdict() {
    let _alone = alone();
    let mut sale = Sale::start(&["--set", "group.initial.rebalance.delay.ms=0"]);
    sale.reach(1);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(sale.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let (status, shown) = sale.end();
    assert_eq!(status.code(), Some(130), "{shown}");
    assert!(
        shown.contains("ack latency") && shown.contains("this is no verdict"),
        "{shown}"
    );
    assert!(!shown.contains("PASS"), "{shown}");
}
