//! The ids of the last orders, by which one that comes again is noticed without asking the
//! database: like a cache beside the consumers that outlives any of them. It forgets the oldest.

use std::collections::{HashSet, VecDeque};

/// A window of ids.
#[derive(Debug)]
pub struct Seen {
    ids_max: usize,
    ids: HashSet<u64>,
    oldest_first: VecDeque<u64>,
}

impl Seen {
    /// An empty window of `ids_max` ids.
    pub fn new(ids_max: usize) -> Self {
        Self {
            ids_max,
            ids: HashSet::new(),
            oldest_first: VecDeque::new(),
        }
    }

    /// Whether the id comes for the first time, as far as the window reaches; it is noted.
    pub fn is_new(&mut self, id: u64) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.oldest_first.push_back(id);
        if self.oldest_first.len() > self.ids_max
            && let Some(forgotten) = self.oldest_first.pop_front()
        {
            self.ids.remove(&forgotten);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_until_the_window_has_passed_it() {
        let mut seen = Seen::new(2);
        assert!(seen.is_new(1) && seen.is_new(2));
        assert!(!seen.is_new(1));
        assert!(seen.is_new(3), "which pushes 1 out");
        assert!(seen.is_new(1) && !seen.is_new(3));
    }
}
