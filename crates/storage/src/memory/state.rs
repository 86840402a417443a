//! The states in memory: a durable image, and commits that a crash may lose from the end.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use machine::record::key::{Kind, PREFIX_BYTES};
use machine::view::Visit;
use machine::{Change, View, ViewError};
use types::planted::{self, Planted};
use types::{PartitionId, ReplicaId};

use super::disk::{Choose, MemoryDisk};
use crate::{
    Applied, Checkpoint, CheckpointFile, Incoming, PartitionStore, PartitionStores, PointView, damaged,
    misuse, seal, view_error,
};

/// The one file of a checkpoint.
const FILE: &str = "STATE";

/// Commits kept apart before the oldest become durable by themselves, as a background flush would make them.
const TAIL_COMMITS: usize = 4096;

#[derive(Debug, Clone, Default)]
struct Image {
    applied: Option<Applied>,
    records: BTreeMap<Bytes, Bytes>,
}

impl Image {
    fn commit(&mut self, changes: &[Change], applied: &Applied) {
        for change in changes {
            match &change.value {
                Some(value) => self.records.insert(change.key.clone(), value.clone()),
                None => self.records.remove(&change.key),
            };
        }
        self.applied = Some(applied.clone());
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        put(&seal::applied(&self.applied.clone().unwrap_or_default()));
        for (key, value) in &self.records {
            put(key);
            put(value);
        }
        seal::sealed(&out)
    }

    fn decode(bytes: &[u8]) -> io::Result<Image> {
        let wrong = || damaged("the copy is incomplete or damaged");
        let mut rest = seal::unseal(bytes).ok_or_else(wrong)?;
        let mut parts = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (part, tail) = tail
                .split_at_checked(u32::from_le_bytes(*length) as usize)
                .ok_or_else(wrong)?;
            parts.push(Bytes::copy_from_slice(part));
            rest = tail;
        }
        let (applied, records) = parts.split_first().ok_or_else(wrong)?;
        Ok(Image {
            applied: Some(seal::parse_applied("the copy's position", applied)?),
            records: records
                .chunks_exact(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect(),
        })
    }
}

impl View for Image {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        Ok(self.records.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: Visit<'_>) -> Result<(), ViewError> {
        if from >= to {
            return Ok(());
        }
        let mut range = self
            .records
            .range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)));
        while let Some((key, value)) = if reverse { range.next_back() } else { range.next() } {
            if let ControlFlow::Break(()) = visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}

/// One replica's state on the disk.
#[derive(Default)]
pub(super) struct StateDisk {
    durable: Arc<Image>,
    now: Arc<Image>,
    tail: VecDeque<(Vec<Change>, Applied)>,
    open: Weak<()>,
    pub(super) damaged: bool,
}

impl StateDisk {
    fn harden(&mut self, commits: usize) {
        let durable = Arc::make_mut(&mut self.durable);
        for (changes, applied) in self.tail.drain(..commits) {
            durable.commit(&changes, &applied);
        }
    }

    pub(super) fn durable(&self) -> Option<Applied> {
        self.durable.applied.clone()
    }

    pub(super) fn crash(&mut self, choose: Choose<'_>) {
        let kept = choose(self.tail.len() + 1);
        self.harden(kept);
        self.tail.clear();
        self.now = self.durable.clone();
        self.open = Weak::new();
    }
}

pub(super) struct MemoryStores {
    pub(super) disk: Arc<MemoryDisk>,
    pub(super) boot: u64,
}

impl PartitionStores for MemoryStores {
    fn open(&self, partition: PartitionId, replica: ReplicaId) -> io::Result<Arc<dyn PartitionStore>> {
        let id = (partition, replica);
        let busy = format!("replica {replica} of partition {partition} is open already");
        let open = Arc::new(());
        self.disk.with(self.boot, |disk| {
            let state = disk.states.entry(id).or_default();
            if state.open.strong_count() > 0 {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, busy));
            }
            if state.damaged {
                return Err(damaged(format!(
                    "the state of replica {replica} of partition {partition} is damaged"
                )));
            }
            state.open = Arc::downgrade(&open);
            Ok(())
        })?;
        Ok(Arc::new(MemoryStore {
            disk: self.disk.clone(),
            boot: self.boot,
            id,
            _open: open,
        }))
    }

    fn remove(&self, partition: PartitionId, replica: ReplicaId) -> io::Result<()> {
        self.disk.with(self.boot, |disk| {
            let open = disk
                .states
                .get(&(partition, replica))
                .is_some_and(|state| state.open.strong_count() > 0);
            if open {
                let text = format!(
                    "replica {replica} of partition {partition} is open: close it before removing it"
                );
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            disk.states.remove(&(partition, replica));
            Ok(())
        })
    }

    fn list(&self) -> io::Result<Vec<(PartitionId, ReplicaId)>> {
        self.disk
            .with(self.boot, |disk| Ok(disk.states.keys().copied().collect()))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.with(self.boot, |disk| Ok(disk.free_bytes))
    }
}

struct MemoryStore {
    disk: Arc<MemoryDisk>,
    boot: u64,
    id: (PartitionId, ReplicaId),
    _open: Arc<()>,
}

impl MemoryStore {
    fn with<T>(&self, act: impl FnOnce(&mut StateDisk) -> io::Result<T>) -> io::Result<T> {
        let (partition, replica) = self.id;
        let gone = || {
            damaged(format!(
                "the state of replica {replica} of partition {partition} is damaged"
            ))
        };
        self.disk.with(self.boot, |disk| {
            disk.read_error()?;
            act(disk
                .states
                .get_mut(&self.id)
                .filter(|state| !state.damaged)
                .ok_or_else(gone)?)
        })
    }

    fn image(&self) -> Result<Arc<Image>, ViewError> {
        self.with(|state| Ok(state.now.clone())).map_err(view_error)
    }
}

/// Reads whatever is newest.
struct Latest<'a>(&'a MemoryStore);

impl View for Latest<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.0.image()?.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: Visit<'_>) -> Result<(), ViewError> {
        self.0.image()?.scan(from, to, reverse, visit)
    }
}

/// The state at one moment, or why it could not be had.
struct Point(Result<Arc<Image>, ViewError>);

impl View for Point {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.0.as_ref().map_err(Clone::clone)?.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: Visit<'_>) -> Result<(), ViewError> {
        self.0
            .as_ref()
            .map_err(Clone::clone)?
            .scan(from, to, reverse, visit)
    }
}

impl PartitionStore for MemoryStore {
    fn latest(&self) -> Box<dyn View + Send + '_> {
        Box::new(Latest(self))
    }

    fn point(&self) -> Arc<dyn PointView> {
        Arc::new(Point(self.image()))
    }

    fn commit(&self, changes: &[Change], applied: &Applied) -> io::Result<()> {
        if changes.iter().any(|change| change.key.len() < 2) {
            return Err(misuse("a record's key has at least two bytes"));
        }
        self.with(|state| {
            Arc::make_mut(&mut state.now).commit(changes, applied);
            state.tail.push_back((changes.to_vec(), applied.clone()));
            if state.tail.len() > TAIL_COMMITS {
                state.harden(TAIL_COMMITS / 2);
            }
            Ok(())
        })
    }

    fn applied(&self) -> io::Result<Option<Applied>> {
        self.with(|state| Ok(state.now.applied.clone()))
    }

    fn flush(&self) -> io::Result<()> {
        if let Some(error) = self.disk.with(self.boot, |disk| Ok(disk.sync_error()))? {
            return Err(io::Error::other(error));
        }
        self.with(|state| {
            state.harden(state.tail.len());
            Ok(())
        })
    }

    fn checkpoint(&self) -> io::Result<Arc<dyn Checkpoint>> {
        self.flush()?;
        let mut image = self.with(|state| Ok(state.now.clone()))?;
        if planted::is(Planted::SessionsNotSent) {
            let sessions = Kind::Session as u8..=Kind::SessionIdle as u8;
            let records = &mut Arc::make_mut(&mut image).records;
            records.retain(|key, _| !sessions.contains(&key[PREFIX_BYTES - 1]));
        }
        match &image.applied {
            Some(applied) => Ok(Arc::new(Frozen {
                applied: applied.clone(),
                file: image.encode().into(),
            })),
            None => Err(misuse("nothing was committed yet: there is nothing to freeze")),
        }
    }

    fn install(&self, incoming: Box<dyn Incoming>) -> io::Result<()> {
        let foreign = || misuse("only what this store received can be installed");
        let incoming = incoming
            .into_any()
            .downcast::<MemoryIncoming>()
            .map_err(|_| foreign())?;
        if incoming.id != self.id {
            return Err(foreign());
        }
        let image = incoming
            .image
            .ok_or_else(|| misuse("a copy is finished before it is installed"))?;
        self.disk.with(self.boot, |disk| {
            let state = disk.states.entry(self.id).or_default();
            state.now = Arc::new(image);
            state.durable = state.now.clone();
            state.tail.clear();
            state.damaged = false;
            Ok(())
        })
    }

    fn receive(&self) -> io::Result<Box<dyn Incoming>> {
        Ok(Box::new(MemoryIncoming {
            disk: self.disk.clone(),
            id: self.id,
            file: Vec::new(),
            image: None,
        }))
    }

    fn size_bytes(&self) -> u64 {
        let size = |image: &Image| {
            image
                .records
                .iter()
                .map(|(key, value)| (key.len() + value.len()) as u64)
                .sum()
        };
        self.with(|state| Ok(size(&state.now))).unwrap_or(0)
    }
}

struct Frozen {
    applied: Applied,
    file: Bytes,
}

impl Checkpoint for Frozen {
    fn applied(&self) -> Applied {
        self.applied.clone()
    }

    fn list(&self) -> io::Result<Vec<CheckpointFile>> {
        Ok(vec![CheckpointFile {
            name: FILE.into(),
            size_bytes: self.file.len() as u64,
        }])
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        if name != FILE {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("the checkpoint has no file {name:?}"),
            ));
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.file.len());
        Ok(self
            .file
            .slice(from..self.file.len().min(from.saturating_add(len))))
    }
}

struct MemoryIncoming {
    disk: Arc<MemoryDisk>,
    id: (PartitionId, ReplicaId),
    file: Vec<u8>,
    image: Option<Image>,
}

impl Incoming for MemoryIncoming {
    fn write(&mut self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        if name != FILE {
            return Err(misuse(format!("{name:?} is not a file of a checkpoint")));
        }
        if offset != self.file.len() as u64 {
            return Err(misuse(format!(
                "{name}: writing at {offset}, expected {}",
                self.file.len()
            )));
        }
        self.image = None;
        self.file.extend_from_slice(data);
        let flips = self.disk.with_any(|disk| {
            let flips = disk.flips > 0;
            disk.flips = disk.flips.saturating_sub(1);
            flips
        });
        if let Some(byte) = self.file.last_mut().filter(|_| flips) {
            *byte ^= 1;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<Applied> {
        let image = Image::decode(&self.file)?;
        let applied = image.applied.clone().unwrap_or_default();
        self.image = Some(image);
        Ok(applied)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
