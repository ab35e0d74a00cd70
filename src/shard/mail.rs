//! The only channel between threads: one bounded lock-free queue per pair of shards, and one from
//! the server to each shard. Mail between two shards stays in order.
//!
//! A full queue never blocks its sender (two shards could wait for each other): what does not fit
//! waits in the sender's overflow and goes out in a later turn. A sleeping receiver is woken by
//! its bell, once per sleep; a receiver that runs is never rung.

use crate::api::controller::Publication;
use crate::api::job::{Answer, Job, Return};
use crate::base::time::Mono;
use crate::base::{PartitionKey, ShardId};
use crate::io::{Accepted, Bell};
use crossbeam::queue::{ArrayQueue, SegQueue};
use crossbeam::utils::CachePadded;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// What one shard tells another.
#[derive(Debug)]
pub enum Mail {
    /// Do this; the answer goes to `to`.
    Ask {
        /// Where the answer goes.
        to: Return,
        /// What to do.
        job: Job,
    },
    /// The answer to an earlier [`Mail::Ask`].
    Answer {
        /// The request that waits for it.
        to: Return,
        /// The answer.
        answer: Answer,
    },
    /// The call's long poll may find more now.
    Wake {
        /// The call, on the receiver's shard.
        call: u64,
    },
    /// The catalog changed; from the controller to everybody.
    Image(Publication),
    /// The sender has opened and dropped partitions up to this image; to the controller.
    Applied {
        /// [`Publication::version`].
        version: u64,
    },
    /// The sender's partition is offline, for this reason.
    Offline(PartitionKey, String),
    /// A new connection that this shard shall serve.
    Adopt(Accepted),
    /// A connection from this address is closed; to the shard that accepted it.
    Closed(IpAddr),
    /// Every shard is ready: accept connections on the own listener.
    Accept,
}

/// What the server tells a shard.
#[derive(Debug)]
pub enum Order {
    /// Take no more requests and close every connection, at the latest by this time.
    Drain {
        /// The end of patience.
        by: Mono,
    },
    /// Every shard is drained: close the logs and end.
    Close,
}

/// Slots of one pair's queue. A full queue is no error, see the module's text.
const QUEUE_SLOTS: usize = 256;

/// State of one shard that the others see.
#[derive(Debug, Default)]
struct Receiver {
    /// Set while the shard is in, or about to enter, a wait that only its bell ends early.
    asleep: CachePadded<AtomicBool>,
    /// Connections it serves.
    connections: CachePadded<AtomicUsize>,
    orders: SegQueue<Order>,
}

/// All queues of one broker; built once, then split into one [`Mailbox`] per shard.
#[derive(Debug)]
pub struct Post {
    receivers: Vec<Arc<Receiver>>,
    /// `queues[from][to]`
    queues: Vec<Vec<Arc<ArrayQueue<Mail>>>>,
}

impl Post {
    /// Queues between `shards` shards.
    pub fn new(shards: u16) -> Self {
        let row = || {
            (0..shards)
                .map(|_| Arc::new(ArrayQueue::new(QUEUE_SLOTS)))
                .collect()
        };
        Self {
            receivers: (0..shards).map(|_| Arc::default()).collect(),
            queues: (0..shards).map(|_| row()).collect(),
        }
    }

    /// The mailbox of one shard, given everybody's bells in shard order.
    pub fn mailbox(&self, shard: ShardId, bells: &[Bell]) -> Mailbox {
        let own = usize::from(shard.0);
        let outbound =
            self.receivers
                .iter()
                .zip(bells)
                .enumerate()
                .map(|(to, (receiver, bell))| Outbound {
                    queue: self.queues[own][to].clone(),
                    overflow: VecDeque::new(),
                    receiver: receiver.clone(),
                    bell: bell.clone(),
                    unrung: false,
                });
        Mailbox {
            shard,
            own: self.receivers[own].clone(),
            inbound: self.queues.iter().map(|row| row[own].clone()).collect(),
            outbound: outbound.collect(),
            sent: 0,
        }
    }

    /// Gives an order from the server's thread.
    pub fn order(&self, shard: ShardId, bell: &Bell, order: Order) {
        self.receivers[usize::from(shard.0)].orders.push(order);
        bell.ring();
    }
}

#[derive(Debug)]
struct Outbound {
    queue: Arc<ArrayQueue<Mail>>,
    overflow: VecDeque<Mail>,
    receiver: Arc<Receiver>,
    bell: Bell,
    /// Something was queued since the receiver was last looked at.
    unrung: bool,
}

impl Outbound {
    fn push(&mut self, mail: Mail) {
        self.unrung = true;
        if !self.overflow.is_empty() {
            self.overflow.push_back(mail);
        } else if let Err(mail) = self.queue.push(mail) {
            self.overflow.push_back(mail);
        }
    }

    fn flush(&mut self) {
        while let Some(mail) = self.overflow.pop_front() {
            self.unrung = true;
            if let Err(mail) = self.queue.push(mail) {
                self.overflow.push_front(mail);
                break;
            }
        }
        if std::mem::take(&mut self.unrung) {
            // Pairs with the fence in `fall_asleep`: either the receiver sees the mail, or this
            // sees that it sleeps.
            fence(Ordering::SeqCst);
            if self.receiver.asleep.swap(false, Ordering::SeqCst) {
                self.bell.ring();
            }
        }
    }
}

/// One shard's end of all its queues.
#[derive(Debug)]
pub struct Mailbox {
    shard: ShardId,
    own: Arc<Receiver>,
    inbound: Vec<Arc<ArrayQueue<Mail>>>,
    outbound: Vec<Outbound>,
    sent: u64,
}

impl Mailbox {
    /// The shard that reads this mailbox.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Number of shards.
    pub fn shards(&self) -> u16 {
        self.outbound.len() as u16
    }

    /// Queues mail; it leaves at the next [`Mailbox::flush`] at the latest.
    pub fn send(&mut self, to: ShardId, mail: Mail) {
        debug_assert_ne!(to, self.shard, "a shard does not write to itself");
        self.sent += 1;
        self.outbound[usize::from(to.0)].push(mail);
    }

    /// Mail queued so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Hands over what waits and wakes receivers that sleep.
    pub fn flush(&mut self) {
        for outbound in &mut self.outbound {
            outbound.flush();
        }
    }

    /// True if some mail could not be handed over yet.
    pub fn is_backed_up(&self) -> bool {
        self.outbound
            .iter()
            .any(|outbound| !outbound.overflow.is_empty())
    }

    /// Moves at most one queue's worth of mail from each sender to `mails`.
    pub fn take(&mut self, mails: &mut Vec<(ShardId, Mail)>) {
        for (from, queue) in self.inbound.iter().enumerate() {
            for _ in 0..QUEUE_SLOTS {
                let Some(mail) = queue.pop() else { break };
                mails.push((ShardId(from as u16), mail));
            }
        }
    }

    /// The server's next order.
    pub fn take_order(&mut self) -> Option<Order> {
        self.own.orders.pop()
    }

    /// Announces a wait. False if mail is there already, and then the shard must not wait.
    pub fn fall_asleep(&mut self) -> bool {
        self.own.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let empty = self.inbound.iter().all(|queue| queue.is_empty()) && self.own.orders.is_empty();
        if !empty {
            self.wake_up();
        }
        empty
    }

    /// The wait is over; nobody needs to ring any more.
    pub fn wake_up(&mut self) {
        self.own.asleep.store(false, Ordering::SeqCst);
    }

    /// The shard with the fewest connections, the first of equals.
    pub fn least_loaded(&self) -> ShardId {
        let load = |outbound: &Outbound| outbound.receiver.connections.load(Ordering::Relaxed);
        let least = self
            .outbound
            .iter()
            .enumerate()
            .min_by_key(|(_, outbound)| load(outbound));
        ShardId(least.map_or(0, |(shard, _)| shard as u16))
    }

    /// Connections on all shards.
    pub fn connections(&self) -> usize {
        let load = |outbound: &Outbound| outbound.receiver.connections.load(Ordering::Relaxed);
        self.outbound.iter().map(load).sum()
    }

    /// Counts a connection that was given to `shard`.
    pub fn connection_placed(&self, shard: ShardId) {
        let receiver = &self.outbound[usize::from(shard.0)].receiver;
        receiver.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an end of one of the own connections.
    pub fn connection_closed(&self) {
        self.own.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::BellKind;

    fn bells(shards: u16) -> Vec<Bell> {
        let flag = || Bell(Arc::new(BellKind::Simulated(AtomicBool::new(false))));
        (0..shards).map(|_| flag()).collect()
    }

    fn rung(bell: &Bell) -> bool {
        match &*bell.0 {
            BellKind::Simulated(flag) => flag.swap(false, Ordering::SeqCst),
            BellKind::EventFd(_) => unreachable!("the tests use flags"),
        }
    }

    fn calls(mailbox: &mut Mailbox) -> Vec<u64> {
        let mut mails = Vec::new();
        mailbox.take(&mut mails);
        let call = |(_, mail)| match mail {
            Mail::Wake { call } => call,
            other => panic!("unexpected {other:?}"),
        };
        mails.into_iter().map(call).collect()
    }

    #[test]
    fn mail_beyond_the_queue_waits_and_stays_in_order() {
        let (post, bells) = (Post::new(2), bells(2));
        let mut sender = post.mailbox(ShardId(0), &bells);
        let mut receiver = post.mailbox(ShardId(1), &bells);
        let total = 3 * QUEUE_SLOTS as u64;
        for call in 0..total {
            sender.send(ShardId(1), Mail::Wake { call });
        }
        assert!(sender.is_backed_up());
        let mut seen = calls(&mut receiver);
        // There is room now, and others wait for it.
        sender.send(ShardId(1), Mail::Wake { call: total });
        while seen.len() <= total as usize {
            sender.flush();
            seen.extend(calls(&mut receiver));
        }
        assert_eq!(seen, (0..=total).collect::<Vec<_>>());
        assert!(!sender.is_backed_up());
    }

    #[test]
    fn only_a_sleeping_receiver_is_rung_and_once() {
        let (post, bells) = (Post::new(2), bells(2));
        let mut sender = post.mailbox(ShardId(0), &bells);
        let mut receiver = post.mailbox(ShardId(1), &bells);
        sender.send(ShardId(1), Mail::Wake { call: 1 });
        sender.flush();
        assert!(!rung(&bells[1]), "it was awake");
        assert!(!receiver.fall_asleep(), "mail is there");
        assert_eq!(calls(&mut receiver), [1]);
        assert!(receiver.fall_asleep());
        sender.send(ShardId(1), Mail::Wake { call: 2 });
        sender.flush();
        assert!(rung(&bells[1]));
        sender.send(ShardId(1), Mail::Wake { call: 3 });
        sender.flush();
        assert!(!rung(&bells[1]), "once per sleep");
        assert_eq!(calls(&mut receiver), [2, 3]);
        assert!(receiver.fall_asleep());
        receiver.wake_up();
        sender.send(ShardId(1), Mail::Wake { call: 4 });
        sender.flush();
        assert!(!rung(&bells[1]), "it woke up by itself");
    }

    #[test]
    fn an_order_is_rung_for_and_keeps_its_shard_awake() {
        let (post, bells) = (Post::new(2), bells(2));
        let mut mailbox = post.mailbox(ShardId(1), &bells);
        post.order(ShardId(1), &bells[1], Order::Close);
        assert!(rung(&bells[1]) && !rung(&bells[0]));
        assert!(!mailbox.fall_asleep());
        assert!(matches!(mailbox.take_order(), Some(Order::Close)));
        assert!(mailbox.take_order().is_none() && mailbox.fall_asleep());
    }

    #[test]
    fn connections_go_to_the_least_loaded() {
        let (post, bells) = (Post::new(3), bells(3));
        let mailboxes: Vec<_> = (0..3).map(|n| post.mailbox(ShardId(n), &bells)).collect();
        for expected in [0, 1, 2, 0] {
            let shard = mailboxes[0].least_loaded();
            assert_eq!(shard, ShardId(expected));
            mailboxes[0].connection_placed(shard);
        }
        mailboxes[2].connection_closed();
        assert_eq!(mailboxes[0].least_loaded(), ShardId(2));
    }
}
