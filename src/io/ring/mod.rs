//! [`Io`] on io_uring: one ring per shard, made and used on the shard's thread only.
//!
//! Accept, receive, sends from memory, sync and the bell are ring operations. Sends that contain
//! extents are plain calls (`sendmsg`, `sendfile`) made when the socket has room; waiting for room
//! and fetching what the page cache lacks are ring operations. Splice always runs on one of the
//! ring's workers, which suits a file that must be waited for and no hot one.
//!
//! Invariant: whatever the kernel may touch (buffers, descriptors) is owned by an entry of
//! `pending` until its completion was taken. On drop everything is cancelled and awaited first.

mod operation;
mod queue;
mod setup;

pub use setup::{Refused, probe};

use super::buffers::Buffers;
use super::files::DataDir;
use super::loading::Load;
use super::pace::Pace;
use super::sending::{Progress, SEND_TURN_BYTES_MAX, Sending};
use super::slab::Slab;
use super::sockets::{self, Acceptor, AfterAccept, Listener};
use super::{
    Bell, BellKind, Completion, Extent, Io, Op, Outcome, Socket, Token, cached, clock, files,
};
use crate::base::dir::Dir;
use crate::base::{Mono, Now, Space};
use bytes::{BufMut, BytesMut};
use io_uring::opcode;
use io_uring::types::Fd;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use operation::Operation;
use queue::{Finished, Queue};
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long a drop waits for the kernel to let go of all buffers.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// The key of the bell's read; no operation has it.
const BELL_KEY: u64 = u64::MAX - 1;

/// What a ring is made from.
#[derive(Debug)]
pub struct RingConfig {
    /// Where files live.
    pub data_dir: DataDir,
    /// The socket to accept from, if this shard accepts.
    pub listener: Option<Listener>,
    /// Slots of the submission queue, a power of two; more operations wait in memory. The
    /// completion queue has 16 times as many.
    pub entries: u32,
    /// Buffers for data that is not in the page cache, each of [`super::BUFFER_BYTES`].
    pub buffers_max: usize,
    /// How it waits.
    pub pace: Pace,
}

/// The io_uring back end of one shard. It cannot leave the thread that made it.
pub struct Ring {
    queue: Queue,
    pending: Slab<Pending>,
    /// Sends whose socket should have room.
    runnable: VecDeque<(Token, Socket, Sending)>,
    acceptor: Option<Acceptor>,
    /// Accepts that rest until the acceptor's pause is over.
    resting: Vec<Token>,
    bell: Bell,
    /// Where the kernel puts the eventfd's count.
    bell_count: Box<[u8; 8]>,
    data_dir: DataDir,
    pace: Pace,
    /// The memory of loads.
    buffers: Buffers,
    /// Sends that wait for some of it.
    starved: VecDeque<(Token, Socket, Sending)>,
    /// Empty between waits, kept for its memory.
    finished: Vec<Finished>,
    overflow_reported: bool,
    canceled_reported: bool,
    /// The ring refuses every other thread (SINGLE_ISSUER).
    thread_bound: PhantomData<*const ()>,
}

/// An operation that the kernel has, or will have at the next enter.
struct Pending {
    token: Token,
    operation: Operation,
}

impl Ring {
    /// Makes the ring of the calling thread.
    pub fn new(config: RingConfig) -> Result<Self, Refused> {
        let queue = Queue::new(config.entries)?;
        let acceptor = config
            .listener
            .map(|listener| Acceptor::new(listener, false))
            .transpose();
        let acceptor = acceptor.map_err(|error| Refused::new("fcntl", error))?;
        // Blocking, as sockets are: not every kernel lets the ring's read wait on any other.
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)
            .map_err(|errno| Refused::new("eventfd", errno.into()))?;
        let mut ring = Self {
            queue,
            pending: Slab::new(),
            runnable: VecDeque::new(),
            acceptor,
            resting: Vec::new(),
            bell: Bell(Arc::new(BellKind::EventFd(bell))),
            bell_count: Box::new([0; 8]),
            data_dir: config.data_dir,
            pace: config.pace,
            buffers: Buffers::new(config.buffers_max),
            starved: VecDeque::new(),
            finished: Vec::new(),
            overflow_reported: false,
            canceled_reported: false,
            thread_bound: PhantomData,
        };
        ring.listen_for_bell();
        Ok(ring)
    }

    /// Turns in which completions did not fit their queue. None is lost then, but `entries` is too
    /// small for the load.
    pub fn completion_overflows(&self) -> u64 {
        self.queue.overflows()
    }

    /// Queues an operation; its memory stays in `pending` until it completes.
    fn start(&mut self, token: Token, operation: Operation) {
        let key = self.pending.insert(Pending { token, operation });
        let pending = self.pending.get_mut(key).expect("it was just put there");
        let entry = pending.operation.entry(self.acceptor.as_ref());
        // SAFETY: the descriptors are owned and the buffers lie on the heap behind handles in
        // `pending`, which nobody uses until `finish` removes them with the completion. On drop the
        // queue is closed first, and what it could not get back is leaked.
        unsafe { self.queue.push(key, entry) };
    }

    fn start_send(&mut self, token: Token, socket: Socket, sending: Sending) {
        if sending.is_memory() {
            self.start(
                token,
                Operation::Send {
                    socket,
                    sending,
                    message: None,
                },
            );
        } else {
            self.runnable.push_back((token, socket, sending));
        }
    }

    fn listen_for_bell(&mut self) {
        let BellKind::EventFd(eventfd) = &*self.bell.0 else {
            unreachable!("a ring's bell is an eventfd");
        };
        let fd = Fd(eventfd.as_fd().as_raw_fd());
        let entry = opcode::Read::new(fd, self.bell_count.as_mut_ptr(), 8).build();
        // SAFETY: the eventfd and the heap memory of its count live as long as the ring, and at
        // most one such read is under way; see `start` for the drop.
        unsafe { self.queue.push(BELL_KEY, entry) };
    }

    /// Starts the accepts that rested, when the pause is over.
    fn resume_accepts(&mut self) {
        let Some(acceptor) = &mut self.acceptor else {
            return;
        };
        if acceptor
            .paused_until
            .is_some_and(|until| clock::mono() >= until)
        {
            acceptor.paused_until = None;
            for token in std::mem::take(&mut self.resting) {
                self.start(token, Operation::Accept);
            }
        }
    }

    /// Gives every runnable send its share of this turn.
    fn push_sends(&mut self, completions: &mut Vec<Completion>) {
        self.feed_starved();
        for _ in 0..self.runnable.len() {
            let Some((token, socket, mut sending)) = self.runnable.pop_front() else {
                return;
            };
            match sending.push(&socket, SEND_TURN_BYTES_MAX, &self.pace.stats) {
                Ok(Progress::Share) => self.runnable.push_back((token, socket, sending)),
                Ok(Progress::Blocked) => {
                    if !self.starved.is_empty() {
                        self.buffers.keep(sending.unload());
                    }
                    self.start(token, Operation::AwaitRoom { socket, sending });
                }
                Ok(Progress::Cold) => {
                    if let Err(error) = self.start_load(token, socket, sending) {
                        completions.push(sent(token, Err(error)));
                    }
                }
                Ok(Progress::Done) => {
                    self.buffers.keep(sending.unload());
                    completions.push(sent(token, Ok(())));
                }
                Err(error) => completions.push(sent(token, Err(error))),
            }
        }
        self.feed_starved();
    }

    /// Lets sends go on that wait for memory, as far as there is some.
    fn feed_starved(&mut self) {
        let room = self.buffers.room().min(self.starved.len());
        self.runnable.extend(self.starved.drain(..room));
    }

    /// Has the kernel fetch what a send lacks; a buffered read waits inside the kernel, not here.
    fn start_load(&mut self, token: Token, socket: Socket, mut sending: Sending) -> io::Result<()> {
        let Some(load) = sending.load(&mut self.buffers)? else {
            // Who waits for its peer gives way. If others are starved already, it has.
            if self.starved.is_empty() {
                self.unload_blocked();
            }
            self.starved.push_back((token, socket, sending));
            return Ok(());
        };
        let operation = Operation::Load {
            socket,
            sending,
            load,
        };
        self.start(token, operation);
        Ok(())
    }

    /// Takes the memory of one send that waits for room in its socket. The kernel watches the
    /// socket for it and knows nothing of the rest.
    fn unload_blocked(&mut self) {
        let unloaded = self.pending.values_mut().find_map(|pending| match pending {
            Pending {
                operation: Operation::AwaitRoom { sending, .. },
                ..
            } => sending.unload(),
            _ => None,
        });
        self.buffers.keep(unloaded);
    }

    /// A load ended; the send goes on, or fails.
    fn finish_load(
        &mut self,
        (socket, mut sending): (Socket, Sending),
        mut load: Load,
        result: Result<usize, Errno>,
    ) -> io::Result<(Socket, Sending)> {
        let count = match result {
            Err(Errno::ECANCELED) => {
                self.tell_canceled();
                load.run()?
            }
            result => result?,
        };
        sending.on_loaded(load, count, &self.pace.stats)?;
        Ok((socket, sending))
    }

    /// Acts on all completions that were copied out; true if the bell was among them.
    fn harvest(&mut self, completions: &mut Vec<Completion>) -> bool {
        let mut rung = false;
        let mut finished = std::mem::take(&mut self.finished);
        self.queue.take_finished(&mut finished);
        for Finished { key, result } in finished.drain(..) {
            if key == BELL_KEY {
                rung = true;
                self.listen_for_bell();
            } else if let Some(pending) = self.pending.remove(key) {
                completions.extend(self.finish(pending, result));
            }
        }
        self.finished = finished;
        if self.queue.overflows() > 0 && !self.overflow_reported {
            self.overflow_reported = true;
            tracing::warn!("the ring's completion queue is too small; nothing is lost");
        }
        rung
    }

    /// The completion of an operation, unless it goes on.
    fn finish(&mut self, pending: Pending, result: i32) -> Option<Completion> {
        let Pending { token, operation } = pending;
        let result = usize::try_from(result).map_err(|_| Errno::from_raw(-result));
        let outcome = match operation {
            Operation::Accept => return self.finish_accept(token, result),
            Operation::Receive {
                socket: _,
                mut buffer,
            } => {
                if let Ok(count) = result {
                    // SAFETY: the kernel has written `count` bytes from the start of the spare
                    // capacity that it was given.
                    unsafe { buffer.advance_mut(count) };
                }
                Outcome::Received {
                    result: result.map_err(io::Error::from),
                    buffer,
                }
            }
            Operation::Send {
                socket,
                mut sending,
                message: _,
            } => match result {
                Ok(count) => {
                    self.pace.stats.bytes_sent_copy.add(count as u64);
                    sending.advance(count as u64);
                    if !sending.is_done() {
                        self.start_send(token, socket, sending);
                        return None;
                    }
                    Outcome::Sent(Ok(()))
                }
                Err(errno) => Outcome::Sent(Err(errno.into())),
            },
            Operation::AwaitRoom { socket, sending } => match result {
                Ok(_) => {
                    self.runnable.push_back((token, socket, sending));
                    return None;
                }
                Err(errno) => Outcome::Sent(Err(errno.into())),
            },
            Operation::Load {
                socket,
                sending,
                load,
            } => match self.finish_load((socket, sending), load, result) {
                Ok((socket, sending)) => {
                    self.runnable.push_back((token, socket, sending));
                    return None;
                }
                Err(error) => Outcome::Sent(Err(error)),
            },
            Operation::Sync { file } => {
                self.pace.worker_ended();
                Outcome::Synced(match result {
                    // No second try: the first one was never made.
                    Err(Errno::ECANCELED) => {
                        self.tell_canceled();
                        files::sync(&file)
                    }
                    result => result.map(drop).map_err(io::Error::from),
                })
            }
        };
        Some(Completion { token, outcome })
    }

    /// The kernel gives back unstarted what waits for its workers if it cannot make the first one
    /// (what it has started ends with another error). Such an operation is done here, by a plain
    /// call.
    fn tell_canceled(&mut self) {
        if !self.canceled_reported {
            self.canceled_reported = true;
            tracing::warn!(
                "the kernel cannot start a worker for the ring: the shard itself waits for syncs \
                 and reads; allow more threads (ulimit -u, pids.max of the cgroup; systemd: \
                 TasksMax)"
            );
        }
    }

    fn finish_accept(&mut self, token: Token, result: Result<usize, Errno>) -> Option<Completion> {
        let accepted = result.map_err(io::Error::from).and_then(|fd| {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
            sockets::welcome(unsafe { OwnedFd::from_raw_fd(fd as i32) })
        });
        let error = match accepted {
            Ok(accepted) => {
                return Some(Completion {
                    token,
                    outcome: Outcome::Accepted(Ok(accepted)),
                });
            }
            Err(error) => error,
        };
        let acceptor = self
            .acceptor
            .as_mut()
            .expect("an accept was started with it");
        match acceptor.after_error(&error, clock::mono()) {
            AfterAccept::Retry => self.start(token, Operation::Accept),
            AfterAccept::Pause => self.resting.push(token),
            AfterAccept::Fail => {
                return Some(Completion {
                    token,
                    outcome: Outcome::Accepted(Err(error)),
                });
            }
        }
        None
    }

    /// Time until the caller's deadline or the end of the accept pause.
    fn timeout(&self, deadline: Option<Mono>) -> Option<Duration> {
        let pause = self
            .acceptor
            .as_ref()
            .and_then(|acceptor| acceptor.paused_until);
        let until = deadline.into_iter().chain(pause).min()?;
        Some(until.since(clock::mono()))
    }
}

impl Io for Ring {
    fn now(&mut self) -> Now {
        clock::now()
    }

    fn submit(&mut self, token: Token, op: Op) {
        match op {
            Op::Accept => {
                assert!(self.acceptor.is_some(), "accept needs a listener");
                self.start(token, Operation::Accept);
            }
            Op::Receive { socket, buffer } => {
                assert!(
                    buffer.len() < buffer.capacity(),
                    "receive needs spare capacity"
                );
                self.start(token, Operation::Receive { socket, buffer });
            }
            Op::Send {
                socket,
                chunks,
                path,
            } => self.start_send(token, socket, Sending::new(chunks, path)),
            Op::Sync { file } => {
                self.pace.worker_began();
                self.start(token, Operation::Sync { file });
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
            self.resume_accepts();
            self.push_sends(completions);
            let idle = completions.len() == held && self.runnable.is_empty();
            let timeout = match idle && !self.pace.spins() {
                true => self.timeout(deadline),
                false => Some(Duration::ZERO),
            };
            self.queue.enter(timeout)?;
            let rung = self.harvest(completions);
            if rung || completions.len() > held || is_past(deadline) {
                self.pace.end();
                return Ok(());
            }
        }
    }

    fn shutdown(&mut self, socket: &Socket) {
        sockets::shutdown(socket);
        // It needs no memory to end.
        let ours = |(_, starved, _): &(_, Socket, _)| Arc::ptr_eq(&starved.0, &socket.0);
        let at = self.starved.iter().position(ours);
        self.runnable
            .extend(at.and_then(|at| self.starved.remove(at)));
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

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.queue.close(CLOSE_PATIENCE) {
            // Better a leak than a kernel that writes into memory used for something else.
            tracing::warn!("the ring did not end all operations; their buffers are leaked");
            std::mem::forget(std::mem::replace(&mut self.pending, Slab::new()));
            std::mem::forget(std::mem::replace(&mut self.bell_count, Box::new([0; 8])));
        }
    }
}

fn is_past(deadline: Option<Mono>) -> bool {
    deadline.is_some_and(|deadline| clock::mono() >= deadline)
}

fn sent(token: Token, result: io::Result<()>) -> Completion {
    Completion {
        token,
        outcome: Outcome::Sent(result),
    }
}
