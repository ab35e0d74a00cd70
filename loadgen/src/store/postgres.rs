//! PostgreSQL, through a pool of connections: the partitions of a batch are spread over them, each
//! connection inserts its rows with one prepared statement and moves their offsets in the same
//! transaction. The schema is created here. A server that goes away is tried again with growing
//! pauses, as a consumer would; rows whose transaction may have ended unseen are recognised by the
//! offset kept beside them.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use super::{Audit, Row, Rules};
use crate::failure::Failure;

/// Connections, and so transactions at once.
const CONNECTIONS: usize = 4;
/// A server that does not take a connection for so long is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A server that was there may be away for so long.
const RETRY_WITHIN: Duration = Duration::from_secs(30);
/// The first pause before it is tried again; it doubles up to the second.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

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

/// A pool of connections and the runtime that drives them.
#[derive(Debug)]
pub struct Postgres {
    pool: Pool,
    /// Shut down without waiting when the store is dropped, which may happen inside a task.
    runtime: Option<Runtime>,
    rules: Rules,
    schema: String,
    /// The address, for people.
    name: String,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What goes wrong with a statement.
enum Trouble {
    /// The server is away or takes nothing for the moment.
    Away(String),
    /// It will say the same again.
    Refused(String),
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

impl Trouble {
    fn reason(self) -> String {
        match self {
            Self::Away(reason) | Self::Refused(reason) => reason,
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

/// The address without the password, as `user@host/database`.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (credentials, place) = rest.split_once('@').unwrap_or(("", rest));
    match credentials.split(':').next().unwrap_or_default() {
        "" => format!("{scheme}://{place}"),
        user => format!("{scheme}://{user}@{place}"),
    }
}

impl Postgres {
    /// Connects to the server and creates the schema and its tables.
    pub(super) fn open(url: &str, schema: &str, rules: Rules) -> Result<Self, Failure> {
        let name = without_password(url);
        let refuse =
            |why: &str| Failure::Database(format!("cannot use {name} as the database: {why}"));
        let mut config: Config = url.parse().map_err(|error| refuse(&reason(&error)))?;
        config.options(format!("-c search_path={schema}"));
        config
            .application_name("loadgen")
            .connect_timeout(CONNECT_WITHIN);
        let tried = tried(&config);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| refuse(&error.to_string()))?;
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let pool = Pool::builder(Manager::from_config(config, NoTls, recycling))
            .max_size(CONNECTIONS)
            .build()
            .map_err(|error| refuse(&error.to_string()))?;
        let create = async {
            let client = pool.get().await?;
            // Without IF NOT EXISTS, a user who may not create schemas could not use one there is.
            client
                .batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}"))
                .await?;
            client.batch_execute(TABLES).await?;
            if rules.unique_key {
                client.batch_execute(UNIQUE).await?;
            }
            Ok::<_, Trouble>(())
        };
        let created = runtime.block_on(create);
        created.map_err(|trouble| refuse(&format!("{} (tried {tried})", trouble.reason())))?;
        Ok(Self {
            pool,
            runtime: Some(runtime),
            rules,
            schema: schema.to_owned(),
            name,
        })
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Failure> {
        let runtime = self.runtime.as_ref().expect("taken by drop only");
        runtime.block_on(work).map_err(|trouble| {
            Failure::Database(format!(
                "the database {} failed: {}",
                self.name,
                trouble.reason()
            ))
        })
    }

    pub(super) fn fact(&self, name: &str) -> Result<Option<String>, Failure> {
        self.wait(async {
            let query = "SELECT value FROM sale WHERE name = $1";
            let found = self.pool.get().await?.query_opt(query, &[&name]).await?;
            Ok(found.map(|row| row.get(0)))
        })
    }

    pub(super) fn remember(&self, name: &str, value: &str) -> Result<(), Failure> {
        self.wait(async {
            let statement = "INSERT INTO sale VALUES ($1, $2)
                ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            self.pool
                .get()
                .await?
                .execute(statement, &[&name, &value])
                .await?;
            Ok(())
        })
    }

    pub(super) fn next_offsets(&self) -> Result<BTreeMap<i32, i64>, Failure> {
        self.wait(async {
            let query = "SELECT partition, next_offset FROM progress";
            let rows = self.pool.get().await?.query(query, &[]).await?;
            Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        })
    }

    pub(super) fn apply(&mut self, rows: &[Row]) -> Result<u64, Failure> {
        let mut shares = BTreeMap::<usize, Vec<Row>>::new();
        for row in rows {
            let share = row.partition.unsigned_abs() as usize % CONNECTIONS;
            shares.entry(share).or_default().push(row.clone());
        }
        self.wait(async {
            let mut transactions = JoinSet::new();
            for share in shares.into_values() {
                transactions.spawn(apply_share(self.pool.clone(), share, self.rules));
            }
            let mut turned_away = 0;
            while let Some(ended) = transactions.join_next().await {
                turned_away += ended.map_err(|error| Trouble::Refused(error.to_string()))??;
            }
            Ok(turned_away)
        })
    }

    pub(super) fn audit(&self, orders: u64, writes_per_s: u32) -> Result<Audit, Failure> {
        let (orders, behind) = (
            int8(orders),
            i32::try_from(writes_per_s).unwrap_or(i32::MAX),
        );
        self.wait(async {
            let client = self.pool.get().await?;
            let counts = "SELECT count(*),
                    count(DISTINCT CASE WHEN order_id BETWEEN 1 AND $1 THEN order_id END),
                    count(*) FILTER (WHERE order_id NOT BETWEEN 1 AND $1)
                FROM orders";
            let counts = client.query_one(counts, &[&orders]).await?;
            let violations = "SELECT count(*) FROM (
                    SELECT applied, started_ns,
                        lag(applied) OVER earlier AS applied_before,
                        lag(finished_ns) OVER earlier AS finished_before
                    FROM orders
                    WINDOW earlier AS (PARTITION BY user_id ORDER BY user_seq, applied)) AS pairs
                WHERE applied < applied_before OR started_ns < finished_before";
            let violations = client.query_one(violations, &[]).await?;
            let fastest = "SELECT min(started_ns - started_before) FROM (
                    SELECT started_ns,
                        lag(started_ns, $1) OVER (ORDER BY started_ns) AS started_before
                    FROM orders) AS spans";
            let fastest = client.query_one(fastest, &[&behind]).await?;
            Ok(Audit {
                rows: count(counts.get(0)),
                distinct: count(counts.get(1)),
                unknown: count(counts.get(2)),
                order_violations: count(violations.get(0)),
                fastest_second_ns: fastest.get(0),
            })
        })
    }

    pub(super) fn writes_between(&self, from_ns: i64, to_ns: i64) -> Result<u64, Failure> {
        self.wait(async {
            let query = "SELECT count(*) FROM orders WHERE started_ns >= $1 AND started_ns < $2";
            let found = self
                .pool
                .get()
                .await?
                .query_one(query, &[&from_ns, &to_ns])
                .await?;
            Ok(count(found.get(0)))
        })
    }

    pub(super) fn erase(self) -> Result<(), Failure> {
        self.wait(async {
            let statement = format!("DROP SCHEMA {} CASCADE", self.schema);
            Ok(self.pool.get().await?.batch_execute(&statement).await?)
        })
    }
}

/// What a connection is tried with, for people.
fn tried(config: &Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let ports: Vec<_> = config.get_ports().iter().map(u16::to_string).collect();
    format!(
        "host {}, port {}, user {}, without TLS, for {} s",
        hosts.collect::<Vec<_>>().join(", "),
        if ports.is_empty() {
            "5432".to_owned()
        } else {
            ports.join(", ")
        },
        config.get_user().unwrap_or("of the system"),
        CONNECT_WITHIN.as_secs(),
    )
}

/// One connection's rows, until they are permanent or the server has been away for too long.
async fn apply_share(pool: Pool, rows: Vec<Row>, rules: Rules) -> Result<u64, Trouble> {
    let begun = Instant::now();
    let mut backoff = BACKOFF;
    loop {
        let tried = async { transaction(pool.get().await?, &rows, rules).await };
        match tried.await {
            Err(Trouble::Away(reason)) if begun.elapsed() < RETRY_WITHIN => {
                tracing::warn!(%reason, "the database is tried again");
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            Err(Trouble::Away(reason)) => {
                let for_s = RETRY_WITHIN.as_secs();
                return Err(Trouble::Away(format!(
                    "{reason} (tried again for {for_s} s)"
                )));
            }
            ended => return ended,
        }
    }
}

async fn transaction(mut client: Object, rows: &[Row], rules: Rules) -> Result<u64, Trouble> {
    let mut next_offsets = BTreeMap::new();
    for row in rows {
        next_offsets.insert(row.partition, row.offset + 1);
    }
    let partitions: Vec<i32> = next_offsets.keys().copied().collect();
    let transaction = client.transaction().await?;
    let mut known = BTreeMap::<i32, i64>::new();
    if rules.exactly_once {
        let statement = transaction.prepare_cached(KNOWN).await?;
        let found = transaction.query(&statement, &[&partitions]).await?;
        known.extend(
            found
                .iter()
                .map(|row| (row.get::<_, i32>(0), row.get::<_, i64>(1))),
        );
    }
    // What an earlier attempt has made permanent without our hearing of it.
    let is_new = |row: &&Row| {
        known
            .get(&row.partition)
            .is_none_or(|next| row.offset >= *next)
    };
    let new: Vec<&Row> = rows.iter().filter(is_new).collect();
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

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_left_out_of_the_name() {
        for (url, name) in [
            ("postgres://a:b@h:5/d", "postgres://a@h:5/d"),
            ("postgres://a@h/d", "postgres://a@h/d"),
            ("postgres://h/d", "postgres://h/d"),
            ("postgresql:///d?host=/run", "postgresql:///d?host=/run"),
        ] {
            assert_eq!(without_password(url), name);
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_named_with_what_was_tried() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let url = format!("postgres://shop:secret@127.0.0.1:{port}/orders");
        let failure = Postgres::open(&url, "s", Rules::default()).unwrap_err();
        let failure = failure.to_string();
        let tried = format!("tried host 127.0.0.1, port {port}, user shop");
        assert!(
            failure.contains(&tried) && !failure.contains("secret"),
            "{failure}"
        );
        assert!(
            failure.contains("onnection refused") && !failure.contains('\n'),
            "{failure}"
        );
    }
}
