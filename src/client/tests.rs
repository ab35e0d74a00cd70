//! Connections and routing against scripted brokers.

use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::scripted::{Received, Reply, Script, answer_basics, api_versions, run};
use super::{Client, ClientError, ClientOptions, Node};
use crate::base::ErrorCode;
use crate::wire::Request;
use crate::wire::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::wire::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use crate::wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::wire::messages::metadata::MetadataRequest;

type Connected = Result<Client<Script>, ClientError>;

async fn connect(script: &Script) -> Connected {
    Client::connect(script.clone(), "broker:1", ClientOptions::default()).await
}

/// A broker that answers the basics, and everything else by `handler`.
fn broker(mut handler: impl FnMut(&Received) -> Reply + 'static) -> Script {
    Script::single(move |received| answer_basics(received, 1).unwrap_or_else(|| handler(received)))
}

/// Asks node 1 for something harmless.
async fn ask(client: &Client<Script>) -> Result<HeartbeatResponse, ClientError> {
    client.send(Node::Id(1), HeartbeatRequest::default()).await
}

#[test]
fn an_old_broker_is_asked_again_in_a_version_it_knows() {
    run(async {
        let asked = Rc::new(RefCell::new(Vec::new()));
        let versions = Rc::clone(&asked);
        let script = Script::single(move |received| {
            if !received.is::<ApiVersionsRequest>() {
                return answer_basics(received, 1).unwrap();
            }
            let version = received.header.api_version;
            versions.borrow_mut().push(version);
            if version <= 2 {
                return received.answer(&api_versions(&[(18, 0..=2)]));
            }
            // KIP-511: version 0 whatever was asked, with the range that is known.
            let mut bytes = vec![0, 0, 0, 16];
            bytes.extend(received.header.correlation_id.to_be_bytes());
            bytes.extend([0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2]);
            Reply::Answer(bytes.into())
        });
        connect(&script).await.unwrap();
        assert_eq!(*asked.borrow(), [4, 2]);
    });
}

#[test]
fn a_broker_that_refuses_to_tell_its_versions_is_reported() {
    run(async {
        let script = Script::single(|received| {
            received.answer(&ApiVersionsResponse {
                error_code: ErrorCode::InvalidRequest,
                ..Default::default()
            })
        });
        let error = connect(&script).await.err().unwrap();
        assert_eq!(error.code(), Some(ErrorCode::InvalidRequest));
    });
}

#[test]
fn the_highest_common_version_is_used_and_none_is_an_error() {
    let check = |theirs: RangeInclusive<i16>, expected: Option<i16>| {
        run(async move {
            let used = Rc::new(Cell::new(None));
            let seen = Rc::clone(&used);
            let script = Script::single(move |received| {
                if received.is::<ApiVersionsRequest>() {
                    let key = HeartbeatRequest::KEY;
                    return received.answer(&api_versions(&[(key, theirs.clone())]));
                }
                answer_basics(received, 1).unwrap_or_else(|| {
                    seen.set(Some(received.header.api_version));
                    received.answer(&HeartbeatResponse::default())
                })
            });
            let client = connect(&script).await.unwrap();
            let result = ask(&client).await;
            assert_eq!(used.get(), expected);
            let is_unsupported = matches!(result, Err(ClientError::Unsupported { .. }));
            assert_eq!(is_unsupported, expected.is_none());
        });
    };
    check(0..=4, Some(4));
    check(0..=99, Some(4));
    check(0..=1, Some(1));
    check(5..=9, None);
}

#[test]
fn requests_do_not_wait_for_earlier_answers() {
    run(async {
        let held = Rc::new(RefCell::new(Vec::new()));
        let waiting = Rc::clone(&held);
        let script = broker(move |received| {
            let Reply::Answer(bytes) = received.answer(&HeartbeatResponse::default()) else {
                unreachable!();
            };
            waiting.borrow_mut().push(bytes);
            match waiting.borrow().len() {
                // All three were written before the first is answered.
                3 => Reply::Answer(waiting.borrow().concat().into()),
                _ => Reply::Never,
            }
        });
        let client = connect(&script).await.unwrap();
        let (one, two, three) = tokio::join!(ask(&client), ask(&client), ask(&client));
        assert!(one.is_ok() && two.is_ok() && three.is_ok());
    });
}

#[test]
fn surprises_break_the_connection_and_the_next_request_gets_a_new_one() {
    let check = |surprise: fn(&Received) -> Reply, expected: &'static str| {
        run(async move {
            let count = Rc::new(Cell::new(0));
            let counter = Rc::clone(&count);
            let script = broker(move |received| {
                counter.set(counter.get() + 1);
                match counter.get() {
                    1 => surprise(received),
                    _ => received.answer(&HeartbeatResponse::default()),
                }
            });
            let client = connect(&script).await.unwrap();
            let text = ask(&client).await.unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
            assert!(
                text.contains("broker:1") && text.contains("Heartbeat"),
                "{text}"
            );
            ask(&client).await.unwrap();
            assert_eq!(count.get(), 2);
        });
    };
    check(|_| Reply::Close, "closed the connection");
    check(|_| Reply::Never, "within 30s");
    // Another correlation id.
    let stray = |_: &Received| Reply::Answer(Bytes::from_static(b"\0\0\0\x05\x7f\0\0\0\0"));
    check(stray, "another request");
    // The right one, and then too little.
    let short = |received: &Received| {
        let mut bytes = vec![0, 0, 0, 5];
        bytes.extend(received.header.correlation_id.to_be_bytes());
        bytes.push(0);
        Reply::Answer(bytes.into())
    };
    check(short, "cannot be read: cut off");
    let huge = |_: &Received| Reply::Answer(Bytes::from_static(b"\x7f\xff\xff\xff"));
    check(huge, "frame size out of range");
    let negative = |_: &Received| Reply::Answer(Bytes::from_static(b"\xff\xff\xff\xff"));
    check(negative, "frame size out of range");
}

#[test]
fn an_unasked_answer_breaks_the_connection() {
    run(async {
        let opened = Rc::new(Cell::new(0));
        let counter = Rc::clone(&opened);
        let script = Script::single(move |received| {
            let is_first = received.is::<ApiVersionsRequest>();
            counter.set(counter.get() + i32::from(is_first));
            answer_basics(received, 1).unwrap_or_else(|| {
                let Reply::Answer(bytes) = received.answer(&HeartbeatResponse::default()) else {
                    unreachable!();
                };
                Reply::Answer([&bytes[..], &bytes[..]].concat().into())
            })
        });
        let client = connect(&script).await.unwrap();
        ask(&client).await.unwrap();
        assert_eq!(opened.get(), 1);
        ask(&client).await.unwrap();
        assert_eq!(opened.get(), 2);
    });
}

#[test]
fn every_bootstrap_address_is_tried_and_named() {
    run(async {
        let script = Script::default();
        let bootstrap = "first:1, second:2";
        let options = ClientOptions::default;
        let connected = Client::connect(script.clone(), bootstrap, options()).await;
        let text = connected.err().unwrap().to_string();
        assert!(
            text.contains("first:1 (") && text.contains("second:2 ("),
            "{text}"
        );
        script.serve("second:2", |received| answer_basics(received, 1).unwrap());
        Client::connect(script, bootstrap, options()).await.unwrap();
    });
}

#[test]
fn bootstrap_text_is_checked() {
    for text in [
        "",
        "host",
        "host:",
        ":9092",
        "host:0",
        "host:port",
        "a:1,,b:2",
        "a:70000",
    ] {
        run(async move {
            let connected =
                Client::connect(Script::default(), text, ClientOptions::default()).await;
            let expected = ClientError::Bootstrap {
                given: text.to_owned(),
            };
            assert_eq!(connected.err(), Some(expected));
        });
    }
}

#[test]
fn the_coordinator_is_looked_up_once_until_it_is_forgotten() {
    let check = |version_max: i16| {
        run(async move {
            let lookups = Rc::new(Cell::new(0));
            let counter = Rc::clone(&lookups);
            let script = Script::single(move |received| {
                if received.is::<ApiVersionsRequest>() {
                    return received.answer(&api_versions(&[(10, 0..=version_max)]));
                }
                if received.is::<FindCoordinatorRequest>() {
                    counter.set(counter.get() + 1);
                    return received.answer(&FindCoordinatorResponse {
                        node_id: 1,
                        host: "broker".to_owned(),
                        port: 1,
                        coordinators: vec![Coordinator {
                            key: "g".to_owned(),
                            node_id: 1,
                            host: "broker".to_owned(),
                            port: 1,
                            ..Default::default()
                        }],
                        ..Default::default()
                    });
                }
                answer_basics(received, 1)
                    .unwrap_or_else(|| received.answer(&HeartbeatResponse::default()))
            });
            let client = connect(&script).await.unwrap();
            let node = Node::Coordinator("g".to_owned());
            for _ in 0..3 {
                let request = HeartbeatRequest::default();
                client.send(node.clone(), request).await.unwrap();
            }
            assert_eq!(lookups.get(), 1);
            client.forget_coordinator("g");
            let request = HeartbeatRequest::default();
            client.send(node, request).await.unwrap();
            assert_eq!(lookups.get(), 2);
        });
    };
    check(3);
    check(6);
}

#[test]
fn metadata_is_cached_until_it_is_old() {
    run(async {
        let lookups = Rc::new(Cell::new(0));
        let counter = Rc::clone(&lookups);
        let script = Script::single(move |received| {
            let is_lookup = received.is::<MetadataRequest>();
            counter.set(counter.get() + i32::from(is_lookup));
            answer_basics(received, 2).unwrap()
        });
        let client = connect(&script).await.unwrap();
        let topics = ["t".to_owned()];
        let found = client.metadata(&topics).await.unwrap();
        assert_eq!(found[0].partitions.len(), 2);
        client.metadata(&topics).await.unwrap();
        assert_eq!(lookups.get(), 2);
        tokio::time::sleep(client.options().metadata_age_max).await;
        client.metadata(&topics).await.unwrap();
        assert_eq!(lookups.get(), 3);
    });
}

#[test]
fn what_can_pass_is_repeated_and_what_cannot_is_not() {
    let check = |code: ErrorCode, attempts_min: u32, attempts_max: u32| {
        run(async move {
            let script = broker(|_| Reply::Never);
            let client = connect(&script).await.unwrap();
            let mut attempts = 0;
            let result: Result<(), _> = client
                .retry(async || {
                    attempts += 1;
                    super::error::check("X", String::new, code, None)
                })
                .await;
            assert_eq!(result.unwrap_err().code(), Some(code));
            assert!(
                (attempts_min..=attempts_max).contains(&attempts),
                "{attempts}"
            );
        });
    };
    // 30 s of request timeout in steps of 100 ms.
    check(ErrorCode::CoordinatorLoadInProgress, 290, 302);
    check(ErrorCode::GroupAuthorizationFailed, 1, 1);
}

#[test]
fn a_connection_that_does_not_come_about_is_given_up() {
    #[derive(Clone)]
    struct Deaf;
    impl super::transport::Connector for Deaf {
        type Stream = super::scripted::ScriptedStream;
        async fn connect(&self, _: &str) -> std::io::Result<Self::Stream> {
            std::future::pending().await
        }
    }
    run(async {
        let started = tokio::time::Instant::now();
        let connected = Client::connect(Deaf, "broker:1", ClientOptions::default()).await;
        assert!(matches!(connected, Err(ClientError::Unreachable { .. })));
        assert!(started.elapsed() < Duration::from_secs(11));
    });
}
