//! A run of the flash sale from settings to verdict: the broker, the topic, the load without a
//! broker if asked for, the sale, the questions to the database, the report.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use crate::broker::{Beside, InProcess};
use crate::cli::FlashSale;
use crate::clock::Clock;
use crate::direct::{self, DirectEnded, DirectSecond};
use crate::earlier::Earlier;
use crate::failure::Failure;
use crate::host::{self, BrokerProcess, Host, Usage};
use crate::kafka::{Kafka, KafkaFeed, KafkaPublisher};
use crate::limit::{Search, Trial};
use crate::live::Live;
use crate::model::Load;
use crate::orders::Orders;
use crate::sale::{self, Ended, Later, Plan, Upsets};
use crate::settings::{BrokerChoice, Settings, remember};
use crate::sink::ThreadSink;
use crate::stop::Stop;
use crate::store::{Place, Store};
use crate::transport::{Runtime, Transport};
use crate::verdict::{Facts, Verdict, judge};
use crate::{json, measure, page, report};

/// A sale in which nothing moves for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything a run has found out.
#[derive(Debug)]
pub struct Measured {
    /// What was asked for.
    pub settings: Settings,
    /// Where the broker was.
    pub bootstrap: String,
    /// What drove the client's sockets.
    pub transport: Transport,
    /// The machine.
    pub host: Host,
    /// The sale's course.
    pub ended: Ended,
    /// What the verdict is drawn from.
    pub facts: Facts,
    /// Whose usage the broker's is.
    pub broker_process: BrokerProcess,
    /// What the broker used during the run.
    pub usage: Usage,
    /// The load without a broker.
    pub direct: Option<DirectEnded>,
}

/// The broker of a run.
enum Broker {
    /// It was there already.
    Running(String),
    /// Inside this process.
    Inside(Box<InProcess>),
    /// Beside it, to be killed.
    Beside(Beside),
}

impl Broker {
    fn start(settings: &Settings, folder: &Path) -> Result<Self, Failure> {
        let (cores, set) = match &settings.broker {
            BrokerChoice::Running { bootstrap } => return Ok(Self::Running(bootstrap.clone())),
            BrokerChoice::InProcess { cores, settings } => (cores.as_deref(), settings),
        };
        let data_dir = folder.join("broker");
        match settings.incidents.kill_broker_at {
            Some(_) => Beside::start(&data_dir, cores, set).map(Self::Beside),
            None => InProcess::start(&data_dir, cores, set)
                .map(Box::new)
                .map(Self::Inside),
        }
    }

    fn bootstrap(&self) -> String {
        match self {
            Self::Running(bootstrap) => bootstrap.clone(),
            Self::Inside(broker) => broker.bootstrap(),
            Self::Beside(broker) => broker.bootstrap(),
        }
    }

    /// Whose CPU time is the broker's; nobody's in particular if the process changes.
    fn process(&self) -> BrokerProcess {
        match self {
            Self::Running(bootstrap) => BrokerProcess::find(bootstrap),
            Self::Inside(_) => BrokerProcess::Shards,
            Self::Beside(_) => BrokerProcess::Unknown,
        }
    }

    fn data_dir(&self) -> Option<&Path> {
        match self {
            Self::Inside(broker) => Some(broker.data_dir()),
            Self::Running(_) | Self::Beside(_) => None,
        }
    }

    /// Kills it and starts it again, on a thread of its own.
    fn crash(&self) -> Option<Later<()>> {
        let Self::Beside(broker) = self else {
            return None;
        };
        let broker = broker.clone();
        Some(Box::pin(async move {
            let (done, is_done) = oneshot::channel();
            std::thread::spawn(move || done.send(broker.crash()));
            let lost = |_| Failure::Reason("the broker was not started again".to_owned());
            is_done.await.map_err(lost)?
        }))
    }

    fn stop(self) -> Result<(), Failure> {
        match self {
            Self::Inside(broker) => broker.stop(),
            Self::Running(_) | Self::Beside(_) => Ok(()),
        }
    }
}

/// Runs the sale and shows it; returns whether it passed, `None` if the user stopped it.
///
/// # Errors
/// [`Failure`] if there is nothing to show.
pub fn flash_sale(args: FlashSale) -> Result<Option<bool>, Failure> {
    let stop = Stop::listen()?;
    let (settings, store) = Settings::check(args, &new_topic())?;
    for path in settings.json.iter().chain(&settings.report) {
        json::prepare(path)?;
    }
    let folder = tempfile::Builder::new()
        .prefix("flash-sale-")
        .tempdir()
        .map_err(|error| Failure::Reason(format!("cannot make a temporary folder: {error}")))?;
    let (runtime, word) = Runtime::new(settings.client_io)?;
    if let Some(word) = word {
        tracing::warn!("{word}");
    }
    let stage = Stage {
        runtime,
        stop,
        live: Live::stderr(),
    };
    match settings.find_limit {
        Some(p99_max) => stage.find_limit(&settings, p99_max, folder.path()),
        None => stage.one_sale(settings, store, folder.path()),
    }
}

/// What all sales of a run share.
struct Stage {
    runtime: Runtime,
    stop: Stop,
    live: Live,
}

/// A sale that was put through a broker; its database was not asked yet.
struct Sold {
    kafka: Rc<Kafka>,
    ended: Ended,
    dead_letters: Option<u64>,
    held_up: Duration,
    broker_process: BrokerProcess,
    usage: Usage,
}

impl Stage {
    fn one_sale(
        mut self,
        mut settings: Settings,
        store: Option<Store>,
        folder: &Path,
    ) -> Result<Option<bool>, Failure> {
        let beside = |name| Place::Sqlite(folder.join(name));
        let place = settings.sink.clone().unwrap_or_else(|| beside("sale.db"));
        let store = store.map_or_else(|| Store::open(&place, settings.rules()), Ok)?;
        if settings.db_writes_per_s.is_none() {
            self.live.line(&format!("measuring what {place} sustains"));
            let rate = measure::rows_per_s(&place, settings.rules(), settings.sale.partitions)?;
            settings.measured_writes_per_s = Some(rate);
            self.live.end();
        }
        self.stop.check()?;
        let mut direct = None;
        if settings.direct {
            let store = Store::open(&beside("direct.db"), settings.rules())?;
            let ended = self.without_broker(&settings, store)?;
            if ended.interrupted {
                print(&report::stopped_without_broker(&ended));
                return Ok(None);
            }
            direct = Some(ended);
        }
        let broker = Broker::start(&settings, folder)?;
        let sold = self.sell(&settings, &broker, store)?;
        let Sold { kafka, ended, .. } = sold;
        let measured = Measured {
            host: Host::look(place.file().and_then(Path::parent), broker.data_dir()),
            facts: facts(&settings, &ended, sold.dead_letters, sold.held_up)?,
            settings,
            bootstrap: broker.bootstrap(),
            transport: self.runtime.transport(),
            ended,
            broker_process: sold.broker_process,
            usage: sold.usage,
            direct,
        };
        let verdict = (!measured.ended.interrupted).then(|| judge(&measured.facts));
        conclude(&measured, verdict.as_ref())?;
        let passed = verdict.as_ref().map(Verdict::pass);
        // A failed sale wants to be looked at, one that can be resumed needs its topic, and dead
        // letters go back to where they came from.
        let is_resumable = passed.is_none() && measured.settings.sink.is_some();
        let has_letters = measured.facts.dead_letters.is_some_and(|count| count > 0);
        let needed = passed == Some(false) || is_resumable || has_letters;
        if !needed && let Err(failure) = self.block_on(kafka.delete_topic()) {
            tracing::warn!(%failure, "the topic of the sale is left behind");
        }
        drop((kafka, self.runtime));
        broker.stop()?;
        Ok(passed)
    }

    /// Searches for the highest rate by short sales; false if there is none.
    fn find_limit(
        mut self,
        settings: &Settings,
        p99_max: Duration,
        folder: &Path,
    ) -> Result<Option<bool>, Failure> {
        let broker = Broker::start(settings, folder)?;
        let mut search = Search::default();
        let mut stopped = false;
        while let Some(rate) = search.next_rate().filter(|_| !stopped) {
            match self.trial(settings, rate, p99_max, &broker, folder) {
                Ok(trial) => search.trials.push(trial),
                Err(Failure::Interrupted) => stopped = true,
                Err(failure) => return Err(failure),
            }
        }
        print(&search.text(p99_max, !stopped));
        if let Some(path) = &settings.json {
            json::write_search(path, &search, p99_max, settings)?;
        }
        drop(self.runtime);
        broker.stop()?;
        Ok((!stopped).then_some(search.limit().is_some()))
    }

    fn trial(
        &mut self,
        settings: &Settings,
        rate: u64,
        p99_max: Duration,
        broker: &Broker,
        folder: &Path,
    ) -> Result<Trial, Failure> {
        let mut trial = settings.clone();
        let topic = new_topic();
        (trial.sale.topic, trial.sale.group) = (topic.clone(), topic);
        trial.sale.orders = (rate as f64 * trial.sale.window.as_secs_f64()) as u64;
        // Not judged by its database, which is as fast as it can be.
        (trial.db_writes_per_s, trial.db_latency) = (None, Duration::ZERO);
        let store = Store::open(&Place::Sqlite(folder.join("trial.db")), trial.rules())?;
        let Sold { kafka, ended, .. } = self.sell(&trial, broker, store)?;
        ended.store.erase()?;
        if ended.interrupted {
            return Err(Failure::Interrupted);
        }
        self.block_on(kafka.delete_topic())?;
        Ok(Trial::judge(rate, &ended.outcome, p99_max))
    }

    fn block_on<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.runtime.block_on(self.stop.or(work))
    }

    fn without_broker(
        &mut self,
        settings: &Settings,
        store: Store,
    ) -> Result<DirectEnded, Failure> {
        let sink = ThreadSink::start(store)?;
        let (orders, shape) = (orders(settings), settings.shape());
        let (stop, live) = (self.stop.clone().asked(), &mut self.live);
        let mut observe = |second: &DirectSecond| live.direct(second);
        let run = direct::run(orders, &shape, sink, stop, &mut observe);
        let ended = self.runtime.block_on(run);
        self.live.end();
        ended
    }

    /// The sale itself.
    fn sell(
        &mut self,
        settings: &Settings,
        broker: &Broker,
        store: Store,
    ) -> Result<Sold, Failure> {
        let sale = &settings.sale;
        let broker_process = broker.process();
        let before = broker_process.usage();
        let bootstrap = broker.bootstrap();
        let connect = Kafka::connect(self.runtime.transport(), &bootstrap, &sale.topic);
        let kafka = Rc::new(self.block_on(connect)?);
        let has_letters = sale.incidents.poison > 0.0;
        let (earlier, next_offsets) = if settings.resume {
            let next_offsets = store.next_offsets()?;
            let earlier = kafka.earlier(has_letters, &next_offsets);
            (self.block_on(earlier)?, next_offsets)
        } else {
            self.block_on(kafka.create_topics(sale.partitions, has_letters))?;
            remember(&store, sale)?;
            (Earlier::default(), BTreeMap::new())
        };
        let is_trial = settings.find_limit.is_some();
        if !is_trial && !settings.resume {
            let ends_s = settings.load().drained_at_s().value;
            self.live
                .line(&format!("the sale ends after about {ends_s:.0} s"));
            self.live.end();
        }
        let plan = Plan {
            clock: Clock::start(),
            orders: orders(settings),
            shape: settings.shape(),
            earlier,
            next_offsets,
            delivery: sale.delivery,
            patience: PATIENCE + settings.load().quiet_max(),
        };
        let waited = host::waited_for_a_core();
        let participants = participants(settings, broker, Rc::clone(&kafka));
        let (publisher, feeds, upsets) = self.block_on(participants)?;
        let (stop, live) = (self.stop.clone().asked(), &mut self.live);
        let mut observe = |second: &sale::Second| live.sale(second);
        let sink = ThreadSink::start(store)?;
        let run = sale::run(plan, publisher, feeds, upsets, sink, stop, &mut observe);
        let ended = self.runtime.block_on(run);
        self.live.end();
        let ended = ended?;
        let dead_letters = match has_letters && !ended.interrupted {
            false => None,
            // Those that were not sent back.
            true if settings.resume => Some(ended.outcome.counts.poison),
            true => Some(self.block_on(kafka.dead_letters())?),
        };
        Ok(Sold {
            kafka,
            ended,
            dead_letters,
            held_up: host::waited_for_a_core() - waited,
            usage: before.until(broker_process.usage()),
            broker_process,
        })
    }
}

/// A name that no other sale has.
fn new_topic() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("flash-sale-{}", now.as_millis())
}

/// Shows a report; whoever closed standard output still gets the exit code.
fn print(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
}

/// Shows the report and writes the document.
fn conclude(measured: &Measured, verdict: Option<&Verdict>) -> Result<(), Failure> {
    print(&report::text(measured, verdict));
    if let Some(path) = &measured.settings.json {
        json::write(path, measured, verdict)?;
    }
    match &measured.settings.report {
        Some(path) => page::write(path, measured, verdict),
        None => Ok(()),
    }
}

fn orders(settings: &Settings) -> Orders {
    let sale = &settings.sale;
    Orders::new(sale.seed, sale.orders, sale.window, sale.partitions).with(&sale.incidents)
}

/// Who sends, who reads, and what happens to them.
async fn participants(
    settings: &Settings,
    broker: &Broker,
    kafka: Rc<Kafka>,
) -> Result<(KafkaPublisher, Vec<KafkaFeed>, Upsets<KafkaFeed>), Failure> {
    let publisher = kafka.publisher(settings.sale.partitions).await?;
    let (group, records_max) = (settings.sale.group.clone(), settings.records_max());
    let mut feeds = Vec::new();
    for _ in 0..settings.members {
        feeds.push(kafka.feed(&group, records_max).await?);
    }
    let joins = settings.incidents.rebalance_at.is_some();
    let join = async move { kafka.feed(&group, records_max).await };
    let upsets = Upsets {
        crash: broker.crash(),
        newcomer: joins.then(|| Box::pin(join) as Later<_>),
    };
    Ok((publisher, feeds, upsets))
}

fn facts(
    settings: &Settings,
    ended: &Ended,
    dead_letters: Option<u64>,
    held_up: Duration,
) -> Result<Facts, Failure> {
    let load = Load {
        held_up,
        ..settings.load()
    };
    let (store, outcome) = (&ended.store, &ended.outcome);
    let busy_writes = match outcome.busy_ns {
        Some((from, to)) => store.writes_between(from, to)?,
        None => 0,
    };
    let at = |at: Duration| outcome.started_ns + i64::try_from(at.as_nanos()).unwrap_or(i64::MAX);
    let slow = load.incidents.db_slow.map(|slow| slow.span);
    let slow_writes = slow.map(|span| store.writes_between(at(span.from), at(span.to)));
    // A write fails if it would end in the outage.
    let down_writes = load.incidents.db_down.map(|down| {
        let until = at(down.to.saturating_sub(settings.db_latency));
        store.writes_between(at(down.from.saturating_sub(settings.db_latency)), until)
    });
    let mut promise = settings.promise();
    // Letters that were sent back come after later orders of their keys.
    promise.key_order &= outcome.counts.replayed == 0;
    Ok(Facts {
        buffer_limit: settings.buffer,
        outcome: outcome.clone(),
        audit: store.audit(load.orders, load.db_writes_per_s)?,
        promise,
        busy_writes,
        slow_writes: slow_writes.transpose()?,
        down_writes: down_writes.transpose()?,
        dead_letters,
        resumed: settings.resume,
        load,
    })
}
