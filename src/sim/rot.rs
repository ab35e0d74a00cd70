//! Bit rot: one bit of a stored batch flips, on the disk and in the page cache, long after it was
//! synced.
//!
//! What holds then: the broker does not read what it sends (records go from the page cache to the
//! socket), so it is the client that notices, by the batch's CRC, as with Kafka. Recovery notices
//! where it reads batches with their CRC or where a head no longer fits, and refuses the partition;
//! the others are served. Nobody takes the batch for good.
//!
//! Two places are left out: the base offset and the leader epoch, which no CRC of Kafka's format
//! covers, and the data behind the recovery point, where a wrong bit after an unclean stop cannot
//! be told from a torn tail, and is cut off with all that follows.

use super::disk::Disk;
use crate::base::Offset;
use crate::base::prng::Prng;
use crate::batch::Header;
use bytes::Bytes;
use std::ops::Range;

/// First byte of a batch that is checked: the magic; behind it come the CRC and all that it covers.
const CHECKED_FROM: usize = 16;

/// The log's own file, and the line of it that counts here.
const CHECKPOINT: &str = "forebay-checkpoint";
const RECOVERY_POINT: &str = "recovery_point ";

/// A bit to flip.
#[derive(Debug)]
pub struct Flip {
    /// The file.
    pub inode: u64,
    /// The byte.
    pub position: usize,
    /// The bit.
    pub bit: u8,
    /// Offsets of the batch.
    pub offsets: Range<Offset>,
}

/// Some bit of the closed segments of a partition, if it has any below its recovery point.
pub fn pick(prng: &mut Prng, disk: &Disk, dir_name: &str) -> Option<Flip> {
    let directory = disk.find_dir(dir_name).ok()??;
    let checkpoint = disk.synced(disk.open(directory, CHECKPOINT).ok()?)?;
    let lines = std::str::from_utf8(checkpoint).ok()?.lines();
    let mut points = lines.filter_map(|line| line.strip_prefix(RECOVERY_POINT));
    let recovery_point: Offset = points.next()?.parse().ok()?;
    let files = disk.list(directory).ok()?;
    let segments: Vec<_> = files
        .iter()
        .filter(|(name, size)| name.ends_with(".log") && *size > 0)
        .map(|(name, _)| name)
        .collect();
    // The active one is left out.
    let closed = segments.split_last()?.1;
    let name = closed.get(prng.below(closed.len().max(1) as u64) as usize)?;
    let inode = disk.open(directory, name).ok()?;
    let contents = Bytes::copy_from_slice(disk.synced(inode)?);
    let mut batches = Vec::new();
    let mut at = 0;
    while at < contents.len() {
        let header = Header::parse(&contents[at..]).ok()?;
        let end = at + header.size_bytes();
        if header.next_offset() <= recovery_point {
            batches.push((at..end, header.base_offset..header.next_offset()));
        }
        at = end;
    }
    let picked = prng.below(batches.len().max(1) as u64) as usize;
    let (bytes, offsets) = batches.get(picked)?.clone();
    let checked = (bytes.len() - CHECKED_FROM) as u64;
    Some(Flip {
        inode,
        position: bytes.start + CHECKED_FROM + prng.below(checked) as usize,
        bit: prng.below(8) as u8,
        offsets,
    })
}
