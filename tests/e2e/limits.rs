//! Limits on connections and on the time that peers may take.

use crate::broker::{Broker, Raw, batch};
use forebay::wire::frame::encode_request;
use forebay::wire::messages::metadata::MetadataRequest;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// True if the broker closes it before anybody gives up.
fn is_closed(raw: &mut Raw) -> bool {
    raw.frame().is_none()
}

/// True if a new connection gets no answer.
fn is_refused(broker: &Broker) -> bool {
    let mut raw = broker.connect();
    let frame = encode_request(1, 4, None, &MetadataRequest::default());
    raw.socket.write_all(&frame.bytes).is_err() || is_closed(&mut raw)
}

/// Waits for a condition that comes about soon.
fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let started = Instant::now();
    while !check() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn open(broker: &Broker) -> u64 {
    let shards = broker.server().stats().iter();
    shards.map(|shard| shard.connections.get()).sum()
}

#[test]
fn connections_per_address_are_limited_and_come_free_again() {
    let broker = Broker::with(&["max.connections.per.ip=2"]);
    let (mut first, mut second) = (broker.connect(), broker.connect());
    first.ask(4, &MetadataRequest::default());
    second.ask(4, &MetadataRequest::default());
    assert!(is_refused(&broker));
    drop(second);
    eventually("a place comes free", || !is_refused(&broker));
    first.ask(4, &MetadataRequest::default());
}

#[test]
fn connections_in_all_are_limited() {
    let broker = Broker::with(&["max.connections=2"]);
    let (mut first, mut second) = (broker.connect(), broker.connect());
    first.ask(4, &MetadataRequest::default());
    second.ask(4, &MetadataRequest::default());
    assert!(is_refused(&broker));
    first.alter(4, "1", "max.connections", "3");
    eventually("there is a place more", || !is_refused(&broker));
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let broker = Broker::with(&["connections.max.first.request.ms=2000"]);
    let mut spoken = broker.connect();
    spoken.ask(4, &MetadataRequest::default());
    assert!(is_closed(&mut broker.connect()));
    spoken.ask(4, &MetadataRequest::default());
}

#[test]
fn a_request_that_trickles_in_is_cut_off() {
    let broker = Broker::with(&["connections.max.request.ms=300"]);
    let mut healthy = broker.connect();
    let mut slow = broker.connect();
    slow.ask(4, &MetadataRequest::default());
    slow.socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let started = Instant::now();
    slow.socket.write_all(&100_000_u32.to_be_bytes()).unwrap();
    // A byte at a time, again and again: activity does not help.
    let cut_off = loop {
        let wrote = slow.socket.write_all(&[0]).is_ok();
        let mut byte = [0];
        match slow.socket.read(&mut byte) {
            Ok(0) => break started.elapsed(),
            Ok(_) => panic!("an answer to half a request"),
            Err(_) if wrote => {}
            Err(_) => break started.elapsed(),
        }
        assert!(started.elapsed() < Duration::from_secs(20));
    };
    assert!(cut_off >= Duration::from_millis(300), "{cut_off:?}");
    healthy.ask(4, &MetadataRequest::default());
}

#[test]
fn a_peer_that_does_not_read_for_too_long_is_closed() {
    let broker = Broker::with(&["connections.max.idle.ms=2000"]);
    let mut greedy = broker.connect();
    greedy.create_topic("greedy", 1);
    let big = vec![7; 900_000];
    for _ in 0..8 {
        greedy.produce("greedy", 0, batch(&[&big]));
    }
    let fetch = crate::conversation::fetch("greedy", 0, 0, 8_000_000);
    for _ in 0..3 {
        greedy.send(11, &fetch);
    }
    assert_eq!(open(&broker), 1);
    eventually("the broker lets go of it", || open(&broker) == 0);
}

#[test]
fn many_idle_broken_and_short_connections_leave_nothing_behind() {
    let broker = Broker::with(&[]);
    let mut healthy = broker.connect();
    healthy.create_topic("work", 2);
    let frame = encode_request(1, 4, None, &MetadataRequest::default()).bytes;
    let mut idle = Vec::new();
    for number in 0..300 {
        let mut socket = TcpStream::connect(broker.address()).unwrap();
        match number % 4 {
            // Reset with an answer on the way.
            0 => {
                socket.write_all(&frame).unwrap();
                let at_once = libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                setsockopt(&socket, sockopt::Linger, &at_once).unwrap();
            }
            // Half a request, and gone.
            1 => socket.write_all(&frame[..7]).unwrap(),
            // Half-open: it will send nothing more, and gets its answer.
            2 => {
                socket.write_all(&frame).unwrap();
                socket.shutdown(std::net::Shutdown::Write).unwrap();
            }
            _ => idle.push(socket),
        }
        if number % 50 == 0 {
            healthy.produce("work", number % 2, batch(&[b"x"]));
        }
    }
    eventually("only the healthy ones stay", || {
        open(&broker) == 1 + idle.len() as u64
    });
    healthy.produce("work", 0, batch(&[b"x"]));
    drop(idle);
    eventually("and in the end one", || open(&broker) == 1);
}
