//! `loadgen produce` and `loadgen requests`: pipelines that write the same frames over and over.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use serde_json::json;

use super::args::{Acks, Load};
use super::assignment::share_out;
use super::course::{self, Tasks};
use super::frames::Frames;
use super::link::Link;
use super::meter::Meter;
use super::pace::Schedule;
use super::pipeline::{Enough, Flight, Pipeline};
use super::result::Outcome;
use super::session::Measuring;
use crate::cluster::Topic;
use crate::failure::Failure;

/// Runs the load and checks that the topic has what was acknowledged.
///
/// # Errors
/// If the broker refuses, answers wrongly, or has another number of records than it said.
pub async fn run(
    measuring: &Measuring,
    scenario: &'static str,
    load: &Load,
) -> Result<Outcome, Failure> {
    let topic = measuring.topic().await?;
    let pipelines = connect(measuring, &topic, load).await?;
    let (warm_up, duration) = measuring.times();
    let meter = Rc::new(Meter::new(Instant::now(), warm_up, duration));
    let course = course::run(measuring, &meter, start(pipelines, load, &meter)).await?;
    let before = topic.records();
    let after = measuring.cluster.look(&topic.name, topic.created).await?;
    let appended = after.map_or(0, |after| after.records().saturating_sub(before));
    // Others may write to a topic that was there, and acks=0 promises nothing.
    if topic.created && load.acks != Acks::Zero && appended != course.all.records {
        return Err(Failure::Reason(format!(
            "{} records were acknowledged, and the topic {} has {appended}",
            course.all.records, topic.name
        )));
    }
    Ok(Outcome {
        scenario,
        headline: headline(load, topic.partitions.len()),
        latency_of: if load.acks == Acks::Zero {
            "written"
        } else {
            "acknowledged"
        },
        courses: vec![(String::new(), course)],
        notes: Vec::new(),
        facts: json!({ "appended": appended }),
    })
}

/// What a load is, in a line.
pub fn headline(load: &Load, partitions: usize) -> String {
    let size = match (load.sizes.min, load.sizes.max) {
        (min, max) if min == max => format!("{min} B"),
        (min, max) => format!("{min}-{max} B"),
    };
    let pace = match load.rate {
        Some(rate) => format!("open loop at {rate} records/s"),
        None => "closed loop".to_owned(),
    };
    format!(
        "records of {size}, {} per request, {}, acks={}, {partitions} partitions, {} connections, \
         {} in flight each, {pace}",
        load.records_per_request,
        load.codec.name(),
        match load.acks {
            Acks::Zero => "0",
            Acks::One => "1",
            Acks::All => "all",
        },
        load.connections,
        load.depth,
    )
}

/// A connection with what it will send.
pub type Ready = (Link, Vec<Rc<super::frames::Frame>>, i16);

/// Opens the load's connections and builds their frames.
///
/// # Errors
/// If a leader cannot be reached, or there are fewer connections than leaders.
pub async fn connect(
    measuring: &Measuring,
    topic: &Topic,
    load: &Load,
) -> Result<Vec<Ready>, Failure> {
    let cluster = &measuring.cluster;
    let version = cluster.produce_version;
    let shares = share_out(&topic.leaders(), load.connections)?;
    let mut frames = Frames::new(load, &topic.name, topic.partitions.len(), version);
    let by_partition: BTreeMap<i32, _> = topic
        .partitions
        .iter()
        .map(|partition| (partition.index, frames.of_partition(partition.index)))
        .collect();
    let mut ready = Vec::new();
    for share in shares {
        let link = Link::open(cluster.transport, &share.address).await?;
        let of_share: Vec<_> = share
            .partitions
            .iter()
            .map(|each| &by_partition[each])
            .collect();
        // Round the partitions, so that none is written to in bursts.
        let variants = of_share.first().map_or(0, |frames| frames.len());
        let mine = (0..variants)
            .flat_map(|variant| {
                of_share
                    .iter()
                    .map(move |frames| Rc::clone(&frames[variant]))
            })
            .collect();
        ready.push((link, mine, version));
    }
    Ok(ready)
}

/// Starts the load on its connections.
pub fn start(ready: Vec<Ready>, load: &Load, meter: &Rc<Meter>) -> Tasks {
    let connections = ready.len();
    let mut tasks = Tasks::new();
    for (index, (link, frames, version)) in ready.into_iter().enumerate() {
        let schedule = load.rate.map(|rate| {
            let per_request = load.records_per_request;
            Schedule::new(meter.start(), rate, per_request, index, connections)
        });
        let pipeline = Pipeline {
            link,
            frames,
            version,
            depth: load.depth,
            answered: load.acks != Acks::Zero,
            schedule,
            enough: Enough::AtEnd,
            meter: Rc::clone(meter),
            on_the_way: None,
            flight: Flight::default(),
        };
        tasks.spawn_local(pipeline.run());
    }
    tasks
}
