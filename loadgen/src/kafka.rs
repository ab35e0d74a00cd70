//! The broker as the sale needs it, through forebay's own Kafka client: the topic, the producers
//! and the members of the group. Works against any Kafka-compatible broker.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay::client::producer::ProducerRecord;
use forebay::client::{
    Assignor, AutoOffsetReset, Consumer, ConsumerError, ConsumerOptions, Event, Producer,
    ProducerOptions, Start, Subscription, TopicPartition,
};

use crate::cluster::Cluster;
use crate::dead_letter::{self, Letter};
use crate::earlier::{Earlier, Reading};
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
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// A connected cluster and the topic of the sale.
pub struct Kafka {
    cluster: Cluster,
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
        Ok(Self {
            cluster: Cluster::connect(transport, bootstrap).await?,
            topic: topic.to_owned(),
        })
    }

    /// Creates the topic, and its dead letter topic if there may be letters, and waits until all
    /// their partitions are served.
    ///
    /// # Errors
    /// If the cluster refuses, or no leaders come about.
    pub async fn create_topics(&self, partitions: usize, letters: bool) -> Result<(), Failure> {
        self.cluster.topic(&self.topic, partitions, &[]).await?;
        if letters {
            let topic = dead_letter::topic_of(&self.topic);
            self.cluster.topic(&topic, partitions, &[]).await?;
        }
        Ok(())
    }

    /// Deletes the topic.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub async fn delete_topic(&self) -> Result<(), Failure> {
        self.cluster.delete(&self.topic).await
    }

    /// What an earlier run has left, before a database that goes on at these offsets. Where there
    /// may be `letters`, everything is read; a log without them holds each order once.
    ///
    /// # Errors
    /// If a topic is gone, a partition has no leader, or a record is no order.
    pub async fn earlier(
        &self,
        letters: bool,
        next_offsets: &BTreeMap<i32, i64>,
    ) -> Result<Earlier, Failure> {
        if !letters {
            let partitions = self.cluster.existing(&self.topic).await?.partitions;
            let ends = partitions
                .iter()
                .map(|each| (each.index, u64::try_from(each.end).unwrap_or(0)));
            return Ok(Earlier {
                records: ends.collect(),
                ..Earlier::default()
            });
        }
        let mut reading = Reading::default();
        let order = |order_id, partition, offset| reading.order(order_id, partition, offset);
        self.read(&self.topic, order).await?;
        let letters = dead_letter::topic_of(&self.topic);
        let letter = |order_id, _, _| reading.letter(order_id);
        self.read(&letters, letter).await?;
        Ok(reading.end(next_offsets))
    }

    /// Calls `each` with the order, the partition and the offset of every record there is.
    async fn read(&self, topic: &str, mut each: impl FnMut(u64, i32, i64)) -> Result<(), Failure> {
        #[derive(serde::Deserialize)]
        struct Id {
            order_id: u64,
        }
        let failed = |error: ConsumerError| Failure::Reason(error.to_string());
        let partitions = self.cluster.existing(topic).await?.partitions;
        let filled = partitions.iter().filter(|each| each.end > each.start);
        let mut ends: BTreeMap<i32, i64> = filled.map(|each| (each.index, each.end)).collect();
        let all = ends
            .keys()
            .map(|index| (TopicPartition::new(topic, *index), Start::Earliest));
        let options = ConsumerOptions::new(Subscription::Partitions(all.collect()));
        let client = self.cluster.client().with_own_connections();
        let consumer = Consumer::new(&client, options).await.map_err(failed)?;
        while !ends.is_empty() {
            let event = consumer.next().await.map_err(failed)?;
            let Event::Records {
                partition, records, ..
            } = event
            else {
                continue;
            };
            for record in records {
                let id: Option<Id> = serde_json::from_slice(&record.value.unwrap_or_default()).ok();
                let Some(Id { order_id }) = id else {
                    return Err(Failure::Reason(format!(
                        "partition {partition} of the topic {topic} holds no order of the sale at \
                         offset {}",
                        record.offset
                    )));
                };
                each(order_id, partition, record.offset);
                if ends
                    .get(&partition)
                    .is_some_and(|end| record.offset + 1 >= *end)
                {
                    ends.remove(&partition);
                }
            }
        }
        Ok(())
    }

    /// Records in the dead letter topic.
    ///
    /// # Errors
    /// If the topic is gone or a partition has no leader.
    pub async fn dead_letters(&self) -> Result<u64, Failure> {
        let topic = self
            .cluster
            .existing(&dead_letter::topic_of(&self.topic))
            .await?;
        Ok(topic.records())
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
            let producer = Producer::new(self.cluster.client(), options).await;
            producers.push(producer.map_err(|error| Failure::Reason(error.to_string()))?);
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
            // Whoever joins or goes only moves its own share.
            assignor: Assignor::CooperativeSticky,
            ..ConsumerOptions::new(Subscription::Topics(vec![self.topic.clone()]))
        };
        let consumer = Consumer::new(&self.cluster.client().with_own_connections(), options).await;
        let consumer = consumer.map_err(|error| Failure::Reason(error.to_string()))?;
        Ok(KafkaFeed {
            consumer,
            topic: self.topic.clone(),
            records_max,
        })
    }
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

    fn bury(&self, letter: &Letter) -> impl Future<Output = Result<(), String>> + use<> + 'static {
        let record = ProducerRecord {
            key: Some(letter.key.clone()),
            value: Some(letter.value.clone()),
            headers: letter.headers(&self.topic),
            ..ProducerRecord::default()
        };
        let topic = dead_letter::topic_of(&self.topic);
        let sent = self.producers[0].send(&topic, Some(letter.partition), record);
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
                Err(error) => return Err(Failure::Reason(error.to_string())),
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
