//! The client library: settings that all parts share, the topic, and which errors pass by
//! themselves. A broker that goes away while a part runs is waited for; one that is not there at
//! the start is most likely a wrong address, and refused.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::failure::Failure;
use crate::settings::Settings;

/// How long a part waits for its first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// How many partitions a new topic gets: that many processes can share a service's work.
const PARTITIONS: i32 = 4;

/// What every client is told.
pub fn client(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.bootstrap)
        // A broker that comes back is found within half a second.
        .set("reconnect.backoff.max.ms", "500");
    config
}

/// Creates a topic that keeps everything, unless it is there.
pub fn ensure_topic(settings: &Settings, topic: &str) -> Result<(), Failure> {
    let admin: AdminClient<DefaultClientContext> = client(settings).create()?;
    let unreachable = |error: KafkaError| {
        Failure::new(format!(
            "no broker answers at {} ({error}): start one, or give its address with --bootstrap",
            settings.bootstrap
        ))
    };
    let connected = admin.inner().fetch_metadata(None, FIRST_ANSWER);
    connected.map_err(unreachable)?;
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1))
        .set("retention.ms", "-1")
        .set("retention.bytes", "-1");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("cannot wait: {error}")))?;
    let options = AdminOptions::new().request_timeout(Some(FIRST_ANSWER));
    for created in runtime.block_on(admin.create_topics([&new], &options))? {
        match created {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(Failure::new(format!(
                    "cannot create the topic {topic}: {code}"
                )));
            }
        }
    }
    Ok(())
}

/// The partitions of the topic.
pub fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>, Failure> {
    let metadata = consumer.fetch_metadata(Some(topic), FIRST_ANSWER)?;
    let found = metadata.topics().first();
    let partitions = found.map_or(&[][..], |topic| topic.partitions());
    if partitions.is_empty() {
        return Err(Failure::new(format!(
            "the broker does not know the topic {topic} yet"
        )));
    }
    Ok(partitions.iter().map(|partition| partition.id()).collect())
}

/// What a poll said instead of a record: fatal errors end the process, others pass by themselves.
pub fn pass_over(consumer: &BaseConsumer, error: &KafkaError) -> Result<(), Failure> {
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
        return Err(Failure::new(format!(
            "the topic no longer has what comes next: {error}"
        )));
    }
    // Another process with the same `--instance`, for example.
    if let Some((code, text)) = consumer.client().fatal_error() {
        return Err(Failure::new(format!("{text} ({code})")));
    }
    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::BrokerTransportFailure) {
        eprintln!("{error}");
    }
    Ok(())
}
