//! Small round trips on loopback, enough of them to meet a lost wake-up, and to compare the back
//! ends: `cargo test --release ping_pong -- --ignored --nocapture --test-threads 1`.

use super::*;
use nix::sys::time::TimeValLike;
use std::io::Read;
use std::time::Instant;

const ROUND_TRIPS: usize = 100_000;
const MESSAGE_BYTES: usize = 64;

#[test]
#[ignore = "a measurement"]
fn ping_pong_on_ring() {
    ping_pong::<OnRing<0>>();
    ping_pong::<OnRing<50>>();
}

#[test]
#[ignore = "a measurement"]
fn ping_pong_on_posix() {
    ping_pong::<OnPosix<0>>();
    ping_pong::<OnPosix<50>>();
}

fn ping_pong<I: Make>() {
    for peers in [1, 16] {
        let mut bench = Bench::<I>::new();
        let threads: Vec<_> = (0..peers)
            .map(|_| {
                let (socket, peer) = bench.connect();
                bench.submit_receive(&socket, MESSAGE_BYTES);
                let receive = bench.tokens;
                (
                    socket,
                    receive,
                    std::thread::spawn(move || ask(peer, ROUND_TRIPS / peers)),
                )
            })
            .collect();
        let mut sockets = std::collections::BTreeMap::new();
        let mut handles = Vec::new();
        for (socket, receive, handle) in threads {
            sockets.insert(receive, socket);
            handles.push(handle);
        }
        let mut latencies: Vec<u32> = Vec::new();
        let started = Instant::now();
        let busy = thread_cpu_us();
        echo(&mut bench, sockets);
        let busy = thread_cpu_us() - busy;
        let elapsed = started.elapsed();
        for handle in handles {
            latencies.extend(handle.join().unwrap());
        }
        latencies.sort_unstable();
        let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
        eprintln!(
            "{}: {peers} peers: {:.0}/s, {:.2} us of CPU each, p50 {} us, p99 {} us, max {} us",
            I::NAME,
            latencies.len() as f64 / elapsed.as_secs_f64(),
            busy as f64 / latencies.len() as f64,
            at(50),
            at(99),
            at(100),
        );
    }
}

/// CPU time of this thread so far: less disturbed by neighbours than the clock on the wall.
fn thread_cpu_us() -> i64 {
    let usage = thread_usage();
    (usage.user_time() + usage.system_time()).num_microseconds()
}

/// Sends back what comes, until all peers are gone.
fn echo<I: Make>(bench: &mut Bench<I>, mut sockets: std::collections::BTreeMap<Token, Socket>) {
    // What the first peers asked while the last ones connected.
    let mut completions = std::mem::take(&mut bench.early);
    while !sockets.is_empty() {
        let deadline = bench.io.now().mono + LIMIT;
        bench.io.wait(Some(deadline), &mut completions).unwrap();
        assert!(!completions.is_empty(), "a wake-up was lost");
        for completion in completions.drain(..) {
            match completion.outcome {
                Outcome::Received {
                    result: Ok(0) | Err(_),
                    ..
                } => {
                    sockets.remove(&completion.token);
                }
                Outcome::Received { buffer, .. } => {
                    let socket = sockets.remove(&completion.token).unwrap();
                    let answer = vec![Chunk::Bytes(buffer.freeze())];
                    bench.submit_send(&socket, answer);
                    let token = bench.submit_receive(&socket, MESSAGE_BYTES);
                    sockets.insert(token, socket);
                }
                Outcome::Sent(result) => result.unwrap(),
                outcome => panic!("not asked for: {outcome:?}"),
            }
        }
    }
}

/// Round-trip times in microseconds.
fn ask(mut peer: TcpStream, count: usize) -> Vec<u32> {
    peer.set_nodelay(true).unwrap();
    let mut message = [7; MESSAGE_BYTES];
    let mut latencies = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        peer.write_all(&message).unwrap();
        peer.read_exact(&mut message).unwrap();
        latencies.push(started.elapsed().as_micros() as u32);
    }
    latencies
}
