//! Snapshots of the view: the orders and the offsets that they go up to, in one transaction, so
//! that one cannot be without the other. A snapshot writes only what changed since the last.

use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use super::fold::{self, View};
use crate::failure::Failure;

/// The tables. `complete` is for whoever asks the database; the rest of an order is in `state`.
pub const TABLES: &str = "
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT PRIMARY KEY,
    complete BOOLEAN NOT NULL,
    state TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS progress (partition BIGINT PRIMARY KEY, next_offset BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS fold (version TEXT NOT NULL);
";

/// The last snapshot; an empty view if there is none, or if it is of another fold.
pub fn load(connection: &Connection) -> Result<View, Failure> {
    let mut view = View::default();
    if !is_of_this_fold(connection)? {
        return Ok(view);
    }
    let mut query = connection.prepare("SELECT order_id, state FROM orders")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let order_id: String = row.get(0)?;
        let state: String = row.get(1)?;
        let order_id = Uuid::parse_str(&order_id)
            .map_err(|error| Failure::new(format!("{order_id:?} in the view: {error}")))?;
        view.orders.insert(order_id, serde_json::from_str(&state)?);
    }
    let mut query = connection.prepare("SELECT partition, next_offset FROM progress")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    view.next_offsets = rows.collect::<Result<_, _>>()?;
    Ok(view)
}

/// Writes what changed, as part of a transaction.
pub fn write(transaction: &Transaction<'_>, view: &View) -> Result<(), Failure> {
    if !is_of_this_fold(transaction)? {
        clear(transaction)?;
    }
    for order_id in &view.changed {
        let order = &view.orders[order_id];
        transaction.execute(
            "INSERT INTO orders (order_id, complete, state) VALUES (?1, ?2, ?3)
             ON CONFLICT (order_id) DO UPDATE
             SET complete = excluded.complete, state = excluded.state",
            params![
                order_id.to_string(),
                order.is_complete(),
                serde_json::to_string(order)?
            ],
        )?;
    }
    for (partition, next_offset) in &view.next_offsets {
        transaction.execute(
            "INSERT INTO progress (partition, next_offset) VALUES (?1, ?2)
             ON CONFLICT (partition) DO UPDATE SET next_offset = excluded.next_offset",
            params![partition, next_offset],
        )?;
    }
    Ok(())
}

/// Forgets the snapshot, as part of a transaction; the next one is of today's fold.
pub fn clear(transaction: &Transaction<'_>) -> Result<(), Failure> {
    transaction.execute_batch("DELETE FROM orders; DELETE FROM progress; DELETE FROM fold;")?;
    transaction.execute("INSERT INTO fold (version) VALUES (?1)", [fold::version()])?;
    Ok(())
}

fn is_of_this_fold(connection: &Connection) -> Result<bool, Failure> {
    let count = "SELECT count(*) FROM fold WHERE version = ?1";
    let found: u32 = connection.query_row(count, [fold::version()], |row| row.get(0))?;
    Ok(found > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fold::OrderView;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        connection
    }

    fn view() -> View {
        let id = Uuid::from_u128(1);
        let order = OrderView {
            cents_paid: 5,
            ..OrderView::default()
        };
        View {
            orders: [(id, order)].into(),
            next_offsets: [(2, 7)].into(),
            changed: [id].into(),
        }
    }

    fn write_committed(connection: &mut Connection, view: &View) {
        let transaction = connection.transaction().unwrap();
        write(&transaction, view).unwrap();
        transaction.commit().unwrap();
    }

    #[test]
    fn a_view_comes_back_as_it_was_written() {
        let mut connection = database();
        write_committed(&mut connection, &view());
        let loaded = load(&connection).unwrap();
        assert_eq!(loaded.orders, view().orders);
        assert_eq!(loaded.next_offsets, view().next_offsets);
    }

    #[test]
    fn a_snapshot_of_another_fold_is_neither_used_nor_mixed_with_the_new_one() {
        let mut connection = database();
        write_committed(&mut connection, &view());
        // As a reader wrote it that knew OrderPlaced without its currency.
        let older = "UPDATE fold SET version = '1, events 2 1 1'; UPDATE orders SET state = '{}'";
        connection.execute_batch(older).unwrap();
        let loaded = load(&connection).unwrap();
        assert!(loaded.orders.is_empty() && loaded.next_offsets.is_empty());
        write_committed(&mut connection, &loaded);
        assert!(load(&connection).unwrap().orders.is_empty());
    }
}
