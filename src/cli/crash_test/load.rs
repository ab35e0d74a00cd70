//! The load: producers that go on sending over every crash, and a consumer group that commits what
//! it was given. Whatever a client hears goes into the [`Ledger`].
//!
//! Two producers live as long as the run, so that what they resend after a crash must be known to
//! the new process; a third one is renewed in every round, so that no producer id is given twice.
//! A fourth one sends with acks=1 to a topic of its own, for which power cuts are allowed to lose.
//! Besides, topics come and go; see [`super::topics`].

use super::ledger::{Ledger, RecordId};
use super::topics::{SharedTopics, Turnover};
use crate::base::prng::Prng;
use crate::batch::Codec;
use crate::cli::output::Failure;
use crate::client::{
    Acks, AutoOffsetReset, Client, Consumer, ConsumerError, ConsumerOptions, Event, ProduceError,
    Producer, ProducerOptions, ProducerRecord, Subscription, Tcp, TopicPartition,
};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// Topics whose records must survive everything, and their partitions.
pub const TOPICS: [(&str, i32); 2] = [("orders", 3), ("payments", 2)];

/// The topic of the producer with acks=1; one partition.
pub const RELAXED: &str = "relaxed";

/// The consumer group.
pub const GROUP: &str = "warehouse";

/// Members of the group.
const MEMBERS: usize = 2;

/// Records of one producer without an outcome.
const OUTSTANDING_MAX: u64 = 300;

/// Longest pause between two bursts of records, and the most records of a burst.
const PAUSE_US_MAX: u64 = 4000;
const BURST_MAX: u64 = 20;

/// A record has its outcome after so long: longer than restarts take.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(15);

/// What was promised, shared by all clients of a run.
pub type SharedLedger = Rc<RefCell<Ledger>>;

/// Every partition that must survive everything.
pub fn partitions() -> Vec<TopicPartition> {
    let of_topic = |(topic, count): &(&str, i32)| {
        let topic = (*topic).to_owned();
        (0..*count).map(move |partition| TopicPartition::new(&topic, partition))
    };
    TOPICS.iter().flat_map(of_topic).collect()
}

/// The running clients.
pub struct Load {
    client: Client<Tcp>,
    ledger: SharedLedger,
    /// Acknowledged records of the relaxed topic.
    pub relaxed: Rc<RefCell<BTreeSet<RecordId>>>,
    /// The topics that come and go.
    pub topics: SharedTopics,
    sending: watch::Sender<bool>,
    lanes: Vec<Lane>,
    prng: Prng,
    producers: u32,
    /// Members of the group, and who makes and deletes topics.
    _others: JoinSet<()>,
}

impl Load {
    /// Starts the clients; nothing is sent before [`Load::resume`].
    pub async fn start(
        client: Client<Tcp>,
        ledger: SharedLedger,
        seed: u64,
    ) -> Result<Self, Failure> {
        let (sending, topics) = (watch::Sender::new(false), SharedTopics::default());
        let mut prng = Prng::new(seed);
        let mut others = JoinSet::new();
        let turnover = Turnover::new(
            client.with_own_connections(),
            Rc::clone(&topics),
            Prng::new(prng.next_u64()),
        );
        others.spawn_local(turnover.run(sending.subscribe()));
        for _ in 0..MEMBERS {
            let (client, ledger) = (client.with_own_connections(), Rc::clone(&ledger));
            others.spawn_local(async move {
                loop {
                    follow(&client, &ledger).await;
                }
            });
        }
        let mut load = Self {
            client,
            ledger,
            relaxed: Rc::default(),
            topics,
            sending,
            lanes: Vec::new(),
            prng,
            producers: 0,
            _others: others,
        };
        load.add_lane(options(Codec::None), Record::Durable).await?;
        load.add_lane(options(Codec::Lz4), Record::Durable).await?;
        Ok(load)
    }

    /// Renews the producers of one round.
    pub async fn renew(&mut self) -> Result<(), Failure> {
        self.lanes.truncate(2);
        self.add_lane(options(Codec::None), Record::Durable).await?;
        let relaxed = ProducerOptions {
            acks: Acks::Leader,
            idempotent: false,
            ..options(Codec::None)
        };
        self.add_lane(relaxed, Record::Relaxed).await
    }

    async fn add_lane(&mut self, options: ProducerOptions, kind: Record) -> Result<(), Failure> {
        self.producers += 1;
        let lane = Rc::new(Sender {
            producer: Producer::new(&self.client, options).await?,
            number: self.producers,
            kind,
            ledger: Rc::clone(&self.ledger),
            relaxed: Rc::clone(&self.relaxed),
            outstanding: Cell::new(0),
            settled: Notify::new(),
        });
        let prng = Prng::new(self.prng.next_u64());
        let mut task = JoinSet::new();
        task.spawn_local(send(Rc::clone(&lane), self.sending.subscribe(), prng));
        self.lanes.push(Lane {
            sender: lane,
            _task: task,
        });
        Ok(())
    }

    /// Lets the producers send.
    pub fn resume(&self) {
        self.sending.send_replace(true);
    }

    /// Lets them send nothing new; what is under way goes on.
    pub fn pause(&self) {
        self.sending.send_replace(false);
    }

    /// Waits until every record sent has its outcome.
    pub async fn settled(&self) {
        for Lane { sender, .. } in &self.lanes {
            sender.producer.flush().await;
            loop {
                let settled = sender.settled.notified();
                if sender.outstanding.get() == 0 {
                    break;
                }
                settled.await;
            }
        }
    }
}

/// What records a producer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    /// Such that must survive everything.
    Durable,
    /// Such that a power cut may take.
    Relaxed,
}

/// A producer; its task ends with it.
struct Lane {
    sender: Rc<Sender>,
    _task: JoinSet<()>,
}

struct Sender {
    producer: Producer<Tcp>,
    number: u32,
    kind: Record,
    ledger: SharedLedger,
    relaxed: Rc<RefCell<BTreeSet<RecordId>>>,
    outstanding: Cell<u64>,
    settled: Notify,
}

fn options(compression: Codec) -> ProducerOptions {
    ProducerOptions {
        compression,
        linger: Duration::from_millis(1),
        delivery_timeout: DELIVERY_TIMEOUT,
        retry_backoff: Duration::from_millis(10),
        ..ProducerOptions::default()
    }
}

/// Sends bursts of records while it may.
async fn send(sender: Rc<Sender>, mut sending: watch::Receiver<bool>, mut prng: Prng) {
    let durable = partitions();
    let relaxed = [TopicPartition::new(RELAXED, 0)];
    let targets = match sender.kind {
        Record::Durable => &durable[..],
        Record::Relaxed => &relaxed[..],
    };
    let mut number = 0;
    while sending.wait_for(|may| *may).await.is_ok() {
        for _ in 0..=prng.below(BURST_MAX) {
            number += 1;
            let id = RecordId {
                producer: sender.number,
                number,
            };
            let target = &targets[prng.below(targets.len() as u64) as usize];
            sender.send(target.clone(), id);
        }
        while sender.outstanding.get() > OUTSTANDING_MAX {
            sender.settled.notified().await;
        }
        tokio::time::sleep(Duration::from_micros(prng.below(PAUSE_US_MAX))).await;
    }
}

impl Sender {
    /// Sends one record and writes down what becomes of it.
    fn send(self: &Rc<Self>, to: TopicPartition, id: RecordId) {
        let record = ProducerRecord {
            value: Some(Bytes::from(id.value())),
            ..ProducerRecord::default()
        };
        if self.kind == Record::Durable {
            self.ledger.borrow_mut().on_sent();
        }
        let outcome = self.producer.send(&to.topic, Some(to.partition), record);
        self.outstanding.set(self.outstanding.get() + 1);
        let sender = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let outcome = outcome.await;
            match sender.kind {
                Record::Durable => {
                    let mut ledger = sender.ledger.borrow_mut();
                    match outcome {
                        Ok(delivery) => ledger.on_acknowledged(&to, delivery.offset, id),
                        Err(ProduceError::TimedOut { .. } | ProduceError::Closed) => {
                            ledger.on_unknown();
                        }
                        Err(error) => ledger.on_refused(id, &error.to_string()),
                    }
                }
                Record::Relaxed => {
                    if outcome.is_ok() {
                        sender.relaxed.borrow_mut().insert(id);
                    }
                }
            }
            sender.outstanding.set(sender.outstanding.get() - 1);
            sender.settled.notify_waiters();
        });
    }
}

/// Reads as a member of the group and commits after every piece; returns when the membership must
/// be begun anew.
async fn follow(client: &Client<Tcp>, ledger: &SharedLedger) {
    let topics = TOPICS.iter().map(|(topic, _)| (*topic).to_owned());
    let options = ConsumerOptions {
        group: Some(GROUP.to_owned()),
        auto_offset_reset: AutoOffsetReset::Earliest,
        ..ConsumerOptions::new(Subscription::Topics(topics.collect()))
    };
    let Ok(consumer) = Consumer::new(client, options).await else {
        return tokio::time::sleep(Duration::from_millis(50)).await;
    };
    loop {
        match consumer.next().await {
            Ok(Event::Records {
                topic,
                partition,
                records,
                ..
            }) => {
                let from = TopicPartition { topic, partition };
                for record in &records {
                    let value = record.value.as_deref().unwrap_or_default();
                    let mut ledger = ledger.borrow_mut();
                    ledger.on_delivered(&from, record.offset, value);
                }
                let Some(last) = records.last() else { continue };
                let next = last.offset + 1;
                let offsets = [(from.clone(), next, None)];
                if consumer.commit(&offsets).await.is_ok() {
                    ledger.borrow_mut().on_committed(&from, next);
                }
            }
            Ok(_) => {}
            Err(ConsumerError::Group { .. }) => return,
            // The broker is down, or the group wants us to join again.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
