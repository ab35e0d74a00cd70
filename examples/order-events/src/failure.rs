//! The two ways to fail. A process that cannot go on ends with one sentence; everything here is
//! written so that ending is safe at any point, and starting again is the only recovery there is.
//! An event that starting again would not help is rejected instead, or it would end the process
//! for ever and hold up all events behind it.

use std::fmt;

use rusqlite::ErrorCode;

/// No more of a reason is kept: an error message may quote the whole event.
const MESSAGE_CHARS_MAX: usize = 500;

/// Why something was not done.
#[derive(Debug)]
pub enum Failure {
    /// The process cannot go on; what it was about comes again.
    Ends(String),
    /// The event can have no effect, now or later: it goes to the dead letter topic.
    Rejected(Rejected),
}

/// What is wrong with an event.
#[derive(Debug, PartialEq)]
pub struct Rejected {
    /// The kind of error, as a name.
    pub class: &'static str,
    /// One sentence.
    pub message: String,
}

impl Failure {
    /// Ends the process with this sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self::Ends(sentence.into())
    }
}

impl Rejected {
    /// For this reason, cut to a length that fits a header.
    pub fn new(class: &'static str, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        let message = message.chars().take(MESSAGE_CHARS_MAX).collect();
        Self { class, message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ends(sentence) => f.write_str(sentence),
            Self::Rejected(rejected) => f.write_str(&rejected.message),
        }
    }
}

impl From<Rejected> for Failure {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        let sentence = format!("the database refuses: {error}");
        // Values that it will refuse every time.
        let unfit = matches!(error, rusqlite::Error::ToSqlConversionFailure(_))
            || error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation);
        if unfit {
            return Rejected::new("DatabaseRefuses", sentence).into();
        }
        Self::Ends(sentence)
    }
}

impl From<rdkafka::error::KafkaError> for Failure {
    fn from(error: rdkafka::error::KafkaError) -> Self {
        Self::Ends(format!("the broker refuses: {error}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Ends(format!("a row of the database cannot be read: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    fn insert(connection: &Connection, value: u64) -> Result<(), Failure> {
        connection.execute("INSERT INTO numbers VALUES (?1)", [value])?;
        Ok(())
    }

    #[test]
    fn what_a_database_refuses_every_time_is_rejected_and_all_else_ends_the_process() {
        let connection = Connection::open_in_memory().unwrap();
        let ended = insert(&connection, 1).unwrap_err();
        assert!(matches!(ended, Failure::Ends(_)), "no such table: {ended}");
        let table = "CREATE TABLE numbers (n BIGINT UNIQUE)";
        connection.execute_batch(table).unwrap();
        insert(&connection, 1).unwrap();
        for value in [1, u64::MAX] {
            let rejected = insert(&connection, value).unwrap_err();
            assert!(matches!(rejected, Failure::Rejected(_)), "{rejected}");
        }
    }

    #[test]
    fn a_reason_is_short_enough_for_a_header() {
        let quoting = "ä".repeat(1_000_000);
        assert_eq!(Rejected::new("X", quoting).message.len(), 1000);
    }
}
