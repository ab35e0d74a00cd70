//! The table of all settings, and nothing else. Rows stand in the order of their names, topic
//! settings first.
//!
//! A row that says "accepted" has no effect on a single node, or not yet: clients and tools set
//! such
//! names as a matter of course, so refusing them would only break the tools.

use super::{BrokerName, Change, Kind, Setting};

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;

const fn dynamic(name: &'static str) -> BrokerName {
    BrokerName {
        name,
        unit: 1,
        change: Change::Dynamic,
    }
}

const fn start(name: &'static str, unit: i64) -> BrokerName {
    BrokerName {
        name,
        unit,
        change: Change::Start,
    }
}

const fn flag(name: &'static str, flag: &'static str) -> BrokerName {
    BrokerName {
        name,
        unit: 1,
        change: Change::Flag(flag),
    }
}

const fn topic(
    name: &'static str,
    broker: &'static [BrokerName],
    kind: Kind,
    default: &'static str,
    documentation: &'static str,
) -> Setting {
    Setting {
        topic: Some(name),
        broker,
        kind,
        default: Some(default),
        documentation,
    }
}

const fn broker(
    broker: &'static [BrokerName],
    kind: Kind,
    default: Option<&'static str>,
    documentation: &'static str,
) -> Setting {
    Setting {
        topic: None,
        broker,
        kind,
        default,
        documentation,
    }
}

const FOREVER: &str = "9223372036854775807";

/// Every setting.
pub const TABLE: &[Setting] = &[
    topic(
        "cleanup.policy",
        &[dynamic("log.cleanup.policy")],
        Kind::Words(&["compact", "delete"]),
        "delete",
        "What happens to old records: delete by retention, compact to the last value of each key, \
         or both. With compact every record needs a key; compaction itself is not done yet.",
    ),
    topic(
        "compression.gzip.level",
        &[dynamic("compression.gzip.level")],
        Kind::Int { min: -1, max: 9 },
        "-1",
        "Accepted; the codec's own default level is used.",
    ),
    topic(
        "compression.lz4.level",
        &[dynamic("compression.lz4.level")],
        Kind::Int { min: 1, max: 17 },
        "9",
        "Accepted; the codec's own default level is used.",
    ),
    topic(
        "compression.type",
        &[dynamic("compression.type")],
        Kind::Word(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
        "Codec of the stored batches; producer keeps what the producer sent.",
    ),
    topic(
        "compression.zstd.level",
        &[dynamic("compression.zstd.level")],
        Kind::Int {
            min: -131_072,
            max: 22,
        },
        "3",
        "Accepted; the codec's own default level is used.",
    ),
    topic(
        "delete.retention.ms",
        &[dynamic("log.cleaner.delete.retention.ms")],
        Kind::Long { min: 0 },
        "86400000",
        "Accepted; takes effect with compaction, which is not done yet.",
    ),
    topic(
        "file.delete.delay.ms",
        &[dynamic("log.segment.delete.delay.ms")],
        Kind::Long { min: 0 },
        "60000",
        "Accepted; readers keep a deleted segment open as long as they need it.",
    ),
    topic(
        "flush.messages",
        &[dynamic("log.flush.interval.messages")],
        Kind::Long { min: 1 },
        FOREVER,
        "Accepted; acks=all is answered after the sync, and flush.ms bounds the rest.",
    ),
    topic(
        "flush.ms",
        &[dynamic("log.flush.interval.ms")],
        Kind::Long { min: 1 },
        "1000",
        "Longest time in milliseconds that written records stay unsynced when nobody waits for \
         the sync (acks=1, acks=0, write.caching). Kafka leaves it to the operating system.",
    ),
    topic(
        "follower.replication.throttled.replicas",
        &[],
        Kind::Replicas,
        "",
        "Accepted; there are no followers to throttle on a single node.",
    ),
    topic(
        "index.interval.bytes",
        &[dynamic("log.index.interval.bytes")],
        Kind::int(0),
        "4096",
        "Bytes of records between two entries of the offset index.",
    ),
    topic(
        "leader.replication.throttled.replicas",
        &[],
        Kind::Replicas,
        "",
        "Accepted; there are no followers to throttle on a single node.",
    ),
    topic(
        "local.retention.bytes",
        &[dynamic("log.local.retention.bytes")],
        Kind::Long { min: -2 },
        "-2",
        "Accepted; there is no tiered storage.",
    ),
    topic(
        "local.retention.ms",
        &[dynamic("log.local.retention.ms")],
        Kind::Long { min: -2 },
        "-2",
        "Accepted; there is no tiered storage.",
    ),
    topic(
        "max.compaction.lag.ms",
        &[dynamic("log.cleaner.max.compaction.lag.ms")],
        Kind::Long { min: 1 },
        FOREVER,
        "Accepted; takes effect with compaction, which is not done yet.",
    ),
    topic(
        "max.message.bytes",
        &[dynamic("message.max.bytes")],
        Kind::int(0),
        "1048588",
        "Largest record batch accepted, in bytes.",
    ),
    topic(
        "message.timestamp.after.max.ms",
        &[dynamic("log.message.timestamp.after.max.ms")],
        Kind::Long { min: 0 },
        "3600000",
        "How far in milliseconds a producer's timestamp may lie ahead of the broker's clock.",
    ),
    topic(
        "message.timestamp.before.max.ms",
        &[dynamic("log.message.timestamp.before.max.ms")],
        Kind::Long { min: 0 },
        FOREVER,
        "How far in milliseconds a producer's timestamp may lie behind the broker's clock.",
    ),
    topic(
        "message.timestamp.type",
        &[dynamic("log.message.timestamp.type")],
        Kind::Word(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "Whose clock stamps the records: the producer's or, at the append, the broker's.",
    ),
    topic(
        "min.cleanable.dirty.ratio",
        &[dynamic("log.cleaner.min.cleanable.ratio")],
        Kind::Ratio,
        "0.5",
        "Accepted; takes effect with compaction, which is not done yet.",
    ),
    topic(
        "min.compaction.lag.ms",
        &[dynamic("log.cleaner.min.compaction.lag.ms")],
        Kind::Long { min: 0 },
        "0",
        "Accepted; takes effect with compaction, which is not done yet.",
    ),
    topic(
        "min.insync.replicas",
        &[dynamic("min.insync.replicas")],
        Kind::int(1),
        "1",
        "Replicas that must be in sync for acks=all; as in Kafka never more than there are: one.",
    ),
    topic(
        "preallocate",
        &[dynamic("log.preallocate")],
        Kind::Boolean,
        "false",
        "Accepted; segments are always laid out ahead in steps.",
    ),
    topic(
        "remote.log.copy.disable",
        &[],
        Kind::Boolean,
        "false",
        "Accepted; there is no tiered storage.",
    ),
    topic(
        "remote.log.delete.on.disable",
        &[],
        Kind::Boolean,
        "false",
        "Accepted; there is no tiered storage.",
    ),
    topic(
        "remote.storage.enable",
        &[],
        Kind::Boolean,
        "false",
        "Only false: there is no tiered storage.",
    ),
    topic(
        "retention.bytes",
        &[dynamic("log.retention.bytes")],
        Kind::Long { min: i64::MIN },
        "-1",
        "Bytes a partition keeps before its oldest segments are deleted; -1 for no bound.",
    ),
    topic(
        "retention.ms",
        &[
            dynamic("log.retention.ms"),
            start("log.retention.minutes", MINUTE_MS),
            start("log.retention.hours", HOUR_MS),
        ],
        Kind::Long { min: -1 },
        "604800000",
        "How long records are kept, in milliseconds (minutes, hours); -1 for ever.",
    ),
    topic(
        "segment.bytes",
        &[dynamic("log.segment.bytes")],
        Kind::int(1 << 20),
        "1073741824",
        "Size in bytes at which a partition starts a new segment file.",
    ),
    topic(
        "segment.index.bytes",
        &[dynamic("log.index.size.max.bytes")],
        Kind::int(4),
        "10485760",
        "Largest offset index of a segment in bytes; a full one starts a new segment.",
    ),
    topic(
        "segment.jitter.ms",
        &[
            dynamic("log.roll.jitter.ms"),
            start("log.roll.jitter.hours", HOUR_MS),
        ],
        Kind::Long { min: 0 },
        "0",
        "Accepted; segments roll on time, not around it.",
    ),
    topic(
        "segment.ms",
        &[dynamic("log.roll.ms"), start("log.roll.hours", HOUR_MS)],
        Kind::Long { min: 1 },
        "604800000",
        "Age in milliseconds (hours) at which a partition starts a new segment file.",
    ),
    topic(
        "unclean.leader.election.enable",
        &[dynamic("unclean.leader.election.enable")],
        Kind::Boolean,
        "false",
        "Accepted; a single node has no election.",
    ),
    topic(
        "write.caching",
        &[dynamic("write.caching")],
        Kind::Boolean,
        "false",
        "Answer acks=all after the write instead of after the sync: faster, but a power cut loses \
         up to flush.ms of acknowledged records. Redpanda's name; Kafka always works this way.",
    ),
    broker(
        &[flag("advertised.listeners", "--advertise")],
        Kind::List,
        None,
        "Address that clients are told; none for the one they dialled. Set by --advertise.",
    ),
    broker(
        &[start("auto.create.topics.enable", 1)],
        Kind::Boolean,
        Some("true"),
        "Create a missing topic when a client asks for its metadata.",
    ),
    broker(
        &[start("broker.rack", 1)],
        Kind::Text,
        None,
        "Rack that this node tells clients it stands in.",
    ),
    broker(
        &[start("connections.max.first.request.ms", 1)],
        Kind::Long { min: 1 },
        Some("10000"),
        "Milliseconds that a new connection has for its first request. Touch it if clients open \
         connections long before they need them. Ours.",
    ),
    broker(
        &[start("connections.max.idle.ms", 1)],
        Kind::Long { min: i64::MIN },
        Some("600000"),
        "Milliseconds after which a connection is closed that sent no request, or did not take its \
         replies; negative for never.",
    ),
    broker(
        &[start("connections.max.request.ms", 1)],
        Kind::Long { min: 1 },
        Some("30000"),
        "Milliseconds from the first byte of a request to its last, without those that the broker \
         did not read; then the connection is closed. Touch it if requests are large and links \
         slow. Ours.",
    ),
    broker(
        &[start("default.replication.factor", 1)],
        Kind::Int { min: 1, max: 1 },
        Some("1"),
        "Replication factor of topics created without one; a single node has 1.",
    ),
    broker(
        &[start("delete.topic.enable", 1)],
        Kind::Boolean,
        Some("true"),
        "Allow clients to delete topics.",
    ),
    broker(
        &[dynamic("disk.reserve.bytes")],
        Kind::Long { min: -1 },
        Some("-1"),
        "Bytes of the disk that producers may not fill: below it they get KAFKA_STORAGE_ERROR, \
         and internal topics, consumers, deletion and retention go on. -1 for a twentieth of the \
         disk, at most 1 GiB; 0 for none. Ours; Redpanda's storage_min_free_bytes.",
    ),
    broker(
        &[start("fetch.max.bytes", 1)],
        Kind::int(1024),
        Some("57671680"),
        "Most bytes that one fetch is answered with, whatever the client asks for.",
    ),
    broker(
        &[dynamic("fetch.path")],
        Kind::Word(&["auto", "sendfile", "splice", "copy"]),
        Some("auto"),
        "How records travel from file to socket. auto: sendfile from the page cache, and what is \
         not there is read first without holding up the shard; sendfile, splice and copy do one \
         thing always, to compare them. Ours; can also be given as --fetch.",
    ),
    broker(
        &[start("group.initial.rebalance.delay.ms", 1)],
        Kind::int(0),
        Some("3000"),
        "Milliseconds a new group waits for more members before its first rebalance.",
    ),
    broker(
        &[start("group.max.count", 1)],
        Kind::int(1),
        Some("1000"),
        "Most groups in one partition of __consumer_offsets; who makes another gets \
         POLICY_VIOLATION. Touch it for more than some 30,000 groups. Ours.",
    ),
    broker(
        &[start("group.max.session.timeout.ms", 1)],
        Kind::int(1),
        Some("1800000"),
        "Longest session timeout a group member may ask for, in milliseconds.",
    ),
    broker(
        &[start("group.max.size", 1)],
        Kind::int(1),
        Some("1000"),
        "Most members of one group. Touch it for larger ones. Kafka's default is 2147483647.",
    ),
    broker(
        &[start("group.min.session.timeout.ms", 1)],
        Kind::int(1),
        Some("6000"),
        "Shortest session timeout a group member may ask for, in milliseconds.",
    ),
    broker(
        &[flag("listeners", "--listen")],
        Kind::List,
        None,
        "Addresses the broker listens on. Set by --listen.",
    ),
    broker(
        &[flag("log.dirs", "--data-dir")],
        Kind::List,
        None,
        "Directory that holds the partitions. Set by --data-dir.",
    ),
    broker(
        &[start("log.retention.check.interval.ms", 1)],
        Kind::Long { min: 1 },
        Some("300000"),
        "Milliseconds between two looks for segments whose retention is over.",
    ),
    broker(
        &[dynamic("max.connections")],
        Kind::int(0),
        Some("2147483647"),
        "Most connections open at a time; further ones are closed at once. --memory and the limit \
         of open files bound them too.",
    ),
    broker(
        &[dynamic("max.connections.per.ip")],
        Kind::int(0),
        Some("2147483647"),
        "Most connections open at a time from one address; further ones are closed at once. Touch \
         it if clients you do not know can connect. With --listeners-per-core for each port.",
    ),
    broker(
        &[start("max.partitions", 1)],
        Kind::int(1),
        Some("50000"),
        "Most partitions of all topics together; topics and partitions beyond are refused with \
         POLICY_VIOLATION. A partition takes about 2 KiB of memory. Ours.",
    ),
    broker(
        &[start("max.producer.ids.per.partition", 1)],
        Kind::int(1),
        Some("10000"),
        "Most idempotent producers that a partition remembers; those that have not written for \
         longest are forgotten, as after producer.id.expiration.ms. Ours.",
    ),
    broker(
        &[start("max.request.partition.size.limit", 1)],
        Kind::int(1),
        Some("2000"),
        "Most partitions that one DescribeTopicPartitions answer holds.",
    ),
    broker(
        &[dynamic("max.unsynced.bytes.per.partition")],
        Kind::Long { min: 1 << 20 },
        Some("536870912"),
        "Bytes that may be written to a partition and not synced. A sync starts long before; if \
         the disk does not keep up, producers wait for theirs, whatever their acks. Ours.",
    ),
    broker(
        &[flag("node.id", "--node-id")],
        Kind::int(0),
        None,
        "Id of this node. Set by --node-id.",
    ),
    broker(
        &[start("num.partitions", 1)],
        Kind::Int {
            min: 1,
            max: 10_000,
        },
        Some("1"),
        "Partitions of topics created without a number.",
    ),
    broker(
        &[start("offset.metadata.max.bytes", 1)],
        Kind::int(0),
        Some("4096"),
        "Longest text a consumer may store with a committed offset, in bytes.",
    ),
    broker(
        &[start("offsets.retention.check.interval.ms", 1)],
        Kind::Long { min: 1 },
        Some("600000"),
        "Milliseconds between two looks for expired offsets.",
    ),
    broker(
        &[start("offsets.retention.minutes", 1)],
        Kind::int(1),
        Some("10080"),
        "Minutes that the offsets of an empty group are kept.",
    ),
    broker(
        &[start("offsets.topic.num.partitions", 1)],
        Kind::Int {
            min: 1,
            max: 10_000,
        },
        Some("50"),
        "Partitions of __consumer_offsets; counts when the topic is created.",
    ),
    broker(
        &[start("offsets.topic.replication.factor", 1)],
        Kind::int(1),
        Some("1"),
        "Accepted; a single node has 1.",
    ),
    broker(
        &[start("offsets.topic.segment.bytes", 1)],
        Kind::int(1 << 20),
        Some("104857600"),
        "Segment size of __consumer_offsets in bytes; counts when the topic is created.",
    ),
    broker(
        &[dynamic("producer.id.expiration.ms")],
        Kind::int(1),
        Some("86400000"),
        "Milliseconds after its last write that a producer is forgotten.",
    ),
    broker(
        &[start("queued.max.request.bytes", 1)],
        Kind::Long { min: -1 },
        Some("-1"),
        "Bytes of memory that requests may take before sockets are not read any more, all shards \
         together; -1 for half of --memory.",
    ),
    broker(
        &[start("socket.receive.buffer.bytes", 1)],
        Kind::int(-1),
        Some("-1"),
        "Bytes of each connection's receive buffer; -1 lets the system adapt it. For links that \
         are fast and far: bandwidth times round trip. Kafka's default is 102400.",
    ),
    broker(
        &[start("socket.request.max.bytes", 1)],
        Kind::int(1),
        Some("104857600"),
        "Largest request accepted, in bytes; a larger one closes the connection. At most half of \
         the memory that a shard has for requests (--memory).",
    ),
    broker(
        &[start("socket.send.buffer.bytes", 1)],
        Kind::int(-1),
        Some("-1"),
        "Bytes of each connection's send buffer; -1 lets the system adapt it. As \
         socket.receive.buffer.bytes, for consumers.",
    ),
];
