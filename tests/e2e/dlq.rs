//! `forebay dlq` as anybody runs it, on dead letters with the headers of several frameworks.

use crate::broker::{Broker, Raw};
use bytes::Bytes;
use forebay::batch::{Builder, Codec};
use forebay::client::{LATEST, dead_letter};
use forebay::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// When the letters were written.
const TIME_MS: i64 = 1_700_000_000_000;

type Header = (&'static str, Vec<u8>);

/// One dead letter with a trace header of its record; appended to a partition of `orders-dlt`.
fn bury(raw: &mut Raw, partition: i32, key: &str, headers: &[Header]) {
    bury_in(raw, "orders-dlt", partition, key, headers);
}

fn bury_in(raw: &mut Raw, topic: &str, partition: i32, key: &str, headers: &[Header]) {
    let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let trace = (bytes(b"trace"), Some(bytes(key.as_bytes())));
    let headers = headers.iter();
    let headers = headers.map(|(name, value)| (bytes(name.as_bytes()), Some(bytes(value))));
    let headers: Vec<_> = std::iter::once(trace).chain(headers).collect();
    let mut builder = Builder::new(Codec::None);
    let value = format!("order of {key}");
    builder.append(
        TIME_MS,
        Some(key.as_bytes()),
        Some(value.as_bytes()),
        &headers,
    );
    let answer = raw.produce(topic, partition, builder.build());
    assert!(!answer.error_code.is_error(), "{answer:?}");
}

fn connect(partition: i32, offset: i64) -> Vec<Header> {
    vec![
        ("__connect.errors.topic", b"orders".to_vec()),
        (
            "__connect.errors.partition",
            partition.to_string().into_bytes(),
        ),
        ("__connect.errors.offset", offset.to_string().into_bytes()),
        ("__connect.errors.exception.class.name", b"NoStock".to_vec()),
        ("__connect.errors.exception.message", b"none left".to_vec()),
    ]
}

fn spring(partition: i32, offset: i64) -> Vec<Header> {
    vec![
        ("kafka_dlt-original-topic", b"orders".to_vec()),
        (
            "kafka_dlt-original-partition",
            partition.to_be_bytes().to_vec(),
        ),
        ("kafka_dlt-original-offset", offset.to_be_bytes().to_vec()),
        (
            "kafka_dlt-original-timestamp",
            (TIME_MS - 5).to_be_bytes().to_vec(),
        ),
        ("kafka_dlt-exception-fqcn", b"shop.Timeout".to_vec()),
        (
            "kafka_dlt-exception-message",
            b"the bank is asleep".to_vec(),
        ),
        ("kafka_deliveryAttempt", 7_i32.to_be_bytes().to_vec()),
    ]
}

fn start(broker: &Broker, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command
        .args(arguments)
        .args(["--bootstrap", &broker.address().to_string()]);
    command
}

fn run(broker: &Broker, arguments: &[&str]) -> Output {
    start(broker, arguments).output().unwrap()
}

/// Runs what must succeed; gives what it shows.
fn shown(broker: &Broker, arguments: &[&str]) -> String {
    let output = run(broker, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(broker: &Broker, arguments: &[&str]) -> Value {
    let shown = shown(broker, &[arguments, &["--format", "json"]].concat());
    serde_json::from_str(&shown).unwrap()
}

/// Runs what must be refused with this exit code; gives the sentence.
fn refusal(broker: &Broker, code: i32, arguments: &[&str]) -> String {
    let output = run(broker, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

/// The records of a topic.
fn records(broker: &Broker, topic: &str) -> Vec<Value> {
    let shown = shown(broker, &["consume", topic, "--format", "json"]);
    shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// How often the copy of each origin is in a topic.
fn copies(broker: &Broker, topic: &str) -> BTreeMap<String, usize> {
    let mut copies = BTreeMap::new();
    for record in records(broker, topic) {
        let headers = record["headers"].as_array().unwrap();
        let origin = headers
            .iter()
            .find(|header| header["name"] == dead_letter::ORIGIN);
        let origin = origin.unwrap()["value"].as_str().unwrap().to_owned();
        *copies.entry(origin).or_default() += 1;
    }
    copies
}

#[test]
fn dead_letters_of_any_framework_are_listed_shown_and_replayed_once() {
    let broker = Broker::with(&[]);
    let mut raw = broker.connect();
    raw.create_topic("orders", 3);
    raw.create_topic("orders-dlt", 2);
    bury(&mut raw, 0, "alice", &connect(2, 41));
    bury(&mut raw, 0, "bob", &connect(1, 42));
    bury(&mut raw, 1, "carol", &spring(0, 43));
    // The same record again.
    bury(&mut raw, 1, "alice", &connect(2, 41));

    let listed = json(&broker, &["dlq", "list", "orders-dlt"]);
    let group = |index: usize, name: &str| listed[index][name].clone();
    assert_eq!(
        (group(0, "error"), group(0, "count")),
        ("NoStock".into(), 3.into())
    );
    assert_eq!(
        (group(1, "error"), group(1, "example")),
        ("shop.Timeout".into(), "1:0".into())
    );
    assert_eq!(
        (group(1, "state"), group(1, "firstMs")),
        ("open".into(), TIME_MS.into())
    );
    let filtered = shown(&broker, &["dlq", "list", "orders-dlt", "--error", "asleep"]);
    assert!(
        filtered.contains("shop.Timeout") && !filtered.contains("NoStock"),
        "{filtered}"
    );

    let text = shown(&broker, &["dlq", "show", "orders-dlt", "1:0"]);
    for line in [
        "orders/0/43",
        "shop.Timeout",
        "the bank is asleep",
        "order of carol",
        "7",
    ] {
        assert!(text.contains(line), "{text}");
    }

    let replay = ["dlq", "replay", "orders-dlt", "--all"];
    let dry = json(&broker, &[&replay[..], &["--dry-run"]].concat());
    assert_eq!(
        (&dry["replayed"], &dry["sameRecord"]),
        (&3.into(), &1.into())
    );
    assert_eq!(records(&broker, "orders").len(), 0);
    let done = json(&broker, &replay);
    assert_eq!(
        (&done["replayed"], &done["sameRecord"]),
        (&3.into(), &1.into())
    );
    let again = json(&broker, &replay);
    assert_eq!(
        (&again["replayed"], &again["dealtWithBefore"]),
        (&0.into(), &4.into())
    );

    let sent = records(&broker, "orders");
    assert_eq!(sent.len(), 3);
    let carol = sent.iter().find(|record| record["key"] == "carol").unwrap();
    assert_eq!(
        (&carol["partition"], &carol["value"]),
        (&0.into(), &"order of carol".into())
    );
    assert_eq!(carol["timestamp"], TIME_MS - 5);
    let headers = carol["headers"].as_array().unwrap().iter();
    let headers: Vec<(&str, &str)> = headers
        .map(|header| {
            (
                header["name"].as_str().unwrap(),
                header["value"].as_str().unwrap(),
            )
        })
        .collect();
    let origin = ("forebay.origin", "orders/0/43");
    assert_eq!(
        headers,
        [("trace", "carol"), origin, ("forebay.replays", "1")]
    );
    let alice = sent.iter().find(|record| record["key"] == "alice").unwrap();
    assert_eq!(
        (&alice["partition"], &alice["timestamp"]),
        (&2.into(), &TIME_MS.into())
    );

    assert_eq!(
        json(&broker, &["dlq", "list", "orders-dlt"]),
        Value::Array(Vec::new())
    );
    let text = shown(&broker, &["dlq", "show", "orders-dlt", "1:0"]);
    assert!(text.contains("replayed, is at orders/0/0"), "{text}");
}

#[test]
fn dead_letters_are_chosen_skipped_and_sent_elsewhere() {
    let broker = Broker::with(&[]);
    let mut raw = broker.connect();
    for topic in ["orders", "orders-dlt", "elsewhere"] {
        raw.create_topic(topic, 1);
    }
    for (offset, key) in (0..).zip(["alice", "bob", "carol", "dave"]) {
        bury(&mut raw, 0, key, &connect(0, offset));
    }
    // Nobody says where this one came from.
    bury(&mut raw, 0, "erin", &[]);

    let skip = [
        "dlq",
        "skip",
        "orders-dlt",
        "--reason",
        "a test order",
        "0:1",
    ];
    let would = shown(&broker, &[&skip[..], &["--dry-run"]].concat());
    assert!(would.contains("1 would be skipped"), "{would}");
    assert!(shown(&broker, &skip).contains("1 skipped"));
    let text = shown(&broker, &["dlq", "show", "orders-dlt", "0:1"]);
    assert!(text.contains("skipped: a test order"), "{text}");

    let replay = ["dlq", "replay", "orders-dlt"];
    shown(&broker, &[&replay[..], &["--key", "carol"]].concat());
    let output = run(&broker, &[&replay[..], &["--all"]].concat());
    assert_eq!(output.status.code(), Some(1), "one letter was left");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("2 replayed") && said.contains("--to: 0:4"),
        "{said}"
    );
    let sent = copies(&broker, "orders");
    assert_eq!(
        sent.keys().collect::<Vec<_>>(),
        ["orders/0/0", "orders/0/2", "orders/0/3"]
    );

    shown(
        &broker,
        &[&replay[..], &["0:4", "--to", "elsewhere"]].concat(),
    );
    assert_eq!(
        copies(&broker, "elsewhere").keys().collect::<Vec<_>>(),
        ["orders-dlt/0/4"]
    );
    let listed = json(&broker, &["dlq", "list", "orders-dlt", "--any-state"]);
    let states: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["replayed", "replayed", "skipped"]);
    // The letters stay, whatever becomes of them.
    assert_eq!(records(&broker, "orders-dlt").len(), 5);
}

#[test]
fn a_replay_that_is_killed_and_run_again_sends_each_record_once() {
    const LETTERS: i64 = 300;
    let broker = Broker::with(&[]);
    let mut raw = broker.connect();
    raw.create_topic("orders", 3);
    raw.create_topic("orders-dlt", 3);
    for offset in 0..LETTERS {
        let partition = (offset % 3) as i32;
        bury(
            &mut raw,
            partition,
            &format!("user-{}", offset % 7),
            &connect(partition, offset),
        );
    }
    let replay = ["dlq", "replay", "orders-dlt", "--all"];
    let slowly = [&replay[..], &["--rate", "20"]].concat();
    let mut child = start(&broker, &slowly)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(40);
    while sent_to_orders(&mut raw) < 30 {
        assert!(Instant::now() < deadline, "the replay does not get on");
        std::thread::sleep(Duration::from_millis(10));
    }
    // While one is at work there is no other.
    let refused = refusal(&broker, 1, &replay);
    assert!(refused.contains("at work"), "{refused}");
    child.kill().unwrap();
    child.wait().unwrap();
    let before = sent_to_orders(&mut raw);
    assert!(before < LETTERS, "it was killed in the middle");

    let done = json(&broker, &replay);
    let replayed = done["replayed"].as_i64().unwrap();
    assert_eq!(before + replayed, LETTERS, "{done}");
    let copies = copies(&broker, "orders");
    assert_eq!(copies.len() as i64, LETTERS);
    assert!(copies.values().all(|count| *count == 1), "{copies:?}");
}

/// How many records are in `orders`.
fn sent_to_orders(raw: &mut Raw) -> i64 {
    let partitions = (0..3).map(|index| ListOffsetsPartition {
        partition_index: index,
        timestamp: LATEST,
        ..ListOffsetsPartition::default()
    });
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: "orders".to_owned(),
            partitions: partitions.collect(),
        }],
        ..ListOffsetsRequest::default()
    };
    let answer = raw.ask(7, &request);
    answer.topics[0]
        .partitions
        .iter()
        .map(|each| each.offset)
        .sum()
}

#[test]
fn what_fails_again_and_again_is_left_after_three_replays() {
    let broker = Broker::with(&[]);
    let mut raw = broker.connect();
    raw.create_topic("orders", 1);
    raw.create_topic("orders-dlt", 1);
    let replay = ["dlq", "replay", "orders-dlt", "--all"];
    bury(&mut raw, 0, "alice", &connect(0, 1_000));
    for round in 0..3 {
        assert_eq!(json(&broker, &replay)["replayed"], 1);
        // The consumer gives the copy up, too, and keeps nothing of its headers.
        bury(&mut raw, 0, "alice", &connect(0, round));
    }
    let output = run(&broker, &replay);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("3 times") && said.contains("0:3"), "{said}");
    assert_eq!(records(&broker, "orders").len(), 3);
    let more = [&replay[..], &["--replays-max", "4"]].concat();
    assert_eq!(json(&broker, &more)["replayed"], 1);
}

#[test]
fn letters_that_cannot_be_sent_do_not_hold_up_the_others() {
    let broker = Broker::with(&[]);
    let mut raw = broker.connect();
    let small = ["--config", "max.message.bytes=1000"];
    shown(
        &broker,
        &[&["topic", "create", "orders"], &small[..]].concat(),
    );
    raw.create_topic("orders-dlt", 1);
    let from = |topic: &[u8], offset| {
        let mut headers = connect(0, offset);
        headers[0].1 = topic.to_vec();
        headers
    };
    bury(&mut raw, 0, "alice", &connect(0, 1));
    bury(&mut raw, 0, "bob", &from(b"gone", 2));
    bury(&mut raw, 0, "carol", &from(b"\xff\x1b[2J", 3));
    bury(&mut raw, 0, &"d".repeat(1_000), &connect(0, 4));
    bury(&mut raw, 0, "erin", &connect(0, 5));

    let replay = ["dlq", "replay", "orders-dlt", "--all"];
    let output = run(&broker, &replay);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for line in [
        "2 replayed\n  2 to \"orders\"\n",
        "1 go to topic \"gone\", which does not exist: create it",
        "or name another one with --to: 0:1\n",
        "[2J\", which is no name of a topic",
        "MESSAGE_TOO_LARGE",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(!said.contains('\x1b'), "{said}");
    let sent = copies(&broker, "orders");
    assert_eq!(
        sent.keys().collect::<Vec<_>>(),
        ["orders/0/1", "orders/0/5"]
    );
    raw.create_topic("gone", 1);
    let said = run(&broker, &replay).stdout;
    assert!(said.starts_with(b"1 replayed\n  1 to \"gone\""), "{said:?}");
}

#[test]
fn what_compaction_may_have_taken_is_not_sent_again() {
    let broker = Broker::with(&[]);
    let mut raw = broker.connect();
    raw.create_topic("orders", 1);
    let compact = ["--config", "cleanup.policy=compact"];
    shown(
        &broker,
        &[&["topic", "create", "latest"], &compact[..]].concat(),
    );
    raw.create_topic("orders-dlt", 1);
    raw.create_topic("orders-dlt-journal", 1);
    for (offset, topic) in (0..).zip(["orders", "latest"]) {
        let mut headers = connect(0, offset);
        headers[0].1 = topic.into();
        bury(&mut raw, 0, "alice", &headers);
        // A replay that was cut short before it sent anything.
        let mut note = Builder::new(Codec::None);
        let (key, value) = (
            format!("{topic}/0/{offset}"),
            format!(r#"{{"state":"sending","topic":"{topic}","partition":0,"end":0,"replays":1}}"#),
        );
        note.append(TIME_MS, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
        let answer = raw.produce("orders-dlt-journal", 0, note.build());
        assert!(!answer.error_code.is_error(), "{answer:?}");
    }
    let output = run(&broker, &["dlq", "replay", "orders-dlt", "--all"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.starts_with("1 replayed\n  1 to \"orders\"\n"),
        "{said}"
    );
    assert!(
        said.contains("may be gone") && said.contains(": 0:1"),
        "{said}"
    );
    assert_eq!(records(&broker, "latest").len(), 0);
}

#[test]
fn what_makes_no_sense_is_refused_in_a_sentence() {
    let broker = Broker::with(&[]);
    let mut raw = broker.connect();
    raw.create_topic("orders-dlt", 1);
    bury(&mut raw, 0, "alice", &connect(0, 7));
    let check = |code, arguments: &[&str], part: &str| {
        let said = refusal(&broker, code, &[&["dlq"], arguments].concat());
        assert!(said.contains(part) && said.lines().count() == 1, "{said}");
    };
    check(1, &["list", "nothing"], "does not exist");
    check(1, &["show", "orders-dlt", "0:9"], "offset 9");
    check(2, &["show", "orders-dlt", "4:0"], "no partition 4");
    check(2, &["replay", "orders-dlt"], "say which");
    check(2, &["replay", "orders-dlt", "0:0", "--all"], "contradicts");
    check(
        2,
        &["replay", "orders-dlt", "--all", "--to", "orders-dlt"],
        "--to",
    );
    check(
        1,
        &["replay", "orders-dlt", "--all"],
        "1 dead letter was left",
    );
    check(
        1,
        &["skip", "orders-dlt", "0:5", "--reason", "x"],
        "nothing at 0:5",
    );
    check(
        2,
        &["skip", "orders-dlt", "--all", "--reason", " "],
        "--reason",
    );
    // Somebody else's topic under the journal's name is not taken for one.
    raw.create_topic("other-dlt", 1);
    raw.create_topic("other-dlt-journal", 1);
    bury_in(&mut raw, "other-dlt-journal", 0, "x", &[]);
    check(1, &["list", "other-dlt"], "offset 0 of partition 0");
}
