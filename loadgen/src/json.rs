//! The report for machines: one JSON document with everything that was measured.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::limit::Search;
use crate::run::Measured;
use crate::settings::Settings;
use crate::verdict::{Verdict, busy_rate, fastest_rate};

/// Makes sure that the document can be written, before a sale is run for it; what an earlier one
/// has written stays until then.
///
/// # Errors
/// If the file cannot be created.
pub fn prepare(path: &Path) -> Result<(), Failure> {
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map(drop)
        .map_err(|error| unwritable(path, &error))
}

/// Writes the document to `path`.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, measured: &Measured, verdict: Option<&Verdict>) -> Result<(), Failure> {
    write_value(path, &document(measured, verdict))
}

/// Writes what a search for the highest rate has found to `path`.
///
/// # Errors
/// If the file cannot be written.
pub fn write_search(
    path: &Path,
    search: &Search,
    p99_max: Duration,
    settings: &Settings,
) -> Result<(), Failure> {
    let document = json!({
        "scenario": "find-limit",
        "version": env!("CARGO_PKG_VERSION"),
        "ack_p99_us_max": p99_max.as_micros(),
        "limit": search.limit(),
        "trials": search.trials,
        "settings": settings,
    });
    write_value(path, &document)
}

/// Writes any document to `path`.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write_value(path: &Path, document: &Value) -> Result<(), Failure> {
    write_text(path, &format!("{document}\n"))
}

/// Writes any report to `path`.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Reason(format!(
        "cannot write the report to {}: {error}",
        path.display()
    ))
}

fn document(measured: &Measured, verdict: Option<&Verdict>) -> Value {
    let (facts, outcome) = (&measured.facts, &measured.ended.outcome);
    let (counts, audit) = (&outcome.counts, &facts.audit);
    json!({
        "scenario": "flash-sale",
        "version": env!("CARGO_PKG_VERSION"),
        "pass": verdict.map(Verdict::pass),
        "interrupted": measured.ended.interrupted,
        "checks": verdict.map(|verdict| &verdict.checks),
        "settings": measured.settings,
        "bootstrap": measured.bootstrap,
        "client_io": measured.transport,
        "host": measured.host,
        "broker": {
            "cpu_s": measured.usage.cpu_s,
            "rss_bytes_max": measured.usage.rss_bytes_max,
        },
        "counts": {
            "sent": counts.sent,
            "acked": counts.acked,
            "given_up": counts.failed,
            "given_up_first": measured.ended.given_up,
            "received": counts.received,
            "written": counts.written,
            "pauses": counts.pauses,
            "rebalances": counts.rebalances,
            "buffer_max": counts.buffer_max,
            "poison": counts.poison,
            "buried": counts.buried,
            "retries": counts.retries,
            "redelivered": counts.redelivered,
            "turned_away": counts.turned_away,
            "forgotten": counts.forgotten,
            "replayed": counts.replayed,
        },
        "database": {
            "rows": audit.rows,
            "distinct": audit.distinct,
            "unknown": audit.unknown,
            "order_violations": audit.order_violations,
            "busy_writes_per_s": busy_rate(facts),
            "fastest_second_writes_per_s": fastest_rate(facts),
        },
        "dead_letters": facts.dead_letters,
        "events": outcome.events,
        "course": measured.settings.load().course().points,
        "peak": { "backlog": outcome.peak.backlog, "at_s": outcome.peak.at.as_secs_f64() },
        "drained_at_s": outcome.drained_at.as_secs_f64(),
        "held_up_s": facts.load.held_up.as_secs_f64(),
        "ack_latency_us": histogram(&outcome.acks),
        "seconds": measured.ended.seconds,
        "direct": measured.direct.as_ref().map(|direct| json!({
            "requested": direct.requested,
            "timed_out": direct.timed_out,
            "timed_out_expected": measured.settings.load().direct_timeouts(),
            "ended_at_s": direct.ended_at.as_secs_f64(),
            "answer_latency_us": histogram(&direct.answers),
            "seconds": direct.seconds,
        })),
    })
}

/// The usual percentiles and all buckets as pairs of value and count.
pub(crate) fn histogram(histogram: &Histogram<u64>) -> Value {
    let buckets: Vec<_> = histogram
        .iter_recorded()
        .map(|bucket| [bucket.value_iterated_to(), bucket.count_at_value()])
        .collect();
    json!({
        "count": histogram.len(),
        "p50": histogram.value_at_quantile(0.5),
        "p90": histogram.value_at_quantile(0.9),
        "p99": histogram.value_at_quantile(0.99),
        "p999": histogram.value_at_quantile(0.999),
        "max": histogram.max(),
        "mean": histogram.mean(),
        "buckets": buckets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{direct, measured};
    use crate::verdict::judge;

    #[test]
    fn the_document_holds_settings_course_histograms_and_verdict() {
        let measured = Measured {
            direct: Some(direct()),
            ..measured()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sale.json");
        write(&path, &measured, Some(&judge(&measured.facts))).unwrap();
        let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(document["pass"], true);
        assert_eq!(document["checks"].as_array().unwrap().len(), 15);
        assert_eq!(document["settings"]["sale"]["orders"], 500_000);
        assert_eq!(
            document["settings"]["broker"]["running"]["bootstrap"],
            "shop:9092"
        );
        assert_eq!(document["host"]["kernel"], "Linux 6.18");
        assert_eq!(document["host"]["db_filesystem"], "ext4");
        assert_eq!(document["seconds"][0]["acked"], 8_333);
        assert_eq!(document["broker"]["cpu_s"], Value::Null);
        assert_eq!(document["direct"]["timed_out"], 195_000);
        let buckets = document["ack_latency_us"]["buckets"].as_array().unwrap();
        let counted: u64 = buckets
            .iter()
            .map(|bucket| bucket[1].as_u64().unwrap())
            .sum();
        assert_eq!(counted, 100);
    }

    #[test]
    fn a_stopped_sale_has_no_verdict() {
        let mut measured = measured();
        measured.ended.interrupted = true;
        let document = document(&measured, None);
        assert_eq!(
            (&document["pass"], &document["interrupted"]),
            (&Value::Null, &json!(true))
        );
    }

    #[test]
    fn a_document_stays_until_another_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sale.json");
        std::fs::write(&path, "of yesterday").unwrap();
        prepare(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"of yesterday");
        write(&path, &measured(), None).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[0], b'{');
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let path = Path::new("/nowhere/sale.json");
        for refused in [prepare(path), write(path, &measured(), None)] {
            let failure = refused.unwrap_err().to_string();
            assert!(failure.contains("/nowhere/sale.json"), "{failure}");
        }
    }
}
