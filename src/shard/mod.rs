//! The shell of one shard: the only place where machines meet IO.
//!
//! ```text
//! loop {
//!     wait(deadline)            // submit, then block until something ends or the bell rings
//!     apply(event), for all     // completions, mail, orders, deadlines: a closed set
//!     settle()                  // once per turn, in one fixed order, see `settle`
//! }
//! ```
//!
//! One thread owns everything here, so only one thing happens at a time and nothing is locked.
//! The price is that what waits is written down as a value (`api::Flow`, `waiting`) instead of as a
//! stack. Between two turns: every reply that may leave has left, every queued append is written
//! or its partition is offline, and mail is handed over.

mod appending;
mod budget;
mod calls;
mod connection;
mod directories;
mod event;
mod faults;
pub mod mail;
mod partitions;
mod settle;
mod waiting;

use crate::api::controller::{METADATA, Publication};
use crate::api::job::{Answer, Job, Return};
use crate::base::placement::CONTROLLER;
use crate::base::time::Mono;
use crate::base::{ConnectionId, DiskSpace, PartitionKey, Room, ShardId, ShardStats};
use crate::catalog::{Identity, Image};
use crate::io::{Completion, Io, Op};
use crate::state::{Outgoing, ShardState};
use appending::Appending;
use budget::Budget;
use calls::Calls;
use connection::Connection;
use event::{Event, Purpose};
use mail::{Mail, Mailbox};
use settle::Syncing;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use waiting::Waiting;

/// What a shard needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who this node is, with the settings given at start.
    pub identity: Identity,
    /// The data directory, as clients are told.
    pub data_dir: String,
    /// Epoch under which this run appends.
    pub leader_epoch: i32,
    /// The last stop was clean.
    pub clean: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// Bytes of memory that requests may take on this shard.
    pub request_memory_bytes_max: usize,
    /// Bytes of memory that groups may take on this shard.
    pub group_memory_bytes_max: usize,
    /// Connections that the memory of all shards allows.
    pub connections_max: usize,
    /// Connections of all shards that leave descriptors for the logs.
    pub connections_max_by_files: usize,
    /// Rounds of syncs under way at once: each holds its files open.
    pub syncs_max: usize,
    /// This shard's counters.
    pub stats: Arc<ShardStats>,
    /// How full the disk is, as all shards of the broker know it.
    pub space: Arc<DiskSpace>,
}

/// How far a shard's life has come; it only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// Waiting for the catalog, or opening partitions.
    Starting,
    /// Serving.
    Ready,
    /// Ordered to stop: no new requests, waiting for those under way.
    Draining,
    /// Every connection is closed; still serving the other shards.
    Drained,
    /// Every log is closed.
    Closed,
}

/// One shard.
pub struct Shard<I: Io> {
    io: I,
    settings: Settings,
    state: ShardState,
    mailbox: Mailbox,
    life: Life,
    connections: BTreeMap<ConnectionId, Connection>,
    /// The memory that their requests take.
    budget: Budget,
    /// What of it is under way in each partition.
    appending: Appending,
    /// Connections by address, of those that were accepted here, wherever they are served.
    accepted_from: BTreeMap<IpAddr, u32>,
    calls: Calls,
    waiting: Waiting,
    /// Partitions with a round of syncs under way.
    syncing: BTreeMap<PartitionKey, Syncing>,
    /// Partitions with written data that is not synced.
    unsynced: BTreeSet<PartitionKey>,
    /// Partitions where a round of syncs may be due: somebody waits, or it is time.
    sync_due: BTreeSet<PartitionKey>,
    /// Those of them whose files could not be opened, until the next look at what is unsynced.
    sync_put_off: BTreeSet<PartitionKey>,
    /// This has been told.
    sync_lacks_files: bool,
    /// The last one of them that was looked at.
    synced_last: PartitionKey,
    /// Partitions whose high watermark may have moved.
    advanced: BTreeSet<PartitionKey>,
    /// Connections to be looked at in this turn: frames to start, replies to send.
    touched: BTreeSet<ConnectionId>,
    /// By shard, the catalog version it works with; kept on the controller.
    applied: Vec<u64>,
    accepting: bool,
    /// Directories of deleted partitions, to be removed.
    doomed: Vec<String>,
    /// Files of syncs under way, by the number of their round.
    rounds: BTreeMap<u64, PartitionKey>,
    closed_clean: bool,
    /// Partitions whose queue found no room on the disk.
    stalled: BTreeSet<PartitionKey>,
    /// Partitions whose log found no room to be opened in.
    unopened: BTreeSet<PartitionKey>,
    /// Why the broker must stop, if it must.
    fatal: Option<io::Error>,
    /// When the disk is looked at next.
    look_at: Mono,
    drain_by: Mono,
    flush_at: Mono,
    sweep_at: Mono,
    retain_at: Mono,
    next_id: u64,
    completions: Vec<Completion>,
    /// Empty, kept for its memory.
    spare_outbox: Vec<Outgoing>,
}

impl<I: Io> Shard<I> {
    /// A shard that has not started.
    pub fn new(mut io: I, mailbox: Mailbox, settings: Settings) -> Self {
        let now = io.now();
        let mut state = ShardState::new(
            (mailbox.shard(), mailbox.shards()),
            now,
            settings.leader_epoch,
            settings.data_dir.clone(),
            Arc::new(Image::new(settings.identity.clone())),
            settings.seed,
        );
        state.room = Room::new(settings.space.clone());
        state.group_bytes_max = settings.group_memory_bytes_max;
        let retain_at = now.mono + retention_check_interval(&state);
        let budget = Budget::new(settings.request_memory_bytes_max);
        Self {
            io,
            state,
            life: Life::Starting,
            connections: BTreeMap::new(),
            appending: Appending::new(budget.partition_bytes_max()),
            budget,
            accepted_from: BTreeMap::new(),
            calls: Calls::default(),
            waiting: Waiting::default(),
            syncing: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            sync_due: BTreeSet::new(),
            sync_put_off: BTreeSet::new(),
            sync_lacks_files: false,
            synced_last: METADATA,
            advanced: BTreeSet::new(),
            touched: BTreeSet::new(),
            applied: vec![0; usize::from(mailbox.shards())],
            accepting: false,
            doomed: Vec::new(),
            rounds: BTreeMap::new(),
            closed_clean: true,
            stalled: BTreeSet::new(),
            unopened: BTreeSet::new(),
            fatal: None,
            look_at: now.mono,
            drain_by: Mono::default(),
            flush_at: now.mono,
            sweep_at: now.mono,
            retain_at,
            next_id: 0,
            completions: Vec::new(),
            spare_outbox: Vec::new(),
            mailbox,
            settings,
        }
    }

    /// Loads the catalog, if this shard is its controller. Everybody else waits for it by mail.
    pub fn start(&mut self) -> io::Result<()> {
        if self.state.shard == CONTROLLER {
            if !self.settings.clean {
                // What the last process wrote is in the page cache, and may have got no further.
                self.sync_before_reading()?;
            }
            let publication = self.open_catalog()?;
            self.publish(publication);
        }
        Ok(())
    }

    fn accept(&mut self) {
        self.io.submit(Purpose::Accept.token(), Op::Accept);
    }

    /// After [`Life::Closed`]: true if every log was opened and closed cleanly.
    pub fn closed_clean(&self) -> bool {
        self.closed_clean
    }

    /// The machine under it.
    pub fn io(&mut self) -> &mut I {
        &mut self.io
    }

    /// Everything it owns, to look at.
    pub fn state(&self) -> &ShardState {
        &self.state
    }

    /// How far its life has come.
    pub fn life(&self) -> Life {
        self.life
    }

    /// When [`Shard::turn`] must be called at the latest, even if nothing happens.
    pub fn next_deadline(&self) -> Mono {
        let now = self.state.now.mono;
        let busy = !self.touched.is_empty()
            || !self.state.queued.is_empty()
            || !self.state.outbox.is_empty()
            || !self.doomed.is_empty()
            || self.appending.is_ready()
            || (!self.sync_due.is_empty() && self.syncing.len() < self.settings.syncs_max)
            || self.mailbox.is_backed_up();
        if busy {
            return now;
        }
        let mut deadline = self.sweep_at.min(self.retain_at);
        if !self.unsynced.is_empty() {
            deadline = deadline.min(self.flush_at);
        }
        if let Some(look) = self.next_look() {
            deadline = deadline.min(look);
        }
        if let Some(parked) = self.calls.next_deadline() {
            deadline = deadline.min(parked);
        }
        if let Some(timer) = self.state.next_deadline() {
            deadline = deadline.min(timer);
        }
        deadline
    }

    /// One turn of the loop.
    ///
    /// # Errors
    /// The machine cannot wait any more, or the log of the catalog has failed: the broker must end.
    pub fn turn(&mut self) -> io::Result<()> {
        let deadline = self.fall_asleep();
        self.wake_up(deadline)
    }

    /// The first half of a turn: from here on other shards ring the bell. Gives the time by which
    /// [`Shard::wake_up`] must be called; in the past if there is something to do already.
    pub fn fall_asleep(&mut self) -> Mono {
        match self.mailbox.fall_asleep() {
            true => self.next_deadline(),
            false => Mono::default(),
        }
    }

    /// The second half of a turn: waits, until `deadline` at the longest, and does what has come.
    pub fn wake_up(&mut self, deadline: Mono) -> io::Result<()> {
        let mut completions = std::mem::take(&mut self.completions);
        self.io.wait(Some(deadline), &mut completions)?;
        self.mailbox.wake_up();
        self.state.now = self.io.now();
        self.watch_disk();
        let stats = &self.settings.stats;
        stats.turns.add(1);
        stats.completions.add(completions.len() as u64);
        for completion in completions.drain(..) {
            self.apply(Event::Io(completion));
        }
        self.completions = completions;
        let mut mails = Vec::new();
        self.mailbox.take(&mut mails);
        self.settings.stats.mail_in.add(mails.len() as u64);
        for (from, mail) in mails {
            self.apply(Event::Mail(from, mail));
        }
        while let Some(order) = self.mailbox.take_order() {
            self.apply(Event::Order(order));
        }
        self.apply(Event::Deadline);
        self.settle();
        match self.fatal.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Asks the owner of something; the answer comes to [`Shard::deliver`].
    fn ask(&mut self, owner: ShardId, to: Return, job: Job) {
        match owner == self.state.shard {
            true => crate::api::perform(&mut self.state, to, job),
            false => self.mailbox.send(owner, Mail::Ask { to, job }),
        }
    }

    /// Brings an answer to the request that waits for it.
    fn deliver(&mut self, to: Return, answer: Answer) {
        if to.shard != self.state.shard {
            return self.mailbox.send(to.shard, Mail::Answer { to, answer });
        }
        if let Some((flow, facts)) = self.calls.put(to, answer) {
            let begun = flow.resume(&mut self.state, &facts);
            self.go_on(facts, begun);
        }
    }

    /// Hands a new catalog to every shard, this one included.
    fn publish(&mut self, publication: Publication) {
        for shard in 0..self.state.shards {
            let shard = ShardId(shard);
            if shard != self.state.shard {
                self.mailbox.send(shard, Mail::Image(publication.clone()));
            }
        }
        self.apply_image(publication);
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// `log.retention.check.interval.ms`: how often retention looks at the logs.
fn retention_check_interval(state: &ShardState) -> Duration {
    Duration::from_millis(
        state
            .broker
            .retention_check_interval_ms
            .max(1)
            .unsigned_abs(),
    )
}
