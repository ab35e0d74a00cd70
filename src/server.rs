//! A broker as a set of threads: one pinned thread per shard, and nothing else. Starting takes the
//! data directory, binds the listener, lets every shard open its partitions and returns when all
//! serve; stopping drains connections, closes the logs and marks the stop as clean.

use crate::base::ShardId;
use crate::base::placement::CONTROLLER;
use crate::config::{Config, IoBackend};
use crate::data_dir::OwnedDir;
use crate::io::backend::{Backend, Choice};
use crate::io::files::{self, DataDir};
use crate::io::posix::Posix;
use crate::io::ring::{Ring, RingConfig};
use crate::io::sockets::Listener;
use crate::io::{Bell, Io};
use crate::shard::mail::{Order, Post};
use crate::shard::{Life, Settings, Shard};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::io;
use std::net::SocketAddr;
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
    address: SocketAddr,
    backend: Backend,
    dir: OwnedDir,
    post: Arc<Post>,
    bells: Vec<Bell>,
    threads: Vec<JoinHandle<()>>,
    reports: Receiver<Report>,
    sender: Sender<Report>,
}

/// What a shard's thread is made from.
struct Seat {
    shard: ShardId,
    cpu: Option<usize>,
    data_dir: PathBuf,
    open_files_max: usize,
    listener: Option<Listener>,
    settings: Settings,
    uring: bool,
    post: Arc<Post>,
    reports: Sender<Report>,
}

impl Server {
    /// Starts a broker and waits until it serves. The errors are whole sentences.
    pub fn start(config: &Config) -> io::Result<Self> {
        let choice = match config.io {
            IoBackend::Auto => Choice::Auto,
            IoBackend::Uring => Choice::Uring,
            IoBackend::Posix => Choice::Posix,
        };
        let backend = Backend::choose(choice).map_err(io::Error::other)?;
        if let Backend::Posix {
            fallback: Some(refused),
        } = &backend
        {
            warn!("io_uring is not available, the slower posix back end serves instead: {refused}");
        }
        let open_files_max = open_files_max(config.shards.cpus.len());
        let dir = OwnedDir::take(&config.data_dir, config.node_id)?;
        let listener = bind(config.listen)?;
        let address = listener.local_addr();
        let cpus = &config.shards.cpus;
        let post = Arc::new(Post::new(cpus.len() as u16));
        let (sender, reports) = channel();
        let mut server = Self {
            address,
            backend,
            post,
            bells: Vec::new(),
            threads: Vec::new(),
            reports,
            sender,
            dir,
        };
        let mut listener = Some(listener);
        let mut wakers = Vec::new();
        for (index, cpu) in cpus.iter().enumerate() {
            let shard = ShardId(index as u16);
            let seat = Seat {
                shard,
                cpu: *cpu,
                data_dir: config.data_dir.clone(),
                open_files_max,
                listener: listener.take_if(|_| shard == CONTROLLER),
                settings: server.settings(config),
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
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which back end serves, and why.
    pub fn backend(&self) -> &Backend {
        &self.backend
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

    fn settings(&self, config: &Config) -> Settings {
        Settings {
            identity: config.identity(self.dir.cluster_id.clone(), self.address),
            data_dir: self.dir.path().display().to_string(),
            leader_epoch: self.dir.leader_epoch,
            clean: self.dir.clean,
            seed: uuid::Uuid::new_v4().as_u64_pair().0,
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

    fn open_ring(&mut self) -> io::Result<Ring> {
        let data_dir = self.open_data_dir()?;
        let listener = self.listener.take();
        let config = RingConfig {
            data_dir,
            listener,
            entries: RING_ENTRIES,
        };
        Ring::new(config).map_err(io::Error::other)
    }

    fn open_posix(&mut self) -> io::Result<Posix> {
        Posix::new(self.open_data_dir()?, self.listener.take())
    }

    fn open_data_dir(&self) -> io::Result<DataDir> {
        let dir = DataDir::open(&self.data_dir)?;
        Ok(dir.with_open_files_max(self.open_files_max))
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

/// How many files each shard may keep open for its logs: together a quarter of what the process
/// may have; the rest is for connections and for syncs under way.
fn open_files_max(shards: usize) -> usize {
    let limit = match files::raise_open_files_limit() {
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
    };
    (limit / 4 / shards.max(1) as u64).min(OPEN_FILES_MAX) as usize
}

/// What every system allows.
const OPEN_FILES_MIN: u64 = 1024;

/// More than this are not kept open by a shard, even where that is allowed.
const OPEN_FILES_MAX: u64 = 16 * 1024;

/// Submission slots per ring.
const RING_ENTRIES: u32 = 1024;

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
