//! The simulation: fixed seeds and a random one, planted bugs that it must find, and the seeds that
//! have found something before. `scripts/sim` drives the ignored tests.

use forebay::sim::disk::DiskBugs;
use forebay::sim::run::{Options, Report, run};
use forebay::sim::world::Bugs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Lines of the trace shown with a failure.
const LINES: usize = 60;

/// Seeds within which a planted bug must be found.
const SEEDS_TO_FIND_A_BUG: u64 = 40;

fn options(seed: u64) -> Options {
    Options {
        seed,
        lines_max: LINES,
        ..Options::default()
    }
}

fn explain(seed: u64, report: &Report) -> Option<String> {
    let failure = report.failure.as_ref()?;
    let lines: Vec<_> = report.trace.lines().collect();
    let lines = lines.join("\n");
    Some(format!(
        "{lines}\nSEED={seed}: {failure}\nreplay it with scripts/sim {seed}"
    ))
}

fn assert_good(seed: u64) -> Report {
    let report = run(options(seed));
    if let Some(what) = explain(seed, &report) {
        panic!("{what}");
    }
    report
}

/// What the checker said about a bug, and the seed that showed it.
fn find(bug: impl Fn(Options) -> Options) -> (u64, String) {
    for seed in 0..SEEDS_TO_FIND_A_BUG {
        if let Some(failure) = run(bug(options(seed))).failure {
            eprintln!("found with seed {seed}: {failure}");
            return (seed, failure);
        }
    }
    panic!("{SEEDS_TO_FIND_A_BUG} seeds do not show the planted bug");
}

fn with_disk_bugs(bugs: DiskBugs) -> impl Fn(Options) -> Options {
    move |options| Options {
        bugs: Bugs {
            disk: bugs,
            ..Bugs::default()
        },
        ..options
    }
}

#[test]
fn fixed_seeds() {
    let (mut acked, mut read, mut runs, mut generations, mut commits) = (0, 0, 0, 0, 0);
    for seed in 0..40 {
        let report = assert_good(seed);
        acked += report.acked;
        read += report.read;
        runs += report.runs;
        generations += report.generations;
        commits += report.commits;
    }
    // A workload that does nothing would find nothing.
    assert!(acked > 100_000, "{acked} records acknowledged");
    assert!(read > 100_000, "{read} records read");
    assert!(runs > 120, "{runs} starts of the broker");
    assert!(generations > 100, "{generations} generations of groups");
    assert!(commits > 100, "{commits} commits");
}

/// Nobody waits for ever, and nothing acknowledged is lost, when writes and syncs fail.
/// Seed 114: DeleteRecords could not store the new start of the log, and served from it all the
/// same.
#[test]
fn a_failing_disk() {
    for seed in (0..20).chain([114]) {
        let report = run(Options {
            failing_disk: true,
            ..options(seed)
        });
        if let Some(what) = explain(seed, &report) {
            panic!("{what}");
        }
    }
}

#[test]
fn a_random_seed() {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = since_epoch.as_nanos() as u64 % 1_000_000_000;
    println!("SEED={seed}");
    assert_good(seed);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..3 {
        let hashes = [0; 2].map(|_| assert_good(seed).trace.hash());
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
    assert_ne!(assert_good(0).trace.hash(), assert_good(1).trace.hash());
}

/// Acknowledged without being on stable storage.
#[test]
fn finds_a_skipped_sync() {
    find(|options| Options {
        bugs: Bugs {
            sync_skipped: true,
            ..Bugs::default()
        },
        ..options
    });
}

/// Acknowledged, and visible, before the sync.
#[test]
fn finds_an_early_acknowledgement() {
    find(|options| Options {
        acknowledged_early: true,
        ..options
    });
}

/// A process that dies takes along what it has acknowledged.
#[test]
fn finds_a_reply_before_the_write() {
    find(with_disk_bugs(DiskBugs {
        late_write_ms: Some(5),
        ..DiskBugs::default()
    }));
}

/// What a producer sends again is appended again.
#[test]
fn finds_missing_deduplication() {
    let (_, failure) = find(|options| Options {
        dedupe_off: true,
        ..options
    });
    assert!(failure.contains(" is at "), "{failure}");
}

/// A new segment's name is gone after a power cut.
#[test]
fn finds_a_skipped_sync_of_a_directory() {
    find(with_disk_bugs(DiskBugs {
        sync_dir_skipped: true,
        ..DiskBugs::default()
    }));
}

/// A part of what was acknowledged is not in the file.
#[test]
fn finds_an_ignored_short_write() {
    find(with_disk_bugs(DiskBugs {
        short_write_one_in: Some(500),
        ..DiskBugs::default()
    }));
}

/// `scripts/sim SEED`: prints the whole trace.
#[test]
#[ignore = "driven by scripts/sim"]
fn replay() {
    let seed = number("SEED").expect("SEED is set");
    tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .with_max_level(tracing::Level::TRACE)
        .init();
    let report = run(options(seed));
    println!(
        "seed {seed}: trace {:016x}, {} events, {} starts, {} records acknowledged, {} read, \
         {} generations, {} commits",
        report.trace.hash(),
        report.trace.events(),
        report.runs,
        report.acked,
        report.read,
        report.generations,
        report.commits
    );
    if let Some(failure) = report.failure {
        panic!("SEED={seed}: {failure}");
    }
}

/// `scripts/sim --seeds N [--start S]`: runs many and names all that fail.
#[test]
#[ignore = "driven by scripts/sim"]
fn many() {
    let count = number("SEEDS").expect("SEEDS is set");
    let start = number("START").unwrap_or(0);
    let (began, mut told) = (Instant::now(), Instant::now());
    let (mut failed, mut acked, mut runs) = (Vec::new(), 0, 0);
    for seed in start..start + count {
        let report = run(options(seed));
        acked += report.acked;
        runs += report.runs;
        if let Some(failure) = report.failure {
            println!("SEED={seed}: {failure}");
            failed.push(seed);
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            println!("{} of {count} seeds", seed + 1 - start);
        }
    }
    println!(
        "{count} seeds from {start} in {:.0} s: {runs} starts, {acked} records acknowledged, \
         failed: {failed:?}",
        began.elapsed().as_secs_f64()
    );
    assert!(failed.is_empty());
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
