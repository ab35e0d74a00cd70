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
pub(super) struct Chunk {
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
