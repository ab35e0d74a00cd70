//! `loadgen connections`: many that say nothing, and some that work beside them.

use std::rc::Rc;
use std::time::Instant;

use forebay::wire::messages::api_versions::ApiVersionsRequest;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::task::JoinSet;

use super::args::{ConnectionsArgs, Load};
use super::course;
use super::link::{Inbox, Link};
use super::meter::Meter;
use super::produce;
use super::result::Outcome;
use super::session::Measuring;
use crate::failure::Failure;
use crate::host::BrokerProcess;

/// Size of the records of those that work, if nothing is said.
const RECORD_BYTES: u64 = 100;
/// Connections that come about at the same time.
const OPENING: usize = 64;
/// Room for the answer to ApiVersions.
const ANSWER_BYTES: usize = 4 << 10;
/// Files that the process has open besides.
const OTHER_FILES: u64 = 256;

/// Opens the idle connections, runs the load of the active ones, and asks the idle ones whether
/// they are still there.
///
/// # Errors
/// If there are not files enough, or the broker refuses or closes a connection.
pub async fn run(measuring: &Measuring, args: &ConnectionsArgs) -> Result<Outcome, Failure> {
    let load = Load {
        connections: args.active,
        rate: args.rate,
        ..args.records.load(RECORD_BYTES, 1)
    };
    let inside = measuring.process == BrokerProcess::Shards;
    allow_files((args.idle + args.active) as u64, inside)?;
    let topic = measuring.topic().await?;
    let before = measuring.process.usage().rss_bytes;
    let began = Instant::now();
    let idle = open(measuring, &topic.leaders(), args.idle).await?;
    let connect_s = began.elapsed().as_secs_f64();
    let after = measuring.process.usage().rss_bytes;
    let bytes_each = after
        .zip(before)
        .filter(|_| args.idle > 0)
        .map(|(after, before)| after.saturating_sub(before) / args.idle as u64);
    let ready = produce::connect(measuring, &topic, &load).await?;
    let (warm_up, duration) = measuring.times();
    let meter = Rc::new(Meter::new(Instant::now(), warm_up, duration));
    let course = course::run(measuring, &meter, produce::start(ready, &load, &meter)).await?;
    let mut alive = 0;
    for (link, mut inbox) in idle {
        greet(&link, &mut inbox).await?;
        alive += 1;
    }
    let per_s = args.idle as f64 / connect_s.max(1e-9);
    let each = bytes_each.map_or("not known".to_owned(), |bytes| format!("{bytes} B"));
    Ok(Outcome {
        scenario: "connections",
        headline: format!("{} idle, beside {}", args.idle, produce::headline(&load, 1)),
        latency_of: "acknowledged",
        courses: vec![(String::new(), course)],
        notes: vec![format!(
            "  idle           opened at {per_s:.0}/s, resident memory for each: {each}"
        )],
        facts: json!({
            "idle": alive,
            "connect_s": connect_s,
            "connects_per_s": per_s,
            "rss_bytes_per_idle": bytes_each,
        }),
    })
}

/// Opens `count` connections, evenly over the leaders, and has each say what a client says first.
async fn open(
    measuring: &Measuring,
    leaders: &[(i32, String)],
    count: usize,
) -> Result<Vec<(Link, Inbox)>, Failure> {
    let transport = measuring.cluster.transport;
    let mut tasks: JoinSet<Result<Vec<_>, Failure>> = JoinSet::new();
    for lane in 0..OPENING.min(count) {
        let numbers = (lane..count).step_by(OPENING);
        let addresses: Vec<String> = numbers
            .map(|number| leaders[number % leaders.len()].1.clone())
            .collect();
        tasks.spawn_local(async move {
            let mut links = Vec::new();
            for address in addresses {
                let link = Link::open(transport, &address).await?;
                let mut inbox = Inbox::default();
                greet(&link, &mut inbox).await?;
                links.push((link, Inbox::default()));
            }
            Ok(links)
        });
    }
    let mut links = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        links.extend(ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
    }
    Ok(links)
}

async fn greet(link: &Link, inbox: &mut Inbox) -> Result<(), Failure> {
    let request = ApiVersionsRequest::default();
    let answer = link.call(inbox, ANSWER_BYTES, 0, 0, &request).await?;
    match answer.error_code.is_error() {
        true => Err(link.failure(format_args!("refuses a connection: {}", answer.error_code))),
        false => Ok(()),
    }
}

/// Makes sure that this process may have so many connections open, both ends of each if the broker
/// is inside.
fn allow_files(connections: u64, inside: bool) -> Result<(), Failure> {
    let needed = connections * if inside { 2 } else { 1 } + OTHER_FILES;
    let refused = |why: String| {
        Failure::Reason(format!(
            "{connections} connections need {needed} open files: {why}"
        ))
    };
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| refused(error.to_string()))?;
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        return Err(refused(format!(
            "at most {hard} are allowed; raise ulimit -Hn"
        )));
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_files_than_there_can_be_are_refused() {
        let refused = allow_files(1 << 40, false).unwrap_err();
        assert!(
            refused.to_string().contains("raise ulimit -Hn"),
            "{refused}"
        );
        allow_files(1, true).unwrap();
    }
}
