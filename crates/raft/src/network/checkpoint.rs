//! Sends a checkpoint to a replica that is too far behind: begin, chunks of files in order, end. Paced, so that it
//! takes only its share of the disk and the network; a broken connection is taken up again where it broke.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use env::{Clock, Env};
use openraft::errors::{NetworkError, StreamingError};
use parking_lot::Mutex;
use proto::peer::{
    CheckpointBegin, CheckpointBegun, CheckpointChunk, CheckpointDone, CheckpointEnd, FileSize, Kind, Lane,
};
use storage::{Checkpoint, CheckpointFile};
use types::limits::BULK_CHUNK_BYTES;

use super::client::{GroupClient, rpc_error};
use super::{CHUNK_LIMIT, CHUNKS_IN_FLIGHT, NO_ROOM_PAUSE, TRANSFER_RESUMES};
use crate::RequestError;
use crate::convert;
use crate::types::{SnapshotMeta, TypeConfig, Vote};

type Error = StreamingError<TypeConfig>;

/// Spreads bytes over time, for all transfers of a node together.
pub struct Pace {
    clock: Arc<dyn Clock>,
    bytes_per_second: u64,
    /// When the next byte may go.
    next: Mutex<Duration>,
}

impl Pace {
    /// At most `bytes_per_second`, after a burst of a twentieth of a second.
    pub fn new(clock: Arc<dyn Clock>, bytes_per_second: u64) -> Pace {
        Pace {
            clock,
            bytes_per_second,
            next: Mutex::new(Duration::ZERO),
        }
    }

    /// Waits until `bytes` may go.
    pub async fn take(&self, bytes: usize) {
        let wait = {
            let now = self.clock.now();
            let mut next = self.next.lock();
            let start = (*next).max(now.saturating_sub(Duration::from_millis(50)));
            *next = start + Duration::from_micros(bytes as u64 * 1_000_000 / self.bytes_per_second);
            next.saturating_sub(now)
        };
        if wait > Duration::from_millis(1) {
            tokio::time::sleep(wait).await;
        }
    }
}

fn failed(error: RequestError) -> Error {
    rpc_error(error).into()
}

/// Whether taking the same transfer up again may help.
fn is_passing(error: &RequestError) -> bool {
    match error {
        RequestError::NotSent(_) | RequestError::Unknown(_) => true,
        RequestError::Refused { .. } => false,
    }
}

fn has_no_room(error: &RequestError) -> bool {
    matches!(error, RequestError::Refused { code, .. } if *code == tonic::Code::ResourceExhausted)
}

fn sizes(files: &[CheckpointFile]) -> Vec<FileSize> {
    let size = |file: &CheckpointFile| FileSize {
        name: file.name.clone(),
        size_bytes: file.size_bytes,
    };
    files.iter().map(size).collect()
}

/// The files, after all of them were verified. Damage costs the replica here its place: no other would take the copy.
async fn list(client: &GroupClient, checkpoint: &Arc<dyn Checkpoint>) -> io::Result<Vec<CheckpointFile>> {
    let checkpoint = checkpoint.clone();
    let listing = client.network.env.blocking.run(move || checkpoint.list());
    client.trouble.check("list a checkpoint", listing.await.flatten())
}

/// Sends the whole and has it installed; returns the vote of the receiver.
pub(super) async fn send(
    client: &GroupClient,
    vote: Vote,
    meta: &SnapshotMeta,
    checkpoint: Arc<dyn Checkpoint>,
) -> Result<Vote, Error> {
    let mut meta = convert::snapshot_meta_out(meta);
    meta.snapshot_id = format!("{:016x}", client.network.env.rng.nonzero());
    let files = list(client, &checkpoint)
        .await
        .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
    let begin = CheckpointBegin {
        vote: Some(convert::vote_out(&vote)),
        meta: Some(meta),
        files: sizes(&files),
    };
    let begin = convert::encode(&begin);
    let mut resumes = 0;
    let mut there = 0;
    loop {
        let before = there;
        let error = match attempt(client, begin.clone(), &checkpoint, &files, &mut there).await {
            Ok(vote) => return Ok(vote),
            Err(Attempt::Read(error)) => {
                return Err(StreamingError::Network(NetworkError::new(&error)));
            }
            Err(Attempt::Request(error)) => error,
        };
        resumes = if there > before { 1 } else { resumes + 1 };
        if has_no_room(&error) {
            tokio::time::sleep(NO_ROOM_PAUSE).await;
        }
        if !is_passing(&error) || resumes > TRANSFER_RESUMES {
            return Err(failed(error));
        }
        tracing::info!(node = %client.node, partition = %client.partition, %error, "checkpoint broke off, going on");
        tokio::time::sleep(Duration::from_millis(100 << resumes)).await;
    }
}

enum Attempt {
    /// The local copy cannot be read.
    Read(io::Error),
    Request(RequestError),
}

impl From<RequestError> for Attempt {
    fn from(error: RequestError) -> Attempt {
        Attempt::Request(error)
    }
}

fn unreadable(error: convert::Malformed) -> Attempt {
    Attempt::Request(RequestError::Refused {
        code: tonic::Code::Internal,
        text: error.to_string(),
    })
}

/// Sends what the receiver does not have. `taken`: bytes that it said it has.
async fn attempt(
    client: &GroupClient,
    begin: Bytes,
    checkpoint: &Arc<dyn Checkpoint>,
    files: &[CheckpointFile],
    taken: &mut u64,
) -> Result<Vote, Attempt> {
    let begun = client
        .call(Lane::Bulk, Kind::CheckpointBegin, begin, CHUNK_LIMIT)
        .await?;
    let begun: CheckpointBegun = convert::decode("checkpoint begun", begun).map_err(unreadable)?;
    let transfer_id = begun.transfer_id;
    let there: BTreeMap<String, u64> = begun
        .received
        .into_iter()
        .map(|file| (file.name, file.size_bytes))
        .collect();
    *taken = there.values().sum();
    let mut in_flight = VecDeque::new();
    for file in files {
        let mut offset = there.get(&file.name).copied().unwrap_or(0);
        // An empty file is sent too, as one empty chunk.
        let mut first = offset == 0;
        while first || offset < file.size_bytes {
            first = false;
            let data = read(&client.network.env, checkpoint, &file.name, offset)
                .await
                .map_err(Attempt::Read)?;
            if data.is_empty() && offset < file.size_bytes {
                return Err(Attempt::Read(io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
            client.network.pace.take(data.len()).await;
            let hash = xxhash_rust::xxh3::xxh3_64(&data);
            let length = data.len() as u64;
            let chunk = CheckpointChunk {
                transfer_id,
                name: file.name.clone(),
                offset,
                data,
                hash,
            };
            if in_flight.len() >= CHUNKS_IN_FLIGHT {
                confirm(&mut in_flight).await?;
            }
            in_flight.push_back(client.begin(Lane::Bulk, Kind::CheckpointChunk, convert::encode(&chunk))?);
            offset += length;
        }
    }
    while !in_flight.is_empty() {
        confirm(&mut in_flight).await?;
    }
    installed(client, transfer_id).await
}

/// Asks for the installation until it is done: it may take long, and sending all again would not make it shorter.
async fn installed(client: &GroupClient, transfer_id: u64) -> Result<Vote, Attempt> {
    let end = convert::encode(&CheckpointEnd { transfer_id });
    loop {
        let done = client
            .call(Lane::Bulk, Kind::CheckpointEnd, end.clone(), CHUNK_LIMIT)
            .await?;
        let done: CheckpointDone = convert::decode("checkpoint done", done).map_err(unreadable)?;
        if let Some(vote) = done.vote {
            return Ok(convert::vote_in(&vote));
        }
    }
}

async fn confirm(in_flight: &mut VecDeque<crate::peer::Reply>) -> Result<(), RequestError> {
    if let Some(reply) = in_flight.pop_front() {
        reply.within(CHUNK_LIMIT).await?;
    }
    Ok(())
}

async fn read(env: &Env, checkpoint: &Arc<dyn Checkpoint>, name: &str, offset: u64) -> io::Result<Bytes> {
    let (checkpoint, name) = (checkpoint.clone(), name.to_owned());
    let reading = move || checkpoint.read(&name, offset, BULK_CHUNK_BYTES);
    env.blocking.run(reading).await.flatten()
}

#[cfg(test)]
mod tests;
