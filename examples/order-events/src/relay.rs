//! The relay: publishes what waits in an outbox, in order, and marks it sent after the broker has
//! said that it keeps it. A crash between the two publishes the same events again, with the same
//! ids: at least once, in order, and consumers recognise what they have had.
//!
//! One relay per outbox: two would publish everything twice and in any order.

use std::fs::{File, TryLockError};
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

/// Publishes the outbox of `service`, until it is empty if `until_empty`.
pub fn run(settings: &Settings, service: &str, until_empty: bool) -> Result<(), Failure> {
    let mut connection = database::open(&settings.dir, service, &[outbox::SCHEMA])?;
    let _alone = lock(settings, service)?;
    kafka::ensure_topic(settings, &settings.topic)?;
    let publisher = Publisher::new(settings)?;
    let mut published = 0;
    loop {
        let rows = outbox::unsent(&connection, BATCH)?;
        if rows.is_empty() {
            if until_empty {
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
            continue;
        }
        let records: Vec<_> = rows.iter().map(record).collect();
        publisher.publish(&settings.topic, &records)?;
        crash::point(settings.crash_at.as_ref(), Point::PublishedNotMarked);
        outbox::mark_sent(&mut connection, &rows)?;
        published += rows.len();
        println!("relay of {service}: {published} events published");
    }
}

fn record(row: &outbox::Row) -> Record<'_> {
    Record {
        key: Some(row.key.as_bytes()),
        value: Some(row.event.as_bytes()),
        time_ms: Some(row.time_ms),
        headers: None,
    }
}

/// Held as long as the process lives; the system lets go of it however the process ends.
fn lock(settings: &Settings, service: &str) -> Result<File, Failure> {
    let path = settings.dir.join(format!("{service}.relay.lock"));
    let file = File::create(&path);
    let file = file.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(format!(
            "another relay publishes the outbox of {service}: end it first"
        ))),
        Err(TryLockError::Error(error)) => {
            Err(Failure::new(format!("{}: {error}", path.display())))
        }
    }
}
