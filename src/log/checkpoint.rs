//! The one file of a log that is ours: what must survive a crash and cannot be derived from the
//! batches. Text with a CRC, replaced as a whole and durably.

use super::OpenError;
use super::files::{CHECKPOINT_FILE, read_file};
use crate::base::Offset;
use crate::base::dir::Dir;
use std::collections::BTreeMap;
use std::io;

/// First line of the file: name and version.
const TITLE: &str = "forebay-checkpoint 1";
const FILE_BYTES_MAX: u64 = 4096;

/// What the log promises across a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Records below are deleted, whether their files are gone or not.
    pub log_start_offset: Offset,
    /// Everything below was synced: after an unclean stop reading begins here, and what is missing
    /// below is lost data, not a torn tail.
    pub recovery_point: Offset,
}

impl Checkpoint {
    /// Reads the file, if it is one of `files`; `None` if there is none, as in a directory from
    /// Kafka.
    pub fn load(
        dir: &mut dyn Dir,
        files: &BTreeMap<String, u64>,
    ) -> Result<Option<Self>, OpenError> {
        let Some(contents) = read_file(dir, files, CHECKPOINT_FILE, FILE_BYTES_MAX)? else {
            return Ok(None);
        };
        match Self::decode(&contents) {
            Some(checkpoint) => Ok(Some(checkpoint)),
            None => Err(OpenError::Refused(format!(
                "{CHECKPOINT_FILE} is damaged or of an unknown version; without it deleted \
                 records come back and the whole log is read: remove it to accept that"
            ))),
        }
    }

    /// Puts the file in place; waits for the device.
    pub fn store(&self, dir: &mut dyn Dir) -> io::Result<()> {
        dir.replace(CHECKPOINT_FILE, self.encode().as_bytes())
    }

    fn encode(&self) -> String {
        let body = format!(
            "{TITLE}\nlog_start_offset {}\nrecovery_point {}\n",
            self.log_start_offset, self.recovery_point
        );
        let crc = crc32c::crc32c(body.as_bytes());
        format!("{body}crc32c {crc:08x}\n")
    }

    fn decode(contents: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(contents).ok()?;
        let mut lines = text.lines();
        let title = lines.next()?;
        let checkpoint = Self {
            log_start_offset: number(lines.next()?, "log_start_offset ")?,
            recovery_point: number(lines.next()?, "recovery_point ")?,
        };
        // Whatever the form, only the exact bytes that we would write are accepted.
        (title == TITLE && checkpoint.encode() == text).then_some(checkpoint)
    }
}

fn number(line: &str, name: &str) -> Option<Offset> {
    let value: Offset = line.strip_prefix(name)?.parse().ok()?;
    (value >= 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_what_it_wrote() {
        let checkpoint = Checkpoint {
            log_start_offset: 5,
            recovery_point: 1234,
        };
        let text = checkpoint.encode();
        assert_eq!(
            text,
            "forebay-checkpoint 1\nlog_start_offset 5\nrecovery_point 1234\ncrc32c 9e8e99ae\n"
        );
        assert_eq!(Checkpoint::decode(text.as_bytes()), Some(checkpoint));
        for position in 0..text.len() {
            assert_eq!(Checkpoint::decode(&text.as_bytes()[..position]), None);
            let mut damaged = text.clone().into_bytes();
            damaged[position] ^= 1;
            assert_eq!(Checkpoint::decode(&damaged), None, "byte {position}");
        }
    }
}
