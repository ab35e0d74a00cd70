//! Named points at which a process dies when told to: without destructors, without flushing,
//! without saying goodbye to the broker. The tests use it to prove what the other files claim; a
//! copy of this project can drop it.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::ValueEnum;

/// Where to die.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Point {
    /// place: order and event are written, the transaction is not committed
    OrderNotCommitted,
    /// relay: the broker has the events, the outbox does not know it
    PublishedNotMarked,
    /// stock, payment, mail: the effect is done, its transaction is not committed
    EffectNotCommitted,
    /// stock, payment, mail: the transaction is committed, the offset is not
    OffsetNotCommitted,
    /// view: the snapshot is written, its transaction is not committed
    SnapshotNotCommitted,
    /// view: the snapshot is committed
    SnapshotCommitted,
}

/// A point, and how often it is still passed unharmed.
#[derive(Clone, Debug)]
pub struct Crash {
    point: Point,
    passes_left: Arc<AtomicU32>,
}

impl FromStr for Crash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (point, time) = text.split_once(':').unwrap_or((text, "1"));
        let time: u32 = time.parse().ok().filter(|time| *time > 0).ok_or_else(|| {
            format!("{time:?} is not a count: write POINT:3 for the third time it is passed")
        })?;
        let point = <Point as ValueEnum>::from_str(point, false).map_err(|_| {
            let names = Point::value_variants()
                .iter()
                .filter_map(Point::to_possible_value);
            let names: Vec<_> = names.map(|name| name.get_name().to_owned()).collect();
            format!("there is no such point: take one of {}", names.join(", "))
        })?;
        Ok(Self {
            point,
            passes_left: Arc::new(AtomicU32::new(time - 1)),
        })
    }
}

/// Dies here, if this is the point and the time.
pub fn point(crash: Option<&Crash>, here: Point) {
    if is_due(crash, here) {
        std::process::abort();
    }
}

/// Whether this is the point and the time to die.
pub fn is_due(crash: Option<&Crash>, here: Point) -> bool {
    let Some(crash) = crash.filter(|crash| crash.point == here) else {
        return false;
    };
    let due = crash.passes_left.load(Ordering::Relaxed) == 0;
    crash.passes_left.fetch_sub(1, Ordering::Relaxed);
    due
}
