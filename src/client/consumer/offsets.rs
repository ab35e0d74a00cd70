//! Offsets: where to start, what the group has stored, storing it. OffsetCommit is used up to
//! version 9, which names topics.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::membership::Membership;
use super::positions::Positions;
use super::{
    AutoOffsetReset, CommittedOffset, ConsumerError, Isolation, Queued, Shared, Start,
    Subscription, TopicPartition,
};
use crate::base::{ErrorCode, Offset};
use crate::client::error::{check, is_retriable};
use crate::client::list_offsets::{EARLIEST, LATEST};
use crate::client::transport::Connector;
use crate::client::{Client, ClientError, Node, clock};
use crate::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};

/// The last version of OffsetCommit that names topics.
const VERSION_WITH_NAMES: i16 = 9;

/// An offset to commit, with a note.
pub(super) type ToCommit = (TopicPartition, Offset, Option<String>);

/// All partitions of topics, waiting for topics that are being created.
pub(super) async fn all_partitions<C: Connector>(
    client: &Client<C>,
    topics: &[String],
) -> Result<Vec<TopicPartition>, ClientError> {
    let found = client
        .retry(async || {
            let found = client.metadata(topics).await?;
            for topic in &found {
                let subject = || format!("topic \"{}\"", topic.name);
                check("Metadata", subject, topic.error, None)?;
            }
            Ok(found)
        })
        .await?;
    let partitions = found.iter().flat_map(|topic| {
        let indexes = topic.partitions.iter().map(|each| each.partition);
        indexes.map(|index| TopicPartition::new(&topic.name, index))
    });
    Ok(partitions.collect())
}

/// Commits every so often what was worked on.
pub(super) async fn run_auto_commit<C: Connector>(shared: Rc<Shared<C>>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        if let Err(error) = commit_processed(&shared).await {
            // The next round commits the same and more; a rebalance makes it moot.
            tracing::debug!(%error, "automatic commit failed");
        }
    }
}

/// Commits what was worked on.
pub(super) async fn commit_processed<C: Connector>(
    shared: &Shared<C>,
) -> Result<(), ConsumerError> {
    let processed = shared.positions.borrow().processed();
    let offsets: Vec<ToCommit> = processed
        .into_iter()
        .map(|(partition, offset)| (partition, offset, None))
        .collect();
    match offsets.is_empty() {
        true => Ok(()),
        false => commit(shared, &offsets).await,
    }
}

/// Stores offsets, again while the coordinator is moving or starting, and as the member that we are
/// now: the partitions may have another owner in the next generation.
pub(super) async fn commit<C: Connector>(
    shared: &Shared<C>,
    offsets: &[ToCommit],
) -> Result<(), ConsumerError> {
    let group = group(shared)?;
    let membership = shared.membership.borrow().clone();
    if matches!(shared.options.subscription, Subscription::Topics(_)) && membership.generation < 0 {
        // The coordinator would take it from a reader outside of the group, if nobody is in it.
        let subject = || format!("group \"{group}\"");
        check("OffsetCommit", subject, ErrorCode::UnknownMemberId, None)?;
    }
    let attempt = async || commit_once(shared, group, &membership, offsets).await;
    Ok(shared.client.ask_coordinator(group, attempt).await?)
}

/// What the group has stored, of these partitions.
pub(super) async fn committed<C: Connector>(
    shared: &Shared<C>,
    partitions: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ConsumerError> {
    let group = group(shared)?;
    let is_stable = shared.options.isolation == Isolation::ReadCommitted;
    let committed = shared.client.committed(group, Some(partitions), is_stable);
    Ok(committed.await?)
}

/// Finds out the positions that are unknown. What cannot be found now stays unknown.
pub(super) async fn resolve<C: Connector>(shared: &Shared<C>) -> Result<(), ClientError> {
    let unknown = shared.positions.borrow().unknown();
    let asked: Vec<TopicPartition> = unknown
        .iter()
        .filter(|(_, start, _)| *start == Start::Committed)
        .map(|(partition, _, _)| partition.clone())
        .collect();
    if !asked.is_empty() {
        let found = match shared.options.group {
            Some(_) => match committed(shared, &asked).await {
                Ok(found) => found,
                Err(ConsumerError::Client(error)) => return Err(error),
                Err(_) => BTreeMap::new(),
            },
            None => BTreeMap::new(),
        };
        let mut positions = shared.positions.borrow_mut();
        for (partition, start, token) in unknown {
            if start == Start::Committed {
                match found.get(&partition) {
                    Some(stored) => positions.on_position(&partition, token, Some(stored.offset)),
                    None => reset(shared, &mut positions, &partition, token),
                }
            }
        }
    }
    list_unknown(shared).await
}

/// Applies [`AutoOffsetReset`].
fn reset<C: Connector>(
    shared: &Shared<C>,
    positions: &mut Positions,
    partition: &TopicPartition,
    token: u64,
) {
    match reset_start(shared.options.auto_offset_reset) {
        Some(start) => positions.on_start(partition, token, start),
        None => {
            positions.on_position(partition, token, None);
            shared.tell(Queued::Failed(ConsumerError::NoOffset {
                partition: partition.clone(),
            }));
        }
    }
}

/// Where a reset policy starts.
pub(super) fn reset_start(policy: AutoOffsetReset) -> Option<Start> {
    match policy {
        AutoOffsetReset::Earliest => Some(Start::Earliest),
        AutoOffsetReset::Latest => Some(Start::Latest),
        AutoOffsetReset::None => None,
    }
}

/// Asks leaders for the offsets that positions start from.
async fn list_unknown<C: Connector>(shared: &Shared<C>) -> Result<(), ClientError> {
    let unknown = shared.positions.borrow().unknown();
    let asked: Vec<(TopicPartition, i64)> = unknown
        .iter()
        .filter_map(|(partition, start, _)| Some((partition.clone(), timestamp_of(*start)?)))
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    let isolation = shared.options.isolation;
    let found = shared.client.list_offsets(&asked, isolation).await?;
    let retry_at = clock::now() + shared.client.options().retry_backoff;
    let mut positions = shared.positions.borrow_mut();
    for (partition, start, token) in unknown {
        match found.get(&partition) {
            // No record is that late.
            Some(Ok(..0)) if matches!(start, Start::Timestamp(_)) => {
                positions.on_start(&partition, token, Start::Latest);
            }
            Some(Ok(offset)) => positions.on_position(&partition, token, Some(*offset)),
            Some(Err(code)) if is_retriable(*code) => positions.forget_leader(&partition, retry_at),
            Some(Err(code)) => {
                positions.on_position(&partition, token, None);
                shared.tell(Queued::Failed(ConsumerError::Refused {
                    partition,
                    code: *code,
                }));
            }
            None => {}
        }
    }
    Ok(())
}

/// What ListOffsets is asked for; `None` where it is not needed.
fn timestamp_of(start: Start) -> Option<i64> {
    match start {
        Start::Earliest => Some(EARLIEST),
        Start::Latest => Some(LATEST),
        Start::Timestamp(timestamp) => Some(timestamp.max(0)),
        Start::Committed | Start::Offset(_) => None,
    }
}

async fn commit_once<C: Connector>(
    shared: &Shared<C>,
    group: &str,
    membership: &Membership,
    offsets: &[ToCommit],
) -> Result<(), ClientError> {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (partition, offset, metadata) in offsets {
        let partitions = topics.entry(&partition.topic).or_default();
        partitions.push(OffsetCommitRequestPartition {
            partition_index: partition.partition,
            committed_offset: *offset,
            committed_leader_epoch: -1,
            committed_metadata: Some(metadata.clone().unwrap_or_default()),
        });
    }
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| OffsetCommitRequestTopic {
            name: name.to_owned(),
            partitions,
            ..Default::default()
        });
    let request = OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: membership.generation,
        member_id: membership.member_id.clone(),
        group_instance_id: shared.options.instance_id.clone(),
        topics: topics.collect(),
        ..Default::default()
    };
    let node = Node::Coordinator(group.to_owned());
    let within = shared.client.options().request_timeout;
    let response = shared
        .client
        .send_within(node, request, VERSION_WITH_NAMES, within)
        .await?;
    for topic in &response.topics {
        for partition in &topic.partitions {
            let subject = || {
                let index = partition.partition_index;
                format!(
                    "group \"{group}\", {}",
                    TopicPartition::new(&topic.name, index)
                )
            };
            check("OffsetCommit", subject, partition.error_code, None)?;
        }
    }
    Ok(())
}

fn group<C: Connector>(shared: &Shared<C>) -> Result<&str, ConsumerError> {
    shared
        .options
        .group
        .as_deref()
        .ok_or(ConsumerError::Options(
            "offsets are stored for a group: name one",
        ))
}
