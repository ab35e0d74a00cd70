//! Heartbeats, sessions and leaving.

use super::*;

#[test]
fn heartbeats_by_state() {
    let mut f = Fixture::new();
    assert_eq!(f.heartbeat("x", 0), ErrorCode::UnknownMemberId);
    let (member_id, _) = f.enter();
    assert_eq!(f.heartbeat(&member_id, 0), ErrorCode::RebalanceInProgress);
    f.sleep(0);
    assert_eq!(f.state(), State::CompletingRebalance);
    assert_eq!(f.heartbeat(&member_id, 1), ErrorCode::None);
    assert_eq!(f.heartbeat(&member_id, 0), ErrorCode::IllegalGeneration);
    f.synced_now(&member_id, 1, &[]);
    assert_eq!(f.heartbeat(&member_id, 1), ErrorCode::None);
    assert_eq!(f.heartbeat("x", 1), ErrorCode::UnknownMemberId);
    assert_eq!(
        f.heartbeat_as(&member_id, Some("x"), 1),
        ErrorCode::UnknownMemberId
    );
    f.leave(&[(&member_id, None)]);
    assert_eq!(f.state(), State::Empty);
    assert_eq!(f.heartbeat(&member_id, 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_heartbeat_needs_a_group_id() {
    let mut f = Fixture::new();
    let request = HeartbeatRequest::default();
    let token =
        f.call(|coordinator, now, caller, out| coordinator.heartbeat(now, caller, request, out));
    let Reply::Heartbeat(response) = f.reply(token) else {
        panic!()
    };
    assert_eq!(response.error_code, ErrorCode::InvalidGroupId);
}

#[test]
fn a_silent_member_is_dropped_after_its_session() {
    let mut f = Fixture::new();
    let members = f.stable(2);
    f.sleep(9_000);
    assert_eq!(f.heartbeat(&members[0], 1), ErrorCode::None);
    f.sleep(999);
    assert_eq!(f.heartbeat(&members[0], 1), ErrorCode::None);
    f.sleep(1);
    assert_eq!(f.state(), State::PreparingRebalance);
    assert_eq!(f.heartbeat(&members[1], 1), ErrorCode::UnknownMemberId);
    assert_eq!(f.heartbeat(&members[0], 1), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_group_whose_members_all_vanish_is_empty_in_a_new_generation() {
    let mut f = Fixture::new();
    f.stable(2);
    f.sleep(i64::from(SESSION_MS));
    assert_eq!((f.state(), f.generation()), (State::Empty, 2));
    f.reload();
    assert_eq!((f.state(), f.generation()), (State::Empty, 2));
}

#[test]
fn sessions_start_anew_with_a_reload() {
    let mut f = Fixture::new();
    let members = f.stable(1);
    f.sleep(9_999);
    f.reload();
    f.sleep(9_999);
    assert_eq!(f.heartbeat(&members[0], 1), ErrorCode::None);
    f.reload();
    f.sleep(10_000);
    assert_eq!(f.state(), State::Empty);
}

#[test]
fn a_member_that_waits_in_a_round_does_not_expire() {
    let mut f = Fixture::new();
    let members = f.stable(2);
    let token = f.join(join(&members[0]));
    for _ in 0..5 {
        f.sleep(9_000);
        f.heartbeat(&members[1], 1);
    }
    assert!(f.is_parked(token));
    f.join(join(&members[1]));
    assert_eq!(f.joined(token).generation_id, 2);
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut f = Fixture::new();
    let members = f.stable(1);
    for _ in 0..3 {
        f.sleep(9_000);
        assert_eq!(f.commit(&members[0], 1), ErrorCode::None);
    }
    assert_eq!(f.state(), State::Stable);
}

#[test]
fn leaving_starts_a_round_and_the_last_one_empties_the_group() {
    let mut f = Fixture::new();
    let members = f.stable(2);
    assert_eq!(f.leave(&[(&members[0], None)]), [ErrorCode::None]);
    assert_eq!(f.state(), State::PreparingRebalance);
    assert_eq!(
        f.leave(&[(&members[0], None)]),
        [ErrorCode::UnknownMemberId]
    );
    assert_eq!(f.leave(&[(&members[1], None)]), [ErrorCode::None]);
    assert_eq!((f.state(), f.generation()), (State::Empty, 2));
}

#[test]
fn the_last_one_missing_completes_the_round_by_leaving() {
    let mut f = Fixture::new();
    let members = f.stable(2);
    let token = f.join(join(&members[0]));
    f.leave(&[(&members[1], None)]);
    assert_eq!(f.joined(token).members.len(), 1);
}

#[test]
fn who_leaves_while_it_waits_in_a_round_hears_so() {
    let mut f = Fixture::new();
    let members = f.stable(2);
    let token = f.join(join(&members[0]));
    f.leave(&[(&members[0], None)]);
    assert_eq!(f.joined(token).error_code, ErrorCode::UnknownMemberId);
}

#[test]
fn several_leave_at_once_and_start_one_round() {
    let mut f = Fixture::new();
    let members = f.stable(3);
    let errors = f.leave(&[(&members[0], None), ("x", None), (&members[1], None)]);
    let unknown = ErrorCode::UnknownMemberId;
    assert_eq!(errors, [ErrorCode::None, unknown, ErrorCode::None]);
    assert_eq!(f.state(), State::PreparingRebalance);
    assert_eq!(f.heartbeat(&members[2], 1), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_promised_id_can_leave() {
    let mut f = Fixture::new();
    let promised = f.joined_now(join("")).member_id;
    assert_eq!(f.leave(&[(&promised, None)]), [ErrorCode::None]);
    assert_eq!(
        f.joined_now(join(&promised)).error_code,
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn old_versions_leave_one_by_one() {
    let mut f = Fixture::new();
    let members = f.stable(1);
    f.version = 2;
    let request = |group_id: &str, member_id: &str| LeaveGroupRequest {
        group_id: group_id.into(),
        member_id: member_id.into(),
        members: vec![],
    };
    for (group_id, member_id, error) in [
        ("", "x", ErrorCode::InvalidGroupId),
        ("other", "x", ErrorCode::UnknownMemberId),
        (GROUP, "x", ErrorCode::UnknownMemberId),
        (GROUP, &*members[0], ErrorCode::None),
    ] {
        let response = f.left(request(group_id, member_id));
        assert_eq!(response.error_code, error);
        assert_eq!(response.members, vec![]);
    }
}

#[test]
fn leaving_an_unknown_group_names_each_member() {
    let mut f = Fixture::new();
    let errors = f.leave(&[("a", None), ("", Some("b"))]);
    assert_eq!(errors, [ErrorCode::UnknownMemberId; 2]);
}
