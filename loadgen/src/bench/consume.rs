//! `loadgen consume`: fetchers that read the whole topic, again and again.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::args::{ConsumeArgs, Load};
use super::course::{self, Course, Tasks};
use super::fetcher::{Asking, Fetcher, Position};
use super::link::Link;
use super::meter::{Counts, Meter};
use super::pipeline::{Enough, Flight, Pipeline};
use super::produce;
use super::result::Outcome;
use super::session::Measuring;
use crate::cluster::Topic;
use crate::failure::Failure;

/// Size of the records that a topic is filled with, if nothing is said.
const RECORD_BYTES: u64 = 1_024;
/// Requests in flight while the topic is filled.
const FILL_DEPTH: usize = 5;
/// Longer than any run.
const NO_END: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Fills the topic if it is empty, then reads it.
///
/// # Errors
/// If the broker refuses, or sends other offsets than it should.
pub async fn run(measuring: &Measuring, args: &ConsumeArgs) -> Result<Outcome, Failure> {
    let topic = filled(measuring, args).await?;
    let (warm_up, duration) = match args.passes {
        Some(_) => (Duration::ZERO, NO_END),
        None => measuring.times(),
    };
    let course = read(measuring, args, &topic, warm_up, duration).await?;
    Ok(Outcome {
        scenario: "consume",
        headline: headline(args, &topic),
        latency_of: "fetched in",
        courses: vec![(String::new(), course)],
        notes: Vec::new(),
        facts: json!({ "topic_records": topic.records() }),
    })
}

/// What is read how, in a line.
pub fn headline(args: &ConsumeArgs, topic: &Topic) -> String {
    format!(
        "{} records in {} partitions, at most {} KiB of each per answer, read by {} connections",
        topic.records(),
        topic.partitions.len(),
        args.fetch_bytes >> 10,
        args.connections
    )
}

/// The topic with something to read in it.
///
/// # Errors
/// If the broker refuses what is written.
pub async fn filled(measuring: &Measuring, args: &ConsumeArgs) -> Result<Topic, Failure> {
    let topic = measuring.topic().await?;
    if topic.records() > 0 {
        return Ok(topic);
    }
    let mut addresses: Vec<_> = topic.leaders().into_iter().map(|leader| leader.1).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let records_per_request = args.records.per_batch(RECORD_BYTES, args.batch_bytes);
    let load = Load {
        connections: addresses.len(),
        depth: FILL_DEPTH,
        ..args.records.load(RECORD_BYTES, records_per_request)
    };
    measuring
        .live
        .borrow_mut()
        .line("the topic is being filled");
    let bytes_per_request = (load.sizes.mean() * records_per_request).max(1);
    let requests = Rc::new(Cell::new(args.fill.div_ceil(bytes_per_request)));
    let meter = Rc::new(Meter::new(Instant::now(), Duration::ZERO, NO_END));
    let mut tasks = Tasks::new();
    for (link, frames, version) in produce::connect(measuring, &topic, &load).await? {
        let pipeline = Pipeline {
            link,
            frames,
            version,
            depth: load.depth,
            answered: true,
            schedule: None,
            enough: Enough::Requests(Rc::clone(&requests)),
            meter: Rc::clone(&meter),
            on_the_way: None,
            flight: Flight::default(),
        };
        tasks.spawn_local(pipeline.run());
    }
    course::complete(tasks).await?;
    let filled = measuring.cluster.look(&topic.name, topic.created).await?;
    match filled {
        Ok(filled) if filled.records() == meter.all().records => Ok(filled),
        Ok(filled) => Err(Failure::Reason(format!(
            "{} records were acknowledged, and the topic {} has {}",
            meter.all().records,
            topic.name,
            filled.records()
        ))),
        Err(code) => Err(Failure::Reason(format!(
            "the topic {} is gone: {code}",
            topic.name
        ))),
    }
}

/// Reads the topic by all connections at once.
///
/// # Errors
/// As for [`run`].
pub async fn read(
    measuring: &Measuring,
    args: &ConsumeArgs,
    topic: &Topic,
    warm_up: Duration,
    duration: Duration,
) -> Result<Course, Failure> {
    let asking = Asking {
        version: measuring.cluster.fetch_version,
        partition_bytes_max: i32::try_from(args.fetch_bytes).unwrap_or(i32::MAX),
        max_wait_ms: i32::try_from(args.max_wait.as_millis()).unwrap_or(i32::MAX),
    };
    let mut by_leader: BTreeMap<&str, Vec<(Position, i64)>> = BTreeMap::new();
    for each in &topic.partitions {
        let position = Position {
            partition: each.index,
            offset: each.start,
        };
        by_leader
            .entry(&each.address)
            .or_default()
            .push((position, each.end));
    }
    let mut readers = Vec::new();
    for _ in 0..args.connections {
        for (address, partitions) in &by_leader {
            let link = Link::open(measuring.cluster.transport, address).await?;
            let (starts, ends): (Vec<_>, Vec<_>) = partitions.iter().copied().unzip();
            let fetcher = Fetcher::new(link, &topic.name, asking, starts.clone());
            readers.push(Reader {
                fetcher,
                starts,
                ends,
            });
        }
    }
    let meter = Rc::new(Meter::new(Instant::now(), warm_up, duration));
    let mut tasks = Tasks::new();
    for reader in readers {
        tasks.spawn_local(reader.run(args.passes, Rc::clone(&meter)));
    }
    course::run(measuring, &meter, tasks).await
}

/// A fetcher that goes round.
struct Reader {
    fetcher: Fetcher,
    starts: Vec<Position>,
    ends: Vec<i64>,
}

impl Reader {
    async fn run(mut self, passes: Option<u64>, meter: Rc<Meter>) -> Result<(), Failure> {
        let mut passed = 0;
        let mut asked = Instant::now();
        while asked < meter.until() && passes.is_none_or(|passes| passed < passes) {
            let fetched = self.fetcher.fetch().await?;
            let now = Instant::now();
            let counts = Counts {
                requests: 1,
                records: fetched.records,
                bytes: fetched.bytes,
            };
            meter.done(asked, now, counts);
            let at_end = self.fetcher.positions().iter().zip(&self.ends);
            if at_end
                .clone()
                .all(|(position, end)| position.offset >= *end)
            {
                passed += 1;
                self.fetcher.seek(&self.starts);
            }
            asked = now;
        }
        Ok(())
    }
}
