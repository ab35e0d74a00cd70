//! `forebay stats`: what each shard of a running broker does, from its metrics (`--admin-listen`).
//! Rates come from two looks, so the first table takes one interval.

use super::output::{Failure, Output};
use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// More than the metrics of any machine.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Print what each shard does: a table of rates over one interval
#[derive(Debug, Args)]
pub struct Stats {
    /// Where the broker serves its metrics (its --admin-listen)
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9644")]
    admin: String,

    /// Go on until interrupted, a table per interval
    #[arg(long)]
    watch: bool,

    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    interval: NonZeroU16,
}

/// Looks, waits, looks again and prints; forever with `--watch`.
pub async fn run(command: Stats, output: &mut Output) -> Result<(), Failure> {
    let interval = Duration::from_secs(command.interval.get().into());
    let mut before = Look::take(&command.admin).await?;
    loop {
        tokio::time::sleep(interval).await;
        let after = Look::take(&command.admin).await?;
        output.table(HEADER, &rows(&before, &after))?;
        if let Some(line) = full_disk(&after.series) {
            output.line(&line)?;
        }
        output.flush()?;
        if !command.watch {
            return Ok(());
        }
        before = after;
    }
}

/// All series at one time.
struct Look {
    at: Instant,
    series: Series,
}

/// Value by series, as the text names it.
type Series = BTreeMap<String, f64>;

impl Look {
    async fn take(admin: &str) -> Result<Self, Failure> {
        let text = tokio::time::timeout(PATIENCE, get(admin)).await;
        let text = text.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        let text = text.map_err(|why| {
            Failure::Failed(format!(
                "cannot read metrics from {admin}: {why}; start the broker with --admin-listen \
                 {admin}, or name its address with --admin"
            ))
        })?;
        let at = Instant::now();
        let series = parse(&text);
        Ok(Self { at, series })
    }
}

/// The metrics of a broker.
async fn get(admin: &str) -> Result<String, String> {
    let stream = TcpStream::connect(admin).await;
    let stream = TokioIo::new(stream.map_err(|error| error.to_string())?);
    let explain = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(stream).await.map_err(explain)?;
    let request = Request::get("/metrics")
        .header("host", admin)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(explain)?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX);
        let body = body.collect().await.map_err(|error| error.to_string())?;
        String::from_utf8(body.to_bytes().into()).map_err(|error| error.to_string())
    };
    tokio::pin!(exchange);
    tokio::select! {
        text = &mut exchange => text,
        // The connection may end together with the answer.
        result = connection => match result {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// The series of an OpenMetrics text; lines of another form are left out.
fn parse(text: &str) -> Series {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    series.collect()
}

/// What happened between two looks, one line per shard and one for all.
fn rows(before: &Look, after: &Look) -> Vec<[String; HEADER.len()]> {
    let seconds = after.at.duration_since(before.at).as_secs_f64().max(1e-3);
    let shards = (0..).take_while(|shard| {
        let name = format!("forebay_shard_turns_total{{shard=\"{shard}\"}}");
        after.series.contains_key(&name)
    });
    let shards: Vec<u32> = shards.collect();
    let mut rows = Vec::new();
    let mut one = |name: String, shards: &[u32]| {
        rows.push(row(
            name,
            &Change {
                before: &before.series,
                after: &after.series,
                seconds,
                shards,
            },
        ));
    };
    for shard in &shards {
        one(shard.to_string(), &[*shard]);
    }
    one("all".to_owned(), &shards);
    rows
}

/// What to say of a disk that producers may not fill any further.
fn full_disk(series: &Series) -> Option<String> {
    let megabytes = |name: &str| series.get(name).copied().unwrap_or_default() / 1e6;
    let full = series
        .get("forebay_disk_full")
        .is_some_and(|full| *full > 0.0);
    full.then(|| {
        format!(
            "the disk is full: {:.0} MB are free, {:.0} MB are kept from producers, who are \
             refused (disk.reserve.bytes)",
            megabytes("forebay_disk_free_bytes"),
            megabytes("forebay_disk_reserve_bytes")
        )
    })
}

/// The columns. Rates are per second; busy and spin are shares of one CPU; MB are sent by path; the
/// time of syncs is told by upper bounds, each twice the one below.
const HEADER: [&str; 23] = [
    "shard",
    "turns/s",
    "done/turn",
    "busy%",
    "spin%",
    "req/s",
    "mail-in/s",
    "mail-out/s",
    "recv-MB/s",
    "copy-MB/s",
    "sendfile-MB/s",
    "splice-MB/s",
    "cold-read-MB/s",
    "syncs/s",
    "acks/sync",
    "connections",
    "unsynced-KB",
    "unsynced-ms",
    "sync-p50-ms",
    "sync-p99-ms",
    "sync-max-ms",
    "offline",
    "stalled",
];

/// Two looks at some shards.
struct Change<'a> {
    before: &'a Series,
    after: &'a Series,
    seconds: f64,
    shards: &'a [u32],
}

impl Change<'_> {
    /// Sum of the series that begin with `name` and one of the shards, with these further labels.
    fn sum(&self, series: &Series, name: &str, labels: &str) -> f64 {
        let of_shard = |shard: &u32| {
            let start = format!("{name}{{shard=\"{shard}\"");
            let from = series.range(start.clone()..);
            let of_metric = from.take_while(move |(name, _)| name.starts_with(&start));
            let wanted = of_metric.filter(|(name, _)| name.contains(labels));
            wanted.map(|(_, value)| *value).sum::<f64>()
        };
        self.shards.iter().map(of_shard).sum()
    }

    /// How much the counters `name_total` grew.
    fn growth(&self, name: &str, labels: &str) -> f64 {
        let name = format!("{name}_total");
        let before = self.sum(self.before, &name, labels);
        (self.sum(self.after, &name, labels) - before).max(0.0)
    }

    /// The largest value of a gauge.
    fn most(&self, name: &str) -> f64 {
        let of_shard = |shard: &u32| self.after.get(&format!("{name}{{shard=\"{shard}\"}}"));
        let values = self.shards.iter().filter_map(of_shard);
        values.copied().fold(0.0, f64::max)
    }

    /// Upper bounds of a histogram, ascending, with how much was counted up to each.
    fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let start = format!("{name}_bucket{{le=\"");
        let from = self.after.range(start.clone()..);
        let of_metric = from.take_while(|(name, _)| name.starts_with(&start));
        let mut bounds: Vec<(f64, f64)> = Vec::new();
        for (series, after) in of_metric {
            let Some((bound, labels)) = series[start.len()..].split_once('"') else {
                continue;
            };
            let is_asked = |shard: &u32| labels.contains(&format!("shard=\"{shard}\""));
            let Ok(bound) = bound.replace('+', "").parse::<f64>() else {
                continue;
            };
            if self.shards.iter().any(is_asked) {
                let count = after - self.before.get(series).copied().unwrap_or_default();
                match bounds.iter_mut().find(|(known, _)| *known == bound) {
                    Some((_, sum)) => *sum += count,
                    None => bounds.push((bound, count)),
                }
            }
        }
        bounds.sort_by(|one, other| one.0.total_cmp(&other.0));
        bounds
    }

    fn rate(&self, name: &str, labels: &str) -> f64 {
        self.growth(name, labels) / self.seconds
    }
}

/// The bound that this share of what was counted stays below; zero if nothing was.
fn quantile(buckets: &[(f64, f64)], share: f64) -> f64 {
    let total = buckets.last().map_or(0.0, |(_, count)| *count);
    let reached = buckets
        .iter()
        .find(|(_, count)| *count > 0.0 && *count >= share * total);
    reached.map_or(0.0, |(bound, _)| *bound)
}

fn row(name: String, change: &Change<'_>) -> [String; HEADER.len()] {
    let rate = |name, labels| format!("{:.0}", change.rate(name, labels));
    let megabytes = |name: &str, labels: &str| format!("{:.1}", change.rate(name, labels) / 1e6);
    let sent = |path: &str| megabytes("forebay_sent_bytes", &format!("path=\"{path}\""));
    let per = |name, of| {
        format!(
            "{:.1}",
            change.growth(name, "") / change.growth(of, "").max(1.0)
        )
    };
    let percent = |seconds: f64| format!("{:.1}", 100.0 * seconds);
    let spin = change.rate("forebay_shard_spin_seconds", "");
    let cpu = change.rate("forebay_shard_cpu_seconds", "");
    let now = |name| change.sum(change.after, name, "");
    let syncs = change.buckets("forebay_sync_seconds");
    let sync_ms = |share| format!("{:.3}", 1e3 * quantile(&syncs, share));
    [
        name,
        rate("forebay_shard_turns", ""),
        per("forebay_shard_completions", "forebay_shard_turns"),
        percent((cpu - spin).max(0.0)),
        percent(spin),
        rate("forebay_requests", ""),
        rate("forebay_shard_mail", "direction=\"in\""),
        rate("forebay_shard_mail", "direction=\"out\""),
        megabytes("forebay_received_bytes", ""),
        sent("copy"),
        sent("sendfile"),
        sent("splice"),
        megabytes("forebay_cold_read_bytes", ""),
        rate("forebay_syncs", ""),
        per("forebay_acknowledged", "forebay_syncs"),
        format!("{:.0}", now("forebay_connections")),
        format!("{:.0}", now("forebay_unsynced_bytes") / 1e3),
        format!("{:.0}", change.most("forebay_unsynced_age_ms")),
        sync_ms(0.5),
        sync_ms(0.99),
        sync_ms(1.0),
        format!("{:.0}", now("forebay_offline_partitions")),
        format!("{:.0}", now("forebay_stalled_partitions")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: Instant, text: &str) -> Look {
        Look {
            at,
            series: parse(text),
        }
    }

    #[test]
    fn rates_are_differences_by_time() {
        let start = Instant::now();
        let before = "# TYPE x counter\n\
            forebay_shard_turns_total{shard=\"0\"} 100\n\
            forebay_shard_turns_total{shard=\"1\"} 0\n\
            forebay_shard_completions_total{shard=\"0\"} 1000\n\
            forebay_shard_cpu_seconds_total{shard=\"0\"} 1.0\n\
            forebay_requests_total{shard=\"0\",api=\"Produce\"} 5\n\
            forebay_requests_total{shard=\"0\",api=\"Fetch\"} 5\n\
            nonsense\n# EOF\n";
        let after = "\
            forebay_shard_turns_total{shard=\"0\"} 300\n\
            forebay_shard_turns_total{shard=\"1\"} 20\n\
            forebay_shard_turns_total{shard=\"10\"} 7777\n\
            forebay_shard_completions_total{shard=\"0\"} 1500\n\
            forebay_shard_cpu_seconds_total{shard=\"0\"} 2.0\n\
            forebay_shard_spin_seconds_total{shard=\"0\"} 0.5\n\
            forebay_requests_total{shard=\"0\",api=\"Produce\"} 25\n\
            forebay_requests_total{shard=\"0\",api=\"Fetch\"} 6\n\
            forebay_sent_bytes_total{shard=\"0\",path=\"sendfile\"} 4000000\n\
            forebay_sync_seconds_bucket{le=\"0.001\",shard=\"0\"} 98\n\
            forebay_sync_seconds_bucket{le=\"0.032\",shard=\"0\"} 100\n\
            forebay_sync_seconds_bucket{le=\"1.024\",shard=\"0\"} 101\n\
            forebay_sync_seconds_bucket{le=\"+Inf\",shard=\"0\"} 101\n\
            forebay_sync_seconds_bucket{le=\"1.024\",shard=\"1\"} 0\n\
            forebay_sync_seconds_bucket{le=\"+Inf\",shard=\"1\"} 1\n\
            forebay_unsynced_age_ms{shard=\"0\"} 30\n\
            forebay_unsynced_age_ms{shard=\"1\"} 40\n\
            forebay_offline_partitions{shard=\"0\"} 1\n\
            forebay_offline_partitions{shard=\"1\"} 2\n\
            forebay_connections{shard=\"0\"} 3\n\
            forebay_connections{shard=\"1\"} 4\n";
        let before = look(start, before);
        let after = look(start + Duration::from_secs(2), after);
        let rows = rows(&before, &after);
        assert_eq!(rows.len(), 3);
        let cell = |row: usize, name: &str| {
            let column = HEADER.iter().position(|header| *header == name).unwrap();
            rows[row][column].as_str()
        };
        for (row, name, expected) in [
            (0, "turns/s", "100"),
            (0, "done/turn", "2.5"),
            (0, "busy%", "25.0"),
            (0, "spin%", "25.0"),
            (0, "req/s", "10"),
            (0, "sendfile-MB/s", "2.0"),
            (0, "copy-MB/s", "0.0"),
            (0, "sync-p50-ms", "1.000"),
            (0, "sync-p99-ms", "32.000"),
            (0, "sync-max-ms", "1024.000"),
            (1, "sync-max-ms", "inf"),
            (2, "sync-p50-ms", "1.000"),
            (2, "sync-max-ms", "inf"),
            (0, "unsynced-ms", "30"),
            (2, "unsynced-ms", "40"),
            (2, "offline", "3"),
            (1, "turns/s", "10"),
            (1, "connections", "4"),
            (2, "turns/s", "110"),
            (2, "connections", "7"),
        ] {
            assert_eq!(cell(row, name), expected, "{row} {name}");
        }
    }
}
