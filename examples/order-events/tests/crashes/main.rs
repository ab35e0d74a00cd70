//! The order-event system as its users run it: real processes, each of which dies once where it
//! hurts most, a real broker that is killed, and books that balance in the end. Nothing waits for a
//! time to pass: a part ends when it has handled what is there, or shows that it has.

mod client;
mod process;
mod refusals;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use client::orders_in_order;
use forebay::config::{Config, ServeArgs};
use forebay::server::Server;
use process::{Part, broker, free_port};
use rdkafka::message::Message;
use tempfile::TempDir;

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
        cores: Some("1".to_owned()),
        set: vec!["group.initial.rebalance.delay.ms=0".to_owned()],
        ..ServeArgs::default()
    };
    let server = Server::start(&Config::from_sources(&args, []).unwrap()).unwrap();
    println!("serving at {}", server.address());
    let _ = std::io::stdin().read(&mut [0]);
    server.stop().unwrap();
}

/// The system, with a broker of its own.
struct System {
    folder: TempDir,
    port: u16,
    broker: Part,
}

impl System {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let broker = broker(&folder.path().join("broker"), port);
        Self {
            folder,
            port,
            broker,
        }
    }

    fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn dir(&self) -> std::path::PathBuf {
        self.folder.path().join("databases")
    }

    /// Starts a part.
    fn part(&self, arguments: &str) -> Part {
        part(&self.bootstrap(), &self.dir(), arguments)
    }

    /// Runs a part to its end, which must be good; what it showed.
    fn run(&self, arguments: &str) -> String {
        let (status, shown) = self.part(arguments).end();
        assert!(status.success(), "{arguments}: {status}\n{shown}");
        shown
    }

    /// Runs a part to the point where it dies.
    fn crash(&self, arguments: &str, point: &str) {
        use std::os::unix::process::ExitStatusExt;
        let arguments = format!("{arguments} --crash-at {point}");
        let (status, shown) = self.part(&arguments).end();
        let by_abort = status.signal().is_some();
        assert!(by_abort, "{arguments} did not die: {status}\n{shown}");
    }

    fn books(&self) -> String {
        self.part("books").end().1
    }
}

fn part(bootstrap: &str, dir: &Path, arguments: &str) -> Part {
    let mut command = Command::new(env!("CARGO_BIN_EXE_order-events"));
    command
        .args(arguments.split_whitespace())
        .args(["--end-with-stdin", "--bootstrap", bootstrap, "--dir"])
        .arg(dir);
    Part::start(&mut command)
}

/// Every part by itself: dies where it hurts most, and the next run puts it right. What the books
/// say in between shows that it really died there.
#[test]
fn every_part_dies_once_and_the_books_balance() {
    let system = System::start();
    system.crash("place 30 --event-version 1", "order-not-committed:11");
    assert!(system.books().contains("orders    10: 10 items, "));
    let relay = "relay shop --once";
    assert!(system.run(relay).contains("10 events published"));

    // While each event is in the topic once: a copy would heal what a consumer had lost.
    for service in ["stock", "payment", "mail"] {
        let once = format!("{service} --once");
        system.crash(&once, "effect-not-committed:5");
        system.crash(&once, "offset-not-committed:6");
        system.run(&once);
    }
    let letters = client::records(&system.bootstrap(), "orders-stock-dlt");
    assert!(letters.is_empty(), "the topic is there before a letter is");
    let books = system.books();
    assert!(books.contains("stock     10 movements for 10 orders: 10 items"));
    assert!(books.contains("payments  10 for 10 orders"), "{books}");
    assert!(books.contains("mails     11 sent, 10 distinct"), "{books}");

    system.run("place 10 --event-version 2");
    system.run("place 10");
    assert!(system.books().contains("outboxes  40 events wait"));
    system.crash("relay shop", "published-not-marked");
    assert!(system.books().contains("outboxes  40 events wait"));
    assert!(system.run(relay).contains("20 events published"));
    for service in ["stock", "payment", "mail"] {
        system.run(&format!("{service} --once"));
    }
    for service in ["stock", "payment"] {
        system.crash(&format!("relay {service}"), "published-not-marked");
        system.run(&format!("relay {service} --once"));
    }

    // 10 events came once, 80 twice: 170, of which the snapshots hold 25, then 75.
    let view = "view --snapshot-every 25";
    system.crash(view, "snapshot-not-committed:2");
    system.crash(view, "snapshot-committed:2");
    let rest = system.run(&format!("{view} --once"));
    assert!(rest.contains("view: 95 events read"), "{rest}");

    assert_eq!(orders_in_order(&system.bootstrap()), 30);
    let books = system.run("books");
    assert!(books.contains("the books balance"), "{books}");
    assert!(books.contains("stock     30 movements for 30 orders"));
    assert!(books.contains("mails     31 sent, 30 distinct"), "{books}");
    let rebuild = system.run("rebuild");
    assert!(
        rebuild.contains("30 orders from 170 events, equal to"),
        "{rebuild}"
    );
}

/// All parts at once: each dies once and is started again, the broker is killed in between.
#[test]
fn all_parts_and_the_broker_die_under_way_and_the_books_balance() {
    let mut system = System::start();
    let mut demo = system.part("demo --orders 200 --crash");
    demo.shows("stock: ");
    system.broker.kill();
    system.broker = broker(&system.folder.path().join("broker"), system.port);
    let (status, shown) = demo.end();
    assert!(status.success(), "{shown}");
    for part in [
        "relay shop",
        "stock",
        "payment",
        "mail",
        "relay stock",
        "relay payment",
        "view",
    ] {
        let name = format!("{part} ");
        let mut lines = shown.lines();
        let died = lines.any(|line| line.starts_with(&name) && line.contains("died at"));
        assert!(died, "{part} did not die:\n{shown}");
    }
    let books = system.run("books");
    assert!(
        books.contains("view      200 orders, 200 complete"),
        "{books}"
    );
    assert_eq!(orders_in_order(&system.bootstrap()), 200);
}

#[test]
fn a_second_relay_of_an_outbox_and_a_second_view_are_refused() {
    let system = System::start();
    system.run("place 1");
    let running = [
        ("relay shop", "1 events published"),
        ("view", "1 events read"),
    ];
    for (arguments, at_work) in running {
        let mut first = system.part(arguments);
        first.shows(at_work);
        let (status, shown) = system.part(&format!("{arguments} --once")).end();
        assert!(!status.success());
        assert!(shown.contains("end it first"), "{shown}");
    }
}

/// The partitions as Kafka's own `Utils.murmur2` gives them.
#[test]
fn keys_go_where_the_java_client_puts_them() {
    let system = System::start();
    system.run("place 7");
    system.run("relay shop --once");
    let partitions: BTreeMap<_, _> = client::records(&system.bootstrap(), "orders")
        .iter()
        .map(|record| {
            let key = record.key().unwrap().to_vec();
            (String::from_utf8(key).unwrap(), record.partition())
        })
        .collect();
    let expected = [
        ("ada", 1),
        ("ben", 1),
        ("cleo", 3),
        ("dora", 2),
        ("emil", 2),
        ("fay", 0),
        ("gus", 3),
    ];
    assert_eq!(
        partitions,
        expected
            .map(|(key, partition)| (key.to_owned(), partition))
            .into()
    );
}

#[test]
fn a_wrong_or_outdated_view_is_found_out_and_folded_again() {
    let system = System::start();
    let (status, shown) = system.part("rebuild").end();
    assert!(
        !status.success() && shown.contains("run `view` first"),
        "{shown}"
    );
    system.run("place 2");
    system.run("relay shop --once");
    system.run("view --once");
    assert!(system.run("rebuild").contains("equal to"));

    let connection = rusqlite::Connection::open(system.dir().join("view.db")).unwrap();
    let forget = "DELETE FROM orders WHERE order_id = (SELECT min(order_id) FROM orders)";
    assert_eq!(connection.execute(forget, []).unwrap(), 1);
    let (status, shown) = system.part("rebuild").end();
    assert!(
        !status.success() && shown.contains("different from"),
        "{shown}"
    );
    system.run("view --refold --once");
    assert!(system.run("rebuild").contains("equal to"));

    // As a reader left it that knew an older version of an event.
    let older = "UPDATE fold SET version = 'older'; UPDATE orders SET state = '{}'";
    connection.execute_batch(older).unwrap();
    let refolded = system.run("view --once");
    assert!(refolded.contains("view: 2 events read"), "{refolded}");
    assert!(system.run("rebuild").contains("equal to"));
}

#[test]
fn what_cannot_be_reached_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = format!("127.0.0.1:{}", free_port());
    // All at once: each waits for five seconds before it gives up.
    let dir = folder.path().join("databases");
    let parts = ["relay shop", "stock", "view", "rebuild", "demo"];
    for (arguments, part) in parts.map(|arguments| (arguments, part(&nobody, &dir, arguments))) {
        let (status, shown) = part.end();
        assert!(!status.success());
        assert_eq!(shown.lines().count(), 1, "{arguments}: {shown}");
        assert!(
            shown.contains(&nobody) && shown.contains("--bootstrap"),
            "{shown}"
        );
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let no_database = folder.path().join("no-database");
    std::fs::create_dir(&no_database).unwrap();
    std::fs::write(no_database.join("shop.db"), "not a database".repeat(100)).unwrap();
    for (dir, arguments) in [(&file, "place"), (&file, "books"), (&no_database, "place")] {
        let (status, shown) = part(&nobody, dir, arguments).end();
        assert!(!status.success());
        assert_eq!(shown.lines().count(), 1, "{arguments}: {shown}");
        assert!(shown.contains("cannot use"), "{shown}");
    }
}
