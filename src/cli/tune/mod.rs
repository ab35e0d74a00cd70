//! `forebay tune`: looks at the machine as `serve` would find it, and says for each thing that
//! matters whether it is fine, or which command changes it. It changes nothing, and needs no
//! rights: what this user may not read is said to be unknown.
//!
//! [`machine`] gathers; the advice here is a pure function of it.

mod machine;
#[cfg(test)]
mod tests;

use crate::cli::output::{Failure, Output};
use crate::config::{Config, Descriptors, ServeArgs};
use machine::{Kernel, Machine, Mount};
use std::path::Path;

/// The listener's backlog; the kernel cuts it down to `net.core.somaxconn`.
const BACKLOG: u64 = 4096;

/// So many descriptors are enough for most: one per connection, up to five per partition.
const FILES_MIN: u64 = 65_536;

/// Look at this machine and print what to change for speed; changes nothing
#[derive(Debug, clap::Args)]
pub struct Tune {
    /// What `serve` would be told.
    #[command(flatten)]
    serve: ServeArgs,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// What.
    topic: &'static str,
    /// How it is.
    seen: String,
    /// What to do about it, with the command; `None` if it is fine.
    advice: Option<String>,
}

/// Looks and prints.
pub fn run(command: &Tune, output: &mut Output) -> Result<(), Failure> {
    let config = Config::load(&command.serve).map_err(|why| Failure::Failed(why.to_string()))?;
    let machine = Machine::look(Path::new("/"), &config);
    let findings = advise(&machine);
    let width = findings.iter().map(|finding| finding.topic.len()).max();
    let width = width.unwrap_or(0);
    for Finding {
        topic,
        seen,
        advice,
    } in &findings
    {
        output.line(&format!("{topic:width$}  {seen}"))?;
        if let Some(advice) = advice {
            output.line(&format!("{:width$}    -> {advice}", ""))?;
        }
    }
    let count = findings.iter().filter(|one| one.advice.is_some()).count();
    output.line(&match count {
        0 => "Nothing to change.".to_owned(),
        1 => "One thing to change; nothing was changed.".to_owned(),
        _ => format!("{count} things to change; nothing was changed."),
    })
}

/// What there is to say about a machine, from the processor to the disk.
fn advise(machine: &Machine) -> Vec<Finding> {
    vec![
        cores(machine),
        siblings(machine),
        nodes(machine),
        governor(machine),
        polling(machine),
        ring(machine),
        kernel(machine),
        memlock(machine),
        files(machine),
        congestion(machine),
        backlog(machine),
        buffers(machine),
        filesystem(machine),
        page_cache(machine),
    ]
}

fn finding(topic: &'static str, seen: impl Into<String>, advice: Option<String>) -> Finding {
    Finding {
        topic,
        seen: seen.into(),
        advice,
    }
}

fn cores(machine: &Machine) -> Finding {
    let (allowed, shards) = (machine.allowed.len(), machine.shards);
    let quota = match machine.quota {
        Some(quota) => format!("cgroup quota {quota} CPUs"),
        None => "no cgroup quota".to_owned(),
    };
    let seen = format!(
        "{allowed} of {} CPUs, {quota}, {shards} shards",
        machine.online
    );
    let advice = match machine.quota {
        _ if shards > whole_cpus(machine) && whole_cpus(machine) > 0 => Some(format!(
            "shards share a CPU or run into the quota: forebay serve --cores {}",
            whole_cpus(machine)
        )),
        Some(quota) if quota.fract() > 0.0 && quota < allowed as f64 => Some(format!(
            "a whole number of CPUs is used better than {quota}: set cpu.max to a multiple"
        )),
        _ => None,
    };
    finding("cores", seen, advice)
}

/// How many shards can have a CPU each, within the quota as well; none below a quota of one.
fn whole_cpus(machine: &Machine) -> usize {
    let allowed = machine.allowed.len();
    machine
        .quota
        .map_or(allowed, |quota| allowed.min(quota.floor() as usize))
}

fn siblings(machine: &Machine) -> Finding {
    let shared = machine.first_of_each_core.len() < machine.allowed.len();
    let seen = match shared {
        true => "some CPUs are threads of one core (SMT)",
        false => "each CPU is a core (no SMT)",
    };
    let list: Vec<_> = machine
        .first_of_each_core
        .iter()
        .map(usize::to_string)
        .collect();
    let list = match list.as_slice() {
        [one] => format!("{one}-{one}"),
        _ => list.join(","),
    };
    let advice = (shared && machine.shards > machine.first_of_each_core.len())
        .then(|| format!("if latency counts more than throughput: forebay serve --cores {list}"));
    finding("smt", seen, advice)
}

fn nodes(machine: &Machine) -> Finding {
    let (seen, advice) = match machine.numa_nodes.as_slice() {
        [] => ("unknown".to_owned(), None),
        [_] => ("the CPUs are on one memory node".to_owned(), None),
        [first, rest @ ..] => (
            format!("the CPUs are on {} memory nodes", 1 + rest.len()),
            Some(format!(
                "keep it on one node, with the network card and disk: numactl \
                 --cpunodebind={first} --membind={first} forebay serve"
            )),
        ),
    };
    finding("numa", seen, advice)
}

fn governor(machine: &Machine) -> Finding {
    let Some(governor) = &machine.governor else {
        return finding("governor", "none (left to the host)", None);
    };
    let advice = (governor != "performance")
        .then(|| "sudo cpupower frequency-set --governor performance".to_owned());
    finding("governor", governor, advice)
}

fn polling(machine: &Machine) -> Finding {
    let seen = match machine.poll_us {
        0 => "shards block when idle".to_owned(),
        micros => format!("shards look for work for {micros} us before they block"),
    };
    let advice = machine.poll_refused.then(|| match whole_cpus(machine) {
        0 => "spinning is off, as it would eat the quota: set cpu.max to a whole CPU".to_owned(),
        count => format!(
            "spinning is off, as shards have no CPU each: forebay serve --cores {count} at most"
        ),
    });
    finding("polling", seen, advice)
}

fn ring(machine: &Machine) -> Finding {
    match &machine.ring_refused {
        None => finding("io_uring", "available", None),
        Some(why) => finding("io_uring", "refused, posix serves", Some(why.clone())),
    }
}

fn kernel(machine: &Machine) -> Finding {
    let Some(kernel) = machine.kernel else {
        return finding("kernel", "unknown", None);
    };
    let advice = if kernel < Kernel(6, 1, 0) {
        Some("io_uring is served from Linux 6.1 on: update the kernel")
    } else if (Kernel(6, 1, 64)..=Kernel(6, 1, 65)).contains(&kernel) {
        Some("ext4 can lose data under 6.1.64 and 6.1.65: update the kernel")
    } else if machine.has_spurious_enomem() {
        Some("ring sends can fail for no reason: update to 6.6.86, 6.12.21, 6.13.9, 6.14 or later")
    } else {
        None
    };
    let Kernel(major, minor, patch) = kernel;
    let seen = format!("Linux {major}.{minor}.{patch}");
    finding("kernel", seen, advice.map(str::to_owned))
}

fn memlock(machine: &Machine) -> Finding {
    let seen = match machine.memlock_bytes {
        u64::MAX => "unlimited".to_owned(),
        bytes => format!(
            "{} KiB; newer kernels count rings (6.18 does)",
            bytes / 1024
        ),
    };
    finding("memlock", seen, None)
}

fn files(machine: &Machine) -> Finding {
    let Descriptors {
        limit, connections, ..
    } = machine.descriptors;
    let seen = format!("{limit} open files allowed, room for {connections} connections");
    let advice = (limit < FILES_MIN && connections < machine.connections).then(|| {
        format!(
            "memory has room for {} connections; raise the hard limit: LimitNOFILE={FILES_MIN} \
             (systemd), --ulimit nofile={FILES_MIN} (docker)",
            machine.connections
        )
    });
    finding("files", seen, advice)
}

fn congestion(machine: &Machine) -> Finding {
    let Some(control) = &machine.congestion_control else {
        return finding("congestion", "unknown", None);
    };
    let advice = (control == "bbr").then(|| {
        "bbr paces clients on the same machine down to a quarter, and is for long ways: sudo \
         sysctl -w net.ipv4.tcp_congestion_control=cubic"
            .to_owned()
    });
    finding("congestion", control, advice)
}

fn backlog(machine: &Machine) -> Finding {
    let Some(max) = machine.backlog_max else {
        return finding("backlog", "unknown", None);
    };
    let advice = (max < BACKLOG).then(|| {
        format!(
            "many clients that connect at once are kept waiting: sudo sysctl -w \
             net.core.somaxconn={BACKLOG}"
        )
    });
    finding("backlog", format!("{max} connections may wait"), advice)
}

fn buffers(machine: &Machine) -> Finding {
    let sides = [
        (
            "receive",
            "rmem_max",
            machine.socket_buffers.0,
            machine.buffers_max.0,
        ),
        (
            "send",
            "wmem_max",
            machine.socket_buffers.1,
            machine.buffers_max.1,
        ),
    ];
    let seen = sides.map(|(side, _, bytes, _)| match bytes {
        Some(bytes) => format!("{side} {bytes} bytes"),
        None => format!("{side} as the system adapts it"),
    });
    let capped = sides.into_iter().find_map(|(side, sysctl, bytes, max)| {
        let (bytes, max) = (bytes? as u64, max?);
        (bytes > max).then(|| {
            format!(
                "socket.{side}.buffer.bytes is cut down to {max}: sudo sysctl -w \
                 net.core.{sysctl}={bytes}"
            )
        })
    });
    finding("buffers", seen.join(", "), capped)
}

fn filesystem(machine: &Machine) -> Finding {
    let Some(Mount { kind, options }) = &machine.mount else {
        return finding("filesystem", "unknown", None);
    };
    let mut options = options.split(',');
    let advice = match kind.as_str() {
        _ if options.any(|option| matches!(option, "nobarrier" | "barrier=0")) => Some(
            "syncs do not reach the device, and acks=all is lost by a power cut: mount without \
             nobarrier",
        ),
        "ext4" | "xfs" => None,
        "tmpfs" | "ramfs" => {
            Some("records are gone after a restart: choose a --data-dir on a disk")
        }
        "overlay" => Some("this is a container's own layer: mount a volume for --data-dir"),
        "nfs" | "nfs4" | "cifs" | "fuse" | "9p" | "virtiofs" => {
            Some("a sync goes over a wire or through another process: choose a local --data-dir")
        }
        "btrfs" | "zfs" => {
            Some("copy on write makes every sync dearer: choose a --data-dir on ext4 or xfs")
        }
        _ => Some("not known to be tried: ext4 and xfs are; forebay's speed may differ"),
    };
    finding("filesystem", kind, advice.map(str::to_owned))
}

fn page_cache(machine: &Machine) -> Finding {
    let Some(state) = &machine.pages_out else {
        return finding(
            "page cache",
            "nothing is seen that pages it out early",
            None,
        );
    };
    let advice = format!(
        "records that were hot a minute ago come from the disk again: echo off | sudo tee {}",
        state.display()
    );
    finding(
        "page cache",
        "paged out while there is memory (DAMON)",
        Some(advice),
    )
}
