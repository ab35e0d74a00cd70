//! `forebay consume` as anybody runs it.

use crate::broker::{Broker, batch};
use std::fs::File;
use std::process::{Command, Stdio};

/// The command on topic `t` as a member of group `g`.
fn consume(broker: &Broker, output: Stdio) -> std::process::Output {
    let child = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["consume", "t", "--group", "g", "--bootstrap"])
        .arg(broker.address().to_string())
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn();
    child.unwrap().wait_with_output().unwrap()
}

#[test]
fn a_group_commits_only_what_was_written() {
    let broker = Broker::with(&[]);
    let mut raw = broker.connect();
    raw.create_topic("t", 1);
    raw.produce("t", 0, batch(&[b"one", b"two"]));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let failed = consume(&broker, full.into());
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(said.contains("cannot write the output"), "{said}");
    let read = consume(&broker, Stdio::piped());
    assert_eq!(read.stdout, b"one\ntwo\n", "{read:?}");
    let rest = consume(&broker, Stdio::piped());
    assert_eq!(rest.stdout, b"", "{rest:?}");
}
