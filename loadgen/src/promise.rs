//! The ways to consume, and what each of them promises: which orders may be written at once, when
//! the group's offsets are committed, and how a doubled order is noticed.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::incidents::Incidents;

/// How often the group's offsets follow what is permanent.
pub const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Which orders of a partition may be written at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workers {
    /// Any: a bounded pool takes them as they come, and no order is kept.
    Pool,
    /// One after the other: each partition has one worker.
    Ordered,
    /// Those of different keys: the orders of a key wait for each other.
    #[default]
    Key,
}

/// When an offset is committed, and so what a crash may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Before the order is written: a crash may lose it.
    AtMostOnce,
    /// After its row is permanent: a crash may double it.
    AtLeastOnce,
    /// In the database, in the transaction of its row.
    #[default]
    ExactlyOnce,
}

/// How an order that comes again is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idempotency {
    /// It is not.
    #[default]
    None,
    /// By a unique key in the database.
    UniqueKey,
    /// By the ids of the last so many orders, kept beside the consumers.
    Window(usize),
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pool => "pool",
            Self::Ordered => "ordered",
            Self::Key => "key",
        })
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtMostOnce => "at-most-once",
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
        })
    }
}

impl fmt::Display for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::UniqueKey => f.write_str("unique-key"),
            Self::Window(ids) => write!(f, "window:{ids}"),
        }
    }
}

impl Idempotency {
    /// Reads "none", "unique-key" or "window:IDS".
    ///
    /// # Errors
    /// In a sentence with the forms there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let window = |ids: &str| ids.parse().ok().filter(|ids| *ids > 0).map(Self::Window);
        let parsed = match text {
            "none" => Some(Self::None),
            "unique-key" => Some(Self::UniqueKey),
            _ => text.strip_prefix("window:").and_then(window),
        };
        parsed.ok_or_else(|| {
            format!(
                "`{text}` notices nothing: write none, unique-key or for instance window:100000"
            )
        })
    }
}

/// What a sale may do to the orders that were acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Promise {
    /// At most so many have no row.
    pub lost_max: u64,
    /// At most so many rows are of an order that has one.
    pub duplicates_max: u64,
    /// At most so many orders may get into the dead letter topic a second time.
    pub letters_again_max: u64,
    /// The orders of a key are applied in order.
    pub key_order: bool,
}

/// What the promise depends on beside the way of consuming.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Partitions of one member, at most.
    pub partitions_of_member: usize,
    /// Orders held of one partition, at most.
    pub buffer_of_partition: usize,
    /// Writes per second of one partition, at most.
    pub writes_per_s_of_partition: f64,
}

/// What this way of consuming promises when these things go wrong. A member that dies has told the
/// group of nothing since its last commit, which is [`COMMIT_INTERVAL`] ago and took up to as long
/// again to be due; it holds its share of the buffer. Partitions that are handed over lose and
/// double nothing.
pub fn promise(
    workers: Workers,
    delivery: Delivery,
    idempotency: Idempotency,
    incidents: &Incidents,
    extent: Extent,
) -> Promise {
    let dies = incidents.kill_consumer_at.is_some();
    let held = (extent.partitions_of_member * extent.buffer_of_partition) as u64;
    let since_commit = extent.writes_per_s_of_partition * COMMIT_INTERVAL.as_secs_f64() * 2.0;
    let uncommitted = (extent.partitions_of_member as f64 * since_commit).ceil() as u64;
    let comes_again = dies && delivery == Delivery::AtLeastOnce;
    // The letter of an order may be sent before those of its partition are permanent.
    let read_again = match delivery {
        Delivery::AtMostOnce => 0,
        Delivery::AtLeastOnce if dies => held + uncommitted,
        Delivery::AtLeastOnce | Delivery::ExactlyOnce if incidents.move_partitions() => held,
        Delivery::AtLeastOnce | Delivery::ExactlyOnce => 0,
    };
    Promise {
        letters_again_max: read_again,
        lost_max: if dies && delivery == Delivery::AtMostOnce {
            held
        } else {
            0
        },
        duplicates_max: match idempotency {
            Idempotency::None if comes_again => held + uncommitted,
            Idempotency::None | Idempotency::UniqueKey | Idempotency::Window(_) => 0,
        },
        // What comes again comes after later orders of its key.
        key_order: workers != Workers::Pool && !(comes_again && idempotency == Idempotency::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT: Extent = Extent {
        partitions_of_member: 2,
        buffer_of_partition: 1_000,
        writes_per_s_of_partition: 500.0,
    };

    fn promised(delivery: Delivery, idempotency: Idempotency, dies: bool) -> (u64, u64) {
        let incidents = Incidents {
            kill_consumer_at: dies.then_some(Duration::from_secs(1)),
            ..Incidents::default()
        };
        let promise = promise(Workers::Key, delivery, idempotency, &incidents, EXTENT);
        (promise.lost_max, promise.duplicates_max)
    }

    #[test]
    fn only_a_crash_may_lose_or_double_and_only_what_was_under_way() {
        use Delivery::{AtLeastOnce, AtMostOnce, ExactlyOnce};
        for delivery in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            assert_eq!(promised(delivery, Idempotency::None, false), (0, 0));
        }
        assert_eq!(promised(AtMostOnce, Idempotency::None, true), (2_000, 0));
        assert_eq!(promised(AtLeastOnce, Idempotency::None, true), (0, 4_000));
        assert_eq!(promised(AtLeastOnce, Idempotency::UniqueKey, true), (0, 0));
        assert_eq!(
            promised(AtLeastOnce, Idempotency::Window(9_000), true),
            (0, 0)
        );
        assert_eq!(promised(ExactlyOnce, Idempotency::None, true), (0, 0));
    }

    #[test]
    fn only_a_partition_that_moves_may_bury_an_order_twice() {
        let letters = |delivery, dies: bool, joins: bool| {
            let incidents = Incidents {
                kill_consumer_at: dies.then_some(Duration::from_secs(1)),
                rebalance_at: joins.then_some(Duration::from_secs(1)),
                ..Incidents::default()
            };
            let none = Idempotency::None;
            promise(Workers::Key, delivery, none, &incidents, EXTENT).letters_again_max
        };
        use Delivery::{AtLeastOnce, AtMostOnce, ExactlyOnce};
        for delivery in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            assert_eq!(letters(delivery, false, false), 0);
        }
        assert_eq!(letters(AtMostOnce, true, true), 0);
        assert_eq!(letters(AtLeastOnce, true, false), 4_000);
        assert_eq!(letters(AtLeastOnce, false, true), 2_000);
        assert_eq!(letters(ExactlyOnce, true, false), 2_000);
    }

    #[test]
    fn a_pool_promises_no_order() {
        let of = |workers| {
            let (delivery, idempotency) = (Delivery::ExactlyOnce, Idempotency::None);
            promise(
                workers,
                delivery,
                idempotency,
                &Incidents::default(),
                EXTENT,
            )
            .key_order
        };
        assert!(of(Workers::Key) && of(Workers::Ordered) && !of(Workers::Pool));
    }

    #[test]
    fn ways_to_notice_doubles_are_read() {
        assert_eq!(Idempotency::parse("none"), Ok(Idempotency::None));
        assert_eq!(Idempotency::parse("unique-key"), Ok(Idempotency::UniqueKey));
        assert_eq!(Idempotency::parse("window:7"), Ok(Idempotency::Window(7)));
        for wrong in ["window", "window:0", "window:x", "redis"] {
            assert!(
                Idempotency::parse(wrong)
                    .unwrap_err()
                    .contains("unique-key"),
                "{wrong}"
            );
        }
    }
}
