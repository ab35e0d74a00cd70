//! `forebay consume`: prints records. Without `--follow` it ends where the topic ended when it
//! started.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::Cluster;
use super::output::{Failure, Format, Output, note};
use super::record_format::{Columns, to_json, to_text};
use super::start::{From, parse_from};
use crate::client::{
    Client, ConsumedRecord, Consumer, ConsumerOptions, Event, Isolation, LATEST, Start,
    Subscription, Tcp, TopicPartition,
};

/// How often a group's progress is committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// How often to look whether the end is reached while no records come.
const END_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// What to print.
#[derive(Debug, Args)]
pub struct Consume {
    /// Name of the topic
    topic: String,
    /// Where to start: beginning, end, an offset, or a time such as 2026-01-31T12:00:00Z or
    /// @MILLISECONDS [default: where the group has committed, else beginning]
    #[arg(long, value_parser = parse_from)]
    from: Option<From>,
    /// Read this partition only
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Read as a member of this consumer group, and commit what was printed
    #[arg(long, conflicts_with = "partition")]
    group: Option<String>,
    /// Wait for new records at the end
    #[arg(long, short)]
    follow: bool,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print values line by line, or everything as one JSON document per line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    columns: Columns,
    /// Leave out records of open and aborted transactions
    #[arg(long)]
    read_committed: bool,
    #[command(flatten)]
    cluster: Cluster,
}

struct Printing<'a> {
    command: &'a Consume,
    client: Client<Tcp>,
    consumer: Consumer<Tcp>,
    printed: u64,
    /// Where to stop, by partition; what is reached is removed.
    ends: BTreeMap<TopicPartition, i64>,
    is_assigned: bool,
    /// Printed but not committed: the next offset.
    uncommitted: BTreeMap<TopicPartition, i64>,
    committed_at: Instant,
}

/// Prints records until the end, the count, or a signal.
pub async fn run(command: Consume, output: &mut Output) -> Result<(), Failure> {
    let client = command.cluster.connect().await?;
    let partitions = partitions(&client, &command).await?;
    let mut options = ConsumerOptions::new(match command.group {
        Some(_) => Subscription::Topics(vec![command.topic.clone()]),
        None => {
            let start = command.from.map_or(Start::Earliest, |from| from.0);
            let partitions = partitions.iter().cloned();
            Subscription::Partitions(partitions.map(|each| (each, start)).collect())
        }
    });
    options.group = command.group.clone();
    options.auto_offset_reset = crate::client::AutoOffsetReset::Earliest;
    if command.read_committed {
        options.isolation = Isolation::ReadCommitted;
    }
    let consumer = Consumer::new(&client, options).await?;
    let mut printing = Printing {
        command: &command,
        client,
        consumer,
        printed: 0,
        ends: BTreeMap::new(),
        is_assigned: false,
        uncommitted: BTreeMap::new(),
        committed_at: Instant::now(),
    };
    let result = tokio::select! {
        result = printing.print(output) => result,
        () = interrupted() => Ok(()),
    };
    // What was printed is committed, and the group told, also after an error.
    let closed = printing.close(output).await;
    result.and(closed)
}

/// The partitions to read; checks that the topic is there.
async fn partitions(
    client: &Client<Tcp>,
    command: &Consume,
) -> Result<Vec<TopicPartition>, Failure> {
    let topic = &command.topic;
    let found = client.metadata(std::slice::from_ref(topic)).await?;
    let known = found.first().filter(|known| !known.error.is_error());
    let Some(known) = known else {
        let code = found.first().map(|known| known.error);
        return Err(Failure::Failed(match code {
            Some(code) if code != crate::base::ErrorCode::UnknownTopicOrPartition => {
                format!("topic \"{topic}\": {code}")
            }
            _ => format!("topic \"{topic}\" does not exist: see `forebay topic list`"),
        }));
    };
    let indexes: Vec<i32> = match command.partition {
        Some(index) if known.partition(index).is_none() => {
            return Err(Failure::no_partition(topic, index, known.partitions.len()));
        }
        Some(index) => vec![index],
        None => known.partitions.iter().map(|each| each.partition).collect(),
    };
    let partitions = indexes.into_iter();
    Ok(partitions
        .map(|index| TopicPartition::new(topic, index))
        .collect())
}

/// Resolves when the user or the system asks the process to stop.
pub async fn interrupted() {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        // Without handlers the default action of the signals ends us as well.
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Removes the ends that are reached. Offsets that nobody sees (of control records, of what
/// compaction removed) count: the position passes them.
pub fn forget_reached(ends: &mut BTreeMap<TopicPartition, i64>, consumer: &Consumer<Tcp>) {
    ends.retain(|partition, end| {
        let position = consumer.position(partition);
        position.is_none_or(|position| position < *end)
    });
}

impl Printing<'_> {
    async fn print(&mut self, output: &mut Output) -> Result<(), Failure> {
        if self.command.count == Some(0) {
            return Ok(());
        }
        while let Some(event) = self.next(output).await? {
            let is_done = match event {
                Event::Assigned(partitions) => {
                    self.start(&partitions).await?;
                    false
                }
                Event::Revoked(partitions) => {
                    self.commit(output).await?;
                    for partition in partitions {
                        self.ends.remove(&partition);
                    }
                    false
                }
                Event::Records {
                    topic,
                    partition,
                    records,
                    ..
                } => {
                    let partition = TopicPartition { topic, partition };
                    self.records(&partition, &records, output)?
                }
            };
            if is_done {
                break;
            }
            if self.committed_at.elapsed() >= COMMIT_INTERVAL {
                self.commit(output).await?;
            }
        }
        Ok(())
    }

    /// The next event; `None` at the end.
    async fn next(&mut self, output: &mut Output) -> Result<Option<Event>, Failure> {
        if let Some(event) = self.consumer.next_now() {
            return Ok(Some(event?));
        }
        // Nothing more at hand: show what there is before waiting.
        output.flush()?;
        loop {
            if self.is_finished() {
                return Ok(None);
            }
            if let Ok(event) = timeout(END_CHECK_INTERVAL, self.consumer.next()).await {
                return Ok(Some(event?));
            }
        }
    }

    /// Moves new partitions to where the user wants them, and notes where to stop.
    async fn start(&mut self, partitions: &[TopicPartition]) -> Result<(), Failure> {
        self.is_assigned = true;
        if let (Some(from), Some(_)) = (self.command.from, &self.command.group) {
            for partition in partitions {
                self.consumer.seek_to(partition, from.0)?;
            }
        }
        if self.command.follow {
            return Ok(());
        }
        let isolation = match self.command.read_committed {
            true => Isolation::ReadCommitted,
            false => Isolation::ReadUncommitted,
        };
        let ends = self.client.offsets(partitions, LATEST, isolation).await?;
        self.ends.extend(ends);
        Ok(())
    }

    /// True if nothing is left to read before the ends.
    fn is_finished(&mut self) -> bool {
        forget_reached(&mut self.ends, &self.consumer);
        !self.command.follow && self.is_assigned && self.ends.is_empty()
    }

    /// Prints records; true at the end.
    fn records(
        &mut self,
        partition: &TopicPartition,
        records: &[ConsumedRecord],
        output: &mut Output,
    ) -> Result<bool, Failure> {
        for record in records {
            let end = self.ends.get(partition).copied();
            let is_behind = !self.command.follow && end.is_none_or(|end| record.offset >= end);
            if is_behind {
                self.ends.remove(partition);
                break;
            }
            match self.command.format {
                Format::Text => output.bytes(&to_text(partition, record, &self.command.columns))?,
                Format::Json => output.line(&to_json(partition, record).to_string())?,
            }
            self.printed += 1;
            let next = record.offset.saturating_add(1);
            self.uncommitted.insert(partition.clone(), next);
            if Some(self.printed) == self.command.count {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Commits what was printed; what could not be written counts as not printed.
    async fn commit(&mut self, output: &mut Output) -> Result<(), Failure> {
        self.committed_at = Instant::now();
        output.flush()?;
        let offsets: Vec<_> = std::mem::take(&mut self.uncommitted)
            .into_iter()
            .map(|(partition, offset)| (partition, offset, None))
            .collect();
        match self.command.group.is_some() && !offsets.is_empty() {
            true => Ok(self.consumer.commit(&offsets).await?),
            false => Ok(()),
        }
    }

    async fn close(mut self, output: &mut Output) -> Result<(), Failure> {
        let committed = self.commit(output).await;
        if self.printed == 0 && self.command.count != Some(0) {
            note(&format!(
                "no records in topic \"{}\" there",
                self.command.topic
            ));
        }
        self.consumer.close().await?;
        committed
    }
}
