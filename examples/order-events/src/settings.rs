//! What all parts must agree on. Databases and topic belong together: whoever starts over with one
//! starts over with both, under another `--dir` and `--topic`.

use std::path::PathBuf;

use crate::crash::Crash;

/// Flags of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The broker: any that speaks Kafka's protocol
    #[arg(long, global = true, default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// The topic of all events; groups and dead letter topics are named after it
    #[arg(long, global = true, default_value = "orders")]
    pub topic: String,
    /// Where the databases are, one per service
    #[arg(long, global = true, default_value = "order-events-data")]
    pub dir: PathBuf,
    /// Die like a killed process at this point, the first or the so-maniest time
    #[arg(long, global = true, value_name = "POINT[:TIME]")]
    pub crash_at: Option<Crash>,
    /// End when standard input ends: a child that must not outlive its parent
    #[arg(long, global = true, hide = true)]
    pub end_with_stdin: bool,
}
