//! What administrators see.

use super::*;
use crate::wire::messages::list_groups::ListGroupsRequest;

fn describe(f: &mut Fixture, group_id: &str) -> DescribedGroup {
    let token = f.call(|coordinator, _, caller, out| coordinator.describe(caller, group_id, out));
    match f.reply(token) {
        Reply::Describe(described) => described,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_group_is_dead() {
    let mut f = Fixture::new();
    let described = describe(&mut f, "x");
    assert_eq!(described.error_code, ErrorCode::None);
    assert_eq!(
        (&*described.group_id, &*described.group_state),
        ("x", "Dead")
    );
}

#[test]
fn metadata_is_shown_while_the_group_is_stable() {
    let mut f = Fixture::new();
    let (member_id, _) = f.enter();
    let described = describe(&mut f, GROUP);
    assert_eq!(described.group_state, "PreparingRebalance");
    assert_eq!(described.protocol_type, "consumer");
    assert_eq!(described.protocol_data, "");
    assert_eq!(described.members[0].member_metadata, "");
    f.sleep(0);
    let described = describe(&mut f, GROUP);
    assert_eq!(described.group_state, "CompletingRebalance");
    assert_eq!(
        (
            &*described.protocol_data,
            &*described.members[0].member_metadata
        ),
        ("", &b""[..])
    );
    f.synced_now(&member_id, 1, std::slice::from_ref(&member_id));
    let described = describe(&mut f, GROUP);
    assert_eq!(described.group_state, "Stable");
    assert_eq!(described.protocol_data, "range");
    let member = &described.members[0];
    assert_eq!(member.member_id, member_id);
    assert_eq!(
        (&*member.client_id, &*member.client_host),
        ("client", "/127.0.0.1")
    );
    assert_eq!(member.member_metadata, "metadata of range");
    assert_eq!(member.member_assignment, member_id);
    f.reload();
    assert_eq!(describe(&mut f, GROUP), described);
    f.leave(&[(&member_id, None)]);
    let described = describe(&mut f, GROUP);
    assert_eq!(
        (&*described.group_state, &*described.protocol_type),
        ("Empty", "consumer")
    );
}

#[test]
fn lists_go_by_state_and_type() {
    let mut f = Fixture::new();
    f.stable(1);
    let mut request = commit("", -1);
    request.group_id = "simple".into();
    f.commit_all(request);
    let mut list = |states: &[&str], types: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let request = ListGroupsRequest {
            states_filter: owned(states),
            types_filter: owned(types),
        };
        let token = f.call(|coordinator, _, caller, out| coordinator.list(caller, &request, out));
        let Reply::List(listed) = f.reply(token) else {
            panic!()
        };
        let listed = listed.into_iter();
        listed
            .map(|group| (group.group_id, group.protocol_type, group.group_state))
            .collect::<Vec<_>>()
    };
    let stable = ("g".to_owned(), "consumer".to_owned(), "Stable".to_owned());
    let simple = ("simple".to_owned(), String::new(), "Empty".to_owned());
    let both: Vec<_> = vec![stable.clone(), simple.clone()];
    assert_eq!(list(&[], &[]), both);
    assert_eq!(list(&["stable "], &[]), [stable]);
    assert_eq!(list(&["Empty", "Dead"], &["Classic"]), [simple]);
    assert_eq!(list(&["nonsense"], &[]), []);
    assert_eq!(list(&[], &["classic", "consumer"]), both);
    assert_eq!(list(&[], &["consumer"]), []);
    assert_eq!(list(&[], &["classic "]), [], "types are not trimmed");
}
