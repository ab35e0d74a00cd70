//! The real database: a row per order, and each partition's next offset in the same transaction as
//! the rows before it.
//!
//! [`Place`] names one, [`Store`] is one opened: an embedded SQLite file, or a server of PostgreSQL
//! or MySQL.
//! Invariant: with [`Rules::exactly_once`], the rows of a partition are exactly those of the
//! offsets below its next offset, after any crash; so whoever resumes there applies each order
//! once. The order id is not UNIQUE unless [`Rules::unique_key`] asks for it: the constraint would
//! hide a doubled order from the verdict instead of showing it.

mod audit;
mod mysql;
mod postgres;
mod server;
mod sqlite;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::failure::Failure;
use crate::orders::Order;
use sqlite::Sqlite;

pub use audit::Audit;

/// What the tables of a sale lie in on a server: a schema in PostgreSQL, a prefix of their names in
/// MySQL.
const SCHEMA: &str = "flash_sale";

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

/// Where the rows go: `sqlite:PATH`, `postgres://USER@HOST/DATABASE` or the same with `mysql://`.
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
    /// A MySQL or MariaDB server.
    Mysql {
        /// The address as the user gave it, maybe with a password.
        url: String,
        /// What the names of the tables begin with.
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
        let (url, schema) = (text.to_owned(), SCHEMA.to_owned());
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres { url, schema }),
            Some(("mysql", _)) => Ok(Self::Mysql { url, schema }),
            _ => Err(format!(
                "`{text}` is no database: write sqlite:FILE, postgres://USER@HOST/DATABASE or \
                 mysql://USER@HOST/DATABASE"
            )),
        }
    }

    /// A place of the same kind beside this one, to try things out; nobody else's.
    pub fn scratch(&self) -> Self {
        let mut place = self.clone();
        let process = std::process::id();
        match &mut place {
            Self::Sqlite(path) => path.as_mut_os_string().push(format!(".{process}.scratch")),
            Self::Postgres { schema, .. } | Self::Mysql { schema, .. } => {
                *schema = format!("{SCHEMA}_scratch_{process}");
            }
        }
        place
    }

    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres { .. } | Self::Mysql { .. } => None,
        }
    }
}

impl fmt::Display for Place {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres { url, .. } | Self::Mysql { url, .. } => {
                f.write_str(&server::without_password(url))
            }
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What each kind of database can do; for the details see [`Store`].
trait Database: fmt::Debug + Send {
    /// A remembered fact.
    fn fact(&self, name: &str) -> Result<Option<String>, Failure>;

    /// Remembers a fact.
    fn remember(&self, name: &str, value: &str) -> Result<(), Failure>;

    /// The next offset of each partition that has rows.
    fn next_offsets(&self) -> Result<BTreeMap<i32, i64>, Failure>;

    /// Makes rows permanent and returns how many were turned away.
    fn apply(&mut self, rows: &[Row]) -> Result<u64, Failure>;

    /// The single row of numbers that `question` is answered with.
    fn ask(&self, question: &str) -> Result<Vec<Option<i64>>, Failure>;

    /// The table to ask.
    fn orders_table(&self) -> &str;

    /// Removes everything that was created.
    fn erase(self: Box<Self>) -> Result<(), Failure>;
}

/// An open database. Its calls wait for the answer and must not be made inside a task.
#[derive(Debug)]
pub struct Store(Box<dyn Database>);

impl Store {
    /// Opens the database and creates what is missing in it.
    ///
    /// # Errors
    /// If it cannot be opened or reached, with its name and what was tried.
    pub fn open(place: &Place, rules: Rules) -> Result<Self, Failure> {
        Ok(Self(match place {
            Place::Sqlite(path) => Box::new(Sqlite::open(path, rules)?),
            Place::Postgres { url, schema } => Box::new(postgres::open(url, schema, rules)?),
            Place::Mysql { url, schema } => Box::new(mysql::open(url, schema, rules)?),
        }))
    }

    /// A remembered fact about the sale, for instance its settings.
    ///
    /// # Errors
    /// If the database fails.
    pub fn fact(&self, name: &str) -> Result<Option<String>, Failure> {
        self.0.fact(name)
    }

    /// Remembers a fact about the sale.
    ///
    /// # Errors
    /// If the database fails.
    pub fn remember(&self, name: &str, value: &str) -> Result<(), Failure> {
        self.0.remember(name, value)
    }

    /// The next offset of each partition that has rows.
    ///
    /// # Errors
    /// If the database fails.
    pub fn next_offsets(&self) -> Result<BTreeMap<i32, i64>, Failure> {
        self.0.next_offsets()
    }

    /// Inserts `rows`, those of a partition in this sequence and with the move of its next offset
    /// behind them in one transaction. Returns how many were turned away as known already.
    ///
    /// # Errors
    /// If the database fails; then no partition is left between its rows and its offset.
    pub fn apply(&mut self, rows: &[Row]) -> Result<u64, Failure> {
        self.0.apply(rows)
    }

    /// Asks the rows what happened in a sale of `orders` orders before a database of
    /// `writes_per_s`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn audit(&self, orders: u64, writes_per_s: u32) -> Result<Audit, Failure> {
        Audit::of(&*self.0, orders, writes_per_s)
    }

    /// Writes begun in `from_ns..to_ns` (nanoseconds since 1970).
    ///
    /// # Errors
    /// If the database fails.
    pub fn writes_between(&self, from_ns: i64, to_ns: i64) -> Result<u64, Failure> {
        audit::writes_between(&*self.0, from_ns, to_ns)
    }

    /// Removes everything that was created.
    ///
    /// # Errors
    /// If the database fails.
    pub fn erase(self) -> Result<(), Failure> {
        self.0.erase()
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

    /// A row of partition 0, written when its order id says.
    pub(super) fn row(order_id: u64, user: &str, user_seq: u32, offset: i64) -> Row {
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
        let mysql = Place::parse("mysql://shop:secret@db.example/orders").unwrap();
        assert_eq!(mysql.to_string(), "mysql://shop@db.example/orders");
        for wrong in ["oracle://x", "sqlite:", "sale.db", ""] {
            assert!(Place::parse(wrong).unwrap_err().contains("sqlite:FILE"));
        }
    }
}
