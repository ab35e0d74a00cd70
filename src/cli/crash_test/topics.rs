//! Topics that come and go: made, filled, deleted, and made again under the same name, over every
//! crash. One whose deletion was answered stays away, one whose creation was answered is there, and
//! holds what was written to it since then and nothing that is older.
//!
//! [`Topics`] are the books, [`Turnover`] the client that makes the entries; what is there is asked
//! in `check`. Invariant: an outcome that nobody knows promises nothing until somebody has looked.

use crate::base::ErrorCode;
use crate::base::prng::Prng;
use crate::batch::{Builder, Codec};
use crate::client::{Client, Node, Tcp};
use crate::io::clock;
use crate::wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use crate::wire::messages::delete_topics::DeleteTopicsRequest;
use crate::wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// Their names. Each has one partition.
const NAMES: [&str; 4] = ["spring", "summer", "autumn", "winter"];

/// In so many of a hundred steps a topic that is there is deleted, else written to.
const DELETE_PERCENT: u64 = 20;

/// The last versions of Produce and DeleteTopics that name topics by their names.
const PRODUCE_VERSION: i16 = 12;
const DELETE_VERSION: i16 = 5;

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest pause between two steps.
const PAUSE_US_MAX: u64 = 4000;

/// The books, shared by the client and the checks: nobody looks in the middle of a step.
pub type SharedTopics = Rc<Mutex<Topics>>;

/// What is known of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It is not there.
    #[default]
    Gone,
    /// It is there.
    There,
    /// Its creation or deletion was not answered.
    Unknown,
}

/// One name, and the topics that have had it one after the other.
#[derive(Clone, Debug, Default)]
struct Slot {
    state: State,
    /// Number of its present or last topic.
    life: u64,
    /// Records written to that.
    written: u64,
    /// Of these, acknowledged.
    acknowledged: BTreeSet<u64>,
}

/// A record of such a topic: which life of it, and which record of that.
pub type Mark = (u64, u64);

/// All of them.
#[derive(Debug, Default)]
pub struct Topics {
    slots: BTreeMap<&'static str, Slot>,
    /// Creations and deletions that were answered.
    pub made: u64,
    /// See [`Topics::made`].
    pub deleted: u64,
    /// What the broker said that cannot be, a sentence each.
    pub wrong: Vec<String>,
}

impl Topics {
    /// The names in use.
    pub fn names() -> [&'static str; NAMES.len()] {
        NAMES
    }

    fn on_creation(&mut self, name: &'static str, answer: Option<ErrorCode>) {
        let slot = self.slots.entry(name).or_default();
        *slot = Slot {
            life: slot.life + 1,
            ..Slot::default()
        };
        match answer {
            Some(ErrorCode::None) => {
                slot.state = State::There;
                self.made += 1;
            }
            Some(ErrorCode::TopicAlreadyExists) => {
                self.wrong.push(format!(
                    "{name}: its deletion was answered, and it is there"
                ));
            }
            _ => slot.state = State::Unknown,
        }
    }

    fn on_deletion(&mut self, name: &'static str, answer: Option<ErrorCode>) {
        let slot = self.slots.entry(name).or_default();
        match answer {
            Some(ErrorCode::None) => {
                slot.state = State::Gone;
                self.deleted += 1;
            }
            Some(ErrorCode::UnknownTopicOrPartition) => {
                self.wrong.push(format!(
                    "{name}: its creation was answered, and it is not there"
                ));
            }
            _ => slot.state = State::Unknown,
        }
    }

    /// Compares with what is there: the records of the topic in their order, `None` if there is
    /// none. Gives the number of acknowledged records that are not there.
    pub fn check(&mut self, name: &'static str, found: Option<&[Mark]>) -> u64 {
        let slot = self.slots.entry(name).or_default();
        let Some(records) = found else {
            if slot.state == State::There {
                let why = "its creation was answered, and it is not there";
                self.wrong.push(format!("{name}: {why}"));
            }
            slot.state = State::Gone;
            return 0;
        };
        if slot.state == State::Gone {
            self.wrong.push(format!(
                "{name}: its deletion was answered, and it is there"
            ));
        }
        slot.state = State::There;
        let older = records.iter().find(|(life, _)| *life != slot.life);
        if let Some((life, number)) = older {
            let now = slot.life;
            self.wrong.push(format!(
                "{name}: record {life}:{number} is in its life {now}"
            ));
        }
        let numbers: BTreeSet<u64> = records.iter().map(|(_, number)| *number).collect();
        slot.acknowledged.difference(&numbers).count() as u64
    }
}

/// The bytes of a record, and back.
fn value((life, number): Mark) -> String {
    format!("{life}:{number}")
}

/// The record with this value.
pub fn mark_of_value(value: &[u8]) -> Option<Mark> {
    let (life, number) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((life.parse().ok()?, number.parse().ok()?))
}

/// The client.
pub struct Turnover {
    client: Client<Tcp>,
    topics: SharedTopics,
    prng: Prng,
}

impl Turnover {
    /// It does nothing before [`Turnover::run`].
    pub fn new(client: Client<Tcp>, topics: SharedTopics, prng: Prng) -> Self {
        Self {
            client,
            topics,
            prng,
        }
    }

    /// Takes step after step while it may.
    pub async fn run(mut self, mut sending: watch::Receiver<bool>) {
        while sending.wait_for(|may| *may).await.is_ok() {
            let topics = Rc::clone(&self.topics);
            let mut topics = topics.lock().await;
            let name = NAMES[self.prng.below(NAMES.len() as u64) as usize];
            let state = topics.slots.entry(name).or_default().state;
            match state {
                State::Gone => topics.on_creation(name, self.create(name).await),
                State::There if self.prng.percent(DELETE_PERCENT) => {
                    topics.on_deletion(name, self.delete(name).await);
                }
                State::There => self.write(name, &mut topics).await,
                State::Unknown => {}
            }
            drop(topics);
            let us = self.prng.below(PAUSE_US_MAX);
            tokio::time::sleep(Duration::from_micros(us)).await;
        }
    }

    async fn create(&self, name: &str) -> Option<ErrorCode> {
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: 1,
            replication_factor: -1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 10_000,
            ..CreateTopicsRequest::default()
        };
        let answer = self.client.send(Node::Controller, request).await.ok()?;
        answer.topics.first().map(|topic| topic.error_code)
    }

    async fn delete(&self, name: &str) -> Option<ErrorCode> {
        let request = DeleteTopicsRequest {
            topic_names: vec![name.to_owned()],
            timeout_ms: 10_000,
            ..DeleteTopicsRequest::default()
        };
        let (node, version) = (Node::Controller, DELETE_VERSION);
        let answer = self
            .client
            .send_within(node, request, version, PATIENCE)
            .await;
        answer.ok()?.responses.first().map(|topic| topic.error_code)
    }

    /// Writes one record, once: whatever becomes of it is known, or promises nothing.
    async fn write(&self, name: &'static str, topics: &mut Topics) {
        let slot = topics.slots.entry(name).or_default();
        slot.written += 1;
        let number = slot.written;
        let mut batch = Builder::new(Codec::None);
        let text = value((slot.life, number));
        batch.append(clock::now().wall_ms, None, Some(text.as_bytes()), &[]);
        let data = PartitionProduceData {
            index: 0,
            records: Some(batch.build()),
        };
        let topic = TopicProduceData {
            name: name.into(),
            partition_data: vec![data].into(),
            ..TopicProduceData::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![topic].into(),
            ..ProduceRequest::default()
        };
        let (node, version) = (Node::Any, PRODUCE_VERSION);
        let answer = self
            .client
            .send_within(node, request, version, PATIENCE)
            .await;
        let stored = answer.is_ok_and(|answer| {
            let partitions = answer.responses.iter().flat_map(|t| &t.partition_responses);
            let mut partitions = partitions.map(|partition| partition.error_code);
            partitions.next() == Some(ErrorCode::None)
        });
        if stored {
            slot.acknowledged.insert(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A topic in its second life, with two acknowledged records of three.
    fn second_life() -> Topics {
        let mut topics = Topics::default();
        let done = Some(ErrorCode::None);
        topics.on_creation("spring", done);
        topics.on_deletion("spring", done);
        topics.on_creation("spring", done);
        let slot = topics.slots.get_mut("spring").unwrap();
        slot.acknowledged.extend([1, 3]);
        topics
    }

    #[test]
    fn a_topic_holds_its_own_life_and_all_of_it() {
        let mut topics = second_life();
        assert_eq!(topics.check("spring", Some(&[(2, 1), (2, 2), (2, 3)])), 0);
        assert_eq!(topics.check("spring", Some(&[(2, 2), (2, 3)])), 1);
        assert_eq!(topics.wrong, [""; 0]);
        topics.check("spring", Some(&[(1, 1), (2, 1), (2, 3)]));
        assert_eq!(topics.wrong.len(), 1);
        assert_eq!((topics.made, topics.deleted), (2, 1));
    }

    #[test]
    fn what_was_answered_holds_and_nothing_else_does() {
        let mut topics = second_life();
        topics.check("spring", None);
        assert_eq!(topics.wrong.len(), 1, "it was made");
        let mut topics = second_life();
        topics.on_deletion("spring", None);
        assert_eq!(topics.check("spring", None), 0);
        assert_eq!(topics.check("spring", None), 0);
        assert_eq!(topics.wrong, [""; 0], "its deletion may have come about");
        topics.check("spring", Some(&[]));
        assert_eq!(topics.wrong.len(), 1, "but then it stays away");
        let mut topics = Topics::default();
        topics.on_creation("summer", None);
        topics.check("summer", Some(&[]));
        assert_eq!(topics.wrong, [""; 0]);
        topics.on_deletion("summer", Some(ErrorCode::UnknownTopicOrPartition));
        topics.on_creation("summer", Some(ErrorCode::TopicAlreadyExists));
        assert_eq!(topics.wrong.len(), 2);
    }

    #[test]
    fn values_tell_their_record() {
        assert_eq!(mark_of_value(value((3, 7)).as_bytes()), Some((3, 7)));
        assert_eq!(mark_of_value(b"other"), None);
    }
}
