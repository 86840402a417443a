//! A log store against a plain map, over many made-up histories with reopening and crashes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use types::ReplicaId;

use super::{Fixture, PATIENCE, done};
use crate::{LogRecord, LogStore};

const REPLICAS: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(1 << 40)];

/// xorshift: the same histories every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, Bytes>,
    purged: Option<u64>,
    vote: Option<Bytes>,
}

impl Model {
    fn next(&self) -> u64 {
        let last = self.entries.keys().next_back().copied();
        last.or(self.purged).map_or(1, |index| index + 1)
    }

    fn first(&self) -> u64 {
        self.entries.keys().next().copied().unwrap_or_else(|| self.next())
    }
}

struct Run {
    numbers: Numbers,
    log: Arc<dyn LogStore>,
    models: BTreeMap<ReplicaId, Model>,
    waiting: Vec<Receiver<std::io::Result<()>>>,
}

pub(super) fn log_equals_a_map(fixture: &mut dyn Fixture) {
    let models = REPLICAS
        .iter()
        .map(|replica| (*replica, Model::default()))
        .collect();
    let log = fixture.log().expect("opens");
    let mut run = Run {
        numbers: Numbers(0x9e37_79b9_7f4a_7c15),
        log,
        models,
        waiting: Vec::new(),
    };
    for step in 0..1500 {
        run.step();
        if step % 5 == 0 {
            run.check();
        }
        if step % 250 == 249 {
            run.settle();
            run.check();
            if step % 500 == 249 {
                fixture.crash();
            } else {
                // Closes it before it is opened again.
                run.log = Arc::new(Closed);
            }
            run.log = fixture.log().expect("opens again");
            run.check();
        }
    }
}

impl Run {
    fn step(&mut self) {
        let replica = REPLICAS[self.numbers.below(3) as usize];
        let choice = self.numbers.below(20);
        let count = 1 + self.numbers.below(5);
        let large = self.numbers.below(4) == 0;
        let pick = self.numbers.below(1 << 32);
        let model = self.models.get_mut(&replica).expect("known");
        let (done, receiver) = done();
        match choice {
            0..12 => {
                let size = if large { 150_000 } else { 30 };
                let records: Vec<LogRecord> = (model.next()..model.next() + count)
                    .map(|index| LogRecord {
                        index,
                        data: Bytes::from(vec![(pick ^ index) as u8; size]),
                    })
                    .collect();
                model
                    .entries
                    .extend(records.iter().map(|record| (record.index, record.data.clone())));
                self.log.append(replica, records, done);
            }
            12..15 => {
                let last = (model.first() + pick % (model.next() - model.first() + 1)).checked_sub(1);
                let keep = last.filter(|last| *last >= model.first());
                model.entries.split_off(&keep.map_or(0, |last| last + 1));
                self.log.truncate_after(replica, keep, done);
            }
            15..17 => {
                let through = model.first() + pick % (model.next() - model.first() + 2);
                if model.purged.is_none_or(|purged| purged < through) {
                    model.entries = model.entries.split_off(&(through + 1));
                    model.purged = Some(through);
                }
                self.log
                    .purge(replica, through, Bytes::from(format!("id {through}")), done);
            }
            17..19 => {
                let vote = Bytes::from(format!("vote {pick}"));
                model.vote = Some(vote.clone());
                self.log.save_vote(replica, vote, done);
            }
            _ if pick.is_multiple_of(4) => {
                *model = Model::default();
                self.log.remove(replica, done);
            }
            _ => drop(done),
        }
        if choice < 19 || pick.is_multiple_of(4) {
            self.waiting.push(receiver);
        }
    }

    fn settle(&mut self) {
        for receiver in self.waiting.drain(..) {
            receiver.recv_timeout(PATIENCE).expect("fires").expect("succeeds");
        }
    }

    fn check(&mut self) {
        for (replica, model) in &self.models {
            let found = self
                .log
                .read(*replica, 0..u64::MAX, usize::MAX)
                .expect("readable");
            let found: BTreeMap<u64, Bytes> = found
                .into_iter()
                .map(|record| (record.index, record.data))
                .collect();
            assert!(
                found == model.entries,
                "replica {replica}: {:?}",
                found.keys().collect::<Vec<_>>()
            );
            let state = self.log.state(*replica).expect("readable");
            assert_eq!(state.vote, model.vote);
            assert_eq!(
                state.purged,
                model
                    .purged
                    .map(|index| (index, Bytes::from(format!("id {index}"))))
            );
            assert_eq!(
                state.last.map(|record| record.index),
                model.entries.keys().next_back().copied()
            );
            let bytes: usize = model.entries.values().map(Bytes::len).sum();
            assert_eq!(self.log.size_bytes(*replica), bytes as u64);
        }
    }
}

/// Stands where the store was while it is opened again.
struct Closed;

impl LogStore for Closed {
    fn append(&self, _: ReplicaId, _: Vec<LogRecord>, _: crate::Done) {}
    fn save_vote(&self, _: ReplicaId, _: Bytes, _: crate::Done) {}
    fn save_committed(&self, _: ReplicaId, _: Bytes) {}
    fn truncate_after(&self, _: ReplicaId, _: Option<u64>, _: crate::Done) {}
    fn purge(&self, _: ReplicaId, _: u64, _: Bytes, _: crate::Done) {}
    fn remove(&self, _: ReplicaId, _: crate::Done) {}
    fn read(&self, _: ReplicaId, _: std::ops::Range<u64>, _: usize) -> std::io::Result<Vec<LogRecord>> {
        Err(crate::misuse("closed"))
    }
    fn state(&self, _: ReplicaId) -> std::io::Result<crate::LogState> {
        Err(crate::misuse("closed"))
    }
    fn replicas(&self) -> std::io::Result<Vec<ReplicaId>> {
        Err(crate::misuse("closed"))
    }
    fn size_bytes(&self, _: ReplicaId) -> u64 {
        0
    }
    fn stats(&self) -> crate::LogStats {
        crate::LogStats::default()
    }
}
