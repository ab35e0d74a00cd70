//! The guarantees of the README name the tests that show them: each line names at least one, and
//! every name is that of a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The names of all tests in the tree.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    for folder in ["src", "tests", "loadgen"] {
        collect(&root.join(folder), &mut names);
    }
    assert!(names.len() > 300, "found only {} tests", names.len());
    names
}

fn collect(path: &Path, names: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), names);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(path).unwrap();
        for (_, after) in text
            .match_indices("#[test]")
            .map(|(at, _)| text.split_at(at))
        {
            let name = after
                .split_once("fn ")
                .and_then(|(_, name)| name.split_once('('));
            names.extend(name.map(|(name, _)| name.to_owned()));
        }
    }
}

/// The names in the last cell of a row, and what is wrong with them.
fn faults(row: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let last = row.trim_end_matches('|').rsplit('|').next().unwrap();
    let named: Vec<_> = last.split('`').skip(1).step_by(2).collect();
    let unknown = named.iter().filter(|name| !tests.contains(**name));
    let mut faults: Vec<_> = unknown
        .map(|name| format!("no test is called {name}"))
        .collect();
    if named.is_empty() {
        faults.push(format!("this line names no test: {row}"));
    }
    faults
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let tests = tests();
    let canary = |row| faults(row, &tests).len();
    assert_eq!(canary("| kept | `no_such_test` |"), 1);
    assert_eq!(canary("| kept | none |"), 1);
    assert_eq!(
        canary("| kept | `every_guarantee_names_tests_that_exist` |"),
        0
    );

    let binary = env!("CARGO_BIN_EXE_forebay");
    let output = Command::new(binary).arg("guarantees").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let rows = lines.iter().enumerate().filter(|(at, line)| {
        let is_head = lines
            .get(at + 1)
            .is_some_and(|next| next.starts_with("|---"));
        line.starts_with('|') && !line.starts_with("|---") && !is_head
    });
    let rows: Vec<_> = rows.map(|(_, row)| *row).collect();
    assert!(rows.len() >= 10, "the guarantees were not found: {text}");
    let wrong: Vec<_> = rows.iter().flat_map(|row| faults(row, &tests)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
