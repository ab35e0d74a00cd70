//! The report for a browser: one page without anything to load. Verdict, curves of the sale
//! against those of the arithmetic, what happened when, the load without a broker, conditions.

mod chart;

use std::fmt::Write;
use std::path::Path;

use crate::course::Point;
use crate::direct::{DirectEnded, DirectSecond};
use crate::engine::Event;
use crate::failure::Failure;
use crate::json::write_text;
use crate::report;
use crate::run::Measured;
use crate::sale::Second;
use crate::verdict::Verdict;
use chart::{Chart, Series};

const STYLE: &str = include_str!("style.css");
/// The drawings for a desktop and for a phone.
const WIDE: (u32, u32) = (900, 260);
const NARROW: (u32, u32) = (420, 240);

const BLUE: (u8, u8, u8) = (58, 134, 230);
const GREEN: (u8, u8, u8) = (46, 160, 87);
const ORANGE: (u8, u8, u8) = (230, 126, 34);
const RED: (u8, u8, u8) = (214, 72, 72);

/// Writes the page to `path`.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, measured: &Measured, verdict: Option<&Verdict>) -> Result<(), Failure> {
    let page = page(measured, verdict).map_err(Failure::Database)?;
    write_text(path, &page)
}

fn page(measured: &Measured, verdict: Option<&Verdict>) -> Result<String, String> {
    let mut page = String::new();
    let (class, word) = match verdict {
        Some(verdict) if verdict.pass() => ("pass", "PASS"),
        Some(_) => ("fail", "FAIL"),
        None => ("none", "stopped before the end: no verdict"),
    };
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Flash sale: {word}</title>\n<style>\n{STYLE}</style>\n\
         <h1>Flash sale <span class=\"verdict {class}\">{word}</span></h1>\n"
    );
    for line in report::headline(measured)
        .lines()
        .filter(|line| !line.is_empty())
    {
        let _ = writeln!(page, "<p>{}</p>", escaped(line));
    }
    if let Some(verdict) = verdict {
        checks(&mut page, verdict);
    }
    for chart in charts(measured) {
        draw(&mut page, &chart)?;
    }
    events(&mut page, &measured.ended.outcome.events);
    if let Some(direct) = &measured.direct {
        page.push_str("<h2>Without a broker</h2>\n");
        let rows = report::side_by_side(measured, direct);
        table(
            &mut page,
            &["", "without a broker", "through the broker"],
            &rows,
        );
    }
    page.push_str("<h2>Conditions</h2>\n");
    for line in report::figures(measured).lines() {
        let _ = writeln!(page, "<p>{}</p>", escaped(line));
    }
    page.push_str("</html>\n");
    Ok(page)
}

fn checks(page: &mut String, verdict: &Verdict) {
    page.push_str("<div class=\"scroll\"><table><tr><th><th>expected<th>seen<th></tr>\n");
    for check in &verdict.checks {
        let (class, word) = if check.pass {
            ("pass", "PASS")
        } else {
            ("fail", "FAIL")
        };
        let _ = writeln!(
            page,
            "<tr><td>{}<td>{}<td>{}<td class=\"{class}\">{word}</tr>",
            escaped(check.name),
            escaped(&check.expected),
            escaped(&check.seen),
        );
    }
    page.push_str("</table></div>\n");
}

fn charts(measured: &Measured) -> Vec<Chart> {
    let seconds = &measured.ended.seconds;
    let course = measured.settings.load().course().points;
    let happened = measured.ended.outcome.events.iter();
    let marks: Vec<f64> = happened.map(|event| event.at_s).collect();
    let seen = |name, color, value: fn(&Second) -> f64| Series {
        name,
        color,
        is_expected: false,
        points: seconds
            .iter()
            .map(|second| (second.at_s as f64, value(second)))
            .collect(),
    };
    let expected = Series {
        name: "by the arithmetic",
        color: ORANGE,
        is_expected: true,
        points: course
            .iter()
            .map(|Point { at_s, backlog }| (*at_s, *backlog))
            .collect(),
    };
    let chart = |title, series| Chart {
        title,
        series,
        events: marks.clone(),
    };
    let mut charts = vec![
        chart(
            "Orders per second",
            vec![
                seen("offered", BLUE, |second| second.produced as f64),
                seen("acknowledged", GREEN, |second| second.acked as f64),
                seen("written", RED, |second| second.written as f64),
            ],
        ),
        chart(
            "Backlog, in orders",
            vec![seen("seen", BLUE, |second| second.backlog as f64), expected],
        ),
        chart(
            "Acknowledgement, p99 of each second, in ms",
            vec![seen("from the intended time", BLUE, |second| {
                second.ack_p99_us as f64 / 1e3
            })],
        ),
        chart(
            "Lag, in seconds",
            vec![
                seen("age of the oldest order that waits", BLUE, |second| {
                    second.lag_s
                }),
                seen(
                    "time to write the backlog at the rate of now",
                    ORANGE,
                    |second| second.drain_s,
                ),
            ],
        ),
        chart(
            "Orders the group holds",
            vec![seen("held", BLUE, |second| second.buffer as f64)],
        ),
    ];
    charts.extend(measured.direct.as_ref().map(direct_chart));
    charts
}

fn direct_chart(direct: &DirectEnded) -> Chart {
    let seen = |name, color, value: fn(&DirectSecond) -> u64| Series {
        name,
        color,
        is_expected: false,
        points: direct
            .seconds
            .iter()
            .map(|second| (second.at_s as f64, value(second) as f64))
            .collect(),
    };
    Chart {
        title: "Without a broker: requests per second",
        series: vec![
            seen("requested", BLUE, |second| second.requested),
            seen("written", GREEN, |second| second.written),
            seen("turned away", RED, |second| second.timed_out),
        ],
        events: Vec::new(),
    }
}

fn draw(page: &mut String, chart: &Chart) -> Result<(), String> {
    let _ = writeln!(
        page,
        "<h2>{}</h2>\n<ul class=\"legend\">",
        escaped(chart.title)
    );
    for series in &chart.series {
        let (red, green, blue) = series.color;
        let class = if series.is_expected {
            "swatch expected"
        } else {
            "swatch"
        };
        let _ = writeln!(
            page,
            "<li><span class=\"{class}\" style=\"border-color:rgb({red},{green},{blue})\"></span>{}",
            escaped(series.name)
        );
    }
    page.push_str("</ul>\n");
    for (class, size) in [("wide", WIDE), ("narrow", NARROW)] {
        let _ = writeln!(page, "<div class=\"{class}\">{}</div>", chart.svg(size)?);
    }
    Ok(())
}

fn events(page: &mut String, events: &[Event]) {
    if events.is_empty() {
        return;
    }
    page.push_str("<h2>What happened</h2>\n");
    let rows: Vec<_> = (1..)
        .zip(events)
        .map(|(number, event)| {
            let at = format!("{:.1} s", event.at_s);
            [i32::to_string(&number), at, event.what.clone()]
        })
        .collect();
    table(page, &["mark", "at", "what"], &rows);
}

fn table(page: &mut String, head: &[&str; 3], rows: &[[String; 3]]) {
    page.push_str("<div class=\"scroll\"><table><tr>");
    for cell in head {
        let _ = write!(page, "<th>{}", escaped(cell));
    }
    page.push_str("</tr>\n");
    for row in rows {
        page.push_str("<tr>");
        for cell in row {
            let _ = write!(page, "<td>{}", escaped(cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

/// Text as HTML shows it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{direct, measured};
    use crate::verdict::judge;

    #[test]
    fn the_page_holds_verdict_curves_events_and_the_direct_run_and_loads_nothing() {
        let mut measured = Measured {
            direct: Some(direct()),
            ..measured()
        };
        measured.ended.outcome.events.push(Event {
            at_s: 30.0,
            what: "the broker is <killed>".to_owned(),
        });
        let page = page(&measured, Some(&judge(&measured.facts))).unwrap();
        for part in [
            "PASS",
            "by the arithmetic",
            "the broker is &lt;killed&gt;",
            "turned away",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<svg").count(), 12, "six charts in two sizes");
        for foreign in ["<script", "<link", "src=", "url(", "@import"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_stopped_sale_is_no_verdict_on_the_page_either() {
        let page = page(&measured(), None).unwrap();
        assert!(page.contains("no verdict") && !page.contains("PASS"));
    }
}
