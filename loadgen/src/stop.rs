//! Ctrl-C and its like. A run asks once, at its beginning, so that no signal is lost between two
//! of its sales or while it waits for a database; whoever may be stopped gets a copy. The second
//! signal ends the process at once.

use std::io::{self, Write};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;

/// Tells whether the run is to stop.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens from now on, on a thread of its own.
    ///
    /// # Errors
    /// If the system lets nobody listen.
    pub fn listen() -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::Reason(format!("cannot hear signals: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let mut signals = {
            let _inside = runtime.enter();
            Signals::listen().map_err(failed)?
        };
        let (tell, told) = watch::channel(false);
        std::thread::spawn(move || {
            runtime.block_on(async {
                signals.next().await;
                tell.send_replace(true);
                signals.next().await;
            });
            let last_word = format!("loadgen: {}\n", Failure::Interrupted);
            let _ = io::stderr().write_all(last_word.as_bytes());
            std::process::exit(Failure::Interrupted.exit_code().into());
        });
        Ok(Self(told))
    }

    /// Resolves when the run is to stop.
    pub async fn asked(self) {
        let Self(mut told) = self;
        // Whoever tells lives as long as the process.
        let _ = told.wait_for(|stop| *stop).await;
    }

    /// What `work` comes to, unless the run is to stop before.
    ///
    /// # Errors
    /// [`Failure::Interrupted`], or that of `work`.
    pub async fn or<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            () = self.clone().asked() => Err(Failure::Interrupted),
            ended = work => ended,
        }
    }

    /// Goes on only if the run is not to stop.
    ///
    /// # Errors
    /// [`Failure::Interrupted`].
    pub fn check(&self) -> Result<(), Failure> {
        match *self.0.borrow() {
            true => Err(Failure::Interrupted),
            false => Ok(()),
        }
    }
}

/// Resolves when the user or the system asks the process to stop.
pub(crate) async fn stop_asked() {
    match Signals::listen() {
        Ok(mut signals) => signals.next().await,
        Err(_) => std::future::pending().await,
    }
}

/// The signals that ask a process to stop; needs tokio's runtime.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, raise};

    #[test]
    fn a_signal_is_heard_by_whoever_asks_later_and_by_everybody() {
        let stop = Stop::listen().unwrap();
        assert_eq!(stop.check(), Ok(()));
        raise(Signal::SIGTERM).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.unwrap();
        runtime.block_on(stop.clone().asked());
        assert_eq!(stop.check(), Err(Failure::Interrupted));
        let never = stop.or(std::future::pending::<Result<(), Failure>>());
        assert_eq!(runtime.block_on(never), Err(Failure::Interrupted));
    }
}
