//! What the bare ring knows of the protocol. Of a produce request it reads only what the answer
//! repeats, by hand and in one version; the records behind go to the file as they come, however
//! large they are. The few requests that come before are answered through forebay's codec.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes};
use forebay::base::ErrorCode;
use forebay::wire::frame::{self, RequestHeader};
use forebay::wire::messages::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use forebay::wire::messages::fetch::FetchRequest;
use forebay::wire::messages::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use forebay::wire::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use forebay::wire::messages::produce::ProduceRequest;
use forebay::wire::{Message, Reader, Request};

/// The one version of Produce that is read: the last without compact lengths whose answer has
/// nothing of variable size behind the topic.
pub const PRODUCE_VERSION: i16 = 7;

/// Bytes that hold the head of every produce request: ids and one topic, each at most 249 bytes.
pub const HEAD_BYTES_MAX: usize = 1024;

const SIZE_BYTES: usize = 4;

/// What clients are told about the only broker.
pub struct Broker {
    /// Where it listens.
    pub address: SocketAddr,
    /// Partitions of every topic.
    pub partitions: i32,
}

/// The state of one connection.
#[derive(Default)]
pub struct Conversation {
    /// Bytes of records that belong to the current request and are not here yet.
    records_left: usize,
    /// Its answer.
    answer: Vec<u8>,
    /// Answers to send, whole frames.
    pub answers: Vec<u8>,
}

impl Conversation {
    /// Reads from the front of `received`, gives records to `append`, and returns how many bytes
    /// are done with. What follows them must be there again the next time, with more.
    ///
    /// # Errors
    /// `append` fails, or the client sends what is not understood here.
    pub fn take(
        &mut self,
        received: &[u8],
        broker: &Broker,
        mut append: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<usize> {
        let mut rest = received;
        loop {
            if self.records_left > 0 {
                let (records, behind) = rest.split_at(self.records_left.min(rest.len()));
                append(records)?;
                self.records_left -= records.len();
                rest = behind;
            }
            if self.records_left > 0 {
                break;
            }
            self.answers.append(&mut self.answer);
            let Some((size, frame)) = rest.split_first_chunk::<SIZE_BYTES>() else {
                break;
            };
            let size = u32::from_be_bytes(*size) as usize;
            if frame.len() < size.min(HEAD_BYTES_MAX) {
                break;
            }
            if frame.starts_with(&ProduceRequest::KEY.to_be_bytes()) {
                let records = self.begin_produce(frame)?;
                let head_bytes = frame.len() - records.len();
                self.records_left = size.checked_sub(head_bytes).ok_or_else(cut_off)?;
                rest = records;
            } else if let Some(request) = frame.get(..size) {
                self.answers.extend_from_slice(&broker.answer(request)?);
                rest = &frame[size..];
            } else {
                break;
            }
        }
        Ok(received.len() - rest.len())
    }

    /// Reads the head of a produce request, prepares the answer, and returns what follows.
    fn begin_produce<'a>(&mut self, frame: &'a [u8]) -> io::Result<&'a [u8]> {
        let mut rest = frame;
        let (_key, version) = (rest.try_get_i16()?, rest.try_get_i16()?);
        let correlation_id = rest.try_get_i32()?;
        let (_client, _transaction) = (text(&mut rest)?, text(&mut rest)?);
        let (acks, _timeout_ms) = (rest.try_get_i16()?, rest.try_get_i32()?);
        let topics = rest.try_get_i32()?;
        let topic = text(&mut rest)?;
        let partitions = rest.try_get_i32()?;
        let partition = rest.try_get_i32()?;
        let _records_bytes = rest.try_get_i32()?;
        if (version, topics, partitions) != (PRODUCE_VERSION, 1, 1) {
            return Err(io::Error::other(format!(
                "a produce request of version {version} for {topics} topics and {partitions} \
                 partitions: only version {PRODUCE_VERSION} for one partition is understood"
            )));
        }
        if acks != 0 {
            let size = 4 + 4 + 2 + topic.len() + 4 + 4 + 2 + 8 + 8 + 8 + 4;
            self.answer.put_u32(size as u32);
            self.answer.put_i32(correlation_id);
            self.answer.put_i32(1);
            self.answer.put_u16(topic.len() as u16);
            self.answer.put_slice(topic);
            self.answer.put_i32(1);
            self.answer.put_i32(partition);
            self.answer.put_i16(ErrorCode::None.code());
            self.answer.put_i64(0); // the offset
            self.answer.put_i64(-1); // the time, if the broker stamps records
            self.answer.put_i64(0); // the log's first offset
            self.answer.put_i32(0); // throttled for so long
        }
        Ok(rest)
    }
}

impl Broker {
    /// Answers what clients ask before they write.
    fn answer(&self, request: &[u8]) -> io::Result<Bytes> {
        let mut reader = Reader::new(Bytes::copy_from_slice(request));
        let header = RequestHeader::decode(&mut reader).map_err(io::Error::other)?;
        match header.api_key {
            ApiVersionsRequest::KEY => Ok(reply::<ApiVersionsRequest>(&header, &versions())),
            MetadataRequest::KEY => {
                let request: MetadataRequest = body(reader, &header)?;
                Ok(reply::<MetadataRequest>(&header, &self.metadata(request)))
            }
            ListOffsetsRequest::KEY => {
                let request: ListOffsetsRequest = body(reader, &header)?;
                Ok(reply::<ListOffsetsRequest>(&header, &offsets(request)))
            }
            key => Err(io::Error::other(format!("a request with key {key}"))),
        }
    }

    fn metadata(&self, request: MetadataRequest) -> MetadataResponse {
        let partition = |partition_index| MetadataResponsePartition {
            partition_index,
            leader_id: 1,
            replica_nodes: vec![1],
            isr_nodes: vec![1],
            ..Default::default()
        };
        let topics = request.topics.unwrap_or_default();
        let topics = topics.into_iter().map(|topic| MetadataResponseTopic {
            name: topic.name,
            partitions: (0..self.partitions).map(partition).collect(),
            ..Default::default()
        });
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 1,
                host: self.address.ip().to_string(),
                port: self.address.port().into(),
                rack: None,
            }],
            controller_id: 1,
            topics: topics.collect(),
            ..Default::default()
        }
    }
}

/// No version with compact lengths, but for ApiVersions itself. librdkafka writes batches of magic
/// 2 only to brokers that also serve Fetch; nobody sends one.
fn versions() -> ApiVersionsResponse {
    let ranges = [
        (ProduceRequest::KEY, 3, PRODUCE_VERSION),
        (FetchRequest::KEY, 4, 11),
        (ListOffsetsRequest::KEY, 1, 5),
        (MetadataRequest::KEY, 0, 8),
        (ApiVersionsRequest::KEY, 0, 3),
    ];
    let rows = ranges.map(|(api_key, min_version, max_version)| ApiVersion {
        api_key,
        min_version,
        max_version,
    });
    ApiVersionsResponse {
        api_keys: rows.to_vec(),
        ..Default::default()
    }
}

/// Every partition is empty.
fn offsets(request: ListOffsetsRequest) -> ListOffsetsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter();
        ListOffsetsTopicResponse {
            name: topic.name,
            partitions: partitions
                .map(|partition| ListOffsetsPartitionResponse {
                    partition_index: partition.partition_index,
                    offset: 0,
                    ..Default::default()
                })
                .collect(),
        }
    });
    ListOffsetsResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn body<R: Request>(mut reader: Reader, header: &RequestHeader) -> io::Result<R> {
    R::decode(&mut reader, header.api_version).map_err(io::Error::other)
}

fn reply<R: Request>(header: &RequestHeader, response: &R::Response) -> Bytes {
    let version = header
        .api_version
        .min(*<R::Response as Message>::VERSIONS.end());
    frame::encode_response(header.correlation_id, R::KEY, version, response)
        .expect("it holds no records")
        .bytes
        .freeze()
}

/// A string, empty for null.
fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], io::Error> {
    let length = usize::try_from(rest.try_get_i16()?).unwrap_or(0);
    let (text, behind) = rest.split_at_checked(length).ok_or_else(cut_off)?;
    *rest = behind;
    Ok(text)
}

fn cut_off() -> io::Error {
    io::Error::other("a request that is cut off")
}
