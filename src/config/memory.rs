//! How much memory the broker may take: `--memory`, or a part of what machine and cgroup have, and
//! how it is shared out. The page cache is the kernel's and does not count.
//!
//! Half is for requests under way, a quarter bounds the number of connections, at most an eighth is
//! for reads of what is not in the page cache, a sixteenth for what groups say about themselves.
//! The rest is for what does not grow with load: partitions, the io layer, gaps of the allocator.

use super::cores::groups_below;
use crate::io::BUFFER_BYTES;
use std::path::Path;

/// Bytes that an idle connection takes at most.
const CONNECTION_BYTES: u64 = 8 * 1024;

/// Least memory of a shard: a batch of 1 MiB fits with others beside it.
const SHARD_BYTES_MIN: u64 = 8 * MIB;

/// Most buffers of one shard for reads of what is not in the page cache: a disk gives no more by
/// more of them.
const READ_BUFFERS_MAX: u64 = 64;

/// The least that a default may be, on the smallest of machines.
const DEFAULT_MIN: u64 = 64 * MIB;

const MIB: u64 = 1024 * 1024;

/// The memory of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// `--memory`: all of it.
    pub bytes: u64,
    /// For requests, all shards together: `queued.max.request.bytes` or half of it.
    pub request_bytes: u64,
    /// Connections that it has room for.
    pub connections: usize,
    /// For what members of groups say about themselves and commit, all shards together.
    pub group_bytes: u64,
}

impl Memory {
    /// Shares out `bytes`; `request_bytes` is what was set for requests.
    pub(super) fn new(bytes: u64, request_bytes: Option<u64>) -> Self {
        Self {
            bytes,
            request_bytes: request_bytes.unwrap_or(bytes / 2),
            connections: usize::try_from(bytes / 4 / CONNECTION_BYTES).unwrap_or(usize::MAX),
            group_bytes: bytes / 16,
        }
    }

    /// Buffers of [`BUFFER_BYTES`] that each of so many shards has for reads of what is not in the
    /// page cache.
    pub fn read_buffers(&self, shards: usize) -> usize {
        let room = self.bytes / 8 / shards.max(1) as u64 / BUFFER_BYTES as u64;
        room.clamp(1, READ_BUFFERS_MAX) as usize
    }

    /// True if so many shards can work with it.
    pub(super) fn suffices(&self, shards: usize) -> bool {
        self.request_bytes >= least_bytes(shards) / 2
    }
}

/// The least `--memory` of so many shards.
pub(super) fn least_bytes(shards: usize) -> u64 {
    SHARD_BYTES_MIN * shards as u64
}

/// A number of bytes, with or without a unit.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let (number, shift) = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))
        .unwrap_or((text, 0));
    let number = number.trim_end().parse::<u64>().ok();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "must be a number of bytes, such as 512MiB or 4GiB".to_owned())
}

/// A quarter of what the machine has, or the cgroup grants if that is less.
pub(super) fn default_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memberships = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let granted = granted_below(Path::new("/sys/fs/cgroup"), &memberships);
    let least = total(&info).into_iter().chain(granted).min();
    least.map_or(DEFAULT_MIN, |bytes| (bytes / 4).max(DEFAULT_MIN))
}

/// The machine's memory, from `/proc/meminfo`.
fn total(info: &str) -> Option<u64> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest bound of the process's cgroups and all above them.
fn granted_below(mount: &Path, memberships: &str) -> Option<u64> {
    let groups = groups_below(mount, memberships, "memory");
    let bounds = groups.iter().filter_map(|group| {
        let read = |name| std::fs::read_to_string(group.join(name)).ok();
        let text = read("memory.max").or_else(|| read("memory.limit_in_bytes"))?;
        // `max`, and in version 1 a number beyond any machine, are no bound.
        text.trim().parse().ok()
    });
    bounds.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_bytes("128MiB"), Ok(128 << 20));
        assert_eq!(parse_bytes("1 GiB"), Ok(1 << 30));
        assert_eq!(parse_bytes("1000"), Ok(1000));
        for text in ["", "MiB", "1.5GiB", "-1", "1MB", "99999999999TiB"] {
            assert!(parse_bytes(text).unwrap_err().contains("512MiB"), "{text}");
        }
    }

    #[test]
    fn memory_is_shared_out() {
        let memory = Memory::new(128 * MIB, None);
        assert_eq!((memory.request_bytes, memory.connections), (64 * MIB, 4096));
        assert_eq!(memory.group_bytes, 8 * MIB);
        assert_eq!((memory.read_buffers(1), memory.read_buffers(16)), (63, 3));
        assert_eq!(Memory::new(1 << 40, None).read_buffers(2), 64);
        assert!(memory.suffices(16) && !memory.suffices(17));
        assert_eq!(Memory::new(128 * MIB, Some(7)).request_bytes, 7);
    }

    #[test]
    fn the_cgroup_bounds_the_default() {
        let mount = tempfile::tempdir().unwrap();
        let write = |group: &str, name: &str, text: &str| {
            let group = mount.path().join(group);
            std::fs::create_dir_all(&group).unwrap();
            std::fs::write(group.join(name), text).unwrap();
        };
        let granted = |memberships| granted_below(mount.path(), memberships);
        assert_eq!(granted("0::/a/b\n"), None);
        write("a", "memory.max", "1000\n");
        write("a/b", "memory.max", "max\n");
        assert_eq!(granted("0::/a/b\n"), Some(1000));
        write("memory/a", "memory.limit_in_bytes", "500\n");
        assert_eq!(granted("3:memory:/a\n2:cpu:/a\n"), Some(500));
        assert_eq!(total("MemFree: 1 kB\nMemTotal:  3 kB\n"), Some(3072));
        assert!(default_bytes() >= DEFAULT_MIN);
    }
}
