//! The memory that requests may take on one shard: a count of bytes, and the queue of connections
//! that wait for some of them. What waits is not read from its socket, so the peer's TCP slows
//! down.
//!
//! - A connection is charged for what it holds: receive buffer, requests under way, replies that
//!   were not taken. Its first 4 KiB are free; the number of connections bounds them.
//! - A frame is admitted as a whole, before more of it is received than is here already. So what
//!   was admitted can finish, whatever others do. What is charged for it is a promise; memory still
//!   follows the bytes that come.
//! - The queue is served in its order, large frames and small ones alike.
//! - If all that is charged belongs to connections in the queue that have nothing under way, the
//!   first of them goes on all the same: nobody else could make room. That is one frame above the
//!   bound at most.

use crate::base::ConnectionId;
use std::collections::VecDeque;

/// The budget of one shard.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    used: usize,
    /// The part of `used` that comes back only if connections in the queue go on.
    stuck: usize,
    /// Those that left it by themselves are still in here.
    queue: VecDeque<ConnectionId>,
}

/// What the budget keeps about one connection.
#[derive(Debug, Default)]
pub struct Account {
    charged: usize,
    /// Requests are under way, or replies: what is charged will come back.
    under_way: bool,
    /// Its part in what is stuck.
    stuck: usize,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Plain,
    /// In the queue, for so many bytes more.
    Waits(usize),
    /// It was let through and has not acted on it yet.
    Granted,
}

impl Account {
    /// Bytes charged for it.
    pub fn charged(&self) -> usize {
        self.charged
    }

    /// True while it is in the queue.
    pub fn waits(&self) -> bool {
        matches!(self.standing, Standing::Waits(_))
    }

    /// True if it was let through and has not used that yet.
    pub fn is_granted(&self) -> bool {
        self.standing == Standing::Granted
    }
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            used: 0,
            stuck: 0,
            queue: VecDeque::new(),
        }
    }

    /// Bytes charged for all connections.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The largest frame that can be admitted. Buffers kept for the next request take at most the
    /// other half, so there is room for it some time.
    pub fn frame_bytes_max(&self) -> usize {
        self.bytes_max / 2
    }

    /// With so much held, a connection with requests under way sends no further one.
    pub fn connection_bytes_max(&self) -> usize {
        self.bytes_max / 8
    }

    /// With so much of it under way in one partition, further requests to append there wait.
    pub fn partition_bytes_max(&self) -> usize {
        self.bytes_max / 4
    }

    /// True if more is held than may be: replies cannot be known before they are made.
    pub fn is_spent(&self) -> bool {
        self.used > self.bytes_max
    }

    /// True if nothing should be kept only because it might serve again.
    pub fn is_tight(&self) -> bool {
        self.used > self.bytes_max / 2 || self.is_awaited()
    }

    /// True if somebody waits.
    pub fn is_awaited(&self) -> bool {
        !self.queue.is_empty()
    }

    /// How many wait; those who have just closed may count.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Charges a connection for what it holds now, instead of what it held before. `under_way` is
    /// true if it waits for replies, or for its peer to take them.
    pub fn charge(&mut self, account: &mut Account, held: usize, under_way: bool) {
        self.used = self.used - account.charged + held;
        (account.charged, account.under_way) = (held, under_way);
        self.count_stuck(account);
    }

    fn count_stuck(&mut self, account: &mut Account) {
        let stuck = match account.waits() && !account.under_way {
            true => account.charged,
            false => 0,
        };
        self.stuck = self.stuck - account.stuck + stuck;
        account.stuck = stuck;
    }

    /// True if a connection may take `wish` bytes more; else it is in the queue afterwards.
    pub fn admits(&mut self, id: ConnectionId, account: &mut Account, wish: usize) -> bool {
        let fits = self.queue.is_empty() && self.used + wish <= self.bytes_max;
        if wish == 0 || fits || account.is_granted() {
            if account.waits() {
                account.standing = Standing::Plain;
                self.count_stuck(account);
            }
            return true;
        }
        self.wait(id, account, wish);
        false
    }

    /// Puts a connection in the queue, for `wish` bytes.
    pub fn wait(&mut self, id: ConnectionId, account: &mut Account, wish: usize) {
        if !account.waits() {
            self.queue.push_back(id);
        }
        account.standing = Standing::Waits(wish);
        self.count_stuck(account);
    }

    /// The first of the queue.
    pub fn first(&self) -> Option<ConnectionId> {
        self.queue.front().copied()
    }

    /// Takes the first off the queue: it is closed, or waits no more.
    pub fn drop_first(&mut self) {
        self.queue.pop_front();
    }

    /// Lets the first of the queue through, whose account this is, if there is room for it now.
    pub fn grant(&mut self, account: &mut Account) -> bool {
        let Standing::Waits(wish) = account.standing else {
            return false;
        };
        if self.used + wish > self.bytes_max && self.used != self.stuck {
            return false;
        }
        self.queue.pop_front();
        account.standing = Standing::Granted;
        self.charge(account, account.charged + wish, account.under_way);
        true
    }

    /// The connection has done what it was let through for.
    pub fn end_grant(account: &mut Account) {
        if account.is_granted() {
            account.standing = Standing::Plain;
        }
    }

    /// A connection is gone.
    pub fn close(&mut self, mut account: Account) {
        self.charge(&mut account, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Connections as the shard has them: those that are let through hold what they wished for.
    struct Table {
        budget: Budget,
        accounts: BTreeMap<ConnectionId, Account>,
    }

    impl Table {
        fn new(bytes_max: usize) -> Self {
            let budget = Budget::new(bytes_max);
            let accounts = (0..6).map(|id| (ConnectionId(id), Account::default()));
            let accounts = accounts.collect();
            Self { budget, accounts }
        }

        fn ask(&mut self, id: u64, wish: usize) -> bool {
            let id = ConnectionId(id);
            let account = self.accounts.get_mut(&id).unwrap();
            let admitted = self.budget.admits(id, account, wish);
            if admitted {
                self.budget.charge(account, account.charged + wish, false);
            }
            admitted
        }

        fn hold(&mut self, id: u64, bytes: usize) {
            let account = self.accounts.get_mut(&ConnectionId(id)).unwrap();
            self.budget.charge(account, bytes, false);
        }

        fn start(&mut self, id: u64) {
            let account = self.accounts.get_mut(&ConnectionId(id)).unwrap();
            self.budget.charge(account, account.charged, true);
        }

        /// Everybody who is let through now.
        fn granted(&mut self) -> Vec<u64> {
            let mut granted = Vec::new();
            while let Some(id) = self.budget.first() {
                let account = self.accounts.get_mut(&id);
                let Some(account) = account.filter(|account| account.waits()) else {
                    self.budget.drop_first();
                    continue;
                };
                if !self.budget.grant(account) {
                    break;
                }
                granted.push(id.0);
                Budget::end_grant(account);
            }
            let sum = self.accounts.values().map(|a| a.charged).sum::<usize>();
            assert_eq!(
                self.budget.used(),
                sum,
                "what is charged is what accounts say"
            );
            let waiting = self.accounts.values().filter(|account| account.waits());
            let stuck = waiting.filter(|account| !account.under_way);
            let stuck = stuck.map(|account| account.charged).sum::<usize>();
            assert_eq!(self.budget.stuck, stuck);
            granted
        }
    }

    #[test]
    fn the_queue_is_served_in_order_and_a_large_frame_is_not_passed() {
        let mut table = Table::new(100);
        assert!(table.ask(0, 60) && table.ask(1, 40));
        assert!(!table.ask(2, 50) && !table.ask(3, 1) && !table.ask(4, 30));
        assert_eq!(table.granted(), [0; 0]);
        table.hold(1, 0);
        assert_eq!(table.granted(), [0; 0], "40 are free, the first wants 50");
        assert!(!table.ask(1, 1), "no newcomer goes before those who wait");
        table.hold(0, 10);
        assert_eq!(table.granted(), [2, 3, 4, 1]);
        assert_eq!(table.budget.used(), 92);
        assert!(table.ask(5, 8), "nobody waits any more");
    }

    #[test]
    fn if_all_who_hold_something_wait_the_first_goes_on() {
        let mut table = Table::new(100);
        assert!(table.ask(0, 50) && table.ask(1, 50));
        table.start(0);
        assert!(!table.ask(0, 20) && !table.ask(1, 20));
        assert_eq!(table.granted(), [0; 0], "what is under way makes room");
        table.hold(0, 50);
        assert_eq!(table.granted(), [0], "one, and only one, above the bound");
        assert_eq!(table.budget.used(), 120);
        assert!(table.budget.is_spent());
        table.hold(0, 0);
        assert_eq!(table.granted(), [1]);
    }

    #[test]
    fn who_closes_leaves_the_queue_and_gives_back_what_it_held() {
        let mut table = Table::new(100);
        assert!(table.ask(0, 80) && table.ask(1, 20));
        assert!(!table.ask(1, 20) && !table.ask(2, 80));
        for id in [1, 0] {
            let account = table.accounts.remove(&ConnectionId(id)).unwrap();
            table.budget.close(account);
        }
        assert_eq!(table.granted(), [2]);
        assert_eq!((table.budget.used(), table.budget.stuck), (80, 0));
        assert!(!table.budget.is_awaited());
    }
}
