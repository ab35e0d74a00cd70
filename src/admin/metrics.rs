//! The metrics: one table that names, explains and reads every number a shard counts, and the text
//! that Prometheus scrapes. Reading takes nothing from the shards but a cache line each.
//!
//! Not owned: the counters ([`crate::base::stats`]). Names are `forebay_`, what, unit; counters get
//! `_total` in the text. Invariant: a row that is in the table is in the text.

use super::Observed;
use crate::api::APIS;
use crate::base::ShardStats;
use crate::base::stats::{Counter, SYNC_US_BOUNDS};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a series reads its number from a shard's counters.
enum Value {
    /// It only grows.
    Count(fn(&ShardStats) -> u64),
    /// It only grows; read in nanoseconds, told in seconds.
    Seconds(fn(&ShardStats) -> u64),
    /// It goes up and down.
    Gauge(fn(&ShardStats) -> u64),
}

/// A label of a series beside `shard`.
type Label = Option<(&'static str, &'static str)>;

/// One metric, with a series per label and shard.
struct Metric {
    name: &'static str,
    help: &'static str,
    series: &'static [(Label, Value)],
}

use Value::{Count, Gauge, Seconds};

/// Every metric of a shard. The requests by API and what is known of the process are added below.
#[rustfmt::skip]
const METRICS: &[Metric] = &[
    Metric {
        name: "forebay_shard_turns",
        help: "Turns of the shard's loop",
        series: &[(None, Count(|s| s.turns.get()))],
    },
    Metric {
        name: "forebay_shard_completions",
        help: "Operations that ended: receives, sends, syncs, accepts",
        series: &[(None, Count(|s| s.completions.get()))],
    },
    Metric {
        name: "forebay_shard_cpu_seconds",
        help: "CPU time of the shard's thread, spinning included",
        series: &[(None, Seconds(cpu_ns))],
    },
    Metric {
        name: "forebay_shard_spin_seconds",
        help: "Time spent looking for work without blocking (--poll-us)",
        series: &[(None, Seconds(|s| s.spin_ns.get()))],
    },
    Metric {
        name: "forebay_shard_mail",
        help: "Messages between shards: the cost of data that another core owns",
        series: &[
            (Some(("direction", "in")), Count(|s| s.mail_in.get())),
            (Some(("direction", "out")), Count(|s| s.mail_out.get())),
        ],
    },
    Metric {
        name: "forebay_received_bytes",
        help: "Bytes read from sockets",
        series: &[(None, Count(|s| s.bytes_received.get()))],
    },
    Metric {
        name: "forebay_sent_bytes",
        help: "Bytes sent, by the way they took",
        series: &[
            (Some(("path", "copy")), Count(|s| s.bytes_sent_copy.get())),
            (Some(("path", "sendfile")), Count(|s| s.bytes_sent_sendfile.get())),
            (Some(("path", "splice")), Count(|s| s.bytes_sent_splice.get())),
        ],
    },
    Metric {
        name: "forebay_cold_read_bytes",
        help: "Bytes of answers that had to be read from the device before they were sent",
        series: &[(None, Count(|s| s.bytes_sent_cold.get()))],
    },
    Metric {
        name: "forebay_syncs",
        help: "Syncs started: fdatasync of one file",
        series: &[(None, Count(|s| s.syncs.get()))],
    },
    Metric {
        name: "forebay_acknowledged",
        help: "Answers that waited for the high watermark, such as acks=all; per sync, how well \
               group commit groups",
        series: &[(None, Count(|s| s.acknowledged.get()))],
    },
    Metric {
        name: "forebay_unsynced_bytes",
        help: "Bytes written and not synced: what a power cut would lose",
        series: &[(None, Gauge(|s| s.unsynced_bytes.get()))],
    },
    Metric {
        name: "forebay_unsynced_age_ms",
        help: "Age of the oldest of these bytes: a disk that does not keep up shows here",
        series: &[(None, Gauge(|s| s.unsynced_ms.get()))],
    },
    Metric {
        name: "forebay_offline_partitions",
        help: "Partitions that cannot be served: their disk has failed, or their log does not open",
        series: &[(None, Gauge(|s| s.partitions_offline.get()))],
    },
    Metric {
        name: "forebay_stalled_partitions",
        help: "Partitions whose logs found no room on the disk",
        series: &[(None, Gauge(|s| s.partitions_stalled.get()))],
    },
    Metric {
        name: "forebay_request_memory_bytes",
        help: "Memory charged for requests, from their admission until their reply is sent",
        series: &[(None, Gauge(|s| s.request_bytes.get()))],
    },
    Metric {
        name: "forebay_connections_waiting",
        help: "Connections that are not read because the memory for requests is used up",
        series: &[(None, Gauge(|s| s.connections_waiting.get()))],
    },
    Metric {
        name: "forebay_appends_held",
        help: "Produce requests that waited because a partition had its share of memory under way",
        series: &[(None, Count(|s| s.appends_held.get()))],
    },
    Metric {
        name: "forebay_connections",
        help: "Open connections",
        series: &[(None, Gauge(|s| s.connections.get()))],
    },
    Metric {
        name: "forebay_connections_opened",
        help: "Connections accepted so far",
        series: &[(None, Count(|s| s.connections_opened.get()))],
    },
];

/// All metrics in the OpenMetrics text format.
pub fn text(observed: &Arc<Observed>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(observed.clone())));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .expect("writing to a text does not fail");
    text
}

/// One look at everything.
#[derive(Debug)]
struct Scrape(Arc<Observed>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in METRICS {
            self.encode_metric(&mut encoder, metric)?;
        }
        self.encode_syncs(&mut encoder)?;
        self.encode_requests(&mut encoder)?;
        self.encode_disk(&mut encoder)?;
        self.encode_process(&mut encoder)
    }
}

impl Scrape {
    fn encode_metric(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        metric: &Metric,
    ) -> Result<(), fmt::Error> {
        let kind = match metric.series[0].1 {
            Gauge(_) => MetricType::Gauge,
            Count(_) | Seconds(_) => MetricType::Counter,
        };
        let mut encoder = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
        for (shard, stats) in self.0.shards.iter().enumerate() {
            for (label, value) in metric.series {
                let mut labels = vec![("shard", shard.to_string())];
                labels.extend(label.map(|(name, value)| (name, value.to_owned())));
                let one = encoder.encode_family(&labels)?;
                match value {
                    Count(read) => ConstCounter::new(read(stats)).encode(one)?,
                    Seconds(read) => ConstCounter::new(seconds(read(stats))).encode(one)?,
                    Gauge(read) => ConstGauge::new(read(stats) as i64).encode(one)?,
                }
            }
        }
        Ok(())
    }

    fn encode_syncs(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Time of rounds of syncs, each of one log: what the disk takes for one";
        let (name, kind) = ("forebay_sync_seconds", MetricType::Histogram);
        let mut encoder = encoder.encode_descriptor(name, help, None, kind)?;
        let bounds = SYNC_US_BOUNDS.map(|us| us as f64 / 1e6);
        for (shard, stats) in self.0.shards.iter().enumerate() {
            let counts = stats.sync_rounds.iter().map(Counter::get);
            let bounds = bounds.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(counts).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let labels = [("shard", shard.to_string())];
            let mut one = encoder.encode_family(&labels)?;
            one.encode_histogram::<NoLabelSet>(
                seconds(stats.sync_ns.get()),
                count,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (name, help) = ("forebay_requests", "Requests begun, by API");
        let mut encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (shard, stats) in self.0.shards.iter().enumerate() {
            for api in APIS {
                let count = stats.requests[api.key as usize].get();
                let labels = [("shard", shard.to_string()), ("api", api.name.to_owned())];
                ConstCounter::new(count).encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_disk(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let space = &self.0.space;
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        for (name, help, value) in [
            (
                "forebay_disk_free_bytes",
                "Room on the disk of the data directory, at the last look",
                bytes(space.free_bytes()),
            ),
            (
                "forebay_disk_reserve_bytes",
                "Room that producers may not fill (disk.reserve.bytes)",
                bytes(space.reserve_bytes()),
            ),
            (
                "forebay_disk_full",
                "1 while producers are refused because less than the reserve is free",
                i64::from(space.is_full()),
            ),
        ] {
            let one = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(one)?;
        }
        Ok(())
    }

    /// What Prometheus's own libraries tell of a process, under their names; and what runs.
    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let used = usage.user_time() + usage.system_time();
            let used = used.num_microseconds() as f64 / 1e6;
            let (name, help) = ("process_cpu_seconds", "CPU time of the whole process");
            let one = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(used).encode(one)?;
        }
        if let Some(bytes) = resident_bytes() {
            let (name, help) = ("process_resident_memory_bytes", "Memory in RAM");
            let one = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(bytes).encode(one)?;
        }
        let (name, help) = (
            "forebay_build",
            "The version, and the io back end that serves",
        );
        let mut one = encoder.encode_descriptor(name, help, None, MetricType::Info)?;
        one.encode_info(&[
            ("version", env!("CARGO_PKG_VERSION")),
            ("io", self.0.backend),
        ])
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// CPU time of a shard's thread: the first number of its `schedstat`, in nanoseconds.
fn cpu_ns(stats: &ShardStats) -> u64 {
    let path = format!("/proc/self/task/{}/schedstat", stats.thread_id.get());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn resident_bytes() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Space;

    fn observed(shards: usize) -> Arc<Observed> {
        Arc::new(Observed {
            shards: (0..shards).map(|_| Arc::default()).collect(),
            space: Arc::default(),
            backend: "io_uring",
        })
    }

    #[test]
    fn every_row_is_in_the_text_once_per_shard() {
        let observed = observed(2);
        observed.shards[1].turns.add(7);
        observed.shards[1].spin_ns.add(1_500_000_000);
        observed.shards[0].bytes_sent_sendfile.add(9);
        observed.shards[0].unsynced_bytes.set(11);
        observed.shards[1].on_request(3);
        for took_ms in [1, 1, 3, 20_000] {
            observed.shards[1].on_sync(std::time::Duration::from_millis(took_ms));
        }
        let (free_bytes, total_bytes) = (40, 2000);
        let space = Space {
            free_bytes,
            total_bytes,
        };
        observed.space.update(space, -1);
        let text = text(&observed);
        for metric in METRICS {
            let lines = text.lines().filter(|line| {
                let rest = line.strip_prefix(metric.name);
                rest.is_some_and(|rest| rest.starts_with('{') || rest.starts_with("_total{"))
            });
            assert_eq!(lines.count(), 2 * metric.series.len(), "{}", metric.name);
        }
        for line in [
            "forebay_shard_turns_total{shard=\"1\"} 7",
            "forebay_shard_spin_seconds_total{shard=\"1\"} 1.5",
            "forebay_sent_bytes_total{shard=\"0\",path=\"sendfile\"} 9",
            "forebay_unsynced_bytes{shard=\"0\"} 11",
            "forebay_requests_total{shard=\"1\",api=\"Metadata\"} 1",
            "forebay_requests_total{shard=\"0\",api=\"Metadata\"} 0",
            "forebay_disk_free_bytes 40",
            "forebay_disk_reserve_bytes 100",
            "forebay_disk_full 1",
            "# TYPE forebay_unsynced_bytes gauge",
            "# TYPE forebay_syncs counter",
            "# TYPE forebay_sync_seconds histogram",
            "forebay_sync_seconds_count{shard=\"1\"} 4",
            "forebay_sync_seconds_sum{shard=\"1\"} 20.005",
            "forebay_sync_seconds_bucket{le=\"0.0005\",shard=\"1\"} 0",
            "forebay_sync_seconds_bucket{le=\"0.001\",shard=\"1\"} 2",
            "forebay_sync_seconds_bucket{le=\"0.004\",shard=\"1\"} 3",
            "forebay_sync_seconds_bucket{le=\"8.192\",shard=\"1\"} 3",
            "forebay_sync_seconds_bucket{le=\"+Inf\",shard=\"1\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("io=\"io_uring\""), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_kernel_tells_what_a_thread_has_used() {
        let observed = observed(1);
        let stats = &observed.shards[0];
        assert_eq!(cpu_ns(stats), 0, "not running yet");
        stats.thread_id.set(nix::unistd::gettid().as_raw() as u64);
        // The kernel writes it down when the thread leaves its CPU.
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(cpu_ns(stats) > 0);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
