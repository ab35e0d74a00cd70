//! The broker inside the process: the library that `forebay serve` runs, with a real listener on a
//! free loopback port and real files in a temporary folder.

use std::path::{Path, PathBuf};

use forebay::config::{Config, ServeArgs};
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
    /// [`Failure::Usage`] for settings it refuses, [`Failure::Broker`] if it cannot start; both in
    /// its own words.
    pub fn start(
        data_dir: &Path,
        cores: Option<&str>,
        settings: &[(String, String)],
    ) -> Result<Self, Failure> {
        let args = ServeArgs {
            listen: Some("127.0.0.1:0".to_owned()),
            data_dir: Some(data_dir.display().to_string()),
            cores: cores.map(str::to_owned),
            set: settings
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            ..ServeArgs::default()
        };
        // The environment configures `forebay serve`, not a sale.
        let config =
            Config::from_sources(&args, []).map_err(|error| Failure::Usage(error.to_string()))?;
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
