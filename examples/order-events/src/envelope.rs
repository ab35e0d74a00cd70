//! What surrounds every event: who it is, what it is, when it happened and what it follows from.
//! The value of a record is one envelope as JSON. The id never changes, however often the event is
//! published; it is what consumers recognise an event by.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::events::Event;
use crate::failure::Rejected;

/// An event as it travels. Fields that this code does not know are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Given once, when the event is written to an outbox.
    pub id: Uuid,
    /// Which event.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Which version of its data, from 1.
    pub version: u32,
    /// When it happened: milliseconds since 1970, UTC.
    pub time_ms: i64,
    /// The same in all events that go back to one order.
    pub correlation_id: Uuid,
    /// The event that this one answers; none for the first.
    pub causation_id: Option<Uuid>,
    /// The event itself.
    pub data: Value,
}

impl Envelope {
    /// The first event of a correlation: `data` of this version.
    pub fn first(event_type: &str, version: u32, data: Value) -> Self {
        Self {
            id: Uuid::new_v4(),
            event_type: event_type.to_owned(),
            version,
            time_ms: now_ms(),
            correlation_id: Uuid::new_v4(),
            causation_id: None,
            data,
        }
    }

    /// An event that follows from this one.
    pub fn followed_by<E: Event>(&self, event: &E) -> Self {
        let data = serde_json::to_value(event).expect("events are plain data");
        Self {
            correlation_id: self.correlation_id,
            causation_id: Some(self.id),
            ..Self::first(E::TYPE, E::VERSION, data)
        }
    }

    /// From the value of a record.
    pub fn decode(value: Option<&[u8]>) -> Result<Self, Rejected> {
        serde_json::from_slice(value.unwrap_or_default()).map_err(|error| {
            Rejected::new("MalformedEnvelope", format!("not an envelope: {error}"))
        })
    }

    /// The value of a record.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("an envelope is plain data")
    }
}

/// The time: milliseconds since 1970, UTC.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::StockTaken;

    #[test]
    fn an_event_names_its_cause_and_keeps_the_correlation() {
        let first = Envelope::first("OrderPlaced", 3, Value::Null);
        let second = first.followed_by(&StockTaken {
            order_id: Uuid::new_v4(),
            quantity: 2,
        });
        assert_eq!(second.correlation_id, first.correlation_id);
        assert_eq!(second.causation_id, Some(first.id));
        assert_ne!(second.id, first.id);
        let read = Envelope::decode(Some(second.encode().as_bytes())).unwrap();
        assert_eq!(read, second);
    }

    #[test]
    fn what_is_no_envelope_is_refused_and_what_is_new_in_one_is_ignored() {
        for value in [None, Some("".as_bytes()), Some(b"{}"), Some(b"\xff")] {
            assert_eq!(
                Envelope::decode(value).unwrap_err().class,
                "MalformedEnvelope"
            );
        }
        let mut later = serde_json::to_value(Envelope::first("X", 1, Value::Null)).unwrap();
        later["tenant"] = "new".into();
        Envelope::decode(Some(later.to_string().as_bytes())).unwrap();
    }
}
