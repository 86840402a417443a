//! The log in memory: a synced image, and operations that a crash may lose.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use types::ReplicaId;

use super::disk::{Choose, MemoryDisk};
use crate::{Done, LogRecord, LogState, LogStats, LogStore, damaged, misuse};

/// What changes a replica's log.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Append(Vec<LogRecord>),
    Vote(Bytes),
    Committed(Bytes),
    Truncate(Option<u64>),
    Purge(u64, Bytes),
    Remove,
}

/// One replica's log.
#[derive(Debug, Clone, Default)]
struct Image {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    entries: BTreeMap<u64, Bytes>,
}

type Images = BTreeMap<ReplicaId, Image>;

#[derive(Default)]
pub(super) struct LogDisk {
    synced: Images,
    now: Images,
    pub(super) unsynced: VecDeque<(ReplicaId, Op, Option<Done>)>,
    pub(super) damaged: BTreeSet<(ReplicaId, u64)>,
    stats: LogStats,
}

impl Image {
    fn next(&self) -> Option<u64> {
        let last = self.entries.keys().next_back().copied();
        last.or(self.purged.as_ref().map(|(index, _)| *index))
            .map(|index| index + 1)
    }

    /// Refuses what the contract does not allow; `false` if there is nothing to do.
    fn allows(&self, replica: ReplicaId, op: &Op) -> io::Result<bool> {
        match op {
            Op::Append(records) => {
                let Some(first) = records.first() else {
                    return Ok(false);
                };
                let start = self.next().unwrap_or(first.index);
                match records
                    .iter()
                    .zip(start..)
                    .find(|(record, index)| record.index != *index)
                {
                    Some((record, index)) => {
                        let found = record.index;
                        Err(misuse(format!(
                            "replica {replica}: appending {found}, expected {index}"
                        )))
                    }
                    None => Ok(true),
                }
            }
            Op::Truncate(last) => {
                let from = last.map_or(0, |last| last + 1);
                let Some((&first, _)) = self.entries.first_key_value() else {
                    return Ok(false);
                };
                if last.is_some() && from < first {
                    return Err(misuse(format!(
                        "replica {replica}: truncating to {from}, the log begins at {first}"
                    )));
                }
                Ok(self.entries.range(from..).next().is_some())
            }
            Op::Purge(through, _) => Ok(self.purged.as_ref().is_none_or(|(purged, _)| purged < through)),
            Op::Vote(_) | Op::Committed(_) | Op::Remove => Ok(true),
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(records) => {
                self.entries
                    .extend(records.iter().map(|record| (record.index, record.data.clone())));
            }
            Op::Vote(vote) => self.vote = Some(vote.clone()),
            Op::Committed(committed) => self.committed = Some(committed.clone()),
            Op::Truncate(last) => drop(self.entries.split_off(&last.map_or(0, |last| last + 1))),
            Op::Purge(through, id) => {
                self.entries = self.entries.split_off(&(through + 1));
                self.purged = Some((*through, id.clone()));
            }
            Op::Remove => *self = Image::default(),
        }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.vote.is_none() && self.committed.is_none() && self.purged.is_none()
    }
}

impl LogDisk {
    /// `false` if the operation changes nothing and needs no sync.
    fn begin(&mut self, replica: ReplicaId, op: Op, done: &mut Option<Done>) -> io::Result<bool> {
        let image = self.now.entry(replica).or_default();
        if !image.allows(replica, &op)? {
            return Ok(false);
        }
        if let Op::Append(records) = &op {
            self.stats.bytes += records.iter().map(|record| record.data.len() as u64).sum::<u64>();
        }
        // What comes in the place of what was cut off is sound.
        match &op {
            Op::Truncate(last) => self
                .damaged
                .retain(|(of, index)| *of != replica || last.is_some_and(|last| *index <= last)),
            Op::Remove => self.damaged.retain(|(of, _)| *of != replica),
            Op::Append(_) | Op::Vote(_) | Op::Committed(_) | Op::Purge(..) => {}
        }
        image.apply(&op);
        self.unsynced.push_back((replica, op, done.take()));
        Ok(true)
    }

    fn image_of(&self, replica: ReplicaId, synced: bool) -> Option<&Image> {
        let images = if synced { &self.synced } else { &self.now };
        images.get(&replica)
    }

    pub(super) fn entry(&self, replica: ReplicaId, index: u64, synced: bool) -> Option<Bytes> {
        self.image_of(replica, synced)?.entries.get(&index).cloned()
    }

    pub(super) fn purged(&self, replica: ReplicaId, synced: bool) -> u64 {
        let image = self.image_of(replica, synced);
        let purged = image.and_then(|image| image.purged.as_ref());
        purged.map_or(0, |(index, _)| *index)
    }

    /// Syncs everything, or fails to; returns who must be told.
    pub(super) fn sync(&mut self, works: bool) -> Vec<Done> {
        // Committed ids alone wake nobody.
        if !self.unsynced.iter().any(|(_, _, done)| done.is_some()) {
            return Vec::new();
        }
        self.stats.syncs += 1;
        self.stats.operations += self.unsynced.len() as u64;
        let mut told = Vec::new();
        for (replica, op, done) in self.unsynced.drain(..) {
            if works {
                self.synced.entry(replica).or_default().apply(&op);
            }
            told.extend(done);
        }
        told
    }

    /// Returns the callbacks that will never fire, to be dropped outside the lock.
    pub(super) fn crash(&mut self, choose: Choose<'_>) -> Vec<Done> {
        let mut lost: Vec<_> = self.unsynced.drain(..).collect();
        let count = lost.len();
        let kept = choose(count + 1);
        assert!(kept <= count, "choose(n) returns less than n");
        for (replica, op, _) in &lost[..kept] {
            self.synced.entry(*replica).or_default().apply(op);
        }
        if let Some((replica, Op::Append(records), _)) = lost.get(kept) {
            let torn = choose(records.len());
            let op = Op::Append(records[..torn].to_vec());
            self.synced.entry(*replica).or_default().apply(&op);
        }
        self.now = self.synced.clone();
        self.stats = LogStats::default();
        lost.iter_mut().filter_map(|(_, _, done)| done.take()).collect()
    }
}

/// The log store of one boot.
pub(super) struct MemoryLog {
    pub(super) disk: Arc<MemoryDisk>,
    pub(super) boot: u64,
}

impl MemoryLog {
    fn submit(&self, replica: ReplicaId, op: Op, done: Done) {
        let mut done = Some(done);
        let begun = self.disk.with(self.boot, |disk| match disk.failed.clone() {
            Some(failed) => Err(io::Error::other(failed)),
            None => disk.log.begin(replica, op, &mut done),
        });
        match (begun, done) {
            (Ok(true), _) => self.disk.settle(),
            (Ok(false), Some(done)) => self.disk.answer(done, None),
            (Err(error), Some(done)) => done(Err(error)),
            (Ok(false) | Err(_), None) => {}
        }
    }

    fn image<T>(&self, replica: ReplicaId, read: impl FnOnce(&Image) -> T) -> io::Result<T> {
        let empty = Image::default();
        self.disk.with(self.boot, |disk| {
            disk.read_error()?;
            Ok(read(disk.log.now.get(&replica).unwrap_or(&empty)))
        })
    }

    fn check_damage(&self, replica: ReplicaId, records: &[LogRecord]) -> io::Result<()> {
        self.disk.with(self.boot, |disk| {
            match records
                .iter()
                .find(|record| disk.log.damaged.contains(&(replica, record.index)))
            {
                Some(LogRecord { index, .. }) => Err(damaged(format!(
                    "log in memory: entry {index} of replica {replica} fails its checksum"
                ))),
                None => Ok(()),
            }
        })
    }
}

impl LogStore for MemoryLog {
    fn append(&self, replica: ReplicaId, records: Vec<LogRecord>, done: Done) {
        self.submit(replica, Op::Append(records), done);
    }

    fn save_vote(&self, replica: ReplicaId, vote: Bytes, done: Done) {
        self.submit(replica, Op::Vote(vote), done);
    }

    fn save_committed(&self, replica: ReplicaId, committed: Bytes) {
        let saved = self.disk.with(self.boot, |disk| {
            // A newer one makes an older one that waits beside it pointless.
            disk.log
                .unsynced
                .retain(|(other, op, _)| *other != replica || !matches!(op, Op::Committed(_)));
            disk.log.begin(replica, Op::Committed(committed), &mut None)
        });
        drop(saved); // A crashed process saves nothing.
    }

    fn truncate_after(&self, replica: ReplicaId, last: Option<u64>, done: Done) {
        self.submit(replica, Op::Truncate(last), done);
    }

    fn purge(&self, replica: ReplicaId, through: u64, id: Bytes, done: Done) {
        self.submit(replica, Op::Purge(through, id), done);
    }

    fn remove(&self, replica: ReplicaId, done: Done) {
        self.submit(replica, Op::Remove, done);
    }

    fn read(&self, replica: ReplicaId, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<LogRecord>> {
        let records = self.image(replica, |image| {
            let mut records: Vec<LogRecord> = Vec::new();
            let mut bytes = 0;
            if range.is_empty() {
                return records;
            }
            for (index, data) in image.entries.range(range) {
                if !records.is_empty() && bytes + data.len() > max_bytes {
                    break;
                }
                bytes += data.len();
                records.push(LogRecord {
                    index: *index,
                    data: data.clone(),
                });
            }
            records
        })?;
        self.check_damage(replica, &records)?;
        Ok(records)
    }

    fn state(&self, replica: ReplicaId) -> io::Result<LogState> {
        let record = |(index, data): (&u64, &Bytes)| LogRecord {
            index: *index,
            data: data.clone(),
        };
        let state = self.image(replica, |image| LogState {
            first: image.entries.first_key_value().map(record),
            last: image.entries.last_key_value().map(record),
            purged: image.purged.clone(),
            vote: image.vote.clone(),
            committed: image.committed.clone(),
        })?;
        for record in state.first.iter().chain(&state.last) {
            self.check_damage(replica, std::slice::from_ref(record))?;
        }
        Ok(state)
    }

    fn replicas(&self) -> io::Result<Vec<ReplicaId>> {
        self.disk.with(self.boot, |disk| {
            let images = disk.log.now.iter();
            Ok(images
                .filter(|(_, image)| !image.is_empty())
                .map(|(replica, _)| *replica)
                .collect())
        })
    }

    fn size_bytes(&self, replica: ReplicaId) -> u64 {
        let size = self.image(replica, |image| {
            image.entries.values().map(|data| data.len() as u64).sum()
        });
        size.unwrap_or(0)
    }

    fn stats(&self) -> LogStats {
        self.disk
            .with(self.boot, |disk| Ok(disk.log.stats))
            .unwrap_or_default()
    }
}
