//! What administrators see: `DescribeGroups` and `ListGroups`.

use super::state::{Group, Member, Phase, State};
use super::{Caller, Coordinator, Output, Reply};
use crate::wire::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use crate::wire::messages::list_groups::{ListGroupsRequest, ListedGroup};

/// Kafka's name of our only type of group, and the lower-case form that filters may have.
const GROUP_TYPE: &str = "classic";

impl Coordinator {
    /// State and members of one group; an unknown one is `Dead`, without an error.
    pub fn describe(&self, caller: Caller<'_>, group_id: &str, out: &mut Output) {
        self.assert_replayed();
        let mut described = match self.groups.get(group_id) {
            Some(group) => group.describe(),
            None => DescribedGroup {
                group_state: State::Dead.name().to_owned(),
                ..Default::default()
            },
        };
        described.group_id = group_id.to_owned();
        out.replies.push((caller.token, Reply::Describe(described)));
    }

    /// The groups that pass both filters, whatever their case (and, for states, spaces
    /// around them); empty filters pass all.
    pub fn list(&self, caller: Caller<'_>, request: &ListGroupsRequest, out: &mut Output) {
        self.assert_replayed();
        let passes = |filter: &[String], name: &str, tidy: fn(&str) -> &str| {
            filter.is_empty() || filter.iter().any(|f| tidy(f).eq_ignore_ascii_case(name))
        };
        let states = &request.states_filter;
        let types = &request.types_filter;
        let mut listed = vec![];
        for (group_id, group) in &self.groups {
            let state = group.state().name();
            if passes(states, state, str::trim) && passes(types, GROUP_TYPE, |name| name) {
                listed.push(ListedGroup {
                    group_id: group_id.clone(),
                    protocol_type: group.protocol_type.clone().unwrap_or_default(),
                    group_state: state.to_owned(),
                    group_type: GROUP_TYPE.to_owned(),
                });
            }
        }
        out.replies.push((caller.token, Reply::List(listed)));
    }
}

impl Group {
    fn describe(&self) -> DescribedGroup {
        let chosen = match self.phase {
            Phase::Stable => self.protocol.as_deref(),
            _ => None,
        };
        let members = self.members.iter();
        DescribedGroup {
            group_state: self.state().name().to_owned(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol_data: chosen.unwrap_or_default().to_owned(),
            members: members
                .map(|(id, member)| describe_member(id, member, chosen))
                .collect(),
            ..Default::default()
        }
    }
}

/// The metadata is that of the chosen protocol, so there is none without.
fn describe_member(member_id: &str, member: &Member, chosen: Option<&str>) -> DescribedGroupMember {
    DescribedGroupMember {
        member_id: member_id.to_owned(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        member_metadata: chosen
            .map(|protocol| member.metadata(protocol))
            .unwrap_or_default(),
        member_assignment: member.assignment.clone(),
    }
}
