//! Between openraft's types and the messages of `proto::peer`, which are also the persistent forms of entries,
//! votes and memberships. Decoding refuses malformed input with an error and never panics.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::raft::StreamAppendError;
use prost::Message;
use proto::peer;

use crate::types::{
    AppendRequest, AppendResponse, EncodedBatch, Entry, LeaderId, LogId, Membership, Payload, ReplicaNode,
    SnapshotMeta, StoredMembership, StreamAppendResult, TransferRequest, Vote, VoteRequest, VoteResponse,
};

/// Input that no correct writer can have produced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: {why}")]
pub struct Malformed {
    /// Which message.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl From<Malformed> for std::io::Error {
    fn from(error: Malformed) -> Self {
        // Never damage: what is stored has a checksum. Another build wrote it, and all replicas have the same.
        std::io::Error::new(std::io::ErrorKind::Unsupported, error)
    }
}

impl From<Malformed> for tonic::Status {
    fn from(error: Malformed) -> Self {
        tonic::Status::invalid_argument(error.to_string())
    }
}

fn missing(what: &'static str, field: &str) -> Malformed {
    Malformed {
        what,
        why: format!("{field} is missing"),
    }
}

/// Decodes a message, naming it in the error.
pub fn decode<M: Message + Default>(what: &'static str, bytes: impl bytes::Buf) -> Result<M, Malformed> {
    M::decode(bytes).map_err(|error| Malformed {
        what,
        why: error.to_string(),
    })
}

/// Encodes a message.
pub fn encode<M: Message>(message: &M) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

/// Log id.
pub fn log_id_out(id: &LogId) -> peer::LogId {
    peer::LogId {
        term: id.leader_id.term,
        replica: id.leader_id.node_id,
        index: id.index,
    }
}

/// Log id.
pub fn log_id_in(id: &peer::LogId) -> LogId {
    LogId {
        leader_id: LeaderId {
            term: id.term,
            node_id: id.replica,
        },
        index: id.index,
    }
}

/// Log id, encoded.
pub fn log_id_bytes(id: &LogId) -> Bytes {
    encode(&log_id_out(id))
}

/// Log id, encoded.
pub fn log_id_from_bytes(bytes: &Bytes) -> Result<LogId, Malformed> {
    Ok(log_id_in(&decode("log id", bytes.clone())?))
}

/// Vote.
pub fn vote_out(vote: &Vote) -> peer::Vote {
    peer::Vote {
        term: vote.leader_id.term,
        replica: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

/// Vote.
pub fn vote_in(vote: &peer::Vote) -> Vote {
    Vote {
        leader_id: LeaderId {
            term: vote.term,
            node_id: vote.replica,
        },
        committed: vote.committed,
    }
}

fn vote_of(what: &'static str, vote: &Option<peer::Vote>) -> Result<Vote, Malformed> {
    vote.as_ref().map(vote_in).ok_or_else(|| missing(what, "vote"))
}

/// Vote, encoded.
pub fn vote_bytes(vote: &Vote) -> Bytes {
    encode(&vote_out(vote))
}

/// Vote, encoded.
pub fn vote_from_bytes(bytes: &Bytes) -> Result<Vote, Malformed> {
    Ok(vote_in(&decode("vote", bytes.clone())?))
}

/// Membership.
pub fn membership_out(membership: &Membership) -> peer::Membership {
    let configs = membership.get_joint_config().iter();
    peer::Membership {
        configs: configs
            .map(|set| peer::VoterSet {
                replicas: set.iter().copied().collect(),
            })
            .collect(),
        members: membership
            .nodes()
            .map(|(id, node)| peer::Member {
                replica: *id,
                node: node.node,
            })
            .collect(),
    }
}

/// Membership. Refuses empty voter sets, voters that are no members, and members named twice.
pub fn membership_in(membership: &peer::Membership) -> Result<Membership, Malformed> {
    let what = "membership";
    let mut members = BTreeMap::new();
    for member in &membership.members {
        if members
            .insert(member.replica, ReplicaNode { node: member.node })
            .is_some()
        {
            return Err(Malformed {
                what,
                why: format!("replica {} is there twice", member.replica),
            });
        }
    }
    let configs = membership.configs.iter();
    let configs: Vec<BTreeSet<u64>> = configs
        .map(|set| set.replicas.iter().copied().collect())
        .collect();
    if configs.len() > 2 {
        return Err(Malformed {
            what,
            why: format!("{} joint sets of voters", configs.len()),
        });
    }
    Membership::new(configs, members).map_err(|error| Malformed {
        what,
        why: error.to_string(),
    })
}

/// Membership with its log id.
pub fn stored_membership_out(stored: &StoredMembership) -> peer::StoredMembership {
    peer::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_out),
        membership: Some(membership_out(stored.membership())),
    }
}

/// Membership with its log id.
pub fn stored_membership_in(stored: &peer::StoredMembership) -> Result<StoredMembership, Malformed> {
    let membership = stored
        .membership
        .as_ref()
        .ok_or_else(|| missing("stored membership", "membership"))?;
    Ok(StoredMembership::new(
        stored.log_id.as_ref().map(log_id_in),
        membership_in(membership)?,
    ))
}

/// Membership with its log id, encoded.
pub fn stored_membership_bytes(stored: &StoredMembership) -> Bytes {
    encode(&stored_membership_out(stored))
}

/// Membership with its log id, encoded.
pub fn stored_membership_from_bytes(bytes: &Bytes) -> Result<StoredMembership, Malformed> {
    stored_membership_in(&decode("stored membership", bytes.clone())?)
}

/// Entry.
pub fn entry_out(entry: &Entry) -> peer::Entry {
    let payload = match &entry.payload {
        Payload::Blank => peer::entry::Payload::Blank(true),
        Payload::Normal(batch) => peer::entry::Payload::Normal(batch.0.clone()),
        Payload::Membership(membership) => peer::entry::Payload::Membership(membership_out(membership)),
    };
    peer::Entry {
        log_id: Some(log_id_out(&entry.log_id)),
        payload: Some(payload),
    }
}

/// Entry. A payload of a kind this build does not know is an error.
pub fn entry_in(entry: peer::Entry) -> Result<Entry, Malformed> {
    let what = "entry";
    let log_id = log_id_in(&entry.log_id.ok_or_else(|| missing(what, "log id"))?);
    let payload = match entry
        .payload
        .ok_or_else(|| missing(what, "payload (or of an unknown kind)"))?
    {
        peer::entry::Payload::Blank(_) => Payload::Blank,
        peer::entry::Payload::Normal(batch) => Payload::Normal(EncodedBatch(batch)),
        peer::entry::Payload::Membership(membership) => Payload::Membership(membership_in(&membership)?),
    };
    Ok(Entry { log_id, payload })
}

/// Vote request. The fields of a quick election are left for the network to fill in.
pub fn vote_request_out(request: &VoteRequest) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: Some(vote_out(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_out),
        leadership_transfer: request.leadership_transfer,
        planned: false,
        dead_node: 0,
        dead_boot_id: 0,
    }
}

/// Vote request.
pub fn vote_request_in(request: &peer::VoteRequest) -> Result<VoteRequest, Malformed> {
    let mut decoded = VoteRequest::new(
        vote_of("vote request", &request.vote)?,
        request.last_log_id.as_ref().map(log_id_in),
    );
    decoded.leadership_transfer = request.leadership_transfer;
    Ok(decoded)
}

/// Vote response.
pub fn vote_response_out(response: &VoteResponse) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(vote_out(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_out),
    }
}

/// Vote response.
pub fn vote_response_in(response: &peer::VoteResponse) -> Result<VoteResponse, Malformed> {
    let vote = vote_of("vote response", &response.vote)?;
    Ok(VoteResponse::new(
        vote,
        response.last_log_id.as_ref().map(log_id_in),
        response.granted,
    ))
}

/// Append request.
pub fn append_request_out(request: &AppendRequest) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: Some(vote_out(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_out),
        entries: request.entries.iter().map(entry_out).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_out),
    }
}

/// Append request. Refuses entries that do not follow each other.
pub fn append_request_in(request: peer::AppendRequest) -> Result<AppendRequest, Malformed> {
    let what = "append request";
    let prev_log_id = request.prev_log_id.as_ref().map(log_id_in);
    let mut next = prev_log_id.map_or(0, |id| id.index.saturating_add(1));
    let mut entries = Vec::with_capacity(request.entries.len());
    for entry in request.entries {
        let entry = entry_in(entry)?;
        if entry.log_id.index != next {
            return Err(Malformed {
                what,
                why: format!("entry {} stands where {next} should", entry.log_id.index),
            });
        }
        next = next.saturating_add(1);
        entries.push(entry);
    }
    Ok(AppendRequest {
        vote: vote_of(what, &request.vote)?,
        prev_log_id,
        entries,
        leader_commit: request.leader_commit.as_ref().map(log_id_in),
    })
}

/// Append response. `matching` carries the log id of a partial success, which may be none.
pub fn append_response_out(response: &AppendResponse) -> peer::AppendResponse {
    use peer::append_response::Result as Wire;
    let (result, matching) = match response {
        AppendResponse::Success => (Wire::Success(true), None),
        AppendResponse::PartialSuccess(id) => {
            let matching = id.as_ref().map(log_id_out);
            (Wire::PartialSuccess(matching.unwrap_or_default()), matching)
        }
        AppendResponse::Conflict => (Wire::Conflict(true), None),
        AppendResponse::HigherVote(vote) => (Wire::HigherVote(vote_out(vote)), None),
    };
    peer::AppendResponse {
        result: Some(result),
        matching,
    }
}

/// Append response.
pub fn append_response_in(response: &peer::AppendResponse) -> Result<AppendResponse, Malformed> {
    use peer::append_response::Result as Wire;
    Ok(
        match response
            .result
            .as_ref()
            .ok_or_else(|| missing("append response", "result"))?
        {
            Wire::Success(_) => AppendResponse::Success,
            Wire::PartialSuccess(_) => {
                AppendResponse::PartialSuccess(response.matching.as_ref().map(log_id_in))
            }
            Wire::Conflict(_) => AppendResponse::Conflict,
            Wire::HigherVote(vote) => AppendResponse::HigherVote(vote_in(vote)),
        },
    )
}

/// Answer within a stream of appends. `matching` is the last log id that matches, or the one in conflict.
pub fn stream_result_out(result: &StreamAppendResult) -> peer::AppendResponse {
    use peer::append_response::Result as Wire;
    let (result, matching) = match result {
        Ok(id) => (Wire::Success(true), id.as_ref().map(log_id_out)),
        Err(StreamAppendError::Conflict(id)) => (Wire::Conflict(true), Some(log_id_out(id))),
        Err(StreamAppendError::HigherVote(vote)) => (Wire::HigherVote(vote_out(vote)), None),
    };
    peer::AppendResponse {
        result: Some(result),
        matching,
    }
}

/// Answer within a stream of appends.
pub fn stream_result_in(response: &peer::AppendResponse) -> Result<StreamAppendResult, Malformed> {
    use peer::append_response::Result as Wire;
    let what = "append response";
    let matching = response.matching.as_ref().map(log_id_in);
    Ok(
        match response.result.as_ref().ok_or_else(|| missing(what, "result"))? {
            Wire::Success(_) | Wire::PartialSuccess(_) => Ok(matching),
            Wire::Conflict(_) => Err(StreamAppendError::Conflict(
                matching.ok_or_else(|| missing(what, "matching"))?,
            )),
            Wire::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_in(vote))),
        },
    )
}

/// Transfer request.
pub fn transfer_request_out(request: &TransferRequest) -> peer::TransferRequest {
    peer::TransferRequest {
        from: Some(vote_out(request.from_leader())),
        to: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_out),
    }
}

/// Transfer request.
pub fn transfer_request_in(request: &peer::TransferRequest) -> Result<TransferRequest, Malformed> {
    let from = vote_of("transfer request", &request.from)?;
    Ok(TransferRequest::new(
        from,
        request.to,
        request.last_log_id.as_ref().map(log_id_in),
    ))
}

/// Snapshot meta.
pub fn snapshot_meta_out(meta: &SnapshotMeta) -> peer::SnapshotMeta {
    peer::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_out),
        membership: Some(stored_membership_out(&meta.last_membership)),
        snapshot_id: String::new(),
    }
}

/// Snapshot meta.
pub fn snapshot_meta_in(meta: &peer::SnapshotMeta) -> Result<SnapshotMeta, Malformed> {
    let membership = meta
        .membership
        .as_ref()
        .ok_or_else(|| missing("snapshot meta", "membership"))?;
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_in),
        last_membership: stored_membership_in(membership)?,
    })
}

/// Position of a state, as the store keeps it.
pub fn applied_out(log_id: &LogId, membership: &StoredMembership) -> storage::Applied {
    storage::Applied {
        log_id: log_id_bytes(log_id),
        membership: stored_membership_bytes(membership),
    }
}

/// Position of a state, as the store keeps it.
pub fn applied_in(applied: &storage::Applied) -> Result<(LogId, StoredMembership), Malformed> {
    Ok((
        log_id_from_bytes(&applied.log_id)?,
        stored_membership_from_bytes(&applied.membership)?,
    ))
}

#[cfg(test)]
mod tests;
