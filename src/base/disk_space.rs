//! How full the disk under the data directory is, and what that means for producers. One
//! [`DiskSpace`] is shared by all shards of a broker: whoever looks tells the others. A [`Room`] is
//! one shard's view of it, which knows when it is time to look again.
//!
//! A part of the disk is kept for what must never fail (`disk.reserve.bytes`): internal topics,
//! deletion, checkpoints. Invariant: what is refused is only what producers send, and it is
//! accepted again by itself when a quarter of the reserve more is free.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Without a setting a twentieth of the disk is kept, and at most this.
const RESERVE_BYTES_MAX: u64 = 1 << 30;

/// How often a shard with something to do looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The same while the disk is full, or a log could not grow.
const LOOK_INTERVAL_FULL: Duration = Duration::from_millis(250);

/// What a file system says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an unprivileged process may still use.
    pub free_bytes: u64,
    /// Its size.
    pub total_bytes: u64,
}

impl Space {
    /// A disk that never fills.
    pub const ENDLESS: Self = Self {
        free_bytes: u64::MAX,
        total_bytes: u64::MAX,
    };
}

/// What the last look at the disk has shown.
#[derive(Debug, Default)]
pub struct DiskSpace {
    free_bytes: AtomicU64,
    total_bytes: AtomicU64,
    reserve_bytes: AtomicU64,
    full: AtomicBool,
}

impl DiskSpace {
    /// Bytes that were free.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// The size of the disk; 0 before the first look.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that are kept from producers.
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes.load(Ordering::Relaxed)
    }

    /// True if less was free, and not a quarter more than that since.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Takes in a look, with `disk.reserve.bytes` (-1: a twentieth of the disk, at most 1 GiB).
    /// Gives whether the disk is full if that has changed; of several shards only one is told.
    pub fn update(&self, space: Space, reserve_setting: i64) -> Option<bool> {
        let default = (space.total_bytes / 20).min(RESERVE_BYTES_MAX);
        let reserve_bytes = u64::try_from(reserve_setting).unwrap_or(default);
        self.free_bytes.store(space.free_bytes, Ordering::Relaxed);
        self.total_bytes.store(space.total_bytes, Ordering::Relaxed);
        self.reserve_bytes.store(reserve_bytes, Ordering::Relaxed);
        let enough = match self.is_full() {
            true => reserve_bytes.saturating_add(reserve_bytes / 4),
            false => reserve_bytes,
        };
        let full = space.free_bytes < enough;
        (self.full.swap(full, Ordering::Relaxed) != full).then_some(full)
    }
}

/// Why producers are refused while the disk is full.
impl fmt::Display for DiskSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the disk is full: {} bytes are free and {} are kept for internal topics and deletion \
             (disk.reserve.bytes); delete records or topics, or wait for retention",
            self.free_bytes(),
            self.reserve_bytes()
        )
    }
}

/// What one shard may append before it has to look at the disk again.
#[derive(Debug)]
pub struct Room {
    /// What all shards know.
    pub space: Arc<DiskSpace>,
    /// Bytes until the next look.
    left_bytes: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Room {
    /// A shard's view before its first look.
    pub fn new(space: Arc<DiskSpace>) -> Self {
        let left_bytes = 0;
        Self { space, left_bytes }
    }

    /// A producer's batch is appended.
    pub fn take(&mut self, bytes: u64) {
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
    }

    /// True if so much was appended that the next look is due before its time.
    pub fn is_used_up(&self) -> bool {
        self.left_bytes == 0
    }

    /// The shard has looked. Half of its share of what is above the reserve may be appended before
    /// it looks again: the fuller the disk, the closer it is watched.
    pub fn on_looked(&mut self, shards: u16) {
        let above = self.space.free_bytes();
        let above = above.saturating_sub(self.space.reserve_bytes());
        self.left_bytes = above / (2 * u64::from(shards.max(1)));
    }

    /// Time from one look to the next one; `stalled` if some log could not grow.
    pub fn look_interval(&self, stalled: bool) -> Duration {
        match stalled || self.space.is_full() {
            true => LOOK_INTERVAL_FULL,
            false => LOOK_INTERVAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(free_bytes: u64, total_bytes: u64) -> Space {
        Space {
            free_bytes,
            total_bytes,
        }
    }

    #[test]
    fn a_twentieth_is_kept_and_of_large_disks_one_gib() {
        for (total, reserve) in [(64 << 20, (64 << 20) / 20), (1 << 40, 1 << 30)] {
            let disk = DiskSpace::default();
            disk.update(space(total, total), -1);
            assert_eq!(disk.reserve_bytes(), reserve);
        }
        let disk = DiskSpace::default();
        disk.update(space(0, 1000), 0);
        assert!(!disk.is_full(), "0 keeps nothing");
    }

    #[test]
    fn full_begins_below_the_reserve_and_ends_a_quarter_above() {
        let disk = DiskSpace::default();
        for (free, changed) in [
            (100, None),
            (99, Some(true)),
            (100, None),
            (124, None),
            (125, Some(false)),
            (100, None),
        ] {
            assert_eq!(disk.update(space(free, 1000), 100), changed, "{free}");
        }
    }

    #[test]
    fn the_fuller_the_disk_the_sooner_the_next_look() {
        let mut room = Room::default();
        assert!(room.is_used_up(), "it has not looked yet");
        room.space.update(space(500, 1000), 100);
        room.on_looked(2);
        room.take(99);
        assert!(!room.is_used_up());
        room.take(99);
        assert!(room.is_used_up());
        room.space.update(space(103, 1000), 100);
        room.on_looked(2);
        assert!(room.is_used_up(), "at once");
    }
}
