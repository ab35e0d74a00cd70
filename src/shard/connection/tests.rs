//! What a connection holds, when it may be read, and for how long its peer may keep it waiting.

use super::*;
use crate::io::SocketKind;
use bytes::BufMut;
use std::sync::Arc;

const NOW: Mono = Mono(1_000_000_000);
const FRAME_BYTES_MAX: usize = 1 << 20;
const HELD_MAX: usize = 64 * 1024;

const PATIENCE: Patience = Patience {
    idle: Some(Duration::from_millis(600)),
    first_request: Duration::from_millis(10),
    request: Duration::from_millis(30),
    pressed: false,
};

fn connection() -> Connection {
    let socket = Socket(Arc::new(SocketKind::Simulated(0)));
    let address = "127.0.0.1:1".parse().unwrap();
    Connection::new(socket, address, address, NOW, FRAME_BYTES_MAX)
}

fn frame(size: usize) -> Vec<u8> {
    let mut frame = (size as u32).to_be_bytes().to_vec();
    frame.resize(4 + size, 7);
    frame
}

/// Receives as the shard does, with all memory there is, as much as one receive takes.
fn receive(connection: &mut Connection, bytes: &[u8]) -> usize {
    connection.receive_wish(usize::MAX).unwrap();
    let mut buffer = connection.start_receive(NOW, false);
    let count = bytes.len().min(buffer.capacity() - buffer.len());
    buffer.put_slice(&bytes[..count]);
    connection.on_received(buffer, NOW);
    count
}

fn receive_frame(connection: &mut Connection, size: usize) -> Bytes {
    let bytes = frame(size);
    let mut at = 0;
    loop {
        at += receive(connection, &bytes[at..]);
        if let Some(frame) = connection.next_frame().unwrap() {
            assert_eq!((at, frame.len()), (bytes.len(), size));
            return frame;
        }
    }
}

fn reply(bytes: usize) -> Option<Few<Chunk>> {
    Some(Few::from([Chunk::Bytes(vec![0; bytes].into())]))
}

#[test]
fn an_idle_connection_holds_nothing_that_counts() {
    let mut connection = connection();
    assert_eq!(
        (connection.held(), connection.receive_wish(0)),
        (0, Some(0))
    );
    connection.start_receive(NOW, true);
    assert_eq!(connection.held(), 0);
    assert_eq!(
        connection.receive_wish(usize::MAX),
        None,
        "one is under way"
    );
}

#[test]
fn a_large_frame_is_asked_for_as_a_whole_and_takes_memory_as_it_comes() {
    let mut connection = connection();
    let bytes = frame(500_000);
    let mut at = receive(&mut connection, &bytes);
    assert!(connection.next_frame().unwrap().is_none());
    let wish = connection.receive_wish(HELD_MAX).unwrap();
    assert_eq!(wish, bytes.len() - RECEIVE_BYTES_MIN);
    at += receive(&mut connection, &bytes[at..]);
    assert_eq!(connection.held(), wish, "all of it is charged");
    assert!(
        connection.block_bytes < 4 * RECEIVE_BYTES_MIN,
        "and not taken"
    );
    assert_eq!(connection.receive_wish(0), Some(0), "it may finish");
    while connection.next_frame().unwrap().is_none() {
        at += receive(&mut connection, &bytes[at..]);
    }
    assert_eq!(at, bytes.len());
}

#[test]
fn a_large_buffer_is_kept_only_if_memory_is_not_tight() {
    for tight in [false, true] {
        let mut connection = connection();
        drop(receive_frame(&mut connection, 100_000));
        let buffer = connection.start_receive(NOW, tight);
        match tight {
            true => assert_eq!((buffer.capacity(), connection.held()), (4096, 0)),
            false => assert!(buffer.capacity() > 100_000 && connection.held() > 90_000),
        }
    }
}

#[test]
fn requests_and_replies_are_charged_until_they_are_sent() {
    let mut connection = connection();
    let frame = receive_frame(&mut connection, 1000);
    connection.on_started(1, true, frame.len());
    assert_eq!(connection.held(), REQUEST_BYTES + 1000);
    connection.on_gathering(1, 100);
    connection.on_gathering(1, 100);
    assert_eq!(connection.held(), REQUEST_BYTES + 100 * JOB_BYTES);
    connection.on_finished(1, reply(300));
    assert_eq!(connection.held(), REQUEST_BYTES + 300);
    assert_eq!(connection.start_send().len(), 1);
    assert_eq!(connection.held(), REQUEST_BYTES + 300, "not taken yet");
    connection.on_sent(NOW);
    assert_eq!(connection.held(), 0);
    connection.on_started(2, true, 10);
    connection.on_finished(2, None);
    assert_eq!(connection.held(), 0, "without a reply it is over at once");
}

#[test]
fn one_connection_has_only_so_much_under_way() {
    let mut connection = connection();
    let mut call = 0;
    while connection.receive_wish(HELD_MAX).is_some() {
        let frame = receive_frame(&mut connection, 3000);
        assert!(connection.may_start(true));
        call += 1;
        connection.on_started(call, true, frame.len());
    }
    assert!(
        connection.held() <= HELD_MAX && call >= 6,
        "{call} requests"
    );
    connection.on_finished(1, None);
    assert!(connection.receive_wish(HELD_MAX).is_some());
    for call in call + 1..=64 + 1 {
        assert!(connection.may_start(true));
        connection.on_started(call, true, 0);
    }
    assert!(!connection.may_start(true), "64 requests, however small");
}

#[test]
fn nothing_but_produce_starts_while_replies_pile_up() {
    let mut connection = connection();
    connection.on_started(1, false, 0);
    connection.on_finished(1, reply(REPLY_BYTES_MAX));
    connection.start_send();
    assert!(!connection.may_start(false) && connection.may_start(true));
    connection.on_sent(NOW);
    assert!(connection.may_start(false));
}

#[test]
fn peers_have_so_long_for_everything() {
    let overdue = |connection: &Connection, ms| connection.overdue(NOW.plus_ms(ms), &PATIENCE);
    let mut connection = connection();
    connection.start_receive(NOW, false);
    assert_eq!(overdue(&connection, 10), None);
    assert!(overdue(&connection, 11).unwrap().contains("first.request"));

    let mut connection = self::connection();
    drop(receive_frame(&mut connection, 10));
    assert_eq!(overdue(&connection, 600), None);
    assert!(overdue(&connection, 601).unwrap().contains("idle"));
    receive(&mut connection, &[0, 0]);
    connection.start_receive(NOW, false);
    assert_eq!(overdue(&connection, 30), None);
    assert!(overdue(&connection, 31).unwrap().contains("max.request.ms"));

    let mut connection = self::connection();
    drop(receive_frame(&mut connection, 10));
    connection.on_started(1, true, 10);
    assert_eq!(overdue(&connection, 9999), None, "the peer waits for us");
    connection.on_finished(1, reply(10));
    connection.start_send();
    assert!(
        overdue(&connection, 601).unwrap().contains("idle"),
        "it does not read"
    );
}

#[test]
fn who_holds_memory_for_nothing_is_closed_when_others_wait_for_it() {
    let patience = Patience {
        idle: None,
        pressed: true,
        ..PATIENCE
    };
    let late = NOW.plus_ms(10_001);
    let mut budget = crate::shard::budget::Budget::new(1 << 20);
    let mut connection = connection();
    drop(receive_frame(&mut connection, 10));
    connection.on_started(1, false, 10);
    connection.on_finished(1, reply(PRESSED_BYTES_MIN));
    connection.start_send();
    let held = connection.held();
    budget.charge(&mut connection.account, held, false);
    assert_eq!(connection.overdue(NOW.plus_ms(10_000), &patience), None);
    assert!(
        connection
            .overdue(late, &patience)
            .unwrap()
            .contains("held memory")
    );
    let calm = Patience {
        pressed: false,
        ..patience
    };
    assert_eq!(connection.overdue(late, &calm), None);
    connection.on_sent(NOW);
    let held = connection.held();
    budget.charge(&mut connection.account, held, false);
    assert_eq!(
        connection.overdue(late, &patience),
        None,
        "it holds nothing"
    );
}
