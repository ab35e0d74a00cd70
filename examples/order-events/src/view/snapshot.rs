//! Snapshots of the view: the orders and the offsets that they go up to, in one transaction, so
//! that one cannot be without the other. A snapshot writes only what changed since the last.

use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use super::fold::{FOLD_VERSION, View};
use crate::failure::Failure;

/// The tables. `complete` is for whoever asks the database; the rest of an order is in `state`.
pub const TABLES: &str = "
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT PRIMARY KEY,
    complete INTEGER NOT NULL,
    state TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (
    partition INTEGER PRIMARY KEY,
    next_offset INTEGER NOT NULL
);
";

/// The last snapshot; an empty view if there is none, or if it is of another fold.
pub fn load(connection: &Connection) -> Result<View, Failure> {
    let mut view = View::default();
    if fold_version(connection)? != FOLD_VERSION {
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
    if fold_version(transaction)? != FOLD_VERSION {
        clear(transaction)?;
    }
    for order_id in &view.changed {
        let order = &view.orders[order_id];
        transaction.execute(
            "INSERT OR REPLACE INTO orders (order_id, complete, state) VALUES (?1, ?2, ?3)",
            params![
                order_id.to_string(),
                order.is_complete(),
                serde_json::to_string(order)?
            ],
        )?;
    }
    for (partition, next_offset) in &view.next_offsets {
        transaction.execute(
            "INSERT OR REPLACE INTO progress (partition, next_offset) VALUES (?1, ?2)",
            params![partition, next_offset],
        )?;
    }
    Ok(())
}

/// Forgets the snapshot, as part of a transaction; the next one is of today's fold.
pub fn clear(transaction: &Transaction<'_>) -> Result<(), Failure> {
    transaction.execute_batch("DELETE FROM orders; DELETE FROM progress;")?;
    transaction.pragma_update(None, "user_version", FOLD_VERSION)?;
    Ok(())
}

fn fold_version(connection: &Connection) -> Result<u32, Failure> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
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
        connection
            .pragma_update(None, "user_version", FOLD_VERSION + 1)
            .unwrap();
        let loaded = load(&connection).unwrap();
        assert!(loaded.orders.is_empty() && loaded.next_offsets.is_empty());
        write_committed(&mut connection, &loaded);
        assert!(load(&connection).unwrap().orders.is_empty());
    }
}
