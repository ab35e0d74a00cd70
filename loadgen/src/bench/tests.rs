//! The pipeline against a scripted peer: what a broker does wrong, or late, must be seen.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use forebay::base::ErrorCode;
use forebay::batch::Codec;
use forebay::wire::messages::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use forebay::wire::{Message, Reader, Request, frame};

use super::args::{Acks, Load, Sizes};
use super::frames::Frames;
use super::link::Link;
use super::meter::Meter;
use super::pace::Schedule;
use super::pipeline::{Enough, Flight, Pipeline};
use crate::failure::Failure;
use crate::transport::{ClientIo, Runtime};

const VERSION: i16 = 9;
const PARTITION: i32 = 3;

/// Correlation id, partition, code.
type Answer = (i32, i32, ErrorCode);

/// The answer to the `number`-th request, which has this correlation id; `None` closes.
type Script = Box<dyn FnMut(u32, i32) -> Option<Answer> + Send>;

/// A broker of one connection, which answers by its script.
fn peer(mut script: Script) -> (String, JoinHandle<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_nodelay(true).unwrap();
        let (mut inbox, mut chunk, mut number) = (BytesMut::new(), [0; 4_096], 0);
        loop {
            while let Some(bytes) = frame::split_frame(&mut inbox, 1 << 20).unwrap() {
                let asked = correlation_id(bytes);
                let Some((id, partition, code)) = script(number, asked) else {
                    hang_up(&mut socket);
                    return number;
                };
                number += 1;
                // A wrong answer makes the load hang up, whatever is still to be said.
                if socket.write_all(&answer(id, partition, code)).is_err() {
                    return number;
                }
            }
            match socket.read(&mut chunk) {
                Ok(count) if count > 0 => inbox.extend_from_slice(&chunk[..count]),
                _ => return number,
            }
        }
    });
    (address, thread)
}

/// Closes in order: a socket that is dropped with requests unread resets the connection instead.
fn hang_up(socket: &mut TcpStream) {
    socket.shutdown(Shutdown::Write).unwrap();
    let mut chunk = [0; 4_096];
    while socket.read(&mut chunk).is_ok_and(|count| count > 0) {}
}

fn correlation_id(bytes: Bytes) -> i32 {
    let mut reader = Reader::new(bytes);
    let header = frame::RequestHeader::decode(&mut reader).unwrap();
    ProduceRequest::decode(&mut reader, VERSION).unwrap();
    header.correlation_id
}

fn answer(correlation_id: i32, index: i32, error_code: ErrorCode) -> Bytes {
    let partition = PartitionProduceResponse {
        index,
        error_code,
        ..PartitionProduceResponse::default()
    };
    let topic = TopicProduceResponse {
        partition_responses: vec![partition].into(),
        ..TopicProduceResponse::default()
    };
    let response = ProduceResponse {
        responses: vec![topic].into(),
        ..ProduceResponse::default()
    };
    let key = ProduceRequest::KEY;
    frame::encode_response(correlation_id, key, VERSION, &response)
        .unwrap()
        .bytes
        .freeze()
}

/// Sends to a peer: so many requests, or at a rate for the time of the meter.
fn send(
    script: Script,
    rate: Option<u64>,
    time: Duration,
) -> (Result<(), Failure>, Rc<Meter>, u32) {
    let (address, thread) = peer(script);
    let load = Load {
        sizes: Sizes::fixed(100),
        keys: 0,
        codec: Codec::None,
        acks: Acks::One,
        connections: 1,
        depth: 4,
        records_per_request: 1,
        rate,
    };
    let (runtime, _) = Runtime::new(ClientIo::Auto).unwrap();
    let (result, meter) = runtime.block_on(async {
        let link = Link::open(runtime.transport(), &address).await.unwrap();
        let meter = Rc::new(Meter::new(Instant::now(), Duration::ZERO, time));
        let schedule = rate.map(|rate| Schedule::new(meter.start(), rate, 1, 0, 1));
        let pipeline = Pipeline {
            link,
            frames: Frames::new(&load, "t", 1, VERSION).of_partition(PARTITION),
            version: VERSION,
            depth: load.depth,
            answered: true,
            schedule,
            enough: match rate {
                Some(_) => Enough::AtEnd,
                None => Enough::Requests(Rc::new(Cell::new(100))),
            },
            meter: Rc::clone(&meter),
            on_the_way: None,
            flight: Flight::default(),
        };
        (pipeline.run().await, meter)
    });
    drop(runtime);
    (result, meter, thread.join().unwrap())
}

fn right(asked: i32) -> Answer {
    (asked, PARTITION, ErrorCode::None)
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

#[test]
fn every_request_is_sent_and_counted_once() {
    let (result, meter, seen) = send(Box::new(|_, asked| Some(right(asked))), None, minute());
    result.unwrap();
    assert_eq!(
        (seen, meter.all().requests, meter.all().bytes),
        (100, 100, 10_000)
    );
    assert_eq!(meter.latencies().len(), 100);
}

#[test]
fn a_wrong_answer_ends_the_run_with_what_was_wrong() {
    type Wrong = fn(i32) -> Option<Answer>;
    let cases: [(Wrong, &str); 4] = [
        (
            |asked| Some((asked, PARTITION, ErrorCode::NotLeaderOrFollower)),
            "refuses a batch for partition 3: NOT_LEADER_OR_FOLLOWER",
        ),
        (
            |asked| Some((asked + 1, PARTITION, ErrorCode::None)),
            "belongs to another request",
        ),
        (
            |asked| Some((asked, 7, ErrorCode::None)),
            "answers for partition 7 instead of 3",
        ),
        (|_| None, "closed the connection"),
    ];
    for (wrong, word) in cases {
        let script = move |number, asked| match number {
            50 => wrong(asked),
            _ => Some(right(asked)),
        };
        let (result, meter, _) = send(Box::new(script), None, minute());
        let failure = result.unwrap_err();
        assert!(failure.to_string().contains(word), "{failure}");
        assert_eq!(failure.exit_code(), 2);
        assert_eq!(meter.all().requests, 50, "what came before was right");
    }
}

#[test]
fn an_open_loop_shows_a_stall_in_everything_that_it_delayed() {
    const STALL: Duration = Duration::from_millis(400);
    let script = |number, asked| {
        if number == 100 {
            std::thread::sleep(STALL);
        }
        Some(right(asked))
    };
    let (result, meter, seen) = send(Box::new(script), Some(1_000), Duration::from_secs(1));
    result.unwrap();
    assert_eq!(seen, 1_000, "the rate is kept over the whole time");
    let latencies = meter.latencies();
    assert_eq!(latencies.len(), 1_000);
    // The stall delays the 400 requests that were meant to leave in it, each by what was left of
    // it; a generator that waits for answers would have seen four late ones.
    let late = |ms: u64| latencies.count_between(ms * 1_000, u64::MAX);
    assert!(late(300) >= 95, "{}", late(300));
    assert!(late(200) >= 195, "{}", late(200));
    assert!(late(100) >= 295, "{}", late(100));
}

#[test]
fn a_rate_that_cannot_be_kept_counts_what_never_left() {
    let script = |_, asked| {
        std::thread::sleep(Duration::from_millis(10));
        Some(right(asked))
    };
    let (result, meter, seen) = send(Box::new(script), Some(10_000), Duration::from_millis(300));
    result.unwrap();
    assert_eq!(
        meter.unsent_count() + u64::from(seen),
        3_000,
        "each was meant to be sent"
    );
    assert_eq!(meter.latencies().len(), 3_000);
    assert!(
        meter.latencies().value_at_quantile(0.5) > 500_000,
        "most waited until the end"
    );
}
