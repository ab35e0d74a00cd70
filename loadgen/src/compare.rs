//! Two runs side by side, from the documents that `--json` wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::failure::Failure;

/// What is compared beside the checks: its name, where it stands, what it is divided by, its unit.
const FIGURES: &[(&str, &str, f64, &str)] = &[
    ("ack p50", "/ack_latency_us/p50", 1e3, " ms"),
    ("ack p99", "/ack_latency_us/p99", 1e3, " ms"),
    ("ack max", "/ack_latency_us/max", 1e3, " ms"),
    ("pauses", "/counts/pauses", 1.0, ""),
    ("attempts that failed", "/counts/retries", 1.0, ""),
    ("delivered again", "/counts/redelivered", 1.0, ""),
    ("broker CPU", "/broker/cpu_s", 1.0, " s"),
];
/// Settings that differ from run to run without making another sale of it; and incidents are those
/// of the run, as a sale that is resumed goes without.
const NOT_COMPARED: [&str; 5] = [
    "settings sale topic",
    "settings sale group",
    "settings sale incidents",
    "settings json",
    "settings report",
];

/// The comparison of the documents at these paths, in plain text.
///
/// # Errors
/// If one cannot be read or is of no flash sale.
pub fn text(one: &Path, other: &Path) -> Result<String, Failure> {
    let documents = [read(one)?, read(other)?];
    let mut rows = vec![("verdict".to_owned(), documents.each_ref().map(verdict))];
    let settings = documents.each_ref().map(|document| {
        let mut found = BTreeMap::new();
        flatten("client", &document["client_io"], &mut found);
        flatten("settings", &document["settings"], &mut found);
        found
    });
    let [one_settings, other_settings] = &settings;
    let names: BTreeSet<&String> = one_settings.keys().chain(other_settings.keys()).collect();
    for name in names {
        let value = |found: &BTreeMap<String, String>| found.get(name).cloned();
        let seen = settings
            .each_ref()
            .map(|found| value(found).unwrap_or("-".to_owned()));
        rows.push((name.clone(), seen));
    }
    for name in checks(&documents) {
        let seen = documents.each_ref().map(|document| check(document, &name));
        rows.push((name, seen));
    }
    for (name, place, divided_by, unit) in FIGURES {
        let figure = |document: &Value| match document.pointer(place).and_then(Value::as_f64) {
            Some(figure) => format!("{}{unit}", rounded(figure / divided_by)),
            None => "-".to_owned(),
        };
        rows.push(((*name).to_owned(), documents.each_ref().map(figure)));
    }
    let mut text = String::new();
    let _ = writeln!(text, "{:<34} {:<30} {}", "", one.display(), other.display());
    for (name, [one, other]) in rows {
        let mark = if one == other { ' ' } else { '*' };
        let _ = writeln!(text, "{mark} {name:<32} {one:<30} {other}");
    }
    Ok(text)
}

fn read(path: &Path) -> Result<Value, Failure> {
    let refuse = |why: String| Failure::Reason(format!("cannot compare {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let document: Value = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    match document["scenario"].as_str() {
        Some("flash-sale") => Ok(document),
        _ => Err(refuse("it is not what flash-sale --json writes".to_owned())),
    }
}

fn verdict(document: &Value) -> String {
    let word = match document["pass"].as_bool() {
        Some(true) => "PASS",
        Some(false) => "FAIL",
        None => "no verdict",
    };
    word.to_owned()
}

/// All settings that are there, each with its path in words.
fn flatten(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    let time = |part| value.get(part).and_then(Value::as_f64);
    let shown = match (value, time("secs"), time("nanos")) {
        _ if NOT_COMPARED.contains(&path) => return,
        (Value::Null, ..) => return,
        (_, Some(secs), Some(nanos)) => format!("{} s", rounded(secs + nanos / 1e9)),
        (Value::Object(members), ..) => {
            for (name, member) in members {
                let name = name.replace('_', " ");
                flatten(&format!("{path} {name}"), member, found);
            }
            return;
        }
        (Value::String(text), ..) => text.clone(),
        (other, ..) => other.to_string(),
    };
    found.insert(path.to_owned(), shown);
}

/// The names of the checks of both, in the sequence of the first that has them.
fn checks(documents: &[Value; 2]) -> Vec<String> {
    let all = documents
        .iter()
        .filter_map(|document| document["checks"].as_array())
        .flatten();
    let mut names = Vec::new();
    for name in all.filter_map(|check| check["name"].as_str()) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn check(document: &Value, name: &str) -> String {
    let checks = document["checks"].as_array().into_iter().flatten();
    let found = checks
        .filter(|check| check["name"] == name)
        .find_map(|check| {
            let seen = check["seen"].as_str()?;
            let failed = if check["pass"] == true { "" } else { " (FAIL)" };
            Some(format!("{seen}{failed}"))
        });
    found.unwrap_or_else(|| "-".to_owned())
}

fn rounded(figure: f64) -> String {
    match figure.fract() == 0.0 {
        true => format!("{figure:.0}"),
        false => format!("{figure:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use crate::report::tests::measured;
    use crate::verdict::judge;
    use std::time::Duration;

    #[test]
    fn two_runs_stand_side_by_side_and_what_differs_is_marked() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one.json", "other.json"].map(|name| folder.path().join(name));
        let mut measured = measured();
        json::write(&one, &measured, Some(&judge(&measured.facts))).unwrap();
        measured.facts.audit.rows += 1;
        measured.settings.incidents.poison = 0.01;
        measured.settings.members = 5;
        measured.settings.db_latency = Duration::from_millis(250);
        measured.settings.sale.topic = "another".to_owned();
        json::write(&other, &measured, Some(&judge(&measured.facts))).unwrap();
        let text = text(&one, &other).unwrap();
        let line = |name: &str| {
            let found = text.lines().find(|line| line[2..].starts_with(name));
            found.unwrap().split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(line("verdict"), ["*", "verdict", "PASS", "FAIL"]);
        assert_eq!(line("duplicates"), ["*", "duplicates", "0", "1", "(FAIL)"]);
        assert_eq!(line("lost"), ["lost", "0", "0"]);
        assert_eq!(
            line("settings sale window"),
            ["settings", "sale", "window", "60", "s", "60", "s"]
        );
        assert_eq!(
            line("settings members"),
            ["*", "settings", "members", "10", "5"]
        );
        assert_eq!(line("settings db latency")[4..], ["0.10", "s", "0.25", "s"]);
        assert!(!text.contains("another"), "{text}");
        assert_eq!(
            line("settings incidents poison")[..],
            ["*", "settings", "incidents", "poison", "0.0", "0.01"]
        );
        let mut names: Vec<_> = text.lines().map(|line| &line[2..34]).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "each name once: {text}");
        let [name, word, one, unit, ..] = line("ack p50")[..] else {
            panic!("{text}");
        };
        assert_eq!((name, word, unit), ("ack", "p50", "ms"));
        assert!(one.starts_with("12."), "{one}");
    }

    #[test]
    fn a_file_that_is_no_sale_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bench.json");
        std::fs::write(&path, "{\"mode\": \"produce\"}").unwrap();
        let failure = text(&path, &path).unwrap_err().to_string();
        assert!(
            failure.contains("bench.json") && failure.contains("--json"),
            "{failure}"
        );
        let failure = text("/nowhere.json".as_ref(), &path)
            .unwrap_err()
            .to_string();
        assert!(failure.contains("/nowhere.json"), "{failure}");
    }
}
