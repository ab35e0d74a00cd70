//! Static members (KIP-345).

use super::*;
use std::time::Duration;

/// A stable group of static members `a`, `b`, ...; their ids in that order. `a` leads.
fn stable_statics(f: &mut Fixture, instances: &[&str]) -> Vec<String> {
    let tokens: Vec<_> = instances
        .iter()
        .map(|id| f.join(join_static("", id)))
        .collect();
    f.sleep(0);
    let members: Vec<_> = tokens
        .iter()
        .map(|token| f.joined(*token).member_id)
        .collect();
    for member_id in &members {
        f.synced_now(member_id, 1, &members);
    }
    assert_eq!(f.state(), State::Stable);
    members
}

#[test]
fn a_static_member_joins_without_a_second_trip() {
    let mut f = Fixture::new();
    let members = stable_statics(&mut f, &["a", "b"]);
    assert!(members[0].starts_with("a-"));
    assert_eq!(f.heartbeat_as(&members[0], Some("a"), 1), ErrorCode::None);
    assert_eq!(
        f.heartbeat_as(&members[0], Some("b"), 1),
        ErrorCode::FencedInstanceId
    );
}

#[test]
fn a_follower_that_restarts_keeps_its_assignment_without_a_round() {
    let mut f = Fixture::new();
    let members = stable_statics(&mut f, &["a", "b"]);
    let response = f.joined_now(join_static("", "b"));
    assert_eq!(response.error_code, ErrorCode::None);
    assert_eq!(response.generation_id, 1);
    assert_eq!(response.leader, members[0]);
    assert!(!response.skip_assignment);
    assert_ne!(response.member_id, members[1]);
    assert_eq!(f.state(), State::Stable);
    let assignment = f.synced_now(&response.member_id, 1, &[]).0;
    assert_eq!(assignment, members[1], "what the old one had");
    let fenced = ErrorCode::FencedInstanceId;
    assert_eq!(f.heartbeat_as(&members[1], Some("b"), 1), fenced);
    assert_eq!(f.heartbeat(&members[1], 1), ErrorCode::UnknownMemberId);
    let old = f.joined_now(join_static(&members[1], "b"));
    assert_eq!((old.error_code, old.protocol_name), (fenced, None));
    f.reload();
    assert_eq!(
        f.heartbeat_as(&response.member_id, Some("b"), 1),
        ErrorCode::None
    );
}

#[test]
fn a_leader_that_restarts_skips_the_assignment_from_version_9() {
    let mut f = Fixture::new();
    let members = stable_statics(&mut f, &["a", "b"]);
    let leader = match f.coordinator.groups[GROUP].leader.as_ref() == Some(&members[0]) {
        true => "a",
        false => "b",
    };
    let response = f.joined_now(join_static("", leader));
    assert!(response.skip_assignment);
    assert_eq!(response.leader, response.member_id);
    assert_eq!(response.members.len(), 2);
    f.version = 8;
    let older = f.joined_now(join_static("", leader));
    assert!(!older.skip_assignment);
    assert_eq!(
        older.leader, response.member_id,
        "told that somebody else leads"
    );
    assert_eq!(older.members, vec![]);
}

#[test]
fn a_restart_that_changes_the_protocol_starts_a_round() {
    let mut f = Fixture::new();
    let mut request = join_static("", "a");
    request.protocols = protocols(&["range", "sticky"]);
    let token = f.join(request);
    f.sleep(0);
    let member_id = f.joined(token).member_id;
    f.synced_now(&member_id, 1, &[]);
    let mut request = join_static("", "a");
    request.protocols = protocols(&["sticky", "range"]);
    let response = f.joined_now(request);
    assert_eq!(response.generation_id, 2);
    assert_eq!(response.protocol_name.as_deref(), Some("sticky"));
}

#[test]
fn a_restart_in_a_round_fences_the_call_that_waits() {
    let mut f = Fixture::new();
    let members = stable_statics(&mut f, &["a", "b"]);
    let leader = f.coordinator.groups[GROUP].leader.clone().expect("stable");
    let (instance, other) = match leader == members[0] {
        true => ("a", "b"),
        false => ("b", "a"),
    };
    let waiting = f.join(join_static(&leader, instance));
    assert!(f.is_parked(waiting));
    let token = f.join(join_static("", instance));
    let fenced = f.joined(waiting);
    assert_eq!(fenced.error_code, ErrorCode::FencedInstanceId);
    assert_eq!(fenced.member_id, leader);
    assert!(f.is_parked(token));
    f.join(join_static("", other));
    assert_eq!(f.joined(token).generation_id, 2);
}

#[test]
fn a_restart_between_join_and_sync_starts_a_round() {
    let mut f = Fixture::new();
    let tokens = ["a", "b"].map(|id| f.join(join_static("", id)));
    f.sleep(0);
    let joined = tokens.map(|token| f.joined(token));
    let follower = joined
        .iter()
        .position(|r| r.member_id != r.leader)
        .expect("one leads");
    let waiting = f.sync(&joined[follower].member_id, 1, &[]);
    f.join(join_static("", ["a", "b"][follower]));
    assert_eq!(f.synced(waiting).1, ErrorCode::FencedInstanceId);
    assert_eq!(f.state(), State::PreparingRebalance);
}

#[test]
fn static_members_that_do_not_rejoin_stay_until_their_session_ends() {
    let mut f = Fixture::new();
    let members = stable_statics(&mut f, &["a", "b"]);
    let leader = f.coordinator.groups[GROUP].leader.clone().expect("stable");
    let other = members
        .iter()
        .find(|id| **id != leader)
        .expect("two members");
    let instance = if leader == members[0] { "a" } else { "b" };
    let token = f.join(join_static(&leader, instance));
    for _ in 0..12 {
        f.sleep(5_000);
        f.heartbeat(other, 1);
    }
    assert_eq!(
        f.joined(token).members.len(),
        2,
        "the silent one is still there"
    );
    f.synced_now(&leader, 2, &[]);
    f.heartbeat(&leader, 2);
    f.sleep(10_000);
    assert_eq!(f.heartbeat(other, 2), ErrorCode::UnknownMemberId);
}

#[test]
fn a_round_without_anybody_is_tried_again() {
    let mut f = Fixture::new();
    let members = stable_statics(&mut f, &["a", "b", "c"]);
    assert_eq!(f.leave(&[("", Some("c"))]), [ErrorCode::None]);
    assert_eq!(f.state(), State::PreparingRebalance);
    for _ in 0..20 {
        f.sleep(7_000);
        for member_id in &members[..2] {
            assert_eq!(f.heartbeat(member_id, 1), ErrorCode::RebalanceInProgress);
        }
    }
    assert_eq!((f.state(), f.generation()), (State::PreparingRebalance, 1));
}

#[test]
fn an_administrator_removes_by_instance_id() {
    let mut f = Fixture::new();
    let members = stable_statics(&mut f, &["a", "b"]);
    let errors = f.leave(&[("", Some("x")), (&members[0], Some("b")), ("", Some("b"))]);
    assert_eq!(
        errors,
        [
            ErrorCode::UnknownMemberId,
            ErrorCode::FencedInstanceId,
            ErrorCode::None
        ]
    );
    assert_eq!(f.heartbeat(&members[1], 1), ErrorCode::UnknownMemberId);
    assert_eq!(f.state(), State::PreparingRebalance);
}

#[test]
fn an_instance_id_does_not_go_with_a_promised_id() {
    let mut f = Fixture::new();
    let promised = f.joined_now(join("")).member_id;
    let response = f.joined_now(join_static(&promised, "a"));
    assert_eq!(response.error_code, ErrorCode::UnknownServerError);
}

#[test]
fn a_round_without_time_that_nobody_comes_to_is_not_repeated_at_once() {
    let mut f = Fixture::new();
    let mut hasty = join_static("", "b");
    hasty.rebalance_timeout_ms = 0;
    let tokens = [join_static("", "a"), hasty.clone()].map(|request| f.join(request));
    f.sleep(0);
    let members = tokens.map(|token| f.joined(token).member_id);
    for member_id in &members {
        f.synced_now(member_id, 1, &members);
    }
    f.leave(&[(&members[0], None)]);
    f.step(Coordinator::on_deadline);
    let next = f.coordinator.next_deadline().unwrap();
    assert_eq!(next.since(f.now.mono), Duration::from_secs(1));
    let token = f.join(hasty);
    assert_eq!(f.joined(token).generation_id, 2, "who comes ends the round");
}
