//! A whole broker with real sockets and files: real clients (librdkafka and a pure Rust one), raw
//! conversations where a client library would hide what is looked at, and bad input.

mod admin;
mod broker;
mod clients;
mod consume;
mod conversation;
mod cores;
mod crash;
mod denied;
mod descriptors;
mod disk;
mod dlq;
mod hostile;
mod lag;
mod limits;
mod loop_disk;
mod overload;
mod repeats;
mod restart;
mod serve;
mod steering;

use std::io::Write;

/// Says why a test has nothing to do here; what `println!` prints is not shown of tests that pass.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
