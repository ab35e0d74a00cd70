//! The configuration of a broker process: flags, then `FOREBAY_*` environment variables, then a
//! YAML
//! file, then defaults, read once into an immutable and checked [`Config`].
//!
//! Not owned: what the Kafka-named settings are ([`crate::catalog::settings`]). Invariant: a
//! [`Config`] that exists can be started with; whatever is wrong was refused in one sentence that
//! says what, where it came from and how to fix it.

mod args;
mod cores;
mod descriptors;
mod memory;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub use args::ServeArgs;
pub use cores::{Shards, allowed_cpus, cgroup_quota};
pub use descriptors::Descriptors;
pub use memory::Memory;
pub use sources::Origin;

use sources::{Given, OPTIONS};

use crate::base::NodeId;
use crate::catalog::Identity;
use crate::catalog::settings::{broker_setting, check_broker_value};

/// Longest spin in microseconds: blocking costs a hundredth of it.
const POLL_US_MAX: u64 = 10_000;

/// Slots that a ring can have; the kernel takes no more.
const RING_ENTRIES: RangeInclusive<u32> = 8..=32_768;

/// Why the broker cannot start with this configuration: one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Which implementation of the io layer to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoBackend {
    /// io_uring where the kernel allows it, posix otherwise.
    Auto,
    /// io_uring or not at all.
    Uring,
    /// Plain system calls.
    Posix,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where the broker's own log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// Filter directives, such as `info,forebay::log=debug`.
    pub level: String,
    /// How the lines look.
    pub format: LogFormat,
    /// File to write to; `None` is stderr.
    pub file: Option<PathBuf>,
}

/// One effective value, for `forebay config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The option or setting.
    pub name: &'static str,
    /// Its value; `None` if there is none.
    pub value: Option<String>,
    /// Who set it.
    pub origin: Origin,
}

/// Everything a broker process is told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Host and port that clients are told; `None` tells them what they dialled.
    pub advertise: Option<(String, u16)>,
    /// Directory that holds all data.
    pub data_dir: PathBuf,
    /// The shards and their CPUs.
    pub shards: Shards,
    /// How much memory it may take.
    pub memory: Memory,
    /// Which io layer.
    pub io: IoBackend,
    /// How long a shard looks for work before it blocks; zero if they have no CPU each.
    pub poll: Duration,
    /// Spinning was asked for, but there are too few CPUs for it.
    pub poll_refused: bool,
    /// Submission slots of each ring.
    pub ring_entries: u32,
    /// Every shard is a broker to clients, with a port and a node id of its own.
    pub listeners_per_core: bool,
    /// Where to serve metrics and health, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    /// Id of this node.
    pub node_id: NodeId,
    /// The broker's own log.
    pub logging: Logging,
    /// Broker settings that were given, by Kafka's names, checked.
    settings: BTreeMap<String, String>,
    effective: Vec<Effective>,
}

impl Config {
    /// Reads flags, the process environment and the settings file they name.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong.
    pub fn load(args: &ServeArgs) -> Result<Self, ConfigError> {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Self::from_sources(args, environment)
    }

    /// As [`Config::load`], with the environment given: for tests and for a broker inside another
    /// program, which its environment must not change.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_sources(
        args: &ServeArgs,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let given = sources::gather(args, environment)?;
        let mut settings = BTreeMap::new();
        for name in sources::setting_names() {
            if let Some((value, origin)) = given.get(name) {
                let value = check_broker_value(name, value)
                    .map_err(|why| ConfigError(format!("{why} ({origin}).")))?;
                settings.insert(name.to_owned(), value);
            }
        }
        let (allowed, quota) = (cores::allowed_cpus(), cores::cgroup_quota());
        let shards = parse_shards(&given, &allowed, quota)?;
        let has_cpu_each = shards.has_cpu_each(&allowed, quota);
        let poll = required(&given, "poll-us", parse_poll)?;
        let listen = required(&given, "listen", parse_listen)?;
        let node_id = required(&given, "node-id", parse_node_id)?;
        let listeners_per_core = required(&given, "listeners-per-core", parse_bool)?;
        if listeners_per_core {
            check_steering(&given, listen.port(), node_id, shards.cpus.len())?;
        }
        let memory = parse_memory(&given, &settings, shards.cpus.len())?;
        let io = required(&given, "io", parse_io)?;
        if let (IoBackend::Posix, Some((_, origin))) = (io, given.get("ring-entries")) {
            return Err(ConfigError(format!(
                "ring-entries ({origin}) is of no use with io = posix, which has no ring: drop one."
            )));
        }
        Ok(Self {
            listen,
            advertise: parse_option(&given, "advertise", parse_host_port)?,
            data_dir: required(&given, "data-dir", parse_path)?,
            effective: effective(&given, &settings, &shards, &memory),
            shards,
            memory,
            io,
            poll: if has_cpu_each { poll } else { Duration::ZERO },
            poll_refused: !has_cpu_each && !poll.is_zero(),
            ring_entries: required(&given, "ring-entries", parse_ring_entries)?,
            listeners_per_core,
            admin_listen: parse_option(&given, "admin-listen", parse_listen)?,
            node_id,
            logging: Logging {
                level: required(&given, "log-level", parse_level)?,
                format: required(&given, "log-format", parse_format)?,
                file: parse_option(&given, "log-file", parse_path)?,
            },
            settings,
        })
    }

    /// Every option and broker setting with its value and who set it: options first, then settings
    /// by name.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// Bytes of the buffers that connections receive into and send from; `None` leaves them to the
    /// system.
    pub fn socket_buffers(&self) -> (Option<usize>, Option<usize>) {
        let size = |name| self.settings.get(name)?.parse().ok();
        let receive = size("socket.receive.buffer.bytes");
        (receive, size("socket.send.buffer.bytes"))
    }

    /// Who this node is, for the catalog. `listeners` are the addresses in use, their ports known:
    /// one, or with `listeners_per_core` one per shard.
    pub fn identity(&self, cluster_id: String, listeners: &[SocketAddr]) -> Identity {
        let mut static_settings = self.settings.clone();
        let mut set = |name: &str, value: String| static_settings.insert(name.to_owned(), value);
        let urls: Vec<_> = listeners
            .iter()
            .map(|listener| format!("PLAINTEXT://{listener}"))
            .collect();
        set("listeners", urls.join(","));
        set("log.dirs", self.data_dir.display().to_string());
        set("node.id", self.node_id.0.to_string());
        if let Some((host, port)) = &self.advertise {
            set("advertised.listeners", format!("PLAINTEXT://{host}:{port}"));
        }
        Identity {
            cluster_id,
            node_id: self.node_id,
            advertised: self.advertise.clone(),
            ports_per_shard: match self.listeners_per_core {
                true => listeners.iter().map(SocketAddr::port).collect(),
                false => Vec::new(),
            },
            static_settings,
        }
    }
}

/// The value of an option that somebody set or that has a default.
fn parse_option<T>(
    given: &Given,
    name: &'static str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    let default = OPTIONS
        .iter()
        .find(|option| option.0 == name)
        .and_then(|option| option.1);
    let (text, origin) = match (given.get(name), default) {
        (Some((text, origin)), _) => (text.as_str(), origin.clone()),
        (None, Some(default)) => (default, Origin::Default),
        (None, None) => return Ok(None),
    };
    let refuse = |why| ConfigError(format!("{name} = {text} ({origin}) {why}."));
    parse(text.trim()).map(Some).map_err(refuse)
}

fn required<T>(
    given: &Given,
    name: &'static str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    let value = parse_option(given, name, parse)?;
    Ok(value.expect("options without a default are not asked for here"))
}

/// The shards by `cores` and `pin`.
fn parse_shards(
    given: &Given,
    allowed: &[usize],
    quota: Option<f64>,
) -> Result<Shards, ConfigError> {
    let shards = parse_option(given, "cores", |text| Shards::parse(text, allowed, quota))?;
    let shards = shards.unwrap_or_else(|| Shards::all(allowed, quota));
    let Some(pin) = parse_option(given, "pin", parse_bool)? else {
        return Ok(shards);
    };
    let listed = |text: &str| text.contains([',', '-']);
    match given.get("cores") {
        Some((text, origin)) if !pin && listed(text) => Err(ConfigError(format!(
            "cores = {text} ({origin}) names CPUs that no shard would be pinned to: give a count, \
             or drop --no-pin."
        ))),
        _ => Ok(shards.pinned(pin, allowed)),
    }
}

/// The memory by `memory` and `queued.max.request.bytes`.
fn parse_memory(
    given: &Given,
    settings: &BTreeMap<String, String>,
    shards: usize,
) -> Result<Memory, ConfigError> {
    let bytes = parse_option(given, "memory", memory::parse_bytes)?;
    let queued = settings.get("queued.max.request.bytes");
    let queued = queued.and_then(|bytes| bytes.parse::<u64>().ok());
    let least = memory::least_bytes(shards);
    let bytes = bytes.unwrap_or_else(|| memory::default_bytes().max(least));
    let memory = Memory::new(bytes, queued);
    if memory.suffices(shards) {
        return Ok(memory);
    }
    let (name, least) = match queued {
        Some(_) => ("queued.max.request.bytes", (least / 2).to_string()),
        None => ("memory", format!("{}MiB", least >> 20)),
    };
    let origin = given
        .get(name)
        .map_or(Origin::Default, |(_, origin)| origin.clone());
    Err(ConfigError(format!(
        "{name} ({origin}) is too little for {shards} shards: give at least {least}, or start \
         fewer shards (--cores)."
    )))
}

/// Every shard needs a port and a node id of its own.
fn check_steering(
    given: &Given,
    port: u16,
    node_id: NodeId,
    shards: usize,
) -> Result<(), ConfigError> {
    let last = shards.saturating_sub(1);
    let advertised = parse_option(given, "advertise", parse_host_port)?.map(|(_, port)| port);
    let too_high = [Some(port), advertised]
        .into_iter()
        .flatten()
        .find(|port| usize::from(*port) + last > usize::from(u16::MAX));
    if let Some(port) = too_high {
        return Err(ConfigError(format!(
            "listeners-per-core needs {shards} ports from {port} up, beyond the last one: take a \
             lower port."
        )));
    }
    if node_id.0.checked_add(last as i32).is_none() {
        return Err(ConfigError(format!(
            "listeners-per-core needs {shards} node ids from {} up: take a lower node-id.",
            node_id.0
        )));
    }
    Ok(())
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

fn parse_poll(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(micros) if micros <= POLL_US_MAX => Ok(Duration::from_micros(micros)),
        _ => Err(format!(
            "must be a number of microseconds from 0 to {POLL_US_MAX}; 50 is much"
        )),
    }
}

fn parse_ring_entries(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(entries) if RING_ENTRIES.contains(&entries) && entries.is_power_of_two() => Ok(entries),
        _ => Err(format!(
            "must be a power of two from {} to {}",
            RING_ENTRIES.start(),
            RING_ENTRIES.end()
        )),
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let (host, port) = parse_host_port(text)?;
    let found = (host.as_str(), port).to_socket_addrs();
    let found = found.map_err(|error| format!("cannot be looked up: {error}"))?;
    // Some clients try only the first address of a name, and that is rarely the IPv6 one.
    let address = found.min_by_key(SocketAddr::is_ipv6);
    address.ok_or_else(|| format!("names no address for {host}"))
}

fn parse_host_port(text: &str) -> Result<(String, u16), String> {
    let form = || "must be HOST:PORT, such as 127.0.0.1:9092 or [::1]:9092".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let port = port.parse().map_err(|_| form())?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let bad = |c: char| c.is_whitespace() || matches!(c, '/' | '[' | ']' | ':');
    match bare {
        Some(bare) if bare.parse::<std::net::Ipv6Addr>().is_ok() => Ok((bare.to_owned(), port)),
        None if !host.is_empty() && !host.contains(bad) => Ok((host.to_owned(), port)),
        _ => Err(form()),
    }
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("must be a path".to_owned()),
        path => Ok(PathBuf::from(path)),
    }
}

fn parse_io(text: &str) -> Result<IoBackend, String> {
    match text {
        "auto" => Ok(IoBackend::Auto),
        "uring" => Ok(IoBackend::Uring),
        "posix" => Ok(IoBackend::Posix),
        _ => Err("must be auto, uring or posix".to_owned()),
    }
}

fn parse_node_id(text: &str) -> Result<NodeId, String> {
    match text.parse::<i32>() {
        Ok(id) if id >= 0 => Ok(NodeId(id)),
        _ => Err(format!("must be a number from 0 to {}", i32::MAX)),
    }
}

fn parse_level(text: &str) -> Result<String, String> {
    // A bare word that is no level would be taken for a module, and nothing else be logged.
    let known = |part: &str| {
        let bare = !part.contains(['=', '[', ':']);
        let level = part
            .trim()
            .parse::<tracing_subscriber::filter::LevelFilter>();
        !bare || level.is_ok()
    };
    let valid = text.parse::<tracing_subscriber::EnvFilter>().is_ok() && text.split(',').all(known);
    if valid && !text.is_empty() {
        return Ok(text.to_owned());
    }
    let form = "must be error, warn, info, debug, trace or a filter like info,forebay::log=debug";
    Err(form.to_owned())
}

fn parse_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be text or json".to_owned()),
    }
}

fn effective(
    given: &Given,
    settings: &BTreeMap<String, String>,
    shards: &Shards,
    memory: &Memory,
) -> Vec<Effective> {
    let options = OPTIONS
        .iter()
        .map(|(name, default, _)| match given.get(name) {
            Some((text, origin)) => Effective {
                name,
                value: Some(text.trim().to_owned()),
                origin: origin.clone(),
            },
            None => {
                let value = match *name {
                    "cores" => Some(shards.cpus.len().to_string()),
                    "memory" => Some(format!("{}MiB", memory.bytes >> 20)),
                    _ => default.map(str::to_owned),
                };
                Effective {
                    name,
                    value,
                    origin: Origin::Default,
                }
            }
        });
    let mut names: Vec<_> = sources::setting_names().collect();
    names.sort_unstable();
    let settings = names
        .into_iter()
        .map(|name| match (settings.get(name), given.get(name)) {
            (Some(value), Some((_, origin))) => Effective {
                name,
                value: Some(value.clone()),
                origin: origin.clone(),
            },
            _ => {
                let row = broker_setting(name);
                let value = row.and_then(|(setting, broker)| setting.broker_default(broker));
                Effective {
                    name,
                    value,
                    origin: Origin::Default,
                }
            }
        });
    options.chain(settings).collect()
}
