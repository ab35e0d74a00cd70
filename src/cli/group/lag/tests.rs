//! What is said of a group, from two looks at it.

use std::process::ExitCode;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    lag: Lag,
}

fn command(arguments: &[&str]) -> Lag {
    let arguments = ["lag", "shop"].iter().chain(arguments);
    Arguments::try_parse_from(arguments).ok().unwrap().lag
}

fn standing(start: Offset, end: Offset, committed: Option<Offset>) -> Standing {
    Standing {
        start,
        end,
        committed,
    }
}

/// Partitions of one topic, seen at a time.
fn look(at: Instant, standings: &[Standing]) -> Look {
    let partitions = (0..).map(|index| TopicPartition::new("orders", index));
    let standings = partitions.zip(standings.iter().copied()).collect();
    Look { at, standings }
}

/// The rows of two looks, two seconds apart; ages by partition.
fn rows(lag: &Lag, before: &[Standing], after: &[Standing], ages: &[Option<f64>]) -> Rows {
    let at = Instant::now();
    let partitions = (0..).map(|index| TopicPartition::new("orders", index));
    let ages = partitions.zip(ages.iter().copied()).collect();
    let after = look(at + Duration::from_secs(2), after);
    lag.rows(&look(at, before), &after, &ages)
}

#[test]
fn a_group_is_as_late_as_its_latest_partition_and_done_with_its_last() {
    let before = [standing(0, 100, Some(0)), standing(0, 100, Some(50))];
    let after = [standing(0, 110, Some(60)), standing(0, 100, Some(70))];
    let rows = rows(&command(&[]), &before, &after, &[Some(8.0), Some(3.0)]);
    let of = |index| rows[&TopicPartition::new("orders", index)].1;
    let pace = |produced_per_s, drained_per_s| Pace {
        produced_per_s,
        drained_per_s,
    };
    assert_eq!((of(0).unread, of(1).unread), (50, 30));
    assert_eq!((of(0).pace, of(1).pace), (pace(5.0, 30.0), pace(0.0, 10.0)));
    assert_eq!((of(0).empty_in_s, of(1).empty_in_s), (Some(2.0), Some(3.0)));
    let all = Row {
        unread: 80,
        age_s: Some(8.0),
        pace: pace(5.0, 40.0),
        empty_in_s: Some(3.0),
    };
    assert_eq!(sum(&rows), all);
}

#[test]
fn one_partition_that_stands_still_makes_the_group_never_done() {
    let before = [standing(0, 100, Some(90)), standing(0, 100, Some(50))];
    let after = [standing(0, 100, Some(99)), standing(0, 100, Some(50))];
    let rows = rows(&command(&[]), &before, &after, &[Some(1.0), Some(9.0)]);
    assert_eq!(sum(&rows).empty_in_s, None);
}

#[test]
fn without_a_commit_a_group_begins_where_its_reset_says() {
    let partition = standing(20, 100, None);
    let unread = |reset| partition.span(reset).unread();
    assert_eq!((unread(Reset::Earliest), unread(Reset::Latest)), (80, 0));
    // The first commit shows what was read since the look before.
    let after = standing(20, 100, Some(60));
    let first = rows(&command(&[]), &[partition], &[after], &[Some(1.0)]);
    assert_eq!(sum(&first).pace.drained_per_s, 20.0);
}

#[test]
fn what_is_no_record_for_consumers_is_not_unread() {
    // The end of a transaction stands behind its last record.
    let read = standing(0, 100, Some(99));
    let rows = rows(&command(&[]), &[read], &[read], &[]);
    let all = sum(&rows);
    assert_eq!((all.unread, all.age_s), (0, Some(0.0)));
    assert_eq!(all.empty_in_s, Some(0.0));
}

#[test]
fn what_was_deleted_is_neither_unread_nor_read() {
    let (before, after) = (standing(0, 100, Some(10)), standing(70, 100, Some(10)));
    let rows = rows(&command(&[]), &[before], &[after], &[Some(1.0)]);
    assert_eq!(
        (sum(&rows).unread, sum(&rows).pace.drained_per_s),
        (30, 0.0)
    );
    assert!(
        after
            .remark()
            .unwrap()
            .starts_with("60 records were deleted")
    );
    assert_eq!(before.remark(), None);
    let beyond = standing(0, 100, Some(120));
    assert_eq!(beyond.span(Reset::Earliest).unread(), 0);
    assert!(beyond.remark().unwrap().contains("beyond the end"));
    let lag = command(&[]);
    let said = lag.to_json(&self::rows(&lag, &[beyond], &[beyond], &[]));
    let said = &said["partitions"][0]["remark"];
    assert!(said.as_str().unwrap().contains("beyond the end"), "{said}");
}

#[test]
fn the_exit_code_says_whether_the_group_is_within_its_time() {
    let code = |seconds_max: &str, ages: &[Option<f64>]| {
        let lag = command(&["--max-seconds", seconds_max]);
        let late = [standing(0, 100, Some(0)); 2];
        match lag.check(&rows(&lag, &late, &late, ages)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(),
        }
    };
    let is =
        |code: ExitCode, number: u8| format!("{code:?}") == format!("{:?}", ExitCode::from(number));
    assert!(is(code("5", &[Some(5.0), Some(1.0)]), 0));
    assert!(is(code("4.9", &[Some(1.0), Some(5.0)]), 3));
    // What is known is enough to say that it is too late, not that it is in time.
    assert!(is(code("4.9", &[None, Some(5.0)]), 3));
    assert!(is(code("5", &[None, Some(5.0)]), 1));
}

#[test]
fn times_that_are_none_are_refused() {
    for wrong in ["-1", "soon", "nan", ""] {
        assert!(seconds(wrong).is_err(), "{wrong}");
    }
    assert!(interval("0").is_err() && interval("1e9").is_err());
    assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
}
