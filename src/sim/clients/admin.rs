//! The administrator: creates the topics of the workload, then creates and deletes topics that
//! nobody needs, lets topics grow, deletes records, and compares the metadata with what was
//! acknowledged.

use super::link::{Answer, Heard, Link};
use super::{Client, Scene, TopicInfo};
use crate::base::prng::Prng;
use crate::base::{ErrorCode, Mono, Offset, TopicId};
use crate::sim::plan::TopicPlan;
use crate::sim::world::World;
use crate::wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use crate::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use crate::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use crate::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use crate::wire::messages::metadata::MetadataRequest;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Partitions that a topic grows to at most.
const PARTITIONS_MAX: i32 = 5;

/// What requests give the broker; a single node does not use it.
const TIMEOUT_MS: i32 = 10_000;

/// One thing to do; done again until its outcome is known.
#[derive(Clone, Debug)]
enum Step {
    Create {
        name: String,
        partitions: i32,
        settings: Vec<(String, String)>,
    },
    /// Asks for all topics.
    Describe,
    Delete {
        name: String,
        id: TopicId,
    },
    Grow {
        name: String,
        partitions: i32,
    },
    DeleteRecords {
        name: String,
        partition: i32,
        offset: Offset,
    },
}

/// See the module's text.
pub struct Admin {
    link: Link,
    prng: Prng,
    steps: VecDeque<Step>,
    asked: bool,
    /// The topics that clients use.
    kept: BTreeSet<String>,
    /// Created and acknowledged, with the least number of partitions.
    created: BTreeMap<String, i32>,
    deleted: BTreeSet<TopicId>,
    next_topic: u32,
    rest_until: Mono,
    wake_at: Mono,
}

impl Admin {
    /// An administrator who first creates these topics: name, partitions, settings.
    pub fn new(topics: Vec<TopicPlan>, seed: u64) -> Self {
        let kept = topics.iter().map(|(name, ..)| name.clone()).collect();
        let create = |(name, partitions, settings)| Step::Create {
            name,
            partitions,
            settings,
        };
        let steps = topics.into_iter().map(create).chain([Step::Describe]);
        Self {
            link: Link::new("admin"),
            prng: Prng::new(seed),
            steps: steps.collect(),
            asked: false,
            kept,
            created: BTreeMap::new(),
            deleted: BTreeSet::new(),
            next_topic: 0,
            rest_until: Mono::default(),
            wake_at: Mono::default(),
        }
    }

    fn plan(&mut self, scene: &Scene<'_>) {
        let names: Vec<_> = scene.cluster.topics.keys().cloned().collect();
        let Some(name) = names.get(self.prng.below(names.len().max(1) as u64) as usize) else {
            return;
        };
        let info = scene.cluster.topics[name];
        let name = name.clone();
        let kept = self.kept.contains(&name);
        let partition = self.prng.below(info.partitions as u64) as i32;
        let step = match self.prng.below(10) {
            0..3 => {
                self.next_topic += 1;
                Step::Create {
                    name: format!("passing-{}", self.next_topic % 4),
                    partitions: 1 + self.prng.below(3) as i32,
                    settings: Vec::new(),
                }
            }
            3..5 if !kept => Step::Delete { name, id: info.id },
            5 if info.partitions < PARTITIONS_MAX => Step::Grow {
                partitions: info.partitions + 1,
                name,
            },
            6 if name == "mixed" => {
                let key = scene.cluster.key(&name, partition);
                let end = key.map_or(0, |key| scene.checker.high_watermark(key));
                let offset = match self.prng.percent(10) {
                    true => -1,
                    false => self.prng.below(end as u64 + 1) as i64,
                };
                Step::DeleteRecords {
                    name,
                    partition,
                    offset,
                }
            }
            _ => Step::Describe,
        };
        self.steps.push_back(step);
        self.steps.push_back(Step::Describe);
    }

    fn ask(&mut self, scene: &mut Scene<'_>) {
        let Some(step) = self.steps.front().cloned() else {
            return;
        };
        self.asked = true;
        match step {
            Step::Create {
                name,
                partitions,
                settings,
            } => {
                let request = create_topic(name, partitions, settings);
                let version = self.version(2, 7);
                self.link.ask(scene, version, &request, 0);
            }
            Step::Describe => {
                let request = MetadataRequest {
                    topics: None,
                    ..MetadataRequest::default()
                };
                let version = self.version(10, 13);
                self.link.ask(scene, version, &request, 0);
            }
            Step::Delete { name, id } => {
                scene.checker.on_topic_deleted(id);
                scene.cluster.topics.remove(&name);
                self.created.remove(&name);
                self.link.ask(scene, 6, &delete_topic(id), 0);
            }
            Step::Grow { name, partitions } => {
                let request = create_partitions(name, partitions);
                let version = self.version(0, 3);
                self.link.ask(scene, version, &request, 0);
            }
            Step::DeleteRecords {
                name,
                partition,
                offset,
            } => {
                let request = delete_records(name, partition, offset);
                let version = self.version(0, 2);
                self.link.ask(scene, version, &request, 0);
            }
        }
    }

    fn version(&mut self, first: i16, last: i16) -> i16 {
        first + self.prng.below((last - first + 1) as u64) as i16
    }

    fn on_answer(&mut self, scene: &mut Scene<'_>, answer: Answer) {
        self.asked = false;
        let Some(step) = self.steps.pop_front() else {
            return;
        };
        let (error, expected) = match &step {
            Step::Create { .. } => {
                let response = answer.decode::<CreateTopicsRequest>(scene);
                let topic = response.and_then(|r| r.topics.into_iter().next());
                // It may have been created by a request whose answer was lost.
                let expected = [ErrorCode::None, ErrorCode::TopicAlreadyExists];
                (topic.map(|topic| topic.error_code), expected)
            }
            Step::Describe => return self.on_metadata(scene, answer),
            Step::Delete { .. } => {
                let response = answer.decode::<DeleteTopicsRequest>(scene);
                let topic = response.and_then(|r| r.responses.into_iter().next());
                let expected = [ErrorCode::None, ErrorCode::UnknownTopicId];
                (topic.map(|topic| topic.error_code), expected)
            }
            Step::Grow { .. } => {
                let response = answer.decode::<CreatePartitionsRequest>(scene);
                let topic = response.and_then(|r| r.results.into_iter().next());
                let expected = [ErrorCode::None, ErrorCode::InvalidPartitions];
                (topic.map(|topic| topic.error_code), expected)
            }
            Step::DeleteRecords {
                name, partition, ..
            } => {
                let response = answer.decode::<DeleteRecordsRequest>(scene);
                let topic = response.and_then(|r| r.topics.into_iter().next());
                let part = topic.and_then(|t| t.partitions.into_iter().next());
                if let (Some(part), Some(key)) = (&part, scene.cluster.key(name, *partition))
                    && part.error_code == ErrorCode::None
                {
                    scene.checker.on_records_deleted(key, part.low_watermark);
                }
                // What was the high watermark may be gone after a crash.
                let expected = [ErrorCode::None, ErrorCode::OffsetOutOfRange];
                (part.map(|part| part.error_code), expected)
            }
        };
        match error {
            Some(ErrorCode::KafkaStorageError) if scene.world.faults.disk_may_fail => {
                self.steps.push_front(step);
                self.rest_until = scene.world.now.plus_ms(100);
            }
            Some(error) if expected.contains(&error) => self.on_done(scene, step),
            error => scene.checker.fail(format!("{step:?} gave {error:?}")),
        }
    }

    fn on_done(&mut self, scene: &mut Scene<'_>, step: Step) {
        match step {
            Step::Create { name, .. } => {
                // One of the same name may have been there before, with fewer partitions.
                self.created.entry(name).or_insert(1);
            }
            Step::Grow { name, partitions } => {
                let known = self.created.entry(name).or_insert(0);
                *known = (*known).max(partitions);
            }
            Step::Delete { id, .. } => {
                scene.checker.on_topic_gone(id);
                self.deleted.insert(id);
            }
            Step::Describe | Step::DeleteRecords { .. } => {}
        }
    }

    /// Compares what there is with what was promised; from here the clients know of new topics.
    fn on_metadata(&mut self, scene: &mut Scene<'_>, answer: Answer) {
        let Some(response) = answer.decode::<MetadataRequest>(scene) else {
            return;
        };
        let mut found = BTreeMap::new();
        for topic in response.topics {
            let Some(name) = topic.name else { continue };
            if self.deleted.contains(&topic.topic_id) {
                let what = format!("{name} came back after its deletion");
                scene.checker.fail(what);
            }
            let info = TopicInfo {
                id: topic.topic_id,
                partitions: topic.partitions.len() as i32,
            };
            if !topic.is_internal {
                found.insert(name, info);
            }
        }
        for (name, partitions) in &self.created {
            let known = scene.cluster.topics.get(name);
            match found.get(name) {
                Some(info)
                    if info.partitions >= *partitions && known.is_none_or(|k| k.id == info.id) => {}
                other => {
                    let what = format!("{name} with {partitions} partitions is now {other:?}");
                    scene.checker.fail(what);
                }
            }
        }
        // What was shown is durable as well.
        self.created = found
            .iter()
            .map(|(name, info)| (name.clone(), info.partitions))
            .collect();
        scene.cluster.topics = found;
    }
}

fn create_topic(
    name: String,
    partitions: i32,
    settings: Vec<(String, String)>,
) -> CreateTopicsRequest {
    let config = |(name, value)| CreatableTopicConfig {
        name,
        value: Some(value),
    };
    CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name,
            num_partitions: partitions,
            replication_factor: 1,
            configs: settings.into_iter().map(config).collect(),
            ..CreatableTopic::default()
        }],
        timeout_ms: TIMEOUT_MS,
        ..CreateTopicsRequest::default()
    }
}

fn delete_topic(topic_id: TopicId) -> DeleteTopicsRequest {
    DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: None,
            topic_id,
        }],
        timeout_ms: TIMEOUT_MS,
        ..DeleteTopicsRequest::default()
    }
}

fn create_partitions(name: String, count: i32) -> CreatePartitionsRequest {
    CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name,
            count,
            assignments: None,
        }],
        timeout_ms: TIMEOUT_MS,
        ..CreatePartitionsRequest::default()
    }
}

fn delete_records(name: String, partition_index: i32, offset: Offset) -> DeleteRecordsRequest {
    DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name,
            partitions: vec![DeleteRecordsPartition {
                partition_index,
                offset,
            }],
        }],
        timeout_ms: TIMEOUT_MS,
    }
}

impl Client for Admin {
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
        let now = scene.world.now;
        if !self.asked && self.rest_until <= now && self.link.is_up(scene) {
            if self.steps.is_empty() && !scene.quiet {
                self.plan(scene);
            }
            self.ask(scene);
            if self.steps.len() <= 1 {
                self.rest_until = now.plus_ms(20 + self.prng.below(400) as i64);
            }
        }
        self.wake_at = match self.asked {
            true => self.link.next_deadline(),
            false if scene.quiet && self.steps.is_empty() => Mono(u64::MAX),
            false if self.link.is_connected() => self.rest_until,
            false => self.link.next_deadline().max(self.rest_until),
        };
    }

    fn is_awake(&self, world: &World) -> bool {
        self.link.is_awake(world)
    }

    fn next_deadline(&self) -> Mono {
        self.wake_at
    }

    fn is_idle(&self) -> bool {
        self.steps.is_empty() && !self.asked
    }
}
