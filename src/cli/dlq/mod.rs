//! `forebay dlq`: what is in a dead letter topic, and what becomes of it. Works with the headers of
//! all usual frameworks ([`crate::client::dead_letter`]) and against any Kafka.
//!
//! `list` and `show` only read. `replay` and `skip` write what became of each letter into a journal
//! beside the dead letter topic; `work` has their rules and what they promise, `wire` the topics,
//! `lock` keeps two of them from working at once. Dead letters themselves are never changed.

mod deal;
mod journal;
mod letter;
mod list;
mod lock;
mod reading;
mod selection;
mod show;
#[cfg(test)]
mod test_letter;
mod wire;
mod work;

use clap::Subcommand;

use super::output::{Failure, Output};
use crate::client::{Client, Tcp};

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List dead letters by their errors
    List(list::List),
    /// Show one dead letter with everything that is known of it
    Show(show::Show),
    /// Send dead letters back to where they came from, each once
    Replay(deal::Replay),
    /// Note that dead letters are dealt with otherwise; others of the same records stay open
    Skip(deal::Skip),
}

/// Runs the command.
pub async fn run(command: Command, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::List(command) => list::run(command, output).await,
        Command::Show(command) => show::run(command, output).await,
        Command::Replay(command) => deal::replay(command, output).await,
        Command::Skip(command) => deal::skip(command, output).await,
    }
}

/// The number of partitions of the dead letter topic, which must be there.
async fn partitions(client: &Client<Tcp>, topic: &str) -> Result<i32, Failure> {
    let count = reading::partitions_of(client, topic).await?;
    count.ok_or_else(|| {
        Failure::Failed(format!(
            "topic \"{topic}\" does not exist: see `forebay topic list`"
        ))
    })
}
