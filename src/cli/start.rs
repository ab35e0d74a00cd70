//! Where `forebay consume --from` starts: words, offsets, times.

use super::time::parse_time;
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
