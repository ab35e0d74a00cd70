//! What the sale needs of a broker: somewhere to publish orders and, for each group member, a feed
//! of them. [`crate::kafka`] is the real one; the tests have one in memory that misbehaves on
//! request, so that the verdict is shown to notice.

use std::future::Future;

use bytes::Bytes;

use crate::dead_letter::Letter;
use crate::failure::Failure;
use crate::orders::Planned;

/// Takes orders for the broker.
pub trait Publisher: 'static {
    /// Takes an order over, after all those taken before on the same partition. Never waits: the
    /// load is open loop. The future resolves when the broker has acknowledged the order or the
    /// producer has given it up, which it says in a sentence.
    fn send(
        &self,
        order: Planned,
    ) -> impl Future<Output = Result<(), String>> + use<Self> + 'static;

    /// Takes a letter over for the dead letter topic; resolves like [`Publisher::send`].
    fn bury(
        &self,
        letter: &Letter,
    ) -> impl Future<Output = Result<(), String>> + use<Self> + 'static;
}

/// A record as the broker delivers it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its offset in the partition.
    pub offset: i64,
    /// The user id.
    pub key: Bytes,
    /// The order as JSON.
    pub value: Bytes,
}

/// What a group member is told.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedEvent {
    /// Records of one partition, in offset sequence.
    Records {
        /// The partition.
        partition: i32,
        /// At least one record, at most [`Feed::records_max`].
        records: Vec<Record>,
    },
    /// The member owns these partitions from now on, besides those it had.
    Assigned(Vec<i32>),
    /// These partitions were taken from it.
    Revoked(Vec<i32>),
}

/// One member of the consumer group. Heartbeats go on by themselves, also while it is not polled.
pub trait Feed: 'static {
    /// Most records of one event.
    fn records_max(&self) -> usize;

    /// The next event; dropping the future loses nothing.
    ///
    /// # Errors
    /// If the group cannot go on.
    fn next(&mut self) -> impl Future<Output = Result<FeedEvent, Failure>>;

    /// No records of the partition until it is resumed, also none already fetched.
    fn pause(&mut self, partition: i32);

    /// Records of the partition again, from where it was paused.
    fn resume(&mut self, partition: i32);

    /// The partition continues at this offset.
    fn seek(&mut self, partition: i32, offset: i64);

    /// Commits offsets of the group.
    ///
    /// # Errors
    /// In a sentence; the sale goes on, as the database's own offsets are those that count.
    fn commit(&mut self, offsets: &[(i32, i64)]) -> impl Future<Output = Result<(), String>>;

    /// Leaves the group.
    fn close(self) -> impl Future<Output = ()>;
}
