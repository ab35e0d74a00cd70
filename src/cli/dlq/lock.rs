//! One replay or skip at a time: whoever is the member of a consumer group that has the journal's
//! partition may write. The group's coordinator is asked again before every batch is sent, so that
//! one who was taken for dead stops; a process that dies gives way after the session timeout.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::journal;
use crate::base::ErrorCode;
use crate::cli::output::{Failure, note};
use crate::client::{
    Assignor, Client, ClientError, Consumer, ConsumerError, ConsumerOptions, Event, Subscription,
    Tcp, TopicPartition,
};

/// A member that is not heard for so long has lost its place. What a broker still takes from the
/// connection of a process that died, it has taken by then.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(30);
/// A group forms within this time, the session timeout of a dead member included.
const FORMS_WITHIN: Duration = Duration::from_secs(60);
/// A member that got nothing waits so long for another division.
const DIVIDED_WITHIN: Duration = Duration::from_secs(3);
/// After this time somebody is told why it takes so long.
const PATIENCE: Duration = Duration::from_secs(5);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The right to write the journal of a dead letter topic.
pub struct Lock {
    consumer: Consumer<Tcp>,
    journal: TopicPartition,
    letters: String,
}

impl Lock {
    /// Waits for the right to write; the journal must be there.
    ///
    /// Errors: another process has it and keeps it.
    pub async fn take(client: &Client<Tcp>, letters: &str) -> Result<Self, Failure> {
        let journal = TopicPartition::new(&journal::topic_of(letters), 0);
        let options = ConsumerOptions {
            group: Some(format!("forebay-dlq-{letters}")),
            // Whoever has the partition keeps it while others come and go.
            assignor: Assignor::CooperativeSticky,
            session_timeout: SESSION_TIMEOUT,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            rebalance_timeout: REBALANCE_TIMEOUT,
            ..ConsumerOptions::new(Subscription::Topics(vec![journal.topic.clone()]))
        };
        let consumer = Consumer::new(&client.with_own_connections(), options).await?;
        let lock = Self {
            consumer,
            journal,
            letters: letters.to_owned(),
        };
        let waited = {
            let taken = lock.wait();
            tokio::pin!(taken);
            tokio::select! {
                waited = &mut taken => waited,
                () = sleep(PATIENCE) => {
                    note("waiting for the session of an earlier replay or skip to end");
                    taken.await
                }
            }
        };
        match waited {
            Ok(()) => Ok(lock),
            Err(failure) => {
                lock.release().await;
                Err(failure)
            }
        }
    }

    async fn wait(&self) -> Result<(), Failure> {
        let mut deadline = Instant::now() + FORMS_WITHIN;
        let mut others = false;
        while let Ok(event) = timeout_at(deadline, self.consumer.next()).await {
            if let Event::Assigned(partitions) = event? {
                if partitions.contains(&self.journal) {
                    // Only having it counts.
                    self.consumer.pause(std::slice::from_ref(&self.journal));
                    return Ok(());
                }
                others = true;
                deadline = deadline.min(Instant::now() + DIVIDED_WITHIN);
            }
        }
        let letters = &self.letters;
        Err(Failure::Failed(match others {
            true => format!(
                "another replay or skip of \"{letters}\" is at work: wait until it has ended"
            ),
            false => format!(
                "the group \"forebay-dlq-{letters}\" did not form within {} s: see `forebay group \
                 describe`",
                FORMS_WITHIN.as_secs()
            ),
        }))
    }

    /// Asks the coordinator whether we still have the right.
    ///
    /// Errors: another process may have it.
    pub async fn check(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + REBALANCE_TIMEOUT;
        loop {
            while let Some(event) = self.consumer.next_now() {
                if matches!(event?, Event::Revoked(_)) {
                    return Err(self.lost());
                }
            }
            // Refused unless we are a member as of the last division.
            match self
                .consumer
                .commit(&[(self.journal.clone(), 0, None)])
                .await
            {
                Ok(()) => return Ok(()),
                // Others come or go; or we are out, and learn it with the next heartbeat.
                Err(error) if is_moving(&error) && Instant::now() < deadline => {
                    sleep(ASK_AGAIN_AFTER).await;
                }
                Err(error) if is_moving(&error) => return Err(self.lost()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives the right back; without it, others wait for the session to end.
    pub async fn release(self) {
        // Nothing depends on it.
        let _ = self.consumer.close().await;
    }

    fn lost(&self) -> Failure {
        Failure::Failed(format!(
            "another replay or skip of \"{}\" took this one for dead and is at work: run it again \
             when that has ended",
            self.letters
        ))
    }
}

fn is_moving(error: &ConsumerError) -> bool {
    let ConsumerError::Client(ClientError::Broker { code, .. }) = error else {
        return false;
    };
    matches!(
        code,
        ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId
    )
}
