//! The transactional outbox: events that wait to be published, in the database of the service that
//! wrote them. An event is put there in the transaction that makes it true, so that neither can
//! exist without the other. The relay publishes it and then marks it sent, in this order: an event
//! is published at least once, never lost.

use rusqlite::{Connection, Transaction};

use crate::database;
use crate::envelope::Envelope;
use crate::failure::{Failure, Rejected};

/// The table, to be part of a service's schema.
pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    event TEXT NOT NULL,
    sent BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX IF NOT EXISTS outbox_unsent ON outbox (seq) WHERE NOT sent;
";

/// The largest key and event together. The client library publishes up to 1,000,000 bytes
/// (`message.max.bytes`), and headers must fit as well if the event becomes a dead letter.
const BYTES_MAX: usize = 900_000;

/// An event that waits.
#[derive(Debug)]
pub struct Row {
    /// Its place: events leave in this order.
    pub seq: i64,
    /// The key of its record.
    pub key: String,
    /// The value of its record.
    pub event: String,
}

/// Puts an event into the outbox, as part of the transaction that makes it true. One that could
/// not be published is rejected here, where it can still be undone.
pub fn put(transaction: &Transaction<'_>, key: &str, event: &Envelope) -> Result<(), Failure> {
    let event = event.encode();
    let bytes = key.len() + event.len();
    if bytes > BYTES_MAX {
        let message = format!("an event of {bytes} bytes: no more than {BYTES_MAX} are published");
        return Err(Rejected::new("EventTooLarge", message).into());
    }
    let insert = "INSERT INTO outbox (key, event) VALUES (?1, ?2)";
    transaction.execute(insert, [key, &event])?;
    Ok(())
}

/// The first events that wait, in order.
pub fn unsent(connection: &Connection, rows_max: u32) -> Result<Vec<Row>, Failure> {
    let mut query = connection.prepare_cached(
        "SELECT seq, key, event FROM outbox WHERE NOT sent ORDER BY seq LIMIT ?1",
    )?;
    let rows = query.query_map([rows_max], |row| {
        Ok(Row {
            seq: row.get(0)?,
            key: row.get(1)?,
            event: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Marks events as sent.
pub fn mark_sent(connection: &mut Connection, seqs: &[i64]) -> Result<(), Failure> {
    let transaction = database::begin(connection)?;
    for seq in seqs {
        transaction.execute("UPDATE outbox SET sent = TRUE WHERE seq = ?1", [seq])?;
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_could_not_be_published_is_not_put() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let transaction = connection.transaction().unwrap();
        let mut event = Envelope::first("X", 1, "".into());
        let room = BYTES_MAX - event.encode().len() - "key".len();
        event.data = "x".repeat(room).into();
        put(&transaction, "key", &event).unwrap();
        event.data = "x".repeat(room + 1).into();
        let refused = put(&transaction, "key", &event).unwrap_err();
        assert!(matches!(refused, Failure::Rejected(_)), "{refused}");
        assert_eq!(unsent(&transaction, 9).unwrap().len(), 1);
    }
}
