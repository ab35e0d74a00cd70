//! The loop of a service that consumes: effect first, in one transaction with the inbox; the offset
//! after it. So an event is handled at least once by the broker's books and exactly once by the
//! database's.
//!
//! What is not handled: events of other types are ignored (anyone may add types to the topic);
//! events of a type that the service reads, but in an unknown version or with malformed data, and
//! what is no envelope at all, go to the dead letter topic.

use std::collections::BTreeSet;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rusqlite::{Connection, Transaction};

use crate::crash::{self, Point};
use crate::envelope::Envelope;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::upcast::Unreadable;
use crate::{database, dead_letter, inbox, kafka};

/// What a service does with events.
pub trait Handler {
    /// Its name: of its database, its group, its dead letter topic.
    const NAME: &'static str;
    /// Its tables, the inbox among them.
    const SCHEMAS: &'static [&'static str];
    /// The types of events that it reads.
    const READS: &'static [&'static str];

    /// The effect of an event, within the transaction that notes it as handled.
    fn apply(&self, transaction: &Transaction<'_>, event: &Envelope) -> Result<(), Refusal>;
}

/// Why an event had no effect.
#[derive(Debug)]
pub enum Refusal {
    /// It cannot be read by this code, now or later.
    Unreadable(Unreadable),
    /// This process cannot go on; the event will come again.
    Failure(Failure),
}

impl From<Unreadable> for Refusal {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unreadable(unreadable)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failure(error.into())
    }
}

/// How a service is run.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Handle what is there, then end
    #[arg(long)]
    pub once: bool,
    /// The name of this process among those of the service: a process that comes back under its
    /// name takes its partitions at once, without a rebalance
    #[arg(long, default_value = "1")]
    pub instance: String,
}

/// What became of the events of this process.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tally {
    applied: u64,
    seen_before: u64,
    ignored: u64,
    dead_letters: u64,
}

/// Runs a service.
pub fn run<H: Handler>(handler: &H, settings: &Settings, run: &Run) -> Result<(), Failure> {
    let mut connection = database::open(&settings.dir, H::NAME, H::SCHEMAS)?;
    kafka::ensure_topic(settings, &settings.topic)?;
    let consumer = subscribe(settings, H::NAME, &run.instance)?;
    let (mut tally, mut shown) = (Tally::default(), Tally::default());
    let mut ended = BTreeSet::new();
    for message in consumer.iter() {
        match message {
            Ok(message) => {
                ended.remove(&message.partition());
                handle(handler, settings, &mut connection, &message, &mut tally)?;
                crash::point(settings.crash_at.as_ref(), Point::OffsetNotCommitted);
                // Refused if the partition has just moved: then its new owner handles the event
                // again, and finds it in the inbox.
                let _ = consumer.store_offset_from_message(&message);
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                ended.insert(partition);
                if tally != shown {
                    show(H::NAME, &tally);
                    shown = tally.clone();
                }
                let assigned = consumer.assignment()?;
                let mut assigned = assigned.elements().into_iter();
                if run.once && assigned.all(|element| ended.contains(&element.partition())) {
                    return commit(&consumer);
                }
            }
            Err(error) => kafka::pass_over(&consumer, &error)?,
        }
    }
    unreachable!("a consumer's iterator does not end")
}

fn subscribe(settings: &Settings, name: &str, instance: &str) -> Result<BaseConsumer, Failure> {
    let consumer: BaseConsumer = kafka::client(settings)
        .set("group.id", format!("{}-{name}", settings.topic))
        .set("group.instance.id", format!("{name}-{instance}"))
        .set("auto.offset.reset", "earliest")
        // Offsets are committed in the background, but only those stored after the effect.
        .set("enable.auto.offset.store", "false")
        .set("auto.commit.interval.ms", "1000")
        .set("enable.partition.eof", "true")
        .create()?;
    consumer.subscribe(&[&settings.topic])?;
    Ok(consumer)
}

fn handle<H: Handler>(
    handler: &H,
    settings: &Settings,
    connection: &mut Connection,
    message: &BorrowedMessage<'_>,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let handled = Envelope::decode(message.payload())
        .map_err(Refusal::from)
        .and_then(|event| {
            if !H::READS.contains(&event.event_type.as_str()) {
                return Ok(None);
            }
            let applied = inbox::once(connection, event.id, |transaction| {
                handler.apply(transaction, &event)?;
                crash::point(settings.crash_at.as_ref(), Point::EffectNotCommitted);
                Ok::<_, Refusal>(())
            })?;
            Ok(Some(applied))
        });
    match handled {
        Ok(Some(true)) => tally.applied += 1,
        Ok(Some(false)) => tally.seen_before += 1,
        Ok(None) => tally.ignored += 1,
        Err(Refusal::Unreadable(why)) => {
            dead_letter::send(settings, H::NAME, message, &why)?;
            tally.dead_letters += 1;
        }
        Err(Refusal::Failure(failure)) => return Err(failure),
    }
    Ok(())
}

fn show(name: &str, tally: &Tally) {
    println!(
        "{name}: {} applied, {} seen before, {} ignored, {} dead letters",
        tally.applied, tally.seen_before, tally.ignored, tally.dead_letters
    );
}

/// Commits what is stored, before a process ends in peace.
fn commit(consumer: &BaseConsumer) -> Result<(), Failure> {
    match consumer.commit_consumer_state(CommitMode::Sync) {
        Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) => Ok(()),
        committed => Ok(committed?),
    }
}
