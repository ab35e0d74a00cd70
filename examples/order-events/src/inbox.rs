//! The inbox: the ids of the events that a service has handled, in its own database. The id is
//! written in the same transaction as the effect, so an event that comes again (a relay that
//! published twice, an offset that was not committed, a replayed dead letter) has no second effect.

use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use crate::database;
use crate::envelope::now_ms;
use crate::failure::Failure;

/// The table, to be part of a service's schema. The time is for whoever deletes old rows.
pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS inbox (event_id TEXT PRIMARY KEY, handled_ms BIGINT NOT NULL);
";

/// Runs `effect` if this event was not handled yet, in the transaction that notes it; says whether
/// it ran. If it fails, nothing has happened.
pub fn once(
    connection: &mut Connection,
    event_id: Uuid,
    effect: impl FnOnce(&Transaction<'_>) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let transaction = database::begin(connection)?;
    let inserted = transaction.execute(
        "INSERT INTO inbox (event_id, handled_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![event_id.to_string(), now_ms()],
    )?;
    let new = inserted == 1;
    if new {
        effect(&transaction)?;
    }
    transaction.commit()?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        connection
            .execute_batch("CREATE TABLE effects (n)")
            .unwrap();
        connection
    }

    fn count(connection: &Connection) -> i64 {
        let count = "SELECT count(*) FROM effects";
        connection.query_row(count, [], |row| row.get(0)).unwrap()
    }

    fn effect(transaction: &Transaction<'_>) -> Result<(), Failure> {
        transaction.execute("INSERT INTO effects VALUES (1)", [])?;
        Ok(())
    }

    #[test]
    fn an_event_has_its_effect_once() {
        let mut connection = database();
        let id = Uuid::from_u128(1);
        assert!(once(&mut connection, id, effect).unwrap());
        assert!(!once(&mut connection, id, effect).unwrap());
        assert!(once(&mut connection, Uuid::from_u128(2), effect).unwrap());
        assert_eq!(count(&connection), 2);
    }

    #[test]
    fn an_effect_that_fails_is_undone_and_can_be_tried_again() {
        let mut connection = database();
        let id = Uuid::from_u128(1);
        let fails = |transaction: &Transaction<'_>| {
            effect(transaction)?;
            Err(Failure::new("no"))
        };
        assert!(once(&mut connection, id, fails).is_err());
        assert_eq!(count(&connection), 0);
        assert!(once(&mut connection, id, effect).unwrap());
        assert_eq!(count(&connection), 1);
    }
}
