//! A service's own database: one SQLite file that no other service reads. Committed means on disk
//! (`synchronous = FULL`).

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::failure::Failure;

/// Opens or creates `NAME.db` in `dir`, with the tables of these schemas.
pub fn open(dir: &Path, name: &str, schemas: &[&str]) -> Result<Connection, Failure> {
    let path = dir.join(format!("{name}.db"));
    let refuse = |error: &dyn std::fmt::Display| {
        Failure::new(format!(
            "cannot use {} as the database of {name}: {error}",
            path.display()
        ))
    };
    std::fs::create_dir_all(dir).map_err(|error| refuse(&error))?;
    let open = || {
        let connection = Connection::open(&path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        for schema in schemas {
            connection.execute_batch(schema)?;
        }
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| refuse(&error))
}

/// Begins a transaction that will write: it waits for other writers now, and cannot fail for them
/// later.
pub fn begin(connection: &mut Connection) -> Result<Transaction<'_>, Failure> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}
