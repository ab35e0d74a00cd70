//! What `forebay tune` looks at, gathered from the kernel's files. Nothing is judged here.

use crate::config::{self, Config, Descriptors};
use crate::io::ring;
use nix::sys::resource::{Resource, getrlimit};
use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// A kernel's version: major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel(pub u32, pub u32, pub u32);

impl Kernel {
    /// Reads the start of a release such as `6.1.0-13-amd64`.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.trim().splitn(3, '.');
        let major = numbers.next()?.parse().ok()?;
        let digits = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit());
            text[..end.unwrap_or(text.len())].parse().ok()
        };
        let minor = digits(numbers.next()?)?;
        Some(Self(
            major,
            minor,
            numbers.next().and_then(digits).unwrap_or(0),
        ))
    }
}

/// The file system under the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its type.
    pub kind: String,
    /// Its options, with commas between.
    pub options: String,
}

/// The machine as this process finds it, and what the configuration makes of it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// CPUs that this process may use.
    pub allowed: Vec<usize>,
    /// CPUs of the machine.
    pub online: usize,
    /// CPUs' worth of time that the cgroups grant.
    pub quota: Option<f64>,
    /// Of each core the first CPU that may be used.
    pub first_of_each_core: Vec<usize>,
    /// Memory nodes of these CPUs; none if unknown.
    pub numa_nodes: Vec<usize>,
    /// Frequency governor of the first CPU, if the kernel sets frequencies.
    pub governor: Option<String>,
    /// Version of the kernel.
    pub kernel: Option<Kernel>,
    /// Why there is no ring, if there is none.
    pub ring_refused: Option<String>,
    /// Limit of locked memory.
    pub memlock_bytes: u64,
    /// What the hard limit of open files, to which `serve` raises its own, leaves room for.
    pub descriptors: Descriptors,
    /// Connections that memory has room for.
    pub connections: usize,
    /// TCP congestion control.
    pub congestion_control: Option<String>,
    /// `net.core.somaxconn`.
    pub backlog_max: Option<u64>,
    /// `net.core.rmem_max` and `wmem_max`.
    pub buffers_max: (Option<u64>, Option<u64>),
    /// What the data directory is on.
    pub mount: Option<Mount>,
    /// The file that switches off what pages out cold memory while there is enough (DAMON).
    pub pages_out: Option<PathBuf>,
    /// Shards to start.
    pub shards: usize,
    /// Microseconds to spin.
    pub poll_us: u128,
    /// Spinning was asked for in vain.
    pub poll_refused: bool,
    /// Socket buffers asked for: receive, send.
    pub socket_buffers: (Option<usize>, Option<usize>),
}

impl Machine {
    /// Looks at the machine whose file tree begins at `root`, for a broker with this configuration.
    pub fn look(root: &Path, config: &Config) -> Self {
        let allowed = config::allowed_cpus();
        let shards = config.shards.cpus.len();
        let read = |path: &str| read(root, path);
        let number = |path: &str| read(path)?.parse().ok();
        let cpus = "sys/devices/system/cpu";
        let governor = format!("{cpus}/cpu{}/cpufreq/scaling_governor", allowed[0]);
        let limit = |resource| getrlimit(resource).unwrap_or((0, 0));
        Self {
            online: list_length(&read(&format!("{cpus}/online")).unwrap_or_default())
                .max(allowed.len()),
            quota: config::cgroup_quota(),
            first_of_each_core: first_of_each_core(root, &allowed),
            numa_nodes: numa_nodes(root, &allowed),
            governor: read(&governor),
            kernel: read("proc/sys/kernel/osrelease").and_then(|text| Kernel::parse(&text)),
            ring_refused: ring::probe(config.ring_entries, shards)
                .err()
                .map(|refused| refused.to_string()),
            memlock_bytes: limit(Resource::RLIMIT_MEMLOCK).0,
            descriptors: Descriptors::new(limit(Resource::RLIMIT_NOFILE).1, shards),
            connections: config.memory.connections,
            congestion_control: read("proc/sys/net/ipv4/tcp_congestion_control"),
            backlog_max: number("proc/sys/net/core/somaxconn"),
            buffers_max: (
                number("proc/sys/net/core/rmem_max"),
                number("proc/sys/net/core/wmem_max"),
            ),
            mount: mount(
                &read("proc/self/mountinfo").unwrap_or_default(),
                &existing(&config.data_dir),
            ),
            pages_out: pages_out(root),
            shards,
            poll_us: config.poll.as_micros(),
            poll_refused: config.poll_refused,
            socket_buffers: config.socket_buffers(),
            allowed,
        }
    }

    /// True for kernels in which a send by the ring can fail with ENOMEM for no reason.
    pub fn has_spurious_enomem(&self) -> bool {
        let fixed = |kernel: Kernel| match (kernel.0, kernel.1) {
            (6, 6) => kernel.2 >= 86,
            (6, 12) => kernel.2 >= 21,
            (6, 13) => kernel.2 >= 9,
            _ => kernel >= Kernel(6, 14, 0),
        };
        self.kernel.is_some_and(|kernel| !fixed(kernel))
    }
}

fn read(root: &Path, path: &str) -> Option<String> {
    let text = fs::read_to_string(root.join(path)).ok()?;
    Some(text.trim().to_owned())
}

/// How many numbers a list such as `0-3,8` names.
pub fn list_length(list: &str) -> usize {
    let lengths = ranges(list).filter_map(|range| range.end().checked_sub(*range.start()));
    lengths.fold(0, |sum, length| {
        sum.saturating_add(length.saturating_add(1))
    })
}

fn ranges(list: &str) -> impl Iterator<Item = RangeInclusive<usize>> {
    list.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    })
}

/// The memory nodes that have one of these CPUs, ascending.
pub fn numa_nodes(root: &Path, allowed: &[usize]) -> Vec<usize> {
    let online = read(root, "sys/devices/system/node/online").unwrap_or_default();
    let is_used = |node: &usize| {
        let cpus = read(root, &format!("sys/devices/system/node/node{node}/cpulist"));
        ranges(&cpus.unwrap_or_default()).any(|cpus| allowed.iter().any(|cpu| cpus.contains(cpu)))
    };
    ranges(&online).flatten().filter(is_used).collect()
}

/// Of the CPUs that are threads of one core, the first; a CPU of which nothing is known is a core.
pub fn first_of_each_core(root: &Path, allowed: &[usize]) -> Vec<usize> {
    let mut cores = BTreeSet::new();
    let first = |cpu: &&usize| {
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        cores.insert(read(root, &topology).unwrap_or_else(|| cpu.to_string()))
    };
    allowed.iter().filter(first).copied().collect()
}

/// The state file of a running DAMON monitor one of whose schemes pages memory out.
pub fn pages_out(root: &Path) -> Option<PathBuf> {
    let numbered = |dir: PathBuf| {
        let mut paths: Vec<_> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        paths.sort();
        paths
    };
    let says = |file: PathBuf, word: &str| fs::read_to_string(file).is_ok_and(|s| s.trim() == word);
    let monitors = numbered(root.join("sys/kernel/mm/damon/admin/kdamonds"));
    let mut found = monitors.into_iter().filter(|monitor| {
        let contexts = numbered(monitor.join("contexts")).into_iter();
        let mut schemes = contexts.flat_map(|context| numbered(context.join("schemes")));
        says(monitor.join("state"), "on")
            && schemes.any(|scheme| says(scheme.join("action"), "pageout"))
    });
    found.next().map(|monitor| monitor.join("state"))
}

/// The nearest directory above that is there already.
fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut found = absolute
        .ancestors()
        .filter_map(|path| path.canonicalize().ok());
    found.next().unwrap_or(absolute)
}

/// The mount that holds `path`, from the lines of `/proc/self/mountinfo` (proc(5)): the one with
/// the longest mount point above it, the last of equals.
pub fn mount(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(4);
        // Spaces in a path are written as \040.
        let point = before.next()?.replace("\\040", " ");
        let options = before.next()?;
        let mut after = after.split(' ');
        let (kind, of_device) = (after.next()?, after.nth(1).unwrap_or_default());
        path.starts_with(&point).then(|| {
            let kind = kind.split('.').next().unwrap_or(kind).to_owned();
            let options = format!("{options},{of_device}");
            (point.len(), Mount { kind, options })
        })
    });
    mounts
        .max_by_key(|(length, _)| *length)
        .map(|(_, mount)| mount)
}
