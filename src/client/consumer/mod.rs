//! A consumer: [`Consumer::next`] hands out records and tells of assignments. `membership` keeps
//! the place in the group (join, sync, heartbeats), `fetcher` has one fetch under way per broker
//! while the user works, `positions` decides what to fetch and holds what came.
//!
//! Heartbeats do not depend on the calls of `next`: a slow user, or one that paused every
//! partition, stays a member. What an event tells is acknowledged by the next call of `next`: only
//! then are revoked partitions given away, so that offsets can be committed before.

mod assignor;
pub(super) mod chunk;
mod fetcher;
mod membership;
mod offsets;
mod positions;
mod protocol;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

pub use assignor::Assignor;
pub use protocol::decode_assignment;

use super::Client;
use super::error::ClientError;
use super::tasks::Tasks;
use super::transport::Connector;
use crate::base::{ErrorCode, Offset};
use crate::batch::BatchError;
use membership::Membership;
use positions::Positions;

/// A partition of a topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: String,
    /// The index of the partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Puts the two together.
    pub fn new(topic: &str, partition: i32) -> Self {
        Self {
            topic: topic.to_owned(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "partition {} of topic \"{}\"",
            self.partition, self.topic
        )
    }
}

/// Where to start reading a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Where the group has committed, else by [`ConsumerOptions::auto_offset_reset`].
    #[default]
    Committed,
    /// At the first record there is.
    Earliest,
    /// Behind the last record.
    Latest,
    /// At this offset.
    Offset(Offset),
    /// At the first record with this timestamp (milliseconds) or a later one; behind the last
    /// record if there is none.
    Timestamp(i64),
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// The group's share of these topics; all of their partitions without a group.
    Topics(Vec<String>),
    /// Exactly these partitions. A group only stores offsets then.
    Partitions(Vec<(TopicPartition, Start)>),
}

/// What to do without a committed offset, or with one outside of the log. Kafka:
/// `auto.offset.reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoOffsetReset {
    /// Read from the first record.
    Earliest,
    /// Read what comes from now on.
    #[default]
    Latest,
    /// Report [`ConsumerError::NoOffset`]; the partition waits for a seek.
    None,
}

/// Which records of transactions to see. Kafka: `isolation.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All of them.
    #[default]
    ReadUncommitted,
    /// Those of committed transactions.
    ReadCommitted,
}

impl Isolation {
    /// The number on the wire.
    pub(super) fn level(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// How a consumer works. The defaults are those of Kafka's Java client, but that nothing is
/// committed by itself.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Kafka: `group.id`.
    pub group: Option<String>,
    /// Makes the member static (KIP-345): it keeps its partitions over a restart within the
    /// session timeout. Kafka: `group.instance.id`.
    pub instance_id: Option<String>,
    /// What to read.
    pub subscription: Subscription,
    /// What to do without a usable offset.
    pub auto_offset_reset: AutoOffsetReset,
    /// Without a heartbeat for so long a member is out. Kafka: `session.timeout.ms`.
    pub session_timeout: Duration,
    /// Time that members have to rejoin in a rebalance, and the user to acknowledge a revocation.
    /// Kafka: `max.poll.interval.ms`.
    pub rebalance_timeout: Duration,
    /// Pause between heartbeats. Kafka: `heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    /// How the partitions are divided.
    pub assignor: Assignor,
    /// Most bytes of one fetch, and of all that is held. Kafka: `fetch.max.bytes`.
    pub fetch_bytes_max: usize,
    /// Most bytes of one partition in a fetch. Kafka: `max.partition.fetch.bytes`.
    pub partition_fetch_bytes_max: usize,
    /// How long a broker waits for something to send. Kafka: `fetch.max.wait.ms`.
    pub fetch_wait: Duration,
    /// Most records of one [`Event::Records`]. Kafka: `max.poll.records`.
    pub records_max: usize,
    /// Which records of transactions to see.
    pub isolation: Isolation,
    /// Commits so often what was handed out before the last call of `next`; `None` for never.
    /// Kafka: `auto.commit.interval.ms`.
    pub auto_commit: Option<Duration>,
}

impl ConsumerOptions {
    /// The defaults for a subscription.
    pub fn new(subscription: Subscription) -> Self {
        Self {
            group: None,
            instance_id: None,
            subscription,
            auto_offset_reset: AutoOffsetReset::Latest,
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(300),
            heartbeat_interval: Duration::from_secs(3),
            assignor: Assignor::Range,
            fetch_bytes_max: 50 << 20,
            partition_fetch_bytes_max: 1 << 20,
            fetch_wait: Duration::from_millis(500),
            records_max: 500,
            isolation: Isolation::ReadUncommitted,
            auto_commit: None,
        }
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its place in the partition.
    pub offset: Offset,
    /// Milliseconds since the epoch; -1 for none.
    pub timestamp: i64,
    /// The key, if there is one.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order; names are UTF-8 by convention.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// What [`Consumer::next`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Records of one partition, in offset order.
    Records {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// At least one, at most [`ConsumerOptions::records_max`].
        records: Vec<ConsumedRecord>,
        /// End of the log for consumers when they were fetched.
        high_watermark: Offset,
    },
    /// These partitions came. Reading starts with the next call of `next`: until then a seek
    /// saves looking up the committed offset.
    Assigned(Vec<TopicPartition>),
    /// These partitions go with the next call of `next`; nothing of them comes any more. They
    /// may be gone already, if the membership was lost: a commit fails then.
    Revoked(Vec<TopicPartition>),
}

/// A consumer cannot do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerError {
    /// Settings that contradict each other.
    Options(&'static str),
    /// A request failed.
    Client(ClientError),
    /// There is no offset to start from, and [`AutoOffsetReset::None`] says not to choose one.
    NoOffset {
        /// The partition; it waits for a seek.
        partition: TopicPartition,
    },
    /// The group refuses this member for good.
    Group {
        /// The group.
        group: String,
        /// Kafka's code.
        code: ErrorCode,
    },
    /// A broker refuses to serve the partition for good.
    Refused {
        /// The partition.
        partition: TopicPartition,
        /// Kafka's code.
        code: ErrorCode,
    },
    /// A stored batch cannot be read.
    Unreadable {
        /// The partition; it waits for a seek.
        partition: TopicPartition,
        /// Offset from which it cannot be read.
        offset: Offset,
        /// What is wrong.
        error: BatchError,
    },
    /// The partition is not assigned to this consumer.
    NotAssigned {
        /// The partition.
        partition: TopicPartition,
    },
}

impl fmt::Display for ConsumerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(reason) => f.write_str(reason),
            Self::Client(error) => error.fmt(f),
            Self::NoOffset { partition } => write!(
                f,
                "{partition} has no usable offset to start from: seek, or set a reset policy"
            ),
            Self::Group { group, code } => write!(f, "group \"{group}\" refuses us: {code}"),
            Self::Refused { partition, code } => write!(f, "{partition} cannot be read: {code}"),
            Self::Unreadable {
                partition,
                offset,
                error,
            } => write!(
                f,
                "{partition} cannot be read from offset {offset}: {error}"
            ),
            Self::NotAssigned { partition } => {
                write!(f, "{partition} is not assigned to this consumer")
            }
        }
    }
}

impl std::error::Error for ConsumerError {}

impl From<ClientError> for ConsumerError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// What a group knows of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next record to read.
    pub offset: Offset,
    /// What the committer noted.
    pub metadata: Option<String>,
}

/// Reads records. Dropping it leaves the group to notice by the session timeout;
/// [`Consumer::close`] tells it.
pub struct Consumer<C: Connector> {
    shared: Rc<Shared<C>>,
    /// Dropped when the user has dealt with the last event.
    unacknowledged: RefCell<Option<Acknowledgement>>,
    tasks: Tasks,
}

/// What the tasks of one consumer share.
struct Shared<C: Connector> {
    client: Client<C>,
    options: ConsumerOptions,
    positions: RefCell<Positions>,
    membership: RefCell<Membership>,
    queued: RefCell<VecDeque<Queued>>,
    /// Something for the user: an event, an error, records.
    news: Notify,
    /// Something for the fetcher: positions or leaders to find.
    fetch_wanted: Notify,
    /// Something for the task of a broker: room, another position.
    fetchers: RefCell<BTreeMap<i32, Rc<Notify>>>,
    rebalances: Cell<u64>,
}

enum Queued {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>, oneshot::Sender<()>),
    Failed(ConsumerError),
}

enum Acknowledgement {
    Assigned(Vec<TopicPartition>),
    Revoked(oneshot::Sender<()>),
}

impl<C: Connector> Consumer<C> {
    /// Makes a consumer with connections of its own for what a broker answers late. Joining the
    /// group goes on in the background; [`Event::Assigned`] tells when it is done.
    ///
    /// Errors: [`ConsumerError::Options`]; [`ConsumerError::Client`] if the topics of a
    /// subscription without a group cannot be looked up.
    pub async fn new(client: &Client<C>, options: ConsumerOptions) -> Result<Self, ConsumerError> {
        check(&options)?;
        let shared = Rc::new(Shared {
            client: client.clone(),
            positions: RefCell::default(),
            membership: RefCell::default(),
            queued: RefCell::default(),
            news: Notify::new(),
            fetch_wanted: Notify::new(),
            fetchers: RefCell::default(),
            rebalances: Cell::new(0),
            options,
        });
        let tasks = Tasks::default();
        match &shared.options.subscription {
            Subscription::Topics(_) if shared.options.group.is_some() => {
                tasks.spawn(membership::run(Rc::clone(&shared)));
            }
            Subscription::Topics(topics) => {
                let partitions = offsets::all_partitions(client, topics).await?;
                shared.assign(partitions.into_iter().map(|each| (each, Start::Committed)));
            }
            Subscription::Partitions(partitions) => shared.assign(partitions.iter().cloned()),
        }
        tasks.spawn(fetcher::run(Rc::clone(&shared)));
        if let (Some(interval), Some(_)) = (shared.options.auto_commit, &shared.options.group) {
            tasks.spawn(offsets::run_auto_commit(Rc::clone(&shared), interval));
        }
        Ok(Self {
            shared,
            unacknowledged: RefCell::new(None),
            tasks,
        })
    }

    /// Waits for the next event, and acknowledges the last one. Dropping the future loses nothing.
    ///
    /// Errors: what went wrong in the background, once each; calling again goes on where that is
    /// possible.
    pub async fn next(&self) -> Result<Event, ConsumerError> {
        self.acknowledge();
        loop {
            let news = self.shared.news.notified();
            if let Some(event) = self.pop() {
                return event;
            }
            news.await;
        }
    }

    /// The next event if it is here already, for users who do something before they wait.
    pub fn next_now(&self) -> Option<Result<Event, ConsumerError>> {
        self.acknowledge();
        self.pop()
    }

    /// Stops handing out and fetching partitions; what was fetched is kept. Those not assigned are
    /// left out.
    pub fn pause(&self, partitions: &[TopicPartition]) {
        let mut positions = self.shared.positions.borrow_mut();
        for partition in partitions {
            positions.set_paused(partition, true);
        }
    }

    /// Goes on with paused partitions.
    pub fn resume(&self, partitions: &[TopicPartition]) {
        let mut positions = self.shared.positions.borrow_mut();
        for partition in partitions {
            positions.set_paused(partition, false);
        }
        drop(positions);
        self.shared.wake_fetchers();
        self.shared.news.notify_one();
    }

    /// The next record of the partition is the one at `offset`.
    ///
    /// Errors: [`ConsumerError::NotAssigned`].
    pub fn seek(&self, partition: &TopicPartition, offset: Offset) -> Result<(), ConsumerError> {
        self.seek_to(partition, Start::Offset(offset))
    }

    /// Like [`Consumer::seek`], to where `start` says.
    pub fn seek_to(&self, partition: &TopicPartition, start: Start) -> Result<(), ConsumerError> {
        let mut positions = self.shared.positions.borrow_mut();
        if !positions.seek(partition, start) {
            return Err(ConsumerError::NotAssigned {
                partition: partition.clone(),
            });
        }
        drop(positions);
        self.shared.wake_fetchers();
        Ok(())
    }

    /// All partitions assigned now, in order.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.positions.borrow().assignment()
    }

    /// The offset of the next record to be handed out; `None` until it is found out.
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.shared.positions.borrow().position(partition)
    }

    /// Stores offsets (the next record to read) with a note for the group.
    ///
    /// Errors: [`ConsumerError::Options`] without a group, else [`ConsumerError::Client`]; with
    /// `ILLEGAL_GENERATION`, `UNKNOWN_MEMBER_ID` or `REBALANCE_IN_PROGRESS` the partitions may
    /// belong to another member already.
    pub async fn commit(
        &self,
        offsets: &[(TopicPartition, Offset, Option<String>)],
    ) -> Result<(), ConsumerError> {
        offsets::commit(&self.shared, offsets).await
    }

    /// What the group has stored; partitions without a commit are left out.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ConsumerError> {
        offsets::committed(&self.shared, partitions).await
    }

    /// How often this member got an assignment, the first one included.
    pub fn rebalances(&self) -> u64 {
        self.shared.rebalances.get()
    }

    /// Commits if it commits by itself, and leaves the group (a static member stays, KIP-345).
    ///
    /// Errors: of the commit, else of the leaving; both are tried.
    pub async fn close(self) -> Result<(), ConsumerError> {
        self.acknowledge();
        let Self { shared, tasks, .. } = self;
        // Ended first, or a heartbeat would notice the leaving and join again.
        drop(tasks);
        let commits = shared.options.auto_commit.is_some() && shared.options.group.is_some();
        let committed = match commits {
            true => offsets::commit_processed(&shared).await,
            false => Ok(()),
        };
        // Whatever became of that, the others need not wait for the end of the session.
        let left = membership::leave(&shared).await;
        committed.and(left)
    }

    fn acknowledge(&self) {
        self.shared.positions.borrow_mut().acknowledge();
        match self.unacknowledged.take() {
            Some(Acknowledgement::Assigned(partitions)) => {
                self.shared.positions.borrow_mut().activate(&partitions);
                self.shared.fetch_wanted.notify_one();
            }
            Some(Acknowledgement::Revoked(is_acknowledged)) => {
                // The member may have stopped waiting.
                let _ = is_acknowledged.send(());
            }
            None => {}
        }
    }

    fn pop(&self) -> Option<Result<Event, ConsumerError>> {
        let queued = self.shared.queued.borrow_mut().pop_front();
        match queued {
            Some(Queued::Assigned(partitions)) => {
                let acknowledgement = Acknowledgement::Assigned(partitions.clone());
                self.unacknowledged.replace(Some(acknowledgement));
                return Some(Ok(Event::Assigned(partitions)));
            }
            Some(Queued::Revoked(partitions, is_acknowledged)) => {
                self.shared.positions.borrow_mut().deactivate(&partitions);
                let acknowledgement = Acknowledgement::Revoked(is_acknowledged);
                self.unacknowledged.replace(Some(acknowledgement));
                return Some(Ok(Event::Revoked(partitions)));
            }
            Some(Queued::Failed(error)) => return Some(Err(error)),
            None => {}
        }
        let records_max = self.shared.options.records_max;
        let taken = self.shared.positions.borrow_mut().take(records_max)?;
        // Something left the buffer: there may be room for the next fetch.
        self.shared.wake_fetchers();
        Some(match taken {
            Ok(taken) => Ok(Event::Records {
                topic: taken.partition.topic,
                partition: taken.partition.partition,
                records: taken.records,
                high_watermark: taken.high_watermark,
            }),
            Err(unreadable) => Err(ConsumerError::Unreadable {
                partition: unreadable.partition,
                offset: unreadable.offset,
                error: unreadable.error,
            }),
        })
    }
}

impl<C: Connector> Shared<C> {
    /// Takes partitions in and tells the user.
    fn assign(&self, partitions: impl Iterator<Item = (TopicPartition, Start)>) {
        let mut assigned = Vec::new();
        for (partition, start) in partitions {
            self.positions.borrow_mut().assign(partition.clone(), start);
            assigned.push(partition);
        }
        self.tell(Queued::Assigned(assigned));
    }

    fn tell(&self, queued: Queued) {
        self.queued.borrow_mut().push_back(queued);
        self.news.notify_one();
    }

    fn wake_fetchers(&self) {
        self.fetch_wanted.notify_one();
        let fetchers = self.fetchers.borrow();
        fetchers.values().for_each(|fetcher| fetcher.notify_one());
    }
}

fn check(options: &ConsumerOptions) -> Result<(), ConsumerError> {
    if options.records_max == 0 || options.partition_fetch_bytes_max == 0 {
        return Err(ConsumerError::Options(
            "a consumer needs room for at least one record",
        ));
    }
    if options.heartbeat_interval >= options.session_timeout {
        return Err(ConsumerError::Options(
            "the heartbeat interval must be below the session timeout",
        ));
    }
    Ok(())
}
