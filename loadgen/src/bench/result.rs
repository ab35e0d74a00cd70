//! What a run is shown as: text for people, one JSON document for machines. MB and GB are powers of
//! ten.

use std::fmt::Write;
use std::path::Path;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::args::Bench;
use super::course::Course;
use super::session::Conditions;
use crate::failure::Failure;
use crate::json;

/// What a mode has to show.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The mode.
    pub scenario: &'static str,
    /// What was run, in a line.
    pub headline: String,
    /// What the latencies are of.
    pub latency_of: &'static str,
    /// The runs, each with its name if there are several.
    pub courses: Vec<(String, Course)>,
    /// Lines for people beside the usual ones.
    pub notes: Vec<String>,
    /// Facts for machines beside the usual ones.
    pub facts: Value,
}

impl Outcome {
    /// Whether the user stopped it.
    pub fn interrupted(&self) -> bool {
        self.courses.iter().any(|(_, course)| course.interrupted)
    }
}

impl Course {
    /// Per second of the counted time.
    pub fn per_s(&self, count: u64) -> f64 {
        count as f64 / self.elapsed_s.max(1e-9)
    }

    /// Of CPU seconds, the microseconds for one request; `None` without requests.
    fn us_per_request(&self, cpu_s: f64) -> Option<f64> {
        let requests = self.counts.requests;
        (requests > 0).then(|| 1e6 * cpu_s / requests as f64)
    }

    /// CPU seconds of the broker for 10^9 bytes, if they are known and there were some.
    pub fn cpu_s_per_gb(&self) -> Option<f64> {
        let gb = self.counts.bytes as f64 / 1e9;
        self.broker
            .cpu_s
            .filter(|_| gb > 0.0)
            .map(|cpu_s| cpu_s / gb)
    }
}

/// Prints the result on standard output.
pub fn show(outcome: &Outcome) {
    // Whoever closed standard output still gets the exit code.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text(outcome).as_bytes());
}

fn text(outcome: &Outcome) -> String {
    let mut text = format!("\n{}: {}\n", outcome.scenario, outcome.headline);
    for (name, course) in &outcome.courses {
        if !name.is_empty() {
            let _ = writeln!(text, "\n{name}");
        }
        figures(&mut text, course, outcome.latency_of);
    }
    for note in &outcome.notes {
        let _ = writeln!(text, "{note}");
    }
    if outcome.interrupted() {
        text.push_str("stopped before the end: the figures are those of a shorter time\n");
    }
    text
}

fn figures(text: &mut String, course: &Course, latency_of: &str) {
    let counts = &course.counts;
    let _ = writeln!(
        text,
        "  in {:.1} s      {:.0} requests/s, {:.0} records/s, {:.1} MB/s",
        course.elapsed_s,
        course.per_s(counts.requests),
        course.per_s(counts.records),
        course.per_s(counts.bytes) / 1e6,
    );
    let _ = writeln!(text, "  {latency_of:<14} {}", latencies(&course.latencies));
    if course.unsent > 0 {
        let _ = writeln!(
            text,
            "  not kept       {} requests were due and could not be sent: the rate is too high",
            course.unsent
        );
    }
    let cost = |cpu_s: f64| {
        let gb = (counts.bytes as f64 / 1e9).max(1e-9);
        format!(
            "{:.0} % of a core, {:.3} CPU-s/GB, {:.1} us per request",
            100.0 * cpu_s / course.elapsed_s.max(1e-9),
            cpu_s / gb,
            course.us_per_request(cpu_s).unwrap_or_default(),
        )
    };
    let broker = &course.broker;
    let _ = match broker.cpu_s {
        Some(cpu_s) => writeln!(
            text,
            "  broker CPU     {}\n  broker memory  {} MiB, at most {}",
            cost(cpu_s),
            mib(broker.rss_bytes),
            mib(broker.rss_bytes_max),
        ),
        None => writeln!(
            text,
            "  broker CPU     not known: name it with --broker-pid"
        ),
    };
    let _ = writeln!(text, "  load CPU       {}", cost(course.load_cpu_s));
}

fn mib(bytes: Option<u64>) -> String {
    bytes.map_or("?".to_owned(), |bytes| (bytes >> 20).to_string())
}

/// The percentiles in a line, in milliseconds.
pub fn latencies(histogram: &Histogram<u64>) -> String {
    let ms = |us: u64| us as f64 / 1e3;
    let at = |quantile| ms(histogram.value_at_quantile(quantile));
    format!(
        "p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {:.3} ms",
        at(0.5),
        at(0.99),
        at(0.999),
        ms(histogram.max())
    )
}

/// Writes the document to `path`.
///
/// # Errors
/// If the file cannot be written.
pub fn write(
    path: &Path,
    bench: &Bench,
    conditions: &Conditions,
    outcome: &Outcome,
) -> Result<(), Failure> {
    json::write_value(path, &document(bench, conditions, outcome))
}

fn document(bench: &Bench, conditions: &Conditions, outcome: &Outcome) -> Value {
    let courses = outcome.courses.iter().map(|(name, course)| {
        let mut value = course_value(course);
        value["name"] = json!(name);
        value
    });
    let mut document = json!({
        "scenario": outcome.scenario,
        "version": env!("CARGO_PKG_VERSION"),
        "interrupted": outcome.interrupted(),
        "settings": bench,
        "bootstrap": conditions.bootstrap,
        "client_io": conditions.client_io,
        "host": conditions.host,
        "facts": outcome.facts,
    });
    match outcome.courses.as_slice() {
        [(name, course)] if name.is_empty() => document["result"] = course_value(course),
        _ => document["results"] = courses.collect(),
    }
    document
}

fn course_value(course: &Course) -> Value {
    let counts = &course.counts;
    let broker_us = course
        .broker
        .cpu_s
        .and_then(|cpu_s| course.us_per_request(cpu_s));
    json!({
        "elapsed_s": course.elapsed_s,
        "requests": counts.requests,
        "records": counts.records,
        "bytes": counts.bytes,
        "requests_per_s": course.per_s(counts.requests),
        "records_per_s": course.per_s(counts.records),
        "mb_per_s": course.per_s(counts.bytes) / 1e6,
        "unsent": course.unsent,
        "latency_us": json::histogram(&course.latencies),
        "broker": {
            "cpu_s": course.broker.cpu_s,
            "cpu_s_per_gb": course.cpu_s_per_gb(),
            "cpu_us_per_request": broker_us,
            "rss_bytes": course.broker.rss_bytes,
            "rss_bytes_max": course.broker.rss_bytes_max,
        },
        "load": {
            "cpu_s": course.load_cpu_s,
            "cpu_us_per_request": course.us_per_request(course.load_cpu_s),
        },
        "seconds": course.seconds,
    })
}
