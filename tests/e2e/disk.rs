//! Full and failing disks, on a real file system that is small, full or broken: who is refused and
//! how, what goes on, and what is there afterwards.

use crate::admin::{get, sum};
use crate::broker::{Raw, batch, produce_request};
use crate::conversation::fetch;
use crate::loop_disk::LoopDisk;
use bytes::Bytes;
use forebay::base::ErrorCode;
use forebay::batch::{Builder, Codec};
use forebay::config::{Config, ServeArgs};
use forebay::server::Server;
use forebay::wire::Records;
use forebay::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use forebay::wire::messages::delete_topics::DeleteTopicsRequest;
use forebay::wire::messages::describe_log_dirs::DescribeLogDirsRequest;
use forebay::wire::messages::find_coordinator::FindCoordinatorRequest;
use forebay::wire::messages::metadata::MetadataRequest;
use forebay::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use forebay::wire::messages::produce::PartitionProduceResponse;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// Bytes of one batch of a flood: whole pages, so that no batch shares one with the next. The loop
/// device takes a write of which it could store only a part for a whole one.
const BATCH_BYTES: usize = 200 * 1024;

/// Bytes of it around the value.
const OVERHEAD_BYTES: usize = 72;

/// A broker that is stopped when it is dropped.
struct Node(Option<Server>);

impl Node {
    fn start(dir: &Path, settings: &[&str]) -> Self {
        Self::with_shards("2", dir, settings)
    }

    fn with_shards(shards: &str, dir: &Path, settings: &[&str]) -> Self {
        Self::at("127.0.0.1:0", shards, dir, settings)
    }

    fn at(listen: &str, shards: &str, dir: &Path, settings: &[&str]) -> Self {
        let fixed = [
            "offsets.topic.num.partitions=1",
            "log.retention.check.interval.ms=3600000",
        ];
        let set = fixed.iter().chain(settings).map(|s| (*s).to_owned());
        let args = ServeArgs {
            listen: Some(listen.to_owned()),
            admin_listen: Some("127.0.0.1:0".to_owned()),
            data_dir: Some(dir.display().to_string()),
            cores: Some(shards.to_owned()),
            set: set.collect(),
            ..ServeArgs::default()
        };
        let config = Config::from_sources(&args, []).unwrap();
        Self(Some(Server::start(&config).unwrap()))
    }

    fn address(&self) -> SocketAddr {
        self.0.as_ref().unwrap().address()
    }

    fn connect(&self) -> Raw {
        Raw::connect(self.address())
    }

    fn metric(&self, name: &str) -> f64 {
        let admin = self.0.as_ref().unwrap().admin_address().unwrap();
        sum(&get(admin, "GET /metrics").1, name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(server) = self.0.take() {
            server.stop().unwrap();
        }
    }
}

/// One batch of an idempotent producer with one large record that tells its number.
fn flood_batch(number: i32) -> Bytes {
    let mut builder = Builder::new(Codec::None);
    builder.set_producer(77, 0, number);
    let mut value = format!("{number:08}").into_bytes();
    value.resize(BATCH_BYTES - OVERHEAD_BYTES, b'x');
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    builder.append(now.as_millis() as i64, None, Some(&value), &[]);
    let batch = builder.build();
    assert_eq!(batch.len(), BATCH_BYTES);
    batch
}

/// Sends batches from number `next` on until one is refused; gives its number and the refusal.
fn flood(raw: &mut Raw, topic: &str, mut next: i32) -> (i32, PartitionProduceResponse) {
    loop {
        let answer = raw.produce(topic, 0, flood_batch(next));
        if answer.error_code.is_error() {
            return (next, answer);
        }
        assert_eq!(answer.base_offset, i64::from(next), "one record each");
        next += 1;
        assert!(next < 1000, "the disk never fills");
    }
}

/// Sends a batch again and again, as a client does, until it is taken.
fn insist(raw: &mut Raw, topic: &str, number: i32) {
    let since = Instant::now();
    loop {
        let answer = raw.produce(topic, 0, flood_batch(number));
        if !answer.error_code.is_error() {
            assert_eq!(answer.base_offset, i64::from(number));
            return;
        }
        assert_eq!(answer.error_code, ErrorCode::KafkaStorageError);
        assert!(since.elapsed() < Duration::from_secs(20), "{answer:?}");
        // What a producer's retry.backoff.ms does.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The numbers of the records of a topic from an offset on.
fn numbers(raw: &mut Raw, topic: &str, from: i64) -> Vec<i32> {
    let mut numbers = Vec::new();
    let mut offset = from;
    loop {
        let response = raw.ask(11, &fetch(topic, offset, 0, 8 << 20));
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::None);
        let Records::Bytes(bytes) = &partition.records else {
            panic!("not on the wire")
        };
        let before = offset;
        for (header, body) in forebay::batch::batches(bytes.clone()).map_while(Result::ok) {
            header.check_crc(&body).unwrap();
            for record in forebay::batch::records(&header, &body, 1 << 20).unwrap() {
                let value = record.unwrap().value.unwrap();
                let number = std::str::from_utf8(&value[..8]).unwrap();
                numbers.push(number.parse().unwrap());
            }
            offset = header.next_offset();
        }
        if offset == before {
            return numbers;
        }
    }
}

fn commit(raw: &mut Raw, offset: i64) -> ErrorCode {
    let partition = OffsetCommitRequestPartition {
        committed_offset: offset,
        committed_metadata: Some(String::new()),
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: "flood".to_owned(),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: "readers".to_owned(),
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    raw.ask(7, &request).topics[0].partitions[0].error_code
}

fn deletion(name: &str) -> DeleteTopicsRequest {
    DeleteTopicsRequest {
        topic_names: vec![name.to_owned()],
        timeout_ms: 10_000,
        ..DeleteTopicsRequest::default()
    }
}

fn delete_topic(raw: &mut Raw, name: &str) {
    let response = raw.ask(5, &deletion(name));
    assert_eq!(response.responses[0].error_code, ErrorCode::None);
}

fn delete_records(raw: &mut Raw, topic: &str, before: i64) -> i64 {
    let partition = DeleteRecordsPartition {
        partition_index: 0,
        offset: before,
    };
    let topic = DeleteRecordsTopic {
        name: topic.to_owned(),
        partitions: vec![partition],
    };
    let request = DeleteRecordsRequest {
        topics: vec![topic],
        timeout_ms: 10_000,
    };
    let response = raw.ask(2, &request);
    let partition = &response.topics[0].partitions[0];
    assert_eq!(partition.error_code, ErrorCode::None);
    partition.low_watermark
}

#[test]
fn a_full_disk_refuses_producers_and_nothing_else() {
    let Some(mut disk) = LoopDisk::new(64) else {
        return;
    };
    let Some(root) = disk.mount_anywhere() else {
        return;
    };
    let small_segments = &["log.segment.bytes=4194304"];
    let node = Node::start(&root, small_segments);
    let mut raw = node.connect();
    raw.create_topic("flood", 1);
    raw.create_topic("other", 1);
    for number in 0..40 {
        assert!(
            !raw.produce("other", 0, flood_batch(number))
                .error_code
                .is_error()
        );
    }
    let group = FindCoordinatorRequest {
        key: "readers".to_owned(),
        ..FindCoordinatorRequest::default()
    };
    assert_eq!(raw.ask(3, &group).error_code, ErrorCode::None);

    let (next, refused) = flood(&mut raw, "flood", 0);
    assert!(next > 150, "most of the disk could be used: {next}");
    assert_eq!(refused.error_code, ErrorCode::KafkaStorageError);
    let why = refused.error_message.unwrap();
    assert!(
        why.contains("the disk is full") && why.contains("disk.reserve.bytes"),
        "{why}"
    );
    assert_eq!(node.metric("forebay_disk_full"), 1.0);
    assert_eq!(node.metric("forebay_offline_partitions"), 0.0);
    let (free, reserve) = (
        node.metric("forebay_disk_free_bytes"),
        node.metric("forebay_disk_reserve_bytes"),
    );
    assert!(free > reserve / 2.0 && reserve > 2e6, "{free} of {reserve}");

    // All others go on.
    assert_eq!(numbers(&mut raw, "flood", 0), (0..next).collect::<Vec<_>>());
    for offset in 0..200 {
        assert_eq!(commit(&mut raw, offset), ErrorCode::None);
    }
    raw.create_topic("new", 3);
    assert_eq!(delete_records(&mut raw, "flood", 1), 1);

    // A deleted topic makes room, and what was refused is taken.
    delete_topic(&mut raw, "other");
    insist(&mut raw, "flood", next);
    assert_eq!(node.metric("forebay_disk_full"), 0.0);
    let (next, _) = flood(&mut raw, "flood", next + 1);

    // So does retention, which does not wait for its next turn in an hour.
    raw.alter(2, "flood", "retention.bytes", "8388608");
    insist(&mut raw, "flood", next);
    let response = raw.ask(11, &fetch("flood", i64::from(next), 0, 1 << 20));
    let start = response.responses[0].partitions[0].log_start_offset;
    assert!(start > 100, "{start}");

    drop(node);
    let node = Node::start(&root, small_segments);
    let expected: Vec<_> = (start as i32..=next).collect();
    assert_eq!(numbers(&mut node.connect(), "flood", start), expected);
}

#[test]
fn a_log_without_room_goes_on_by_itself() {
    let Some(mut disk) = LoopDisk::new(32) else {
        return;
    };
    let Some(root) = disk.mount_anywhere() else {
        return;
    };
    // Nothing is kept, and somebody else has taken a part of the disk.
    let filler = root.join("filler");
    let data = root.join("data");
    std::fs::write(&filler, vec![1; 8 << 20]).unwrap();
    let node = Node::start(&data, &["disk.reserve.bytes=0"]);
    let mut raw = node.connect();
    raw.create_topic("flood", 1);
    let (next, refused) = flood(&mut raw, "flood", 0);
    assert_eq!(refused.error_code, ErrorCode::KafkaStorageError);
    let why = refused.error_message.unwrap();
    assert!(why.contains("No space left on device"), "{why}");
    assert_eq!(node.metric("forebay_stalled_partitions"), 1.0);
    assert_eq!(node.metric("forebay_offline_partitions"), 0.0);
    assert_eq!(numbers(&mut raw, "flood", 0).len(), next as usize);

    std::fs::remove_file(&filler).unwrap();
    // Its producer sends it again: it has its place already, or gets it now, but never two.
    insist(&mut raw, "flood", next);
    assert_eq!(node.metric("forebay_stalled_partitions"), 0.0);
    let (next, _) = flood(&mut raw, "flood", next + 1);
    drop(node);

    let node = Node::start(&data, &["disk.reserve.bytes=0"]);
    let found = numbers(&mut node.connect(), "flood", 0);
    // The last one was refused; it may be there all the same.
    assert!([next, next + 1].contains(&(found.len() as i32)), "{next}");
    assert_eq!(found, (0..found.len() as i32).collect::<Vec<_>>());
}

/// A broker with the topics `flood`, on a disk of its own and with a batch in it, and `healthy`.
fn with_a_disk_of_its_own(disk: &mut LoopDisk, data: &Path) -> Option<Node> {
    let node = Node::start(data, &[]);
    let mut raw = node.connect();
    raw.create_topic("flood", 1);
    raw.create_topic("healthy", 1);
    assert_eq!(raw.produce("flood", 0, flood_batch(0)).base_offset, 0);
    drop(node);
    let (dir, aside) = (data.join("flood-0"), data.parent()?.join("aside"));
    std::fs::rename(&dir, &aside).unwrap();
    if !disk.mount(&dir) {
        return None;
    }
    for file in std::fs::read_dir(&aside).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), dir.join(file.file_name())).unwrap();
    }
    nix::unistd::syncfs(std::fs::File::open(&dir).unwrap()).unwrap();
    Some(Node::start(data, &[]))
}

/// Makes that twenty batches; the connection it was done by.
fn write_twenty(node: &Node) -> Raw {
    let mut raw = node.connect();
    for number in 1..20 {
        let produced = raw.produce("flood", 0, flood_batch(number));
        assert_eq!(produced.base_offset, i64::from(number));
    }
    raw
}

/// What everybody is told of an offline partition, and that the other one goes on.
fn check_offline(node: &Node) {
    let mut raw = node.connect();
    for _ in 0..3 {
        let answer = raw.produce("healthy", 0, batch(&[b"still here"]));
        assert_eq!(answer.error_code, ErrorCode::None);
    }
    let answer = raw.ask(9, &produce_request("flood", 0, 1, flood_batch(1)));
    let answer = &answer.responses[0].partition_responses[0];
    assert_eq!(answer.error_code, ErrorCode::KafkaStorageError);
    let why = answer.error_message.clone().unwrap();
    assert!(why.starts_with("the partition is offline: "), "{why}");
    let all = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let metadata = raw.ask(12, &all);
    let partition = |name: &str| {
        let mut topics = metadata.topics.iter();
        let topic = topics.find(|t| t.name.as_deref() == Some(name)).unwrap();
        topic.partitions[0].clone()
    };
    assert_eq!(partition("healthy").error_code, ErrorCode::None);
    let offline = partition("flood");
    assert_eq!(offline.error_code, ErrorCode::LeaderNotAvailable);
    assert_eq!(
        (offline.leader_id, &offline.offline_replicas[..]),
        (-1, &[1][..])
    );
    assert_eq!(offline.isr_nodes, [0; 0]);
    let dirs = raw.ask(4, &DescribeLogDirsRequest { topics: None }).results;
    assert_eq!(dirs[0].error_code, ErrorCode::None);
    assert!(dirs[0].total_bytes > dirs[0].usable_bytes && dirs[0].usable_bytes > 0);
    assert!(dirs[0].topics.iter().all(|topic| topic.name != "flood"));
    assert_eq!(dirs[1].error_code, ErrorCode::KafkaStorageError);
    assert!(dirs[1].log_dir.ends_with("/flood-0"), "{}", dirs[1].log_dir);
    assert_eq!(node.metric("forebay_offline_partitions"), 1.0);
    let response = raw.ask(11, &fetch("flood", 0, 0, 1000));
    let code = response.responses[0].partitions[0].error_code;
    assert_eq!(code, ErrorCode::KafkaStorageError);
}

#[test]
fn a_broken_disk_takes_its_partition_offline_and_no_other() {
    let Some(mut disk) = LoopDisk::new(32) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let Some(node) = with_a_disk_of_its_own(&mut disk, &data) else {
        return;
    };
    let mut raw = write_twenty(&node);
    disk.break_it();
    let refused = raw.produce("flood", 0, flood_batch(20));
    assert_eq!(refused.error_code, ErrorCode::KafkaStorageError);
    let why = refused.error_message.unwrap();
    assert!(
        why.contains("offline") && why.contains("Input/output error"),
        "{why}"
    );
    check_offline(&node);
    drop(node);

    disk.unmount();
    assert!(disk.mount(&data.join("flood-0")));
    let node = Node::start(&data, &[]);
    let mut raw = node.connect();
    let found = numbers(&mut raw, "flood", 0);
    assert!(found.len() >= 20, "what was acknowledged is there");
    assert_eq!(found, (0..found.len() as i32).collect::<Vec<_>>());
    assert_eq!(node.metric("forebay_offline_partitions"), 0.0);
    insist(&mut raw, "flood", found.len() as i32);
    drop(node);
}

/// Hands on what became of each record.
struct Deliveries(Sender<Result<(), KafkaError>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(drop);
        self.0
            .send(result.map_err(|(error, _)| error.clone()))
            .unwrap();
    }
}

/// Reads until so many values of a topic have come; no error may be fatal.
fn values(consumer: &BaseConsumer, topic: &str, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    let since = Instant::now();
    while values.len() < count {
        assert!(since.elapsed() < Duration::from_secs(30), "{values:?}");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) if message.topic() == topic => {
                let text = message.payload_view::<str>().unwrap().unwrap();
                values.push(text[..text.len().min(8)].to_owned());
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => assert!(consumer.client().fatal_error().is_none(), "{error}"),
        }
    }
    values
}

#[test]
fn librdkafka_goes_on_beside_an_offline_partition_and_comes_back_with_it() {
    let Some(mut disk) = LoopDisk::new(32) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let Some(node) = with_a_disk_of_its_own(&mut disk, &data) else {
        return;
    };
    let address = node.address().to_string();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &address)
        .set("reconnect.backoff.max.ms", "500")
        .set("topic.metadata.refresh.interval.ms", "500");
    let (sender, outcomes) = channel();
    let mut producing = config.clone();
    producing
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "3000");
    let producer: ThreadedProducer<_> = producing.create_with_context(Deliveries(sender)).unwrap();
    let send = |topic: &str, text: &str| {
        let record = BaseRecord::to(topic).key("").payload(text);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        outcomes.recv_timeout(Duration::from_secs(30)).unwrap()
    };
    let consumer: BaseConsumer = config.set("group.id", "readers").create().unwrap();
    let mut both = TopicPartitionList::new();
    for topic in ["flood", "healthy"] {
        both.add_partition_offset(topic, 0, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&both).unwrap();
    send("flood", "before").unwrap();
    assert_eq!(values(&consumer, "flood", 2), ["00000000", "before"]);

    disk.break_it();
    let refused = send("flood", "lost").unwrap_err();
    assert_eq!(
        refused.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageTimedOut)
    );
    let beside = ["1", "2", "3"];
    beside
        .iter()
        .for_each(|text| send("healthy", text).unwrap());
    assert_eq!(values(&consumer, "healthy", 3), beside);
    assert!(producer.client().fatal_error().is_none());
    drop(node);

    disk.unmount();
    assert!(disk.mount(&data.join("flood-0")));
    let node = Node::at(&address, "2", &data, &[]);
    let since = Instant::now();
    while let Err(error) = send("flood", "after") {
        assert!(since.elapsed() < Duration::from_secs(30), "{error}");
    }
    // What was refused may be there, or not.
    let found = values(&consumer, "flood", 1);
    let last = if found == ["lost"] {
        values(&consumer, "flood", 1)
    } else {
        found
    };
    assert_eq!(last, ["after"]);
    drop((producer, consumer, node));
}

#[test]
fn without_its_catalog_the_broker_stops() {
    let Some(mut disk) = LoopDisk::new(32) else {
        return;
    };
    let Some(root) = disk.mount_anywhere() else {
        return;
    };
    let mut node = Node::with_shards("1", &root, &[]);
    let mut raw = node.connect();
    raw.create_topic("topic", 1);
    disk.break_it();
    raw.send(5, &deletion("topic"));
    let server = node.0.take().unwrap();
    let why = server.wait().unwrap_err().to_string();
    assert!(
        why.starts_with("the broker stops, because the log of its catalog"),
        "{why}"
    );
    assert!(why.contains("Input/output error"), "{why}");
}

/// The disk takes data that it cannot keep, says so once, and goes on reading it from the page
/// cache: neither this process nor the next one may believe it.
#[test]
fn what_a_failed_sync_has_lost_is_never_believed() {
    let Some(mut disk) = LoopDisk::deceitful(32) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let Some(node) = with_a_disk_of_its_own(&mut disk, &data) else {
        return;
    };
    let mut raw = write_twenty(&node);
    disk.stop_storing();
    let refused = raw.produce("flood", 0, flood_batch(20));
    let why = refused.error_message.unwrap();
    assert!(why.contains("offline") && why.contains("sync"), "{why}");
    check_offline(&node);
    drop(node);

    // The process is new, the machine and its page cache are not.
    let node = Node::start(&data, &[]);
    let believed = numbers(&mut node.connect(), "flood", 0);
    assert_eq!(
        believed,
        (0..20).collect::<Vec<_>>(),
        "what was acknowledged"
    );
    drop(node);
    disk.unmount();
    assert!(disk.mount(&data.join("flood-0")));
    let node = Node::start(&data, &[]);
    let durable = numbers(&mut node.connect(), "flood", 0);
    assert_eq!(durable, believed, "what consumers saw is on the device");
    drop(node);
}
