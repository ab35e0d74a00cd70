//! The broker's own log: sets up `tracing` once per process. Lines go to stderr, or to a file that
//! starts anew each day; text or JSON.
//!
//! Not owned: what is logged. Invariant: writing to a file never blocks a shard; a writer thread
//! does it, and drops lines rather than slow the broker down.

use std::path::Path;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{ConfigError, LogFormat, Logging};

/// Days of log files kept.
const FILES_MAX: usize = 7;

/// Keeps the writer thread; the rest of the log is written when it is dropped.
#[derive(Debug)]
#[must_use = "log lines are lost when it is dropped"]
pub struct LoggingGuard {
    _writer: Option<WorkerGuard>,
}

/// Starts logging for the whole process.
///
/// # Errors
/// The file cannot be written, or something else has set up logging already.
pub fn start(logging: &Logging) -> Result<LoggingGuard, ConfigError> {
    let Some(file) = &logging.file else {
        install(
            logging,
            std::io::stderr,
            std::io::IsTerminal::is_terminal(&std::io::stderr()),
        )?;
        return Ok(LoggingGuard { _writer: None });
    };
    let (writer, guard) = tracing_appender::non_blocking(appender(file)?);
    install(logging, writer, false)?;
    Ok(LoggingGuard {
        _writer: Some(guard),
    })
}

fn install<W>(logging: &Logging, writer: W, colours: bool) -> Result<(), ConfigError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::new(&logging.level);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Where a line cannot be written it would be said on stderr, which may be what is gone.
        .log_internal_errors(false)
        .with_writer(writer);
    let installed = match logging.format {
        LogFormat::Text => lines.with_ansi(colours).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    installed.map_err(|error| ConfigError(format!("Logging cannot start: {error}.")))
}

/// A file `NAME.YYYY-MM-DD` per day beside `file`.
fn appender(file: &Path) -> Result<RollingFileAppender, ConfigError> {
    let refuse = |why: &dyn std::fmt::Display| {
        ConfigError(format!(
            "The log file {} cannot be written: {why}.",
            file.display()
        ))
    };
    let name = file
        .file_name()
        .ok_or_else(|| refuse(&"it has no file name"))?;
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(directory).map_err(|error| refuse(&error))?;
    RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix(name.to_string_lossy())
        .max_log_files(FILES_MAX)
        .build(directory)
        .map_err(|error| refuse(&error))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_file_gets_the_day_in_its_name_and_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("logs/forebay.log");
        appender(&file).unwrap().write_all(b"line\n").unwrap();
        let names = std::fs::read_dir(file.parent().unwrap()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 1);
        assert!(
            names[0].to_string_lossy().starts_with("forebay.log.2"),
            "{names:?}"
        );
    }

    #[test]
    fn a_log_file_that_cannot_be_is_refused_in_one_sentence() {
        let directory = tempfile::tempdir().unwrap();
        let blocked = directory.path().join("file");
        std::fs::write(&blocked, b"").unwrap();
        let error = appender(&blocked.join("forebay.log")).unwrap_err().0;
        assert!(
            error.starts_with("The log file ") && error.ends_with('.'),
            "{error}"
        );
        assert!(
            appender(Path::new("/"))
                .unwrap_err()
                .0
                .contains("no file name")
        );
    }
}
