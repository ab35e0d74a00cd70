//! Every bound that is not a setting, in one place.

/// Longest topic name. Kafka: `Topic.MAX_NAME_LENGTH`.
pub const TOPIC_NAME_LENGTH_MAX: usize = 249;

/// Longest id of a group, or of one of its static members, in bytes. Kafka has the bound for the
/// latter only: `JoinGroupRequest.MAX_GROUP_INSTANCE_ID_LENGTH`.
pub const GROUP_ID_BYTES_MAX: usize = 249;

/// What a member of a group may say about itself, under all protocols together. Subscriptions to
/// 10,000 topics stay below.
pub const MEMBER_METADATA_BYTES_MAX: usize = 1 << 20;

/// Protocols that a member of a group may know: those of all are matched whenever one joins.
/// Clients know one per assignor.
pub const MEMBER_PROTOCOLS_MAX: usize = 64;

/// What all members of a group may say about themselves, and what their leader may assign to them.
/// Kafka's bound is that of one record of `__consumer_offsets`, 1 MiB by default.
pub const GROUP_METADATA_BYTES_MAX: usize = 16 << 20;

/// Tagged fields accepted per structure (CVE-2026-111115 is what happens without a bound).
pub const TAGGED_FIELDS_MAX: usize = 64;

/// Elements reserved ahead for an array, whatever count its header claims.
pub const ARRAY_RESERVE_MAX: usize = 1024;

/// What the arrays of a message may take in memory: this many times the bytes of its frame. Real
/// messages stay below 6 (describing partitions); only masses of empty elements go beyond.
pub const DECODED_BYTES_RATIO_MAX: usize = 8;

/// The same for small frames: bytes that every message may take on top.
pub const DECODED_BYTES_FREE: usize = 256 << 10;

/// The most that the arrays of a request may take in memory, however large its frame: some 40,000
/// partitions. Responses, which a client of ours reads, may take more.
pub const DECODED_REQUEST_BYTES_MAX: usize = 4 << 20;

/// Bytes of records that one fetch is answered with, whatever `fetch.max.bytes` and the client say:
/// with a batch of any size in front of them the answer still fits a frame, whose size is 31 bits.
pub const FETCH_BYTES_MAX: i32 = 1 << 30;

/// Bytes of names, values and texts that one DescribeConfigs is answered with: all settings of some
/// 30,000 topics, or of 6,000 with all that can be said. The rest has to be asked for once more.
pub const DESCRIBED_BYTES_MAX: usize = 32 << 20;

/// Batches remembered per producer and partition for duplicate detection. Kafka:
/// `ProducerStateEntry.NUM_BATCHES_TO_RETAIN`.
pub const PRODUCER_BATCHES_MAX: usize = 5;

/// Size of the fixed head of a record batch (magic 2).
pub const BATCH_HEADER_BYTES: usize = 61;
