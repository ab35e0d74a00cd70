//! Refusals, sizes and what fits in a batch.

use super::*;
use crate::cli::Cli;
use clap::Parser;

fn refusal(args: &[&str]) -> String {
    let line = ["loadgen"].iter().chain(args);
    match Cli::try_parse_from(line) {
        Err(error) => error.to_string(),
        Ok(cli) => {
            let crate::cli::Command::Bench(bench) = cli.command else {
                panic!("{args:?} is no bench");
            };
            bench.check().unwrap_err().to_string()
        }
    }
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason() {
    let cases: &[(&[&str], &str)] = &[
        (&["produce", "--rate", "0"], "--rate 0 sends nothing"),
        (&["requests", "--depth", "0"], "--depth 0"),
        (&["requests", "--connections", "0"], "--connections 0"),
        (&["produce", "--partitions", "0"], "--partitions 0"),
        (&["produce", "--duration", "0s"], "--duration 0s"),
        (&["produce", "--record-size", "9-3"], "smaller size first"),
        (&["produce", "--record-size", "1GiB"], "at most 64MiB"),
        (&["produce", "--record-size", "1kb"], "is no size"),
        (&["produce", "--codec", "brotli"], "is no codec"),
        (&["produce", "--broker-pid", "1"], "add --bootstrap"),
        (&["produce", "--keep-topic"], "add --bootstrap"),
        (
            &["produce", "--bootstrap", "a:1", "--cores", "1"],
            "runs with its own",
        ),
        (&["consume", "--passes", "0"], "--passes 0"),
        (&["consume", "--fill", "0"], "--fill 0"),
        (&["consume", "--acks", "0"], "use 1 or all"),
        (
            &["consume", "--passes", "1", "--duration", "5s"],
            "leave out --duration",
        ),
        (&["consume", "--fetch-bytes", "2GiB"], "at most 1GiB"),
        (&["end-to-end", "--partitions", "2"], "one partition"),
        (&["connections", "--active", "0"], "--active 0"),
        (&["zero-copy", "--rounds", "0"], "--rounds 0"),
        (&["zero-copy", "--passes", "1"], "use --duration"),
    ];
    for (args, word) in cases {
        let sentence = refusal(args);
        assert!(sentence.contains(word), "{args:?}: {sentence}");
    }
}

#[test]
fn sizes_have_units_and_ranges() {
    assert_eq!(size("100"), Ok(100));
    assert_eq!(size("2KiB"), Ok(2_048));
    assert_eq!(size("1GiB"), Ok(1 << 30));
    assert!(size("99999999999999999999").is_err());
    assert!(size("99999999999999GiB").is_err());
    let range = Sizes {
        min: 100,
        max: 2_000,
    };
    assert_eq!(sizes("100-2000"), Ok(range));
    assert_eq!(range.mean(), 1_050);
}

#[test]
fn a_batch_holds_what_fits_and_at_least_one_record() {
    let parse = |size: &str| RecordArgs {
        record_size: Some(sizes(size).unwrap()),
        keys: 0,
        codec: Codec::None,
        acks: Acks::One,
    };
    assert_eq!(parse("90").per_batch(1, 1_000), 10);
    assert_eq!(parse("1MiB").per_batch(1, 1_000), 1);
}
