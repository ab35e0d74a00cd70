//! Telling clients what is set: DescribeConfigs and ListConfigResources, from a snapshot and thus
//! on
//! any shard.
//!
//! Every known key is listed with value, source and synonyms (KIP-133, KIP-226, KIP-569).

use std::collections::BTreeSet;

use super::settings::{Change, Kind, Layers, Setting, Source, Sourced, TABLE};
use super::{Image, RESOURCE_BROKER, RESOURCE_TOPIC, Refusal, check_topic_name};
use crate::base::ErrorCode;
use crate::base::limits::DESCRIBED_BYTES_MAX;
use crate::wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::wire::messages::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};

/// The resource types Kafka lists: topic, broker, logger, client metrics, group.
const RESOURCE_TYPES: [i8; 5] = [2, 4, 8, 16, 32];

impl Image {
    /// Answers DescribeConfigs.
    pub fn describe_configs(&self, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
        self.describe_within(request, DESCRIBED_BYTES_MAX)
    }

    /// The same; the resource with which the answer has more than `bytes_max` is the last one.
    pub(super) fn describe_within(
        &self,
        request: &DescribeConfigsRequest,
        bytes_max: usize,
    ) -> DescribeConfigsResponse {
        let mut seen = BTreeSet::new();
        let mut described_bytes = 0;
        let results = request.resources.iter().map(|resource| {
            // An answer is hundreds of times larger than its question: one per resource.
            let first = seen.insert((resource.resource_type, &resource.resource_name));
            let described = match first {
                true if described_bytes > bytes_max => Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    "The answer is too large: describe fewer resources at a time.",
                )),
                true => self.describe(resource, request),
                false => Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    "Each resource must appear at most once.",
                )),
            };
            let (error_code, error_message, configs) = match described {
                Ok(configs) => (ErrorCode::None, Some(String::new()), configs),
                Err(refusal) => (refusal.code, refusal.message, Vec::new()),
            };
            described_bytes += configs.iter().map(told_bytes).sum::<usize>();
            DescribeConfigsResult {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                configs,
            }
        });
        DescribeConfigsResponse {
            results: results.collect(),
            ..Default::default()
        }
    }

    /// Answers ListConfigResources of `version` (KIP-1142); version 0 asks for client metrics only,
    /// of which there are none.
    pub fn list_config_resources(
        &self,
        request: &ListConfigResourcesRequest,
        version: i16,
    ) -> ListConfigResourcesResponse {
        let known = |kind: &i8| RESOURCE_TYPES.contains(kind);
        if !request.resource_types.iter().all(known) {
            return ListConfigResourcesResponse {
                error_code: ErrorCode::UnsupportedVersion,
                ..Default::default()
            };
        }
        let wanted = |kind| {
            let types = &request.resource_types;
            version > 0 && (types.is_empty() || types.contains(&kind))
        };
        let broker =
            wanted(RESOURCE_BROKER).then(|| (self.node_id().0.to_string(), RESOURCE_BROKER));
        let topics = self.topics().filter(|_| wanted(RESOURCE_TOPIC));
        let topics = topics.map(|topic| (topic.name.clone(), RESOURCE_TOPIC));
        let resource = |(resource_name, resource_type)| ConfigResource {
            resource_name,
            resource_type,
        };
        ListConfigResourcesResponse {
            config_resources: broker.into_iter().chain(topics).map(resource).collect(),
            ..Default::default()
        }
    }

    fn describe(
        &self,
        resource: &DescribeConfigsResource,
        request: &DescribeConfigsRequest,
    ) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
        let name = resource.resource_name.as_str();
        let broker = self.layers(None);
        let mut entries: Vec<Entry> = match resource.resource_type {
            RESOURCE_TOPIC => {
                check_topic_name(name).map_err(|why| Refusal::new(ErrorCode::InvalidTopic, why))?;
                let Some(topic) = self.topic(name) else {
                    return Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, ""));
                };
                topic_entries(&self.layers(Some(topic))).collect()
            }
            RESOURCE_BROKER if name.is_empty() => broker_entries(&broker)
                .filter_map(Entry::of_cluster)
                .collect(),
            RESOURCE_BROKER => {
                check_node(self, name, "Broker id", "or empty string, ")?;
                broker_entries(&broker).collect()
            }
            // Those that Kafka has besides: there is nothing to set, but tools ask.
            kind if RESOURCE_TYPES.contains(&kind) => Vec::new(),
            kind => {
                let message = format!("Resources of type {kind} have no settings here.");
                return Err(Refusal::new(ErrorCode::InvalidRequest, message));
            }
        };
        let keys = resource.configuration_keys.as_deref().unwrap_or_default();
        entries.retain(|entry| keys.is_empty() || keys.iter().any(|key| key == entry.name));
        entries.sort_by_key(|entry| entry.name);
        Ok(entries
            .into_iter()
            .map(|entry| entry.into_result(request))
            .collect())
    }
}

/// Effective topic settings by name: value and, unless it is the default, source.
pub(super) fn topic_values(
    layers: &Layers<'_>,
) -> impl Iterator<Item = (&'static str, String, Option<Source>)> {
    topic_entries(layers).map(|entry| {
        let source = entry.chain.first().map(|first| first.source);
        (entry.name, entry.value.unwrap_or_default(), source)
    })
}

/// Refuses a broker resource that is not this node; `noun` and `also` as Kafka words it.
pub(super) fn check_node(image: &Image, name: &str, noun: &str, also: &str) -> Result<(), Refusal> {
    let node = image.node_id().0;
    let message = match name.parse::<i32>() {
        Ok(id) if image.is_node(id) => return Ok(()),
        Ok(id) => {
            let comma = if also.is_empty() { ", " } else { " " };
            format!("Unexpected broker id, expected {node}{comma}{also}but received {id}")
        }
        Err(_) => format!("{noun} must be an integer, but it is: {name}"),
    };
    Err(Refusal::new(ErrorCode::InvalidRequest, message))
}

/// One key of a described resource.
struct Entry {
    name: &'static str,
    setting: &'static Setting,
    kind: Kind,
    value: Option<String>,
    read_only: bool,
    chain: Vec<Sourced>,
}

impl Entry {
    /// What is left for the description of the whole cluster: values set there.
    fn of_cluster(mut self) -> Option<Self> {
        self.chain
            .retain(|value| value.source == Source::Cluster && value.name == self.name);
        self.value = Some(self.chain.first()?.value.clone());
        Some(self)
    }

    fn into_result(self, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
        let source = self
            .chain
            .first()
            .map_or(Source::Default, |first| first.source);
        let synonym = |value: Sourced| DescribeConfigsSynonym {
            name: value.name.to_owned(),
            value: Some(value.value),
            source: value.source as i8,
        };
        let synonyms = match request.include_synonyms {
            true => self.chain.into_iter().map(synonym).collect(),
            false => Vec::new(),
        };
        let documentation = self.setting.documentation;
        DescribeConfigsResourceResult {
            name: self.name.to_owned(),
            value: self.value,
            read_only: self.read_only,
            config_source: source as i8,
            is_sensitive: false,
            synonyms,
            config_type: self.kind.type_code(),
            documentation: request
                .include_documentation
                .then(|| documentation.to_owned()),
        }
    }
}

/// Bytes of all texts of a setting.
fn told_bytes(told: &DescribeConfigsResourceResult) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let synonyms = told.synonyms.iter();
    let synonyms = synonyms.map(|synonym| synonym.name.len() + length(&synonym.value));
    told.name.len() + length(&told.value) + length(&told.documentation) + synonyms.sum::<usize>()
}

fn topic_entries(layers: &Layers<'_>) -> impl Iterator<Item = Entry> {
    TABLE.iter().filter_map(|setting| {
        let name = setting.topic?;
        let chain = layers.topic_chain(setting);
        let value = match chain.first() {
            Some(first) => Some(first.topic_value()),
            None => setting.default.map(str::to_owned),
        };
        Some(Entry {
            name,
            setting,
            kind: setting.kind,
            value,
            read_only: layers.pinned(name).is_some(),
            chain,
        })
    })
}

fn broker_entries(layers: &Layers<'_>) -> impl Iterator<Item = Entry> {
    let names = TABLE
        .iter()
        .flat_map(|row| row.broker.iter().map(move |broker| (row, broker)));
    names.map(|(setting, broker)| {
        let chain = layers.broker_chain(setting, broker);
        Entry {
            name: broker.name,
            setting,
            kind: setting.broker_kind(broker),
            value: chain.first().map(|first| first.value.clone()),
            read_only: broker.change != Change::Dynamic,
            chain,
        }
    })
}
