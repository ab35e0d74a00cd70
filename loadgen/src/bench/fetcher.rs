//! One connection that reads: asks for the next batches of its partitions and walks the heads of
//! those that come. Records are not decoded; the memory for an answer is used again.
//!
//! Invariant: offsets are seen without gap and without repetition, or the run ends.

use bytes::Bytes;
use bytestring::ByteString;
use forebay::batch::batches;
use forebay::wire::Records;
use forebay::wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};

use super::link::{Inbox, Link};
use crate::failure::Failure;

/// What an answer may hold in all, whatever is asked per partition. Kafka: `fetch.max.bytes`.
const RESPONSE_BYTES_MAX: i32 = 50 << 20;
/// What an answer has beside records, generously.
const ENVELOPE_BYTES: usize = 4 << 10;

/// Where a reader is in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
}

/// What one answer brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Records.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
}

/// How to ask.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// The version of Fetch.
    pub version: i16,
    /// Most bytes per partition.
    pub partition_bytes_max: i32,
    /// How long the broker may wait for the first byte.
    pub max_wait_ms: i32,
}

/// A connection with its partitions.
pub struct Fetcher {
    link: Link,
    inbox: Inbox,
    topic: ByteString,
    asking: Asking,
    positions: Vec<Position>,
    correlation_id: i32,
}

impl Fetcher {
    /// Reads these partitions, from these offsets on.
    pub fn new(link: Link, topic: &str, asking: Asking, positions: Vec<Position>) -> Self {
        Self {
            link,
            inbox: Inbox::default(),
            topic: ByteString::from(topic),
            asking,
            positions,
            correlation_id: 0,
        }
    }

    /// Where it is.
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    /// Goes back to these offsets, for the same partitions.
    pub fn seek(&mut self, positions: &[Position]) {
        self.positions.copy_from_slice(positions);
    }

    /// Asks once for what comes next and moves past what is there.
    ///
    /// # Errors
    /// If the connection breaks, the broker refuses, or offsets do not go on where they should.
    pub async fn fetch(&mut self) -> Result<Fetched, Failure> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let request = self.request();
        let room = usize::try_from(self.asking.partition_bytes_max).unwrap_or(0) + ENVELOPE_BYTES;
        let (id, version) = (self.correlation_id, self.asking.version);
        let answer = self.link.call(&mut self.inbox, room, id, version, &request);
        let answer: FetchResponse = answer.await?;
        if answer.error_code.is_error() {
            return Err(self.refused(None, answer.error_code));
        }
        let mut fetched = Fetched::default();
        for part in answer
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions)
        {
            self.walk(part, &mut fetched)?;
        }
        Ok(fetched)
    }

    fn request(&self) -> FetchRequest {
        let partitions = self.positions.iter().map(|position| FetchPartition {
            partition: position.partition,
            fetch_offset: position.offset,
            partition_max_bytes: self.asking.partition_bytes_max,
            ..FetchPartition::default()
        });
        let topic = FetchTopic {
            topic: self.topic.clone(),
            partitions: partitions.collect(),
            ..FetchTopic::default()
        };
        FetchRequest {
            max_wait_ms: self.asking.max_wait_ms,
            min_bytes: 1,
            max_bytes: RESPONSE_BYTES_MAX.max(self.asking.partition_bytes_max),
            topics: vec![topic],
            ..FetchRequest::default()
        }
    }

    fn walk(&mut self, part: PartitionData, fetched: &mut Fetched) -> Result<(), Failure> {
        let number = part.partition_index;
        let mut positions = self.positions.iter_mut();
        let Some(position) = positions.find(|position| position.partition == number) else {
            return Err(self.link.failure(format_args!(
                "sends partition {number}, for which nobody asked"
            )));
        };
        if part.error_code.is_error() {
            return Err(self.refused(Some(number), part.error_code));
        }
        let Records::Bytes(records) = part.records else {
            return Ok(());
        };
        match walk(records, position, fetched) {
            Ok(()) => Ok(()),
            Err(why) => Err(self
                .link
                .failure(format_args!("sends partition {number} wrong: {why}"))),
        }
    }

    fn refused(&self, partition: Option<i32>, code: impl std::fmt::Display) -> Failure {
        match partition {
            Some(number) => self
                .link
                .failure(format_args!("refuses to send partition {number}: {code}")),
            None => self.link.failure(format_args!("refuses to send: {code}")),
        }
    }
}

/// Steps over batches. The first may begin before the position, as it is stored whole; the last may
/// be cut off.
fn walk(records: Bytes, position: &mut Position, fetched: &mut Fetched) -> Result<(), String> {
    let mut is_first = true;
    for batch in batches(records) {
        let (head, _) = batch.map_err(|error| error.to_string())?;
        let goes_on = match is_first {
            true => head.base_offset <= position.offset && head.next_offset() > position.offset,
            false => head.base_offset == position.offset,
        };
        if !goes_on {
            return Err(format!(
                "offset {} was next, and offsets {} to {} came",
                position.offset,
                head.base_offset,
                head.last_offset()
            ));
        }
        is_first = false;
        fetched.records += head.next_offset().abs_diff(position.offset);
        fetched.bytes += head.size_bytes() as u64;
        position.offset = head.next_offset();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay::batch::{Builder, Codec};

    fn batch(base_offset: i64, records: i32) -> Bytes {
        let mut builder = Builder::new(Codec::None);
        builder.set_base_offset(base_offset);
        for _ in 0..records {
            builder.append(0, None, Some(b"x"), &[]);
        }
        builder.build()
    }

    fn walked(batches: &[Bytes], offset: i64) -> Result<(Fetched, i64), String> {
        let mut position = Position {
            partition: 0,
            offset,
        };
        let mut fetched = Fetched::default();
        walk(batches.concat().into(), &mut position, &mut fetched)?;
        Ok((fetched, position.offset))
    }

    #[test]
    fn batches_in_a_row_are_counted() {
        let (one, two) = (batch(10, 5), batch(15, 3));
        let bytes = (one.len() + two.len()) as u64;
        let all = Fetched { records: 8, bytes };
        assert_eq!(walked(&[one.clone(), two.clone()], 10), Ok((all, 18)));
        let (fetched, _) = walked(&[one.clone(), two.clone()], 12).unwrap();
        assert_eq!(fetched.records, 6, "the batch is sent whole");
        let cut = two.slice(..two.len() - 1);
        assert_eq!(
            walked(&[one, cut], 10).unwrap().1,
            15,
            "a batch that is cut off comes again"
        );
    }

    #[test]
    fn a_gap_and_a_repetition_are_found() {
        assert!(
            walked(&[batch(11, 5)], 10)
                .unwrap_err()
                .contains("offset 10 was next")
        );
        assert!(walked(&[batch(10, 5), batch(16, 1)], 10).is_err(), "gap");
        assert!(
            walked(&[batch(10, 5), batch(14, 1)], 10).is_err(),
            "repetition"
        );
        assert!(walked(&[batch(5, 5)], 10).is_err(), "all of it is old");
    }
}
