//! `forebay dlq replay` and `forebay dlq skip`: reads the dead letters that were selected and hands
//! them to the work, at the pace that was asked for, and says what was done.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::letter::Letter;
use super::partitions;
use super::reading::Reader;
use super::selection::{Position, Selection};
use super::wire::{Wire, read_journal};
use super::work::{Report, Rules, Work};
use crate::cli::Cluster;
use crate::cli::consume::interrupted;
use crate::cli::output::{Failure, Format, Output};
use crate::client::Isolation;

/// Letters that are on their way at once.
const BATCH_MAX: usize = 500;
/// With a rate, as many as are due in this part of a second.
const BATCHES_PER_S: u32 = 4;
/// Positions that are named of those that were left.
const POSITIONS_SHOWN_MAX: usize = 10;

/// What to send back.
#[derive(Debug, Args)]
pub struct Replay {
    /// Name of the dead letter topic
    topic: String,
    #[command(flatten)]
    selection: Selection,
    /// Send them to this topic instead of where they came from
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// At most so many per second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Leave those that failed again after so many replays
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    replays_max: u32,
    /// Send those that were skipped, too
    #[arg(long)]
    skipped: bool,
    /// Send those that were sent before, too: for records deleted before anybody read them
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    how: How,
}

/// What to leave where it is.
#[derive(Debug, Args)]
pub struct Skip {
    /// Name of the dead letter topic
    topic: String,
    #[command(flatten)]
    selection: Selection,
    /// Why; `forebay dlq show` says it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct How {
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print what was done
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    cluster: Cluster,
}

/// What happens to a letter.
enum Action {
    Replay { rate: Option<u32> },
    Skip { reason: String },
}

/// How it went.
#[derive(Debug, Default)]
struct Outcome {
    report: Report,
    /// Positions that were asked for, and hold nothing.
    missing: BTreeSet<Position>,
    /// Somebody stopped it.
    stopped: bool,
    /// Why it did not come to its end.
    failure: Option<Failure>,
}

/// Keeps to a rate: whoever has sent nothing for a while may not send the faster for it.
struct Throttle {
    /// Letters per second.
    rate: Option<u32>,
    /// When the next ones may be sent.
    due: Instant,
}

/// Sends dead letters back.
pub async fn replay(command: Replay, output: &mut Output) -> Result<(), Failure> {
    if command.to.as_ref() == Some(&command.topic) {
        return Err(Failure::Usage(
            "--to names the dead letter topic itself: name another one".to_owned(),
        ));
    }
    let rules = Rules {
        letters: command.topic,
        to: command.to,
        replays_max: command.replays_max,
        takes_skipped: command.skipped,
        takes_replayed: command.again,
        is_dry_run: command.how.dry_run,
    };
    // What is not sent takes no time.
    let rate = command.rate.filter(|_| !rules.is_dry_run);
    let action = Action::Replay { rate };
    let outcome = deal(&rules, &command.selection, &action, &command.how.cluster).await?;
    tell("replayed", outcome, &rules, command.how.format, output)
}

/// Notes that dead letters stay where they are.
pub async fn skip(command: Skip, output: &mut Output) -> Result<(), Failure> {
    if command.reason.trim().is_empty() {
        return Err(Failure::Usage("--reason is empty: say why".to_owned()));
    }
    let rules = Rules {
        letters: command.topic,
        to: None,
        replays_max: 0,
        takes_skipped: false,
        takes_replayed: false,
        is_dry_run: command.how.dry_run,
    };
    let reason = command.reason;
    let action = Action::Skip { reason };
    let outcome = deal(&rules, &command.selection, &action, &command.how.cluster).await?;
    tell("skipped", outcome, &rules, command.how.format, output)
}

async fn deal(
    rules: &Rules,
    selection: &Selection,
    action: &Action,
    cluster: &Cluster,
) -> Result<Outcome, Failure> {
    selection.check()?;
    let client = cluster.connect().await?;
    let topic = &rules.letters;
    let starts = selection.starts(topic, partitions(&client, topic).await?)?;
    let mut wire = match rules.is_dry_run {
        true => Wire::reading(&client, topic),
        false => Wire::writing(&client, topic).await?,
    };
    let dealt = async {
        let journal = read_journal(&client, topic).await?;
        let reader = Reader::open(&client, starts, Isolation::ReadCommitted).await?;
        let work = Work::new(&mut wire, journal, rules.clone());
        Ok(deal_with_all(reader, work, selection, action).await)
    };
    let dealt = dealt.await;
    // Whoever comes next need not wait for our session to end, also after an error.
    wire.close().await;
    dealt
}

async fn deal_with_all(
    reader: Reader,
    mut work: Work<'_, Wire>,
    selection: &Selection,
    action: &Action,
) -> Outcome {
    let mut outcome = Outcome {
        missing: selection.wanted(),
        ..Outcome::default()
    };
    let dealt = deal_with_each(reader, &mut work, selection, action, &mut outcome);
    outcome.failure = dealt.await.err();
    // What was done until a failure was done.
    outcome.report = work.report;
    outcome
}

async fn deal_with_each(
    mut reader: Reader,
    work: &mut Work<'_, Wire>,
    selection: &Selection,
    action: &Action,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let stop = interrupted();
    tokio::pin!(stop);
    work.settle().await?;
    let mut throttle = Throttle::new(action);
    while !selection.is_complete(&outcome.missing) {
        let read = tokio::select! {
            read = reader.next() => read?,
            () = &mut stop => { outcome.stopped = true; break }
        };
        let Some((partition, records)) = read else {
            break;
        };
        let letters = records.into_iter();
        let letters = letters.map(|record| Letter::new(&partition, record));
        let letters: Vec<Letter> = letters.filter(|each| selection.matches(each)).collect();
        for letter in &letters {
            outcome.missing.remove(&letter.position());
        }
        for batch in letters.chunks(batch_size(action)) {
            let (begun, done_before) = (Instant::now(), work.report.done_count());
            match action {
                Action::Replay { .. } => work.replay(batch).await?,
                Action::Skip { reason } => work.skip(batch, reason).await?,
            }
            let due = throttle.on_sent(begun, work.report.done_count() - done_before);
            tokio::select! {
                // What is due now goes on, whoever wants to stop.
                biased;
                () = &mut stop => { outcome.stopped = true; return Ok(()) }
                () = sleep_until(due) => {}
            }
        }
    }
    Ok(())
}

impl Throttle {
    fn new(action: &Action) -> Self {
        let rate = match action {
            Action::Replay { rate } => *rate,
            Action::Skip { .. } => None,
        };
        let due = Instant::now();
        Self { rate, due }
    }

    /// So many were sent from `begun` on; gives when the next ones may be.
    fn on_sent(&mut self, begun: Instant, count: u64) -> Instant {
        if let Some(rate) = self.rate {
            let takes = Duration::from_secs_f64(count as f64 / f64::from(rate));
            self.due = self.due.max(begun) + takes;
        }
        self.due
    }
}

fn batch_size(action: &Action) -> usize {
    match action {
        Action::Replay { rate: Some(rate) } => {
            ((rate / BATCHES_PER_S) as usize).clamp(1, BATCH_MAX)
        }
        Action::Replay { rate: None } | Action::Skip { .. } => BATCH_MAX,
    }
}

/// Says what was done; fails if something that was asked for was not.
fn tell(
    verb: &str,
    outcome: Outcome,
    rules: &Rules,
    format: Format,
    output: &mut Output,
) -> Result<(), Failure> {
    match format {
        Format::Json => output.json(&to_json(verb, &outcome, rules))?,
        Format::Text => {
            for line in lines(verb, &outcome, rules) {
                output.line(&line)?;
            }
        }
    }
    output.flush()?;
    if let Some(failure) = outcome.failure {
        return Err(failure);
    }
    let left = outcome.report.left_count();
    let missing: Vec<String> = outcome.missing.iter().map(Position::to_string).collect();
    if outcome.stopped {
        return Err(Failure::Failed(
            "stopped before the end: run it again for the rest".to_owned(),
        ));
    }
    if !missing.is_empty() {
        return Err(Failure::Failed(format!(
            "topic \"{}\" has nothing at {}: see `forebay dlq list`",
            rules.letters,
            missing.join(", ")
        )));
    }
    match left {
        0 => Ok(()),
        1 => Err(Failure::Failed(
            "1 dead letter was left, see above".to_owned(),
        )),
        _ => Err(Failure::Failed(format!(
            "{left} dead letters were left, see above"
        ))),
    }
}

fn lines(verb: &str, outcome: &Outcome, rules: &Rules) -> Vec<String> {
    let report = &outcome.report;
    let would = if rules.is_dry_run { "would be " } else { "" };
    let mut lines = vec![format!("{} {would}{verb}", report.done_count())];
    for (topic, count) in &report.sent {
        lines.push(format!("  {count} to \"{topic}\""));
    }
    for (count, what) in [
        (report.arrived, "had arrived when a replay was cut short"),
        (report.dealt_with, "were dealt with before"),
        (report.twins, "are of the same record as another one"),
    ] {
        if count > 0 {
            lines.push(format!("{count} {what}"));
        }
    }
    for (reason, positions) in &report.left {
        let shown = positions.len().min(POSITIONS_SHOWN_MAX);
        let more = positions.len() - shown;
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let shown: Vec<String> = positions[..shown].iter().map(Position::to_string).collect();
        let shown = shown.join(", ");
        lines.push(format!("{} {reason}: {shown}{more}", positions.len()));
    }
    lines
}

fn to_json(verb: &str, outcome: &Outcome, rules: &Rules) -> serde_json::Value {
    let report = &outcome.report;
    let left = report.left.iter();
    let left = left.map(|(reason, positions)| {
        let positions: Vec<String> = positions.iter().map(Position::to_string).collect();
        json!({"reason": reason, "positions": positions})
    });
    json!({
        verb: report.done_count(),
        "to": report.sent,
        "arrivedBefore": report.arrived,
        "dealtWithBefore": report.dealt_with,
        "sameRecord": report.twins,
        "left": left.collect::<Vec<_>>(),
        "missing": outcome.missing.iter().map(Position::to_string).collect::<Vec<_>>(),
        "dryRun": rules.is_dry_run,
        "stopped": outcome.stopped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_in_small_batches() {
        let at = |rate| Action::Replay { rate: Some(rate) };
        assert_eq!(batch_size(&at(1)), 1);
        assert_eq!(batch_size(&at(100)), 25);
        assert_eq!(batch_size(&at(u32::MAX)), BATCH_MAX);
        assert_eq!(batch_size(&Action::Replay { rate: None }), BATCH_MAX);
    }

    #[test]
    fn what_was_not_sent_while_nothing_was_found_is_not_made_up_for() {
        let mut throttle = Throttle::new(&Action::Replay { rate: Some(50) });
        let begun = throttle.due;
        let after_s = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(throttle.on_sent(begun, 100), after_s(2));
        assert_eq!(throttle.on_sent(after_s(2), 50), after_s(3));
        assert_eq!(throttle.on_sent(after_s(60), 100), after_s(62));
        // Slow brokers are waited for, and not once more.
        assert_eq!(throttle.on_sent(after_s(61), 50), after_s(63));
        let mut at_once = Throttle::new(&Action::Replay { rate: None });
        assert_eq!(at_once.on_sent(after_s(9), 100), at_once.due);
        assert!(at_once.due < after_s(9));
    }

    #[test]
    fn what_was_left_is_said_with_its_reason_and_where_it_is() {
        let mut outcome = Outcome::default();
        outcome.report.sent.insert("orders".to_owned(), 5);
        outcome.report.twins = 2;
        let partition = 0;
        let positions = (0..12).map(|offset| Position { partition, offset });
        let reason = "came back too often".to_owned();
        outcome.report.left.insert(reason, positions.collect());
        let rules = Rules {
            letters: "orders-dlt".to_owned(),
            to: None,
            replays_max: 3,
            takes_skipped: false,
            takes_replayed: false,
            is_dry_run: true,
        };
        let said = lines("replayed", &outcome, &rules);
        assert_eq!(
            said,
            [
                "5 would be replayed",
                "  5 to \"orders\"",
                "2 are of the same record as another one",
                "12 came back too often: 0:0, 0:1, 0:2, 0:3, 0:4, 0:5, 0:6, 0:7, 0:8, 0:9 and 2 \
                 more",
            ]
        );
        let json = to_json("replayed", &outcome, &rules);
        assert_eq!(
            (&json["replayed"], &json["dryRun"]),
            (&json!(5), &json!(true))
        );
        assert_eq!(json["left"][0]["positions"][11], "0:11");
    }
}
