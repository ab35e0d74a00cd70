//! The settings of a sale, checked: what the arguments say, completed by the defaults, or by the
//! sale that is being continued.
//!
//! Invariant: [`Settings`] only exist free of contradictions; each refusal is one sentence that
//! says what to change.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::FlashSale;
use crate::engine::Shape;
use crate::failure::Failure;
use crate::lane::Limits;
use crate::model::{Load, WINDOW_DEFAULT, orders_in};
use crate::store::Store;
use crate::transport::ClientIo;

const SEED_DEFAULT: u64 = 42;
const PARTITIONS_DEFAULT: usize = 10;
/// The name under which the database remembers its sale.
const SALE: &str = "sale";

/// What makes two runs parts of the same sale: kept in the database, for `--resume`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sale {
    /// Seed of the orders.
    pub seed: u64,
    /// How many.
    pub orders: u64,
    /// The time over which they are sent.
    pub window: Duration,
    /// Partitions of the topic.
    pub partitions: usize,
    /// The topic, which is the sale's own.
    pub topic: String,
    /// The consumer group.
    pub group: String,
}

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokerChoice {
    /// Somewhere already.
    Running {
        /// "host:port", several with commas between.
        bootstrap: String,
    },
    /// In this process, for this sale.
    InProcess {
        /// `--cores`.
        cores: Option<String>,
        /// `--set`, by name.
        settings: Vec<(String, String)>,
    },
}

/// Everything about a run.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The sale.
    pub sale: Sale,
    /// The broker.
    pub broker: BrokerChoice,
    /// Writes at once per partition.
    pub workers: usize,
    /// Members of the group.
    pub members: usize,
    /// Most orders the group may hold.
    pub buffer: usize,
    /// The modelled database's rate.
    pub db_writes_per_s: u32,
    /// The length of a write.
    pub db_latency: Duration,
    /// The database's file; a temporary one if none is named.
    pub db: Option<PathBuf>,
    /// Continue the sale in the database.
    pub resume: bool,
    /// Run the load without a broker first.
    pub direct: bool,
    /// Where everything is written to.
    pub json: Option<PathBuf>,
    /// What drives the client's sockets.
    pub client_io: ClientIo,
}

impl Settings {
    /// Checks the arguments and opens the database if one is named; `topic` is the name for a new
    /// sale.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a contradiction, [`Failure::Database`] for an unusable file.
    pub fn check(args: FlashSale, topic: &str) -> Result<(Self, Option<Store>), Failure> {
        check_resume(&args)?;
        let broker = broker_choice(&args)?;
        let existed = args.db.as_deref().is_some_and(std::path::Path::exists);
        let store = args.db.as_deref().map(Store::open).transpose()?;
        let remembered = match &store {
            Some(store) if existed => recall(store)?,
            _ => None,
        };
        let sale = match (args.resume, remembered) {
            (false, None) => new_sale(&args, topic)?,
            (true, Some(sale)) => same_sale(&args, sale)?,
            (true, None) => {
                return Err(usage(format!(
                    "there is no sale to resume in {}",
                    path(&args)
                )));
            }
            (false, Some(_)) => {
                return Err(usage(format!(
                    "{} holds a sale already: add --resume to continue it, or name a new file",
                    path(&args)
                )));
            }
        };
        let settings = Self {
            members: args.members.unwrap_or(sale.partitions),
            sale,
            broker,
            workers: args.workers,
            buffer: args.buffer,
            db_writes_per_s: args.db_writes_per_s,
            db_latency: args.db_latency,
            db: args.db,
            resume: args.resume,
            direct: args.direct,
            json: args.json,
            client_io: args.client_io,
        };
        settings.check_sizes()?;
        Ok((settings, store))
    }

    fn check_sizes(&self) -> Result<(), Failure> {
        let partitions = self.sale.partitions;
        let refusals = [
            (
                partitions == 0,
                "--partitions 0 leaves no topic: use at least 1".to_owned(),
            ),
            (
                self.sale.window.is_zero(),
                "--window 0s is no time: use for instance 6s".to_owned(),
            ),
            (
                self.sale.orders == 0,
                "--orders 0 leaves nothing to sell: use at least 1".to_owned(),
            ),
            (
                self.workers == 0,
                "--workers 0 can write nothing: use at least 1".to_owned(),
            ),
            (
                self.db_writes_per_s == 0,
                "--db-writes-per-s 0 never ends: use at least 1".to_owned(),
            ),
            (
                self.members == 0 || self.members > partitions,
                format!(
                    "--members {} does not fit {partitions} partitions: use 1 to {partitions}, as \
                     a member without a partition has nothing to do",
                    self.members
                ),
            ),
        ];
        for (refused, sentence) in refusals {
            if refused {
                return Err(usage(sentence));
            }
        }
        // Half a share must still keep all workers busy while more is fetched.
        let least = partitions * self.workers * 4;
        if self.buffer < least {
            return Err(usage(format!(
                "--buffer {} is too small for {partitions} partitions of {} workers: use at least \
                 {least}",
                self.buffer, self.workers
            )));
        }
        Ok(())
    }

    /// The load and what stands behind it.
    pub fn load(&self) -> Load {
        Load {
            orders: self.sale.orders,
            window: self.sale.window,
            db_writes_per_s: self.db_writes_per_s,
            db_latency: self.db_latency,
            db_concurrent: self.workers * self.sale.partitions,
        }
    }

    /// Most records a member is handed at once: a tenth of a partition's share of the buffer.
    pub fn records_max(&self) -> usize {
        (self.share() / 10).max(1)
    }

    /// The shape of the engine. Each partition has an equal share of the buffer, so that none can
    /// starve another; it is paused when the next records might not fit, and resumed when a tenth
    /// of its share is free beyond that.
    pub fn shape(&self) -> Shape {
        let pause_at = self.share() - self.records_max();
        Shape {
            partitions: self.sale.partitions,
            lane: Limits {
                workers: self.workers,
                pause_at,
                resume_below: pause_at - self.records_max(),
            },
            db_writes_per_s: self.db_writes_per_s,
            db_latency: self.db_latency,
        }
    }

    fn share(&self) -> usize {
        self.buffer / self.sale.partitions
    }
}

/// Notes the sale in its database.
///
/// # Errors
/// If the database fails.
pub fn remember(store: &Store, sale: &Sale) -> Result<(), Failure> {
    store.remember(
        SALE,
        &serde_json::to_string(sale).expect("plain fields become JSON"),
    )
}

fn recall(store: &Store) -> Result<Option<Sale>, Failure> {
    let Some(text) = store.fact(SALE)? else {
        return Ok(None);
    };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Failure::Database(format!(
            "the database's note about its sale cannot be read: {error}"
        ))
    })
}

fn usage(sentence: String) -> Failure {
    Failure::Usage(sentence)
}

fn path(args: &FlashSale) -> String {
    args.db
        .as_deref()
        .unwrap_or("the database".as_ref())
        .display()
        .to_string()
}

fn check_resume(args: &FlashSale) -> Result<(), Failure> {
    if !args.resume {
        return Ok(());
    }
    let sentence = if args.db.is_none() {
        "--resume needs --db FILE: the database knows where to go on"
    } else if args.bootstrap.is_none() {
        "--resume needs --bootstrap HOST:PORT: a broker inside the process keeps nothing"
    } else if args.direct {
        "--resume contradicts --direct: without a broker there is nothing to go on with"
    } else {
        return Ok(());
    };
    Err(usage(sentence.to_owned()))
}

fn broker_choice(args: &FlashSale) -> Result<BrokerChoice, Failure> {
    let Some(bootstrap) = args.bootstrap.clone() else {
        let (cores, settings) = (args.cores.clone(), args.set.clone());
        return Ok(BrokerChoice::InProcess { cores, settings });
    };
    if args.cores.is_some() || !args.set.is_empty() {
        return Err(usage(format!(
            "--cores and --set are for the broker inside the process; the one at {bootstrap} runs \
             with its own"
        )));
    }
    Ok(BrokerChoice::Running { bootstrap })
}

fn new_sale(args: &FlashSale, topic: &str) -> Result<Sale, Failure> {
    let window = args.window.unwrap_or(WINDOW_DEFAULT);
    Ok(Sale {
        seed: args.seed.unwrap_or(SEED_DEFAULT),
        orders: args.orders.unwrap_or_else(|| orders_in(window)),
        window,
        partitions: args.partitions.unwrap_or(PARTITIONS_DEFAULT),
        topic: topic.to_owned(),
        group: topic.to_owned(),
    })
}

/// The remembered sale, unless the arguments say that another is meant.
fn same_sale(args: &FlashSale, sale: Sale) -> Result<Sale, Failure> {
    let differs = [
        ("--seed", args.seed.is_some_and(|seed| seed != sale.seed)),
        (
            "--orders",
            args.orders.is_some_and(|orders| orders != sale.orders),
        ),
        (
            "--window",
            args.window.is_some_and(|window| window != sale.window),
        ),
        (
            "--partitions",
            args.partitions
                .is_some_and(|count| count != sale.partitions),
        ),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        Some((flag, _)) => Err(usage(format!(
            "{flag} is not that of the sale in {}: leave it out to resume that sale",
            path(args)
        ))),
        None => Ok(sale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse;

    fn check(args: &[&str]) -> Result<Settings, Failure> {
        let args = ["flash-sale"].iter().chain(args).copied();
        Settings::check(parse(args).unwrap(), "sale-1").map(|(settings, _)| settings)
    }

    fn refusal(args: &[&str]) -> String {
        let sentence = check(args).unwrap_err().to_string();
        assert!(!sentence.contains('\n'), "one sentence: {sentence}");
        sentence
    }

    #[test]
    fn no_arguments_are_the_whole_sale() {
        let settings = check(&[]).unwrap();
        assert_eq!(
            (settings.sale.orders, settings.sale.partitions),
            (500_000, 10)
        );
        assert_eq!(settings.load().db_concurrent, 500);
        assert_eq!((settings.members, settings.buffer), (10, 10_000));
        assert_eq!(settings.db_latency, Duration::from_millis(100));
        let in_process = BrokerChoice::InProcess {
            cores: None,
            settings: Vec::new(),
        };
        assert_eq!(settings.broker, in_process);
    }

    #[test]
    fn a_shorter_window_sells_fewer_orders_unless_told_otherwise() {
        assert_eq!(check(&["--window", "6s"]).unwrap().sale.orders, 50_000);
        assert_eq!(
            check(&["--window", "6s", "--orders", "9"])
                .unwrap()
                .sale
                .orders,
            9
        );
    }

    #[test]
    fn all_lanes_together_never_hold_more_than_the_buffer() {
        for buffer in [2_000, 9_999, 10_000] {
            let settings = check(&["--buffer", &buffer.to_string()]).unwrap();
            let lane = settings.shape().lane;
            let worst = (lane.pause_at - 1 + settings.records_max()) * settings.sale.partitions;
            assert!(worst <= buffer, "{worst} of {buffer}");
            assert!(lane.resume_below < lane.pause_at && lane.resume_below > settings.workers);
        }
    }

    #[test]
    fn contradictions_are_refused_in_a_sentence() {
        assert!(refusal(&["--resume"]).contains("--db FILE"));
        assert!(refusal(&["--resume", "--db", "x.db"]).contains("--bootstrap"));
        assert!(refusal(&["--bootstrap", "h:1", "--cores", "2"]).contains("h:1"));
        assert!(refusal(&["--bootstrap", "h:1", "--set", "a=b"]).contains("--set"));
        assert!(refusal(&["--members", "11"]).contains("use 1 to 10"));
        assert!(refusal(&["--buffer", "1999"]).contains("at least 2000"));
        for zero in [
            "--partitions",
            "--orders",
            "--workers",
            "--db-writes-per-s",
            "--members",
        ] {
            assert!(refusal(&[zero, "0"]).contains(zero));
        }
        assert!(refusal(&["--window", "0s"]).contains("--window"));
    }

    #[test]
    fn a_database_is_continued_only_on_request_and_only_with_its_own_sale() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sale.db");
        let db = file.to_str().unwrap();
        let resume = ["--db", db, "--resume", "--bootstrap", "h:1"];
        assert!(refusal(&resume).contains("no sale to resume"));

        let new = parse(["flash-sale", "--db", db, "--seed", "7", "--window", "6s"]).unwrap();
        let (settings, store) = Settings::check(new, "sale-1").unwrap();
        remember(&store.unwrap(), &settings.sale).unwrap();

        assert!(refusal(&["--db", db]).contains("--resume"));
        assert_eq!(check(&resume).unwrap().sale, settings.sale);
        let other = [&resume[..], &["--seed", "8"]].concat();
        assert!(refusal(&other).contains("--seed"));
        let same = [&resume[..], &["--seed", "7"]].concat();
        assert_eq!(check(&same).unwrap().sale.topic, "sale-1");
    }
}
