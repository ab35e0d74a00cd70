//! How groups and offsets go away.

use super::*;
use crate::wire::records::consumer_protocol::ConsumerProtocolSubscription;
use crate::wire::records::encode_value;

const DAY_MS: i64 = 24 * 3_600_000;
const CHECK_MS: i64 = 600_000;

#[test]
fn offsets_live_seven_days_after_the_group_became_empty() {
    let mut f = Fixture::new();
    let members = f.stable(1);
    f.commit(&members[0], 1);
    for _ in 0..2_000 {
        f.sleep(9_000);
        f.heartbeat(&members[0], 1);
    }
    f.leave(&[(&members[0], None)]);
    f.sleep(7 * DAY_MS - CHECK_MS);
    assert_eq!(f.offset(0), 7);
    f.reload();
    f.sleep(2 * CHECK_MS);
    assert_eq!(f.offset(0), -1);
    assert_eq!(f.state(), State::Dead);
}

#[test]
fn offsets_of_a_simple_group_live_seven_days_each() {
    let mut f = Fixture::new();
    f.commit("", -1);
    f.sleep(4 * DAY_MS);
    let mut request = commit("", -1);
    request.topics[0].partitions[0].partition_index = 1;
    f.commit_all(request);
    f.sleep(4 * DAY_MS);
    assert_eq!([f.offset(0), f.offset(1)], [-1, 7]);
    f.sleep(4 * DAY_MS);
    assert_eq!(f.state(), State::Dead);
}

#[test]
fn an_old_client_may_say_how_long() {
    let mut f = Fixture::new();
    f.version = 4;
    let mut request = commit("", -1);
    request.retention_time_ms = DAY_MS;
    f.commit_all(request);
    f.reload();
    f.sleep(DAY_MS - CHECK_MS);
    assert_eq!(f.offset(0), 7);
    f.sleep(2 * CHECK_MS);
    assert_eq!(f.offset(0), -1);
}

/// Offsets live for 30 s here.
fn short_lived() -> Fixture {
    let mut f = Fixture::with(|config| {
        config.offsets_retention_ms = 30_000;
        config.offsets_retention_check_interval_ms = 10_000;
    });
    f.version = 3;
    f
}

/// Joins, commits offset 7 of `t`, and lives for 100 s.
fn live(f: &mut Fixture, request: JoinGroupRequest) {
    let token = f.join(request);
    f.sleep(0);
    let member_id = f.joined(token).member_id;
    let mut request = sync(&member_id, 1, &[]);
    request.protocol_type = None;
    f.call(|coordinator, now, caller, out| coordinator.sync(now, caller, request, out));
    assert_eq!(f.commit(&member_id, 1), ErrorCode::None);
    for _ in 0..20 {
        f.sleep(5_000);
        assert_eq!(f.heartbeat(&member_id, 1), ErrorCode::None);
    }
}

#[test]
fn offsets_of_a_living_group_do_not_expire() {
    for protocol_type in ["consumer", "connect"] {
        let mut f = short_lived();
        let mut request = join("");
        request.protocol_type = protocol_type.into();
        live(&mut f, request);
        assert_eq!(f.offset(0), 7);
    }
}

#[test]
fn offsets_of_topics_that_consumers_no_longer_read_expire() {
    for (topic, offset) in [("t", 7), ("u", -1)] {
        let mut f = short_lived();
        let subscription = ConsumerProtocolSubscription {
            topics: vec![topic.into()],
            ..Default::default()
        };
        let mut request = join("");
        request.protocols[0].metadata = encode_value(&subscription, 0);
        live(&mut f, request);
        assert_eq!(f.offset(0), offset);
        assert_eq!(f.state(), State::Stable);
    }
}

#[test]
fn a_group_that_nobody_ever_joined_is_a_simple_one() {
    let mut f = Fixture::new();
    f.joined_now(join(""));
    f.sleep(CHECK_MS - 1_000);
    f.commit("", -1);
    f.sleep(7 * DAY_MS - CHECK_MS);
    f.sleep(2_000);
    assert_eq!(
        f.offset(0),
        7,
        "counted from the commit, not from the group's birth"
    );
    f.sleep(2 * CHECK_MS);
    assert_eq!(f.state(), State::Dead);
}

#[test]
fn an_empty_group_without_offsets_goes_with_the_next_check() {
    let mut f = Fixture::new();
    let members = f.stable(1);
    f.leave(&[(&members[0], None)]);
    f.sleep(CHECK_MS);
    assert_eq!(f.state(), State::Dead);
}

#[test]
fn only_empty_groups_can_be_deleted() {
    let mut f = Fixture::new();
    assert_eq!(f.delete_group(GROUP), ErrorCode::GroupIdNotFound);
    let members = f.stable(1);
    f.commit(&members[0], 1);
    assert_eq!(f.delete_group(GROUP), ErrorCode::NonEmptyGroup);
    f.leave(&[(&members[0], None)]);
    assert_eq!(f.delete_group(GROUP), ErrorCode::None);
    assert_eq!((f.state(), f.offset(0)), (State::Dead, -1));
    f.reload();
    assert_eq!(f.state(), State::Dead);
}

#[test]
fn a_group_named_twice_is_deleted_once() {
    let mut f = Fixture::new();
    f.commit("", -1);
    let group_ids = [GROUP.to_owned(), GROUP.to_owned()];
    let token =
        f.call(|coordinator, _, caller, out| coordinator.delete_groups(caller, &group_ids, out));
    let Reply::DeleteGroups(results) = f.reply(token) else {
        panic!()
    };
    assert_eq!(results.len(), 1);
    assert_eq!(f.log.len(), 3, "the commit and two tombstones");
}

#[test]
fn a_failed_append_leaves_no_group_behind() {
    let mut f = Fixture::new();
    f.fail_append();
    let response = f.joined_now(join(""));
    assert_eq!(response.error_code, ErrorCode::NotCoordinator);
    assert_eq!(f.state(), State::Dead);
}

#[test]
#[should_panic(expected = "replayed before the next call")]
fn nothing_is_decided_on_records_that_are_not_replayed() {
    let mut f = Fixture::new();
    let caller = Caller {
        token: Token(1),
        api_version: 9,
        client_id: "client",
        client_host: "/127.0.0.1",
    };
    let mut out = Output::default();
    f.coordinator.join(f.now, caller, join(""), &mut out);
    f.coordinator.join(f.now, caller, join(""), &mut out);
}
