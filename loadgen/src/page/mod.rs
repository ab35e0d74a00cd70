//! The report for a browser: one page without anything to load. Verdict, curves of the sale
//! against those of the arithmetic, what happened when, the load without a broker, conditions.

mod chart;

use std::fmt::Write;
use std::path::Path;

use crate::direct::{DirectEnded, DirectSecond};
use crate::engine::Event;
use crate::failure::Failure;
use crate::json::write_text;
use crate::report;
use crate::run::Measured;
use crate::sale::Second;
use crate::verdict::Verdict;
use chart::{Chart, Series, Stroke};

const STYLE: &str = include_str!("style.css");
/// The drawings for a desktop, where two are side by side, and for a phone.
const WIDE: (u32, u32) = (600, 260);
const NARROW: (u32, u32) = (400, 240);

const BLUE: (u8, u8, u8) = (56, 125, 220);
const GREEN: (u8, u8, u8) = (34, 150, 80);
const ORANGE: (u8, u8, u8) = (214, 110, 20);
const RED: (u8, u8, u8) = (214, 72, 72);

/// The checks that are said first, in large letters, and what they are called there.
const TILES: [(&str, &str); 5] = [
    ("orders acknowledged", "orders acknowledged"),
    ("lost", "lost"),
    ("duplicates", "doubled"),
    ("peak backlog", "orders waiting at the peak"),
    ("drained at", "until the last one was written"),
];

/// Writes the page to `path`.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, measured: &Measured, verdict: Option<&Verdict>) -> Result<(), Failure> {
    let page = page(measured, verdict).map_err(Failure::Reason)?;
    write_text(path, &page)
}

fn page(measured: &Measured, verdict: Option<&Verdict>) -> Result<String, String> {
    let mut page = String::new();
    let (class, word) = match verdict {
        Some(verdict) if verdict.pass() => ("pass", "PASS"),
        Some(_) => ("fail", "FAIL"),
        None => ("none", "stopped before the end: no verdict"),
    };
    let headline = report::headline(measured);
    let mut conditions = headline.lines().filter(|line| !line.is_empty());
    let what = conditions.next().unwrap_or_default();
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Flash sale: {word}</title>\n<style>\n{STYLE}</style>\n\
         <h1>Flash sale <span class=\"verdict {class}\">{word}</span></h1>\n\
         <p>{}</p>\n",
        shown(what.trim_start_matches("flash sale: "))
    );
    if let Some(verdict) = verdict {
        tiles(&mut page, verdict);
    }
    events(&mut page, &measured.ended.outcome.events);
    page.push_str("<div class=\"charts\">\n");
    for chart in charts(measured) {
        draw(&mut page, &chart)?;
    }
    page.push_str("</div>\n");
    if let Some(direct) = &measured.direct {
        page.push_str("<h2>Without a broker, and through it</h2>\n");
        let rows = report::side_by_side(measured, direct);
        let head = ["", "without a broker", "through the broker"];
        table(&mut page, &head, &rows);
        let expected = measured.settings.load().direct_timeouts();
        let expected =
            format!("By the arithmetic, {expected:.0} are turned away without a broker.");
        let _ = writeln!(page, "<p>{}</p>", shown(&expected));
    }
    if let Some(verdict) = verdict {
        checks(&mut page, verdict);
    }
    page.push_str("<h2>Conditions</h2>\n<dl>\n");
    for line in conditions.chain(report::figures(measured).lines()) {
        let (name, text) = line.split_once(": ").unwrap_or(("", line));
        let _ = writeln!(page, "<dt>{}<dd>{}", shown(name), shown(text));
    }
    page.push_str("</dl>\n</html>\n");
    Ok(page)
}

fn tiles(page: &mut String, verdict: &Verdict) {
    page.push_str("<ul class=\"tiles\">\n");
    for (name, caption) in TILES {
        if let Some(check) = verdict.checks.iter().find(|check| check.name == name) {
            let class = if check.pass { "" } else { " class=\"fail\"" };
            let seen = shown(&check.seen);
            let _ = writeln!(page, "<li{class}><b>{seen}</b> {}", shown(caption));
        }
    }
    page.push_str("</ul>\n");
}

fn checks(page: &mut String, verdict: &Verdict) {
    page.push_str("<h2>Expected and seen</h2>\n<div class=\"scroll\"><table>\n");
    page.push_str("<tr><th><th>check<th>expected<th>seen</tr>\n");
    for check in &verdict.checks {
        let (class, word) = if check.pass {
            ("pass", "PASS")
        } else {
            ("fail", "FAIL")
        };
        let _ = writeln!(
            page,
            "<tr><td class=\"{class}\">{word}<td>{}<td>{}<td>{}</tr>",
            shown(check.name),
            shown(&check.expected),
            shown(&check.seen),
        );
    }
    page.push_str("</table></div>\n");
}

fn charts(measured: &Measured) -> Vec<Chart> {
    let seconds = &measured.ended.seconds;
    let happened = measured.ended.outcome.events.iter();
    let marks: Vec<f64> = happened.map(|event| event.at_s).collect();
    let seen = |name, color, stroke, value: fn(&Second) -> Option<f64>| Series {
        name,
        color,
        stroke,
        points: seconds
            .iter()
            .map(|second| (second.at_s as f64, value(second)))
            .collect(),
    };
    let course = measured.settings.load().course().points;
    let expected = course.iter().map(|point| (point.at_s, Some(point.backlog)));
    let expected = Series {
        name: "by the arithmetic",
        color: ORANGE,
        stroke: Stroke::Expected,
        points: expected.collect(),
    };
    let (line, area) = (Stroke::Line, Stroke::Area);
    let per_s = vec![
        seen("offered", BLUE, area, |second| Some(second.produced as f64)),
        seen("acknowledged", GREEN, line, |second| {
            Some(second.acked as f64)
        }),
        seen("written", ORANGE, line, |second| {
            Some(second.written as f64)
        }),
    ];
    let backlog = seen("seen", BLUE, area, |second| Some(second.backlog as f64));
    let p99 = seen("p99 from the intended time", GREEN, line, |second| {
        (second.ack_p99_us > 0).then_some(second.ack_p99_us as f64 / 1e3)
    });
    let lag = vec![
        seen("age of the oldest that waits", BLUE, area, |second| {
            Some(second.lag_s)
        }),
        seen(
            "time until empty, once it shrinks",
            ORANGE,
            line,
            |second| second.drain_s,
        ),
    ];
    let held = seen("received, not yet written", BLUE, area, |second| {
        Some(second.buffer as f64)
    });
    let mut charts = vec![
        ("Orders per second", per_s, marks.clone()),
        (
            "Orders that wait for the database",
            vec![backlog, expected],
            marks.clone(),
        ),
        ("Lag of the database, in seconds", lag, marks.clone()),
        ("Acknowledgement latency, in ms", vec![p99], marks.clone()),
        ("Orders in the memory of the consumers", vec![held], marks),
    ];
    if let Some(direct) = &measured.direct {
        charts.insert(
            1,
            (
                "The same without a broker",
                direct_series(direct),
                Vec::new(),
            ),
        );
    }
    let all = charts.iter().flat_map(|(_, series, _)| series);
    let until_s = all.map(Series::ends_at_s).fold(0.0, f64::max);
    let chart = |(title, series, events)| Chart {
        title,
        series,
        events,
        until_s,
    };
    charts.into_iter().map(chart).collect()
}

fn direct_series(direct: &DirectEnded) -> Vec<Series> {
    let seen = |name, color, stroke, value: fn(&DirectSecond) -> u64| Series {
        name,
        color,
        stroke,
        points: direct
            .seconds
            .iter()
            .map(|second| (second.at_s as f64, Some(value(second) as f64)))
            .collect(),
    };
    vec![
        seen("requested", BLUE, Stroke::Area, |second| second.requested),
        seen("written", ORANGE, Stroke::Line, |second| second.written),
        seen("turned away", RED, Stroke::Line, |second| second.timed_out),
    ]
}

fn draw(page: &mut String, chart: &Chart) -> Result<(), String> {
    let title = shown(chart.title);
    let _ = writeln!(page, "<section>\n<h2>{title}</h2>\n<ul class=\"legend\">");
    for series in &chart.series {
        let (red, green, blue) = series.color;
        let class = match series.stroke {
            Stroke::Line => "line",
            Stroke::Area => "area",
            Stroke::Expected => "expected",
        };
        let _ = writeln!(
            page,
            "<li><span class=\"{class}\" style=\"color:rgb({red},{green},{blue})\"></span>{}",
            shown(series.name)
        );
    }
    page.push_str("</ul>\n");
    for (class, size) in [("wide", WIDE), ("narrow", NARROW)] {
        let _ = writeln!(page, "<div class=\"{class}\">{}</div>", chart.svg(size)?);
    }
    page.push_str("</section>\n");
    Ok(())
}

fn events(page: &mut String, events: &[Event]) {
    if events.is_empty() {
        return;
    }
    page.push_str("<ol class=\"events\">\n");
    for event in events {
        let _ = writeln!(page, "<li>{:.1} s: {}", event.at_s, shown(&event.what));
    }
    page.push_str("</ol>\n");
}

fn table(page: &mut String, head: &[&str; 3], rows: &[[String; 3]]) {
    page.push_str("<div class=\"scroll\"><table><tr>");
    for cell in head {
        let _ = write!(page, "<th>{}", shown(cell));
    }
    page.push_str("</tr>\n");
    for row in rows {
        page.push_str("<tr>");
        for cell in row {
            let _ = write!(page, "<td>{}", shown(cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

/// Text as people read it and HTML writes it.
fn shown(text: &str) -> String {
    grouped(text)
        .replace("+-", "\u{b1}")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Counts of five digits and more in groups of three; not those of ports and paths.
fn grouped(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let digits = word.trim_start_matches("+-");
        let sign = &word[..word.len() - digits.len()];
        let (count, unit) = digits.split_at(digits.find(['/', '.']).unwrap_or(digits.len()));
        let is_count = count.len() > 4 && count.bytes().all(|byte| byte.is_ascii_digit());
        if !is_count {
            return word.to_owned();
        }
        let mut groups = String::new();
        for (index, digit) in count.char_indices() {
            if index > 0 && (count.len() - index).is_multiple_of(3) {
                groups.push(',');
            }
            groups.push(digit);
        }
        format!("{sign}{groups}{unit}")
    });
    words.collect::<Vec<_>>().join(" ")
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
            "<b>500,000</b> orders acknowledged",
            "200,000 \u{b1}4000",
            "by the arithmetic",
            "<li>30.0 s: the broker is &lt;killed&gt;",
            "turned away",
            "<dt>machine<dd>",
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
        assert!(!page.contains("class=\"tiles\""));
    }

    #[test]
    fn what_fails_is_seen_at_the_top() {
        let mut measured = measured();
        measured.facts.audit.distinct -= 1;
        let page = page(&measured, Some(&judge(&measured.facts))).unwrap();
        assert!(page.contains("<li class=\"fail\"><b>1</b> lost"), "{page}");
    }

    #[test]
    fn counts_are_grouped_and_addresses_are_not() {
        for (text, shown) in [
            ("500000", "500,000"),
            ("at most 12345", "at most 12,345"),
            ("200000 +-10000", "200,000 +-10,000"),
            ("12345.6 s, 50000/s", "12,345.6 s, 50,000/s"),
            ("4096", "4096"),
            ("127.0.0.1:40123 and (41234)", "127.0.0.1:40123 and (41234)"),
        ] {
            assert_eq!(grouped(text), shown);
        }
    }
}
