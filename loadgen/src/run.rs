//! A run of the flash sale from settings to verdict: the broker, the topic, the load without a
//! broker if asked for, the sale, the questions to the database, the report.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::broker::InProcess;
use crate::cli::FlashSale;
use crate::clock::Clock;
use crate::direct::{self, DirectEnded};
use crate::failure::Failure;
use crate::host::{BrokerProcess, Host, Usage};
use crate::kafka::Kafka;
use crate::live::Live;
use crate::orders::Orders;
use crate::sale::{self, Ended, Plan};
use crate::settings::{BrokerChoice, Settings, remember};
use crate::sink::ThreadSink;
use crate::store::Store;
use crate::transport::{Runtime, Transport};
use crate::verdict::{Facts, Verdict, judge};
use crate::{json, report};

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

/// Runs the sale and shows it; returns whether it passed, `None` if the user stopped it.
///
/// # Errors
/// [`Failure`] if there is nothing to show.
pub fn flash_sale(args: FlashSale) -> Result<Option<bool>, Failure> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (settings, store) = Settings::check(args, &format!("flash-sale-{}", now.as_millis()))?;
    if let Some(path) = &settings.json {
        json::prepare(path)?;
    }
    let folder = tempfile::Builder::new()
        .prefix("flash-sale-")
        .tempdir()
        .map_err(|error| Failure::Database(format!("cannot make a temporary folder: {error}")))?;
    let store = store.map_or_else(|| Store::open(&folder.path().join("sale.db")), Ok)?;
    let (runtime, word) = Runtime::new(settings.client_io)?;
    if let Some(word) = word {
        tracing::warn!("{word}");
    }
    let mut live = Live::stderr();
    let direct = if settings.direct {
        let store = Store::open(&folder.path().join("direct.db"))?;
        Some(runtime.block_on(without_broker(&settings, store, &mut live))?)
    } else {
        None
    };
    let (broker, bootstrap) = broker(&settings, folder.path())?;
    let broker_process = match &broker {
        Some(_) => BrokerProcess::Shards,
        None => BrokerProcess::find(&bootstrap),
    };
    let before = broker_process.usage();
    let through = through_broker(&settings, &bootstrap, runtime.transport(), store, &mut live);
    let (kafka, ended) = runtime.block_on(through)?;
    let after = broker_process.usage();

    let db = settings
        .db
        .clone()
        .unwrap_or_else(|| folder.path().to_owned());
    let measured = Measured {
        host: Host::look(Some(&db), broker.as_ref().map(InProcess::data_dir)),
        facts: facts(&settings, &ended)?,
        settings,
        bootstrap,
        transport: runtime.transport(),
        ended,
        broker_process,
        usage: before.until(after),
        direct,
    };
    let verdict = (!measured.ended.interrupted).then(|| judge(&measured.facts));
    conclude(&measured, verdict.as_ref())?;
    let passed = verdict.as_ref().map(Verdict::pass);
    // A failed sale wants to be looked at, and one that can be resumed needs its topic.
    let needed = passed == Some(false) || passed.is_none() && measured.settings.db.is_some();
    if !needed && let Err(failure) = runtime.block_on(kafka.delete_topic()) {
        tracing::warn!(%failure, "the topic of the sale is left behind");
    }
    drop((kafka, runtime));
    if let Some(broker) = broker {
        broker.stop()?;
    }
    Ok(passed)
}

/// The broker to use: one that runs already, or one started here.
fn broker(settings: &Settings, folder: &Path) -> Result<(Option<InProcess>, String), Failure> {
    match &settings.broker {
        BrokerChoice::Running { bootstrap } => Ok((None, bootstrap.clone())),
        BrokerChoice::InProcess { cores, settings } => {
            let broker = InProcess::start(&folder.join("broker"), cores.as_deref(), settings)?;
            let bootstrap = broker.bootstrap();
            Ok((Some(broker), bootstrap))
        }
    }
}

/// Shows the report and writes the document.
fn conclude(measured: &Measured, verdict: Option<&Verdict>) -> Result<(), Failure> {
    let shown = report::text(measured, verdict);
    // Whoever closed standard output still gets the exit code.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), shown.as_bytes());
    match &measured.settings.json {
        Some(path) => json::write(path, measured, verdict),
        None => Ok(()),
    }
}

fn orders(settings: &Settings) -> Orders {
    let sale = &settings.sale;
    Orders::new(sale.seed, sale.orders, sale.window, sale.partitions)
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

async fn through_broker(
    settings: &Settings,
    bootstrap: &str,
    transport: Transport,
    store: Store,
    live: &mut Live,
) -> Result<(Kafka, Ended), Failure> {
    let sale = &settings.sale;
    let kafka = Kafka::connect(transport, bootstrap, &sale.topic).await?;
    let (logged, next_offsets) = if settings.resume {
        (kafka.logged().await?, store.next_offsets()?)
    } else {
        kafka.create_topic(sale.partitions).await?;
        remember(&store, sale)?;
        (BTreeMap::new(), BTreeMap::new())
    };
    let publisher = kafka.publisher(sale.partitions).await?;
    let mut feeds = Vec::new();
    for _ in 0..settings.members {
        feeds.push(kafka.feed(&sale.group, settings.records_max()).await?);
    }
    let plan = Plan {
        clock: Clock::start(),
        orders: orders(settings),
        shape: settings.shape(),
        logged,
        next_offsets,
        patience: PATIENCE,
    };
    let sink = ThreadSink::start(store)?;
    let mut observe = |second: &sale::Second| live.sale(second);
    let ended = sale::run(plan, publisher, feeds, sink, stop_asked(), &mut observe).await;
    live.end();
    Ok((kafka, ended?))
}

fn facts(settings: &Settings, ended: &Ended) -> Result<Facts, Failure> {
    let load = settings.load();
    let (store, busy) = (&ended.store, ended.outcome.busy_ns);
    let busy_writes = busy.map_or(Ok(0), |(from, to)| store.writes_between(from, to))?;
    let audit = store.audit(load.orders, load.db_writes_per_s)?;
    Ok(Facts {
        load,
        buffer_limit: settings.buffer,
        outcome: ended.outcome.clone(),
        audit,
        busy_writes,
        resumed: settings.resume,
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
