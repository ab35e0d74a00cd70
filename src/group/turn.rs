//! What one call may use: the time, the settings, and the ways out.
//!
//! Invariant: a caller is in the index of parked callers exactly while a member holds its
//! [`Waiter`].

use std::collections::BTreeMap;

use super::{Config, Output, Record, Reply, Token};
use crate::base::prng::Prng;
use crate::base::{ErrorCode, Mono, Now};
use crate::wire::messages::join_group::JoinGroupResponse;
use crate::wire::messages::sync_group::SyncGroupResponse;

/// Bytes that a member id adds to the client's name: a dash and a UUID.
const MEMBER_ID_SUFFIX_BYTES: usize = 37;
/// So that a member id is a string that Kafka can store.
const MEMBER_ID_PREFIX_BYTES_MAX: usize = i16::MAX as usize - MEMBER_ID_SUFFIX_BYTES;

/// A parked call; without a token once its connection is gone, as the member is still taken to have
/// joined or synced.
#[derive(Debug, PartialEq)]
pub(super) struct Waiter(pub(super) Option<Token>);

/// One call on one group.
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) config: &'a Config,
    pub(super) prng: &'a mut Prng,
    pub(super) group_id: &'a str,
    pub(super) parked: &'a mut BTreeMap<Token, String>,
    pub(super) out: &'a mut Output,
}

impl Turn<'_> {
    /// The time that is so many milliseconds away.
    pub(super) fn deadline(&self, ms: i64) -> Mono {
        self.now.mono.plus_ms(ms)
    }

    /// Adds a record.
    pub(super) fn push_record(&mut self, record: Record) {
        self.out.records.push(record);
    }

    /// Answers the caller of this very call.
    pub(super) fn reply(&mut self, token: Token, reply: Reply) {
        self.out.replies.push((token, reply));
    }

    /// Keeps a caller for later.
    pub(super) fn park(&mut self, token: Token) -> Waiter {
        self.parked.insert(token, self.group_id.to_owned());
        Waiter(Some(token))
    }

    /// Answers a parked join, if there is one and its connection still is.
    pub(super) fn answer_join(&mut self, waiter: Option<Waiter>, response: JoinGroupResponse) {
        self.answer(waiter, Reply::Join(response));
    }

    /// The same with an error.
    pub(super) fn answer_join_error(
        &mut self,
        waiter: Option<Waiter>,
        member_id: &str,
        error: ErrorCode,
    ) {
        self.answer_join(waiter, join_error(member_id, error));
    }

    /// Answers a parked sync, if there is one and its connection still is.
    pub(super) fn answer_sync(&mut self, waiter: Option<Waiter>, response: SyncGroupResponse) {
        self.answer(waiter, Reply::Sync(response));
    }

    /// The same with an error.
    pub(super) fn answer_sync_error(&mut self, waiter: Option<Waiter>, error: ErrorCode) {
        self.answer_sync(waiter, sync_error(error));
    }

    /// A new member id: the client's name, or that of the static member, and something unique.
    pub(super) fn member_id(&mut self, name: &str) -> String {
        let mut end = name.len().min(MEMBER_ID_PREFIX_BYTES_MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}-{}", &name[..end], self.prng.uuid())
    }

    fn answer(&mut self, waiter: Option<Waiter>, reply: Reply) {
        if let Some(Waiter(Some(token))) = waiter {
            self.parked.remove(&token);
            self.reply(token, reply);
        }
    }
}

/// A join that failed.
pub(super) fn join_error(member_id: &str, error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: error,
        protocol_name: None,
        member_id: member_id.to_owned(),
        ..Default::default()
    }
}

/// A sync that failed.
pub(super) fn sync_error(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse {
        error_code: error,
        ..Default::default()
    }
}
