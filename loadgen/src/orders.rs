//! The orders of a sale, from a seed: the same seed, size and partition count give the same orders
//! byte for byte, in the same sequence, with the same intended times.
//!
//! Every user lives on the partition that Kafka's default partitioner gives the key, and the users
//! are drawn so that each run of `partitions` orders has one for every partition: the arithmetic of
//! the model is that of evenly loaded partitions, and skew would be another experiment. Orders of
//! one user carry a sequence number, by which the database can tell a lost, doubled or overtaken
//! one. No clock: an intended time is a distance from the start of the sale.

use std::time::Duration;

use bytes::Bytes;
use forebay::base::prng::Prng;
use forebay::client::producer::partition_of_key;
use serde::{Deserialize, Serialize};

use crate::incidents::{Factor, Incidents};

/// Bytes of one order's JSON, as near as its fields allow.
pub const ORDER_BYTES: usize = 1_000;
/// A user places this many orders on average.
const ORDERS_PER_USER: u64 = 5;
/// Shares are drawn in parts of this.
const DRAWN_OF: u64 = 1_000_000;
const ITEMS: [(&str, u32); 8] = [
    ("console", 49_900),
    ("headphones", 12_950),
    ("kettle", 3_490),
    ("lamp", 2_999),
    ("novel", 1_490),
    ("phone", 79_900),
    ("sneakers", 8_995),
    ("tent", 15_900),
];

/// The item of an order that the handler does not know, if the sale has poison in it.
pub const POISON_ITEM: &str = "gift card";

/// One order, as it stands in the record's value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// 1 for the first order of the sale, counted without gaps.
    pub order_id: u64,
    /// Who orders; the record's key.
    pub user_id: String,
    /// 1 for the user's first order, counted without gaps.
    pub user_seq: u32,
    /// What is ordered.
    pub item: String,
    /// Its price in cents.
    pub amount_cents: u32,
    /// When it was meant to be placed: microseconds after the start of the sale.
    pub time_us: u64,
    /// What the customer wrote; fills the order to about a kilobyte. Nobody reads it again.
    #[serde(skip_deserializing)]
    pub note: String,
}

/// One order ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The order's id, see [`Order::order_id`].
    pub order_id: u64,
    /// Intended send time after the start of the sale.
    pub due: Duration,
    /// The partition of the key.
    pub partition: i32,
    /// The record's key: the user id.
    pub key: Bytes,
    /// The record's value: the order as JSON.
    pub value: Bytes,
    /// Whether it is of [`POISON_ITEM`].
    pub is_poison: bool,
}

/// The sequence of all orders of one sale.
#[derive(Debug)]
pub struct Orders {
    count: u64,
    window: Duration,
    produced: u64,
    prng: Prng,
    /// Users by partition, each with the orders placed so far.
    users: Vec<Vec<User>>,
    /// The partitions of the current run, in drawn sequence.
    run: Vec<usize>,
    burst: Option<Factor>,
    poison: f64,
    hot_key: f64,
}

#[derive(Clone, Debug)]
struct User {
    number: u64,
    orders: u32,
}

impl Orders {
    /// The orders of a sale of `count` orders over `window`, for a topic of `partitions`, which
    /// must not be 0.
    pub fn new(seed: u64, count: u64, window: Duration, partitions: usize) -> Self {
        assert!(partitions > 0, "a topic has partitions");
        let population = (count / ORDERS_PER_USER).max(1);
        let mut users = vec![Vec::new(); partitions];
        let mut number = 0;
        // A small population may leave a partition without a user; go on until none is empty.
        while number < population || users.iter().any(Vec::is_empty) {
            number += 1;
            users[home(user_id(number).as_bytes(), partitions)].push(User { number, orders: 0 });
        }
        Self {
            count,
            window,
            produced: 0,
            prng: Prng::new(seed),
            users,
            run: Vec::new(),
            burst: None,
            poison: 0.0,
            hot_key: 0.0,
        }
    }

    /// The same orders with what the incidents do to them.
    pub fn with(mut self, incidents: &Incidents) -> Self {
        self.burst = incidents.burst;
        self.poison = incidents.poison;
        self.hot_key = incidents.hot_key;
        self
    }

    /// The intended send time of the next order, `None` after the last.
    pub fn next_due(&self) -> Option<Duration> {
        (self.produced < self.count).then(|| self.due(self.produced))
    }

    fn due(&self, index: u64) -> Duration {
        // In a burst, time passes more slowly: the window is longer by what fits into it more.
        let (factor, from, to) = self.burst.map_or((1.0, self.window, self.window), |burst| {
            (
                burst.factor,
                burst.span.from.min(self.window),
                burst.span.to.min(self.window),
            )
        });
        let more = (to - from).mul_f64(factor - 1.0);
        let stretched = self.window + more;
        let nanos = stretched.as_nanos() * u128::from(index) / u128::from(self.count.max(1));
        let at = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        if at <= from {
            at
        } else if at < to + more {
            from + (at - from).div_f64(factor)
        } else {
            at - more
        }
    }

    /// Whether something happens to an order that happens to this share of them.
    fn drawn(&mut self, share: f64) -> bool {
        // Nothing is drawn for what cannot happen: the other orders stay the same.
        share > 0.0 && (self.prng.below(DRAWN_OF) as f64) < share * DRAWN_OF as f64
    }

    fn next_partition(&mut self) -> usize {
        if self.run.is_empty() {
            self.run = (0..self.users.len()).collect();
            for last in (1..self.run.len()).rev() {
                let other = self.prng.below(last as u64 + 1) as usize;
                self.run.swap(last, other);
            }
        }
        self.run.pop().expect("a run holds every partition once")
    }
}

impl Iterator for Orders {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        let due = self.next_due()?;
        self.produced += 1;
        let (partition, chosen) = match self.drawn(self.hot_key) {
            true => (0, 0),
            false => {
                let partition = self.next_partition();
                let at_home = self.users[partition].len() as u64;
                (partition, self.prng.below(at_home) as usize)
            }
        };
        let is_poison = self.drawn(self.poison);
        let user = &mut self.users[partition][chosen];
        user.orders += 1;
        let (mut item, amount_cents) = ITEMS[self.prng.below(ITEMS.len() as u64) as usize];
        if is_poison {
            item = POISON_ITEM;
        }
        let mut order = Order {
            order_id: self.produced,
            user_id: user_id(user.number),
            user_seq: user.orders,
            item: item.to_owned(),
            amount_cents,
            time_us: u64::try_from(due.as_micros()).unwrap_or(u64::MAX),
            note: String::new(),
        };
        order.note = note(
            &mut self.prng,
            ORDER_BYTES.saturating_sub(encoded_bytes(&order)),
        );
        Some(Planned {
            order_id: order.order_id,
            due,
            partition: i32::try_from(partition).expect("Kafka counts partitions in an int32"),
            key: Bytes::from(order.user_id.clone()),
            value: Bytes::from(serde_json::to_vec(&order).expect("plain fields become JSON")),
            is_poison,
        })
    }
}

/// The partition that Kafka's default partitioner gives a key.
fn home(key: &[u8], partitions: usize) -> usize {
    let count = i32::try_from(partitions).expect("Kafka counts partitions in an int32");
    usize::try_from(partition_of_key(key, count)).expect("partitions count from 0")
}

fn user_id(number: u64) -> String {
    format!("user-{number:07}")
}

/// The size of `order` as JSON while its note is still empty.
fn encoded_bytes(order: &Order) -> usize {
    const FIXED: usize =
        r#"{"order_id":,"user_id":"","user_seq":,"item":"","amount_cents":,"time_us":,"note":""}"#
            .len();
    let digits = |n: u64| n.checked_ilog10().map_or(1, |log| log as usize + 1);
    FIXED
        + digits(order.order_id)
        + order.user_id.len()
        + digits(order.user_seq.into())
        + order.item.len()
        + digits(order.amount_cents.into())
        + digits(order.time_us)
}

/// `bytes` letters and spaces: eight from each drawn number, so that filling is cheap.
fn note(prng: &mut Prng, bytes: usize) -> String {
    const LETTERS: &[u8; 32] = b"etaoinshrdlucmfwypvbgk etaoins r";
    let mut text = String::with_capacity(bytes + 8);
    while text.len() < bytes {
        let mut drawn = prng.next_u64();
        for _ in 0..12 {
            text.push(char::from(LETTERS[(drawn & 31) as usize]));
            drawn >>= 5;
        }
    }
    text.truncate(bytes);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incidents::Span;
    use std::collections::BTreeMap;

    const WINDOW: Duration = Duration::from_secs(6);

    fn parse(planned: &Planned) -> Order {
        serde_json::from_slice(&planned.value).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_orders_and_another_seed_others() {
        let all = |seed| Orders::new(seed, 500, WINDOW, 10).collect::<Vec<_>>();
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
    }

    #[test]
    fn an_order_is_a_kilobyte_of_json_whose_key_is_its_user() {
        for planned in Orders::new(1, 2_000, WINDOW, 10) {
            let order = parse(&planned);
            assert_eq!(planned.value.len(), ORDER_BYTES);
            assert_eq!(planned.key, order.user_id.as_bytes());
            assert_eq!(planned.order_id, order.order_id);
            assert_eq!(planned.due.as_micros(), u128::from(order.time_us));
            assert!(order.amount_cents > 0 && !order.item.is_empty());
        }
    }

    #[test]
    fn orders_are_spaced_evenly_over_the_window() {
        let mut orders = Orders::new(1, 600, WINDOW, 10);
        assert_eq!(orders.next_due(), Some(Duration::ZERO));
        let due: Vec<_> = orders.by_ref().map(|o| o.due).collect();
        assert!(
            due.windows(2)
                .all(|w| w[1] - w[0] == Duration::from_millis(10))
        );
        assert_eq!(*due.last().unwrap(), WINDOW - Duration::from_millis(10));
        assert_eq!(orders.next_due(), None);
        assert_eq!(orders.next(), None);
    }

    #[test]
    fn ids_and_user_sequences_have_no_gap() {
        let mut by_user = BTreeMap::<Bytes, u32>::new();
        for (at, planned) in Orders::new(3, 3_000, WINDOW, 10).enumerate() {
            let order = parse(&planned);
            assert_eq!(order.order_id, at as u64 + 1);
            let seq = by_user.entry(planned.key).or_default();
            *seq += 1;
            assert_eq!(order.user_seq, *seq);
        }
        assert!(
            by_user.values().any(|orders| *orders > 1),
            "some user orders twice"
        );
    }

    #[test]
    fn every_partition_gets_its_share_and_a_user_stays_on_one() {
        let mut per_partition = [0; 10];
        for planned in Orders::new(3, 3_005, WINDOW, 10) {
            per_partition[planned.partition as usize] += 1;
            assert_eq!(home(&planned.key, 10), planned.partition as usize);
        }
        assert!(
            per_partition.iter().all(|n| (300..=301).contains(n)),
            "{per_partition:?}"
        );
    }

    #[test]
    fn a_burst_sends_the_same_orders_ten_times_as_densely_for_a_second() {
        let (from, to) = (Duration::from_secs(2), Duration::from_secs(3));
        let incidents = Incidents {
            burst: Some(Factor {
                factor: 10.0,
                span: Span { from, to },
            }),
            ..Incidents::default()
        };
        let due: Vec<_> = Orders::new(1, 1_500, WINDOW, 10)
            .with(&incidents)
            .map(|order| order.due)
            .collect();
        let between = |from, to| due.iter().filter(|due| (from..to).contains(*due)).count();
        assert_eq!(between(Duration::ZERO, from), 200);
        assert_eq!(between(from, to), 1_000);
        assert_eq!(between(to, WINDOW), 300);
        assert!(due.is_sorted());
    }

    #[test]
    fn poison_and_a_hot_key_are_the_share_that_was_asked_for() {
        let incidents = Incidents {
            poison: 0.01,
            hot_key: 0.3,
            ..Incidents::default()
        };
        let orders: Vec<_> = Orders::new(1, 20_000, WINDOW, 10)
            .with(&incidents)
            .collect();
        let poison = orders.iter().filter(|order| order.is_poison).count();
        assert!((150..250).contains(&poison), "{poison}");
        let is_poison = |order: &Planned| parse(order).item == POISON_ITEM;
        assert!(
            orders
                .iter()
                .all(|order| is_poison(order) == order.is_poison)
        );
        let hottest = orders
            .iter()
            .fold(BTreeMap::<_, u32>::new(), |mut counts, order| {
                *counts.entry(&order.key).or_default() += 1;
                counts
            });
        let hottest = *hottest.values().max().unwrap();
        assert!((5_700..6_300).contains(&hottest), "{hottest}");
    }

    #[test]
    fn a_tiny_sale_has_a_user_on_every_partition() {
        assert_eq!(Orders::new(1, 3, WINDOW, 50).count(), 3);
    }
}
