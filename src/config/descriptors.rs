//! How the descriptors that the process may have (`RLIMIT_NOFILE`) are shared out, so that peers
//! cannot take those that logs need: a quarter for files that the logs keep open, at most as much
//! for what is under way on them, a few for the process itself. The rest is for connections.
//!
//! Not owned: the limit, which the server raises at its start (`crate::io::files`).

/// More files than this are not kept open by a shard, even where that is allowed.
const FILES_MAX: u64 = 16 * 1024;

/// Most descriptors of a shard for what is under way: syncs, above all.
const WORK_MAX: u64 = 1024;

/// A round of syncs holds up to three: a file that is not kept open any more, two directories. A
/// quarter is left for the shard's ring, for directories that are listed, for reads.
const WORK_PER_SYNC: u64 = 4;

/// For the process itself: its log, its lock, listeners, metrics and those who ask for them.
const PROCESS: u64 = 32;

/// The descriptors of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// All of them.
    pub limit: u64,
    /// Files that each shard keeps open.
    pub files: usize,
    /// Rounds of syncs that each shard has under way at once.
    pub syncs: usize,
    /// Connections of all shards together; at least one.
    pub connections: usize,
}

impl Descriptors {
    /// Shares out `limit` among so many shards.
    pub fn new(limit: u64, shards: usize) -> Self {
        let shards = shards.max(1) as u64;
        let share = limit / 4 / shards;
        let (files, work) = (share.min(FILES_MAX), share.min(WORK_MAX));
        let taken = shards * (files + work) + PROCESS;
        let count = |number: u64| usize::try_from(number.max(1)).unwrap_or(usize::MAX);
        Self {
            limit,
            files: count(files),
            syncs: count(work / WORK_PER_SYNC),
            connections: count(limit.saturating_sub(taken)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_to_the_logs() {
        for (limit, shards, expected) in [
            (256, 1, (64, 16, 96)),
            (256, 2, (32, 8, 96)),
            (1024, 2, (128, 32, 480)),
            (20_000, 2, (2500, 256, 12_920)),
            (1 << 20, 2, (16 * 1024, 256, 1_013_728)),
            (8, 4, (1, 1, 1)),
        ] {
            let found = Descriptors::new(limit, shards);
            let shared = (found.files, found.syncs, found.connections);
            assert_eq!(shared, expected, "{limit} for {shards}");
        }
    }
}
