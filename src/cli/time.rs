//! Times as people write them: UTC in the form of RFC 3339.

const DAY_MS: i64 = 86_400_000;

/// Milliseconds since 1970 of a date, with or without a time of day, in UTC.
pub fn parse_time(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let mut date = date.splitn(3, '-').map(parse_digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.strip_suffix('Z')?.splitn(3, ':');
    let (hour, minute) = (parse_digits(time.next()?)?, parse_digits(time.next()?)?);
    let (second, fraction) = match time.next() {
        Some(seconds) => seconds.split_once('.').unwrap_or((seconds, "0")),
        None => ("0", "0"),
    };
    let second = parse_digits(second)?;
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let milliseconds = parse_digits(format!("{fraction:0<3}").get(..3)?)?;
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    in_range.then_some(seconds * 1000 + milliseconds)
}

/// Milliseconds since 1970 as a UTC time with milliseconds; "-" for none (a negative number).
pub fn format_time(ms: i64) -> String {
    let (days, rest_ms) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    // Beyond the year 9999 it is no time that somebody meant.
    if ms < 0 || days > days_since_1970(9999, 12, 31) {
        return "-".to_owned();
    }
    let mut year = 1970 + days / 366;
    while days_since_1970(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut day = days - days_since_1970(year, 1, 1);
    let mut month = 1;
    while day >= days_in(year, month) {
        day -= days_in(year, month);
        month += 1;
    }
    let (hour, minute) = (rest_ms / 3_600_000, rest_ms / 60_000 % 60);
    let (second, fraction) = (rest_ms / 1000 % 60, rest_ms % 1000);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z",
        day + 1
    )
}

fn parse_digits(text: &str) -> Option<i64> {
    let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let years: i64 = (1970..year)
        .map(|each| 365 + i64::from(is_leap(each)))
        .sum();
    let months: i64 = (1..month).map(|each| days_in(year, each)).sum();
    years + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in [
            "2026-01-31T12:00:00.ééZ",
            "2026-01-31T12:00:00.éZ",
            "2026-01-31T12:00:00.1xZ",
            "2026-02-29",
            "2026-01-31T24:00:00Z",
            "éé-01-31",
        ] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_is_read_from_what_it_prints() {
        for text in [
            "1970-01-01T00:00:00.000Z",
            "2023-11-14T22:13:20.123Z",
            "2024-02-29T23:59:59.999Z",
            "2024-12-31T00:00:00.000Z",
            "2100-03-01T12:30:00.000Z",
            "9999-12-31T23:59:59.999Z",
        ] {
            assert_eq!(format_time(parse_time(text).unwrap()), text);
        }
        assert_eq!(format_time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        for none in [-1, i64::MIN, i64::MAX, 253_402_300_800_000] {
            assert_eq!(format_time(none), "-");
        }
    }
}
