//! A run of the flash sale from settings to verdict: the broker, the topic, the load without a
//! broker if asked for, the sale, the questions to the database, the report.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use crate::broker::{Beside, InProcess};
use crate::cli::FlashSale;
use crate::clock::Clock;
use crate::direct::{self, DirectEnded};
use crate::failure::Failure;
use crate::host::{self, BrokerProcess, Host, Usage};
use crate::kafka::Kafka;
use crate::limit::{Search, Trial};
use crate::live::Live;
use crate::model::Load;
use crate::orders::Orders;
use crate::sale::{self, Ended, Later, Plan, Upsets};
use crate::settings::{BrokerChoice, Settings, remember};
use crate::sink::ThreadSink;
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
            let lost = |_| Failure::Broker("the broker was not started again".to_owned());
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
    let (mut settings, store) = Settings::check(args, &new_topic())?;
    for path in settings.json.iter().chain(&settings.report) {
        json::prepare(path)?;
    }
    let folder = tempfile::Builder::new()
        .prefix("flash-sale-")
        .tempdir()
        .map_err(|error| Failure::Database(format!("cannot make a temporary folder: {error}")))?;
    if let Some(p99_max) = settings.find_limit {
        let (runtime, _) = Runtime::new(settings.client_io)?;
        let broker = Broker::start(&settings, folder.path())?;
        let (mut live, folder) = (Live::stderr(), folder.path());
        let found = find_limit(&settings, p99_max, &broker, &runtime, folder, &mut live)?;
        drop(runtime);
        broker.stop()?;
        return Ok(found);
    }
    let beside = |name| Place::Sqlite(folder.path().join(name));
    let place = settings.sink.clone().unwrap_or_else(|| beside("sale.db"));
    let store = store.map_or_else(|| Store::open(&place, settings.rules()), Ok)?;
    let (runtime, word) = Runtime::new(settings.client_io)?;
    if let Some(word) = word {
        tracing::warn!("{word}");
    }
    let mut live = Live::stderr();
    if settings.db_writes_per_s.is_none() {
        live.show(&format!("measuring what {place} sustains"));
        let rate = measure::rows_per_s(&place, settings.rules(), settings.sale.partitions)?;
        settings.measured_writes_per_s = Some(rate);
        live.end();
    }
    let direct = if settings.direct {
        let store = Store::open(&beside("direct.db"), settings.rules())?;
        Some(runtime.block_on(without_broker(&settings, store, &mut live))?)
    } else {
        None
    };
    let broker = Broker::start(&settings, folder.path())?;
    let (kafka, measured) = through_broker(
        &settings, &broker, &runtime, store, &place, direct, &mut live,
    )?;
    let verdict = (!measured.ended.interrupted).then(|| judge(&measured.facts));
    conclude(&measured, verdict.as_ref())?;
    let passed = verdict.as_ref().map(Verdict::pass);
    // A failed sale wants to be looked at, one that can be resumed needs its topic, and dead
    // letters go back to where they came from.
    let is_resumable = passed.is_none() && settings.sink.is_some();
    let needed = passed == Some(false) || is_resumable || settings.incidents.poison > 0.0;
    if !needed && let Err(failure) = runtime.block_on(kafka.delete_topic()) {
        tracing::warn!(%failure, "the topic of the sale is left behind");
    }
    drop((kafka, runtime));
    broker.stop()?;
    Ok(passed)
}

/// Searches for the highest rate by short sales; false if there is none.
fn find_limit(
    settings: &Settings,
    p99_max: Duration,
    broker: &Broker,
    runtime: &Runtime,
    folder: &Path,
    live: &mut Live,
) -> Result<Option<bool>, Failure> {
    let mut search = Search::default();
    let mut stopped = false;
    while let Some(rate) = search.next_rate().filter(|_| !stopped) {
        let mut trial = settings.clone();
        let topic = new_topic();
        (trial.sale.topic, trial.sale.group) = (topic.clone(), topic);
        trial.sale.orders = (rate as f64 * trial.sale.window.as_secs_f64()) as u64;
        // Not judged by its database, which is as fast as it can be.
        (trial.db_writes_per_s, trial.db_latency) = (None, Duration::ZERO);
        let place = Place::Sqlite(folder.join("trial.db"));
        let store = Store::open(&place, trial.rules())?;
        let (kafka, measured) = through_broker(&trial, broker, runtime, store, &place, None, live)?;
        let Measured { ended, .. } = measured;
        stopped = ended.interrupted;
        if !stopped {
            search
                .trials
                .push(Trial::judge(rate, &ended.outcome, p99_max));
        }
        ended.store.erase()?;
        runtime.block_on(kafka.delete_topic())?;
    }
    let shown = search.text(p99_max, !stopped);
    let _ = std::io::Write::write_all(&mut std::io::stdout(), shown.as_bytes());
    if let Some(path) = &settings.json {
        json::write_search(path, &search, p99_max, settings)?;
    }
    Ok((!stopped).then_some(search.limit().is_some()))
}

/// A name that no other sale has.
fn new_topic() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("flash-sale-{}", now.as_millis())
}

/// Shows the report and writes the document.
fn conclude(measured: &Measured, verdict: Option<&Verdict>) -> Result<(), Failure> {
    let shown = report::text(measured, verdict);
    // Whoever closed standard output still gets the exit code.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), shown.as_bytes());
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

async fn without_broker(
    settings: &Settings,
    store: Store,
    live: &mut Live,
) -> Result<DirectEnded, Failure> {
    let sink = ThreadSink::start(store)?;
    let (orders, shape) = (orders(settings), settings.shape());
    let ended = direct::run(orders, &shape, sink, stop_asked(), &mut |s| live.direct(s)).await;
    live.end();
    ended
}

/// The sale itself, and all that is to be known about it.
fn through_broker(
    settings: &Settings,
    broker: &Broker,
    runtime: &Runtime,
    store: Store,
    place: &Place,
    direct: Option<DirectEnded>,
    live: &mut Live,
) -> Result<(Rc<Kafka>, Measured), Failure> {
    let sale = &settings.sale;
    let bootstrap = broker.bootstrap();
    let broker_process = broker.process();
    let before = broker_process.usage();
    let connect = Kafka::connect(runtime.transport(), &bootstrap, &sale.topic);
    let kafka = Rc::new(runtime.block_on(connect)?);
    let has_letters = settings.incidents.poison > 0.0;
    let (logged, next_offsets) = if settings.resume {
        (runtime.block_on(kafka.logged())?, store.next_offsets()?)
    } else {
        runtime.block_on(kafka.create_topics(sale.partitions, has_letters))?;
        remember(&store, sale)?;
        (BTreeMap::new(), BTreeMap::new())
    };
    let plan = Plan {
        clock: Clock::start(),
        orders: orders(settings),
        shape: settings.shape(),
        logged,
        next_offsets,
        delivery: settings.sale.delivery,
        patience: PATIENCE + settings.load().quiet_max(),
    };
    let waited = host::waited_for_a_core();
    let work = sell(settings, broker, Rc::clone(&kafka), plan, store, live);
    let (ended, dead_letters) = runtime.block_on(async {
        let ended = work.await?;
        // An interrupted sale is not judged.
        let count = has_letters && !ended.interrupted;
        let dead_letters = if count {
            Some(kafka.dead_letters().await?)
        } else {
            None
        };
        Ok::<_, Failure>((ended, dead_letters))
    })?;
    let held_up = host::waited_for_a_core() - waited;
    let after = broker_process.usage();
    let measured = Measured {
        host: Host::look(place.file().and_then(Path::parent), broker.data_dir()),
        facts: facts(settings, &ended, dead_letters, held_up)?,
        settings: settings.clone(),
        bootstrap,
        transport: runtime.transport(),
        ended,
        broker_process,
        usage: before.until(after),
        direct,
    };
    Ok((kafka, measured))
}

async fn sell(
    settings: &Settings,
    broker: &Broker,
    kafka: Rc<Kafka>,
    plan: Plan,
    store: Store,
    live: &mut Live,
) -> Result<Ended, Failure> {
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
    let sink = ThreadSink::start(store)?;
    let mut observe = |second: &sale::Second| live.sale(second);
    let ended = sale::run(
        plan,
        publisher,
        feeds,
        upsets,
        sink,
        stop_asked(),
        &mut observe,
    )
    .await;
    live.end();
    ended
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

/// Resolves when the user or the system asks the process to stop.
pub(crate) fn stop_asked() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    async {
        let terminate = async {
            match signal(SignalKind::terminate()) {
                Ok(mut signal) => drop(signal.recv().await),
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = terminate => {}
        }
    }
}
