//! A disk that forgets what was not synced: contents by sectors, names by the order of their
//! changes within a directory, as a file system with a journal does. It can stop in the middle of
//! anything (see [`Disk::stop_after`]): from then on every call fails and nothing changes, until
//! [`Disk::restart`]. What else is bad about it is in [`DiskFaults`].
//!
//! Invariant: what was synced before the machine lost power is there afterwards, bit by bit, until
//! [`Disk::flip`].

use crate::base::Space;
use crate::base::prng::Prng;
use nix::errno::Errno;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

/// What a device writes as a whole.
const SECTOR_BYTES: usize = 512;

/// What a sector of a new block holds if the power went before it was written, but not before the
/// file's size was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unwritten {
    /// The size did not get there either.
    #[default]
    Missing,
    /// Zeros.
    Zeros,
    /// What a removed file of the same directory had at the same place.
    Stale,
    /// Anything.
    Garbage,
}

/// What is bad about a disk, beside that it forgets. All off by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFaults {
    /// Of 100,000 changes but syncs, so many fail.
    pub write_failures: u64,
    /// Of 100,000 syncs, so many fail.
    pub sync_failures: u64,
    /// Of 100 reads and writes, so many do only a part.
    pub short: u64,
    /// Of 1,000 sectors that were written and not synced when the power went, so many have a wrong
    /// bit.
    pub rot: u64,
    /// See there.
    pub unwritten: Unwritten,
}

/// The data directory of one broker.
#[derive(Debug)]
pub struct Disk {
    inodes: Vec<Inode>,
    directories: Vec<Names>,
    /// The partitions' directories by name; the files of the root are in [`ROOT`].
    root: Names,
    operations: u64,
    stop_at: Option<u64>,
    stopped: bool,
    /// A sync has failed: what it should have stored is gone from everywhere but the page cache.
    pub damaged: bool,
    /// Files of which the page cache has what a failed sync should have stored.
    believed: BTreeSet<usize>,
    /// There is no room: nothing can grow.
    pub full: bool,
    /// How bad it is now.
    pub faults: DiskFaults,
}

/// The directory that holds the files of the data directory itself.
pub const ROOT: usize = 0;

/// Names of a directory, now and on stable storage.
#[derive(Debug, Default)]
struct Names {
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    changes: VecDeque<NameChange>,
    /// Number of changes that are durable or were lost.
    settled: u64,
}

#[derive(Debug)]
enum NameChange {
    Link(String, usize),
    Unlink(String),
    /// One step of the journal: never both names, never none.
    Rename(String, String, usize),
}

#[derive(Debug, Default)]
struct Inode {
    /// Where it was created.
    directory: usize,
    contents: Vec<u8>,
    durable: Vec<u8>,
    /// What happened since, with a number of its own each.
    changes: VecDeque<(u64, Change)>,
    next_change: u64,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            inodes: Vec::new(),
            directories: vec![Names::default()],
            root: Names::default(),
            operations: 0,
            stop_at: None,
            stopped: false,
            damaged: false,
            believed: BTreeSet::new(),
            full: false,
            faults: DiskFaults::default(),
        }
    }
}

impl Disk {
    /// Stops before the change after `operations` more.
    pub fn stop_after(&mut self, operations: u64) {
        self.stop_at = Some(self.operations + operations);
    }

    /// Takes [`Disk::stop_after`] back, if it has not struck.
    pub fn disarm(&mut self) {
        self.stop_at = None;
    }

    /// True since the operation given to [`Disk::stop_after`], or [`Disk::stop`].
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Stops now.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Goes on where it stopped.
    pub fn restart(&mut self) {
        self.stop_at = None;
        self.stopped = false;
    }

    /// The machine has lost its power: of what was not synced some is there, the rest is not.
    pub fn lose_power(&mut self, prng: &mut Prng) {
        self.damaged = false;
        self.believed.clear();
        self.root.lose(prng);
        for names in &mut self.directories {
            names.lose(prng);
        }
        let removed = self.removed();
        for inode in &mut self.inodes {
            let files = removed.get(&inode.directory);
            let stale = files.map(|files| &files[prng.below(files.len() as u64) as usize]);
            let stale = stale.map_or(&[][..], Vec::as_slice);
            inode.lose(prng, &self.faults, stale);
        }
    }

    /// By directory, what files held that have no name any more: their blocks may be used again.
    /// No file system that is worth its name shows the blocks of other directories' files.
    fn removed(&self) -> BTreeMap<usize, Vec<Vec<u8>>> {
        let mut removed: BTreeMap<_, Vec<_>> = BTreeMap::new();
        if self.faults.unwritten != Unwritten::Stale {
            return removed;
        }
        let names = self.directories.iter();
        let live: BTreeSet<_> = names.flat_map(|names| names.live.values()).collect();
        for (at, inode) in self.inodes.iter().enumerate() {
            if !live.contains(&at) && inode.contents.len() >= SECTOR_BYTES {
                let files = removed.entry(inode.directory).or_default();
                files.push(inode.contents.clone());
            }
        }
        removed
    }

    /// A bit of a file changes by itself, on the disk and in the page cache.
    pub fn flip(&mut self, inode: u64, position: usize, bit: u8) {
        let inode = &mut self.inodes[inode as usize];
        for bytes in [&mut inode.contents, &mut inode.durable] {
            bytes[position] ^= 1 << bit;
        }
    }

    /// The whole of a file, if all of it is on stable storage.
    pub fn synced(&self, inode: u64) -> Option<&[u8]> {
        let inode = &self.inodes[inode as usize];
        inode.changes.is_empty().then_some(&inode.durable)
    }

    /// Counts a change, and fails it if its time has come, or at this rate.
    fn change_or_fail(&mut self, prng: &mut Prng, failures: u64) -> io::Result<()> {
        self.operations += 1;
        if self.stop_at.is_some_and(|at| self.operations > at) {
            self.stopped = true;
        }
        self.check_running()?;
        match failures > 0 && prng.below(100_000) < failures {
            true => Err(Errno::EIO.into()),
            false => Ok(()),
        }
    }

    fn change(&mut self, prng: &mut Prng) -> io::Result<()> {
        self.change_or_fail(prng, self.faults.write_failures)
    }

    /// A change that needs room.
    fn grow(&mut self, prng: &mut Prng) -> io::Result<()> {
        self.change(prng)?;
        match self.full {
            true => Err(Errno::ENOSPC.into()),
            false => Ok(()),
        }
    }

    fn check_running(&self) -> io::Result<()> {
        match self.stopped {
            true => Err(io::Error::other("the machine has stopped")),
            false => Ok(()),
        }
    }

    fn inode_of(&self, directory: usize, name: &str) -> io::Result<usize> {
        self.check_running()?;
        let inode = self.directories[directory].live.get(name).copied();
        inode.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no file {name}")))
    }

    /// All directories of the data directory, sorted.
    pub fn list_dirs(&self) -> io::Result<Vec<String>> {
        self.check_running()?;
        Ok(self.root.live.keys().cloned().collect())
    }

    /// The directory of this name, if it exists.
    pub fn find_dir(&self, name: &str) -> io::Result<Option<usize>> {
        self.check_running()?;
        Ok(self.root.live.get(name).copied())
    }

    /// The directory of this name, created if it is missing.
    pub fn make_dir(&mut self, prng: &mut Prng, name: &str) -> io::Result<usize> {
        if let Some(directory) = self.find_dir(name)? {
            return Ok(directory);
        }
        self.grow(prng)?;
        self.directories.push(Names::default());
        let directory = self.directories.len() - 1;
        self.root.link(name, directory);
        Ok(directory)
    }

    /// Renames a directory.
    pub fn rename_dir(&mut self, prng: &mut Prng, from: &str, to: &str) -> io::Result<()> {
        self.change(prng)?;
        let directory = self.root.live.get(from).copied();
        let directory = directory.ok_or(io::ErrorKind::NotFound)?;
        let (from, to) = (from.to_owned(), to.to_owned());
        self.root.put(NameChange::Rename(from, to, directory));
        Ok(())
    }

    /// Removes a directory and its files.
    pub fn remove_dir(&mut self, prng: &mut Prng, name: &str) -> io::Result<()> {
        let directory = self.root.live.get(name).copied();
        let directory = directory.ok_or(io::ErrorKind::NotFound)?;
        let files: Vec<_> = self.directories[directory].live.keys().cloned().collect();
        for file in files {
            self.remove(prng, directory, &file)?;
        }
        self.change(prng)?;
        self.root.unlink(name);
        Ok(())
    }

    /// Files with their sizes, sorted by name.
    pub fn list(&self, directory: usize) -> io::Result<Vec<(String, u64)>> {
        self.check_running()?;
        let names = &self.directories[directory].live;
        let size = |inode: usize| self.inodes[inode].contents.len() as u64;
        Ok(names
            .iter()
            .map(|(name, inode)| (name.clone(), size(*inode)))
            .collect())
    }

    /// Creates an empty file.
    pub fn create(&mut self, prng: &mut Prng, directory: usize, name: &str) -> io::Result<()> {
        self.grow(prng)?;
        if self.directories[directory].live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.inodes.push(Inode {
            directory,
            ..Inode::default()
        });
        self.directories[directory].link(name, self.inodes.len() - 1);
        Ok(())
    }

    /// The file of this name.
    pub fn open(&self, directory: usize, name: &str) -> io::Result<u64> {
        self.inode_of(directory, name).map(|inode| inode as u64)
    }

    /// Reads some of the file, at its end nothing.
    pub fn read_some(
        &self,
        prng: &mut Prng,
        inode: u64,
        position: u64,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        self.check_running()?;
        let mut length = buffer.len();
        if length > 0 && prng.percent(self.faults.short) {
            length = 1 + prng.below(length as u64) as usize;
        }
        Ok(self.read(inode, position, &mut buffer[..length]))
    }

    /// Reads up to the end of the file, whatever its name is by now.
    pub fn read(&self, inode: u64, position: u64, buffer: &mut [u8]) -> usize {
        let contents = &self.inodes[inode as usize].contents;
        let rest = contents.get(position as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        length
    }

    /// Writes some of the bytes, at least one, to the page cache; also before an error.
    pub fn write_some(
        &mut self,
        prng: &mut Prng,
        inode: u64,
        position: u64,
        mut bytes: Vec<u8>,
    ) -> io::Result<usize> {
        let result = self.change(prng);
        if self.stopped {
            return result.map(|()| 0);
        }
        if result.is_err() {
            bytes.truncate(prng.below(bytes.len() as u64 + 1) as usize);
        } else if !bytes.is_empty() && prng.percent(self.faults.short) {
            bytes.truncate(1 + prng.below(bytes.len() as u64) as usize);
        }
        let (full, inode) = (self.full, &mut self.inodes[inode as usize]);
        if full {
            bytes.truncate(inode.contents.len().saturating_sub(position as usize));
        }
        let written = bytes.len();
        inode.put(Change::Write(position as usize, bytes));
        result?;
        match full && written == 0 {
            true => Err(Errno::ENOSPC.into()),
            false => Ok(written),
        }
    }

    /// Forgets what the page cache holds and the device does not, but for what is still to be
    /// written: after a failed sync that is what it should have stored.
    pub fn drop_cached(&mut self, directory: usize, name: &str) -> io::Result<()> {
        let inode = self.inode_of(directory, name)?;
        self.believed.remove(&inode);
        let inode = &mut self.inodes[inode];
        inode.contents = inode.durable.clone();
        for (_, change) in &inode.changes {
            change.apply(&mut inode.contents);
        }
        Ok(())
    }

    /// The directory of a partition in which the page cache still has what a failed sync should
    /// have stored, and no file named `mark` tells the next process.
    pub fn believed(&self, mark: &str) -> Option<&str> {
        self.believed.iter().find_map(|inode| {
            let directory = self.inodes[*inode].directory;
            let files = &self.directories[directory].live;
            if files.contains_key(mark) {
                return None;
            }
            let mut files = files.values();
            let (name, _) = self.root.live.iter().find(|(_, at)| **at == directory)?;
            let unowned = name.ends_with("-delete") || name.ends_with("-stray");
            (!unowned && files.any(|file| file == inode)).then_some(name.as_str())
        })
    }

    /// What is left of it.
    pub fn space(&self) -> Space {
        match self.full {
            true => Space {
                free_bytes: 0,
                ..Space::ENDLESS
            },
            false => Space::ENDLESS,
        }
    }

    /// Cuts a file.
    pub fn truncate(
        &mut self,
        prng: &mut Prng,
        (directory, name): (usize, &str),
        length: u64,
    ) -> io::Result<()> {
        let inode = self.inode_of(directory, name)?;
        self.change(prng)?;
        self.inodes[inode].put(Change::Truncate(length as usize));
        Ok(())
    }

    /// Puts a whole file in place, durably.
    pub fn replace(
        &mut self,
        prng: &mut Prng,
        directory: usize,
        name: &str,
        contents: &[u8],
    ) -> io::Result<()> {
        self.grow(prng)?;
        self.inodes.push(Inode {
            directory,
            contents: contents.to_vec(),
            durable: contents.to_vec(),
            ..Inode::default()
        });
        let inode = self.inodes.len() - 1;
        self.change(prng)?;
        self.directories[directory].link(name, inode);
        self.sync_dir(prng, directory)
    }

    /// Removes a name.
    pub fn remove(&mut self, prng: &mut Prng, directory: usize, name: &str) -> io::Result<()> {
        self.inode_of(directory, name)?;
        self.change(prng)?;
        self.directories[directory].unlink(name);
        Ok(())
    }

    /// Makes a file durable, now.
    pub fn sync(&mut self, prng: &mut Prng, directory: usize, name: &str) -> io::Result<()> {
        let inode = self.inode_of(directory, name)? as u64;
        let mark = self.sync_mark(inode);
        self.finish_sync(prng, inode, mark)
    }

    /// What a sync that begins now has to cover.
    pub fn sync_mark(&self, inode: u64) -> u64 {
        self.inodes[inode as usize].next_change
    }

    /// Ends a sync: everything before `mark` is durable, or lost for ever.
    pub fn finish_sync(&mut self, prng: &mut Prng, inode: u64, mark: u64) -> io::Result<()> {
        let result = self.change_or_fail(prng, self.faults.sync_failures);
        if self.stopped {
            return result;
        }
        let index = inode as usize;
        let inode = &mut self.inodes[index];
        let due = inode.changes.partition_point(|(number, _)| *number < mark);
        for (_, change) in inode.changes.drain(..due) {
            match result {
                Ok(()) => change.apply(&mut inode.durable),
                Err(_) => {
                    self.damaged = true;
                    self.believed.insert(index);
                }
            }
        }
        result
    }

    /// Makes everything durable, now.
    pub fn sync_all(&mut self, prng: &mut Prng) -> io::Result<()> {
        for inode in 0..self.inodes.len() as u64 {
            if !self.inodes[inode as usize].changes.is_empty() {
                self.finish_sync(prng, inode, self.sync_mark(inode))?;
            }
        }
        for directory in 0..self.directories.len() {
            self.sync_dir(prng, directory)?;
        }
        Ok(())
    }

    /// Makes the names of a directory durable, now; in [`ROOT`] those of directories too.
    pub fn sync_dir(&mut self, prng: &mut Prng, directory: usize) -> io::Result<()> {
        let marks = self.sync_dir_marks(directory);
        self.finish_sync_dir(prng, directory, marks)
    }

    /// What a sync of a directory that begins now has to cover.
    pub fn sync_dir_marks(&self, directory: usize) -> [u64; 2] {
        [self.directories[directory].mark(), self.root.mark()]
    }

    /// Ends a sync of a directory: the names before the marks are durable.
    pub fn finish_sync_dir(
        &mut self,
        prng: &mut Prng,
        directory: usize,
        marks: [u64; 2],
    ) -> io::Result<()> {
        self.change_or_fail(prng, self.faults.sync_failures)?;
        self.directories[directory].sync(marks[0]);
        if directory == ROOT {
            self.root.sync(marks[1]);
        }
        Ok(())
    }
}

impl Names {
    fn link(&mut self, name: &str, target: usize) {
        self.put(NameChange::Link(name.to_owned(), target));
    }

    fn unlink(&mut self, name: &str) {
        self.put(NameChange::Unlink(name.to_owned()));
    }

    fn put(&mut self, change: NameChange) {
        change.apply(&mut self.live);
        self.changes.push_back(change);
    }

    fn mark(&self) -> u64 {
        self.settled + self.changes.len() as u64
    }

    fn sync(&mut self, mark: u64) {
        while self.settled < mark
            && let Some(change) = self.changes.pop_front()
        {
            change.apply(&mut self.durable);
            self.settled += 1;
        }
    }

    fn lose(&mut self, prng: &mut Prng) {
        self.sync(self.settled + prng.below(self.changes.len() as u64 + 1));
        self.settled += self.changes.len() as u64;
        self.changes.clear();
        self.live = self.durable.clone();
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, target) => names.insert(name.clone(), *target),
            Self::Unlink(name) => names.remove(name),
            Self::Rename(from, to, target) => {
                names.remove(from);
                names.insert(to.clone(), *target)
            }
        };
    }
}

impl Inode {
    fn put(&mut self, change: Change) {
        change.apply(&mut self.contents);
        self.changes.push_back((self.next_change, change));
        self.next_change += 1;
    }

    /// Keeps what was synced and a part of the rest.
    fn lose(&mut self, prng: &mut Prng, faults: &DiskFaults, stale: &[u8]) {
        let luck = prng.below(101);
        for (_, change) in std::mem::take(&mut self.changes) {
            match change {
                Change::Truncate(_) if prng.percent(luck) => change.apply(&mut self.durable),
                Change::Truncate(_) => {}
                Change::Write(position, bytes) => {
                    // Cut at sectors of the file, not of the write.
                    let mut at = 0;
                    while at < bytes.len() {
                        let sector_end = SECTOR_BYTES - (position + at) % SECTOR_BYTES;
                        let end = (at + sector_end).min(bytes.len());
                        match prng.percent(luck) {
                            true => self.keep(prng, faults, position + at, &bytes[at..end]),
                            false => self.junk(prng, faults, position + at, end - at, stale),
                        }
                        at = end;
                    }
                }
            }
        }
        self.contents = self.durable.clone();
    }

    /// A part of a sector has reached the disk.
    fn keep(&mut self, prng: &mut Prng, faults: &DiskFaults, position: usize, bytes: &[u8]) {
        write(&mut self.durable, position, bytes);
        if faults.rot > 0 && prng.below(1_000) < faults.rot {
            let at = position + prng.below(bytes.len() as u64) as usize;
            self.durable[at] ^= 1 << prng.below(8);
        }
    }

    /// A part of a sector has not, but perhaps the file's new size.
    fn junk(
        &mut self,
        prng: &mut Prng,
        faults: &DiskFaults,
        position: usize,
        length: usize,
        stale: &[u8],
    ) {
        if position < self.durable.len() || faults.unwritten == Unwritten::Missing {
            return;
        }
        let bytes: Vec<u8> = match faults.unwritten {
            Unwritten::Garbage => (0..length).map(|_| prng.next_u64() as u8).collect(),
            Unwritten::Stale => {
                let stale = stale.get(position..).unwrap_or_default();
                stale
                    .iter()
                    .copied()
                    .chain(std::iter::repeat(0))
                    .take(length)
                    .collect()
            }
            Unwritten::Zeros | Unwritten::Missing => vec![0; length],
        };
        write(&mut self.durable, position, &bytes);
    }
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Write(position, bytes) => write(contents, *position, bytes),
            Self::Truncate(length) => contents.resize(*length, 0),
        }
    }
}

fn write(contents: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    let end = position + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[position..end].copy_from_slice(bytes);
}
