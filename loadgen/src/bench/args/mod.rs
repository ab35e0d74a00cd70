//! The arguments of the bench: names, defaults, help, and what contradicts what. Each refusal is
//! one sentence that says what to change.

mod values;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use forebay::batch::Codec;
use serde::Serialize;

pub use values::{Acks, Sizes};
use values::{codec, codec_name, size, sizes};

use crate::cli::{duration, pair};
use crate::failure::Failure;
use crate::transport::ClientIo;

/// Seconds before what is counted begins, if nothing is said.
const WARM_UP_DEFAULT: Duration = Duration::from_secs(2);
/// How long is counted, if nothing is said.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);

/// The modes of the bench.
#[derive(Clone, Debug, Subcommand, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bench {
    /// Write batches of records: records/s, MB/s, time to the acknowledgement
    Produce(ProduceArgs),
    /// Read from the beginning as fast as the broker gives, again and again
    Consume(ConsumeArgs),
    /// Write single records and wait for each at a consumer
    EndToEnd(EndToEndArgs),
    /// Write requests of one record each: requests/s, time to the acknowledgement
    Requests(RequestsArgs),
    /// Hold idle connections while others work
    Connections(ConnectionsArgs),
    /// Read by each of forebay's fetch paths in turn: GB/s and CPU-s/GB side by side
    ZeroCopy(ZeroCopyArgs),
}

/// Where the load goes, how long it lasts, where the result goes.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Target {
    /// Use the broker at this address instead of one inside the process
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap: Option<String>,

    /// Process of the broker at --bootstrap, whose CPU time and memory are reported [default: who
    /// listens there, if it is on this machine]
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<u32>,

    /// Cores of the broker inside the process: a list (0,1) or a count
    #[arg(long)]
    pub cores: Option<String>,

    /// A setting of the broker inside the process, under Kafka's name
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,

    /// The topic to use; it is created if it is not there [default: a new one]
    #[arg(long)]
    pub topic: Option<String>,

    /// A setting of the topic when it is created, under Kafka's name
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub topic_set: Vec<(String, String)>,

    /// Leave the topic behind [default: delete it if it was created here]
    #[arg(long)]
    pub keep_topic: bool,

    /// Partitions of the topic when it is created
    #[arg(long, default_value_t = 1)]
    pub partitions: usize,

    /// Load that is not counted yet [default: 2s]
    #[arg(long, value_parser = duration)]
    pub warm_up: Option<Duration>,

    /// Load that is counted [default: 10s]
    #[arg(long, value_parser = duration)]
    pub duration: Option<Duration>,

    /// What drives the load's sockets
    #[arg(long, value_enum, default_value_t = ClientIo::Auto)]
    pub client_io: ClientIo,

    /// Run the load's thread on this CPU only
    #[arg(long, value_name = "CPU")]
    pub pin: Option<usize>,

    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What the records are like.
#[derive(Args, Clone, Debug, Serialize)]
pub struct RecordArgs {
    /// Bytes of a record's value: 1KiB, or 100-2000 for sizes drawn evenly from that range
    #[arg(long, value_name = "SIZE", value_parser = sizes)]
    pub record_size: Option<Sizes>,

    /// Different keys to draw from; 0 for records without a key
    #[arg(long, default_value_t = 0)]
    pub keys: u64,

    /// How batches are compressed: none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none", value_parser = codec)]
    #[serde(serialize_with = "codec_name")]
    pub codec: Codec,

    /// When the broker answers: 0 never, 1 when written, all when replicated (forebay: synced)
    #[arg(long, value_enum, default_value_t = Acks::One)]
    pub acks: Acks,
}

/// `loadgen produce`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct ProduceArgs {
    /// Where to and how long.
    #[command(flatten)]
    pub target: Target,

    /// What the records are like.
    #[command(flatten)]
    pub records: RecordArgs,

    /// Connections; partitions are shared out among them
    #[arg(long, default_value_t = 1)]
    pub connections: usize,

    /// Requests without an answer yet, per connection
    #[arg(long, default_value_t = 5)]
    pub depth: usize,

    /// Bytes of the batch in a request, before compression
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = size)]
    pub batch_bytes: u64,

    /// Records per second over all connections, each batch at its own time whatever the answers do
    /// (an open loop) [default: as fast as answers permit]
    #[arg(long)]
    pub rate: Option<u64>,
}

/// `loadgen requests`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct RequestsArgs {
    /// Where to and how long.
    #[command(flatten)]
    pub target: Target,

    /// What the records are like.
    #[command(flatten)]
    pub records: RecordArgs,

    /// Connections
    #[arg(long, default_value_t = 64)]
    pub connections: usize,

    /// Requests without an answer yet, per connection
    #[arg(long, default_value_t = 1)]
    pub depth: usize,

    /// Requests per second over all connections [default: as fast as answers permit]
    #[arg(long)]
    pub rate: Option<u64>,
}

/// `loadgen consume`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct ConsumeArgs {
    /// Where from and how long.
    #[command(flatten)]
    pub target: Target,

    /// What the records are like that are written first.
    #[command(flatten)]
    pub records: RecordArgs,

    /// Bytes of the batches that are written first, before compression
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = size)]
    pub batch_bytes: u64,

    /// Bytes of records that are written first into a topic that is empty
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = size)]
    pub fill: u64,

    /// Connections that each read the whole topic: the fan-out
    #[arg(long, default_value_t = 1)]
    pub connections: usize,

    /// Most bytes of one partition in an answer
    #[arg(
        long,
        visible_alias = "catch-up",
        value_name = "SIZE",
        default_value = "1MiB",
        value_parser = size
    )]
    pub fetch_bytes: u64,

    /// How long the broker may wait for data
    #[arg(long, default_value = "500ms", value_parser = duration)]
    pub max_wait: Duration,

    /// Read the topic so many times and end, instead of for a --duration
    #[arg(long)]
    pub passes: Option<u64>,
}

/// `loadgen end-to-end`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct EndToEndArgs {
    /// Where to and how long.
    #[command(flatten)]
    pub target: Target,

    /// What the records are like; of 100 bytes if nothing is said.
    #[command(flatten)]
    pub records: RecordArgs,

    /// Records per second, each at its own time [default: each when the one before has arrived]
    #[arg(long)]
    pub rate: Option<u64>,
}

/// `loadgen connections`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct ConnectionsArgs {
    /// Where to and how long.
    #[command(flatten)]
    pub target: Target,

    /// What the records of the active ones are like; of 100 bytes if nothing is said.
    #[command(flatten)]
    pub records: RecordArgs,

    /// Connections that are opened and then say nothing
    #[arg(long, default_value_t = 1_000)]
    pub idle: usize,

    /// Connections that write requests of one record, one at a time
    #[arg(long, default_value_t = 64)]
    pub active: usize,

    /// Requests per second over all active ones [default: as fast as answers permit]
    #[arg(long)]
    pub rate: Option<u64>,
}

/// `loadgen zero-copy`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct ZeroCopyArgs {
    /// How each path reads.
    #[command(flatten)]
    pub consume: ConsumeArgs,

    /// How often each path has its turn; medians are reported
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,

    /// The paths, in the order of their turns
    #[arg(long, value_delimiter = ',', default_value = "copy,sendfile,splice")]
    pub paths: Vec<String>,
}

/// A load of produce requests.
#[derive(Clone, Debug)]
pub struct Load {
    /// Sizes of the values.
    pub sizes: Sizes,
    /// Different keys, 0 for none.
    pub keys: u64,
    /// Compression.
    pub codec: Codec,
    /// When the broker answers.
    pub acks: Acks,
    /// Connections.
    pub connections: usize,
    /// Requests in flight per connection.
    pub depth: usize,
    /// Records of one request.
    pub records_per_request: u64,
    /// Records per second in an open loop, `None` for a closed one.
    pub rate: Option<u64>,
}

impl Target {
    /// Load before what is counted.
    pub fn warm_up(&self) -> Duration {
        self.warm_up.unwrap_or(WARM_UP_DEFAULT)
    }

    /// Load that is counted.
    pub fn duration(&self) -> Duration {
        self.duration.unwrap_or(DURATION_DEFAULT)
    }

    fn check(&self) -> Result<(), Failure> {
        if let Some(bootstrap) = &self.bootstrap {
            let inside = self.cores.is_some() || !self.set.is_empty();
            refuse(inside, || {
                format!(
                    "--cores and --set are for the broker inside the process; the one at \
                     {bootstrap} runs with its own"
                )
            })?;
        } else {
            refuse(self.broker_pid.is_some(), || {
                "--broker-pid is for a broker outside: add --bootstrap HOST:PORT".to_owned()
            })?;
            refuse(self.keep_topic, || {
                "--keep-topic keeps nothing of a broker inside the process: add --bootstrap \
                 HOST:PORT"
                    .to_owned()
            })?;
        }
        refuse(self.partitions == 0, || zero("--partitions"))?;
        let no_time = self.duration.is_some_and(|duration| duration.is_zero());
        refuse(no_time, || {
            "--duration 0s counts nothing: use for instance 10s".to_owned()
        })
    }
}

impl RecordArgs {
    fn sizes(&self, default_bytes: u64) -> Sizes {
        self.record_size.unwrap_or(Sizes::fixed(default_bytes))
    }

    /// A load of `records_per_request` with these records.
    pub fn load(&self, default_bytes: u64, records_per_request: u64) -> Load {
        Load {
            sizes: self.sizes(default_bytes),
            keys: self.keys,
            codec: self.codec,
            acks: self.acks,
            connections: 1,
            depth: 1,
            records_per_request,
            rate: None,
        }
    }

    /// As many of these records as `batch_bytes` hold, at least one.
    pub fn per_batch(&self, default_bytes: u64, batch_bytes: u64) -> u64 {
        /// What a record takes beside its value, without a key.
        const RECORD_OVERHEAD_BYTES: u64 = 10;
        (batch_bytes / (self.sizes(default_bytes).mean() + RECORD_OVERHEAD_BYTES)).max(1)
    }
}

impl ProduceArgs {
    /// The load that is meant.
    pub fn load(&self) -> Load {
        let per_request = self.records.per_batch(1_024, self.batch_bytes);
        Load {
            connections: self.connections,
            depth: self.depth,
            rate: self.rate,
            ..self.records.load(1_024, per_request)
        }
    }
}

impl RequestsArgs {
    /// The load that is meant.
    pub fn load(&self) -> Load {
        Load {
            connections: self.connections,
            depth: self.depth,
            rate: self.rate,
            ..self.records.load(1_024, 1)
        }
    }
}

impl ConsumeArgs {
    fn check(&self) -> Result<(), Failure> {
        self.target.check()?;
        refuse(self.connections == 0, || zero("--connections"))?;
        refuse(self.passes == Some(0), || zero("--passes"))?;
        refuse(self.fetch_bytes == 0, || zero("--fetch-bytes"))?;
        refuse(self.fill == 0, || zero("--fill"))?;
        refuse(self.fetch_bytes > 1 << 30, || {
            "--fetch-bytes above 1GiB is more than an answer holds: use at most 1GiB".to_owned()
        })?;
        refuse(self.records.acks == Acks::Zero, || {
            "--acks 0 would not tell when the topic is filled: use 1 or all".to_owned()
        })?;
        let timed = self.target.duration.is_some() || self.target.warm_up.is_some();
        refuse(self.passes.is_some() && timed, || {
            "--passes says when to end and counts from the start: leave out --duration and \
             --warm-up"
                .to_owned()
        })
    }
}

impl Bench {
    /// Where the load goes.
    pub fn target(&self) -> &Target {
        match self {
            Bench::Produce(args) => &args.target,
            Bench::Consume(args) => &args.target,
            Bench::EndToEnd(args) => &args.target,
            Bench::Requests(args) => &args.target,
            Bench::Connections(args) => &args.target,
            Bench::ZeroCopy(args) => &args.consume.target,
        }
    }

    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// In a sentence with what to change.
    pub fn check(&self) -> Result<(), Failure> {
        let (connections, depth, rate) = match self {
            Bench::Produce(args) => (args.connections, args.depth, args.rate),
            Bench::Requests(args) => (args.connections, args.depth, args.rate),
            Bench::Connections(args) => {
                refuse(args.active == 0, || zero("--active"))?;
                (args.active, 1, args.rate)
            }
            Bench::EndToEnd(args) => {
                refuse(args.target.partitions != 1, || {
                    "end-to-end follows the records of one partition: leave out --partitions"
                        .to_owned()
                })?;
                (1, 1, args.rate)
            }
            Bench::Consume(args) => return args.check(),
            Bench::ZeroCopy(args) => {
                refuse(args.rounds == 0, || zero("--rounds"))?;
                refuse(args.consume.passes.is_some(), || {
                    "--passes does not go with zero-copy, whose turns are of equal length: use \
                     --duration"
                        .to_owned()
                })?;
                return args.consume.check();
            }
        };
        self.target().check()?;
        refuse(connections == 0, || zero("--connections"))?;
        refuse(depth == 0, || zero("--depth"))?;
        refuse(rate == Some(0), || {
            "--rate 0 sends nothing: leave it out for as fast as possible".to_owned()
        })
    }
}

fn refuse(refused: bool, sentence: impl FnOnce() -> String) -> Result<(), Failure> {
    match refused {
        true => Err(Failure::Reason(sentence())),
        false => Ok(()),
    }
}

fn zero(flag: &str) -> String {
    format!("{flag} 0 leaves nothing to do: use at least 1")
}
