//! Whole sales in memory in which something goes wrong: each incident with each figure it must
//! show, and each way of consuming with what it promises.

use super::memory::{Broker, Fault, InlineSink, MemoryFeed, MemoryPublisher};
use super::tests::{BUFFER, PARTITIONS, honest, load, memory_store, plan, simulated};
use super::*;
use crate::dead_letter::Letter;
use crate::incidents::{Factor, Span};
use crate::model::Load;
use crate::promise::{Extent, Idempotency, Workers, promise};
use crate::store::{Place, Rules, Store};
use crate::verdict::{Facts, Verdict, judge};

const MEMBERS: usize = 4;

/// Some orders are written by then whose offsets the group has not committed.
const BETWEEN_COMMITS: Duration = Duration::from_millis(3_400);

/// A sale with its incidents and its way of consuming.
struct Case {
    incidents: Incidents,
    workers: Workers,
    delivery: Delivery,
    idempotency: Idempotency,
    workers_per_partition: usize,
    db_latency: Duration,
    fault: Fault,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            incidents: Incidents::default(),
            workers: Workers::Key,
            delivery: Delivery::ExactlyOnce,
            idempotency: Idempotency::None,
            workers_per_partition: 50,
            db_latency: Duration::from_millis(100),
            fault: Fault::None,
        }
    }
}

struct Seen {
    verdict: Verdict,
    ended: Ended,
    letters: Vec<Letter>,
    facts: Facts,
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn span(from: u64, to: u64) -> Span {
    let (from, to) = (s(from), s(to));
    Span { from, to }
}

impl Case {
    fn load(&self) -> Load {
        let by_key = self.workers == Workers::Key;
        Load {
            by_key,
            db_latency: self.db_latency,
            workers: self.workers_per_partition,
            incidents: self.incidents.clone(),
            ..load()
        }
    }

    fn plan(&self) -> Plan {
        let mut plan = plan();
        plan.orders = plan.orders.with(&self.incidents);
        plan.shape.incidents = self.incidents.clone();
        plan.shape.lane.by_key = self.workers == Workers::Key;
        plan.shape.lane.workers = self.workers_per_partition;
        plan.shape.db_latency = self.db_latency;
        plan.shape.seen_max = match self.idempotency {
            Idempotency::Window(ids) => Some(ids),
            _ => None,
        };
        plan.delivery = self.delivery;
        plan.patience = s(6);
        plan
    }

    fn store(&self) -> Store {
        let rules = Rules {
            exactly_once: self.delivery == Delivery::ExactlyOnce,
            unique_key: self.idempotency == Idempotency::UniqueKey,
        };
        match rules == Rules::default() {
            true => memory_store(),
            false => Store::open(&Place::Sqlite(":memory:".into()), rules).unwrap(),
        }
    }

    fn run(self) -> Seen {
        simulated(async move {
            let broker = Broker::new(PARTITIONS, self.fault.clone());
            let mut plan = self.plan();
            plan.clock = Clock::start();
            let sink = InlineSink::new(self.store(), honest());
            let newcomer = {
                let broker = Rc::clone(&broker);
                async move { Ok::<MemoryFeed, Failure>(broker.newcomer(MEMBERS, 3)) }
            };
            let joins = self.incidents.rebalance_at.is_some();
            let upsets = Upsets {
                crash: None,
                newcomer: joins.then(|| Box::pin(newcomer) as Later<_>),
            };
            let (feeds, never) = (broker.feeds(MEMBERS), std::future::pending());
            let publisher = MemoryPublisher(Rc::clone(&broker));
            let ended = run(plan, publisher, feeds, upsets, sink, never, &mut |_| {}).await;
            let ended = ended.unwrap();
            let letters = broker.letters.borrow().clone();
            let facts = self.facts(&ended, letters.len() as u64);
            Seen {
                verdict: judge(&facts),
                ended,
                letters,
                facts,
            }
        })
    }

    fn facts(&self, ended: &Ended, letters: u64) -> Facts {
        let load = self.load();
        let outcome = ended.outcome.clone();
        let writes = |from: i64, to: i64| ended.store.writes_between(from, to).unwrap();
        let at = |at: Duration| outcome.started_ns + at.as_nanos() as i64;
        let extent = Extent {
            partitions_of_member: load.partitions_of_member,
            buffer_of_partition: BUFFER / PARTITIONS,
            writes_per_s_of_partition: load.writes_per_s_of_partition(),
        };
        let slow = self.incidents.db_slow.map(|slow| slow.span);
        let down = self.incidents.db_down;
        Facts {
            buffer_limit: BUFFER,
            audit: ended
                .store
                .audit(load.orders, load.db_writes_per_s)
                .unwrap(),
            promise: promise(
                self.workers,
                self.delivery,
                self.idempotency,
                &self.incidents,
                extent,
            ),
            busy_writes: outcome.busy_ns.map_or(0, |(from, to)| writes(from, to)),
            slow_writes: slow.map(|span| writes(at(span.from), at(span.to))),
            down_writes: down.map(|span| {
                let early = load.db_latency;
                writes(at(span.from - early), at(span.to - early))
            }),
            dead_letters: (self.incidents.poison > 0.0).then_some(letters),
            resumed: false,
            outcome,
            load,
        }
    }
}

fn passes(case: Case) -> Seen {
    let seen = case.run();
    assert!(
        seen.verdict.pass(),
        "{:#?}\n{:?}",
        seen.verdict,
        seen.ended.outcome.counts
    );
    seen
}

#[test]
fn a_database_that_is_slow_for_a_while_drains_later() {
    let slow = Factor {
        factor: 0.5,
        span: span(2, 4),
    };
    let seen = passes(Case {
        incidents: Incidents {
            db_slow: Some(slow),
            ..Incidents::default()
        },
        ..Case::default()
    });
    assert!(
        seen.ended.outcome.drained_at > s(11),
        "a second of writes was lost"
    );
}

#[test]
fn writes_while_slow_are_those_the_rest_of_the_sale_leaves() {
    let tenth = |span| Factor { factor: 0.1, span };
    // Beyond the end of the sale; with an outage in it; with orders in vain; with few workers.
    let cases: [fn(&mut Case); 4] = [
        |case| case.incidents.db_slow.as_mut().unwrap().span.to = s(60),
        |case| case.incidents.db_down = Some(span(3, 4)),
        |case| case.incidents.poison = 0.01,
        |case| case.workers_per_partition = 4,
    ];
    for change in cases {
        let mut case = Case::default();
        case.incidents.db_slow = Some(tenth(span(2, 5)));
        change(&mut case);
        passes(case);
    }
}

#[test]
fn a_database_that_is_down_is_tried_again_and_no_member_goes() {
    let seen = passes(Case {
        incidents: Incidents {
            db_down: Some(span(3, 5)),
            ..Incidents::default()
        },
        ..Case::default()
    });
    let counts = &seen.ended.outcome.counts;
    assert!(
        counts.retries > 1_000 && counts.rebalances == 0,
        "{counts:?}"
    );
    let what: Vec<_> = seen
        .ended
        .outcome
        .events
        .iter()
        .map(|e| e.what.as_str())
        .collect();
    assert_eq!(what, ["the database is down", "the database is up again"]);
}

#[test]
fn a_burst_is_buffered_by_the_broker() {
    let burst = Factor {
        factor: 10.0,
        span: span(1, 2),
    };
    passes(Case {
        incidents: Incidents {
            burst: Some(burst),
            ..Incidents::default()
        },
        ..Case::default()
    });
}

#[test]
fn poison_is_tried_four_times_and_buried_while_the_other_keys_keep_their_order() {
    let seen = passes(Case {
        incidents: Incidents {
            poison: 0.01,
            ..Incidents::default()
        },
        ..Case::default()
    });
    assert!(
        (350..650).contains(&seen.letters.len()),
        "{}",
        seen.letters.len()
    );
    assert!(seen.letters.iter().all(|letter| letter.attempts == 4));
    assert_eq!(seen.facts.audit.order_violations, 0);
    assert_eq!(seen.ended.outcome.counts.buried, seen.letters.len() as u64);
}

#[test]
fn a_hot_key_is_written_one_by_one_and_drains_when_the_arithmetic_says() {
    let case = Case {
        incidents: Incidents {
            hot_key: 0.3,
            ..Incidents::default()
        },
        db_latency: Duration::from_millis(5),
        ..Case::default()
    };
    let seen = passes(case);
    // 15,000 orders of 5 ms each.
    assert!(
        seen.ended.outcome.drained_at > s(70),
        "{:?}",
        seen.ended.outcome.drained_at
    );
}

#[test]
fn a_member_that_joins_takes_a_partition_and_nothing_is_lost_or_doubled() {
    for delivery in [
        Delivery::AtMostOnce,
        Delivery::AtLeastOnce,
        Delivery::ExactlyOnce,
    ] {
        let seen = passes(Case {
            incidents: Incidents {
                rebalance_at: Some(BETWEEN_COMMITS),
                ..Incidents::default()
            },
            delivery,
            ..Case::default()
        });
        assert_eq!(seen.facts.promise.duplicates_max, 0);
    }
}

fn killed(delivery: Delivery, idempotency: Idempotency) -> Seen {
    passes(Case {
        incidents: Incidents {
            kill_consumer_at: Some(BETWEEN_COMMITS),
            ..Incidents::default()
        },
        delivery,
        idempotency,
        ..Case::default()
    })
}

#[test]
fn exactly_once_survives_a_dead_member() {
    let seen = killed(Delivery::ExactlyOnce, Idempotency::None);
    assert_eq!(seen.ended.outcome.counts.redelivered, 0);
}

#[test]
fn at_least_once_doubles_what_a_dead_member_had_not_committed() {
    let seen = killed(Delivery::AtLeastOnce, Idempotency::None);
    let doubles = seen.facts.audit.rows - seen.facts.audit.distinct;
    assert!(
        doubles > 0 && doubles == seen.ended.outcome.counts.redelivered,
        "{doubles}"
    );
}

#[test]
fn a_unique_key_or_a_window_of_ids_makes_at_least_once_enough() {
    for idempotency in [Idempotency::UniqueKey, Idempotency::Window(50_000)] {
        let seen = killed(Delivery::AtLeastOnce, idempotency);
        let counts = &seen.ended.outcome.counts;
        assert!(counts.turned_away > 0, "{counts:?}");
        assert_eq!(counts.turned_away, counts.redelivered);
    }
}

#[test]
fn at_most_once_loses_what_a_dead_member_held() {
    let seen = killed(Delivery::AtMostOnce, Idempotency::None);
    let counts = &seen.ended.outcome.counts;
    assert!(counts.forgotten > 0, "{counts:?}");
    assert_eq!(counts.acked - seen.facts.audit.distinct, counts.forgotten);
}

#[test]
fn a_pool_writes_a_hot_key_at_once_and_out_of_order() {
    let seen = passes(Case {
        incidents: Incidents {
            hot_key: 0.05,
            ..Incidents::default()
        },
        workers: Workers::Pool,
        ..Case::default()
    });
    assert!(seen.facts.audit.order_violations > 1_000);
}

#[test]
fn incidents_can_be_combined() {
    passes(Case {
        incidents: Incidents {
            kill_consumer_at: Some(s(2)),
            db_down: Some(span(6, 7)),
            poison: 0.01,
            rebalance_at: Some(s(4)),
            ..Incidents::default()
        },
        fault: Fault::Away(Duration::from_millis(1_500), Duration::from_millis(2_000)),
        ..Case::default()
    });
}
