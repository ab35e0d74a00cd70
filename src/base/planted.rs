//! Bugs put in on purpose. A test that finds none of them proves nothing: the simulator must find
//! every one (`tests/planted.rs`), the power cuts those that have to do with syncing.
//!
//! Without the feature `planted` there is nothing of it in the broker: [`is`] is false when it is
//! compiled. With it one bug at a time can be switched on, for a process by its environment
//! (`PLANTED_BUG=SyncSkipped`) or for a thread by `plant`.

/// A planted bug, named after what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// acks=1 is answered before the batch is written.
    AckBeforeWrite,
    /// acks=all is answered when the batch is written, before it is synced.
    AckBeforeSync,
    /// Syncs of the running log are skipped and count as done.
    SyncSkipped,
    /// A failed sync is tried again.
    SyncRetried,
    /// The names of a new log and of a new segment are not synced.
    DirectorySyncSkipped,
    /// What a short write left out is not written.
    ShortWriteIgnored,
    /// The high watermark goes with what is written, durable or not.
    HighWatermarkAhead,
    /// The recovery point goes with what is written, durable or not.
    RecoveryPointAhead,
    /// Retention removes files before the new start of the log is stored.
    LogStartNotStored,
    /// Recovery does not look at the CRC.
    CrcSkipped,
    /// Recovery takes a file to be as long as its size says.
    SizeTrusted,
    /// Recovery believes the index files after a crash, as after a clean stop.
    IndexTrusted,
    /// Recovery takes any whole batch for the next one: also one of a file that was here before.
    StaleBatchAccepted,
    /// Recovery forgets what producers sent last.
    ProducersForgotten,
    /// A commit of offsets is answered before it is stored.
    CommitBeforeStored,
    /// The commit of a member that has lost its place is accepted.
    FencingSkipped,
    /// The catalog's changes are answered before they are stored.
    CatalogBeforeStored,
    /// The broker's own topics are kept by the settings of any other: retention deletes from them.
    InternalUnpinned,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::AckBeforeWrite,
        Self::AckBeforeSync,
        Self::SyncSkipped,
        Self::SyncRetried,
        Self::DirectorySyncSkipped,
        Self::ShortWriteIgnored,
        Self::HighWatermarkAhead,
        Self::RecoveryPointAhead,
        Self::LogStartNotStored,
        Self::CrcSkipped,
        Self::SizeTrusted,
        Self::IndexTrusted,
        Self::StaleBatchAccepted,
        Self::ProducersForgotten,
        Self::CommitBeforeStored,
        Self::FencingSkipped,
        Self::CatalogBeforeStored,
        Self::InternalUnpinned,
    ];
}

#[cfg(feature = "planted")]
pub use switch::{is, plant};

/// True if this bug is switched on: never, without the feature `planted`.
#[cfg(not(feature = "planted"))]
pub const fn is(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    /// Switches a bug on for the whole process.
    const VARIABLE: &str = "PLANTED_BUG";

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = Cell::new(named());
    }

    /// True if this bug is switched on.
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Switches a bug on for this thread, and any other off.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    fn named() -> Option<Bug> {
        let name = std::env::var(VARIABLE).ok()?;
        let bug = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
        Some(bug.unwrap_or_else(|| panic!("{VARIABLE}={name}: use one of {:?}", Bug::ALL)))
    }
}
