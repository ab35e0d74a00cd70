//! The report for people: what was run, the verdict line by line, and the figures beside it.

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::dead_letter;
use crate::direct::DirectEnded;
use crate::host::{BrokerProcess, Usage};
use crate::model::HELD_UP_MAX;
use crate::run::Measured;
use crate::settings::{BrokerChoice, Settings};
use crate::store::Place;
use crate::verdict::Verdict;

const STOPPED: &str = "stopped before the end: this is no verdict";

/// Everything in plain text; `verdict` is missing for a sale that was stopped.
pub fn text(measured: &Measured, verdict: Option<&Verdict>) -> String {
    let mut text = headline(measured);
    if let Some(verdict) = verdict {
        checks(&mut text, verdict);
    }
    text.push_str(&figures(measured));
    if let Some(direct) = &measured.direct {
        without_a_broker(&mut text, measured, direct);
    }
    if let Some(count) = measured.facts.dead_letters.filter(|count| *count > 0) {
        dead_letters(&mut text, &measured.settings, count);
    }
    let _ = match verdict {
        Some(verdict) if verdict.pass() => writeln!(text, "\nPASS"),
        Some(verdict) => {
            let failed = verdict.checks.iter().filter(|check| !check.pass).count();
            writeln!(text, "\nFAIL: {failed} of {} checks", verdict.checks.len())
        }
        None => writeln!(text, "\n{STOPPED}"),
    };
    text
}

/// What was run.
pub fn headline(measured: &Measured) -> String {
    let mut text = String::new();
    let (settings, load) = (&measured.settings, measured.settings.load());
    let broker = match &settings.broker {
        BrokerChoice::Running { bootstrap } => format!("the broker at {bootstrap}"),
        BrokerChoice::InProcess { .. } => {
            let place = match settings.incidents.kill_broker_at {
                Some(_) => "beside",
                None => "in",
            };
            format!("forebay {place} this process ({})", measured.bootstrap)
        }
    };
    let _ = writeln!(
        text,
        "\nflash sale: {} orders in {} s through {broker}, {} partitions, {} members",
        load.orders,
        load.window.as_secs_f64(),
        settings.sale.partitions,
        settings.members,
    );
    let place = settings.sink.as_ref();
    let place = place.map_or("a temporary file".to_owned(), Place::to_string);
    let _ = match load.is_measured {
        true => writeln!(
            text,
            "database: {place}, which sustained {} rows/s before the sale",
            load.db_writes_per_s,
        ),
        false => writeln!(
            text,
            "database: modelled at {} writes/s of {} ms, {} at once; rows are real, in {place}",
            load.db_writes_per_s,
            load.db_latency.as_secs_f64() * 1e3,
            load.workers * load.partitions,
        ),
    };
    let _ = writeln!(
        text,
        "consumed: workers {}, delivery {}, idempotency {}",
        settings.workers, settings.sale.delivery, settings.idempotency,
    );
    if settings.resume {
        let _ = writeln!(text, "resumed: the course in time is not judged");
    }
    text.push('\n');
    text
}

fn checks(text: &mut String, verdict: &Verdict) {
    let _ = writeln!(text, "      {:<32} {:<22} seen", "", "expected");
    for check in &verdict.checks {
        let word = if check.pass { "PASS" } else { "FAIL" };
        let _ = writeln!(
            text,
            "{word}  {:<32} {:<22} {}",
            check.name, check.expected, check.seen
        );
    }
    text.push('\n');
}

/// What was measured beside the verdict, and where.
pub fn figures(measured: &Measured) -> String {
    let mut text = String::new();
    let outcome = &measured.ended.outcome;
    let _ = writeln!(
        text,
        "ack latency from the intended time: {}; pauses {}",
        percentiles(&outcome.acks),
        outcome.counts.pauses
    );
    let _ = writeln!(
        text,
        "broker: {}",
        usage(&measured.broker_process, &measured.usage)
    );
    if let Some(reason) = &measured.ended.given_up {
        let _ = writeln!(
            text,
            "orders given up: {}, first: {reason}",
            outcome.counts.failed
        );
    }
    let _ = writeln!(
        text,
        "waited for a core: {:.2} s; times are judged with as much more room, up to {} s",
        measured.facts.load.held_up.as_secs_f64(),
        HELD_UP_MAX.as_secs_f64()
    );
    let host = &measured.host;
    let known = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "not known".to_owned());
    let _ = writeln!(
        text,
        "machine: {}, {} cores of {}, database on {}",
        known(&host.kernel),
        host.cores,
        known(&host.cpu),
        known(&host.db_filesystem),
    );
    text
}

/// Where the orders are that were given up, and how to go on with them.
fn dead_letters(text: &mut String, settings: &Settings, count: u64) {
    let letters = dead_letter::topic_of(&settings.sale.topic);
    let _ = writeln!(text, "\ndead letters: {count} in \"{letters}\"");
    let (BrokerChoice::Running { bootstrap }, Some(sink)) = (&settings.broker, &settings.sink)
    else {
        let _ = writeln!(
            text,
            "  (they end with this process; with --bootstrap and --sink they can be replayed)"
        );
        return;
    };
    let sink = match sink.file() {
        Some(path) => format!("sqlite:{}", path.display()),
        None => sink.to_string(),
    };
    let _ = writeln!(
        text,
        "to send them back, and to finish the sale with a handler that knows the item:\n  forebay \
         dlq replay {letters} --all --bootstrap {bootstrap}\n  loadgen flash-sale --resume \
         --bootstrap {bootstrap} --sink {sink}"
    );
}

/// p50, p99, p99.9 and the largest, in milliseconds.
fn percentiles(histogram: &Histogram<u64>) -> String {
    if histogram.is_empty() {
        return "none".to_owned();
    }
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    format!(
        "p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms",
        ms(0.5),
        ms(0.99),
        ms(0.999),
        histogram.max() as f64 / 1e3
    )
}

fn usage(process: &BrokerProcess, usage: &Usage) -> String {
    let cpu = usage
        .cpu_s
        .map_or("not known".to_owned(), |cpu| format!("{cpu:.1} s"));
    let rss = usage.rss_bytes_max.map_or("not known".to_owned(), |bytes| {
        let whose = match process {
            BrokerProcess::Shards => " (with the load, which is in the same process)",
            _ => "",
        };
        format!("at most {} MiB{whose}", bytes >> 20)
    });
    format!("CPU {cpu}, resident memory {rss}")
}

fn without_a_broker(text: &mut String, measured: &Measured, direct: &DirectEnded) {
    let expected = measured.settings.load().direct_timeouts();
    let _ = writeln!(
        text,
        "\n{:<16} {:<22} {:<22}",
        "", "without a broker", "through the broker"
    );
    for [name, without, through] in side_by_side(measured, direct) {
        let _ = writeln!(text, "{name:<16} {without:<22} {through:<22}");
    }
    let _ = writeln!(
        text,
        "(by the arithmetic, {expected:.0} are turned away without a broker)"
    );
}

/// The load without a broker, if that was as far as it came.
pub fn stopped_without_broker(direct: &DirectEnded) -> String {
    format!(
        "\nwithout a broker: {} orders, {} of them turned away\nanswers: {}\n\n{STOPPED}\n",
        direct.requested,
        direct.timed_out,
        percentiles(&direct.answers)
    )
}

/// The load without a broker and through it: name, one, other.
pub fn side_by_side(measured: &Measured, direct: &DirectEnded) -> Vec<[String; 3]> {
    let counts = &measured.ended.outcome.counts;
    let lost = counts.sent.saturating_sub(counts.acked);
    let ended_at = [direct.ended_at, measured.ended.outcome.drained_at];
    let share = |part: u64, of: u64| 100.0 * part as f64 / of.max(1) as f64;
    let rows = [
        (
            "orders",
            direct.requested.to_string(),
            counts.sent.to_string(),
        ),
        (
            "accepted",
            (direct.requested - direct.timed_out).to_string(),
            counts.acked.to_string(),
        ),
        (
            "turned away",
            format!(
                "{} ({:.1} %)",
                direct.timed_out,
                share(direct.timed_out, direct.requested)
            ),
            format!("{lost} ({:.1} %)", share(lost, counts.sent)),
        ),
        (
            "last row after",
            format!("{:.1} s", ended_at[0].as_secs_f64()),
            format!("{:.1} s", ended_at[1].as_secs_f64()),
        ),
        (
            "answer p50",
            format!(
                "{:.1} ms",
                direct.answers.value_at_quantile(0.5) as f64 / 1e3
            ),
            format!(
                "{:.1} ms",
                measured.ended.outcome.acks.value_at_quantile(0.5) as f64 / 1e3
            ),
        ),
    ];
    let owned = rows.map(|(name, without, through)| [name.to_owned(), without, through]);
    owned.into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli::parse;
    use crate::direct::DirectEnded;
    use crate::engine::latencies;
    use crate::host::Host;
    use crate::sale::{Ended, Second};
    use crate::settings::Settings;
    use crate::store::Store;
    use crate::transport::Transport;
    use crate::verdict::{judge, tests::right};
    use std::time::Duration;

    fn store() -> Store {
        Store::memory()
    }

    /// A sale that went right.
    pub(crate) fn measured() -> Measured {
        let facts = right();
        let args = parse(["flash-sale", "--bootstrap", "shop:9092"]).unwrap();
        let mut outcome = facts.outcome.clone();
        outcome.acks.record_n(12_000, 99).unwrap();
        outcome.acks.record(900_000).unwrap();
        Measured {
            settings: Settings::check(args, "sale-1").unwrap().0,
            bootstrap: "shop:9092".to_owned(),
            transport: Transport::Uring,
            host: Host {
                kernel: Some("Linux 6.18".to_owned()),
                cpu: None,
                cores: 2,
                db_filesystem: Some("ext4".to_owned()),
                broker_filesystem: None,
                congestion_control: None,
            },
            ended: Ended {
                outcome,
                store: store(),
                seconds: vec![Second {
                    at_s: 1,
                    acked: 8_333,
                    ..Second::default()
                }],
                given_up: None,
                interrupted: false,
            },
            facts,
            broker_process: BrokerProcess::Unknown,
            usage: Usage::default(),
            direct: None,
        }
    }

    pub(crate) fn direct() -> DirectEnded {
        DirectEnded {
            requested: 500_000,
            timed_out: 195_000,
            ended_at: Duration::from_millis(61_100),
            answers: latencies(),
            seconds: Vec::new(),
            store: store(),
            interrupted: false,
        }
    }

    #[test]
    fn every_check_is_a_line_with_expected_and_seen() {
        let mut measured = measured();
        measured.facts.audit.rows += 1;
        let verdict = judge(&measured.facts);
        let text = text(&measured, Some(&verdict));
        assert!(
            text.contains("PASS  lost                             0"),
            "{text}"
        );
        let doubled = "FAIL  duplicates                       0                      1\n";
        assert!(text.contains(doubled), "{text}");
        assert!(text.ends_with("\nFAIL: 2 of 15 checks\n"), "{text}");
        assert!(text.contains("rows are real"), "{text}");
    }

    #[test]
    fn a_right_sale_ends_with_pass_and_what_is_not_known_is_called_so() {
        let measured = measured();
        let text = text(&measured, Some(&judge(&measured.facts)));
        assert!(text.ends_with("\nPASS\n"), "{text}");
        assert!(
            text.contains("CPU not known, resident memory not known"),
            "{text}"
        );
        assert!(
            text.contains("p50 12.0 ms, p99 12.0 ms, p99.9 900"),
            "{text}"
        );
    }

    #[test]
    fn a_stopped_sale_shows_what_there_is_and_no_verdict() {
        let mut measured = measured();
        measured.ended.interrupted = true;
        let text = text(&measured, None);
        assert!(text.ends_with("this is no verdict\n"), "{text}");
        assert!(!text.contains("PASS") && !text.contains("FAIL"), "{text}");
        assert!(text.contains("ack latency"), "{text}");
    }

    #[test]
    fn both_ways_stand_side_by_side() {
        let measured = Measured {
            direct: Some(direct()),
            ..measured()
        };
        let text = text(&measured, Some(&judge(&measured.facts)));
        let line = text
            .lines()
            .find(|line| line.starts_with("turned away"))
            .unwrap();
        let seen: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            seen,
            ["turned", "away", "195000", "(39.0", "%)", "0", "(0.0", "%)"]
        );
    }
}
