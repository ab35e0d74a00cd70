//! `forebay group lag` against a real broker: how late a group of another client is, in records and
//! in seconds, and the exit codes that scripts rely on.

use crate::broker::Broker;
use forebay::batch::{Builder, Codec};
use forebay::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Sends one compressed batch; the records are so many milliseconds old.
fn produce(broker: &Broker, partition: i32, ages_ms: &[i64]) {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ms = now_ms.as_millis() as i64;
    let mut builder = Builder::new(Codec::Lz4);
    for age_ms in ages_ms {
        builder.append(now_ms - age_ms, None, Some(b"order"), &[]);
    }
    let response = broker
        .connect()
        .produce("orders", partition, builder.build());
    assert!(!response.error_code.is_error(), "{response:?}");
}

/// Commits as a group of librdkafka does.
fn commit(broker: &Broker, partition: i32, offset: i64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.address().to_string())
        .set("group.id", "shop")
        .create()
        .unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset("orders", partition, Offset::Offset(offset))
        .unwrap();
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
}

fn lag_command(broker: &Broker, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command
        .args(["group", "lag", "shop", "--interval", "0.05"])
        .args(["--bootstrap", &broker.address().to_string()])
        .args(arguments);
    command
}

fn lag(broker: &Broker, arguments: &[&str]) -> Output {
    lag_command(broker, arguments).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn broker_with_orders() -> Broker {
    let broker = Broker::start(2, "auto");
    broker.connect().create_topic("orders", 3);
    broker
}

#[test]
fn a_group_is_as_late_as_its_oldest_unread_record() {
    let broker = broker_with_orders();
    // The first unread record stands in the middle of a compressed batch, and behind it are others.
    produce(&broker, 0, &[900_000, 800_000, 700_000, 600_000]);
    produce(&broker, 0, &[10_000, 0]);
    commit(&broker, 0, 2);
    // From a producer whose clock is ahead by ten minutes; nothing was ever committed.
    produce(&broker, 1, &[-600_000]);

    let seen = json(&lag(&broker, &["--format", "json"]));
    let [first, ahead, empty] = [0, 1, 2].map(|index| &seen["partitions"][index]);
    let age_s = first["lagSeconds"].as_f64().unwrap();
    assert!((700.0..790.0).contains(&age_s), "{seen:#}");
    assert_eq!(first["committed"], 2);
    assert_eq!(first["end"], 6);
    assert_eq!(first["lag"], 4);
    assert_eq!(seen["lag"], 5);
    assert_eq!(seen["lagSeconds"], first["lagSeconds"]);
    assert!(seen["emptyInSeconds"].is_null(), "nobody reads: {seen:#}");
    assert_eq!(ahead["committed"], Value::Null);
    assert_eq!(ahead["lag"], 1);
    assert_eq!(ahead["lagSeconds"], 0.0);
    assert_eq!(empty["lag"], 0);
    assert_eq!(empty["lagSeconds"], 0.0);
    assert_eq!(empty["emptyInSeconds"], 0.0);
    let latest = json(&lag(&broker, &["--format", "json", "--reset", "latest"]));
    assert_eq!(latest["lag"], 4, "{latest:#}");

    let text = String::from_utf8(lag(&broker, &[]).stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert!(
        lines[0].contains("SECONDS") && lines[1].ends_with("never"),
        "{text}"
    );
    assert!(
        lines[4].starts_with("all") && lines[5].contains("--interval"),
        "{text}"
    );
}

#[test]
fn scripts_tell_by_the_exit_code_whether_a_group_is_in_time() {
    let broker = broker_with_orders();
    produce(&broker, 0, &[70_000, 70_000]);
    commit(&broker, 0, 1);
    let code = |arguments: &[&str]| lag(&broker, arguments).status.code();
    assert_eq!(code(&["--max-seconds", "3600"]), Some(0));
    assert_eq!(code(&["--max-seconds", "30"]), Some(3));
    assert_eq!(code(&["--max-seconds", "30", "--watch"]), Some(3));
    assert_eq!(code(&["--max-seconds", "soon"]), Some(2));
    commit(&broker, 0, 2);
    assert_eq!(code(&["--max-seconds", "0"]), Some(0), "nothing is unread");

    let unknown = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["group", "lag", "nobody", "--bootstrap"])
        .arg(broker.address().to_string())
        .output()
        .unwrap();
    let why = String::from_utf8(unknown.stderr).unwrap();
    assert_eq!(unknown.status.code(), Some(1), "{why}");
    assert!(why.contains("\"nobody\" does not exist"), "{why}");
    let address = broker.address().to_string();
    drop(broker);
    let unreachable = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["group", "lag", "shop", "--bootstrap", &address])
        .output()
        .unwrap();
    let why = String::from_utf8(unreachable.stderr).unwrap();
    assert_eq!(unreachable.status.code(), Some(1), "{why}");
    assert!(why.contains(&address), "{why}");
}

#[test]
fn records_that_were_deleted_unread_are_named_and_not_counted() {
    let broker = broker_with_orders();
    produce(&broker, 0, &[900_000, 800_000]);
    produce(&broker, 0, &[400_000, 300_000]);
    commit(&broker, 0, 1);
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: "orders".to_owned(),
            partitions: vec![DeleteRecordsPartition {
                partition_index: 0,
                offset: 3,
            }],
        }],
        timeout_ms: 10_000,
    };
    let deleted = broker.connect().ask(2, &request);
    assert!(!deleted.topics[0].partitions[0].error_code.is_error());
    let seen = json(&lag(&broker, &["--format", "json"]));
    assert_eq!(seen["lag"], 1, "{seen:#}");
    let age_s = seen["lagSeconds"].as_f64().unwrap();
    assert!((300.0..390.0).contains(&age_s), "{seen:#}");
    let text = String::from_utf8(lag(&broker, &[]).stdout).unwrap();
    assert!(text.contains("2 records were deleted"), "{text}");
}

#[test]
fn rates_are_those_between_two_looks() {
    let broker = broker_with_orders();
    produce(&broker, 0, &[0; 100]);
    commit(&broker, 0, 10);
    let mut watch = lag_command(&broker, &["--watch", "--format", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut looks = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let still = looks.next().unwrap();
    assert_eq!(still["lag"], 90);
    assert_eq!(still["drainedPerSecond"], 0.0);
    assert!(still["emptyInSeconds"].is_null());
    commit(&broker, 0, 70);
    let drained = looks.find(|look| look["drainedPerSecond"] != 0.0).unwrap();
    let per_s = drained["drainedPerSecond"].as_f64().unwrap();
    // 60 records within one interval of 50 ms, or a little longer where the machine is busy.
    assert!((1.0..=1200.1).contains(&per_s), "{drained:#}");
    assert_eq!(drained["producedPerSecond"], 0.0);
    let empty_in_s = drained["emptyInSeconds"].as_f64().unwrap();
    assert!((empty_in_s - 30.0 / per_s).abs() < 1e-6, "{drained:#}");
    produce(&broker, 0, &[0; 40]);
    let produced = looks.find(|look| look["producedPerSecond"] != 0.0).unwrap();
    assert_eq!(produced["lag"], 70);
    assert!(produced["emptyInSeconds"].is_null(), "{produced:#}");
    watch.kill().unwrap();
    watch.wait().unwrap();
}
