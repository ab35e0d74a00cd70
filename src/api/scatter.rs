//! Requests that ask something of partitions, topic by topic: each question goes to the owner of
//! its partition, and each answer to the place of its question. What is asked, and what the
//! answers mean, is left to the APIs.
//!
//! Invariant: every question is answered once, a partition that is named again with
//! INVALID_REQUEST, because each look may cost much.

use super::job::{Job, Jobs};
use super::{Begun, Facts, Flow};
use crate::base::{ErrorCode, PartitionKey};
use crate::state::ShardState;
use std::collections::BTreeSet;

/// Answers of kind `A` by topic and partition, in the sequence of the questions.
#[derive(Debug)]
pub struct Scatter<A> {
    topics: Vec<(String, Vec<A>)>,
    /// Topic and partition of each job.
    places: Vec<(usize, usize)>,
}

impl<A> Scatter<A> {
    /// Asks the owner of each partition for what `job` says, as part of `flow`. `index` tells the
    /// partition of a question `Q`, and `refused` what is answered where nobody is asked.
    pub fn begin<Q>(
        state: &mut ShardState,
        facts: &Facts,
        asked: impl Iterator<Item = (String, Vec<Q>)>,
        index: impl Fn(&Q) -> i32,
        refused: impl Fn(i32, ErrorCode) -> A,
        job: impl Fn(PartitionKey, Q) -> Job,
        flow: impl FnOnce(Self) -> Flow,
    ) -> Begun {
        let (mut topics, mut places) = (Vec::new(), Vec::new());
        let (mut jobs, mut seen) = (Jobs::new(), BTreeSet::new());
        for (name, questions) in asked {
            let topic = state.image.topic(&name);
            let mut answers = Vec::with_capacity(questions.len());
            for question in questions {
                let partition = index(&question);
                let key = topic.and_then(|topic| state.partition_key(topic, partition));
                let code = match key {
                    None => ErrorCode::UnknownTopicOrPartition,
                    Some(key) if !seen.insert(key) => ErrorCode::InvalidRequest,
                    Some(key) => {
                        places.push((topics.len(), answers.len()));
                        jobs.push((state.owner(key), job(key, question)));
                        ErrorCode::None
                    }
                };
                answers.push(refused(partition, code));
            }
            topics.push((name, answers));
        }
        let flow = flow(Self { topics, places });
        match jobs.is_empty() {
            true => flow.resume(state, facts),
            false => Begun::Gather(jobs, flow),
        }
    }

    /// Takes the answer of the job at `slot`.
    pub fn put(&mut self, slot: usize, answer: A) {
        let (topic, partition) = self.places[slot];
        self.topics[topic].1[partition] = answer;
    }

    /// All answers, as the response has them.
    pub fn into_topics<T>(self, topic: impl Fn((String, Vec<A>)) -> T) -> Vec<T> {
        self.topics.into_iter().map(topic).collect()
    }
}
