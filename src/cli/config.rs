//! `forebay config`: prints each effective value and where it came from, without starting anything.

use std::io::Write;

use crate::config::{Config, ServeArgs};

/// Arguments of `forebay config`: those of `serve`, and how to print.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// How to print: text or json
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// What `serve` would be told.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// How `forebay config` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Text,
    /// A list of objects with name, value and source.
    Json,
}

/// Runs the command: writes the effective configuration to `out`.
///
/// # Errors
/// The configuration is refused, or `out` cannot be written.
pub fn run(args: &ConfigArgs, out: &mut dyn Write) -> Result<(), Box<dyn std::error::Error>> {
    print(&Config::load(&args.serve)?, args.format, out)?;
    Ok(())
}

fn print(config: &Config, format: Format, out: &mut dyn Write) -> std::io::Result<()> {
    let rows = config.effective();
    if format == Format::Json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let source = row.origin.to_string();
                serde_json::json!({ "name": row.name, "value": row.value, "source": source })
            })
            .collect();
        return writeln!(out, "{:#}", serde_json::Value::from(rows));
    }
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let name_width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let value_width = rows
        .iter()
        .map(|row| value(&row.value).len())
        .max()
        .unwrap_or(0);
    for row in rows {
        let value = value(&row.value);
        writeln!(
            out,
            "{:name_width$}  {value:value_width$}  {}",
            row.name, row.origin
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format) -> String {
        let serve = ServeArgs {
            set: vec!["num.partitions=4".to_owned()],
            ..Default::default()
        };
        let config = Config::from_sources(&serve, []).unwrap();
        let mut out = Vec::new();
        print(&config, format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_a_table_of_name_value_and_source() {
        let text = printed(Format::Text);
        let line = text
            .lines()
            .find(|line| line.starts_with("num.partitions"))
            .unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["num.partitions", "4", "flag", "--set"]);
        let line = text
            .lines()
            .find(|line| line.starts_with("broker.rack"))
            .unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["broker.rack", "-", "default"]
        );
    }

    #[test]
    fn json_is_a_list_of_objects() {
        let rows: Vec<serde_json::Value> = serde_json::from_str(&printed(Format::Json)).unwrap();
        let row = rows
            .iter()
            .find(|row| row["name"] == "num.partitions")
            .unwrap();
        assert_eq!(
            (row["value"].as_str(), row["source"].as_str()),
            (Some("4"), Some("flag --set"))
        );
        let row = rows
            .iter()
            .find(|row| row["name"] == "broker.rack")
            .unwrap();
        assert!(row["value"].is_null());
    }
}
