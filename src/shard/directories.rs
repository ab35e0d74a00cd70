//! Names of the directories of partitions, Kafka's: `orders-0`, and `orders-0.0a1b-delete` or
//! `orders-0.0a1b-stray` for one that is set aside. Everything else in the data directory is
//! somebody else's, such as `lost+found`, and never touched.

use crate::catalog::{Topic, check_topic_name};

/// Ending of a directory whose partition is deleted.
const DELETED_SUFFIX: &str = "-delete";

/// Ending of a directory whose topic the catalog does not know.
const STRAY_SUFFIX: &str = "-stray";

/// Longest name of a file (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;

/// What a directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// That of a partition, known or not.
    Partition,
    /// That of a deleted partition.
    Deleted,
    /// Set aside for the user.
    Stray,
    /// Not ours.
    Foreign,
}

impl Kind {
    /// The kind of the directory with this name.
    pub(super) fn of(name: &str) -> Self {
        if is_partition(name) {
            Kind::Partition
        } else if is_set_aside(name, DELETED_SUFFIX) {
            Kind::Deleted
        } else if is_set_aside(name, STRAY_SUFFIX) {
            Kind::Stray
        } else {
            Kind::Foreign
        }
    }
}

/// The directory of a partition.
pub(super) fn dir_name(topic: &Topic, partition: i32) -> String {
    format!("{}-{partition}", topic.name)
}

/// The name under which a deleted partition's directory waits for its removal; `unique` tells it
/// from earlier ones.
pub(super) fn deleted_name(name: &str, unique: u64) -> String {
    set_aside(name, unique, DELETED_SUFFIX)
}

/// The name under which a partition's directory is kept that no topic owns.
pub(super) fn stray_name(name: &str, unique: u64) -> String {
    set_aside(name, unique, STRAY_SUFFIX)
}

/// As in Kafka, a long topic is cut rather than the partition's number.
fn set_aside(name: &str, unique: u64, suffix: &str) -> String {
    let (topic, partition) = name.rsplit_once('-').unwrap_or((name, "0"));
    let end = format!("-{partition}.{unique:016x}{suffix}");
    let length = NAME_BYTES_MAX.saturating_sub(end.len());
    format!("{}{end}", topic.get(..length).unwrap_or(topic))
}

fn is_partition(name: &str) -> bool {
    let digits = |number: &str| number.bytes().all(|byte| byte.is_ascii_digit());
    name.rsplit_once('-').is_some_and(|(topic, number)| {
        check_topic_name(topic).is_ok() && digits(number) && number.parse::<i32>().is_ok()
    })
}

fn is_set_aside(name: &str, suffix: &str) -> bool {
    let name = name.strip_suffix(suffix);
    let parts = name.and_then(|name| name.rsplit_once('.'));
    parts.is_some_and(|(partition, unique)| {
        let hex = unique.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_partition(partition) && hex && !unique.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_our_form_is_ours() {
        for (name, kind) in [
            ("orders-0", Kind::Partition),
            ("a-b.c-12", Kind::Partition),
            ("orders-0.00ff-delete", Kind::Deleted),
            ("orders-0.0123456789abcdef-stray", Kind::Stray),
            ("lost+found", Kind::Foreign),
            ("backup", Kind::Foreign),
            ("holiday-photos", Kind::Foreign),
            ("photos-delete", Kind::Foreign),
            ("photos.1-delete", Kind::Foreign),
            ("orders-0.-delete", Kind::Foreign),
            ("orders-+1", Kind::Foreign),
            ("-0", Kind::Foreign),
            ("", Kind::Foreign),
        ] {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }

    #[test]
    fn the_longest_names_can_be_set_aside() {
        let longest = format!("{}-49999", "x".repeat(249));
        let deleted = deleted_name(&longest, u64::MAX);
        assert_eq!(deleted.len(), NAME_BYTES_MAX);
        assert_eq!(Kind::of(&deleted), Kind::Deleted);
        assert!(deleted.contains("x-49999.ffffffffffffffff"), "{deleted}");
        assert_eq!(Kind::of(&stray_name("orders-1", 1)), Kind::Stray);
    }
}
