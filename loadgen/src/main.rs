//! Arguments to scenario to exit code; nothing else.

use std::process::ExitCode;

use clap::Parser;
use loadgen::cli::{Cli, Command};
use loadgen::failure::Failure;
use loadgen::{bench, broker, compare, run, soak};

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "warn".into()))
        .with_writer(std::io::stderr)
        .init();
    let ended = match Cli::parse().command {
        Command::FlashSale(args) => run::flash_sale(*args),
        Command::Soak(args) => soak::run(&args).map(Some),
        Command::Compare { one, other } => compare::text(&one, &other).map(|text| {
            // Whoever closed standard output does not want to know.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            Some(true)
        }),
        Command::ServeBroker(args) => broker::serve(&args).map(|()| Some(true)),
        Command::Bench(bench) => bench::run(&bench).map(|complete| complete.then_some(true)),
    };
    match ended {
        Ok(Some(true)) => ExitCode::SUCCESS,
        Ok(Some(false)) => ExitCode::from(1),
        Ok(None) => ExitCode::from(Failure::Interrupted.exit_code()),
        Err(failure) => {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("loadgen: {failure}\n"),
            );
            ExitCode::from(failure.exit_code())
        }
    }
}
