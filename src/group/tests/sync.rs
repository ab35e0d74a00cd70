//! Assignments.

use super::*;

/// Two members that have joined generation 1 and not synced; the leader first.
fn two_joined(f: &mut Fixture) -> [String; 2] {
    let (first, token) = f.enter();
    let (second, _) = f.enter();
    f.sleep(0);
    match f.joined(token).leader == first {
        true => [first, second],
        false => [second, first],
    }
}

#[test]
fn followers_wait_for_the_leader() {
    let mut f = Fixture::new();
    let [leader, follower] = two_joined(&mut f);
    let waiting = f.sync(&follower, 1, &[]);
    assert!(f.is_parked(waiting));
    let assigned = [leader.clone(), follower.clone(), "nobody".to_owned()];
    let own = f.synced_now(&leader, 1, &assigned);
    assert_eq!(own, (Bytes::from(leader.clone()), ErrorCode::None));
    assert_eq!(
        f.synced(waiting),
        (Bytes::from(follower.clone()), ErrorCode::None)
    );
    assert_eq!(f.state(), State::Stable);
    let again = f.synced_now(&follower, 1, &[]);
    assert_eq!(again.0, follower);
}

#[test]
fn a_member_that_the_leader_forgot_gets_nothing() {
    let mut f = Fixture::new();
    let [leader, follower] = two_joined(&mut f);
    f.synced_now(&leader, 1, std::slice::from_ref(&leader));
    assert_eq!(
        f.synced_now(&follower, 1, &[]),
        (Bytes::new(), ErrorCode::None)
    );
}

#[test]
fn a_sync_must_fit_the_generation() {
    let mut f = Fixture::new();
    let [leader, _] = two_joined(&mut f);
    f.version = 5;
    let ask = |f: &mut Fixture, change: fn(&mut SyncGroupRequest)| {
        let mut request = sync(&leader, 1, &[]);
        change(&mut request);
        let token =
            f.call(|coordinator, now, caller, out| coordinator.sync(now, caller, request, out));
        f.synced(token).1
    };
    assert_eq!(
        ask(&mut f, |r| r.group_id.clear()),
        ErrorCode::InvalidGroupId
    );
    assert_eq!(
        ask(&mut f, |r| r.group_id = "x".into()),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        ask(&mut f, |r| r.member_id = "x".into()),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        ask(&mut f, |r| r.generation_id = 2),
        ErrorCode::IllegalGeneration
    );
    let inconsistent = ErrorCode::InconsistentGroupProtocol;
    assert_eq!(
        ask(&mut f, |r| r.protocol_type = Some("x".into())),
        inconsistent
    );
    assert_eq!(
        ask(&mut f, |r| r.protocol_name = Some("x".into())),
        inconsistent
    );
    assert_eq!(ask(&mut f, |r| r.protocol_name = None), inconsistent);
    f.version = 4;
    assert_eq!(ask(&mut f, |r| r.protocol_name = None), ErrorCode::None);
}

#[test]
fn who_does_not_sync_in_time_is_dropped() {
    let mut f = Fixture::new();
    let [leader, follower] = two_joined(&mut f);
    f.synced_now(&leader, 1, &[]);
    for _ in 0..11 {
        f.sleep(5_000);
        f.heartbeat(&leader, 1);
        assert_eq!(f.heartbeat(&follower, 1), ErrorCode::None);
    }
    f.sleep(5_000);
    assert_eq!(f.heartbeat(&follower, 1), ErrorCode::UnknownMemberId);
    assert_eq!(f.heartbeat(&leader, 1), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_leader_that_does_not_sync_frees_its_followers() {
    let mut f = Fixture::new();
    let [leader, follower] = two_joined(&mut f);
    let waiting = f.sync(&follower, 1, &[]);
    f.sleep(i64::from(SESSION_MS));
    assert_eq!(f.synced(waiting).1, ErrorCode::RebalanceInProgress);
    assert_eq!(f.state(), State::PreparingRebalance);
    assert_eq!(f.heartbeat(&leader, 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_round_that_starts_meanwhile_frees_who_waits() {
    let mut f = Fixture::new();
    let [_, follower] = two_joined(&mut f);
    let waiting = f.sync(&follower, 1, &[]);
    f.enter();
    assert_eq!(f.synced(waiting).1, ErrorCode::RebalanceInProgress);
    assert_eq!(
        f.synced_now(&follower, 1, &[]).1,
        ErrorCode::RebalanceInProgress
    );
}

#[test]
fn who_leaves_while_it_waits_hears_so() {
    let mut f = Fixture::new();
    let [_, follower] = two_joined(&mut f);
    let waiting = f.sync(&follower, 1, &[]);
    assert_eq!(f.leave(&[(&follower, None)]), [ErrorCode::None]);
    assert_eq!(f.synced(waiting).1, ErrorCode::UnknownMemberId);
}

#[test]
fn a_second_sync_of_a_member_releases_the_first() {
    let mut f = Fixture::new();
    let [leader, follower] = two_joined(&mut f);
    let first = f.sync(&follower, 1, &[]);
    let second = f.sync(&follower, 1, &[]);
    assert_eq!(f.synced(first).1, ErrorCode::RebalanceInProgress);
    f.synced_now(&leader, 1, std::slice::from_ref(&follower));
    assert_eq!(f.synced(second).0, follower);
}

#[test]
fn a_leader_whose_assignment_cannot_be_stored_hears_so_and_the_group_is_as_before() {
    let mut f = Fixture::new();
    let members = f.stable(2);
    let tokens: Vec<_> = members.iter().map(|id| f.join(join(id))).collect();
    let leader = f.joined(tokens[0]).leader;
    let follower = members
        .iter()
        .find(|id| **id != leader)
        .expect("two members");
    let waiting = f.sync(follower, 2, &[]);
    f.fail_append();
    assert_eq!(
        f.synced_now(&leader, 2, &members).1,
        ErrorCode::NotCoordinator
    );
    assert_eq!(f.synced(waiting).1, ErrorCode::NotCoordinator);
    assert_eq!((f.state(), f.generation()), (State::Stable, 1));
    assert_eq!(f.heartbeat(&leader, 2), ErrorCode::IllegalGeneration);
}

#[test]
fn a_reload_in_the_middle_of_a_generation_brings_back_the_one_before() {
    let mut f = Fixture::new();
    let members = f.stable(2);
    let tokens: Vec<_> = members.iter().map(|id| f.join(join(id))).collect();
    assert_eq!(f.joined(tokens[1]).generation_id, 2);
    f.reload();
    assert_eq!(
        f.synced_now(&members[0], 2, &[]).1,
        ErrorCode::IllegalGeneration
    );
    assert_eq!(f.synced_now(&members[0], 1, &[]).0, members[0]);
}

#[test]
fn a_reload_answers_who_waits() {
    let mut f = Fixture::new();
    let members = f.stable(2);
    let joining = f.join(join(&members[0]));
    f.reload();
    let response = f.joined(joining);
    assert_eq!(response.error_code, ErrorCode::NotCoordinator);
    assert_eq!(f.state(), State::Stable);
}
