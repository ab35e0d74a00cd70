//! The broker that the tool brings along: the library that `forebay serve` runs, with a real
//! listener on a free loopback port and real files in a temporary folder. It runs inside the
//! process, or, where it is to be killed, in a process of its own: this program again.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use forebay::config::{Config, ServeArgs};
use forebay::server::Server;

use crate::cli::pair;
use crate::failure::Failure;

/// Where a broker process listens if any port will do.
const ANY_PORT: &str = "127.0.0.1:0";

/// What a broker is started with.
#[derive(Args, Clone, Debug)]
pub struct BrokerArgs {
    /// Where it listens
    #[arg(long)]
    pub listen: String,

    /// Where its files are
    #[arg(long)]
    pub data_dir: PathBuf,

    /// As for `forebay serve`
    #[arg(long)]
    pub cores: Option<String>,

    /// As for `forebay serve`
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

/// Runs a broker until standard input ends; says where it listens in one line.
///
/// # Errors
/// As [`InProcess::start`].
pub fn serve(args: &BrokerArgs) -> Result<(), Failure> {
    let broker = InProcess::listen(args)?;
    let mut out = std::io::stdout();
    let told = writeln!(out, "{}", broker.bootstrap()).and_then(|()| out.flush());
    told.map_err(|error| Failure::Reason(format!("nobody listens to the broker: {error}")))?;
    // What is written to it does not matter.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    broker.stop()
}

/// A broker in a process of its own; clones are the same one. Dropping the last kills it.
#[derive(Clone)]
pub struct Beside {
    running: Arc<Mutex<Running>>,
    bootstrap: String,
}

struct Running {
    child: Child,
    args: BrokerArgs,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Beside {
    /// Starts one with its data in `data_dir`.
    ///
    /// # Errors
    /// If it does not start; in its own words on standard error.
    pub fn start(
        data_dir: &Path,
        cores: Option<&str>,
        settings: &[(String, String)],
    ) -> Result<Self, Failure> {
        let mut args = BrokerArgs {
            listen: ANY_PORT.to_owned(),
            data_dir: data_dir.to_owned(),
            cores: cores.map(str::to_owned),
            set: settings.to_vec(),
        };
        let (child, bootstrap) = spawn(&args)?;
        // Whoever knows it finds it again.
        args.listen.clone_from(&bootstrap);
        let running = Arc::new(Mutex::new(Running { child, args }));
        Ok(Self { running, bootstrap })
    }

    /// Where it listens, also after it was started again.
    pub fn bootstrap(&self) -> String {
        self.bootstrap.clone()
    }

    /// Kills it as a power cut of the process would, and starts it again on the same files. Waits
    /// until it listens.
    ///
    /// # Errors
    /// If it does not start again.
    pub fn crash(&self) -> Result<(), Failure> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let killed = running.child.kill().and_then(|()| running.child.wait());
        killed.map_err(|error| Failure::Reason(format!("the broker cannot be killed: {error}")))?;
        running.child = spawn(&running.args)?.0;
        Ok(())
    }
}

/// The process, once it listens, and where.
fn spawn(args: &BrokerArgs) -> Result<(Child, String), Failure> {
    let failed = |error: std::io::Error| {
        Failure::Reason(format!("the broker's process does not start: {error}"))
    };
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.arg("serve-broker").args(["--listen", &args.listen]);
    command.arg("--data-dir").arg(&args.data_dir);
    if let Some(cores) = &args.cores {
        command.args(["--cores", cores]);
    }
    for (name, value) in &args.set {
        command.args(["--set", &format!("{name}={value}")]);
    }
    // It ends with us: its standard input does. Ctrl-C is ours to hear, so it has its own group.
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let out = child.stdout.take().expect("it was asked for");
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).map_err(failed)?;
    if line.trim().is_empty() {
        let _ = child.wait();
        return Err(Failure::Reason(
            "the broker's process ended before it listened".to_owned(),
        ));
    }
    Ok((child, line.trim().to_owned()))
}

/// A running broker; [`InProcess::stop`] ends it.
pub struct InProcess {
    server: Server,
    data_dir: PathBuf,
}

impl InProcess {
    /// Starts a broker with its data in `data_dir`, on any port.
    ///
    /// # Errors
    /// If it refuses the settings or cannot start, in its own words.
    pub fn start(
        data_dir: &Path,
        cores: Option<&str>,
        settings: &[(String, String)],
    ) -> Result<Self, Failure> {
        Self::listen(&BrokerArgs {
            listen: ANY_PORT.to_owned(),
            data_dir: data_dir.to_owned(),
            cores: cores.map(str::to_owned),
            set: settings.to_vec(),
        })
    }

    /// Starts a broker.
    ///
    /// # Errors
    /// As [`InProcess::start`].
    pub fn listen(broker: &BrokerArgs) -> Result<Self, Failure> {
        let args = ServeArgs {
            listen: Some(broker.listen.clone()),
            data_dir: Some(broker.data_dir.display().to_string()),
            cores: broker.cores.clone(),
            set: broker
                .set
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            ..ServeArgs::default()
        };
        // The environment configures `forebay serve`, not a sale.
        let config =
            Config::from_sources(&args, []).map_err(|error| Failure::Reason(error.to_string()))?;
        let server = Server::start(&config).map_err(|error| Failure::Reason(error.to_string()))?;
        Ok(Self {
            server,
            data_dir: broker.data_dir.clone(),
        })
    }

    /// Where it listens.
    pub fn bootstrap(&self) -> String {
        self.server.address().to_string()
    }

    /// Where its files are.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Stops it cleanly.
    ///
    /// # Errors
    /// If a log cannot be closed.
    pub fn stop(self) -> Result<(), Failure> {
        self.server
            .stop()
            .map_err(|error| Failure::Reason(error.to_string()))
    }
}
