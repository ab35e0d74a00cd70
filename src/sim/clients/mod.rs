//! The workload: clients that speak the real protocol through our codec. Each is a state machine
//! that gets a turn when its connection has something for it or its time has come.

pub mod admin;
pub mod auditor;
pub mod consumer;
pub mod link;
pub mod member;
pub mod producer;

use super::checker::Checker;
use super::world::World;
use crate::base::{Mono, PartitionKey, TopicId};
use std::collections::BTreeMap;

/// What a client works with in its turn.
pub struct Scene<'a> {
    /// The world.
    pub world: &'a mut World,
    /// What was promised.
    pub checker: &'a mut Checker,
    /// The topics there are.
    pub cluster: &'a mut Cluster,
    /// Nothing new is begun: what is under way ends.
    pub quiet: bool,
}

/// What all clients know of the topics, told by the admin client.
#[derive(Debug, Default)]
pub struct Cluster {
    /// By name.
    pub topics: BTreeMap<String, TopicInfo>,
}

/// One topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicInfo {
    /// Its id.
    pub id: TopicId,
    /// Its partitions.
    pub partitions: i32,
}

impl Cluster {
    /// The partition's key, if the topic exists.
    pub fn key(&self, topic: &str, partition: i32) -> Option<PartitionKey> {
        let topic = self.topics.get(topic)?.id;
        Some(PartitionKey { topic, partition })
    }
}

/// One client.
pub trait Client {
    /// Its name in the trace.
    fn name(&self) -> &str;

    /// Does what it can without waiting.
    fn turn(&mut self, scene: &mut Scene<'_>);

    /// True if a turn would do something.
    fn is_awake(&self, world: &World) -> bool;

    /// When it wants a turn even if nothing arrives.
    fn next_deadline(&self) -> Mono;

    /// True if nothing is under way.
    fn is_idle(&self) -> bool;
}
