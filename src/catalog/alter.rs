//! Changing settings: AlterConfigs replaces all of a resource, IncrementalAlterConfigs some
//! (KIP-133, KIP-339), and the rules between the settings of one topic.
//!
//! Each resource of a request stands for itself. Topic errors carry `INVALID_CONFIG`, broker errors
//! `INVALID_REQUEST`, as in Kafka.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::describe::check_node;
use super::settings::{
    Change, Kind, broker_setting, check_broker_value, check_topic_value, list_items, pinned,
    topic_setting,
};
use super::{Catalog, Decision, Image, RESOURCE_BROKER, RESOURCE_TOPIC, Refusal, topics};
use crate::base::ErrorCode;
use crate::wire::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResourceResponse, AlterConfigsResponse,
};
use crate::wire::messages::create_topics::CreatableTopicConfig;
use crate::wire::messages::incremental_alter_configs as incremental;
use crate::wire::records::encode_metadata;
use crate::wire::records::metadata::ConfigRecord;

/// What to do with one setting (KIP-339).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Set,
    Delete,
    Append,
    Subtract,
}

/// One wanted change: name, operation, value.
type Wanted<'a> = (&'a str, Option<Operation>, Option<&'a str>);
/// The overrides of a resource.
type Settings = BTreeMap<String, String>;

impl Catalog {
    /// Answers AlterConfigs: settings of the resource that are not named go back to default.
    pub fn alter_configs(
        &mut self,
        request: &AlterConfigsRequest,
    ) -> Decision<AlterConfigsResponse> {
        let key = |index: usize| {
            let resource = &request.resources[index];
            (resource.resource_type, resource.resource_name.as_str())
        };
        let duplicates = topics::duplicates((0..request.resources.len()).map(key));
        let mut records = Vec::new();
        let responses = request.resources.iter().map(|resource| {
            let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
            let wanted = resource.configs.iter().map(|config| {
                (
                    config.name.as_str(),
                    Some(Operation::Set),
                    config.value.as_deref(),
                )
            });
            let decided = match duplicates.contains(&(kind, name)) {
                true => Err(duplicate_resource()),
                false => decide(&self.image, kind, name, &wanted.collect::<Vec<_>>(), true),
            };
            let refusal = settle(decided, request.validate_only, &mut records);
            AlterConfigsResourceResponse {
                error_code: refusal.code,
                error_message: refusal.message,
                resource_type: kind,
                resource_name: name.to_owned(),
            }
        });
        let responses = responses.collect();
        (
            records,
            AlterConfigsResponse {
                responses,
                ..Default::default()
            },
        )
    }

    /// Answers IncrementalAlterConfigs: settings that are not named stay as they are.
    pub fn incremental_alter_configs(
        &mut self,
        request: &incremental::IncrementalAlterConfigsRequest,
    ) -> Decision<incremental::IncrementalAlterConfigsResponse> {
        let key = |index: usize| {
            let resource = &request.resources[index];
            (resource.resource_type, resource.resource_name.as_str())
        };
        let duplicates = topics::duplicates((0..request.resources.len()).map(key));
        let mut records = Vec::new();
        let responses = request.resources.iter().map(|resource| {
            let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
            let wanted = resource.configs.iter().map(|config| {
                let operation = Operation::from_code(config.config_operation);
                (config.name.as_str(), operation, config.value.as_deref())
            });
            let decided = match duplicates.contains(&(kind, name)) {
                true => Err(duplicate_resource()),
                false => decide(&self.image, kind, name, &wanted.collect::<Vec<_>>(), false),
            };
            let refusal = settle(decided, request.validate_only, &mut records);
            incremental::AlterConfigsResourceResponse {
                error_code: refusal.code,
                error_message: refusal.message,
                resource_type: kind,
                resource_name: name.to_owned(),
            }
        });
        let responses = responses.collect();
        (
            records,
            incremental::IncrementalAlterConfigsResponse {
                responses,
                ..Default::default()
            },
        )
    }
}

impl Operation {
    fn from_code(code: i8) -> Option<Self> {
        Some(match code {
            0 => Self::Set,
            1 => Self::Delete,
            2 => Self::Append,
            3 => Self::Subtract,
            _ => return None,
        })
    }
}

/// The overrides of `topic`, which is created with `configs`.
pub(super) fn check_new_config(
    topic: &str,
    configs: &[CreatableTopicConfig],
) -> Result<Settings, Refusal> {
    let nulls = configs.iter().filter(|config| config.value.is_none());
    let nulls: Vec<&str> = nulls.map(|config| config.name.as_str()).collect();
    if !nulls.is_empty() {
        let message = format!(
            "Null value not supported for topic configs: {}",
            nulls.join(",")
        );
        return Err(invalid_config(message));
    }
    let mut settings = Settings::new();
    for config in configs {
        let value = config.value.as_deref().unwrap_or_default();
        let value = check_value(topic, &config.name, value)?;
        settings.insert(config.name.clone(), value);
    }
    check_together(&settings)?;
    Ok(settings)
}

/// The canonical text of a value; what is pinned in the broker's own topics takes no other.
fn check_value(topic: &str, name: &str, value: &str) -> Result<String, Refusal> {
    let value = check_topic_value(name, value).map_err(invalid_config)?;
    let mut pinned = pinned(topic).iter();
    match pinned.find(|(other, fixed)| *other == name && *fixed != value) {
        Some((_, fixed)) => Err(invalid_config(format!(
            "{name} of the internal topic {topic} is {fixed} and cannot be changed"
        ))),
        None => Ok(value),
    }
}

/// Rules between the settings of one topic.
fn check_together(settings: &Settings) -> Result<(), Refusal> {
    let number = |name| {
        settings
            .get(name)
            .and_then(|value| value.parse::<i64>().ok())
    };
    let (min, max) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
    let (lag_min, lag_max) = (number(min).unwrap_or(0), number(max).unwrap_or(i64::MAX));
    if lag_min > lag_max {
        return Err(invalid_config(format!(
            "conflict topic config setting {min} ({lag_min}) > {max} ({lag_max})"
        )));
    }
    if settings
        .get("remote.storage.enable")
        .is_some_and(|value| value == "true")
    {
        let message = "Tiered Storage functionality is disabled in the broker. Topic cannot be \
                       configured with remote log storage.";
        return Err(invalid_config(message.to_owned()));
    }
    Ok(())
}

/// The records that change one resource; `replace` drops every setting that is not wanted.
fn decide(
    image: &Image,
    kind: i8,
    name: &str,
    wanted: &[Wanted<'_>],
    replace: bool,
) -> Result<Vec<Bytes>, Refusal> {
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    if !matches!(kind, RESOURCE_TOPIC | RESOURCE_BROKER) {
        return refuse(format!("Unknown resource type {kind}"));
    }
    if !topics::duplicates(wanted.iter().map(|(name, ..)| *name)).is_empty() {
        return refuse("Error due to duplicate config keys".to_owned());
    }
    let null = |wanted: &&Wanted<'_>| wanted.1 != Some(Operation::Delete) && wanted.2.is_none();
    let nulls: Vec<&str> = wanted.iter().filter(null).map(|wanted| wanted.0).collect();
    if !nulls.is_empty() {
        return refuse(format!(
            "Null value not supported for : {}",
            nulls.join(",")
        ));
    }
    let old = match kind {
        RESOURCE_TOPIC if name.is_empty() => {
            return refuse("Default topic resources are not allowed.".to_owned());
        }
        RESOURCE_TOPIC => match image.topic(name) {
            Some(topic) => &topic.config,
            None => {
                let message = format!("The topic '{name}' does not exist.");
                return Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, message));
            }
        },
        _ => {
            if !name.is_empty() {
                check_node(image, name, "Node id", "")?;
            }
            image.dynamic_settings(!name.is_empty())
        }
    };
    let mut new = if replace {
        Settings::new()
    } else {
        old.clone()
    };
    for wanted in wanted {
        match kind {
            RESOURCE_TOPIC => apply_topic(image, name, wanted, &mut new)?,
            _ => apply_broker(wanted, &mut new)?,
        }
    }
    if kind == RESOURCE_TOPIC {
        check_together(&new)?;
    }
    Ok(difference(kind, name, old, &new))
}

fn apply_topic(
    image: &Image,
    topic: &str,
    (name, operation, value): &Wanted<'_>,
    settings: &mut Settings,
) -> Result<(), Refusal> {
    // Without an override a list starts from what applies now, as in Kafka.
    let current = || {
        let setting = topic_setting(name)?;
        let chain = image
            .layers(image.topic(topic).map(AsRef::as_ref))
            .topic_chain(setting);
        chain.first().map(|first| first.topic_value())
    };
    let kind = topic_setting(name).map(|setting| setting.kind);
    let value = change(name, *operation, value.unwrap_or_default(), kind, current)?;
    match value {
        None => settings.remove(*name),
        Some(value) => {
            let value = check_value(topic, name, &value)?;
            settings.insert((*name).to_owned(), value)
        }
    };
    Ok(())
}

fn apply_broker(
    (name, operation, value): &Wanted<'_>,
    settings: &mut Settings,
) -> Result<(), Refusal> {
    let Some((setting, broker)) = broker_setting(name) else {
        return Err(invalid_config(format!(
            "Unknown broker config name: {name}"
        )));
    };
    let refuse = |message| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    if broker.change != Change::Dynamic {
        return refuse(format!("Cannot update these configs dynamically: [{name}]"));
    }
    let kind = setting.broker_kind(broker);
    let current = || {
        settings
            .get(*name)
            .cloned()
            .or_else(|| setting.broker_default(broker))
    };
    match change(
        name,
        *operation,
        value.unwrap_or_default(),
        Some(kind),
        current,
    )? {
        None => settings.remove(*name),
        Some(value) => match check_broker_value(name, &value) {
            Ok(value) => settings.insert((*name).to_owned(), value),
            Err(message) => return refuse(message),
        },
    };
    Ok(())
}

/// The value after the operation, `None` if it is removed. An unknown setting (`kind` is `None`) is
/// not a list.
fn change(
    name: &str,
    operation: Option<Operation>,
    value: &str,
    kind: Option<Kind>,
    current: impl FnOnce() -> Option<String>,
) -> Result<Option<String>, Refusal> {
    let verb = match operation {
        None => {
            let message = format!("Unknown operation on {name}");
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        Some(Operation::Set) => return Ok(Some(value.to_owned())),
        Some(Operation::Delete) => return Ok(None),
        Some(Operation::Append) => "APPEND",
        Some(Operation::Subtract) => "SUBTRACT",
    };
    if kind.is_some_and(|kind| !kind.is_list()) {
        return Err(invalid_config(format!(
            "Can't {verb} to key {name} because its type is not LIST."
        )));
    }
    let current = current().unwrap_or_default();
    let given = list_items(value);
    let mut items = list_items(&current);
    match operation {
        Some(Operation::Append) => items.extend(given),
        _ => items.retain(|item| !given.contains(item)),
    }
    Ok(Some(items.join(",")))
}

/// The records that lead from `old` to `new`.
fn difference(kind: i8, resource: &str, old: &Settings, new: &Settings) -> Vec<Bytes> {
    let record = |name: &String, value: Option<&String>| {
        let record = ConfigRecord {
            resource_type: kind,
            resource_name: resource.to_owned(),
            name: name.clone(),
            value: value.cloned(),
        };
        encode_metadata(&record, 0)
    };
    let removed = old.keys().filter(|name| !new.contains_key(*name));
    let set = new
        .iter()
        .filter(|(name, value)| old.get(*name) != Some(*value));
    let removed = removed.map(|name| record(name, None));
    removed
        .chain(set.map(|(name, value)| record(name, Some(value))))
        .collect()
}

/// Takes over the records of one resource; what its response says.
fn settle(
    decided: Result<Vec<Bytes>, Refusal>,
    validate_only: bool,
    records: &mut Vec<Bytes>,
) -> Refusal {
    match decided {
        Ok(decided) => {
            if !validate_only {
                records.extend(decided);
            }
            Refusal {
                code: ErrorCode::None,
                message: None,
            }
        }
        Err(refusal) => refusal,
    }
}

fn duplicate_resource() -> Refusal {
    Refusal::new(
        ErrorCode::InvalidRequest,
        "Each resource must appear at most once.",
    )
}

fn invalid_config(message: String) -> Refusal {
    Refusal::new(ErrorCode::InvalidConfig, message)
}
