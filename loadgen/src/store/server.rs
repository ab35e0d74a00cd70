//! What the database servers have in common: the partitions of a batch are spread over a few
//! connections, each with a transaction of its own; a server that goes away is tried again with
//! growing pauses, as a consumer would; rows whose transaction may have ended unseen are recognised
//! by the offset kept beside them. How a server is spoken to is the matter of its [`Connections`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Database, Row, Rules};
use crate::failure::Failure;
use crate::retry::backoff;

/// Connections, and so transactions at once.
pub(super) const CONNECTIONS: usize = 4;
/// A server that does not take a connection for so long is not there.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A server that was there may be away, or silent, for so long.
const RETRY_WITHIN: Duration = Duration::from_secs(30);
/// Questions about all rows may take so long.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// What goes wrong with a statement.
pub(super) enum Trouble {
    /// The server is away or takes nothing for the moment.
    Away(String),
    /// It will say the same again.
    Refused(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(reason) | Self::Refused(reason) => f.write_str(reason),
        }
    }
}

/// A pool of connections to one kind of server.
pub(super) trait Connections: Clone + fmt::Debug + Send + Sync + 'static {
    /// Creates what is missing.
    async fn create(&self, rules: Rules) -> Result<(), Trouble>;

    /// As [`Database::fact`].
    async fn fact(&self, name: &str) -> Result<Option<String>, Trouble>;

    /// As [`Database::remember`].
    async fn remember(&self, name: &str, value: &str) -> Result<(), Trouble>;

    /// As [`Database::next_offsets`].
    async fn next_offsets(&self) -> Result<BTreeMap<i32, i64>, Trouble>;

    /// Makes the rows that are not yet permanent so, in one transaction with the offsets behind
    /// them. Returns how many were turned away.
    fn transaction(
        &self,
        rows: &[Row],
        rules: Rules,
    ) -> impl Future<Output = Result<u64, Trouble>> + Send;

    /// As [`Database::ask`].
    async fn ask(&self, question: &str) -> Result<Vec<Option<i64>>, Trouble>;

    /// As [`Database::orders_table`].
    fn orders_table(&self) -> &str;

    /// As [`Database::erase`].
    async fn erase(&self) -> Result<(), Trouble>;
}

/// A server: its connections, and the runtime that drives them.
#[derive(Debug)]
pub(super) struct Server<C> {
    connections: C,
    /// Shut down without waiting when the store is dropped, which may happen inside a task.
    runtime: Option<Runtime>,
    rules: Rules,
    /// The address, for people.
    name: String,
}

impl<C> Drop for Server<C> {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl<C: Connections> Server<C> {
    /// Connects to the server and creates what is missing; `tried` says how, for people.
    pub(super) fn open(
        name: String,
        connections: C,
        rules: Rules,
        tried: &str,
    ) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unusable(&name, &error.to_string()))?;
        let created = runtime.block_on(within(CONNECT_WITHIN, connections.create(rules)));
        created.map_err(|trouble| unusable(&name, &format!("{trouble} (tried {tried})")))?;
        Ok(Self {
            connections,
            runtime: Some(runtime),
            rules,
            name,
        })
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Failure> {
        let runtime = self.runtime.as_ref().expect("taken by drop only");
        let ended = runtime.block_on(within(ANSWER_WITHIN, work));
        ended.map_err(|trouble| {
            Failure::Reason(format!("the database {} failed: {trouble}", self.name))
        })
    }
}

impl<C: Connections> Database for Server<C> {
    fn fact(&self, name: &str) -> Result<Option<String>, Failure> {
        self.wait(self.connections.fact(name))
    }

    fn remember(&self, name: &str, value: &str) -> Result<(), Failure> {
        self.wait(self.connections.remember(name, value))
    }

    fn next_offsets(&self) -> Result<BTreeMap<i32, i64>, Failure> {
        self.wait(self.connections.next_offsets())
    }

    fn apply(&mut self, rows: &[Row]) -> Result<u64, Failure> {
        let mut shares = BTreeMap::<usize, Vec<Row>>::new();
        for row in rows {
            let share = row.partition.unsigned_abs() as usize % CONNECTIONS;
            shares.entry(share).or_default().push(row.clone());
        }
        self.wait(async {
            let mut transactions = JoinSet::new();
            for share in shares.into_values() {
                transactions.spawn(apply_share(self.connections.clone(), share, self.rules));
            }
            let mut turned_away = 0;
            while let Some(ended) = transactions.join_next().await {
                turned_away += ended.map_err(|error| Trouble::Refused(error.to_string()))??;
            }
            Ok(turned_away)
        })
    }

    fn ask(&self, question: &str) -> Result<Vec<Option<i64>>, Failure> {
        self.wait(self.connections.ask(question))
    }

    fn orders_table(&self) -> &str {
        self.connections.orders_table()
    }

    fn erase(self: Box<Self>) -> Result<(), Failure> {
        self.wait(self.connections.erase())
    }
}

/// One connection's rows, until they are permanent or the server has been away for too long.
async fn apply_share<C: Connections>(
    connections: C,
    rows: Vec<Row>,
    rules: Rules,
) -> Result<u64, Trouble> {
    let begun = Instant::now();
    let mut attempt = 1;
    loop {
        // A silent server may still be at work on the rows, so they are not sent to it again.
        match within(RETRY_WITHIN, connections.transaction(&rows, rules)).await {
            Err(Trouble::Away(reason)) if begun.elapsed() < RETRY_WITHIN => {
                tracing::warn!(%reason, "the database is tried again");
                sleep(backoff(attempt)).await;
                attempt += 1;
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

/// What a server answers in time.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let silent = |_| Trouble::Away(format!("no answer within {} s", limit.as_secs()));
    timeout(limit, work).await.map_err(silent)?
}

/// The next offset of each partition behind `rows`.
pub(super) fn offsets_behind(rows: &[Row]) -> BTreeMap<i32, i64> {
    let behind = rows.iter().map(|row| (row.partition, row.offset + 1));
    behind.collect()
}

/// Those of `rows` that lie behind the offsets of the database: the others are permanent already,
/// by an attempt that was not heard of.
pub(super) fn not_yet_permanent<'a>(
    rows: &'a [Row],
    next_offsets: &BTreeMap<i32, i64>,
) -> Vec<&'a Row> {
    let is_new = |row: &&Row| {
        next_offsets
            .get(&row.partition)
            .is_none_or(|next| row.offset >= *next)
    };
    rows.iter().filter(is_new).collect()
}

/// A database that cannot be used, and why.
pub(super) fn unusable(name: &str, why: &str) -> Failure {
    Failure::Reason(format!("cannot use {name} as the database: {why}"))
}

/// How a server is connected to, for people.
pub(super) fn tried(hosts: &str, ports: &str, user: Option<&str>) -> String {
    format!(
        "host {hosts}, port {ports}, user {}, without TLS, for {} s",
        user.unwrap_or("of the system"),
        CONNECT_WITHIN.as_secs(),
    )
}

/// The address without the password, as `SCHEME://USER@HOST/DATABASE`.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    // A password may stand behind the place, too; one before it may hold an `@` or a `?`.
    let before_query = rest.split('?').next().unwrap_or_default();
    let is_whole = before_query.contains('@') || !rest.contains('@');
    let rest = if is_whole { before_query } else { rest };
    let (credentials, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let place = place.split('?').next().unwrap_or_default();
    match credentials.split([':', '?']).next().unwrap_or_default() {
        "" => format!("{scheme}://{place}"),
        user => format!("{scheme}://{user}@{place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Place, Store};

    #[test]
    fn the_password_is_left_out_of_the_name() {
        for (url, name) in [
            ("postgres://a:b@h:5/d", "postgres://a@h:5/d"),
            ("mysql://a:b@c@h/d", "mysql://a@h/d"),
            ("postgres://a@h/d", "postgres://a@h/d"),
            ("postgres://h/d", "postgres://h/d"),
            ("postgresql:///d?host=/run", "postgresql:///d"),
            ("postgres://a@h/d?password=b", "postgres://a@h/d"),
            ("postgres://a@h/d?password=b@c", "postgres://a@h/d"),
            ("postgres://h/d?user=a&password=b", "postgres://h/d"),
            ("postgres://a:b?c@h/d?x=y", "postgres://a@h/d"),
        ] {
            assert_eq!(without_password(url), name);
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_named_with_what_was_tried() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        for scheme in ["postgres", "mysql"] {
            let url = format!("{scheme}://shop:secret@127.0.0.1:{port}/orders");
            let place = Place::parse(&url).unwrap();
            let failure = Store::open(&place, Rules::default()).unwrap_err();
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

    #[test]
    fn a_server_that_takes_a_connection_and_never_answers_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for scheme in ["postgres", "mysql"] {
            let place = Place::parse(&format!("{scheme}://shop@127.0.0.1:{port}/orders")).unwrap();
            let (tell, told) = std::sync::mpsc::channel();
            std::thread::spawn(move || tell.send(Store::open(&place, Rules::default()).map(drop)));
            let opened = told.recv_timeout(CONNECT_WITHIN * 3).expect("it hangs");
            let failure = opened.unwrap_err().to_string();
            assert!(failure.contains("within 5 s"), "{failure}");
        }
    }

    /// A server that was there, and goes silent in the middle of a transaction.
    #[derive(Clone, Debug)]
    struct Silent;

    impl Connections for Silent {
        async fn create(&self, _: Rules) -> Result<(), Trouble> {
            Ok(())
        }

        async fn fact(&self, _: &str) -> Result<Option<String>, Trouble> {
            std::future::pending().await
        }

        async fn remember(&self, _: &str, _: &str) -> Result<(), Trouble> {
            std::future::pending().await
        }

        async fn next_offsets(&self) -> Result<BTreeMap<i32, i64>, Trouble> {
            std::future::pending().await
        }

        async fn transaction(&self, _: &[Row], _: Rules) -> Result<u64, Trouble> {
            std::future::pending().await
        }

        async fn ask(&self, _: &str) -> Result<Vec<Option<i64>>, Trouble> {
            std::future::pending().await
        }

        fn orders_table(&self) -> &str {
            "orders"
        }

        async fn erase(&self) -> Result<(), Trouble> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_goes_silent_in_the_sale_is_given_up() {
        let rows = vec![crate::store::tests::row(1, "a", 1, 0)];
        let applied = apply_share(Silent, rows, Rules::default());
        let ended = timeout(RETRY_WITHIN * 3, applied).await.expect("it hangs");
        let Err(Trouble::Away(reason)) = ended else {
            panic!("{:?}", ended.map_err(|trouble| trouble.to_string()));
        };
        assert!(reason.contains("no answer within 30 s"), "{reason}");
    }

    #[test]
    fn rows_before_the_offset_of_the_database_are_permanent_already() {
        let row = |partition, offset| Row {
            partition,
            offset,
            order: None,
            started_ns: 0,
            finished_ns: 0,
        };
        let rows = [row(0, 4), row(0, 5), row(1, 0)];
        assert_eq!(offsets_behind(&rows), BTreeMap::from([(0, 6), (1, 1)]));
        let known = BTreeMap::from([(0, 5)]);
        assert_eq!(not_yet_permanent(&rows, &known), [&rows[1], &rows[2]]);
    }
}
