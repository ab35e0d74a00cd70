//! Facts about the machine and about the broker's process, read from `/proc`: what a figure is
//! worth depends on them. What cannot be known is `None` and is called "not known" in the report.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

/// The machine under a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Host {
    /// Name and release of the kernel.
    pub kernel: Option<String>,
    /// The CPU's model.
    pub cpu: Option<String>,
    /// Cores this process may use.
    pub cores: usize,
    /// Type of the file system under the database.
    pub db_filesystem: Option<String>,
    /// Type of the file system under the data of a broker inside the process.
    pub broker_filesystem: Option<String>,
    /// Algorithm that new TCP connections use.
    pub congestion_control: Option<String>,
}

impl Host {
    /// Looks at this machine; the paths are those of the database and of the broker's data.
    pub fn look(db: Option<&Path>, broker_data: Option<&Path>) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let filesystem = |path: &Path| {
            let path = path.canonicalize().ok()?;
            filesystem_of(&mounts, &path)
        };
        Self {
            kernel: read_line("/proc/sys/kernel/osrelease")
                .map(|release| format!("Linux {release}")),
            cpu: fs::read_to_string("/proc/cpuinfo")
                .ok()
                .and_then(|text| cpu_model(&text)),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            db_filesystem: db.and_then(filesystem),
            broker_filesystem: broker_data.and_then(filesystem),
            congestion_control: read_line("/proc/sys/net/ipv4/tcp_congestion_control"),
        }
    }
}

/// How long the calling thread has been ready to run and had no core, since it began; nothing where
/// the kernel does not tell.
pub fn waited_for_a_core() -> Duration {
    let text = read_line("/proc/thread-self/schedstat").unwrap_or_default();
    let waited_ns = text.split(' ').nth(1).and_then(|ns| ns.parse().ok());
    Duration::from_nanos(waited_ns.unwrap_or_default())
}

fn read_line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the mount with the longest path that leads to `path`; a later one hides an earlier.
fn filesystem_of(mounts: &str, path: &Path) -> Option<String> {
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| fields.len() > 2 && path.starts_with(fields[1]))
        .max_by_key(|fields| fields[1].len())
        .map(|fields| fields[2].to_owned())
}

/// Whose CPU time and memory are the broker's.
#[derive(Clone, Debug, PartialEq)]
pub enum BrokerProcess {
    /// Threads of this process, named `shard-N`, with the kernel's workers for their rings.
    Shards,
    /// Another process on this machine.
    Process(u32),
    /// Somewhere we cannot look.
    Unknown,
}

/// What the broker has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time of user and kernel, in seconds.
    pub cpu_s: Option<f64>,
    /// Resident memory now; of the whole process, as below.
    pub rss_bytes: Option<u64>,
    /// Largest resident memory so far; of the whole process, so with the load's if the broker is
    /// inside.
    pub rss_bytes_max: Option<u64>,
}

impl Usage {
    /// What was used from this moment to another; the memory is that of the later one.
    pub fn until(self, later: Usage) -> Usage {
        let cpu_s = later.cpu_s.zip(self.cpu_s);
        Usage {
            cpu_s: cpu_s.map(|(later, earlier)| later - earlier),
            ..later
        }
    }
}

impl BrokerProcess {
    /// Finds the process that listens at the first address of `bootstrap`, if it is on this
    /// machine and we may see it.
    pub fn find(bootstrap: &str) -> Self {
        let first = bootstrap.split(',').next().unwrap_or_default().trim();
        let address = first
            .to_socket_addrs()
            .ok()
            .and_then(|mut found| found.next());
        match address
            .filter(|address| is_here(address.ip()))
            .and_then(listener)
        {
            Some(pid) => Self::Process(pid),
            None => Self::Unknown,
        }
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        match self {
            Self::Shards => {
                let status = "/proc/self/status".as_ref();
                Usage {
                    cpu_s: cpu_of_shards(&threads("/proc/self/task".as_ref())),
                    rss_bytes: memory(status, "VmRSS:"),
                    rss_bytes_max: memory(status, "VmHWM:"),
                }
            }
            Self::Process(pid) => {
                let folder = PathBuf::from(format!("/proc/{pid}"));
                let stat = fs::read_to_string(folder.join("stat")).ok();
                let status = folder.join("status");
                Usage {
                    cpu_s: stat.and_then(|stat| cpu_s(&stat)),
                    rss_bytes: memory(&status, "VmRSS:"),
                    rss_bytes_max: memory(&status, "VmHWM:"),
                }
            }
            Self::Unknown => Usage::default(),
        }
    }
}

/// Whether an address is one of this machine's.
fn is_here(ip: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// The process with the listening socket of this port.
fn listener(address: SocketAddr) -> Option<u32> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(
            text.lines()
                .filter_map(|line| listening_inode(line, address.port())),
        );
    }
    let is_one = |link: PathBuf| {
        let target = fs::read_link(link).unwrap_or_default();
        let inode = target
            .to_str()?
            .strip_prefix("socket:[")?
            .strip_suffix(']')?;
        inodes.contains(inode).then_some(())
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut listening = pids.filter(|pid| {
        let links = fs::read_dir(format!("/proc/{pid}/fd"));
        links.is_ok_and(|links| links.flatten().any(|link| is_one(link.path()).is_some()))
    });
    listening.next()
}

/// The inode in a line of `/proc/net/tcp`, if it is a listening socket of this port.
fn listening_inode(line: &str, port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let fields: Vec<_> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let local_port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    (local_port == port && *state == LISTEN).then(|| (*inode).to_owned())
}

/// A thread, as its `stat` file tells.
struct Thread {
    id: String,
    name: String,
    cpu_s: f64,
}

/// The threads below `/proc/PID/task`.
fn threads(folder: &Path) -> Vec<Thread> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let threads = entries.filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (id, rest) = stat.split_once(" (")?;
        Some(Thread {
            id: id.to_owned(),
            name: rest.rsplit_once(')')?.0.to_owned(),
            cpu_s: cpu_s(&stat)?,
        })
    });
    threads.collect()
}

/// CPU seconds of the shards and of the kernel's workers that do what their rings could not do at
/// once; `None` if there is no shard.
fn cpu_of_shards(threads: &[Thread]) -> Option<f64> {
    let is_shard = |thread: &&Thread| thread.name.starts_with("shard-");
    let shards: BTreeSet<_> = threads
        .iter()
        .filter(is_shard)
        .map(|shard| &shard.id)
        .collect();
    let of_broker = threads.iter().filter(|thread| {
        let owner = thread.name.strip_prefix("iou-wrk-");
        is_shard(thread) || owner.is_some_and(|owner| shards.contains(&owner.to_owned()))
    });
    (!shards.is_empty()).then(|| of_broker.map(|thread| thread.cpu_s).sum())
}

/// User and kernel time of a `stat` file, see proc_pid_stat(5).
fn cpu_s(stat: &str) -> Option<f64> {
    // The name may hold spaces; what follows it is field 3.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    let per_s = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()?;
    Some((ticks(14)? + ticks(15)?) / per_s as f64)
}

/// A line of a `status` file, in bytes.
fn memory(status: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_counts() {
        let mounts = "none / overlay rw 0 0\nd /data ext4 rw 0 0\nt /data/tmp tmpfs rw 0 0\n";
        let of = |path| filesystem_of(mounts, Path::new(path));
        assert_eq!(of("/home/x").as_deref(), Some("overlay"));
        assert_eq!(of("/data/x").as_deref(), Some("ext4"));
        assert_eq!(of("/data/tmp/x").as_deref(), Some("tmpfs"));
        assert_eq!(
            of("/database").as_deref(),
            Some("overlay"),
            "whole names only"
        );
        assert_eq!(filesystem_of("", Path::new("/")), None);
    }

    #[test]
    fn this_machine_is_described() {
        let host = Host::look(Some(Path::new("/proc/self")), None);
        assert!(host.kernel.unwrap().starts_with("Linux "));
        assert_eq!(host.db_filesystem.as_deref(), Some("proc"));
        assert!(host.cores > 0);
    }

    #[test]
    fn whoever_shares_a_core_waits_for_it() {
        use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::time::Instant;
        let own = nix::unistd::Pid::from_raw(0);
        let stay_on_one_core = || {
            let allowed = sched_getaffinity(own).unwrap();
            let first = (0..).find(|cpu| allowed.is_set(*cpu).unwrap()).unwrap();
            let mut core = CpuSet::new();
            core.set(first).unwrap();
            sched_setaffinity(own, &core).unwrap();
        };
        let has_waited = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                stay_on_one_core();
                while !has_waited.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            scope.spawn(|| {
                stay_on_one_core();
                let until = Instant::now() + Duration::from_secs(20);
                let is_too_little = || waited_for_a_core() < Duration::from_millis(10);
                while is_too_little() && Instant::now() < until {}
                has_waited.store(true, Ordering::Relaxed);
                assert!(!is_too_little());
            });
        });
    }

    #[test]
    fn a_listener_of_this_machine_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let found = BrokerProcess::find(&address);
        assert_eq!(found, BrokerProcess::Process(std::process::id()));
        let usage = found.usage();
        assert!(usage.cpu_s.is_some() && usage.rss_bytes_max.unwrap() > 1 << 20);
        drop(listener);
        assert_eq!(BrokerProcess::find(&address), BrokerProcess::Unknown);
    }

    #[test]
    fn a_broker_elsewhere_is_not_known() {
        // An address of the documentation range (RFC 5737) is nobody's.
        assert_eq!(
            BrokerProcess::find("192.0.2.1:9092"),
            BrokerProcess::Unknown
        );
        assert_eq!(BrokerProcess::Unknown.usage(), Usage::default());
    }

    #[test]
    fn shards_are_the_threads_of_that_name() {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("shard-0".to_owned())
            .spawn(move || {
                ready.send(()).unwrap();
                let _ = ended.recv();
            });
        is_ready.recv().unwrap();
        assert!(BrokerProcess::Shards.usage().cpu_s.is_some());
        drop(end);
        thread.unwrap().join().unwrap();
    }

    #[test]
    fn the_workers_of_a_shards_ring_are_the_shards() {
        let thread = |id: &str, name: &str, cpu_s| Thread {
            id: id.to_owned(),
            name: name.to_owned(),
            cpu_s,
        };
        let mut threads = vec![
            thread("10", "loadgen", 100.0),
            thread("13", "iou-wrk-10", 50.0),
        ];
        assert_eq!(cpu_of_shards(&threads), None);
        threads.push(thread("11", "shard-0", 1.0));
        threads.push(thread("14", "iou-wrk-11", 2.0));
        threads.push(thread("15", "iou-wrk-111", 40.0));
        assert_eq!(cpu_of_shards(&threads), Some(3.0));
    }

    #[test]
    fn cpu_time_is_read_behind_a_name_with_spaces() {
        let stat = "1 (a) b c) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 1 0 0 0 0";
        let per_s = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
            .unwrap()
            .unwrap();
        assert_eq!(cpu_s(stat), Some(300.0 / per_s as f64));
    }
}
