//! The command line: arguments to command, one file per command. Commands that talk to brokers are
//! Kafka clients like any other and work against any Kafka.
//!
//! Exit codes: 0 done, 1 failed (one sentence on stderr says what and how to fix), 2 wrong usage,
//! 3 a limit that was asked for is exceeded (`group lag --max-seconds`).

mod apis;
mod config;
mod consume;
mod crash_test;
mod dlq;
mod group;
mod guarantees;
mod log;
pub mod log_dump;
mod output;
mod produce;
mod record_format;
mod serve;
mod start;
mod stats;
mod time;
mod topic;
mod tune;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::task::LocalSet;

use crate::client::{Client, ClientOptions, Tcp};
use crate::config::ServeArgs;
use output::{Failure, Output};

/// A log broker that speaks the Kafka protocol, and the tools to use one.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker until it is told to stop (SIGTERM, SIGINT)
    Serve(ServeArgs),
    /// Print each setting that serve would use, and where it comes from
    Config(config::ConfigArgs),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand)]
    Topic(topic::Command),
    /// List, describe and delete consumer groups, and see how late they are
    #[command(subcommand)]
    Group(group::Command),
    /// List, show, replay and skip dead letters
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Send lines to a topic as records
    Produce(produce::Produce),
    /// Print the records of a topic
    Consume(consume::Consume),
    /// Print the APIs and versions that this broker serves, or that another one says it serves
    Apis(apis::Apis),
    /// Look at this machine and print what to change for speed; changes nothing
    Tune(tune::Tune),
    /// Print what each shard of a running broker does
    Stats(stats::Stats),
    /// Kill a broker under load, or cut its disk's power, again and again, and check that nothing
    /// that it acknowledged is lost
    CrashTest(crash_test::CrashTest),
    /// Print what is promised: what survives what, what is ordered, what can be doubled
    Guarantees,
    /// Look into the files of a log
    #[command(subcommand)]
    Log(log::Command),
}

/// Which cluster to talk to.
#[derive(Clone, Debug, Args)]
struct Cluster {
    /// Brokers to start from, host:port with commas between
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "FOREBAY_BOOTSTRAP",
        default_value = "127.0.0.1:9092"
    )]
    bootstrap: String,
}

impl Cluster {
    /// Connects for a short conversation. Looking at a topic must not create it.
    async fn connect(&self) -> Result<Client<Tcp>, Failure> {
        let options = ClientOptions {
            allow_auto_topic_creation: false,
            ..Self::options()
        };
        Ok(Client::connect(Tcp, &self.bootstrap, options).await?)
    }

    fn options() -> ClientOptions {
        ClientOptions {
            client_id: "forebay-cli".to_owned(),
            // Somebody is waiting in front of it.
            connect_timeout: Duration::from_secs(5),
            ..ClientOptions::default()
        }
    }
}

/// Runs the command that the process arguments ask for and gives the exit code.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the command that these arguments ask for, the name of the program first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to stdout with 0, wrong usage to stderr with 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut output = Output::stdout();
    let result = match arguments.command {
        Command::Serve(args) => serve::run(&args, output.writer()).map_err(Failure::from),
        Command::Config(args) => config::run(&args, output.writer()).map_err(Failure::from),
        Command::Topic(command) => block_on(topic::run(command, &mut output)),
        Command::Group(command) => block_on(group::run(command, &mut output)),
        Command::Dlq(command) => block_on(dlq::run(command, &mut output)),
        Command::Produce(command) => block_on(produce::run(command)),
        Command::Consume(command) => block_on(consume::run(command, &mut output)),
        Command::Apis(command) => block_on(apis::run(command, &mut output)),
        Command::Tune(command) => tune::run(&command, &mut output),
        Command::Stats(command) => block_on(stats::run(command, &mut output)),
        Command::CrashTest(command) => block_on(crash_test::run(command, &mut output)),
        Command::Guarantees => guarantees::run(&mut output),
        Command::Log(command) => log::run(command, &mut output),
    };
    match result.and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Runs a client command to its end on this thread.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start the client: {error}")))?;
    LocalSet::new().block_on(&runtime, command)
}

/// Splits `name=value` for clap.
fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write name=value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        let code = |arguments: &[&str]| {
            let parsed = Arguments::try_parse_from(arguments);
            parsed.map_err(|error| error.exit_code()).err()
        };
        assert_eq!(code(&["forebay", "topic", "create"]), Some(2));
        assert_eq!(code(&["forebay", "nonsense"]), Some(2));
        assert_eq!(
            code(&["forebay", "topic", "create", "t", "--config", "x"]),
            Some(2)
        );
        assert_eq!(code(&["forebay", "--help"]), Some(0));
        assert_eq!(code(&["forebay", "topic", "list"]), None);
    }
}
