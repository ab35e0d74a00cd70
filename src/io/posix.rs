//! [`Io`] without io_uring, for places where it is blocked: edge-triggered epoll for sockets, and
//! one thread per shard that waits for the device. Same semantics as the ring, more system calls.
//! Deadlines are kept to the millisecond, rounded up.
//!
//! Invariant: a pending operation is either in `runnable`, or its socket is known to be not ready
//! and epoll will tell when that changes.

use super::buffers::Buffers;
use super::files::{self, DataDir};
use super::loading::{Load, Target};
use super::pace::Pace;
use super::sending::{Progress, SEND_TURN_BYTES_MAX, Sending};
use super::sockets::{self, Acceptor, AfterAccept, Listener};
use super::{
    Bell, BellKind, Completion, Extent, Io, Op, Outcome, Socket, SocketKind, Token, cached, clock,
};
use crate::base::dir::{Dir, File};
use crate::base::{Mono, Now, ShardStats, Space};
use bytes::BytesMut;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Events taken from epoll at once.
const EVENTS_MAX: usize = 256;

/// Event data of the bell and of the listener; a socket's is its descriptor.
const BELL: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;

/// The fallback back end of one shard.
pub struct Posix {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    /// By descriptor number.
    connections: Vec<Option<Connection>>,
    /// Descriptors with an operation that may be able to go on, and which one.
    runnable: VecDeque<(usize, Direction)>,
    acceptor: Option<Acceptor>,
    accepts: VecDeque<Token>,
    /// False after the listener had nothing, until epoll reports it.
    acceptable: bool,
    bell: Bell,
    worker: Worker,
    /// The memory of loads.
    buffers: Buffers,
    /// Sends that wait for some of it, by connection.
    starved: VecDeque<(usize, Weak<SocketKind>)>,
    data_dir: DataDir,
    pace: Pace,
}

/// What is known of a socket. Registered with epoll once, until its descriptor is closed.
struct Connection {
    /// Tells a new socket from an older one that had the same descriptor.
    identity: Weak<SocketKind>,
    readable: bool,
    writable: bool,
    receive: Option<(Token, Socket, BytesMut)>,
    send: Option<(Token, Socket, Sending)>,
    /// The worker fetches what the send lacks, or it waits for memory to fetch it to.
    loading: bool,
}

/// How a send went on.
enum Sent {
    /// Not to its end.
    Waits,
    /// To its end.
    Completed(Completion),
    /// To where the page cache has nothing.
    Lacks(Load),
    /// The same, and there is no memory for it.
    Starves,
}

#[derive(Clone, Copy)]
enum Direction {
    Receive,
    Send,
}

impl Posix {
    /// Makes the back end, with the socket to accept from, if this shard accepts, and so many
    /// buffers of [`super::BUFFER_BYTES`] for data that is not in the page cache.
    pub fn new(
        data_dir: DataDir,
        listener: Option<Listener>,
        pace: Pace,
        buffers_max: usize,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let eventfd = EventFd::from_flags(flags)?;
        epoll.add(&eventfd, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        let bell = Bell(Arc::new(BellKind::EventFd(eventfd)));
        let acceptor = listener
            .map(|listener| Acceptor::new(listener, true))
            .transpose()?;
        if let Some(acceptor) = &acceptor {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            epoll.add(acceptor.as_fd(), EpollEvent::new(flags, LISTENER))?;
        }
        Ok(Self {
            epoll,
            events: vec![EpollEvent::empty(); EVENTS_MAX],
            connections: Vec::new(),
            runnable: VecDeque::new(),
            acceptor,
            accepts: VecDeque::new(),
            acceptable: true,
            worker: Worker::start(bell.clone())?,
            buffers: Buffers::new(buffers_max),
            starved: VecDeque::new(),
            bell,
            data_dir,
            pace,
        })
    }

    /// The connection of a socket; a socket seen for the first time is assumed to be ready.
    fn connection(&mut self, socket: &Socket) -> io::Result<(usize, &mut Connection)> {
        let fd = sockets::descriptor(socket);
        let index = usize::try_from(fd.as_raw_fd()).expect("descriptors are not negative");
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        let slot = &mut self.connections[index];
        let identity = Arc::downgrade(&socket.0);
        if !slot
            .as_ref()
            .is_some_and(|known| known.identity.ptr_eq(&identity))
        {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            self.epoll.add(fd, EpollEvent::new(flags, index as u64))?;
            *slot = None;
        }
        let connection = slot.get_or_insert(Connection {
            identity,
            readable: true,
            writable: true,
            receive: None,
            send: None,
            loading: false,
        });
        Ok((index, connection))
    }

    fn submit_receive(&mut self, token: Token, socket: Socket, buffer: BytesMut) {
        assert!(
            buffer.len() < buffer.capacity(),
            "receive needs spare capacity"
        );
        match self.connection(&socket) {
            Ok((index, connection)) => {
                assert!(
                    connection.receive.is_none(),
                    "one receive per socket at a time"
                );
                connection.receive = Some((token, socket, buffer));
                if connection.readable {
                    self.runnable.push_back((index, Direction::Receive));
                }
            }
            Err(error) => {
                let outcome = Outcome::Received {
                    result: Err(error),
                    buffer,
                };
                self.worker.complete(Completion { token, outcome });
            }
        }
    }

    fn submit_send(&mut self, token: Token, socket: Socket, sending: Sending) {
        match self.connection(&socket) {
            Ok((index, connection)) => {
                assert!(connection.send.is_none(), "one send per socket at a time");
                connection.send = Some((token, socket, sending));
                if connection.writable {
                    self.runnable.push_back((index, Direction::Send));
                }
            }
            Err(error) => {
                let outcome = Outcome::Sent(Err(error));
                self.worker.complete(Completion { token, outcome });
            }
        }
    }

    /// Takes events from epoll, waiting at most until `timeout`; true if the bell was among them.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let count = match self.epoll.wait(&mut self.events, epoll_timeout(timeout)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let mut rung = false;
        for event in &self.events[..count] {
            match event.data() {
                BELL => {
                    rung = true;
                    if let BellKind::EventFd(eventfd) = &*self.bell.0 {
                        // Sets the count to zero; it was readable, and nobody else reads it.
                        let _ = eventfd.read();
                    }
                }
                LISTENER => self.acceptable = true,
                index => {
                    let index = index as usize;
                    let Some(Some(connection)) = self.connections.get_mut(index) else {
                        continue;
                    };
                    let broken = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
                    if event.events().intersects(EpollFlags::EPOLLIN | broken) {
                        if !connection.readable && connection.receive.is_some() {
                            self.runnable.push_back((index, Direction::Receive));
                        }
                        connection.readable = true;
                    }
                    if event.events().intersects(EpollFlags::EPOLLOUT | broken) {
                        if !connection.writable && connection.send.is_some() {
                            self.runnable.push_back((index, Direction::Send));
                        }
                        connection.writable = true;
                    }
                }
            }
        }
        Ok(rung)
    }

    /// Lets every runnable operation go on, once.
    fn run(&mut self, completions: &mut Vec<Completion>) {
        for _ in 0..self.runnable.len() {
            let Some((index, direction)) = self.runnable.pop_front() else {
                return;
            };
            let Some(Some(connection)) = self.connections.get_mut(index) else {
                continue;
            };
            match direction {
                Direction::Receive => completions.extend(connection.run_receive()),
                Direction::Send => match connection.run_send(&mut self.buffers, &self.pace.stats) {
                    Sent::Completed(completion) => completions.push(completion),
                    Sent::Lacks(load) => {
                        let identity = connection.identity.clone();
                        self.pace.worker_began();
                        self.worker.submit(Job::Load(index, identity, load));
                    }
                    Sent::Starves => {
                        let identity = connection.identity.clone();
                        // Who waits for its peer gives way. If others are starved already, it has.
                        if self.starved.is_empty() {
                            self.unload_blocked();
                        }
                        self.starved.push_back((index, identity));
                    }
                    Sent::Waits => {
                        if connection.writable && !connection.loading {
                            self.runnable.push_back((index, Direction::Send));
                        } else if !self.starved.is_empty() {
                            self.buffers.keep(connection.unload());
                        }
                    }
                },
            }
        }
    }

    /// Lets sends go on that wait for memory, as far as there is some.
    fn feed_starved(&mut self) {
        let room = self.buffers.room().min(self.starved.len());
        for _ in 0..room {
            if let Some((index, identity)) = self.starved.pop_front() {
                self.resume(index, &identity);
            }
        }
    }

    /// Lets a send go on that has waited for memory, if its socket is still there.
    fn resume(&mut self, index: usize, identity: &Weak<SocketKind>) {
        let connection = self.connections.get_mut(index).and_then(Option::as_mut);
        if let Some(connection) = connection.filter(|c| c.identity.ptr_eq(identity)) {
            connection.loading = false;
            self.runnable.push_back((index, Direction::Send));
        }
    }

    /// Takes the memory of one send that waits for room in its socket.
    fn unload_blocked(&mut self) {
        let connections = self.connections.iter_mut().flatten();
        let mut blocked = connections.filter(|connection| !connection.writable);
        let unloaded = blocked.find_map(Connection::unload);
        self.buffers.keep(unloaded);
    }

    /// Takes what the worker has done.
    fn take_done(&mut self, completions: &mut Vec<Completion>) {
        for done in self.worker.done.try_iter() {
            match done {
                Done::Completed(completion) => {
                    if matches!(completion.outcome, Outcome::Synced(_)) {
                        self.pace.worker_ended();
                    }
                    completions.push(completion);
                }
                Done::Loaded(index, identity, load, result) => {
                    self.pace.worker_ended();
                    let slot = self.connections.get_mut(index);
                    let connection = slot.and_then(Option::as_mut);
                    // The socket may be gone, and another one have its number.
                    if let Some(connection) = connection.filter(|c| c.identity.ptr_eq(&identity)) {
                        completions.extend(connection.on_loaded(load, result, &self.pace.stats));
                        self.runnable.push_back((index, Direction::Send));
                    }
                }
            }
        }
    }

    /// Accepts for as many waiting accepts as there are connections.
    fn accept(&mut self, completions: &mut Vec<Completion>) {
        let Some(acceptor) = &mut self.acceptor else {
            return;
        };
        if acceptor
            .paused_until
            .is_some_and(|until| clock::mono() >= until)
        {
            acceptor.paused_until = None;
            self.acceptable = true;
        }
        while self.acceptable && acceptor.paused_until.is_none() {
            let Some(&token) = self.accepts.front() else {
                return;
            };
            let result = match acceptor.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.acceptable = false;
                    return;
                }
                Err(error) => match acceptor.after_error(&error, clock::mono()) {
                    AfterAccept::Fail => Err(error),
                    AfterAccept::Retry | AfterAccept::Pause => continue,
                },
                Ok(accepted) => Ok(accepted),
            };
            self.accepts.pop_front();
            completions.push(Completion {
                token,
                outcome: Outcome::Accepted(result),
            });
        }
    }

    /// Time until the caller's deadline or the end of the accept pause; zero if there is work.
    fn timeout(&self, deadline: Option<Mono>) -> Option<Duration> {
        let pause = self
            .acceptor
            .as_ref()
            .and_then(|acceptor| acceptor.paused_until);
        let acceptable = self.acceptable && pause.is_none() && !self.accepts.is_empty();
        if acceptable || !self.runnable.is_empty() {
            return Some(Duration::ZERO);
        }
        let until = deadline.into_iter().chain(pause).min()?;
        Some(until.since(clock::mono()))
    }
}

impl Connection {
    /// Receives, if there is something; the completion, if it ends.
    fn run_receive(&mut self) -> Option<Completion> {
        let (token, socket, mut buffer) = self.receive.take()?;
        let result = loop {
            match sockets::receive(&socket, &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        if result
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        {
            self.readable = false;
            self.receive = Some((token, socket, buffer));
            return None;
        }
        Some(Completion {
            token,
            outcome: Outcome::Received { result, buffer },
        })
    }

    /// Sends this turn's share.
    fn run_send(&mut self, buffers: &mut Buffers, stats: &ShardStats) -> Sent {
        if self.loading {
            return Sent::Waits;
        }
        let Some((token, socket, mut sending)) = self.send.take() else {
            return Sent::Waits;
        };
        let result = match sending.push(&socket, SEND_TURN_BYTES_MAX, stats) {
            Ok(Progress::Done) => {
                buffers.keep(sending.unload());
                Ok(())
            }
            Ok(Progress::Cold) => match sending.load(buffers) {
                Ok(load) => {
                    self.loading = true;
                    self.send = Some((token, socket, sending));
                    return load.map_or(Sent::Starves, Sent::Lacks);
                }
                Err(error) => Err(error),
            },
            Ok(progress) => {
                self.writable = progress == Progress::Share;
                self.send = Some((token, socket, sending));
                return Sent::Waits;
            }
            Err(error) => Err(error),
        };
        Sent::Completed(Completion {
            token,
            outcome: Outcome::Sent(result),
        })
    }

    /// Gives up what was fetched and not sent.
    fn unload(&mut self) -> Option<Target> {
        let (_, _, sending) = self.send.as_mut()?;
        sending.unload()
    }

    /// What the send lacked is here, or cannot be had.
    fn on_loaded(
        &mut self,
        load: Load,
        result: io::Result<usize>,
        stats: &ShardStats,
    ) -> Option<Completion> {
        self.loading = false;
        let (token, socket, mut sending) = self.send.take()?;
        match result.and_then(|count| sending.on_loaded(load, count, stats)) {
            Ok(()) => {
                self.send = Some((token, socket, sending));
                None
            }
            Err(error) => Some(Completion {
                token,
                outcome: Outcome::Sent(Err(error)),
            }),
        }
    }
}

impl Io for Posix {
    fn now(&mut self) -> Now {
        clock::now()
    }

    fn submit(&mut self, token: Token, op: Op) {
        match op {
            Op::Accept => {
                assert!(self.acceptor.is_some(), "accept needs a listener");
                self.accepts.push_back(token);
            }
            Op::Receive { socket, buffer } => self.submit_receive(token, socket, buffer),
            Op::Send {
                socket,
                chunks,
                path,
            } => self.submit_send(token, socket, Sending::new(chunks, path)),
            Op::Sync { file } => {
                self.pace.worker_began();
                self.worker.submit(Job::Sync(token, file));
            }
        }
    }

    fn wait(
        &mut self,
        deadline: Option<Mono>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let held = completions.len();
        loop {
            self.feed_starved();
            let mut timeout = self.timeout(deadline);
            if timeout != Some(Duration::ZERO) && self.pace.spins() {
                timeout = Some(Duration::ZERO);
            }
            let rung = self.poll(timeout)?;
            self.run(completions);
            self.accept(completions);
            self.take_done(completions);
            let late = || deadline.is_some_and(|deadline| clock::mono() >= deadline);
            if rung || completions.len() > held || late() {
                self.pace.end();
                return Ok(());
            }
        }
    }

    fn shutdown(&mut self, socket: &Socket) {
        sockets::shutdown(socket);
        // It needs no memory to end.
        let identity = Arc::downgrade(&socket.0);
        let ours = |(_, starved): &(_, Weak<SocketKind>)| starved.ptr_eq(&identity);
        let at = self.starved.iter().position(ours);
        if let Some((index, identity)) = at.and_then(|at| self.starved.remove(at)) {
            self.resume(index, &identity);
        }
    }

    fn bell(&self) -> Bell {
        self.bell.clone()
    }

    fn read(&mut self, extent: &Extent, buffer: &mut BytesMut) -> io::Result<bool> {
        cached::read_cached(extent, buffer)
    }

    fn list_dirs(&mut self) -> io::Result<Vec<String>> {
        self.data_dir.list_dirs()
    }

    fn open_dir(&mut self, name: &str) -> io::Result<Box<dyn Dir>> {
        Ok(Box::new(self.data_dir.dir(name)?))
    }

    fn rename_dir(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.data_dir.rename_dir(from, to)
    }

    fn remove_dir(&mut self, name: &str) -> io::Result<()> {
        self.data_dir.remove_dir(name)
    }

    fn sync_dirs(&mut self) -> io::Result<()> {
        self.data_dir.sync()
    }

    fn space(&mut self) -> io::Result<Space> {
        self.data_dir.space()
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.data_dir.sync_all()
    }
}

/// What the worker is asked for.
enum Job {
    /// `fdatasync`.
    Sync(Token, File),
    /// What the send of this connection lacks.
    Load(usize, Weak<SocketKind>, Load),
}

/// What the worker has done.
enum Done {
    Completed(Completion),
    Loaded(usize, Weak<SocketKind>, Load, io::Result<usize>),
}

/// The thread that waits for the device. What it has done comes back by a channel, and the bell
/// tells of it.
struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    done: mpsc::Receiver<Done>,
    report: mpsc::Sender<Done>,
    bell: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(bell: Bell) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (report, done) = mpsc::channel();
        let (results, ringer) = (report.clone(), bell.clone());
        let thread = std::thread::Builder::new()
            .name("device".to_owned())
            .spawn(move || {
                for job in queue {
                    // The receiver goes only after this thread was joined.
                    let _ = results.send(job.run());
                    ringer.ring();
                }
            })?;
        Ok(Self {
            jobs: Some(jobs),
            done,
            report,
            bell,
            thread: Some(thread),
        })
    }

    fn submit(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("the queue closes on drop only");
        jobs.send(job)
            .expect("the thread ends after the queue closed only");
    }

    /// Completes an operation that could not start.
    fn complete(&self, completion: Completion) {
        self.report
            .send(Done::Completed(completion))
            .expect("both ends of the channel are here");
        self.bell.ring();
    }
}

impl Job {
    fn run(self) -> Done {
        match self {
            Job::Sync(token, file) => {
                let outcome = Outcome::Synced(files::sync(&file));
                Done::Completed(Completion { token, outcome })
            }
            Job::Load(index, identity, mut load) => {
                let result = load.run();
                Done::Loaded(index, identity, load, result)
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // It ends once the jobs asked for are done.
            let _ = thread.join();
        }
    }
}

/// In milliseconds, rounded up: a wait that ends too early would only be repeated.
fn epoll_timeout(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else {
        return EpollTimeout::NONE;
    };
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(millis.min(i32::MAX as u128) as i32).unwrap_or(EpollTimeout::MAX)
}
