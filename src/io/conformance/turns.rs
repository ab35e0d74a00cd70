//! The turn of the loop: deadlines, the bell, syncs, more work than the queues hold, several
//! shards, and the end with work pending.

use super::*;
use nix::errno::Errno;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

on_each!(
    a_wait_ends_at_its_deadline,
    the_bell_ends_a_wait_of_any_thread,
    a_bell_rung_before_the_wait_is_not_lost,
    a_sync_completes_and_tells_errors,
    work_beyond_the_queues_is_kept,
    a_socket_moves_to_another_shard,
    reads_are_exact,
    directories_come_and_go,
    a_drop_lets_go_of_everything,
);

fn a_wait_ends_at_its_deadline<I: Make>() {
    let mut bench = Bench::<I>::new();
    let mut completions = Vec::new();
    for pause in [Duration::ZERO, MOMENT] {
        let started = Instant::now();
        let sleeps = thread_usage().voluntary_context_switches();
        let deadline = bench.io.now().mono + pause;
        bench.io.wait(Some(deadline), &mut completions).unwrap();
        assert!(bench.io.now().mono >= deadline);
        assert!(started.elapsed() < pause + Duration::from_secs(2));
        let slept = thread_usage().voluntary_context_switches() > sleeps;
        assert!(slept || pause.is_zero(), "it spins instead of waiting");
    }
    bench.io.wait(Some(Mono(0)), &mut completions).unwrap();
    assert!(completions.is_empty());

    // A look finds what is there already.
    let (socket, mut peer) = bench.connect();
    peer.write_all(b"there").unwrap();
    bench.submit_receive(&socket, 10);
    bench.io.wait(Some(Mono(0)), &mut completions).unwrap();
    assert_eq!(completions.len(), 1, "{completions:?}");
}

fn the_bell_ends_a_wait_of_any_thread<I: Make>() {
    let mut bench = Bench::<I>::new();
    let bell = bench.io.bell();
    let (again, asked) = mpsc::channel();
    let ringer = std::thread::spawn(move || {
        while asked.recv().is_ok() {
            bell.ring();
        }
    });
    let mut completions = Vec::new();
    let deadline = bench.io.now().mono + LIMIT;
    for _ in 0..10_000 {
        again.send(()).unwrap();
        bench.io.wait(Some(deadline), &mut completions).unwrap();
    }
    assert!(bench.io.now().mono < deadline, "a ring was lost");
    drop(again);
    ringer.join().unwrap();
    assert!(completions.is_empty());
}

fn a_bell_rung_before_the_wait_is_not_lost<I: Make>() {
    let mut bench = Bench::<I>::new();
    let mut completions = Vec::new();
    bench.io.bell().ring();
    bench.io.bell().ring();
    bench.io.wait(None, &mut completions).unwrap();
    // Both rings were heard; the next wait lasts.
    let deadline = bench.io.now().mono + MOMENT;
    bench.io.wait(Some(deadline), &mut completions).unwrap();
    assert!(bench.io.now().mono >= deadline);
}

fn a_sync_completes_and_tells_errors<I: Make>() {
    let mut bench = Bench::<I>::new();
    let file = bench.file("segment", b"contents");
    let token = bench.submit(Op::Sync { file });
    bench.synced(token).unwrap();

    for names in bench.names() {
        let token = bench.submit(Op::Sync { file: names });
        bench.synced(token).unwrap();
    }

    let (reader, _writer) = nix::unistd::pipe().unwrap();
    let pipe = File::new(crate::base::dir::FileKind::Os(reader));
    let token = bench.submit(Op::Sync { file: pipe });
    assert_eq!(errno(&bench.synced(token).unwrap_err()), Errno::EINVAL);
}

fn work_beyond_the_queues_is_kept<I: Make>() {
    const OPERATIONS: u64 = 2000;
    let mut bench = Bench::<I>::new();
    let file = bench.file("segment", b"contents");
    for token in OPERATIONS + 1..OPERATIONS + 30 {
        // These fill the kernel's queue and do not end.
        bench.io.submit(token, Op::Accept);
    }
    for token in 1..=OPERATIONS {
        bench.io.submit(token, Op::Sync { file: file.clone() });
    }
    let deadline = bench.io.now().mono + LIMIT;
    let mut completions = Vec::new();
    while (completions.len() as u64) < OPERATIONS {
        bench.io.wait(Some(deadline), &mut completions).unwrap();
        assert!(
            bench.io.now().mono < deadline,
            "{} completed",
            completions.len()
        );
    }
    let mut tokens: Vec<_> = completions
        .iter()
        .map(|completion| completion.token)
        .collect();
    tokens.sort_unstable();
    assert!(
        tokens.iter().copied().eq(1..=OPERATIONS),
        "each completes once"
    );
}

fn a_socket_moves_to_another_shard<I: Make>() {
    let mut acceptor = Bench::<I>::new();
    let (socket, mut peer) = acceptor.connect();
    let shard = std::thread::spawn(move || {
        let mut bench = Bench::<I>::new();
        let token = bench.submit_receive(&socket, 100);
        let question = bench.received(token).unwrap();
        let token = bench.submit_send(&socket, vec![Chunk::Bytes(question.freeze())]);
        bench.sent(token).unwrap();
    });
    peer.write_all(b"echo").unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "echo");
    shard.join().unwrap();
}

fn reads_are_exact<I: Make>() {
    let mut bench = Bench::<I>::new();
    let file = bench.file("segment", b"0123456789");
    let mut buffer = BytesMut::from(&b"head"[..]);
    let mut stretch = Extent {
        file,
        position: 3,
        length: 4,
    };
    assert!(bench.io.read(&stretch, &mut buffer).unwrap());
    assert_eq!(buffer, "head3456");
    stretch.length = 8;
    assert!(!bench.io.read(&stretch, &mut buffer).unwrap());
    assert_eq!(buffer, "head3456", "nothing of a short read stays");
}

fn directories_come_and_go<I: Make>() {
    let mut bench = Bench::<I>::new();
    bench.io.open_dir("b-0").unwrap().create("file").unwrap();
    bench.io.open_dir("a-0").unwrap().create("file").unwrap();
    assert_eq!(bench.io.list_dirs().unwrap(), ["a-0", "b-0"]);
    bench.io.rename_dir("b-0", "b-0-delete").unwrap();
    assert_eq!(bench.io.list_dirs().unwrap(), ["a-0", "b-0-delete"]);
    bench.io.remove_dir("b-0-delete").unwrap();
    bench.io.sync_dirs().unwrap();
    assert_eq!(bench.io.list_dirs().unwrap(), ["a-0"]);
}

fn a_drop_lets_go_of_everything<I: Make>() {
    let mut bench = Bench::<I>::new();
    let (socket, mut peer) = bench.connect();
    let freed = std::sync::Arc::new(AtomicUsize::new(0));
    let owner = Owner(pattern(32 << 20), freed.clone());
    let file = bench.file("segment", b"contents");
    bench.submit_receive(&socket, 1 << 20);
    bench.submit_send(&socket, vec![Chunk::Bytes(Bytes::from_owner(owner))]);
    bench.submit(Op::Accept);
    bench.stays_quiet();
    bench.submit(Op::Sync { file });
    for _ in 0..100 {
        // These the kernel never sees.
        bench.submit(Op::Accept);
    }
    let started = Instant::now();
    drop(bench);
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "the kernel kept something"
    );
    assert_eq!(freed.load(Ordering::Acquire), 1, "the buffers are free");
    let SocketKind::Os(_) = &*socket.0 else {
        panic!("not of the system")
    };
    assert_eq!(Arc::strong_count(&socket.0), 1, "the sockets are free");
    drop(socket);
    let end = std::io::copy(&mut peer, &mut std::io::sink());
    assert!(
        matches!(end, Ok(_) | Err(_)),
        "the peer sees the end within its limit"
    );
    if let Err(error) = end {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

/// Memory that tells when it is freed.
struct Owner(Bytes, Arc<AtomicUsize>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::AcqRel);
    }
}
