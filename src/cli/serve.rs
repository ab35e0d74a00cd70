//! `forebay serve`: runs a broker until it is told to stop.

use crate::config::{Config, ServeArgs};
use crate::io::BUFFER_BYTES;
use crate::logging;
use crate::server::Server;
use nix::sys::signal::{SigSet, Signal};
use std::error::Error;
use std::io::Write;

/// Runs a broker until SIGTERM or SIGINT; says on `out` where it is and how it works.
///
/// # Errors
/// One sentence: the configuration is refused, the broker cannot start, or it had to give up.
pub fn run(args: &ServeArgs, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let config = Config::load(args)?;
    let _logging = logging::start(&config.logging)?;
    // Blocked before any thread exists, so that all of them inherit it and only the one that waits
    // for them sees the signals.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let server = Server::start(&config)?;
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
    out.flush()?;
    let stopper = server.stopper();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            // An error here would mean an invalid set, and this one is not.
            let _ = signals.wait();
            stopper.stop();
        })?;
    server.wait()?;
    server.stop()?;
    Ok(())
}
