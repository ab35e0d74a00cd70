//! `loadgen zero-copy`: the same reads by each of forebay's fetch paths, in turns, so that what
//! else happens on the machine happens to all of them.

use std::collections::BTreeMap;

use serde_json::json;

use super::args::ZeroCopyArgs;
use super::consume;
use super::course::Course;
use super::result::Outcome;
use super::session::Measuring;
use crate::failure::Failure;

/// forebay's broker setting.
const SETTING: &str = "fetch.path";

/// Runs the turns.
///
/// # Errors
/// If the broker has no such setting or does not know a path, and those of [`consume::run`].
pub async fn run(measuring: &Measuring, args: &ZeroCopyArgs) -> Result<Outcome, Failure> {
    // Kafka accepts settings that it does not know, and would be compared with itself.
    let Some(before) = measuring.cluster.broker_setting(SETTING).await? else {
        return Err(Failure::Reason(format!(
            "the broker has no setting {SETTING}: zero-copy compares the fetch paths of forebay; \
             use consume for others"
        )));
    };
    let topic = consume::filled(measuring, &args.consume).await?;
    let turns = turns(measuring, args, &topic).await;
    let restored = measuring.cluster.set_of_brokers(SETTING, &before).await;
    let courses = turns?;
    restored?;
    let mut by_path: BTreeMap<&str, Vec<&Course>> = BTreeMap::new();
    for (path, course) in &courses {
        by_path.entry(path).or_default().push(course);
    }
    let mut notes = vec![
        String::new(),
        "  medians        GB/s    CPU-s/GB".to_owned(),
    ];
    let mut facts = BTreeMap::new();
    for (path, courses) in by_path {
        let speeds = courses
            .iter()
            .map(|course| course.per_s(course.counts.bytes) / 1e9);
        let costs = courses.iter().filter_map(|course| course.cpu_s_per_gb());
        let (speed, cost) = (median(speeds.collect()), median(costs.collect()));
        let text = |figure: Option<f64>| figure.map_or("?".to_owned(), |f| format!("{f:.3}"));
        notes.push(format!("  {path:<14} {:<7} {}", text(speed), text(cost)));
        facts.insert(path, json!({ "gb_per_s": speed, "cpu_s_per_gb": cost }));
    }
    Ok(Outcome {
        scenario: "zero-copy",
        headline: consume::headline(&args.consume, &topic),
        latency_of: "fetched in",
        facts: json!({ "paths": facts }),
        courses,
        notes,
    })
}

async fn turns(
    measuring: &Measuring,
    args: &ZeroCopyArgs,
    topic: &crate::cluster::Topic,
) -> Result<Vec<(String, Course)>, Failure> {
    let (warm_up, duration) = measuring.times();
    let mut courses = Vec::new();
    for _ in 0..args.rounds {
        for path in &args.paths {
            measuring.cluster.set_of_brokers(SETTING, path).await?;
            measuring.live.borrow_mut().line(path);
            let course = consume::read(measuring, &args.consume, topic, warm_up, duration).await?;
            let interrupted = course.interrupted;
            courses.push((path.clone(), course));
            if interrupted {
                return Ok(courses);
            }
        }
    }
    Ok(courses)
}

/// The middle one, or the mean of the two in the middle.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_unstable_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(figures[middle]),
        _ => Some(figures[middle - 1].midpoint(figures[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
