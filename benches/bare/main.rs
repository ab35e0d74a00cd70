//! The floor for produce requests: one thread and one ring that receive, append the records to one
//! file in the page cache, and answer. No check, no log, no consumer: what a broker takes longer
//! than this is the price of being one.
//!
//! Kafka's clients can write to it, so one driver measures it and a broker:
//!
//! ```text
//! cargo bench --bench bare -- --listen 127.0.0.1:9092     (--discard: receive and answer only)
//! loadgen requests --bootstrap 127.0.0.1:9092
//! ```
//!
//! Without `--listen` it writes to itself and checks the answers and the file; that is what
//! `cargo test --benches` runs.

mod protocol;
mod ring;
mod self_test;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::Parser;
use protocol::Broker;
use ring::Bare;

/// A bare ring that takes Kafka's produce requests.
#[derive(Parser)]
struct Args {
    /// Address to listen on; port 0 takes a free one [default: none, a self test]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,

    /// Where the file lies that records are appended to; it has no name and ends with the program
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,

    /// Receive and answer only
    #[arg(long)]
    discard: bool,

    /// Partitions that every topic seems to have
    #[arg(long, default_value_t = 4)]
    partitions: i32,

    /// What cargo tells every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let Some(address) = args.listen else {
        return self_test::run();
    };
    let file = match args.discard {
        true => None,
        false => Some(tempfile::tempfile_in(&args.dir)?),
    };
    let listener = TcpListener::bind(address)?;
    let broker = Broker {
        address: listener.local_addr()?,
        partitions: args.partitions,
    };
    writeln!(io::stdout(), "bare listens on {}", broker.address)?;
    Bare::new(listener, file, broker)?.run()
}
