//! A service's own database: one SQLite file that no other service reads. Committed means on disk
//! (`synchronous = FULL`). A part of which there may be one only takes a lock beside it.

use std::fs::{File, TryLockError};
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

/// Sees to it that there is one `part` only. Held as long as the process lives; the system lets go
/// of it however the process ends.
pub fn lock(dir: &Path, part: &str) -> Result<File, Failure> {
    let path = dir.join(format!("{part}.lock"));
    let refuse = |error| Failure::new(format!("{}: {error}", path.display()));
    let file = File::create(&path).map_err(refuse)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(format!(
            "another {part} runs on {}: end it first",
            dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(refuse(error)),
    }
}
