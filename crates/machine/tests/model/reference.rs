//! A simple model of one key space: a map per revision, and nothing else. It says what the machine must answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use machine::command::*;
use machine::outcome::*;
use machine::query::{HistoryEvent, LeaseInfo};

const TTL_MIN_S: i64 = 2;
const WINDOW: u64 = 32;

type Map = BTreeMap<Bytes, KeyValue>;

#[derive(Clone, Debug, Default)]
pub struct Lease {
    pub ttl_s: i64,
    pub deadline_ms: u64,
    pub generation: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Session {
    pub last: u64,
    pub replies: BTreeMap<u64, Reply>,
    pub used_ms: u64,
}

/// The whole model.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub clock_ms: u64,
    pub revision: i64,
    pub compact: i64,
    /// What was there at each revision.
    pub at: BTreeMap<i64, Map>,
    pub events: BTreeMap<i64, Vec<Event>>,
    pub leases: BTreeMap<i64, Lease>,
    pub sessions: BTreeMap<u64, Session>,
}

fn refused(kind: RefusalKind) -> Done {
    Done::Refused(Refusal {
        kind: kind as i32,
        ..Default::default()
    })
}

pub fn holds(key: &Bytes, end: &Bytes, probe: &Bytes) -> bool {
    match end.as_ref() {
        [] => probe == key,
        [0] => probe >= key,
        _ => probe >= key && probe < end,
    }
}

impl Model {
    pub fn new() -> Model {
        Model {
            revision: 1,
            at: BTreeMap::from([(1, Map::new())]),
            ..Default::default()
        }
    }

    pub fn now(&self) -> &Map {
        &self.at[&self.revision]
    }

    pub fn command(&mut self, command: &Command) -> Reply {
        let body = command.body.as_ref().expect("generated");
        let about = matches!(body, Body::SessionOpen(_) | Body::SessionExpire(_));
        if command.client_id != 0 && !about {
            let Some(session) = self.sessions.get(&command.client_id) else {
                return self.reply(refused(RefusalKind::SessionExpired));
            };
            if command.seq + WINDOW <= session.last {
                return self.reply(refused(RefusalKind::SessionExpired));
            }
            if let Some(reply) = session.replies.get(&command.seq).cloned() {
                self.sessions.get_mut(&command.client_id).expect("there").used_ms = self.clock_ms;
                return reply;
            }
        }
        let done = self.body(command.client_id, body);
        let reply = self.reply(done);
        if command.client_id != 0 && !about {
            let clock_ms = self.clock_ms;
            let session = self.sessions.get_mut(&command.client_id).expect("there");
            session.used_ms = clock_ms;
            session.last = session.last.max(command.seq);
            session.replies.insert(command.seq, reply.clone());
            let last = session.last;
            session.replies.retain(|seq, _| seq + WINDOW > last);
        }
        reply
    }

    fn reply(&self, done: Done) -> Reply {
        Reply {
            revision: self.revision,
            done: Some(done),
        }
    }

    fn body(&mut self, client_id: u64, body: &Body) -> Done {
        match body {
            Body::Put(put) => self.one(RequestOp {
                operation: Some(Operation::Put(put.clone())),
            }),
            Body::DeleteRange(delete) => self.one(RequestOp {
                operation: Some(Operation::DeleteRange(delete.clone())),
            }),
            Body::Txn(txn) => self.txn(txn).map_or_else(refused, Done::Txn),
            Body::Compact(compact) if compact.revision <= self.compact => refused(RefusalKind::Compacted),
            Body::Compact(compact) if compact.revision > self.revision => {
                refused(RefusalKind::FutureRevision)
            }
            Body::Compact(compact) => {
                self.compact = compact.revision;
                Done::Empty(Empty {})
            }
            Body::LeaseGrant(grant) if self.leases.contains_key(&grant.id) => {
                refused(RefusalKind::LeaseExists)
            }
            Body::LeaseGrant(grant) => {
                let ttl_s = grant.ttl_s.max(TTL_MIN_S);
                let deadline_ms = self.clock_ms + ttl_s as u64 * 1000;
                self.leases.insert(
                    grant.id,
                    Lease {
                        ttl_s,
                        deadline_ms,
                        generation: 1,
                    },
                );
                Done::Lease(LeaseDone { id: grant.id, ttl_s })
            }
            Body::LeaseRevoke(lease) if self.leases.contains_key(&lease.id) => {
                self.end_lease(lease.id);
                Done::Empty(Empty {})
            }
            Body::LeaseKeepAlive(lease)
                if self
                    .leases
                    .get(&lease.id)
                    .is_some_and(|known| known.deadline_ms > self.clock_ms) =>
            {
                let clock_ms = self.clock_ms;
                let known = self.leases.get_mut(&lease.id).expect("there");
                known.deadline_ms = clock_ms + known.ttl_s as u64 * 1000;
                known.generation += 1;
                Done::Lease(LeaseDone {
                    id: lease.id,
                    ttl_s: known.ttl_s,
                })
            }
            Body::LeaseRevoke(_) | Body::LeaseKeepAlive(_) => refused(RefusalKind::LeaseNotFound),
            Body::LeaseExpire(expire) => {
                let due = self.leases.get(&expire.id).is_some_and(|lease| {
                    lease.generation == expire.generation && lease.deadline_ms <= self.clock_ms
                });
                if due {
                    self.end_lease(expire.id);
                }
                Done::Empty(Empty {})
            }
            Body::SessionOpen(_) => {
                let clock_ms = self.clock_ms;
                self.sessions.entry(client_id).or_default().used_ms = clock_ms;
                Done::Empty(Empty {})
            }
            Body::SessionExpire(expire) => {
                let before = self.sessions.len();
                let since = expire.silent_since_ms.min(self.clock_ms);
                self.sessions.retain(|_, session| session.used_ms >= since);
                let removed = (before - self.sessions.len()) as u64;
                Done::Step(StepDone {
                    remaining: false,
                    removed,
                })
            }
            Body::Tick(_) | Body::NamespaceConfigure(_) => Done::Empty(Empty {}),
            Body::CompactStep(_) | Body::Meta(_) => unreachable!("not generated here"),
        }
    }

    fn end_lease(&mut self, id: i64) {
        self.leases.remove(&id);
        let keys: Vec<Bytes> = self
            .now()
            .values()
            .filter(|kv| kv.lease == id)
            .map(|kv| kv.key.clone())
            .collect();
        let mut edit = Edit::new(self);
        for key in keys {
            edit.delete(&key);
        }
        edit.finish();
    }

    /// One operation alone is a transaction of it, except for the order of its checks.
    fn one(&mut self, op: RequestOp) -> Done {
        let txn = TxnRequest {
            success: vec![op.clone()],
            ..Default::default()
        };
        if let (Ok(()), Some(Operation::Put(put))) = (self.shape(&txn), &op.operation)
            && put.lease != 0
            && !self.leases.contains_key(&put.lease)
        {
            return refused(RefusalKind::LeaseNotFound);
        }
        let mut done = match self.txn(&txn) {
            Ok(done) => done,
            Err(kind) => return refused(kind),
        };
        match done.responses.remove(0).done.expect("one") {
            OperationDone::Put(put) => Done::Put(put),
            OperationDone::Deleted(deleted) => Done::Deleted(deleted),
            OperationDone::Range(_) | OperationDone::Txn(_) => unreachable!("not asked alone"),
        }
    }

    fn txn(&mut self, txn: &TxnRequest) -> Result<TxnDone, RefusalKind> {
        self.shape(txn)?;
        for branch in [&txn.success, &txn.failure] {
            touched(branch)?;
        }
        let taken = self.taken(txn);
        let mut ops = Vec::new();
        flatten(&taken, &mut ops);
        for op in &ops {
            if let Operation::Put(put) = op {
                let missing = !self.now().contains_key(&put.key);
                if (put.ignore_value || put.ignore_lease) && missing {
                    return Err(RefusalKind::KeyNotFound);
                }
                if put.lease != 0 && !self.leases.contains_key(&put.lease) {
                    return Err(RefusalKind::LeaseNotFound);
                }
            }
        }
        for op in &ops {
            if let Operation::Range(range) = op {
                if range.revision > self.revision {
                    return Err(RefusalKind::FutureRevision);
                }
                if range.revision > 0 && range.revision < self.compact {
                    return Err(RefusalKind::Compacted);
                }
            }
        }
        let mut edit = Edit::new(self);
        let done = edit.run(&taken);
        edit.finish();
        Ok(done)
    }

    fn shape(&self, txn: &TxnRequest) -> Result<(), RefusalKind> {
        for op in txn.success.iter().chain(&txn.failure) {
            match op.operation.as_ref().expect("generated") {
                Operation::Put(put) if put.ignore_value && !put.value.is_empty() => {
                    return Err(RefusalKind::Invalid);
                }
                Operation::Put(put) if put.ignore_lease && put.lease != 0 => {
                    return Err(RefusalKind::Invalid);
                }
                Operation::Txn(nested) => self.shape(nested)?,
                Operation::Put(_) | Operation::Range(_) | Operation::DeleteRange(_) => {}
            }
        }
        Ok(())
    }

    /// The transaction with only the branches taken left, all under `success`; `failure` says which by being empty.
    fn taken(&self, txn: &TxnRequest) -> Taken {
        let success = txn.compare.iter().all(|compare| {
            let kvs: Vec<_> = self
                .now()
                .values()
                .filter(|kv| holds(&compare.key, &compare.range_end, &kv.key))
                .collect();
            if kvs.is_empty() {
                return compare.target != 3 && compares(compare, &KeyValue::default());
            }
            kvs.into_iter().all(|kv| compares(compare, kv))
        });
        let branch = if success { &txn.success } else { &txn.failure };
        let ops = branch
            .iter()
            .map(|op| match op.operation.clone().expect("generated") {
                Operation::Txn(nested) => Step::Nested(self.taken(&nested)),
                operation => Step::Plain(operation),
            });
        Taken {
            success,
            ops: ops.collect(),
        }
    }

    /// A range at the current state or an earlier one.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, RefusalKind> {
        if request.revision > self.revision {
            return Err(RefusalKind::FutureRevision);
        }
        if request.revision > 0 && request.revision < self.compact {
            return Err(RefusalKind::Compacted);
        }
        let revision = if request.revision <= 0 {
            self.revision
        } else {
            request.revision
        };
        Ok(range(&self.at[&revision], request))
    }

    pub fn history(&self, from: i64, key: &Bytes, end: &Bytes) -> Result<Vec<HistoryEvent>, RefusalKind> {
        if from < self.compact {
            return Err(RefusalKind::Compacted);
        }
        let events = self.events.range(from..).flat_map(|(_, events)| events);
        let events = events.filter(|event| holds(key, end, &event.kv.key));
        Ok(events
            .map(|event| HistoryEvent {
                delete: event.kind == EventKind::Delete,
                kv: Some(event.kv.clone()),
                prev_kv: event
                    .prev_kv
                    .clone()
                    .filter(|_| event.kv.mod_revision > self.compact),
            })
            .collect())
    }

    pub fn lease(&self, id: i64) -> LeaseInfo {
        let Some(lease) = self.leases.get(&id) else {
            return LeaseInfo {
                id,
                granted_s: 0,
                remaining_ms: -1000,
                keys: Vec::new(),
            };
        };
        let keys = self
            .now()
            .values()
            .filter(|kv| kv.lease == id)
            .map(|kv| kv.key.clone())
            .collect();
        let remaining_ms = lease.deadline_ms.saturating_sub(self.clock_ms) as i64;
        LeaseInfo {
            id,
            granted_s: lease.ttl_s,
            remaining_ms,
            keys,
        }
    }
}

struct Taken {
    success: bool,
    ops: Vec<Step>,
}

enum Step {
    Plain(Operation),
    Nested(Taken),
}

fn flatten<'t>(taken: &'t Taken, into: &mut Vec<&'t Operation>) {
    for op in &taken.ops {
        match op {
            Step::Plain(operation) => into.push(operation),
            Step::Nested(taken) => flatten(taken, into),
        }
    }
}

/// Puts (range end empty) and deletes of a list, refused if two of them can meet on a key.
fn touched(ops: &[RequestOp]) -> Result<Vec<(bool, Bytes, Bytes)>, RefusalKind> {
    let mut all: Vec<(bool, Bytes, Bytes)> = Vec::new();
    for op in ops {
        let these = match op.operation.as_ref().expect("generated") {
            Operation::Put(put) => vec![(true, put.key.clone(), Bytes::new())],
            Operation::DeleteRange(delete) => vec![(false, delete.key.clone(), delete.range_end.clone())],
            Operation::Txn(nested) => {
                let mut both = touched(&nested.success)?;
                both.extend(touched(&nested.failure)?);
                both
            }
            Operation::Range(_) => Vec::new(),
        };
        for (put, key, end) in &these {
            for (other_put, other_key, other_end) in &all {
                let meets = match (put, other_put) {
                    (true, _) => holds(other_key, other_end, key),
                    (false, true) => holds(key, end, other_key),
                    (false, false) => false,
                };
                if meets {
                    return Err(RefusalKind::DuplicateKey);
                }
            }
        }
        all.extend(these);
    }
    Ok(all)
}

fn compares(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match compare.target {
        0 => kv.version.cmp(&compare.number),
        1 => kv.create_revision.cmp(&compare.number),
        2 => kv.mod_revision.cmp(&compare.number),
        3 => kv.value.cmp(&compare.value),
        _ => kv.lease.cmp(&compare.number),
    };
    [order.is_eq(), order.is_gt(), order.is_lt(), order.is_ne()][compare.result as usize]
}

fn range(map: &Map, request: &RangeRequest) -> RangeResponse {
    let mut kvs: Vec<KeyValue> = map
        .values()
        .filter(|kv| holds(&request.key, &request.range_end, &kv.key))
        .cloned()
        .collect();
    let count = kvs.len() as i64;
    if request.count_only {
        return RangeResponse {
            kvs: Vec::new(),
            more: false,
            count,
        };
    }
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    let limit = request.limit as usize;
    if request.sort_order == 0 && bounds == [0; 4] && limit > 0 {
        kvs.truncate(limit + 1);
    }
    kvs.retain(|kv| {
        (bounds[0] == 0 || kv.mod_revision >= bounds[0])
            && (bounds[1] == 0 || kv.mod_revision <= bounds[1])
            && (bounds[2] == 0 || kv.create_revision >= bounds[2])
            && (bounds[3] == 0 || kv.create_revision <= bounds[3])
    });
    let order = |a: &KeyValue, b: &KeyValue| match request.sort_target {
        0 => a.key.cmp(&b.key),
        1 => a.version.cmp(&b.version),
        2 => a.create_revision.cmp(&b.create_revision),
        3 => a.mod_revision.cmp(&b.mod_revision),
        _ => a.value.cmp(&b.value),
    };
    kvs.sort_by(|a, b| {
        if request.sort_order == 2 {
            order(b, a)
        } else {
            order(a, b)
        }
    });
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse { kvs, more, count }
}

/// One revision being made.
struct Edit<'m> {
    model: &'m mut Model,
    map: Map,
    events: Vec<Event>,
}

impl<'m> Edit<'m> {
    fn new(model: &'m mut Model) -> Edit<'m> {
        let map = model.now().clone();
        Edit {
            model,
            map,
            events: Vec::new(),
        }
    }

    fn run(&mut self, taken: &Taken) -> TxnDone {
        let next = self.model.revision + 1;
        let mut responses = Vec::new();
        for op in &taken.ops {
            let (revision, done) = match op {
                Step::Plain(Operation::Put(put)) => {
                    let before = self.put(put).filter(|_| put.prev_kv);
                    (next, OperationDone::Put(Put { prev_kv: before }))
                }
                Step::Plain(Operation::DeleteRange(delete)) => {
                    let keys: Vec<Bytes> = self
                        .map
                        .keys()
                        .filter(|key| holds(&delete.key, &delete.range_end, key))
                        .cloned()
                        .collect();
                    let gone: Vec<KeyValue> = keys.iter().map(|key| self.delete(key)).collect();
                    let deleted = gone.len() as i64;
                    let prev_kvs = if delete.prev_kv { gone } else { Vec::new() };
                    (
                        self.current(),
                        OperationDone::Deleted(Deleted { deleted, prev_kvs }),
                    )
                }
                Step::Plain(Operation::Range(request)) if request.revision <= 0 => {
                    (self.current(), OperationDone::Range(range(&self.map, request)))
                }
                Step::Plain(Operation::Range(request)) => (
                    self.current(),
                    OperationDone::Range(range(&self.model.at[&request.revision], request)),
                ),
                Step::Plain(Operation::Txn(_)) => unreachable!("resolved before"),
                Step::Nested(taken) => (0, OperationDone::Txn(self.run(taken))),
            };
            responses.push(ResponseOp {
                revision,
                done: Some(done),
            });
        }
        TxnDone {
            succeeded: taken.success,
            responses,
        }
    }

    fn current(&self) -> i64 {
        self.model.revision + i64::from(!self.events.is_empty())
    }

    fn put(&mut self, put: &PutRequest) -> Option<KeyValue> {
        let next = self.model.revision + 1;
        let before = self.map.get(&put.key).cloned();
        let old = before.clone().unwrap_or_default();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: if before.is_some() {
                old.create_revision
            } else {
                next
            },
            mod_revision: next,
            version: old.version + 1,
            value: if put.ignore_value {
                old.value
            } else {
                put.value.clone()
            },
            lease: if put.ignore_lease { old.lease } else { put.lease },
        };
        self.map.insert(put.key.clone(), kv.clone());
        self.events.push(Event {
            kind: EventKind::Put,
            kv,
            prev_kv: before.clone(),
        });
        before
    }

    fn delete(&mut self, key: &Bytes) -> KeyValue {
        let before = self.map.remove(key).expect("listed");
        let kv = KeyValue {
            key: key.clone(),
            mod_revision: self.model.revision + 1,
            ..Default::default()
        };
        self.events.push(Event {
            kind: EventKind::Delete,
            kv,
            prev_kv: Some(before.clone()),
        });
        before
    }

    fn finish(self) {
        if !self.events.is_empty() {
            self.model.revision += 1;
            self.model.at.insert(self.model.revision, self.map);
            self.model.events.insert(self.model.revision, self.events);
        }
    }
}
