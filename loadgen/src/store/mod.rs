//! The real database: a row per order, and each partition's next offset in the same transaction as
//! the rows before it.
//!
//! [`Place`] names one, [`Store`] is one opened: an embedded SQLite file, or a PostgreSQL server.
//! Invariant: with [`Rules::exactly_once`], the rows of a partition are exactly those of the
//! offsets below its next offset, after any crash; so whoever resumes there applies each order
//! once. The order id is not UNIQUE unless [`Rules::unique_key`] asks for it: the constraint would
//! hide a doubled order from the verdict instead of showing it.

mod postgres;
mod sqlite;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::failure::Failure;
use crate::orders::Order;
use postgres::Postgres;
use sqlite::Sqlite;

/// The schema of a sale in PostgreSQL.
const SCHEMA: &str = "flash_sale";
/// The schema in which its speed is measured.
const SCRATCH_SCHEMA: &str = "flash_sale_scratch";

/// One order whose write has ended, ready to become a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Where the order was read.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// What it says; `None` for one that becomes no row, so that only the offset moves on.
    pub order: Option<Order>,
    /// When the write began, in nanoseconds since 1970.
    pub started_ns: i64,
    /// When it ended.
    pub finished_ns: i64,
}

/// What the database answers about the whole sale, each by SQL over the rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Audit {
    /// Rows in all.
    pub rows: u64,
    /// Distinct order ids that the sale could have sent.
    pub distinct: u64,
    /// Rows whose order id the sale never had.
    pub unknown: u64,
    /// Rows of a user that were applied before, or begun before the end of, the user's earlier one.
    pub order_violations: u64,
    /// The shortest time in which `writes_per_s` writes followed each other, in nanoseconds;
    /// `None` if there were fewer writes.
    pub fastest_second_ns: Option<i64>,
}

/// Where the rows go: `sqlite:PATH` or `postgres://USER@HOST/DATABASE`.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres {
        /// The address as the user gave it, maybe with a password.
        url: String,
        /// The schema that holds the tables.
        schema: String,
    },
}

/// What rows and offsets promise each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// The next offset is kept in the transaction of the rows before it.
    pub exactly_once: bool,
    /// An order id that is there already is turned away.
    pub unique_key: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            exactly_once: true,
            unique_key: false,
        }
    }
}

impl Place {
    /// Reads what follows `--sink`.
    ///
    /// # Errors
    /// In a sentence with the forms there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            return Ok(Self::Sqlite(path.into()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let (url, schema) = (text.to_owned(), SCHEMA.to_owned());
            return Ok(Self::Postgres { url, schema });
        }
        Err(format!(
            "`{text}` is no database: write sqlite:FILE or postgres://USER@HOST/DATABASE"
        ))
    }

    /// A place of the same kind beside this one, to try things out.
    pub fn scratch(&self) -> Self {
        match self {
            Self::Sqlite(path) => Self::Sqlite(path.with_extension("scratch")),
            Self::Postgres { url, .. } => Self::Postgres {
                url: url.clone(),
                schema: SCRATCH_SCHEMA.to_owned(),
            },
        }
    }

    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres { .. } => None,
        }
    }
}

impl fmt::Display for Place {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres { url, .. } => f.write_str(&postgres::without_password(url)),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An open database. Its calls wait for the answer and must not be made inside a task.
#[derive(Debug)]
pub enum Store {
    /// Embedded.
    Sqlite(Sqlite),
    /// A server.
    Postgres(Postgres),
}

impl Store {
    /// Opens the database and creates what is missing in it.
    ///
    /// # Errors
    /// If it cannot be opened or reached, with its name and what was tried.
    pub fn open(place: &Place, rules: Rules) -> Result<Self, Failure> {
        match place {
            Place::Sqlite(path) => Sqlite::open(path, rules).map(Self::Sqlite),
            Place::Postgres { url, schema } => {
                Postgres::open(url, schema, rules).map(Self::Postgres)
            }
        }
    }

    /// A remembered fact about the sale, for instance its settings.
    ///
    /// # Errors
    /// If the database fails.
    pub fn fact(&self, name: &str) -> Result<Option<String>, Failure> {
        match self {
            Self::Sqlite(store) => store.fact(name),
            Self::Postgres(store) => store.fact(name),
        }
    }

    /// Remembers a fact about the sale.
    ///
    /// # Errors
    /// If the database fails.
    pub fn remember(&self, name: &str, value: &str) -> Result<(), Failure> {
        match self {
            Self::Sqlite(store) => store.remember(name, value),
            Self::Postgres(store) => store.remember(name, value),
        }
    }

    /// The next offset of each partition that has rows.
    ///
    /// # Errors
    /// If the database fails.
    pub fn next_offsets(&self) -> Result<BTreeMap<i32, i64>, Failure> {
        match self {
            Self::Sqlite(store) => store.next_offsets(),
            Self::Postgres(store) => store.next_offsets(),
        }
    }

    /// Inserts `rows`, those of a partition in this sequence and with the move of its next offset
    /// behind them in one transaction. Returns how many were turned away as known already.
    ///
    /// # Errors
    /// If the database fails; then no partition is left between its rows and its offset.
    pub fn apply(&mut self, rows: &[Row]) -> Result<u64, Failure> {
        match self {
            Self::Sqlite(store) => store.apply(rows),
            Self::Postgres(store) => store.apply(rows),
        }
    }

    /// Asks the rows what happened in a sale of `orders` orders before a database of
    /// `writes_per_s`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn audit(&self, orders: u64, writes_per_s: u32) -> Result<Audit, Failure> {
        match self {
            Self::Sqlite(store) => store.audit(orders, writes_per_s),
            Self::Postgres(store) => store.audit(orders, writes_per_s),
        }
    }

    /// Writes begun in `from_ns..to_ns` (nanoseconds since 1970).
    ///
    /// # Errors
    /// If the database fails.
    pub fn writes_between(&self, from_ns: i64, to_ns: i64) -> Result<u64, Failure> {
        match self {
            Self::Sqlite(store) => store.writes_between(from_ns, to_ns),
            Self::Postgres(store) => store.writes_between(from_ns, to_ns),
        }
    }

    /// Removes everything that was created.
    ///
    /// # Errors
    /// If the database fails.
    pub fn erase(self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(store) => store.erase(),
            Self::Postgres(store) => store.erase(),
        }
    }

    /// An empty database in memory.
    #[cfg(test)]
    pub(crate) fn memory() -> Self {
        let place = Place::Sqlite(":memory:".into());
        Self::open(&place, Rules::default()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_and_shown_without_its_password() {
        let sqlite = Place::parse("sqlite:/tmp/sale.db").unwrap();
        assert_eq!(sqlite, Place::Sqlite("/tmp/sale.db".into()));
        assert_eq!(sqlite.to_string(), "/tmp/sale.db");
        let postgres = Place::parse("postgres://shop:secret@db.example/orders").unwrap();
        assert_eq!(postgres.to_string(), "postgres://shop@db.example/orders");
        assert_eq!(
            serde_json::to_string(&postgres).unwrap(),
            "\"postgres://shop@db.example/orders\""
        );
        for wrong in ["mysql://x", "sqlite:", "sale.db", ""] {
            assert!(Place::parse(wrong).unwrap_err().contains("sqlite:FILE"));
        }
    }
}
