//! The embedded database: one SQLite file. The journal is a write-ahead log with `synchronous =
//! NORMAL`: killing the process loses nothing, a power cut may lose the last transactions, but
//! rows and offsets together.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Database, Row, Rules};
use crate::failure::Failure;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS sale (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (
    partition INTEGER PRIMARY KEY,
    next_offset INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS orders (
    applied INTEGER PRIMARY KEY,
    order_id INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    user_seq INTEGER NOT NULL,
    item TEXT NOT NULL,
    amount_cents INTEGER NOT NULL,
    time_us INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    started_ns INTEGER NOT NULL,
    finished_ns INTEGER NOT NULL
);";
const UNIQUE: &str = "CREATE UNIQUE INDEX IF NOT EXISTS order_ids ON orders (order_id)";

/// An open file.
#[derive(Debug)]
pub(super) struct Sqlite {
    connection: Connection,
    rules: Rules,
}

impl Sqlite {
    /// Opens or creates the database `path`.
    pub(super) fn open(path: &Path, rules: Rules) -> Result<Self, Failure> {
        let refuse = |error: rusqlite::Error| {
            Failure::Reason(format!(
                "cannot use {} as the database: {error}",
                path.display()
            ))
        };
        let connection = Connection::open(path).map_err(refuse)?;
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(refuse)?;
        connection
            .pragma_update(None, "synchronous", "NORMAL")
            .map_err(refuse)?;
        connection.execute_batch(SCHEMA).map_err(refuse)?;
        if rules.unique_key {
            connection.execute_batch(UNIQUE).map_err(refuse)?;
        }
        Ok(Self { connection, rules })
    }
}

impl Database for Sqlite {
    fn fact(&self, name: &str) -> Result<Option<String>, Failure> {
        let mut query = self
            .connection
            .prepare_cached("SELECT value FROM sale WHERE name = ?1")?;
        Ok(query.query_row([name], |row| row.get(0)).optional()?)
    }

    fn remember(&self, name: &str, value: &str) -> Result<(), Failure> {
        let statement = "INSERT INTO sale VALUES (?1, ?2)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.connection.execute(statement, [name, value])?;
        Ok(())
    }

    fn next_offsets(&self) -> Result<BTreeMap<i32, i64>, Failure> {
        let mut query = self
            .connection
            .prepare("SELECT partition, next_offset FROM progress")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn apply(&mut self, rows: &[Row]) -> Result<u64, Failure> {
        let mut next_offsets = BTreeMap::new();
        let mut turned_away = 0;
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO orders (order_id, user_id, user_seq, item, amount_cents, time_us,
                    partition, offset, started_ns, finished_ns)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT DO NOTHING",
            )?;
            for row in rows {
                next_offsets.insert(row.partition, row.offset + 1);
                let Some(order) = &row.order else {
                    continue;
                };
                let inserted = insert.execute(params![
                    order.order_id,
                    order.user_id,
                    order.user_seq,
                    order.item,
                    order.amount_cents,
                    order.time_us,
                    row.partition,
                    row.offset,
                    row.started_ns,
                    row.finished_ns
                ])?;
                turned_away += u64::from(inserted == 0);
            }
            let mut advance = transaction.prepare_cached(
                "INSERT INTO progress VALUES (?1, ?2)
                 ON CONFLICT (partition) DO UPDATE SET next_offset = excluded.next_offset",
            )?;
            let kept = next_offsets.into_iter().filter(|_| self.rules.exactly_once);
            for (partition, next_offset) in kept {
                advance.execute(params![partition, next_offset])?;
            }
        }
        transaction.commit()?;
        Ok(turned_away)
    }

    fn ask(&self, question: &str) -> Result<Vec<Option<i64>>, Failure> {
        let mut query = self.connection.prepare(question)?;
        let columns = 0..query.column_count();
        Ok(query.query_row([], |row| columns.map(|column| row.get(column)).collect())?)
    }

    fn orders_table(&self) -> &str {
        "orders"
    }

    fn erase(self: Box<Self>) -> Result<(), Failure> {
        let path = self.connection.path().map(Path::new).map(Path::to_owned);
        drop(self.connection);
        let Some(path) = path.filter(|path| path.is_file()) else {
            return Ok(());
        };
        std::fs::remove_file(&path)
            .map_err(|error| Failure::Reason(format!("cannot remove {}: {error}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::row;
    use crate::store::{Place, Store};

    fn open(path: &Path, rules: Rules) -> Result<Store, Failure> {
        Store::open(&Place::Sqlite(path.to_owned()), rules)
    }

    #[test]
    fn rows_and_offsets_survive_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sale.db");
        let mut store = open(&path, Rules::default()).unwrap();
        store
            .apply(&[row(1, "a", 1, 10), row(2, "b", 1, 11)])
            .unwrap();
        store.remember("topic", "old").unwrap();
        store.remember("topic", "sale").unwrap();
        // A second connection sees only what a crash would leave.
        let after = open(&path, Rules::default()).unwrap();
        assert_eq!(after.next_offsets().unwrap(), BTreeMap::from([(0, 12)]));
        assert_eq!(after.audit(2, 1).unwrap().rows, 2);
        assert_eq!(after.fact("topic").unwrap().as_deref(), Some("sale"));
        assert_eq!(after.fact("seed").unwrap(), None);
    }

    #[test]
    fn a_unique_key_turns_a_known_order_away_and_says_so() {
        let rules = Rules {
            unique_key: true,
            ..Rules::default()
        };
        let mut store = open(Path::new(":memory:"), rules).unwrap();
        let rows = [row(1, "a", 1, 0), row(2, "b", 1, 1), row(1, "a", 1, 2)];
        assert_eq!(store.apply(&rows).unwrap(), 1);
        assert_eq!(store.audit(2, 1).unwrap().rows, 2);
        assert_eq!(store.next_offsets().unwrap(), BTreeMap::from([(0, 3)]));
    }

    #[test]
    fn without_exactly_once_no_offset_is_kept_and_an_erased_file_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sale.db");
        let rules = Rules {
            exactly_once: false,
            ..Rules::default()
        };
        let mut store = open(&path, rules).unwrap();
        assert_eq!(store.apply(&[row(1, "a", 1, 0)]).unwrap(), 0);
        assert_eq!(store.next_offsets().unwrap(), BTreeMap::new());
        store.erase().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn an_order_that_becomes_no_row_moves_the_offset() {
        let mut store = Store::memory();
        let mut nothing = row(2, "b", 1, 1);
        nothing.order = None;
        store.apply(&[row(1, "a", 1, 0), nothing]).unwrap();
        assert_eq!(store.audit(2, 1).unwrap().rows, 1);
        assert_eq!(store.next_offsets().unwrap(), BTreeMap::from([(0, 2)]));
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(
            &path,
            "these are notes, not a database; long enough to be read",
        )
        .unwrap();
        let failure = open(&path, Rules::default()).unwrap_err();
        assert!(failure.to_string().contains("notes.txt"), "{failure}");
    }
}
