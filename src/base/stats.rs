//! What a shard counts about itself. One writer, the shard's own thread; anybody may read, and sees
//! each number as it was a moment ago. A count is a plain load and a store: no locked instruction,
//! no cache line shared with another shard.
//!
//! Not owned: names, units and help texts, which the control thread gives them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Request kinds that are counted apart; API keys from here on share the last counter.
pub const API_KEYS_MAX: usize = 96;

/// Upper bounds, in microseconds, of the classes in which rounds of syncs are counted by their
/// time: each is twice the one before, from an eighth of a millisecond to eight seconds.
pub const SYNC_US_BOUNDS: [u64; 17] = {
    let mut bounds = [125; 17];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = 2 * bounds[at - 1];
        at += 1;
    }
    bounds
};

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; for the one writer only, two would lose counts.
    pub fn add(&self, count: u64) {
        self.set(self.get().wrapping_add(count));
    }

    /// Sets the value of something that goes up and down; for the one writer only.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value, a moment old at most on other threads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one shard. They only grow during a run, but for those said to go up and down.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardStats {
    /// Turns of the loop.
    pub turns: Counter,
    /// Operations that ended: receives, sends, syncs, accepts.
    pub completions: Counter,
    /// The shard's thread, whose CPU time the kernel knows better than any clock in the loop: a
    /// system call that submits, sends and waits is work and rest in one. Zero before it runs.
    pub thread_id: Counter,
    /// Nanoseconds of looking for work without blocking (`--poll-us`).
    pub spin_ns: Counter,
    /// Mail taken from other shards.
    pub mail_in: Counter,
    /// Mail queued for other shards.
    pub mail_out: Counter,
    /// Requests begun, by API key; see [`ShardStats::on_request`].
    pub requests: [Counter; API_KEYS_MAX],
    /// Bytes read from sockets.
    pub bytes_received: Counter,
    /// Bytes sent from memory.
    pub bytes_sent_copy: Counter,
    /// Bytes sent from the page cache by `sendfile`.
    pub bytes_sent_sendfile: Counter,
    /// Bytes sent by `splice`.
    pub bytes_sent_splice: Counter,
    /// Bytes of answers that were read from the device before they were sent, by any of those ways.
    pub bytes_sent_cold: Counter,
    /// Syncs started (`fdatasync` of one file).
    pub syncs: Counter,
    /// Rounds of syncs that ended, each of one log, by [`SYNC_US_BOUNDS`]; the last class has those
    /// beyond all bounds. See [`ShardStats::on_sync`].
    pub sync_rounds: [Counter; SYNC_US_BOUNDS.len() + 1],
    /// Nanoseconds that these took together.
    pub sync_ns: Counter,
    /// Answers released because the high watermark passed their offset: those of `acks=all` and of
    /// the coordinators. Per sync, this is how well group commit groups.
    pub acknowledged: Counter,
    /// Connections taken over so far.
    pub connections_opened: Counter,
    /// Connections now; goes up and down.
    pub connections: Counter,
    /// Bytes of memory charged for requests, from their admission until their reply is sent; goes
    /// up and down.
    pub request_bytes: Counter,
    /// Connections that are not read because the memory for requests is used up; goes up and down.
    pub connections_waiting: Counter,
    /// Produce requests that had to wait because a partition had its share of memory under way.
    pub appends_held: Counter,
    /// Bytes written and not synced, which a power cut would lose; goes up and down. Looked at
    /// every 100 ms.
    pub unsynced_bytes: Counter,
    /// Age in milliseconds of the oldest of them; goes up and down. Looked at every 100 ms. A disk
    /// that does not keep up shows here.
    pub unsynced_ms: Counter,
    /// Partitions that are offline; goes up and down.
    pub partitions_offline: Counter,
    /// Partitions whose logs found no room on the disk; goes up and down.
    pub partitions_stalled: Counter,
}

impl ShardStats {
    /// Counts a request.
    pub fn on_request(&self, api_key: i16) {
        let index = usize::try_from(api_key).unwrap_or(usize::MAX);
        self.requests[index.min(API_KEYS_MAX - 1)].add(1);
    }

    /// Counts a round of syncs.
    pub fn on_sync(&self, took: Duration) {
        let fits = |bound: &u64| took <= Duration::from_micros(*bound);
        let class = SYNC_US_BOUNDS.iter().position(fits);
        self.sync_rounds[class.unwrap_or(SYNC_US_BOUNDS.len())].add(1);
        self.sync_ns.add(took.as_nanos() as u64);
    }

    /// Requests of every kind.
    pub fn requests_total(&self) -> u64 {
        self.requests.iter().map(Counter::get).sum()
    }
}

impl Default for ShardStats {
    fn default() -> Self {
        Self {
            turns: Counter::default(),
            completions: Counter::default(),
            thread_id: Counter::default(),
            spin_ns: Counter::default(),
            mail_in: Counter::default(),
            mail_out: Counter::default(),
            requests: std::array::from_fn(|_| Counter::default()),
            bytes_received: Counter::default(),
            bytes_sent_copy: Counter::default(),
            bytes_sent_sendfile: Counter::default(),
            bytes_sent_splice: Counter::default(),
            bytes_sent_cold: Counter::default(),
            syncs: Counter::default(),
            sync_rounds: std::array::from_fn(|_| Counter::default()),
            sync_ns: Counter::default(),
            acknowledged: Counter::default(),
            connections_opened: Counter::default(),
            connections: Counter::default(),
            request_bytes: Counter::default(),
            connections_waiting: Counter::default(),
            appends_held: Counter::default(),
            unsynced_bytes: Counter::default(),
            unsynced_ms: Counter::default(),
            partitions_offline: Counter::default(),
            partitions_stalled: Counter::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_kind_and_strange_ones_together() {
        let stats = ShardStats::default();
        for api_key in [0, 0, 1, 95, 96, i16::MAX, -1] {
            stats.on_request(api_key);
        }
        assert_eq!(stats.requests[0].get(), 2);
        assert_eq!(stats.requests[1].get(), 1);
        assert_eq!(stats.requests[API_KEYS_MAX - 1].get(), 4);
        assert_eq!(stats.requests_total(), 7);
    }

    #[test]
    fn syncs_are_counted_by_their_time() {
        let stats = ShardStats::default();
        for took_us in [0, 125, 126, 8_192_000, 8_192_001, 60_000_000] {
            stats.on_sync(Duration::from_micros(took_us));
        }
        let rounds = stats.sync_rounds.each_ref().map(Counter::get);
        assert_eq!((rounds[0], rounds[1], rounds[16], rounds[17]), (2, 1, 1, 2));
        assert_eq!(rounds.iter().sum::<u64>(), 6);
        assert_eq!(stats.sync_ns.get(), 76_384_252_000);
    }

    #[test]
    fn shards_share_no_cache_line() {
        assert_eq!(std::mem::align_of::<ShardStats>(), 128);
        assert_eq!(std::mem::size_of::<ShardStats>() % 128, 0);
    }
}
