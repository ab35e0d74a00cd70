//! Reading partitions to where they end now. What comes later is left to the next command.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::base::{ErrorCode, Offset};
use crate::cli::output::Failure;
use crate::client::{
    AutoOffsetReset, Client, ConsumedRecord, Consumer, ConsumerOptions, Event, Isolation, LATEST,
    Start, Subscription, Tcp, TopicPartition,
};

/// How often to look whether the end is reached while no records come.
const END_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// A broker that has sent nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads partitions up to their ends.
pub struct Reader {
    consumer: Consumer<Tcp>,
    /// Where to stop; what is reached is removed.
    ends: BTreeMap<TopicPartition, Offset>,
}

/// The number of partitions of a topic; `None` if there is no such topic.
pub async fn partitions_of(client: &Client<Tcp>, topic: &str) -> Result<Option<i32>, Failure> {
    let found = client
        .retry(async || {
            let found = client.metadata(&[topic.to_owned()]).await?;
            let known = found.first();
            let code = known.map_or(ErrorCode::UnknownTopicOrPartition, |known| known.error);
            match code {
                ErrorCode::UnknownTopicOrPartition => Ok(None),
                ErrorCode::None => Ok(known.map(|known| known.partitions.len())),
                code => Err(crate::client::ClientError::Broker {
                    api: "Metadata",
                    subject: format!("topic \"{topic}\""),
                    code,
                    message: None,
                }),
            }
        })
        .await?;
    Ok(found.map(|count| i32::try_from(count).unwrap_or(i32::MAX)))
}

/// First or last offset of a partition: `when` is `EARLIEST` or `LATEST`.
pub async fn offset_of(
    client: &Client<Tcp>,
    partition: &TopicPartition,
    when: i64,
) -> Result<Offset, Failure> {
    let asked = [(partition.clone(), when)];
    let offsets = client
        .retry(async || {
            let found = client
                .list_offsets(&asked, Isolation::ReadUncommitted)
                .await?;
            match found.get(partition) {
                Some(Ok(offset)) => Ok(*offset),
                answer => {
                    // Whoever leads it now is in fresh metadata only.
                    client
                        .refresh_metadata(std::slice::from_ref(&partition.topic))
                        .await?;
                    Err(crate::client::ClientError::Broker {
                        api: "ListOffsets",
                        subject: partition.to_string(),
                        code: answer
                            .and_then(|answer| answer.as_ref().err().copied())
                            .unwrap_or(ErrorCode::LeaderNotAvailable),
                        message: None,
                    })
                }
            }
        })
        .await?;
    Ok(offsets)
}

impl Reader {
    /// Begins to read these partitions.
    pub async fn open(
        client: &Client<Tcp>,
        starts: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Self, Failure> {
        let asked: Vec<_> = starts
            .iter()
            .map(|(each, _)| (each.clone(), LATEST))
            .collect();
        let mut ends = BTreeMap::new();
        for (partition, end) in client.list_offsets(&asked, isolation).await? {
            let end = end.map_err(|code| {
                Failure::Failed(format!("{partition} does not tell where it ends: {code}"))
            })?;
            ends.insert(partition, end);
        }
        let options = ConsumerOptions {
            auto_offset_reset: AutoOffsetReset::Earliest,
            isolation,
            ..ConsumerOptions::new(Subscription::Partitions(starts))
        };
        let consumer = Consumer::new(client, options).await?;
        Ok(Self { consumer, ends })
    }

    /// The next records of one partition; `None` at the end of all.
    pub async fn next(&mut self) -> Result<Option<(TopicPartition, Vec<ConsumedRecord>)>, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.forget_reached();
            if self.ends.is_empty() {
                return Ok(None);
            }
            let Ok(event) = timeout(END_CHECK_INTERVAL, self.consumer.next()).await else {
                if Instant::now() >= deadline {
                    let waited = PATIENCE.as_secs();
                    let partition = self.ends.keys().next().expect("it is not empty");
                    return Err(Failure::Failed(format!(
                        "nothing came of {partition} for {waited} s: check its broker"
                    )));
                }
                continue;
            };
            let Event::Records {
                topic,
                partition,
                mut records,
                ..
            } = event?
            else {
                continue;
            };
            let partition = TopicPartition { topic, partition };
            let end = self.ends.get(&partition).copied().unwrap_or(0);
            records.retain(|record| record.offset < end);
            if !records.is_empty() {
                return Ok(Some((partition, records)));
            }
        }
    }

    /// Offsets that nobody sees (of control records, of what compaction removed) count: the
    /// position passes them.
    fn forget_reached(&mut self) {
        let consumer = &self.consumer;
        self.ends.retain(|partition, end| {
            let position = consumer.position(partition);
            position.is_none_or(|position| position < *end)
        });
    }
}
