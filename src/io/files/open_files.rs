//! The descriptors that the directories of one [`super::DataDir`] keep open, so that any number of
//! partitions fits the process's limit. One that was not used for long gives its place to a new
//! one, whosever it is (second chance: a hand goes round and passes what was used since its last
//! visit).
//!
//! Invariant: at most `files_max` are kept. Clones of a kept file may live on elsewhere.

use crate::base::dir::File;

/// Where a file was kept; it may have given way since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    at: usize,
    /// Tells it from files that were kept there before and after.
    number: u64,
}

#[derive(Debug)]
struct Kept {
    file: Option<File>,
    number: u64,
    used: bool,
}

/// The files that are kept open.
#[derive(Debug)]
pub(super) struct OpenFiles {
    places: Vec<Kept>,
    vacant: Vec<usize>,
    hand: usize,
    files_max: usize,
    next_number: u64,
}

impl OpenFiles {
    /// Keeps at most `files_max`, and at least one.
    pub fn new(files_max: usize) -> Self {
        Self {
            places: Vec::new(),
            vacant: Vec::new(),
            hand: 0,
            files_max: files_max.max(1),
            next_number: 0,
        }
    }

    /// The file that was kept there, if it still is.
    pub fn get(&mut self, place: Place) -> Option<File> {
        let kept = self.places.get_mut(place.at)?;
        if kept.number != place.number {
            return None;
        }
        kept.used = true;
        kept.file.clone()
    }

    /// Keeps a file.
    pub fn keep(&mut self, file: File) -> Place {
        let at = match self.vacant.pop() {
            Some(at) => at,
            None if self.places.len() < self.files_max => {
                self.places.push(Kept {
                    file: None,
                    number: 0,
                    used: false,
                });
                self.places.len() - 1
            }
            None => self.least_used(),
        };
        self.next_number += 1;
        let number = self.next_number;
        self.places[at] = Kept {
            file: Some(file),
            number,
            // One that is used only once goes before those that are used again.
            used: false,
        };
        Place { at, number }
    }

    /// Closes the file that was kept there, if it still is.
    pub fn close(&mut self, place: Place) {
        let kept = &mut self.places[place.at];
        if kept.number == place.number && kept.file.take().is_some() {
            self.vacant.push(place.at);
        }
    }

    /// How many are kept.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    fn least_used(&mut self) -> usize {
        loop {
            let at = self.hand;
            self.hand = (at + 1) % self.places.len();
            if !std::mem::take(&mut self.places[at].used) {
                return at;
            }
        }
    }
}
