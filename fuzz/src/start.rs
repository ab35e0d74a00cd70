//! The start of a broker on an arbitrary data directory: its own files, the catalog's log, that of
//! the groups, and partitions.
//!
//! Held on top of the common rules: it refuses, or it serves; and where it started once it starts
//! again, after a clean stop as after a kill.

use crate::files::{files, store};
use crate::machine::{Client, Machine, world};
use crate::memory::bounded_with;
use forebay::wire::messages::api_versions::ApiVersionsRequest;
use forebay::wire::messages::list_groups::ListGroupsRequest;
use forebay::wire::messages::metadata::MetadataRequest;

/// A broker by itself, on a simulated machine.
const BROKER_BYTES: usize = 4 << 20;

/// Flags (first byte), then files; see `files`.
pub fn start(input: &[u8]) {
    let Some((&flags, rest)) = input.split_first() else {
        return;
    };
    let world = world(u64::from(flags));
    // An earlier run has been here: whether it ended cleanly is for the files to say.
    world.borrow_mut().begin_run(1);
    world.borrow_mut().end_run(false);
    for file in files(rest) {
        store(&world, &file, flags & 1 != 0).expect("the disk is healthy");
    }
    let mut machine = Machine::new(world);
    let shards = 1 + u16::from(flags >> 1 & 1);
    if bounded_with(input.len(), BROKER_BYTES, || machine.start(shards)).is_err() {
        return;
    }
    check_served(&mut machine);
    match flags & 4 == 0 {
        // Partitions that are offline have their say about whether it was clean.
        true => drop(machine.stop()),
        false => machine.kill(),
    }
    machine.start(shards).expect("it started before");
    check_served(&mut machine);
}

fn check_served(machine: &mut Machine) {
    let mut client = Client::dial(machine);
    machine.ask(&mut client, 3, &ApiVersionsRequest::default());
    machine.ask(&mut client, 12, &MetadataRequest::default());
    machine.ask(&mut client, 4, &ListGroupsRequest::default());
}
