//! The load of a soak: a producer per partition, a group whose members come and go, and topics that
//! are created, used and deleted. Whatever a client hears goes into the [`Ledger`]; none of them
//! gives up while the broker is away.

use super::ledger::Ledger;
use bytes::Bytes;
use forebay::base::ErrorCode;
use forebay::base::prng::Prng;
use forebay::client::{
    AutoOffsetReset, Client, ClientError, Consumer, ConsumerOptions, Event, Node, Producer,
    ProducerOptions, ProducerRecord, Start, Subscription, Tcp, TopicPartition,
};
use forebay::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use forebay::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// The topic with retention.
pub const TOPIC: &str = "orders";

/// Its partitions.
pub const PARTITIONS: i32 = 4;

/// What retention leaves of each partition, in bytes; far more than the group ever lags behind.
const RETENTION_BYTES: u64 = 8 << 20;

/// The group.
const GROUP: &str = "warehouse";

/// Members at one time.
const MEMBERS: u64 = 3;

/// How long a member stays, at most.
const MEMBER_MS_MAX: u64 = 20_000;

/// Kafka's shortest session: a member that leaves without a word is noticed after it.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// Bytes of a record.
const RECORD_BYTES: usize = 512;

/// How often a producer sends.
const SEND_INTERVAL: Duration = Duration::from_millis(10);

/// Records of one producer without an outcome; it waits then.
const OUTSTANDING_MAX: u64 = 20_000;

/// A record has its outcome after so long: far longer than a restart takes.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// Records in each topic that is created and deleted.
const CHURN_RECORDS: usize = 20;

/// What the parts of a soak share.
pub struct Shared {
    /// The cluster.
    pub client: Client<Tcp>,
    /// What was promised.
    pub ledger: RefCell<Ledger>,
    /// Latencies of this minute, in microseconds.
    pub latencies: RefCell<Histogram<u64>>,
    /// Changes whenever the broker goes or has settled again: what spans a change is not judged by
    /// its latency.
    pub epoch: Cell<u64>,
    /// Nothing new is begun.
    pub ending: Cell<bool>,
    /// Rounds of rebalancing.
    pub rebalances: Cell<u64>,
    /// Topics created, used and deleted.
    pub topics: Cell<u64>,
}

/// Creates the topic with retention.
///
/// # Errors
/// The broker refuses.
pub async fn create_topic(client: &Client<Tcp>) -> Result<(), ClientError> {
    let setting = |name: &str, value: String| CreatableTopicConfig {
        name: name.to_owned(),
        value: Some(value),
    };
    let topic = CreatableTopic {
        name: TOPIC.to_owned(),
        num_partitions: PARTITIONS,
        replication_factor: -1,
        configs: vec![
            setting("segment.bytes", (1 << 20).to_string()),
            setting("retention.bytes", RETENTION_BYTES.to_string()),
        ],
        ..Default::default()
    };
    create(client, topic).await
}

/// Starts everybody. They end by themselves once `ending` is set, but for the group, which goes on
/// reading.
pub fn begin(shared: &Rc<Shared>, records_per_s: u64, seed: u64) {
    let mut prng = Prng::new(seed);
    for partition in 0..PARTITIONS {
        let per_s = records_per_s / PARTITIONS as u64;
        spawn_local(produce(Rc::clone(shared), partition, per_s));
    }
    for _ in 0..MEMBERS {
        spawn_local(keep_member(Rc::clone(shared), prng.next_u64()));
    }
    spawn_local(churn(Rc::clone(shared)));
}

/// Where the partitions begin, all together: what retention has deleted.
pub async fn deleted(client: &Client<Tcp>) -> Option<u64> {
    let asked = partitions()
        .into_iter()
        .map(|at| (at, forebay::client::EARLIEST));
    let asked: Vec<_> = asked.collect();
    let isolation = forebay::client::Isolation::ReadUncommitted;
    let starts = client.retry(async || client.list_offsets(&asked, isolation).await);
    let starts = starts.await.ok()?;
    let starts = starts.into_values().collect::<Result<Vec<_>, _>>().ok()?;
    Some(starts.iter().map(|start| start.unsigned_abs()).sum())
}

/// Sends numbered records to one partition.
async fn produce(shared: Rc<Shared>, partition: i32, records_per_s: u64) {
    let options = ProducerOptions {
        delivery_timeout: DELIVERY_TIMEOUT,
        ..ProducerOptions::default()
    };
    let producer = match Producer::new(&shared.client, options).await {
        Ok(producer) => producer,
        Err(error) => return shared.fault(format!("no producer: {error}")),
    };
    let mut ticks = interval(SEND_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let outstanding = Rc::new(Cell::new(0));
    let (mut number, mut due) = (0, 0.0);
    while !shared.ending.get() {
        ticks.tick().await;
        due += records_per_s as f64 * SEND_INTERVAL.as_secs_f64();
        while due >= 1.0 {
            due -= 1.0;
            if outstanding.get() >= OUTSTANDING_MAX {
                continue;
            }
            number += 1;
            let record = ProducerRecord {
                value: Some(value(partition, number)),
                ..Default::default()
            };
            let (sent, epoch) = (Instant::now(), shared.epoch.get());
            let outcome = producer.send(TOPIC, Some(partition), record);
            let (shared, outstanding) = (Rc::clone(&shared), Rc::clone(&outstanding));
            outstanding.set(outstanding.get() + 1);
            spawn_local(async move {
                match outcome.await {
                    Ok(delivery) => {
                        let mut ledger = shared.ledger.borrow_mut();
                        ledger.on_acked(partition, delivery.offset, number);
                        if shared.epoch.get() == epoch {
                            let us = sent.elapsed().as_micros() as u64;
                            shared.latencies.borrow_mut().saturating_record(us);
                        }
                    }
                    Err(error) => shared.fault(format!("{partition}: {number} not sent: {error}")),
                }
                outstanding.set(outstanding.get() - 1);
            });
        }
    }
    producer.flush().await;
}

/// One seat of the group: a member after the other, for a few seconds each. Some leave, and some
/// are gone without a word.
async fn keep_member(shared: Rc<Shared>, seed: u64) {
    let mut prng = Prng::new(seed);
    loop {
        let options = ConsumerOptions {
            group: Some(GROUP.to_owned()),
            auto_offset_reset: AutoOffsetReset::Earliest,
            session_timeout: SESSION_TIMEOUT,
            heartbeat_interval: Duration::from_millis(500),
            ..ConsumerOptions::new(Subscription::Topics(vec![TOPIC.to_owned()]))
        };
        let consumer = match Consumer::new(&shared.client, options).await {
            Ok(consumer) => consumer,
            Err(error) => return shared.fault(format!("no member: {error}")),
        };
        let stay_ms = MEMBER_MS_MAX / 4 + prng.below(3 * MEMBER_MS_MAX / 4);
        // The last ones stay to the end.
        let over = || shared.ending.get();
        let until = Instant::now() + Duration::from_millis(stay_ms);
        while over() || Instant::now() < until {
            consume(&shared, &consumer, Duration::from_millis(500)).await;
        }
        shared
            .rebalances
            .set(shared.rebalances.get() + consumer.rebalances());
        if prng.percent(70) {
            let _ = timeout(SESSION_TIMEOUT, consumer.close()).await;
        }
    }
}

/// Reads for some time, then commits.
async fn consume(shared: &Shared, consumer: &Consumer<Tcp>, time: Duration) {
    let mut positions = BTreeMap::new();
    let until = Instant::now() + time;
    while let Ok(event) = tokio::time::timeout_at(until, consumer.next()).await {
        match event {
            Ok(Event::Records {
                partition, records, ..
            }) => {
                let mut ledger = shared.ledger.borrow_mut();
                for record in records {
                    let number = record.value.as_deref().and_then(|v| number(partition, v));
                    ledger.on_read(partition, record.offset, number);
                    positions.insert(partition, record.offset + 1);
                }
            }
            Ok(Event::Assigned(partitions)) => check_commits(shared, consumer, &partitions).await,
            Ok(Event::Revoked(_)) => positions.clear(),
            Err(error) => {
                // The broker is away; the client goes on by itself.
                tracing::debug!(%error, "a member goes on");
            }
        }
    }
    let offsets = positions.iter().map(|(partition, offset)| {
        let partition = TopicPartition::new(TOPIC, *partition);
        (partition, *offset, None)
    });
    let offsets: Vec<_> = offsets.collect();
    if !offsets.is_empty() && consumer.commit(&offsets).await.is_ok() {
        let mut ledger = shared.ledger.borrow_mut();
        for (partition, offset) in positions {
            ledger.on_committed(partition, offset);
        }
    }
}

/// What the group has committed is there.
async fn check_commits(shared: &Shared, consumer: &Consumer<Tcp>, partitions: &[TopicPartition]) {
    let promised: Vec<_> = partitions
        .iter()
        .map(|at| shared.ledger.borrow().committed(at.partition))
        .collect();
    if let Ok(found) = consumer.committed(partitions).await {
        for (at, promised) in partitions.iter().zip(promised) {
            let offset = found.get(at).map_or(0, |committed| committed.offset);
            let mut ledger = shared.ledger.borrow_mut();
            ledger.on_committed_read(at.partition, promised, offset);
        }
    }
}

/// Topics that come and go.
async fn churn(shared: Rc<Shared>) {
    let mut number = 0;
    while !shared.ending.get() {
        number += 1;
        let name = format!("visitor-{number}");
        let used = use_topic(&shared, &name).await;
        match used {
            Ok(()) => shared.topics.set(shared.topics.get() + 1),
            Err(what) => shared.fault(format!("{name}: {what}")),
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Creates a topic, fills it, reads it back and deletes it.
async fn use_topic(shared: &Shared, name: &str) -> Result<(), String> {
    let client = &shared.client;
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: 1,
        replication_factor: -1,
        ..Default::default()
    };
    create(client, topic)
        .await
        .map_err(|error| error.to_string())?;
    let options = ProducerOptions {
        delivery_timeout: DELIVERY_TIMEOUT,
        ..ProducerOptions::default()
    };
    let producer = Producer::new(client, options).await;
    let producer = producer.map_err(|error| error.to_string())?;
    let values: Vec<_> = (0..CHURN_RECORDS as u64)
        .map(|number| value(0, number))
        .collect();
    let sent = values.iter().map(|value| {
        let value = Some(value.clone());
        producer.send(
            name,
            Some(0),
            ProducerRecord {
                value,
                ..Default::default()
            },
        )
    });
    for outcome in sent.collect::<Vec<_>>() {
        outcome.await.map_err(|error| error.to_string())?;
    }
    let found = read_all(client, name, values.len()).await?;
    if found != values {
        return Err(format!(
            "{} records came back, not as they were sent",
            found.len()
        ));
    }
    delete(client, name)
        .await
        .map_err(|error| error.to_string())
}

async fn read_all(client: &Client<Tcp>, name: &str, count: usize) -> Result<Vec<Bytes>, String> {
    let from = (TopicPartition::new(name, 0), Start::Earliest);
    let options = ConsumerOptions::new(Subscription::Partitions(vec![from]));
    let consumer = Consumer::new(client, options).await;
    let consumer = consumer.map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    let reading = async {
        while found.len() < count {
            if let Ok(Event::Records { records, .. }) = consumer.next().await {
                found.extend(records.into_iter().filter_map(|record| record.value));
            }
        }
    };
    let _ = timeout(DELIVERY_TIMEOUT, reading).await;
    Ok(found)
}

/// Creates a topic, also if the broker goes away in the middle.
async fn create(client: &Client<Tcp>, topic: CreatableTopic) -> Result<(), ClientError> {
    let request = CreateTopicsRequest {
        topics: vec![topic],
        ..Default::default()
    };
    let name = request.topics[0].name.clone();
    patiently(client, &name, async || {
        let response = client.send(Node::Controller, request.clone()).await?;
        let result = response.topics.first();
        Ok(result.map_or(ErrorCode::UnknownServerError, |topic| topic.error_code))
    })
    .await
}

/// Deletes a topic, also if the broker goes away in the middle.
async fn delete(client: &Client<Tcp>, name: &str) -> Result<(), ClientError> {
    let request = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some(name.to_owned()),
            ..Default::default()
        }],
        topic_names: vec![name.to_owned()],
        timeout_ms: 10_000,
    };
    patiently(client, name, async || {
        let response = client.send(Node::Controller, request.clone()).await?;
        let result = response.responses.first();
        Ok(result.map_or(ErrorCode::UnknownServerError, |topic| topic.error_code))
    })
    .await
}

/// Repeats a change until it is made. One that was made although its answer was lost is answered
/// differently then.
async fn patiently(
    client: &Client<Tcp>,
    subject: &str,
    mut change: impl AsyncFnMut() -> Result<ErrorCode, ClientError>,
) -> Result<(), ClientError> {
    client
        .retry(async || match change().await? {
            ErrorCode::None
            | ErrorCode::TopicAlreadyExists
            | ErrorCode::UnknownTopicOrPartition => Ok(()),
            code => Err(ClientError::Broker {
                api: "CreateTopics or DeleteTopics",
                subject: subject.to_owned(),
                code,
                message: None,
            }),
        })
        .await
}

impl Shared {
    fn fault(&self, what: String) {
        self.ledger.borrow_mut().fault(what);
    }
}

fn partitions() -> Vec<TopicPartition> {
    let at = |partition| TopicPartition::new(TOPIC, partition);
    (0..PARTITIONS).map(at).collect()
}

/// The value of a record: partition and number, and bytes that no other record has.
fn value(partition: i32, number: u64) -> Bytes {
    let mut prng = Prng::new((u64::from(partition.unsigned_abs()) << 48) ^ number);
    let mut value = number.to_be_bytes().to_vec();
    while value.len() < RECORD_BYTES {
        value.extend(prng.next_u64().to_be_bytes());
    }
    value.into()
}

/// The number of a record, if it has the contents that belong to it.
fn number(partition: i32, found: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(*found.first_chunk()?);
    (value(partition, number) == found).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_its_contents() {
        let good = value(1, 77);
        assert_eq!(number(1, &good), Some(77));
        assert_eq!(number(2, &good), None, "of another partition");
        for position in [0, 8, 300, good.len() - 1] {
            let mut damaged = good.to_vec();
            damaged[position] ^= 1;
            assert_eq!(number(1, &damaged), None, "byte {position}");
        }
        assert_eq!(number(1, &good[..good.len() - 1]), None);
    }
}
