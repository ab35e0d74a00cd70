//! Rows on their way into the real database: a thread that turns a stream of finished orders into
//! few transactions, so that neither the client's thread waits for the disk nor the disk for each
//! single row. Rows become durable in the sequence in which they were submitted.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::store::{Row, Store};

/// A transaction gathers rows for this long.
const GATHER: Duration = Duration::from_millis(20);
/// And takes no more than this many.
pub(crate) const ROWS_MAX: usize = 2_000;

/// What one transaction has made permanent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Commit {
    /// Rows by partition.
    pub rows: BTreeMap<i32, usize>,
    /// How many of them were turned away, as the database had their orders.
    pub turned_away: u64,
}

/// Where finished orders go.
pub trait Sink {
    /// Takes rows over; they follow those submitted before.
    ///
    /// # Errors
    /// If the database has failed.
    fn submit(&mut self, rows: Vec<Row>) -> Result<(), Failure>;

    /// The transactions that have ended since the last call; never waits.
    ///
    /// # Errors
    /// If the database has failed.
    fn committed(&mut self) -> Result<Vec<Commit>, Failure>;

    /// Waits for everything submitted and hands the database back.
    ///
    /// # Errors
    /// If the database has failed.
    fn close(self) -> Result<Store, Failure>;
}

/// The sink with a thread of its own.
#[derive(Debug)]
pub struct ThreadSink {
    rows: Sender<Vec<Row>>,
    commits: Receiver<Commit>,
    /// `None` once its failure has been told.
    thread: Option<JoinHandle<Result<Store, Failure>>>,
}

impl ThreadSink {
    /// Starts the thread that owns `store`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(store: Store) -> Result<Self, Failure> {
        let (rows, submitted) = channel();
        let (report, commits) = channel();
        let thread = std::thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || write(store, &submitted, &report))
            .map_err(|error| Failure::Reason(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            rows,
            commits,
            thread: Some(thread),
        })
    }

    /// Waits for the thread, which is ending, and says how it ended.
    fn join(&mut self) -> Result<Store, Failure> {
        let ended_early = || Failure::Reason("the database thread ended early".to_owned());
        let thread = self.thread.take().ok_or_else(ended_early)?;
        thread.join().unwrap_or_else(|_| Err(ended_early()))
    }

    fn failure(&mut self) -> Failure {
        match self.join() {
            Err(failure) => failure,
            Ok(_) => unreachable!("the thread goes on while the sender lives"),
        }
    }
}

impl Sink for ThreadSink {
    fn submit(&mut self, rows: Vec<Row>) -> Result<(), Failure> {
        self.rows.send(rows).map_err(|_| self.failure())
    }

    fn committed(&mut self) -> Result<Vec<Commit>, Failure> {
        let commits = self.commits.try_iter().collect();
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(self.failure());
        }
        Ok(commits)
    }

    fn close(mut self) -> Result<Store, Failure> {
        // The thread ends when nobody can submit any more.
        self.rows = channel().0;
        self.join()
    }
}

/// The thread: gather, commit, report, until the sender is gone.
fn write(
    mut store: Store,
    submitted: &Receiver<Vec<Row>>,
    report: &Sender<Commit>,
) -> Result<Store, Failure> {
    while let Ok(mut rows) = submitted.recv() {
        let until = Instant::now() + GATHER;
        while rows.len() < ROWS_MAX {
            match submitted.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(more) => rows.extend(more),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let turned_away = store.apply(&rows)?;
        // Nobody listens any more while the sink is being closed.
        let _ = report.send(Commit {
            turned_away,
            ..commit_of(&rows)
        });
    }
    Ok(store)
}

/// What a transaction with these rows makes permanent.
pub(crate) fn commit_of(rows: &[Row]) -> Commit {
    let mut commit = Commit::default();
    for row in rows {
        *commit.rows.entry(row.partition).or_default() += 1;
    }
    commit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::Order;
    use crate::store::{Place, Rules};

    fn open(place: &Place) -> Store {
        Store::open(place, Rules::default()).unwrap()
    }

    fn rows(partition: i32, offsets: std::ops::Range<i64>) -> Vec<Row> {
        offsets
            .map(|offset| {
                let order = Order {
                    order_id: offset as u64 + 1,
                    ..Order::default()
                };
                Row {
                    partition,
                    offset,
                    order: Some(order),
                    started_ns: offset,
                    finished_ns: offset,
                }
            })
            .collect()
    }

    #[test]
    fn everything_submitted_is_in_the_database_after_close() {
        let mut sink = ThreadSink::start(Store::memory()).unwrap();
        for at in 0..50 {
            sink.submit(rows(at % 2, i64::from(at) * 10..i64::from(at) * 10 + 10))
                .unwrap();
        }
        let store = sink.close().unwrap();
        assert_eq!(store.audit(500, 1).unwrap().distinct, 500);
        assert_eq!(
            store.next_offsets().unwrap(),
            BTreeMap::from([(0, 490), (1, 500)])
        );
    }

    #[test]
    fn rows_are_reported_once_they_are_permanent() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Sqlite(folder.path().join("sale.db"));
        let mut sink = ThreadSink::start(open(&place)).unwrap();
        sink.submit(rows(3, 0..7)).unwrap();
        let commit = sink.commits.recv().unwrap();
        assert_eq!(
            commit,
            Commit {
                rows: BTreeMap::from([(3, 7)]),
                turned_away: 0,
            }
        );
        assert_eq!(open(&place).audit(7, 1).unwrap().rows, 7);
    }

    #[test]
    fn a_failed_database_is_told_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sale.db");
        let mut sink = ThreadSink::start(open(&Place::Sqlite(path.clone()))).unwrap();
        let spoiler = rusqlite::Connection::open(&path).unwrap();
        spoiler.execute("DROP TABLE orders", []).unwrap();
        sink.submit(rows(0, 0..1)).unwrap();
        assert!(sink.commits.recv().is_err(), "the thread has ended");
        let failure = loop {
            match sink.committed() {
                Ok(none) => assert_eq!(none, []),
                Err(failure) => break failure,
            }
        };
        assert!(failure.to_string().contains("no such table"), "{failure}");
    }
}
