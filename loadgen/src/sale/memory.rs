//! A broker and a database in memory that misbehave on request. They exist to show that the verdict
//! sees what happens in the pipeline, not only what a test writes into its facts.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::dead_letter::Letter;
use crate::earlier::{Earlier, Reading};
use crate::failure::Failure;
use crate::orders::{Order, Planned};
use crate::ports::{Feed, FeedEvent, Publisher, Record};
use crate::sink::{Commit, Sink, commit_of};
use crate::store::{Row, Store};

/// The broker's answer takes this long.
const ACK_AFTER: Duration = Duration::from_millis(3);
pub(crate) const RECORDS_MAX: usize = 50;
/// A dead member is noticed after this long.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a member without records looks for partitions.
const LOOK: Duration = Duration::from_millis(100);

/// What goes wrong in the broker.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// The order with this id is acknowledged and not stored.
    Drop(u64),
    /// It is stored twice.
    Double(u64),
    /// The first order changes places with the second.
    Swap(u64, u64),
    /// The order is refused.
    Refuse(u64),
    /// Pausing has no effect.
    IgnorePause,
    /// At this many records the partition is taken from its member and given back.
    Rebalance(usize),
    /// The broker is gone from the first time to the second: nothing is acknowledged or delivered.
    Away(Duration, Duration),
}

/// A partition without an owner.
#[derive(Debug)]
struct Orphan {
    partition: i32,
    /// Nobody gets it before.
    free_at: Instant,
    /// Who gets it; anybody if nobody is named.
    taker: Option<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Broker {
    pub(crate) partitions: RefCell<Vec<Vec<Record>>>,
    fault: Fault,
    held_back: RefCell<Option<Planned>>,
    pub(crate) letters: RefCell<Vec<Letter>>,
    committed: RefCell<BTreeMap<i32, i64>>,
    orphans: RefCell<Vec<Orphan>>,
    /// Partitions that their owners have to give to a member that joins, with its number.
    moving: RefCell<BTreeMap<i32, usize>>,
    stored: Notify,
    begun: Option<Instant>,
}

impl Broker {
    pub(crate) fn new(partitions: usize, fault: Fault) -> Rc<Self> {
        let partitions = RefCell::new(vec![Vec::new(); partitions]);
        Rc::new(Self {
            partitions,
            fault,
            begun: Some(Instant::now()),
            ..Self::default()
        })
    }

    pub(crate) fn earlier(&self, next_offsets: &BTreeMap<i32, i64>) -> Earlier {
        let mut reading = Reading::default();
        let id = |value: &[u8]| serde_json::from_slice::<Order>(value).unwrap().order_id;
        for (partition, log) in (0..).zip(self.partitions.borrow().iter()) {
            for record in log {
                reading.order(id(&record.value), partition, record.offset);
            }
        }
        for letter in self.letters.borrow().iter() {
            reading.letter(id(&letter.value));
        }
        reading.end(next_offsets)
    }

    /// Sends the letters back to where they came from.
    pub(crate) fn replay(&self) {
        let mut partitions = self.partitions.borrow_mut();
        for letter in self.letters.borrow().iter() {
            let log = &mut partitions[letter.partition as usize];
            let (key, value) = (letter.key.clone(), letter.value.clone());
            let offset = log.len() as i64;
            log.push(Record { offset, key, value });
        }
    }

    pub(crate) fn feeds(self: &Rc<Self>, members: usize) -> Vec<MemoryFeed> {
        let partitions = self.partitions.borrow().len();
        let feed = |member| {
            let own = (member..partitions).step_by(members);
            self.feed(member, own.map(|p| (p as i32, 0)).collect())
        };
        (0..members).map(feed).collect()
    }

    fn feed(self: &Rc<Self>, member: usize, positions: BTreeMap<i32, usize>) -> MemoryFeed {
        MemoryFeed {
            broker: Rc::clone(self),
            member,
            positions,
            paused: BTreeSet::new(),
            delivered: 0,
            pending: Vec::new(),
            given_up: Vec::new(),
            joined: false,
        }
    }

    /// A member that takes this partition from its owner.
    pub(crate) fn newcomer(self: &Rc<Self>, member: usize, partition: i32) -> MemoryFeed {
        self.moving.borrow_mut().insert(partition, member);
        self.stored.notify_waiters();
        let mut feed = self.feed(member, BTreeMap::new());
        feed.joined = true;
        feed
    }

    fn store(&self, order: &Planned) {
        let mut partitions = self.partitions.borrow_mut();
        let log = &mut partitions[order.partition as usize];
        let (key, value) = (order.key.clone(), order.value.clone());
        log.push(Record {
            offset: log.len() as i64,
            key,
            value,
        });
        self.stored.notify_waiters();
    }

    /// How long nobody answers any more.
    fn away(&self) -> Duration {
        let now = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        match self.fault {
            Fault::Away(from, to) if now >= from => to.saturating_sub(now),
            _ => Duration::ZERO,
        }
    }

    fn append(&self, order: Planned) {
        match self.fault {
            Fault::Drop(id) if order.order_id == id => {}
            Fault::Double(id) if order.order_id == id => {
                self.store(&order);
                self.store(&order);
            }
            Fault::Swap(first, _) if order.order_id == first => {
                self.held_back.replace(Some(order));
            }
            Fault::Swap(_, second) if order.order_id == second => {
                self.store(&order);
                let first = self.held_back.take().expect("the first comes first");
                self.store(&first);
            }
            _ => self.store(&order),
        }
    }
}

/// Publishes to a broker in memory.
#[derive(Clone, Debug)]
pub(crate) struct MemoryPublisher(pub(crate) Rc<Broker>);

impl Publisher for MemoryPublisher {
    fn send(&self, order: Planned) -> impl Future<Output = Result<(), String>> + use<> + 'static {
        let broker = Rc::clone(&self.0);
        let refused = broker.fault == Fault::Refuse(order.order_id);
        let append = (!refused).then(|| {
            tokio::task::spawn_local(async move {
                sleep(broker.away()).await;
                broker.append(order);
                sleep(ACK_AFTER).await;
            })
        });
        async move {
            match append {
                Some(append) => append.await.map_err(|error| error.to_string()),
                None => Err("refused on request".to_owned()),
            }
        }
    }

    fn bury(&self, letter: &Letter) -> impl Future<Output = Result<(), String>> + use<> + 'static {
        self.0.letters.borrow_mut().push(letter.clone());
        async {
            sleep(ACK_AFTER).await;
            Ok(())
        }
    }
}

/// A member with a fixed assignment, but for what dead ones leave and new ones take.
#[derive(Debug)]
pub(crate) struct MemoryFeed {
    broker: Rc<Broker>,
    member: usize,
    positions: BTreeMap<i32, usize>,
    paused: BTreeSet<i32>,
    delivered: usize,
    pending: Vec<FeedEvent>,
    /// Partitions whose revocation has been told; they are free when the next event is asked for.
    given_up: Vec<Orphan>,
    joined: bool,
}

impl Drop for MemoryFeed {
    /// The group notices by the session timeout.
    fn drop(&mut self) {
        let free_at = Instant::now() + SESSION_TIMEOUT;
        let orphan = |partition: &i32| Orphan {
            partition: *partition,
            free_at,
            taker: None,
        };
        let mut orphans = self.broker.orphans.borrow_mut();
        orphans.extend(self.positions.keys().map(orphan));
    }
}

impl MemoryFeed {
    fn poll(&mut self) -> Option<FeedEvent> {
        if !self.joined {
            self.joined = true;
            return Some(FeedEvent::Assigned(
                self.positions.keys().copied().collect(),
            ));
        }
        if let Some(event) = self.pending.pop() {
            return Some(event);
        }
        if let Some(event) = self.give_up().or_else(|| self.take_over()) {
            return Some(event);
        }
        let logs = self.broker.partitions.borrow();
        for (partition, position) in &mut self.positions {
            let log = &logs[*partition as usize];
            if self.paused.contains(partition) || *position >= log.len() {
                continue;
            }
            let to = log.len().min(*position + RECORDS_MAX);
            let records = log[*position..to].to_vec();
            let before = self.delivered;
            self.delivered += records.len();
            *position = to;
            if let Fault::Rebalance(at) = self.broker.fault
                && (before..self.delivered).contains(&at)
            {
                // Popped from the end: revoked first.
                self.pending = vec![
                    FeedEvent::Assigned(vec![*partition]),
                    FeedEvent::Revoked(vec![*partition]),
                ];
            }
            return Some(FeedEvent::Records {
                partition: *partition,
                records,
            });
        }
        None
    }

    fn give_up(&mut self) -> Option<FeedEvent> {
        self.broker.orphans.borrow_mut().append(&mut self.given_up);
        let mut moving = self.broker.moving.borrow_mut();
        let moved = self
            .positions
            .keys()
            .find(|partition| moving.contains_key(partition));
        let partition = *moved?;
        self.positions.remove(&partition);
        self.given_up.push(Orphan {
            partition,
            free_at: Instant::now(),
            taker: moving.remove(&partition),
        });
        Some(FeedEvent::Revoked(vec![partition]))
    }

    fn take_over(&mut self) -> Option<FeedEvent> {
        let mut orphans = self.broker.orphans.borrow_mut();
        let at = orphans.iter().position(|orphan| {
            let is_free = orphan.free_at <= Instant::now();
            is_free && orphan.taker.is_none_or(|taker| taker == self.member)
        })?;
        let partition = orphans.remove(at).partition;
        let committed = self.broker.committed.borrow();
        let position = committed.get(&partition).copied().unwrap_or(0);
        self.positions.insert(partition, position as usize);
        Some(FeedEvent::Assigned(vec![partition]))
    }
}

impl Feed for MemoryFeed {
    fn records_max(&self) -> usize {
        RECORDS_MAX
    }

    async fn next(&mut self) -> Result<FeedEvent, Failure> {
        loop {
            sleep(self.broker.away()).await;
            if let Some(event) = self.poll() {
                return Ok(event);
            }
            let broker = Rc::clone(&self.broker);
            // Time alone may free a partition.
            let _ = timeout(LOOK, broker.stored.notified()).await;
        }
    }

    fn pause(&mut self, partition: i32) {
        if self.broker.fault != Fault::IgnorePause {
            self.paused.insert(partition);
        }
    }

    fn resume(&mut self, partition: i32) {
        self.paused.remove(&partition);
    }

    fn seek(&mut self, partition: i32, offset: i64) {
        self.positions.insert(partition, offset as usize);
    }

    async fn commit(&mut self, offsets: &[(i32, i64)]) -> Result<(), String> {
        sleep(self.broker.away()).await;
        self.broker
            .committed
            .borrow_mut()
            .extend(offsets.iter().copied());
        Ok(())
    }

    async fn close(mut self) {
        // The next owner need not wait until the group notices.
        self.positions.clear();
    }
}

/// Changes rows before they are written.
pub(crate) type Spoil = Box<dyn FnMut(&mut Vec<Row>)>;

/// A sink without a thread, whose rows are permanent at once: it needs no time, so the clock of a
/// test can be simulated.
pub(crate) struct InlineSink {
    store: Store,
    commits: Vec<Commit>,
    spoil: Spoil,
}

impl InlineSink {
    pub(crate) fn new(store: Store, spoil: Spoil) -> Self {
        Self {
            store,
            commits: Vec::new(),
            spoil,
        }
    }
}

impl Sink for InlineSink {
    fn submit(&mut self, mut rows: Vec<Row>) -> Result<(), Failure> {
        let mut commit = commit_of(&rows);
        (self.spoil)(&mut rows);
        commit.turned_away = self.store.apply(&rows)?;
        self.commits.push(commit);
        Ok(())
    }

    fn committed(&mut self) -> Result<Vec<Commit>, Failure> {
        Ok(std::mem::take(&mut self.commits))
    }

    fn close(self) -> Result<Store, Failure> {
        Ok(self.store)
    }
}
