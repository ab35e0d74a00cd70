//! What one fetch brought for one partition: batches that become records as they are asked for.
//! Checks the CRC, decompresses within a bound, and leaves out what a consumer must not see:
//! records before its position, control records, and with `read_committed` those of aborted
//! transactions.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::ConsumedRecord;
use crate::base::Offset;
use crate::batch::{BatchError, Header, batches, records};
use crate::wire::messages::fetch::AbortedTransaction;

/// Records of one batch when decompressed: what a hostile batch can make us hold.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// Batches of one partition, in order.
#[derive(Debug)]
pub(in crate::client) struct Chunk {
    rest: VecDeque<(Header, Bytes)>,
    ready: VecDeque<ConsumedRecord>,
    /// Ascending by first offset; those that begin later than the batches read so far.
    aborted: VecDeque<AbortedTransaction>,
    aborted_now: BTreeSet<i64>,
    /// The offset behind its last complete batch.
    pub offset_end: Offset,
    /// Size as it came.
    pub bytes: usize,
    /// End of what could be read when it was fetched.
    pub high_watermark: Offset,
}

impl Chunk {
    /// Looks at the heads of the batches only. `None` without a complete batch.
    ///
    /// Errors: a head that cannot be read.
    pub fn new(
        bytes: Bytes,
        high_watermark: Offset,
        aborted: Vec<AbortedTransaction>,
    ) -> Result<Option<Self>, BatchError> {
        let mut rest = VecDeque::new();
        for batch in batches(bytes.clone()) {
            match batch {
                Ok(batch) => rest.push_back(batch),
                // What comes before is good; the next fetch begins with this one.
                Err(_) if !rest.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(rest
            .back()
            .map(|(last, _)| last.next_offset())
            .map(|offset_end| Self {
                bytes: bytes.len(),
                rest,
                ready: VecDeque::new(),
                aborted: aborted.into(),
                aborted_now: BTreeSet::new(),
                offset_end,
                high_watermark,
            }))
    }

    /// The next records from `position` on, at most `count_max`; fewer only at the end.
    ///
    /// Errors: a batch that cannot be read; the chunk is of no more use.
    pub fn take(
        &mut self,
        position: Offset,
        count_max: usize,
    ) -> Result<Vec<ConsumedRecord>, BatchError> {
        while self.ready.len() < count_max {
            let Some((header, body)) = self.rest.pop_front() else {
                break;
            };
            self.read(&header, &body, position)?;
        }
        let count = self.ready.len().min(count_max);
        Ok(self.ready.drain(..count).collect())
    }

    /// True when everything was taken.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.rest.is_empty()
    }

    fn read(&mut self, header: &Header, body: &Bytes, position: Offset) -> Result<(), BatchError> {
        header.check_crc(body)?;
        while let Some(next) = self.aborted.front()
            && next.first_offset <= header.last_offset()
        {
            self.aborted_now.insert(next.producer_id);
            self.aborted.pop_front();
        }
        if header.is_control() {
            // Whether it commits or aborts: the transaction ends here.
            self.aborted_now.remove(&header.producer_id);
            return Ok(());
        }
        if header.is_transactional() && self.aborted_now.contains(&header.producer_id) {
            return Ok(());
        }
        for record in records(header, body, DECOMPRESSED_BYTES_MAX)? {
            let record = record?;
            if record.offset >= position {
                self.ready.push_back(ConsumedRecord {
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Builder, Codec};

    /// A batch of one record, or of a control record, of a producer; transactional unless it is 0.
    fn batch(offset: i64, producer_id: i64, is_control: bool) -> Vec<u8> {
        let mut builder = Builder::new(Codec::None);
        builder.set_base_offset(offset);
        if producer_id > 0 {
            builder.set_producer(producer_id, 0, 0);
            builder.set_transactional();
        }
        if is_control {
            builder.set_control();
        }
        builder.append(0, Some(b"\0\0\0\0"), Some(b"value"), &[]);
        builder.build().to_vec()
    }

    fn offsets(batches: &[Vec<u8>], aborted: &[(i64, i64)], position: Offset) -> Vec<Offset> {
        let aborted = aborted.iter().map(|(producer_id, first_offset)| {
            let (producer_id, first_offset) = (*producer_id, *first_offset);
            AbortedTransaction {
                producer_id,
                first_offset,
            }
        });
        let bytes = Bytes::from(batches.concat());
        let mut chunk = Chunk::new(bytes, 0, aborted.collect()).unwrap().unwrap();
        let records = chunk.take(position, usize::MAX).unwrap();
        assert!(chunk.is_empty());
        records.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn aborted_and_control_records_are_left_out() {
        let batches = [
            batch(0, 1, false),
            batch(1, 2, false),
            batch(2, 0, false),
            // The transaction of producer 1 ends; its next one is another.
            batch(3, 1, true),
            batch(4, 1, false),
            batch(5, 2, true),
        ];
        assert_eq!(offsets(&batches, &[], 0), [0, 1, 2, 4]);
        assert_eq!(offsets(&batches, &[(1, 0)], 0), [1, 2, 4]);
        assert_eq!(offsets(&batches, &[(1, 0), (2, 1)], 0), [2, 4]);
        assert_eq!(offsets(&batches, &[(1, 0), (1, 4)], 2), [2]);
    }

    #[test]
    fn a_cut_off_batch_is_for_the_next_fetch() {
        let whole = batch(0, 0, false);
        let cut = &batch(1, 0, false)[..70];
        let bytes = Bytes::from([&whole[..], cut].concat());
        let chunk = Chunk::new(bytes, 0, Vec::new()).unwrap().unwrap();
        assert_eq!(chunk.offset_end, 1);
        let nothing = Chunk::new(Bytes::copy_from_slice(cut), 0, Vec::new());
        assert!(nothing.unwrap().is_none());
    }

    #[test]
    fn a_foreign_batch_is_an_error_only_when_it_is_first() {
        let mut foreign = batch(1, 0, false);
        foreign[16] = 1;
        let bytes = Bytes::from([batch(0, 0, false), foreign.clone()].concat());
        let chunk = Chunk::new(bytes, 0, Vec::new()).unwrap().unwrap();
        assert_eq!(chunk.offset_end, 1);
        let refused = Chunk::new(foreign.into(), 0, Vec::new());
        assert_eq!(refused.err(), Some(BatchError::Magic(1)));
    }
}
