//! A broker as a set of threads: one pinned thread per shard, and nothing else. Starting binds the
//! listener, takes the data directory, lets every shard open its partitions and returns when all
//! serve; stopping drains connections, closes the logs and marks the stop as clean.

use crate::admin::{self, Admin, Observed};
use crate::base::{DiskSpace, ShardId, ShardStats};
use crate::config::{Config, Descriptors, IoBackend};
use crate::data_dir::OwnedDir;
use crate::io::backend::{Backend, Choice};
use crate::io::files::{self, DataDir};
use crate::io::pace::Pace;
use crate::io::posix::Posix;
use crate::io::ring::{Ring, RingConfig};
use crate::io::sockets::Listener;
use crate::io::{Bell, Io};
use crate::shard::mail::{Order, Post};
use crate::shard::{Life, Settings, Shard};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long connections may take to drain at a stop.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// How long a busy port is tried again.
const PORT_PATIENCE: Duration = Duration::from_secs(1);

/// What a shard's thread tells the server.
enum Report {
    /// Its io is there; this wakes it.
    Bell(ShardId, Bell),
    /// It has come to this point.
    Life(Life),
    /// Its logs are closed, all of them cleanly or not.
    Closed { clean: bool },
    /// It cannot go on.
    Failed(io::Error),
    /// Not from a shard: somebody wants the broker to stop.
    StopWanted,
}

/// Ends [`Server::wait`].
#[derive(Clone)]
pub struct Stopper(Sender<Report>);

impl Stopper {
    /// Ends the wait, now or when it begins.
    pub fn stop(&self) {
        // A server that is gone has stopped already.
        let _ = self.0.send(Report::StopWanted);
    }
}

/// A running broker.
pub struct Server {
    /// One, or with steering one per shard.
    addresses: Vec<SocketAddr>,
    backend: Backend,
    dir: OwnedDir,
    post: Arc<Post>,
    bells: Vec<Bell>,
    threads: Vec<JoinHandle<()>>,
    reports: Receiver<Report>,
    sender: Sender<Report>,
    stats: Vec<Arc<ShardStats>>,
    space: Arc<DiskSpace>,
    descriptors: Descriptors,
    /// Ends when this is dropped.
    admin: Option<Admin>,
}

/// What a shard's thread is made from.
struct Seat {
    shard: ShardId,
    cpu: Option<usize>,
    data_dir: PathBuf,
    open_files_max: usize,
    listener: Option<Listener>,
    settings: Settings,
    entries: u32,
    read_buffers: usize,
    poll: Duration,
    uring: bool,
    post: Arc<Post>,
    reports: Sender<Report>,
}

impl Server {
    /// Starts a broker and waits until it serves. The errors are whole sentences.
    pub fn start(config: &Config) -> io::Result<Self> {
        let backend = choose_backend(config)?;
        // Before the directory is taken: a busy port must not cost the mark of a clean stop.
        let mut listeners = bind_all(config)?;
        let admin = config.admin_listen.map(admin::bind).transpose()?;
        let descriptors = Descriptors::new(open_files_limit(), config.shards.cpus.len());
        let dir = OwnedDir::take(&config.data_dir, config.node_id)?;
        let cpus = &config.shards.cpus;
        let addresses: Vec<_> = listeners
            .iter()
            .flatten()
            .map(Listener::local_addr)
            .collect();
        if config.poll_refused {
            warn!(
                "shards do not spin (--poll-us), because they have no CPU each: start fewer \
                (--cores) or give them more CPUs"
            );
        }
        let post = Arc::new(Post::new(cpus.len() as u16));
        let (sender, reports) = channel();
        let mut server = Self {
            addresses,
            backend,
            post,
            bells: Vec::new(),
            threads: Vec::new(),
            reports,
            sender,
            dir,
            stats: cpus.iter().map(|_| Arc::default()).collect(),
            space: Arc::default(),
            descriptors,
            admin: None,
        };
        let mut wakers = Vec::new();
        for (index, cpu) in cpus.iter().enumerate() {
            let shard = ShardId(index as u16);
            let seat = Seat {
                shard,
                cpu: *cpu,
                data_dir: config.data_dir.clone(),
                open_files_max: descriptors.files,
                listener: listeners[index].take(),
                settings: server.settings(config, shard),
                entries: config.ring_entries,
                read_buffers: config.memory.read_buffers(config.shards.cpus.len()),
                poll: config.poll,
                uring: matches!(server.backend, Backend::Uring),
                post: server.post.clone(),
                reports: server.sender.clone(),
            };
            let (waker, bells) = channel();
            wakers.push(waker);
            let thread = std::thread::Builder::new().name(format!("shard-{index}"));
            server.threads.push(thread.spawn(move || seat.run(&bells))?);
        }
        server.introduce(&wakers)?;
        server.await_life(Life::Ready)?;
        server.admin = admin.map(|listener| server.observe(listener)).transpose()?;
        Ok(server)
    }

    /// Where it listens; with steering, where its first shard does.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where all of its shards listen: one address, or with steering one per shard.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where metrics and health are served, if they are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Which back end serves, and why.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// How the descriptors that it may have are shared out.
    pub fn descriptors(&self) -> Descriptors {
        self.descriptors
    }

    /// The counters of every shard, in their order.
    pub fn stats(&self) -> &[Arc<ShardStats>] {
        &self.stats
    }

    /// How the last run ended, and the epoch of this one.
    pub fn dir(&self) -> &OwnedDir {
        &self.dir
    }

    /// Stops cleanly: no acknowledged record needs recovery at the next start.
    pub fn stop(mut self) -> io::Result<()> {
        info!("stopping");
        let by = crate::io::clock::now().mono + DRAIN_PATIENCE;
        self.order(|| Order::Drain { by });
        self.await_life(Life::Drained)?;
        self.order(|| Order::Close);
        let (mut clean, mut missing) = (true, self.threads.len());
        while missing > 0 {
            if let Report::Closed { clean: closed } = self.report()? {
                clean &= closed;
                missing -= 1;
            }
        }
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_| io::Error::other("a shard ended with a panic"))?;
        }
        if clean {
            self.dir.mark_clean()?;
        }
        info!(clean, "stopped");
        Ok(())
    }

    /// Asks the thread in [`Server::wait`] to return; can be sent to any thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.sender.clone())
    }

    /// Blocks until a [`Stopper`] is used, or until a shard fails.
    pub fn wait(&self) -> io::Result<()> {
        loop {
            if let Report::StopWanted = self.report()? {
                return Ok(());
            }
        }
    }

    fn settings(&self, config: &Config, shard: ShardId) -> Settings {
        let shards = config.shards.cpus.len() as u64;
        let share = |bytes: u64| usize::try_from(bytes / shards).unwrap_or(usize::MAX);
        Settings {
            identity: config.identity(self.dir.cluster_id.clone(), &self.addresses),
            data_dir: self.dir.path().display().to_string(),
            leader_epoch: self.dir.leader_epoch,
            clean: self.dir.clean,
            seed: uuid::Uuid::new_v4().as_u64_pair().0,
            request_memory_bytes_max: share(config.memory.request_bytes),
            group_memory_bytes_max: share(config.memory.group_bytes),
            connections_max: config.memory.connections,
            connections_max_by_files: self.descriptors.connections,
            syncs_max: self.descriptors.syncs,
            stats: self.stats[usize::from(shard.0)].clone(),
            space: self.space.clone(),
        }
    }

    /// Tells every shard the bells of all.
    fn introduce(&mut self, wakers: &[Sender<Vec<Bell>>]) -> io::Result<()> {
        let mut bells: Vec<Option<Bell>> = vec![None; wakers.len()];
        for _ in 0..wakers.len() {
            match self.report()? {
                Report::Bell(shard, bell) => bells[usize::from(shard.0)] = Some(bell),
                _ => return Err(io::Error::other("a shard spoke before it had a bell")),
            }
        }
        self.bells = bells.into_iter().flatten().collect();
        for waker in wakers {
            // A shard that has gone reports why, and that is what the caller will hear.
            let _ = waker.send(self.bells.clone());
        }
        Ok(())
    }

    fn observe(&self, listener: TcpListener) -> io::Result<Admin> {
        let observed = Observed {
            shards: self.stats.clone(),
            space: self.space.clone(),
            backend: match self.backend {
                Backend::Uring => "io_uring",
                Backend::Posix { .. } => "posix",
            },
        };
        Admin::start(listener, observed)
    }

    fn await_life(&self, life: Life) -> io::Result<()> {
        let mut missing = self.threads.len();
        while missing > 0 {
            if let Report::Life(reached) = self.report()?
                && reached == life
            {
                missing -= 1;
            }
        }
        Ok(())
    }

    fn report(&self) -> io::Result<Report> {
        match self.reports.recv() {
            Ok(Report::Failed(error)) => Err(error),
            Ok(report) => Ok(report),
            Err(_) => Err(io::Error::other("every shard has ended")),
        }
    }

    fn order(&self, order: impl Fn() -> Order) {
        for (index, bell) in self.bells.iter().enumerate() {
            self.post.order(ShardId(index as u16), bell, order());
        }
    }
}

impl Seat {
    fn run(mut self, bells: &Receiver<Vec<Bell>>) {
        let thread_id = nix::unistd::gettid().as_raw();
        self.settings.stats.thread_id.set(thread_id as u64);
        if let Some(cpu) = self.cpu {
            self.pin(cpu);
        }
        let reports = self.reports.clone();
        let result = match self.uring {
            true => self.open_ring().and_then(|io| self.serve(io, bells)),
            false => self.open_posix().and_then(|io| self.serve(io, bells)),
        };
        let report = match result {
            Ok(clean) => Report::Closed { clean },
            Err(error) => Report::Failed(error),
        };
        // The server may have given up already, and then nobody listens.
        let _ = reports.send(report);
    }

    fn pin(&self, cpu: usize) {
        let mut cpus = CpuSet::new();
        let pinned = cpus
            .set(cpu)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus));
        if let Err(errno) = pinned {
            warn!(shard = self.shard.0, cpu, %errno, "cannot be pinned, runs anywhere");
        }
    }

    fn pace(&self) -> Pace {
        Pace::new(self.poll, self.settings.stats.clone())
    }

    fn open_ring(&mut self) -> io::Result<Ring> {
        let data_dir = self.open_data_dir()?;
        let listener = self.listener.take();
        let config = RingConfig {
            data_dir,
            listener,
            entries: self.entries,
            buffers_max: self.read_buffers,
            pace: self.pace(),
        };
        Ring::new(config).map_err(io::Error::other)
    }

    fn open_posix(&mut self) -> io::Result<Posix> {
        let data_dir = self.open_data_dir()?;
        let listener = self.listener.take();
        Posix::new(data_dir, listener, self.pace(), self.read_buffers)
            .map_err(|error| self.lacks_files("wait for sockets", &error))
    }

    fn open_data_dir(&self) -> io::Result<DataDir> {
        let dir = DataDir::open(&self.data_dir).map_err(|error| {
            match error.to_string().contains(Errno::EMFILE.desc()) {
                true => self.lacks_files("open the data directory (EMFILE)", &error),
                false => error,
            }
        })?;
        Ok(dir.with_open_files_max(self.open_files_max))
    }

    fn lacks_files(&self, what: &str, error: &io::Error) -> io::Error {
        let why = format!(
            "shard {} cannot {what}: {error}; raise the limit of open files (ulimit -n; systemd: \
             LimitNOFILE) or start fewer shards (--cores)",
            self.shard.0
        );
        io::Error::new(error.kind(), why)
    }

    fn serve<I: Io>(&self, io: I, bells: &Receiver<Vec<Bell>>) -> io::Result<bool> {
        let _ = self.reports.send(Report::Bell(self.shard, io.bell()));
        let Ok(bells) = bells.recv() else {
            return Err(io::Error::other("the server gave up"));
        };
        let mailbox = self.post.mailbox(self.shard, &bells);
        let mut shard = Shard::new(io, mailbox, self.settings.clone());
        shard.start()?;
        let mut life = Life::Starting;
        loop {
            shard.turn()?;
            if shard.life() != life {
                life = shard.life();
                if life == Life::Closed {
                    return Ok(shard.closed_clean());
                }
                let _ = self.reports.send(Report::Life(life));
            }
        }
    }
}

/// The back end that was asked for, or that this machine allows.
fn choose_backend(config: &Config) -> io::Result<Backend> {
    let choice = match config.io {
        IoBackend::Auto => Choice::Auto,
        IoBackend::Uring => Choice::Uring,
        IoBackend::Posix => Choice::Posix,
    };
    let backend = Backend::choose(choice, config.ring_entries, config.shards.cpus.len());
    let backend = backend.map_err(io::Error::other)?;
    if let Backend::Posix {
        fallback: Some(refused),
    } = &backend
    {
        warn!("the slower posix back end serves instead: {refused}");
    }
    Ok(backend)
}

/// The listener of each shard: of the controller only, or with steering of everyone.
fn bind_all(config: &Config) -> io::Result<Vec<Option<Listener>>> {
    let (receive, send) = config.socket_buffers();
    let shards = config.shards.cpus.len();
    let mut listeners = Vec::with_capacity(shards);
    for shard in 0..shards {
        if shard > 0 && !config.listeners_per_core {
            listeners.push(None);
            continue;
        }
        let mut address = config.listen;
        if address.port() != 0 {
            // The configuration has seen to it that there are so many ports.
            address.set_port(address.port() + shard as u16);
        }
        let listener = bind(address)?;
        listener.set_buffers(receive, send)?;
        listeners.push(Some(listener));
    }
    Ok(listeners)
}

/// How many files the process may have open, after it has raised that as far as it may.
fn open_files_limit() -> u64 {
    match files::raise_open_files_limit() {
        Ok((before, limit)) => {
            if before < limit {
                info!(
                    before,
                    limit, "raised the limit of open files (RLIMIT_NOFILE)"
                );
            }
            limit
        }
        Err(error) => {
            warn!(%error, "the limit of open files (RLIMIT_NOFILE) is unknown");
            OPEN_FILES_MIN
        }
    }
}

/// What every system allows.
const OPEN_FILES_MIN: u64 = 1024;

/// A broker that was killed a moment ago can hold its port until the kernel has ended its ring.
fn bind(address: SocketAddr) -> io::Result<Listener> {
    let since = Instant::now();
    loop {
        match Listener::bind(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && since.elapsed() < PORT_PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}
