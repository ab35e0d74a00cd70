//! The simulator's [`Io`] and [`Dir`]: the world as one shard sees it. Nothing is decided here.

use super::disk::ROOT;
use super::world::World;
use crate::base::dir::{Dir, File, FileKind};
use crate::base::{Mono, Now, Space};
use crate::io::files::{read_all, write_all};
use crate::io::{Bell, Completion, Extent, Io, Op, Socket, Token};
use bytes::BytesMut;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

/// The world, shared by everybody in it.
pub type SharedWorld = Rc<RefCell<World>>;

/// The machine under one simulated shard.
pub struct SimIo {
    world: SharedWorld,
    shard: usize,
}

/// A directory of the simulated disk.
pub struct SimDir {
    world: SharedWorld,
    /// `None` for that of the data directory's own files.
    name: Option<String>,
}

impl SimIo {
    /// The machine of this shard, in a world that knows it.
    pub fn new(world: SharedWorld, shard: usize) -> Self {
        Self { world, shard }
    }
}

impl SimDir {
    /// The directory of the data directory's own files.
    pub fn root(world: SharedWorld) -> Self {
        Self { world, name: None }
    }
}

impl Io for SimIo {
    fn now(&mut self) -> Now {
        self.world.borrow().clocks()
    }

    fn submit(&mut self, token: Token, op: Op) {
        self.world.borrow_mut().submit(self.shard, token, op);
    }

    fn wait(&mut self, _: Option<Mono>, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.world.borrow_mut().wait(self.shard, completions);
        Ok(())
    }

    fn shutdown(&mut self, socket: &Socket) {
        self.world.borrow_mut().shutdown(socket);
    }

    fn bell(&self) -> Bell {
        self.world.borrow().bell(self.shard)
    }

    fn read(&mut self, extent: &Extent, buffer: &mut BytesMut) -> io::Result<bool> {
        self.world.borrow_mut().read(extent, buffer)
    }

    fn list_dirs(&mut self) -> io::Result<Vec<String>> {
        self.world.borrow().disk.list_dirs()
    }

    fn open_dir(&mut self, name: &str) -> io::Result<Box<dyn Dir>> {
        let (world, name) = (self.world.clone(), Some(name.to_owned()));
        Ok(Box::new(SimDir { world, name }))
    }

    fn rename_dir(&mut self, from: &str, to: &str) -> io::Result<()> {
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.rename_dir(prng, from, to)
    }

    fn remove_dir(&mut self, name: &str) -> io::Result<()> {
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.remove_dir(prng, name)
    }

    fn sync_dirs(&mut self) -> io::Result<()> {
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.sync_dir(prng, ROOT)
    }

    fn space(&mut self) -> io::Result<Space> {
        Ok(self.world.borrow().disk.space())
    }

    fn sync_all(&mut self) -> io::Result<()> {
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.sync_all(prng)
    }
}

impl SimDir {
    /// Where it is on the disk, if it exists.
    fn found(&self) -> io::Result<Option<usize>> {
        match &self.name {
            Some(name) => self.world.borrow().disk.find_dir(name),
            None => Ok(Some(ROOT)),
        }
    }

    fn directory(&self) -> io::Result<usize> {
        self.found()?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn created(&mut self) -> io::Result<usize> {
        let Some(name) = &self.name else {
            return Ok(ROOT);
        };
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.make_dir(prng, name)
    }
}

impl Dir for SimDir {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        match self.found()? {
            Some(directory) => self.world.borrow().disk.list(directory),
            None => Ok(Vec::new()),
        }
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let directory = self.created()?;
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.create(prng, directory, name)
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        let inode = self.world.borrow().disk.open(self.directory()?, name)?;
        Ok(File::new(FileKind::Simulated(inode)))
    }

    fn read_at(&mut self, name: &str, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let directory = self.directory()?;
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        let inode = disk.open(directory, name)?;
        read_all(position, buffer, |position, rest| {
            disk.read_some(prng, inode, position, rest)
        })
    }

    fn write_at(
        &mut self,
        name: &str,
        position: u64,
        slices: &[io::IoSlice<'_>],
    ) -> io::Result<()> {
        let directory = self.directory()?;
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        let inode = disk.open(directory, name)?;
        write_all(position, slices, |position, slices| {
            let bytes = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            disk.write_some(prng, inode, position, bytes)
        })
    }

    fn replace(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        let directory = self.created()?;
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.replace(prng, directory, name, contents)
    }

    fn drop_cached(&mut self, name: &str) -> io::Result<()> {
        let directory = self.directory()?;
        self.world.borrow_mut().disk.drop_cached(directory, name)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let directory = self.directory()?;
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.truncate(prng, (directory, name), length)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let directory = self.directory()?;
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.remove(prng, directory, name)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let directory = self.directory()?;
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.sync(prng, directory, name)
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let directory = self.directory()?;
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.sync_dir(prng, directory)?;
        disk.sync_dir(prng, ROOT)
    }

    fn names(&mut self) -> io::Result<Vec<File>> {
        let directories = [self.directory()?, ROOT];
        let file = |directory| File::new(FileKind::SimulatedDir(directory));
        Ok(directories.map(file).to_vec())
    }
}
