//! Whole sales in memory on a simulated clock: one that goes right, and each way of going wrong
//! with the checks that must fail.

use tokio::task::LocalSet;
use tokio::time::sleep;

use super::memory::{
    Broker, Fault, InlineSink, MemoryPublisher, RECORDS_MAX, SESSION_TIMEOUT, Spoil,
};
use super::*;
use crate::lane::Limits;
use crate::model::{self, Load};
use crate::orders::Order;
use crate::promise::Promise;
use crate::verdict::{Facts, Verdict, judge};

const SEED: u64 = 11;
pub(super) const PARTITIONS: usize = 10;
const WINDOW: Duration = Duration::from_secs(6);
pub(super) const BUFFER: usize = 10_000;

pub(super) fn load() -> Load {
    Load {
        session_timeout: SESSION_TIMEOUT,
        partitions_of_member: 3,
        ..model::tests::sale(6)
    }
}

fn orders() -> Orders {
    Orders::new(SEED, load().orders, WINDOW, PARTITIONS)
}

pub(super) fn plan() -> Plan {
    let share = BUFFER / PARTITIONS;
    let lane = Limits {
        workers: 50,
        by_key: true,
        pause_at: share - RECORDS_MAX,
        resume_below: share * 8 / 10,
    };
    Plan {
        clock: Clock::start(),
        orders: orders(),
        shape: Shape {
            partitions: PARTITIONS,
            lane,
            db_writes_per_s: Some(5_000),
            db_latency: Duration::from_millis(100),
            seen_max: None,
            incidents: Incidents::default(),
        },
        delivery: Delivery::ExactlyOnce,
        earlier: Earlier::default(),
        next_offsets: BTreeMap::new(),
        patience: Duration::from_secs(3),
    }
}

pub(super) fn memory_store() -> Store {
    Store::memory()
}

pub(super) fn honest() -> Spoil {
    Box::new(|_| {})
}

/// What is different from a sale that goes right.
struct Spoilt {
    fault: Fault,
    spoil: Spoil,
    plan: Plan,
}

fn nothing_wrong() -> Spoilt {
    Spoilt {
        fault: Fault::None,
        spoil: honest(),
        plan: plan(),
    }
}

fn broken(fault: Fault) -> Spoilt {
    Spoilt {
        fault,
        ..nothing_wrong()
    }
}

fn sell(mut spoilt: Spoilt) -> (Verdict, Ended) {
    simulated(async move {
        spoilt.plan.clock = Clock::start();
        let broker = Broker::new(PARTITIONS, spoilt.fault);
        let sink = InlineSink::new(memory_store(), spoilt.spoil);
        let never = std::future::pending();
        let publisher = MemoryPublisher(Rc::clone(&broker));
        let ended = run(
            spoilt.plan,
            publisher,
            broker.feeds(4),
            Upsets::default(),
            sink,
            never,
            &mut |_| {},
        )
        .await;
        let ended = ended.unwrap();
        (verdict(&ended, false), ended)
    })
}

/// Runs on a clock that jumps to the next timer whenever nothing else is to be done.
pub(super) fn simulated<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, work)
}

fn verdict(ended: &Ended, resumed: bool) -> Verdict {
    let load = load();
    let busy = ended.outcome.busy_ns;
    judge(&Facts {
        buffer_limit: BUFFER,
        outcome: ended.outcome.clone(),
        audit: ended
            .store
            .audit(load.orders, load.db_writes_per_s)
            .unwrap(),
        busy_writes: busy.map_or(0, |(from, to)| {
            ended.store.writes_between(from, to).unwrap()
        }),
        promise: Promise {
            key_order: true,
            ..Promise::default()
        },
        slow_writes: None,
        down_writes: None,
        dead_letters: None,
        resumed,
        load,
    })
}

fn id(row: &crate::store::Row) -> Option<u64> {
    row.order.as_ref().map(|order| order.order_id)
}

fn failing(spoilt: Spoilt) -> Vec<&'static str> {
    let (verdict, _) = sell(spoilt);
    verdict
        .checks
        .iter()
        .filter(|check| !check.pass)
        .map(|check| check.name)
        .collect()
}

/// The ids of a user's first two orders.
fn two_orders_of_one_user() -> (u64, u64) {
    let mut first = BTreeMap::new();
    for planned in orders() {
        if let Some(earlier) = first.insert(planned.key, planned.order_id) {
            return (earlier, planned.order_id);
        }
    }
    panic!("some user orders twice")
}

#[test]
fn a_sale_without_faults_passes() {
    let (verdict, ended) = sell(nothing_wrong());
    assert!(verdict.pass(), "{verdict:#?}");
    assert!(
        ended.outcome.counts.pauses > 0,
        "the buffer was full for most of the sale"
    );
    assert!(!ended.interrupted && ended.given_up.is_none());
    let produced: u64 = ended.seconds.iter().map(|second| second.produced).sum();
    assert_eq!(produced, load().orders);
    assert!(
        ended
            .seconds
            .iter()
            .any(|second| second.paused > 0 && second.buffer > 8_000)
    );
}

#[test]
fn an_order_the_broker_loses_fails() {
    let failing = failing(broken(Fault::Drop(20_000)));
    assert!(failing.contains(&"lost"), "{failing:?}");
    assert!(!failing.contains(&"duplicates"));
}

#[test]
fn an_order_the_broker_doubles_fails() {
    let failing = failing(broken(Fault::Double(20_000)));
    assert!(failing.contains(&"duplicates"), "{failing:?}");
    assert!(!failing.contains(&"lost"));
}

#[test]
fn two_orders_of_one_key_the_broker_swaps_fail() {
    let (first, second) = two_orders_of_one_user();
    assert_eq!(
        failing(broken(Fault::Swap(first, second))),
        ["order violations per key"]
    );
}

#[test]
fn an_order_the_broker_refuses_fails_and_says_why() {
    let (verdict, ended) = sell(broken(Fault::Refuse(20_000)));
    assert!(!verdict.pass());
    assert_eq!(ended.given_up.as_deref(), Some("refused on request"));
    assert_eq!(ended.outcome.counts.failed, 1);
}

#[test]
fn a_broker_that_ignores_pauses_overruns_the_buffer_and_fails() {
    assert_eq!(failing(broken(Fault::IgnorePause)), ["buffer"]);
}

#[test]
fn a_rebalance_fails_and_yet_loses_and_doubles_nothing() {
    assert_eq!(failing(broken(Fault::Rebalance(3_000))), ["rebalances"]);
}

#[test]
fn a_broker_that_is_away_for_a_second_is_bridged_by_the_buffer() {
    let away = Fault::Away(Duration::from_millis(3_500), Duration::from_millis(4_500));
    assert_eq!(failing(broken(away)), Vec::<&str>::new());
}

#[test]
fn a_broker_that_is_away_at_the_end_of_the_window_moves_the_peak_and_fails() {
    let away = Fault::Away(Duration::from_millis(4_500), Duration::from_millis(6_900));
    let failing = failing(broken(away));
    assert!(failing.contains(&"peak at"), "{failing:?}");
}

#[test]
fn a_database_that_is_faster_than_it_may_be_fails() {
    let mut spoilt = nothing_wrong();
    spoilt.plan.shape.db_writes_per_s = Some(5_050);
    spoilt.plan.shape.db_latency = Duration::from_millis(99);
    let failing = failing(spoilt);
    assert!(
        failing.contains(&"database rate in any second"),
        "{failing:?}"
    );
}

#[test]
fn a_database_that_is_slower_than_it_should_be_fails() {
    let mut spoilt = nothing_wrong();
    spoilt.plan.shape.db_latency = Duration::from_millis(104);
    let failing = failing(spoilt);
    assert!(
        failing.contains(&"database rate with backlog"),
        "{failing:?}"
    );
}

#[test]
fn a_row_the_database_loses_fails() {
    let mut spoilt = nothing_wrong();
    spoilt.spoil = Box::new(|rows| rows.retain(|row| id(row) != Some(777)));
    let failing = failing(spoilt);
    assert!(failing.contains(&"lost"), "{failing:?}");
}

#[test]
fn a_row_the_database_doubles_fails() {
    let mut spoilt = nothing_wrong();
    spoilt.spoil = Box::new(|rows| {
        let doubled = rows.iter().find(|row| id(row) == Some(777)).cloned();
        rows.extend(doubled);
    });
    let failing = failing(spoilt);
    assert!(failing.contains(&"duplicates"), "{failing:?}");
}

#[test]
fn an_order_applied_before_the_earlier_one_of_its_key_fails() {
    let (first, second) = two_orders_of_one_user();
    let mut held_back: Option<crate::store::Row> = None;
    let mut spoilt = nothing_wrong();
    spoilt.spoil = Box::new(move |rows| {
        if let Some(at) = rows.iter().position(|row| id(row) == Some(first)) {
            held_back = Some(rows.remove(at));
        }
        if rows.iter().any(|row| id(row) == Some(second)) {
            rows.extend(held_back.take());
        }
    });
    assert_eq!(failing(spoilt), ["order violations per key"]);
}

/// The first run is stopped in the middle, like a process that is killed: what was in the lanes is
/// forgotten. The second continues from the broker's log and the database alone.
#[test]
fn a_sale_that_was_stopped_is_finished_with_every_order_once() {
    let verdict = simulated(async {
        let broker = Broker::new(PARTITIONS, Fault::None);
        let publisher = MemoryPublisher(Rc::clone(&broker));
        let sink = InlineSink::new(memory_store(), honest());
        let soon = sleep(Duration::from_secs(3));
        let first = plan();
        let clock = first.clock;
        let (feeds, mut ignore) = (broker.feeds(10), |_: &Second| {});
        let stopped = run(
            first,
            publisher.clone(),
            feeds,
            Upsets::default(),
            sink,
            soon,
            &mut ignore,
        )
        .await
        .unwrap();
        assert!(stopped.interrupted);
        let counts = &stopped.outcome.counts;
        assert!(
            counts.written > 10_000 && counts.written + 5_000 < counts.acked,
            "{counts:?}"
        );

        let next_offsets = stopped.store.next_offsets().unwrap();
        assert_eq!(next_offsets.values().sum::<i64>() as u64, counts.written);
        let again = Plan {
            earlier: broker.earlier(&next_offsets),
            next_offsets,
            clock,
            ..plan()
        };
        let sink = InlineSink::new(stopped.store, honest());
        let never = std::future::pending();
        let ended = run(
            again,
            publisher,
            broker.feeds(10),
            Upsets::default(),
            sink,
            never,
            &mut |_| {},
        )
        .await;
        verdict(&ended.unwrap(), true)
    });
    assert!(verdict.pass(), "{verdict:#?}");
}

/// The first run refuses orders and is stopped; the second knows all items.
fn resumed_with_letters(replays: bool) -> (Verdict, Ended, u64) {
    simulated(async {
        let broker = Broker::new(PARTITIONS, Fault::None);
        let publisher = MemoryPublisher(Rc::clone(&broker));
        let sink = InlineSink::new(memory_store(), honest());
        let mut first = plan();
        first.shape.incidents.poison = 0.02;
        first.orders = first.orders.with(&first.shape.incidents);
        let (clock, incidents) = (first.clock, first.shape.incidents.clone());
        let soon = sleep(Duration::from_millis(4_500));
        let (feeds, upsets) = (broker.feeds(10), Upsets::default());
        let mut ignore = |_: &Second| {};
        let stopped = run(
            first,
            publisher.clone(),
            feeds,
            upsets,
            sink,
            soon,
            &mut ignore,
        );
        let stopped = stopped.await.unwrap();
        let letters = broker.letters.borrow().len() as u64;
        assert!(stopped.interrupted && letters > 100, "{letters}");

        if replays {
            broker.replay();
        }
        let next_offsets = stopped.store.next_offsets().unwrap();
        let again = Plan {
            orders: orders().with(&incidents),
            earlier: broker.earlier(&next_offsets),
            next_offsets,
            clock,
            ..plan()
        };
        let buried = again.earlier.buried;
        let sink = InlineSink::new(stopped.store, honest());
        let (feeds, upsets) = (broker.feeds(10), Upsets::default());
        let never = std::future::pending();
        let ended = run(again, publisher, feeds, upsets, sink, never, &mut ignore);
        let ended = ended.await.unwrap();
        (verdict(&ended, true), ended, buried)
    })
}

#[test]
fn a_stopped_sale_is_finished_but_for_the_letters_that_were_not_sent_back() {
    let (verdict, ended, buried) = resumed_with_letters(false);
    assert!(verdict.pass(), "{verdict:#?}");
    let rows = ended.store.audit(load().orders, 1).unwrap().rows;
    assert!(buried > 100 && rows == load().orders - buried, "{rows}");
}

#[test]
fn a_stopped_sale_whose_letters_were_sent_back_is_finished_with_every_order_once() {
    let (verdict, ended, buried) = resumed_with_letters(true);
    // What was sent back comes after later orders of its key.
    let failing = verdict.checks.iter().filter(|check| !check.pass);
    let failing: Vec<_> = failing.map(|check| check.name).collect();
    assert_eq!(failing, ["order violations per key"], "{verdict:#?}");
    let rows = ended.store.audit(load().orders, 1).unwrap();
    assert_eq!(
        (buried, rows.rows, rows.distinct),
        (0, load().orders, load().orders)
    );
}

#[test]
fn a_sale_that_is_stopped_while_the_broker_is_away_does_not_wait_for_it() {
    let took = simulated(async {
        let away = Fault::Away(Duration::from_secs(2), Duration::from_secs(100));
        let broker = Broker::new(PARTITIONS, away);
        let publisher = MemoryPublisher(Rc::clone(&broker));
        let sink = InlineSink::new(memory_store(), honest());
        let (feeds, upsets) = (broker.feeds(4), Upsets::default());
        let begun = Instant::now();
        let soon = sleep(Duration::from_secs(4));
        let mut ignore = |_: &Second| {};
        let ended = run(plan(), publisher, feeds, upsets, sink, soon, &mut ignore);
        assert!(ended.await.unwrap().interrupted);
        begun.elapsed()
    });
    assert!(took < Duration::from_secs(12), "{took:?}");
}

#[test]
fn a_topic_with_something_else_in_it_is_refused_in_a_sentence() {
    let failure = simulated(async {
        let broker = Broker::new(PARTITIONS, Fault::None);
        let record = crate::ports::Record {
            offset: 0,
            key: "user-0000001".into(),
            value: serde_json::to_vec(&Order::default()).unwrap().into(),
        };
        broker.partitions.borrow_mut()[3].push(record);
        let sink = InlineSink::new(memory_store(), honest());
        let publisher = MemoryPublisher(Rc::clone(&broker));
        let never = std::future::pending();
        run(
            plan(),
            publisher,
            broker.feeds(2),
            Upsets::default(),
            sink,
            never,
            &mut |_| {},
        )
        .await
        .unwrap_err()
    });
    assert!(failure.to_string().contains("partition 3"), "{failure}");
}
