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

/// Kernel threads per shard for what must block, which is fdatasync and splice from a file: few,
/// because the device takes only so many flushes at once, and they share the shard's core.
const BLOCKING_WORKERS_MAX: u32 = 4;

/// Operations the back end uses.
const OPCODES: [(u8, &str); 9] = [
    (opcode::Accept::CODE, "accept"),
    (opcode::AsyncCancel::CODE, "async cancel"),
    (opcode::Fsync::CODE, "fsync"),
    (opcode::PollAdd::CODE, "poll"),
    (opcode::Read::CODE, "read"),
    (opcode::Recv::CODE, "recv"),
    (opcode::Send::CODE, "send"),
    (opcode::SendMsg::CODE, "sendmsg"),
    (opcode::Splice::CODE, "splice"),
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
        let sysctl = "set it to 0 (sysctl -w kernel.io_uring_disabled=0), or to 1 with this user \
             in the group of kernel.io_uring_group";
        let kernel = format!(
            "this needs Linux 6.1 or later (running: {})",
            kernel_release()
        );
        match self.error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EACCES) => match io_uring_disabled().as_deref() {
                Some("0") => seccomp.to_owned(),
                Some(value) => format!("the sysctl kernel.io_uring_disabled is {value}; {sysctl}"),
                None => format!("either {seccomp}; or the sysctl forbids it; {sysctl}"),
            },
            Some(Errno::ENOSYS | Errno::EOPNOTSUPP) => format!(
                "either the kernel was built without io_uring or is too old: {kernel}; or {seccomp}"
            ),
            Some(Errno::EINVAL) => format!("the kernel lacks a feature: {kernel}"),
            Some(Errno::ENOMEM) => "raise the locked memory limit (ulimit -l unlimited; systemd: \
                 LimitMEMLOCK=infinity) or the memory limit of the container, or use fewer --cores \
                 or --ring-entries"
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

/// Asks whether this process can have so many rings of so many entries: makes them as the shards
/// will, and drops them.
pub fn probe(entries: u32, rings: usize) -> Result<(), Refused> {
    let rings: Result<Vec<_>, _> = (0..rings).map(|_| build(entries)).collect();
    rings.map(drop)
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
    pin_workers(&ring).map_err(|error| Refused::new("io_uring_register", error))?;
    Ok(ring)
}

/// Keeps the ring's kernel threads on the CPUs of the shard's thread, which they do not inherit:
/// they would take turns with the shards of other CPUs.
fn pin_workers(ring: &IoUring) -> io::Result<()> {
    // SAFETY: the set is a bit field, for which zero is a value.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpus` is writable memory of that size; 0 is the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&cpus), &mut cpus) };
    match result {
        0 => ring.submitter().register_iowq_aff(&cpus),
        // More CPUs than the set has room for: such a machine has some to spare.
        _ => Ok(()),
    }
}

fn kernel_release() -> String {
    let name = nix::sys::utsname::uname();
    name.map_or_else(
        |_| "unknown".to_owned(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

/// The sysctl's value: 0 allows, 1 asks for a group, 2 forbids. Kernels before 6.6 have none.
fn io_uring_disabled() -> Option<String> {
    let value = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::backend::{Backend, Choice};
    use libc::{
        BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, PR_SET_NO_NEW_PRIVS,
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO,
        SYS_io_uring_setup,
    };

    /// Makes io_uring_setup fail for the calling thread, as a container's profile does.
    fn block_io_uring(errno: Errno) {
        let statement = |code: u32, k: u32| libc::sock_filter {
            code: code as u16,
            jt: 0,
            jf: 0,
            k,
        };
        let mut filter = [
            // The number of the system call is the first field.
            statement(BPF_LD | BPF_W | BPF_ABS, 0),
            libc::sock_filter {
                jf: 1,
                ..statement(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup as u32)
            },
            statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errno as u32),
            statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: plain numbers, and a program that lives as long as the calls.
        let results = unsafe {
            [
                libc::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const program),
            ]
        };
        assert_eq!(results, [0, 0], "{}", io::Error::last_os_error());
    }

    #[test]
    fn a_blocked_ring_is_refused_with_cause_and_fix() {
        probe(8, 1).expect("io_uring is available to the tests");
        let thread = std::thread::spawn(|| {
            block_io_uring(Errno::EPERM);
            (
                Backend::choose(Choice::Auto, 8, 1),
                Backend::choose(Choice::Uring, 8, 1),
            )
        });
        let (auto, uring) = thread.join().unwrap();
        let refused = uring.expect_err("it is blocked");
        assert_eq!(refused.error().raw_os_error(), Some(Errno::EPERM as i32));
        let text = refused.to_string();
        for part in [
            "io_uring_setup failed: EPERM",
            "seccomp",
            "--security-opt",
            "--io posix",
        ] {
            assert!(text.contains(part), "{part} is missing: {text}");
        }
        assert!(
            !text.contains('\n') && !text.contains("  "),
            "one paragraph: {text}"
        );

        let auto = auto.expect("it falls back");
        assert!(matches!(auto, Backend::Posix { fallback: Some(_) }));
        assert_eq!(auto.to_string(), format!("posix, because {text}"));
    }

    #[test]
    fn each_error_has_its_advice() {
        let advice = |errno: Errno| Refused::new("io_uring_setup", errno.into()).to_string();
        for (errno, part) in [
            (Errno::ENOSYS, "built without io_uring"),
            (Errno::ENOSYS, "seccomp"),
            (Errno::EINVAL, "Linux 6.1 or later (running: "),
            (Errno::ENOMEM, "ulimit -l"),
            (Errno::EMFILE, "ulimit -n"),
            (Errno::EIO, "Linux 6.1 or later"),
        ] {
            let text = advice(errno);
            assert!(
                text.contains(part) && text.contains(&format!("{errno:?}")),
                "{text}"
            );
            assert!(!text.contains("  "), "{text}");
        }
    }
}
