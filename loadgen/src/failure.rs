//! Why a run ended without a verdict: one sentence each, and the exit code that goes with it.

use std::fmt;

/// What kept the sale from being judged.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The arguments contradict each other, or broker, database or a file cannot be used.
    Reason(String),
    /// The user stopped the run.
    Interrupted,
}

impl Failure {
    /// The process's exit code: 2 for what the user can fix, 130 after Ctrl-C.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Reason(_) => 2,
            Failure::Interrupted => 130,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Reason(why) => f.write_str(why),
            Failure::Interrupted => f.write_str("stopped before the end: this is no verdict"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Reason(format!("the database failed: {error}"))
    }
}
