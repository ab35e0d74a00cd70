//! A consumer without a group: long polls, random limits, jumps back to read again what it has
//! read before. Every answer is checked against what a fetch promises.

use super::link::{Answer, Heard, Link};
use super::{Client, Scene};
use crate::base::prng::Prng;
use crate::base::{ErrorCode, Mono, Offset, PartitionKey, TopicId};
use crate::batch;
use crate::sim::records::RecordId;
use crate::sim::world::World;
use crate::wire::Records;
use crate::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Version from which topics are named by id.
const TOPIC_ID_FROM: i16 = 13;

/// Largest decompressed batch that the workload makes, and more.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Reads one topic.
pub struct Consumer {
    link: Link,
    prng: Prng,
    topic: String,
    positions: BTreeMap<i32, Offset>,
    /// High watermarks seen on this connection.
    high_watermarks: BTreeMap<i32, Offset>,
    asked: Option<Asked>,
    rest_until: Mono,
    wake_at: Mono,
}

#[derive(Debug)]
struct Asked {
    topic_id: TopicId,
    /// Partition and offset, in the order of the request.
    wanted: Vec<(i32, Offset)>,
}

/// What reading one partition's part of a response gave.
#[derive(Debug, Default)]
pub struct Read {
    /// Where to go on.
    pub next: Option<Offset>,
    /// The position is outside of the log; this is where the log starts and ends.
    pub out_of_range: Option<(Offset, Offset)>,
    /// Something is wrong with what is stored, as it may be where a bit has flipped.
    pub damaged: bool,
}

impl Consumer {
    /// A consumer at the start of every partition.
    pub fn new(number: u32, topic: &str, seed: u64) -> Self {
        Self {
            link: Link::new(&format!("consumer-{number}")),
            prng: Prng::new(seed),
            topic: topic.to_owned(),
            positions: BTreeMap::new(),
            high_watermarks: BTreeMap::new(),
            asked: None,
            rest_until: Mono::default(),
            wake_at: Mono::default(),
        }
    }

    fn on_broken(&mut self) {
        self.asked = None;
        self.high_watermarks.clear();
    }

    fn fetch(&mut self, scene: &mut Scene<'_>) {
        let Some(topic) = scene.cluster.topics.get(&self.topic).copied() else {
            self.rest_until = scene.world.now.plus_ms(10);
            return;
        };
        let version = 4 + self.prng.below(15) as i16;
        let mut wanted = Vec::new();
        for partition in 0..topic.partitions {
            if self.prng.percent(80) {
                let position = self.positions.entry(partition).or_insert(0);
                if self.prng.percent(2) {
                    *position = match self.prng.percent(50) {
                        true => 0,
                        false => self.prng.below(*position as u64 + 1) as i64,
                    };
                }
                wanted.push((partition, *position));
            }
        }
        if wanted.is_empty() {
            self.rest_until = scene.world.now.plus_ms(1);
            return;
        }
        let max_wait_ms = self.prng.below(400) as i32;
        let bound = |prng: &mut Prng| match prng.below(3) {
            0 => 1 + prng.below(300) as i32,
            1 => 1_000 + prng.below(40_000) as i32,
            _ => 1 << 20,
        };
        let request = request(
            &self.topic,
            topic.id,
            version,
            &wanted,
            bound(&mut self.prng),
        );
        let request = FetchRequest {
            max_wait_ms,
            min_bytes: self.prng.below(2_000) as i32,
            max_bytes: bound(&mut self.prng),
            ..request
        };
        self.asked = Some(Asked {
            topic_id: topic.id,
            wanted,
        });
        self.link
            .ask(scene, version, &request, i64::from(max_wait_ms));
    }

    fn on_answer(&mut self, scene: &mut Scene<'_>, answer: Answer) {
        let (Some(asked), Some(response)) =
            (self.asked.take(), answer.decode::<FetchRequest>(scene))
        else {
            return;
        };
        let parts: Vec<_> = response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions)
            .collect();
        if response.error_code.is_error() || parts.len() != asked.wanted.len() {
            let what = format!("{response:?} answers {asked:?}");
            return scene.checker.fail(what);
        }
        let mut empty = true;
        for ((partition, offset), part) in asked.wanted.iter().zip(parts) {
            let key = PartitionKey {
                topic: asked.topic_id,
                partition: *partition,
            };
            let read = read(scene, key, *offset, part);
            let last = self.high_watermarks.insert(*partition, part.high_watermark);
            if last.is_some_and(|last| last > part.high_watermark && part.high_watermark >= 0) {
                let what = format!("the high watermark of {key:?} went back: {last:?}, {part:?}");
                scene.checker.fail(what);
            }
            if let Some(next) = read.next {
                self.positions.insert(*partition, next);
            } else if let Some((start, end)) = read.out_of_range {
                let position = if *offset < start { start } else { end };
                self.positions.insert(*partition, position);
            }
            let has = matches!(&part.records, Records::Bytes(bytes) if !bytes.is_empty());
            if has && read.next.is_none() {
                let what = format!("the first batch of {key:?} is cut off: {asked:?}");
                scene.checker.fail(what);
            }
            empty &= !has;
        }
        if empty {
            self.check_not_starved(scene, &asked, &response.responses);
        }
        self.rest_until = scene.world.now.plus_ms(self.prng.below(30) as i64);
    }

    /// A response without any record means that there was none to give.
    fn check_not_starved(
        &self,
        scene: &mut Scene<'_>,
        asked: &Asked,
        topics: &[crate::wire::messages::fetch::FetchableTopicResponse],
    ) {
        let parts = topics.iter().flat_map(|topic| &topic.partitions);
        for ((partition, offset), part) in asked.wanted.iter().zip(parts) {
            let readable = part.log_start_offset <= *offset && *offset < part.high_watermark;
            if readable && !part.error_code.is_error() {
                let what = format!("{offset} of partition {partition} is not given: {part:?}");
                scene.checker.fail(what);
            }
        }
    }
}

/// A fetch of these partitions of one topic, each with this limit.
pub fn request(
    topic: &str,
    topic_id: TopicId,
    version: i16,
    wanted: &[(i32, Offset)],
    partition_max_bytes: i32,
) -> FetchRequest {
    let by_id = version >= TOPIC_ID_FROM;
    let partition = |(partition, fetch_offset): &(i32, Offset)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        partition_max_bytes,
        ..FetchPartition::default()
    };
    FetchRequest {
        topics: vec![FetchTopic {
            topic: if by_id { "" } else { topic }.into(),
            topic_id: if by_id { topic_id } else { TopicId::ZERO },
            partitions: wanted.iter().map(partition).collect(),
        }],
        ..FetchRequest::default()
    }
}

/// Checks what was read from one partition and tells the checker.
pub fn read(
    scene: &mut Scene<'_>,
    key: PartitionKey,
    offset: Offset,
    part: &PartitionData,
) -> Read {
    let range = part.log_start_offset..=part.high_watermark;
    match part.error_code {
        ErrorCode::None => {}
        ErrorCode::OffsetOutOfRange if part.log_start_offset >= 0 => {
            if range.contains(&offset) {
                let what = format!("{offset} of {key:?} is in range: {part:?}");
                scene.checker.fail(what);
            }
            return Read {
                out_of_range: Some((part.log_start_offset, part.high_watermark)),
                ..Read::default()
            };
        }
        ErrorCode::OffsetOutOfRange => {
            return Read {
                out_of_range: Some((0, 0)),
                ..Read::default()
            };
        }
        ErrorCode::KafkaStorageError if scene.world.faults.disk_may_fail => {
            return Read::default();
        }
        _ if scene.checker.on_damage(key) => {
            return Read {
                damaged: true,
                ..Read::default()
            };
        }
        error => {
            scene.checker.fail(format!("reading {key:?}: {error:?}"));
            return Read::default();
        }
    }
    let Records::Bytes(bytes) = &part.records else {
        scene.checker.fail(format!("no records field in {part:?}"));
        return Read::default();
    };
    match read_batches(scene, key, offset, bytes.clone()) {
        Ok(next) => {
            if next.is_some_and(|next| next > part.high_watermark) {
                let what = format!("{key:?} gave more than its high watermark: {part:?}");
                scene.checker.fail(what);
            }
            Read {
                next,
                ..Read::default()
            }
        }
        Err(_) if scene.checker.on_damage(key) => Read {
            damaged: true,
            ..Read::default()
        },
        Err(what) => {
            let what = format!("reading {key:?} from {offset}: {what}");
            scene.checker.fail(what);
            Read::default()
        }
    }
}

/// Reads whole batches; gives the offset behind the last one.
fn read_batches(
    scene: &mut Scene<'_>,
    key: PartitionKey,
    offset: Offset,
    bytes: Bytes,
) -> Result<Option<Offset>, String> {
    let mut next = None;
    for found in batch::batches(bytes) {
        let (header, body) = found.map_err(|error| error.to_string())?;
        header.check_crc(&body).map_err(|error| error.to_string())?;
        let first = match next {
            None => header.base_offset..=header.last_offset(),
            Some(next) => next..=next,
        };
        let expected = next.unwrap_or(offset);
        if !first.contains(&expected) || (next.is_some() && header.base_offset != expected) {
            let base_offset = header.base_offset;
            return Err(format!("a batch at {base_offset}, not {expected}"));
        }
        let records =
            batch::records(&header, &body, BATCH_BYTES_MAX).map_err(|error| error.to_string())?;
        for (at, record) in (header.base_offset..).zip(records) {
            let record = record.map_err(|error| error.to_string())?;
            if record.offset != at {
                return Err(format!("offset {}, not {at}", record.offset));
            }
            let id = RecordId::of(&record)?;
            scene.checker.on_read(key, at, id, record.timestamp);
        }
        next = Some(header.next_offset());
    }
    Ok(next)
}

impl Client for Consumer {
    fn name(&self) -> &str {
        self.link.name()
    }

    fn turn(&mut self, scene: &mut Scene<'_>) {
        while let Some(heard) = self.link.hear(scene) {
            match heard {
                Heard::Answer(answer) => self.on_answer(scene, answer),
                Heard::Broken => self.on_broken(),
            }
        }
        let due = self.rest_until <= scene.world.now && !scene.quiet;
        if due && self.asked.is_none() && self.link.is_up(scene) {
            self.fetch(scene);
        }
        self.wake_at = match self.asked {
            Some(_) => self.link.next_deadline(),
            None if scene.quiet => Mono(u64::MAX),
            None if self.link.is_connected() => self.rest_until,
            None => self.link.next_deadline().max(self.rest_until),
        };
    }

    fn is_awake(&self, world: &World) -> bool {
        self.link.is_awake(world)
    }

    fn next_deadline(&self) -> Mono {
        self.wake_at
    }

    fn is_idle(&self) -> bool {
        self.asked.is_none()
    }
}
