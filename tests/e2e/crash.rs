//! `forebay crash-test` as anybody runs it, for a few crashes: `scripts/crash-test` does many.

use crate::skipped;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a system says that cannot do power cuts.
const REFUSED: &str = "power cuts need root";

/// The command with everything it makes in `dir`.
fn crash_test(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.arg("crash-test").args(arguments).env("TMPDIR", dir);
    command
}

/// Runs it; gives the receipts of its only part, `None` if the system cannot do that.
fn receipts(arguments: &[&str]) -> Option<serde_json::Value> {
    let dir = tempfile::tempdir().unwrap();
    let output = crash_test(dir.path(), arguments)
        .arg("--json")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains(REFUSED) {
        skipped(&said);
        return None;
    }
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{shown}");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "something stays");
    let verdict: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(verdict["good"], true, "{shown}");
    let part = verdict["parts"][0].clone();
    // A load that does nothing would lose nothing.
    let acknowledged = part["counts"]["acknowledged"].as_u64().unwrap();
    let found = part["counts"]["found"].as_u64().unwrap();
    assert!(found >= acknowledged && acknowledged > 100, "{shown}");
    assert!(
        part["counts"]["topics_made"].as_u64().unwrap() > 1,
        "{shown}"
    );
    Some(part)
}

#[test]
fn kills_lose_nothing() {
    let part = receipts(&["--cycles", "5"]).expect("this works everywhere");
    assert!(part["crashes"].as_u64().unwrap() >= 5);
    assert_eq!(part["acks_1_lost"], 0);
}

#[test]
fn power_cuts_lose_nothing_that_was_synced() {
    if let Some(part) = receipts(&["--cycles", "0", "--power-cuts", "3"]) {
        assert!(part["crashes"].as_u64().unwrap() >= 3);
    }
}

#[test]
fn an_interrupted_crash_test_leaves_nothing_behind() {
    for arguments in [
        ["--cycles=1000", "--power-cuts=0"],
        ["--cycles=0", "--power-cuts=1000"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = crash_test(dir.path(), &arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = lines.next().unwrap().unwrap();
        if said.contains(REFUSED) {
            skipped(&said);
            assert_eq!(child.wait().unwrap().code(), Some(2));
        } else {
            assert!(said.contains("127.0.0.1:"), "{said}");
            kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
            let last = lines.map_while(Result::ok).last().unwrap();
            assert!(last.contains("interrupted"), "{last}");
            assert_eq!(child.wait().unwrap().code(), Some(1));
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), 0, "something stays");
    }
}
