//! Looks for every planted bug with the simulation. `scripts/sim --planted` builds and runs this; a
//! usual build has no planted bugs.

use forebay::base::planted::{Bug, plant};
use forebay::sim::run::{Options, run};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Seeds within which a bug must be found.
const SEEDS_MAX: u64 = 1_000;

/// Longest that one bug is looked for.
const SEARCH_MAX: Duration = Duration::from_secs(120);

/// The first seed that shows the bug, and what it shows; else how many were tried. On the disk of
/// every other run writes and syncs fail often.
fn find(bug: Bug) -> Result<(u64, String), u64> {
    let began = Instant::now();
    for seed in 0..SEEDS_MAX {
        if began.elapsed() > SEARCH_MAX {
            return Err(seed);
        }
        let options = Options {
            seed,
            failing_disk: seed % 2 == 1,
            ..Options::default()
        };
        plant(Some(bug));
        let failure = run(options).failure;
        plant(None);
        // What fails without the bug as well does not show the bug.
        if let Some(failure) = failure
            && run(options).failure.is_none()
        {
            return Ok((seed, failure));
        }
    }
    Err(SEEDS_MAX)
}

#[test]
fn every_planted_bug_is_found() {
    // A bug that panics is found as well; its backtrace is of no interest.
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicUsize::new(0);
    let missed = std::thread::scope(|scope| {
        let search = || {
            let mut missed = Vec::new();
            while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                let name = format!("{bug:?}");
                match find(*bug) {
                    Ok((seed, what)) => println!("{name:22} seed {seed:4}  {what}"),
                    Err(seeds) => {
                        println!("{name:22} not found in {seeds} seeds");
                        missed.push(*bug);
                    }
                }
            }
            missed
        };
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        let missed = threads.into_iter().flat_map(|thread| thread.join());
        missed.flatten().collect::<Vec<_>>()
    });
    let (found, all) = (Bug::ALL.len() - missed.len(), Bug::ALL.len());
    println!("{found} of {all} planted bugs found");
    assert!(missed.is_empty(), "not shown: {missed:?}");
}
