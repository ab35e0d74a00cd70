//! A broker inside the test process, on a free port and in a temporary directory, and a raw
//! connection to it that speaks the protocol by our own codec.

use bytes::{Bytes, BytesMut};
use forebay::batch::{Builder, Codec};
use forebay::config::{Config, ServeArgs};
use forebay::server::Server;
use forebay::wire::frame::{decode_response_header, encode_request, split_frame};
use forebay::wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use forebay::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use forebay::wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use forebay::wire::{Message, Reader, Request};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

pub struct Broker {
    server: Option<Server>,
    pub dir: TempDir,
}

impl Broker {
    /// A broker with so many shards, on this back end.
    pub fn start(shards: usize, io: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = serve(dir.path(), shards, io, &[]);
        Self {
            server: Some(server),
            dir,
        }
    }

    /// A broker with options of its own, on top of a free port and a temporary directory.
    pub fn with_options(mut options: ServeArgs) -> Self {
        let dir = tempfile::tempdir().unwrap();
        options
            .set
            .push("group.initial.rebalance.delay.ms=0".to_owned());
        let args = ServeArgs {
            listen: Some("127.0.0.1:0".to_owned()),
            data_dir: Some(dir.path().display().to_string()),
            ..options
        };
        let config = Config::from_sources(&args, []).unwrap();
        Self {
            server: Some(Server::start(&config).unwrap()),
            dir,
        }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// The same with settings.
    pub fn with(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = serve(dir.path(), 2, "auto", settings);
        Self {
            server: Some(server),
            dir,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.as_ref().unwrap().address()
    }

    pub fn connect(&self) -> Raw {
        Raw::connect(self.address())
    }

    /// Stops cleanly and starts again on the same directory.
    pub fn restart(&mut self, shards: usize, io: &str) {
        self.restart_after(shards, io, |_| {});
    }

    /// The same with a change to the directory in between.
    pub fn restart_after(&mut self, shards: usize, io: &str, change: impl FnOnce(&Path)) {
        self.server.take().unwrap().stop().unwrap();
        change(self.dir.path());
        self.server = Some(serve(self.dir.path(), shards, io, &[]));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().unwrap();
        }
    }
}

fn serve(dir: &Path, shards: usize, io: &str, settings: &[&str]) -> Server {
    let mut set = vec!["group.initial.rebalance.delay.ms=0".to_owned()];
    set.extend(settings.iter().map(|setting| (*setting).to_owned()));
    let args = ServeArgs {
        listen: Some("127.0.0.1:0".to_owned()),
        data_dir: Some(dir.display().to_string()),
        cores: Some(shards.to_string()),
        io: Some(io.to_owned()),
        set,
        ..ServeArgs::default()
    };
    Server::start(&Config::from_sources(&args, []).unwrap()).unwrap()
}

/// A connection without a client library.
pub struct Raw {
    pub socket: TcpStream,
    received: BytesMut,
    next_correlation_id: i32,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket.set_nodelay(true).unwrap();
        Self::over(socket)
    }

    /// Over a socket that is there.
    pub fn over(socket: TcpStream) -> Self {
        Self {
            socket,
            received: BytesMut::new(),
            next_correlation_id: 0,
        }
    }

    /// Sends without waiting for the response; gives the correlation id.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.next_correlation_id += 1;
        let id = self.next_correlation_id;
        let frame = encode_request(id, version, Some("raw".into()), request);
        self.socket.write_all(&frame.bytes).unwrap();
        id
    }

    /// The next response's frame, `None` if the connection is closed.
    pub fn frame(&mut self) -> Option<Bytes> {
        let mut piece = [0; 64 * 1024];
        loop {
            if let Some(frame) = split_frame(&mut self.received, 1 << 30).unwrap() {
                return Some(frame);
            }
            match self.socket.read(&mut piece) {
                Ok(0) => return None,
                Ok(read) => self.received.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("no response: {error}"),
            }
        }
    }

    /// The next response, which must be of this kind.
    pub fn receive<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let frame = self.frame().expect("the broker closed the connection");
        let mut body = Reader::new(frame);
        let id = decode_response_header(&mut body, R::KEY, version).unwrap();
        (id, R::Response::decode(&mut body, version).unwrap())
    }

    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let sent = self.send(version, request);
        let (id, response) = self.receive::<R>(version);
        assert_eq!(id, sent);
        response
    }

    pub fn create_topic(&mut self, name: &str, partitions: i32) {
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 10_000,
            ..CreateTopicsRequest::default()
        };
        let response = self.ask(5, &request);
        assert!(!response.topics[0].error_code.is_error(), "{response:?}");
    }

    /// Sets one setting of a topic (resource type 2) or of a broker (4).
    pub fn alter(&mut self, resource_type: i8, resource: &str, name: &str, value: &str) {
        let config = AlterableConfig {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            ..AlterableConfig::default()
        };
        let resource = AlterConfigsResource {
            resource_type,
            resource_name: resource.to_owned(),
            configs: vec![config],
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![resource],
            validate_only: false,
        };
        let response = self.ask(1, &request);
        assert!(!response.responses[0].error_code.is_error(), "{response:?}");
    }

    pub fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Bytes,
    ) -> PartitionProduceResponse {
        let request = produce_request(topic, partition, -1, batch);
        let response = self.ask(9, &request);
        response.responses[0].partition_responses[0].clone()
    }
}

pub fn produce_request(topic: &str, partition: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    let data = PartitionProduceData {
        index: partition,
        records: Some(batch),
    };
    let topic = TopicProduceData {
        name: topic.into(),
        partition_data: vec![data].into(),
        ..TopicProduceData::default()
    };
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![topic].into(),
        ..ProduceRequest::default()
    }
}

/// One batch with these values.
pub fn batch(values: &[&[u8]]) -> Bytes {
    let mut builder = Builder::new(Codec::None);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    for value in values {
        builder.append(now.as_millis() as i64, None, Some(value), &[]);
    }
    builder.build()
}
