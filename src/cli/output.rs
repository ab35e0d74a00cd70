//! What commands write, and how they fail: text for people in aligned columns, JSON for programs.
//!
//! Nothing here depends on a terminal. Output that nobody reads any more (`| head`) ends a command
//! quietly.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::process::ExitCode;

use crate::client::{ClientError, ConsumerError, ProduceError};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The arguments make no sense together: exit code 2.
    Usage(String),
    /// One sentence, what and how to fix: exit code 1.
    Failed(String),
    /// The command did its work and found more than the limit that it was given: exit code 3.
    Exceeded(String),
    /// The reader of our output went away, which is its right: exit code 0.
    OutputClosed,
}

/// How to print results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: JSON, one document, or one per line where there is no end.
    Json,
}

impl Failure {
    /// The user named a partition that a topic, which has so many, does not have.
    pub fn no_partition(topic: &str, index: i32, count: impl fmt::Display) -> Self {
        Self::Usage(format!(
            "topic \"{topic}\" has no partition {index}: it has {count}, numbered from 0"
        ))
    }

    /// Says on stderr what happened and gives the exit code.
    pub fn report(self) -> ExitCode {
        let (message, code) = match self {
            Self::OutputClosed => return ExitCode::SUCCESS,
            Self::Failed(message) => (message, 1),
            Self::Usage(message) => (message, 2),
            Self::Exceeded(message) => (message, 3),
        };
        // Without a stderr there is nobody to tell; the exit code still says it.
        let _ = writeln!(io::stderr(), "forebay: {message}");
        ExitCode::from(code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Usage(message) | Self::Failed(message) | Self::Exceeded(message) => message,
            Self::OutputClosed => "nobody reads the output any more",
        })
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ConsumerError> for Failure {
    fn from(error: ConsumerError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ProduceError> for Failure {
    fn from(error: ProduceError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Box<dyn std::error::Error>> for Failure {
    fn from(error: Box<dyn std::error::Error>) -> Self {
        match error.downcast::<io::Error>() {
            Ok(error) if error.kind() == io::ErrorKind::BrokenPipe => Self::OutputClosed,
            Ok(error) => Self::Failed(error.to_string()),
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

/// Standard output, buffered.
pub struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    /// Locks standard output.
    pub fn stdout() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes).map_err(output_failure)
    }

    /// Writes text and a line end.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Writes a JSON document over several lines.
    pub fn json(&mut self, value: &serde_json::Value) -> Result<(), Failure> {
        self.line(&format!("{value:#}"))
    }

    /// Writes rows under their heads, in columns.
    pub fn table<const N: usize>(
        &mut self,
        heads: [&str; N],
        rows: &[[String; N]],
    ) -> Result<(), Failure> {
        render(heads, rows)
            .iter()
            .try_for_each(|row| self.line(row))
    }

    /// For those who write piece by piece.
    pub fn writer(&mut self) -> &mut dyn Write {
        &mut self.0
    }

    /// Hands everything on.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(output_failure)
    }
}

/// What an error of writing output means.
pub fn output_failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Failed(format!("cannot write the output: {error}")),
    }
}

/// Says something on stderr that is no result.
pub fn note(text: &str) {
    // Notes are a courtesy: without a stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Lines of a table: every column as wide as its widest cell, numbers to the right.
fn render<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let is_number = |text: &String| text.parse::<f64>().is_ok() || text == "-";
    let columns: [(usize, bool); N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| &row[column]);
        let width = cells.clone().map(|cell| cell.chars().count()).max();
        let is_right = !rows.is_empty() && cells.clone().all(is_number);
        (width.unwrap_or(0).max(heads[column].len()), is_right)
    });
    let heads = heads.map(str::to_owned);
    std::iter::once(&heads)
        .chain(rows)
        .map(|row| {
            let cells = row
                .iter()
                .zip(columns)
                .map(|(cell, (width, is_right))| match is_right {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            ["a".to_owned(), "5".to_owned()],
            ["long name".to_owned(), "100".to_owned()],
        ];
        assert_eq!(
            render(["TOPIC", "COUNT"], &rows),
            ["TOPIC      COUNT", "a              5", "long name    100"]
        );
        assert_eq!(render(["TOPIC", "COUNT"], &[]), ["TOPIC  COUNT"]);
    }

    #[test]
    fn a_closed_output_is_no_failure() {
        let failure = output_failure(io::ErrorKind::BrokenPipe.into());
        assert!(matches!(failure, Failure::OutputClosed));
        let failure = output_failure(io::ErrorKind::StorageFull.into());
        assert!(matches!(failure, Failure::Failed(_)));
    }
}
