//! On which CPUs the shards run: `--cores`, or what affinity and cgroup quota allow.
//!
//! A single number is a count of shards; anything with a comma or a dash is a list of CPUs.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

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
    /// What `--cores` says, for a process that may use `allowed` CPUs.
    ///
    /// # Errors
    /// What is wrong with the text, as the end of a sentence.
    pub(super) fn parse(text: &str, allowed: &[usize]) -> Result<Self, String> {
        let form = || "must be a count like 2 or a list of CPUs like 0,1 or 0-3".to_owned();
        if let Ok(count) = text.trim().parse::<usize>() {
            return match count {
                0 => Err("asks for no shard at all; to name CPU 0 write 0-0".to_owned()),
                1..=SHARDS_MAX => Ok(Self {
                    cpus: (0..count)
                        .map(|shard| Some(allowed[shard % allowed.len()]))
                        .collect(),
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

    /// One shard per CPU this process may use, fewer under a cgroup quota. Under a quota they are
    /// not pinned: neighbours with the same quota would all pin to the same first CPUs.
    pub(super) fn all(allowed: &[usize], quota: Option<f64>) -> Self {
        let count = allowed.len().min(SHARDS_MAX);
        match quota {
            Some(quota) if quota.ceil() < count as f64 => Self {
                cpus: vec![None; (quota.ceil() as usize).max(1)],
                why: format!("the cgroup's quota is {quota} CPUs"),
            },
            _ => Self {
                cpus: allowed[..count].iter().copied().map(Some).collect(),
                why: format!("this process may use {count} CPUs"),
            },
        }
    }
}

/// The CPUs that this process may use, ascending; never empty.
pub(super) fn allowed_cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let cpus = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    let cpus: Vec<usize> = cpus.collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// How many CPUs' worth of time the cgroup grants, if it sets a bound (version 2, then 1).
pub(super) fn cgroup_quota() -> Option<f64> {
    let read = |path| std::fs::read_to_string(path).ok();
    if let Some(text) = read("/sys/fs/cgroup/cpu.max") {
        return parse_quota(&text);
    }
    let quota = read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")?;
    let period = read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")?;
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
        Shards::parse(text, &[0, 1, 2, 3]).map(|shards| shards.cpus)
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
        assert_eq!(all(None), [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(all(Some(1.5)), [None, None]);
        assert_eq!(all(Some(0.2)), [None]);
        assert_eq!(all(Some(8.0)).len(), 4);
        assert_eq!(parse_quota("150000 100000\n"), Some(1.5));
        assert_eq!(parse_quota("max 100000\n"), None);
        assert_eq!(parse_quota("-1 100000"), None);
    }
}
