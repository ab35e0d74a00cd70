//! The relay: publishes what waits in an outbox, in order, and marks it sent after the broker has
//! said that it keeps it. A crash between the two publishes the same events again, with the same
//! ids: at least once, in order, and consumers recognise what they have had.
//!
//! One relay per outbox: two would publish everything twice and in any order.

use std::time::Duration;

use crate::crash::{self, Point};
use crate::failure::Failure;
use crate::publisher::{Publisher, Record};
use crate::settings::Settings;
use crate::{database, kafka, outbox};

/// How many events are published before they are marked: a crash repeats at most so many.
const BATCH: u32 = 200;
/// How often an empty outbox is looked at: SQLite cannot call. PostgreSQL can (LISTEN, NOTIFY).
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Publishes the outbox of `service`; ends when it is empty if `once`.
pub fn run(settings: &Settings, service: &str, once: bool) -> Result<(), Failure> {
    let mut connection = database::open(&settings.dir, service, &[outbox::SCHEMA])?;
    let _alone = database::lock(&settings.dir, &format!("relay-{service}"))?;
    kafka::ensure_topic(settings, &settings.topic)?;
    let publisher = Publisher::new(settings)?;
    let mut published = 0;
    loop {
        let rows = outbox::unsent(&connection, BATCH)?;
        if rows.is_empty() {
            if once {
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
            continue;
        }
        let records = rows.iter().map(|row| {
            Record::with_opaque_to(&settings.topic, Box::new(row.seq))
                .key(row.key.as_bytes())
                .payload(row.event.as_bytes())
        });
        let (kept, all) = publisher.publish(records.collect());
        crash::point(settings.crash_at.as_ref(), Point::PublishedNotMarked);
        outbox::mark_sent(&mut connection, &kept)?;
        published += kept.len();
        println!("relay of {service}: {published} events published");
        all.map_err(|refusal| Failure::new(format!("the outbox of {service} waits: {refusal}")))?;
    }
}
