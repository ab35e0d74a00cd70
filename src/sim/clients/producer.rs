//! Producers. An idempotent one sends up to five requests ahead with sequences, and sends again
//! what was not acknowledged when its connection breaks, in the order of the first time, sometimes
//! with acks=all what had acks=1; a plain one never sends again, so that nothing it sends may be
//! there twice.

use super::link::{Heard, Link};
use super::{Client, Scene};
use crate::base::prng::Prng;
use crate::base::{ErrorCode, Few, Mono, PartitionKey, TopicId};
use crate::batch::Codec;
use crate::sim::checker::Sent;
use crate::sim::plan::SOLID;
use crate::sim::records::{self, RecordId};
use crate::sim::world::World;
use crate::wire::messages::init_producer_id::InitProducerIdRequest;
use crate::wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// `max.in.flight.requests.per.connection`, as all clients have it.
const IN_FLIGHT_MAX: usize = 5;

/// Requests created before the producer waits for acknowledgements.
const UNACKED_MAX: usize = 10;

/// Version from which topics are named by id.
const TOPIC_ID_FROM: i16 = 13;

/// What a producer does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number in the run.
    pub number: u32,
    /// Its topic.
    pub topic: String,
    /// 0, 1 or -1.
    pub acks: i16,
    /// It asks for a producer id and numbers its batches.
    pub idempotent: bool,
    /// It sends to any topic but the solid one, also to those that are deleted.
    pub roams: bool,
    /// Mean time between two requests.
    pub pause_ms: u64,
}

/// One batch on its way.
#[derive(Clone, Debug)]
struct Part {
    key: PartitionKey,
    ids: Vec<RecordId>,
    batch: Bytes,
}

#[derive(Clone, Debug)]
struct Unacked {
    version: i16,
    acks: i16,
    parts: Vec<Part>,
}

/// See the module's text.
pub struct Producer {
    plan: Plan,
    link: Link,
    prng: Prng,
    producer_id: Option<i64>,
    /// Power cuts before it was asked for.
    power_cuts: u64,
    asked_for_id: bool,
    sequences: BTreeMap<PartitionKey, i32>,
    next_number: u64,
    session: u64,
    /// Oldest first; the first `in_flight` were sent on this connection.
    unacked: VecDeque<Unacked>,
    in_flight: usize,
    produce_at: Mono,
    resume_at: Mono,
    wake_at: Mono,
}

impl Producer {
    /// A producer that has sent nothing.
    pub fn new(plan: Plan, seed: u64) -> Self {
        let mut link = Link::new(&format!("producer-{}", plan.number));
        if plan.acks == 0 {
            link.allow_close();
        }
        Self {
            link,
            prng: Prng::new(seed),
            producer_id: None,
            power_cuts: 0,
            asked_for_id: false,
            sequences: BTreeMap::new(),
            next_number: 0,
            session: 0,
            unacked: VecDeque::new(),
            in_flight: 0,
            produce_at: Mono::default(),
            resume_at: Mono::default(),
            wake_at: Mono::default(),
            plan,
        }
    }

    fn on_broken(&mut self) {
        self.in_flight = 0;
        self.asked_for_id = false;
        if !self.plan.idempotent {
            self.session += 1;
            self.unacked.clear();
        }
        if self.prng.percent(50) {
            for unacked in &mut self.unacked {
                unacked.acks = -1;
            }
        }
    }

    /// Goes on as a new producer: a power cut has taken what this one was told is there.
    fn begin_anew(&mut self, scene: &mut Scene<'_>) {
        self.link.hang_up(scene);
        self.on_broken();
        self.session += 1;
        self.unacked.clear();
        self.sequences.clear();
        self.producer_id = None;
    }

    fn on_answer(&mut self, scene: &mut Scene<'_>, answer: super::link::Answer) {
        if std::mem::take(&mut self.asked_for_id) {
            let Some(response) = answer.decode::<InitProducerIdRequest>(scene) else {
                return;
            };
            if response.error_code.is_error() {
                return scene.checker.fail(format!("no producer id: {response:?}"));
            }
            scene.checker.on_producer_id(response.producer_id);
            self.producer_id = Some(response.producer_id);
            return;
        }
        let Some(response) = answer.decode::<ProduceRequest>(scene) else {
            return;
        };
        let Some(unacked) = self.unacked.pop_front() else {
            return;
        };
        self.in_flight -= 1;
        let mut answers = response.responses.iter().flat_map(|topic| {
            let partition = |p| (topic.topic_id, &topic.name, p);
            topic.partition_responses.iter().map(partition)
        });
        let (mut failed, mut forgotten) = (false, false);
        for part in &unacked.parts {
            match answers.next() {
                Some((id, _, answer)) if fits(unacked.version, part, id, answer) => {
                    forgotten |= self.is_forgotten(scene, answer.error_code);
                    failed |= !self.on_part(scene, part, unacked.acks, answer);
                }
                other => scene.checker.fail(format!("{other:?} answers {part:?}")),
            }
        }
        if forgotten {
            return self.begin_anew(scene);
        }
        if failed && self.plan.idempotent {
            // What follows cannot be taken before this: everything is sent again, in order.
            self.unacked.push_front(unacked);
            self.link.hang_up(scene);
            self.on_broken();
            self.resume_at = scene.world.now.plus_ms(200);
        }
    }

    /// What these acks promise in this producer's topics.
    fn promised(&self, scene: &Scene<'_>, acks: i16) -> i16 {
        match scene.checker.write_caching && self.plan.topic != SOLID {
            true => acks.abs(),
            false => acks,
        }
    }

    /// True if the broker lacks batches of this producer that a power cut may have taken.
    fn is_forgotten(&self, scene: &Scene<'_>, error: ErrorCode) -> bool {
        let may_lack = self.promised(scene, self.plan.acks) != -1;
        let cut = scene.checker.power_cuts > self.power_cuts;
        error == ErrorCode::OutOfOrderSequenceNumber && may_lack && cut
    }

    /// Takes the answer for one batch, sent with these acks; false if it was refused.
    fn on_part(
        &mut self,
        scene: &mut Scene<'_>,
        part: &Part,
        acks: i16,
        answer: &PartitionProduceResponse,
    ) -> bool {
        let now = scene.world.now;
        match answer.error_code {
            ErrorCode::None => {
                let acks = self.promised(scene, acks);
                for (offset, id) in (answer.base_offset..).zip(&part.ids) {
                    scene.checker.on_acked(now, *id, offset, acks);
                }
                true
            }
            ErrorCode::KafkaStorageError if scene.world.faults.disk_may_fail => false,
            error if self.is_forgotten(scene, error) => false,
            // Whatever is wrong with a topic that is deleted under the request.
            _ if scene.checker.is_deleted(part.key.topic) => false,
            error => {
                let (name, key) = (self.link.name(), part.key);
                let what = format!("{name} got {error:?} for {:?} in {key:?}", part.ids);
                scene.checker.fail(what);
                false
            }
        }
    }

    fn produce(&mut self, scene: &mut Scene<'_>) {
        let now = scene.world.now;
        // What acks=1 has written is at stake only for a while: it is sent again more often.
        let patience = match self.plan.idempotent && self.plan.acks == 1 {
            true => 60,
            false => 400,
        };
        if !scene.quiet && self.in_flight > 0 && self.prng.below(patience) == 0 {
            // The client has lost its patience; what it sent may still arrive.
            self.link.hang_up(scene);
            return self.on_broken();
        }
        if self.plan.idempotent && self.producer_id.is_none() {
            if !self.asked_for_id {
                self.asked_for_id = true;
                self.power_cuts = scene.checker.power_cuts;
                let version = self.prng.below(6) as i16;
                let request = InitProducerIdRequest {
                    transactional_id: None,
                    ..InitProducerIdRequest::default()
                };
                self.link.ask(scene, version, &request, 0);
            }
            return;
        }
        if !scene.quiet && self.produce_at <= now && self.unacked.len() < UNACKED_MAX {
            self.create(scene);
            let pause_ms = self.prng.below(2 * self.plan.pause_ms + 1) as i64;
            self.produce_at = now.plus_ms(pause_ms.max(1));
        }
        while self.in_flight < IN_FLIGHT_MAX.min(self.unacked.len()) {
            self.send(scene, self.in_flight);
        }
    }

    fn create(&mut self, scene: &mut Scene<'_>) {
        let topics = scene.cluster.topics.iter();
        let topics = topics.filter(|(name, _)| match self.plan.roams {
            true => *name != SOLID,
            false => **name == self.plan.topic,
        });
        let topics: Vec<_> = topics.map(|(_, topic)| *topic).collect();
        let pick = self.prng.below(topics.len().max(1) as u64) as usize;
        let Some(topic) = topics.get(pick).copied() else {
            return;
        };
        let version = match self.prng.below(3) {
            // A topic of the same name may be another one by then.
            _ if self.plan.roams => TOPIC_ID_FROM,
            0 => TOPIC_ID_FROM,
            1 => 7 + self.prng.below(6) as i16,
            _ => 3 + self.prng.below(11) as i16,
        };
        let mut parts: Vec<Part> = Vec::new();
        for partition in 0..topic.partitions {
            if parts.is_empty() || self.prng.percent(30) {
                let key = PartitionKey {
                    topic: topic.id,
                    partition: match parts.is_empty() {
                        true => self.prng.below(topic.partitions as u64) as i32,
                        false => partition,
                    },
                };
                if parts.iter().all(|part| part.key != key) {
                    let part = self.create_part(scene, key, version);
                    parts.push(part);
                }
            }
        }
        let acks = self.plan.acks;
        self.unacked.push_back(Unacked {
            version,
            acks,
            parts,
        });
    }

    fn create_part(&mut self, scene: &mut Scene<'_>, key: PartitionKey, version: i16) -> Part {
        let codecs = [
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ];
        let codecs = if version < 7 { &codecs[..4] } else { &codecs };
        let codec = match self.prng.percent(60) {
            true => Codec::None,
            false => codecs[self.prng.below(codecs.len() as u64) as usize],
        };
        let count = 1 + self.prng.below(6);
        let timestamp = scene.world.clocks().wall_ms;
        let sent = Sent {
            partition: key,
            acks: self.promised(scene, self.plan.acks),
            session: self.session,
            timestamp,
        };
        let producer = self.plan.number;
        let ids: Vec<_> = (self.next_number..self.next_number + count)
            .map(|number| RecordId { producer, number })
            .collect();
        self.next_number += count;
        for id in &ids {
            scene.checker.on_sent(*id, sent);
        }
        let numbers = self.producer_id.map(|producer_id| {
            let next = self.sequences.entry(key).or_insert(0);
            let sequence = *next;
            *next += count as i32;
            (producer_id, 0, sequence)
        });
        let batch = records::batch(codec, timestamp, ids.iter().copied(), numbers);
        Part { key, ids, batch }
    }

    fn send(&mut self, scene: &mut Scene<'_>, at: usize) {
        let Unacked {
            version,
            acks,
            parts,
        } = &self.unacked[at];
        let by_id = *version >= TOPIC_ID_FROM;
        let data = |part: &Part| PartitionProduceData {
            index: part.key.partition,
            records: Some(part.batch.clone()),
        };
        let topic = TopicProduceData {
            name: if by_id { "" } else { &self.plan.topic }.into(),
            topic_id: if by_id {
                parts[0].key.topic
            } else {
                TopicId::ZERO
            },
            partition_data: parts.iter().map(data).collect(),
        };
        let request = ProduceRequest {
            acks: *acks,
            timeout_ms: 30_000,
            topic_data: Few::from([topic]),
            ..ProduceRequest::default()
        };
        let version = *version;
        match self.plan.acks {
            0 => {
                self.link.tell(scene, version, &request);
                self.unacked.remove(at);
            }
            _ => {
                self.link.ask(scene, version, &request, 0);
                self.in_flight += 1;
            }
        }
    }
}

/// True if an answer is that of this batch.
fn fits(version: i16, part: &Part, id: TopicId, answer: &PartitionProduceResponse) -> bool {
    let named = version < TOPIC_ID_FROM || id == part.key.topic;
    named && answer.index == part.key.partition
}

impl Client for Producer {
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
        if self.resume_at <= scene.world.now && self.link.is_up(scene) {
            self.produce(scene);
        }
        let may_produce = !scene.quiet && self.unacked.len() < UNACKED_MAX;
        self.wake_at = self.link.next_deadline();
        if may_produce && !self.asked_for_id && self.wake_at > scene.world.now {
            self.wake_at = self.wake_at.min(self.produce_at);
        }
        self.wake_at = self.wake_at.max(self.resume_at);
    }

    fn is_awake(&self, world: &World) -> bool {
        self.link.is_awake(world)
    }

    fn next_deadline(&self) -> Mono {
        self.wake_at
    }

    fn is_idle(&self) -> bool {
        self.unacked.is_empty() && self.link.waiting() == 0
    }
}
