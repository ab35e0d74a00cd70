//! Where `forebay consume --from` starts: words, offsets, times.

use crate::client::Start;

/// A parsed `--from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From(pub Start);

/// Parses beginning, end, an offset, `@` with milliseconds since 1970, or a UTC time in the form
/// of RFC 3339.
pub fn parse_from(text: &str) -> Result<From, String> {
    let start = match text {
        "beginning" => Some(Start::Earliest),
        "end" => Some(Start::Latest),
        _ => match text.strip_prefix('@') {
            Some(milliseconds) => parse_natural(milliseconds).map(Start::Timestamp),
            None => parse_natural(text)
                .map(Start::Offset)
                .or_else(|| parse_time(text).map(Start::Timestamp)),
        },
    };
    start.map(From).ok_or_else(|| {
        "write beginning, end, an offset, @MILLISECONDS or a time like 2026-01-31T12:00:00Z"
            .to_owned()
    })
}

fn parse_natural(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number| *number >= 0)
}

/// Milliseconds since 1970 of a date, with or without a time of day, in UTC.
fn parse_time(text: &str) -> Option<i64> {
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
    let milliseconds = parse_digits(&format!("{fraction:0<3}")[..3])?;
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    in_range.then_some(seconds * 1000 + milliseconds)
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
    fn words_offsets_and_times_are_told_apart() {
        let check = |text: &str, expected: Start| {
            assert_eq!(parse_from(text), Ok(From(expected)), "{text}");
        };
        check("beginning", Start::Earliest);
        check("end", Start::Latest);
        check("42", Start::Offset(42));
        check("@1700000000123", Start::Timestamp(1_700_000_000_123));
        check("2023-11-14T22:13:20Z", Start::Timestamp(1_700_000_000_000));
        check(
            "2023-11-14T22:13:20.5Z",
            Start::Timestamp(1_700_000_000_500),
        );
        check("2024-02-29", Start::Timestamp(1_709_164_800_000));
        check("1970-01-01T00:00Z", Start::Timestamp(0));
    }

    #[test]
    fn nonsense_is_refused() {
        let nonsense = [
            "",
            "-1",
            "@",
            "@x",
            "start",
            "2023-02-29",
            "2023-13-01",
            "2023-01-01T24:00:00Z",
            "2023-01-01T10:00:00",
            "2023-01-01T10Z",
            "99999999999999999999",
            "2023-01-01T10:00:00.ßZ",
        ];
        for text in nonsense {
            assert!(parse_from(text).is_err(), "{text}");
        }
    }
}
