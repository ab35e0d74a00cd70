//! Creating and deleting topics: on request, and when a client asks for one that is missing.
//!
//! Each topic of a request stands for itself: some may be created while others are refused. The
//! codes and sentences are Kafka's (KIP-4, KIP-464, KIP-516, KIP-525).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::names::collide;
use super::settings::Source;
use super::{
    Catalog, Decision, Image, METADATA_TOPIC, OFFSETS_TOPIC, PARTITIONS_PER_REQUEST_MAX, Refusal,
    Topic, alter, broker_settings, check_topic_name, describe, partitions,
};
use crate::base::{ErrorCode, TopicId};
use crate::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};
use crate::wire::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use crate::wire::records::encode_metadata;
use crate::wire::records::metadata::{ConfigRecord, RemoveTopicRecord, TopicRecord};

impl Catalog {
    /// Answers CreateTopics.
    pub fn create_topics(
        &mut self,
        request: &CreateTopicsRequest,
    ) -> Decision<CreateTopicsResponse> {
        let total = total_partitions(&self.image, &request.topics);
        let duplicates = duplicates(request.topics.iter().map(|topic| topic.name.as_str()));
        let mut room = partitions::room(&self.image);
        let mut records = Vec::new();
        let mut answered = BTreeSet::new();
        let mut topics = Vec::new();
        for topic in &request.topics {
            if !answered.insert(&topic.name) {
                continue;
            }
            let decided = if duplicates.contains(topic.name.as_str()) {
                Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    "Duplicate topic name.",
                ))
            } else if total > PARTITIONS_PER_REQUEST_MAX {
                Err(partitions::too_many())
            } else {
                self.decide_topic(topic, &mut room)
            };
            topics.push(match decided {
                Ok(topic) => {
                    if !request.validate_only {
                        append_topic(&self.image, &topic, &mut records);
                    }
                    created(&self.image, topic)
                }
                Err(refusal) => CreatableTopicResult {
                    name: topic.name.clone(),
                    error_code: refusal.code,
                    error_message: refusal.message,
                    configs: Some(Vec::new()),
                    ..Default::default()
                },
            });
        }
        (
            records,
            CreateTopicsResponse {
                topics,
                ..Default::default()
            },
        )
    }

    /// Creates the topics of `names` that are missing, with the broker's defaults: a client asked
    /// for their metadata, or the group coordinator needs `__consumer_offsets`, which is created
    /// whatever `auto.create.topics.enable` says.
    ///
    /// Each name gets `NONE` if the topic exists once the records are replayed, otherwise what a
    /// metadata response must say.
    pub fn auto_create(&mut self, names: &[String]) -> Decision<Vec<(String, ErrorCode)>> {
        let settings = broker_settings(&self.image);
        let mut records = Vec::new();
        let mut results = BTreeMap::new();
        let mut partitions_left = PARTITIONS_PER_REQUEST_MAX;
        let mut room = partitions::room(&self.image);
        for name in names {
            if results.contains_key(name) {
                continue;
            }
            let code = if self.image.topic(name).is_some() {
                ErrorCode::None
            } else if check_topic_name(name).is_err() {
                ErrorCode::InvalidTopic
            } else if name != OFFSETS_TOPIC
                && (!settings.auto_create_topics || Topic::is_internal_name(name))
            {
                ErrorCode::UnknownTopicOrPartition
            } else {
                match self.decide_topic(&automatic(name, &settings), &mut room) {
                    Err(refusal) => refusal.code,
                    // Whoever asks for more at once gets the rest when asking again.
                    Ok(topic) if i64::from(topic.partitions) > partitions_left => {
                        ErrorCode::LeaderNotAvailable
                    }
                    Ok(topic) => {
                        partitions_left -= i64::from(topic.partitions);
                        append_topic(&self.image, &topic, &mut records);
                        ErrorCode::None
                    }
                }
            };
            results.insert(name.clone(), code);
        }
        (records, results.into_iter().collect())
    }

    /// Answers DeleteTopics of `version`.
    pub fn delete_topics(
        &mut self,
        request: &DeleteTopicsRequest,
        version: i16,
    ) -> Decision<DeleteTopicsResponse> {
        let by_name = request.topic_names.iter().map(|name| DeleteTopicState {
            name: Some(name.clone()),
            ..Default::default()
        });
        let wanted: Vec<_> = request.topics.iter().cloned().chain(by_name).collect();
        let enabled = broker_settings(&self.image).delete_topics;
        let names = duplicates(wanted.iter().filter_map(|topic| topic.name.as_deref()));
        let ids = duplicates(wanted.iter().map(|topic| topic.topic_id));
        let mut records = Vec::new();
        let mut answered = BTreeSet::new();
        let mut removed = BTreeSet::new();
        let mut responses = Vec::new();
        for topic in &wanted {
            let without_key = topic.name.is_none() && topic.topic_id == TopicId::ZERO;
            if !without_key && !answered.insert((&topic.name, topic.topic_id)) {
                continue;
            }
            let refuse = |why: &str| Err(Refusal::new(ErrorCode::InvalidRequest, why));
            let found = match &topic.name {
                _ if !enabled => Err(deletion_disabled(version)),
                None if without_key => refuse("Neither topic name nor id were specified."),
                Some(_) if topic.topic_id != TopicId::ZERO => {
                    refuse("You may not specify both topic name and topic id.")
                }
                Some(name) if names.contains(name.as_str()) => refuse("Duplicate topic name."),
                None if ids.contains(&topic.topic_id) => refuse("Duplicate topic id."),
                _ => find(&self.image, topic),
            };
            let found = match found {
                Ok(found) if !removed.insert(found.id) => {
                    refuse("The provided topic name maps to an ID that was already supplied.")
                }
                found => found,
            };
            responses.push(match found {
                Ok(found) => {
                    records.push(encode_metadata(
                        &RemoveTopicRecord { topic_id: found.id },
                        0,
                    ));
                    DeletableTopicResult {
                        name: Some(found.name.clone()),
                        topic_id: found.id,
                        ..Default::default()
                    }
                }
                Err(refusal) => DeletableTopicResult {
                    name: topic.name.clone(),
                    topic_id: topic.topic_id,
                    error_code: refusal.code,
                    error_message: refusal.message,
                },
            });
        }
        (
            records,
            DeleteTopicsResponse {
                responses,
                ..Default::default()
            },
        )
    }

    /// Checks one new topic and gives it an id; takes its partitions off `room`.
    fn decide_topic(&mut self, wanted: &CreatableTopic, room: &mut i64) -> Result<Topic, Refusal> {
        let name = &wanted.name;
        if name == METADATA_TOPIC {
            let message = format!("Creation of internal topic {METADATA_TOPIC} is prohibited.");
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        check_topic_name(name).map_err(|why| Refusal::new(ErrorCode::InvalidTopic, why))?;
        if self.image.topic(name).is_some() {
            let message = format!("Topic '{name}' already exists.");
            return Err(Refusal::new(ErrorCode::TopicAlreadyExists, message));
        }
        if name.contains(['.', '_'])
            && let Some(other) = self.image.topics().find(|topic| collide(&topic.name, name))
        {
            let message = format!(
                "Topic '{name}' collides with existing topic: {}",
                other.name
            );
            return Err(Refusal::new(ErrorCode::InvalidTopic, message));
        }
        let config = alter::check_new_config(name, &wanted.configs)?;
        let partitions = partitions::decide_count(&self.image, wanted)?;
        let internal = Topic::is_internal_name(name);
        if !internal {
            partitions::take_room(&self.image, room, partitions)?;
        }
        Ok(Topic {
            id: self.new_id(),
            name: name.clone(),
            partitions,
            config,
            internal,
        })
    }

    /// A fresh id. None starts with a dash, which command lines would take for a flag (as Kafka).
    fn new_id(&mut self) -> TopicId {
        loop {
            let id = TopicId(self.prng.uuid());
            if !id.to_base64().starts_with('-') && self.image.topic_by_id(id).is_none() {
                return id;
            }
        }
    }
}

/// The request that creates `name` with the broker's defaults.
fn automatic(name: &str, settings: &super::BrokerSettings) -> CreatableTopic {
    use crate::wire::messages::create_topics::CreatableTopicConfig;
    let config = |name: &str, value: String| CreatableTopicConfig {
        name: name.to_owned(),
        value: Some(value),
    };
    let (num_partitions, configs) = match name {
        OFFSETS_TOPIC => (
            settings.offsets_partitions,
            vec![
                config("cleanup.policy", "compact".to_owned()),
                config("compression.type", "producer".to_owned()),
                config("segment.bytes", settings.offsets_segment_bytes.to_string()),
            ],
        ),
        _ => (-1, Vec::new()),
    };
    CreatableTopic {
        name: name.to_owned(),
        num_partitions,
        replication_factor: -1,
        configs,
        ..Default::default()
    }
}

/// Partitions that a request asks for, whatever nonsense it holds.
fn total_partitions(image: &Image, topics: &[CreatableTopic]) -> i64 {
    let default = broker_settings(image).num_partitions;
    let count = |topic: &CreatableTopic| match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => i64::from(default),
        (0, count) => i64::from(count.max(0)),
        (assigned, _) => i64::try_from(assigned).unwrap_or(i64::MAX),
    };
    topics.iter().map(count).fold(0, i64::saturating_add)
}

/// The records of a new topic, in Kafka's order.
fn append_topic(image: &Image, topic: &Topic, records: &mut Vec<Bytes>) {
    let record = TopicRecord {
        name: topic.name.clone(),
        topic_id: topic.id,
    };
    records.push(encode_metadata(&record, 0));
    records.extend(topic.config.iter().map(|(name, value)| {
        let record = ConfigRecord {
            resource_type: super::RESOURCE_TOPIC,
            resource_name: topic.name.clone(),
            name: name.clone(),
            value: Some(value.clone()),
        };
        encode_metadata(&record, 0)
    }));
    partitions::append(image, topic.id, 0..topic.partitions, records);
}

/// The answer for a topic that is created, with its effective settings (KIP-525).
fn created(image: &Image, topic: Topic) -> CreatableTopicResult {
    let layers = image.layers(Some(&topic));
    let configs =
        describe::topic_values(&layers).map(|(name, value, source)| CreatableTopicConfigs {
            name: name.to_owned(),
            value: Some(value),
            read_only: false,
            config_source: source.map_or(Source::Default as i8, |source| source as i8),
            is_sensitive: false,
        });
    CreatableTopicResult {
        topic_id: topic.id,
        error_message: None,
        num_partitions: topic.partitions,
        replication_factor: 1,
        configs: Some(configs.collect()),
        name: topic.name.clone(),
        ..Default::default()
    }
}

fn find<'a>(image: &'a Image, wanted: &DeleteTopicState) -> Result<&'a Topic, Refusal> {
    let found = match &wanted.name {
        Some(name) => image.topic(name).ok_or_else(|| {
            let message = "This server does not host this topic-partition.";
            Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
        }),
        None => image.topic_by_id(wanted.topic_id).ok_or_else(|| {
            let message = "This server does not host this topic ID.";
            Refusal::new(ErrorCode::UnknownTopicId, message)
        }),
    };
    found.map(AsRef::as_ref)
}

/// `delete.topic.enable` is off: an own code from version 3 on.
fn deletion_disabled(version: i16) -> Refusal {
    let code = match version {
        ..3 => ErrorCode::InvalidRequest,
        _ => ErrorCode::TopicDeletionDisabled,
    };
    Refusal::new(code, "Topic deletion is disabled.")
}

/// The items that occur more than once.
pub(super) fn duplicates<T: Ord + Clone>(items: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    items.filter(|item| !seen.insert(item.clone())).collect()
}
