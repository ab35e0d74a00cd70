//! The fetching tasks of a consumer: one finds positions and leaders, one per broker keeps a fetch
//! under way as long as [`Positions::plan`](super::positions::Positions::plan) has something.
//!
//! Fetch sessions (KIP-227) are not used: every request names what it wants, which suits the few
//! partitions that one member reads.

use std::rc::Rc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::chunk::Chunk;
use super::offsets::{reset_start, resolve};
use super::positions::{Plan, Planned};
use super::{ConsumerError, Queued, Shared};
use crate::base::{ErrorCode, TopicId};
use crate::client::error::is_retriable;
use crate::client::transport::Connector;
use crate::client::{Client, ClientError, Node, clock};
use crate::wire::Records;
use crate::wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};

/// The last version that names topics; later ones carry ids (KIP-516).
const VERSION_WITH_NAMES: i16 = 12;

/// Finds positions and leaders, and keeps one task per leader running.
pub(super) async fn run<C: Connector>(shared: Rc<Shared<C>>) {
    let client = shared.client.with_own_connections();
    let mut tasks = JoinSet::new();
    loop {
        let leaderless = shared.positions.borrow().leaderless_topics();
        if !leaderless.is_empty()
            && let Ok(topics) = shared.client.refresh_metadata(&leaderless).await
        {
            for topic in &topics {
                shared.positions.borrow_mut().on_metadata(topic);
            }
        }
        let resolved = resolve(&shared).await;
        if let Err(error) = &resolved
            && !error.is_retriable()
        {
            shared.tell(Queued::Failed(ConsumerError::Client(error.clone())));
        }
        let leaders = shared.positions.borrow().leaders();
        for leader in leaders {
            let mut fetchers = shared.fetchers.borrow_mut();
            let fetcher = fetchers.entry(leader).or_insert_with(|| {
                let woken = Rc::new(Notify::new());
                let shared = Rc::clone(&shared);
                tasks.spawn_local(run_leader(
                    shared,
                    client.clone(),
                    leader,
                    Rc::clone(&woken),
                ));
                woken
            });
            fetcher.notify_one();
        }
        let is_incomplete = {
            let positions = shared.positions.borrow();
            !positions.leaderless_topics().is_empty() || !positions.unknown().is_empty()
        };
        match is_incomplete {
            true => tokio::time::sleep(shared.client.options().retry_backoff).await,
            false => shared.fetch_wanted.notified().await,
        }
    }
}

/// Fetches from one broker, one request after the other.
async fn run_leader<C: Connector>(
    shared: Rc<Shared<C>>,
    client: Client<C>,
    leader: i32,
    woken: Rc<Notify>,
) {
    let options = &shared.options;
    let backoff = shared.client.options().retry_backoff;
    let mut turn = 0usize;
    loop {
        let now = clock::now();
        let plan = shared.positions.borrow().plan(leader, options, turn, now);
        turn = turn.wrapping_add(1);
        if plan.partitions.is_empty() {
            let retry_at = shared.positions.borrow().retry_at(leader);
            let retry_at = retry_at.filter(|at| *at > now);
            tokio::select! {
                () = woken.notified() => {}
                () = sleep_until(retry_at.unwrap_or(now)), if retry_at.is_some() => {}
            }
            continue;
        }
        let wait = match plan.has_full {
            true => Duration::ZERO,
            false => options.fetch_wait,
        };
        match fetch(&shared, &client, leader, &plan, wait).await {
            Ok(response) => {
                if settle(&shared, &plan, response) {
                    continue;
                }
                if plan.has_full {
                    // Nothing here, and no room there: wait until the user took something.
                    let _ = timeout(options.fetch_wait, woken.notified()).await;
                } else if clock::now() < now + wait {
                    // A broker that does not wait for records must not be asked in a storm.
                    let _ = timeout(backoff, woken.notified()).await;
                }
            }
            Err(error) => {
                if !error.is_retriable() {
                    shared.tell(Queued::Failed(ConsumerError::Client(error)));
                }
                let retry_at = clock::now() + backoff;
                shared.positions.borrow_mut().forget_node(leader, retry_at);
                shared.fetch_wanted.notify_one();
            }
        }
    }
}

async fn fetch<C: Connector>(
    shared: &Shared<C>,
    client: &Client<C>,
    leader: i32,
    plan: &Plan,
    wait: Duration,
) -> Result<FetchResponse, ClientError> {
    let options = &shared.options;
    let request = FetchRequest {
        replica_id: -1,
        max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: 1,
        max_bytes: i32::try_from(options.fetch_bytes_max).unwrap_or(i32::MAX),
        isolation_level: options.isolation.level(),
        session_id: 0,
        session_epoch: -1,
        topics: fetch_topics(&plan.partitions, options.partition_fetch_bytes_max),
        ..Default::default()
    };
    let has_ids = plan
        .partitions
        .iter()
        .all(|each| each.topic_id != TopicId::ZERO);
    let version_max = if has_ids {
        i16::MAX
    } else {
        VERSION_WITH_NAMES
    };
    let within = wait + client.options().request_timeout;
    let response = client
        .send_within(Node::Id(leader), request, version_max, within)
        .await?;
    crate::client::error::check(
        "Fetch",
        || format!("node {leader}"),
        response.error_code,
        None,
    )?;
    Ok(response)
}

/// Groups neighbours of one topic; the order is kept, it decides who is served first.
fn fetch_topics(partitions: &[Planned], partition_max_bytes: usize) -> Vec<FetchTopic> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for planned in partitions {
        let partition = FetchPartition {
            partition: planned.partition.partition,
            current_leader_epoch: planned.leader_epoch,
            fetch_offset: planned.offset,
            partition_max_bytes: i32::try_from(partition_max_bytes).unwrap_or(i32::MAX),
            ..Default::default()
        };
        match topics.last_mut() {
            Some(topic) if topic.topic == planned.partition.topic.as_str() => {
                topic.partitions.push(partition);
            }
            _ => topics.push(FetchTopic {
                topic: ByteString::from(planned.partition.topic.as_str()),
                topic_id: planned.topic_id,
                partitions: vec![partition],
            }),
        }
    }
    topics
}

/// Hands out what came; false if that is nothing at all.
fn settle<C: Connector>(shared: &Shared<C>, plan: &Plan, response: FetchResponse) -> bool {
    let mut has_news = false;
    for topic in response.responses {
        for data in topic.partitions {
            // Only one of name and id is on the wire, the other has its default.
            let planned = plan.partitions.iter().find(|each| {
                let is_topic = topic.topic == each.partition.topic.as_str()
                    || (topic.topic_id != TopicId::ZERO && topic.topic_id == each.topic_id);
                is_topic && each.partition.partition == data.partition_index
            });
            if let Some(planned) = planned {
                has_news |= settle_partition(shared, planned, data);
            }
        }
    }
    if has_news {
        shared.news.notify_one();
    }
    has_news
}

fn settle_partition<C: Connector>(
    shared: &Shared<C>,
    planned: &Planned,
    data: PartitionData,
) -> bool {
    let retry_at = clock::now() + shared.client.options().retry_backoff;
    let mut positions = shared.positions.borrow_mut();
    let partition = &planned.partition;
    match data.error_code {
        ErrorCode::None => {
            let bytes = match data.records {
                Records::Bytes(bytes) => bytes,
                Records::Null | Records::External { .. } => Default::default(),
            };
            let aborted = data.aborted_transactions.unwrap_or_default();
            match Chunk::new(bytes, data.high_watermark, aborted) {
                Ok(chunk) => {
                    let has_records = chunk.is_some();
                    positions.on_fetched(planned, chunk, retry_at) && has_records
                }
                Err(error) => {
                    if positions.on_unusable(planned, None, retry_at) {
                        shared.tell(Queued::Failed(ConsumerError::Unreadable {
                            partition: partition.clone(),
                            offset: planned.offset,
                            error,
                        }));
                    }
                    false
                }
            }
        }
        ErrorCode::OffsetOutOfRange => {
            let reset = reset_start(shared.options.auto_offset_reset);
            if positions.on_unusable(planned, reset, retry_at) {
                if reset.is_none() {
                    let partition = partition.clone();
                    shared.tell(Queued::Failed(ConsumerError::NoOffset { partition }));
                }
                shared.fetch_wanted.notify_one();
            }
            false
        }
        code if is_retriable(code) => {
            positions.forget_leader(partition, retry_at);
            shared.fetch_wanted.notify_one();
            false
        }
        code => {
            if positions.on_unusable(planned, None, retry_at) {
                let partition = partition.clone();
                shared.tell(Queued::Failed(ConsumerError::Refused { partition, code }));
            }
            false
        }
    }
}
