//! What goes wrong in a sale, with a real broker: each run must end with PASS, so every expected
//! figure was seen.

use std::io::BufReader;
use std::process::ExitCode;

use serde_json::Value;

use crate::process::{ANY_PORT, Broker, SMALL, Sale, alone};

const QUICK: &str = "group.initial.rebalance.delay.ms=0";

fn sale(args: &[&str]) -> Sale {
    Sale::start(&[&SMALL[..], &["--set", QUICK], args].concat())
}

#[test]
fn a_broker_that_the_tool_kills_comes_back_and_nothing_is_lost_or_doubled() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("sale.html");
    let page = page.to_str().unwrap();
    let mut sale = sale(&["--kill-broker-at", "3s", "--report", page]);
    sale.reach(2);
    let before = sale.children();
    sale.reach(5);
    let after = sale.children();
    assert!(
        before.len() == 1 && after.len() == 1 && before != after,
        "the broker was the process {before:?} and is {after:?}"
    );
    sale.must_pass();
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("the broker is killed") && page.contains("the broker is back"));
    assert!(page.matches("<svg").count() > 4 && page.contains("PASS"));
}

#[test]
fn a_consumer_that_dies_is_doubled_at_least_once_and_a_unique_key_prevents_it() {
    let _alone = alone();
    let dies = ["--members", "5", "--kill-consumer-at", "2400ms"];
    let delivery = ["--delivery", "at-least-once"];
    let shown = sale(&[&dies[..], &delivery].concat()).must_pass();
    assert!(shown.contains("at-least-once"), "{shown}");
    let key = ["--idempotency", "unique-key"];
    sale(&[&dies[..], &delivery, &key].concat()).must_pass();
}

#[test]
fn a_member_that_joins_in_a_burst_while_the_database_is_slow_and_down_changes_nothing() {
    let _alone = alone();
    sale(&[
        "--members",
        "5",
        "--rebalance-at",
        "3s",
        "--burst",
        "3x@1s",
        "--db-slow",
        "50%@2s..3s",
        "--db-down",
        "1s@5s",
    ])
    .must_pass();
}

#[test]
fn poison_is_in_the_dead_letter_topic_and_replayed_it_completes_the_sale() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(&folder.path().join("broker"), ANY_PORT);
    let bootstrap = broker.address.clone();
    let json = folder.path().join("sale.json");
    let json_text = json.to_str().unwrap();
    let sink = format!("sqlite:{}", folder.path().join("sale.db").display());
    let to = ["--bootstrap", &bootstrap, "--sink", &sink];
    let args = [
        "--window", "3s", "--orders", "6000", "--poison", "1%", "--json", json_text,
    ];
    let shown = Sale::start(&[&to[..], &args].concat()).must_pass();
    let document: Value =
        serde_json::from_reader(BufReader::new(std::fs::File::open(json).unwrap())).unwrap();
    let poison = document["counts"]["poison"].as_u64().unwrap();
    assert!(
        poison > 20 && document["dead_letters"] == poison,
        "{poison}"
    );

    let topic = document["settings"]["sale"]["topic"].as_str().unwrap();
    let letters = format!("{topic}-dlt");
    assert!(
        shown.contains(&format!("forebay dlq replay {letters} --all")),
        "{shown}"
    );
    let dlq = |command: &[&str]| {
        let to = ["--bootstrap", &bootstrap];
        let arguments = [&["forebay", "dlq"], command, &to].concat();
        forebay::cli::run(arguments.into_iter().map(Into::into))
    };
    // The second time there is nothing left to send.
    assert_eq!(dlq(&["replay", &letters, "--all"]), ExitCode::SUCCESS);
    assert_eq!(dlq(&["replay", &letters, "--all"]), ExitCode::SUCCESS);
    // The handler knows the item by now.
    let shown = Sale::start(&[&to[..], &["--resume"]].concat()).must_pass();
    assert!(
        shown.contains("PASS  distinct orders in the database  6000"),
        "{shown}"
    );
}

#[test]
fn a_poison_sale_that_was_killed_is_completed_with_its_letters_or_without() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(&folder.path().join("broker"), ANY_PORT);
    let sink = format!("sqlite:{}", folder.path().join("sale.db").display());
    let to = ["--bootstrap", broker.address.as_str(), "--sink", &sink];
    let mut sale = Sale::start(&[&to[..], &SMALL, &["--poison", "1%"]].concat());
    sale.reach(4);
    sale.kill();
    let resume = [&to[..], &["--resume"]].concat();
    let shown = Sale::start(&resume).must_pass();
    let line = shown
        .lines()
        .find(|line| line.contains("forebay dlq replay"));
    let replay = line.expect("the letters are still there").trim();
    let replay = replay.split(' ').map(Into::into);
    assert_eq!(forebay::cli::run(replay), ExitCode::SUCCESS);
    let shown = Sale::start(&resume).must_pass();
    assert!(
        shown.contains("PASS  distinct orders in the database  12000"),
        "{shown}"
    );
}

#[test]
fn a_sale_with_incidents_that_is_stopped_is_no_verdict_on_the_page() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("sale.html");
    let mut sale = sale(&["--db-down", "1s@1s", "--report", page.to_str().unwrap()]);
    sale.reach(2);
    sale.interrupt();
    let (status, shown) = sale.end();
    assert_eq!(status.code(), Some(130), "{shown}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("no verdict") && page.contains("the database is down"));
}
