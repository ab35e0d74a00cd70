//! The shop: places orders. The order and its event are written in one transaction; the broker has
//! no part in it, and may be down.

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::crash::{self, Point};
use crate::envelope::Envelope;
use crate::events::{Event, OrderPlaced};
use crate::failure::Failure;
use crate::settings::Settings;
use crate::{database, outbox};

/// The name of its database.
pub const NAME: &str = "shop";

pub const TABLES: &str = "
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT PRIMARY KEY,
    customer TEXT NOT NULL,
    number BIGINT NOT NULL,
    item TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    unit_cents BIGINT NOT NULL,
    currency TEXT NOT NULL,
    UNIQUE (customer, number)
);
";

/// What it sells, with prices.
const CATALOGUE: [(&str, u64); 3] = [("lamp", 1999), ("chair", 4950), ("teapot", 2405)];
const CUSTOMERS: [&str; 7] = ["ada", "ben", "cleo", "dora", "emil", "fay", "gus"];

/// Places so many orders; their events are of this version.
pub fn place(settings: &Settings, orders: u32, version: u32) -> Result<(), Failure> {
    let mut connection = database::open(&settings.dir, NAME, &[outbox::SCHEMA, TABLES])?;
    for _ in 0..orders {
        place_one(&mut connection, settings, version)?;
    }
    println!("shop: {orders} orders placed");
    Ok(())
}

fn place_one(
    connection: &mut Connection,
    settings: &Settings,
    version: u32,
) -> Result<(), Failure> {
    let transaction = database::begin(connection)?;
    let count = "SELECT count(*) FROM orders";
    let before: usize = transaction.query_row(count, [], |row| row.get(0))?;
    let customer = CUSTOMERS[before % CUSTOMERS.len()];
    let count = "SELECT count(*) FROM orders WHERE customer = ?1";
    let earlier: u64 = transaction.query_row(count, [customer], |row| row.get(0))?;
    let (item, unit_cents) = CATALOGUE[before % CATALOGUE.len()];
    let order = OrderPlaced {
        order_id: Uuid::new_v4(),
        customer: customer.to_owned(),
        number: earlier + 1,
        item: item.to_owned(),
        // Version 1 knew single items only.
        quantity: if version == 1 {
            1
        } else {
            1 + (before % 4) as u32
        },
        unit_cents,
        currency: "EUR".to_owned(),
    };
    transaction.execute(
        "INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            order.order_id.to_string(),
            order.customer,
            order.number,
            order.item,
            order.quantity,
            order.unit_cents,
            order.currency
        ],
    )?;
    let event = Envelope::first(OrderPlaced::TYPE, version, data(&order, version));
    outbox::put(&transaction, customer, &event)?;
    crash::point(settings.crash_at.as_ref(), Point::OrderNotCommitted);
    Ok(transaction.commit()?)
}

/// The data of the event, as the shop wrote it when this was the newest version. Code like this is
/// not kept in a real shop; its events are.
fn data(order: &OrderPlaced, version: u32) -> Value {
    let (id, customer, number) = (order.order_id, &order.customer, order.number);
    let (item, quantity, unit_cents) = (&order.item, order.quantity, order.unit_cents);
    match version {
        1 => json!({"order_id": id, "customer": customer, "number": number, "item": item,
            "amount_cents": unit_cents}),
        2 => json!({"order_id": id, "customer": customer, "number": number, "item": item,
            "quantity": quantity, "unit_cents": unit_cents}),
        _ => serde_json::to_value(order).expect("events are plain data"),
    }
}
