//! A client for the bare ring: what it writes must be answered, and stand in the file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use forebay::wire::messages::api_versions::ApiVersionsRequest;
use forebay::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use forebay::wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use forebay::wire::{Message, Reader, Request, frame};

use crate::protocol::{Broker, PRODUCE_VERSION};
use crate::ring::Bare;

/// Smaller than a page, larger than a head, larger than a receive buffer and of no round size.
const RECORD_BYTES: [usize; 5] = [1, 1024, 5000, 1_000_003, 1024];

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts the ring on a thread of its own and writes to it.
///
/// # Errors
/// The machine has no ring, no port or no file to give.
pub fn run() -> io::Result<()> {
    let file = tempfile::tempfile()?;
    let address = start(file.try_clone()?)?;
    let mut client = Client(TcpStream::connect(address)?);
    client.0.set_read_timeout(Some(PATIENCE))?;
    asks_first(&mut client, address)?;
    let expected = writes(&mut client)?;
    assert_eq!(file.metadata()?.len(), expected.len() as u64);
    let mut found = vec![0; expected.len()];
    file.read_exact_at(&mut found, 0)?;
    assert!(found == expected, "the file does not hold what was written");
    writeln!(
        io::stdout(),
        "bare: {} bytes written and answered",
        expected.len()
    )
}

fn start(file: File) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        let broker = Broker {
            address,
            partitions: 4,
        };
        match Bare::new(listener, Some(file), broker) {
            Ok(bare) => bare.run(),
            Err(error) => {
                eprintln!("bare: no ring: {error}");
                std::process::exit(1);
            }
        }
    });
    Ok(address)
}

fn asks_first(client: &mut Client, address: SocketAddr) -> io::Result<()> {
    let topic = MetadataRequestTopic {
        name: Some("t".to_owned()),
        ..Default::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![topic]),
        ..Default::default()
    };
    // The second request comes in two parts, one of them together with the first.
    let mut both = encode(7, 3, &ApiVersionsRequest::default());
    let first_bytes = both.len();
    both.extend_from_slice(&encode(8, 8, &request));
    let (early, late) = both.split_at(first_bytes + 9);
    client.0.write_all(early)?;
    let versions = client.receive::<ApiVersionsRequest>(7, 3)?;
    let produce = versions.api_keys.iter().find(|row| row.api_key == 0);
    assert_eq!(produce.map(|row| row.max_version), Some(PRODUCE_VERSION));
    client.0.write_all(late)?;
    let metadata = client.receive::<MetadataRequest>(8, 8)?;
    assert_eq!(metadata.brokers[0].port, i32::from(address.port()));
    assert_eq!(metadata.topics[0].partitions.len(), 4);
    Ok(())
}

/// Sends all requests before it reads the first answer; returns what they held.
fn writes(client: &mut Client) -> io::Result<Vec<u8>> {
    let mut written = Vec::new();
    for (index, bytes) in RECORD_BYTES.into_iter().enumerate() {
        let records = vec![b'a' + index as u8; bytes];
        written.extend_from_slice(&records);
        let data = PartitionProduceData {
            index: index as i32 % 4,
            records: Some(Bytes::from(records)),
        };
        let topic = TopicProduceData {
            name: ByteString::from("t"),
            partition_data: vec![data].into(),
            ..Default::default()
        };
        let request = ProduceRequest {
            acks: 1,
            topic_data: vec![topic].into(),
            ..Default::default()
        };
        client.send(index as i32, PRODUCE_VERSION, &request)?;
    }
    for index in 0..RECORD_BYTES.len() as i32 {
        let answer = client.receive::<ProduceRequest>(index, PRODUCE_VERSION)?;
        let topic = &answer.responses[0];
        let partition = &topic.partition_responses[0];
        assert_eq!((&*topic.name, partition.index), ("t", index % 4));
        assert!(!partition.error_code.is_error());
    }
    Ok(written)
}

struct Client(TcpStream);

impl Client {
    fn send<R: Request>(&mut self, id: i32, version: i16, request: &R) -> io::Result<()> {
        self.0.write_all(&encode(id, version, request))
    }

    fn receive<R: Request>(&mut self, id: i32, version: i16) -> io::Result<R::Response> {
        let mut size = [0; 4];
        self.0.read_exact(&mut size)?;
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.0.read_exact(&mut frame)?;
        let mut reader = Reader::new(Bytes::from(frame));
        let header = frame::decode_response_header(&mut reader, R::KEY, version);
        assert_eq!(header, Ok(id));
        let response = R::Response::decode(&mut reader, version).map_err(io::Error::other)?;
        assert_eq!(reader.remaining(), 0);
        Ok(response)
    }
}

fn encode<R: Request>(id: i32, version: i16, request: &R) -> Vec<u8> {
    let client_id = Some(ByteString::from("self-test"));
    frame::encode_request(id, version, client_id, request)
        .bytes
        .into()
}
