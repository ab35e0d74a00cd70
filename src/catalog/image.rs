//! [`Image`]: what the cluster looks like at one moment, immutable, shared by every shard.
//!
//! Owned here: topics by name and id, who this node is, the layers of settings. Not owned: how it
//! changes (the parent module). Invariant: both topic maps hold the same topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::settings::{Layers, pinned};
use crate::base::{NodeId, TopicId};

/// The internal topic that holds group state.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The internal topic that holds the catalog's own records.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
/// Kafka's fixed id of [`METADATA_TOPIC`].
pub const METADATA_TOPIC_ID: TopicId = TopicId(uuid::Uuid::from_u128(1));
const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id; a topic of the same name created later has another.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Number of partitions; they are numbered from 0.
    pub partitions: i32,
    /// Settings that differ from the broker's, canonical text by topic-level name.
    pub config: BTreeMap<String, String>,
    /// One of the broker's own topics.
    pub internal: bool,
}

impl Topic {
    /// True for the names of the broker's own topics.
    pub fn is_internal_name(name: &str) -> bool {
        matches!(name, OFFSETS_TOPIC | TRANSACTIONS_TOPIC | METADATA_TOPIC)
    }
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the cluster, as clients see it: 22 characters of base64 in Kafka.
    pub cluster_id: String,
    /// Id of this node.
    pub node_id: NodeId,
    /// Host and port that clients are told; `None` tells them what they dialled.
    pub advertised: Option<(String, u16)>,
    /// Steering: the port on which each shard listens as a broker of its own, with the id
    /// `node_id` plus its number. Empty if the shards are one broker.
    pub ports_per_shard: Vec<u16>,
    /// Broker settings given at start, by Kafka's broker-level names, checked.
    pub static_settings: BTreeMap<String, String>,
}

/// A snapshot of the cluster. Cloning shares all topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    identity: Arc<Identity>,
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: BTreeMap<TopicId, Arc<Topic>>,
    cluster_settings: BTreeMap<String, String>,
    node_settings: BTreeMap<String, String>,
}

/// What differs between two images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Topics that are gone. One that was deleted and created again is here and in `changed`.
    pub removed: Vec<Arc<Topic>>,
    /// Topics that are new, have more partitions or other settings.
    pub changed: Vec<Arc<Topic>>,
    /// Broker-level settings differ: settings of every topic may have changed.
    pub settings: bool,
}

impl Image {
    /// An image without topics.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity: Arc::new(identity),
            by_name: BTreeMap::new(),
            by_id: BTreeMap::new(),
            cluster_settings: BTreeMap::new(),
            node_settings: BTreeMap::new(),
        }
    }

    /// Id of the cluster.
    pub fn cluster_id(&self) -> &str {
        &self.identity.cluster_id
    }

    /// Id of this node.
    pub fn node_id(&self) -> NodeId {
        self.identity.node_id
    }

    /// Host and port that clients are told; `None` tells them what they dialled.
    pub fn advertised(&self) -> Option<(&str, u16)> {
        let (host, port) = self.identity.advertised.as_ref()?;
        Some((host, *port))
    }

    /// Steering: the port of each shard's own listener; empty if the shards are one broker.
    pub fn ports_per_shard(&self) -> &[u16] {
        &self.identity.ports_per_shard
    }

    /// True for the ids under which clients know this node: one, or with steering one per shard.
    pub fn is_node(&self, id: i32) -> bool {
        let first = self.identity.node_id.0;
        let count = self.identity.ports_per_shard.len().max(1);
        (0..count as i32).contains(&id.wrapping_sub(first))
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic of that id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics in the order of their names.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// The topics whose names are not before `name`, in the order of their names.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Arc<Topic>> {
        let from = (std::ops::Bound::Included(name), std::ops::Bound::Unbounded);
        self.by_name.range::<str, _>(from).map(|(_, topic)| topic)
    }

    /// What a shard that knew `old` has to do.
    pub fn changes_since(&self, old: &Image) -> Changes {
        let removed = old
            .by_id
            .values()
            .filter(|topic| !self.by_id.contains_key(&topic.id));
        let changed = self.by_id.values().filter(|topic| {
            let before = old.by_id.get(&topic.id);
            before.is_none_or(|before| !Arc::ptr_eq(before, topic) && before != *topic)
        });
        Changes {
            removed: removed.cloned().collect(),
            changed: changed.cloned().collect(),
            settings: self.cluster_settings != old.cluster_settings
                || self.node_settings != old.node_settings,
        }
    }

    /// All layers of settings that apply to a topic, or to the broker.
    pub fn layers<'a>(&'a self, topic: Option<&'a Topic>) -> Layers<'a> {
        Layers {
            pinned: topic.map_or(&[], |topic| pinned(&topic.name)),
            topic: topic.map(|topic| &topic.config),
            node: &self.node_settings,
            cluster: &self.cluster_settings,
            fixed: &self.identity.static_settings,
        }
    }

    /// Broker settings changed while running: of this node, or of the whole cluster.
    pub(super) fn dynamic_settings(&self, node: bool) -> &BTreeMap<String, String> {
        if node {
            &self.node_settings
        } else {
            &self.cluster_settings
        }
    }

    pub(super) fn dynamic_settings_mut(&mut self, node: bool) -> &mut BTreeMap<String, String> {
        if node {
            &mut self.node_settings
        } else {
            &mut self.cluster_settings
        }
    }

    /// Puts a topic in place, instead of the one with its id.
    pub(super) fn put(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        self.by_name.insert(topic.name.clone(), topic.clone());
        self.by_id.insert(topic.id, topic);
    }

    /// Takes a topic out; false if there is none.
    pub(super) fn remove(&mut self, id: TopicId) -> bool {
        let Some(topic) = self.by_id.remove(&id) else {
            return false;
        };
        self.by_name.remove(&topic.name);
        true
    }

    /// Asserts that both topic maps agree.
    pub(super) fn check(&self) {
        assert_eq!(
            self.by_name.len(),
            self.by_id.len(),
            "a topic is known by name and by id"
        );
        for (name, topic) in &self.by_name {
            assert_eq!(*name, topic.name);
            let same = self
                .by_id
                .get(&topic.id)
                .is_some_and(|other| Arc::ptr_eq(other, topic));
            assert!(same, "topic {name} differs by id");
        }
    }
}
