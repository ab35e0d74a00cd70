//! The minutes of a soak as a table, and whether they are flat.
//!
//! Growth is that of a straight line through the minutes, the first of which is left out: it has
//! the start of everything in it.

use std::fmt::Write;

/// What one minute has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Minute {
    /// Records acknowledged in it.
    pub acked: u64,
    /// Records that the group read for the first time.
    pub read: u64,
    /// Acknowledgements outside of restarts, in milliseconds.
    pub p50_ms: f64,
    /// The same for the slowest hundredth.
    pub p99_ms: f64,
    /// Largest resident memory of the broker, in MiB.
    pub rss_mib: f64,
    /// Most file descriptors of the broker.
    pub files: f64,
    /// Bytes in the partitions with retention, in MiB.
    pub data_mib: f64,
    /// Records that retention has deleted so far.
    pub deleted: u64,
    /// Rounds of rebalancing that members went through.
    pub rebalances: u64,
    /// Topics created, written, read and deleted.
    pub topics: u64,
    /// Ends of the broker: clean stops and kills.
    pub restarts: u64,
    /// Things that must not happen.
    pub faults: u64,
}

/// A demand and what was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// It was met.
    pub pass: bool,
    /// What is judged.
    pub name: &'static str,
    /// What is allowed.
    pub allowed: String,
    /// What was seen.
    pub seen: String,
}

/// The head of the table.
pub const HEAD: &str = "minute    acked/s     read/s   p50 ms   p99 ms  RSS MiB  files  data MiB  \
                        deleted  rebalances  topics  restarts  faults";

/// One line of the table.
pub fn line(number: usize, minute: &Minute) -> String {
    format!(
        "{number:>6} {:>10.0} {:>10.0} {:>8.1} {:>8.1} {:>8.1} {:>6.0} {:>9.1} {:>8} {:>11} {:>7} \
         {:>9} {:>7}",
        minute.acked as f64 / 60.0,
        minute.read as f64 / 60.0,
        minute.p50_ms,
        minute.p99_ms,
        minute.rss_mib,
        minute.files,
        minute.data_mib,
        minute.deleted,
        minute.rebalances,
        minute.topics,
        minute.restarts,
        minute.faults,
    )
}

/// Judges a soak; `unread` acknowledged records were never read by the group, and if `restarts` were
/// asked for, there must be some.
pub fn judge(minutes: &[Minute], unread: usize, restarts: bool) -> Vec<Gate> {
    let sum = |of: fn(&Minute) -> u64| minutes.iter().map(of).sum::<u64>();
    let last = minutes.last().cloned().unwrap_or_default();
    let exact = |name, seen: u64| Gate {
        pass: seen == 0,
        name,
        allowed: "0".to_owned(),
        seen: seen.to_string(),
    };
    let some = |name, seen: u64| Gate {
        pass: seen > 0,
        name,
        allowed: "some".to_owned(),
        seen: seen.to_string(),
    };
    let mut gates = vec![
        exact("faults of the checker", sum(|minute| minute.faults)),
        exact("acknowledged and never read", unread as u64),
        flat(
            minutes,
            "RSS growth, MiB",
            |m| m.rss_mib,
            Allowance {
                per_minute: 0.1,
                least: 4.0,
            },
        ),
        flat(
            minutes,
            "growth of open files",
            |m| m.files,
            Allowance {
                per_minute: 0.0,
                least: 8.0,
            },
        ),
        flat(
            minutes,
            "growth of data, MiB",
            |m| m.data_mib,
            Allowance {
                per_minute: 0.0,
                least: 16.0,
            },
        ),
        drift(minutes),
        some("records deleted by retention", last.deleted),
        some("rebalances", sum(|minute| minute.rebalances)),
        some("topics made and deleted", sum(|minute| minute.topics)),
    ];
    gates.extend(restarts.then(|| some("restarts", sum(|minute| minute.restarts))));
    gates
}

/// The gates as text, with the verdict.
pub fn text(gates: &[Gate]) -> String {
    let mut text = format!("\n      {:<32} {:<18} seen\n", "", "allowed");
    for gate in gates {
        let word = if gate.pass { "PASS" } else { "FAIL" };
        let _ = writeln!(
            text,
            "{word}  {:<32} {:<18} {}",
            gate.name, gate.allowed, gate.seen
        );
    }
    let failed = gates.iter().filter(|gate| !gate.pass).count();
    let _ = match failed {
        0 => writeln!(text, "\nPASS"),
        _ => writeln!(text, "\nFAIL: {failed} of {} gates", gates.len()),
    };
    text
}

/// How much something may grow.
struct Allowance {
    per_minute: f64,
    /// The same for short soaks, where a line through few points is mostly noise.
    least: f64,
}

fn flat(
    minutes: &[Minute],
    name: &'static str,
    of: fn(&Minute) -> f64,
    allowance: Allowance,
) -> Gate {
    let values: Vec<_> = minutes.iter().skip(1).map(of).collect();
    let grown = growth(&values);
    let allowed = (allowance.per_minute * minutes.len() as f64).max(allowance.least);
    Gate {
        pass: grown <= allowed,
        name,
        allowed: format!("at most {allowed:.1}"),
        seen: format!("{grown:+.1}"),
    }
}

/// The p99 of the last third against that of the first.
fn drift(minutes: &[Minute]) -> Gate {
    let steady = minutes.get(1..).unwrap_or_default();
    let third = steady.len().div_ceil(3);
    let first = median(steady.iter().take(third));
    let last = median(steady.iter().rev().take(third));
    let allowed = first * 1.5 + 2.0;
    Gate {
        pass: last <= allowed,
        name: "p99 at the end, ms",
        allowed: format!("at most {allowed:.1}"),
        seen: format!("{last:.1} (first {first:.1})"),
    }
}

fn median<'a>(minutes: impl Iterator<Item = &'a Minute>) -> f64 {
    let mut values: Vec<_> = minutes.map(|minute| minute.p99_ms).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// How much a straight line through the values rises from the first to the last.
fn growth(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    if values.len() < 2 {
        return 0.0;
    }
    let (mean_x, mean_y) = ((count - 1.0) / 2.0, values.iter().sum::<f64>() / count);
    let (mut over, mut under) = (0.0, 0.0);
    for (x, y) in values.iter().enumerate() {
        let x = x as f64 - mean_x;
        over += x * (y - mean_y);
        under += x * x;
    }
    over / under * (count - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Vec<Minute> {
        let minute = |number| Minute {
            acked: 1000,
            read: 1000,
            p50_ms: 1.0,
            p99_ms: 5.0,
            // Noise is no growth.
            rss_mib: 40.0 + f64::from(number % 2),
            files: 50.0,
            data_mib: 30.0,
            deleted: 10,
            rebalances: 1,
            topics: 3,
            restarts: 1,
            faults: 0,
        };
        (0..10).map(minute).collect()
    }

    fn failed(minutes: &[Minute], unread: usize) -> Vec<&'static str> {
        let gates = judge(minutes, unread, true);
        let failed = gates.iter().filter(|gate| !gate.pass);
        failed.map(|gate| gate.name).collect()
    }

    fn with(change: impl Fn(usize, &mut Minute)) -> Vec<Minute> {
        let mut minutes = good();
        let each = minutes.iter_mut().enumerate();
        each.for_each(|(number, minute)| change(number, minute));
        minutes
    }

    #[test]
    fn a_good_soak_passes() {
        assert_eq!(failed(&good(), 0), Vec::<&str>::new());
        assert!(text(&judge(&good(), 0, true)).ends_with("\nPASS\n"));
    }

    #[test]
    fn each_gate_can_fail() {
        assert_eq!(failed(&good(), 1), ["acknowledged and never read"]);
        let fault = with(|number, minute| minute.faults = u64::from(number == 3));
        assert_eq!(failed(&fault, 0), ["faults of the checker"]);
        let leak = with(|number, minute| minute.rss_mib += number as f64);
        assert_eq!(failed(&leak, 0), ["RSS growth, MiB"]);
        let files = with(|number, minute| minute.files += 2.0 * number as f64);
        assert_eq!(failed(&files, 0), ["growth of open files"]);
        let data = with(|number, minute| minute.data_mib += 10.0 * number as f64);
        assert_eq!(failed(&data, 0), ["growth of data, MiB"]);
        let slower = with(|number, minute| minute.p99_ms += 3.0 * number as f64);
        assert_eq!(failed(&slower, 0), ["p99 at the end, ms"]);
        let idle = with(|_, minute| (minute.restarts, minute.deleted) = (0, 0));
        assert_eq!(
            failed(&idle, 0),
            ["records deleted by retention", "restarts"]
        );
        assert!(text(&judge(&leak, 0, true)).ends_with("\nFAIL: 1 of 10 gates\n"));
        let alone = with(|_, minute| minute.restarts = 0);
        assert!(judge(&alone, 0, false).iter().all(|gate| gate.pass));
    }

    #[test]
    fn growth_is_that_of_a_line() {
        assert_eq!(growth(&[1.0, 2.0, 3.0, 4.0]), 3.0);
        assert_eq!(growth(&[5.0, 5.0]), 0.0);
        assert_eq!(growth(&[5.0]), 0.0);
        assert_eq!(growth(&[]), 0.0);
    }
}
