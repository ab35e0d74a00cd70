//! The simulator's [`Io`] and [`Dir`]: the world as one shard sees it. Nothing is decided here.

use super::disk::ROOT;
use super::world::World;
use crate::base::dir::{Dir, File, FileKind};
use crate::base::{Mono, Now};
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
    directory: usize,
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
        let directory = ROOT;
        Self { world, directory }
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
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        let directory = disk.open_dir(prng, name)?;
        let world = self.world.clone();
        Ok(Box::new(SimDir { world, directory }))
    }

    fn rename_dir(&mut self, from: &str, to: &str) -> io::Result<()> {
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.rename_dir(prng, from, to)
    }

    fn remove_dir(&mut self, name: &str) -> io::Result<()> {
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.remove_dir(prng, name)
    }
}

impl Dir for SimDir {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        self.world.borrow().disk.list(self.directory)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.create(prng, self.directory, name)
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        let inode = self.world.borrow().disk.open(self.directory, name)?;
        Ok(File::new(FileKind::Simulated(inode)))
    }

    fn read_at(&mut self, name: &str, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let world = self.world.borrow();
        world.disk.read_at(self.directory, name, position, buffer)
    }

    fn write_at(
        &mut self,
        name: &str,
        position: u64,
        slices: &[io::IoSlice<'_>],
    ) -> io::Result<()> {
        let bytes = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let World {
            disk, prng, now, ..
        } = &mut *self.world.borrow_mut();
        disk.write_at(prng, *now, (self.directory, name), position, bytes)
    }

    fn replace(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.replace(prng, self.directory, name, contents)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let World {
            disk, prng, now, ..
        } = &mut *self.world.borrow_mut();
        disk.truncate(prng, *now, (self.directory, name), length)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.remove(prng, self.directory, name)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.sync(prng, self.directory, name)
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let World { disk, prng, .. } = &mut *self.world.borrow_mut();
        disk.sync_dir(prng, self.directory)
    }
}
