//! The first record that a consumer gets from an offset on, to learn its time: a small fetch, as no
//! API of Kafka leads from an offset to a time.
//!
//! A fetch gives whole batches, the first one whatever its size (KIP-74). The record may stand in
//! the middle of a compressed batch, or behind markers of transactions, which are no records for
//! consumers.

use std::collections::BTreeMap;

use bytestring::ByteString;
use tokio::task::JoinSet;

use super::consumer::chunk::Chunk;
use super::consumer::{Isolation, TopicPartition};
use super::list_offsets::EARLIEST;
use super::transport::Connector;
use super::{Client, ClientError, Node, error};
use crate::base::{ErrorCode, Offset};
use crate::wire::Records;
use crate::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};

/// The last version of Fetch that names topics; later ones carry ids (KIP-516).
const VERSION_WITH_NAMES: i16 = 12;
/// Room for some markers; a larger batch comes whole all the same.
const FETCH_BYTES: i32 = 4096;
/// No log has that many markers in a row: a broker that goes on is not asked for ever.
const FETCHES_MAX: usize = 1000;

impl<C: Connector> Client<C> {
    /// The timestamp (milliseconds since 1970, -1 for none) of the first record that a consumer
    /// gets from the given offset on, for each partition; `None` if there is none up to the end.
    /// Where records from that offset on were deleted meanwhile it is that of the first one left.
    /// The code is `OFFSET_OUT_OF_RANGE` beyond the end, and `CORRUPT_MESSAGE` where the batch
    /// cannot be read.
    ///
    /// Must run inside a local task set. Errors: a leader cannot be asked within the request
    /// timeout.
    pub async fn first_timestamps(
        &self,
        asked: &[(TopicPartition, Offset)],
    ) -> Result<BTreeMap<TopicPartition, Result<Option<i64>, ErrorCode>>, ClientError> {
        // All at once, each in a request of its own: only the first partition of a request is sure
        // to get a batch.
        let mut tasks = JoinSet::new();
        for (partition, offset) in asked.iter().cloned() {
            let client = self.clone();
            tasks.spawn_local(async move {
                let timestamp = first_timestamp(&client, &partition, offset).await;
                (partition, timestamp)
            });
        }
        let mut found = BTreeMap::new();
        while let Some(ended) = tasks.join_next().await {
            let (partition, timestamp) = ended.expect("no such task is aborted or panics");
            let timestamp = match timestamp {
                Ok(timestamp) => Ok(timestamp),
                Err(ClientError::Broker { code, .. }) => Err(code),
                Err(error) => return Err(error),
            };
            found.insert(partition, timestamp);
        }
        Ok(found)
    }
}

async fn first_timestamp<C: Connector>(
    client: &Client<C>,
    partition: &TopicPartition,
    offset: Offset,
) -> Result<Option<i64>, ClientError> {
    let refused = |code| ClientError::broker("Fetch", partition, code);
    let mut offset = offset;
    for _ in 0..FETCHES_MAX {
        let data = match fetch(client, partition, offset).await {
            Err(error) if error.code() == Some(ErrorCode::OffsetOutOfRange) => {
                let asked = std::slice::from_ref(partition);
                let starts = client
                    .offsets(asked, EARLIEST, Isolation::default())
                    .await?;
                match starts[partition] {
                    start if start > offset => offset = start,
                    _ => return Err(error),
                }
                continue;
            }
            data => data?,
        };
        let bytes = match data.records {
            Records::Bytes(bytes) => bytes,
            Records::Null | Records::External { .. } => return Ok(None),
        };
        let chunk = Chunk::new(bytes, data.high_watermark, Vec::new());
        let Some(mut chunk) = chunk.map_err(|_| refused(ErrorCode::CorruptMessage))? else {
            return Ok(None);
        };
        let records = chunk.take(offset, 1);
        let records = records.map_err(|_| refused(ErrorCode::CorruptMessage))?;
        if let Some(record) = records.first() {
            return Ok(Some(record.timestamp));
        }
        offset = chunk.offset_end.max(offset.saturating_add(1));
    }
    Err(refused(ErrorCode::UnknownServerError))
}

/// What the leader has from `offset` on; asked again while the leader moves.
async fn fetch<C: Connector>(
    client: &Client<C>,
    partition: &TopicPartition,
    offset: Offset,
) -> Result<PartitionData, ClientError> {
    client
        .retry(async || {
            let data = fetch_once(client, partition, offset).await;
            if data.as_ref().is_err_and(ClientError::is_retriable) {
                // Whoever leads now is in fresh metadata only.
                let topics = std::slice::from_ref(&partition.topic);
                client.refresh_metadata(topics).await?;
            }
            data
        })
        .await
}

async fn fetch_once<C: Connector>(
    client: &Client<C>,
    partition: &TopicPartition,
    offset: Offset,
) -> Result<PartitionData, ClientError> {
    let topics = client
        .metadata(std::slice::from_ref(&partition.topic))
        .await?;
    let state = topics.first();
    let state = state.and_then(|topic| topic.partition(partition.partition));
    let Some(leader) = state.and_then(|state| state.leader) else {
        let wanted = format!("the leader of {partition}");
        return Err(ClientError::NoNode { wanted });
    };
    let request = FetchRequest {
        max_bytes: FETCH_BYTES,
        topics: vec![FetchTopic {
            topic: ByteString::from(partition.topic.as_str()),
            partitions: vec![FetchPartition {
                partition: partition.partition,
                fetch_offset: offset,
                partition_max_bytes: FETCH_BYTES,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let within = client.options().request_timeout;
    let response = client
        .send_within(Node::Id(leader), request, VERSION_WITH_NAMES, within)
        .await?;
    error::check("Fetch", || partition.to_string(), response.error_code, None)?;
    let topics = response.responses.into_iter();
    let data = topics.flat_map(|topic| topic.partitions).next();
    let left_out = || ClientError::broker("Fetch", partition, ErrorCode::UnknownTopicOrPartition);
    let data = data.ok_or_else(left_out)?;
    error::check("Fetch", || partition.to_string(), data.error_code, None)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Builder, Codec};
    use crate::client::ClientOptions;
    use crate::client::scripted::{Received, Reply, Script, answer_basics, run};
    use crate::wire::messages::fetch::{FetchResponse, FetchableTopicResponse};
    use crate::wire::messages::list_offsets::{
        ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
        ListOffsetsTopicResponse,
    };
    use bytes::Bytes;

    /// A compressed batch with a record per timestamp, or a marker.
    fn batch(offset: Offset, timestamps: &[i64], is_marker: bool) -> (Offset, Bytes) {
        let mut builder = Builder::new(Codec::Lz4);
        builder.set_base_offset(offset);
        if is_marker {
            builder.set_producer(1, 0, 0);
            builder.set_transactional();
            builder.set_control();
        }
        for timestamp in timestamps {
            builder.append(*timestamp, Some(b"\0\0\0\0"), Some(b"value"), &[]);
        }
        (offset, builder.build())
    }

    /// Gives one batch per fetch, like Kafka where the second has no room.
    fn answer(log: &BTreeMap<Offset, Bytes>, end: Offset, received: &Received) -> Reply {
        let start = *log.keys().next().unwrap();
        if received.is::<ListOffsetsRequest>() {
            return received.answer(&ListOffsetsResponse {
                topics: vec![ListOffsetsTopicResponse {
                    name: "t".to_owned(),
                    partitions: vec![ListOffsetsPartitionResponse {
                        offset: start,
                        ..Default::default()
                    }],
                }],
                ..Default::default()
            });
        }
        let request: FetchRequest = received.decode();
        assert_eq!((request.max_wait_ms, request.min_bytes), (0, 0));
        let offset = request.topics[0].partitions[0].fetch_offset;
        if !(start..=end).contains(&offset) {
            return give(received, ErrorCode::OffsetOutOfRange, Bytes::new());
        }
        let found = log.range(..=offset).next_back().filter(|_| offset < end);
        let records = found.map(|(_, batch)| batch.clone()).unwrap_or_default();
        give(received, ErrorCode::None, records)
    }

    fn give(received: &Received, error_code: ErrorCode, records: Bytes) -> Reply {
        received.answer(&FetchResponse {
            responses: vec![FetchableTopicResponse {
                topic: "t".into(),
                partitions: vec![PartitionData {
                    error_code,
                    records: Records::Bytes(records),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    async fn first(client: &Client<Script>, offset: Offset) -> Result<Option<i64>, ErrorCode> {
        let partition = TopicPartition::new("t", 0);
        let asked = [(partition.clone(), offset)];
        client.first_timestamps(&asked).await.unwrap()[&partition]
    }

    #[test]
    fn the_record_is_found_inside_batches_and_behind_markers() {
        run(async {
            let mut damaged = batch(7, &[70], false).1.to_vec();
            *damaged.last_mut().unwrap() ^= 1;
            let log = BTreeMap::from([
                batch(0, &[10, 20, 15], false),
                batch(3, &[99], true),
                batch(4, &[40], false),
                batch(5, &[99], true),
                batch(6, &[99], true),
                (7, damaged.into()),
            ]);
            let until_markers = Script::single({
                let log = log.clone();
                move |received| {
                    answer_basics(received, 1).unwrap_or_else(|| answer(&log, 7, received))
                }
            });
            let client = Client::connect(until_markers, "broker:1", ClientOptions::default());
            let client = client.await.unwrap();
            assert_eq!(first(&client, 0).await, Ok(Some(10)));
            assert_eq!(first(&client, 2).await, Ok(Some(15)));
            assert_eq!(first(&client, 3).await, Ok(Some(40)), "behind a marker");
            assert_eq!(first(&client, 5).await, Ok(None), "nothing but markers");
            assert_eq!(first(&client, 7).await, Ok(None), "the end");
            assert_eq!(first(&client, 9).await, Err(ErrorCode::OffsetOutOfRange));

            let whole = Script::single(move |received| {
                answer_basics(received, 1).unwrap_or_else(|| answer(&log, 8, received))
            });
            let client = Client::connect(whole, "broker:1", ClientOptions::default());
            let client = client.await.unwrap();
            assert_eq!(first(&client, 6).await, Err(ErrorCode::CorruptMessage));
        });
    }

    #[test]
    fn a_leader_that_moves_and_a_start_that_moved_are_followed() {
        run(async {
            let log = BTreeMap::from([batch(5, &[50], false)]);
            let mut attempts = 0;
            let script = Script::single(move |received| {
                attempts += i32::from(received.is::<FetchRequest>());
                let basics = answer_basics(received, 1);
                basics.unwrap_or_else(|| match attempts {
                    1 => Reply::Close,
                    2 => give(received, ErrorCode::NotLeaderOrFollower, Bytes::new()),
                    _ => answer(&log, 6, received),
                })
            });
            let client = Client::connect(script, "broker:1", ClientOptions::default());
            let client = client.await.unwrap();
            assert_eq!(first(&client, 2).await, Ok(Some(50)), "2 to 4 were deleted");
            assert_eq!(first(&client, 9).await, Err(ErrorCode::OffsetOutOfRange));
        });
    }
}
