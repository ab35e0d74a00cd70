//! The settings of a sale, checked: what the arguments say, completed by the defaults, or by the
//! sale that is being continued.
//!
//! Invariant: [`Settings`] only exist free of contradictions; each refusal is one sentence that
//! says what to change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::FlashSale;
use crate::engine::Shape;
use crate::failure::Failure;
use crate::incidents::Incidents;
use crate::kafka::SESSION_TIMEOUT;
use crate::lane::Limits;
use crate::model::{Load, WINDOW_DEFAULT, orders_in};
use crate::promise::{Delivery, Extent, Idempotency, Promise, Workers, promise};
use crate::store::{Place, Rules, Store};
use crate::transport::ClientIo;

const SEED_DEFAULT: u64 = 42;
const PARTITIONS_DEFAULT: usize = 10;
const TRIAL_WINDOW: Duration = Duration::from_secs(5);
const WORKERS_DEFAULT: usize = 50;
const DB_LATENCY_DEFAULT: Duration = Duration::from_millis(100);
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
    /// When offsets are committed: only exactly-once leaves in the database where to go on.
    pub delivery: Delivery,
    /// What goes wrong when it runs for the first time; some of it changes the orders.
    pub incidents: Incidents,
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
    /// Which orders of a partition are written at once.
    pub workers: Workers,
    /// How many.
    pub workers_per_partition: usize,
    /// How an order that comes again is noticed.
    pub idempotency: Idempotency,
    /// What goes wrong in this run.
    pub incidents: Incidents,
    /// Members of the group.
    pub members: usize,
    /// Most orders the group may hold.
    pub buffer: usize,
    /// The modelled database's rate; `None` without a model.
    pub db_writes_per_s: Option<u32>,
    /// What the real database was found to sustain, if it is the limit.
    pub measured_writes_per_s: Option<u32>,
    /// The length of a modelled write.
    pub db_latency: Duration,
    /// The real database; a temporary SQLite file if none is named.
    pub sink: Option<Place>,
    /// Continue the sale in the database.
    pub resume: bool,
    /// Run the load without a broker first.
    pub direct: bool,
    /// The bound of the search for the highest rate, if that is what is wanted.
    pub find_limit: Option<Duration>,
    /// Where everything is written to.
    pub json: Option<PathBuf>,
    /// Where the page is written to.
    pub report: Option<PathBuf>,
    /// What drives the client's sockets.
    pub client_io: ClientIo,
}

impl Settings {
    /// Checks the arguments and opens the database if one is named; `topic` is the name for a new
    /// sale.
    ///
    /// # Errors
    /// If they contradict each other or the database cannot be used.
    pub fn check(args: FlashSale, topic: &str) -> Result<(Self, Option<Store>), Failure> {
        let incidents = Incidents::from(args.incidents.clone());
        check_resume(&args, &incidents)?;
        check_direct(&args, &incidents)?;
        check_model(&args, &incidents)?;
        check_limit(&args, &incidents)?;
        if args.json.is_some() && args.json == args.report {
            let sentence = "--json and --report name the same file: give each its own";
            return Err(usage(sentence.to_owned()));
        }
        if args.resume {
            return Self::check_resumed(&args, incidents);
        }
        // A sale that is refused leaves no database behind.
        let settings = Self::of(&args, new_sale(&args, topic, incidents.clone()), incidents)?;
        let open = |place| Store::open(place, settings.rules());
        let store = settings.sink.as_ref().map(open).transpose()?;
        if store.as_ref().map(recall).transpose()?.flatten().is_some() {
            return Err(usage(format!(
                "{} holds a sale already: add --resume to continue it, or name another one",
                database(&args)
            )));
        }
        Ok((settings, store))
    }

    fn check_resumed(
        args: &FlashSale,
        incidents: Incidents,
    ) -> Result<(Self, Option<Store>), Failure> {
        let nothing = || usage(format!("there is no sale to resume in {}", database(args)));
        let is_there = |place: &&Place| place.file().is_none_or(Path::exists);
        let place = args.sink.as_ref().filter(is_there).ok_or_else(nothing)?;
        let store = Store::open(place, rules(args.delivery, args.idempotency))?;
        let sale = same_sale(args, recall(&store)?.ok_or_else(nothing)?)?;
        Ok((Self::of(args, sale, incidents)?, Some(store)))
    }

    /// The arguments and the defaults, for this sale.
    fn of(args: &FlashSale, sale: Sale, incidents: Incidents) -> Result<Self, Failure> {
        // A member that joins wants a partition, too.
        let newcomers = usize::from(incidents.rebalance_at.is_some());
        let places = sale.partitions.saturating_sub(newcomers);
        let workers_per_partition = match (args.workers, args.workers_per_partition) {
            (Workers::Ordered, None | Some(1)) => 1,
            (Workers::Ordered, Some(_)) => {
                let sentence = "--workers ordered has one worker per partition: leave \
                                --workers-per-partition out";
                return Err(usage(sentence.to_owned()));
            }
            (_, count) => count.unwrap_or(WORKERS_DEFAULT),
        };
        let settings = Self {
            members: args.members.unwrap_or(places),
            sale,
            broker: broker_choice(args)?,
            workers: args.workers,
            workers_per_partition,
            idempotency: args.idempotency,
            incidents,
            buffer: args.buffer,
            db_writes_per_s: args.db_writes_per_s.0,
            measured_writes_per_s: None,
            db_latency: match args.db_writes_per_s.0 {
                Some(_) => args.db_latency.unwrap_or(DB_LATENCY_DEFAULT),
                None => Duration::ZERO,
            },
            sink: args.sink.clone(),
            resume: args.resume,
            direct: args.direct,
            find_limit: args.find_limit,
            json: args.json.clone(),
            report: args.report.clone(),
            client_io: args.client_io,
        };
        settings.check_members()?;
        settings.check_sizes()?;
        settings.check_times()?;
        Ok(settings)
    }

    /// What the rows and their offsets promise each other.
    pub fn rules(&self) -> Rules {
        rules(self.sale.delivery, self.idempotency)
    }

    fn check_members(&self) -> Result<(), Failure> {
        let incidents = &self.incidents;
        let partitions = self.sale.partitions;
        if incidents.kill_broker_at.is_some()
            && let BrokerChoice::Running { bootstrap } = &self.broker
        {
            return Err(usage(format!(
                "--kill-broker-at kills only a broker that this tool has started: leave out \
                 --bootstrap {bootstrap}, or kill that one yourself"
            )));
        }
        if incidents.kill_consumer_at.is_some() && self.members < 2 {
            let sentence = "--kill-consumer-at leaves nobody: use at least --members 2";
            return Err(usage(sentence.to_owned()));
        }
        if incidents.rebalance_at.is_some() && partitions == 1 {
            let sentence = "--rebalance-at brings a member that finds no partition: use at least \
                            --partitions 2";
            return Err(usage(sentence.to_owned()));
        }
        if incidents.rebalance_at.is_some() && self.members >= partitions {
            return Err(usage(format!(
                "--rebalance-at brings a member for which none of {partitions} partitions is left: \
                 use at most --members {}",
                partitions.saturating_sub(1)
            )));
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), Failure> {
        let (load, incidents) = (self.load(), &self.incidents);
        if let Some(burst) = incidents.burst
            && burst.span.from >= self.sale.window
        {
            return Err(usage(format!(
                "--burst at {} s comes after the last order: the window is {} s",
                burst.span.from.as_secs_f64(),
                self.sale.window.as_secs_f64()
            )));
        }
        let is_modelled = self.db_writes_per_s.is_some();
        if is_modelled && load.hides_its_backlog() {
            return Err(usage(format!(
                "--window {}s is too short for what is to go wrong, which may hide the whole \
                 backlog: use a longer one, or leave some of it out",
                self.sale.window.as_secs_f64()
            )));
        }
        // A sale without a model ends when its database is done, which is not known yet.
        let ends_s = match is_modelled {
            true => load.drained_at_s().value,
            false => self.sale.window.as_secs_f64(),
        };
        let late = incidents
            .times()
            .into_iter()
            .find(|(_, at)| at.as_secs_f64() >= ends_s);
        if let Some((flag, at)) = late {
            return Err(usage(format!(
                "{flag} at {} s comes after the sale, which ends at {ends_s:.1} s",
                at.as_secs_f64()
            )));
        }
        Ok(())
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
                self.workers_per_partition == 0,
                "--workers-per-partition 0 can write nothing: use at least 1".to_owned(),
            ),
            (
                self.db_writes_per_s == Some(0),
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
        let least = partitions * self.workers_per_partition * 4;
        if self.buffer < least {
            return Err(usage(format!(
                "--buffer {} is too small for {partitions} partitions of {} workers: use at least \
                 {least}",
                self.buffer, self.workers_per_partition
            )));
        }
        Ok(())
    }

    /// The load and what stands behind it.
    pub fn load(&self) -> Load {
        Load {
            orders: self.sale.orders,
            window: self.sale.window,
            db_writes_per_s: self
                .db_writes_per_s
                .or(self.measured_writes_per_s)
                .unwrap_or(1),
            is_measured: self.db_writes_per_s.is_none(),
            db_latency: self.db_latency,
            partitions: self.sale.partitions,
            partitions_of_member: self.sale.partitions.div_ceil(self.members),
            workers: self.workers_per_partition,
            by_key: self.workers == Workers::Key,
            session_timeout: SESSION_TIMEOUT,
            held_up: Duration::ZERO,
            incidents: self.incidents.clone(),
        }
    }

    /// What the sale's way of consuming promises.
    pub fn promise(&self) -> Promise {
        let load = self.load();
        let extent = Extent {
            partitions_of_member: load.partitions_of_member,
            buffer_of_partition: self.share(),
            writes_per_s_of_partition: load
                .writes_per_s_of_partition()
                .min(f64::from(load.db_writes_per_s)),
        };
        promise(
            self.workers,
            self.sale.delivery,
            self.idempotency,
            &self.incidents,
            extent,
        )
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
                workers: self.workers_per_partition,
                by_key: self.workers == Workers::Key,
                pause_at,
                resume_below: pause_at - self.records_max(),
            },
            db_writes_per_s: self.db_writes_per_s,
            db_latency: self.db_latency,
            seen_max: match self.idempotency {
                Idempotency::Window(ids) => Some(ids),
                Idempotency::None | Idempotency::UniqueKey => None,
            },
            incidents: self.incidents.clone(),
        }
    }

    fn share(&self) -> usize {
        self.buffer / self.sale.partitions
    }
}

fn rules(delivery: Delivery, idempotency: Idempotency) -> Rules {
    Rules {
        exactly_once: delivery == Delivery::ExactlyOnce,
        unique_key: idempotency == Idempotency::UniqueKey,
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
        Failure::Reason(format!(
            "the database's note about its sale cannot be read: {error}"
        ))
    })
}

fn usage(sentence: String) -> Failure {
    Failure::Reason(sentence)
}

fn database(args: &FlashSale) -> String {
    match &args.sink {
        Some(place) => place.to_string(),
        None => "the database".to_owned(),
    }
}

fn check_direct(args: &FlashSale, incidents: &Incidents) -> Result<(), Failure> {
    if args.direct && *incidents != Incidents::default() {
        let sentence = "--direct shows the load alone: leave out what is to go wrong";
        return Err(usage(sentence.to_owned()));
    }
    Ok(())
}

/// What only a modelled database has, or can be compared with.
fn check_model(args: &FlashSale, incidents: &Incidents) -> Result<(), Failure> {
    if args.db_writes_per_s.0.is_some() {
        return Ok(());
    }
    let sentence = if args.db_latency.is_some() {
        "--db-latency is of the modelled database: leave it out, or give --db-writes-per-s a rate"
    } else if incidents.db_slow.is_some() {
        "--db-slow is of the modelled database: give --db-writes-per-s a rate"
    } else if args.direct {
        "--direct compares with the modelled database: give --db-writes-per-s a rate"
    } else {
        return Ok(());
    };
    Err(usage(sentence.to_owned()))
}

/// What a search for the highest rate decides by itself.
fn check_limit(args: &FlashSale, incidents: &Incidents) -> Result<(), Failure> {
    let given = [
        ("--orders", args.orders.is_some()),
        ("--sink", args.sink.is_some()),
        ("--resume", args.resume),
        ("--direct", args.direct),
        ("--report", args.report.is_some()),
        ("--db-latency", args.db_latency.is_some()),
        ("what is to go wrong", *incidents != Incidents::default()),
    ];
    let given = given.into_iter().find(|(_, given)| *given);
    match (args.find_limit, given) {
        (Some(_), Some((what, _))) => Err(usage(format!(
            "--find-limit runs many sales of its own: leave out {what}"
        ))),
        _ => Ok(()),
    }
}

fn check_resume(args: &FlashSale, incidents: &Incidents) -> Result<(), Failure> {
    if !args.resume {
        return Ok(());
    }
    let sentence = if args.sink.is_none() {
        "--resume needs --sink DATABASE: the database knows where to go on"
    } else if args.bootstrap.is_none() {
        "--resume needs --bootstrap HOST:PORT: a broker inside the process keeps nothing"
    } else if args.direct {
        "--resume contradicts --direct: without a broker there is nothing to go on with"
    } else if args.delivery != Delivery::ExactlyOnce {
        "--resume goes on where the database says, which only --delivery exactly-once writes there"
    } else if *incidents != Incidents::default() {
        "--resume finishes a sale in which enough went wrong: leave out what is to go wrong"
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

fn new_sale(args: &FlashSale, topic: &str, incidents: Incidents) -> Sale {
    let window = args.window.unwrap_or(match args.find_limit {
        Some(_) => TRIAL_WINDOW,
        None => WINDOW_DEFAULT,
    });
    Sale {
        seed: args.seed.unwrap_or(SEED_DEFAULT),
        orders: args.orders.unwrap_or_else(|| orders_in(window)),
        window,
        partitions: args.partitions.unwrap_or(PARTITIONS_DEFAULT),
        topic: topic.to_owned(),
        group: topic.to_owned(),
        delivery: args.delivery,
        incidents,
    }
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
    if sale.delivery != Delivery::ExactlyOnce {
        return Err(usage(format!(
            "the sale in {} began with --delivery {}, which leaves no offset there to go on from: \
             name another one for a new sale",
            database(args),
            sale.delivery
        )));
    }
    match differs.iter().find(|(_, differs)| *differs) {
        Some((flag, _)) => Err(usage(format!(
            "{flag} is not that of the sale in {}: leave it out to resume that sale",
            database(args)
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
        assert_eq!(
            (settings.load().workers, settings.load().by_key),
            (50, true)
        );
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
            assert!(
                lane.resume_below < lane.pause_at
                    && lane.resume_below > settings.workers_per_partition
            );
        }
    }

    #[test]
    fn contradictions_are_refused_in_a_sentence() {
        assert!(refusal(&["--resume"]).contains("--sink DATABASE"));
        assert!(refusal(&["--resume", "--sink", "sqlite:x.db"]).contains("--bootstrap"));
        assert!(refusal(&["--bootstrap", "h:1", "--cores", "2"]).contains("h:1"));
        assert!(refusal(&["--bootstrap", "h:1", "--set", "a=b"]).contains("--set"));
        assert!(refusal(&["--members", "11"]).contains("use 1 to 10"));
        assert!(refusal(&["--buffer", "1999"]).contains("at least 2000"));
        for zero in [
            "--partitions",
            "--orders",
            "--workers-per-partition",
            "--db-writes-per-s",
            "--members",
        ] {
            assert!(refusal(&[zero, "0"]).contains(zero));
        }
        assert!(refusal(&["--window", "0s"]).contains("--window"));
        let no_model = ["--db-writes-per-s", "none"];
        assert!(refusal(&[&no_model[..], &["--db-latency", "1ms"]].concat()).contains("latency"));
        assert!(refusal(&[&no_model[..], &["--direct"]].concat()).contains("--direct"));
        assert!(refusal(&["--json", "x", "--report", "x"]).contains("same file"));
    }

    #[test]
    fn incidents_that_cannot_be_are_refused_in_a_sentence() {
        assert!(refusal(&["--bootstrap", "h:1", "--kill-broker-at", "1s"]).contains("h:1"));
        assert!(refusal(&["--members", "1", "--kill-consumer-at", "1s"]).contains("--members 2"));
        assert!(refusal(&["--members", "10", "--rebalance-at", "1s"]).contains("--members 9"));
        assert!(refusal(&["--db-down", "1s@101s"]).contains("after the sale"));
        assert!(refusal(&["--direct", "--poison", "1%"]).contains("--direct"));
        let slow = ["--db-writes-per-s", "none", "--db-slow", "50%@1s..2s"];
        assert!(refusal(&slow).contains("--db-slow"));
        assert!(refusal(&["--workers", "ordered", "--workers-per-partition", "2"]).contains("one"));
        let resume = ["--resume", "--sink", "sqlite:x.db", "--bootstrap", "h:1"];
        assert!(refusal(&[&resume[..], &["--poison", "1%"]].concat()).contains("--resume"));
        let delivery = ["--delivery", "at-least-once"];
        assert!(refusal(&[&resume[..], &delivery].concat()).contains("exactly-once"));
        assert!(refusal(&["--partitions", "1", "--rebalance-at", "1s"]).contains("--partitions 2"));
        assert!(refusal(&["--burst", "10x@80s"]).contains("the window is 60 s"));
        let swallowed = ["--kill-broker-at", "2s", "--rebalance-at", "3s"];
        assert!(refusal(&[&swallowed[..], &["--window", "6s"]].concat()).contains("--window 6s"));
        assert!(check(&[&swallowed[..], &["--window", "20s"]].concat()).is_ok());
        let joined = check(&["--rebalance-at", "20s"]).unwrap();
        assert_eq!(joined.members, 9);
    }

    #[test]
    fn a_search_for_the_limit_takes_no_orders_from_elsewhere() {
        assert_eq!(
            check(&["--find-limit"]).unwrap().find_limit,
            Some(Duration::from_millis(50))
        );
        let bound = check(&["--find-limit", "5ms"]).unwrap().find_limit;
        assert_eq!(bound, Some(Duration::from_millis(5)));
        for with in [
            ["--orders", "9"],
            ["--poison", "1%"],
            ["--report", "x.html"],
            ["--db-latency", "1s"],
        ] {
            let refusal = refusal(&[&["--find-limit"][..], &with].concat());
            assert!(refusal.contains("--find-limit"), "{refusal}");
        }
    }

    #[test]
    fn a_database_is_continued_only_on_request_and_only_with_its_own_sale() {
        let folder = tempfile::tempdir().unwrap();
        let sink = format!("sqlite:{}", folder.path().join("sale.db").display());
        let sink = sink.as_str();
        let resume = ["--sink", sink, "--resume", "--bootstrap", "h:1"];
        assert!(refusal(&resume).contains("no sale to resume"));
        let wrong = ["--sink", sink, "--members", "11"];
        assert!(refusal(&wrong).contains("--members"));
        let left_behind = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left_behind, 0, "what is refused creates nothing");

        let new = parse([
            "flash-sale",
            "--sink",
            sink,
            "--seed",
            "7",
            "--window",
            "6s",
        ])
        .unwrap();
        let (settings, store) = Settings::check(new, "sale-1").unwrap();
        remember(&store.unwrap(), &settings.sale).unwrap();

        assert!(refusal(&["--sink", sink]).contains("--resume"));
        assert_eq!(check(&resume).unwrap().sale, settings.sale);
        let other = [&resume[..], &["--seed", "8"]].concat();
        assert!(refusal(&other).contains("--seed"));
        let same = [&resume[..], &["--seed", "7"]].concat();
        assert_eq!(check(&same).unwrap().sale.topic, "sale-1");
    }

    #[test]
    fn a_sale_that_kept_no_offsets_in_its_database_is_not_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let sink = format!("sqlite:{}", folder.path().join("sale.db").display());
        let delivery = ["--delivery", "at-least-once"];
        let new = parse([&["flash-sale", "--sink", &sink], &delivery[..]].concat()).unwrap();
        let (settings, store) = Settings::check(new, "sale-1").unwrap();
        remember(&store.unwrap(), &settings.sale).unwrap();
        let refusal = refusal(&["--sink", &sink, "--resume", "--bootstrap", "h:1"]);
        assert!(refusal.contains("--delivery at-least-once"), "{refusal}");
    }
}
