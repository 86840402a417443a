//! What is found in a log when it is opened: whose it is, and the bounds of each replica.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::{DB, ReadOptions, WriteOptions};
use types::{ClusterId, NodeId, ReplicaId};

use super::codec::{self, Wrong};
use super::mirror::Mirror;
use super::options::rocks_error;
use crate::Owner;
use crate::damaged;

/// Writes the owner into a new log; refuses an old one of another owner.
pub(super) fn check_owner(db: &DB, dir: &Path, owner: Option<Owner>) -> io::Result<()> {
    let failed = |error: &rocksdb::Error| rocks_error(dir, "cannot read the owner of the log", error);
    let dir_name = dir.display();
    let Some(value) = db.get(codec::OWNER_KEY).map_err(|error| failed(&error))? else {
        let mut entries = db.raw_iterator();
        entries.seek_to_first();
        entries.status().map_err(|error| failed(&error))?;
        if entries.valid() {
            return Err(damaged(format!(
                "log {dir_name} has entries and no owner: not a holdfast log, or damaged"
            )));
        }
        let owner = owner.unwrap_or(Owner {
            cluster: ClusterId(0),
            node: NodeId(0),
        });
        let payload = [owner.cluster.0.to_le_bytes(), owner.node.0.to_le_bytes()].concat();
        let mut options = WriteOptions::new();
        options.set_sync(true);
        let mark = codec::mark(&codec::OWNER_KEY, &payload);
        return db
            .put_opt(codec::OWNER_KEY, mark, &options)
            .map_err(|error| failed(&error));
    };
    let payload = codec::parse_mark(&codec::OWNER_KEY, &value)
        .map_err(|wrong| wrong.error(&format!("log {dir_name}: its owner record")))?;
    let number = |at: usize| {
        payload
            .get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map(u64::from_le_bytes)
    };
    let (Some(cluster), Some(node)) = (number(0), number(8)) else {
        return Err(damaged(format!("log {dir_name}: its owner record is too short")));
    };
    let found = Owner {
        cluster: ClusterId(cluster),
        node: NodeId(node),
    };
    match owner {
        Some(owner) if owner.cluster != found.cluster => Err(damaged(format!(
            "log {dir_name} belongs to cluster {}, this node is of cluster {}: a log of another cluster is not opened",
            found.cluster, owner.cluster
        ))),
        Some(owner) if owner.node != found.node => Err(damaged(format!(
            "log {dir_name} belongs to node {}, this is node {}: a copied log is not opened",
            found.node, owner.node
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Finds all replicas by seeking from one to the next, and the bounds of each without reading what lies between.
/// What is damaged of one replica is that replica's affair: the others are served.
pub(super) fn replicas(db: &DB, dir: &Path) -> io::Result<BTreeMap<ReplicaId, Arc<Mutex<Mirror>>>> {
    let failed = |error: &rocksdb::Error| rocks_error(dir, "cannot read the log", error);
    let mut replicas = BTreeMap::new();
    let mut next = Some(ReplicaId(0));
    let mut keys = db.raw_iterator();
    while let Some(from) = next {
        keys.seek(codec::key(from, 0, 0));
        keys.status().map_err(|error| failed(&error))?;
        let Some(key) = keys.key().filter(|key| *key != codec::OWNER_KEY) else {
            break;
        };
        let Some((replica, _, _)) = codec::parse_key(key) else {
            return Err(damaged(format!(
                "log {}: a key of {} bytes is not ours",
                dir.display(),
                key.len()
            )));
        };
        let mirror = match replica_bounds(db, dir, replica) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(%replica, %error, "the log of a replica is damaged");
                Mirror::broken(error.to_string())
            }
            found => found?,
        };
        replicas.insert(replica, Arc::new(Mutex::new(mirror)));
        next = replica.0.checked_add(1).map(ReplicaId);
    }
    Ok(replicas)
}

fn replica_bounds(db: &DB, dir: &Path, replica: ReplicaId) -> io::Result<Mirror> {
    let failed = |error: &rocksdb::Error| rocks_error(dir, "cannot read the log", error);
    let wrong = |what: &str, wrong: Wrong| {
        wrong.error(&format!("log {}: {what} of replica {replica}", dir.display()))
    };
    let broken = |what: &str, text: &str| wrong(what, Wrong::Damaged(text.to_owned()));
    let mark = |which: u64, name: &str| -> io::Result<Option<Bytes>> {
        let key = codec::key(replica, codec::MARK, which);
        let value = db.get_pinned(key).map_err(|error| failed(&error))?;
        value
            .map(|value| codec::parse_mark(&key, &value).map_err(|found| wrong(name, found)))
            .transpose()
    };
    let mut mirror = Mirror::default();
    mirror.vote = mark(codec::VOTE, "the vote")?;
    mirror.committed = mark(codec::COMMITTED, "the committed id")?;
    if let Some(payload) = mark(codec::PURGED, "the purge mark")? {
        let purged = codec::parse_purged(&payload).ok_or_else(|| broken("the purge mark", "is too short"))?;
        mirror.purged = Some(purged);
    }
    let start = mirror.purged.as_ref().map_or(0, |(index, _)| index + 1);
    let mut options = ReadOptions::default();
    let (low, high) = (
        codec::key(replica, codec::ENTRY, start),
        codec::key(replica, codec::ENTRY + 1, 0),
    );
    options.set_iterate_range(low.to_vec()..high.to_vec());
    let mut entries = db.raw_iterator_opt(options);
    entries.seek(low);
    let mut bounds = Vec::new();
    for last in [false, true] {
        if last {
            entries.seek_to_last();
        }
        entries.status().map_err(|error| failed(&error))?;
        let Some((key, value)) = entries.item() else { break };
        let (_, _, index) = codec::parse_key(key).ok_or_else(|| broken("a key", "is not ours"))?;
        let entry = codec::parse_entry(key, value);
        let (data, before) = entry.map_err(|found| wrong(&format!("entry {index}"), found))?;
        bounds.push((index, before, before + data.len() as u64));
    }
    match bounds[..] {
        [(first, before, _), (last, _, after)] => {
            if mirror.purged.is_some() && first != start {
                return Err(broken(&format!("entry {start}"), "is missing"));
            }
            mirror.found(first, last + 1, before, after);
        }
        _ => mirror.found(start, start, 0, 0),
    }
    Ok(mirror)
}
