//! The loop of a service that consumes: effect first, in one transaction with the inbox; the offset
//! after it. So an event is handled at least once by the broker's books and exactly once by the
//! database's.
//!
//! What is not handled: events of other types are ignored (anyone may add types to the topic); what
//! cannot be read, and what the handler or its database refuses, goes to the dead letter topic.

use std::collections::BTreeSet;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rusqlite::{Connection, Transaction};

use crate::crash::{self, Point};
use crate::dead_letter::DeadLetters;
use crate::envelope::Envelope;
use crate::events::Event;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::{database, inbox, kafka, upcast};

/// What a service does with events.
pub trait Handler {
    /// Its name: of its database, its group, its dead letter topic.
    const NAME: &'static str;
    /// Its tables, the inbox among them.
    const SCHEMAS: &'static [&'static str];
    /// The event that it reads.
    type Event: Event;

    /// The effect of an event, within the transaction that notes it as handled. An event that can
    /// never have its effect is to be `Rejected`.
    fn apply(
        &self,
        transaction: &Transaction<'_>,
        envelope: &Envelope,
        event: &Self::Event,
    ) -> Result<(), Failure>;
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
    let letters = DeadLetters::open(settings, H::NAME)?;
    let consumer = subscribe(settings, H::NAME, &run.instance)?;
    let (mut tally, mut shown) = (Tally::default(), Tally::default());
    let mut ended = BTreeSet::new();
    for message in consumer.iter() {
        match message {
            Ok(message) => {
                ended.remove(&message.partition());
                match handle(handler, settings, &consumer, &mut connection, &message) {
                    Ok(Some(true)) => tally.applied += 1,
                    Ok(Some(false)) => tally.seen_before += 1,
                    Ok(None) => tally.ignored += 1,
                    Err(Failure::Rejected(why)) => {
                        letters.send(&message, &why)?;
                        tally.dead_letters += 1;
                    }
                    Err(failure) => return Err(failure),
                }
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

/// Gives an event its effect: whether it was new, or none if it is of no concern to the service.
fn handle<H: Handler>(
    handler: &H,
    settings: &Settings,
    consumer: &BaseConsumer,
    connection: &mut Connection,
    message: &BorrowedMessage<'_>,
) -> Result<Option<bool>, Failure> {
    let envelope = Envelope::decode(message.payload())?;
    let Some(event) = upcast::read::<H::Event>(&envelope)? else {
        return Ok(None);
    };
    let new = inbox::once(connection, envelope.id, |transaction| {
        handler.apply(transaction, &envelope, &event)?;
        if crash::is_due(settings.crash_at.as_ref(), Point::EffectNotCommitted) {
            // At its worst: all offsets stored so far are committed just before.
            let _ = commit(consumer);
            std::process::abort();
        }
        Ok(())
    })?;
    Ok(Some(new))
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
