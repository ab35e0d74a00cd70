//! A directory in memory that can lose what was not synced: contents by sectors, names by the
//! order of their changes, as a file system with a journal does. Faults are set by the test.

use crate::base::dir::{Dir, File, FileKind};
use crate::base::prng::Prng;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;

/// What a device writes as a whole.
const SECTOR_BYTES: usize = 512;

/// The directory. A clone is an independent copy.
#[derive(Clone, Debug, Default)]
pub struct TestDir {
    names: BTreeMap<String, usize>,
    inodes: Vec<Inode>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    /// Changes and syncs so far.
    operations: u64,
    /// From this operation on nothing works: the power is cut.
    cut_at: Option<u64>,
    /// The next operation of this kind on a file whose name ends so fails.
    fault: Option<(&'static str, String)>,
    /// No file whose name ends so can be opened.
    pub forbidden: Option<&'static str>,
    /// Bytes that all files together may have, if the disk is not endless.
    pub capacity_bytes: Option<u64>,
    /// Reads so far, with their bytes.
    pub reads: (u64, u64),
    /// The bytes of every `.log` that are cached; without it, all.
    pub cached: Option<Range<u64>>,
    /// Reads of a `.log` that began at a byte that is not cached.
    pub cold_reads: u64,
    /// Room asked for: name, position, length.
    pub reserved: Vec<(String, u64, u64)>,
    /// Files cut so far, and to which length.
    pub truncated: Vec<(String, u64)>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    contents: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, usize),
    Unlink(String),
}

impl TestDir {
    /// Cuts the power before the operation after `operations` more.
    pub fn cut_power_after(&mut self, operations: u64) {
        self.cut_at = Some(self.operations + operations);
    }

    /// Changes and syncs so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// The next `operation` on a file whose name ends with `suffix` fails.
    pub fn fail_next(&mut self, operation: &'static str, suffix: &str) {
        self.fault = Some((operation, suffix.to_owned()));
    }

    /// The process died, the machine lives: nothing is lost, nothing became durable.
    pub fn restart_process(&mut self) {
        self.cut_at = None;
        self.fault = None;
    }

    /// The power is back: unsynced sectors are lost or not, unsynced names up to some point.
    pub fn restart_machine(&mut self, prng: &mut Prng) {
        self.restart_process();
        let kept = prng.below(self.name_changes.len() as u64 + 1) as usize;
        for change in self.name_changes.drain(..).take(kept) {
            change.apply(&mut self.durable_names);
        }
        self.names = self.durable_names.clone();
        for inode in &mut self.inodes {
            inode.lose(prng);
        }
    }

    /// Makes everything durable, as the shell does after closing all logs and before opening them.
    pub fn sync_all(&mut self) -> io::Result<()> {
        for name in self.file_names() {
            if !self.inode(&name)?.changes.is_empty() {
                self.sync(&name)?;
            }
        }
        match self.name_changes.is_empty() {
            true => Ok(()),
            false => self.sync_dir(),
        }
    }

    /// Bytes of all files together.
    pub fn used_bytes(&self) -> u64 {
        let files = self.names.values();
        files.map(|at| self.inodes[*at].contents.len() as u64).sum()
    }

    /// What a file holds.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        self.inodes[self.names[name]].contents.clone()
    }

    /// Puts a file there, durably, or takes it away.
    pub fn set(&mut self, name: &str, contents: Option<Vec<u8>>) {
        match contents {
            Some(contents) => self.replace(name, &contents).unwrap(),
            None => {
                self.remove(name).unwrap();
                self.sync_dir().unwrap();
            }
        }
    }

    /// The names of all files.
    pub fn file_names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// True if there is such a file.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Counts a change and fails it if that was asked for.
    fn change(&mut self, operation: &'static str, name: &str) -> io::Result<()> {
        if self.cut_at.is_some_and(|at| self.operations >= at) {
            return Err(io::Error::other("the power is cut"));
        }
        self.operations += 1;
        if let Some((kind, suffix)) = &self.fault
            && *kind == operation
            && name.ends_with(suffix.as_str())
        {
            self.fault = None;
            return Err(io::Error::other(format!("{operation} {name}: injected")));
        }
        Ok(())
    }

    /// How many of so many new bytes find room; the error if not all do.
    fn find_room(&self, bytes: usize) -> (usize, io::Result<()>) {
        let Some(capacity) = self.capacity_bytes else {
            return (bytes, Ok(()));
        };
        let room = capacity.saturating_sub(self.used_bytes()) as usize;
        match bytes <= room {
            true => (bytes, Ok(())),
            false => (room, Err(io::ErrorKind::StorageFull.into())),
        }
    }

    fn inode(&mut self, name: &str) -> io::Result<&mut Inode> {
        if self.forbidden.is_some_and(|suffix| name.ends_with(suffix)) {
            let why = format!("open {name}: permission denied");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        match self.names.get(name) {
            Some(inode) => Ok(&mut self.inodes[*inode]),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => names.insert(name.clone(), *inode),
            Self::Unlink(name) => names.remove(name),
        };
    }
}

impl Inode {
    /// Keeps what was synced and a part of the rest.
    fn lose(&mut self, prng: &mut Prng) {
        let mut contents = std::mem::take(&mut self.durable);
        let luck = prng.below(101);
        for change in self.changes.drain(..) {
            match change {
                Change::Truncate(length) if prng.percent(luck) => contents.resize(length, 0),
                Change::Truncate(_) => {}
                Change::Write(position, bytes) => {
                    // Cut at sectors of the file, not of the write.
                    let mut at = 0;
                    while at < bytes.len() {
                        let sector_end = SECTOR_BYTES - (position + at) % SECTOR_BYTES;
                        let end = (at + sector_end).min(bytes.len());
                        if prng.percent(luck) {
                            write(&mut contents, position + at, &bytes[at..end]);
                        }
                        at = end;
                    }
                }
            }
        }
        self.durable = contents.clone();
        self.contents = contents;
    }
}

fn write(contents: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    let end = position + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[position..end].copy_from_slice(bytes);
}

impl Dir for TestDir {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let sizes = self.names.iter().map(|(name, inode)| {
            let size = self.inodes[*inode].contents.len() as u64;
            (name.clone(), size)
        });
        Ok(sizes.collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.change("create", name)?;
        if self.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.inodes.push(Inode::default());
        self.rename(NameChange::Link(name.to_owned(), self.inodes.len() - 1));
        Ok(())
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        self.inode(name)?;
        Ok(File::new(FileKind::Simulated(self.names[name] as u64)))
    }

    fn read_at(&mut self, name: &str, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads.0 += 1;
        self.reads.1 += buffer.len() as u64;
        let cold = name.ends_with(".log") && !self.is_cached(name, position);
        self.cold_reads += u64::from(cold);
        let contents = &self.inode(name)?.contents;
        let rest = contents.get(position as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&mut self, name: &str, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.change("write", name)?;
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let end = self.inode(name)?.contents.len();
        let growth = (position as usize + bytes.len()).saturating_sub(end);
        let (found, result) = self.find_room(growth);
        bytes.truncate(bytes.len() - (growth - found));
        let inode = self.inode(name)?;
        write(&mut inode.contents, position as usize, &bytes);
        inode.changes.push(Change::Write(position as usize, bytes));
        result
    }

    fn is_cached(&mut self, _name: &str, position: u64) -> bool {
        let cached = self.cached.as_ref();
        cached.is_none_or(|cached| cached.contains(&position))
    }

    fn reserve(&mut self, name: &str, position: u64, length: u64) {
        self.reserved.push((name.to_owned(), position, length));
    }

    fn replace(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.change("replace", name)?;
        self.find_room(contents.len()).1?;
        self.inodes.push(Inode {
            contents: contents.to_vec(),
            durable: contents.to_vec(),
            changes: Vec::new(),
        });
        self.rename(NameChange::Link(name.to_owned(), self.inodes.len() - 1));
        self.name_changes.clear();
        self.durable_names = self.names.clone();
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.change("truncate", name)?;
        self.truncated.push((name.to_owned(), length));
        let inode = self.inode(name)?;
        inode.contents.resize(length as usize, 0);
        inode.changes.push(Change::Truncate(length as usize));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change("remove", name)?;
        self.inode(name)?;
        self.rename(NameChange::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let armed = self.fault.is_some();
        let result = self.change("sync", name);
        let struck = armed && self.fault.is_none();
        let inode = self.inode(name)?;
        match result {
            Ok(()) => inode.durable = inode.contents.clone(),
            // As the kernel does: what could not be written counts as written, and can be read.
            Err(error) if struck => {
                inode.changes.clear();
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        inode.changes.clear();
        Ok(())
    }

    fn drop_cached(&mut self, name: &str) -> io::Result<()> {
        let inode = self.inode(name)?;
        let mut contents = inode.durable.clone();
        for change in &inode.changes {
            match change {
                Change::Write(position, bytes) => write(&mut contents, *position, bytes),
                Change::Truncate(length) => contents.resize(*length, 0),
            }
        }
        // The size is known from elsewhere; what is not there reads as zeros.
        contents.resize(contents.len().max(inode.contents.len()), 0);
        inode.contents = contents;
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.change("sync_dir", "")?;
        self.name_changes.clear();
        self.durable_names = self.names.clone();
        Ok(())
    }

    fn names(&mut self) -> io::Result<Vec<File>> {
        unreachable!("the tests use `sync_dir`")
    }
}
