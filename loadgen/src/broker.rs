//! The broker inside the process: the library that `forebay serve` runs, with a real listener on a
//! free loopback port and real files in a temporary folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forebay::config::Config;
use forebay::io::backend::Choice;
use forebay::server::Server;

use crate::failure::Failure;

/// A running broker; [`InProcess::stop`] ends it.
pub struct InProcess {
    server: Server,
    data_dir: PathBuf,
}

impl InProcess {
    /// Starts a broker with its data in `data_dir`.
    ///
    /// # Errors
    /// If it cannot start, in its own words.
    pub fn start(
        data_dir: &Path,
        cores: Option<&str>,
        settings: &[(String, String)],
    ) -> Result<Self, Failure> {
        let config = Config {
            io: Choice::Auto,
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: data_dir.to_owned(),
            node_id: 1,
            cores: seats(cores)?,
            advertise: None,
            broker_settings: settings.iter().cloned().collect::<BTreeMap<_, _>>(),
        };
        let server = Server::start(&config).map_err(|error| Failure::Broker(error.to_string()))?;
        Ok(Self {
            server,
            data_dir: data_dir.to_owned(),
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
            .map_err(|error| Failure::Broker(error.to_string()))
    }
}

/// "0,1" pins one shard to each of these cores, "2" is a count of shards that run anywhere.
fn seats(cores: Option<&str>) -> Result<Vec<Option<usize>>, Failure> {
    let text = cores.unwrap_or("1");
    let refused = || Failure::Usage(format!("--cores {text}: use a list (0,1) or a count (2)"));
    let numbers: Vec<usize> = text
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| refused())?;
    match numbers[..] {
        [0] => Err(refused()),
        [count] => Ok(vec![None; count]),
        _ => Ok(numbers.into_iter().map(Some).collect()),
    }
}
