//! Dead letters: records that a consumer gave up and put into another topic, with headers that say
//! where each came from and what was wrong. This file owns the names of those headers, as the usual
//! frameworks write them, and reads them; it decides nothing.
//!
//! Frameworks write numbers as text or as big-endian integers. Both are read everywhere: an integer
//! whose bytes are all letters and digits is beyond any partition, offset or time.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

/// How many times the record had been sent back when it was sent, as text; 1 for the first time.
pub const REPLAYS: &str = "forebay.replays";
/// What a record that was sent back is a copy of, as [`Place`] prints it.
pub const ORIGIN: &str = "forebay.origin";
/// How often a record was tried before it was given up, as text.
pub const ATTEMPTS: &str = "forebay.attempts";

/// Headers whose names begin so are ours.
const OURS: &str = "forebay.";

/// Names of headers with the number of attempts, of whichever framework, and how many more there
/// were: one counts only what came after the first.
const ATTEMPTS_NAMES: [(&str, i64); 5] = [
    (ATTEMPTS, 0),
    ("kafka_deliveryAttempt", 0),
    ("retry_topic-attempts", 0),
    ("__dlq.errors.delivery.count", 0),
    ("delayed-retry-count", 1),
];

/// The names that one framework gives its headers.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// The topic that the record was read from.
    pub topic: &'static str,
    /// Its partition there.
    pub partition: &'static str,
    /// Its offset there.
    pub offset: &'static str,
    /// Its timestamp there, where the dead letter has another.
    pub timestamp: Option<&'static str>,
    /// The kind of the error.
    pub error: &'static str,
    /// What the error says.
    pub message: &'static str,
    /// Other names of the two; where there are such headers, they say more.
    details: &'static [(&'static str, &'static str)],
    /// All names that begin so are of the dead letter, and not of the record.
    prefixes: &'static [&'static str],
    /// Which of several headers of one name counts, for the place and for the error.
    order: Order,
}

/// Where a framework puts its headers among those that the record had already, and so which of
/// several of one name it has written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Behind them.
    Behind,
    /// Before them.
    Before,
    /// Before them; the record went through retry topics, each of which left its place, so that
    /// the one that it came from stands last.
    BeforeByRetries,
}

/// Kafka Connect (KIP-298); values are text.
pub const CONNECT: Dialect = Dialect {
    topic: "__connect.errors.topic",
    partition: "__connect.errors.partition",
    offset: "__connect.errors.offset",
    timestamp: None,
    error: "__connect.errors.exception.class.name",
    message: "__connect.errors.exception.message",
    details: &[],
    prefixes: &["__connect.errors."],
    order: Order::Behind,
};

/// Kafka Streams (KIP-1034); values are text, the error has its message behind it.
pub const STREAMS: Dialect = Dialect {
    topic: "__streams.errors.topic",
    partition: "__streams.errors.partition",
    offset: "__streams.errors.offset",
    timestamp: None,
    error: "__streams.errors.exception",
    message: "__streams.errors.message",
    details: &[],
    prefixes: &["__streams.errors."],
    order: Order::Behind,
};

/// A broker for its share groups (KIP-1191); values are text. There is no kind of error, but only
/// two messages, which stand for it. Key and value may be left out.
pub const SHARE_GROUP: Dialect = Dialect {
    topic: "__dlq.errors.topic",
    partition: "__dlq.errors.partition",
    offset: "__dlq.errors.offset",
    timestamp: None,
    error: "__dlq.errors.message",
    message: "__dlq.errors.message",
    details: &[],
    prefixes: &["__dlq.errors."],
    order: Order::Behind,
};

/// Spring for Apache Kafka; numbers are integers. The error is always that of the listener, its
/// cause is what the handler threw; a key that cannot be read has names of its own.
pub const SPRING: Dialect = Dialect {
    topic: "kafka_dlt-original-topic",
    partition: "kafka_dlt-original-partition",
    offset: "kafka_dlt-original-offset",
    timestamp: Some("kafka_dlt-original-timestamp"),
    error: "kafka_dlt-exception-fqcn",
    message: "kafka_dlt-exception-message",
    details: &[
        (
            "kafka_dlt-exception-cause-fqcn",
            "kafka_dlt-exception-message",
        ),
        (
            "kafka_dlt-key-exception-fqcn",
            "kafka_dlt-key-exception-message",
        ),
    ],
    prefixes: &[
        "kafka_dlt-",
        "kafka_original-",
        "kafka_exception-",
        "kafka_deliveryAttempt",
        "retry_topic-",
    ],
    order: Order::Behind,
};

/// SmallRye Reactive Messaging, and so Quarkus; values are text.
pub const SMALLRYE: Dialect = Dialect {
    topic: "dead-letter-topic",
    partition: "dead-letter-partition",
    offset: "dead-letter-offset",
    timestamp: None,
    error: "dead-letter-exception-class-name",
    message: "dead-letter-reason",
    details: &[],
    prefixes: &[
        "dead-letter-topic",
        "dead-letter-partition",
        "dead-letter-offset",
        "dead-letter-exception-class-name",
        "dead-letter-reason",
        "dead-letter-cause",
    ],
    order: Order::Before,
};

/// SmallRye's delayed retry topics; values are text.
pub const SMALLRYE_RETRY: Dialect = Dialect {
    topic: "delayed-retry-topic",
    partition: "delayed-retry-partition",
    offset: "delayed-retry-offset",
    timestamp: Some("delayed-retry-original-timestamp"),
    error: "delayed-retry-exception-class-name",
    message: "delayed-retry-reason",
    details: &[],
    prefixes: &["delayed-retry-"],
    order: Order::BeforeByRetries,
};

/// The Kafka binder of Spring Cloud Stream, whose names many write by hand too; numbers are
/// integers or text.
pub const SPRING_CLOUD_STREAM: Dialect = Dialect {
    topic: "x-original-topic",
    partition: "x-original-partition",
    offset: "x-original-offset",
    timestamp: Some("x-original-timestamp"),
    error: "x-exception-fqcn",
    message: "x-exception-message",
    details: &[],
    prefixes: &[
        "x-original-topic",
        "x-original-partition",
        "x-original-offset",
        "x-original-timestamp",
        "x-exception-fqcn",
        "x-exception-message",
        "x-exception-stacktrace",
    ],
    order: Order::Behind,
};

const DIALECTS: [&Dialect; 7] = [
    &CONNECT,
    &STREAMS,
    &SHARE_GROUP,
    &SPRING,
    &SMALLRYE,
    &SMALLRYE_RETRY,
    &SPRING_CLOUD_STREAM,
];

/// Headers as the client has them: name and value.
pub type Headers = [(Bytes, Option<Bytes>)];

/// Where a record is, or was. Prints as `topic/partition/offset`, and is read from that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition, from 0.
    pub partition: i32,
    /// The offset, from 0.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.rsplitn(3, '/');
        let mut next = || parts.next().ok_or(());
        let offset = next()?.parse().map_err(|_| ())?;
        let partition = next()?.parse().map_err(|_| ())?;
        let topic = next()?.to_owned();
        match partition >= 0 && offset >= 0 && !topic.is_empty() {
            true => Ok(Self {
                topic,
                partition,
                offset,
            }),
            false => Err(()),
        }
    }
}

/// What the headers of a dead letter say. Anything may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// The topic that the record came from.
    pub topic: Option<String>,
    /// Its partition there.
    pub partition: Option<i32>,
    /// Its offset there.
    pub offset: Option<i64>,
    /// Its timestamp there in milliseconds, where the headers have it.
    pub timestamp: Option<i64>,
    /// The kind of the error.
    pub error: Option<String>,
    /// What the error says.
    pub message: Option<String>,
    /// How often the record was tried.
    pub attempts: Option<i64>,
    /// How many times it had been sent back before it was given up this time.
    pub replays: u32,
}

impl DeadLetter {
    /// Reads the headers of a record. If several frameworks have left theirs, those count that
    /// stand last; of headers with the same name the one that was written last.
    pub fn read(headers: &Headers) -> Self {
        let count = |name: &str| last(headers, name).and_then(number);
        let attempts = |(name, more): &(&str, i64)| Some(count(name)?.saturating_add(*more));
        let attempts = ATTEMPTS_NAMES.iter().find_map(attempts);
        let replays = count(REPLAYS).and_then(|count| u32::try_from(count).ok());
        let mut letter = Self {
            attempts: attempts.filter(|attempts| *attempts >= 0),
            replays: replays.unwrap_or(0),
            ..Self::default()
        };
        let Some(dialect) = dialect(headers) else {
            return letter;
        };
        let place = |name: &str| match dialect.order {
            Order::Behind | Order::BeforeByRetries => last(headers, name),
            Order::Before => first(headers, name),
        };
        let error = |name: &str| match dialect.order {
            Order::Behind => last(headers, name),
            Order::Before | Order::BeforeByRetries => first(headers, name),
        };
        let number = |name: &str| place(name).and_then(number).filter(|number| *number >= 0);
        letter.topic = place(dialect.topic).map(text);
        letter.topic = letter.topic.filter(|topic| !topic.is_empty());
        letter.partition = number(dialect.partition).and_then(|it| i32::try_from(it).ok());
        letter.offset = number(dialect.offset);
        letter.timestamp = dialect.timestamp.and_then(number);
        let mut details = dialect.details.iter();
        let detail = details.find(|(kind, _)| error(kind).is_some());
        let detail = detail.copied();
        let (kind, message) = detail.unwrap_or((dialect.error, dialect.message));
        letter.message = error(message).map(text);
        let kind = error(kind).map(text);
        letter.error = kind.map(|kind| without_message(kind, letter.message.as_deref()));
        letter
    }

    /// Where the record came from, if the headers say it whole.
    pub fn origin(&self) -> Option<Place> {
        Some(Place {
            topic: self.topic.clone()?,
            partition: self.partition?,
            offset: self.offset?,
        })
    }
}

/// Whether a header belongs to a dead letter (to any dialect, or is ours), and not to its record.
pub fn is_of_letter(name: &[u8]) -> bool {
    let mut prefixes = DIALECTS.iter().flat_map(|dialect| dialect.prefixes);
    name.starts_with(OURS.as_bytes()) || prefixes.any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// The value of the last header of this name.
pub fn last<'a>(headers: &'a Headers, name: &str) -> Option<&'a [u8]> {
    let mut from_behind = headers.iter().rev();
    let found = from_behind.find(|(header, _)| header == name.as_bytes());
    found.and_then(|(_, value)| value.as_deref())
}

/// The value of the first header of this name.
fn first<'a>(headers: &'a Headers, name: &str) -> Option<&'a [u8]> {
    let found = headers.iter().find(|(header, _)| header == name.as_bytes());
    found.and_then(|(_, value)| value.as_deref())
}

/// Whose topic header stands last.
fn dialect(headers: &Headers) -> Option<&'static Dialect> {
    let of = |name: &Bytes| {
        DIALECTS
            .into_iter()
            .find(|each| name == each.topic.as_bytes())
    };
    headers.iter().rev().find_map(|(name, _)| of(name))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// A number as text, or as a big-endian integer of two, four or eight bytes.
fn number(value: &[u8]) -> Option<i64> {
    if value.iter().all(u8::is_ascii_graphic) {
        return str::from_utf8(value).ok()?.parse().ok();
    }
    match value.len() {
        2 => value.try_into().ok().map(i16::from_be_bytes).map(i64::from),
        4 => value.try_into().ok().map(i32::from_be_bytes).map(i64::from),
        8 => value.try_into().ok().map(i64::from_be_bytes),
        _ => None,
    }
}

/// `kind: message` without the message.
fn without_message(error: String, message: Option<&str>) -> String {
    let kind = message.and_then(|message| error.strip_suffix(message)?.strip_suffix(": "));
    kind.map(str::to_owned).unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &[u8])]) -> Vec<(Bytes, Option<Bytes>)> {
        let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (bytes(name.as_bytes()), Some(bytes(value))))
            .collect()
    }

    fn read(pairs: &[(&str, &[u8])]) -> DeadLetter {
        DeadLetter::read(&headers(pairs))
    }

    /// The letter that every dialect below describes.
    fn expected() -> DeadLetter {
        DeadLetter {
            topic: Some("orders".to_owned()),
            partition: Some(3),
            offset: Some(41),
            error: Some("shop.NoStock".to_owned()),
            message: Some("none left".to_owned()),
            ..DeadLetter::default()
        }
    }

    #[test]
    fn connect_writes_text() {
        let letter = read(&[
            ("__connect.errors.topic", b"orders"),
            ("__connect.errors.partition", b"3"),
            ("__connect.errors.offset", b"41"),
            ("__connect.errors.connector.name", b"sink"),
            ("__connect.errors.exception.class.name", b"shop.NoStock"),
            ("__connect.errors.exception.message", b"none left"),
            ("forebay.attempts", b"4"),
        ]);
        let attempts = Some(4);
        assert_eq!(
            letter,
            DeadLetter {
                attempts,
                ..expected()
            }
        );
        assert_eq!(letter.origin().unwrap().to_string(), "orders/3/41");
    }

    #[test]
    fn spring_writes_integers_and_the_cause_says_more_than_the_listener() {
        let letter = read(&[
            ("kafka_dlt-original-topic", b"orders"),
            ("kafka_dlt-original-partition", &3_i32.to_be_bytes()),
            ("kafka_dlt-original-offset", &41_i64.to_be_bytes()),
            (
                "kafka_dlt-original-timestamp",
                &1_700_000_000_000_i64.to_be_bytes(),
            ),
            (
                "kafka_dlt-exception-fqcn",
                b"spring.ListenerExecutionFailed",
            ),
            ("kafka_dlt-exception-cause-fqcn", b"shop.NoStock"),
            ("kafka_dlt-exception-message", b"none left"),
            ("kafka_deliveryAttempt", &2_i32.to_be_bytes()),
        ]);
        let expected = DeadLetter {
            timestamp: Some(1_700_000_000_000),
            attempts: Some(2),
            ..expected()
        };
        assert_eq!(letter, expected);
    }

    #[test]
    fn a_number_is_read_whichever_way_it_is_written() {
        for offset in [&b"12345678"[..], &12_345_678_i64.to_be_bytes()] {
            let letter = read(&[
                ("x-original-topic", b"orders"),
                ("x-original-offset", offset),
            ]);
            assert_eq!(letter.offset, Some(12_345_678));
        }
        for wrong in [&b"-1"[..], b"", b"null", b"1.5", &(-1_i64).to_be_bytes()] {
            let letter = read(&[
                ("dead-letter-topic", b"orders"),
                ("dead-letter-offset", wrong),
            ]);
            assert_eq!((letter.offset, letter.origin()), (None, None), "{wrong:?}");
        }
        let letter = read(&[
            ("dead-letter-topic", b"o"),
            ("dead-letter-partition", b"2147483648"),
        ]);
        assert_eq!(letter.partition, None);
    }

    #[test]
    fn streams_has_the_message_in_the_error_and_smallrye_has_not() {
        let streams = read(&[
            ("__streams.errors.exception", b"shop.NoStock: none left"),
            ("__streams.errors.message", b"none left"),
            ("__streams.errors.topic", b"orders"),
            ("__streams.errors.partition", b"3"),
            ("__streams.errors.offset", b"41"),
        ]);
        assert_eq!(streams, expected());
        let smallrye = read(&[
            ("dead-letter-exception-class-name", b"shop.NoStock"),
            ("dead-letter-reason", b"none left"),
            ("dead-letter-topic", b"orders"),
            ("dead-letter-partition", b"3"),
            ("dead-letter-offset", b"41"),
        ]);
        assert_eq!(smallrye, expected());
    }

    #[test]
    fn the_message_of_a_share_group_is_the_error() {
        let letter = read(&[
            ("__dlq.errors.topic", b"orders"),
            ("__dlq.errors.partition", b"3"),
            ("__dlq.errors.offset", b"41"),
            ("__dlq.errors.delivery.count", b"5"),
            ("__dlq.errors.message", b"none left"),
        ]);
        let expected = DeadLetter {
            error: Some("none left".to_owned()),
            attempts: Some(5),
            ..expected()
        };
        assert_eq!(letter, expected);
    }

    #[test]
    fn what_was_put_there_last_counts() {
        let letter = read(&[
            ("__connect.errors.topic", b"first"),
            ("__connect.errors.offset", b"1"),
            ("x-original-topic", b"retry"),
            ("x-original-offset", b"2"),
            ("x-original-topic", b"second"),
            ("forebay.replays", b"2"),
        ]);
        assert_eq!(letter.topic.as_deref(), Some("second"));
        assert_eq!((letter.offset, letter.replays), (Some(2), 2));
    }

    /// SmallRye puts its headers before those that the record had.
    #[test]
    fn smallrye_writes_before_what_was_there() {
        let hop = |offset: &'static [u8], reason: &'static [u8]| -> [(&str, &[u8]); 5] {
            [
                ("dead-letter-exception-class-name", b"shop.NoStock"),
                ("dead-letter-reason", reason),
                ("dead-letter-topic", b"orders"),
                ("dead-letter-partition", b"3"),
                ("dead-letter-offset", offset),
            ]
        };
        let again = [hop(b"41", b"none left"), hop(b"7", b"the first time")];
        assert_eq!(read(&again.concat()), expected());
    }

    #[test]
    fn smallrye_retries_leave_where_the_record_came_from_last() {
        let hop = |topic: &'static [u8], offset: &'static [u8], reason: &'static [u8]| {
            let class: (&str, &[u8]) = ("delayed-retry-exception-class-name", b"shop.NoStock");
            let (reason, topic) = (
                ("delayed-retry-reason", reason),
                ("delayed-retry-topic", topic),
            );
            let partition = ("delayed-retry-partition", &b"3"[..]);
            [
                class,
                reason,
                topic,
                partition,
                ("delayed-retry-offset", offset),
            ]
        };
        let hops = [
            hop(b"orders_retry_5000", b"7", b"none left"),
            hop(b"orders", b"41", b"asleep"),
        ];
        let mut pairs = hops.concat();
        pairs.push(("delayed-retry-original-timestamp", b"1700000000000"));
        pairs.push(("delayed-retry-count", b"1"));
        let expected = DeadLetter {
            timestamp: Some(1_700_000_000_000),
            attempts: Some(2),
            ..expected()
        };
        assert_eq!(read(&pairs), expected);
        assert!(pairs.iter().all(|(name, _)| is_of_letter(name.as_bytes())));
    }

    #[test]
    fn a_key_that_spring_cannot_read_is_the_error() {
        let letter = read(&[
            ("kafka_dlt-original-topic", b"orders"),
            ("kafka_dlt-original-partition", &3_i32.to_be_bytes()),
            ("kafka_dlt-original-offset", &41_i64.to_be_bytes()),
            ("kafka_dlt-key-exception-fqcn", b"shop.NoStock"),
            ("kafka_dlt-key-exception-message", b"none left"),
        ]);
        assert_eq!(letter, expected());
    }

    #[test]
    fn a_record_that_is_no_dead_letter_says_nothing() {
        assert_eq!(read(&[("trace", b"1")]), DeadLetter::default());
        let null = [(Bytes::from_static(b"__connect.errors.topic"), None)];
        assert_eq!(DeadLetter::read(&null), DeadLetter::default());
    }

    #[test]
    fn the_headers_of_the_record_are_told_from_those_of_the_letter() {
        for name in [
            "__connect.errors.stage",
            "kafka_dlt-exception-stacktrace",
            "retry_topic-attempts",
            "dead-letter-cause-class-name",
            "x-original-topic",
            "forebay.replays",
        ] {
            assert!(is_of_letter(name.as_bytes()), "{name}");
        }
        for name in ["trace", "x-original-url", "kafka_key", "dead-letter", ""] {
            assert!(!is_of_letter(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_place_is_read_from_what_it_prints() {
        let place: Place = "a/b/3/41".parse().unwrap();
        assert_eq!((place.topic.as_str(), place.partition), ("a/b", 3));
        assert_eq!(place.to_string(), "a/b/3/41");
        for wrong in [
            "",
            "3/41",
            "/3/41",
            "orders/-3/41",
            "orders/3/x",
            "orders/3",
        ] {
            assert_eq!(Place::from_str(wrong), Err(()), "{wrong}");
        }
    }
}
