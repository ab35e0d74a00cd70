//! Where values come from: flags, environment, settings file, defaults. Gathers for each name the
//! text that counts and who said it; refuses names nobody knows.
//!
//! Not owned: what the text means (the parent module). Invariant: flags win over the environment,
//! the
//! environment over the file, the file over the defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::{ConfigError, ServeArgs};
use crate::catalog::settings::{Change, TABLE, broker_setting, topic_setting};

/// Name, default and flag of each option of the process itself.
pub(super) const OPTIONS: &[(&str, Option<&str>, &str)] = &[
    ("listen", Some("127.0.0.1:9092"), "--listen"),
    ("data-dir", Some("./forebay-data"), "--data-dir"),
    ("cores", None, "--cores"),
    ("pin", None, "--pin"),
    ("memory", None, "--memory"),
    ("poll-us", Some("0"), "--poll-us"),
    ("io", Some("auto"), "--io"),
    ("ring-entries", Some("1024"), "--ring-entries"),
    ("listeners-per-core", Some("false"), "--listeners-per-core"),
    ("admin-listen", None, "--admin-listen"),
    ("node-id", Some("1"), "--node-id"),
    ("advertise", None, "--advertise"),
    ("log-level", Some("info"), "--log-level"),
    ("log-format", Some("text"), "--log-format"),
    ("log-file", None, "--log-file"),
];

/// Prefix of our environment variables.
const PREFIX: &str = "FOREBAY_";
/// The variable that names the settings file.
const CONFIG_VARIABLE: &str = "FOREBAY_CONFIG";

/// Belongs to the client commands; a shell that sets it for them may also start the broker.
const CLIENT_VARIABLE: &str = "FOREBAY_BOOTSTRAP";

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag(&'static str),
    /// An environment variable.
    Environment(String),
    /// A line of the settings file.
    File(PathBuf, u64),
    /// Nobody.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The text that counts for each name that somebody set.
pub(super) type Given = BTreeMap<&'static str, (String, Origin)>;

/// Gathers all sources.
///
/// # Errors
/// An unknown name or an unreadable settings file.
pub(super) fn gather(
    args: &ServeArgs,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Given, ConfigError> {
    let mut variables = BTreeMap::new();
    let mut file = args.config.clone();
    for (variable, value) in environment {
        // An empty variable is how a shell or a compose file says "not set".
        let ours = variable.starts_with(PREFIX) && variable != CLIENT_VARIABLE;
        if !ours || value.is_empty() {
            continue;
        }
        if variable == CONFIG_VARIABLE {
            file = file.or(Some(PathBuf::from(value)));
            continue;
        }
        variables.insert(variable, value);
    }
    let mut given = Given::new();
    if let Some(path) = file {
        read_file(&path, &mut given)?;
    }
    for (variable, value) in variables {
        let names = known_names().map(|name| (name, variable_of(name)));
        let Some((name, _)) = names.into_iter().find(|(_, known)| *known == variable) else {
            let known: Vec<String> = known_names().map(variable_of).collect();
            let nearest = nearest(&variable, known.iter().map(String::as_str));
            return Err(unknown("environment variable", &variable, nearest));
        };
        given.insert(name, (value, Origin::Environment(variable)));
    }
    for (name, value) in flags(args) {
        let (name, _, flag) = option(name).expect("every flag is an option");
        given.insert(name, (value, Origin::Flag(flag)));
    }
    if let Some(path) = &args.fetch {
        given.insert("fetch.path", (path.clone(), Origin::Flag("--fetch")));
    }
    for assignment in &args.set {
        let Some((name, value)) = assignment.split_once('=') else {
            let sentence = format!("--set {assignment} has no value: write --set NAME=VALUE.");
            return Err(ConfigError(sentence));
        };
        let name = setting_name(name.trim(), "--set")?;
        given.insert(name, (value.trim().to_owned(), Origin::Flag("--set")));
    }
    Ok(given)
}

/// All broker-level settings that can be given at start by their Kafka names.
pub(super) fn setting_names() -> impl Iterator<Item = &'static str> {
    let names = TABLE.iter().flat_map(|row| row.broker);
    names
        .filter(|broker| !matches!(broker.change, Change::Flag(_)))
        .map(|broker| broker.name)
}

fn known_names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|option| option.0).chain(setting_names())
}

fn option(name: &str) -> Option<(&'static str, Option<&'static str>, &'static str)> {
    OPTIONS.iter().copied().find(|option| option.0 == name)
}

/// The environment variable of a name: `num.partitions` is `FOREBAY_NUM_PARTITIONS`.
pub(super) fn variable_of(name: &str) -> String {
    PREFIX.to_owned() + &name.to_ascii_uppercase().replace(['.', '-'], "_")
}

fn flags(args: &ServeArgs) -> Vec<(&'static str, String)> {
    let switch = |on: bool, text: &str| on.then(|| text.to_owned());
    let pin = switch(args.pin, "true").or(switch(args.no_pin, "false"));
    let listeners_per_core = switch(args.listeners_per_core, "true");
    let all = [
        ("listen", &args.listen),
        ("data-dir", &args.data_dir),
        ("cores", &args.cores),
        ("pin", &pin),
        ("memory", &args.memory),
        ("poll-us", &args.poll_us),
        ("io", &args.io),
        ("ring-entries", &args.ring_entries),
        ("listeners-per-core", &listeners_per_core),
        ("admin-listen", &args.admin_listen),
        ("node-id", &args.node_id),
        ("advertise", &args.advertise),
        ("log-level", &args.log_level),
        ("log-format", &args.log_format),
        ("log-file", &args.log_file),
    ];
    let set = all
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)));
    set.collect()
}

/// The table's spelling of a setting, or what to use instead.
fn setting_name(name: &str, place: &str) -> Result<&'static str, ConfigError> {
    if let Some((_, broker)) = broker_setting(name) {
        return match broker.change {
            Change::Flag(flag) => Err(ConfigError(format!(
                "{name} ({place}) is set by {flag} (in a settings file by `{}`).",
                &flag[2..]
            ))),
            _ => Ok(broker.name),
        };
    }
    if let Some(broker) = topic_setting(name).and_then(|setting| setting.broker.first()) {
        return Err(ConfigError(format!(
            "{name} ({place}) is a setting of topics: for all topics set {}.",
            broker.name
        )));
    }
    Err(unknown(
        &format!("setting in {place}:"),
        name,
        nearest(name, known_names()),
    ))
}

fn read_file(path: &Path, given: &mut Given) -> Result<(), ConfigError> {
    let refuse = |why: &dyn fmt::Display| {
        ConfigError(format!(
            "The settings file {} cannot be read: {why}.",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(&error))?;
    // serde-saphyr prints the place with an excerpt; one sentence wants the first line only.
    let first_line = |error: serde_saphyr::Error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        refuse(&line.trim_start_matches("error: ").trim_end_matches('.'))
    };
    let entries: Option<BTreeMap<String, Spanned<Text>>> =
        serde_saphyr::from_str(&text).map_err(first_line)?;
    for (name, value) in entries.unwrap_or_default() {
        let line = value.referenced.line();
        let place = format!("{} line {line}", path.display());
        let name = match option(&name) {
            Some((name, ..)) => name,
            None => setting_name(&name, &place)?,
        };
        let Text(Some(value)) = value.value else {
            return Err(ConfigError(format!(
                "{name} in {place} has no value: give one or drop it."
            )));
        };
        given.insert(name, (value, Origin::File(path.to_owned(), line)));
    }
    Ok(())
}

fn unknown(what: &str, name: &str, nearest: Option<String>) -> ConfigError {
    ConfigError(match nearest {
        Some(nearest) => format!("Unknown {what} {name}; did you mean {nearest}?"),
        None => format!("Unknown {what} {name}; `forebay config` lists all there are."),
    })
}

/// The known name that looks most like `name`, if any does.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = known.map(|known| (strsim::damerau_levenshtein(name, known), known));
    let (distance, nearest) = scored.min()?;
    (distance <= name.len().max(nearest.len()) / 3).then(|| nearest.to_owned())
}

/// A YAML value as text: a scalar as written in canonical form, a list joined by commas, `None` for
/// null. A list of one number is written as a range, so that it is no count.
#[derive(Debug)]
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl TextVisitor {
    fn text<E>(value: &dyn fmt::Display) -> Result<Text, E> {
        Ok(Text(Some(value.to_string())))
    }
}

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true or false, or a list of them")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Text, E> {
        Self::text(&value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Text, E> {
        Self::text(&value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Text, E> {
        Self::text(&value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Text, E> {
        Self::text(&value)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Text, E> {
        Self::text(&value)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Text, E> {
        Ok(Text(None))
    }

    fn visit_none<E: de::Error>(self) -> Result<Text, E> {
        Ok(Text(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Text, A::Error> {
        let mut texts = Vec::new();
        while let Some(Text(item)) = items.next_element()? {
            texts.push(item.ok_or_else(|| de::Error::custom("a list entry has no value"))?);
        }
        Ok(Text(Some(match texts.as_slice() {
            [one] if one.parse::<usize>().is_ok() => format!("{one}-{one}"),
            _ => texts.join(","),
        })))
    }
}
