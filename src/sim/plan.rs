//! What kind of run a seed stands for: every run has other rates, sizes and participants, so that
//! each mixture of them is tried some day (swarm testing).

use super::clients::producer;
use crate::base::prng::Prng;
use std::collections::BTreeMap;

/// Topic whose producers all wait for every acknowledgement, without retention; groups read it.
pub const SOLID: &str = "solid";

/// Topic with every kind of producer, retention and deleted records.
pub const MIXED: &str = "mixed";

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
    pub members: u32,
    /// Virtual time in which things break.
    pub duration_ms: i64,
    /// Mean time between two faults of the broker.
    pub fault_pause_ms: u64,
    /// See [`super::world::Faults`].
    pub resets: u64,
    /// See [`super::world::Faults`].
    pub sync_ns_max: u64,
    /// See [`super::disk::Disk::failures`].
    pub disk_failures: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(prng: &mut Prng, write_caching: bool, failing_disk: bool) -> Self {
        let message_bytes_max = if prng.percent(20) { 200 } else { 1 << 20 };
        let settings = [
            ("log.retention.check.interval.ms", "700".to_owned()),
            (
                "group.initial.rebalance.delay.ms",
                prng.below(60).to_string(),
            ),
            ("group.min.session.timeout.ms", "100".to_owned()),
            // A limit for clients must not stop the broker's own logs.
            ("message.max.bytes", message_bytes_max.to_string()),
            (
                "offsets.topic.num.partitions",
                (1 + prng.below(3)).to_string(),
            ),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value));
        let topics = [(SOLID, false), (MIXED, true)]
            .map(|(name, retention)| topic(prng, name, retention, write_caching));
        let mut producers = Vec::new();
        for number in 0..2 + prng.below(3) as u32 {
            let solid = number == 0 || prng.percent(30);
            let idempotent = solid || prng.percent(40);
            let acks = match idempotent {
                true => -1,
                false => [0, 1, 1, -1][prng.below(4) as usize],
            };
            producers.push(producer::Plan {
                number,
                topic: if solid { SOLID } else { MIXED }.to_owned(),
                acks,
                idempotent,
                unnumbered: false,
                pause_ms: 1 + prng.below(40),
            });
        }
        let pick = |prng: &mut Prng| if prng.percent(50) { SOLID } else { MIXED };
        Self {
            settings: settings.into(),
            topics: topics.into(),
            producers,
            consumers: (0..1 + prng.below(3)).map(|_| pick(prng)).collect(),
            members: prng.below(4) as u32,
            duration_ms: 4_000 + prng.below(8_000) as i64,
            fault_pause_ms: match failing_disk || prng.percent(20) {
                true => 3_000 + prng.below(3_000),
                false => 100 + prng.below(3_000),
            },
            resets: if prng.percent(50) { prng.below(300) } else { 0 },
            sync_ns_max: [100_000, 2_000_000, 50_000_000][prng.below(3) as usize],
            disk_failures: match (failing_disk, prng.percent(20)) {
                (true, _) => 200 + prng.below(1_000),
                (_, true) => prng.below(200),
                _ => 0,
            },
        }
    }
}

fn topic(prng: &mut Prng, name: &str, retention: bool, write_caching: bool) -> TopicPlan {
    let mut settings = vec![
        ("index.interval.bytes", 100 + prng.below(4_000)),
        ("segment.index.bytes", 24 + prng.below(400)),
        ("segment.ms", 50 + prng.below(3_000)),
        ("max.message.bytes", 1 << 20),
    ];
    if retention && prng.percent(60) {
        settings.push(("retention.bytes", 5_000 + prng.below(200_000)));
    }
    if retention && prng.percent(30) {
        settings.push(("retention.ms", 500 + prng.below(5_000)));
    }
    let mut settings: Vec<_> = settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect();
    if write_caching {
        settings.push(("write.caching".to_owned(), "true".to_owned()));
    }
    let partitions = 1 + prng.below(3) as i32;
    (name.to_owned(), partitions, settings)
}
