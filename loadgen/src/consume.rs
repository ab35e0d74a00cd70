//! The consuming side: one task per group member. It brings records into the lanes of its
//! partitions, pauses those that are full, resumes them below the low watermark, and commits the
//! group's offsets as [`Delivery`] says: before the orders are written, or behind what is permanent
//! in the database. A partition continues where the database says with exactly-once, else where the
//! group has committed. Heartbeats are the feed's affair and go on while partitions are paused.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::dead_letter::Letter;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::lane::Received;
use crate::orders::{Order, POISON_ITEM};
use crate::ports::{Feed, FeedEvent, Record};
use crate::promise::{COMMIT_INTERVAL, Delivery};
use crate::sink::Sink;

/// How often a member that gives a partition up looks whether its rows are permanent.
const LOOK: Duration = Duration::from_millis(5);
/// And for how long.
const PERMANENT_WITHIN: Duration = Duration::from_secs(5);
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
    /// When offsets are committed.
    pub delivery: Delivery,
    /// Orders of [`POISON_ITEM`] are refused.
    pub refuses: bool,
}

impl<S> Clone for Group<S> {
    fn clone(&self) -> Self {
        Self {
            engine: Rc::clone(&self.engine),
            owners: Rc::clone(&self.owners),
            room: Rc::clone(&self.room),
            delivery: self.delivery,
            refuses: self.refuses,
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

/// Works as member number `member` until the sale is over, then leaves the group; or until `dies`
/// resolves, then does nothing any more, not even leave.
///
/// # Errors
/// If the group or the database fails, or the topic holds something that is no order.
pub async fn consume<F: Feed, S: Sink>(
    member: usize,
    mut feed: F,
    group: Group<S>,
    mut over: Over,
    dies: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut commits = interval(COMMIT_INTERVAL);
    commits.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut committed = BTreeMap::new();
    tokio::pin!(dies);
    let work = async {
        loop {
            tokio::select! {
                event = feed.next() => group.handle(member, &mut feed, event?).await?,
                () = &mut dies => {
                    group.died(member);
                    return Ok(());
                }
                () = group.room.notified() => group.resume(member, &mut feed),
                _ = commits.tick() => group.commit(member, &mut feed, &mut committed).await,
            }
        }
    };
    // A broker that does not answer keeps no member when the sale is over.
    tokio::select! {
        ended = work => return ended,
        () = over.wait() => {}
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
    async fn handle<F: Feed>(
        &self,
        member: usize,
        feed: &mut F,
        event: FeedEvent,
    ) -> Result<(), Failure> {
        match event {
            FeedEvent::Records { partition, records } => {
                self.accept(member, feed, partition, records).await?;
            }
            FeedEvent::Assigned(partitions) => self.assigned(member, feed, partitions),
            FeedEvent::Revoked(partitions) => self.revoked(member, feed, partitions).await,
        }
        Ok(())
    }

    fn assigned<F: Feed>(&self, member: usize, feed: &mut F, partitions: Vec<i32>) {
        let mut engine = self.engine.borrow_mut();
        if !partitions.is_empty() {
            engine.rebalanced();
        }
        for partition in partitions {
            self.owners
                .partitions
                .borrow_mut()
                .insert(partition, member);
            match self.delivery {
                Delivery::ExactlyOnce => {
                    engine.revoke(partition);
                    feed.seek(partition, engine.lane(partition).next_offset());
                }
                Delivery::AtLeastOnce => {
                    engine.revoke(partition);
                    engine.lane(partition).begin_again();
                }
                // What the last owner received is written by now, or lost.
                Delivery::AtMostOnce => {}
            }
            // The lane may have asked the last owner for a pause.
            if engine.lane(partition).is_paused() {
                feed.pause(partition);
            }
        }
        self.owners.changed.notify_waiters();
    }

    /// Partitions are handed over: nothing of them may be lost or doubled.
    async fn revoked<F: Feed>(&self, member: usize, feed: &mut F, partitions: Vec<i32>) {
        // A partition may have its next owner already.
        let owned = self.owners.owned_by(member);
        let given_up: Vec<i32> = partitions
            .into_iter()
            .filter(|p| owned.contains(p))
            .collect();
        if !given_up.is_empty() {
            self.engine.borrow_mut().rebalanced();
        }
        // With at-most-once, what was received is written: nobody reads it again.
        if self.delivery != Delivery::AtMostOnce {
            for partition in &given_up {
                self.engine.borrow_mut().revoke(*partition);
            }
        }
        if self.delivery == Delivery::AtLeastOnce {
            let _ = timeout(PERMANENT_WITHIN, self.permanent(&given_up)).await;
            self.commit_done(feed, &given_up, &mut BTreeMap::new())
                .await;
        }
        let mut owners = self.owners.partitions.borrow_mut();
        owners.retain(|partition, owner| *owner != member || !given_up.contains(partition));
    }

    /// Waits until all that was handed out of these partitions is permanent.
    async fn permanent(&self, partitions: &[i32]) {
        let is_held = |partition: &i32| self.engine.borrow_mut().lane(*partition).held() > 0;
        while partitions.iter().any(is_held) {
            sleep(LOOK).await;
        }
    }

    /// The member is dead: what it had received and not handed out is gone with it.
    fn died(&self, member: usize) {
        let mut engine = self.engine.borrow_mut();
        engine.note("a consumer is killed");
        for partition in self.owners.owned_by(member) {
            self.owners.partitions.borrow_mut().remove(&partition);
            match self.delivery {
                Delivery::AtMostOnce => engine.lose(partition),
                Delivery::AtLeastOnce | Delivery::ExactlyOnce => engine.revoke(partition),
            }
        }
    }

    async fn accept<F: Feed>(
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
        if self.delivery == Delivery::AtMostOnce
            && let (Some(first), Some(last)) = (records.first(), records.last())
            && let Err(reason) = feed.commit(&[(partition, last.offset + 1)]).await
        {
            tracing::warn!(%reason, "the group's offsets were not committed");
            feed.seek(partition, first.offset);
            return Ok(());
        }
        let orders = records
            .into_iter()
            .map(|record| read(partition, record, self.refuses));
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
        // With at-most-once they are committed already.
        if self.delivery != Delivery::AtMostOnce {
            self.commit_done(feed, &self.owners.owned_by(member), committed)
                .await;
        }
    }

    /// Commits what is permanent of these partitions, unless it is in `committed` already.
    async fn commit_done<F: Feed>(
        &self,
        feed: &mut F,
        partitions: &[i32],
        committed: &mut BTreeMap<i32, i64>,
    ) {
        let mut offsets = Vec::new();
        for &partition in partitions {
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

fn read(partition: i32, record: Record, refuses: bool) -> Result<Received, Failure> {
    let order: Option<Order> = serde_json::from_slice(&record.value).ok();
    match order.filter(|order| order.user_id.as_bytes() == record.key) {
        Some(order) => Ok(Received {
            offset: record.offset,
            letter: (refuses && order.item == POISON_ITEM).then(|| {
                Box::new(Letter {
                    partition,
                    offset: record.offset,
                    key: record.key,
                    value: record.value,
                    reason: format!("no handler for the item \"{POISON_ITEM}\""),
                    attempts: 0,
                })
            }),
            order,
        }),
        None => Err(Failure::Reason(format!(
            "partition {partition} of the topic holds no order of the sale at offset {}: \
             give the sale a topic of its own",
            record.offset
        ))),
    }
}
