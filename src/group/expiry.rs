//! How groups and their offsets go away: by age, or because somebody deletes the group.
//!
//! A group without members lives until its last offset has expired (`offsets.retention.minutes`,
//! counted from the moment it became empty). All of it is tombstones; `replay` does the removing.

use super::records;
use super::state::{Group, Phase};
use super::{Caller, Coordinator, Output, Record, Reply};
use crate::base::{ErrorCode, Now, WallMs};
use crate::wire::messages::delete_groups::DeletableGroupResult;
use crate::wire::records::offset_commit::OffsetCommitValue;

impl Coordinator {
    /// Removes empty groups with their offsets. A group named twice is answered once.
    pub fn delete_groups(&mut self, caller: Caller<'_>, group_ids: &[String], out: &mut Output) {
        self.assert_replayed();
        let mut tombstones = vec![];
        let mut results: Vec<DeletableGroupResult> = vec![];
        for group_id in group_ids {
            if results.iter().any(|result| result.group_id == *group_id) {
                continue;
            }
            let group = self.groups.get(group_id);
            let error_code = match group.map(|group| &group.phase) {
                None => ErrorCode::GroupIdNotFound,
                Some(Phase::Empty) => ErrorCode::None,
                Some(_) => ErrorCode::NonEmptyGroup,
            };
            if let (Some(group), ErrorCode::None) = (group, error_code) {
                group.expired_offsets(group_id, |_, _| true, &mut tombstones);
                tombstones.push(records::group(group_id, None));
            }
            results.push(DeletableGroupResult {
                group_id: group_id.clone(),
                error_code,
            });
        }
        self.push_records(tombstones, out);
        out.replies
            .push((caller.token, Reply::DeleteGroups(results)));
    }

    /// Forgets what has expired, in all groups.
    pub(super) fn expire(&mut self, now: Now, out: &mut Output) {
        let retention_ms = self.config.offsets_retention_ms;
        let mut tombstones = vec![];
        for (group_id, group) in &self.groups {
            let all = group.expire(group_id, now.wall_ms, retention_ms, &mut tombstones);
            if all && matches!(group.phase, Phase::Empty) {
                tombstones.push(records::group(group_id, None));
            }
        }
        self.push_records(tombstones, out);
    }
}

impl Group {
    /// Adds tombstones for expired offsets; true if that leaves none.
    fn expire(
        &self,
        group_id: &str,
        now_ms: WallMs,
        retention_ms: i64,
        tombstones: &mut Vec<Record>,
    ) -> bool {
        if self.offsets.is_empty() {
            return true;
        }
        let is_simple = self.protocol_type.is_none();
        let empty_since = match (&self.phase, &self.stored) {
            _ if is_simple => None,
            (Phase::Empty, Some(stored)) => Some(stored.current_state_timestamp),
            (Phase::Empty, None) => None,
            // Members of a consumer group may have dropped a topic for good.
            (Phase::Stable, _) if self.subscribed.is_some() => None,
            _ => return false,
        };
        let is_expired = |topic: &str, offset: &OffsetCommitValue| {
            let since = empty_since.filter(|since| *since != -1);
            let since = since.unwrap_or(offset.commit_timestamp);
            let is_old = match offset.expire_timestamp {
                -1 => now_ms.saturating_sub(since) >= retention_ms,
                expire_timestamp => now_ms >= expire_timestamp,
            };
            is_old && !self.is_subscribed(topic)
        };
        self.expired_offsets(group_id, is_expired, tombstones)
    }

    /// Adds tombstones for offsets by topic and value; true if that leaves none.
    fn expired_offsets(
        &self,
        group_id: &str,
        is_expired: impl Fn(&str, &OffsetCommitValue) -> bool,
        tombstones: &mut Vec<Record>,
    ) -> bool {
        let mut all = true;
        for (topic, partitions) in &self.offsets {
            for (partition, offset) in partitions {
                if is_expired(topic, offset) {
                    tombstones.push(records::offset(group_id, topic, *partition, None));
                } else {
                    all = false;
                }
            }
        }
        all
    }
}
