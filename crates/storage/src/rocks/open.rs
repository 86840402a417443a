//! All partitions' state of a node: which directories there are, which of them counts, and who has it open.
//!
//! ```text
//! ROOT/LOCK                     held while the stores are open
//! ROOT/P/R.current              names the generation that counts; written whole or not at all
//! ROOT/P/R-G/                   a generation: one RocksDB
//! ROOT/P/R-N.incoming           being received; ROOT/P/R-N.checkpoint: frozen copy. Removed at open
//! ROOT/P/R.removed              was R.current: the replica is being removed; carried on at open
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use types::{PartitionId, ReplicaId};

use super::files;
use super::generation::{Closed, Generation};
use super::options::{Options, Shared};
use super::state::Store;
use crate::lock::DirLock;
use crate::{PartitionStore, PartitionStores, damaged, other_format};

/// Longest wait for another thread to finish closing the same replica.
const CLOSE_PATIENCE: Duration = Duration::from_secs(30);

const MARKER_FORMAT: u8 = 1;

/// Where one replica's files are.
#[derive(Clone)]
pub(super) struct Places {
    dir: PathBuf,
    replica: ReplicaId,
}

impl Places {
    pub(super) fn generation(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}-{number}", self.replica))
    }

    pub(super) fn copy(&self, number: u64, kind: &str) -> PathBuf {
        self.dir.join(format!("{}-{number}.{kind}", self.replica))
    }

    /// Whether a path lies among this replica's.
    pub(super) fn owns(&self, path: &Path) -> bool {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        path.parent() == Some(&self.dir) && replica_of(&name) == Some(self.replica)
    }

    fn marker(&self) -> PathBuf {
        self.dir.join(format!("{}.current", self.replica))
    }

    fn removal(&self) -> PathBuf {
        self.dir.join(format!("{}.removed", self.replica))
    }

    pub(super) fn write_marker(&self, generation: u64) -> io::Result<()> {
        let content = [&[MARKER_FORMAT][..], &generation.to_le_bytes()].concat();
        files::write_sealed(&self.marker(), &content)
    }

    pub(super) fn read_marker(&self) -> io::Result<Option<u64>> {
        let Some(content) = files::read_sealed(&self.marker())? else {
            return Ok(None);
        };
        let path = self.marker();
        match content.split_first() {
            Some((&MARKER_FORMAT, rest)) => match rest.try_into() {
                Ok(number) => Ok(Some(u64::from_le_bytes(number))),
                Err(_) => Err(damaged(format!("{} has a wrong length", path.display()))),
            },
            Some((format, _)) => Err(other_format(path.display(), format, MARKER_FORMAT)),
            None => Err(damaged(format!("{} is empty", path.display()))),
        }
    }

    /// Names of this replica's directories: generations and copies.
    fn directories(&self) -> io::Result<Vec<String>> {
        let mut names = files::names(&self.dir)?;
        names.retain(|name| replica_of(name) == Some(self.replica));
        Ok(names)
    }
}

/// `12` of `12-3` and `12-3.incoming`.
fn replica_of(name: &str) -> Option<ReplicaId> {
    name.split_once('-')?.0.parse().ok()
}

/// `12` and `3` of `12-3`.
fn generation_of(name: &str) -> Option<(ReplicaId, u64)> {
    let (replica, number) = name.split_once('-')?;
    Some((replica.parse().ok()?, number.parse().ok()?))
}

/// Who has a replica open.
#[derive(Default)]
pub(super) struct Slot {
    store: Weak<Store>,
    /// Generations that are not closed, oldest first. Points keep those before the last.
    held: Vec<Held>,
}

struct Held {
    generation: Weak<Generation>,
    closed: Arc<Closed>,
}

impl Slot {
    pub(super) fn hold(&mut self, generation: &Arc<Generation>) {
        let held = Held {
            generation: Arc::downgrade(generation),
            closed: generation.closed(),
        };
        self.held
            .retain(|other| !other.closed.is_done() && !Arc::ptr_eq(&other.closed, &held.closed));
        self.held.push(held);
    }
}

type Slots = BTreeMap<(PartitionId, ReplicaId), Arc<Mutex<Slot>>>;

/// The stores of all partitions of a node.
pub struct Partitions {
    root: PathBuf,
    shared: Arc<Shared>,
    slots: Mutex<Slots>,
}

impl Partitions {
    /// Opens the directory of all partitions and removes what crashes left in it. Opens no partition. `Unsupported`:
    /// another version of holdfast wrote one of them, and nothing was touched.
    pub fn open(dir: &Path, options: Options) -> io::Result<Arc<dyn PartitionStores>> {
        let shared = Arc::new(Shared::new(options, DirLock::acquire(dir)?)?);
        let partitions = Partitions {
            root: dir.to_owned(),
            shared,
            slots: Mutex::default(),
        };
        let found = partitions.partitions()?;
        for partition in &found {
            partitions.check_formats(*partition)?;
        }
        for partition in found {
            partitions.clean(partition)?;
        }
        Ok(Arc::new(partitions))
    }

    fn places(&self, partition: PartitionId, replica: ReplicaId) -> Places {
        Places {
            dir: self.root.join(partition.to_string()),
            replica,
        }
    }

    fn slot(&self, partition: PartitionId, replica: ReplicaId) -> Arc<Mutex<Slot>> {
        self.slots.lock().entry((partition, replica)).or_default().clone()
    }

    fn partitions(&self) -> io::Result<Vec<PartitionId>> {
        Ok(files::names(&self.root)?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect())
    }

    /// Refuses what another version wrote. Damage is found when a replica is opened, and costs that replica alone.
    fn check_formats(&self, partition: PartitionId) -> io::Result<()> {
        for name in files::names(&self.root.join(partition.to_string()))? {
            let replica = name.strip_suffix(".current").and_then(|id| id.parse().ok());
            if let Some(replica) = replica
                && let Err(error) = self.places(partition, replica).read_marker()
                && error.kind() == io::ErrorKind::Unsupported
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes copies, finishes removals, and removes generations that a readable marker does not name.
    fn clean(&self, partition: PartitionId) -> io::Result<()> {
        let dir = self.root.join(partition.to_string());
        for name in files::names(&dir)? {
            let path = dir.join(&name);
            if let Some(replica) = name
                .strip_suffix(".removed")
                .and_then(|replica| replica.parse().ok())
            {
                finish_removal(&self.places(partition, replica), &[])?;
            } else if name.ends_with(".tmp") || name.ends_with(".incoming") || name.ends_with(".checkpoint") {
                tracing::info!(path = %path.display(), "removing what a crash left");
                if path.is_dir() {
                    files::remove_dir(&path)?
                } else {
                    fs::remove_file(&path)?
                }
            } else if let Some((replica, number)) = generation_of(&name)
                && let Ok(Some(current)) = self.places(partition, replica).read_marker()
                && current != number
            {
                tracing::info!(path = %path.display(), current, "removing another generation");
                files::remove_dir(&path)?;
            }
        }
        Ok(())
    }

    fn open_generation(&self, places: &Places) -> io::Result<Generation> {
        if let Some(number) = places.read_marker()? {
            return Generation::open(&self.shared, places.generation(number), number, false);
        }
        for name in places.directories()? {
            let path = places.dir.join(&name);
            // A first open that crashed before its marker has flushed nothing: it has no table.
            let tables = files::names(&path)?.iter().any(|file| file.ends_with(".sst"));
            if generation_of(&name) != Some((places.replica, 1)) || tables {
                let (path, marker) = (path.display(), places.marker());
                return Err(damaged(format!(
                    "{path} holds state, but its marker {} is gone",
                    marker.display()
                )));
            }
            files::remove_dir(&path)?;
        }
        files::create_dir(&self.root, &places.dir)?;
        let generation = Generation::open(&self.shared, places.generation(1), 1, true)?;
        files::sync_dir(&places.dir)?;
        places.write_marker(1)?;
        Ok(generation)
    }
}

/// Removes everything of a replica whose marker was turned into a removal mark, but what is still being read.
fn finish_removal(places: &Places, in_use: &[&Path]) -> io::Result<()> {
    for name in places.directories()? {
        let path = places.dir.join(name);
        if !in_use.contains(&path.as_path()) {
            files::remove_dir(&path)?;
        }
    }
    if in_use.is_empty() {
        fs::remove_file(places.removal())?;
    }
    files::sync_dir(&places.dir)
}

impl PartitionStores for Partitions {
    fn open(&self, partition: PartitionId, replica: ReplicaId) -> io::Result<Arc<dyn PartitionStore>> {
        let places = self.places(partition, replica);
        let shared_slot = self.slot(partition, replica);
        let mut slot = shared_slot.lock();
        let busy = |what: &str| {
            let text = format!("replica {replica} of partition {partition} is {what}");
            Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
        };
        if slot.store.strong_count() > 0 {
            return busy("open already");
        }
        if places.removal().exists() {
            return busy("being removed, and something still reads it");
        }
        let newest = slot.held.last();
        let generation = match newest.and_then(|held| held.generation.upgrade()) {
            // Somebody still holds a point of it: the database is open, and goes on.
            Some(generation) => generation,
            None => {
                if newest.is_some_and(|held| !held.closed.wait(CLOSE_PATIENCE)) {
                    return busy("still being closed");
                }
                Arc::new(self.open_generation(&places)?)
            }
        };
        slot.hold(&generation);
        let store = Arc::new(Store::new(
            self.shared.clone(),
            places,
            shared_slot.clone(),
            generation,
        ));
        slot.store = Arc::downgrade(&store);
        Ok(store)
    }

    fn remove(&self, partition: PartitionId, replica: ReplicaId) -> io::Result<()> {
        let places = self.places(partition, replica);
        let slot = self.slot(partition, replica);
        let mut slot = slot.lock();
        if slot.store.strong_count() > 0 {
            let text =
                format!("replica {replica} of partition {partition} is open: close it before removing it");
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        if !places.marker().exists() && !places.removal().exists() && places.directories()?.is_empty() {
            return Ok(());
        }
        if places.marker().exists() {
            fs::rename(places.marker(), places.removal())?;
        } else {
            files::write_sealed(&places.removal(), &[])?;
        }
        files::sync_dir(&places.dir)?;
        let mut reading = Vec::new();
        for held in &slot.held {
            if let Some(generation) = held.generation.upgrade() {
                generation.retire();
                reading.push(generation);
            } else if !held.closed.wait(CLOSE_PATIENCE) {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "the replica is still being closed",
                ));
            }
        }
        slot.held.retain(|held| !held.closed.is_done());
        let in_use: Vec<&Path> = reading.iter().map(|generation| generation.dir()).collect();
        finish_removal(&places, &in_use)
    }

    fn list(&self) -> io::Result<Vec<(PartitionId, ReplicaId)>> {
        let mut found = BTreeSet::new();
        for partition in self.partitions()? {
            let names = files::names(&self.root.join(partition.to_string()))?;
            let removed: Vec<&str> = names
                .iter()
                .filter_map(|name| name.strip_suffix(".removed"))
                .collect();
            for name in &names {
                let generation = generation_of(name).map(|(replica, _)| replica);
                let marker = name
                    .strip_suffix(".current")
                    .and_then(|replica| replica.parse().ok());
                if let Some(replica) = generation.or(marker)
                    && !removed.contains(&replica.to_string().as_str())
                {
                    found.insert((partition, replica));
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.root)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}
