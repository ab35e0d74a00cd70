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
