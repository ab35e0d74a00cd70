//! The names of the files in a partition's directory, all Kafka's but the checkpoint, and the way
//! derived files are put in place.

use crate::base::Offset;
use crate::base::dir::Dir;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};

/// Batches.
pub(super) const LOG_SUFFIX: &str = ".log";
/// Sparse offset index.
pub(super) const INDEX_SUFFIX: &str = ".index";
/// Sparse time index.
pub(super) const TIME_INDEX_SUFFIX: &str = ".timeindex";
/// Producer state up to the offset of the name.
pub(super) const SNAPSHOT_SUFFIX: &str = ".snapshot";
/// Kafka's index of aborted transactions; never written here, removed with its segment.
pub(super) const TXN_INDEX_SUFFIX: &str = ".txnindex";
/// Leader epochs, in Kafka's text form.
pub(super) const EPOCHS_FILE: &str = "leader-epoch-checkpoint";
/// Log start offset and recovery point.
pub(super) const CHECKPOINT_FILE: &str = "forebay-checkpoint";
/// Whose files these are: the topic's id, in Kafka's text form.
pub(super) const METADATA_FILE: &str = "partition.metadata";

/// Left by a process that could not sync the log, see [`super::Log::on_failed`].
pub const FAILED_FILE: &str = "forebay-failed";

/// Ends of names that only an interrupted operation leaves behind.
const LEFTOVER_SUFFIXES: [&str; 3] = [".tmp", ".deleted", ".cleaned"];
/// Ends of the names of Kafka's finished but not yet renamed compaction results.
const SWAP_SUFFIX: &str = ".swap";

/// What a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// Batches of the segment with this base offset.
    Log(Offset),
    /// A file derived from that segment.
    Derived(Offset),
    /// Producer state before this offset.
    Snapshot(Offset),
    /// Known and read elsewhere.
    Metadata,
    /// Left behind; can be removed.
    Leftover,
    /// Kafka's compaction stopped half way: which of two files counts is Kafka's to say.
    SwappedLog,
    /// Unknown.
    Foreign,
}

/// The name of a segment's file: 20 digits and the suffix.
pub(super) fn file_name(offset: Offset, suffix: &str) -> String {
    format!("{offset:020}{suffix}")
}

/// What a file is.
pub(super) fn file_kind(name: &str) -> FileKind {
    if [EPOCHS_FILE, CHECKPOINT_FILE, METADATA_FILE, FAILED_FILE].contains(&name) {
        return FileKind::Metadata;
    }
    if let Some(name) = name.strip_suffix(SWAP_SUFFIX) {
        return match file_kind(name) {
            FileKind::Log(_) => FileKind::SwappedLog,
            _ => FileKind::Leftover,
        };
    }
    if LEFTOVER_SUFFIXES
        .iter()
        .any(|suffix| name.ends_with(suffix))
    {
        return FileKind::Leftover;
    }
    let Some((offset, suffix)) = split_name(name) else {
        return FileKind::Foreign;
    };
    match suffix {
        LOG_SUFFIX => FileKind::Log(offset),
        INDEX_SUFFIX | TIME_INDEX_SUFFIX | TXN_INDEX_SUFFIX => FileKind::Derived(offset),
        SNAPSHOT_SUFFIX => FileKind::Snapshot(offset),
        _ => FileKind::Foreign,
    }
}

/// Writes a whole file, new or not, without waiting for the device. For derived files only: after
/// a crash it can hold anything.
pub(super) fn put_file(dir: &mut dyn Dir, name: &str, contents: &[u8]) -> io::Result<()> {
    match dir.create(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => dir.truncate(name, 0)?,
        result => result?,
    }
    dir.write_at(name, 0, &[IoSlice::new(contents)])
}

/// Removes a file that may be missing.
pub(super) fn remove_file(dir: &mut dyn Dir, name: &str) -> io::Result<()> {
    match dir.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes a segment with all that is derived from it. The batches go last, so that an
/// interruption leaves no orphans that look like another log's.
pub(super) fn remove_segment(dir: &mut dyn Dir, base_offset: Offset) -> io::Result<()> {
    for suffix in [
        INDEX_SUFFIX,
        TIME_INDEX_SUFFIX,
        TXN_INDEX_SUFFIX,
        SNAPSHOT_SUFFIX,
        LOG_SUFFIX,
    ] {
        remove_file(dir, &file_name(base_offset, suffix))?;
    }
    Ok(())
}

/// Reads a whole small file, if it is one of `files` (sizes by name) and has at most `bytes_max`
/// bytes.
pub(super) fn read_file(
    dir: &mut dyn Dir,
    files: &BTreeMap<String, u64>,
    name: &str,
    bytes_max: u64,
) -> io::Result<Option<Vec<u8>>> {
    let Some(&size) = files.get(name) else {
        return Ok(None);
    };
    if size > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{name} has {size} bytes, at most {bytes_max} were expected"),
        ));
    }
    read_range(dir, name, 0, size).map(Some)
}

/// Reads `length` bytes, fewer only at the end of the file. The caller bounds `length` by the
/// file's size.
pub(super) fn read_range(
    dir: &mut dyn Dir,
    name: &str,
    position: u64,
    length: u64,
) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut contents = vec![0; length];
    if length == 0 {
        return Ok(contents);
    }
    let got = dir.read_at(name, position, &mut contents)?;
    contents.truncate(got);
    Ok(contents)
}

/// The offset of 20 digits, and the rest.
fn split_name(name: &str) -> Option<(Offset, &str)> {
    let digits = name.get(..20)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, &name[20..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        assert_eq!(file_name(42, LOG_SUFFIX), "00000000000000000042.log");
        for (name, kind) in [
            ("00000000000000000042.log", FileKind::Log(42)),
            ("00000000000000000042.index", FileKind::Derived(42)),
            ("00000000000000000042.timeindex", FileKind::Derived(42)),
            ("00000000000000000042.txnindex", FileKind::Derived(42)),
            (
                "09223372036854775807.snapshot",
                FileKind::Snapshot(i64::MAX),
            ),
            ("09223372036854775808.log", FileKind::Foreign),
            ("42.log", FileKind::Foreign),
            ("+0000000000000000042.log", FileKind::Foreign),
            ("00000000000000000042.log.deleted", FileKind::Leftover),
            ("00000000000000000042.log.cleaned", FileKind::Leftover),
            ("00000000000000000042.log.swap", FileKind::SwappedLog),
            ("00000000000000000042.index.swap", FileKind::Leftover),
            ("leader-epoch-checkpoint.tmp", FileKind::Leftover),
            ("leader-epoch-checkpoint", FileKind::Metadata),
            ("partition.metadata", FileKind::Metadata),
            ("notes.txt", FileKind::Foreign),
        ] {
            assert_eq!(file_kind(name), kind, "{name}");
        }
    }
}
