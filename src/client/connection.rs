//! One connection to one broker: requests go out back to back, answers come in the same order.
//! A task reads, a task writes; whoever asked waits for its own answer.
//!
//! Invariant: a request is in line to be written, and its place among the answers is fixed, before
//! [`Connection::request`] returns. Any surprise (an answer out of order, an unreadable one, a
//! timeout) breaks the connection: everything that waits on it fails, and nothing more is sent.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::ClientOptions;
use super::error::ClientError;
use super::tasks::Tasks;
use super::transport::{Connector, Stream};
use super::versions::Versions;
use crate::base::ErrorCode;
use crate::wire::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::wire::{Malformed, Message, Reader, Request, frame};

/// Room made for one read.
const READ_BYTES: usize = 64 << 10;

/// Small requests that wait are written together up to this size; larger ones are not copied.
const COALESCED_BYTES_MAX: usize = 16 << 10;

/// An open connection whose versions are negotiated; clones share it. Dropping the last closes it.
pub struct Connection<S: Stream> {
    link: Rc<Link<S>>,
    tasks: Rc<Tasks>,
}

struct Link<S> {
    stream: S,
    address: String,
    client_id: ByteString,
    response_bytes_max: usize,
    versions: RefCell<Versions>,
    next_correlation_id: Cell<i32>,
    outgoing: RefCell<VecDeque<Outgoing>>,
    waiting: RefCell<VecDeque<Waiting>>,
    broken: RefCell<Option<String>>,
    write_wanted: Notify,
}

struct Outgoing {
    bytes: Bytes,
    /// For requests without an answer: told when the bytes are written.
    written: Option<oneshot::Sender<()>>,
}

struct Waiting {
    correlation_id: i32,
    answer: oneshot::Sender<Bytes>,
}

impl<S: Stream> Clone for Connection<S> {
    fn clone(&self) -> Self {
        Self {
            link: Rc::clone(&self.link),
            tasks: Rc::clone(&self.tasks),
        }
    }
}

impl<S: Stream> Connection<S> {
    /// Connects and asks the broker what it speaks.
    pub(super) async fn open<C: Connector<Stream = S>>(
        connector: &C,
        address: &str,
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable {
            tried: vec![(address.to_owned(), reason)],
        };
        let stream = match timeout(options.connect_timeout, connector.connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => {
                let after = options.connect_timeout;
                return Err(unreachable(format!("no connection within {after:?}")));
            }
        };
        let link = Rc::new(Link {
            stream,
            address: address.to_owned(),
            client_id: ByteString::from(options.client_id.as_str()),
            response_bytes_max: options.response_bytes_max,
            versions: RefCell::default(),
            next_correlation_id: Cell::new(0),
            outgoing: RefCell::default(),
            waiting: RefCell::default(),
            broken: RefCell::new(None),
            write_wanted: Notify::new(),
        });
        let tasks = Rc::new(Tasks::default());
        tasks.spawn(read_loop(Rc::clone(&link)));
        tasks.spawn(write_loop(Rc::clone(&link)));
        let connection = Self { link, tasks };
        let versions = connection.negotiate(options.request_timeout).await?;
        *connection.link.versions.borrow_mut() = versions;
        Ok(connection)
    }

    /// False once it is broken; a broken connection does not recover.
    pub fn is_alive(&self) -> bool {
        self.link.broken.borrow().is_none()
    }

    /// Sends `request` in the highest common version up to `version_max`. It is in line before
    /// this returns; the future waits for the answer, at most for `within`.
    pub fn request<R: Request>(
        &self,
        request: &R,
        version_max: i16,
        within: Duration,
    ) -> impl Future<Output = Result<R::Response, ClientError>> + use<R, S> {
        let started = self
            .pick::<R>(version_max)
            .and_then(|version| Ok((version, self.start(request, version)?)));
        // The clone keeps the connection open while somebody waits on it.
        let connection = self.clone();
        async move {
            let (version, answer) = started?;
            let link = &connection.link;
            let bytes = link.wait_for::<R>(answer, within).await?;
            let decoded = decode_response::<R>(bytes, version);
            decoded.map_err(|Malformed(reason)| link.malformed::<R>(reason))
        }
    }

    /// Sends a request to which the protocol knows no answer (produce with acks = none); the
    /// future waits until it is written.
    pub fn request_unanswered<R: Request>(
        &self,
        request: &R,
        version_max: i16,
    ) -> impl Future<Output = Result<(), ClientError>> + use<R, S> {
        let (written, is_written) = oneshot::channel();
        let started = self.pick::<R>(version_max).and_then(|version| {
            self.link.check_alive::<R>()?;
            let (_, bytes) = self.encode(request, version);
            self.link.write(bytes, Some(written));
            Ok(())
        });
        let connection = self.clone();
        async move {
            started?;
            let written = is_written.await;
            written.map_err(|_| connection.link.disconnected::<R>())
        }
    }

    /// Like [`Connection::request`] in exactly this version; without a look at what the broker
    /// speaks.
    fn start<R: Request>(
        &self,
        request: &R,
        version: i16,
    ) -> Result<oneshot::Receiver<Bytes>, ClientError> {
        self.link.check_alive::<R>()?;
        let (correlation_id, bytes) = self.encode(request, version);
        let (answer, is_answered) = oneshot::channel();
        self.link.waiting.borrow_mut().push_back(Waiting {
            correlation_id,
            answer,
        });
        self.link.write(bytes, None);
        Ok(is_answered)
    }

    fn encode<R: Request>(&self, request: &R, version: i16) -> (i32, Bytes) {
        let correlation_id = self.link.next_correlation_id.get();
        let next = correlation_id.wrapping_add(1) & i32::MAX;
        self.link.next_correlation_id.set(next);
        let client_id = Some(self.link.client_id.clone());
        let frame = frame::encode_request(correlation_id, version, client_id, request);
        (correlation_id, frame.bytes.freeze())
    }

    fn pick<R: Request>(&self, version_max: i16) -> Result<i16, ClientError> {
        let versions = self.link.versions.borrow();
        versions
            .pick::<R>(version_max)
            .ok_or_else(|| ClientError::Unsupported {
                address: self.link.address.clone(),
                api: api_name::<R>(),
                ours: <R as Message>::VERSIONS,
                theirs: versions.range(R::KEY).cloned(),
            })
    }

    /// Asks for the version ranges, in our newest version first. A broker that does not know it
    /// answers in version 0 with `UNSUPPORTED_VERSION` and the range it knows (KIP-511).
    async fn negotiate(&self, within: Duration) -> Result<Versions, ClientError> {
        type Ask = ApiVersionsRequest;
        let request = ApiVersionsRequest {
            client_software_name: env!("CARGO_PKG_NAME").to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut version = *<Ask as Message>::VERSIONS.end();
        loop {
            let answer = self.start(&request, version)?;
            let bytes = self.link.wait_for::<Ask>(answer, within).await?;
            let is_refused = bytes.get(4..6) == Some(&[0, 35]);
            let read_as = if is_refused { 0 } else { version };
            let response: ApiVersionsResponse = decode_response::<Ask>(bytes, read_as)
                .map_err(|Malformed(reason)| self.link.malformed::<Ask>(reason))?;
            if response.error_code == ErrorCode::None {
                return Ok(Versions::new(&response));
            }
            let known = Versions::new(&response)
                .pick::<Ask>(version - 1)
                .unwrap_or(0);
            if !is_refused || version == 0 {
                return Err(ClientError::Broker {
                    api: api_name::<Ask>(),
                    subject: self.link.address.clone(),
                    code: response.error_code,
                    message: None,
                });
            }
            version = known;
        }
    }
}

impl<S: Stream> Link<S> {
    fn write(&self, bytes: Bytes, written: Option<oneshot::Sender<()>>) {
        let outgoing = Outgoing { bytes, written };
        self.outgoing.borrow_mut().push_back(outgoing);
        self.write_wanted.notify_one();
    }

    async fn wait_for<R: Request>(
        &self,
        answer: oneshot::Receiver<Bytes>,
        within: Duration,
    ) -> Result<Bytes, ClientError> {
        match timeout(within, answer).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => Err(self.disconnected::<R>()),
            Err(_) => {
                // Answers come in order: whatever waits behind this one is stuck as well.
                self.fail(format!(
                    "an earlier request got no answer within {within:?}"
                ));
                Err(ClientError::TimedOut {
                    address: self.address.clone(),
                    api: api_name::<R>(),
                    after: within,
                })
            }
        }
    }

    /// Hands complete frames to those who wait for them.
    fn deliver(&self, buffer: &mut BytesMut) -> Result<(), Malformed> {
        while let Some(bytes) = frame::split_frame(buffer, self.response_bytes_max)? {
            let correlation_id = bytes.first_chunk().map(|id| i32::from_be_bytes(*id));
            let next = self.waiting.borrow_mut().pop_front();
            match next {
                Some(waiting) if correlation_id == Some(waiting.correlation_id) => {
                    // Whoever asked may have stopped waiting.
                    let _ = waiting.answer.send(bytes);
                }
                Some(_) => return Err(Malformed("an answer to another request came first")),
                None => return Err(Malformed("an answer came to no request")),
            }
        }
        Ok(())
    }

    /// Breaks the connection; the first reason stays.
    fn fail(&self, reason: String) {
        self.broken.borrow_mut().get_or_insert(reason);
        self.waiting.borrow_mut().clear();
        self.outgoing.borrow_mut().clear();
        self.write_wanted.notify_one();
    }

    fn check_alive<R: Request>(&self) -> Result<(), ClientError> {
        match self.broken.borrow().is_some() {
            true => Err(self.disconnected::<R>()),
            false => Ok(()),
        }
    }

    fn disconnected<R: Request>(&self) -> ClientError {
        let reason = self.broken.borrow().clone();
        ClientError::Disconnected {
            address: self.address.clone(),
            api: api_name::<R>(),
            reason: reason.unwrap_or_else(|| "the client closed the connection".to_owned()),
        }
    }

    fn malformed<R: Request>(&self, reason: &'static str) -> ClientError {
        self.fail(format!("an earlier answer could not be read: {reason}"));
        ClientError::Malformed {
            address: self.address.clone(),
            api: api_name::<R>(),
            reason,
        }
    }
}

/// Kafka's name of the API, without the `Request` at the end.
fn api_name<R: Request>() -> &'static str {
    R::NAME.strip_suffix("Request").unwrap_or(R::NAME)
}

fn decode_response<R: Request>(bytes: Bytes, version: i16) -> Result<R::Response, Malformed> {
    let mut reader = Reader::new(bytes);
    frame::decode_response_header(&mut reader, R::KEY, version)?;
    R::Response::decode(&mut reader, version)
}

async fn read_loop<S: Stream>(link: Rc<Link<S>>) {
    let mut buffer = BytesMut::new();
    let reason = loop {
        buffer.reserve(READ_BYTES);
        let (result, returned) = link.stream.read(buffer).await;
        buffer = returned;
        match result {
            Ok(0) => break "the broker closed the connection".to_owned(),
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
        if let Err(Malformed(reason)) = link.deliver(&mut buffer) {
            break reason.to_owned();
        }
        if !link.is_open() {
            return;
        }
    };
    link.fail(reason);
}

async fn write_loop<S: Stream>(link: Rc<Link<S>>) {
    while link.is_open() {
        let (bytes, written) = link.next_write();
        if bytes.is_empty() {
            link.write_wanted.notified().await;
            continue;
        }
        if let Err(error) = link.stream.write_all(bytes).await {
            link.fail(error.to_string());
        }
        for each in written {
            let _ = each.send(());
        }
    }
}

impl<S> Link<S> {
    fn is_open(&self) -> bool {
        self.broken.borrow().is_none()
    }

    /// What to write next: one large request as it is, or several small ones joined.
    fn next_write(&self) -> (Bytes, Vec<oneshot::Sender<()>>) {
        let mut outgoing = self.outgoing.borrow_mut();
        let Some(first) = outgoing.pop_front() else {
            return (Bytes::new(), Vec::new());
        };
        let mut written: Vec<_> = first.written.into_iter().collect();
        let fits = |length: usize, next: Option<&Outgoing>| {
            next.is_some_and(|next| length + next.bytes.len() <= COALESCED_BYTES_MAX)
        };
        if !fits(first.bytes.len(), outgoing.front()) {
            return (first.bytes, written);
        }
        let mut joined = BytesMut::from(first.bytes);
        while fits(joined.len(), outgoing.front()) {
            let next = outgoing.pop_front().expect("its length was looked at");
            joined.extend_from_slice(&next.bytes);
            written.extend(next.written);
        }
        (joined.freeze(), written)
    }
}
