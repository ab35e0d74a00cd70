//! A dead letter as the commands see it: the record, its place, what its headers say, and what is
//! to be sent when it goes back.

use bytes::Bytes;

use super::selection::Position;
use crate::client::dead_letter::{DeadLetter, ORIGIN, Place, REPLAYS, is_of_letter};
use crate::client::producer::partition_of_key;
use crate::client::{ConsumedRecord, ProducerRecord, TopicPartition};

/// A record of a dead letter topic.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Where it is.
    pub place: Place,
    /// Key, value, headers, timestamp.
    pub record: ConsumedRecord,
    /// What its headers say.
    pub dead: DeadLetter,
}

impl Letter {
    /// Reads a record of this partition.
    pub fn new(partition: &TopicPartition, record: ConsumedRecord) -> Self {
        Self {
            place: Place {
                topic: partition.topic.clone(),
                partition: partition.partition,
                offset: record.offset,
            },
            dead: DeadLetter::read(&record.headers),
            record,
        }
    }

    /// Where it is, as the commands take it.
    pub fn position(&self) -> Position {
        Position {
            partition: self.place.partition,
            offset: self.place.offset,
        }
    }

    /// What it is a letter of: the place of the record that failed, or its own if nobody says.
    pub fn origin(&self) -> Place {
        self.dead.origin().unwrap_or_else(|| self.place.clone())
    }

    /// The name under which it is listed: the kind of error, or else what it says.
    pub fn error(&self) -> &str {
        let error = self.dead.error.as_ref().or(self.dead.message.as_ref());
        error.map_or("(not said)", String::as_str)
    }

    /// True without anything to send: brokers can be told to leave key and value out.
    pub fn is_empty(&self) -> bool {
        self.record.key.is_none() && self.record.value.is_none()
    }

    /// The partition of the target that it goes to. Back to its topic that is the one it came from,
    /// so that its key keeps its order whichever partitioner was used; elsewhere its key decides.
    pub fn partition_of(&self, target: &str, partitions: i32) -> i32 {
        let is_back = self.dead.topic.as_deref() == Some(target);
        let origin = self
            .dead
            .partition
            .filter(|index| is_back && *index < partitions);
        origin.unwrap_or_else(|| match &self.record.key {
            Some(key) => partition_of_key(key, partitions),
            None => self.place.partition % partitions.max(1),
        })
    }

    /// What is sent: the record as it was, without what made it a dead letter, with what it is a
    /// copy of and how often it was sent.
    pub fn to_record(&self, replays: u32) -> ProducerRecord {
        let headers = self.record.headers.iter();
        let own = headers.filter(|(name, _)| !is_of_letter(name)).cloned();
        let text = |name: &'static str, value: String| {
            (
                Bytes::from_static(name.as_bytes()),
                Some(Bytes::from(value)),
            )
        };
        let ours = [
            text(ORIGIN, self.origin().to_string()),
            text(REPLAYS, replays.to_string()),
        ];
        let timestamp = self.dead.timestamp.unwrap_or(self.record.timestamp);
        ProducerRecord {
            key: self.record.key.clone(),
            value: self.record.value.clone(),
            headers: own.chain(ours).collect(),
            timestamp: Some(timestamp).filter(|time| *time >= 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::dlq::test_letter::letter;

    #[test]
    fn it_goes_back_as_the_record_that_it_was() {
        let mut letter = letter((0, 7), (3, 41), "alice");
        let record = letter.to_record(2);
        assert_eq!(record.key.as_deref(), Some(&b"alice"[..]));
        assert_eq!(record.value.as_deref(), Some(&b"value of 41"[..]));
        assert_eq!(record.timestamp, Some(1_007));
        let names: Vec<&[u8]> = record.headers.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(
            names,
            [&b"trace"[..], b"forebay.origin", b"forebay.replays"]
        );
        let value = |index: usize| record.headers[index].1.clone().unwrap();
        assert_eq!((value(1), value(2)), ("orders/3/41".into(), "2".into()));

        letter.dead.timestamp = Some(5);
        assert_eq!(letter.to_record(1).timestamp, Some(5));
    }

    #[test]
    fn it_goes_to_its_partition_and_elsewhere_to_that_of_its_key() {
        let mut letter = letter((0, 7), (3, 41), "alice");
        assert_eq!(letter.partition_of("orders", 10), 3);
        let of_key = partition_of_key(b"alice", 10);
        assert_eq!(letter.partition_of("others", 10), of_key);
        assert_eq!(
            letter.partition_of("orders", 3),
            partition_of_key(b"alice", 3)
        );
        letter.record.key = None;
        letter.place.partition = 12;
        assert_eq!(letter.partition_of("others", 10), 2);
    }

    #[test]
    fn without_an_origin_it_stands_for_itself() {
        let record = ConsumedRecord {
            offset: 5,
            timestamp: -1,
            key: None,
            value: None,
            headers: Vec::new(),
        };
        let letter = Letter::new(&TopicPartition::new("dlq", 2), record);
        assert_eq!(letter.origin().to_string(), "dlq/2/5");
        assert_eq!(letter.error(), "(not said)");
        assert_eq!(letter.position().to_string(), "2:5");
        assert!(letter.is_empty());
        assert_eq!(letter.to_record(1).timestamp, None);
    }
}
