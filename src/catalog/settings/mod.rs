//! Every setting we honour or accept, under Kafka's names: one [`table`](table::TABLE), the types
//! and ranges behind it, and how a value is found.
//!
//! A setting has up to two kinds of names: the topic's (`retention.ms`) and the broker's, which
//! give the default of all topics (`log.retention.ms`, `.minutes`, `.hours`). Invariant: a value is
//! looked up in one order everywhere: what is pinned in the broker's own topics, topic override,
//! then for each broker name dynamic for the node, dynamic for the cluster, static; then the
//! default.

mod effective;
mod kind;
mod table;
#[cfg(test)]
mod tests;

pub use effective::{
    BrokerSettings, CompressionType, Layers, Source, Sourced, TopicSettings, broker_settings,
    pinned, topic_settings,
};
pub use kind::{Kind, list_items};
pub use table::TABLE;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The name as a topic setting, if topics can override it.
    pub topic: Option<&'static str>,
    /// The names as a broker setting, the strongest first; empty if there is none.
    pub broker: &'static [BrokerName],
    /// Type and range, in the unit of the topic's name (or of the only broker name).
    pub kind: Kind,
    /// The value when nobody set one; `None` is Kafka's null.
    pub default: Option<&'static str>,
    /// What it does, in a line; says so if it is accepted without an effect.
    pub documentation: &'static str,
}

/// A broker-level name of a setting.
#[derive(Clone, Copy, Debug)]
pub struct BrokerName {
    /// The name, such as `log.retention.hours`.
    pub name: &'static str,
    /// How many units of the topic setting one unit of this name is: 3,600,000 for hours of a
    /// setting in milliseconds.
    pub unit: i64,
    /// How it can be changed.
    pub change: Change,
}

/// How a broker setting is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// At start and while running (AlterConfigs).
    Dynamic,
    /// At start only.
    Start,
    /// By this command line flag (or its environment variable or YAML key), not by its Kafka name.
    Flag(&'static str),
}

impl Setting {
    /// Type and range of the broker name: names in a coarser unit are 32-bit numbers in Kafka.
    pub fn broker_kind(&self, broker: &BrokerName) -> Kind {
        match (broker.unit, self.kind) {
            (1, kind) => kind,
            (_, Kind::Long { min }) => Kind::int(i32::try_from(min).unwrap_or(0)),
            (_, kind) => kind,
        }
    }

    /// Default of the broker name, in its unit. Where a setting has several, only the last and
    /// weakest carries it, as in Kafka.
    pub fn broker_default(&self, broker: &BrokerName) -> Option<String> {
        let last = self
            .broker
            .last()
            .expect("a broker name belongs to a row that lists it");
        if last.name != broker.name {
            return None;
        }
        match (broker.unit, self.default?) {
            (1, default) => Some(default.to_owned()),
            (unit, default) => default
                .parse::<i64>()
                .ok()
                .map(|value| (value / unit).to_string()),
        }
    }
}

/// The row of a topic setting.
pub fn topic_setting(name: &str) -> Option<&'static Setting> {
    TABLE.iter().find(|setting| setting.topic == Some(name))
}

/// The row of a broker setting and the name that matched.
pub fn broker_setting(name: &str) -> Option<(&'static Setting, &'static BrokerName)> {
    TABLE.iter().find_map(|setting| {
        let broker = setting.broker.iter().find(|broker| broker.name == name)?;
        Some((setting, broker))
    })
}

/// Checks the value of a topic setting and gives its canonical text.
///
/// # Errors
/// Kafka's sentence for an unknown name or a bad value.
pub fn check_topic_value(name: &str, value: &str) -> Result<String, String> {
    match topic_setting(name) {
        Some(setting) => setting.kind.parse(name, value),
        None => Err(format!("Unknown topic config name: {name}")),
    }
}

/// Checks the value of a broker setting and gives its canonical text.
///
/// # Errors
/// Kafka's sentence for a bad value; ours for an unknown name.
pub fn check_broker_value(name: &str, value: &str) -> Result<String, String> {
    match broker_setting(name) {
        Some((setting, broker)) => setting.broker_kind(broker).parse(name, value),
        None => Err(format!("Unknown broker config name: {name}")),
    }
}
