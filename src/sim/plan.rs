//! What kind of run a seed stands for: every run has other rates, sizes and participants, so that
//! each mixture of them is tried some day (swarm testing).

use super::clients::{member, producer};
use super::disk::{DiskFaults, Unwritten};
use super::records::RecordId;
use super::world::Faults;
use crate::base::prng::Prng;
use std::collections::BTreeMap;

/// Topic whose producers all wait for every acknowledgement, without retention, whatever holds for
/// others; groups read it.
pub const SOLID: &str = "solid";

/// Topic with every kind of producer, retention and deleted records.
pub const MIXED: &str = "mixed";

/// How wrong the clock is at most. Usually records that are more than an hour ahead of it are
/// refused (`message.timestamp.after.max.ms`).
const MINUTES_WRONG_MAX: i64 = 25;

/// The same where such records are taken: longer than records are kept by default.
const DAYS_WRONG_MAX: i64 = 30;

/// A topic to create: name, partitions, settings.
pub type TopicPlan = (String, i32, Vec<(String, String)>);

/// Everything that is decided before a run begins.
#[derive(Debug)]
pub struct Plan {
    /// Settings of the broker.
    pub settings: BTreeMap<String, String>,
    /// Topics of the workload.
    pub topics: Vec<TopicPlan>,
    /// Who produces.
    pub producers: Vec<producer::Plan>,
    /// The topic that each consumer reads.
    pub consumers: Vec<&'static str>,
    /// Members of the one group.
    pub members: Vec<member::Plan>,
    /// Virtual time in which things break.
    pub duration_ms: i64,
    /// Mean time between two faults of the broker.
    pub fault_pause_ms: u64,
    /// How bad world and network are while things break.
    pub faults: Faults,
    /// How bad the disk is.
    pub disk: DiskFaults,
    /// The wall clock is set at times, and is wrong by so much at most.
    pub clock_error_ms_max: i64,
    /// `write.caching` of all topics that do not say something else: acks=all is acks=1 there.
    pub write_caching: bool,
    /// The disk is full at times.
    pub full_disk: bool,
    /// In the end bits of stored records flip.
    pub rot: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(prng: &mut Prng, failing_disk: bool) -> Self {
        let clock_error_ms_max = match prng.below(100) {
            0..20 => MINUTES_WRONG_MAX * 60_000,
            20..40 => DAYS_WRONG_MAX * 86_400_000,
            _ => 0,
        };
        let write_caching = prng.percent(25);
        let mut settings = broker_settings(prng, clock_error_ms_max);
        settings.insert("write.caching".to_owned(), write_caching.to_string());
        let topics = [solid(prng), mixed(prng)];
        let mut producers = Vec::new();
        for number in 0..2 + prng.below(3) as u32 {
            let solid = number == 0 || prng.percent(30);
            let idempotent = solid || prng.percent(40);
            let acks = match (solid, idempotent) {
                (true, _) => -1,
                (_, true) => [1, -1][prng.below(2) as usize],
                _ => [0, 1, 1, -1][prng.below(4) as usize],
            };
            producers.push(producer::Plan {
                number: RecordId::producer(number, solid),
                topic: if solid { SOLID } else { MIXED }.to_owned(),
                acks,
                idempotent,
                roams: !idempotent && prng.percent(40),
                pause_ms: 1 + prng.below(40),
            });
        }
        let pick = |prng: &mut Prng| if prng.percent(50) { SOLID } else { MIXED };
        Self {
            settings,
            topics: topics.into(),
            producers,
            consumers: (0..1 + prng.below(3)).map(|_| pick(prng)).collect(),
            members: members(prng),
            duration_ms: 4_000 + prng.below(8_000) as i64,
            fault_pause_ms: match failing_disk || prng.percent(20) {
                true => 3_000 + prng.below(3_000),
                false => 100 + prng.below(3_000),
            },
            clock_error_ms_max,
            write_caching,
            full_disk: failing_disk || prng.percent(20),
            rot: prng.percent(40),
            faults: Faults {
                resets: sometimes(prng, 50, 300),
                sync_ns_max: [100_000, 2_000_000, 50_000_000][prng.below(3) as usize],
                late: sometimes(prng, 50, 40),
                slow: sometimes(prng, 30, 60),
                refusals: sometimes(prng, 30, 50),
                disk_may_fail: false,
            },
            disk: disk_faults(prng, failing_disk),
        }
        .completed()
    }

    fn completed(mut self) -> Self {
        let failures = self.disk.write_failures + self.disk.sync_failures;
        self.faults.disk_may_fail = self.full_disk || failures > 0;
        self
    }
}

/// What holds for the broker, and for its own topics as far as they let it.
fn broker_settings(prng: &mut Prng, clock_error_ms_max: i64) -> BTreeMap<String, String> {
    let message_bytes_max = if prng.percent(20) { 200 } else { 1 << 20 };
    let mut settings = vec![
        ("log.retention.check.interval.ms", 700),
        ("group.initial.rebalance.delay.ms", prng.below(60) as i64),
        ("group.min.session.timeout.ms", 100),
        // A limit for clients must not stop the broker's own logs.
        ("message.max.bytes", message_bytes_max),
        ("offsets.topic.num.partitions", 1 + prng.below(3) as i64),
    ];
    if clock_error_ms_max > 30 * 60_000 {
        // What a clock decides that is right.
        settings.push(("log.message.timestamp.after.max.ms", i64::MAX));
        settings.push(("offsets.retention.minutes", i64::from(i32::MAX)));
    }
    if prng.percent(20) {
        settings.push(("log.retention.ms", 500 + prng.below(5_000) as i64));
    }
    if prng.percent(20) {
        settings.push(("log.retention.bytes", prng.below(50_000) as i64));
    }
    if prng.percent(40) {
        settings.push(("log.roll.ms", 50 + prng.below(3_000) as i64));
    }
    let settings = settings.into_iter();
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_string()));
    settings.collect()
}

fn members(prng: &mut Prng) -> Vec<member::Plan> {
    let (count, with_static, with_cooperative) =
        (prng.below(4), prng.percent(40), prng.percent(50));
    let rebalance_timeout_ms = 100 + prng.below(600) as i32;
    let member = |number| member::Plan {
        number,
        topic: SOLID.to_owned(),
        is_static: with_static && prng.percent(60),
        cooperative: with_cooperative && prng.percent(70),
        rebalance_timeout_ms,
        with_static,
    };
    (0..count as u32).map(member).collect()
}

/// A rate below `bound` in so many of 100 runs, else none.
fn sometimes(prng: &mut Prng, percent: u64, bound: u64) -> u64 {
    match prng.percent(percent) {
        true => prng.below(bound),
        false => 0,
    }
}

fn disk_faults(prng: &mut Prng, failing: bool) -> DiskFaults {
    let unwritten = [
        Unwritten::Missing,
        Unwritten::Zeros,
        Unwritten::Stale,
        Unwritten::Garbage,
    ];
    let failures = |prng: &mut Prng| match failing {
        true => 200 + prng.below(1_000),
        false => sometimes(prng, 15, 200),
    };
    DiskFaults {
        write_failures: failures(prng),
        sync_failures: failures(prng),
        short: sometimes(prng, 40, 30),
        rot: sometimes(prng, 30, 100),
        unwritten: unwritten[prng.below(4) as usize],
    }
}

fn solid(prng: &mut Prng) -> TopicPlan {
    let mut settings = vec![("write.caching", "false".to_owned())];
    match prng.percent(40) {
        // Nothing is compacted yet; all that it means is that every record needs a key.
        true => settings.push(("cleanup.policy", "compact".to_owned())),
        false => {
            settings.push(("retention.ms", "-1".to_owned()));
            settings.push(("retention.bytes", "-1".to_owned()));
        }
    }
    topic(prng, SOLID, settings)
}

fn mixed(prng: &mut Prng) -> TopicPlan {
    let mut settings = Vec::new();
    if prng.percent(60) {
        let bytes = 5_000 + prng.below(200_000);
        settings.push(("retention.bytes", bytes.to_string()));
    }
    if prng.percent(30) {
        let ms = 500 + prng.below(5_000);
        settings.push(("retention.ms", ms.to_string()));
    }
    topic(prng, MIXED, settings)
}

fn topic(prng: &mut Prng, name: &str, settings: Vec<(&str, String)>) -> TopicPlan {
    let small = [
        ("index.interval.bytes", 100 + prng.below(4_000)),
        ("segment.index.bytes", 24 + prng.below(400)),
        ("segment.ms", 50 + prng.below(3_000)),
        ("max.message.bytes", 1 << 20),
    ];
    let small = small.map(|(name, value)| (name, value.to_string()));
    let settings = settings.into_iter().chain(small);
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    let partitions = 1 + prng.below(3) as i32;
    (name.to_owned(), partitions, settings.collect())
}
