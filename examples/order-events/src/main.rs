//! An order-event system: a shop, its stock, its payment, its mail and a view of all orders, which
//! agree although each has a database of its own and any of them may die at any moment. The README
//! beside it shows how it hangs together; every file can be read by itself.

mod books;
mod consumer;
mod crash;
mod database;
mod dead_letter;
mod demo;
mod envelope;
mod events;
mod failure;
mod inbox;
mod kafka;
mod mail;
mod outbox;
mod payment;
mod publisher;
mod relay;
mod settings;
mod shop;
mod stock;
mod upcast;
mod view;

use std::io::Read;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use failure::Failure;
use settings::Settings;

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand)]
enum Command {
    /// Place orders: each with its event, in one transaction
    Place {
        /// How many
        #[arg(default_value_t = 1)]
        orders: u32,
        /// The version of the events: 1 and 2 are what the shop once wrote
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3))]
        event_version: u32,
    },
    /// Publish the events of a service's outbox, in order
    Relay {
        /// Whose outbox
        service: Service,
        /// Publish what is there, then end
        #[arg(long)]
        once: bool,
    },
    /// Take the goods of every order
    Stock(consumer::Run),
    /// Take the money of every order
    Payment(consumer::Run),
    /// Send a mail for every order
    Mail(consumer::Run),
    /// Keep a view of all orders, folded from their events
    View(view::Run),
    /// Fold the view again from offset 0 and compare
    Rebuild,
    /// Show whether all databases agree
    Books,
    /// Run everything at once until the books balance
    Demo(demo::Run),
}

/// The services that have an outbox.
#[derive(Clone, Copy, ValueEnum)]
enum Service {
    Shop,
    Stock,
    Payment,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.settings.end_with_stdin {
        std::thread::spawn(|| {
            let _ = std::io::stdin().read(&mut [0]);
            std::process::exit(1);
        });
    }
    match run(&cli.command, &cli.settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("order-events: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command, settings: &Settings) -> Result<(), Failure> {
    match command {
        Command::Place {
            orders,
            event_version,
        } => shop::place(settings, *orders, *event_version),
        Command::Relay { service, once } => relay::run(settings, service.name(), *once),
        Command::Stock(run) => consumer::run(&stock::Stock, settings, run),
        Command::Payment(run) => consumer::run(&payment::Payment, settings, run),
        Command::Mail(run) => consumer::run(&mail::Mail::new(&settings.dir), settings, run),
        Command::View(run) => view::run(settings, run),
        Command::Rebuild => view::rebuild(settings),
        Command::Books => {
            let books = books::Ledgers::open(settings)?.books()?;
            println!("{books}");
            let verdict = books.balance().then_some(());
            verdict.ok_or_else(|| Failure::new("not every order is everywhere exactly once"))
        }
        Command::Demo(run) => demo::run(settings, run),
    }
}

impl Service {
    /// The name of the service's database.
    fn name(self) -> &'static str {
        match self {
            Self::Shop => "shop",
            Self::Stock => "stock",
            Self::Payment => "payment",
        }
    }
}
