//! The bench: what a broker can do, measured by a client that is itself hardly there.
//!
//! ```text
//! args -> Session -> mode (produce, consume, end_to_end, connections, zero_copy) -> result
//!                     |  frames built once, sent by a Pipeline per connection, paced by a Schedule
//!                     |  Fetchers that walk batch headers
//!                     +> Meter (histograms) <- Course (warm-up, seconds, CPU of both sides)
//! ```
//!
//! Everything runs on one thread, over sockets of [`crate::transport`], and against any Kafka
//! broker. Invariants: every answer is checked, and one that is wrong ends the run; in an open loop
//! latencies count from the intended time, so that a stall is seen in all that it delayed.

mod answer;
mod args;
mod assignment;
mod connections;
mod consume;
mod course;
mod end_to_end;
mod fetcher;
mod frames;
mod link;
mod meter;
mod pace;
mod pipeline;
mod produce;
mod result;
mod session;
mod zero_copy;

#[cfg(test)]
mod tests;

pub use args::Bench;

use crate::failure::Failure;
use crate::json;
use result::Outcome;
use session::Session;

/// Runs a mode and shows what it measured; false if the user stopped it.
///
/// # Errors
/// [`Failure`] if there is nothing to show: bad flags, no broker, or one that answers wrongly.
pub fn run(bench: &Bench) -> Result<bool, Failure> {
    bench.check()?;
    let target = bench.target().clone();
    if let Some(path) = &target.json {
        json::prepare(path)?;
    }
    let session = Session::start(&target)?;
    let outcome = session.block_on(async |measuring| match bench {
        Bench::Produce(args) => produce::run(measuring, "produce", &args.load()).await,
        Bench::Requests(args) => produce::run(measuring, "requests", &args.load()).await,
        Bench::Consume(args) => consume::run(measuring, args).await,
        Bench::EndToEnd(args) => end_to_end::run(measuring, args).await,
        Bench::Connections(args) => connections::run(measuring, args).await,
        Bench::ZeroCopy(args) => zero_copy::run(measuring, args).await,
    });
    let conditions = session.conditions();
    let stopped = session.stop();
    let outcome: Outcome = outcome?;
    stopped?;
    result::show(&outcome);
    if let Some(path) = &target.json {
        result::write(path, bench, &conditions, &outcome)?;
    }
    Ok(!outcome.interrupted())
}
