//! `forebay crash-test`: a broker under verified load is killed, or its disk loses power, at
//! random moments, again and again; each time it is started anew and must have everything that it
//! promised. `kill -9` shows what is written before it is answered, power cuts show what is synced.
//!
//! [`broker`] is the process, [`place`] its disk, [`load`] the clients, [`topics`] the topics that
//! come and go, [`check`] what is asked after each crash, [`ledger`] the books, [`report`] the
//! receipts.
//!
//! Invariant: whatever happens, also an interrupt, nothing stays behind: no process, no mount, no
//! file.

mod broker;
mod check;
mod ledger;
mod load;
mod place;
mod report;
mod topics;

use super::output::{Failure, Format, Output, note};
use crate::base::ErrorCode;
use crate::base::prng::Prng;
use crate::client::{Client, ClientError, ClientOptions, Node, Tcp};
use crate::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use broker::{Broker, Start};
use clap::Args;
use load::{Load, RELAXED, SharedLedger, TOPICS};
use place::{FileSystem, Place};
use report::{Receipts, Verdict};
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Load before each crash, in milliseconds.
const LOAD_MS: std::ops::Range<u64> = 20..500;

/// Time between the start of a process and a crash in its recovery, at most.
const RECOVERY_MS_MAX: u64 = 40;

/// How often the recovery is hit too, and how often the broker is stopped cleanly in between.
const RECOVERY_PERCENT: u64 = 25;
const CLEAN_STOP_PERCENT: u64 = 10;

/// How long everything that was sent may take to get its outcome once the broker is back, and what
/// is there to be read.
const PATIENCE: Duration = Duration::from_secs(90);

/// Rounds between two words of progress.
const PROGRESS_ROUNDS: u32 = 25;

/// Kill a broker under load, or cut its disk's power, again and again, and check that nothing that
/// it acknowledged is lost
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct CrashTest {
    /// How often to kill the broker (kill -9)
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    cycles: u32,

    /// How often to cut the power of its disk: a small file system in a loop-mounted image, made
    /// for this and removed afterwards; needs root
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    power_cuts: u32,

    /// File system of that image
    #[arg(long, value_enum, default_value_t)]
    filesystem: FileSystem,

    /// Decides when the crashes come and what is sent; the moments still depend on the machine
    /// [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,

    /// Leave the directory of the run behind, with the data and the broker's log
    #[arg(long)]
    keep: bool,

    /// Print one JSON document
    #[arg(long)]
    json: bool,

    /// What else the broker is started with, such as: -- --cores 1 --io posix
    #[arg(last = true, value_name = "SERVE OPTIONS")]
    serve: Vec<String>,
}

/// Runs both parts and prints the receipts.
///
/// # Errors
/// A sentence, if anything that was promised is not there, or if the test cannot be run.
pub async fn run(command: CrashTest, output: &mut Output) -> Result<(), Failure> {
    let seed = command
        .seed
        .unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let cannot = |error| Failure::Failed(format!("cannot wait for signals: {error}"));
    let mut interrupted = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(cannot)?;
    let ended = || Failure::Failed("interrupted; nothing was left behind".to_owned());
    let verdict = tokio::select! {
        verdict = both(&command, seed) => verdict?,
        _ = interrupted.recv() => return Err(ended()),
        _ = terminated.recv() => return Err(ended()),
    };
    let format = if command.json {
        Format::Json
    } else {
        Format::Text
    };
    verdict.print(format, output)
}

async fn both(command: &CrashTest, seed: u64) -> Result<Verdict, Failure> {
    if command.cycles == 0 && command.power_cuts == 0 {
        let why = "nothing to do: give --cycles or --power-cuts";
        return Err(Failure::Usage(why.to_owned()));
    }
    let mut parts = Vec::new();
    if command.cycles > 0 {
        let place = Place::new(command.keep)?;
        let course = Course::start("kills", place, command, seed).await?;
        parts.push(course.run(command.cycles).await);
    }
    if command.power_cuts > 0 {
        let place = Place::with_image(command.filesystem, command.keep)?;
        let course = Course::start("power cuts", place, command, seed ^ 1).await?;
        parts.push(course.run(command.power_cuts).await);
    }
    Ok(Verdict { seed, parts })
}

/// One broker with its clients, over many crashes.
struct Course {
    // The order in which they end: the clients, the broker, the place.
    load: Load,
    client: Client<Tcp>,
    broker: Option<Broker>,
    place: Place,
    start: Start,
    ledger: SharedLedger,
    prng: Prng,
    receipts: Receipts,
}

impl Course {
    async fn start(
        name: &'static str,
        place: Place,
        command: &CrashTest,
        seed: u64,
    ) -> Result<Self, Failure> {
        let start = Start::new(place.data_dir(), place.log(), &command.serve)?;
        let (bootstrap, dir) = (start.bootstrap(), place.data_dir());
        note(&format!(
            "{name}: a broker at {bootstrap} with its data in {}",
            dir.display()
        ));
        let mut broker = start.spawn()?;
        broker.ready().await?;
        let options = ClientOptions {
            client_id: "forebay-crash-test".to_owned(),
            retry_backoff: Duration::from_millis(20),
            allow_auto_topic_creation: false,
            ..ClientOptions::default()
        };
        let client = Client::connect(Tcp, &bootstrap, options).await?;
        create_topics(&client).await?;
        let ledger = SharedLedger::default();
        let load = Load::start(client.clone(), Rc::clone(&ledger), seed).await?;
        Ok(Self {
            load,
            client,
            broker: Some(broker),
            place,
            start,
            ledger,
            prng: Prng::new(seed),
            receipts: Receipts::new(name),
        })
    }

    /// Crashes so often, and gives the receipts. The first fault ends it: what follows would be
    /// its consequences.
    async fn run(mut self, rounds: u32) -> Receipts {
        for round in 1..=rounds {
            if let Err(failure) = patiently(self.round()).await {
                let why = format!("after crash {}: {failure}", self.receipts.crashes);
                self.receipts.broken = Some(why);
            }
            self.receipts.take(&self.ledger.borrow());
            if !self.receipts.is_good() {
                return self.receipts;
            }
            if round % PROGRESS_ROUNDS == 0 {
                let acknowledged = self.receipts.counts.acknowledged;
                note(&format!(
                    "{round} {}: {acknowledged} acknowledged",
                    self.receipts.name
                ));
            }
        }
        let last = check::check(&self.client, &self.ledger, true);
        if let Err(failure) = patiently(last).await {
            self.receipts.broken = Some(format!("at the last look: {failure}"));
        }
        self.receipts.take(&self.ledger.borrow());
        self.receipts
    }

    /// Load, a crash at a random moment, a new start, and a look at everything.
    async fn round(&mut self) -> Result<(), Failure> {
        if self.prng.percent(CLEAN_STOP_PERCENT) {
            self.stop_cleanly().await?;
        }
        self.load.renew().await?;
        self.load.resume();
        let ms = LOAD_MS.start + self.prng.below(LOAD_MS.end - LOAD_MS.start);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        self.crash()?;
        self.load.pause();
        while self.prng.percent(RECOVERY_PERCENT) {
            self.broker = Some(self.start.spawn()?);
            let us = self.prng.below(1000 * RECOVERY_MS_MAX);
            tokio::time::sleep(Duration::from_micros(us)).await;
            self.crash()?;
            self.receipts.in_recovery += 1;
        }
        let mut broker = self.start.spawn()?;
        let took = broker.ready().await;
        self.broker = Some(broker);
        self.receipts.recovery.push(took?);
        self.load.settled().await;
        check::check(&self.client, &self.ledger, false).await?;
        check::turnover(&self.client, &self.load.topics, &self.ledger).await?;
        self.check_relaxed().await
    }

    /// The process is gone, and with a disk of its own all that is not synced.
    fn crash(&mut self) -> Result<(), Failure> {
        if let Some(broker) = self.broker.take() {
            self.place.cut(&broker)?;
            broker.kill();
        }
        self.receipts.crashes += 1;
        self.place.restore()
    }

    async fn stop_cleanly(&mut self) -> Result<(), Failure> {
        if let Some(broker) = self.broker.take() {
            broker.stop().await?;
        }
        let mut broker = self.start.spawn()?;
        broker.ready().await?;
        self.broker = Some(broker);
        self.receipts.clean_stops += 1;
        Ok(())
    }

    /// A killed process must not lose acks=1 records either; a power cut may.
    async fn check_relaxed(&mut self) -> Result<(), Failure> {
        let found = check::relaxed(&self.client).await?;
        let mut acknowledged = self.load.relaxed.borrow_mut();
        let before = acknowledged.len();
        acknowledged.retain(|id| found.contains(id));
        self.receipts.relaxed_lost += (before - acknowledged.len()) as u64;
        self.receipts.relaxed_kept = acknowledged.len() as u64;
        Ok(())
    }
}

/// Waits for a broker that is up, but not for ever.
async fn patiently(done: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let late = |_| {
        let why = format!("the broker is up, but has not answered everything within {PATIENCE:?}");
        Failure::Failed(why)
    };
    tokio::time::timeout(PATIENCE, done).await.map_err(late)?
}

/// The topics of the load: one with segments that are soon full, one with such that are soon old.
async fn create_topics(client: &Client<Tcp>) -> Result<(), Failure> {
    let setting = |name: &str, value: &str| CreatableTopicConfig {
        name: name.to_owned(),
        value: Some(value.to_owned()),
    };
    let topic = |name: &str, partitions, configs| CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: -1,
        configs,
        ..CreatableTopic::default()
    };
    let [(first, of_first), (second, of_second)] = TOPICS;
    let request = CreateTopicsRequest {
        topics: vec![
            topic(first, of_first, vec![setting("segment.bytes", "1048576")]),
            topic(second, of_second, vec![setting("segment.ms", "200")]),
            topic(RELAXED, 1, Vec::new()),
        ],
        timeout_ms: 30_000,
        ..CreateTopicsRequest::default()
    };
    let response = client.send(Node::Controller, request).await?;
    let refused = response
        .topics
        .into_iter()
        .find(|topic| topic.error_code != ErrorCode::None);
    match refused {
        None => Ok(()),
        Some(topic) => Err(ClientError::Broker {
            api: "CreateTopics",
            subject: format!("topic \"{}\"", topic.name),
            code: topic.error_code,
            message: topic.error_message,
        }
        .into()),
    }
}
