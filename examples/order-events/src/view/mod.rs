//! The event-sourced view of all orders: nothing but the fold of the topic's events (`fold.rs`),
//! kept in memory, with a snapshot now and then (`snapshot.rs`) so that a start need not read
//! everything. The snapshot holds the offsets that it goes up to; the broker's group offsets are
//! not used. A crash loses what was folded since the snapshot, and the topic still has it.

mod fold;
mod rebuild;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::crash::{self, Point};
use crate::dead_letter::DeadLetters;
use crate::envelope::Envelope;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::{database, kafka};
use fold::View;

pub use rebuild::rebuild;
pub use snapshot::TABLES;

/// The name of its database.
pub const NAME: &str = "view";

/// How the view is run.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Fold what is there, then end
    #[arg(long)]
    once: bool,
    /// Forget the snapshot, and fold from offset 0
    #[arg(long)]
    refold: bool,
    /// Write a snapshot after so many events, and whenever there are no more for now
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    snapshot_every: u64,
}

/// Follows the topic.
pub fn run(settings: &Settings, run: &Run) -> Result<(), Failure> {
    let mut connection = database::open(&settings.dir, NAME, &[snapshot::TABLES])?;
    let _alone = database::lock(&settings.dir, NAME)?;
    kafka::ensure_topic(settings, &settings.topic)?;
    let letters = DeadLetters::open(settings, NAME)?;
    if run.refold {
        let transaction = database::begin(&mut connection)?;
        snapshot::clear(&transaction)?;
        transaction.commit()?;
    }
    let mut view = snapshot::load(&connection)?;
    let consumer = read_from(settings, &view.next_offsets)?;
    let partitions = consumer.assignment()?.count();
    let mut ended = BTreeSet::new();
    let (mut events, mut events_at_snapshot) = (0, 0);
    for message in consumer.iter() {
        let mut snapshot_due = false;
        match message {
            Ok(message) => {
                ended.remove(&message.partition());
                let event = Envelope::decode(message.payload());
                if let Err(why) = event.and_then(|event| view.apply(&event)) {
                    letters.send(&message, &why)?;
                }
                view.advance(message.partition(), message.offset());
                events += 1;
                snapshot_due = events - events_at_snapshot >= run.snapshot_every;
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                ended.insert(partition);
                snapshot_due = events > events_at_snapshot && ended.len() == partitions;
            }
            Err(error) => kafka::pass_over(&consumer, &error)?,
        }
        if snapshot_due {
            write_snapshot(settings, &mut connection, &mut view)?;
            show(&view, events);
            events_at_snapshot = events;
        }
        if run.once && ended.len() == partitions {
            return Ok(());
        }
    }
    unreachable!("a consumer's iterator does not end")
}

fn write_snapshot(
    settings: &Settings,
    connection: &mut rusqlite::Connection,
    view: &mut View,
) -> Result<(), Failure> {
    let crash_at = settings.crash_at.as_ref();
    let transaction = database::begin(connection)?;
    snapshot::write(&transaction, view)?;
    crash::point(crash_at, Point::SnapshotNotCommitted);
    transaction.commit()?;
    crash::point(crash_at, Point::SnapshotCommitted);
    view.changed.clear();
    Ok(())
}

fn show(view: &View, events: u64) {
    let complete = view.orders.values().filter(|order| order.is_complete());
    println!(
        "view: {events} events read, snapshot of {} orders, {} complete",
        view.orders.len(),
        complete.count()
    );
}

/// A reader of all partitions that begins at these offsets, at 0 where none is given.
fn read_from(
    settings: &Settings,
    next_offsets: &BTreeMap<i32, i64>,
) -> Result<BaseConsumer, Failure> {
    let consumer: BaseConsumer = kafka::client(settings)
        // The client library wants a name; no group is joined, and nothing committed.
        .set("group.id", format!("{}-{NAME}", settings.topic))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in kafka::partitions(&consumer, &settings.topic)? {
        let next = next_offsets.get(&partition).copied().unwrap_or(0);
        assignment.add_partition_offset(&settings.topic, partition, Offset::Offset(next))?;
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}
