//! The consuming side: one task per group member. It brings records into the lanes of its
//! partitions, pauses those that are full, resumes them below the low watermark, and lets the
//! group's committed offsets follow what is permanent in the database. Heartbeats are the feed's
//! affair and go on while partitions are paused.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::engine::Engine;
use crate::failure::Failure;
use crate::lane::Received;
use crate::orders::Order;
use crate::ports::{Feed, FeedEvent, Record};
use crate::sink::Sink;

/// How often the group's offsets follow the database's.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// A broker that does not let the group go is not waited for any longer.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Which member owns each partition, as the members were told.
#[derive(Debug)]
pub struct Owners {
    partitions: RefCell<BTreeMap<i32, usize>>,
    members: usize,
    count: usize,
    changed: Notify,
}

impl Owners {
    /// Nobody owns any of `count` partitions yet.
    pub fn new(count: usize, members: usize) -> Self {
        let partitions = RefCell::default();
        Self {
            partitions,
            members,
            count,
            changed: Notify::new(),
        }
    }

    /// Waits until every partition has an owner and every member owns a partition: as there are
    /// not more members than partitions, all have joined then.
    pub async fn complete(&self) {
        while !self.is_complete() {
            self.changed.notified().await;
        }
    }

    fn is_complete(&self) -> bool {
        let partitions = self.partitions.borrow();
        let has_one = |member| partitions.values().any(|owner| *owner == member);
        partitions.len() == self.count && (0..self.members).all(has_one)
    }

    fn owned_by(&self, member: usize) -> Vec<i32> {
        let partitions = self.partitions.borrow();
        partitions
            .iter()
            .filter(|(_, owner)| **owner == member)
            .map(|(p, _)| *p)
            .collect()
    }
}

/// What a member shares with the rest of the sale.
#[derive(Debug)]
pub struct Group<S> {
    /// The sale.
    pub engine: Rc<RefCell<Engine<S>>>,
    /// Who owns what.
    pub owners: Rc<Owners>,
    /// Rung when a paused lane has room again.
    pub room: Rc<Notify>,
}

impl<S> Clone for Group<S> {
    fn clone(&self) -> Self {
        Self {
            engine: Rc::clone(&self.engine),
            owners: Rc::clone(&self.owners),
            room: Rc::clone(&self.room),
        }
    }
}

/// Tells when the sale is over.
#[derive(Clone, Debug)]
pub struct Over(pub watch::Receiver<bool>);

impl Over {
    /// Waits until the sale is over, or whoever would say so has gone.
    pub async fn wait(&mut self) {
        let _ = self.0.wait_for(|over| *over).await;
    }
}

/// Works as member number `member` until the sale is over, then leaves the group.
///
/// # Errors
/// If the group or the database fails, or the topic holds something that is no order.
pub async fn consume<F: Feed, S: Sink>(
    member: usize,
    mut feed: F,
    group: Group<S>,
    mut over: Over,
) -> Result<(), Failure> {
    let mut commits = interval(COMMIT_INTERVAL);
    commits.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut committed = BTreeMap::new();
    loop {
        tokio::select! {
            event = feed.next() => group.handle(member, &mut feed, event?)?,
            () = group.room.notified() => group.resume(member, &mut feed),
            _ = commits.tick() => group.commit(member, &mut feed, &mut committed).await,
            () = over.wait() => break,
        }
    }
    let leave = async {
        group.commit(member, &mut feed, &mut committed).await;
        feed.close().await;
    };
    // The sale is over and judged by the database; a broker that has gone changes nothing.
    let _ = timeout(CLOSE_WITHIN, leave).await;
    Ok(())
}

impl<S: Sink> Group<S> {
    fn handle<F: Feed>(
        &self,
        member: usize,
        feed: &mut F,
        event: FeedEvent,
    ) -> Result<(), Failure> {
        match event {
            FeedEvent::Records { partition, records } => {
                self.accept(member, feed, partition, records)?;
            }
            FeedEvent::Assigned(partitions) => {
                let mut engine = self.engine.borrow_mut();
                engine.rebalanced();
                for partition in partitions {
                    self.owners
                        .partitions
                        .borrow_mut()
                        .insert(partition, member);
                    engine.lane(partition).revoke();
                    feed.seek(partition, engine.lane(partition).next_offset());
                }
                self.owners.changed.notify_waiters();
            }
            FeedEvent::Revoked(partitions) => {
                let mut engine = self.engine.borrow_mut();
                engine.rebalanced();
                for partition in partitions {
                    let mut owners = self.owners.partitions.borrow_mut();
                    // A partition may have its next owner already.
                    if owners.get(&partition) == Some(&member) {
                        owners.remove(&partition);
                        engine.lane(partition).revoke();
                    }
                }
            }
        }
        Ok(())
    }

    fn accept<F: Feed>(
        &self,
        member: usize,
        feed: &mut F,
        partition: i32,
        records: Vec<Record>,
    ) -> Result<(), Failure> {
        // What arrives after the partition was taken away, its next owner reads again.
        if self.owners.partitions.borrow().get(&partition) != Some(&member) {
            return Ok(());
        }
        let orders = records.iter().map(|record| read(partition, record));
        let mut engine = self.engine.borrow_mut();
        engine.accept(partition, orders.collect::<Result<_, _>>()?)?;
        if engine.take_pause(partition) {
            feed.pause(partition);
        }
        Ok(())
    }

    fn resume<F: Feed>(&self, member: usize, feed: &mut F) {
        for partition in self.owners.owned_by(member) {
            if self.engine.borrow_mut().lane(partition).take_resume() {
                feed.resume(partition);
            }
        }
    }

    async fn commit<F: Feed>(
        &self,
        member: usize,
        feed: &mut F,
        committed: &mut BTreeMap<i32, i64>,
    ) {
        let mut offsets = Vec::new();
        for partition in self.owners.owned_by(member) {
            let done = self.engine.borrow_mut().lane(partition).done_offset();
            if committed.get(&partition).copied().unwrap_or(0) < done {
                offsets.push((partition, done));
            }
        }
        if offsets.is_empty() {
            return;
        }
        match feed.commit(&offsets).await {
            Ok(()) => committed.extend(offsets),
            Err(reason) => tracing::warn!(%reason, "the group's offsets were not committed"),
        }
    }
}

fn read(partition: i32, record: &Record) -> Result<Received, Failure> {
    let order: Option<Order> = serde_json::from_slice(&record.value).ok();
    match order.filter(|order| order.user_id.as_bytes() == record.key) {
        Some(order) => Ok(Received {
            offset: record.offset,
            order,
        }),
        None => Err(Failure::Broker(format!(
            "partition {partition} of the topic holds no order of the sale at offset {}: \
             give the sale a topic of its own",
            record.offset
        ))),
    }
}
