//! The data directory as a whole: who may use it, whose it is, and how the last run ended. One
//! process owns it at a time. The partitions inside belong to the shards.

use crate::base::dir::Dir;
use crate::base::{NodeId, TopicId};
use crate::io::files::{DataDir, UNFINISHED_SUFFIX};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Held while the directory is used; Kafka's name.
const LOCK: &str = ".lock";

/// Exists only while the last stop was clean; Kafka's name.
const CLEAN: &str = ".kafka_cleanshutdown";

/// Whose directory this is; Kafka's name and form.
const META: &str = "meta.properties";

/// The epoch of the last run, which grows with every unclean stop.
const EPOCH: &str = "forebay-epoch";

/// More than any epoch needs.
const EPOCH_BYTES_MAX: usize = 32;

/// A process that was killed can hold its lock for a moment while the kernel ends its ring.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// The data directory, locked for this process.
pub struct OwnedDir {
    path: PathBuf,
    files: Box<dyn Dir>,
    _lock: Flock<File>,
    /// Names the cluster, made when the directory was.
    pub cluster_id: String,
    /// Epoch under which this run appends.
    pub leader_epoch: i32,
    /// The last stop was clean.
    pub clean: bool,
}

impl OwnedDir {
    /// Takes the directory, creating it if it is missing. The errors are whole sentences.
    ///
    /// The mark of a clean stop is gone durably when this returns: a crash from here on counts.
    pub fn take(path: &Path, node_id: NodeId) -> io::Result<Self> {
        let shown = path.display();
        let explain = |what: &str, error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("the data directory {shown} {what}: {error}"),
            )
        };
        create_dir(path).map_err(|e| explain("cannot be created", e))?;
        let lock = lock(path)?;
        let mut files: Box<dyn Dir> = Box::new(
            DataDir::open(path)
                .map(|dir| dir.files())
                .map_err(|e| explain("cannot be opened", e))?,
        );
        let names: Vec<_> = files.list()?.into_iter().map(|(name, _)| name).collect();
        let has = |name: &str| names.iter().any(|n| n == name);
        let fresh = !has(META);
        if fresh {
            refuse_foreign(path)?;
        }
        let cluster_id = match fresh {
            true => create_meta(files.as_mut(), node_id)?,
            false => read_meta(path, node_id)?,
        };
        let (clean, leader_epoch) = begin_run(files.as_mut(), fresh)?;
        Ok(Self {
            path: path.to_owned(),
            files,
            _lock: lock,
            cluster_id,
            leader_epoch,
            clean,
        })
    }

    /// Where it is and how the last run ended, for the start-up lines.
    pub fn describe(&self) -> String {
        let shown = self.path.display();
        match (self.clean, self.leader_epoch) {
            (true, _) => format!("{shown}"),
            (false, epoch) => {
                format!("{shown} (the last stop was not clean: checked, now in epoch {epoch})")
            }
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that every log was closed cleanly.
    pub fn mark_clean(&mut self) -> io::Result<()> {
        end_run(self.files.as_mut())
    }
}

/// Finds out how the last run ended, and under which epoch this one appends. The mark of a clean
/// stop is gone durably when this returns.
pub fn begin_run(files: &mut dyn Dir, fresh: bool) -> io::Result<(bool, i32)> {
    let marked = files.list()?.iter().any(|(name, _)| name == CLEAN);
    let clean = fresh || marked;
    let leader_epoch = next_epoch(files, clean)?;
    if marked {
        files.remove(CLEAN)?;
        files.sync_dir()?;
    }
    Ok((clean, leader_epoch))
}

/// Notes that every log was closed cleanly.
pub fn end_run(files: &mut dyn Dir) -> io::Result<()> {
    files.replace(CLEAN, b"{\"version\":0}")
}

/// Creates the directory and those above it, durably: no sync of a file inside vouches for the name
/// of the directory.
fn create_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return fs::create_dir(path),
    };
    create_dir(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    File::open(parent)?.sync_all()
}

fn lock(path: &Path) -> io::Result<Flock<File>> {
    let name = path.join(LOCK);
    let since = Instant::now();
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{} cannot be written: {error}", name.display()),
            )
        })?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((returned, _)) if since.elapsed() < LOCK_PATIENCE => {
                file = returned;
                std::thread::sleep(Duration::from_millis(50));
            }
            Err((_, errno)) => {
                let why = format!(
                    "the data directory {} is in use by another process ({errno}); stop it or \
                     choose another --data-dir",
                    path.display()
                );
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
            }
        }
    }
}

/// A directory that is not ours must be empty, so that nobody's files are mixed with the logs.
fn refuse_foreign(path: &Path) -> io::Result<()> {
    // What a first start leaves that is killed before it ends.
    let begun = format!("{META}{UNFINISHED_SUFFIX}");
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != LOCK && name != "lost+found" && name != begun.as_str() {
            let why = format!(
                "the data directory {} holds files that are not forebay's ({}); choose an empty \
                 directory with --data-dir",
                path.display(),
                name.to_string_lossy()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
    }
    Ok(())
}

fn create_meta(files: &mut dyn Dir, node_id: NodeId) -> io::Result<String> {
    let cluster_id = TopicId(uuid::Uuid::new_v4()).to_base64();
    let directory_id = TopicId(uuid::Uuid::new_v4()).to_base64();
    let text = format!(
        "version=1\nnode.id={}\ncluster.id={cluster_id}\ndirectory.id={directory_id}\n",
        node_id.0
    );
    files.replace(META, text.as_bytes())?;
    Ok(cluster_id)
}

fn read_meta(path: &Path, node_id: NodeId) -> io::Result<String> {
    let name = path.join(META);
    let text = fs::read_to_string(&name)?;
    let value = |key: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines
            .filter(|(k, _)| *k == key)
            .map(|(_, value)| value.trim().to_owned())
            .next()
    };
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let owner =
        value("node.id").ok_or_else(|| invalid(format!("{}: no node.id", name.display())))?;
    if owner != node_id.0.to_string() {
        return Err(invalid(format!(
            "the data directory {} belongs to node {owner}, not to node {}; choose --node-id \
             {owner} or another --data-dir",
            path.display(),
            node_id.0
        )));
    }
    value("cluster.id").ok_or_else(|| invalid(format!("{}: no cluster.id", name.display())))
}

/// The last run's epoch, one higher after an unclean stop: what was written under the old one may
/// have been lost, and clients that have read it must be able to notice (KIP-320).
fn next_epoch(files: &mut dyn Dir, clean: bool) -> io::Result<i32> {
    let mut contents = [0; EPOCH_BYTES_MAX];
    let last = match files.read_at(EPOCH, 0, &mut contents) {
        Ok(length) => std::str::from_utf8(&contents[..length])
            .ok()
            .and_then(|text| text.trim().parse::<i32>().ok())
            // The last one has no successor; nobody has started so often.
            .filter(|epoch| (0..i32::MAX).contains(epoch))
            .ok_or_else(|| {
                let why = format!("{EPOCH} in the data directory does not hold an epoch");
                io::Error::new(io::ErrorKind::InvalidData, why)
            })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let epoch = if clean { last } else { last + 1 };
    files.replace(EPOCH, format!("{epoch}\n").as_bytes())?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_a_clean_stop_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/data");
        let take = || OwnedDir::take(&path, NodeId(1)).unwrap();
        let found = |owned: &OwnedDir| (owned.clean, owned.leader_epoch);
        assert_eq!(found(&take()), (true, 0), "a new directory");
        assert_eq!(found(&take()), (false, 1), "as after kill -9");
        let mut owned = take();
        assert_eq!(found(&owned), (false, 2));
        owned.mark_clean().unwrap();
        drop(owned);
        let owned = take();
        assert_eq!(found(&owned), (true, 2));
        assert!(!path.join(CLEAN).exists(), "gone before anybody is served");
        drop(owned);
        assert_eq!(found(&take()), (false, 3));
    }

    #[test]
    fn a_first_start_that_was_killed_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("meta.properties.tmp"), "vers").unwrap();
        let owned = OwnedDir::take(dir.path(), NodeId(1)).unwrap();
        let cluster_id = owned.cluster_id.clone();
        drop(owned);
        let again = OwnedDir::take(dir.path(), NodeId(1)).unwrap();
        assert_eq!(again.cluster_id, cluster_id);
    }

    #[test]
    fn a_directory_with_the_files_of_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        fs::write(dir.path().join("photo"), "").unwrap();
        let refused = OwnedDir::take(dir.path(), NodeId(1)).err().unwrap();
        assert!(refused.to_string().contains("(photo)"), "{refused}");
        fs::remove_file(dir.path().join("photo")).unwrap();
        OwnedDir::take(dir.path(), NodeId(1)).unwrap();
    }

    #[test]
    fn an_epoch_that_nobody_wrote_is_refused() {
        for text in ["", "x", "-1", "2147483647", "99999999999"] {
            let dir = tempfile::tempdir().unwrap();
            let owned = OwnedDir::take(dir.path(), NodeId(1)).unwrap();
            drop(owned);
            fs::write(dir.path().join(EPOCH), text).unwrap();
            let refused = OwnedDir::take(dir.path(), NodeId(1)).err().unwrap();
            assert!(refused.to_string().contains(EPOCH), "{text}: {refused}");
        }
    }
}
