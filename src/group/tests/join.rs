//! Newcomers and rounds.

use super::*;

#[test]
fn the_first_member_leads_generation_one() {
    let mut f = Fixture::new();
    let (member_id, token) = f.enter();
    assert!(member_id.starts_with("client-"));
    f.sleep(0);
    let response = f.joined(token);
    assert_eq!(response.error_code, ErrorCode::None);
    assert_eq!(response.generation_id, 1);
    assert_eq!(response.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(response.protocol_name.as_deref(), Some("range"));
    assert_eq!(response.leader, member_id);
    assert_eq!(response.members.len(), 1);
    assert_eq!(response.members[0].metadata, "metadata of range");
    assert_eq!(f.state(), State::CompletingRebalance);
}

#[test]
fn what_is_wrong_with_a_request_is_said_first() {
    let mut f = Fixture::new();
    type Spoil = fn(&mut JoinGroupRequest);
    let cases: [(ErrorCode, Spoil); 6] = [
        (ErrorCode::InvalidGroupId, |r| r.group_id.clear()),
        (ErrorCode::InvalidSessionTimeout, |r| {
            r.session_timeout_ms = 5_999
        }),
        (ErrorCode::InvalidSessionTimeout, |r| {
            r.session_timeout_ms = 1_800_001
        }),
        (ErrorCode::UnknownMemberId, |r| r.member_id = "x".into()),
        (ErrorCode::InconsistentGroupProtocol, |r| {
            r.protocols.clear()
        }),
        (ErrorCode::InconsistentGroupProtocol, |r| {
            r.protocol_type.clear()
        }),
    ];
    for (error, spoil) in cases {
        let mut request = join("");
        spoil(&mut request);
        let member_id = request.member_id.clone();
        let response = f.joined_now(request);
        assert_eq!(response.error_code, error);
        assert_eq!(response.member_id, member_id);
        assert_eq!(response.generation_id, -1);
    }
}

#[test]
fn old_versions_join_at_once() {
    let mut f = Fixture::new();
    f.version = 3;
    let token = f.join(join(""));
    assert!(f.is_parked(token));
    f.sleep(0);
    assert_eq!(f.joined(token).error_code, ErrorCode::None);
}

#[test]
fn version_0_waits_as_long_as_its_session() {
    let mut f = Fixture::new();
    f.version = 0;
    let mut request = join("");
    request.rebalance_timeout_ms = -1;
    let token = f.join(request);
    f.sleep(0);
    assert_eq!(f.joined(token).error_code, ErrorCode::None);
    assert_eq!(
        f.coordinator.groups[GROUP].rebalance_timeout_ms(),
        i64::from(SESSION_MS)
    );
}

#[test]
fn an_id_that_is_not_used_expires_with_its_session() {
    let mut f = Fixture::new();
    let response = f.joined_now(join(""));
    f.sleep(i64::from(SESSION_MS));
    let response = f.joined_now(join(&response.member_id));
    assert_eq!(response.error_code, ErrorCode::UnknownMemberId);
}

#[test]
fn a_promised_id_holds_a_round_open() {
    let mut f = Fixture::new();
    let members = f.stable(1);
    let promised = f.joined_now(join("")).member_id;
    let token = f.join(join(&members[0]));
    assert!(f.is_parked(token), "the newcomer with an id may still come");
    let newcomer = f.join(join(&promised));
    assert_eq!(f.joined(token).generation_id, 2);
    assert_eq!(f.joined(newcomer).generation_id, 2);
}

#[test]
fn the_initial_delay_is_extended_while_members_come() {
    let mut f = Fixture::with(|config| config.initial_rebalance_delay_ms = 3_000);
    let (_, first) = f.enter();
    f.sleep(2_000);
    let (_, second) = f.enter();
    f.sleep(2_000);
    assert!(f.is_parked(first), "the second member moved the end to 6 s");
    let (_, third) = f.enter();
    f.sleep(2_000);
    assert!(f.is_parked(first), "the third moved it to 9 s");
    f.sleep(3_000);
    for token in [first, second, third] {
        assert_eq!(f.joined(token).generation_id, 1);
    }
}

#[test]
fn the_initial_delay_ends_with_the_rebalance_timeout() {
    let mut f = Fixture::with(|config| config.initial_rebalance_delay_ms = 3_000);
    let mut request = join("");
    request.rebalance_timeout_ms = 5_000;
    f.version = 3;
    let first = f.join(request.clone());
    for _ in 0..4 {
        f.sleep(1_000);
        f.join(request.clone());
    }
    f.sleep(999);
    assert!(f.is_parked(first));
    f.sleep(1);
    assert_eq!(f.joined(first).members.len(), 5);
}

#[test]
fn who_does_not_rejoin_in_time_is_dropped() {
    let mut f = Fixture::new();
    let members = f.stable(3);
    let token = f.join(join(&members[0]));
    f.join(join(&members[1]));
    assert_eq!(f.state(), State::PreparingRebalance);
    for _ in 0..12 {
        assert!(f.is_parked(token));
        assert_eq!(f.heartbeat(&members[2], 1), ErrorCode::RebalanceInProgress);
        f.sleep(5_000);
    }
    let response = f.joined(token);
    assert_eq!(response.generation_id, 2);
    assert_eq!(response.members.len(), 2);
    assert_eq!(f.heartbeat(&members[2], 1), ErrorCode::UnknownMemberId);
}

#[test]
fn in_a_stable_group_the_leader_starts_a_round_and_a_follower_goes_on() {
    let mut f = Fixture::new();
    let members = f.stable(2);
    let response = f.joined_now(join(&members[1]));
    assert_eq!((response.generation_id, response.members), (1, vec![]));
    assert_eq!(f.state(), State::Stable);
    let leader = f.join(join(&members[0]));
    let follower = f.join(join(&members[1]));
    let response = f.joined(leader);
    assert_eq!(
        (response.generation_id, response.leader),
        (2, members[0].clone())
    );
    assert_eq!(f.joined(follower).leader, members[0], "it leads again");
}

#[test]
fn another_member_leads_if_the_leader_does_not_come() {
    let mut f = Fixture::new();
    let members = f.stable(2);
    let mut request = join(&members[1]);
    request.protocols = protocols(&["range", "sticky"]);
    let token = f.join(request);
    for _ in 0..12 {
        assert!(f.is_parked(token));
        f.heartbeat(&members[0], 1);
        f.sleep(5_000);
    }
    let response = f.joined(token);
    assert_eq!(response.leader, members[1]);
    assert_eq!(response.generation_id, 2);
}

#[test]
fn a_member_with_the_same_metadata_gets_a_generation_in_progress_again() {
    let mut f = Fixture::new();
    let (first, token) = f.enter();
    let (second, _) = f.enter();
    f.sleep(0);
    let leader = f.joined(token).leader;
    let follower = if leader == first { second } else { first };
    let again = f.joined_now(join(&leader));
    assert_eq!((again.generation_id, again.members.len()), (1, 2));
    let again = f.joined_now(join(&follower));
    assert_eq!((again.generation_id, again.members.len()), (1, 0));
    let mut changed = join(&follower);
    changed.protocols = protocols(&["range", "sticky"]);
    f.join(changed);
    assert_eq!(f.state(), State::PreparingRebalance);
}

#[test]
fn the_protocol_that_all_know_with_most_votes_wins() {
    let mut f = Fixture::new();
    f.version = 3;
    let mut tokens = vec![];
    for names in [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "b", "a"],
        ["b", "a", "c"],
    ] {
        let mut request = join("");
        request.protocols = protocols(&names);
        tokens.push(f.join(request));
    }
    let mut request = join("");
    request.protocols = protocols(&["d"]);
    let error = f.joined_now(request).error_code;
    assert_eq!(error, ErrorCode::InconsistentGroupProtocol);
    let mut request = join("");
    request.protocol_type = "connect".into();
    request.protocols = protocols(&["a", "b", "c"]);
    let error = f.joined_now(request).error_code;
    assert_eq!(error, ErrorCode::InconsistentGroupProtocol);
    f.sleep(0);
    assert_eq!(f.joined(tokens[0]).protocol_name.as_deref(), Some("b"));
}

#[test]
fn who_joins_a_round_that_all_others_have_left_may_know_any_protocol() {
    let mut f = Fixture::new();
    let members = f.stable(1);
    let promised = f.joined_now(join("")).member_id;
    f.leave(&[(&members[0], None)]);
    assert_eq!(f.state(), State::PreparingRebalance);
    let token = f.join(JoinGroupRequest {
        protocols: protocols(&["another"]),
        ..join(&promised)
    });
    let response = f.joined(token);
    assert_eq!(response.error_code, ErrorCode::None);
    assert_eq!(response.protocol_name.as_deref(), Some("another"));
}

#[test]
fn a_full_group_takes_nobody_else() {
    let mut f = Fixture::with(|config| config.group_size_max = 2);
    f.version = 3;
    let first = f.join(join(""));
    f.join(join(""));
    let response = f.joined_now(join(""));
    assert_eq!(response.error_code, ErrorCode::GroupMaxSizeReached);
    f.sleep(0);
    let member_id = f.joined(first).member_id;
    let response = f.joined_now(join(""));
    assert_eq!(response.error_code, ErrorCode::GroupMaxSizeReached);
    let response = f.joined_now(join(&member_id));
    assert_eq!(response.error_code, ErrorCode::None);
}

#[test]
fn a_group_that_is_too_large_after_a_reload_rebalances_to_its_size() {
    let mut f = Fixture::new();
    let members = f.stable(3);
    f.config.group_size_max = 2;
    f.reload();
    assert_eq!(f.state(), State::PreparingRebalance);
    let tokens: Vec<_> = members.iter().map(|id| f.join(join(id))).collect();
    assert_eq!(
        f.joined(tokens[2]).error_code,
        ErrorCode::GroupMaxSizeReached
    );
}

#[test]
fn a_second_join_of_a_member_releases_the_first() {
    let mut f = Fixture::new();
    let members = f.stable(2);
    let first = f.join(join(&members[0]));
    let second = f.join(join(&members[0]));
    assert_eq!(f.joined(first).error_code, ErrorCode::RebalanceInProgress);
    assert!(f.is_parked(second));
}

#[test]
fn a_caller_whose_connection_is_gone_is_not_answered_but_has_joined() {
    let mut f = Fixture::new();
    let members = f.stable(2);
    let gone = f.join(join(&members[0]));
    f.step(|coordinator, _, _| coordinator.forget(gone));
    let token = f.join(join(&members[1]));
    assert_eq!(f.joined(token).generation_id, 2);
    assert!(f.is_parked(gone));
}

#[test]
fn a_newcomer_that_waits_too_long_is_dropped() {
    let mut f = Fixture::with(|config| config.new_member_join_timeout_ms = 20_000);
    let members = f.stable(1);
    let (newcomer, token) = f.enter();
    for _ in 0..4 {
        assert!(f.is_parked(token));
        f.sleep(5_000);
        f.heartbeat(&members[0], 1);
    }
    let response = f.joined(token);
    assert_eq!(response.error_code, ErrorCode::UnknownMemberId);
    assert_eq!(f.heartbeat(&newcomer, 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_very_long_client_name_still_makes_a_member_id_that_can_be_stored() {
    let mut f = Fixture::new();
    let name = "é".repeat(16_383);
    let token = f.token();
    f.step(|coordinator, now, out| {
        let caller = Caller {
            token,
            api_version: 3,
            client_id: &name,
            client_host: "/127.0.0.1",
        };
        coordinator.join(now, caller, join(""), out);
    });
    f.sleep(0);
    let member_id = f.joined(token).member_id;
    assert!(member_id.len() <= i16::MAX as usize);
    assert_eq!(f.synced_now(&member_id, 1, &[]).1, ErrorCode::None);
    f.reload();
    assert_eq!(f.heartbeat(&member_id, 1), ErrorCode::None);
}
