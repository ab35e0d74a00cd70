//! The command line: names, defaults and help. What contradicts what is decided in
//! [`crate::settings`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::bench::Bench;
use crate::soak::Soak;
use crate::transport::ClientIo;

/// Load generator for Kafka-compatible brokers.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put a flash sale through a broker and judge what came out
    ///
    /// 500,000 orders come in 60 s (8,333/s), the database behind takes 5,000 writes/s: the broker
    /// has to hold what is too much. The backlog must peak at 200,000 after 60 s and be gone at
    /// 100 s, with no order lost and none doubled.
    ///
    /// The production database is a model: a governor lets --db-writes-per-s writes begin, each
    /// --db-latency long, --workers at once per partition. The rows are real: each order becomes
    /// one in a SQLite database, in the same transaction as the partition's offset, and the
    /// verdict asks that database by SQL.
    ///
    /// Ends with 0 for PASS, 1 for FAIL, 2 if the sale could not be run, 130 after Ctrl-C.
    FlashSale(Box<FlashSale>),

    /// Load a broker for a long time, restart and kill it, and see that nothing is lost or grows
    ///
    /// Ends with 0 for PASS, 1 for FAIL, 2 if it could not be run.
    Soak(Box<Soak>),

    /// What a broker can do.
    #[command(flatten)]
    Bench(Box<Bench>),
}

/// Arguments of the flash sale.
#[derive(Args, Clone, Debug)]
pub struct FlashSale {
    /// Use the broker at this address instead of one inside the process
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap: Option<String>,

    /// Orders to send [default: 500000 in 60 s, in proportion for another --window]
    #[arg(long)]
    pub orders: Option<u64>,

    /// Time over which they are sent, evenly [default: 60s]
    #[arg(long, value_parser = duration)]
    pub window: Option<Duration>,

    /// Partitions of the topic [default: 10]
    #[arg(long)]
    pub partitions: Option<usize>,

    /// Concurrent writes per partition
    #[arg(long, default_value_t = 50)]
    pub workers: usize,

    /// Members of the consumer group [default: one per partition]
    #[arg(long)]
    pub members: Option<usize>,

    /// Most orders the group holds, over all partitions; full partitions are paused
    #[arg(long, default_value_t = 10_000)]
    pub buffer: usize,

    /// Writes per second of the modelled production database
    #[arg(long, default_value_t = 5_000)]
    pub db_writes_per_s: u32,

    /// How long one write takes in the modelled production database
    #[arg(long, default_value = "100ms", value_parser = duration)]
    pub db_latency: Duration,

    /// The SQLite file for the rows [default: a temporary one]
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,

    /// Go on with the sale in --db after this tool or the broker was killed
    #[arg(long)]
    pub resume: bool,

    /// The same seed gives the same orders [default: 42]
    #[arg(long)]
    pub seed: Option<u64>,

    /// Run the same load against the same modelled database without a broker first: a request
    /// waits at most 1 s for its turn; the report puts both side by side
    #[arg(long)]
    pub direct: bool,

    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// A setting of the broker inside the process, under Kafka's name
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,

    /// Cores of the broker inside the process: a list (0,1) or a count
    #[arg(long)]
    pub cores: Option<String>,

    /// What drives the load's sockets
    #[arg(long, value_enum, default_value_t = ClientIo::Auto)]
    pub client_io: ClientIo,
}

/// The arguments of `loadgen flash-sale ...`, the name of the program left out.
///
/// # Errors
/// If clap refuses them, or they are those of another scenario.
pub fn parse<A: Into<OsString> + Clone>(
    args: impl IntoIterator<Item = A>,
) -> Result<FlashSale, clap::Error> {
    let args = args.into_iter().map(Into::into);
    let cli = Cli::try_parse_from([OsString::from("loadgen")].into_iter().chain(args))?;
    match cli.command {
        Command::FlashSale(args) => Ok(*args),
        Command::Soak(_) | Command::Bench(_) => {
            Err(clap::Error::new(clap::error::ErrorKind::InvalidSubcommand))
        }
    }
}

/// "60s", "100ms", "2m", "1.5s".
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` is no time: write for instance 60s, 100ms or 2m");
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(refused)?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| refused())?;
    let factor = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(refused()),
    };
    Duration::try_from_secs_f64(number * factor).map_err(|_| refused())
}

/// "name=value".
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no setting: write name=value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in [
            "60",
            "s",
            "1h",
            "-1s",
            "1.2.3s",
            "",
            "1e400s",
            "999999999999999999999s",
        ] {
            assert!(duration(wrong).unwrap_err().contains("60s"), "{wrong}");
        }
    }

    #[test]
    fn settings_are_pairs() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }

    #[test]
    fn the_help_says_what_is_modelled_and_what_is_real() {
        let mut command = Cli::command();
        let help = command
            .find_subcommand_mut("flash-sale")
            .unwrap()
            .render_long_help();
        let help = help.to_string();
        assert!(
            help.contains("is a model") && help.contains("rows are real"),
            "{help}"
        );
    }
}
