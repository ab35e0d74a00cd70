//! Memory follows the bytes received, never a number a peer wrote: every request decoder is fed
//! lengths and counts that lie, under an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};
use forebay::wire::frame::RequestHeader;
use forebay::wire::messages::*;
use forebay::wire::{Malformed, Message, Reader, Request, Writer, messages};

/// What a hostile request may take on top of its own bytes.
const EXTRA_BYTES_MAX: usize = 1 << 20;

/// Counts the bytes in use and their peak, per thread: tests run side by side.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator; the counters neither allocate nor
// have destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        NOW.set(NOW.get().wrapping_add(layout.size()));
        PEAK.set(PEAK.get().max(NOW.get()));
        // SAFETY: the caller's promise about `layout` is the one that is needed here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.set(NOW.get().wrapping_sub(layout.size()));
        // SAFETY: the pointer came from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was in use at once during `run`, beyond what was in use before.
fn peak_of<T>(run: impl FnOnce() -> T) -> (usize, T) {
    NOW.set(1 << 40); // Frees of what others allocated must not wrap around.
    PEAK.set(NOW.get());
    let result = run();
    (PEAK.get() - (1 << 40), result)
}

/// Calls `$check::<R>()` for every request.
macro_rules! every_request {
    ($check:ident: $($request:path,)*) => {{
        $($check::<$request>();)*
        let listed = [$(<$request>::KEY,)*];
        for key in 0..200 {
            let known = messages::flexible_from(key).is_some();
            assert_eq!(known, listed.contains(&key), "API key {key} in this list");
        }
    }};
    ($check:ident) => {
        every_request!($check:
            alter_configs::AlterConfigsRequest,
            api_versions::ApiVersionsRequest,
            create_partitions::CreatePartitionsRequest,
            create_topics::CreateTopicsRequest,
            delete_groups::DeleteGroupsRequest,
            delete_records::DeleteRecordsRequest,
            delete_topics::DeleteTopicsRequest,
            describe_cluster::DescribeClusterRequest,
            describe_configs::DescribeConfigsRequest,
            describe_groups::DescribeGroupsRequest,
            describe_log_dirs::DescribeLogDirsRequest,
            describe_producers::DescribeProducersRequest,
            describe_topic_partitions::DescribeTopicPartitionsRequest,
            fetch::FetchRequest,
            find_coordinator::FindCoordinatorRequest,
            heartbeat::HeartbeatRequest,
            incremental_alter_configs::IncrementalAlterConfigsRequest,
            init_producer_id::InitProducerIdRequest,
            join_group::JoinGroupRequest,
            leave_group::LeaveGroupRequest,
            list_config_resources::ListConfigResourcesRequest,
            list_groups::ListGroupsRequest,
            list_offsets::ListOffsetsRequest,
            metadata::MetadataRequest,
            offset_commit::OffsetCommitRequest,
            offset_delete::OffsetDeleteRequest,
            offset_fetch::OffsetFetchRequest,
            offset_for_leader_epoch::OffsetForLeaderEpochRequest,
            produce::ProduceRequest,
            sync_group::SyncGroupRequest,
        )
    };
}

fn decode<M: Message>(bytes: Bytes, version: i16) -> usize {
    peak_of(|| M::decode(&mut Reader::new(bytes), version).is_ok()).0
}

/// Lies put over every position of a message, with and without much behind it to lie about.
fn lying_numbers<R: Request>() {
    const LIES: [&[u8]; 4] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0x03],
        &[0x00, 0x01, 0x00, 0x00],
    ];
    for version in R::VERSIONS {
        let mut writer = Writer::new();
        R::default().encode(&mut writer, version);
        for position in 0..=writer.bytes.len() {
            for lie in LIES {
                for (filler, length) in [(0, 0), (0, 60_000), (1, 60_000), (2, 60_000)] {
                    let mut bytes = BytesMut::from(&writer.bytes[..position]);
                    bytes.put_slice(lie);
                    bytes.put_bytes(filler, length);
                    let peak = decode::<R>(bytes.freeze(), version);
                    let what = format!("{} v{version} {lie:?} at {position}", R::NAME);
                    assert!(peak <= EXTRA_BYTES_MAX, "{what}: {peak} bytes");
                }
            }
        }
    }
}

#[test]
fn counts_that_lie_take_no_memory() {
    every_request!(lying_numbers);
}

#[test]
fn eight_bytes_do_not_ask_for_gigabytes() {
    let bytes = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(decode::<metadata::MetadataRequest>(bytes, 0), 0);
}

/// A count that the frame's size allows, and garbage where the elements should be.
#[test]
fn garbage_behind_a_good_count_takes_no_memory() {
    let mut bytes = BytesMut::new();
    bytes.put_i32(1_000_000);
    bytes.put_bytes(0xff, 4 << 20);
    assert!(decode::<describe_groups::DescribeGroupsRequest>(bytes.freeze(), 0) <= EXTRA_BYTES_MAX);
}

/// 100 MiB, the largest frame Kafka takes, of empty strings.
#[test]
fn a_huge_frame_of_nothing_is_refused_before_it_grows() {
    let count = 100 << 20;
    let mut bytes = BytesMut::with_capacity(count + 8);
    let mut rest = count + 1;
    while rest >= 0x80 {
        bytes.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.put_u8(rest as u8);
    bytes.put_bytes(1, count);
    let bytes = bytes.freeze();
    assert!(decode::<describe_groups::DescribeGroupsRequest>(bytes, 5) <= EXTRA_BYTES_MAX);
}

/// Names that a frame may well hold, and that no request needs so many of.
#[test]
fn a_request_names_no_more_than_requests_need() {
    let mut bytes = BytesMut::new();
    bytes.put_i32(600_000);
    for _ in 0..600_000 {
        bytes.put_slice(&[0, 7]);
        bytes.put_slice(b"a-group");
    }
    let bytes = bytes.freeze();
    let decode = |mut reader| describe_groups::DescribeGroupsRequest::decode(&mut reader, 0);
    assert!(decode(Reader::new(bytes.clone())).is_ok());
    let (peak, decoded) = peak_of(|| decode(Reader::of_request(bytes)));
    assert_eq!(decoded, Err(Malformed("too many elements for its size")));
    assert_eq!(peak, 0);
}

/// Unknown tagged fields, in the header and in the body, are stepped over.
#[test]
fn unknown_tagged_fields_take_no_memory() {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[0, 3, 0, 12, 0, 0, 0, 7, 0xff, 0xff, 64]);
    for _ in 0..64 {
        bytes.put_slice(&[9, 0xff, 0x01]);
        bytes.put_bytes(0xaa, 255);
    }
    let bytes = bytes.freeze();
    let (peak, header) = peak_of(|| RequestHeader::decode(&mut Reader::new(bytes)));
    assert!(header.is_ok());
    assert_eq!(peak, 0);

    let millions = Bytes::from_static(&[0, 3, 0, 12, 0, 0, 0, 7, 0xff, 0xff, 0x80, 0xda, 0xc4, 9]);
    let (peak, header) = peak_of(|| RequestHeader::decode(&mut Reader::new(millions)));
    assert_eq!(header, Err(Malformed("too many tagged fields")));
    assert_eq!(peak, 0);
}

/// A produce request's payload is not copied.
#[test]
fn payloads_are_not_copied() {
    let request = produce::ProduceRequest {
        topic_data: vec![produce::TopicProduceData {
            name: "orders".into(),
            partition_data: vec![produce::PartitionProduceData {
                index: 0,
                records: Some(vec![7; 1 << 20].into()),
            }]
            .into(),
            ..Default::default()
        }]
        .into(),
        ..Default::default()
    };
    let mut writer = Writer::new();
    request.encode(&mut writer, 9);
    let bytes = writer.bytes.freeze();
    let (peak, decoded) = peak_of(|| produce::ProduceRequest::decode(&mut Reader::new(bytes), 9));
    assert_eq!(decoded, Ok(request));
    assert!(peak < 1000, "{peak} bytes");
}
