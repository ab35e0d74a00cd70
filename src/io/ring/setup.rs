//! Making a ring, and saying why it cannot be made. The minimum is Linux 6.1: all flags asked for
//! exist there, so there is no second try with fewer of them (DEFER_TASKRUN decides when task work
//! runs, and the back end is sound only with it). COOP_TASKRUN is left out: task work that is
//! deferred to the loop's own system call interrupts nobody.

use io_uring::{IoUring, Probe, opcode};
use nix::errno::Errno;
use std::{fmt, io};

/// Completions kept per submission slot. Every connection can have one receive and one send under
/// way, far more than one turn submits.
const COMPLETIONS_PER_ENTRY: u32 = 16;

/// Kernel threads per shard for what must block, which is fdatasync: few, because the device takes
/// only so many flushes at once, and they share the shard's core.
const BLOCKING_WORKERS_MAX: u32 = 4;

/// Operations the back end uses.
const OPCODES: [(u8, &str); 8] = [
    (opcode::Accept::CODE, "accept"),
    (opcode::AsyncCancel::CODE, "async cancel"),
    (opcode::Fsync::CODE, "fsync"),
    (opcode::PollAdd::CODE, "poll"),
    (opcode::Read::CODE, "read"),
    (opcode::Recv::CODE, "recv"),
    (opcode::Send::CODE, "send"),
    (opcode::SendMsg::CODE, "sendmsg"),
];

/// Why this machine gives no ring. Its text names the error, the likely causes and what to do about
/// each, in one paragraph.
#[derive(Debug)]
pub struct Refused {
    step: &'static str,
    error: io::Error,
}

impl Refused {
    pub(super) fn new(step: &'static str, error: io::Error) -> Self {
        Self { step, error }
    }

    /// What the operating system said.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    fn advice(&self) -> String {
        let seccomp = "a container's seccomp profile blocks io_uring_setup, io_uring_enter and \
             io_uring_register (Docker: run with --security-opt seccomp=PROFILE that allows them; \
             Kubernetes: a Localhost seccompProfile)";
        let kernel = format!(
            "this needs Linux 6.1 or later (running: {})",
            kernel_release()
        );
        match self.error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EACCES) => format!(
                "either {seccomp}; or the sysctl kernel.io_uring_disabled is {} and must be 0 \
                 (sysctl -w kernel.io_uring_disabled=0), or 1 with this user in the group of \
                 kernel.io_uring_group",
                io_uring_disabled(),
            ),
            Some(Errno::ENOSYS | Errno::EOPNOTSUPP) => format!(
                "either the kernel was built without io_uring or is too old: {kernel}; or {seccomp}"
            ),
            Some(Errno::EINVAL) => format!("the kernel lacks a feature: {kernel}"),
            Some(Errno::ENOMEM) => "raise the memory limit of the container, or the locked memory \
                 limit (ulimit -l unlimited; systemd: LimitMEMLOCK=infinity), or use fewer cores"
                .to_owned(),
            Some(Errno::EMFILE | Errno::ENFILE) => {
                "raise the limit of open files (ulimit -n; systemd: LimitNOFILE)".to_owned()
            }
            _ => format!("{kernel}; in a container, perhaps {seccomp}"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self
            .error
            .raw_os_error()
            .map(|errno| format!("{:?}: ", Errno::from_raw(errno)));
        let name = name.unwrap_or_default();
        write!(
            f,
            "io_uring is not available: {} failed: {name}{}; ",
            self.step, self.error
        )?;
        write!(f, "{}; or choose --io posix", self.advice())
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Asks whether this process can have rings: makes one as the shards will, and drops it.
pub fn probe() -> Result<(), Refused> {
    build(8).map(drop)
}

/// A ring that belongs to the calling thread (SINGLE_ISSUER).
pub(super) fn build(entries: u32) -> Result<IoUring, Refused> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(entries.saturating_mul(COMPLETIONS_PER_ENTRY))
        .setup_clamp()
        .build(entries)
        .map_err(|error| Refused::new("io_uring_setup", error))?;
    let mut supported = Probe::new();
    ring.submitter()
        .register_probe(&mut supported)
        .map_err(|error| Refused::new("io_uring_register", error))?;
    if let Some((_, name)) = OPCODES
        .iter()
        .find(|(code, _)| !supported.is_supported(*code))
    {
        return Err(Refused::new(name, Errno::EOPNOTSUPP.into()));
    }
    ring.submitter()
        .register_iowq_max_workers(&mut [BLOCKING_WORKERS_MAX, BLOCKING_WORKERS_MAX])
        .map_err(|error| Refused::new("io_uring_register", error))?;
    Ok(ring)
}

fn kernel_release() -> String {
    let name = nix::sys::utsname::uname();
    name.map_or_else(
        |_| "unknown".to_owned(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

fn io_uring_disabled() -> String {
    let value = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    value.map_or_else(
        |_| "not readable".to_owned(),
        |value| value.trim().to_owned(),
    )
}
