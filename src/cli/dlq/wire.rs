//! The topics of a dead letter topic on a real cluster: its journal, and those that its letters go
//! to.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::{self, Journal, Note, encode};
use super::lock::{Lock, SESSION_TIMEOUT};
use super::reading::{Reader, offset_of, partitions_of};
use super::work::{Addressed, Found, Sent, Topics};
use crate::base::{ErrorCode, Offset};
use crate::catalog::check_topic_name;
use crate::cli::output::Failure;
use crate::cli::topic::settings;
use crate::client::dead_letter::{ORIGIN, Place, last};
use crate::client::error::check;
use crate::client::{
    Client, ClientError, EARLIEST, Isolation, LATEST, Node, Producer, ProducerOptions,
    ProducerRecord, Start, Tcp, TopicPartition,
};
use crate::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};

const CLEANUP_POLICY: &str = "cleanup.policy";
/// How long a broker may take to create the journal.
const CREATE_TIMEOUT_MS: i32 = 30_000;
/// Largest record that is sent; the broker's own limit is usually lower.
const RECORD_BYTES_MAX: usize = 100 << 20;
const BUFFER_BYTES_MAX: usize = 128 << 20;

/// The topics, read and written.
pub(super) struct Wire {
    client: Client<Tcp>,
    journal: TopicPartition,
    /// `None` where nothing is written.
    writing: Option<Writing>,
    /// What was asked of the topics that letters go to.
    partitions: BTreeMap<String, Result<i32, String>>,
}

struct Writing {
    lock: Lock,
    producer: Producer<Tcp>,
}

impl Wire {
    /// Gets ready to read only: nothing is written, created or locked.
    pub fn reading(client: &Client<Tcp>, letters: &str) -> Self {
        Self {
            client: client.clone(),
            journal: TopicPartition::new(&journal::topic_of(letters), 0),
            writing: None,
            partitions: BTreeMap::new(),
        }
    }

    /// Gets ready to write: creates the journal and waits for the right to write it.
    pub async fn writing(client: &Client<Tcp>, letters: &str) -> Result<Self, Failure> {
        let options = ProducerOptions {
            request_bytes_max: RECORD_BYTES_MAX,
            buffer_bytes_max: BUFFER_BYTES_MAX,
            // Nothing is sent again when somebody else may be at work.
            delivery_timeout: SESSION_TIMEOUT * 4 / 5,
            ..ProducerOptions::default()
        };
        let producer = Producer::new(client, options).await?;
        create(client, &journal::topic_of(letters)).await?;
        let lock = Lock::take(client, letters).await?;
        Ok(Self {
            writing: Some(Writing { lock, producer }),
            ..Self::reading(client, letters)
        })
    }

    /// Gives up the right to write.
    pub async fn close(self) {
        if let Some(writing) = self.writing {
            writing.lock.release().await;
        }
    }

    /// Sends records if we still have the right to.
    async fn produce(&self, records: Vec<Addressed>) -> Result<Vec<Sent>, Failure> {
        let writing = self.writing.as_ref();
        let Writing { lock, producer } = writing.expect("who only reads sends nothing");
        lock.check().await?;
        let mut answers = Vec::new();
        for (target, record) in records {
            producer.ready(record.size_bytes()).await;
            let partition = Some(target.partition);
            answers.push(producer.send(&target.topic, partition, record));
        }
        producer.flush().await;
        let mut sent = Vec::new();
        for answer in answers {
            sent.push(answer.await.map(|delivery| delivery.offset));
        }
        Ok(sent)
    }
}

impl Topics for Wire {
    async fn note(&mut self, notes: &[Note]) -> Result<(), Failure> {
        let records = notes.iter().map(|note| {
            let (key, value) = encode(note);
            let record = ProducerRecord {
                key: Some(key),
                value,
                ..ProducerRecord::default()
            };
            (self.journal.clone(), record)
        });
        for sent in self.produce(records.collect()).await? {
            sent?;
        }
        Ok(())
    }

    async fn partitions(&mut self, topic: &str) -> Result<Result<i32, String>, Failure> {
        if let Some(known) = self.partitions.get(topic) {
            return Ok(known.clone());
        }
        let wrong = |what: &str| {
            Err(format!(
                "go to topic {topic:?}, {what}, or name another one with --to"
            ))
        };
        let found = match check_topic_name(topic) {
            Err(_) => wrong("which is no name of a topic: skip them"),
            Ok(()) => match partitions_of(&self.client, topic).await {
                Ok(Some(count)) => Ok(count),
                Ok(None) => wrong("which does not exist: create it"),
                Err(ClientError::Broker { code, .. }) => {
                    wrong(&format!("which cannot be used ({code}): mend that"))
                }
                Err(error) => return Err(error.into()),
            },
        };
        self.partitions.insert(topic.to_owned(), found.clone());
        Ok(found)
    }

    async fn end(&mut self, partition: &TopicPartition) -> Result<Offset, Failure> {
        Ok(offset_of(&self.client, partition, LATEST).await?)
    }

    async fn find(
        &mut self,
        partition: &TopicPartition,
        from: Offset,
        origins: &BTreeSet<Place>,
    ) -> Result<Found, Failure> {
        let mut found = Found {
            first: Offset::MAX,
            at: BTreeMap::new(),
        };
        let count = partitions_of(&self.client, &partition.topic).await?;
        if count.is_none_or(|count| partition.partition >= count) {
            return Ok(found);
        }
        let starts = vec![(partition.clone(), Start::Offset(from))];
        // Other people's open transactions must not hide what we sent.
        let isolation = Isolation::ReadUncommitted;
        let mut reader = Reader::open(&self.client, starts, isolation).await?;
        while let Some((_, records)) = reader.next().await? {
            for record in records {
                let origin = last(&record.headers, ORIGIN);
                let origin = origin.and_then(|origin| str::from_utf8(origin).ok()?.parse().ok());
                if let Some(origin) = origin.filter(|origin| origins.contains(origin)) {
                    found.at.insert(origin, record.offset);
                }
            }
        }
        if !is_compacted(&self.client, &partition.topic).await {
            // Only now: what was deleted while we read may have been among what we looked for.
            found.first = offset_of(&self.client, partition, EARLIEST).await?;
        }
        Ok(found)
    }

    async fn send(&mut self, records: Vec<Addressed>) -> Result<Vec<Sent>, Failure> {
        self.produce(records).await
    }
}

/// Whether compaction may have removed records of a topic: not known is yes.
async fn is_compacted(client: &Client<Tcp>, topic: &str) -> bool {
    let settings = settings(client, topic, true).await.unwrap_or_default();
    let policy = settings.iter().find(|each| each.name == CLEANUP_POLICY);
    let policy = policy.and_then(|setting| setting.value.as_ref());
    policy.is_none_or(|policy| policy.contains("compact"))
}

/// Reads the journal of a dead letter topic; it is empty if there is none.
pub(super) async fn read_journal(client: &Client<Tcp>, letters: &str) -> Result<Journal, Failure> {
    let topic = journal::topic_of(letters);
    let mut journal = Journal::default();
    let Some(count) = partitions_of(client, &topic).await? else {
        return Ok(journal);
    };
    let partitions = (0..count).map(|index| (TopicPartition::new(&topic, index), Start::Earliest));
    let isolation = Isolation::ReadUncommitted;
    let mut reader = Reader::open(client, partitions.collect(), isolation).await?;
    while let Some((partition, records)) = reader.next().await? {
        for record in records {
            journal.read(&record).map_err(|reason| {
                Failure::Failed(format!(
                    "offset {} of {partition} {reason}: that topic is for the notes of `forebay \
                     dlq` only, move what else is there",
                    record.offset
                ))
            })?;
        }
    }
    Ok(journal)
}

/// Creates the journal, unless it is there, and waits until it is served.
async fn create(client: &Client<Tcp>, topic: &str) -> Result<(), Failure> {
    if partitions_of(client, topic).await?.is_some() {
        return Ok(());
    }
    let setting = |name: &str, value: &str| CreatableTopicConfig {
        name: name.to_owned(),
        value: Some(value.to_owned()),
    };
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: topic.to_owned(),
            num_partitions: 1,
            replication_factor: -1,
            // The last note of each origin is kept for ever.
            configs: vec![setting(CLEANUP_POLICY, "compact")],
            ..Default::default()
        }],
        timeout_ms: CREATE_TIMEOUT_MS,
        ..Default::default()
    };
    let subject = || format!("topic \"{topic}\"");
    for result in client.send(Node::Controller, request).await?.topics {
        if result.error_code != ErrorCode::TopicAlreadyExists {
            let message = result.error_message.as_deref();
            check("CreateTopics", subject, result.error_code, message)?;
        }
    }
    let served = client.retry(async || {
        let found = client.refresh_metadata(&[topic.to_owned()]).await?;
        let leader = found.first().and_then(|found| found.partition(0)?.leader);
        match leader {
            Some(_) => Ok(()),
            None => {
                let code = ErrorCode::LeaderNotAvailable;
                Err(ClientError::broker("CreateTopics", subject(), code))
            }
        }
    });
    Ok(served.await?)
}
