//! The command line: names, defaults and help. What contradicts what is decided in
//! [`crate::settings`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};

use crate::bench::Bench;
use crate::broker::BrokerArgs;
use crate::incidents::{self, Factor, Incidents, Span};
use crate::promise::{Delivery, Idempotency, Workers};
use crate::soak::Soak;
use crate::store::Place;
use crate::transport::ClientIo;

/// What one process can plan and hold, with room to spare.
const ORDERS_MAX: u64 = 100_000_000;
const PARTITIONS_MAX: u64 = 10_000;
const WORKERS_MAX: u64 = 10_000;
/// Times beyond this are mistakes.
const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

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
    /// --db-latency long, --workers-per-partition at once. The rows are real: each order becomes
    /// one in a database (--sink), in the same transaction as the partition's offset, and the
    /// verdict asks that database by SQL. With --db-writes-per-s none there is no model: what the
    /// real database sustains is measured first, and the sale is judged by that.
    ///
    /// Ends with 0 for PASS, 1 for FAIL, 2 if the sale could not be run, 130 after Ctrl-C.
    FlashSale(Box<FlashSale>),

    /// Load a broker for a long time, restart and kill it, and see that nothing is lost or grows
    ///
    /// Ends with 0 for PASS, 1 for FAIL, 2 if it could not be run.
    Soak(Box<Soak>),

    /// Put two sales side by side, from the files that --json wrote
    Compare {
        /// The one
        one: PathBuf,
        /// The other
        other: PathBuf,
    },

    /// A broker until standard input ends: what a sale starts in order to kill it.
    #[command(hide = true)]
    ServeBroker(BrokerArgs),

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
    #[arg(long, value_parser = at_most::<u64>(ORDERS_MAX))]
    pub orders: Option<u64>,

    /// Time over which they are sent, evenly [default: 60s]
    #[arg(long, value_parser = duration)]
    pub window: Option<Duration>,

    /// Partitions of the topic [default: 10]
    #[arg(long, value_parser = at_most::<usize>(PARTITIONS_MAX))]
    pub partitions: Option<usize>,

    /// Which orders of a partition are written at once: pool takes any, ordered one after the
    /// other, key keeps the orders of a key in order
    #[arg(long, value_enum, default_value_t = Workers::Key)]
    pub workers: Workers,

    /// Concurrent writes per partition [default: 50, with --workers ordered 1]
    #[arg(long, value_name = "COUNT", value_parser = at_most::<usize>(WORKERS_MAX))]
    pub workers_per_partition: Option<usize>,

    /// When an offset is committed: before the order is written, after, or in the database in the
    /// same transaction
    #[arg(long, value_enum, default_value_t = Delivery::ExactlyOnce)]
    pub delivery: Delivery,

    /// How an order that comes again is noticed: none, unique-key (in the database), or for
    /// instance window:100000 (the ids of so many orders, beside the consumers)
    #[arg(long, value_name = "STORE", default_value = "none", value_parser = Idempotency::parse)]
    pub idempotency: Idempotency,

    /// Members of the consumer group [default: one per partition, one less with --rebalance-at]
    #[arg(long)]
    pub members: Option<usize>,

    /// Most orders the group holds, over all partitions; full partitions are paused
    #[arg(long, default_value_t = 10_000, value_parser = at_most::<usize>(ORDERS_MAX))]
    pub buffer: usize,

    /// Writes per second of the modelled production database; "none" for no model: then the
    /// database of --sink is the limit
    #[arg(long, value_name = "RATE", default_value = "5000", value_parser = writes_per_s)]
    pub db_writes_per_s: WritesPerS,

    /// How long one write takes in the modelled production database [default: 100ms]
    #[arg(long, value_parser = duration)]
    pub db_latency: Option<Duration>,

    /// The database for the rows: sqlite:FILE, or without TLS
    /// postgres://USER:PASSWORD@HOST:PORT/DATABASE (tables in a schema `flash_sale`), or
    /// mysql://USER:PASSWORD@HOST:PORT/DATABASE (MySQL from 8.0 or MariaDB from 10.6, tables
    /// `flash_sale_...`) [default: a temporary SQLite file]
    #[arg(long, value_name = "DATABASE", value_parser = Place::parse)]
    pub sink: Option<Place>,

    /// Go on with the sale in --sink after this tool or the broker was killed
    #[arg(long)]
    pub resume: bool,

    /// The same seed gives the same orders [default: 42]
    #[arg(long)]
    pub seed: Option<u64>,

    /// Run the same load against the same modelled database without a broker first: a request
    /// waits at most 1 s for its turn; the report puts both side by side
    #[arg(long)]
    pub direct: bool,

    /// Search for the highest rate at which 99 % of the orders are acknowledged within this time
    /// of their intended send time, by sales of 5 s (or --window) without a modelled database
    #[arg(long, value_name = "P99", num_args = 0..=1, default_missing_value = "50ms",
        value_parser = duration)]
    pub find_limit: Option<Duration>,

    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draw the sale on a page for a browser
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,

    /// A setting of the broker inside the process, under Kafka's name
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,

    /// Cores of the broker inside the process: a list (0,1) or a count
    #[arg(long)]
    pub cores: Option<String>,

    /// What drives the load's sockets
    #[arg(long, value_enum, default_value_t = ClientIo::Auto)]
    pub client_io: ClientIo,

    /// What goes wrong.
    #[command(flatten)]
    pub incidents: IncidentArgs,
}

/// What goes wrong in a sale; times are counted from its start.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "What goes wrong (times from the start of the sale)")]
pub struct IncidentArgs {
    /// Kill the broker and start it again: no order may be lost or doubled
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub kill_broker_at: Option<Duration>,

    /// A member of the group dies without leaving it; others take its partitions over
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub kill_consumer_at: Option<Duration>,

    /// Another member joins the group
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub rebalance_at: Option<Duration>,

    /// The modelled database has only this share of its rate, for instance 50%@20s..40s
    #[arg(long, value_name = "SHARE@FROM..TO", value_parser = incidents::slow)]
    pub db_slow: Option<Factor>,

    /// The database does nothing for a time, for instance 10s@30s; writes are tried again
    #[arg(long, value_name = "TIME@FROM", value_parser = incidents::down)]
    pub db_down: Option<Span>,

    /// Orders come many times faster, for instance 10x@5s (for a second) or 10x@5s..8s; their
    /// number stays the same
    #[arg(long, value_name = "FACTORx@FROM", value_parser = incidents::burst)]
    pub burst: Option<Factor>,

    /// Share of the orders that the handler refuses, for instance 1%: they are tried four times
    /// and go to the dead letter topic, which is TOPIC-dlt
    #[arg(long, value_name = "SHARE", value_parser = incidents::share)]
    pub poison: Option<f64>,

    /// Share of the orders that one user places, for instance 0.2%: they are written one after the
    /// other, so many make the sale long
    #[arg(long, value_name = "SHARE", value_parser = incidents::share)]
    pub hot_key: Option<f64>,
}

impl From<IncidentArgs> for Incidents {
    fn from(args: IncidentArgs) -> Self {
        Self {
            kill_broker_at: args.kill_broker_at,
            kill_consumer_at: args.kill_consumer_at,
            rebalance_at: args.rebalance_at,
            db_slow: args.db_slow,
            db_down: args.db_down,
            burst: args.burst,
            poison: args.poison.unwrap_or(0.0),
            hot_key: args.hot_key.unwrap_or(0.0),
        }
    }
}

/// The rate of the modelled database; `None` if there is no model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WritesPerS(pub Option<u32>);

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
        _ => Err(clap::Error::new(clap::error::ErrorKind::InvalidSubcommand)),
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
    let time = Duration::try_from_secs_f64(number * factor).ok();
    time.filter(|time| *time <= TIME_MAX).ok_or_else(refused)
}

fn at_most<T: TryFrom<u64>>(most: u64) -> RangedU64ValueParser<T> {
    RangedU64ValueParser::new().range(..=most)
}

/// "5000" or "none".
fn writes_per_s(text: &str) -> Result<WritesPerS, String> {
    if text == "none" {
        return Ok(WritesPerS(None));
    }
    let rate = text.parse().map(Some).map(WritesPerS);
    rate.map_err(|_| format!("`{text}` is no rate: write for instance 5000, or none"))
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
            "18000000000000000000s",
            "43201m",
        ] {
            assert!(duration(wrong).unwrap_err().contains("60s"), "{wrong}");
        }
    }

    #[test]
    fn sizes_beyond_any_machine_are_refused() {
        for [flag, size] in [
            ["--orders", "18446744073709551615"],
            ["--workers-per-partition", "4611686018427387904"],
            ["--partitions", "4611686018427387904"],
            ["--buffer", "18446744073709551615"],
            ["--db-down", "18e18s@18e18s"],
            ["--db-down", "18000000000000000000s@18000000000000000000s"],
            ["--db-slow", "50%@1s..10000000000s"],
        ] {
            let refused = parse(["flash-sale", flag, size]).unwrap_err().to_string();
            assert!(refused.contains(flag), "{refused}");
        }
        assert!(parse(["flash-sale", "--orders", "5000000", "--buffer", "100000"]).is_ok());
    }

    #[test]
    fn a_rate_is_a_number_or_none() {
        assert_eq!(writes_per_s("5000"), Ok(WritesPerS(Some(5_000))));
        assert_eq!(writes_per_s("none"), Ok(WritesPerS(None)));
        assert!(writes_per_s("fast").unwrap_err().contains("none"));
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
