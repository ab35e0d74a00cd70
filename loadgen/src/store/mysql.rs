//! MySQL from 8.0 and MariaDB from 10.6, as the [server](super::server) it is: each connection
//! inserts its rows with one prepared statement, as a JSON document that the server turns into a
//! table, and moves their offsets in the same transaction. The tables are created here.
//!
//! The transactions read only what is committed: the level above it locks the gaps between rows,
//! and writers of different rows then wait for each other. Where they do so nevertheless, the one
//! that the server gives up is tried again. The server's `innodb_flush_log_at_trx_commit`, which
//! says how durable a commit is, is left as it is.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable;
use mysql_async::{
    Conn, Error, IoError, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, ServerError, TxOpts,
    from_value_opt,
};

use super::server::{
    CONNECT_WITHIN, CONNECTIONS, Connections, Server, Trouble, not_yet_permanent, offsets_behind,
    tried, unusable, within, without_password,
};
use super::{Row, Rules};
use crate::failure::Failure;

/// Rows of one statement: some 200 bytes each, of the 1 MB that `max_allowed_packet` is at least.
const ROWS_PER_STATEMENT: usize = 1_000;
/// For each new connection.
const SESSION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// Answers of the server that say nothing about the statement: a lock was waited for too long, the
/// session was killed, as a server that stops does with all of them.
const LOCK_WAIT_TIMEOUT: u16 = 1205;
const SESSION_WAS_KILLED: u16 = 3169;
/// And the classes of such answers: connections, deadlocks, interrupted statements.
const PASSING_STATES: [&str; 3] = ["08", "40", "70"];
/// The index is there already.
const DUPLICATE_KEY_NAME: u16 = 1061;

/// A pool of connections to a MySQL or MariaDB.
#[derive(Clone, Debug)]
pub(super) struct Mysql {
    pool: Pool,
    facts: String,
    progress: String,
    orders: String,
}

/// Connects to the server and creates the tables, whose names begin with `schema`.
pub(super) fn open(url: &str, schema: &str, rules: Rules) -> Result<Server<Mysql>, Failure> {
    let name = without_password(url);
    let opts = Opts::from_url(url).map_err(|error| unusable(&name, &error.to_string()))?;
    if opts.db_name().is_none() {
        return Err(unusable(&name, "it names no database: add /DATABASE"));
    }
    let port = opts.tcp_port().to_string();
    let tried = tried(opts.ip_or_hostname(), &port, opts.user());
    // Connections stay, and with them their prepared statements.
    let all =
        PoolConstraints::new(CONNECTIONS, CONNECTIONS).expect("no more at least than at most");
    let pool = PoolOpts::default()
        .with_constraints(all)
        .with_reset_connection(false);
    let opts = OptsBuilder::from_opts(opts)
        .pool_opts(pool)
        // The address that was given, also where the server has a socket.
        .prefer_socket(false)
        .setup(vec![SESSION]);
    let mysql = Mysql {
        pool: Pool::new(opts),
        facts: format!("{schema}_facts"),
        progress: format!("{schema}_progress"),
        orders: format!("{schema}_orders"),
    };
    Server::open(name, mysql, rules, &tried)
}

impl Mysql {
    async fn connection(&self) -> Result<Conn, Trouble> {
        let connection = async { Ok(self.pool.get_conn().await?) };
        within(CONNECT_WITHIN, connection).await
    }

    fn tables(&self) -> [String; 3] {
        let Self {
            facts,
            progress,
            orders,
            ..
        } = self;
        [
            format!(
                "CREATE TABLE IF NOT EXISTS {facts} (
                    name VARCHAR(64) PRIMARY KEY,
                    value TEXT NOT NULL
                ) ENGINE = InnoDB, CHARACTER SET = utf8mb4, COLLATE = utf8mb4_bin"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {progress} (
                    `partition` INT PRIMARY KEY,
                    next_offset BIGINT NOT NULL
                ) ENGINE = InnoDB"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {orders} (
                    applied BIGINT AUTO_INCREMENT PRIMARY KEY,
                    order_id BIGINT UNSIGNED NOT NULL,
                    user_id VARCHAR(255) NOT NULL,
                    user_seq BIGINT NOT NULL,
                    item VARCHAR(255) NOT NULL,
                    amount_cents BIGINT NOT NULL,
                    time_us BIGINT UNSIGNED NOT NULL,
                    `partition` INT NOT NULL,
                    `offset` BIGINT NOT NULL,
                    started_ns BIGINT NOT NULL,
                    finished_ns BIGINT NOT NULL
                ) ENGINE = InnoDB, CHARACTER SET = utf8mb4, COLLATE = utf8mb4_bin"
            ),
        ]
    }

    /// An order that is there already stays as it is; `INSERT IGNORE` would also ignore values that
    /// do not fit.
    fn insert(&self) -> String {
        let orders = &self.orders;
        format!(
            "INSERT INTO {orders} (order_id, user_id, user_seq, item, amount_cents, time_us,
                `partition`, `offset`, started_ns, finished_ns)
            SELECT order_id, user_id, user_seq, item, amount_cents, time_us,
                `partition`, `offset`, started_ns, finished_ns
            FROM JSON_TABLE(?, '$[*]' COLUMNS (
                place FOR ORDINALITY,
                order_id BIGINT UNSIGNED PATH '$[0]',
                user_id VARCHAR(255) PATH '$[1]',
                user_seq BIGINT PATH '$[2]',
                item VARCHAR(255) PATH '$[3]',
                amount_cents BIGINT PATH '$[4]',
                time_us BIGINT UNSIGNED PATH '$[5]',
                `partition` INT PATH '$[6]',
                `offset` BIGINT PATH '$[7]',
                started_ns BIGINT PATH '$[8]',
                finished_ns BIGINT PATH '$[9]')) AS batch
            ORDER BY place
            ON DUPLICATE KEY UPDATE {orders}.order_id = {orders}.order_id"
        )
    }
}

impl Connections for Mysql {
    async fn create(&self, rules: Rules) -> Result<(), Trouble> {
        let mut connection = self.connection().await?;
        for table in self.tables() {
            connection.query_drop(table).await?;
        }
        if !rules.unique_key {
            return Ok(());
        }
        let unique = format!(
            "CREATE UNIQUE INDEX order_ids ON {} (order_id)",
            self.orders
        );
        match connection.query_drop(unique).await {
            Err(Error::Server(error)) if error.code == DUPLICATE_KEY_NAME => Ok(()),
            created => Ok(created?),
        }
    }

    async fn fact(&self, name: &str) -> Result<Option<String>, Trouble> {
        let query = format!("SELECT value FROM {} WHERE name = ?", self.facts);
        Ok(self.connection().await?.exec_first(query, (name,)).await?)
    }

    async fn remember(&self, name: &str, value: &str) -> Result<(), Trouble> {
        let statement = format!("REPLACE INTO {} VALUES (?, ?)", self.facts);
        let mut connection = self.connection().await?;
        Ok(connection.exec_drop(statement, (name, value)).await?)
    }

    async fn next_offsets(&self) -> Result<BTreeMap<i32, i64>, Trouble> {
        next_offsets(&mut self.connection().await?, &self.progress).await
    }

    async fn transaction(&self, rows: &[Row], rules: Rules) -> Result<u64, Trouble> {
        let mut connection = self.connection().await?;
        let mut transaction = connection.start_transaction(TxOpts::default()).await?;
        let known = match rules.exactly_once {
            true => next_offsets(&mut transaction, &self.progress).await?,
            false => BTreeMap::new(),
        };
        let mut turned_away = 0;
        for batch in not_yet_permanent(rows, &known).chunks(ROWS_PER_STATEMENT) {
            let (orders, document) = document(batch);
            transaction.exec_drop(self.insert(), (document,)).await?;
            turned_away += orders - transaction.affected_rows();
        }
        if rules.exactly_once {
            let advance = format!("REPLACE INTO {} VALUES (?, ?)", self.progress);
            transaction
                .exec_batch(advance, offsets_behind(rows))
                .await?;
        }
        transaction.commit().await?;
        Ok(turned_away)
    }

    async fn ask(&self, question: &str) -> Result<Vec<Option<i64>>, Trouble> {
        let mut connection = self.connection().await?;
        let answer: Option<mysql_async::Row> = connection.query_first(question).await?;
        let values = answer.map_or(Vec::new(), mysql_async::Row::unwrap);
        let numbers = values.into_iter().map(from_value_opt);
        let numbers: Result<_, _> = numbers.collect();
        numbers.map_err(|error| Trouble::Refused(error.to_string()))
    }

    fn orders_table(&self) -> &str {
        &self.orders
    }

    async fn erase(&self) -> Result<(), Trouble> {
        let tables = [&self.facts, &self.progress, &self.orders].map(String::as_str);
        let statement = format!("DROP TABLE {}", tables.join(", "));
        Ok(self.connection().await?.query_drop(statement).await?)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Server(error) if is_passing(&error) => Self::Away(error.to_string()),
            Error::Server(error) => Self::Refused(error.to_string()),
            Error::Io(IoError::Io(error)) => Self::Away(error.to_string()),
            // The driver says so when a connection ends while it is used.
            Error::Driver(error) => Self::Away(error.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

fn is_passing(error: &ServerError) -> bool {
    let of_passing_state = PASSING_STATES
        .iter()
        .any(|class| error.state.starts_with(class));
    of_passing_state || [LOCK_WAIT_TIMEOUT, SESSION_WAS_KILLED].contains(&error.code)
}

async fn next_offsets(
    connection: &mut impl Queryable,
    progress: &str,
) -> Result<BTreeMap<i32, i64>, Trouble> {
    let query = format!("SELECT `partition`, next_offset FROM {progress}");
    let pairs: Vec<(i32, i64)> = connection.exec(query, ()).await?;
    Ok(pairs.into_iter().collect())
}

/// How many rows become of these, and the document that says which: an array for each.
fn document(rows: &[&Row]) -> (u64, String) {
    let orders = rows.iter().filter_map(|row| {
        let order = row.order.as_ref()?;
        Some((
            order.order_id,
            &order.user_id,
            order.user_seq,
            &order.item,
            order.amount_cents,
            order.time_us,
            row.partition,
            row.offset,
            row.started_ns,
            row.finished_ns,
        ))
    });
    let orders: Vec<_> = orders.collect();
    let document = serde_json::to_string(&orders).expect("numbers and strings become JSON");
    (orders.len() as u64, document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::row;

    #[test]
    fn only_answers_that_may_change_are_tried_again() {
        let passes = |code, state: &str| {
            let (message, state) = (String::new(), state.to_owned());
            let error = Error::Server(ServerError {
                code,
                message,
                state,
            });
            matches!(Trouble::from(error), Trouble::Away(_))
        };
        // Too many connections, shutdown, deadlock, lock wait, killed by MariaDB and by MySQL.
        for (code, state) in [
            (1040, "08004"),
            (1053, "08S01"),
            (1213, "40001"),
            (1205, "HY000"),
            (1927, "70100"),
            (3169, "HY000"),
        ] {
            assert!(passes(code, state), "{code}");
        }
        // Access denied, no such table, value too long.
        for (code, state) in [(1045, "28000"), (1146, "42S02"), (1406, "22001")] {
            assert!(!passes(code, state), "{code}");
        }
    }

    #[test]
    fn rows_become_an_array_each_and_those_without_an_order_none() {
        let mut nothing = row(2, "b", 1, 8);
        nothing.order = None;
        let first = row(1, "a\"'", 3, 7);
        let (orders, document) = document(&[&first, &nothing]);
        assert_eq!(orders, 1);
        assert_eq!(document, r#"[[1,"a\"'",3,"",0,0,0,7,1000,1500]]"#);
    }

    #[test]
    fn an_address_without_a_database_is_refused() {
        let failure = open("mysql://shop:secret@h", "s", Rules::default()).unwrap_err();
        let failure = failure.to_string();
        assert!(
            failure.contains("/DATABASE") && !failure.contains("secret"),
            "{failure}"
        );
    }
}
