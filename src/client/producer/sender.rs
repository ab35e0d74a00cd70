//! The tasks of a producer: one keeps metadata fresh, one enforces the delivery timeout, and one
//! per broker sends what the [`Queue`] has ready and reports what became of it.
//!
//! Invariant: requests to one broker are written in the order in which the queue gave them out;
//! nothing is awaited between taking a batch and handing it to the connection.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytestring::ByteString;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::Acks;
use super::partition::Outcome;
use super::queue::{Queue, Taken};
use crate::base::{ErrorCode, Few, TopicId};
use crate::client::connection::Connection;
use crate::client::error::ClientError;
use crate::client::transport::Connector;
use crate::client::{Client, Node, clock};
use crate::wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData,
};

/// The last version that names topics; later ones carry ids (KIP-516).
const VERSION_WITH_NAMES: i16 = 12;

/// What the tasks of one producer share.
pub(super) struct Sender<C: Connector> {
    client: Client<C>,
    pub queue: RefCell<Queue>,
    metadata_wanted: Notify,
    leaders: RefCell<BTreeMap<i32, Rc<Notify>>>,
    progress: Notify,
}

impl<C: Connector> Sender<C> {
    /// Nothing runs yet; see [`run`].
    pub fn new(client: Client<C>, queue: Queue) -> Self {
        Self {
            client,
            queue: RefCell::new(queue),
            metadata_wanted: Notify::new(),
            leaders: RefCell::default(),
            progress: Notify::new(),
        }
    }

    /// Makes the task of this broker look at the queue.
    pub fn wake_leader(&self, leader: i32) {
        match self.leaders.borrow().get(&leader) {
            Some(task) => task.notify_one(),
            None => self.metadata_wanted.notify_one(),
        }
    }

    /// Makes the metadata task look at the queue.
    pub fn wake_metadata(&self) {
        self.metadata_wanted.notify_one();
    }

    /// Makes every task look at the queue.
    pub fn wake_all(&self) {
        self.metadata_wanted.notify_one();
        self.leaders
            .borrow()
            .values()
            .for_each(|task| task.notify_one());
        self.progress.notify_waiters();
    }

    /// Returns when `is_reached` holds.
    pub async fn wait_until(&self, is_reached: impl Fn(&Queue) -> bool) {
        loop {
            let progress = self.progress.notified();
            if is_reached(&self.queue.borrow()) {
                return;
            }
            progress.await;
        }
    }
}

/// Keeps the metadata of the queue's topics fresh and one task per leader running.
pub(super) async fn run<C: Connector>(sender: Rc<Sender<C>>) {
    let mut tasks = JoinSet::new();
    tasks.spawn_local(run_expiry(Rc::clone(&sender)));
    loop {
        let stale = sender.queue.borrow().stale_topics();
        if !stale.is_empty()
            && let Ok(topics) = sender.client.refresh_metadata(&stale).await
        {
            for topic in &topics {
                sender.queue.borrow_mut().on_metadata(topic);
            }
        }
        let leaders = sender.queue.borrow().leaders();
        for leader in leaders {
            let mut running = sender.leaders.borrow_mut();
            running.entry(leader).or_insert_with(|| {
                let woken = Rc::new(Notify::new());
                tasks.spawn_local(run_leader(Rc::clone(&sender), leader, Rc::clone(&woken)));
                woken
            });
        }
        if !stale.is_empty() {
            sender
                .leaders
                .borrow()
                .values()
                .for_each(|task| task.notify_one());
            sender.progress.notify_waiters();
            // Brokers need a moment to elect a leader; asking again at once only adds load.
            tokio::time::sleep(sender.client.options().retry_backoff).await;
        }
        if sender.queue.borrow().stale_topics().is_empty() {
            sender.metadata_wanted.notified().await;
        }
    }
}

async fn run_expiry<C: Connector>(sender: Rc<Sender<C>>) {
    loop {
        let now = clock::now();
        sender.queue.borrow_mut().expire(now);
        sender.progress.notify_waiters();
        let expires_at = sender.queue.borrow().expires_at(now);
        // What comes later expires later than this.
        let latest = now + sender.queue.borrow().options().delivery_timeout;
        sleep_until(expires_at.unwrap_or(latest)).await;
    }
}

/// Sends to one broker, with a bounded number of requests in flight.
async fn run_leader<C: Connector>(sender: Rc<Sender<C>>, leader: i32, woken: Rc<Notify>) {
    let in_flight_max = sender.queue.borrow().options().in_flight_max;
    let mut requests = JoinSet::new();
    loop {
        while requests.try_join_next().is_some() {}
        let ready_at = match requests.len() < in_flight_max {
            true => sender.queue.borrow().ready_at(leader),
            false => None,
        };
        if ready_at.is_none_or(|at| at > clock::now()) {
            tokio::select! {
                Some(_) = requests.join_next() => {}
                () = woken.notified() => {}
                () = sleep_until(ready_at.unwrap_or_else(clock::now)), if ready_at.is_some() => {}
            }
            continue;
        }
        let connection = match sender.client.connection(&Node::Id(leader)).await {
            Ok(connection) => connection,
            Err(_) => {
                sender
                    .queue
                    .borrow_mut()
                    .on_unreachable(leader, clock::now());
                sender.metadata_wanted.notify_one();
                continue;
            }
        };
        let taken = sender.queue.borrow_mut().take(leader, clock::now());
        if !taken.is_empty() {
            let answer = start(&sender, &connection, &taken);
            let sender = Rc::clone(&sender);
            requests.spawn_local(async move { settle(&sender, taken, answer.await) });
        }
    }
}

/// Hands the request to the connection before it returns; the future is the answer, `None` with
/// acks = none.
fn start<C: Connector>(
    sender: &Sender<C>,
    connection: &Connection<C::Stream>,
    taken: &[Taken],
) -> impl Future<Output = Result<Option<ProduceResponse>, ClientError>> + use<C> {
    let acks = sender.queue.borrow().options().acks;
    let timeout = sender.client.options().request_timeout;
    let request = ProduceRequest {
        transactional_id: None,
        acks: match acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        },
        timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        topic_data: topic_data(taken),
    };
    let version_max = match taken.iter().any(|each| each.topic_id == TopicId::ZERO) {
        true => VERSION_WITH_NAMES,
        false => i16::MAX,
    };
    let (answer, written) = match acks {
        Acks::None => (
            None,
            Some(connection.request_unanswered(&request, version_max)),
        ),
        _ => (
            Some(connection.request(&request, version_max, timeout)),
            None,
        ),
    };
    async move {
        match (answer, written) {
            (Some(answer), _) => answer.await.map(Some),
            (None, Some(written)) => written.await.map(|()| None),
            (None, None) => unreachable!("one of the two was made"),
        }
    }
}

fn topic_data(taken: &[Taken]) -> Few<TopicProduceData> {
    let mut topics: Few<TopicProduceData> = Few::new();
    for each in taken {
        let partition = PartitionProduceData {
            index: each.partition,
            records: Some(each.bytes.clone()),
        };
        match topics.last_mut() {
            Some(topic) if topic.name == each.topic.as_str() => {
                topic.partition_data.push(partition);
            }
            _ => topics.push(TopicProduceData {
                name: ByteString::from(each.topic.as_str()),
                topic_id: each.topic_id,
                partition_data: Few::from([partition]),
            }),
        }
    }
    topics
}

/// Tells the queue what became of each batch of a request.
fn settle<C: Connector>(
    sender: &Sender<C>,
    taken: Vec<Taken>,
    answer: Result<Option<ProduceResponse>, ClientError>,
) {
    let now = clock::now();
    let mut queue = sender.queue.borrow_mut();
    for each in taken {
        let outcome = match &answer {
            Ok(Some(response)) => outcome_of(response, &each),
            Ok(None) => Outcome::Stored {
                base_offset: -1,
                log_append_time: -1,
            },
            Err(error @ ClientError::Unsupported { .. }) => Outcome::Unsendable {
                reason: error.to_string(),
            },
            Err(_) => Outcome::Lost,
        };
        queue.on_outcome(&each.topic, each.partition, each.batch_id, outcome, now);
    }
    let is_stale = !queue.stale_topics().is_empty();
    drop(queue);
    match is_stale {
        true => sender.wake_all(),
        false => sender.progress.notify_waiters(),
    }
}

fn outcome_of(response: &ProduceResponse, taken: &Taken) -> Outcome {
    let topic = response.responses.iter().find(|topic| {
        // Only one of the two is on the wire, the other has its default.
        topic.name == taken.topic.as_str()
            || (topic.topic_id != TopicId::ZERO && topic.topic_id == taken.topic_id)
    });
    let partition = topic.and_then(|topic| {
        let mut partitions = topic.partition_responses.iter();
        partitions.find(|partition| partition.index == taken.partition)
    });
    match partition {
        // An answer that leaves a batch out says nothing about it.
        None => Outcome::Lost,
        Some(partition) if partition.error_code == ErrorCode::None => Outcome::Stored {
            base_offset: partition.base_offset,
            log_append_time: partition.log_append_time_ms,
        },
        Some(partition) => refused(partition),
    }
}

fn refused(partition: &PartitionProduceResponse) -> Outcome {
    let first = partition.record_errors.first();
    let detail = first.and_then(|error| error.batch_index_error_message.clone());
    Outcome::Refused {
        code: partition.error_code,
        message: partition.error_message.clone().or(detail),
    }
}
