//! The consumer against a broker in memory: fetching, positions, and membership in a group.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout};

use super::assignor::Assignor;
use super::protocol::{
    MemberSubscription, decode_assignment, decode_subscription, encode_assignment,
    encode_subscription,
};
use super::*;
use crate::batch::{Builder, Codec};
use crate::client::ClientOptions;
use crate::client::scripted::{Received, Reply, Script, answer_basics, run};
use crate::wire::Records;
use crate::wire::messages::fetch::{
    FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use crate::wire::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use crate::wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::wire::messages::join_group::{
    JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember,
};
use crate::wire::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse};
use crate::wire::messages::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use crate::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use crate::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchResponse, OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use crate::wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

/// A broker with one topic "t" and one group "g".
#[derive(Default)]
struct Broker {
    /// Batches by base offset, for each partition.
    logs: BTreeMap<i32, BTreeMap<i64, Bytes>>,
    log_start: i64,
    committed: BTreeMap<i32, i64>,
    /// Names of group requests in order, with what matters of them.
    seen: Vec<String>,
    /// What the next heartbeats say; `None` after that.
    heartbeats: Vec<ErrorCode>,
    /// What every commit says.
    commits: ErrorCode,
    /// What the next joins say.
    joins: Vec<ErrorCode>,
    /// What a member is assigned, unless it is the leader.
    assignment: Vec<TopicPartition>,
    /// Members that the leader, if we are, divides for.
    members: Vec<(String, MemberSubscription)>,
    generation: i32,
    subscription: MemberSubscription,
}

type Shared = Rc<RefCell<Broker>>;

const PARTITIONS: i32 = 3;

impl Broker {
    /// Appends a batch of `count` records whose values are their offsets.
    fn append(&mut self, partition: i32, count: i64) {
        let log = self.logs.entry(partition).or_default();
        let base_offset = log.last_key_value().map_or(0, |(base, bytes)| {
            base + i64::from(Builder::count_of(bytes))
        });
        let mut builder = Builder::new(Codec::None);
        builder.set_base_offset(base_offset);
        for offset in base_offset..base_offset + count {
            builder.append(offset, None, Some(offset.to_string().as_bytes()), &[]);
        }
        log.insert(base_offset, builder.build());
    }

    fn end(&self, partition: i32) -> i64 {
        let last = self.logs.get(&partition).and_then(BTreeMap::last_key_value);
        last.map_or(0, |(base, bytes)| {
            base + i64::from(Builder::count_of(bytes))
        })
    }

    fn handle(&mut self, received: &Received) -> Reply {
        if let Some(reply) = answer_basics(received, PARTITIONS) {
            return reply;
        }
        match received.header.api_key {
            1 => self.fetch(received),
            2 => self.list_offsets(received),
            8 => self.commit(received),
            9 => self.committed(received),
            10 => received.answer(&FindCoordinatorResponse {
                coordinators: received
                    .decode::<FindCoordinatorRequest>()
                    .coordinator_keys
                    .into_iter()
                    .map(|key| Coordinator {
                        key,
                        node_id: 1,
                        host: "broker".to_owned(),
                        port: 1,
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }),
            11 => self.join(received),
            12 => {
                let request: HeartbeatRequest = received.decode();
                self.seen
                    .push(format!("heartbeat {}", request.generation_id));
                let error_code = match self.heartbeats.is_empty() {
                    true => ErrorCode::None,
                    false => self.heartbeats.remove(0),
                };
                received.answer(&HeartbeatResponse {
                    error_code,
                    ..Default::default()
                })
            }
            13 => {
                let request: LeaveGroupRequest = received.decode();
                self.seen
                    .push(format!("leave {}", request.members[0].member_id));
                received.answer(&LeaveGroupResponse::default())
            }
            14 => self.sync(received),
            key => panic!("api {key}"),
        }
    }

    fn fetch(&mut self, received: &Received) -> Reply {
        let request: FetchRequest = received.decode();
        let mut has_any = false;
        let mut partitions = Vec::new();
        for asked in &request.topics[0].partitions {
            let end = self.end(asked.partition);
            let mut data = PartitionData {
                partition_index: asked.partition,
                high_watermark: end,
                records: Records::Bytes(Bytes::new()),
                aborted_transactions: None,
                ..Default::default()
            };
            let offset = asked.fetch_offset;
            if offset < self.log_start || offset > end {
                data.error_code = ErrorCode::OffsetOutOfRange;
                has_any = true;
            } else if let Some(log) = self.logs.get(&asked.partition)
                && let Some((base, _)) = log.range(..=offset).next_back()
            {
                let mut bytes = BytesMut::new();
                for batch in log.range(base..).map(|(_, batch)| batch) {
                    let limit = asked.partition_max_bytes as usize;
                    if bytes.is_empty() || bytes.len() + batch.len() <= limit {
                        bytes.extend_from_slice(batch);
                    }
                }
                if offset < end {
                    has_any = true;
                    data.records = Records::Bytes(bytes.freeze());
                }
            }
            partitions.push(data);
        }
        self.seen.push(format!("fetch {}", request.max_wait_ms));
        if !has_any && request.max_wait_ms > 0 {
            // A long poll that nobody ends: the test moves on by time.
            return Reply::Never;
        }
        received.answer(&FetchResponse {
            responses: vec![FetchableTopicResponse {
                topic: "t".into(),
                partitions,
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    fn list_offsets(&mut self, received: &Received) -> Reply {
        let request: ListOffsetsRequest = received.decode();
        let partitions = request.topics[0].partitions.iter().map(|asked| {
            let end = self.end(asked.partition_index);
            ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                offset: match asked.timestamp {
                    -2 => self.log_start,
                    -1 => end,
                    timestamp if timestamp < end => timestamp,
                    _ => -1,
                },
                ..Default::default()
            }
        });
        received.answer(&ListOffsetsResponse {
            topics: vec![ListOffsetsTopicResponse {
                name: "t".to_owned(),
                partitions: partitions.collect(),
            }],
            ..Default::default()
        })
    }

    fn commit(&mut self, received: &Received) -> Reply {
        let request: OffsetCommitRequest = received.decode();
        for partition in &request.topics[0].partitions {
            let (index, offset) = (partition.partition_index, partition.committed_offset);
            self.seen.push(format!(
                "commit {index}={offset} in {}",
                request.generation_id_or_member_epoch
            ));
            self.committed.insert(index, offset);
        }
        let partitions = request.topics[0].partitions.iter();
        received.answer(&OffsetCommitResponse {
            topics: vec![OffsetCommitResponseTopic {
                name: "t".to_owned(),
                partitions: partitions
                    .map(|partition| OffsetCommitResponsePartition {
                        partition_index: partition.partition_index,
                        error_code: self.commits,
                    })
                    .collect(),
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    fn committed(&mut self, received: &Received) -> Reply {
        let request: OffsetFetchRequest = received.decode();
        let topics = request.groups[0].topics.clone().unwrap();
        let indexes = topics[0].partition_indexes.iter();
        let partitions = indexes.map(|index| OffsetFetchResponsePartitions {
            partition_index: *index,
            committed_offset: self.committed.get(index).copied().unwrap_or(-1),
            ..Default::default()
        });
        received.answer(&OffsetFetchResponse {
            groups: vec![OffsetFetchResponseGroup {
                group_id: "g".to_owned(),
                topics: vec![OffsetFetchResponseTopics {
                    name: "t".to_owned(),
                    partitions: partitions.collect(),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    fn join(&mut self, received: &Received) -> Reply {
        let request: JoinGroupRequest = received.decode();
        self.seen.push(format!("join \"{}\"", request.member_id));
        self.subscription = decode_subscription(request.protocols[0].metadata.clone()).unwrap();
        if !self.joins.is_empty() {
            return received.answer(&JoinGroupResponse {
                error_code: self.joins.remove(0),
                member_id: "me".to_owned(),
                ..Default::default()
            });
        }
        self.generation += 1;
        let members = self.members.iter();
        let members = members.map(|(member_id, subscription)| JoinGroupResponseMember {
            member_id: member_id.clone(),
            metadata: encode_subscription(subscription),
            ..Default::default()
        });
        received.answer(&JoinGroupResponse {
            generation_id: self.generation,
            protocol_name: Some(request.protocols[0].name.clone()),
            leader: match self.members.is_empty() {
                true => "other".to_owned(),
                false => "me".to_owned(),
            },
            member_id: "me".to_owned(),
            members: members.collect(),
            ..Default::default()
        })
    }

    fn sync(&mut self, received: &Received) -> Reply {
        let request: SyncGroupRequest = received.decode();
        self.seen.push(format!("sync {}", request.generation_id));
        for assigned in &request.assignments {
            let partitions = decode_assignment(assigned.assignment.clone()).unwrap();
            let partitions = partitions.iter().map(|each| each.partition.to_string());
            let partitions: Vec<String> = partitions.collect();
            let text = format!("{} gets {}", assigned.member_id, partitions.join(" "));
            self.seen.push(text.trim_end().to_owned());
        }
        received.answer(&SyncGroupResponse {
            assignment: encode_assignment(&self.assignment),
            ..Default::default()
        })
    }

    /// Group requests since the last call, without repeats of heartbeats and fetches.
    fn take_seen(&mut self) -> Vec<String> {
        let mut seen = std::mem::take(&mut self.seen);
        seen.retain(|each| !each.starts_with("fetch"));
        seen.dedup();
        seen
    }
}

impl Builder {
    /// Number of records of an encoded batch.
    fn count_of(bytes: &[u8]) -> i32 {
        crate::batch::Header::parse(bytes).unwrap().record_count
    }
}

fn broker() -> (Script, Shared) {
    let broker = Shared::default();
    let shared = Rc::clone(&broker);
    let script = Script::single(move |received| shared.borrow_mut().handle(received));
    (script, broker)
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

async fn consumer(script: &Script, options: ConsumerOptions) -> Consumer<Script> {
    let client = Client::connect(script.clone(), "broker:1", ClientOptions::default());
    Consumer::new(&client.await.unwrap(), options)
        .await
        .unwrap()
}

fn reading(partitions: &[i32], start: Start) -> ConsumerOptions {
    let partitions = partitions.iter().map(|index| (tp(*index), start));
    ConsumerOptions::new(Subscription::Partitions(partitions.collect()))
}

fn in_group() -> ConsumerOptions {
    ConsumerOptions {
        group: Some("g".to_owned()),
        auto_offset_reset: AutoOffsetReset::Earliest,
        ..ConsumerOptions::new(Subscription::Topics(vec!["t".to_owned()]))
    }
}

/// Partition and offsets of the next event, which has to be of records.
async fn next_offsets(consumer: &Consumer<Script>) -> (i32, Vec<i64>) {
    match consumer.next().await.unwrap() {
        Event::Records {
            partition, records, ..
        } => {
            for record in &records {
                let value = record.offset.to_string();
                assert_eq!(record.value.as_deref(), Some(value.as_bytes()));
            }
            (
                partition,
                records.iter().map(|record| record.offset).collect(),
            )
        }
        event => panic!("{event:?}"),
    }
}

async fn expect_assigned(consumer: &Consumer<Script>, partitions: &[i32]) {
    let expected: Vec<_> = partitions.iter().map(|index| tp(*index)).collect();
    assert_eq!(consumer.next().await, Ok(Event::Assigned(expected)));
}

/// Nothing comes for a while.
async fn expect_silence(consumer: &Consumer<Script>) {
    let next = timeout(Duration::from_millis(400), consumer.next()).await;
    assert!(next.is_err(), "{next:?}");
}

#[test]
fn records_come_in_order_from_where_it_starts() {
    let check = |start: Start, expected: &'static [i64]| {
        run(async move {
            let (script, broker) = broker();
            broker.borrow_mut().append(0, 3);
            broker.borrow_mut().append(0, 3);
            let consumer = consumer(&script, reading(&[0], start)).await;
            expect_assigned(&consumer, &[0]).await;
            if expected.is_empty() {
                expect_silence(&consumer).await;
                assert_eq!(consumer.position(&tp(0)), Some(6));
                return;
            }
            // The batch that contains the offset comes whole; what is before it is left out.
            assert_eq!(next_offsets(&consumer).await, (0, expected.to_vec()));
            assert_eq!(consumer.position(&tp(0)), Some(6));
        });
    };
    check(Start::Earliest, &[0, 1, 2, 3, 4, 5]);
    check(Start::Offset(4), &[4, 5]);
    check(Start::Timestamp(2), &[2, 3, 4, 5]);
    check(Start::Timestamp(99), &[]);
    check(Start::Latest, &[]);
}

#[test]
fn an_event_is_bounded_and_partitions_take_turns() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().append(0, 4);
        broker.borrow_mut().append(1, 4);
        let mut options = reading(&[0, 1], Start::Earliest);
        options.records_max = 3;
        let consumer = consumer(&script, options).await;
        expect_assigned(&consumer, &[0, 1]).await;
        let mut events = Vec::new();
        for _ in 0..4 {
            events.push(next_offsets(&consumer).await);
        }
        assert_eq!(
            events,
            [
                (0, vec![0, 1, 2]),
                (1, vec![0, 1, 2]),
                (0, vec![3]),
                (1, vec![3])
            ]
        );
    });
}

#[test]
fn a_seek_discards_what_was_fetched() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().append(0, 5);
        let mut options = reading(&[0], Start::Earliest);
        options.records_max = 2;
        let consumer = consumer(&script, options).await;
        expect_assigned(&consumer, &[0]).await;
        assert_eq!(next_offsets(&consumer).await, (0, vec![0, 1]));
        consumer.seek(&tp(0), 4).unwrap();
        assert_eq!(next_offsets(&consumer).await, (0, vec![4]));
        consumer.seek(&tp(0), 0).unwrap();
        assert_eq!(next_offsets(&consumer).await, (0, vec![0, 1]));
        let error = consumer.seek(&tp(9), 0).unwrap_err();
        assert_eq!(error, ConsumerError::NotAssigned { partition: tp(9) });
    });
}

#[test]
fn a_seek_before_reading_starts_wins_over_the_committed_offset() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().append(0, 5);
        broker.borrow_mut().committed.insert(0, 1);
        let mut options = reading(&[0], Start::Committed);
        options.group = Some("g".to_owned());
        let first = consumer(&script, options.clone()).await;
        expect_assigned(&first, &[0]).await;
        assert_eq!(next_offsets(&first).await, (0, vec![1, 2, 3, 4]));
        let second = consumer(&script, options).await;
        expect_assigned(&second, &[0]).await;
        second.seek(&tp(0), 3).unwrap();
        assert_eq!(next_offsets(&second).await, (0, vec![3, 4]));
    });
}

#[test]
fn paused_partitions_wait_and_lose_nothing() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().append(0, 2);
        broker.borrow_mut().append(1, 2);
        let consumer = consumer(&script, reading(&[0, 1], Start::Earliest)).await;
        expect_assigned(&consumer, &[0, 1]).await;
        consumer.pause(&[tp(0)]);
        assert_eq!(next_offsets(&consumer).await, (1, vec![0, 1]));
        expect_silence(&consumer).await;
        consumer.resume(&[tp(0)]);
        assert_eq!(next_offsets(&consumer).await, (0, vec![0, 1]));
    });
}

#[test]
fn an_offset_outside_of_the_log_is_reset_or_reported() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().append(0, 2);
        broker.borrow_mut().append(0, 2);
        broker.borrow_mut().log_start = 2;
        let mut options = reading(&[0], Start::Offset(0));
        options.auto_offset_reset = AutoOffsetReset::Earliest;
        let first = consumer(&script, options.clone()).await;
        expect_assigned(&first, &[0]).await;
        assert_eq!(next_offsets(&first).await, (0, vec![2, 3]));
        options.auto_offset_reset = AutoOffsetReset::None;
        let second = consumer(&script, options).await;
        expect_assigned(&second, &[0]).await;
        let expected = ConsumerError::NoOffset { partition: tp(0) };
        assert_eq!(second.next().await, Err(expected));
        expect_silence(&second).await;
        second.seek(&tp(0), 3).unwrap();
        assert_eq!(next_offsets(&second).await, (0, vec![3]));
    });
}

#[test]
fn a_damaged_batch_is_reported_once_and_can_be_passed() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().append(0, 2);
        broker.borrow_mut().append(0, 2);
        {
            let mut broker = broker.borrow_mut();
            let log = broker.logs.get_mut(&0).unwrap();
            let mut bytes = log[&0].to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            log.insert(0, bytes.into());
        }
        let consumer = consumer(&script, reading(&[0], Start::Earliest)).await;
        expect_assigned(&consumer, &[0]).await;
        let error = consumer.next().await.unwrap_err();
        assert!(
            matches!(error, ConsumerError::Unreadable { offset: 0, .. }),
            "{error}"
        );
        expect_silence(&consumer).await;
        consumer.seek(&tp(0), 2).unwrap();
        assert_eq!(next_offsets(&consumer).await, (0, vec![2, 3]));
    });
}

#[test]
fn a_batch_that_is_not_asked_for_brings_nothing_and_no_storm() {
    run(async {
        let (script, shared) = broker();
        shared.borrow_mut().append(0, 2);
        let fetches = Rc::new(RefCell::new(0));
        let (counter, state) = (Rc::clone(&fetches), Rc::clone(&shared));
        // Always the first batch, whatever is asked.
        script.serve("broker:1", move |received| {
            if !received.is::<FetchRequest>() {
                return state.borrow_mut().handle(received);
            }
            *counter.borrow_mut() += 1;
            let data = PartitionData {
                high_watermark: 9,
                records: Records::Bytes(state.borrow().logs[&0][&0].clone()),
                ..Default::default()
            };
            received.answer(&FetchResponse {
                responses: vec![FetchableTopicResponse {
                    topic: "t".into(),
                    partitions: vec![data],
                    ..Default::default()
                }],
                ..Default::default()
            })
        });
        let consumer = consumer(&script, reading(&[0], Start::Offset(5))).await;
        expect_assigned(&consumer, &[0]).await;
        expect_silence(&consumer).await;
        assert!((2..=6).contains(&*fetches.borrow()), "{}", fetches.borrow());
    });
}

#[test]
fn a_full_partition_does_not_make_the_others_wait() {
    run(async {
        let (script, broker) = broker();
        for _ in 0..3 {
            broker.borrow_mut().append(0, 1);
        }
        let mut options = reading(&[0, 1], Start::Earliest);
        options.partition_fetch_bytes_max = 1;
        let consumer = consumer(&script, options).await;
        expect_assigned(&consumer, &[0, 1]).await;
        let started = Instant::now();
        for offset in 0..3 {
            assert_eq!(next_offsets(&consumer).await, (0, vec![offset]));
        }
        // A long poll for the empty partition would cost its half second each time.
        assert!(started.elapsed() < Duration::from_millis(500));
        let seen = broker.borrow().seen.clone();
        assert!(seen.contains(&"fetch 0".to_owned()), "{seen:?}");
    });
}

#[test]
fn a_member_joins_stays_and_leaves() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().append(1, 2);
        broker.borrow_mut().assignment = vec![tp(1), tp(2)];
        broker.borrow_mut().joins = vec![ErrorCode::MemberIdRequired];
        let consumer = consumer(&script, in_group()).await;
        expect_assigned(&consumer, &[1, 2]).await;
        assert_eq!(next_offsets(&consumer).await, (1, vec![0, 1]));
        assert_eq!(consumer.rebalances(), 1);
        consumer.commit(&[(tp(1), 2, None)]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        consumer.close().await.unwrap();
        // Heartbeats went on though nobody asked for events; nothing follows the leaving.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(
            broker.borrow_mut().take_seen(),
            [
                "join \"\"",
                "join \"me\"",
                "sync 1",
                "commit 1=2 in 1",
                "heartbeat 1",
                "leave me"
            ]
        );
    });
}

#[test]
fn a_static_member_does_not_leave() {
    run(async {
        let (script, broker) = broker();
        let mut options = in_group();
        options.instance_id = Some("i".to_owned());
        let consumer = consumer(&script, options).await;
        expect_assigned(&consumer, &[]).await;
        consumer.close().await.unwrap();
        assert_eq!(broker.borrow_mut().take_seen(), ["join \"\"", "sync 1"]);
    });
}

#[test]
fn partitions_are_given_away_only_when_the_user_is_done() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().append(0, 2);
        broker.borrow_mut().assignment = vec![tp(0)];
        let consumer = consumer(&script, in_group()).await;
        expect_assigned(&consumer, &[0]).await;
        assert_eq!(next_offsets(&consumer).await, (0, vec![0, 1]));
        broker.borrow_mut().take_seen();
        broker.borrow_mut().heartbeats = vec![ErrorCode::RebalanceInProgress; 5];
        broker.borrow_mut().assignment = vec![tp(2)];
        assert_eq!(consumer.next().await, Ok(Event::Revoked(vec![tp(0)])));
        // The user takes his time; heartbeats keep the place.
        tokio::time::sleep(Duration::from_secs(10)).await;
        consumer.commit(&[(tp(0), 2, None)]).await.unwrap();
        expect_assigned(&consumer, &[2]).await;
        assert_eq!(consumer.assignment(), [tp(2)]);
        assert_eq!(
            broker.borrow_mut().take_seen(),
            ["heartbeat 1", "commit 0=2 in 1", "join \"me\"", "sync 2"]
        );
        assert_eq!(consumer.rebalances(), 2);
    });
}

#[test]
fn a_member_that_is_out_joins_anew() {
    let check = |code: ErrorCode, joins: &'static str| {
        run(async move {
            let (script, broker) = broker();
            broker.borrow_mut().assignment = vec![tp(0)];
            let consumer = consumer(&script, in_group()).await;
            expect_assigned(&consumer, &[0]).await;
            broker.borrow_mut().take_seen();
            broker.borrow_mut().heartbeats = vec![code];
            assert_eq!(consumer.next().await, Ok(Event::Revoked(vec![tp(0)])));
            // An empty group would take it as that of a reader outside of it.
            let Err(ConsumerError::Client(error)) = consumer.commit(&[(tp(0), 2, None)]).await
            else {
                panic!("who is not in the group cannot commit as a member");
            };
            assert_eq!(error.code(), Some(ErrorCode::UnknownMemberId));
            expect_assigned(&consumer, &[0]).await;
            assert_eq!(
                broker.borrow_mut().take_seen(),
                ["heartbeat 1", joins, "sync 2"]
            );
        });
    };
    check(ErrorCode::UnknownMemberId, "join \"\"");
    check(ErrorCode::IllegalGeneration, "join \"me\"");
}

#[test]
fn a_coordinator_that_moves_costs_no_partitions() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().assignment = vec![tp(0)];
        let consumer = consumer(&script, in_group()).await;
        expect_assigned(&consumer, &[0]).await;
        broker.borrow_mut().take_seen();
        broker.borrow_mut().heartbeats = vec![
            ErrorCode::NotCoordinator,
            ErrorCode::CoordinatorLoadInProgress,
            ErrorCode::None,
        ];
        let next = timeout(Duration::from_secs(30), consumer.next()).await;
        assert!(next.is_err(), "{next:?}");
        assert_eq!(broker.borrow_mut().take_seen(), ["heartbeat 1"]);
    });
}

#[test]
fn a_session_without_answers_ends() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().assignment = vec![tp(0)];
        let consumer = consumer(&script, in_group()).await;
        expect_assigned(&consumer, &[0]).await;
        let started = Instant::now();
        broker.borrow_mut().heartbeats = vec![ErrorCode::NotCoordinator; 100];
        assert_eq!(consumer.next().await, Ok(Event::Revoked(vec![tp(0)])));
        assert!((45..60).contains(&started.elapsed().as_secs()));
    });
}

#[test]
fn a_group_that_refuses_is_reported_once() {
    run(async {
        let (script, broker) = broker();
        let refused = ErrorCode::InconsistentGroupProtocol;
        broker.borrow_mut().joins = vec![ErrorCode::MemberIdRequired, refused];
        let consumer = consumer(&script, in_group()).await;
        let expected = ConsumerError::Group {
            group: "g".to_owned(),
            code: ErrorCode::InconsistentGroupProtocol,
        };
        assert_eq!(consumer.next().await, Err(expected));
        expect_silence(&consumer).await;
        assert_eq!(
            broker.borrow_mut().take_seen(),
            ["join \"\"", "join \"me\"", "leave me"]
        );
    });
}

#[test]
fn a_commit_stays_in_the_generation_it_began_in() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().assignment = vec![tp(0)];
        let consumer = consumer(&script, in_group()).await;
        expect_assigned(&consumer, &[0]).await;
        broker.borrow_mut().commits = ErrorCode::NotCoordinator;
        broker.borrow_mut().heartbeats = vec![ErrorCode::RebalanceInProgress];
        let rebalance = async {
            assert_eq!(consumer.next().await, Ok(Event::Revoked(vec![tp(0)])));
            expect_assigned(&consumer, &[0]).await;
        };
        let offsets = [(tp(0), 1, None)];
        let (committed, ()) = tokio::join!(consumer.commit(&offsets), rebalance);
        assert!(committed.is_err());
        let mut seen = broker.borrow_mut().take_seen();
        let synced = seen.iter().position(|each| each == "sync 2").unwrap();
        let mut later = seen.split_off(synced);
        later.retain(|each| each.starts_with("commit"));
        later.dedup();
        assert_eq!(later, ["commit 0=1 in 1"]);
    });
}

#[test]
fn a_member_leaves_though_its_last_commit_fails() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().append(0, 2);
        broker.borrow_mut().assignment = vec![tp(0)];
        let mut options = in_group();
        options.auto_commit = Some(Duration::from_secs(3600));
        let consumer = consumer(&script, options).await;
        expect_assigned(&consumer, &[0]).await;
        assert_eq!(next_offsets(&consumer).await, (0, vec![0, 1]));
        broker.borrow_mut().commits = ErrorCode::OffsetMetadataTooLarge;
        let closed = consumer.close().await;
        let Err(ConsumerError::Client(error)) = closed else {
            panic!("{closed:?}");
        };
        assert_eq!(error.code(), Some(ErrorCode::OffsetMetadataTooLarge));
        let seen = broker.borrow_mut().take_seen();
        assert_eq!(seen.last().map(String::as_str), Some("leave me"));
    });
}

#[test]
fn the_leader_divides_for_all() {
    run(async {
        let (script, broker) = broker();
        let subscription = MemberSubscription {
            topics: vec!["t".to_owned()],
            ..Default::default()
        };
        let members = ["me", "you"].map(|member| (member.to_owned(), subscription.clone()));
        broker.borrow_mut().members = members.to_vec();
        broker.borrow_mut().assignment = vec![tp(0), tp(1)];
        let consumer = consumer(&script, in_group()).await;
        expect_assigned(&consumer, &[0, 1]).await;
        assert_eq!(
            broker.borrow_mut().take_seen(),
            ["join \"\"", "sync 1", "me gets 0 1", "you gets 2"]
        );
    });
}

#[test]
fn a_cooperative_member_keeps_what_it_can_and_rejoins() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().assignment = vec![tp(0), tp(1)];
        let mut options = in_group();
        options.assignor = Assignor::CooperativeSticky;
        let consumer = consumer(&script, options).await;
        expect_assigned(&consumer, &[0, 1]).await;
        broker.borrow_mut().take_seen();
        broker.borrow_mut().heartbeats = vec![ErrorCode::RebalanceInProgress];
        broker.borrow_mut().assignment = vec![tp(1)];
        // It keeps both during the rebalance and gives up one after it.
        assert_eq!(consumer.next().await, Ok(Event::Revoked(vec![tp(0)])));
        assert_eq!(broker.borrow().subscription.owned, [tp(0), tp(1)]);
        expect_assigned(&consumer, &[]).await;
        assert_eq!(consumer.assignment(), [tp(1)]);
        assert_eq!(broker.borrow().subscription.owned, [tp(1)]);
        assert_eq!(
            broker.borrow_mut().take_seen(),
            [
                "heartbeat 1",
                "join \"me\"",
                "sync 2",
                "join \"me\"",
                "sync 3"
            ]
        );
        broker.borrow_mut().append(1, 1);
        assert_eq!(next_offsets(&consumer).await, (1, vec![0]));
    });
}

#[test]
fn automatic_commits_store_what_was_worked_on() {
    run(async {
        let (script, broker) = broker();
        broker.borrow_mut().append(0, 2);
        broker.borrow_mut().assignment = vec![tp(0)];
        let mut options = in_group();
        options.auto_commit = Some(Duration::from_secs(5));
        let consumer = consumer(&script, options).await;
        expect_assigned(&consumer, &[0]).await;
        assert_eq!(next_offsets(&consumer).await, (0, vec![0, 1]));
        // The records are still being worked on.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_ne!(broker.borrow().committed.get(&0), Some(&2));
        expect_silence(&consumer).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(broker.borrow().committed.get(&0), Some(&2));
    });
}

#[test]
fn settings_that_cannot_work_are_refused() {
    run(async {
        let (script, _) = broker();
        let client = Client::connect(script, "broker:1", ClientOptions::default());
        let client = client.await.unwrap();
        let mut options = in_group();
        options.heartbeat_interval = options.session_timeout;
        let made = Consumer::new(&client, options).await;
        assert!(matches!(made.err(), Some(ConsumerError::Options(_))));
        let reader = Consumer::new(&client, reading(&[0], Start::Earliest))
            .await
            .unwrap();
        let error = reader.commit(&[(tp(0), 1, None)]).await.unwrap_err();
        assert!(error.to_string().contains("name one"), "{error}");
    });
}
