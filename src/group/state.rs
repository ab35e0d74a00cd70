//! One group.

/// The states of a classic group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No members.
    Empty,
    /// Members gather.
    PreparingRebalance,
    /// Waits for the leader's assignments.
    CompletingRebalance,
    /// Members work.
    Stable,
    /// Unknown.
    Dead,
}
