//! The types and ranges of settings: what text is a value, and what Kafka says when it is not.
//!
//! Owned here: parsing one value by itself. Not owned: which settings exist ([`super::table`]),
//! rules
//! between settings (the catalog's `alter`). Invariant: the canonical text of an accepted value is
//! accepted again and means the same.

use std::fmt::Display;

/// Kafka's `ConfigType` numbers of DescribeConfigs.
const BOOLEAN: i8 = 1;
const STRING: i8 = 2;
const INT: i8 = 3;
const LONG: i8 = 5;
const DOUBLE: i8 = 6;
const LIST: i8 = 7;

/// Type and range of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`, in any case.
    Boolean,
    /// A 32-bit number within the bounds, both included.
    Int {
        /// Smallest value.
        min: i32,
        /// Largest value.
        max: i32,
    },
    /// A 64-bit number of at least `min`.
    Long {
        /// Smallest value.
        min: i64,
    },
    /// A fraction from 0 to 1.
    Ratio,
    /// Any text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A comma-separated list of these words.
    Words(&'static [&'static str]),
    /// A comma-separated list of anything.
    List,
    /// `*` or a list of `partition:broker` (KIP-73).
    Replicas,
}

impl Kind {
    /// Any number from `min` up.
    pub const fn int(min: i32) -> Self {
        Self::Int { min, max: i32::MAX }
    }

    /// Kafka's number of the type in DescribeConfigs (KIP-569).
    pub fn type_code(self) -> i8 {
        match self {
            Self::Boolean => BOOLEAN,
            Self::Int { .. } => INT,
            Self::Long { .. } => LONG,
            Self::Ratio => DOUBLE,
            Self::Text | Self::Word(_) => STRING,
            Self::Words(_) | Self::List | Self::Replicas => LIST,
        }
    }

    /// True for the types that APPEND and SUBTRACT work on (KIP-339).
    pub fn is_list(self) -> bool {
        self.type_code() == LIST
    }

    /// The canonical text of `text` as a value of the setting `name`.
    ///
    /// # Errors
    /// Kafka's sentence: `Invalid value x for configuration name: why`.
    pub fn parse(self, name: &str, text: &str) -> Result<String, String> {
        let text = text.trim();
        match self {
            Self::Boolean => match text.to_ascii_lowercase().as_str() {
                word @ ("true" | "false") => Ok(word.to_owned()),
                _ => invalid(name, text, "Expected value to be either true or false"),
            },
            Self::Int { min, max } => match text.parse::<i32>() {
                Ok(value) => in_range(name, value, min, max),
                Err(_) => invalid(name, text, "Not a number of type INT"),
            },
            Self::Long { min } => match text.parse::<i64>() {
                Ok(value) => in_range(name, value, min, i64::MAX),
                Err(_) => invalid(name, text, "Not a number of type LONG"),
            },
            Self::Ratio => match text.parse::<f64>() {
                Ok(value) if value < 0.0 => {
                    invalid(name, &format!("{value:?}"), "Value must be at least 0")
                }
                Ok(value) if value > 1.0 => {
                    invalid(name, &format!("{value:?}"), "Value must be no more than 1")
                }
                Ok(value) if !value.is_nan() => Ok(format!("{value:?}")),
                _ => invalid(name, text, "Not a number of type DOUBLE"),
            },
            Self::Text => Ok(text.to_owned()),
            Self::Word(words) => {
                if words.contains(&text) {
                    return Ok(text.to_owned());
                }
                invalid(name, text, &one_of(words))
            }
            Self::Words(words) => {
                let items = list_items(text);
                match items.iter().find(|item| !words.contains(item)) {
                    Some(item) => invalid(name, item, &one_of(words)),
                    None => Ok(items.join(",")),
                }
            }
            Self::List => Ok(list_items(text).join(",")),
            Self::Replicas => replicas(name, text),
        }
    }
}

/// The entries of a comma-separated list, without blanks around them and without repetitions;
/// empty text is an empty list.
pub fn list_items(text: &str) -> Vec<&str> {
    let mut items = Vec::new();
    if text.trim().is_empty() {
        return items;
    }
    for item in text.split(',').map(str::trim) {
        if !items.contains(&item) {
            items.push(item);
        }
    }
    items
}

fn replicas(name: &str, text: &str) -> Result<String, String> {
    let pair = |item: &&str| {
        item.split_once(':').is_some_and(|(partition, broker)| {
            partition.parse::<u32>().is_ok() && broker.parse::<u32>().is_ok()
        })
    };
    let items = list_items(text);
    if text == "*" || items.iter().all(pair) {
        return Ok(items.join(","));
    }
    let why = format!(
        "{name} must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
    );
    invalid(name, &format!("[{}]", items.join(", ")), &why)
}

fn in_range<T: PartialOrd + Display>(
    name: &str,
    value: T,
    min: T,
    max: T,
) -> Result<String, String> {
    if value < min {
        return invalid(
            name,
            &value.to_string(),
            &format!("Value must be at least {min}"),
        );
    }
    if value > max {
        return invalid(
            name,
            &value.to_string(),
            &format!("Value must be no more than {max}"),
        );
    }
    Ok(value.to_string())
}

fn one_of(words: &[&str]) -> String {
    format!("String must be one of: {}", words.join(", "))
}

fn invalid(name: &str, value: &str, why: &str) -> Result<String, String> {
    Err(format!(
        "Invalid value {value} for configuration {name}: {why}"
    ))
}
