//! PostgreSQL, as the [server](super::server) it is: each connection inserts its rows with one
//! prepared statement, turned into columns, and moves their offsets in the same transaction. The
//! schema is created here.

use std::collections::BTreeMap;
use std::error::Error as _;

use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod};
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use super::server::{
    CONNECT_WITHIN, CONNECTIONS, Connections, Server, Trouble, not_yet_permanent, offsets_behind,
    tried, unusable, without_password,
};
use super::{Row, Rules};
use crate::failure::Failure;

const TABLES: &str = r#"
CREATE TABLE IF NOT EXISTS sale (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE IF NOT EXISTS progress (partition int PRIMARY KEY, next_offset bigint NOT NULL);
CREATE TABLE IF NOT EXISTS orders (
    applied bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id bigint NOT NULL,
    user_id text NOT NULL,
    user_seq bigint NOT NULL,
    item text NOT NULL,
    amount_cents bigint NOT NULL,
    time_us bigint NOT NULL,
    partition int NOT NULL,
    "offset" bigint NOT NULL,
    started_ns bigint NOT NULL,
    finished_ns bigint NOT NULL
);"#;
const UNIQUE: &str = "CREATE UNIQUE INDEX IF NOT EXISTS order_ids ON orders (order_id)";
const INSERT: &str = r#"
INSERT INTO orders (order_id, user_id, user_seq, item, amount_cents, time_us,
    partition, "offset", started_ns, finished_ns)
SELECT order_id, user_id, user_seq, item, amount_cents, time_us,
    partition, log_offset, started_ns, finished_ns
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[],
        $7::int[], $8::bigint[], $9::bigint[], $10::bigint[]) WITH ORDINALITY
    AS row (order_id, user_id, user_seq, item, amount_cents, time_us,
        partition, log_offset, started_ns, finished_ns, place)
ORDER BY place
ON CONFLICT DO NOTHING"#;
const KNOWN: &str = "SELECT partition, next_offset FROM progress WHERE partition = ANY($1)";
const ADVANCE: &str = "
INSERT INTO progress SELECT * FROM unnest($1::int[], $2::bigint[])
ON CONFLICT (partition) DO UPDATE SET next_offset = excluded.next_offset";

/// A pool of connections to a PostgreSQL.
#[derive(Clone, Debug)]
pub(super) struct Postgres {
    pool: Pool,
    schema: String,
}

/// Connects to the server and creates the schema and its tables.
pub(super) fn open(url: &str, schema: &str, rules: Rules) -> Result<Server<Postgres>, Failure> {
    let name = without_password(url);
    let mut config: Config = url
        .parse()
        .map_err(|error| unusable(&name, &reason(&error)))?;
    config.options(format!("-c search_path={schema}"));
    config
        .application_name("loadgen")
        .connect_timeout(CONNECT_WITHIN);
    let tried = tried_with(&config);
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let pool = Pool::builder(Manager::from_config(config, NoTls, recycling))
        .max_size(CONNECTIONS)
        .build()
        .map_err(|error| unusable(&name, &error.to_string()))?;
    let schema = schema.to_owned();
    Server::open(name, Postgres { pool, schema }, rules, &tried)
}

impl Connections for Postgres {
    async fn create(&self, rules: Rules) -> Result<(), Trouble> {
        let client = self.pool.get().await?;
        // Without IF NOT EXISTS, a user who may not create schemas could not use one there is.
        client
            .batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", self.schema))
            .await?;
        client.batch_execute(TABLES).await?;
        if rules.unique_key {
            client.batch_execute(UNIQUE).await?;
        }
        Ok(())
    }

    async fn fact(&self, name: &str) -> Result<Option<String>, Trouble> {
        let query = "SELECT value FROM sale WHERE name = $1";
        let found = self.pool.get().await?.query_opt(query, &[&name]).await?;
        Ok(found.map(|row| row.get(0)))
    }

    async fn remember(&self, name: &str, value: &str) -> Result<(), Trouble> {
        let statement = "INSERT INTO sale VALUES ($1, $2)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        let client = self.pool.get().await?;
        client.execute(statement, &[&name, &value]).await?;
        Ok(())
    }

    async fn next_offsets(&self) -> Result<BTreeMap<i32, i64>, Trouble> {
        let query = "SELECT partition, next_offset FROM progress";
        let rows = self.pool.get().await?.query(query, &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn transaction(&self, rows: &[Row], rules: Rules) -> Result<u64, Trouble> {
        let next_offsets = offsets_behind(rows);
        let partitions: Vec<i32> = next_offsets.keys().copied().collect();
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        let mut known = BTreeMap::new();
        if rules.exactly_once {
            let statement = transaction.prepare_cached(KNOWN).await?;
            let found = transaction.query(&statement, &[&partitions]).await?;
            known = found.iter().map(|row| (row.get(0), row.get(1))).collect();
        }
        let new = not_yet_permanent(rows, &known);
        let insert = transaction.prepare_cached(INSERT).await?;
        let columns = Columns::of(&new);
        let inserted = transaction
            .execute(
                &insert,
                &[
                    &columns.order_ids,
                    &columns.user_ids,
                    &columns.user_seqs,
                    &columns.items,
                    &columns.amounts,
                    &columns.times,
                    &columns.partitions,
                    &columns.offsets,
                    &columns.started,
                    &columns.finished,
                ],
            )
            .await?;
        if rules.exactly_once {
            let advance = transaction.prepare_cached(ADVANCE).await?;
            let offsets: Vec<i64> = next_offsets.values().copied().collect();
            transaction
                .execute(&advance, &[&partitions, &offsets])
                .await?;
        }
        transaction.commit().await?;
        Ok(columns.order_ids.len() as u64 - inserted)
    }

    async fn ask(&self, question: &str) -> Result<Vec<Option<i64>>, Trouble> {
        let answer = self.pool.get().await?.query_one(question, &[]).await?;
        Ok((0..answer.len()).map(|column| answer.get(column)).collect())
    }

    fn orders_table(&self) -> &str {
        "orders"
    }

    async fn erase(&self) -> Result<(), Trouble> {
        let statement = format!("DROP SCHEMA {} CASCADE", self.schema);
        Ok(self.pool.get().await?.batch_execute(&statement).await?)
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        let passing = error.code().is_none_or(|code| {
            // Class 08: connections; 57P0x: the server stops or starts.
            let class = code.code();
            class.starts_with("08")
                || class.starts_with("57P0")
                || *code == SqlState::T_R_SERIALIZATION_FAILURE
                || *code == SqlState::T_R_DEADLOCK_DETECTED
        });
        let reason = reason(&error);
        match passing {
            true => Self::Away(reason),
            false => Self::Refused(reason),
        }
    }
}

impl From<PoolError> for Trouble {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            other => Self::Away(other.to_string()),
        }
    }
}

/// The error with what is behind it: the driver itself only says "db error".
fn reason(error: &tokio_postgres::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What a connection is tried with, for people.
fn tried_with(config: &Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let hosts: Vec<_> = hosts.collect();
    let ports: Vec<_> = config.get_ports().iter().map(u16::to_string).collect();
    let ports = match ports.is_empty() {
        true => "5432".to_owned(),
        false => ports.join(", "),
    };
    tried(&hosts.join(", "), &ports, config.get_user())
}

/// Rows turned on their side, as `unnest` takes them.
#[derive(Default)]
struct Columns<'a> {
    order_ids: Vec<i64>,
    user_ids: Vec<&'a str>,
    user_seqs: Vec<i64>,
    items: Vec<&'a str>,
    amounts: Vec<i64>,
    times: Vec<i64>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    started: Vec<i64>,
    finished: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(rows: &[&'a Row]) -> Self {
        let mut columns = Self::default();
        let orders = rows
            .iter()
            .filter_map(|row| Some((*row, row.order.as_ref()?)));
        for (row, order) in orders {
            columns.order_ids.push(int8(order.order_id));
            columns.user_ids.push(&order.user_id);
            columns.user_seqs.push(order.user_seq.into());
            columns.items.push(&order.item);
            columns.amounts.push(order.amount_cents.into());
            columns.times.push(int8(order.time_us));
            columns.partitions.push(row.partition);
            columns.offsets.push(row.offset);
            columns.started.push(row.started_ns);
            columns.finished.push(row.finished_ns);
        }
        columns
    }
}

fn int8(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
