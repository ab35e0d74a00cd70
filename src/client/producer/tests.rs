//! The producer against a broker in memory that keeps logs and producer state as Kafka does, and
//! fails in every way a broker can.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Acks, Delivery, ProduceError, Producer, ProducerOptions, ProducerRecord};
use crate::base::prng::Prng;
use crate::base::{ErrorCode, Few};
use crate::batch::{Header, batches, records};
use crate::client::producer::partition_of_key;
use crate::client::scripted::{Received, Reply, Script, answer_basics, run};
use crate::client::{Client, ClientOptions};
use crate::wire::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::wire::messages::metadata::{MetadataRequest, MetadataResponse, MetadataResponseTopic};
use crate::wire::messages::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};

const PARTITIONS: i32 = 2;
const HOUR: Duration = Duration::from_secs(3600);

/// One partition of a broker.
#[derive(Default)]
struct Log {
    values: Vec<Bytes>,
    epoch: Option<i16>,
    next_sequence: i32,
    /// First and last sequence with base offset of the last five batches.
    recent: VecDeque<(i32, i32, i64)>,
}

impl Log {
    /// Kafka's `ProducerAppendInfo` and `ProducerStateEntry`, for one producer.
    fn append(&mut self, header: &Header, values: Vec<Bytes>) -> Result<i64, ErrorCode> {
        let (epoch, first) = (header.producer_epoch, header.base_sequence);
        let last = header.last_sequence();
        if header.has_producer_id() {
            if self.epoch == Some(epoch) {
                let mut recent = self.recent.iter();
                if let Some(known) = recent.find(|known| (known.0, known.1) == (first, last)) {
                    return Ok(known.2);
                }
            }
            match self.epoch {
                // A broker that knows no producer takes any sequence.
                None => {}
                Some(known) if epoch > known && first == 0 => self.recent.clear(),
                Some(known) if epoch < known => return Err(ErrorCode::InvalidProducerEpoch),
                Some(known) if epoch == known && first == self.next_sequence => {}
                Some(_) => return Err(ErrorCode::OutOfOrderSequenceNumber),
            }
            self.epoch = Some(epoch);
            self.next_sequence = last + 1;
        }
        let base_offset = self.values.len() as i64;
        self.values.extend(values);
        self.recent.push_back((first, last, base_offset));
        if self.recent.len() > 5 {
            self.recent.pop_front();
        }
        Ok(base_offset)
    }
}

/// What goes wrong with a request, before or after the append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    CloseBefore,
    CloseAfter,
    SilentAfter,
    Refuse(ErrorCode),
    TimedOutAfter,
}

#[derive(Default)]
struct State {
    logs: BTreeMap<(String, i32), Log>,
    /// Requests that came, with their number of partitions.
    requests: Vec<usize>,
}

type Shared = Rc<RefCell<State>>;

/// A broker whose produce requests suffer what `fault` says. Values that begin with "bad" are
/// refused for good.
fn broker(mut fault: impl FnMut() -> Fault + 'static) -> (Script, Shared) {
    let state = Shared::default();
    let shared = Rc::clone(&state);
    let script = Script::single(move |received| {
        if let Some(reply) = answer_basics(received, PARTITIONS) {
            return reply;
        }
        if received.is::<InitProducerIdRequest>() {
            return received.answer(&InitProducerIdResponse {
                producer_id: 7,
                producer_epoch: 0,
                ..Default::default()
            });
        }
        produce(received, &mut shared.borrow_mut(), fault())
    });
    (script, state)
}

fn produce(received: &Received, state: &mut State, fault: Fault) -> Reply {
    let request: ProduceRequest = received.decode();
    let counts = request
        .topic_data
        .iter()
        .map(|topic| topic.partition_data.len());
    state.requests.push(counts.sum());
    if fault == Fault::CloseBefore {
        return Reply::Close;
    }
    let mut responses = Few::new();
    for topic in &request.topic_data {
        let mut partition_responses = Few::new();
        for partition in &topic.partition_data {
            let bytes = partition.records.clone().unwrap();
            let (header, body) = batches(bytes).next().unwrap().unwrap();
            header.check_crc(&body).unwrap();
            let all = records(&header, &body, usize::MAX).unwrap();
            let values: Vec<Bytes> = all.map(|each| each.unwrap().value.unwrap()).collect();
            let log = state.logs.entry((topic.name.to_string(), partition.index));
            let result = match fault {
                Fault::Refuse(code) => Err(code),
                _ if values.iter().any(|value| value.starts_with(b"bad")) => {
                    Err(ErrorCode::MessageTooLarge)
                }
                _ => log.or_default().append(&header, values),
            };
            let result = match fault {
                Fault::TimedOutAfter => result.and(Err(ErrorCode::RequestTimedOut)),
                _ => result,
            };
            partition_responses.push(PartitionProduceResponse {
                index: partition.index,
                error_code: result.err().unwrap_or_default(),
                base_offset: result.unwrap_or(-1),
                ..Default::default()
            });
        }
        responses.push(TopicProduceResponse {
            name: topic.name.clone(),
            partition_responses,
            ..Default::default()
        });
    }
    match fault {
        Fault::CloseAfter => Reply::Close,
        Fault::SilentAfter => Reply::Never,
        _ => received.answer(&ProduceResponse {
            responses,
            ..Default::default()
        }),
    }
}

async fn producer(script: &Script, options: ProducerOptions) -> Producer<Script> {
    let client = Client::connect(script.clone(), "broker:1", ClientOptions::default());
    Producer::new(&client.await.unwrap(), options)
        .await
        .unwrap()
}

fn record(value: &str) -> ProducerRecord {
    ProducerRecord {
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..Default::default()
    }
}

fn keyed(key: &str, value: &str) -> ProducerRecord {
    ProducerRecord {
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        ..record(value)
    }
}

fn values(state: &Shared, partition: i32) -> Vec<String> {
    let state = state.borrow();
    let log = state.logs.get(&("t".to_owned(), partition));
    let values = log.map(|log| log.values.clone()).unwrap_or_default();
    let values = values.iter();
    values
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
        .collect()
}

/// Sends records in bursts through a broker with faults; every record that is not bad has to be in
/// its log once, in order, at the offset that the producer was told.
fn check_faults(seed: u64, bad_percent: u64) {
    run(async move {
        let mut prng = Prng::new(seed);
        let faults = Rc::new(RefCell::new(Prng::new(seed ^ 0x5eed)));
        let is_over = Rc::new(Cell::new(false));
        let (dice, over) = (Rc::clone(&faults), Rc::clone(&is_over));
        let (script, state) = broker(move || match dice.borrow_mut().below(14) {
            _ if over.get() => Fault::None,
            0 => Fault::CloseBefore,
            1 => Fault::CloseAfter,
            2 => Fault::SilentAfter,
            3 => Fault::Refuse(ErrorCode::NotLeaderOrFollower),
            4 => Fault::Refuse(ErrorCode::NotEnoughReplicas),
            5 => Fault::TimedOutAfter,
            _ => Fault::None,
        });
        let options = ProducerOptions {
            linger: Duration::from_millis(prng.below(3)),
            batch_bytes_max: 120,
            delivery_timeout: 24 * HOUR,
            ..Default::default()
        };
        let producer = producer(&script, options).await;
        let mut sent: BTreeMap<i32, Vec<(String, _)>> = BTreeMap::new();
        for number in 0..120 {
            let is_bad = prng.percent(bad_percent);
            let value = format!("{}{number}", if is_bad { "bad" } else { "good" });
            let partition = prng.below(PARTITIONS as u64) as i32;
            let outcome = producer.send("t", Some(partition), record(&value));
            sent.entry(partition).or_default().push((value, outcome));
            if prng.percent(20) {
                tokio::time::sleep(Duration::from_millis(prng.below(200))).await;
            }
        }
        producer.flush().await;
        is_over.set(true);
        for (partition, outcomes) in sent {
            let mut expected = Vec::new();
            for (value, outcome) in outcomes {
                match outcome.await {
                    Ok(delivery) => {
                        assert_eq!(delivery.offset, expected.len() as i64, "seed {seed}");
                        expected.push(value);
                    }
                    Err(error) => {
                        assert!(bad_percent > 0, "seed {seed}: {error}");
                        assert!(matches!(error, ProduceError::Refused { .. }), "{error}");
                    }
                }
            }
            assert!(!expected.is_empty());
            assert_eq!(values(&state, partition), expected, "seed {seed}");
        }
    });
}

#[test]
fn faults_neither_lose_nor_double_nor_reorder() {
    (0..150).for_each(|seed| check_faults(seed, 0));
}

#[test]
fn a_refused_batch_fails_alone_and_leaves_no_gap() {
    (0..150).for_each(|seed| check_faults(seed, 3));
}

#[test]
fn what_is_refused_after_it_got_no_answer_may_be_stored() {
    let check = |faults: &'static [Fault], expected: bool| {
        run(async move {
            let mut faults = faults.iter().copied();
            let (script, _) = broker(move || faults.next().unwrap_or(Fault::None));
            let producer = producer(&script, ProducerOptions::default()).await;
            let refused = producer.send("t", Some(0), record("good")).await;
            let Err(ProduceError::Refused { may_be_stored, .. }) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(may_be_stored, expected);
        });
    };
    check(&[Fault::Refuse(ErrorCode::TopicAuthorizationFailed)], false);
    check(
        &[
            Fault::CloseAfter,
            Fault::Refuse(ErrorCode::TopicAuthorizationFailed),
        ],
        true,
    );
}

#[test]
fn keys_decide_and_keyless_records_share_batches() {
    run(async {
        let (script, state) = broker(|| Fault::None);
        let options = ProducerOptions {
            batch_bytes_max: 130,
            ..Default::default()
        };
        let producer = producer(&script, options).await;
        let keys = ["a", "b", "c", "d"];
        let outcomes: Vec<_> = keys
            .iter()
            .map(|key| producer.send("t", None, keyed(key, key)))
            .collect();
        for (key, outcome) in keys.iter().zip(outcomes) {
            let partition = outcome.await.unwrap().partition;
            assert_eq!(partition, partition_of_key(key.as_bytes(), PARTITIONS));
        }
        let outcomes: Vec<_> = (0..8)
            .map(|_| producer.send("t", None, record("1234567890")))
            .collect();
        let mut partitions = Vec::new();
        for outcome in outcomes {
            partitions.push(outcome.await.unwrap().partition);
        }
        // Two fit a batch; then it is the other partition's turn.
        let first = partitions[0];
        let second = 1 - first;
        assert_eq!(
            partitions,
            [first, first, second, second, first, first, second, second]
        );
        drop(state);
    });
}

#[test]
fn records_linger_and_a_flush_ends_that() {
    run(async {
        let (script, state) = broker(|| Fault::None);
        let options = ProducerOptions {
            linger: Duration::from_secs(10),
            ..Default::default()
        };
        let producer = producer(&script, options).await;
        let started = Instant::now();
        let one = producer.send("t", Some(0), record("1"));
        tokio::time::sleep(Duration::from_secs(4)).await;
        let two = producer.send("t", Some(0), record("2"));
        one.await.unwrap();
        two.await.unwrap();
        assert!(started.elapsed() >= Duration::from_secs(10));
        assert!(started.elapsed() < Duration::from_secs(11));
        assert_eq!(state.borrow().requests, [1]);
        let three = producer.send("t", Some(1), record("3"));
        producer.flush().await;
        assert!(started.elapsed() < Duration::from_secs(11));
        assert_eq!(three.await.unwrap().offset, 0);
    });
}

#[test]
fn a_full_buffer_refuses_and_tells_when_there_is_room() {
    run(async {
        let (script, _) = broker(|| Fault::None);
        let size = record("x").size_bytes();
        let options = ProducerOptions {
            buffer_bytes_max: 2 * size,
            linger: Duration::from_secs(1),
            ..Default::default()
        };
        let producer = producer(&script, options).await;
        let kept = [0, 1].map(|_| producer.send("t", Some(0), record("x")));
        let refused = producer.send("t", Some(0), record("x")).await;
        let expected = ProduceError::BufferFull {
            bytes_max: 2 * size,
        };
        assert_eq!(refused, Err(expected));
        producer.ready(size).await;
        let third = producer.send("t", Some(0), record("x"));
        assert_eq!(third.await.unwrap().offset, 2);
        for outcome in kept {
            outcome.await.unwrap();
        }
        let large = record(&"x".repeat(2 << 20));
        let refused = producer.send("t", Some(0), large).await;
        assert!(matches!(refused, Err(ProduceError::TooLarge { .. })));
    });
}

#[test]
fn a_topic_that_never_comes_times_out() {
    run(async {
        let script = Script::single(|received| {
            if !received.is::<MetadataRequest>() {
                return answer_basics(received, 1)
                    .unwrap_or_else(|| received.answer(&InitProducerIdResponse::default()));
            }
            let Reply::Answer(_) = answer_basics(received, 1).unwrap() else {
                unreachable!();
            };
            let topics = received.decode::<MetadataRequest>().topics;
            let topics = topics.unwrap_or_default().into_iter();
            received.answer(&MetadataResponse {
                topics: topics
                    .map(|topic| MetadataResponseTopic {
                        name: topic.name,
                        error_code: ErrorCode::UnknownTopicOrPartition,
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            })
        });
        let producer = producer(&script, ProducerOptions::default()).await;
        let started = Instant::now();
        let error = producer.send("t", None, record("x")).await.unwrap_err();
        assert!(matches!(error, ProduceError::TimedOut { .. }), "{error}");
        assert_eq!(started.elapsed().as_secs(), 120);
    });
}

#[test]
fn a_broker_that_stays_silent_times_out() {
    run(async {
        let (script, _) = broker(|| Fault::SilentAfter);
        let producer = producer(&script, ProducerOptions::default()).await;
        let started = Instant::now();
        let error = producer.send("t", Some(0), record("x")).await.unwrap_err();
        assert!(matches!(error, ProduceError::TimedOut { .. }), "{error}");
        // The delivery timeout and that of one request.
        assert!((120..=151).contains(&started.elapsed().as_secs()));
    });
}

#[test]
fn a_partition_that_is_not_there_is_refused() {
    run(async {
        let (script, _) = broker(|| Fault::None);
        let producer = producer(&script, ProducerOptions::default()).await;
        let error = producer.send("t", Some(2), record("x")).await.unwrap_err();
        assert!(error.to_string().contains("has 2 partitions"), "{error}");
        producer.send("t", Some(1), record("x")).await.unwrap();
    });
}

#[test]
fn a_lost_sequence_ends_an_idempotent_producer() {
    run(async {
        let count = Cell::new(0);
        let (script, _) = broker(move || {
            count.set(count.get() + 1);
            match count.get() {
                2 => Fault::Refuse(ErrorCode::OutOfOrderSequenceNumber),
                _ => Fault::None,
            }
        });
        let producer = producer(&script, ProducerOptions::default()).await;
        producer.send("t", Some(0), record("1")).await.unwrap();
        let two = producer.send("t", Some(0), record("2"));
        let other = producer.send("t", Some(1), record("3"));
        for outcome in [
            two.await,
            other.await,
            producer.send("t", None, record("4")).await,
        ] {
            assert!(
                matches!(outcome, Err(ProduceError::Fatal { .. })),
                "{outcome:?}"
            );
        }
    });
}

#[test]
fn in_flight_is_bounded_and_one_until_the_broker_knows_the_producer() {
    run(async {
        let answered = Rc::new(Cell::new(0));
        let limit = Rc::clone(&answered);
        let (script, state) = broker(move || match limit.get() {
            0 => Fault::SilentAfter,
            left => {
                limit.set(left - 1);
                Fault::None
            }
        });
        let options = ProducerOptions {
            linger: Duration::ZERO,
            batch_bytes_max: 1,
            ..Default::default()
        };
        let producer = producer(&script, options.clone()).await;
        let _outcomes: Vec<_> = (0..20)
            .map(|_| producer.send("t", Some(0), record("x")))
            .collect();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(state.borrow().requests.len(), 1);
        answered.set(1);
        // The silent one breaks the connection after 30 s, is sent again and answered.
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(state.borrow().requests.len(), 1 + 1 + 5);
    });
}

#[test]
fn without_acks_nothing_is_waited_for() {
    run(async {
        let (script, state) = broker(|| Fault::SilentAfter);
        let options = ProducerOptions {
            acks: Acks::None,
            idempotent: false,
            ..Default::default()
        };
        let producer = producer(&script, options).await;
        let delivery = producer.send("t", Some(0), record("x")).await.unwrap();
        assert_eq!(
            delivery,
            Delivery {
                partition: 0,
                offset: -1,
                timestamp: delivery.timestamp
            }
        );
        producer.flush().await;
        tokio::task::yield_now().await;
        assert_eq!(values(&state, 0), ["x"]);
    });
}

#[test]
fn settings_that_break_idempotence_are_refused() {
    run(async {
        let (script, _) = broker(|| Fault::None);
        let client = Client::connect(script, "broker:1", ClientOptions::default());
        let client = client.await.unwrap();
        let bad = [
            ProducerOptions {
                acks: Acks::Leader,
                ..Default::default()
            },
            ProducerOptions {
                in_flight_max: 6,
                ..Default::default()
            },
            ProducerOptions {
                in_flight_max: 0,
                idempotent: false,
                ..Default::default()
            },
        ];
        for options in bad {
            let made = Producer::new(&client, options).await;
            assert!(matches!(made.err(), Some(ProduceError::Options(_))));
        }
    });
}
