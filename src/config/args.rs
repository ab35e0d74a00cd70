//! The command line of `forebay serve` (and of `forebay config`): flags as text, one line of help
//! each. They are parsed together with the other sources, so that an error reads the same wherever
//! the value came from.

use std::path::PathBuf;

/// Flags of `forebay serve`. Each is also an environment variable (`--data-dir` is
/// `FOREBAY_DATA_DIR`) and a key of the settings file (`data-dir:`), but for `--fetch`, which is
/// short for a setting (`FOREBAY_FETCH_PATH`, `fetch.path:`), for `--config`, which is no key, and
/// for `--set`, which is neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct ServeArgs {
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Directory that holds all data; created if missing [default: ./forebay-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,

    /// How many shards (2), or which CPUs, one shard pinned to each (0,1 or 0-3 or 5-5)
    /// [default: every CPU this process may use]
    #[arg(long, value_name = "COUNT|LIST")]
    pub cores: Option<String>,

    /// Pin each shard to its CPU, also under a cgroup quota; --no-pin leaves all to the scheduler,
    /// for a machine that others use too [default: pinned; under a quota only to CPUs that --cores
    /// names]
    #[arg(long, overrides_with = "no_pin")]
    pub pin: bool,

    /// Leave the shards to the scheduler
    #[arg(long, overrides_with = "pin", hide = true)]
    pub no_pin: bool,

    /// Memory that the broker may take, such as 512MiB: half of it for requests, a quarter for
    /// connections; when it is used up, sockets are not read for a while. Touch it if the machine
    /// has other work [default: a quarter of the machine's or the cgroup's]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,

    /// Microseconds to look for work before blocking, while there was work a moment ago; touch it
    /// if latency counts more than CPU, and shards have cores of their own [default: 0]
    #[arg(long, value_name = "MICROSECONDS")]
    pub poll_us: Option<String>,

    /// How to do IO: uring, posix, or auto for uring where the kernel allows it [default: auto]
    #[arg(long, value_name = "BACKEND")]
    pub io: Option<String>,

    /// Submission slots of each shard's ring, a power of two; touch it if the log says that the
    /// completion queue is too small [default: 1024]
    #[arg(long, value_name = "COUNT")]
    pub ring_entries: Option<String>,

    /// How records travel to clients: auto, sendfile, splice or copy; touch it to compare them
    /// (short for --set fetch.path) [default: auto]
    #[arg(long, value_name = "PATH")]
    pub fetch: Option<String>,

    /// One port and node id per shard (those given, plus the shard's number), so that clients
    /// connect to the core that owns the partition; touch it if clients keep many shards busy and
    /// can reach all ports
    #[arg(long)]
    pub listeners_per_core: bool,

    /// Serve metrics and health over HTTP here, such as 127.0.0.1:9644 [default: not at all]
    #[arg(long, value_name = "HOST:PORT")]
    pub admin_listen: Option<String>,

    /// Id of this node [default: 1]
    #[arg(long, value_name = "ID")]
    pub node_id: Option<String>,

    /// Address that clients are told to connect to [default: the one they dialled]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// What to log: error, warn, info, debug, trace, or per module (info,forebay::log=debug)
    /// [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,

    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,

    /// Log to this file instead of stderr; a new one each day, the last 7 are kept
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<String>,

    /// Read settings from this YAML file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set a broker setting under Kafka's name, such as num.partitions=4; repeat it for more
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}
