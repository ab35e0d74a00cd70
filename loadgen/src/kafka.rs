//! The broker as the sale needs it, through forebay's own Kafka client: the topic, the producers
//! and the members of the group. Works against any Kafka-compatible broker.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay::client::producer::ProducerRecord;
use forebay::client::{
    AutoOffsetReset, Client, ClientError, ClientOptions, Consumer, ConsumerError, ConsumerOptions,
    Event, Node, Producer, ProducerOptions, Subscription, TopicPartition,
};
use forebay::wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use forebay::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use forebay::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use crate::orders::Planned;
use crate::ports::{Feed, FeedEvent, Publisher, Record};
use crate::transport::Transport;

/// Producers share the partitions; the order of a key needs all of its orders on one.
const PRODUCERS: usize = 2;
/// Unsent and unacknowledged orders of one producer: half a minute of the sale, so that a broker
/// may be away for a while without an order being turned away.
const PRODUCER_BYTES_MAX: usize = 256 << 20;
/// What a member fetches ahead of what the buffer has room for, in all and of one partition.
const FETCH_BYTES_MAX: usize = 256 << 10;
const PARTITION_FETCH_BYTES_MAX: usize = 128 << 10;
/// Members learn from the answer to a heartbeat that another one joins: the group forms sooner if
/// they ask more often than Kafka's default of 3 s.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
/// And a resumed sale waits less long for the members of the one that was killed.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// The special timestamp for the end of a log.
const LATEST: i64 = -1;
/// A new topic has leaders after this long, or never.
const LEADERS_WITHIN: Duration = Duration::from_secs(30);

/// A connected cluster and the topic of the sale.
pub struct Kafka {
    client: Client<Transport>,
    topic: String,
}

impl Kafka {
    /// Connects; `topic` need not exist yet.
    ///
    /// # Errors
    /// If no broker answers at `bootstrap`, in one sentence with the address.
    pub async fn connect(
        transport: Transport,
        bootstrap: &str,
        topic: &str,
    ) -> Result<Self, Failure> {
        let options = ClientOptions {
            client_id: "loadgen".to_owned(),
            allow_auto_topic_creation: false,
            ..ClientOptions::default()
        };
        let client = Client::connect(transport, bootstrap, options)
            .await
            .map_err(broker)?;
        Ok(Self {
            client,
            topic: topic.to_owned(),
        })
    }

    /// Creates the topic and waits until all its partitions have leaders.
    ///
    /// # Errors
    /// If the cluster refuses, or no leaders come about.
    pub async fn create_topic(&self, partitions: usize) -> Result<(), Failure> {
        let topic = CreatableTopic {
            name: self.topic.clone(),
            num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            replication_factor: -1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let response = self
            .client
            .send(Node::Controller, request)
            .await
            .map_err(broker)?;
        for topic in response.topics {
            if topic.error_code.is_error() {
                let message = topic.error_message.unwrap_or_default();
                return Err(Failure::Broker(format!(
                    "the broker does not create the topic {}: {} {message}",
                    self.topic, topic.error_code
                )));
            }
        }
        let deadline = Instant::now() + LEADERS_WITHIN;
        while !self.has_leaders(partitions).await? {
            if Instant::now() > deadline {
                return Err(Failure::Broker(format!(
                    "the topic {} got no leaders within {LEADERS_WITHIN:?}",
                    self.topic
                )));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn has_leaders(&self, partitions: usize) -> Result<bool, Failure> {
        let topics = self
            .client
            .refresh_metadata(std::slice::from_ref(&self.topic))
            .await;
        Ok(topics.map_err(broker)?.first().is_some_and(|topic| {
            topic.partitions.len() == partitions
                && topic
                    .partitions
                    .iter()
                    .all(|partition| partition.leader.is_some())
        }))
    }

    /// Deletes the topic.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub async fn delete_topic(&self) -> Result<(), Failure> {
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: Some(self.topic.clone()),
                ..DeleteTopicState::default()
            }],
            topic_names: vec![self.topic.clone()],
            timeout_ms: 10_000,
        };
        let response = self
            .client
            .send(Node::Controller, request)
            .await
            .map_err(broker)?;
        match response
            .responses
            .iter()
            .find(|topic| topic.error_code.is_error())
        {
            Some(refused) => Err(Failure::Broker(format!(
                "the broker does not delete the topic {}: {}",
                self.topic, refused.error_code
            ))),
            None => Ok(()),
        }
    }

    /// The end of each partition's log: in a topic that only this sale writes to, the orders it
    /// holds.
    ///
    /// # Errors
    /// If the topic is gone or a partition has no leader.
    pub async fn logged(&self) -> Result<BTreeMap<i32, u64>, Failure> {
        let topics = self
            .client
            .refresh_metadata(std::slice::from_ref(&self.topic))
            .await;
        let topics = topics.map_err(broker)?;
        let partitions = topics.first().map_or(&[][..], |topic| &topic.partitions);
        let mut logged = BTreeMap::new();
        for partition in partitions {
            let Some(leader) = partition.leader else {
                return Err(self.unusable(partition.partition, "has no leader"));
            };
            let asked = ListOffsetsPartition {
                partition_index: partition.partition,
                timestamp: LATEST,
                ..ListOffsetsPartition::default()
            };
            let topic = ListOffsetsTopic {
                name: self.topic.clone(),
                partitions: vec![asked],
            };
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![topic],
                ..Default::default()
            };
            let response = self
                .client
                .send(Node::Id(leader), request)
                .await
                .map_err(broker)?;
            let answer = response
                .topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .next();
            let offset = match answer {
                Some(answer) if !answer.error_code.is_error() => answer.offset,
                Some(answer) => {
                    let why = format!("does not tell its end: {}", answer.error_code);
                    return Err(self.unusable(partition.partition, &why));
                }
                None => return Err(self.unusable(partition.partition, "does not tell its end")),
            };
            logged.insert(partition.partition, u64::try_from(offset).unwrap_or(0));
        }
        Ok(logged)
    }

    fn unusable(&self, partition: i32, why: &str) -> Failure {
        Failure::Broker(format!(
            "partition {partition} of the topic {} {why}",
            self.topic
        ))
    }

    /// Producers for all partitions.
    ///
    /// # Errors
    /// If the cluster gives out no producer ids.
    pub async fn publisher(&self, partitions: usize) -> Result<KafkaPublisher, Failure> {
        let mut producers = Vec::new();
        for _ in 0..PRODUCERS.min(partitions) {
            // acks=all and idempotent are the defaults.
            let options = ProducerOptions {
                buffer_bytes_max: PRODUCER_BYTES_MAX,
                ..ProducerOptions::default()
            };
            let producer = Producer::new(&self.client, options).await;
            producers.push(producer.map_err(|error| Failure::Broker(error.to_string()))?);
        }
        Ok(KafkaPublisher {
            topic: self.topic.clone(),
            producers,
        })
    }

    /// A new member of `group`.
    ///
    /// # Errors
    /// If the client refuses the settings.
    pub async fn feed(&self, group: &str, records_max: usize) -> Result<KafkaFeed, Failure> {
        let options = ConsumerOptions {
            group: Some(group.to_owned()),
            auto_offset_reset: AutoOffsetReset::Earliest,
            fetch_bytes_max: FETCH_BYTES_MAX,
            partition_fetch_bytes_max: PARTITION_FETCH_BYTES_MAX,
            records_max,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            session_timeout: SESSION_TIMEOUT,
            ..ConsumerOptions::new(Subscription::Topics(vec![self.topic.clone()]))
        };
        let consumer = Consumer::new(&self.client.with_own_connections(), options).await;
        let consumer = consumer.map_err(|error| Failure::Broker(error.to_string()))?;
        Ok(KafkaFeed {
            consumer,
            topic: self.topic.clone(),
            records_max,
        })
    }
}

/// In the client's own words.
pub(crate) fn broker(error: ClientError) -> Failure {
    Failure::Broker(error.to_string())
}

/// Idempotent producers that share the partitions of the topic.
pub struct KafkaPublisher {
    topic: String,
    producers: Vec<Producer<Transport>>,
}

impl Publisher for KafkaPublisher {
    fn send(&self, order: Planned) -> impl Future<Output = Result<(), String>> + use<> + 'static {
        let producer = usize::try_from(order.partition).unwrap_or(0) % self.producers.len();
        let record = ProducerRecord {
            key: Some(order.key),
            value: Some(order.value),
            ..ProducerRecord::default()
        };
        let sent = self.producers[producer].send(&self.topic, Some(order.partition), record);
        async move { sent.await.map(|_| ()).map_err(|error| error.to_string()) }
    }
}

/// One member of the group.
pub struct KafkaFeed {
    consumer: Consumer<Transport>,
    topic: String,
    records_max: usize,
}

impl KafkaFeed {
    fn name(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(&self.topic, partition)
    }
}

impl Feed for KafkaFeed {
    fn records_max(&self) -> usize {
        self.records_max
    }

    async fn next(&mut self) -> Result<FeedEvent, Failure> {
        let numbers = |partitions: Vec<TopicPartition>| {
            partitions.into_iter().map(|each| each.partition).collect()
        };
        loop {
            match self.consumer.next().await {
                Ok(Event::Records {
                    partition, records, ..
                }) => {
                    let records = records.into_iter().map(|record| Record {
                        offset: record.offset,
                        key: record.key.unwrap_or_default(),
                        value: record.value.unwrap_or_default(),
                    });
                    return Ok(FeedEvent::Records {
                        partition,
                        records: records.collect(),
                    });
                }
                Ok(Event::Assigned(partitions)) => {
                    return Ok(FeedEvent::Assigned(numbers(partitions)));
                }
                Ok(Event::Revoked(partitions)) => {
                    return Ok(FeedEvent::Revoked(numbers(partitions)));
                }
                // A broker that is away comes back, or the sale's patience ends.
                Err(ConsumerError::Client(error)) if error.is_retriable() => {
                    tracing::warn!(%error, "the group member goes on");
                }
                Err(error) => return Err(Failure::Broker(error.to_string())),
            }
        }
    }

    fn pause(&mut self, partition: i32) {
        self.consumer.pause(&[self.name(partition)]);
    }

    fn resume(&mut self, partition: i32) {
        self.consumer.resume(&[self.name(partition)]);
    }

    fn seek(&mut self, partition: i32, offset: i64) {
        if let Err(error) = self.consumer.seek(&self.name(partition), offset) {
            // It was assigned a moment ago: the next event says that it was taken away again.
            tracing::warn!(%error, "the partition is gone already");
        }
    }

    async fn commit(&mut self, offsets: &[(i32, i64)]) -> Result<(), String> {
        let offsets: Vec<_> = offsets
            .iter()
            .map(|(each, offset)| (self.name(*each), *offset, None))
            .collect();
        self.consumer
            .commit(&offsets)
            .await
            .map_err(|error| error.to_string())
    }

    async fn close(self) {
        if let Err(error) = self.consumer.close().await {
            tracing::debug!(%error, "the member did not leave in form");
        }
    }
}
