//! Reading partitions to where they end now. What comes later is left to the next command.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::base::{ErrorCode, Offset};
use crate::cli::consume::forget_reached;
use crate::cli::output::Failure;
use crate::client::{
    AutoOffsetReset, Client, ClientError, ConsumedRecord, Consumer, ConsumerOptions, Event,
    Isolation, LATEST, Start, Subscription, Tcp, TopicPartition,
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
pub async fn partitions_of(client: &Client<Tcp>, topic: &str) -> Result<Option<i32>, ClientError> {
    let topics = [topic.to_owned()];
    let attempt = async || {
        let found = client.metadata(&topics).await?;
        let known = found.first();
        match known.map_or(ErrorCode::UnknownTopicOrPartition, |known| known.error) {
            ErrorCode::UnknownTopicOrPartition => Ok(None),
            ErrorCode::None => Ok(known.map(|known| known.partitions.len())),
            code => {
                let subject = format!("topic \"{topic}\"");
                Err(ClientError::broker("Metadata", subject, code))
            }
        }
    };
    let found = client.retry(attempt).await?;
    Ok(found.map(|count| i32::try_from(count).unwrap_or(i32::MAX)))
}

/// First or last offset of a partition: `which` is `EARLIEST` or `LATEST`.
pub async fn offset_of(
    client: &Client<Tcp>,
    partition: &TopicPartition,
    which: i64,
) -> Result<Offset, ClientError> {
    let asked = std::slice::from_ref(partition);
    let offsets = client.offsets(asked, which, Isolation::default()).await?;
    Ok(offsets[partition])
}

impl Reader {
    /// Begins to read these partitions.
    pub async fn open(
        client: &Client<Tcp>,
        starts: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Self, Failure> {
        let partitions: Vec<_> = starts.iter().map(|(each, _)| each.clone()).collect();
        let ends = client.offsets(&partitions, LATEST, isolation).await?;
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
            forget_reached(&mut self.ends, &self.consumer);
            let Some(partition) = self.ends.keys().next() else {
                return Ok(None);
            };
            // Others may go on growing behind their ends.
            if Instant::now() >= deadline {
                return Err(Failure::Failed(format!(
                    "nothing came of {partition} for {} s: check its broker",
                    PATIENCE.as_secs()
                )));
            }
            let Ok(event) = timeout(END_CHECK_INTERVAL, self.consumer.next()).await else {
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
}
