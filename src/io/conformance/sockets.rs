//! Connections: accept, receive, send, and the ways in which they end.

use super::*;
use crate::io::loading::LOAD_BYTES_MAX;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::io::Read;

on_each!(
    accepted_sockets_are_set_up,
    receive_appends_within_the_spare_capacity,
    receive_sees_the_end_and_the_reset,
    sends_from_memory_arrive_in_order,
    sends_of_extents_arrive_in_order,
    a_send_larger_than_the_socket_buffer_waits_for_its_reader,
    a_pending_receive_survives_sendfile,
    a_send_ends_when_the_peer_closes,
    an_extent_beyond_the_file_is_an_error,
    an_empty_send_completes,
    a_long_extent_leaves_turns_to_others,
    more_readers_than_buffers_take_turns,
    shutdown_ends_pending_operations,
    nothing_is_fetched_for_a_socket_that_was_shut_down,
    accepting_pauses_without_descriptors,
);

fn accepted_sockets_are_set_up<I: Make>() {
    let mut bench = Bench::<I>::new();
    let token = bench.submit(Op::Accept);
    bench.stays_quiet();
    let peer = TcpStream::connect(bench.address).unwrap();
    let Outcome::Accepted(Ok(accepted)) = bench.outcome(token) else {
        panic!("not accepted")
    };
    assert_eq!(accepted.peer, peer.local_addr().unwrap());
    assert_eq!(accepted.local, bench.address);
    let SocketKind::Os(fd) = &*accepted.socket.0 else {
        panic!("not of the system")
    };
    assert!(getsockopt(fd, sockopt::TcpNoDelay).unwrap());
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
    assert!(
        !flags.contains(OFlag::O_NONBLOCK),
        "other shards may use a ring"
    );
    assert_eq!(
        fcntl(fd, FcntlArg::F_GETFD).unwrap(),
        1,
        "children must not inherit it"
    );
}

fn receive_appends_within_the_spare_capacity<I: Make>() {
    let mut bench = Bench::<I>::new();
    let (socket, mut peer) = bench.connect();
    let mut buffer = BytesMut::with_capacity(8);
    buffer.extend_from_slice(b"head");
    let spare = buffer.capacity() - buffer.len();
    let sent = pattern(spare + 3);
    let token = bench.submit(Op::Receive {
        socket: socket.clone(),
        buffer,
    });
    bench.stays_quiet();
    peer.write_all(&sent).unwrap();
    let Outcome::Received { result, buffer } = bench.outcome(token) else {
        panic!("not received")
    };
    assert_eq!(&buffer[..4], b"head");
    let count = result.unwrap();
    assert_eq!(buffer[4..], sent[..count]);

    let mut rest = Vec::new();
    while rest.len() < sent.len() - count {
        let token = bench.submit_receive(&socket, 2);
        let part = bench.received(token).unwrap();
        assert!((1..=2).contains(&part.len()), "{part:?}");
        rest.extend_from_slice(&part);
    }
    assert_eq!(rest, sent[count..]);
}

fn receive_sees_the_end_and_the_reset<I: Make>() {
    let mut bench = Bench::<I>::new();
    let (socket, mut peer) = bench.connect();
    peer.write_all(b"last words").unwrap();
    drop(peer);
    let token = bench.submit_receive(&socket, 100);
    assert_eq!(bench.received(token).unwrap(), "last words");
    for _ in 0..2 {
        let token = bench.submit_receive(&socket, 100);
        assert_eq!(
            bench.received(token).unwrap(),
            "",
            "the end is seen as often as asked for"
        );
    }

    let (socket, peer) = bench.connect();
    let token = bench.submit_receive(&socket, 100);
    bench.stays_quiet();
    reset(peer);
    assert_eq!(
        errno(&bench.received(token).unwrap_err()),
        Errno::ECONNRESET
    );
}

fn sends_from_memory_arrive_in_order<I: Make>() {
    let mut bench = Bench::<I>::new();
    let (socket, peer) = bench.connect();
    let whole = pattern(300_000);
    let reader = read_all(peer, whole.len());
    let token = bench.submit_send(&socket, vec![Chunk::Bytes(whole.slice(..1000))]);
    bench.sent(token).unwrap();
    // More chunks than one vectored send takes, with empty ones among them.
    let mut chunks = Vec::new();
    for at in (1000..whole.len()).step_by(1000) {
        chunks.push(Chunk::Bytes(whole.slice(at..at + 1000)));
        chunks.push(Chunk::Bytes(Bytes::new()));
    }
    let token = bench.submit_send(&socket, chunks);
    bench.sent(token).unwrap();
    assert!(reader.join().unwrap() == whole);
}

fn sends_of_extents_arrive_in_order<I: Make>() {
    let mut bench = Bench::<I>::new();
    let contents = pattern(3_000_000);
    let file = bench.file("segment", &contents);
    let chunks = vec![
        Chunk::Bytes(Bytes::from_static(b"header")),
        Chunk::Bytes(Bytes::from_static(b"!")),
        extent(&file, 10, 2_500_000),
        extent(&file, 5, 0),
        Chunk::Bytes(Bytes::from_static(b"between")),
        extent(&file, 2_999_999, 1),
        extent(&file, 0, 1000),
        Chunk::Bytes(Bytes::from_static(b"trailer")),
    ];
    let mut expected = b"header!".to_vec();
    expected.extend_from_slice(&contents[10..2_500_010]);
    expected.extend_from_slice(b"between");
    expected.extend_from_slice(&contents[2_999_999..]);
    expected.extend_from_slice(&contents[..1000]);
    expected.extend_from_slice(b"trailer");
    for path in PATHS {
        bench.path = path;
        forget_pages(&file);
        let (socket, peer) = bench.connect();
        let reader = read_all(peer, expected.len());
        let token = bench.submit_send(&socket, chunks.clone());
        bench.sent(token).unwrap();
        assert!(reader.join().unwrap() == expected, "{path:?}");
        let SocketKind::Os(fd) = &*socket.0 else {
            panic!("not of the system")
        };
        let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
        assert!(
            !flags.contains(OFlag::O_NONBLOCK),
            "blocking again after {path:?}"
        );
    }
}

fn a_send_larger_than_the_socket_buffer_waits_for_its_reader<I: Make>() {
    let mut bench = Bench::<I>::new();
    let whole = pattern(32 << 20);
    let file = bench.file("segment", &whole);
    for chunk in [
        Chunk::Bytes(whole.clone()),
        extent(&file, 0, whole.len() as u64),
    ] {
        let (socket, peer) = bench.connect();
        let token = bench.submit_send(&socket, vec![chunk]);
        bench.stays_quiet();
        let reader = read_all(peer, whole.len());
        bench.sent(token).unwrap();
        assert!(reader.join().unwrap() == whole);
    }
}

fn a_pending_receive_survives_sendfile<I: Make>() {
    let mut bench = Bench::<I>::new();
    let contents = pattern(32 << 20);
    let file = bench.file("segment", &contents);
    for path in PATHS {
        bench.path = path;
        receive_during_send(&mut bench, &file, &contents);
    }
}

fn receive_during_send<I: Make>(bench: &mut Bench<I>, file: &File, contents: &Bytes) {
    let (socket, mut peer) = bench.connect();
    let receive = bench.submit_receive(&socket, 100);
    let send = bench.submit_send(&socket, vec![extent(file, 0, contents.len() as u64)]);
    bench.stays_quiet();
    peer.write_all(b"meanwhile").unwrap();
    assert_eq!(bench.received(receive).unwrap(), "meanwhile");
    let receive = bench.submit_receive(&socket, 100);
    let reader = read_all(peer, contents.len());
    bench.sent(send).unwrap();
    assert!(reader.join().unwrap() == *contents);
    assert_eq!(
        bench.received(receive).unwrap(),
        "",
        "only the end of the peer ends it"
    );
}

fn a_send_ends_when_the_peer_closes<I: Make>() {
    let mut bench = Bench::<I>::new();
    let whole = pattern(32 << 20);
    let file = bench.file("segment", &whole);
    let all = || extent(&file, 0, whole.len() as u64);
    for (chunk, path) in [
        (Chunk::Bytes(whole.clone()), FetchPath::Auto),
        (all(), FetchPath::Auto),
        (all(), FetchPath::Splice),
        (all(), FetchPath::Copy),
    ] {
        bench.path = path;
        let (socket, mut peer) = bench.connect();
        let token = bench.submit_send(&socket, vec![chunk.clone()]);
        bench.takes_some(&mut peer, 100_000);
        drop(peer);
        let error = bench.sent(token).unwrap_err();
        assert!(
            matches!(errno(&error), Errno::EPIPE | Errno::ECONNRESET),
            "{error}"
        );
        // And so does the next one.
        let token = bench.submit_send(&socket, vec![chunk]);
        assert_eq!(errno(&bench.sent(token).unwrap_err()), Errno::EPIPE);
    }
}

fn an_extent_beyond_the_file_is_an_error<I: Make>() {
    let mut bench = Bench::<I>::new();
    let file = bench.file("segment", b"short");
    for path in PATHS {
        bench.path = path;
        let (socket, _peer) = bench.connect();
        let token = bench.submit_send(&socket, vec![extent(&file, 0, 6)]);
        assert_eq!(errno(&bench.sent(token).unwrap_err()), Errno::ENODATA);
    }
}

fn an_empty_send_completes<I: Make>() {
    let mut bench = Bench::<I>::new();
    let (socket, _peer) = bench.connect();
    for chunks in [vec![], vec![Chunk::Bytes(Bytes::new())]] {
        let token = bench.submit_send(&socket, chunks);
        bench.sent(token).unwrap();
    }
}

fn a_long_extent_leaves_turns_to_others<I: Make>() {
    const LENGTH: u64 = 256 << 20;
    let mut bench = Bench::<I>::new();
    let (busy, mut reading) = bench.connect();
    let (other, _peer) = bench.connect();
    let file = bench.file("segment", b"");
    // A hole: long, and without any cost on disk.
    bench
        .io
        .open_dir("files-0")
        .unwrap()
        .truncate("segment", LENGTH)
        .unwrap();
    let reader = std::thread::spawn(move || {
        std::io::copy(
            &mut Read::by_ref(&mut reading).take(LENGTH),
            &mut std::io::sink(),
        )
        .unwrap()
    });
    let long = bench.submit_send(&busy, vec![extent(&file, 0, LENGTH)]);
    let short = bench.submit_send(&other, vec![Chunk::Bytes(Bytes::from_static(b"quick"))]);
    bench.sent(short).unwrap();
    assert!(
        bench.early.is_empty(),
        "the short send was first, although it came second"
    );
    bench.sent(long).unwrap();
    assert_eq!(reader.join().unwrap(), LENGTH);
}

fn more_readers_than_buffers_take_turns<I: Make>() {
    let mut bench = Bench::<I>::new();
    let whole = pattern(16 << 20);
    let file = bench.file("segment", &whole);
    for path in [FetchPath::Copy, FetchPath::Splice] {
        bench.path = path;
        let begin = |bench: &mut Bench<I>| {
            let (socket, peer) = bench.connect();
            let all = extent(&file, 0, whole.len() as u64);
            (bench.submit_send(&socket, vec![all]), peer, socket)
        };
        let stuck: Vec<_> = (0..BUFFERS_MAX + 2).map(|_| begin(&mut bench)).collect();
        bench.stays_quiet();
        let (token, peer, _socket) = begin(&mut bench);
        let reader = read_all(peer, whole.len());
        bench.sent(token).unwrap();
        assert!(
            reader.join().unwrap() == whole,
            "{path:?}, beside those that take nothing"
        );
        let read = |(token, peer, socket)| (token, read_all(peer, whole.len()), socket);
        let readers: Vec<_> = stuck.into_iter().map(read).collect();
        for (token, reader, _socket) in readers {
            bench.sent(token).unwrap();
            assert!(reader.join().unwrap() == whole, "{path:?}");
        }
    }
}

fn shutdown_ends_pending_operations<I: Make>() {
    let mut bench = Bench::<I>::new();
    let whole = pattern(32 << 20);
    let file = bench.file("segment", &whole);
    for chunk in [
        Chunk::Bytes(whole.clone()),
        extent(&file, 0, whole.len() as u64),
    ] {
        let (socket, _peer) = bench.connect();
        let receive = bench.submit_receive(&socket, 100);
        let send = bench.submit_send(&socket, vec![chunk]);
        bench.stays_quiet();
        bench.io.shutdown(&socket);
        assert_eq!(bench.received(receive).unwrap(), "");
        assert_eq!(errno(&bench.sent(send).unwrap_err()), Errno::EPIPE);
        bench.io.shutdown(&socket);
    }
}

/// Their replies are counted no more, so they must neither wait nor keep readers from the disk.
fn nothing_is_fetched_for_a_socket_that_was_shut_down<I: Make>() {
    const SENDS: usize = 8;
    let mut bench = Bench::<I>::new();
    let length = 4 * LOAD_BYTES_MAX;
    let file = bench.file("segment", &pattern(length));
    forget_pages(&file);
    if cached::cached_bytes(&file, 0, length as u64) > 0 {
        return eprintln!("this file system keeps its pages");
    }
    let sockets: Vec<_> = (0..SENDS).map(|_| bench.connect()).collect();
    let tokens: Vec<_> = sockets
        .iter()
        .map(|(socket, _)| bench.submit_send(socket, vec![extent(&file, 0, length as u64)]))
        .collect();
    // As many begin as there are buffers, the others are starved.
    bench
        .io
        .wait(Some(Mono::default()), &mut bench.early)
        .unwrap();
    for (socket, _) in &sockets {
        bench.io.shutdown(socket);
    }
    bench
        .io
        .wait(Some(Mono::default()), &mut bench.early)
        .unwrap();
    assert!(bench.early.len() >= SENDS - BUFFERS_MAX, "they still wait");
    for token in tokens {
        assert_eq!(errno(&bench.sent(token).unwrap_err()), Errno::EPIPE);
    }
    let fetched = bench.stats.bytes_sent_cold.get();
    assert!(
        fetched <= (BUFFERS_MAX * LOAD_BYTES_MAX) as u64,
        "{fetched}"
    );
}

/// The limit of open files is the process's, so this runs in a process of its own.
fn accepting_pauses_without_descriptors<I: Make>() {
    const CHILD: &str = "FOREBAY_TEST_DESCRIPTORS";
    let backend = I::NAME;
    if std::env::var_os(CHILD).is_none() {
        let name =
            format!("io::conformance::sockets::{backend}::accepting_pauses_without_descriptors");
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([&name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{output:?}"
        );
        return;
    }
    // A ring notes the limit when it takes up an accept, so it is lowered first.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    let mut bench = Bench::<I>::new();
    let token = bench.submit(Op::Accept);
    bench.stays_quiet();
    // The peer is there first: later it could not have a descriptor either.
    let mut refused = TcpStream::connect(bench.address).unwrap();
    refused.set_read_timeout(Some(LIMIT)).unwrap();
    let hoard: Vec<_> = std::iter::from_fn(|| refused.try_clone().ok()).collect();
    let before = bench.io.now().mono;
    bench.stays_quiet();
    let mut nothing = [0; 1];
    let end = refused.read(&mut nothing);
    let closed = match &end {
        Ok(count) => *count == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    };
    assert!(closed, "it was not closed: {end:?}");
    drop(hoard);
    let peer = TcpStream::connect(bench.address).unwrap();
    let Outcome::Accepted(accepted) = bench.outcome(token) else {
        panic!("not accepted")
    };
    assert_eq!(accepted.unwrap().peer, peer.local_addr().unwrap());
    let paused = bench.io.now().mono.since(before);
    assert!(
        paused >= Duration::from_millis(100),
        "it did not rest: {paused:?}"
    );
}

/// Reads exactly `length` bytes on a thread of its own, then closes.
fn read_all(mut peer: TcpStream, length: usize) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = vec![0; length];
        peer.read_exact(&mut bytes).unwrap();
        bytes
    })
}

/// Ends a connection without farewell.
fn reset(peer: TcpStream) {
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&peer, sockopt::Linger, &linger).unwrap();
}
