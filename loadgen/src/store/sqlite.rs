//! The embedded database: one SQLite file. The journal is a write-ahead log with `synchronous =
//! NORMAL`: killing the process loses nothing, a power cut may lose the last transactions, but
//! rows and offsets together.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Audit, Row, Rules};
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
pub struct Sqlite {
    connection: Connection,
    rules: Rules,
}

impl Sqlite {
    /// Opens or creates the database `path`.
    pub(super) fn open(path: &Path, rules: Rules) -> Result<Self, Failure> {
        let refuse = |error: rusqlite::Error| {
            Failure::Database(format!(
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

    pub(super) fn fact(&self, name: &str) -> Result<Option<String>, Failure> {
        let mut query = self
            .connection
            .prepare_cached("SELECT value FROM sale WHERE name = ?1")?;
        Ok(query.query_row([name], |row| row.get(0)).optional()?)
    }

    pub(super) fn remember(&self, name: &str, value: &str) -> Result<(), Failure> {
        let statement = "INSERT INTO sale VALUES (?1, ?2)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.connection.execute(statement, [name, value])?;
        Ok(())
    }

    pub(super) fn next_offsets(&self) -> Result<BTreeMap<i32, i64>, Failure> {
        let mut query = self
            .connection
            .prepare("SELECT partition, next_offset FROM progress")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn apply(&mut self, rows: &[Row]) -> Result<u64, Failure> {
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

    pub(super) fn audit(&self, orders: u64, writes_per_s: u32) -> Result<Audit, Failure> {
        let (rows, distinct, unknown) = self.connection.query_row(
            "SELECT count(*),
                count(DISTINCT CASE WHEN order_id BETWEEN 1 AND ?1 THEN order_id END),
                coalesce(sum(order_id NOT BETWEEN 1 AND ?1), 0)
             FROM orders",
            [orders],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let order_violations = self.connection.query_row(
            "SELECT count(*) FROM (
                SELECT applied, started_ns,
                    lag(applied) OVER earlier AS applied_before,
                    lag(finished_ns) OVER earlier AS finished_before
                FROM orders
                WINDOW earlier AS (PARTITION BY user_id ORDER BY user_seq, applied))
             WHERE applied < applied_before OR started_ns < finished_before",
            [],
            |row| row.get(0),
        )?;
        let fastest_second_ns = self.connection.query_row(
            "SELECT min(started_ns - started_before) FROM (
                SELECT started_ns,
                    lag(started_ns, ?1) OVER (ORDER BY started_ns) AS started_before
                FROM orders)",
            [writes_per_s],
            |row| row.get(0),
        )?;
        Ok(Audit {
            rows,
            distinct,
            unknown,
            order_violations,
            fastest_second_ns,
        })
    }

    pub(super) fn writes_between(&self, from_ns: i64, to_ns: i64) -> Result<u64, Failure> {
        let query = "SELECT count(*) FROM orders WHERE started_ns >= ?1 AND started_ns < ?2";
        Ok(self
            .connection
            .query_row(query, [from_ns, to_ns], |row| row.get(0))?)
    }

    pub(super) fn erase(self) -> Result<(), Failure> {
        let path = self.connection.path().map(Path::new).map(Path::to_owned);
        drop(self.connection);
        let Some(path) = path.filter(|path| path.is_file()) else {
            return Ok(());
        };
        std::fs::remove_file(&path).map_err(|error| {
            Failure::Database(format!("cannot remove {}: {error}", path.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::Order;

    fn row(order_id: u64, user: &str, user_seq: u32, offset: i64) -> Row {
        let order = Order {
            order_id,
            user_id: user.into(),
            user_seq,
            ..Order::default()
        };
        let started_ns = order_id as i64 * 1_000;
        Row {
            partition: 0,
            offset,
            order: Some(order),
            started_ns,
            finished_ns: started_ns + 500,
        }
    }

    fn open(path: &Path) -> Result<Sqlite, Failure> {
        Sqlite::open(path, Rules::default())
    }

    fn store() -> Sqlite {
        open(Path::new(":memory:")).unwrap()
    }

    fn audit(rows: &[Row]) -> Audit {
        let mut store = store();
        store.apply(rows).unwrap();
        store.audit(3, 2).unwrap()
    }

    #[test]
    fn the_audit_of_a_right_sale_finds_every_order_once_and_in_order() {
        let audit = audit(&[row(1, "a", 1, 0), row(2, "b", 1, 1), row(3, "a", 2, 2)]);
        assert_eq!(
            audit,
            Audit {
                rows: 3,
                distinct: 3,
                fastest_second_ns: Some(2_000),
                ..audit
            }
        );
        assert_eq!((audit.unknown, audit.order_violations), (0, 0));
    }

    #[test]
    fn a_missing_a_doubled_and_an_unknown_order_show_in_the_counts() {
        let lost = audit(&[row(1, "a", 1, 0), row(3, "a", 2, 2)]);
        assert_eq!((lost.rows, lost.distinct), (2, 2));
        let doubled = audit(&[row(1, "a", 1, 0), row(2, "b", 1, 1), row(2, "b", 1, 2)]);
        assert_eq!((doubled.rows, doubled.distinct), (3, 2));
        let unknown = audit(&[row(1, "a", 1, 0), row(4, "b", 1, 1)]);
        assert_eq!((unknown.rows, unknown.distinct, unknown.unknown), (2, 1, 1));
    }

    #[test]
    fn two_orders_of_one_user_applied_in_the_wrong_sequence_are_a_violation() {
        let audit = audit(&[row(2, "a", 2, 0), row(1, "a", 1, 1)]);
        assert_eq!(audit.order_violations, 1);
    }

    #[test]
    fn an_order_begun_before_the_users_earlier_one_ended_is_a_violation() {
        let mut early = row(2, "a", 2, 1);
        early.started_ns = 1_400;
        assert_eq!(audit(&[row(1, "a", 1, 0), early]).order_violations, 1);
        let mut other_user = row(2, "b", 1, 1);
        other_user.started_ns = 1_400;
        assert_eq!(audit(&[row(1, "a", 1, 0), other_user]).order_violations, 0);
    }

    #[test]
    fn rows_and_offsets_survive_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sale.db");
        let mut store = open(&path).unwrap();
        store
            .apply(&[row(1, "a", 1, 10), row(2, "b", 1, 11)])
            .unwrap();
        store.remember("topic", "old").unwrap();
        store.remember("topic", "sale").unwrap();
        // A second connection sees only what a crash would leave.
        let after = open(&path).unwrap();
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
        let mut store = Sqlite::open(Path::new(":memory:"), rules).unwrap();
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
        let mut store = Sqlite::open(&path, rules).unwrap();
        assert_eq!(store.apply(&[row(1, "a", 1, 0)]).unwrap(), 0);
        assert_eq!(store.next_offsets().unwrap(), BTreeMap::new());
        store.erase().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn an_order_that_becomes_no_row_moves_the_offset() {
        let mut store = store();
        let mut nothing = row(2, "b", 1, 1);
        nothing.order = None;
        store.apply(&[row(1, "a", 1, 0), nothing]).unwrap();
        assert_eq!(store.audit(2, 1).unwrap().rows, 1);
        assert_eq!(store.next_offsets().unwrap(), BTreeMap::from([(0, 2)]));
    }

    #[test]
    fn writes_are_counted_by_their_start() {
        let mut store = store();
        store
            .apply(&[row(1, "a", 1, 0), row(2, "b", 1, 1), row(3, "a", 2, 2)])
            .unwrap();
        assert_eq!(store.writes_between(1_000, 3_000).unwrap(), 2);
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
        let failure = open(&path).unwrap_err();
        assert!(failure.to_string().contains("notes.txt"), "{failure}");
    }
}
