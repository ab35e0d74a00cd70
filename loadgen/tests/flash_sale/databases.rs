//! The flash sale into real databases. PostgreSQL comes from Debian's packages by way of
//! `scripts/postgres`; where it cannot be had, its tests say so and do nothing.

use std::path::Path;
use std::process::Command;

use crate::process::{Sale, alone, free_port};

const QUICK: &str = "group.initial.rebalance.delay.ms=0";

/// A server of our own; stopped when dropped.
struct Postgres {
    folder: tempfile::TempDir,
    url: String,
}

fn script(command: &str, folder: &Path) -> std::process::Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/postgres");
    Command::new(script)
        .arg(command)
        .arg(folder)
        .output()
        .unwrap()
}

impl Postgres {
    /// `None` where there is no PostgreSQL.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        // The server does not run as root, and its user has to get in.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let started = script("start", folder.path());
        if started.status.code() == Some(3) {
            println!("skipped: {}", String::from_utf8_lossy(&started.stderr));
            return None;
        }
        assert!(
            started.status.success(),
            "{}",
            String::from_utf8_lossy(&started.stderr)
        );
        let url = String::from_utf8(started.stdout).unwrap().trim().to_owned();
        Some(Self { folder, url })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        script("stop", self.folder.path());
    }
}

fn sale(args: &[&str]) -> Sale {
    Sale::start(&[&["--window", "6s", "--set", QUICK], args].concat())
}

#[test]
fn a_sale_into_postgres_passes_also_when_the_server_is_restarted() {
    let _alone = alone();
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let small = ["--orders", "12000", "--db-writes-per-s", "1200"];
    let mut sale = sale(&[&["--sink", postgres.url.as_str()][..], &small].concat());
    sale.reach(3);
    assert!(script("stop", postgres.folder.path()).status.success());
    assert!(script("start", postgres.folder.path()).status.success());
    let shown = sale.must_pass();
    assert!(shown.contains("postgres://postgres@127.0.0.1"), "{shown}");
    // It is finished, and so not begun again over its rows.
    let (status, shown) = Sale::start(&["--sink", &postgres.url]).end();
    assert_eq!(status.code(), Some(2), "{shown}");
    assert!(shown.contains("--resume"), "{shown}");
}

#[test]
fn without_a_model_a_sale_is_judged_by_what_postgres_sustains() {
    let _alone = alone();
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let args = [
        "--sink",
        &postgres.url,
        "--db-writes-per-s",
        "none",
        "--orders",
        "12000",
    ];
    let shown = sale(&args).must_pass();
    assert!(shown.contains("sustained"), "{shown}");
}

#[test]
fn a_database_that_cannot_be_reached_is_named_in_one_sentence() {
    let port = free_port();
    let (status, shown) = Sale::start(&[
        "--sink",
        &format!("postgres://shop:secret@127.0.0.1:{port}/orders"),
    ])
    .end();
    assert_eq!(status.code(), Some(2));
    assert!(shown.contains(&format!("shop@127.0.0.1:{port}")), "{shown}");
    assert!(
        shown.lines().count() == 1 && !shown.contains("secret"),
        "{shown}"
    );
}
