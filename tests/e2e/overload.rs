//! More load than memory: producers are slowed down, nobody is left behind, nothing is lost; peers
//! that hold memory do not stop the others. `scripts/hostile` has the full sizes.

use crate::broker::{Broker, Raw, batch, produce_request};
use forebay::base::{ErrorCode, ShardStats};
use forebay::config::ServeArgs;
use forebay::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use forebay::wire::messages::metadata::MetadataRequest;
use forebay::wire::messages::produce::ProduceRequest;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// `--memory` of these brokers, and what is for requests.
const MEMORY: &str = "16MiB";
const REQUEST_BYTES: u64 = 8 << 20;

fn broker() -> Broker {
    Broker::with_options(ServeArgs {
        memory: Some(MEMORY.to_owned()),
        cores: Some("2".to_owned()),
        ..ServeArgs::default()
    })
}

fn sum(stats: &[Arc<ShardStats>], count: impl Fn(&ShardStats) -> u64) -> u64 {
    stats.iter().map(|shard| count(shard)).sum()
}

/// Most memory for requests, and most connections that waited for it, while `work` runs.
fn watch<T>(broker: &Broker, work: impl FnOnce() -> T) -> (u64, u64, T) {
    let stats = broker.server().stats();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut bytes, mut connections) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                bytes = bytes.max(sum(stats, |shard| shard.request_bytes.get()));
                connections = connections.max(sum(stats, |shard| shard.connections_waiting.get()));
                std::thread::sleep(Duration::from_millis(1));
            }
            (bytes, connections)
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let (bytes, connections) = watcher.join().unwrap();
        (bytes, connections, result)
    })
}

/// Sends many requests without waiting for an answer, then takes all answers.
fn produce_at_full_speed(mut raw: Raw, partition: i32, requests: usize, value: &[u8]) {
    let request = produce_request("flood", partition, -1, batch(&[value]));
    let mut writer = Raw::over(raw.socket.try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..requests {
                writer.send(9, &request);
            }
        });
        let mut last = -1;
        for id in 1..=requests {
            let (got, response) = raw.receive::<ProduceRequest>(9);
            assert_eq!(got as usize, id);
            let partition = &response.responses[0].partition_responses[0];
            assert_eq!(partition.error_code, ErrorCode::None);
            assert!(partition.base_offset > last, "appended in their order");
            last = partition.base_offset;
        }
    });
}

#[test]
fn producers_beyond_the_memory_are_slowed_down_and_nothing_is_lost() {
    const PRODUCERS: usize = 40;
    const REQUESTS: usize = 10;
    let broker = broker();
    broker.connect().create_topic("flood", 4);
    let value = vec![7; 128 * 1024];
    let (bytes, connections, ()) = watch(&broker, || {
        std::thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let (raw, value) = (broker.connect(), &value);
                scope.spawn(move || {
                    produce_at_full_speed(raw, producer as i32 % 4, REQUESTS, value);
                });
            }
        });
    });
    assert!(connections > 0, "it was more than the memory");
    // Plus one frame per shard, see `shard::budget`.
    assert!(bytes <= REQUEST_BYTES + (1 << 20), "{bytes} bytes at once");
    let partition = |partition_index| ListOffsetsPartition {
        partition_index,
        timestamp: -1,
        ..ListOffsetsPartition::default()
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: "flood".to_owned(),
            partitions: (0..4).map(partition).collect(),
        }],
        ..ListOffsetsRequest::default()
    };
    let response = broker.connect().ask(5, &request);
    let ends = response.topics[0].partitions.iter().map(|end| end.offset);
    assert_eq!(ends.sum::<i64>() as usize, PRODUCERS * REQUESTS);
}

#[test]
fn a_hot_partition_waits_for_its_share_and_keeps_its_order() {
    const PRODUCERS: usize = 16;
    const REQUESTS: usize = 20;
    let broker = broker();
    let mut polite = broker.connect();
    polite.create_topic("flood", 1);
    polite.create_topic("cold", 1);
    let value = vec![7; 128 * 1024];
    std::thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            let (raw, value) = (broker.connect(), &value);
            scope.spawn(move || produce_at_full_speed(raw, 0, REQUESTS, value));
        }
        for offset in 0..20 {
            let answer = polite.produce("cold", 0, batch(&[b"x"]));
            assert_eq!(
                (answer.error_code, answer.base_offset),
                (ErrorCode::None, offset)
            );
        }
    });
    let held = sum(broker.server().stats(), |shard| shard.appends_held.get());
    assert!(
        held > 0,
        "2.5 MB per connection were never too much for one partition"
    );
    let end = polite.produce("flood", 0, batch(&[b"last"])).base_offset;
    assert_eq!(end as usize, PRODUCERS * REQUESTS);
}

#[test]
fn peers_that_never_read_cost_little_and_harm_nobody() {
    let broker = broker();
    let mut polite = broker.connect();
    polite.create_topic("wide", 1000);
    let everything = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let greedy: Vec<_> = (0..20).map(|_| broker.connect()).collect();
    let (bytes, _, greedy) = watch(&broker, || {
        let asked = greedy.into_iter().map(|mut raw| {
            for _ in 0..64 {
                raw.send(4, &everything);
            }
            raw
        });
        let asked: Vec<_> = asked.collect();
        for _ in 0..20 {
            polite.ask(4, &MetadataRequest::default());
            polite.produce("wide", 0, batch(&[b"x"]));
        }
        asked
    });
    // Each would be owed 64 answers of 30 KB beyond what its socket takes.
    assert!(bytes < REQUEST_BYTES, "{bytes} bytes at once");
    for mut raw in greedy {
        for _ in 0..64 {
            let (_, response) = raw.receive::<MetadataRequest>(4);
            assert_eq!(response.topics[0].partitions.len(), 1000);
        }
    }
}

#[test]
fn a_frame_that_the_memory_can_never_hold_is_refused() {
    use std::io::Write;
    let broker = broker();
    let mut fits = broker.connect();
    fits.socket
        .write_all(&(1_900_000_u32).to_be_bytes())
        .unwrap();
    let mut raw = broker.connect();
    // Whoever has spoken may take long for the next request.
    raw.ask(4, &MetadataRequest::default());
    raw.socket
        .write_all(&(2_200_000_u32).to_be_bytes())
        .unwrap();
    assert!(raw.frame().is_none());
    fits.socket.set_nonblocking(true).unwrap();
    let mut byte = [0];
    let still_open = std::io::Read::read(&mut fits.socket, &mut byte).unwrap_err();
    assert_eq!(still_open.kind(), std::io::ErrorKind::WouldBlock);
}
