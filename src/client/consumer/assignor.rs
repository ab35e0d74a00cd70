//! Who reads what: the leader of a group divides the partitions among the members. Pure functions
//! from subscriptions to assignments.

use std::collections::{BTreeMap, BTreeSet};

use super::TopicPartition;

/// How the leader divides partitions, and so the rebalance protocol. Every member of a group has
/// to offer the same. Kafka: `partition.assignment.strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assignor {
    /// Per topic, neighbouring partitions to members in the order of their ids. Members give
    /// everything up at each rebalance.
    #[default]
    Range,
    /// As even as possible while as much as possible stays where it is; only what moves is given
    /// up (KIP-429).
    CooperativeSticky,
}

/// A member as an assignor sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub topics: Vec<String>,
    pub owned: Vec<TopicPartition>,
    pub generation: i32,
}

/// Partitions by member id; every member is there.
pub(super) type Assignment = BTreeMap<String, Vec<TopicPartition>>;

impl Assignor {
    /// The name under which members offer it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// True if members keep what they have during a rebalance.
    pub fn is_cooperative(self) -> bool {
        self == Self::CooperativeSticky
    }

    /// Divides the partitions of all topics (name and number of partitions) that members want.
    pub(super) fn assign(
        self,
        members: &[Member],
        partition_counts: &BTreeMap<String, i32>,
    ) -> Assignment {
        match self {
            Self::Range => assign_range(members, partition_counts),
            Self::CooperativeSticky => assign_sticky(members, partition_counts),
        }
    }
}

fn assign_range(members: &[Member], partition_counts: &BTreeMap<String, i32>) -> Assignment {
    let mut assignment: Assignment = empty(members);
    // As Java's MemberInfo: members with an instance id first, by that id.
    let mut members: Vec<&Member> = members.iter().collect();
    members.sort_by_key(|member| {
        (
            member.instance_id.is_none(),
            &member.instance_id,
            &member.id,
        )
    });
    for (topic, count) in partition_counts {
        let readers: Vec<&&Member> = members
            .iter()
            .filter(|member| member.topics.contains(topic))
            .collect();
        if readers.is_empty() {
            continue;
        }
        let reader_count = readers.len() as i32;
        let (each, extra) = (count / reader_count, count % reader_count);
        let mut next = 0;
        for (position, member) in (0..).zip(readers) {
            let share = each + i32::from(position < extra);
            let partitions = (next..next + share).map(|index| TopicPartition::new(topic, index));
            assignment
                .entry(member.id.clone())
                .or_default()
                .extend(partitions);
            next += share;
        }
    }
    assignment
}

fn assign_sticky(members: &[Member], partition_counts: &BTreeMap<String, i32>) -> Assignment {
    let owners = owners(members, partition_counts);
    let mut target: BTreeMap<&str, BTreeSet<TopicPartition>> = members
        .iter()
        .map(|member| (member.id.as_str(), BTreeSet::new()))
        .collect();
    for (partition, owner) in &owners {
        target.entry(owner).or_default().insert(partition.clone());
    }
    let all = partition_counts
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(|index| TopicPartition::new(topic, index)));
    for partition in all.filter(|partition| !owners.contains_key(partition)) {
        if let Some(member) = least_loaded(members, &target, &partition.topic) {
            target.entry(member).or_default().insert(partition);
        }
    }
    while let Some((from, to, partition)) = next_move(members, &target) {
        target.entry(from).or_default().remove(&partition);
        target.entry(to).or_default().insert(partition);
    }
    // What another member still has cannot be handed out before that member gave it up; it
    // rejoins when it has, and the next round hands it out.
    let is_free = |member: &str, partition: &TopicPartition| {
        owners.get(partition).is_none_or(|owner| *owner == member)
    };
    target
        .into_iter()
        .map(|(member, partitions)| {
            let free = partitions.into_iter().filter(|each| is_free(member, each));
            (member.to_owned(), free.collect())
        })
        .collect()
}

/// Who has what, where that is beyond doubt: of two members that claim a partition, the one with
/// the later generation has it.
fn owners<'a>(
    members: &'a [Member],
    partition_counts: &BTreeMap<String, i32>,
) -> BTreeMap<TopicPartition, &'a str> {
    let mut claims: BTreeMap<TopicPartition, (i32, Option<&str>)> = BTreeMap::new();
    for member in members {
        for partition in &member.owned {
            let count = partition_counts.get(&partition.topic).copied();
            let exists = (0..count.unwrap_or(0)).contains(&partition.partition);
            if !exists || !member.topics.contains(&partition.topic) {
                continue;
            }
            let claim = claims
                .entry(partition.clone())
                .or_insert((member.generation, Some(&member.id)));
            if claim.1 == Some(&member.id) {
                continue;
            }
            match member.generation.cmp(&claim.0) {
                std::cmp::Ordering::Greater => *claim = (member.generation, Some(&member.id)),
                std::cmp::Ordering::Equal => claim.1 = None,
                std::cmp::Ordering::Less => {}
            }
        }
    }
    let claims = claims.into_iter();
    claims
        .filter_map(|(partition, (_, owner))| Some((partition, owner?)))
        .collect()
}

fn least_loaded<'a>(
    members: &'a [Member],
    target: &BTreeMap<&str, BTreeSet<TopicPartition>>,
    topic: &str,
) -> Option<&'a str> {
    let readers = members
        .iter()
        .filter(|member| member.topics.iter().any(|each| each == topic));
    readers
        .map(|member| member.id.as_str())
        .min_by_key(|member| (target.get(member).map_or(0, BTreeSet::len), *member))
}

/// A partition whose move makes the division more even: from a member to one that has at least
/// two less and reads the topic. Each move lowers the sum of squares, so that moves end.
fn next_move<'a>(
    members: &'a [Member],
    target: &BTreeMap<&'a str, BTreeSet<TopicPartition>>,
) -> Option<(&'a str, &'a str, TopicPartition)> {
    let mut by_load: Vec<_> = target.iter().collect();
    by_load.sort_by_key(|(_, partitions)| std::cmp::Reverse(partitions.len()));
    by_load.into_iter().find_map(|(from, partitions)| {
        // From the back: the first partitions stay where they are.
        partitions.iter().rev().find_map(|partition| {
            let to = least_loaded(members, target, &partition.topic)?;
            let load = target.get(to).map_or(0, BTreeSet::len);
            (load + 1 < partitions.len()).then(|| (*from, to, partition.clone()))
        })
    })
}

fn empty(members: &[Member]) -> Assignment {
    let members = members.iter();
    members
        .map(|member| (member.id.clone(), Vec::new()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, topics: &[&str], owned: &[(&str, i32)]) -> Member {
        Member {
            id: id.to_owned(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            owned: owned
                .iter()
                .map(|(topic, partition)| TopicPartition::new(topic, *partition))
                .collect(),
            generation: 1,
            ..Member::default()
        }
    }

    /// "member: topic-partition ..." per line, for members in order.
    fn check(assignor: Assignor, members: &[Member], counts: &[(&str, i32)], expected: &str) {
        let counts = counts
            .iter()
            .map(|(topic, count)| ((*topic).to_owned(), *count))
            .collect();
        let assignment = assignor.assign(members, &counts);
        let lines = assignment.iter().map(|(id, partitions)| {
            let partitions = partitions
                .iter()
                .map(|each| format!(" {}-{}", each.topic, each.partition));
            format!("{id}:{}", partitions.collect::<String>())
        });
        assert_eq!(lines.collect::<Vec<_>>().join("\n"), expected);
    }

    #[test]
    fn range_gives_neighbours_and_the_rest_to_the_first() {
        let members = [member("b", &["t"], &[]), member("a", &["t", "u"], &[])];
        check(
            Assignor::Range,
            &members,
            &[("t", 3), ("u", 2)],
            "a: t-0 t-1 u-0 u-1\nb: t-2",
        );
        let mut fixed = member("z", &["t"], &[]);
        fixed.instance_id = Some("1".to_owned());
        check(
            Assignor::Range,
            &[member("a", &["t"], &[]), fixed],
            &[("t", 3)],
            "a: t-2\nz: t-0 t-1",
        );
    }

    #[test]
    fn range_copes_with_more_members_than_partitions_and_unread_topics() {
        let members = [member("a", &["t"], &[]), member("b", &["t"], &[])];
        check(
            Assignor::Range,
            &members,
            &[("t", 1), ("unread", 4)],
            "a: t-0\nb:",
        );
        check(Assignor::Range, &[], &[("t", 1)], "");
    }

    #[test]
    fn sticky_leaves_in_place_what_is_even() {
        let members = [
            member("a", &["t"], &[("t", 1), ("t", 3)]),
            member("b", &["t"], &[("t", 0), ("t", 2)]),
        ];
        check(
            Assignor::CooperativeSticky,
            &members,
            &[("t", 4)],
            "a: t-1 t-3\nb: t-0 t-2",
        );
    }

    #[test]
    fn sticky_takes_from_the_full_and_hands_out_a_round_later() {
        let all = [("t", 0), ("t", 1), ("t", 2), ("t", 3)];
        let members = [member("a", &["t"], &all), member("b", &["t"], &[])];
        check(
            Assignor::CooperativeSticky,
            &members,
            &[("t", 4)],
            "a: t-0 t-1\nb:",
        );
        let members = [member("a", &["t"], &all[..2]), member("b", &["t"], &[])];
        check(
            Assignor::CooperativeSticky,
            &members,
            &[("t", 4)],
            "a: t-0 t-1\nb: t-2 t-3",
        );
    }

    #[test]
    fn sticky_trusts_the_later_generation_and_nobody_on_a_tie() {
        let mut late = member("a", &["t"], &[("t", 0)]);
        late.generation = 2;
        let early = member("b", &["t"], &[("t", 0), ("t", 9)]);
        check(
            Assignor::CooperativeSticky,
            &[early, late],
            &[("t", 2)],
            "a: t-0\nb: t-1",
        );
        // With the first claim counting, the second would have to wait for a round.
        let tie = [
            member("a", &["t"], &[("t", 0), ("t", 1)]),
            member("b", &["t"], &[("t", 1)]),
        ];
        check(
            Assignor::CooperativeSticky,
            &tie,
            &[("t", 2)],
            "a: t-0\nb: t-1",
        );
    }
}
