//! A Kafka client: [`Client`] knows the cluster and carries requests to the right broker,
//! [`Producer`] and [`Consumer`] stand on it. It works against any broker of Kafka 2.1 or later,
//! picking the highest common version of every API.
//!
//! Everything runs as local tasks of one thread: on tokio's `current_thread` runtime inside a
//! `LocalSet`, or inside `tokio_uring::start`. What opens sockets is a parameter
//! ([`transport::Connector`]). The broker itself uses none of this.
//!
//! Bytes from a broker are as untrusted as bytes from a client: they may end a connection with an
//! error, and never more.

pub(crate) mod clock;
mod committed;
mod connection;
pub mod consumer;
pub mod dead_letter;
pub(crate) mod error;
mod first_record;
pub mod lag;
mod list_offsets;
mod metadata;
pub mod producer;
#[cfg(test)]
mod scripted;
mod tasks;
#[cfg(test)]
mod tests;
pub mod transport;
mod versions;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::wire::Request;
use crate::wire::messages::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use crate::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use connection::Connection;
use metadata::Cluster;
use transport::Connector;

pub use consumer::{
    Assignor, AutoOffsetReset, ConsumedRecord, Consumer, ConsumerError, ConsumerOptions, Event,
    Isolation, Start, Subscription, TopicPartition,
};
pub use error::ClientError;
pub use list_offsets::{EARLIEST, LATEST};
pub use metadata::{PartitionMetadata, TopicMetadata};
pub use producer::{Acks, Delivery, ProduceError, Producer, ProducerOptions, ProducerRecord};
pub use transport::Tcp;

/// How a client talks to a cluster. The defaults are those of Kafka's Java client.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Names the client in the broker's logs and quotas. Kafka: `client.id`.
    pub client_id: String,
    /// Time for a connection to come about. Kafka: `socket.connection.setup.timeout.ms`.
    pub connect_timeout: Duration,
    /// Time for an answer; also bounds the repetition of requests that can be repeated. Kafka:
    /// `request.timeout.ms`.
    pub request_timeout: Duration,
    /// Pause before a request is repeated. Kafka: `retry.backoff.ms`.
    pub retry_backoff: Duration,
    /// Metadata older than this is fetched again. Kafka: `metadata.max.age.ms`.
    pub metadata_age_max: Duration,
    /// Whether asking for a topic may create it, where the broker is set up so. Kafka:
    /// `allow.auto.create.topics`.
    pub allow_auto_topic_creation: bool,
    /// A larger answer breaks the connection.
    pub response_bytes_max: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            client_id: "forebay".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            retry_backoff: Duration::from_millis(100),
            metadata_age_max: Duration::from_secs(300),
            allow_auto_topic_creation: true,
            response_bytes_max: 256 << 20,
        }
    }
}

/// Which broker a request goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Whichever answers first.
    Any,
    /// The controller: topics and settings are changed there.
    Controller,
    /// The broker with this id.
    Id(i32),
    /// The coordinator of this group.
    Coordinator(String),
}

/// A view of one cluster with a pool of connections. Clones share both.
pub struct Client<C: Connector> {
    shared: Rc<Shared<C>>,
    pool: Rc<Pool<C>>,
}

struct Shared<C> {
    connector: C,
    options: ClientOptions,
    bootstrap: Vec<String>,
    cluster: RefCell<Cluster>,
}

/// At most one connection per address; the lock is held while it comes about.
type Slot<C> = Rc<Mutex<Option<Connection<<C as Connector>::Stream>>>>;

struct Pool<C: Connector>(RefCell<BTreeMap<String, Slot<C>>>);

impl<C: Connector> Clone for Client<C> {
    fn clone(&self) -> Self {
        Self {
            shared: Rc::clone(&self.shared),
            pool: Rc::clone(&self.pool),
        }
    }
}

impl<C: Connector> Client<C> {
    /// Connects to the first broker of `bootstrap` ("host:port,host:port") that answers, and
    /// learns the cluster from it.
    ///
    /// Errors: [`ClientError::Bootstrap`], [`ClientError::Unreachable`] with every address tried.
    pub async fn connect(
        connector: C,
        bootstrap: &str,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let shared = Shared {
            connector,
            options,
            bootstrap: parse_bootstrap(bootstrap)?,
            cluster: RefCell::default(),
        };
        let client = Self {
            shared: Rc::new(shared),
            pool: Rc::new(Pool(RefCell::default())),
        };
        client.refresh_metadata(&[]).await?;
        Ok(client)
    }

    /// The same view of the cluster with connections of its own: a request that a broker answers
    /// late (a fetch, a join) holds up everything behind it on its connection.
    pub fn with_own_connections(&self) -> Self {
        Self {
            shared: Rc::clone(&self.shared),
            pool: Rc::new(Pool(RefCell::default())),
        }
    }

    /// The settings.
    pub fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    /// Topics in the order asked for, from the cache where it is fresh. A topic that cannot be
    /// used is there with its error.
    pub async fn metadata(&self, topics: &[String]) -> Result<Vec<Rc<TopicMetadata>>, ClientError> {
        let now = clock::now();
        let age_max = self.shared.options.metadata_age_max;
        let cached = {
            let cluster = self.shared.cluster.borrow();
            let known = topics.iter().map(|name| cluster.topic(name, now, age_max));
            known.collect::<Option<Vec<_>>>()
        };
        match cached {
            Some(topics) => Ok(topics),
            None => self.refresh_metadata(topics).await,
        }
    }

    /// Topics in the order asked for, from a broker. Brokers, controller and cache are renewed.
    pub async fn refresh_metadata(
        &self,
        topics: &[String],
    ) -> Result<Vec<Rc<TopicMetadata>>, ClientError> {
        let named = topics.iter().map(|name| MetadataRequestTopic {
            name: Some(name.clone()),
            ..Default::default()
        });
        let request = MetadataRequest {
            topics: Some(named.collect()),
            allow_auto_topic_creation: self.shared.options.allow_auto_topic_creation,
            ..Default::default()
        };
        let response = self.send(Node::Any, request).await?;
        let mut cluster = self.shared.cluster.borrow_mut();
        let found = cluster.update(&response, clock::now());
        let in_order = topics.iter().filter_map(|name| {
            let mut found = found.iter();
            found.find(|topic| topic.name == *name).cloned()
        });
        Ok(in_order.collect())
    }

    /// Ids of all brokers, as of the last look at the metadata.
    pub fn nodes(&self) -> Vec<i32> {
        self.shared.cluster.borrow().nodes()
    }

    /// Sends a request in the highest common version and waits for the answer. Error codes inside
    /// the answer are the caller's to read.
    ///
    /// Errors: [`ClientError`]; nothing is repeated once a request was sent.
    pub async fn send<R: Request>(
        &self,
        node: Node,
        request: R,
    ) -> Result<R::Response, ClientError> {
        let within = self.shared.options.request_timeout;
        self.send_within(node, request, i16::MAX, within).await
    }

    /// Like [`Client::send`], not above `version_max` and with its own time limit.
    pub async fn send_within<R: Request>(
        &self,
        node: Node,
        request: R,
        version_max: i16,
        within: Duration,
    ) -> Result<R::Response, ClientError> {
        let connection = self.connection(&node).await?;
        connection.request(&request, version_max, within).await
    }

    /// Repeats `attempt` while it fails with an error that can pass, for the request timeout.
    pub async fn retry<T>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let deadline = clock::now() + self.shared.options.request_timeout;
        loop {
            match attempt().await {
                Err(error) if error.is_retriable() && clock::now() < deadline => {
                    tokio::time::sleep(self.shared.options.retry_backoff).await;
                }
                result => return result,
            }
        }
    }

    /// The coordinator of a group will be looked up again: it said that it is another, or does not
    /// answer.
    pub fn forget_coordinator(&self, group: &str) {
        self.shared.cluster.borrow_mut().forget_coordinator(group);
    }

    /// The node that coordinates a group, asked of the cluster if it is not known.
    pub async fn coordinator(&self, group: &str) -> Result<i32, ClientError> {
        let known = self.shared.cluster.borrow().coordinator(group);
        if let Some(node_id) = known {
            return Ok(node_id);
        }
        let request = FindCoordinatorRequest {
            key: group.to_owned(),
            key_type: 0,
            coordinator_keys: vec![group.to_owned()],
        };
        // Both shapes are filled in; the version decides which one is written.
        let response = Box::pin(self.send(Node::Any, request)).await?;
        let (node_id, host, port) = read_coordinator(group, &response)?;
        let mut cluster = self.shared.cluster.borrow_mut();
        cluster.set_coordinator(group, node_id, &host, port);
        Ok(node_id)
    }

    /// An open connection to a node.
    pub(crate) async fn connection(
        &self,
        node: &Node,
    ) -> Result<Connection<C::Stream>, ClientError> {
        let node_id = match node {
            Node::Any => return self.connection_to_any().await,
            Node::Controller => self.shared.cluster.borrow().controller(),
            Node::Id(node_id) => Some(*node_id),
            Node::Coordinator(group) => Some(self.coordinator(group).await?),
        };
        let address = node_id.and_then(|node_id| {
            let cluster = self.shared.cluster.borrow();
            cluster.address(node_id).map(str::to_owned)
        });
        match address {
            Some(address) => self.connection_to(&address).await,
            None => Err(ClientError::NoNode {
                wanted: match node {
                    Node::Id(node_id) => format!("node {node_id}"),
                    _ => "the controller".to_owned(),
                },
            }),
        }
    }

    /// An open connection to whichever broker answers: open ones first, then the known brokers,
    /// then the bootstrap list.
    async fn connection_to_any(&self) -> Result<Connection<C::Stream>, ClientError> {
        let mut addresses: Vec<String> = self.pool.0.borrow().keys().cloned().collect();
        addresses.extend(self.shared.cluster.borrow().addresses().cloned());
        addresses.extend(self.shared.bootstrap.iter().cloned());
        let mut tried: Vec<(String, String)> = Vec::new();
        for address in addresses {
            if tried.iter().any(|(other, _)| *other == address) {
                continue;
            }
            match self.connection_to(&address).await {
                Ok(connection) => return Ok(connection),
                Err(ClientError::Unreachable { tried: mut failed }) => tried.append(&mut failed),
                Err(ClientError::Disconnected { reason, .. }) => tried.push((address, reason)),
                Err(error @ ClientError::TimedOut { .. }) => {
                    tried.push((address, error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::Unreachable { tried })
    }

    async fn connection_to(&self, address: &str) -> Result<Connection<C::Stream>, ClientError> {
        let slot = {
            let mut slots = self.pool.0.borrow_mut();
            Rc::clone(slots.entry(address.to_owned()).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| connection.is_alive()) {
            return Ok(connection.clone());
        }
        *slot = None;
        let (connector, options) = (&self.shared.connector, &self.shared.options);
        let connection = Connection::open(connector, address, options).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }
}

/// Splits "host:port,host:port" and checks each part.
fn parse_bootstrap(text: &str) -> Result<Vec<String>, ClientError> {
    let parts = text.split(',').map(|part| {
        let part = part.trim();
        let is_address = part.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        is_address.then(|| part.to_owned())
    });
    let addresses: Option<Vec<String>> = parts.collect();
    addresses.ok_or_else(|| ClientError::Bootstrap {
        given: text.to_owned(),
    })
}

fn read_coordinator(
    group: &str,
    response: &FindCoordinatorResponse,
) -> Result<(i32, String, i32), ClientError> {
    let subject = || format!("group \"{group}\"");
    // From version 4 the answer is a list by key, before it is the message itself.
    let of_group = response.coordinators.iter().find(|each| each.key == group);
    let (code, message, node_id, host, port) = match of_group {
        Some(each) => (
            each.error_code,
            each.error_message.as_deref(),
            each.node_id,
            &each.host,
            each.port,
        ),
        None => (
            response.error_code,
            response.error_message.as_deref(),
            response.node_id,
            &response.host,
            response.port,
        ),
    };
    error::check("FindCoordinator", subject, code, message)?;
    Ok((node_id, host.clone(), port))
}
