//! The flash sale into real databases. PostgreSQL and MariaDB come from Debian's packages by way of
//! `scripts/database`; where one cannot be had, its tests say so and do nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use loadgen::orders::Order;
use loadgen::store::{Audit, Place, Row, Rules, Store};

use crate::process::{Sale, alone, free_port};

const QUICK: &str = "group.initial.rebalance.delay.ms=0";

/// A server of our own; stopped when dropped.
struct Server {
    kind: &'static str,
    folder: tempfile::TempDir,
    url: String,
}

impl Server {
    /// `None` where there is none of this kind.
    fn start(kind: &'static str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        // The server does not run as root, and its user has to get in.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let mut server = Self {
            kind,
            folder,
            url: String::new(),
        };
        let started = server.script("start");
        let said = String::from_utf8_lossy(&started.stderr);
        if started.status.code() == Some(3) {
            println!("skipped: {said}");
            return None;
        }
        assert!(started.status.success(), "{said}");
        server.url = String::from_utf8(started.stdout).unwrap().trim().to_owned();
        Some(server)
    }

    fn restart(&self) {
        assert!(self.script("stop").status.success());
        assert!(self.script("start").status.success());
    }

    fn script(&self, command: &str) -> std::process::Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/database");
        Command::new(script)
            .args([self.kind, command])
            .arg(self.folder.path())
            .output()
            .unwrap()
    }

    fn open(&self, rules: Rules) -> Store {
        Store::open(&Place::parse(&self.url).unwrap(), rules).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.script("stop");
    }
}

fn sale(args: &[&str]) -> Sale {
    Sale::start(&[&["--window", "6s", "--set", QUICK], args].concat())
}

/// What an outage that nobody announced may put off.
const TIMES: [&str; 4] = [
    "peak backlog",
    "peak at",
    "drained at",
    "database rate with backlog",
];

fn loses_nothing_when_restarted(kind: &'static str) {
    let _alone = alone();
    let Some(server) = Server::start(kind) else {
        return;
    };
    let small = ["--orders", "12000", "--db-writes-per-s", "1200"];
    let mut sale = sale(&[&["--sink", server.url.as_str()][..], &small].concat());
    sale.reach(3);
    server.restart();
    let (_, shown) = sale.end();
    let failed = shown.lines().filter_map(|line| line.strip_prefix("FAIL  "));
    let is_time = |what: &str| TIMES.iter().any(|time| what.starts_with(time));
    let late = failed.clone().filter(|what| is_time(what)).count();
    assert_eq!(failed.count(), late, "{shown}");
    let kept = [
        "PASS  rows in the database",
        "PASS  lost",
        "PASS  duplicates",
    ];
    assert!(kept.iter().all(|what| shown.contains(what)), "{shown}");
    assert!(shown.contains(&format!("{kind}://")), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    // It is finished, and so not begun again over its rows.
    let (status, shown) = Sale::start(&["--sink", &server.url]).end();
    assert_eq!(status.code(), Some(2), "{shown}");
    assert!(shown.contains("--resume"), "{shown}");
}

#[test]
fn a_sale_into_postgres_loses_nothing_when_the_server_is_restarted() {
    loses_nothing_when_restarted("postgres");
}

#[test]
fn a_sale_into_mysql_loses_nothing_when_the_server_is_restarted() {
    loses_nothing_when_restarted("mysql");
}

fn is_judged_by_what_it_sustains(kind: &'static str) {
    let _alone = alone();
    let Some(server) = Server::start(kind) else {
        return;
    };
    let no_model = ["--db-writes-per-s", "none", "--orders", "12000"];
    let shown = sale(&[&["--sink", server.url.as_str()][..], &no_model].concat()).must_pass();
    assert!(shown.contains("sustained"), "{shown}");
}

#[test]
fn without_a_model_a_sale_is_judged_by_what_postgres_sustains() {
    is_judged_by_what_it_sustains("postgres");
}

#[test]
fn without_a_model_a_sale_is_judged_by_what_mysql_sustains() {
    is_judged_by_what_it_sustains("mysql");
}

fn row(order_id: u64, partition: i32, offset: i64) -> Row {
    let started_ns = 1_800_000_000_000_000_001 + offset * 1_000;
    Row {
        partition,
        offset,
        order: Some(Order {
            order_id,
            user_id: format!("user \"{partition}\""),
            user_seq: u32::try_from(offset + 1).unwrap(),
            ..Order::default()
        }),
        started_ns,
        finished_ns: started_ns + 500,
    }
}

/// What the unit tests of the stores expect of SQLite.
fn keeps_its_books(kind: &'static str) {
    let Some(server) = Server::start(kind) else {
        return;
    };
    let mut store = server.open(Rules::default());
    let of_partition = |partition: i32| {
        let first = 1 + 1_500 * u64::from(partition.unsigned_abs());
        (first..)
            .zip(0..1_500)
            .map(move |(id, offset)| row(id, partition, offset))
    };
    let mut rows: Vec<Row> = (0..4).flat_map(of_partition).collect();
    let mut nothing = row(9_999, 0, 1_500);
    nothing.order = None;
    rows.push(nothing);
    assert_eq!(store.apply(&rows).unwrap(), 0);
    let next_offsets = BTreeMap::from([(0, 1_501), (1, 1_500), (2, 1_500), (3, 1_500)]);
    assert_eq!(store.next_offsets().unwrap(), next_offsets);
    // Whoever does not know that his transaction has ended tries it again.
    assert_eq!(store.apply(&rows).unwrap(), 0);
    let right = Audit {
        rows: 6_000,
        distinct: 6_000,
        unknown: 0,
        order_violations: 0,
        fastest_second_ns: Some(1_000),
    };
    assert_eq!(store.audit(6_000, 4).unwrap(), right);
    let from_ns = 1_800_000_000_000_000_001;
    assert_eq!(store.writes_between(from_ns, from_ns + 2_000).unwrap(), 8);

    // A double, an unknown order, and two of a user in the wrong sequence.
    let mut late = row(7_001, 1, 1_501);
    late.order.as_mut().unwrap().user_seq = 1;
    store.apply(&[row(1, 2, 1_500), late]).unwrap();
    let audit = store.audit(6_000, 4).unwrap();
    assert_eq!((audit.rows, audit.distinct), (6_002, 6_000));
    assert_eq!((audit.unknown, audit.order_violations), (1, 1));

    store.remember("topic", "old").unwrap();
    store.remember("topic", "sale").unwrap();
    let again = server.open(Rules::default());
    assert_eq!(again.fact("topic").unwrap().as_deref(), Some("sale"));
    assert_eq!(again.fact("seed").unwrap(), None);
    again.erase().unwrap();

    let unique = Rules {
        exactly_once: false,
        unique_key: true,
    };
    drop(server.open(unique));
    let mut store = server.open(unique);
    let rows = [row(1, 0, 0), row(2, 0, 1), row(1, 0, 2), row(2, 1, 0)];
    assert_eq!(store.apply(&rows).unwrap(), 2);
    assert_eq!(store.apply(&rows).unwrap(), 4);
    assert_eq!(store.audit(2, 1).unwrap().rows, 2);
    assert_eq!(store.next_offsets().unwrap(), BTreeMap::new());
}

#[test]
fn postgres_keeps_the_books_that_are_asked_of_it() {
    keeps_its_books("postgres");
}

#[test]
fn mysql_keeps_the_books_that_are_asked_of_it() {
    keeps_its_books("mysql");
}

#[test]
fn a_database_that_cannot_be_reached_is_named_in_one_sentence() {
    for scheme in ["postgres", "mysql"] {
        let port = free_port();
        let sink = format!("{scheme}://shop:secret@127.0.0.1:{port}/orders");
        let (status, shown) = Sale::start(&["--sink", &sink]).end();
        assert_eq!(status.code(), Some(2));
        assert!(shown.contains(&format!("shop@127.0.0.1:{port}")), "{shown}");
        assert!(
            shown.lines().count() == 1 && !shown.contains("secret"),
            "{shown}"
        );
    }
}
