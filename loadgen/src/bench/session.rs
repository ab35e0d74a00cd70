//! What surrounds a run: the broker (one that runs already, or one inside the process), the thread
//! the load runs on, the cluster, and the topics that were created and have to go again.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;
use tempfile::TempDir;

use super::args::Target;
use super::result::Outcome;
use crate::broker::InProcess;
use crate::cluster::{Cluster, Topic};
use crate::failure::Failure;
use crate::host::{BrokerProcess, Host};
use crate::live::Live;
use crate::transport::{Runtime, Transport};

/// Everything that is up before the load begins.
pub struct Session {
    target: Target,
    runtime: Runtime,
    broker: Option<InProcess>,
    bootstrap: String,
    folder: Option<TempDir>,
}

/// Under what conditions figures came about.
#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    /// Where the broker was.
    pub bootstrap: String,
    /// What drove the load's sockets.
    pub client_io: Transport,
    /// The machine.
    pub host: Host,
}

/// What a mode works with.
pub struct Measuring {
    /// The broker's side.
    pub cluster: Cluster,
    /// Whose CPU time and memory are the broker's.
    pub process: BrokerProcess,
    /// Where progress is shown.
    pub live: RefCell<Live>,
    target: Target,
    topics: Cell<Vec<String>>,
}

impl Session {
    /// Starts what is needed. The broker comes first: what it starts must not inherit the pinning
    /// of the load.
    ///
    /// # Errors
    /// If the broker inside does not start, a CPU or a ring is not to be had.
    pub fn start(target: &Target) -> Result<Self, Failure> {
        let (broker, bootstrap, folder) = match &target.bootstrap {
            Some(bootstrap) => (None, bootstrap.clone(), None),
            None => {
                let folder = tempfile::Builder::new().prefix("loadgen-").tempdir();
                let folder = folder.map_err(|error| {
                    Failure::Reason(format!("cannot make a temporary folder: {error}"))
                })?;
                let broker = InProcess::start(folder.path(), target.cores.as_deref(), &target.set)?;
                let bootstrap = broker.bootstrap();
                (Some(broker), bootstrap, Some(folder))
            }
        };
        if let Some(cpu) = target.pin {
            pin(cpu)?;
        }
        let (runtime, word) = Runtime::new(target.client_io)?;
        if let Some(word) = word {
            tracing::warn!("{word}");
        }
        Ok(Self {
            target: target.clone(),
            runtime,
            broker,
            bootstrap,
            folder,
        })
    }

    /// Runs a mode, then deletes the topics that it created.
    ///
    /// # Errors
    /// Those of the mode, and if the broker cannot be reached.
    pub fn block_on(
        &self,
        mode: impl AsyncFnOnce(&Measuring) -> Result<Outcome, Failure>,
    ) -> Result<Outcome, Failure> {
        self.runtime.block_on(async {
            let transport = self.runtime.transport();
            let measuring = Measuring {
                cluster: Cluster::connect(transport, &self.bootstrap).await?,
                process: self.broker_process(),
                live: RefCell::new(Live::stderr()),
                target: self.target.clone(),
                topics: Cell::default(),
            };
            let outcome = mode(&measuring).await;
            measuring.live.borrow_mut().end();
            // What lies in the temporary folder goes with it.
            if self.broker.is_none() && !self.target.keep_topic {
                measuring.delete_topics().await;
            }
            outcome
        })
    }

    fn broker_process(&self) -> BrokerProcess {
        match (&self.broker, self.target.broker_pid) {
            (Some(_), _) => BrokerProcess::Shards,
            (None, Some(pid)) => BrokerProcess::Process(pid),
            (None, None) => BrokerProcess::find(&self.bootstrap),
        }
    }

    /// The conditions of this run.
    pub fn conditions(&self) -> Conditions {
        let data_dir = self.broker.as_ref().map(InProcess::data_dir);
        Conditions {
            bootstrap: self.bootstrap.clone(),
            client_io: self.runtime.transport(),
            host: Host::look(None, data_dir),
        }
    }

    /// Stops what was started.
    ///
    /// # Errors
    /// If the broker inside cannot close its logs.
    pub fn stop(self) -> Result<(), Failure> {
        drop(self.runtime);
        let stopped = self.broker.map_or(Ok(()), InProcess::stop);
        drop(self.folder);
        stopped
    }
}

impl Measuring {
    /// The topic that was asked for.
    ///
    /// # Errors
    /// If it cannot be created or used.
    pub async fn topic(&self) -> Result<Topic, Failure> {
        let target = &self.target;
        let name = target.topic.clone().unwrap_or_else(|| {
            let since_1970 = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            format!("loadgen-{}", since_1970.as_millis())
        });
        let topic = self
            .cluster
            .topic(&name, target.partitions, &target.topic_set)
            .await?;
        if topic.created {
            let mut topics = self.topics.take();
            topics.push(name);
            self.topics.set(topics);
        }
        Ok(topic)
    }

    /// Load before what is counted, and load that is.
    pub fn times(&self) -> (Duration, Duration) {
        (self.target.warm_up(), self.target.duration())
    }

    async fn delete_topics(&self) {
        for topic in self.topics.take() {
            if let Err(failure) = self.cluster.delete(&topic).await {
                tracing::warn!(%failure, "a topic is left behind");
            }
        }
    }
}

/// Keeps the calling thread on one CPU.
fn pin(cpu: usize) -> Result<(), Failure> {
    let this = Pid::from_raw(0);
    let refused = |why: String| Failure::Reason(format!("--pin {cpu} is not possible: {why}"));
    let allowed = sched_getaffinity(this).map_err(|error| refused(error.to_string()))?;
    if !allowed.is_set(cpu).unwrap_or(false) {
        let may: Vec<_> = (0..CpuSet::count())
            .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
            .map(|cpu| cpu.to_string())
            .collect();
        return Err(refused(format!(
            "this process may use CPU {}",
            may.join(", ")
        )));
    }
    let mut one = CpuSet::new();
    one.set(cpu)
        .and_then(|()| sched_setaffinity(this, &one))
        .map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_is_not_there_is_refused_with_those_that_are() {
        let refused = pin(1_000).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("may use CPU"), "{refused}");
    }
}
