//! The memory of one shard's loads: so many buffers at most, some of which are kept for the next
//! load. A pipe counts as a buffer, its memory is the kernel's. Who finds none left waits, and a
//! send whose peer takes nothing gives its buffer back to those who wait.
//!
//! Invariant: buffers in use, kept and in flight together are never more than the bound.

use super::FetchPath;
use super::loading::{Buffer, Pipe, Target};
use std::io;
use std::sync::Arc;

/// Buffers that are kept while nobody needs them.
const SPARES_MAX: usize = 4;

/// All buffers of one shard.
#[derive(Debug)]
pub(super) struct Buffers {
    count_max: usize,
    spares: Vec<Buffer>,
    tickets: Arc<()>,
}

/// A buffer's or a pipe's place among those there may be, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket(#[expect(dead_code, reason = "its strong count is what counts")] Arc<()>);

impl Buffers {
    /// None yet, and never more than `count_max`, which is at least 1.
    pub(super) fn new(count_max: usize) -> Self {
        Self {
            count_max: count_max.max(1),
            spares: Vec::new(),
            tickets: Arc::default(),
        }
    }

    /// How many [`Buffers::target`] would give.
    pub(super) fn room(&self) -> usize {
        (self.count_max - self.alive()) + self.spares.len()
    }

    /// What a load on this path goes to; `None` while all are in use.
    pub(super) fn target(&mut self, path: FetchPath) -> io::Result<Option<Target>> {
        let spare = self.spares.pop();
        let target = match (path, spare) {
            (FetchPath::Splice, spare) => {
                drop(spare);
                let ticket = self.ticket();
                ticket.map(|t| Pipe::new(t).map(Target::Pipe)).transpose()?
            }
            (_, Some(spare)) => Some(Target::Buffer(spare)),
            (_, None) => self.ticket().map(|t| Target::Buffer(Buffer::new(t))),
        };
        Ok(target)
    }

    /// Takes back what a send does not need any more.
    pub(super) fn keep(&mut self, target: Option<Target>) {
        if let Some(Target::Buffer(buffer)) = target
            && self.spares.len() < SPARES_MAX
        {
            self.spares.push(buffer);
        }
    }

    fn ticket(&self) -> Option<Ticket> {
        (self.alive() < self.count_max).then(|| Ticket(self.tickets.clone()))
    }

    /// Buffers and pipes that there are, wherever they are.
    fn alive(&self) -> usize {
        Arc::strong_count(&self.tickets) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_than_the_bound() {
        let mut buffers = Buffers::new(2);
        let take = |buffers: &mut Buffers, path| buffers.target(path).unwrap();
        let first = take(&mut buffers, FetchPath::Auto);
        let second = take(&mut buffers, FetchPath::Splice);
        assert!(first.is_some() && second.is_some() && buffers.room() == 0);
        assert!(take(&mut buffers, FetchPath::Copy).is_none());
        buffers.keep(first);
        assert_eq!(buffers.room(), 1, "it is kept, and serves again");
        let pipe = take(&mut buffers, FetchPath::Splice);
        assert!(
            pipe.is_some(),
            "a pipe takes the place of a buffer that is kept"
        );
        assert!(take(&mut buffers, FetchPath::Auto).is_none());
        drop(second);
        assert!(take(&mut buffers, FetchPath::Auto).is_some());
    }
}
