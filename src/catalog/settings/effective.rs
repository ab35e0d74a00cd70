//! What a setting is worth: its value through all layers with the source of each, and the typed
//! settings that the rest of the broker works with.
//!
//! Invariant: a stored value that this version would not accept (written by another version) counts
//! as not set; it never stops the broker.

use std::collections::BTreeMap;

use super::{BrokerName, Setting, broker_setting, list_items, topic_setting};
use crate::base::FetchPath;
use crate::base::planted::{self, Bug};
use crate::catalog::{Image, METADATA_TOPIC, Topic};

/// Settings of the broker's own topics that hold whatever anybody sets, on the topic or on the
/// broker: retention must delete nothing of them, and what they store counts when it is synced.
/// The records of the catalog have no keys, so they cannot be compacted either.
pub fn pinned(topic: &str) -> &'static [(&'static str, &'static str)] {
    match topic {
        _ if planted::is(Bug::InternalUnpinned) => &[],
        METADATA_TOPIC => &[("cleanup.policy", ""), ("write.caching", "false")],
        _ if Topic::is_internal_name(topic) => {
            &[("cleanup.policy", "compact"), ("write.caching", "false")]
        }
        _ => &[],
    }
}

/// Where a value came from, with Kafka's `ConfigSource` numbers of DescribeConfigs (KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Source {
    /// Set on the topic.
    Topic = 1,
    /// Set on this node while running.
    Node = 2,
    /// Set on the whole cluster while running.
    Cluster = 3,
    /// Set at start: flag, environment, file.
    Static = 4,
    /// Not set.
    Default = 5,
}

/// One value of a setting under one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced {
    /// The name it was set under.
    pub name: &'static str,
    /// The text, in the unit of that name.
    pub value: String,
    /// Who set it.
    pub source: Source,
    /// Units of the topic setting per unit of this name.
    unit: i64,
}

impl Sourced {
    /// The text in the unit of the topic setting. A negative time stays "no bound".
    pub fn topic_value(&self) -> String {
        match (self.unit, self.value.parse::<i64>()) {
            (1, _) | (_, Err(_)) => self.value.clone(),
            (_, Ok(value)) if value < 0 => "-1".to_owned(),
            (unit, Ok(value)) => value.saturating_mul(unit).to_string(),
        }
    }
}

/// All layers of values that apply to one resource.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// What nobody can change, see [`pinned`].
    pub pinned: &'static [(&'static str, &'static str)],
    /// Overrides of the topic; empty for the broker itself.
    pub topic: Option<&'a BTreeMap<String, String>>,
    /// Set on this node while running.
    pub node: &'a BTreeMap<String, String>,
    /// Set on the cluster while running.
    pub cluster: &'a BTreeMap<String, String>,
    /// Set at start.
    pub fixed: &'a BTreeMap<String, String>,
}

impl Layers<'_> {
    /// The value of a topic setting that nobody can change.
    pub fn pinned(&self, name: &str) -> Option<&'static str> {
        let mut pinned = self.pinned.iter();
        pinned.find_map(|(other, value)| (*other == name).then_some(*value))
    }

    /// Every value of a topic setting, the one that counts first. Empty if nobody set it and no
    /// broker name carries the default.
    pub fn topic_chain(&self, setting: &'static Setting) -> Vec<Sourced> {
        let name = setting.topic.unwrap_or_default();
        if let Some(value) = self.pinned(name) {
            return vec![Sourced {
                name,
                value: value.to_owned(),
                source: Source::Topic,
                unit: 1,
            }];
        }
        let own = self.topic.and_then(|overrides| overrides.get(name));
        let own = own.and_then(|value| setting.kind.parse(name, value).ok());
        let own = own.map(|value| Sourced {
            name,
            value,
            source: Source::Topic,
            unit: 1,
        });
        let brokers = setting
            .broker
            .iter()
            .flat_map(|broker| self.values(setting, broker));
        own.into_iter().chain(brokers).collect()
    }

    /// Every value of a broker setting under `broker` and, if it has one, under the weaker names of
    /// the same setting. Empty if it is null.
    pub fn broker_chain(
        &self,
        setting: &'static Setting,
        broker: &'static BrokerName,
    ) -> Vec<Sourced> {
        let mut chain = self.values(setting, broker);
        if !chain.is_empty() {
            let weaker = setting
                .broker
                .iter()
                .skip_while(|other| other.name != broker.name)
                .skip(1);
            chain.extend(weaker.flat_map(|other| self.values(setting, other)));
        }
        chain
    }

    fn values(&self, setting: &'static Setting, broker: &'static BrokerName) -> Vec<Sourced> {
        let kind = setting.broker_kind(broker);
        let sourced = |value, source| Sourced {
            name: broker.name,
            value,
            source,
            unit: broker.unit,
        };
        let layers = [
            (self.node, Source::Node),
            (self.cluster, Source::Cluster),
            (self.fixed, Source::Static),
        ];
        let set = layers.into_iter().filter_map(|(layer, source)| {
            // A log of another broker may have it in another form than ours: ` 5`, `TRUE`.
            let value = kind.parse(broker.name, layer.get(broker.name)?).ok()?;
            Some(sourced(value, source))
        });
        let default = setting.broker_default(broker);
        set.chain(default.map(|value| sourced(value, Source::Default)))
            .collect()
    }

    /// The text of a topic setting. `name` must be in the table with a default.
    fn topic_text(&self, name: &str) -> String {
        let setting = topic_setting(name).expect("the typed settings name rows of the table");
        match self.topic_chain(setting).first() {
            Some(first) => first.topic_value(),
            None => setting.default.unwrap_or_default().to_owned(),
        }
    }

    fn topic_number(&self, name: &str) -> i64 {
        let text = self.topic_text(name);
        text.parse()
            .expect("values and defaults of number rows are checked numbers")
    }

    fn topic_flag(&self, name: &str) -> bool {
        self.topic_text(name) == "true"
    }

    fn broker_text(&self, name: &str) -> Option<String> {
        let (setting, broker) = broker_setting(name).expect("the typed settings name table rows");
        let chain = self.values(setting, broker);
        chain.into_iter().next().map(|first| first.value)
    }

    fn broker_number(&self, name: &str) -> i64 {
        let text = self
            .broker_text(name)
            .expect("number rows of the broker have a default");
        text.parse()
            .expect("values and defaults of number rows are checked numbers")
    }

    fn broker_flag(&self, name: &str) -> bool {
        self.broker_text(name).is_some_and(|text| text == "true")
    }
}

/// `compression.type` of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// Keep what the producer sent.
    Producer,
    /// Store without compression.
    Uncompressed,
    /// Store as gzip.
    Gzip,
    /// Store as snappy.
    Snappy,
    /// Store as lz4.
    Lz4,
    /// Store as zstd.
    Zstd,
}

/// The settings of a topic that have an effect, as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// `cleanup.policy` holds `compact`: every record needs a key.
    pub compact: bool,
    /// `cleanup.policy` holds `delete`: retention applies.
    pub delete: bool,
    /// `compression.type`.
    pub compression: CompressionType,
    /// `flush.ms`: longest time that written records stay unsynced.
    pub flush_ms: i64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`: largest batch.
    pub message_bytes_max: u32,
    /// `message.timestamp.type` is `LogAppendTime`.
    pub append_time: bool,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `retention.bytes`; `None` for no bound.
    pub retention_bytes: Option<u64>,
    /// `retention.ms`; `None` for ever.
    pub retention_ms: Option<i64>,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.index.bytes`.
    pub segment_index_bytes: u32,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `write.caching`: acks=all is answered before the sync.
    pub write_caching: bool,
}

/// The settings of the broker that have an effect, as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerSettings {
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `connections.max.idle.ms`; `None` for no bound.
    pub connection_idle_ms_max: Option<i64>,
    /// `connections.max.first.request.ms`.
    pub connection_first_request_ms_max: i64,
    /// `connections.max.request.ms`.
    pub connection_request_ms_max: i64,
    /// `max.connections`.
    pub connections_max: u32,
    /// `max.connections.per.ip`.
    pub connections_per_ip_max: u32,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `disk.reserve.bytes`; -1 for the default.
    pub disk_reserve_bytes: i64,
    /// `fetch.max.bytes`.
    pub fetch_bytes_max: u32,
    /// `fetch.path`.
    pub fetch_path: FetchPath,
    /// `group.initial.rebalance.delay.ms`.
    pub group_initial_rebalance_delay_ms: i64,
    /// `group.max.session.timeout.ms`.
    pub group_session_timeout_ms_max: i64,
    /// `group.min.session.timeout.ms`.
    pub group_session_timeout_ms_min: i64,
    /// `group.max.count`.
    pub group_count_max: u32,
    /// `group.max.size`.
    pub group_size_max: u32,
    /// `max.request.partition.size.limit`.
    pub described_partitions_max: u32,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_bytes_max: u32,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.topic.num.partitions`.
    pub offsets_partitions: i32,
    /// `offsets.topic.segment.bytes`.
    pub offsets_segment_bytes: u32,
    /// `max.partitions`.
    pub partitions_max: u32,
    /// `max.producer.ids.per.partition`.
    pub producer_ids_max: u32,
    /// `max.unsynced.bytes.per.partition`.
    pub unsynced_bytes_max: u64,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval_ms: i64,
    /// `socket.request.max.bytes`: largest request frame.
    pub request_bytes_max: u32,
}

/// The values that apply to a topic, with the broker's defaults of `image`.
pub fn topic_settings(image: &Image, topic: &Topic) -> TopicSettings {
    let layers = image.layers(Some(topic));
    let policy = layers.topic_text("cleanup.policy");
    let policy = list_items(&policy);
    TopicSettings {
        compact: policy.contains(&"compact"),
        delete: policy.contains(&"delete"),
        compression: match layers.topic_text("compression.type").as_str() {
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            _ => CompressionType::Producer,
        },
        flush_ms: layers.topic_number("flush.ms"),
        index_interval_bytes: clamp(layers.topic_number("index.interval.bytes")),
        message_bytes_max: clamp(layers.topic_number("max.message.bytes")),
        append_time: layers.topic_text("message.timestamp.type") == "LogAppendTime",
        timestamp_after_max_ms: layers.topic_number("message.timestamp.after.max.ms"),
        timestamp_before_max_ms: layers.topic_number("message.timestamp.before.max.ms"),
        retention_bytes: u64::try_from(layers.topic_number("retention.bytes")).ok(),
        retention_ms: Some(layers.topic_number("retention.ms")).filter(|ms| *ms >= 0),
        segment_bytes: clamp(layers.topic_number("segment.bytes")),
        segment_index_bytes: clamp(layers.topic_number("segment.index.bytes")),
        segment_ms: layers.topic_number("segment.ms"),
        write_caching: layers.topic_flag("write.caching"),
    }
}

/// The values that apply to the broker.
pub fn broker_settings(image: &Image) -> BrokerSettings {
    let layers = image.layers(None);
    let size = |name| clamp(layers.broker_number(name));
    BrokerSettings {
        auto_create_topics: layers.broker_flag("auto.create.topics.enable"),
        rack: layers.broker_text("broker.rack"),
        connection_idle_ms_max: Some(layers.broker_number("connections.max.idle.ms"))
            .filter(|ms| *ms >= 0),
        connection_first_request_ms_max: layers.broker_number("connections.max.first.request.ms"),
        connection_request_ms_max: layers.broker_number("connections.max.request.ms"),
        connections_max: size("max.connections"),
        connections_per_ip_max: size("max.connections.per.ip"),
        delete_topics: layers.broker_flag("delete.topic.enable"),
        disk_reserve_bytes: layers.broker_number("disk.reserve.bytes"),
        fetch_bytes_max: size("fetch.max.bytes"),
        fetch_path: match layers.broker_text("fetch.path").as_deref() {
            Some("sendfile") => FetchPath::Sendfile,
            Some("splice") => FetchPath::Splice,
            Some("copy") => FetchPath::Copy,
            _ => FetchPath::Auto,
        },
        group_initial_rebalance_delay_ms: layers.broker_number("group.initial.rebalance.delay.ms"),
        group_session_timeout_ms_max: layers.broker_number("group.max.session.timeout.ms"),
        group_session_timeout_ms_min: layers.broker_number("group.min.session.timeout.ms"),
        group_count_max: size("group.max.count"),
        group_size_max: size("group.max.size"),
        described_partitions_max: size("max.request.partition.size.limit"),
        num_partitions: layers.broker_number("num.partitions") as i32,
        offset_metadata_bytes_max: size("offset.metadata.max.bytes"),
        offsets_retention_check_interval_ms: layers
            .broker_number("offsets.retention.check.interval.ms"),
        offsets_retention_ms: layers.broker_number("offsets.retention.minutes") * 60_000,
        offsets_partitions: layers.broker_number("offsets.topic.num.partitions") as i32,
        offsets_segment_bytes: size("offsets.topic.segment.bytes"),
        partitions_max: size("max.partitions"),
        producer_ids_max: size("max.producer.ids.per.partition"),
        unsynced_bytes_max: layers
            .broker_number("max.unsynced.bytes.per.partition")
            .max(0)
            .unsigned_abs(),
        producer_id_expiration_ms: layers.broker_number("producer.id.expiration.ms"),
        retention_check_interval_ms: layers.broker_number("log.retention.check.interval.ms"),
        request_bytes_max: size("socket.request.max.bytes"),
    }
}

/// A number of an Int row that is not negative.
fn clamp(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}
