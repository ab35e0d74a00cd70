//! The advice for machines that the tests make up, and what is read from file trees.

use super::machine::{first_of_each_core, list_length, mount, numa_nodes, pages_out};
use super::*;

/// A machine with nothing to change.
fn fine() -> Machine {
    Machine {
        allowed: vec![0, 1],
        online: 2,
        quota: None,
        first_of_each_core: vec![0, 1],
        numa_nodes: vec![0],
        governor: Some("performance".to_owned()),
        kernel: Some(Kernel(6, 18, 44)),
        ring_refused: None,
        memlock_bytes: 8 << 20,
        descriptors: Descriptors::new(1 << 20, 2),
        connections: 100_000,
        congestion_control: Some("cubic".to_owned()),
        backlog_max: Some(4096),
        buffers_max: (Some(212_992), Some(212_992)),
        mount: Some(Mount {
            kind: "ext4".to_owned(),
            options: "rw,relatime".to_owned(),
        }),
        pages_out: None,
        shards: 2,
        poll_us: 0,
        poll_refused: false,
        socket_buffers: (None, None),
    }
}

/// All advice for the fine machine after a change, by topic.
fn advice(change: impl FnOnce(&mut Machine)) -> Vec<(&'static str, String)> {
    let mut machine = fine();
    change(&mut machine);
    let findings = advise(&machine);
    let advised = findings
        .into_iter()
        .filter_map(|one| Some((one.topic, one.advice?)));
    advised.collect()
}

/// Asserts that a change brings this advice, about this topic, and no other.
fn check(topic: &str, part: &str, change: impl FnOnce(&mut Machine)) {
    let advice = advice(change);
    assert_eq!(advice.len(), 1, "{advice:?}");
    assert_eq!(advice[0].0, topic);
    assert!(advice[0].1.contains(part), "{part} is not in {advice:?}");
}

#[test]
fn a_fine_machine_gets_no_advice() {
    assert_eq!(advice(|_| {}), []);
    assert_eq!(advice(|m| m.governor = None), []);
    assert_eq!(advice(|m| m.mount = None), []);
    assert_eq!(advice(|m| m.kernel = Some(Kernel(6, 6, 90))), []);
}

#[test]
fn each_trouble_has_its_command() {
    check("cores", "--cores 2", |m| m.shards = 3);
    check("cores", "--cores 1", |m| m.quota = Some(1.5));
    check("cores", "a multiple", |m| {
        m.quota = Some(1.5);
        m.shards = 1;
    });
    check("smt", "--cores 0,2", |m| {
        (m.allowed, m.online, m.shards) = (vec![0, 1, 2, 3], 4, 4);
        m.first_of_each_core = vec![0, 2];
    });
    check("smt", "--cores 0-0", |m| m.first_of_each_core = vec![0]);
    check("numa", "--membind=1", |m| m.numa_nodes = vec![1, 2]);
    check("governor", "cpupower", |m| {
        m.governor = Some("powersave".to_owned())
    });
    check("polling", "--cores 2", |m| m.poll_refused = true);
    let spinning = advice(|m| (m.quota, m.poll_refused) = (Some(1.5), true));
    assert!(spinning[1].1.contains("--cores 1"), "{spinning:?}");
    let starved = advice(|m| (m.quota, m.poll_refused) = (Some(0.5), true));
    assert_eq!(starved.len(), 2, "{starved:?}");
    assert!(starved.iter().all(|(_, one)| one.contains("cpu.max")));
    check("io_uring", "seccomp", |m| {
        m.ring_refused = Some("by seccomp".to_owned())
    });
    check("files", "docker", |m| {
        m.descriptors = Descriptors::new(4096, 2)
    });
    check("congestion", "=cubic", |m| {
        m.congestion_control = Some("bbr".to_owned())
    });
    check("backlog", "somaxconn=4096", |m| m.backlog_max = Some(128));
    check("page cache", "tee /state", |m| {
        m.pages_out = Some("/state".into())
    });
    check("buffers", "net.core.wmem_max=300000", |m| {
        m.socket_buffers.1 = Some(300_000)
    });
}

#[test]
fn kernels_with_known_faults_are_named() {
    let kernel = |text: &str| {
        let kernel = Kernel::parse(text);
        assert!(kernel.is_some(), "{text}");
        advice(|machine| machine.kernel = kernel)
    };
    for (release, part) in [
        ("5.15.0-91-generic", "from Linux 6.1 on"),
        ("6.1.64", "can lose data"),
        ("6.1.90", "fail for no reason"),
        ("6.6.85-1.el9", "fail for no reason"),
        ("6.13.8", "fail for no reason"),
    ] {
        let advice = kernel(release);
        assert!(advice[0].1.contains(part), "{release}: {advice:?}");
    }
    for release in [
        "6.6.86",
        "6.12.21-cloud",
        "6.14-rc1",
        "6.18.44-fc-v657",
        "7.0.0+",
    ] {
        assert_eq!(kernel(release), [], "{release}");
    }
    assert_eq!(Kernel::parse("strange"), None);
}

#[test]
fn file_systems_differ() {
    let on = |kind: &str, options: &str| {
        let mount = Mount {
            kind: kind.to_owned(),
            options: options.to_owned(),
        };
        advice(|machine| machine.mount = Some(mount))
            .pop()
            .map(|(_, advice)| advice)
    };
    assert_eq!(on("xfs", "rw"), None);
    for (kind, options, part) in [
        ("tmpfs", "rw", "gone after a restart"),
        ("overlay", "rw", "mount a volume"),
        ("nfs4", "rw", "a local --data-dir"),
        ("btrfs", "rw", "ext4 or xfs"),
        ("ext4", "rw,nobarrier", "without nobarrier"),
        ("ext4", "rw,barrier=0", "without nobarrier"),
        ("strange", "rw", "not known"),
    ] {
        let advice = on(kind, options).unwrap_or_default();
        assert!(advice.contains(part), "{kind}: {advice}");
    }
}

#[test]
fn the_nearest_mount_holds_a_path() {
    let mountinfo = "\
        24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,barrier=0\n\
        30 24 0:30 / /data rw - tmpfs tmpfs rw,size=1k\n\
        31 30 0:31 / /data/my\\040logs rw,noatime - fuse.sshfs host rw\n\
        broken line\n";
    let kind = |path: &str| mount(mountinfo, Path::new(path)).unwrap().kind;
    assert_eq!(kind("/var"), "ext4");
    assert_eq!(kind("/database"), "ext4", "a part of a name is no path");
    assert_eq!(kind("/data/x"), "tmpfs");
    assert_eq!(kind("/data/my logs/x"), "fuse");
    let root = mount(mountinfo, Path::new("/")).unwrap();
    assert_eq!(root.options, "rw,relatime,rw,barrier=0");
    assert_eq!(mount("", Path::new("/")), None);
}

#[test]
fn lists_and_siblings_are_read() {
    assert_eq!(list_length("0-3,8\n"), 5);
    assert_eq!(list_length("0"), 1);
    assert_eq!(list_length("3-1,x,18446744073709551615"), 1);
    let root = tempfile::tempdir().unwrap();
    for (cpu, siblings) in [(0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")] {
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        let topology = root.path().join(topology);
        std::fs::create_dir_all(&topology).unwrap();
        std::fs::write(topology.join("thread_siblings_list"), siblings).unwrap();
    }
    assert_eq!(first_of_each_core(root.path(), &[0, 1, 2, 3]), [0, 1]);
    assert_eq!(first_of_each_core(root.path(), &[2, 3]), [2, 3]);
    assert_eq!(first_of_each_core(root.path(), &[2, 7]), [2, 7], "unknown");
}

#[test]
fn only_nodes_with_a_cpu_of_ours_count() {
    let root = tempfile::tempdir().unwrap();
    let nodes = root.path().join("sys/devices/system/node");
    assert!(numa_nodes(root.path(), &[0]).is_empty());
    for (node, cpus) in [(0, "0-3,8-11"), (1, "4-7"), (2, "")] {
        let node = nodes.join(format!("node{node}"));
        std::fs::create_dir_all(&node).unwrap();
        std::fs::write(node.join("cpulist"), format!("{cpus}\n")).unwrap();
    }
    std::fs::write(nodes.join("online"), "0-2\n").unwrap();
    assert_eq!(numa_nodes(root.path(), &[5, 6]), [1]);
    assert_eq!(numa_nodes(root.path(), &[4, 11]), [0, 1]);
}

#[test]
fn a_monitor_that_pages_out_is_found() {
    let root = tempfile::tempdir().unwrap();
    let monitors = root.path().join("sys/kernel/mm/damon/admin/kdamonds");
    assert_eq!(pages_out(root.path()), None);
    let monitor = |number: &str, state: &str, action: &str| {
        let scheme = monitors.join(number).join("contexts/0/schemes/0");
        std::fs::create_dir_all(&scheme).unwrap();
        std::fs::write(scheme.join("action"), format!("{action}\n")).unwrap();
        std::fs::write(monitors.join(number).join("state"), format!("{state}\n")).unwrap();
    };
    monitor("0", "on", "lru_prio");
    monitor("1", "off", "pageout");
    assert_eq!(pages_out(root.path()), None);
    monitor("2", "on", "pageout");
    assert_eq!(pages_out(root.path()), Some(monitors.join("2/state")));
}
