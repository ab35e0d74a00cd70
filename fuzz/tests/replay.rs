//! Replays the kept corpus and the generated seeds through every target: what fuzzing has found
//! once stays found, on any toolchain and in seconds.

use forebay_fuzz::TARGETS;
use forebay_fuzz::seeds::seeds;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// What the corpus may take in the repository.
const CORPUS_BYTES_MAX: u64 = 400 << 10;

fn corpus(target: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Runs inputs of a target and says which of them is a finding.
fn run(name: &str, inputs: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    for (what, input) in inputs {
        let result = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        assert!(result.is_ok(), "{name}: {what} is a finding, see above");
    }
}

fn replay(name: &str) {
    let seeds = seeds(name).into_iter().enumerate();
    run(name, seeds.map(|(at, seed)| (format!("seed {at}"), seed)));
    let kept = corpus(name);
    assert!(!kept.is_empty(), "{name} has no corpus");
    let read = |path: PathBuf| (path.display().to_string(), fs::read(&path).unwrap());
    run(name, kept.into_iter().map(read));
}

macro_rules! replays {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target));
        })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($target)),*];
            let targets: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(targets, replayed);
        }
    };
}

replays!(request response stored codec batch recovery start connection);

#[test]
fn the_corpus_is_small() {
    let all = TARGETS.iter().flat_map(|target| corpus(target.name));
    let bytes: u64 = all.map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(
        bytes <= CORPUS_BYTES_MAX,
        "{bytes} bytes: scripts/fuzz --keep makes it smaller"
    );
}

/// `scripts/fuzz` begins with these.
#[test]
#[ignore = "driven by scripts/fuzz"]
fn write_seeds() {
    let root = PathBuf::from(std::env::var_os("SEEDS").expect("SEEDS is a directory"));
    for target in TARGETS {
        let dir = root.join(target.name);
        fs::create_dir_all(&dir).unwrap();
        for (at, seed) in seeds(target.name).iter().enumerate() {
            fs::write(dir.join(format!("seed-{at}")), seed).unwrap();
        }
    }
}
