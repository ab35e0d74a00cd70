//! The stock: takes the goods of every order placed, and says so. Level, movement and event are
//! written in one transaction with the inbox; without it each of them would be doubled by an event
//! that comes twice.

use rusqlite::{Transaction, params};

use crate::consumer::{Handler, Refusal};
use crate::envelope::Envelope;
use crate::events::{Event, OrderPlaced, StockTaken};
use crate::{inbox, outbox, upcast};

/// A level starts at 0 and falls: goods that come in are no part of this example.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS levels (item TEXT PRIMARY KEY, level INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS movements (
    order_id TEXT NOT NULL,
    item TEXT NOT NULL,
    quantity INTEGER NOT NULL
);
";

/// The service.
pub struct Stock;

impl Handler for Stock {
    const NAME: &'static str = "stock";
    const SCHEMAS: &'static [&'static str] = &[inbox::SCHEMA, outbox::SCHEMA, TABLES];
    const READS: &'static [&'static str] = &[OrderPlaced::TYPE];

    fn apply(&self, transaction: &Transaction<'_>, event: &Envelope) -> Result<(), Refusal> {
        let order: OrderPlaced = upcast::read(event)?;
        transaction.execute(
            "INSERT INTO levels (item, level) VALUES (?1, -?2)
             ON CONFLICT (item) DO UPDATE SET level = level - ?2",
            params![order.item, order.quantity],
        )?;
        transaction.execute(
            "INSERT INTO movements (order_id, item, quantity) VALUES (?1, ?2, ?3)",
            params![order.order_id.to_string(), order.item, order.quantity],
        )?;
        let taken = StockTaken {
            order_id: order.order_id,
            quantity: order.quantity,
        };
        outbox::put(transaction, &order.customer, &event.followed_by(&taken))?;
        Ok(())
    }
}
