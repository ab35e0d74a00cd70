//! Why a run ended without a verdict: one sentence each, and the exit code that goes with it.

use std::fmt;

/// What kept the sale from being judged.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The arguments are missing something or contradict each other.
    Usage(String),
    /// The broker cannot be reached or refuses what the sale needs.
    Broker(String),
    /// The real database or another local file cannot be used.
    Database(String),
    /// The user stopped the run.
    Interrupted,
}

impl Failure {
    /// The process's exit code: 2 for what the user can fix, 130 after Ctrl-C.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Broker(_) | Failure::Database(_) => 2,
            Failure::Interrupted => 130,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(why) | Failure::Broker(why) | Failure::Database(why) => f.write_str(why),
            Failure::Interrupted => f.write_str("stopped before the end: this is no verdict"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Database(format!("the database failed: {error}"))
    }
}
