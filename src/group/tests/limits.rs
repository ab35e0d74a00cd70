//! What a client may make a coordinator keep.

use super::*;
use crate::base::limits::{
    GROUP_ID_BYTES_MAX, GROUP_METADATA_BYTES_MAX, MEMBER_METADATA_BYTES_MAX, MEMBER_PROTOCOLS_MAX,
};

fn commit_to(f: &mut Fixture, group_id: &str) -> ErrorCode {
    f.commit_all(OffsetCommitRequest {
        group_id: group_id.into(),
        ..commit("", -1)
    })[0]
}

fn join_to(f: &mut Fixture, group_id: &str) -> ErrorCode {
    let request = JoinGroupRequest {
        group_id: group_id.into(),
        ..join("")
    };
    f.joined_now(request).error_code
}

#[test]
fn there_are_only_so_many_groups() {
    let mut f = Fixture::with(|config| config.group_count_max = 2);
    assert_eq!(join_to(&mut f, "a"), ErrorCode::MemberIdRequired);
    assert_eq!(commit_to(&mut f, "b"), ErrorCode::None);
    assert_eq!(join_to(&mut f, "c"), ErrorCode::PolicyViolation);
    assert_eq!(commit_to(&mut f, "c"), ErrorCode::PolicyViolation);
    assert_eq!(f.coordinator.groups.len(), 2);
    assert_eq!(
        commit_to(&mut f, "b"),
        ErrorCode::None,
        "those that are there go on"
    );
    assert_eq!(join_to(&mut f, "b"), ErrorCode::MemberIdRequired);
}

#[test]
fn names_are_only_so_long() {
    let mut f = Fixture::new();
    let (good, bad) = (
        "n".repeat(GROUP_ID_BYTES_MAX),
        "n".repeat(GROUP_ID_BYTES_MAX + 1),
    );
    assert_eq!(join_to(&mut f, &good), ErrorCode::MemberIdRequired);
    assert_eq!(join_to(&mut f, &bad), ErrorCode::InvalidGroupId);
    assert_eq!(commit_to(&mut f, &bad), ErrorCode::InvalidGroupId);
    let request = JoinGroupRequest {
        group_instance_id: Some(bad),
        ..join("")
    };
    assert_eq!(f.joined_now(request).error_code, ErrorCode::InvalidRequest);
}

#[test]
fn a_member_says_only_so_much_and_does_not_keep_its_frame() {
    let mut f = Fixture::new();
    f.version = 3;
    let mut request = join("");
    request.protocols[0].metadata = Bytes::from(vec![0; MEMBER_METADATA_BYTES_MAX]);
    let error = f.joined_now(request).error_code;
    assert_eq!(error, ErrorCode::MessageTooLarge);
    let mut request = join("");
    let frame = Bytes::from(vec![7; 1000]);
    request.protocols[0].metadata = frame.slice(10..20);
    f.join(request);
    assert!(frame.is_unique(), "what the member said was copied");
}

#[test]
fn a_member_knows_only_so_many_protocols() {
    let mut f = Fixture::new();
    for (count, expected) in [
        (MEMBER_PROTOCOLS_MAX, ErrorCode::MemberIdRequired),
        (MEMBER_PROTOCOLS_MAX + 1, ErrorCode::InvalidRequest),
    ] {
        let names: Vec<String> = (0..count).map(|index| index.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let request = JoinGroupRequest {
            protocols: protocols(&names),
            ..join("")
        };
        assert_eq!(f.joined_now(request).error_code, expected);
    }
}

#[test]
fn what_was_read_from_the_log_does_not_keep_its_buffer() {
    let mut f = Fixture::new();
    f.stable(1);
    let mut loaded = Coordinator::new(Config::default(), 2);
    for (key, value) in &f.log {
        let value = value.as_deref().map(Bytes::copy_from_slice);
        loaded.replay(key.clone(), value.clone()).unwrap();
        assert!(value.is_none_or(|buffer| buffer.is_unique()));
    }
    assert_eq!(loaded.groups[GROUP].members.len(), 1);
}

#[test]
fn a_group_says_only_so_much_together() {
    let mut f = Fixture::new();
    f.version = 3;
    let speak = |f: &mut Fixture| {
        let mut request = join("");
        request.protocols.truncate(1);
        let name_bytes = request.protocols[0].name.len();
        let said = vec![0; MEMBER_METADATA_BYTES_MAX - name_bytes];
        request.protocols[0].metadata = Bytes::from(said);
        f.join(request)
    };
    for _ in 0..GROUP_METADATA_BYTES_MAX / MEMBER_METADATA_BYTES_MAX {
        let token = speak(&mut f);
        assert!(f.is_parked(token));
    }
    let token = speak(&mut f);
    assert_eq!(f.joined(token).error_code, ErrorCode::GroupMaxSizeReached);
    let assignments = vec![SyncGroupRequestAssignment {
        member_id: "m".into(),
        assignment: Bytes::from(vec![0; GROUP_METADATA_BYTES_MAX + 1]),
    }];
    let request = SyncGroupRequest {
        assignments,
        ..sync("m", 1, &[])
    };
    let token = f.call(|coordinator, now, caller, out| coordinator.sync(now, caller, request, out));
    assert_eq!(f.synced(token).1, ErrorCode::MessageTooLarge);
}

#[test]
fn only_so_many_member_ids_are_given_out() {
    let mut f = Fixture::with(|config| config.group_size_max = 2);
    for _ in 0..2 {
        let response = f.joined_now(join(""));
        assert_eq!(response.error_code, ErrorCode::MemberIdRequired);
    }
    let response = f.joined_now(join(""));
    assert_eq!(response.error_code, ErrorCode::GroupMaxSizeReached);
    f.sleep(i64::from(SESSION_MS));
    let response = f.joined_now(join(""));
    assert_eq!(
        response.error_code,
        ErrorCode::MemberIdRequired,
        "they expire"
    );
}

#[test]
fn what_groups_may_take_together_is_bounded() {
    let mut f = Fixture::new();
    f.version = 3;
    let speak = |f: &mut Fixture, group_id: &str, said_bytes: usize| {
        let mut request = JoinGroupRequest {
            group_id: group_id.into(),
            ..join("")
        };
        request.protocols[0].metadata = Bytes::from(vec![0; said_bytes]);
        f.join(request)
    };
    f.coordinator.set_room(100_000);
    let token = speak(&mut f, "a", 60_000);
    assert_eq!(f.joined(token).error_code, ErrorCode::PolicyViolation);
    assert_eq!(f.coordinator.size_bytes(), 0, "it has left nothing");
    let first = speak(&mut f, "a", 30_000);
    f.sleep(0);
    let size_bytes = f.coordinator.size_bytes();
    assert!((60_000..70_000).contains(&size_bytes), "{size_bytes}");

    f.coordinator.set_room(0);
    let token = speak(&mut f, "a", 0);
    assert_eq!(f.joined(token).error_code, ErrorCode::PolicyViolation);
    assert_eq!(commit_to(&mut f, "b"), ErrorCode::PolicyViolation);
    // Who is there may come back with what it said, and is not assigned more than there is room.
    let member_id = f.joined(first).member_id;
    let mut request = JoinGroupRequest {
        group_id: "a".into(),
        ..join(&member_id)
    };
    request.protocols[0].metadata = Bytes::from(vec![1; 30_000]);
    let token = f.join(request);
    assert_eq!(f.joined(token).error_code, ErrorCode::None);
    let assignments = vec![SyncGroupRequestAssignment {
        member_id: member_id.clone(),
        assignment: Bytes::from(vec![0; 1000]),
    }];
    let request = SyncGroupRequest {
        group_id: "a".into(),
        assignments,
        ..sync(&member_id, 2, &[])
    };
    let again = request.clone();
    let token = f.call(|coordinator, now, caller, out| coordinator.sync(now, caller, request, out));
    assert_eq!(f.synced(token).1, ErrorCode::PolicyViolation);
    f.coordinator.set_room(2000);
    let token = f.call(|coordinator, now, caller, out| coordinator.sync(now, caller, again, out));
    assert_eq!(f.synced(token).1, ErrorCode::None);
}

#[test]
fn committed_texts_are_counted_and_come_free_again() {
    let mut f = Fixture::new();
    assert_eq!(commit_to(&mut f, "g"), ErrorCode::None);
    let size_bytes = f.coordinator.size_bytes();
    f.coordinator.set_room(0);
    assert_eq!(
        commit_to(&mut f, "g"),
        ErrorCode::None,
        "it takes no more than before"
    );
    assert_eq!(f.coordinator.size_bytes(), size_bytes);
    let more = OffsetCommitRequest {
        group_id: "g".into(),
        ..commit("", -1)
    };
    let mut longer = more.clone();
    longer.topics[0].partitions[0].committed_metadata = Some("x".repeat(1000));
    assert_eq!(f.commit_all(longer.clone())[0], ErrorCode::PolicyViolation);
    f.coordinator.set_room(1000);
    assert_eq!(f.commit_all(longer)[0], ErrorCode::None);
    assert!(f.coordinator.size_bytes() > size_bytes + 900);
    assert_eq!(f.commit_all(more)[0], ErrorCode::None);
    assert_eq!(f.coordinator.size_bytes(), size_bytes);
    f.call(|coordinator, _, caller, out| coordinator.delete_groups(caller, &["g".into()], out));
    assert_eq!(f.coordinator.size_bytes(), 0);
}
