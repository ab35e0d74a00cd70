//! A run in time: warm-up, counted seconds, end, with the CPU time of both sides. Owns the tasks
//! that are the load; the first that fails ends the run.

use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::task::JoinSet;

use super::meter::{Counts, Meter, Second};
use super::session::Measuring;
use crate::failure::Failure;
use crate::host::{BrokerProcess, Usage};
use crate::stop::stop_asked;

/// What is on its way at the end has so much time to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// And so much if the user wants to see the end.
const PATIENCE_INTERRUPTED: Duration = Duration::from_secs(1);

/// The tasks of a load.
pub type Tasks = JoinSet<Result<(), Failure>>;

/// What a run has measured.
#[derive(Clone, Debug)]
pub struct Course {
    /// The user stopped it.
    pub interrupted: bool,
    /// The counted time in seconds.
    pub elapsed_s: f64,
    /// What was done in it.
    pub counts: Counts,
    /// What was done from start to end, warm-up included.
    pub all: Counts,
    /// Requests of an open loop that were due and could not be sent.
    pub unsent: u64,
    /// Latencies in microseconds.
    pub latencies: Histogram<u64>,
    /// Every second from the start on.
    pub seconds: Vec<Second>,
    /// What the broker used in the counted time.
    pub broker: Usage,
    /// CPU seconds of the load's thread in the counted time.
    pub load_cpu_s: f64,
}

/// CPU times at one moment.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    broker: Usage,
    load_cpu_s: f64,
}

impl Reading {
    fn take(process: &BrokerProcess) -> Self {
        let load = getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| {
            (usage.user_time() + usage.system_time()).num_microseconds()
        });
        Self {
            at: Instant::now(),
            broker: process.usage(),
            load_cpu_s: load as f64 / 1e6,
        }
    }
}

/// Watches over `tasks`, which report to `meter` and end by themselves after its end.
///
/// # Errors
/// That of the first task that fails, and if they do not end.
pub async fn run(
    measuring: &Measuring,
    meter: &Rc<Meter>,
    mut tasks: Tasks,
) -> Result<Course, Failure> {
    let process = &measuring.process;
    let mut stop = std::pin::pin!(stop_asked());
    let (mut interrupted, mut seconds) = (false, Vec::new());
    let (mut first, mut last) = (None, None);
    let mut tick = meter.start();
    while last.is_none() {
        let now = Instant::now();
        if first.is_none() && now >= meter.from() {
            first = Some(Reading::take(process));
        }
        if now >= meter.until() {
            last = Some(Reading::take(process));
        }
        if now >= tick {
            if now > meter.start() && tick > meter.start() {
                let second = meter.second(now);
                measuring.live.borrow_mut().line(&line(&second));
                seconds.push(second);
            }
            tick += Duration::from_secs(1);
        }
        let next = [tick, meter.until()].into_iter().min().unwrap_or(tick);
        let next = if first.is_none() {
            next.min(meter.from())
        } else {
            next
        };
        tokio::select! {
            () = tokio::time::sleep_until(next.into()), if last.is_none() => {}
            () = &mut stop, if !interrupted => {
                interrupted = true;
                meter.end_at(Instant::now());
            }
            ended = tasks.join_next() => match ended {
                Some(ended) => finished(ended)?,
                // All is read, or sent: nothing more will come.
                None => meter.end_at(Instant::now()),
            },
        }
    }
    drain(&mut tasks, interrupted).await?;
    let end = last.or(first).unwrap_or_else(|| Reading::take(process));
    let begin = first.unwrap_or(end);
    Ok(Course {
        interrupted,
        elapsed_s: (end.at - begin.at).as_secs_f64(),
        counts: meter.counted(),
        all: meter.all(),
        unsent: meter.unsent_count(),
        latencies: meter.latencies(),
        seconds,
        broker: begin.broker.until(end.broker),
        load_cpu_s: end.load_cpu_s - begin.load_cpu_s,
    })
}

/// Waits for what is still under way.
async fn drain(tasks: &mut Tasks, interrupted: bool) -> Result<(), Failure> {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            finished(ended)?;
        }
        Ok(())
    };
    let patience = match interrupted {
        true => PATIENCE_INTERRUPTED,
        false => PATIENCE,
    };
    match tokio::time::timeout(patience, all).await {
        Ok(result) => result,
        Err(_) if interrupted => Ok(()),
        Err(_) => Err(Failure::Reason(format!(
            "the broker still owes answers {} s after the end",
            PATIENCE.as_secs()
        ))),
    }
}

/// Runs `tasks` to their end without looking at the time.
///
/// # Errors
/// That of the first task that fails, or that the user stopped it.
pub async fn complete(mut tasks: Tasks) -> Result<(), Failure> {
    let mut stop = std::pin::pin!(stop_asked());
    loop {
        tokio::select! {
            () = &mut stop => return Err(Failure::Interrupted),
            ended = tasks.join_next() => match ended {
                Some(ended) => finished(ended)?,
                None => return Ok(()),
            },
        }
    }
}

fn finished(ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    match ended {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn line(second: &Second) -> String {
    let (counts, ms) = (&second.counts, |us: u64| us as f64 / 1e3);
    format!(
        "{:>4.0} s  {:>7} requests/s  {:>9} records/s  {:>8.1} MB/s  p50 {:>8.3} ms  \
         p99 {:>8.3} ms{}",
        second.at_s,
        counts.requests,
        counts.records,
        counts.bytes as f64 / 1e6,
        ms(second.p50_us),
        ms(second.p99_us),
        if second.counted { "" } else { "  (warm-up)" },
    )
}
