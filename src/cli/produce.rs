//! `forebay produce`: lines become records.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::thread;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use tokio::sync::mpsc;

use super::output::{Failure, note};
use super::{Cluster, parse_pair};
use crate::batch::Codec;
use crate::client::{
    Acks, Client, ClientOptions, Delivery, ProduceError, Producer, ProducerOptions, ProducerRecord,
    Tcp,
};

/// Lines read ahead of what the producer takes.
const LINES_AHEAD_MAX: usize = 1024;

/// Records whose outcome is waited for before more are read.
const UNANSWERED_MAX: usize = 100_000;

/// What to send.
#[derive(Debug, Args)]
pub struct Produce {
    /// Name of the topic
    topic: String,
    /// Read lines from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    /// Split each line at the first of these into key and value; a line without one has no key
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// A header for every record; can be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    header: Vec<(String, String)>,
    /// Send to this partition instead of the one that the key decides
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// When the broker answers
    #[arg(long, value_enum, default_value_t)]
    acks: AcksName,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t)]
    compression: CodecName,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum AcksName {
    /// Never
    None,
    /// When the leader has written it
    Leader,
    /// When it is on all in-sync replicas, and on stable storage where the broker promises that
    #[default]
    All,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum CodecName {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Sends every line, and fails if one of them was not stored.
pub async fn run(command: Produce) -> Result<(), Failure> {
    let client_options = ClientOptions {
        allow_auto_topic_creation: true,
        ..Cluster::options()
    };
    let mut lines = read_lines(command.file.as_deref())?;
    let client = Client::connect(Tcp, &command.cluster.bootstrap, client_options).await?;
    let producer = Producer::new(&client, producer_options(&command)).await?;
    let headers = command.header.iter().map(|(name, value)| {
        let value = Bytes::copy_from_slice(value.as_bytes());
        (Bytes::copy_from_slice(name.as_bytes()), Some(value))
    });
    let headers: Vec<(Bytes, Option<Bytes>)> = headers.collect();
    let mut sending = Sending {
        topic: &command.topic,
        producer,
        unanswered: VecDeque::new(),
        stored: 0,
        failed: 0,
        first_error: None,
    };
    while let Some(line) = lines.recv().await {
        let line = line.map_err(|error| Failure::Failed(format!("cannot read lines: {error}")))?;
        let (key, value) = split(line, command.key_separator.as_deref());
        let record = ProducerRecord {
            key,
            value: Some(value),
            headers: headers.clone(),
            timestamp: None,
        };
        sending.send(command.partition, record).await;
    }
    sending.finish().await
}

type Outcome = std::pin::Pin<Box<dyn Future<Output = Result<Delivery, ProduceError>>>>;

struct Sending<'a> {
    topic: &'a str,
    producer: Producer<Tcp>,
    unanswered: VecDeque<Outcome>,
    stored: u64,
    failed: u64,
    first_error: Option<ProduceError>,
}

impl Sending<'_> {
    async fn send(&mut self, partition: Option<i32>, record: ProducerRecord) {
        self.producer.ready(record.size_bytes()).await;
        let outcome = self.producer.send(self.topic, partition, record);
        self.unanswered.push_back(Box::pin(outcome));
        if self.unanswered.len() >= UNANSWERED_MAX {
            self.settle_first().await;
        }
    }

    async fn settle_first(&mut self) {
        if let Some(outcome) = self.unanswered.pop_front() {
            match outcome.await {
                Ok(_) => self.stored += 1,
                Err(error) => {
                    self.failed += 1;
                    self.first_error.get_or_insert(error);
                }
            }
        }
    }

    async fn finish(mut self) -> Result<(), Failure> {
        self.producer.flush().await;
        while !self.unanswered.is_empty() {
            self.settle_first().await;
        }
        match self.first_error {
            None => {
                note(&format!(
                    "{} records to topic \"{}\"",
                    self.stored, self.topic
                ));
                Ok(())
            }
            Some(error) => {
                let total = self.stored + self.failed;
                Err(Failure::Failed(format!(
                    "{} of {total} records were not stored: {error}",
                    self.failed
                )))
            }
        }
    }
}

fn producer_options(command: &Produce) -> ProducerOptions {
    ProducerOptions {
        acks: match command.acks {
            AcksName::None => Acks::None,
            AcksName::Leader => Acks::Leader,
            AcksName::All => Acks::All,
        },
        idempotent: matches!(command.acks, AcksName::All),
        compression: match command.compression {
            CodecName::None => Codec::None,
            CodecName::Gzip => Codec::Gzip,
            CodecName::Snappy => Codec::Snappy,
            CodecName::Lz4 => Codec::Lz4,
            CodecName::Zstd => Codec::Zstd,
        },
        ..ProducerOptions::default()
    }
}

/// Reads lines on a thread of its own, because reading a terminal or pipe blocks, and records must
/// be sent and acknowledged meanwhile.
fn read_lines(file: Option<&str>) -> Result<mpsc::Receiver<io::Result<Vec<u8>>>, Failure> {
    let mut reader: Box<dyn BufRead + Send> = match file {
        Some(name) => {
            let file = File::open(name)
                .map_err(|error| Failure::Failed(format!("cannot open {name}: {error}")))?;
            Box::new(BufReader::new(file))
        }
        None => Box::new(BufReader::new(io::stdin())),
    };
    let (lines, received) = mpsc::channel(LINES_AHEAD_MAX);
    thread::spawn(move || {
        loop {
            let mut line = Vec::new();
            let read = match reader.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {
                    if line.last() == Some(&b'\n') {
                        line.pop();
                    }
                    Ok(line)
                }
                Err(error) => Err(error),
            };
            let is_last = read.is_err();
            if lines.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    Ok(received)
}

/// Key and value of a line.
fn split(line: Vec<u8>, separator: Option<&str>) -> (Option<Bytes>, Bytes) {
    let line = Bytes::from(line);
    let separator = separator.unwrap_or_default().as_bytes();
    if separator.is_empty() {
        return (None, line);
    }
    let found = line
        .windows(separator.len())
        .position(|window| window == separator);
    match found {
        Some(at) => (Some(line.slice(..at)), line.slice(at + separator.len()..)),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_splits_at_the_first_separator() {
        let check = |line: &str, separator: Option<&str>, expected: (Option<&str>, &str)| {
            let (key, value) = split(line.as_bytes().to_vec(), separator);
            assert_eq!((key.as_deref(), &value[..]), {
                (expected.0.map(str::as_bytes), expected.1.as_bytes())
            });
        };
        check("a:b:c", Some(":"), (Some("a"), "b:c"));
        check("a::b", Some("::"), (Some("a"), "b"));
        check("abc", Some(":"), (None, "abc"));
        check(":b", Some(":"), (Some(""), "b"));
        check("a:b", None, (None, "a:b"));
    }
}
