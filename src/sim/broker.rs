//! The broker under test: whole shards as in production, driven one at a time in an order that the
//! seed decides, with crashes and restarts. What the server's threads do in production (start,
//! drain, close, mark) is done here step by step.

use super::io::{SharedWorld, SimDir, SimIo};
use crate::base::dir::Dir;
use crate::base::{Mono, NodeId, ShardId};
use crate::catalog::Identity;
use crate::data_dir;
use crate::io::Bell;
use crate::shard::mail::{Order, Post};
use crate::shard::{Life, Settings, Shard};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Memory for requests of a simulated shard: so little that connections wait for it.
const REQUEST_MEMORY_BYTES_MAX: usize = 256 * 1024;

/// Rounds of syncs at once of a simulated shard.
const SYNCS_MAX: usize = 256;

/// Time from an order to stop to its end; longer is a hang.
const STOP_MS_MAX: i64 = 5_000;

/// How far a broker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Opening its logs.
    Starting,
    /// Every shard is ready.
    Serving,
    /// Ordered to stop.
    Draining,
    /// Ordered to close its logs.
    Closing,
    /// It has ended; nothing runs.
    Closed,
}

/// A running broker.
pub struct Broker {
    world: SharedWorld,
    post: Post,
    bells: Vec<Bell>,
    seats: Vec<Seat>,
    phase: Phase,
    /// When the phase must be over.
    by: Option<Mono>,
}

struct Seat {
    shard: Shard<SimIo>,
    /// When it must be woken; unset while it runs.
    asleep_until: Mono,
}

impl Broker {
    /// Starts a broker; it is opened up by the first turns.
    ///
    /// # Errors
    /// The catalog cannot be opened.
    pub fn start(
        world: &SharedWorld,
        shards: u16,
        seed: u64,
        settings: &BTreeMap<String, String>,
    ) -> io::Result<Self> {
        let bells = world.borrow_mut().begin_run(shards);
        let fresh = world.borrow().run == 1;
        let mut root = SimDir::root(world.clone());
        root.sync_dir()?;
        let (clean, leader_epoch) = data_dir::begin_run(&mut root, fresh)?;
        let settings = Settings {
            identity: Identity {
                cluster_id: "simulated".to_owned(),
                node_id: NodeId(1),
                advertised: None,
                ports_per_shard: Vec::new(),
                static_settings: settings.clone(),
            },
            data_dir: "/simulated".to_owned(),
            leader_epoch,
            clean,
            seed,
            request_memory_bytes_max: REQUEST_MEMORY_BYTES_MAX,
            group_memory_bytes_max: usize::MAX,
            connections_max: usize::MAX,
            connections_max_by_files: usize::MAX,
            syncs_max: SYNCS_MAX,
            stats: Arc::default(),
            space: Arc::default(),
        };
        let post = Post::new(shards);
        let mut seats = Vec::new();
        for index in 0..shards {
            let mailbox = post.mailbox(ShardId(index), &bells);
            let io = SimIo::new(world.clone(), usize::from(index));
            let mut shard = Shard::new(io, mailbox, settings.clone());
            shard.start()?;
            let asleep_until = shard.fall_asleep();
            seats.push(Seat {
                shard,
                asleep_until,
            });
        }
        Ok(Self {
            world: world.clone(),
            post,
            bells,
            seats,
            phase: Phase::Starting,
            by: None,
        })
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Its shards.
    pub fn shards(&self) -> impl Iterator<Item = &Shard<SimIo>> {
        self.seats.iter().map(|seat| &seat.shard)
    }

    /// The shards that have something to do.
    pub fn awake(&self) -> Vec<usize> {
        let world = self.world.borrow();
        let awake = |index: &usize| {
            let seat = &self.seats[*index];
            let due = seat.asleep_until <= world.now || world.is_awake(*index);
            due && seat.shard.life() != Life::Closed
        };
        (0..self.seats.len()).filter(awake).collect()
    }

    /// When the next shard has something to do, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Mono> {
        let open = |seat: &&Seat| seat.shard.life() != Life::Closed;
        let seats = self.seats.iter().filter(open);
        seats.map(|seat| seat.asleep_until).min()
    }

    /// Lets one shard take a turn.
    ///
    /// # Errors
    /// What the turn gave.
    pub fn turn(&mut self, index: usize) -> io::Result<()> {
        let seat = &mut self.seats[index];
        seat.shard.wake_up(seat.asleep_until)?;
        check(&seat.shard);
        seat.asleep_until = seat.shard.fall_asleep();
        self.advance();
        Ok(())
    }

    /// Orders a clean stop; connections may take so long to drain.
    pub fn stop(&mut self, patience_ms: i64) {
        let now = self.world.borrow().now;
        self.world.borrow_mut().stopping = true;
        self.phase = Phase::Draining;
        self.by = Some(now.plus_ms(STOP_MS_MAX));
        self.order(|| Order::Drain {
            by: now.plus_ms(patience_ms),
        });
    }

    /// True if it takes longer to stop than it may.
    pub fn is_late(&self) -> bool {
        self.by.is_some_and(|by| by < self.world.borrow().now)
    }

    /// After [`Phase::Closed`]: marks the stop as clean, if it was.
    pub fn finish(&self) -> io::Result<bool> {
        let clean = self.seats.iter().all(|seat| seat.shard.closed_clean());
        if clean {
            data_dir::end_run(&mut SimDir::root(self.world.clone()))?;
        }
        Ok(clean)
    }

    fn advance(&mut self) {
        let least = self.seats.iter().map(|seat| seat.shard.life()).min();
        let least = least.unwrap_or(Life::Closed);
        match self.phase {
            Phase::Starting if least >= Life::Ready => self.phase = Phase::Serving,
            Phase::Draining if least >= Life::Drained => {
                self.phase = Phase::Closing;
                self.order(|| Order::Close);
            }
            Phase::Closing if least >= Life::Closed => self.phase = Phase::Closed,
            _ => {}
        }
    }

    fn order(&self, order: impl Fn() -> Order) {
        for (index, bell) in self.bells.iter().enumerate() {
            self.post.order(ShardId(index as u16), bell, order());
        }
    }
}

/// The machines' own invariants.
fn check(shard: &Shard<SimIo>) {
    shard.check();
    for partition in shard.state().partitions.values() {
        if partition.log.poisoned().is_none() {
            partition.log.check();
        }
    }
}
