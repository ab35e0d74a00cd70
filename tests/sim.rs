//! The simulation: fixed seeds, which must take the marked branches, and random ones for a while.
//! `scripts/sim` drives the ignored tests; what the simulation finds at all, `tests/planted.rs`
//! shows. What it has found once has a test of its own beside the code.

use forebay::base::marks::{self, Mark};
use forebay::sim::run::{Options, Report, run};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Lines of the trace shown with a failure.
const LINES: usize = 60;

/// Branches that so few seeds may miss: longer runs take them.
const RARE: [Mark; 2] = [Mark::LogStartedAnew, Mark::CommitRefused];

/// How long random seeds are tried.
const RANDOM_SECONDS: u64 = 45;

/// Time between two lines about progress.
const TOLD_SECONDS: u64 = 20;

fn options(seed: u64) -> Options {
    Options {
        seed,
        failing_disk: std::env::var_os("FAILING_DISK").is_some(),
        lines_max: LINES,
    }
}

fn assert_good(options: Options) -> Report {
    let report = run(options);
    if let Some(failure) = &report.failure {
        let lines: Vec<_> = report.trace.lines().collect();
        let (lines, seed) = (lines.join("\n"), options.seed);
        let disk = match options.failing_disk {
            true => "FAILING_DISK=1 ",
            false => "",
        };
        panic!("{lines}\nSEED={seed}: {failure}\nreplay it with {disk}scripts/sim {seed}");
    }
    report
}

/// What many runs have done.
#[derive(Default)]
struct Sum {
    seeds: u64,
    operations: u64,
    starts: u64,
    acked: u64,
    read: u64,
    generations: u64,
    commits: u64,
    marks: marks::Counts,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.operations += report.operations;
        self.starts += report.runs;
        self.acked += report.acked;
        self.read += report.read;
        self.generations += report.generations;
        self.commits += report.commits;
        for (mark, count) in marks::take() {
            *self.marks.entry(mark).or_default() += count;
        }
    }

    fn missed(&self) -> Vec<Mark> {
        let all = Mark::ALL.into_iter();
        all.filter(|mark| !self.marks.contains_key(mark)).collect()
    }

    fn describe(&self) -> String {
        let Self {
            seeds,
            operations,
            starts,
            acked,
            read,
            generations,
            commits,
            ..
        } = self;
        format!(
            "{seeds} seeds: {operations} operations, {starts} starts, {acked} records \
             acknowledged, {read} read, {generations} generations, {commits} commits; branches \
             not taken: {:?}",
            self.missed()
        )
    }
}

#[test]
fn fixed_seeds() {
    marks::take();
    let mut sum = Sum::default();
    for seed in 0..100 {
        sum.add(&assert_good(options(seed)));
    }
    println!("{}", sum.describe());
    // A workload that does nothing would find nothing.
    assert!(sum.operations > 100_000, "{}", sum.describe());
    assert!(sum.acked > 100_000, "{}", sum.describe());
    assert!(sum.read > 100_000, "{}", sum.describe());
    assert!(sum.starts > 180, "{}", sum.describe());
    assert!(sum.generations > 100, "{}", sum.describe());
    assert!(sum.commits > 100, "{}", sum.describe());
    let mut missed = sum.missed();
    missed.retain(|mark| !RARE.contains(mark));
    assert_eq!(missed, [], "branches that no seed takes");
}

/// Nobody waits for ever, and nothing acknowledged is lost, when writes and syncs fail.
#[test]
fn a_failing_disk() {
    for seed in 0..20 {
        assert_good(Options {
            failing_disk: true,
            ..options(seed)
        });
    }
}

#[test]
fn random_seeds() {
    let began = Instant::now();
    let mut seed = seed_of_now();
    while began.elapsed() < Duration::from_secs(RANDOM_SECONDS) {
        println!("SEED={seed}");
        assert_good(options(seed));
        seed += 1;
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..3 {
        let hashes = [0; 2].map(|_| assert_good(options(seed)).trace.hash());
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
    let hashes = [0, 1].map(|seed| assert_good(options(seed)).trace.hash());
    assert_ne!(hashes[0], hashes[1]);
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
    marks::take();
    let report = run(options(seed));
    let mut sum = Sum::default();
    sum.add(&report);
    println!("{}", sum.describe());
    println!(
        "seed {seed}: trace {:016x}, {} events",
        report.trace.hash(),
        report.trace.events(),
    );
    if let Some(failure) = report.failure {
        panic!("SEED={seed}: {failure}");
    }
}

/// `scripts/sim --seeds N` and `--minutes N`: runs many on all cores and names all that fail.
#[test]
#[ignore = "driven by scripts/sim"]
fn many() {
    let seeds = number("SEEDS").unwrap_or(u64::MAX);
    let minutes = number("MINUTES").unwrap_or(u64::MAX / 60);
    let start = number("START").unwrap_or_else(|| match number("MINUTES") {
        Some(_) => seed_of_now(),
        None => 0,
    });
    let threads = number("THREADS").map_or_else(default_threads, |threads| threads as usize);
    let began = Instant::now();
    let until = Duration::from_secs(60 * minutes);
    let next = AtomicU64::new(0);
    let all = Mutex::new((Sum::default(), Vec::new(), began));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while began.elapsed() < until {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= seeds {
                        break;
                    }
                    let report = run(options(start + at));
                    let (sum, failed, told) = &mut *all.lock().unwrap();
                    sum.add(&report);
                    if let Some(failure) = report.failure {
                        println!("SEED={}: {failure}", start + at);
                        failed.push(start + at);
                    }
                    if told.elapsed() > Duration::from_secs(TOLD_SECONDS) {
                        *told = Instant::now();
                        println!("{} seeds, {} operations", sum.seeds, sum.operations);
                    }
                }
            });
        }
    });
    let (sum, failed, _) = all.into_inner().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", sum.describe());
    println!(
        "seeds from {start} on {threads} threads in {seconds:.0} s: {:.0} seeds per minute, \
         failed: {failed:?}",
        sum.seeds as f64 * 60.0 / seconds
    );
    assert!(failed.is_empty());
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}

fn seed_of_now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since_epoch.as_nanos() as u64 % 1_000_000_000_000
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
