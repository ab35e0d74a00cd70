//! On which CPUs the shards run: `--cores`, or what affinity and cgroup quota allow.
//!
//! A single number is a count of shards; anything with a comma or a dash is a list of CPUs. Under a
//! quota only named CPUs are pinned to: neighbours with the same quota would all pin to the same
//! first CPUs.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Most shards: each costs a thread, a ring and buffers.
const SHARDS_MAX: usize = 1024;

/// The shards to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    /// For each shard the CPU it is pinned to; `None` leaves it to the scheduler.
    pub cpus: Vec<Option<usize>>,
    /// Where the number comes from, for people.
    pub why: String,
}

impl Shards {
    /// What `--cores` says, for a process that may use `allowed` CPUs, and of their time `quota`.
    ///
    /// # Errors
    /// What is wrong with the text, as the end of a sentence.
    pub(super) fn parse(text: &str, allowed: &[usize], quota: Option<f64>) -> Result<Self, String> {
        let form = || "must be a count like 2 or a list of CPUs like 0,1 or 0-3".to_owned();
        if let Ok(count) = text.trim().parse::<usize>() {
            return match count {
                0 => Err("asks for no shard at all; to name CPU 0 write 0-0".to_owned()),
                1..=SHARDS_MAX => Ok(Self {
                    cpus: match bound(allowed, quota) {
                        Some(_) => vec![None; count],
                        None => (0..count)
                            .map(|shard| Some(allowed[shard % allowed.len()]))
                            .collect(),
                    },
                    why: format!("{count} as told, over {} CPUs", allowed.len()),
                }),
                _ => Err(format!("is too much; the most is {SHARDS_MAX}")),
            };
        }
        let mut cpus = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| form())?;
            let last: usize = last.trim().parse().map_err(|_| form())?;
            if first > last || last - first >= SHARDS_MAX {
                return Err(form());
            }
            for cpu in first..=last {
                if !allowed.contains(&cpu) {
                    let allowed: Vec<String> = allowed.iter().map(usize::to_string).collect();
                    let allowed = allowed.join(",");
                    return Err(format!(
                        "names CPU {cpu}, but this process may use {allowed}"
                    ));
                }
                if cpus.contains(&Some(cpu)) {
                    return Err(format!("names CPU {cpu} twice"));
                }
                cpus.push(Some(cpu));
            }
        }
        Ok(Self {
            cpus,
            why: "CPUs as told".to_owned(),
        })
    }

    /// One shard per CPU this process may use, fewer under a cgroup quota.
    pub(super) fn all(allowed: &[usize], quota: Option<f64>) -> Self {
        match bound(allowed, quota) {
            Some(quota) => Self {
                cpus: vec![None; (quota.ceil() as usize).clamp(1, SHARDS_MAX)],
                why: format!("the cgroup's quota is {quota} CPUs"),
            },
            None => {
                let cpus = allowed.iter().copied().map(Some).take(SHARDS_MAX);
                Self {
                    cpus: cpus.collect(),
                    why: format!("this process may use {} CPUs", allowed.len()),
                }
            }
        }
    }

    /// What `--pin` and `--no-pin` say about it.
    pub(super) fn pinned(mut self, pin: bool, allowed: &[usize]) -> Self {
        for (shard, cpu) in self.cpus.iter_mut().enumerate() {
            *cpu = match pin {
                true => cpu.or(Some(allowed[shard % allowed.len()])),
                false => None,
            };
        }
        self
    }

    /// True if every shard can have a CPU for itself all the time, within the quota as well. Only
    /// then may a shard spin: it would take its time from another one, or from the quota.
    pub(super) fn has_cpu_each(&self, allowed: &[usize], quota: Option<f64>) -> bool {
        let named: BTreeSet<usize> = self.cpus.iter().flatten().copied().collect();
        let unnamed = self.cpus.iter().filter(|cpu| cpu.is_none()).count();
        let count = self.cpus.len();
        named.len() + unnamed == count
            && count <= allowed.len()
            && quota.is_none_or(|quota| count as f64 <= quota)
    }
}

/// The quota, if it is less than what the CPUs give.
fn bound(allowed: &[usize], quota: Option<f64>) -> Option<f64> {
    quota.filter(|quota| *quota < allowed.len() as f64)
}

/// The CPUs that this process may use, ascending; never empty. The kernel keeps them within the
/// cgroup's cpuset.
pub fn allowed_cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let cpus = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    let cpus: Vec<usize> = cpus.collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// How many CPUs' worth of time the cgroups grant, if one of them sets a bound.
pub fn cgroup_quota() -> Option<f64> {
    let memberships = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    quota_below(Path::new("/sys/fs/cgroup"), &memberships)
}

/// The smallest quota of the process's cgroups and all above them.
fn quota_below(mount: &Path, memberships: &str) -> Option<f64> {
    let groups = groups_below(mount, memberships, "cpu");
    let quotas = groups.iter().filter_map(|group| quota_of(group));
    quotas.min_by(f64::total_cmp)
}

/// The directories of the process's cgroups with this controller, and of all above them, version 2
/// and 1; `memberships` are the lines of `/proc/self/cgroup`. In a container they may name a path
/// of the host that is not there: the container's own group is then the root of the mount.
pub(super) fn groups_below(mount: &Path, memberships: &str, controller: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let roots: &[&str] = match controllers {
            "" => &["", "unified"],
            _ if controllers.split(',').any(|name| name == controller) => {
                &[controller, controllers]
            }
            _ => continue,
        };
        let group = Path::new(path.trim_start_matches('/'));
        // What leads out of the mount is not ours to read.
        let inside = !path.split('/').any(|part| part == "..");
        for root in roots {
            let groups = group.ancestors().filter(|_| inside);
            found.extend(groups.map(|group| mount.join(root).join(group)));
        }
    }
    found
}

/// The quota of one cgroup, by whichever version's files it has.
fn quota_of(group: &Path) -> Option<f64> {
    let read = |name| std::fs::read_to_string(group.join(name)).ok();
    if let Some(text) = read("cpu.max") {
        return parse_quota(&text);
    }
    let (quota, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
    parse_quota(&format!("{} {}", quota.trim(), period.trim()))
}

/// Parses `quota period` in microseconds; `max` and -1 are no bound.
fn parse_quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(text: &str) -> Result<Vec<Option<usize>>, String> {
        Shards::parse(text, &[0, 1, 2, 3], None).map(|shards| shards.cpus)
    }

    #[test]
    fn a_number_is_a_count_and_a_list_names_cpus() {
        assert_eq!(cpus("2"), Ok(vec![Some(0), Some(1)]));
        assert_eq!(cpus("0,2-3"), Ok(vec![Some(0), Some(2), Some(3)]));
        assert_eq!(cpus("3-3"), Ok(vec![Some(3)]));
        assert_eq!(
            cpus("6").map(|cpus| cpus[5]),
            Ok(Some(1)),
            "more shards than CPUs wrap round"
        );
    }

    #[test]
    fn bad_cores_say_how_to_write_them() {
        assert!(cpus("0").unwrap_err().contains("0-0"));
        assert!(
            cpus("1,9")
                .unwrap_err()
                .contains("names CPU 9, but this process may use 0,1,2,3")
        );
        assert!(cpus("1,1").unwrap_err().contains("twice"));
        for text in ["", "a", "1,", "3-1", "-", "1-99999999999", "1-"] {
            assert!(cpus(text).unwrap_err().contains("count like 2"), "{text}");
        }
        assert!(cpus("5000").unwrap_err().contains("the most is 1024"));
    }

    #[test]
    fn a_quota_lowers_the_default_and_unpins() {
        let all = |quota| Shards::all(&[0, 1, 2, 3], quota).cpus;
        let told = |text| Shards::parse(text, &[0, 1, 2, 3], Some(2.5)).unwrap().cpus;
        assert_eq!(told("2"), [None, None]);
        assert_eq!(
            told("2-3"),
            [Some(2), Some(3)],
            "whoever names them has them"
        );
        assert_eq!(all(Some(3.5)), [None; 4]);
        assert_eq!(all(None), [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(all(Some(1.5)), [None, None]);
        assert_eq!(all(Some(0.2)), [None]);
        assert_eq!(all(Some(8.0)).len(), 4);
        assert_eq!(parse_quota("150000 100000\n"), Some(1.5));
        assert_eq!(parse_quota("max 100000\n"), None);
        assert_eq!(parse_quota("-1 100000"), None);
    }

    #[test]
    fn the_smallest_quota_of_the_own_group_and_those_above_counts() {
        let mount = tempfile::tempdir().unwrap();
        let write = |group: &str, name: &str, text: &str| {
            let group = mount.path().join(group);
            std::fs::create_dir_all(&group).unwrap();
            std::fs::write(group.join(name), text).unwrap();
        };
        let quota = |memberships| quota_below(mount.path(), memberships);
        assert_eq!(quota("0::/"), None, "no files, no bound");
        write("pod/broker", "cpu.max", "max 100000\n");
        write("pod", "cpu.max", "250000 100000\n");
        write("other", "cpu.max", "10000 100000\n");
        assert_eq!(quota("0::/pod/broker\n"), Some(2.5), "the pod's holds");
        write("pod/broker", "cpu.max", "150000 100000\n");
        assert_eq!(quota("0::/pod/broker\n"), Some(1.5));
        write("", "cpu.max", "400000 100000\n");
        assert_eq!(quota("0::/docker/not-in-here\n"), Some(4.0), "the root");
        assert_eq!(quota("0::/../other"), None, "nothing outside");
        write("cpu,cpuacct/a", "cpu.cfs_quota_us", "50000\n");
        write("cpu,cpuacct/a", "cpu.cfs_period_us", "100000\n");
        assert_eq!(quota("3:memory:/a\n2:cpu,cpuacct:/a/b\n"), Some(0.5));
        write("cpu,cpuacct/a", "cpu.cfs_quota_us", "-1\n");
        assert_eq!(quota("2:cpu,cpuacct:/a/b\n1:cpuset:/\nbroken"), None);
    }

    #[test]
    fn shards_share_a_cpu_or_have_one_each() {
        let each = |text: &str, quota| {
            let shards = Shards::parse(text, &[0, 1], quota).unwrap();
            shards.has_cpu_each(&[0, 1], quota)
        };
        assert!(each("2", None) && each("0,1", Some(2.0)));
        assert!(!each("3", None), "more shards than CPUs");
        assert!(!each("2", Some(1.5)), "spinning would eat the quota");
        let unpinned = Shards::all(&[0, 1], Some(1.5));
        assert!(!unpinned.has_cpu_each(&[0, 1], Some(1.5)));
        let twice = Shards {
            cpus: vec![Some(0), Some(0)],
            why: String::new(),
        };
        assert!(!twice.has_cpu_each(&[0, 1], None));
    }

    #[test]
    fn pinning_can_be_asked_for_and_refused() {
        let pinned = |pin| Shards::all(&[4, 5], Some(0.5)).pinned(pin, &[4, 5]).cpus;
        assert_eq!(pinned(true), [Some(4)]);
        assert_eq!(pinned(false), [None]);
        let told = Shards::parse("5,4", &[4, 5], Some(0.5)).unwrap();
        assert_eq!(told.clone().pinned(true, &[4, 5]), told);
    }
}
