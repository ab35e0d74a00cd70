//! Fetch (key 1), versions 4-18.
//!
//! - Records go from the page cache to the socket: the reply holds gaps that stand for extents.
//! - Long poll: while less than `min_bytes` are there and no partition has an error, the request
//!   is parked until a watched partition shows more, or `max_wait_ms` is over.
//! - The first non-empty partition may exceed `max_bytes` by one batch, later ones may not
//!   (KIP-74). Batches are whole: consumers fail on a partition that has a part of one only.
//! - Fetch sessions (KIP-227) are not kept: every answer has session id 0, which makes every known
//!   client send full requests. Who goes on with a session (an epoch above 0) is told to begin
//!   anew.
//! - Followers do not exist yet: a replica id is not looked at.

use super::job::{Answer, Job, Jobs, Return};
use super::{Begun, Facts, Flow, unexpected};
use crate::base::dir::Extent;
use crate::base::limits::FETCH_BYTES_MAX;
use crate::base::time::Mono;
use crate::base::{ErrorCode, PartitionKey};
use crate::log::ReadError;
use crate::state::{Partition, ShardState, Watcher};
use crate::wire::Records;
use crate::wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};

/// Longest time that a long poll is parked, whatever the client says.
const WAIT_MS_MAX: i32 = 5 * 60 * 1000;

/// A parked poll looks again this often, though nobody has woken it. Whom a partition would wake
/// cannot be taken back when the client goes away or is answered for another partition; so it is
/// forgotten after this time.
const WATCH_MS_MAX: i64 = 1_000;

/// A fetch on its way.
#[derive(Debug)]
pub struct Gathering {
    request: FetchRequest,
    /// End of the long poll.
    until: Mono,
    response: FetchResponse,
    /// Topic and partition index in request and response, and the partition, by slot.
    places: Vec<(usize, usize, PartitionKey)>,
    extents: Vec<Option<Extent>>,
    /// A watched partition showed more while answers were under way.
    woken: bool,
    /// The answers are older than the last wake-up or the end of the poll.
    parked: bool,
}

/// Looks for records on all owners.
pub fn begin(state: &mut ShardState, facts: &Facts, mut request: FetchRequest) -> Begun {
    if request.session_epoch > 0 {
        let error_code = ErrorCode::FetchSessionIdNotFound;
        return facts.reply(&FetchResponse {
            error_code,
            ..FetchResponse::default()
        });
    }
    let bytes_max = i32::try_from(state.broker.fetch_bytes_max).unwrap_or(i32::MAX);
    request.max_bytes = request.max_bytes.min(bytes_max).min(FETCH_BYTES_MAX);
    let wait_ms = request.max_wait_ms.clamp(0, WAIT_MS_MAX);
    let flow = Gathering {
        until: state.now.mono.plus_ms(i64::from(wait_ms)),
        request,
        response: FetchResponse::default(),
        places: Vec::new(),
        extents: Vec::new(),
        woken: false,
        parked: false,
    };
    flow.read(state, facts)
}

impl Gathering {
    /// Asks all owners, from the start.
    fn read(mut self, state: &mut ShardState, facts: &Facts) -> Begun {
        (self.woken, self.parked) = (false, false);
        self.places.clear();
        self.response.responses.clear();
        let watch_until = (self.until > state.now.mono).then_some(self.watch_until(state));
        let mut jobs = Jobs::new();
        for (topic_index, fetch) in self.request.topics.iter().enumerate() {
            let topic = state.topic(&fetch.topic, fetch.topic_id).cloned();
            let mut partitions = Vec::with_capacity(fetch.partitions.len());
            for (index, partition) in fetch.partitions.iter().enumerate() {
                let key = topic.as_ref().map_err(|&code| code).and_then(|topic| {
                    let key = state.partition_key(topic, partition.partition);
                    key.ok_or(ErrorCode::UnknownTopicOrPartition)
                });
                partitions.push(failed(partition.partition, key.err().unwrap_or_default()));
                if let Ok(key) = key {
                    self.places.push((topic_index, index, key));
                    let request = FetchPartition {
                        partition_max_bytes: partition
                            .partition_max_bytes
                            .min(self.request.max_bytes),
                        ..partition.clone()
                    };
                    jobs.push((
                        state.owner(key),
                        Job::Read {
                            partition: key,
                            request,
                            watch_until,
                        },
                    ));
                }
            }
            self.response.responses.push(FetchableTopicResponse {
                topic: fetch.topic.clone(),
                topic_id: fetch.topic_id,
                partitions,
            });
        }
        self.extents = vec![None; jobs.len()];
        if jobs.is_empty() {
            return self.reply(facts);
        }
        Begun::Gather(jobs, Flow::Fetch(self))
    }

    /// Takes what was found in one partition.
    pub fn put(&mut self, slot: usize, answer: Answer) {
        let Answer::Read { response, extent } = answer else {
            unexpected(&answer)
        };
        let (topic, partition, _) = self.places[slot];
        self.response.responses[topic].partitions[partition] = response;
        self.extents[slot] = extent;
    }

    /// More may be visible.
    pub fn on_wake(&mut self) {
        self.woken = true;
    }

    /// Replies if there is enough, or parks.
    pub fn resume(mut self, state: &mut ShardState, facts: &Facts) -> Begun {
        let over = self.until <= state.now.mono;
        if self.parked || (self.woken && !over) {
            return self.read(state, facts);
        }
        let found: u64 = self
            .extents
            .iter()
            .flatten()
            .map(|extent| extent.length)
            .sum();
        let mut partitions = self
            .response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions);
        let failed = partitions.any(|partition| partition.error_code.is_error());
        let enough = found >= u64::from(self.request.min_bytes.max(0).unsigned_abs());
        if over || enough || failed {
            return self.reply(facts);
        }
        self.parked = true;
        Begun::Park(self.watch_until(state), Flow::Fetch(self))
    }

    /// When it looks again at the latest.
    fn watch_until(&self, state: &ShardState) -> Mono {
        self.until.min(state.now.mono.plus_ms(WATCH_MS_MAX))
    }

    fn reply(mut self, facts: &Facts) -> Begun {
        let mut left = u64::from(self.request.max_bytes.max(0).unsigned_abs());
        let mut extents: Vec<Extent> = Vec::new();
        for (slot, extent) in self.extents.into_iter().enumerate() {
            let Some(extent) = extent else { continue };
            // KIP-74: the first batch goes out whatever its size, or the consumer would be stuck.
            // Others wait for a request where they come first: clients take turns.
            if extent.length > left && !extents.is_empty() {
                continue;
            }
            let (topic, partition, _) = self.places[slot];
            self.response.responses[topic].partitions[partition].records = Records::External {
                tag: extents.len() as u32,
                length: extent.length as u32,
            };
            left = left.saturating_sub(extent.length);
            extents.push(extent);
        }
        facts.reply_with(&self.response, extents)
    }
}

/// A partition without records.
fn failed(partition_index: i32, error_code: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index,
        error_code,
        high_watermark: -1,
        records: Records::Bytes(bytes::Bytes::new()),
        aborted_transactions: None,
        ..PartitionData::default()
    }
}

/// Finds records on the partition's owner.
pub fn perform(
    state: &mut ShardState,
    to: Return,
    key: PartitionKey,
    request: &FetchPartition,
    watch_until: Option<Mono>,
) {
    let now = state.now.mono;
    let answer = match state.owned(key) {
        Ok(partition) => {
            if let Some(until) = watch_until {
                partition
                    .watchers
                    .retain(|w| w.until > now && (w.shard, w.call) != (to.shard, to.call));
                partition.watchers.push(Watcher {
                    shard: to.shard,
                    call: to.call,
                    until,
                });
            }
            read(partition, request)
        }
        Err(code) => Err(code),
    };
    let (response, extent) = answer.unwrap_or_else(|code| (failed(request.partition, code), None));
    state.answer(to, Answer::Read { response, extent });
}

fn read(
    partition: &mut Partition,
    request: &FetchPartition,
) -> Result<(PartitionData, Option<Extent>), ErrorCode> {
    check_leader_epoch(partition, request.current_leader_epoch)?;
    let Partition { log, dir, .. } = partition;
    let bytes_max = u64::from(request.partition_max_bytes.max(0).unsigned_abs());
    let found = log.read(dir.as_mut(), request.fetch_offset, bytes_max, true);
    let watermarks = PartitionData {
        high_watermark: log.high_watermark(),
        last_stable_offset: log.last_stable_offset(),
        log_start_offset: log.log_start_offset(),
        ..failed(request.partition, ErrorCode::None)
    };
    let extent = match found {
        Ok(found) => found,
        Err(ReadError::OffsetOutOfRange { .. }) => {
            let error_code = ErrorCode::OffsetOutOfRange;
            return Ok((
                PartitionData {
                    error_code,
                    ..watermarks
                },
                None,
            ));
        }
        Err(error) => return Err(error.code()),
    };
    let extent = match extent {
        Some(found) => Some(Extent {
            file: dir
                .open(&found.file)
                .map_err(|_| ErrorCode::KafkaStorageError)?,
            position: found.position,
            length: found.length,
        }),
        None => None,
    };
    Ok((watermarks, extent))
}

/// KIP-320: a client that knows another epoch has old or newer metadata than this node.
pub fn check_leader_epoch(partition: &Partition, claimed: i32) -> Result<(), ErrorCode> {
    let current = partition.log.leader_epoch();
    match claimed {
        -1 => Ok(()),
        epoch if epoch < current => Err(ErrorCode::FencedLeaderEpoch),
        epoch if epoch > current => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}
