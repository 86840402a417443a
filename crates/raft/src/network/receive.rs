//! Checkpoints that other nodes send here. One transfer per replica; a new one takes the place of an old one, and
//! the same one can be taken up again after a broken connection. Nothing is installed before every byte is there
//! and the store itself has opened and read it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use env::Env;
use parking_lot::Mutex;
use proto::peer::{
    CheckpointBegin, CheckpointBegun, CheckpointChunk, CheckpointDone, CheckpointEnd, FileSize,
};
use storage::{Incoming, PartitionStore};
use tokio::sync::watch;
use tonic::Status;
use types::{PartitionId, ReplicaId};

use super::{INSTALL_NEWS, TRANSFER_IDLE, TRANSFERS};
use crate::convert;
use crate::types::{Raft, Snapshot, SnapshotData, SnapshotMeta, Vote};

struct Files {
    /// `None` once it is being installed.
    incoming: Option<Box<dyn Incoming>>,
    received: BTreeMap<String, u64>,
}

struct Transfer {
    id: u64,
    snapshot_id: String,
    vote: Vote,
    meta: SnapshotMeta,
    wanted: BTreeMap<String, u64>,
    /// Bytes that are still to come.
    left: AtomicU64,
    touched_ms: AtomicU64,
    files: Arc<tokio::sync::Mutex<Files>>,
    /// How the installation went, once it is over.
    outcome: watch::Sender<Option<Result<Bytes, Status>>>,
}

impl Transfer {
    fn touch(&self, env: &Env) {
        self.touched_ms.store(env.clock.now_ms(), Ordering::Relaxed);
    }

    fn is_idle(&self, env: &Env) -> bool {
        let idle_ms = env
            .clock
            .now_ms()
            .saturating_sub(self.touched_ms.load(Ordering::Relaxed));
        idle_ms >= TRANSFER_IDLE.as_millis() as u64
    }

    /// What is sent twice does no harm: it is written once.
    async fn received(&self) -> CheckpointBegun {
        let files = self.files.lock().await;
        let received = files.received.iter().map(|(name, size)| FileSize {
            name: name.clone(),
            size_bytes: *size,
        });
        CheckpointBegun {
            transfer_id: self.id,
            received: received.collect(),
        }
    }
}

/// Says how many bytes checkpoints may take on the disk now.
pub type Room = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// All transfers to this node.
pub struct Receiving {
    env: Env,
    room: Room,
    transfers: Mutex<BTreeMap<(PartitionId, ReplicaId), Arc<Transfer>>>,
}

fn disk(error: io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::StorageFull => Status::resource_exhausted(error.to_string()),
        io::ErrorKind::InvalidData => Status::data_loss(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

/// Runs disk work off the runtime's thread.
async fn apart<T: Send + 'static>(
    env: &Env,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    env.blocking.run(work).await.flatten().map_err(disk)
}

impl Receiving {
    /// None yet. `room`: see [`Room`].
    pub fn new(env: Env, room: Room) -> Receiving {
        Receiving {
            env,
            room,
            transfers: Mutex::default(),
        }
    }

    fn find(&self, at: (PartitionId, ReplicaId), id: u64) -> Result<Arc<Transfer>, Status> {
        let transfers = self.transfers.lock();
        let transfer = transfers.get(&at).filter(|transfer| transfer.id == id);
        let transfer = transfer.ok_or_else(|| Status::aborted("no such transfer (any more)"))?;
        transfer.touch(&self.env);
        Ok(transfer.clone())
    }

    /// Takes a transfer up, again or anew.
    pub async fn begin(
        &self,
        at: (PartitionId, ReplicaId),
        store: Arc<dyn PartitionStore>,
        body: Bytes,
    ) -> Result<Bytes, Status> {
        let begin: CheckpointBegin = convert::decode("checkpoint begin", body)?;
        let meta = begin
            .meta
            .ok_or_else(|| Status::invalid_argument("checkpoint begin: meta is missing"))?;
        let vote = begin
            .vote
            .ok_or_else(|| Status::invalid_argument("checkpoint begin: vote is missing"))?;
        let old = self.transfers.lock().get(&at).cloned();
        if let Some(old) = old.filter(|old| old.snapshot_id == meta.snapshot_id) {
            old.touch(&self.env);
            return Ok(convert::encode(&old.received().await));
        }
        let wanted: BTreeMap<String, u64> = begin
            .files
            .into_iter()
            .map(|file| (file.name, file.size_bytes))
            .collect();
        // What somebody announces may be anything.
        let bytes = wanted
            .values()
            .fold(0, |sum: u64, size| sum.saturating_add(*size));
        self.make_room(at, bytes)?;
        let incoming = apart(&self.env, move || store.receive()).await?;
        let transfer = Arc::new(Transfer {
            id: self.env.rng.nonzero(),
            snapshot_id: meta.snapshot_id.clone(),
            vote: convert::vote_in(&vote),
            meta: convert::snapshot_meta_in(&meta)?,
            wanted,
            left: AtomicU64::new(bytes),
            touched_ms: AtomicU64::new(self.env.clock.now_ms()),
            files: Arc::new(tokio::sync::Mutex::new(Files {
                incoming: Some(incoming),
                received: BTreeMap::new(),
            })),
            outcome: watch::Sender::new(None),
        });
        let begun = transfer.received().await;
        self.transfers.lock().insert(at, transfer);
        Ok(convert::encode(&begun))
    }

    /// Refuses a transfer too many, or one that the disk has no room for beside those that go on.
    fn make_room(&self, at: (PartitionId, ReplicaId), bytes: u64) -> Result<(), Status> {
        let room = (self.room)().map_err(disk)?;
        let mut transfers = self.transfers.lock();
        transfers.remove(&at);
        transfers.retain(|_, transfer| !transfer.is_idle(&self.env));
        let going_on = transfers
            .values()
            .filter(|transfer| transfer.outcome.borrow().is_none());
        let left: Vec<u64> = going_on
            .map(|transfer| transfer.left.load(Ordering::Relaxed))
            .collect();
        if left.len() >= TRANSFERS {
            return Err(Status::unavailable(
                "this node receives as many checkpoints as it may",
            ));
        }
        let room = room.saturating_sub(left.iter().sum());
        if bytes > room {
            return Err(Status::resource_exhausted(format!(
                "a checkpoint of {bytes} bytes, and room for {room} on this node's disk"
            )));
        }
        Ok(())
    }

    /// Takes a chunk. Chunks of one transfer are written in the order in which they arrived, each once.
    pub async fn chunk(&self, at: (PartitionId, ReplicaId), body: Bytes) -> Result<Bytes, Status> {
        let chunk: CheckpointChunk = convert::decode("checkpoint chunk", body)?;
        let transfer = self.find(at, chunk.transfer_id)?;
        let mut files = transfer.files.clone().lock_owned().await;
        if xxhash_rust::xxh3::xxh3_64(&chunk.data) != chunk.hash {
            return Err(Status::data_loss(format!(
                "{} was damaged on its way",
                chunk.name
            )));
        }
        let size = *transfer
            .wanted
            .get(&chunk.name)
            .ok_or_else(|| Status::invalid_argument(format!("{} was not announced", chunk.name)))?;
        let there = files.received.get(&chunk.name).copied().unwrap_or(0);
        let end = chunk.offset.saturating_add(chunk.data.len() as u64);
        if end <= there && there > 0 {
            return Ok(Bytes::new());
        }
        if chunk.offset != there || end > size {
            let text = format!(
                "{}: bytes {}..{end} do not follow {there} of {size}",
                chunk.name, chunk.offset
            );
            return Err(Status::out_of_range(text));
        }
        apart(&self.env, move || {
            let incoming = files
                .incoming
                .as_mut()
                .ok_or_else(|| io::Error::other("already being installed"))?;
            incoming.write(&chunk.name, chunk.offset, &chunk.data)?;
            files.received.insert(chunk.name, end);
            transfer.left.fetch_sub(end - there, Ordering::Relaxed);
            Ok(())
        })
        .await?;
        Ok(Bytes::new())
    }

    /// Has the checkpoint installed once everything is there, and says how that went; asked before it is over, that
    /// it goes on.
    pub(super) async fn end(
        &self,
        at: (PartitionId, ReplicaId),
        raft: Raft,
        body: Bytes,
    ) -> Result<Bytes, Status> {
        let end: CheckpointEnd = convert::decode("checkpoint end", body)?;
        let transfer = self.find(at, end.transfer_id)?;
        let mut files = transfer.files.lock().await;
        if files.received != transfer.wanted {
            return Err(Status::data_loss("files are missing or incomplete"));
        }
        if let Some(incoming) = files.incoming.take() {
            let (env, transfer) = (self.env.clone(), transfer.clone());
            tokio::spawn(async move {
                let installed = install(&env, &transfer, raft, incoming).await;
                transfer.outcome.send_replace(Some(installed));
            });
        }
        drop(files);
        let mut outcome = transfer.outcome.subscribe();
        // Neither can fail for good: the sender is in the transfer, and it is asked again.
        let _ = tokio::time::timeout(INSTALL_NEWS, outcome.wait_for(Option::is_some)).await;
        let outcome = transfer.outcome.borrow().clone();
        outcome.unwrap_or_else(|| Ok(convert::encode(&CheckpointDone { vote: None })))
    }
}

/// Opens what was received, and hands it to the group.
async fn install(
    env: &Env,
    transfer: &Transfer,
    raft: Raft,
    mut incoming: Box<dyn Incoming>,
) -> Result<Bytes, Status> {
    let (incoming, applied) = apart(env, move || {
        let applied = incoming.finish()?;
        Ok((incoming, applied))
    })
    .await?;
    let (log_id, last_membership) = convert::applied_in(&applied)?;
    if Some(log_id) != transfer.meta.last_log_id {
        return Err(Status::data_loss(format!(
            "the checkpoint holds {log_id}, announced was {:?}",
            transfer.meta.last_log_id
        )));
    }
    let meta = SnapshotMeta {
        last_log_id: Some(log_id),
        last_membership,
    };
    let snapshot = Snapshot {
        meta,
        snapshot: SnapshotData::Received(incoming),
    };
    let installed = raft.install_full_snapshot(transfer.vote, snapshot).await;
    let vote = installed
        .map_err(|error| Status::unavailable(error.to_string()))?
        .vote;
    Ok(convert::encode(&CheckpointDone {
        vote: Some(convert::vote_out(&vote)),
    }))
}

/// Drops transfers that nobody carries on, until the node is gone: what was received takes room.
pub(super) async fn sweep(receiving: Weak<Receiving>) {
    let mut tick = tokio::time::interval(TRANSFER_IDLE / 4);
    loop {
        tick.tick().await;
        let Some(receiving) = receiving.upgrade() else {
            return;
        };
        let mut transfers = receiving.transfers.lock();
        transfers.retain(|_, transfer| !transfer.is_idle(&receiving.env));
    }
}

#[cfg(test)]
mod tests;
