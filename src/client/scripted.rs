//! A cluster in memory for the client's tests: each address is a function from requests to
//! replies, connected by channels instead of sockets. Time stands still but for what is waited
//! for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Mutex, mpsc};
use tokio::task::LocalSet;

use super::transport::{Connector, Stream};
use crate::wire::frame::{RequestHeader, encode_response, split_frame};
use crate::wire::messages::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use crate::wire::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use crate::wire::{Message, Reader, Request};

/// Time on the stopped clock after which a test is stuck.
const TEST_TIME_MAX: Duration = Duration::from_secs(12 * 3600);

/// Runs a test on a stopped clock: when everything waits, time jumps to the next deadline.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let test = async { tokio::time::timeout(TEST_TIME_MAX, test).await };
    let finished = LocalSet::new().block_on(&runtime, test);
    assert!(
        finished.is_ok(),
        "the test waits for something that never comes"
    );
}

/// A request as a broker sees it.
pub(crate) struct Received {
    pub header: RequestHeader,
    pub body: Bytes,
}

impl Received {
    /// True if it is one of these.
    pub fn is<R: Request>(&self) -> bool {
        self.header.api_key == R::KEY
    }

    /// The request.
    pub fn decode<R: Request>(&self) -> R {
        assert!(self.is::<R>());
        R::decode(&mut Reader::new(self.body.clone()), self.header.api_version).unwrap()
    }

    /// A reply that carries `response`.
    pub fn answer<M: Message>(&self, response: &M) -> Reply {
        let (key, version) = (self.header.api_key, self.header.api_version);
        let frame = encode_response(self.header.correlation_id, key, version, response).unwrap();
        Reply::Answer(frame.bytes.freeze())
    }
}

/// What a broker does with a request.
pub(crate) enum Reply {
    /// Sends these bytes, whatever they are.
    Answer(Bytes),
    /// Says nothing, now or ever.
    Never,
    /// Closes the connection.
    Close,
}

type Handler = Rc<RefCell<dyn FnMut(&Received) -> Reply>>;

/// Brokers by address.
#[derive(Clone, Default)]
pub(crate) struct Script(Rc<RefCell<BTreeMap<String, Handler>>>);

impl Script {
    /// A cluster of one broker, node 1 at "broker:1".
    pub fn single(handler: impl FnMut(&Received) -> Reply + 'static) -> Self {
        let script = Self::default();
        script.serve("broker:1", handler);
        script
    }

    /// Lets a broker listen at `address`.
    pub fn serve(&self, address: &str, handler: impl FnMut(&Received) -> Reply + 'static) {
        let handler: Handler = Rc::new(RefCell::new(handler));
        self.0.borrow_mut().insert(address.to_owned(), handler);
    }
}

impl Connector for Script {
    type Stream = ScriptedStream;

    async fn connect(&self, address: &str) -> io::Result<ScriptedStream> {
        let handler = self.0.borrow().get(address).cloned();
        let handler = handler.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (requests, incoming) = mpsc::unbounded_channel();
        let (replies, received) = mpsc::unbounded_channel();
        tokio::task::spawn_local(serve(handler, incoming, replies));
        Ok(ScriptedStream {
            requests,
            replies: Mutex::new(received),
        })
    }
}

/// The client's end of a connection.
pub(crate) struct ScriptedStream {
    requests: mpsc::UnboundedSender<Bytes>,
    replies: Mutex<mpsc::UnboundedReceiver<Bytes>>,
}

impl Stream for ScriptedStream {
    async fn read(&self, mut buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        let bytes = self.replies.lock().await.recv().await.unwrap_or_default();
        buffer.extend_from_slice(&bytes);
        (Ok(bytes.len()), buffer)
    }

    async fn write_all(&self, bytes: Bytes) -> io::Result<()> {
        let sent = self.requests.send(bytes);
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

async fn serve(
    handler: Handler,
    mut incoming: mpsc::UnboundedReceiver<Bytes>,
    replies: mpsc::UnboundedSender<Bytes>,
) {
    let mut buffer = BytesMut::new();
    while let Some(bytes) = incoming.recv().await {
        buffer.extend_from_slice(&bytes);
        while let Some(frame) = split_frame(&mut buffer, usize::MAX).unwrap() {
            let mut reader = Reader::new(frame);
            let header = RequestHeader::decode(&mut reader).unwrap();
            let received = Received {
                header,
                body: reader.into_rest(),
            };
            let reply = (handler.borrow_mut())(&received);
            match reply {
                Reply::Answer(bytes) => {
                    // The client may have gone.
                    let _ = replies.send(bytes);
                }
                Reply::Never => {}
                Reply::Close => return,
            }
        }
    }
}

/// The answer to ApiVersions with these ranges on top of our own.
pub(crate) fn api_versions(ranges: &[(i16, RangeInclusive<i16>)]) -> ApiVersionsResponse {
    use crate::wire::messages as m;
    fn row<R: Request>() -> ApiVersion {
        ApiVersion {
            api_key: R::KEY,
            min_version: *<R as Message>::VERSIONS.start(),
            max_version: *<R as Message>::VERSIONS.end(),
        }
    }
    let mut api_keys = vec![
        row::<m::produce::ProduceRequest>(),
        row::<m::fetch::FetchRequest>(),
        row::<m::list_offsets::ListOffsetsRequest>(),
        row::<MetadataRequest>(),
        row::<m::offset_commit::OffsetCommitRequest>(),
        row::<m::offset_fetch::OffsetFetchRequest>(),
        row::<m::find_coordinator::FindCoordinatorRequest>(),
        row::<m::join_group::JoinGroupRequest>(),
        row::<m::heartbeat::HeartbeatRequest>(),
        row::<m::leave_group::LeaveGroupRequest>(),
        row::<m::sync_group::SyncGroupRequest>(),
        row::<ApiVersionsRequest>(),
        row::<m::init_producer_id::InitProducerIdRequest>(),
    ];
    for (api_key, range) in ranges {
        api_keys.retain(|each| each.api_key != *api_key);
        api_keys.push(ApiVersion {
            api_key: *api_key,
            min_version: *range.start(),
            max_version: *range.end(),
        });
    }
    ApiVersionsResponse {
        api_keys,
        ..Default::default()
    }
}

/// Answers what every client asks first: versions, and metadata of one broker (node 1) where each
/// topic has `partitions` partitions. `None` for other requests.
pub(crate) fn answer_basics(received: &Received, partitions: i32) -> Option<Reply> {
    if received.is::<ApiVersionsRequest>() {
        return Some(received.answer(&api_versions(&[])));
    }
    if !received.is::<MetadataRequest>() {
        return None;
    }
    let topics = received.decode::<MetadataRequest>().topics;
    let topics = topics.unwrap_or_default().into_iter();
    Some(
        received.answer(&MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 1,
                host: "broker".to_owned(),
                port: 1,
                ..Default::default()
            }],
            controller_id: 1,
            topics: topics
                .map(|topic| MetadataResponseTopic {
                    name: topic.name,
                    partitions: (0..partitions)
                        .map(|partition_index| MetadataResponsePartition {
                            partition_index,
                            leader_id: 1,
                            ..Default::default()
                        })
                        .collect(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
    )
}
