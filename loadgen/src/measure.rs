//! What a real database sustains, measured before a sale without a modelled one: batches like
//! those of the sale, as fast as they become permanent. The sale will share the machine with the
//! broker and the load, so this is an upper bound, and the model's tolerance says so.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::orders::Order;
use crate::sink::ROWS_MAX;
use crate::store::{Place, Row, Rules, Store};

/// Batches before this has passed are left out: caches fill, plans are made.
const WARM_UP: Duration = Duration::from_millis(500);
/// Then it is measured for so long.
const MEASURED: Duration = Duration::from_secs(2);

/// Rows per second that the database at `place` makes permanent, over `partitions`.
///
/// # Errors
/// If the database fails, or what it is to be tried in is there already.
pub fn rows_per_s(place: &Place, rules: Rules, partitions: usize) -> Result<u32, Failure> {
    let scratch = place.scratch();
    if scratch.file().is_some_and(Path::exists) {
        return Err(Failure::Reason(format!(
            "{scratch} is in the way of measuring what the database sustains: remove it"
        )));
    }
    let mut store = Store::open(&scratch, rules)?;
    let rate = rate(&mut store, partitions);
    store.erase()?;
    rate
}

fn rate(store: &mut Store, partitions: usize) -> Result<u32, Failure> {
    let mut batches = 0_u64;
    let mut begun = Instant::now();
    let mut measured = 0_u64;
    let mut warm = false;
    loop {
        store.apply(&batch(batches, partitions))?;
        batches += 1;
        if !warm {
            warm = begun.elapsed() >= WARM_UP;
            if warm {
                begun = Instant::now();
            }
            continue;
        }
        measured += ROWS_MAX as u64;
        if begun.elapsed() >= MEASURED {
            break;
        }
    }
    let rate = measured as f64 / begun.elapsed().as_secs_f64();
    Ok(rate.max(1.0) as u32)
}

/// The batch with this number: its orders follow those of the one before.
fn batch(number: u64, partitions: usize) -> Vec<Row> {
    let first = number * ROWS_MAX as u64;
    let rows = (first..first + ROWS_MAX as u64).map(|at| {
        let order = Order {
            order_id: at + 1,
            user_id: format!("user-{:07}", at % 100_000),
            user_seq: 1,
            item: "headphones".to_owned(),
            amount_cents: 12_950,
            time_us: at,
            note: String::new(),
        };
        let time = i64::try_from(at).unwrap_or(i64::MAX);
        Row {
            partition: i32::try_from(at % partitions as u64).unwrap_or(0),
            offset: time,
            order: Some(order),
            started_ns: time,
            finished_ns: time,
        }
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_measured_in_a_place_that_is_gone_afterwards_and_was_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join("sale.scratch");
        std::fs::write(&notes, "").unwrap();
        let place = Place::Sqlite(folder.path().join("sale.db"));
        let rate = rows_per_s(&place, Rules::default(), 10).unwrap();
        assert!(rate > 1_000, "{rate} rows/s");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert!(notes.exists() && left.len() == 1, "{left:?}");

        let taken = place.scratch();
        std::fs::write(taken.file().unwrap(), "").unwrap();
        let failure = rows_per_s(&place, Rules::default(), 10).unwrap_err();
        assert!(failure.to_string().contains("remove it"), "{failure}");
        assert!(taken.file().unwrap().exists());
    }

    #[test]
    fn batches_follow_each_other_without_a_gap() {
        let (first, second) = (batch(0, 3), batch(1, 3));
        assert_eq!(first.len(), ROWS_MAX);
        assert_eq!(first.last().unwrap().offset + 1, second[0].offset);
        assert!(first.iter().all(|row| (0..3).contains(&row.partition)));
    }
}
