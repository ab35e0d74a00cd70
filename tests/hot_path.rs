//! A produce request in steady state takes no memory from the allocator: what it needs is kept
//! from the requests before. Counted on the shard's thread of a running broker.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use forebay::batch::{Builder, Codec};
use forebay::config::{Config, ServeArgs};
use forebay::server::Server;
use forebay::wire::Request;
use forebay::wire::frame::encode_request;
use forebay::wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use forebay::wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

/// Requests before counting, and while counting.
const WARM_UP: usize = 500;
const REQUESTS: u64 = 2_000;

/// The thread whose allocations are counted.
static THREAD: AtomicI32 = AtomicI32::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

fn count() {
    let thread = THREAD.load(Relaxed);
    // SAFETY: the call has no conditions.
    if thread != 0 && thread == unsafe { libc::gettid() } {
        ALLOCATIONS.fetch_add(1, Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is the one that is needed here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the pointer came from `alloc`, and the caller's promises are those needed here.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn call(stream: &mut TcpStream, frame: &[u8]) -> Vec<u8> {
    stream.write_all(frame).unwrap();
    let mut size = [0; 4];
    stream.read_exact(&mut size).unwrap();
    let mut response = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut response).unwrap();
    response
}

fn frame<R: Request>(version: i16, request: &R) -> Vec<u8> {
    let writer = encode_request(1, version, Some("test".into()), request);
    writer.bytes.to_vec()
}

fn produce(acks: i16) -> Vec<u8> {
    let mut builder = Builder::new(Codec::None);
    builder.append(1, None, Some(&[7; 1024]), &[]);
    let data = PartitionProduceData {
        index: 0,
        records: Some(builder.build()),
    };
    let topic = TopicProduceData {
        name: "orders".into(),
        partition_data: vec![data].into(),
        ..TopicProduceData::default()
    };
    let request = ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![topic].into(),
        ..ProduceRequest::default()
    };
    frame(9, &request)
}

#[test]
fn produce_requests_allocate_nothing() {
    for (io, acks) in [("auto", 1), ("posix", 1)] {
        let dir = tempfile::tempdir().unwrap();
        let args = ServeArgs {
            listen: Some("127.0.0.1:0".to_owned()),
            data_dir: Some(dir.path().join("data").display().to_string()),
            cores: Some("1".to_owned()),
            io: Some(io.to_owned()),
            // An index entry and a sync now and then are shared by the requests between them.
            set: vec!["log.index.interval.bytes=100000000".to_owned()],
            ..ServeArgs::default()
        };
        let server = Server::start(&Config::from_sources(&args, []).unwrap()).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        let create = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: "orders".into(),
                num_partitions: 1,
                replication_factor: 1,
                ..CreatableTopic::default()
            }],
            timeout_ms: 30_000,
            ..CreateTopicsRequest::default()
        };
        call(&mut stream, &frame(5, &create));
        let request = produce(acks);
        for _ in 0..WARM_UP {
            call(&mut stream, &request);
        }
        ALLOCATIONS.store(0, Relaxed);
        THREAD.store(server.stats()[0].thread_id.get() as i32, Relaxed);
        for _ in 0..REQUESTS {
            call(&mut stream, &request);
        }
        THREAD.store(0, Relaxed);
        let allocations = ALLOCATIONS.load(Relaxed);
        println!("{io}, acks={acks}: {allocations} allocations in {REQUESTS} requests");
        assert!(
            allocations * 100 <= REQUESTS,
            "{io}: {allocations} in {REQUESTS} requests"
        );
        server.stop().unwrap();
    }
}
