//! The soak: a mixed load for a long time, with retention deleting, a group whose members come and
//! go, topics that come and go, and a broker that is stopped and killed. Nothing may be lost or
//! doubled, and what the broker holds must not grow.
//!
//! - `process`: the broker, a process of its own; `load`: its clients
//! - `ledger`: what was promised and came back; `verdict`: the minutes, and what they must be

mod ledger;
mod load;
mod process;
mod verdict;

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use forebay::client::{Client, ClientOptions, Tcp};
use hdrhistogram::Histogram;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::failure::Failure;
use crate::stop::stop_asked;
use ledger::Ledger;
use load::Shared;
use process::Process;
use verdict::Minute;

/// How often the broker's process is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Time after a restart in which latencies are those of the restart.
const SETTLE: Duration = Duration::from_secs(5);

/// How long the group may take to read what is left in the end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// How the soak runs.
#[derive(Args, Clone, Debug)]
pub struct Soak {
    /// How long; fewer than 3 minutes say nothing about growth
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(3..))]
    pub minutes: u64,

    /// Records per second
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(4..))]
    pub rate: u64,

    /// Stop the broker so often, cleanly and with kill -9 in turns; 0 for never
    #[arg(long, default_value = "45s", value_parser = crate::cli::duration)]
    pub restart_every: Duration,

    /// The broker's program [default: forebay, next to this program]
    #[arg(long, value_name = "FILE")]
    pub forebay: Option<PathBuf>,

    /// Folder for the broker's data and log; kept [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// The same seed lets members come and go in the same way
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
}

/// Runs a soak and shows its minutes; false if it did not pass.
///
/// # Errors
/// [`Failure`] if it cannot be run, the broker does not come back, or the user stops it.
pub fn run(soak: &Soak) -> Result<bool, Failure> {
    let temporary = tempfile::tempdir();
    let temporary = temporary.map_err(|error| Failure::Reason(format!("no folder: {error}")))?;
    let dir = soak.dir.clone().unwrap_or(temporary.path().to_owned());
    std::fs::create_dir_all(&dir)
        .map_err(|error| Failure::Reason(format!("cannot create {}: {error}", dir.display())))?;
    let program = match &soak.forebay {
        Some(program) => program.clone(),
        None => std::env::current_exe()
            .unwrap_or_default()
            .with_file_name("forebay"),
    };
    let process = Process::new(&program, &dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::Reason(format!("no runtime: {error}")))?;
    LocalSet::new().block_on(&runtime, async {
        // What is dropped takes the broker with it.
        tokio::select! {
            passed = Course::run(soak, process) => passed,
            () = stop_asked() => Err(Failure::Interrupted),
        }
    })
}

/// A soak under way.
struct Course {
    process: Process,
    shared: Rc<Shared>,
    minutes: Vec<Minute>,
    /// What had been counted when this minute began.
    before: Minute,
    /// Maxima of this minute.
    now: Minute,
    restarts: u64,
}

impl Course {
    async fn run(soak: &Soak, mut process: Process) -> Result<bool, Failure> {
        process.start().await?;
        let broker = |error: forebay::client::ClientError| Failure::Reason(error.to_string());
        let options = ClientOptions {
            client_id: "soak".to_owned(),
            allow_auto_topic_creation: false,
            ..ClientOptions::default()
        };
        let client = Client::connect(Tcp, &process.bootstrap(), options).await;
        let client = client.map_err(broker)?;
        load::create_topic(&client).await.map_err(broker)?;
        let latencies = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        let shared = Rc::new(Shared {
            client,
            ledger: RefCell::new(Ledger::default()),
            latencies: RefCell::new(latencies.expect("the bounds are in order")),
            epoch: Cell::new(0),
            ending: Cell::new(false),
            rebalances: Cell::new(0),
            topics: Cell::new(0),
        });
        load::begin(&shared, soak.rate, soak.seed);
        let mut course = Self {
            process,
            shared,
            minutes: Vec::new(),
            before: Minute::default(),
            now: Minute::default(),
            restarts: 0,
        };
        show(&format!("{}\n", verdict::HEAD));
        course.keep_going(soak).await?;
        let unread = course.drain().await;
        course.process.end(true).await?;
        let gates = verdict::judge(&course.minutes, unread, !soak.restart_every.is_zero());
        for told in &course.shared.ledger.borrow().told {
            show(&format!("fault: {told}\n"));
        }
        show(&verdict::text(&gates));
        Ok(gates.iter().all(|gate| gate.pass))
    }

    /// Looks at the process every second, and restarts it when it is time.
    async fn keep_going(&mut self, soak: &Soak) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut restart_at = begun + soak.restart_every;
        let mut looks = 0u32;
        while self.minutes.len() < soak.minutes as usize {
            looks += 1;
            sleep_until(begun + LOOK_INTERVAL * looks).await;
            self.look();
            if !soak.restart_every.is_zero() && Instant::now() >= restart_at {
                self.restart().await?;
                restart_at += soak.restart_every;
            }
            let minutes = begun.elapsed().as_secs() / 60;
            if minutes as usize > self.minutes.len() {
                self.end_minute().await;
            }
        }
        Ok(())
    }

    fn look(&mut self) {
        if let Some(held) = self.process.held() {
            let mib = held.rss_bytes as f64 / f64::from(1 << 20);
            self.now.rss_mib = self.now.rss_mib.max(mib);
            self.now.files = self.now.files.max(held.files as f64);
        }
        let mib = self.process.data_bytes(load::TOPIC) as f64 / f64::from(1 << 20);
        self.now.data_mib = self.now.data_mib.max(mib);
    }

    /// Ends the broker, in turns cleanly and with `kill -9`, and starts it again.
    async fn restart(&mut self) -> Result<(), Failure> {
        let clean = self.restarts.is_multiple_of(2);
        self.restarts += 1;
        self.shared.epoch.update(|epoch| epoch + 1);
        self.process.end(clean).await?;
        self.process.start().await?;
        let shared = Rc::clone(&self.shared);
        tokio::task::spawn_local(async move {
            sleep(SETTLE).await;
            shared.epoch.update(|epoch| epoch + 1);
        });
        Ok(())
    }

    async fn end_minute(&mut self) {
        let deleted = load::deleted(&self.shared.client).await;
        let mut minute = std::mem::take(&mut self.now);
        let totals = {
            let ledger = self.shared.ledger.borrow();
            Minute {
                acked: ledger.acked,
                read: ledger.read,
                faults: ledger.faults,
                rebalances: self.shared.rebalances.get(),
                topics: self.shared.topics.get(),
                restarts: self.restarts,
                deleted: deleted.unwrap_or(self.before.deleted),
                ..Minute::default()
            }
        };
        let before = &self.before;
        minute.acked = totals.acked - before.acked;
        minute.read = totals.read - before.read;
        minute.faults = totals.faults - before.faults;
        minute.rebalances = totals.rebalances - before.rebalances;
        minute.topics = totals.topics - before.topics;
        minute.restarts = totals.restarts - before.restarts;
        minute.deleted = totals.deleted;
        let mut latencies = self.shared.latencies.borrow_mut();
        minute.p50_ms = latencies.value_at_quantile(0.5) as f64 / 1e3;
        minute.p99_ms = latencies.value_at_quantile(0.99) as f64 / 1e3;
        latencies.reset();
        self.minutes.push(minute.clone());
        self.before = totals;
        show(&format!("{}\n", verdict::line(self.minutes.len(), &minute)));
    }

    /// Lets the group read what is left. Gives what it did not read; faults of the end count for
    /// the last minute.
    async fn drain(&mut self) -> usize {
        self.shared.ending.set(true);
        let deadline = Instant::now() + DRAIN_PATIENCE;
        let mut settled = 0;
        // Outcomes are still coming in: it must be so for a while.
        while settled < 4 && Instant::now() < deadline {
            sleep(LOOK_INTERVAL / 2).await;
            let unread = self.shared.ledger.borrow().unread();
            settled = if unread == 0 { settled + 1 } else { 0 };
        }
        let ledger = self.shared.ledger.borrow();
        if let Some(last) = self.minutes.last_mut() {
            last.faults += ledger.faults - self.before.faults;
        }
        ledger.unread()
    }
}

/// Shows a part of the report.
fn show(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
