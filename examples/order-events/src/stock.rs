//! The stock: takes the goods of every order placed, and says so. Level, movement and event are
//! written in one transaction with the inbox; without it each of them would be doubled by an event
//! that comes twice.

use rusqlite::{Transaction, params};

use crate::consumer::Handler;
use crate::envelope::Envelope;
use crate::events::{OrderPlaced, StockTaken};
use crate::failure::Failure;
use crate::{inbox, outbox};

/// A level starts at 0 and falls: goods that come in are no part of this example.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS levels (item TEXT PRIMARY KEY, level BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS movements (
    order_id TEXT NOT NULL,
    item TEXT NOT NULL,
    quantity BIGINT NOT NULL
);
";

pub struct Stock;

impl Handler for Stock {
    const NAME: &'static str = "stock";
    const SCHEMAS: &'static [&'static str] = &[inbox::SCHEMA, outbox::SCHEMA, TABLES];
    type Event = OrderPlaced;

    fn apply(
        &self,
        transaction: &Transaction<'_>,
        envelope: &Envelope,
        order: &OrderPlaced,
    ) -> Result<(), Failure> {
        transaction.execute(
            "INSERT INTO levels (item, level) VALUES (?1, ?2)
             ON CONFLICT (item) DO UPDATE SET level = levels.level + excluded.level",
            params![order.item, -i64::from(order.quantity)],
        )?;
        transaction.execute(
            "INSERT INTO movements (order_id, item, quantity) VALUES (?1, ?2, ?3)",
            params![order.order_id.to_string(), order.item, order.quantity],
        )?;
        let taken = StockTaken {
            order_id: order.order_id,
            quantity: order.quantity,
        };
        outbox::put(transaction, &order.customer, &envelope.followed_by(&taken))
    }
}
