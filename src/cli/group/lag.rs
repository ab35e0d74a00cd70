//! `forebay group lag`: how late a group is in each partition of the topics it reads, in records
//! and in seconds, how fast that changes, and when nothing will be left. Rates come from two looks,
//! so the first table takes one interval. The arithmetic is [`crate::client::lag`]'s.
//!
//! Everything is asked over the plain protocol (OffsetFetch, ListOffsets, Fetch), so it works for
//! groups of any client on any broker. The age of a partition is that of its oldest unread record,
//! read from the log; the group's is that of its worst partition.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Cluster, describe_group, is_dead, no_group, partitions_of};
use crate::base::Offset;
use crate::cli::output::{Failure, Format, Output};
use crate::client::clock::wall_ms;
use crate::client::consumer::decode_assignment;
use crate::client::lag::{Pace, Span, age_s};
use crate::client::{Client, EARLIEST, Isolation, LATEST, Tcp, TopicPartition};

/// An hour is more than anybody looks at.
const INTERVAL_S_MAX: f64 = 3600.0;

const HEADS: [&str; 9] = [
    "TOPIC",
    "PARTITION",
    "COMMITTED",
    "END",
    "LAG",
    "SECONDS",
    "PRODUCED/S",
    "DRAINED/S",
    "EMPTY IN",
];

#[derive(Debug, Args)]
pub struct Lag {
    /// Name of the group
    group: String,

    /// Go on until interrupted, a table per interval; with --max-seconds until it is exceeded
    #[arg(long)]
    watch: bool,

    /// Seconds between two looks, from which the rates come; many clients commit every 5 s
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = interval)]
    interval: Duration,

    /// End with exit code 3 if the oldest unread record is older than this
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    max_seconds: Option<f64>,

    /// Where the group begins in a partition without a commit: its auto.offset.reset
    #[arg(long, value_enum, default_value_t)]
    reset: Reset,

    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Reset {
    /// At the first record there is: all of them are unread
    #[default]
    Earliest,
    /// Behind the last record: none is unread
    Latest,
}

/// Where a group stands in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Standing {
    /// Offset of the first record there is.
    start: Offset,
    /// Offset behind the last one.
    end: Offset,
    committed: Option<Offset>,
}

/// All partitions at one time.
struct Look {
    at: Instant,
    standings: BTreeMap<TopicPartition, Standing>,
}

/// What is said of a partition, or of all together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Row {
    unread: i64,
    /// `None` if it is not known.
    age_s: Option<f64>,
    pace: Pace,
    /// `None` is never.
    empty_in_s: Option<f64>,
}

/// A partition's row, with where it stands.
type Rows = BTreeMap<TopicPartition, (Standing, Row)>;

/// Looks, waits, looks again and prints; on and on with `--watch`.
pub async fn run(command: Lag, output: &mut Output) -> Result<(), Failure> {
    let client = command.cluster.connect().await?;
    let mut before = command.look(&client).await?;
    loop {
        tokio::time::sleep(command.interval).await;
        let after = command.look(&client).await?;
        let ages = command.ages(&client, &after).await?;
        let rows = command.rows(&before, &after, &ages);
        match (command.format, command.watch) {
            (Format::Text, _) => command.print(&rows, output)?,
            (Format::Json, true) => output.line(&command.to_json(&rows).to_string())?,
            (Format::Json, false) => output.json(&command.to_json(&rows))?,
        }
        output.flush()?;
        command.check(&rows)?;
        if !command.watch {
            return Ok(());
        }
        before = after;
    }
}

impl Lag {
    /// All partitions of the topics in which the group has committed something or has members.
    async fn look(&self, client: &Client<Tcp>) -> Result<Look, Failure> {
        // Asked before the ends of the logs: a group is never shown to be ahead of them.
        let committed = client.committed(&self.group, None, false).await?;
        let group = describe_group(client, &self.group).await?;
        if committed.is_empty() && group.members.is_empty() && is_dead(&group) {
            return Err(no_group(&self.group));
        }
        let assigned = group.members.into_iter().flat_map(|member| {
            // Groups that are not of consumers put other things there.
            decode_assignment(member.member_assignment).unwrap_or_default()
        });
        let partitions = committed.keys().cloned().chain(assigned);
        let topics: BTreeSet<String> = partitions.map(|each| each.topic).collect();
        let partitions = partitions_of(client, topics).await?;
        let offsets = async |which| {
            let offsets = client.offsets(&partitions, which, Isolation::default());
            offsets.await
        };
        let (starts, ends) = (offsets(EARLIEST).await?, offsets(LATEST).await?);
        let at = Instant::now();
        let standings = ends.into_iter().map(|(partition, end)| {
            let standing = Standing {
                start: starts[&partition],
                end,
                committed: committed.get(&partition).map(|it| it.offset),
            };
            (partition, standing)
        });
        let standings = standings.collect();
        Ok(Look { at, standings })
    }

    /// Seconds since the oldest unread record of each partition that has one, if that is known.
    async fn ages(
        &self,
        client: &Client<Tcp>,
        look: &Look,
    ) -> Result<BTreeMap<TopicPartition, Option<f64>>, Failure> {
        let spans = look.standings.iter().map(|(partition, standing)| {
            let span = standing.span(self.reset);
            (partition.clone(), span)
        });
        let late = spans.filter(|(_, span)| span.unread() > 0);
        let asked: Vec<_> = late.map(|(each, span)| (each, span.next)).collect();
        let timestamps = client.first_timestamps(&asked).await?;
        let now_ms = wall_ms();
        let ages = timestamps.into_iter().filter_map(|(partition, timestamp)| {
            let age_s = match timestamp.transpose()? {
                Ok(timestamp) => age_s(timestamp, now_ms),
                Err(_) => None,
            };
            Some((partition, age_s))
        });
        Ok(ages.collect())
    }

    fn rows(
        &self,
        before: &Look,
        after: &Look,
        ages: &BTreeMap<TopicPartition, Option<f64>>,
    ) -> Rows {
        let elapsed = after.at.duration_since(before.at);
        let rows = after.standings.iter().map(|(partition, standing)| {
            let earlier = before.standings.get(partition).unwrap_or(standing);
            let began = earlier.next(self.reset);
            let pace = Pace::between(
                Span {
                    end: earlier.end,
                    next: began,
                },
                Span {
                    end: standing.end,
                    next: standing.committed.unwrap_or(began),
                },
                elapsed,
            );
            // What has no age is no record for consumers: the ends of transactions.
            let age_s = ages.get(partition).copied();
            let unread = age_s.map_or(0, |_| standing.span(self.reset).unread());
            let row = Row {
                unread,
                age_s: age_s.unwrap_or(Some(0.0)),
                pace,
                empty_in_s: pace.empty_in_s(unread),
            };
            (partition.clone(), (*standing, row))
        });
        rows.collect()
    }

    fn print(&self, rows: &Rows, output: &mut Output) -> Result<(), Failure> {
        let all = sum(rows);
        let partitions = rows.iter().map(|(partition, (standing, row))| {
            let committed = standing
                .committed
                .map_or("-".to_owned(), |it| it.to_string());
            let place = [
                partition.topic.clone(),
                partition.partition.to_string(),
                committed,
                standing.end.to_string(),
            ];
            row.cells(place)
        });
        let total = ["all", "-", "-", "-"].map(str::to_owned);
        let table: Vec<_> = partitions.chain([all.cells(total)]).collect();
        output.table(HEADS, &table)?;
        for (partition, (standing, _)) in rows {
            if let Some(remark) = standing.remark() {
                output.line(&format!("{partition}: {remark}"))?;
            }
        }
        if all.unread > 0 && all.pace.drained_per_s == 0.0 {
            let interval_s = self.interval.as_secs_f64();
            output.line(&format!(
                "nothing was committed within {interval_s} s; if the group commits less often, \
                 take a longer --interval"
            ))?;
        }
        Ok(())
    }

    fn to_json(&self, rows: &Rows) -> Value {
        let partitions = rows.iter().map(|(partition, (standing, row))| {
            let mut value = row.to_json();
            value["topic"] = json!(partition.topic);
            value["partition"] = json!(partition.partition);
            value["start"] = json!(standing.start);
            value["end"] = json!(standing.end);
            value["committed"] = json!(standing.committed);
            value["remark"] = json!(standing.remark());
            value
        });
        let mut value = sum(rows).to_json();
        value["group"] = json!(self.group);
        value["intervalSeconds"] = json!(self.interval.as_secs_f64());
        value["partitions"] = partitions.collect();
        value
    }

    /// Whether the group is within `--max-seconds`.
    fn check(&self, rows: &Rows) -> Result<(), Failure> {
        let Some(seconds_max) = self.max_seconds else {
            return Ok(());
        };
        let group = &self.group;
        let known = rows.iter().filter_map(|(partition, (_, row))| {
            let age_s = row.age_s?;
            Some((partition, age_s))
        });
        let oldest = known.max_by(|(_, one), (_, other)| one.total_cmp(other));
        if let Some((partition, age_s)) = oldest
            && age_s > seconds_max
        {
            return Err(Failure::Exceeded(format!(
                "group \"{group}\" is {age_s:.1} s late in {partition}, more than {seconds_max} s"
            )));
        }
        match rows.iter().find(|(_, (_, row))| row.age_s.is_none()) {
            None => Ok(()),
            Some((partition, _)) => Err(Failure::Failed(format!(
                "whether group \"{group}\" is within {seconds_max} s is not known: the oldest \
                 unread record of {partition} has no timestamp, or cannot be read"
            ))),
        }
    }
}

impl Standing {
    /// The offset from which the group wants to read.
    fn next(&self, reset: Reset) -> Offset {
        match (self.committed, reset) {
            (Some(committed), _) => committed,
            (None, Reset::Earliest) => self.start,
            (None, Reset::Latest) => self.end,
        }
    }

    /// What the group can still read: records that were deleted are not unread.
    fn span(&self, reset: Reset) -> Span {
        Span {
            end: self.end,
            next: self.next(reset).max(self.start),
        }
    }

    /// What is odd about it.
    fn remark(&self) -> Option<String> {
        let (start, end, committed) = (self.start, self.end, self.committed?);
        match committed {
            _ if committed < start => Some(format!(
                "{} records were deleted before the group read them",
                start - committed
            )),
            _ if committed > end => Some(format!(
                "the group has committed {committed}, beyond the end of the log, and will start \
                 over by its auto.offset.reset"
            )),
            _ => None,
        }
    }
}

impl Row {
    /// Its line of the table: where it is, then its figures.
    fn cells(self, [topic, partition, committed, end]: [String; 4]) -> [String; HEADS.len()] {
        let age_s = self.age_s.map_or("-".to_owned(), |it| format!("{it:.1}"));
        let empty_in = match self.empty_in_s {
            Some(seconds) => format!("{seconds:.1} s"),
            None => "never".to_owned(),
        };
        [
            topic,
            partition,
            committed,
            end,
            self.unread.to_string(),
            age_s,
            format!("{:.1}", self.pace.produced_per_s),
            format!("{:.1}", self.pace.drained_per_s),
            empty_in,
        ]
    }

    fn to_json(self) -> Value {
        json!({
            "lag": self.unread,
            "lagSeconds": self.age_s,
            "producedPerSecond": self.pace.produced_per_s,
            "drainedPerSecond": self.pace.drained_per_s,
            "emptyInSeconds": self.empty_in_s,
        })
    }
}

/// The group as a whole: as late as its latest partition, and done when its last one is.
fn sum(rows: &Rows) -> Row {
    let worse = |one: Option<f64>, other: Option<f64>| Some(one?.max(other?));
    let nothing = Row {
        age_s: Some(0.0),
        empty_in_s: Some(0.0),
        ..Row::default()
    };
    let rows = rows.values().map(|(_, row)| row);
    rows.fold(nothing, |all, row| Row {
        unread: all.unread.saturating_add(row.unread),
        age_s: worse(all.age_s, row.age_s),
        pace: Pace {
            produced_per_s: all.pace.produced_per_s + row.pace.produced_per_s,
            drained_per_s: all.pace.drained_per_s + row.pace.drained_per_s,
        },
        empty_in_s: worse(all.empty_in_s, row.empty_in_s),
    })
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds >= 0.0);
    seconds.ok_or_else(|| "write seconds, for instance 30 or 0.5".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = seconds(text)?;
    match (0.001..=INTERVAL_S_MAX).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(format!("write 0.001 to {INTERVAL_S_MAX} seconds")),
    }
}
