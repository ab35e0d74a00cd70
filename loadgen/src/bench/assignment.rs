//! Which connection writes to which partitions: a connection talks to one broker, so its partitions
//! have the same leader.

use std::collections::BTreeMap;

use crate::failure::Failure;

/// What one connection does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Whom it talks to.
    pub address: String,
    /// What it writes to, at least one.
    pub partitions: Vec<i32>,
}

/// Shares out partitions, given with their leaders' addresses, among connections: each leader gets
/// as many connections as the others, each partition of it at least one.
///
/// # Errors
/// If there are fewer connections than leaders.
pub fn share_out(leaders: &[(i32, String)], connections: usize) -> Result<Vec<Share>, Failure> {
    let mut by_address: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (partition, address) in leaders {
        by_address.entry(address).or_default().push(*partition);
    }
    if connections < by_address.len() {
        return Err(Failure::Reason(format!(
            "--connections {connections} does not reach the {} leaders of the topic: use at least \
             one for each",
            by_address.len()
        )));
    }
    let groups: Vec<_> = by_address.into_iter().collect();
    let shares = (0..connections).map(|index| {
        let (address, partitions) = &groups[index % groups.len()];
        let place = index / groups.len();
        // Those before in the remainder have one connection more.
        let of_group = (connections - index % groups.len()).div_ceil(groups.len());
        let mine: Vec<i32> = match of_group >= partitions.len() {
            true => vec![partitions[place % partitions.len()]],
            false => partitions
                .iter()
                .copied()
                .skip(place)
                .step_by(of_group)
                .collect(),
        };
        Share {
            address: (*address).to_owned(),
            partitions: mine,
        }
    });
    Ok(shares.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaders(addresses: &[&str]) -> Vec<(i32, String)> {
        let numbered = (0..).zip(addresses);
        numbered
            .map(|(partition, address)| (partition, (*address).to_owned()))
            .collect()
    }

    fn shares(addresses: &[&str], connections: usize) -> Vec<Vec<i32>> {
        let shares = share_out(&leaders(addresses), connections).unwrap();
        shares.into_iter().map(|share| share.partitions).collect()
    }

    #[test]
    fn every_partition_has_a_connection_and_every_connection_a_partition() {
        assert_eq!(shares(&["a"; 4], 2), [vec![0, 2], vec![1, 3]]);
        assert_eq!(shares(&["a"; 2], 3), [vec![0], vec![1], vec![0]]);
        for partitions in 1..9 {
            for connections in 2..20 {
                let addresses: Vec<_> = (0..partitions).map(|p| ["a", "b"][p % 2]).collect();
                let shares = share_out(&leaders(&addresses), connections).unwrap();
                let mut seen: Vec<_> = shares.iter().flat_map(|s| s.partitions.clone()).collect();
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), partitions, "{partitions} on {connections}");
                for share in shares {
                    assert!(!share.partitions.is_empty());
                    let led = share
                        .partitions
                        .iter()
                        .all(|p| addresses[*p as usize] == share.address);
                    assert!(led, "a connection reaches the leader of all its partitions");
                }
            }
        }
    }

    #[test]
    fn fewer_connections_than_leaders_are_refused() {
        let refused = share_out(&leaders(&["a", "b"]), 1).unwrap_err().to_string();
        assert!(refused.contains("2 leaders"), "{refused}");
    }
}
