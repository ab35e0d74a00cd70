//! The flash sale as a user runs it: the program against real brokers over real sockets, with real
//! files and databases. The broker that gets killed is this test's own executable, which serves
//! when asked to.

mod databases;
mod incidents;
mod process;

use std::io::Read;

use forebay::config::{Config, ServeArgs};
use forebay::server::Server;
use process::{ANY_PORT, Broker, NOBODY, SMALL, Sale, alone};
use serde_json::Value;

/// Not a test: the broker of the others. Serves until its standard input ends.
#[test]
#[ignore = "a broker for the other tests"]
fn serve_for_another_test() {
    let Ok(listen) = std::env::var("SERVE_AT") else {
        return;
    };
    let args = ServeArgs {
        listen: Some(listen),
        data_dir: Some(std::env::var("SERVE_DATA_DIR").unwrap()),
        set: vec!["group.initial.rebalance.delay.ms=0".to_owned()],
        ..ServeArgs::default()
    };
    let server = Server::start(&Config::from_sources(&args, []).unwrap()).unwrap();
    println!("serving at {}", server.address());
    let _ = std::io::stdin().read(&mut [0]);
    server.stop().unwrap();
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
    let broker = Broker::start(folder.path(), ANY_PORT);
    let address = broker.address.clone();
    let mut sale = Sale::start(&[&SMALL[..], &["--bootstrap", &address]].concat());
    sale.reach(4);
    broker.kill();
    let _broker = Broker::start(folder.path(), &address);
    sale.must_pass();
}

#[test]
fn a_sale_killed_in_the_middle_is_resumed_with_every_order_once() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let sink = format!("sqlite:{}", folder.path().join("sale.db").display());
    let broker = Broker::start(&folder.path().join("broker"), ANY_PORT);
    let db = ["--bootstrap", &broker.address, "--sink", &sink];
    let mut sale = Sale::start(&[&db[..], &SMALL].concat());
    sale.reach(4);
    sale.kill();
    let shown = Sale::start(&[&db[..], &["--resume"]].concat()).must_pass();
    assert!(shown.contains("resumed"), "{shown}");
}

#[test]
fn a_broker_that_cannot_be_reached_is_named_in_one_sentence() {
    let (status, shown) = Sale::start(&["--bootstrap", NOBODY]).end();
    assert_eq!(status.code(), Some(2));
    assert!(
        shown.contains(NOBODY) && shown.lines().count() == 1,
        "{shown}"
    );
}

#[test]
fn a_load_without_a_broker_that_is_stopped_shows_what_there_is() {
    let _alone = alone();
    let mut direct = Sale::start(&["--direct"]);
    direct.reach(1);
    direct.interrupt();
    let (status, shown) = direct.end();
    assert_eq!(status.code(), Some(130), "{shown}");
    assert!(
        shown.contains("turned away") && shown.ends_with("this is no verdict\n"),
        "{shown}"
    );
}

#[test]
fn a_sale_that_is_stopped_shows_what_there_is_and_is_no_verdict() {
    let _alone = alone();
    let mut sale = Sale::start(&["--set", "group.initial.rebalance.delay.ms=0"]);
    sale.reach(1);
    sale.interrupt();
    let (status, shown) = sale.end();
    assert_eq!(status.code(), Some(130), "{shown}");
    assert!(
        shown.contains("ack latency") && shown.contains("this is no verdict"),
        "{shown}"
    );
    assert!(!shown.contains("PASS"), "{shown}");
}
