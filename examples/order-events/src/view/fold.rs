//! The fold: what an event changes in the view. It depends on nothing but the events, so that a
//! rebuild from offset 0 gives the same view. It takes events about one order in any order, and
//! each id once, however often it comes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::envelope::Envelope;
use crate::events::{Event, OrderPlaced, PaymentTaken, StockTaken};
use crate::failure::Rejected;
use crate::upcast;

/// Counts up whenever the fold changes.
const FOLD_VERSION: u32 = 1;

/// The version of the fold with those of the events that it reads. A snapshot of any other is not
/// used, and the view is folded anew from offset 0: so a new fold is a right one, and a new version
/// of an event is read wherever it stands.
pub fn version() -> String {
    let (placed, taken, paid) = (
        OrderPlaced::VERSION,
        StockTaken::VERSION,
        PaymentTaken::VERSION,
    );
    format!("{FOLD_VERSION}, events {placed} {taken} {paid}")
}

/// One order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OrderView {
    /// As it was placed.
    pub placed: Option<OrderPlaced>,
    /// How many items have left the stock for it.
    pub quantity_taken: u64,
    /// What was paid for it; no sum of payments is too large.
    pub cents_paid: u128,
    /// Its events in the order in which they came first: type and id.
    pub history: Vec<(String, Uuid)>,
}

/// All orders, up to these offsets.
#[derive(Debug, Default)]
pub struct View {
    pub orders: BTreeMap<Uuid, OrderView>,
    /// The next offset to read, by partition.
    pub next_offsets: BTreeMap<i32, i64>,
    /// Orders that changed since the last snapshot.
    pub changed: BTreeSet<Uuid>,
}

impl View {
    /// Folds an event in. Types that the view does not read are ignored.
    pub fn apply(&mut self, event: &Envelope) -> Result<(), Rejected> {
        if let Some(placed) = upcast::read::<OrderPlaced>(event)? {
            self.change(placed.order_id, event, |order| order.placed = Some(placed));
        } else if let Some(taken) = upcast::read::<StockTaken>(event)? {
            self.change(taken.order_id, event, |order| {
                order.quantity_taken += u64::from(taken.quantity);
            });
        } else if let Some(paid) = upcast::read::<PaymentTaken>(event)? {
            self.change(paid.order_id, event, |order| {
                order.cents_paid += u128::from(paid.cents);
            });
        }
        Ok(())
    }

    /// Notes that the record at this offset was read.
    pub fn advance(&mut self, partition: i32, offset: i64) {
        self.next_offsets.insert(partition, offset + 1);
    }

    fn change(&mut self, order_id: Uuid, event: &Envelope, change: impl FnOnce(&mut OrderView)) {
        let order = self.orders.entry(order_id).or_default();
        if order.history.iter().any(|(_, id)| *id == event.id) {
            return;
        }
        order.history.push((event.event_type.clone(), event.id));
        change(order);
        self.changed.insert(order_id);
    }
}

impl OrderView {
    /// Whether it is delivered in full and paid in full.
    pub fn is_complete(&self) -> bool {
        self.placed.as_ref().is_some_and(|placed| {
            let paid = |total| self.cents_paid == u128::from(total);
            self.quantity_taken == u64::from(placed.quantity)
                && placed.total_cents().is_ok_and(paid)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An order of three, taken and paid.
    fn events() -> [Envelope; 3] {
        let placed = OrderPlaced {
            order_id: Uuid::from_u128(1),
            customer: "ada".to_owned(),
            number: 1,
            item: "lamp".to_owned(),
            quantity: 3,
            unit_cents: 10,
            currency: "EUR".to_owned(),
        };
        let taken = StockTaken {
            order_id: placed.order_id,
            quantity: 3,
        };
        let paid = PaymentTaken {
            order_id: placed.order_id,
            cents: 30,
        };
        let data = serde_json::to_value(&placed).unwrap();
        let first = Envelope::first(OrderPlaced::TYPE, OrderPlaced::VERSION, data);
        let (second, third) = (first.followed_by(&taken), first.followed_by(&paid));
        [first, second, third]
    }

    fn fold(events: &[&Envelope]) -> OrderView {
        let mut view = View::default();
        for event in events {
            view.apply(event).unwrap();
        }
        view.orders[&Uuid::from_u128(1)].clone()
    }

    #[test]
    fn an_order_is_complete_when_taken_and_paid_in_full() {
        let [placed, taken, paid] = &events();
        assert!(!fold(&[placed]).is_complete());
        assert!(!fold(&[placed, taken]).is_complete());
        assert!(!fold(&[taken, paid]).is_complete());
        assert!(fold(&[placed, taken, paid]).is_complete());
        assert!(fold(&[paid, taken, placed]).is_complete());
    }

    #[test]
    fn events_that_come_again_change_nothing() {
        let [placed, taken, paid] = &events();
        let once = fold(&[placed, taken, paid]);
        let doubled = fold(&[placed, taken, placed, taken, paid, paid, placed]);
        assert_eq!(once, doubled);
    }

    #[test]
    fn other_types_are_ignored_and_unknown_versions_refused() {
        let [placed, ..] = events();
        let mut view = View::default();
        let other = Envelope::first("OrderGiftWrapped", 1, serde_json::Value::Null);
        view.apply(&other).unwrap();
        let newer = Envelope {
            version: OrderPlaced::VERSION + 1,
            ..placed
        };
        assert_eq!(view.apply(&newer).unwrap_err().class, "UnknownVersion");
        assert!(view.orders.is_empty() && view.changed.is_empty());
    }
}
