//! `forebay serve`: runs a broker until it is told to stop.

use crate::config::{Config, ServeArgs};
use crate::io::BUFFER_BYTES;
use crate::logging;
use crate::server::{Server, Stopper};
use nix::sys::signal::{SigSet, Signal};
use std::error::Error;
use std::io::{self, Write};
use std::process::exit;
use std::sync::{Arc, OnceLock};
use tracing::info;

/// Added to the number of a signal for the exit code of a process that it ended, as shells do.
const EXIT_SIGNAL: i32 = 128;

/// Runs a broker until SIGTERM or SIGINT; says on `out` where it is and how it works.
///
/// # Errors
/// One sentence: the configuration is refused, the broker cannot start, or it had to give up.
pub fn run(args: &ServeArgs, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let config = Config::load(args)?;
    // Blocked before any thread exists, so that all of them inherit it and only the one that waits
    // for them sees the signals.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let _logging = logging::start(&config.logging)?;
    let stopper = Arc::new(OnceLock::new());
    let started = Arc::clone(&stopper);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || obey(signals, &started))?;
    let server = Server::start(&config)?;
    stopper.get_or_init(|| server.stopper());
    info!(addresses = ?server.addresses(), "serving");
    // Nobody may be reading, and that is no reason not to serve.
    let _ = introduce(&server, &config, out);
    server.wait()?;
    server.stop()?;
    Ok(())
}

/// Stops the broker at the first signal. While it starts, and at the second signal, the process
/// ends at once, which is for the data what a `kill -9` is.
fn obey(signals: SigSet, started: &OnceLock<Stopper>) -> ! {
    let next = || signals.wait().expect("both signals exist") as i32;
    let first = next();
    let Some(stopper) = started.get() else {
        exit(EXIT_SIGNAL + first);
    };
    stopper.stop();
    exit(EXIT_SIGNAL + next());
}

/// Says where the broker is and how it works.
fn introduce(server: &Server, config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let addresses = server.addresses().iter().map(ToString::to_string);
    let addresses: Vec<_> = addresses.collect();
    writeln!(out, "forebay listens on {}", addresses.join(","))?;
    writeln!(out, "  data    {}", server.dir().describe())?;
    let shards = config.shards.cpus.len();
    writeln!(out, "  shards  {shards} ({})", config.shards.why)?;
    let mib = |bytes: u64| bytes >> 20;
    writeln!(
        out,
        "  memory  {} MiB: {} for requests, {} for groups, {} for reads from disk",
        mib(config.memory.bytes),
        mib(config.memory.request_bytes),
        mib(config.memory.group_bytes),
        mib((shards * config.memory.read_buffers(shards) * BUFFER_BYTES) as u64)
    )?;
    let (by_memory, files) = (config.memory.connections, server.descriptors());
    match by_memory <= files.connections {
        true => writeln!(out, "  clients at most {by_memory} connections (--memory)")?,
        false => writeln!(
            out,
            "  clients at most {} connections (ulimit -n {})",
            files.connections, files.limit
        )?,
    }
    writeln!(out, "  io      {}", server.backend())?;
    if let Some(address) = server.admin_address() {
        writeln!(out, "  admin   http://{address}/metrics")?;
    }
    out.flush()
}
