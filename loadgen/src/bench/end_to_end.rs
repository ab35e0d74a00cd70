//! `loadgen end-to-end`: how long a record takes from the moment it is meant to be sent until a
//! consumer that waits for it, on another connection, has it.

use std::rc::Rc;
use std::time::Instant;

use serde_json::json;

use super::args::{Acks, EndToEndArgs, Load};
use super::course::{self, Tasks};
use super::fetcher::{Asking, Fetcher, Position};
use super::link::Link;
use super::meter::{Counts, Meter};
use super::pace::Schedule;
use super::pipeline::{Enough, Flight, OnTheWay, Pipeline};
use super::produce;
use super::result::{Outcome, latencies};
use super::session::Measuring;
use crate::failure::Failure;
use crate::json;

/// Size of a record, if nothing is said.
const RECORD_BYTES: u64 = 100;
/// Records on their way at most, in an open loop.
const OPEN_DEPTH: usize = 1_000;
/// How long the broker may hold a fetch, and what it may send at once.
const MAX_WAIT_MS: i32 = 500;
const PARTITION_BYTES_MAX: i32 = 1 << 20;

/// Runs producer and consumer.
///
/// # Errors
/// If the broker refuses or answers wrongly, or a record comes that nobody sent.
pub async fn run(measuring: &Measuring, args: &EndToEndArgs) -> Result<Outcome, Failure> {
    let load = Load {
        rate: args.rate,
        depth: if args.rate.is_some() { OPEN_DEPTH } else { 1 },
        ..args.records.load(RECORD_BYTES, 1)
    };
    let topic = measuring.topic().await?;
    let [partition] = topic.partitions.as_slice() else {
        return Err(Failure::Reason(format!(
            "end-to-end follows the records of one partition, and the topic {} has {}",
            topic.name,
            topic.partitions.len()
        )));
    };
    let asking = Asking {
        version: measuring.cluster.fetch_version,
        partition_bytes_max: PARTITION_BYTES_MAX,
        max_wait_ms: MAX_WAIT_MS,
    };
    let position = Position {
        partition: partition.index,
        offset: partition.end,
    };
    let link = Link::open(measuring.cluster.transport, &partition.address).await?;
    let fetcher = Fetcher::new(link, &topic.name, asking, vec![position]);
    let ready = produce::connect(measuring, &topic, &load).await?;
    let (warm_up, duration) = measuring.times();
    let delivered = Rc::new(Meter::new(Instant::now(), warm_up, duration));
    let acked = Rc::new(delivered.sibling());
    let on_the_way = Rc::new(OnTheWay::new(Rc::clone(&delivered)));
    let mut tasks = Tasks::new();
    for (link, frames, version) in ready {
        let schedule = load
            .rate
            .map(|rate| Schedule::new(delivered.start(), rate, 1, 0, 1));
        let pipeline = Pipeline {
            link,
            frames,
            version,
            depth: load.depth,
            answered: load.acks != Acks::Zero,
            schedule,
            enough: Enough::AtEnd,
            meter: Rc::clone(&acked),
            on_the_way: Some(Rc::clone(&on_the_way)),
            flight: Flight::default(),
        };
        tasks.spawn_local(pipeline.run());
    }
    tasks.spawn_local(consume(fetcher, on_the_way));
    let course = course::run(measuring, &delivered, tasks).await?;
    let acks = acked.latencies();
    Ok(Outcome {
        scenario: "end-to-end",
        headline: produce::headline(&load, 1),
        latency_of: "delivered",
        courses: vec![(String::new(), course)],
        notes: vec![format!("  {:<14} {}", "acknowledged", latencies(&acks))],
        facts: json!({ "ack_latency_us": json::histogram(&acks) }),
    })
}

/// Waits for records, and notes when each has come.
async fn consume(mut fetcher: Fetcher, on_the_way: Rc<OnTheWay>) -> Result<(), Failure> {
    let meter = &on_the_way.delivered;
    while Instant::now() < meter.until() || !on_the_way.due.borrow().is_empty() {
        let fetched = fetcher.fetch().await?;
        let now = Instant::now();
        for _ in 0..fetched.records {
            let Some(due) = on_the_way.due.borrow_mut().pop_front() else {
                return Err(Failure::Reason(
                    "a record came that this run did not send: use a topic of its own".to_owned(),
                ));
            };
            let one = Counts {
                requests: 1,
                records: 1,
                bytes: fetched.bytes / fetched.records,
            };
            meter.done(due, now, one);
        }
        on_the_way.arrived.notify_one();
    }
    Ok(())
}
