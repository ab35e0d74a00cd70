//! Coverage marks: branches that matter and are seldom taken. Whoever tests at random asks
//! afterwards which of them were taken at all; a rule that is never put to work is not tested.
//!
//! Counted per thread, in builds with debug assertions; in others [`hit`] is nothing.

use std::collections::BTreeMap;

/// A branch of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Recovery cut a torn tail.
    TailCut,
    /// Recovery removed a segment behind a torn tail.
    SegmentNeverDurable,
    /// Recovery began a log anew at its start offset.
    LogStartedAnew,
    /// Recovery believed a clean stop.
    CleanStopBelieved,
    /// Recovery found a log not as its clean stop had left it.
    CleanStopDoubted,
    /// Recovery read only heads below a recovery point within a segment.
    HeadsBelowRecoveryPoint,
    /// Recovery built the indexes of a closed segment anew.
    IndexRebuilt,
    /// Recovery removed a file derived from a segment that is gone.
    OrphanRemoved,
    /// Recovery removed a damaged producer snapshot.
    SnapshotDamaged,
    /// Recovery rebuilt the leader epochs.
    EpochsRebuilt,
    /// Recovery removed segments below the start of the log.
    SegmentsBelowStart,
    /// Recovery refused a log whose durable data is damaged.
    DamageRefused,
    /// Files without an owner were set aside.
    StrayDirectory,
    /// A deletion that a crash had interrupted was finished.
    DeletionFinished,
    /// A batch was sent again, and recognised.
    DuplicateBatch,
    /// A segment was closed, and the next one begun.
    SegmentRolled,
    /// The recovery point moved.
    RecoveryPointMoved,
    /// Retention removed segments.
    SegmentsRetained,
    /// Retention closed the active segment because all of it had expired.
    ActiveSegmentExpired,
    /// A sync covered a segment that was closed since the last one, and the next.
    SyncOfSeveralFiles,
    /// A sync became due while one was under way.
    SyncUnderWay,
    /// A write failed.
    WriteFailed,
    /// A sync failed.
    SyncFailed,
    /// Answers that waited for a partition were given up.
    AnswersGivenUp,
    /// Records for an answer were not in the page cache.
    ColdRead,
    /// A long poll was woken by new records.
    LongPollWoken,
    /// A request had to wait for the one before it.
    RequestPostponed,
    /// A connection could not be accepted.
    AcceptFailed,
    /// A stop ran out of patience with connections.
    DrainTimedOut,
    /// A catalog's image waited for its records to be durable.
    ImageWaited,
    /// A coordinator came back from its log.
    CoordinatorLoaded,
    /// A coordinator ended because its log failed.
    CoordinatorUnloaded,
    /// A member's session ended.
    SessionExpired,
    /// A round of joins ended without a member.
    RoundWithoutMember,
    /// A static member took the place of the one before it.
    StaticMemberReplaced,
    /// A commit of an old generation was refused.
    CommitRefused,
}

impl Mark {
    /// All of them, in order.
    pub const ALL: [Self; 36] = [
        Self::TailCut,
        Self::SegmentNeverDurable,
        Self::LogStartedAnew,
        Self::CleanStopBelieved,
        Self::CleanStopDoubted,
        Self::HeadsBelowRecoveryPoint,
        Self::IndexRebuilt,
        Self::OrphanRemoved,
        Self::SnapshotDamaged,
        Self::EpochsRebuilt,
        Self::SegmentsBelowStart,
        Self::DamageRefused,
        Self::StrayDirectory,
        Self::DeletionFinished,
        Self::DuplicateBatch,
        Self::SegmentRolled,
        Self::RecoveryPointMoved,
        Self::SegmentsRetained,
        Self::ActiveSegmentExpired,
        Self::SyncOfSeveralFiles,
        Self::SyncUnderWay,
        Self::WriteFailed,
        Self::SyncFailed,
        Self::AnswersGivenUp,
        Self::ColdRead,
        Self::LongPollWoken,
        Self::RequestPostponed,
        Self::AcceptFailed,
        Self::DrainTimedOut,
        Self::ImageWaited,
        Self::CoordinatorLoaded,
        Self::CoordinatorUnloaded,
        Self::SessionExpired,
        Self::RoundWithoutMember,
        Self::StaticMemberReplaced,
        Self::CommitRefused,
    ];
}

/// How often each mark was hit that was hit.
pub type Counts = BTreeMap<Mark, u64>;

#[cfg(debug_assertions)]
pub use counting::{hit, take};

/// Nothing: only builds with debug assertions count.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn hit(_: Mark) {}

/// Nothing: only builds with debug assertions count.
#[cfg(not(debug_assertions))]
pub fn take() -> Counts {
    Counts::new()
}

#[cfg(debug_assertions)]
mod counting {
    use super::{Counts, Mark};
    use std::cell::Cell;

    thread_local! {
        static COUNTS: [Cell<u64>; Mark::ALL.len()] =
            const { [const { Cell::new(0) }; Mark::ALL.len()] };
    }

    /// The branch was taken.
    pub fn hit(mark: Mark) {
        COUNTS.with(|counts| counts[mark as usize].update(|count| count + 1));
    }

    /// What this thread has counted since the last call.
    pub fn take() -> Counts {
        let count = |mark: Mark| COUNTS.with(|counts| counts[mark as usize].take());
        let all = Mark::ALL.into_iter().map(|mark| (mark, count(mark)));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_listed_in_its_place() {
        for (at, mark) in Mark::ALL.into_iter().enumerate() {
            assert_eq!(mark as usize, at, "{mark:?}");
        }
    }

    #[test]
    fn marks_are_counted() {
        take();
        hit(Mark::ColdRead);
        hit(Mark::ColdRead);
        assert_eq!(take(), Counts::from([(Mark::ColdRead, 2)]));
        assert_eq!(take(), Counts::new());
    }
}
