//! The receipts of a crash test: what was promised, what is there, how long the broker took to
//! come back; as text for people, as JSON for programs.

use super::ledger::{Counts, Ledger};
use crate::cli::output::{Failure, Format, Output};
use serde_json::{Value, json};
use std::time::Duration;

/// What came of one kind of crash.
#[derive(Clone, Debug)]
pub struct Receipts {
    /// `kills` or `power cuts`.
    pub name: &'static str,
    /// How often the broker crashed, in recoveries too.
    pub crashes: u32,
    /// Crashes that hit a recovery.
    pub in_recovery: u32,
    /// Clean stops in between.
    pub clean_stops: u32,
    /// From the start of the process after a crash until it serves.
    pub recovery: Vec<Duration>,
    /// Of the topics that must survive everything.
    pub counts: Counts,
    /// Records acknowledged with acks=1 that are there.
    pub relaxed_kept: u64,
    /// Records acknowledged with acks=1 that are not: a fault after kills, not after power cuts.
    pub relaxed_lost: u64,
    /// The first faults, in words.
    pub faults: Vec<String>,
    /// Why it ended early.
    pub broken: Option<String>,
}

/// What came of all.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The seed in use.
    pub seed: u64,
    /// A part per kind of crash.
    pub parts: Vec<Receipts>,
}

impl Receipts {
    /// Empty ones; `name` is `kills` or `power cuts`.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            crashes: 0,
            in_recovery: 0,
            clean_stops: 0,
            recovery: Vec::new(),
            counts: Counts::default(),
            relaxed_kept: 0,
            relaxed_lost: 0,
            faults: Vec::new(),
            broken: None,
        }
    }

    /// Takes over what the books say.
    pub fn take(&mut self, ledger: &Ledger) {
        self.counts = ledger.counts.clone();
        self.faults = ledger.faults.clone();
    }

    /// True while nothing is missing that was promised.
    pub fn is_good(&self) -> bool {
        let relaxed_lost = self.name == "kills" && self.relaxed_lost > 0;
        self.broken.is_none() && self.counts.faults() == 0 && !relaxed_lost
    }

    /// Smallest, middle and largest time of recovery.
    fn recovery_ms(&self) -> [u128; 3] {
        let mut times: Vec<_> = self.recovery.iter().map(Duration::as_millis).collect();
        times.sort_unstable();
        let at = |index: usize| times.get(index).copied().unwrap_or(0);
        [
            at(0),
            at(times.len() / 2),
            at(times.len().saturating_sub(1)),
        ]
    }

    /// Names and values, in the order in which they are read.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let counts = &self.counts;
        let [min, median, max] = self.recovery_ms();
        let numbers = [
            ("crashes", u64::from(self.crashes)),
            ("of them in recovery", u64::from(self.in_recovery)),
            ("clean stops in between", u64::from(self.clean_stops)),
            ("records sent, acks=all", counts.sent),
            ("acknowledged", counts.acknowledged),
            ("outcome unknown", counts.unknown),
            ("found", counts.found),
            ("found, not acknowledged", counts.unacknowledged_found),
            ("lost", counts.lost),
            ("duplicated", counts.duplicated),
            ("out of order", counts.out_of_order),
            ("changed", counts.changed),
            ("refused", counts.refused),
            ("committed offsets back", counts.commits_back),
            ("topics made", counts.topics_made),
            ("topics deleted", counts.topics_deleted),
            ("topics wrong", counts.topics_wrong),
            ("acks=1: kept", self.relaxed_kept),
            ("acks=1: lost", self.relaxed_lost),
            ("recovery ms, min", min as u64),
            ("recovery ms, median", median as u64),
            ("recovery ms, max", max as u64),
        ];
        numbers
            .map(|(name, number)| (name, number.to_string()))
            .into()
    }

    fn json(&self) -> Value {
        let [min, median, max] = self.recovery_ms();
        json!({
            "kind": self.name,
            "crashes": self.crashes,
            "in_recovery": self.in_recovery,
            "clean_stops": self.clean_stops,
            "counts": self.counts,
            "acks_1_kept": self.relaxed_kept,
            "acks_1_lost": self.relaxed_lost,
            "recovery_ms": {"min": min as u64, "median": median as u64, "max": max as u64},
            "faults": self.faults,
            "broken": self.broken,
            "good": self.is_good(),
        })
    }
}

impl Verdict {
    /// Prints everything; the error says that something was not there.
    pub fn print(&self, format: Format, output: &mut Output) -> Result<(), Failure> {
        let is_good = self.parts.iter().all(Receipts::is_good);
        match format {
            Format::Json => {
                let parts: Vec<_> = self.parts.iter().map(Receipts::json).collect();
                output.json(&json!({"seed": self.seed, "good": is_good, "parts": parts}))?;
            }
            Format::Text => self.print_text(output)?,
        }
        output.flush()?;
        match is_good {
            true => Ok(()),
            false => Err(Failure::Failed(format!(
                "what was promised is not all there; --seed {} --keep takes the same course and \
                 leaves the data for a look",
                self.seed
            ))),
        }
    }

    fn print_text(&self, output: &mut Output) -> Result<(), Failure> {
        output.line(&format!("seed {}", self.seed))?;
        for part in &self.parts {
            output.line("")?;
            let rows = part.rows().into_iter();
            let rows: Vec<_> = rows.map(|(name, value)| [name.to_owned(), value]).collect();
            output.table([part.name, ""], &rows)?;
            for fault in part.faults.iter().chain(&part.broken) {
                output.line(&format!("  {fault}"))?;
            }
            let word = if part.is_good() { "PASS" } else { "FAIL" };
            output.line(&format!("{word}  {}", part.name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_fault_fails_and_power_cuts_may_take_what_was_not_synced() {
        let good = Receipts::new("kills");
        assert!(good.is_good());
        let mut lost = good.clone();
        lost.counts.lost = 1;
        let mut broken = good.clone();
        broken.broken = Some("gone".to_owned());
        let mut relaxed = good.clone();
        relaxed.relaxed_lost = 1;
        for fault in [lost, broken, relaxed.clone()] {
            assert!(!fault.is_good());
        }
        relaxed.name = "power cuts";
        assert!(relaxed.is_good());
    }

    #[test]
    fn times_are_smallest_middle_and_largest() {
        let mut receipts = Receipts::new("kills");
        assert_eq!(receipts.recovery_ms(), [0, 0, 0]);
        receipts.recovery = [5, 1, 9].map(Duration::from_millis).into();
        assert_eq!(receipts.recovery_ms(), [1, 5, 9]);
    }
}
