//! Reads everything once, when all is quiet: each partition from its first offset to its last, by
//! the wire. What must be there and is not, shows here at the latest.

use super::consumer::{self, request};
use super::link::{Answer, Heard, Link};
use super::{Client, Scene};
use crate::base::prng::Prng;
use crate::base::{ErrorCode, Mono, Offset, PartitionKey};
use crate::sim::world::World;
use crate::wire::messages::fetch::FetchRequest;
use crate::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use std::collections::VecDeque;

/// Timestamps that stand for the first and the last offset.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// How far it is with one partition.
#[derive(Clone, Copy, Debug)]
enum Step {
    Start,
    End { start: Offset },
    Read { next: Offset, end: Offset },
}

/// What a fetch brought.
enum Fetched {
    /// Records up to this offset.
    Up(Offset),
    /// Retention has removed what was asked for. Where the log begins now is to be asked again:
    /// version 4 does not tell.
    OutOfRange,
    /// What is stored there is damaged, and that is no surprise.
    Damaged,
}

/// See the module's text.
pub struct Auditor {
    link: Link,
    prng: Prng,
    /// Topic and partition; the first is being read.
    partitions: VecDeque<(String, i32)>,
    step: Step,
    /// Where the log began when that was asked; retention goes on meanwhile.
    start_min: Offset,
    asked: bool,
}

impl Auditor {
    /// An auditor of all that the cluster holds.
    pub fn new(scene: &Scene<'_>, seed: u64) -> Self {
        let all = scene.cluster.topics.iter();
        let partitions =
            all.flat_map(|(name, topic)| (0..topic.partitions).map(|p| (name.clone(), p)));
        Self {
            link: Link::new("auditor"),
            prng: Prng::new(seed),
            partitions: partitions.collect(),
            step: Step::Start,
            start_min: 0,
            asked: false,
        }
    }

    /// True when everything was read.
    pub fn is_done(&self) -> bool {
        self.partitions.is_empty()
    }

    fn ask(&mut self, scene: &mut Scene<'_>) {
        let Some((topic, partition)) = self.partitions.front() else {
            return;
        };
        let timestamp = match self.step {
            Step::Start => {
                let key = scene.cluster.key(topic, *partition);
                self.start_min = key.map_or(0, |key| scene.checker.log_start(key));
                EARLIEST
            }
            Step::End { .. } => LATEST,
            Step::Read { next, .. } => {
                let Some(info) = scene.cluster.topics.get(topic) else {
                    return;
                };
                let version = 4 + self.prng.below(15) as i16;
                let wanted = [(*partition, next)];
                let bytes_max = 1 + self.prng.below(200_000) as i32;
                let request = FetchRequest {
                    min_bytes: 1,
                    ..request(topic, info.id, version, &wanted, bytes_max)
                };
                self.asked = true;
                return self.link.ask(scene, version, &request, 0);
            }
        };
        let version = 1 + self.prng.below(11) as i16;
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: topic.clone(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: *partition,
                    timestamp,
                    ..ListOffsetsPartition::default()
                }],
            }],
            ..ListOffsetsRequest::default()
        };
        self.asked = true;
        self.link.ask(scene, version, &request, 0);
    }

    fn on_answer(&mut self, scene: &mut Scene<'_>, answer: Answer) {
        self.asked = false;
        let Some((topic, partition)) = self.partitions.front().cloned() else {
            return;
        };
        let Some(key) = scene.cluster.key(&topic, partition) else {
            return;
        };
        self.step = match self.step {
            Step::Start => match listed(scene, key, answer) {
                Some(start) => {
                    if start < self.start_min {
                        let before = self.start_min;
                        let what = format!("the start of {key:?} went back: {before}, {start}");
                        scene.checker.fail(what);
                    }
                    Step::End { start }
                }
                None => return self.go_on(),
            },
            Step::End { start } => match listed(scene, key, answer) {
                Some(end) => {
                    scene.checker.on_end(key, end);
                    Step::Read { next: start, end }
                }
                None => return self.go_on(),
            },
            Step::Read { next, end } => match fetched(scene, key, next, answer) {
                Some(Fetched::Up(next)) => Step::Read { next, end },
                Some(Fetched::OutOfRange) => Step::Start,
                Some(Fetched::Damaged) => Step::Read {
                    next: next + 1,
                    end,
                },
                None => return,
            },
        };
        if let Step::Read { next, end } = self.step
            && next >= end
        {
            self.go_on();
        }
    }

    /// This partition is done.
    fn go_on(&mut self) {
        self.partitions.pop_front();
        self.step = Step::Start;
    }
}

/// The offset, unless the partition is known to be damaged or something is wrong.
fn listed(scene: &mut Scene<'_>, key: PartitionKey, answer: Answer) -> Option<Offset> {
    let response = answer.decode::<ListOffsetsRequest>(scene)?;
    let partition = response.topics.first().and_then(|t| t.partitions.first());
    match partition {
        Some(found) if found.error_code == ErrorCode::None => Some(found.offset),
        Some(_) if scene.checker.on_damage(key) => None,
        _ => {
            scene.checker.fail(format!("{response:?} in an audit"));
            None
        }
    }
}

fn fetched(
    scene: &mut Scene<'_>,
    key: PartitionKey,
    next: Offset,
    answer: Answer,
) -> Option<Fetched> {
    let response = answer.decode::<FetchRequest>(scene)?;
    let part = response
        .responses
        .first()
        .and_then(|t| t.partitions.first());
    let read = part.map(|part| consumer::read(scene, key, next, part));
    match read {
        Some(read) if read.next.is_some_and(|after| after > next) => read.next.map(Fetched::Up),
        Some(read) if read.out_of_range.is_some() => Some(Fetched::OutOfRange),
        Some(read) if read.damaged => Some(Fetched::Damaged),
        _ => {
            let what = format!("{key:?} gives nothing at {next} in an audit: {response:?}");
            scene.checker.fail(what);
            None
        }
    }
}

impl Client for Auditor {
    fn name(&self) -> &str {
        self.link.name()
    }

    fn turn(&mut self, scene: &mut Scene<'_>) {
        while let Some(heard) = self.link.hear(scene) {
            match heard {
                Heard::Answer(answer) => self.on_answer(scene, answer),
                Heard::Broken => self.asked = false,
            }
        }
        if !self.asked && !self.is_done() && self.link.is_up(scene) {
            self.ask(scene);
        }
        if self.is_done() && self.link.is_connected() {
            self.link.hang_up(scene);
        }
    }

    fn is_awake(&self, world: &World) -> bool {
        self.link.is_awake(world)
    }

    fn next_deadline(&self) -> Mono {
        match self.is_done() {
            true => Mono(u64::MAX),
            false => self.link.next_deadline(),
        }
    }

    fn is_idle(&self) -> bool {
        self.is_done()
    }
}
