//! The transactional outbox: events that wait to be published, in the database of the service that
//! wrote them. An event is put there in the transaction that makes it true, so that neither can
//! exist without the other. The relay publishes it and then marks it sent, in this order: an event
//! is published at least once, never lost.

use rusqlite::{Connection, Transaction, params};

use crate::database;
use crate::envelope::Envelope;
use crate::failure::Failure;

/// The table, to be part of a service's schema.
pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    event TEXT NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS outbox_unsent ON outbox (seq) WHERE NOT sent;
";

/// An event that waits.
#[derive(Debug)]
pub struct Row {
    /// Its place: events leave in this order.
    pub seq: i64,
    /// The key of its record.
    pub key: String,
    /// When it happened: milliseconds since 1970, UTC.
    pub time_ms: i64,
    /// The value of its record.
    pub event: String,
}

/// Puts an event into the outbox, as part of the transaction that makes it true.
pub fn put(transaction: &Transaction<'_>, key: &str, event: &Envelope) -> Result<(), Failure> {
    transaction.execute(
        "INSERT INTO outbox (key, time_ms, event) VALUES (?1, ?2, ?3)",
        params![key, event.time_ms, event.encode()],
    )?;
    Ok(())
}

/// The first events that wait, in order.
pub fn unsent(connection: &Connection, rows_max: u32) -> Result<Vec<Row>, Failure> {
    let mut query = connection.prepare_cached(
        "SELECT seq, key, time_ms, event FROM outbox WHERE NOT sent ORDER BY seq LIMIT ?1",
    )?;
    let rows = query.query_map([rows_max], |row| {
        Ok(Row {
            seq: row.get(0)?,
            key: row.get(1)?,
            time_ms: row.get(2)?,
            event: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Marks events as sent.
pub fn mark_sent(connection: &mut Connection, rows: &[Row]) -> Result<(), Failure> {
    let transaction = database::begin(connection)?;
    for row in rows {
        transaction.execute("UPDATE outbox SET sent = 1 WHERE seq = ?1", [row.seq])?;
    }
    Ok(transaction.commit()?)
}
