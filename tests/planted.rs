//! Looks for every planted bug with the simulation. `scripts/sim --planted` builds and runs this; a
//! usual build has no planted bugs.

use forebay::base::planted::{Bug, plant};
use forebay::sim::run::{Options, run};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Seeds within which a bug must be found.
const SEEDS_MAX: u64 = 1_000;

/// The first seed that shows the bug, and what it shows.
fn find(bug: Bug) -> Option<(u64, String)> {
    plant(Some(bug));
    let found = (0..SEEDS_MAX).find_map(|seed| {
        let options = Options {
            seed,
            ..Options::default()
        };
        run(options).failure.map(|failure| (seed, failure))
    });
    plant(None);
    found
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
                match find(*bug) {
                    Some((seed, what)) => println!("{bug:?}: seed {seed}: {what}"),
                    None => missed.push(*bug),
                }
            }
            missed
        };
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        let missed = threads.into_iter().flat_map(|thread| thread.join());
        missed.flatten().collect::<Vec<_>>()
    });
    assert!(
        missed.is_empty(),
        "{SEEDS_MAX} seeds do not show {missed:?}"
    );
}
