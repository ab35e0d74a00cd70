//! The two queues of a ring: entries go in, in order and without limit; completions come out,
//! copied before anybody acts on them. It knows nothing of what the entries mean.
//!
//! Invariant: every entry given to the kernel brings exactly one completion (no multishot), so
//! [`Queue::in_kernel`] tells whether the kernel may still touch anybody's memory.

use super::setup::{self, Refused};
use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// A completion as the kernel gave it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished {
    /// As given to [`Queue::push`].
    pub(super) key: u64,
    /// A result, or a negative error number.
    pub(super) result: i32,
}

/// A ring with room for any number of entries.
pub(super) struct Queue {
    ring: IoUring,
    /// Entries that the kernel has not seen yet, beyond those in its own queue.
    backlog: VecDeque<Entry>,
    /// Completions copied out and not yet taken.
    finished: Vec<Finished>,
    in_kernel: usize,
    overflows: u64,
}

impl Queue {
    pub(super) fn new(entries: u32) -> Result<Self, Refused> {
        let ring = setup::build(entries)?;
        let backlog = VecDeque::new();
        Ok(Self {
            ring,
            backlog,
            finished: Vec::new(),
            in_kernel: 0,
            overflows: 0,
        })
    }

    /// Queues an entry; the kernel sees it at the next [`Queue::enter`].
    ///
    /// # Safety
    ///
    /// All memory and descriptors that the entry names stay valid and untouched until its
    /// completion is taken, or until the queue is closed with nothing left in the kernel.
    pub(super) unsafe fn push(&mut self, key: u64, entry: Entry) {
        self.backlog.push_back(entry.user_data(key));
    }

    /// Submits all that is queued and waits for a completion until `timeout` (`None`: for as long
    /// as it takes; zero: only looks). May return early with nothing.
    pub(super) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        loop {
            self.fill();
            let look = timeout == Some(Duration::ZERO)
                || !self.backlog.is_empty()
                || !self.finished.is_empty();
            let result = self.enter_once(u32::from(!look), timeout);
            self.drain();
            match result {
                Ok(()) if self.backlog.is_empty() && self.ring.submission().is_empty() => {
                    return Ok(());
                }
                Ok(()) => {}
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::ETIME | Errno::EINTR) => return Ok(()),
                    // Short of memory, or of room for completions, which were just taken out: the
                    // rest stays queued for the next call.
                    Some(Errno::EAGAIN | Errno::EBUSY) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Exchanges the completions copied out so far for an empty list.
    pub(super) fn take_finished(&mut self, finished: &mut Vec<Finished>) {
        finished.clear();
        std::mem::swap(&mut self.finished, finished);
    }

    /// How often the kernel had to keep completions for want of room in the queue. Nothing is lost
    /// then, but the queue is too small for the load.
    pub(super) fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Cancels everything and waits for its end, at most as long as `patience`. True if the kernel
    /// has nothing left that could touch memory of ours.
    pub(super) fn close(&mut self, patience: Duration) -> bool {
        self.backlog.clear();
        let started = Instant::now();
        // SAFETY: the entry names no memory.
        unsafe {
            self.push(
                CANCEL_KEY,
                opcode::AsyncCancel2::new(CancelBuilder::any()).build(),
            )
        };
        loop {
            let left = patience.saturating_sub(started.elapsed());
            self.finished.clear();
            let failed = self.enter(Some(left)).is_err();
            if self.in_kernel == 0 || failed || left.is_zero() {
                return self.in_kernel == 0;
            }
        }
    }

    /// Moves entries to the kernel's queue as long as it has room.
    fn fill(&mut self) {
        let mut submission = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the caller of `push` keeps valid what the entry names.
            if unsafe { submission.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
            self.in_kernel += 1;
        }
    }

    /// One system call. GETEVENTS is always set: with DEFER_TASKRUN nothing completes without it.
    fn enter_once(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        let queued = self.ring.submission().len() as u32;
        let timespec = timeout.map(Timespec::from);
        let mut args = SubmitArgs::new();
        if let Some(timespec) = &timespec {
            args = args.timespec(timespec);
        }
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: `args` is the type that EXT_ARG announces; it and its timespec outlive the call.
        unsafe {
            self.ring
                .submitter()
                .enter(queued, want, flags.bits(), Some(&args))
        }
        .map(drop)
    }

    /// Copies out all completions.
    fn drain(&mut self) {
        self.overflows += u64::from(self.ring.submission().cq_overflow());
        let held = self.finished.len();
        let completions = self.ring.completion();
        self.finished.extend(completions.map(|cqe| Finished {
            key: cqe.user_data(),
            result: cqe.result(),
        }));
        self.in_kernel -= self.finished.len() - held;
    }
}

/// The key of the cancellation; no operation has it.
const CANCEL_KEY: u64 = u64::MAX;
