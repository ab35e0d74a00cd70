//! Golden bytes: what Apache Kafka 4.3.1's own serializers write for these values. Each must come
//! out of ours, and go back in. Recorded once; they change only if the protocol does.

use bytes::Bytes;
use forebay::base::{ErrorCode, TopicId};
use forebay::wire::messages::api_versions::*;
use forebay::wire::messages::describe_log_dirs::*;
use forebay::wire::messages::describe_topic_partitions::*;
use forebay::wire::messages::join_group::*;
use forebay::wire::messages::list_offsets::*;
use forebay::wire::messages::metadata::*;
use forebay::wire::messages::offset_commit::*;
use forebay::wire::messages::offset_fetch::*;
use forebay::wire::messages::{fetch, produce};
use forebay::wire::{Message, Reader, Records, Writer};

use crate::{hex, unhex};

fn check<M: Message>(version: i16, expected: &str, message: &M) {
    let mut writer = Writer::new();
    message.encode(&mut writer, version);
    assert_eq!(hex(&writer.bytes), expected, "{} v{version}", M::NAME);
    let mut reader = Reader::new(unhex(expected));
    let decoded = M::decode(&mut reader, version);
    assert_eq!(decoded.as_ref(), Ok(message), "{} v{version}", M::NAME);
    assert_eq!(reader.remaining(), 0, "{} v{version}", M::NAME);
}

fn topic_id() -> TopicId {
    TopicId(uuid::Uuid::from_u128(
        0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
    ))
}

#[test]
fn produce_request() {
    let request = |topic: produce::TopicProduceData| produce::ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![produce::TopicProduceData {
            partition_data: vec![produce::PartitionProduceData {
                index: 3,
                records: Some(Bytes::from_static(&[1, 2, 3])),
            }]
            .into(),
            ..topic
        }]
        .into(),
        ..Default::default()
    };
    let by_name = request(produce::TopicProduceData {
        name: "orders".into(),
        ..Default::default()
    });
    let by_id = request(produce::TopicProduceData {
        topic_id: topic_id(),
        ..Default::default()
    });
    check(
        3,
        "ffffffff000075300000000100066f7264657273000000010000000300000003010203",
        &by_name,
    );
    check(
        9,
        "00ffff0000753002076f7264657273020000000304010203000000",
        &by_name,
    );
    check(
        13,
        "00ffff00007530020102030405060708090a0b0c0d0e0f10020000000304010203000000",
        &by_id,
    );
}

#[test]
fn fetch_request() {
    let partition = fetch::FetchPartition {
        partition: 1,
        fetch_offset: 42,
        partition_max_bytes: 4096,
        ..Default::default()
    };
    let request = fetch::FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1 << 20,
        isolation_level: 1,
        ..Default::default()
    };
    check(
        4,
        "ffffffff000001f40000000100100000010000000100066f72646572730000000100000001000000\
         000000002a00001000",
        &fetch::FetchRequest {
            topics: vec![fetch::FetchTopic {
                topic: "orders".into(),
                partitions: vec![partition.clone()],
                ..Default::default()
            }],
            ..request.clone()
        },
    );
    check(
        18,
        "000001f400000001001000000100000000ffffffff020102030405060708090a0b0c0d0e0f100200\
         00000100000005000000000000002affffffffffffffffffffffff00001000010108000000000000\
         0028000103723101010d00000002000000000000000700",
        &fetch::FetchRequest {
            rack_id: "r1".into(),
            replica_state: fetch::ReplicaState {
                replica_id: 2,
                replica_epoch: 7,
            },
            topics: vec![fetch::FetchTopic {
                topic_id: topic_id(),
                partitions: vec![fetch::FetchPartition {
                    current_leader_epoch: 5,
                    high_watermark: 40,
                    ..partition
                }],
                ..Default::default()
            }],
            ..request
        },
    );
}

#[test]
fn fetch_response() {
    let partition = fetch::PartitionData {
        partition_index: 1,
        high_watermark: 44,
        last_stable_offset: 43,
        records: Records::Bytes(Bytes::from_static(&[1, 2, 3])),
        ..Default::default()
    };
    let response = |topic: fetch::FetchableTopicResponse| fetch::FetchResponse {
        responses: vec![topic],
        ..Default::default()
    };
    check(
        4,
        "000000000000000100066f726465727300000001000000010000000000000000002c000000000000\
         002bffffffff00000003010203",
        &response(fetch::FetchableTopicResponse {
            topic: "orders".into(),
            partitions: vec![fetch::PartitionData {
                aborted_transactions: None,
                ..partition.clone()
            }],
            ..Default::default()
        }),
    );
    let moved = response(fetch::FetchableTopicResponse {
        topic_id: topic_id(),
        partitions: vec![fetch::PartitionData {
            error_code: ErrorCode::NotLeaderOrFollower,
            aborted_transactions: Some(vec![fetch::AbortedTransaction {
                producer_id: 9,
                first_offset: 8,
            }]),
            current_leader: fetch::LeaderIdAndEpoch {
                leader_id: 2,
                leader_epoch: 6,
            },
            ..partition
        }],
        ..Default::default()
    });
    check(
        16,
        "00000000000000000000020102030405060708090a0b0c0d0e0f1002000000010006000000000000\
         002c000000000000002bffffffffffffffff020000000000000009000000000000000800ffffffff\
         040102030101090000000200000006000001000d02000000020268000023840000",
        &fetch::FetchResponse {
            node_endpoints: vec![fetch::NodeEndpoint {
                node_id: 2,
                host: "h".into(),
                port: 9092,
                rack: None,
            }],
            ..moved
        },
    );
}

#[test]
fn metadata_request() {
    let all = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    check(1, "ffffffff", &all);
    let by_id = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            topic_id: topic_id(),
            name: None,
        }]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    check(12, "020102030405060708090a0b0c0d0e0f100000000000", &by_id);
}

#[test]
fn metadata_response() {
    let broker = MetadataResponseBroker {
        node_id: 1,
        host: "127.0.0.1".into(),
        port: 9092,
        rack: None,
    };
    let partition = MetadataResponsePartition {
        leader_id: 1,
        replica_nodes: vec![1, 2],
        isr_nodes: vec![1],
        ..Default::default()
    };
    let topic = MetadataResponseTopic {
        name: Some("t".into()),
        ..Default::default()
    };
    let oldest = MetadataResponse {
        brokers: vec![broker.clone()],
        topics: vec![MetadataResponseTopic {
            partitions: vec![partition.clone()],
            ..topic.clone()
        }],
        ..Default::default()
    };
    check(
        0,
        "000000010000000100093132372e302e302e31000023840000000100000001740000000100000000\
         0000000000010000000200000001000000020000000100000001",
        &oldest,
    );
    let newest = MetadataResponse {
        brokers: vec![broker],
        cluster_id: Some("c".into()),
        controller_id: 1,
        topics: vec![MetadataResponseTopic {
            topic_id: topic_id(),
            partitions: vec![MetadataResponsePartition {
                leader_epoch: 4,
                offline_replicas: vec![2],
                ..partition
            }],
            ..topic
        }],
        ..Default::default()
    };
    check(
        13,
        "0000000002000000010a3132372e302e302e31000023840000026300000001020000027401020304\
         05060708090a0b0c0d0e0f1000020000000000000000000100000004030000000100000002020000\
         00010200000002008000000000000000",
        &newest,
    );
}

#[test]
fn list_offsets() {
    let request = ListOffsetsRequest {
        replica_id: -1,
        timeout_ms: 5000,
        topics: vec![ListOffsetsTopic {
            name: "t".into(),
            partitions: vec![ListOffsetsPartition {
                partition_index: 2,
                current_leader_epoch: 1,
                timestamp: -6,
            }],
        }],
        ..Default::default()
    };
    check(
        11,
        "ffffffff00020274020000000200000001fffffffffffffffa00000000138800",
        &request,
    );
    let response = ListOffsetsResponse {
        topics: vec![ListOffsetsTopicResponse {
            name: "t".into(),
            partitions: vec![ListOffsetsPartitionResponse {
                partition_index: 2,
                offset: 77,
                leader_epoch: 3,
                ..Default::default()
            }],
        }],
        ..Default::default()
    };
    check(
        11,
        "0000000002027402000000020000ffffffffffffffff000000000000004d00000003000000",
        &response,
    );
}

#[test]
fn offsets_of_groups() {
    let commit = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: 3,
        member_id: "m".into(),
        topics: vec![OffsetCommitRequestTopic {
            topic_id: topic_id(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 1,
                committed_offset: 10,
                committed_leader_epoch: 2,
                committed_metadata: Some("x".into()),
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    check(
        10,
        "026700000003026d00020102030405060708090a0b0c0d0e0f100200000001000000000000000a00\
         0000020278000000",
        &commit,
    );
    let fetch = OffsetFetchRequest {
        require_stable: true,
        groups: vec![OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                topic_id: topic_id(),
                partition_indexes: vec![0, 1],
                ..Default::default()
            }]),
            ..Default::default()
        }],
        ..Default::default()
    };
    check(
        10,
        "02026700ffffffff020102030405060708090a0b0c0d0e0f1003000000000000000100000100",
        &fetch,
    );
}

#[test]
fn join_group() {
    let request = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        group_instance_id: Some("i".into()),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::from_static(&[7, 8]),
        }],
        reason: Some("why".into()),
        ..Default::default()
    };
    check(
        9,
        "02670000afc8000493e001026909636f6e73756d6572020672616e6765030708000477687900",
        &request,
    );
    let response = JoinGroupResponse {
        generation_id: 1,
        protocol_name: Some("range".into()),
        leader: "m".into(),
        member_id: "m".into(),
        members: vec![JoinGroupResponseMember {
            member_id: "m".into(),
            metadata: Bytes::from_static(&[7, 8]),
            ..Default::default()
        }],
        ..Default::default()
    };
    check(
        0,
        "000000000001000572616e676500016d00016d0000000100016d000000020708",
        &response,
    );
}

#[test]
fn api_versions() {
    let request = ApiVersionsRequest {
        client_software_name: "kafka".into(),
        client_software_version: "4.3.1".into(),
    };
    check(4, "066b61666b6106342e332e3100", &request);
    let plain = ApiVersionsResponse {
        api_keys: vec![ApiVersion {
            api_key: 18,
            min_version: 0,
            max_version: 4,
        }],
        ..Default::default()
    };
    check(0, "000000000001001200000004", &plain);
    let featured = ApiVersionsResponse {
        supported_features: vec![SupportedFeatureKey {
            name: "f".into(),
            min_version: 0,
            max_version: 1,
        }],
        finalized_features_epoch: 5,
        finalized_features: vec![FinalizedFeatureKey {
            name: "f".into(),
            max_version_level: 1,
            min_version_level: 1,
        }],
        zk_migration_ready: true,
        ..plain
    };
    check(
        4,
        "00000200120000000400000000000400080202660000000100010800000000000000050208020266\
         0001000100030101",
        &featured,
    );
}

#[test]
fn describe_log_dirs_response() {
    let response = DescribeLogDirsResponse {
        results: vec![DescribeLogDirsResult {
            log_dir: "/d".into(),
            topics: vec![DescribeLogDirsTopic {
                name: "t".into(),
                partitions: vec![DescribeLogDirsPartition {
                    partition_size: 33,
                    ..Default::default()
                }],
            }],
            total_bytes: 100,
            usable_bytes: 60,
            is_cordoned: true,
            ..Default::default()
        }],
        ..Default::default()
    };
    check(
        5,
        "000000000000020000032f6402027402000000000000000000000021000000000000000000000000\
         00000000000064000000000000003c010000",
        &response,
    );
}

#[test]
fn describe_topic_partitions_request() {
    let page = DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest { name: "t".into() }],
        cursor: Some(Cursor {
            topic_name: "t".into(),
            partition_index: 5,
        }),
        ..Default::default()
    };
    check(0, "02027400000007d0010274000000050000", &page);
    let first = DescribeTopicPartitionsRequest::default();
    check(0, "01000007d0ff00", &first);
}
