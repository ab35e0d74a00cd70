//! `forebay log`: files of a partition's log, without a broker.

use std::fs::File;
use std::io::BufReader;

use clap::Subcommand;

use super::log_dump;
use super::output::{Failure, Output};

/// What to do with the files of a log.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a segment or index file (`.log`, `.index`, `.timeindex`) like kafka-dump-log
    Dump(Dump),
}

/// Which files to print.
#[derive(Debug, clap::Args)]
pub struct Dump {
    /// Files to print, in order
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Print keys, values and headers too
    #[arg(long)]
    records: bool,
}

/// Runs the command. A damaged file is printed as far as it goes, and is a failure.
pub fn run(command: Command, output: &mut Output) -> Result<(), Failure> {
    let Command::Dump(dump) = command;
    let mut damaged = Vec::new();
    for name in dump.files {
        let file = File::open(&name)
            .map_err(|error| Failure::Failed(format!("cannot open {name}: {error}")))?;
        let mut reader = BufReader::new(file);
        let damage = log_dump::dump(&name, &mut reader, dump.records, output.writer());
        match damage {
            Ok(damage) if damage.is_any() => damaged.push(name),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                return Err(Failure::Usage(error.to_string()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                return Err(Failure::OutputClosed);
            }
            Err(error) => return Err(Failure::Failed(format!("cannot dump {name}: {error}"))),
        }
    }
    match damaged.is_empty() {
        true => Ok(()),
        false => Err(Failure::Failed(format!(
            "damaged: {}; the lines above say where",
            damaged.join(", ")
        ))),
    }
}
