//! What can go wrong between this client and a cluster, by who can do something about it. Every
//! text is one sentence that names the address, what was tried and Kafka's name of the error.
//!
//! Errors are plain values that can be cloned: one broken connection fails many requests.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::ErrorCode;

/// A request did not get a usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The list of bootstrap addresses cannot be read.
    Bootstrap {
        /// The text given.
        given: String,
    },
    /// No connection to any of the addresses came about.
    Unreachable {
        /// Each address with the reason of its failure.
        tried: Vec<(String, String)>,
    },
    /// The connection broke before the answer came; the broker may have carried out the request.
    Disconnected {
        /// The broker ("host:port").
        address: String,
        /// Name of the API asked.
        api: &'static str,
        /// Why, in the words of the operating system where it spoke.
        reason: String,
    },
    /// No answer within the time allowed; the broker may have carried out the request.
    TimedOut {
        /// The broker ("host:port").
        address: String,
        /// Name of the API asked.
        api: &'static str,
        /// The time allowed.
        after: Duration,
    },
    /// The answer cannot be read; the connection is closed.
    Malformed {
        /// The broker ("host:port").
        address: String,
        /// Name of the API asked.
        api: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Broker and client have no version of the API in common.
    Unsupported {
        /// The broker ("host:port").
        address: String,
        /// Name of the API.
        api: &'static str,
        /// Versions this client speaks.
        ours: RangeInclusive<i16>,
        /// Versions the broker speaks, if it knows the API.
        theirs: Option<RangeInclusive<i16>>,
    },
    /// The cluster has no broker for the request: no leader, controller or coordinator is known.
    NoNode {
        /// What was looked for, for example `node 3`.
        wanted: String,
    },
    /// The broker answered with an error.
    Broker {
        /// Name of the API asked.
        api: &'static str,
        /// What the error is about, for example `topic "orders"`.
        subject: String,
        /// Kafka's code.
        code: ErrorCode,
        /// The broker's own words, if it sent any.
        message: Option<String>,
    },
}

impl ClientError {
    /// The broker's answer was this code, without words.
    pub(crate) fn broker(api: &'static str, subject: impl fmt::Display, code: ErrorCode) -> Self {
        Self::Broker {
            api,
            subject: subject.to_string(),
            code,
            message: None,
        }
    }

    /// True where the same request may succeed a little later or at another broker.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::NoNode { .. } => true,
            Self::Broker { code, .. } => is_retriable(*code),
            Self::Bootstrap { .. } | Self::Malformed { .. } | Self::Unsupported { .. } => false,
        }
    }

    /// Kafka's code, where a broker gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bootstrap { given } => write!(
                f,
                "`{given}` is no list of brokers: write host:port, several with commas between"
            ),
            Self::Unreachable { tried } => {
                write!(f, "cannot reach a broker at ")?;
                for (index, (address, reason)) in tried.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{address} ({reason})")?;
                }
                write!(f, ": check that it runs and that the address is right")
            }
            Self::Disconnected {
                address,
                api,
                reason,
            } => write!(f, "{api} to {address} got no answer: {reason}"),
            Self::TimedOut {
                address,
                api,
                after,
            } => write!(f, "{api} to {address} got no answer within {after:?}"),
            Self::Malformed {
                address,
                api,
                reason,
            } => write!(
                f,
                "the answer of {address} to {api} cannot be read: {reason}"
            ),
            Self::Unsupported {
                address,
                api,
                ours,
                theirs,
            } => write_unsupported(f, address, api, ours, theirs.as_ref()),
            Self::NoNode { wanted } => write!(f, "the cluster names no address for {wanted}"),
            Self::Broker {
                api,
                subject,
                code,
                message,
            } => {
                write!(f, "{api} failed for {subject}: {code}")?;
                match message.as_deref() {
                    Some(message) if !message.is_empty() => write!(f, " ({message})"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for ClientError {}

/// The list of Kafka's `RetriableException`s that a client of this kind can see.
pub(crate) fn is_retriable(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CorruptMessage
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::RequestTimedOut
            | ErrorCode::ReplicaNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotEnoughReplicasAfterAppend
            | ErrorCode::NotController
            | ErrorCode::KafkaStorageError
            | ErrorCode::FetchSessionIdNotFound
            | ErrorCode::InvalidFetchSessionEpoch
            | ErrorCode::ListenerNotFound
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::OffsetNotAvailable
            | ErrorCode::UnstableOffsetCommit
            | ErrorCode::ThrottlingQuotaExceeded
            | ErrorCode::UnknownTopicId
            | ErrorCode::InconsistentTopicId
    )
}

/// An answer with an error code becomes [`ClientError::Broker`].
pub(crate) fn check(
    api: &'static str,
    subject: impl FnOnce() -> String,
    code: ErrorCode,
    message: Option<&str>,
) -> Result<(), ClientError> {
    match code {
        ErrorCode::None => Ok(()),
        code => Err(ClientError::Broker {
            api,
            subject: subject(),
            code,
            message: message.map(str::to_owned),
        }),
    }
}

/// True for the codes that say: the coordinator is (or may be) another broker, look again.
pub(crate) fn is_coordinator_moved(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CoordinatorNotAvailable | ErrorCode::NotCoordinator
    )
}

fn write_unsupported(
    f: &mut fmt::Formatter<'_>,
    address: &str,
    api: &str,
    ours: &RangeInclusive<i16>,
    theirs: Option<&RangeInclusive<i16>>,
) -> fmt::Result {
    let (first, last) = (ours.start(), ours.end());
    match theirs {
        Some(theirs) => write!(
            f,
            "{address} speaks {api} in versions {} to {}, this client in {first} to {last}: \
             use a broker of Kafka 2.1 or later",
            theirs.start(),
            theirs.end()
        ),
        None => write!(f, "{address} does not know the API {api}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_names_address_action_and_cause() {
        let address = "10.0.0.1:9092".to_owned();
        let refused = ClientError::Unreachable {
            tried: vec![(address.clone(), "Connection refused".to_owned())],
        };
        assert_eq!(
            refused.to_string(),
            "cannot reach a broker at 10.0.0.1:9092 (Connection refused): check that it runs and \
             that the address is right"
        );
        let unsupported = ClientError::Unsupported {
            address,
            api: "Produce",
            ours: 3..=13,
            theirs: Some(0..=2),
        };
        assert!(unsupported.to_string().contains("versions 0 to 2"));
        assert!(!unsupported.is_retriable());
        let broker = ClientError::Broker {
            api: "CreateTopics",
            subject: "topic \"a\"".to_owned(),
            code: ErrorCode::TopicAlreadyExists,
            message: None,
        };
        assert_eq!(
            broker.to_string(),
            "CreateTopics failed for topic \"a\": TOPIC_ALREADY_EXISTS"
        );
    }

    #[test]
    fn only_errors_that_can_pass_are_retriable() {
        assert!(is_retriable(ErrorCode::NotLeaderOrFollower));
        assert!(!is_retriable(ErrorCode::MessageTooLarge));
        assert!(!is_retriable(ErrorCode::None));
    }
}
