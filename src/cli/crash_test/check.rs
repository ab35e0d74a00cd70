//! Asks a broker that is back what it has, and writes it into the `ledger`: every record that
//! was not read yet, the ends of the logs, the group's offsets.

use super::ledger::RecordId;
use super::load::{GROUP, RELAXED, SharedLedger, partitions};
use super::topics::{Mark, SharedTopics, Topics, mark_of_value};
use crate::base::ErrorCode;
use crate::cli::output::Failure;
use crate::client::{
    Client, Consumer, ConsumerOptions, Event, Isolation, LATEST, Start, Subscription, Tcp,
    TopicPartition,
};
use std::collections::{BTreeMap, BTreeSet};

/// Reads what is new in every partition, or with `again` everything, and compares it with what was
/// promised; then the offsets of the group.
pub async fn check(
    client: &Client<Tcp>,
    ledger: &SharedLedger,
    again: bool,
) -> Result<(), Failure> {
    let ends = ends(client, &partitions()).await?;
    let from: BTreeMap<_, _> = ends
        .keys()
        .map(|at| {
            let unread = ledger.borrow().unread_from(at);
            (at.clone(), if again { 0 } else { unread })
        })
        .collect();
    read(client, &from, &ends, |at, offset, value| {
        ledger.borrow_mut().on_read(at, offset, value);
    })
    .await?;
    for (at, end) in &ends {
        ledger.borrow_mut().on_end(at, *end);
    }
    check_commits(client, ledger).await
}

/// Looks at the topics that come and go: which are there, and what is in them.
pub async fn turnover(
    client: &Client<Tcp>,
    topics: &SharedTopics,
    ledger: &SharedLedger,
) -> Result<(), Failure> {
    let mut topics = topics.lock().await;
    for name in Topics::names() {
        let asked = [name.to_owned()];
        let metadata = client
            .retry(async || client.refresh_metadata(&asked).await)
            .await?;
        let lost = match metadata.first().map(|topic| topic.error) {
            Some(ErrorCode::None) => {
                let records = marks(client, &TopicPartition::new(name, 0)).await?;
                topics.check(name, Some(&records))
            }
            Some(ErrorCode::UnknownTopicOrPartition) | None => topics.check(name, None),
            Some(code) => return Err(Failure::Failed(format!("{name} is not served: {code}"))),
        };
        ledger.borrow_mut().on_turnover(name, lost);
    }
    ledger.borrow_mut().on_topics(&mut topics);
    Ok(())
}

/// The records of a topic that comes and goes.
async fn marks(client: &Client<Tcp>, at: &TopicPartition) -> Result<Vec<Mark>, Failure> {
    let ends = ends(client, std::slice::from_ref(at)).await?;
    let mut marks = Vec::new();
    let from = BTreeMap::from([(at.clone(), 0)]);
    read(client, &from, &ends, |_, _, value| {
        marks.extend(mark_of_value(value))
    })
    .await?;
    Ok(marks)
}

/// The records that are in the relaxed topic.
pub async fn relaxed(client: &Client<Tcp>) -> Result<BTreeSet<RecordId>, Failure> {
    let at = TopicPartition::new(RELAXED, 0);
    let ends = ends(client, std::slice::from_ref(&at)).await?;
    let mut found = BTreeSet::new();
    read(client, &BTreeMap::from([(at, 0)]), &ends, |_, _, value| {
        found.extend(RecordId::of_value(value));
    })
    .await?;
    Ok(found)
}

async fn check_commits(client: &Client<Tcp>, ledger: &SharedLedger) -> Result<(), Failure> {
    // What the members commit from now on may be in the answer or not.
    let expected = ledger.borrow().committed();
    let options = ConsumerOptions {
        group: Some(GROUP.to_owned()),
        ..ConsumerOptions::new(Subscription::Partitions(Vec::new()))
    };
    let reader = Consumer::new(client, options).await?;
    let committed = reader.committed(&partitions()).await?;
    for (at, expected) in expected {
        let offset = committed.get(&at).map_or(0, |committed| committed.offset);
        ledger.borrow_mut().on_committed_read(&at, expected, offset);
    }
    Ok(())
}

/// Where the logs end.
///
/// # Errors
/// A sentence, if a partition cannot be used: one that the broker refuses after a crash is a fault
/// for which there is no number.
async fn ends(
    client: &Client<Tcp>,
    partitions: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
    let asked = partitions.iter().map(|at| (at.clone(), LATEST));
    let asked: Vec<_> = asked.collect();
    let found = client
        .retry(async || {
            client
                .list_offsets(&asked, Isolation::ReadUncommitted)
                .await
        })
        .await?;
    partitions
        .iter()
        .map(|at| match found.get(at) {
            Some(Ok(end)) => Ok((at.clone(), *end)),
            // With its topic all of its records are gone.
            Some(Err(ErrorCode::UnknownTopicOrPartition)) => Ok((at.clone(), 0)),
            Some(Err(code)) => Err(Failure::Failed(format!("{at} is not served: {code}"))),
            None => Err(Failure::Failed(format!("the broker does not know {at}"))),
        })
        .collect()
}

/// Gives every record of each partition from `from` up to `ends`, in order.
async fn read(
    client: &Client<Tcp>,
    from: &BTreeMap<TopicPartition, i64>,
    ends: &BTreeMap<TopicPartition, i64>,
    mut each: impl FnMut(&TopicPartition, i64, &[u8]),
) -> Result<(), Failure> {
    let mut missing: BTreeSet<_> = from.keys().filter(|at| from[*at] < ends[*at]).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let starts = missing
        .iter()
        .map(|at| ((*at).clone(), Start::Offset(from[*at])));
    let subscription = Subscription::Partitions(starts.collect());
    let client = client.with_own_connections();
    let consumer = Consumer::new(&client, ConsumerOptions::new(subscription)).await?;
    while !missing.is_empty() {
        let Event::Records {
            topic,
            partition,
            records,
            ..
        } = consumer.next().await?
        else {
            continue;
        };
        let at = TopicPartition { topic, partition };
        let end = ends.get(&at).copied().unwrap_or(0);
        for record in records.iter().filter(|record| record.offset < end) {
            each(
                &at,
                record.offset,
                record.value.as_deref().unwrap_or_default(),
            );
        }
        if records.last().is_some_and(|last| last.offset + 1 >= end) {
            missing.remove(&at);
        }
    }
    Ok(())
}
