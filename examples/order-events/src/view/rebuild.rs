//! The rebuild: folds the topic again from offset 0 to where the kept view is, and compares. The
//! kept view is right exactly if the two are equal. It writes nothing, so the view may be running.

use rdkafka::error::KafkaError;
use rdkafka::message::Message;

use super::fold::View;
use super::{NAME, read_from, snapshot};
use crate::envelope::Envelope;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::{database, kafka};

/// Rebuilds the view and compares it with the kept one.
pub fn rebuild(settings: &Settings) -> Result<(), Failure> {
    let mut connection = database::open(&settings.dir, NAME, &[snapshot::TABLES])?;
    kafka::ensure_topic(settings, &settings.topic)?;
    // In a transaction: orders and offsets of one snapshot, whatever a running view writes.
    let transaction = connection.transaction()?;
    let kept = snapshot::load(&transaction)?;
    drop(transaction);
    if kept.next_offsets.is_empty() {
        return Err(Failure::new(
            "there is no snapshot of this fold to compare with: run `view` first",
        ));
    }
    let (rebuilt, events) = fold_from_the_start(settings, &kept)?;
    let equal = rebuilt.orders == kept.orders;
    println!(
        "rebuild: {} orders from {events} events, {} the kept view",
        rebuilt.orders.len(),
        if equal { "equal to" } else { "different from" }
    );
    equal.then_some(()).ok_or_else(|| {
        Failure::new("the kept view is wrong: end it, and start it again with `view --refold`")
    })
}

/// A view of all events up to the offsets of `kept`, and how many these were.
fn fold_from_the_start(settings: &Settings, kept: &View) -> Result<(View, u64), Failure> {
    let consumer = read_from(settings, &Default::default())?;
    let (mut view, mut events) = (View::default(), 0);
    let reached = |view: &View| {
        kept.next_offsets
            .iter()
            .all(|(partition, end)| view.next_offsets.get(partition) == Some(end))
    };
    while !reached(&view) {
        let message = match consumer.poll(None) {
            Some(Ok(message)) => message,
            None => continue,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if view.next_offsets.get(&partition) < kept.next_offsets.get(&partition) {
                    return Err(Failure::new(format!(
                        "partition {partition} ends before the kept view: they are not of one topic"
                    )));
                }
                continue;
            }
            Some(Err(error)) => {
                kafka::pass_over(&consumer, &error)?;
                continue;
            }
        };
        let end = kept.next_offsets.get(&message.partition()).copied();
        if message.offset() >= end.unwrap_or(0) {
            continue;
        }
        // What cannot be read is in the dead letter topic already.
        if let Ok(event) = Envelope::decode(message.payload()) {
            let _ = view.apply(&event);
        }
        view.advance(message.partition(), message.offset());
        events += 1;
    }
    Ok((view, events))
}
