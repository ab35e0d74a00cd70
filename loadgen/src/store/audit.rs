//! What the rows are asked about a sale: SQL that every database here understands, so that none of
//! them is judged by questions of its own. Each question is answered with one row of numbers, and
//! the numbers in it are written out, as not every database takes them as parameters everywhere.

use super::Database;
use crate::failure::Failure;

/// What the database answers about the whole sale, each by SQL over the rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Audit {
    /// Rows in all.
    pub rows: u64,
    /// Distinct order ids that the sale could have sent.
    pub distinct: u64,
    /// Rows whose order id the sale never had.
    pub unknown: u64,
    /// Rows of a user that were applied before, or begun before the end of, the user's earlier one.
    pub order_violations: u64,
    /// The shortest time in which `writes_per_s` writes followed each other, in nanoseconds;
    /// `None` if there were fewer writes.
    pub fastest_second_ns: Option<i64>,
}

impl Audit {
    /// Asks about a sale of `orders` orders before a database of `writes_per_s`.
    pub(super) fn of(
        database: &dyn Database,
        orders: u64,
        writes_per_s: u32,
    ) -> Result<Self, Failure> {
        let table = database.orders_table();
        let [rows, distinct, unknown] = ask(
            database,
            &format!(
                "SELECT count(*),
                    count(DISTINCT CASE WHEN order_id BETWEEN 1 AND {orders} THEN order_id END),
                    count(CASE WHEN order_id NOT BETWEEN 1 AND {orders} THEN 1 END)
                 FROM {table}"
            ),
        )?;
        let [order_violations] = ask(
            database,
            &format!(
                "SELECT count(*) FROM (
                    SELECT applied, started_ns,
                        lag(applied) OVER earlier AS applied_before,
                        lag(finished_ns) OVER earlier AS finished_before
                    FROM {table}
                    WINDOW earlier AS (PARTITION BY user_id ORDER BY user_seq, applied)) AS pairs
                 WHERE applied < applied_before OR started_ns < finished_before"
            ),
        )?;
        let [fastest_second_ns] = ask(
            database,
            &format!(
                "SELECT min(started_ns - started_before) FROM (
                    SELECT started_ns,
                        lag(started_ns, {writes_per_s}) OVER (ORDER BY started_ns)
                            AS started_before
                    FROM {table}) AS spans"
            ),
        )?;
        Ok(Self {
            rows: count(rows),
            distinct: count(distinct),
            unknown: count(unknown),
            order_violations: count(order_violations),
            fastest_second_ns,
        })
    }
}

/// Writes begun in `from_ns..to_ns`.
pub(super) fn writes_between(
    database: &dyn Database,
    from_ns: i64,
    to_ns: i64,
) -> Result<u64, Failure> {
    let table = database.orders_table();
    let [writes] = ask(
        database,
        &format!(
            "SELECT count(*) FROM {table} WHERE started_ns >= {from_ns} AND started_ns < {to_ns}"
        ),
    )?;
    Ok(count(writes))
}

fn ask<const COLUMNS: usize>(
    database: &dyn Database,
    question: &str,
) -> Result<[Option<i64>; COLUMNS], Failure> {
    let answer = database.ask(question)?;
    Ok(answer
        .try_into()
        .expect("an answer has the columns of its question"))
}

fn count(number: Option<i64>) -> u64 {
    number.map_or(0, |number| u64::try_from(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::row;
    use crate::store::{Row, Store};

    fn audit(rows: &[Row]) -> Audit {
        let mut store = Store::memory();
        store.apply(rows).unwrap();
        store.audit(3, 2).unwrap()
    }

    #[test]
    fn the_audit_of_a_right_sale_finds_every_order_once_and_in_order() {
        let audit = audit(&[row(1, "a", 1, 0), row(2, "b", 1, 1), row(3, "a", 2, 2)]);
        assert_eq!(
            audit,
            Audit {
                rows: 3,
                distinct: 3,
                fastest_second_ns: Some(2_000),
                ..audit
            }
        );
        assert_eq!((audit.unknown, audit.order_violations), (0, 0));
    }

    #[test]
    fn a_missing_a_doubled_and_an_unknown_order_show_in_the_counts() {
        let lost = audit(&[row(1, "a", 1, 0), row(3, "a", 2, 2)]);
        assert_eq!((lost.rows, lost.distinct), (2, 2));
        let doubled = audit(&[row(1, "a", 1, 0), row(2, "b", 1, 1), row(2, "b", 1, 2)]);
        assert_eq!((doubled.rows, doubled.distinct), (3, 2));
        let unknown = audit(&[row(1, "a", 1, 0), row(4, "b", 1, 1)]);
        assert_eq!((unknown.rows, unknown.distinct, unknown.unknown), (2, 1, 1));
    }

    #[test]
    fn two_orders_of_one_user_applied_in_the_wrong_sequence_are_a_violation() {
        let audit = audit(&[row(2, "a", 2, 0), row(1, "a", 1, 1)]);
        assert_eq!(audit.order_violations, 1);
    }

    #[test]
    fn an_order_begun_before_the_users_earlier_one_ended_is_a_violation() {
        let mut early = row(2, "a", 2, 1);
        early.started_ns = 1_400;
        assert_eq!(audit(&[row(1, "a", 1, 0), early]).order_violations, 1);
        let mut other_user = row(2, "b", 1, 1);
        other_user.started_ns = 1_400;
        assert_eq!(audit(&[row(1, "a", 1, 0), other_user]).order_violations, 0);
    }

    #[test]
    fn writes_are_counted_by_their_start() {
        let mut store = Store::memory();
        store
            .apply(&[row(1, "a", 1, 0), row(2, "b", 1, 1), row(3, "a", 2, 2)])
            .unwrap();
        assert_eq!(store.writes_between(1_000, 3_000).unwrap(), 2);
    }
}
