//! What the log and the lanes of Raft carry: a message is refused, or means the same after it was written again.

use std::fmt::Debug;

use prost::Message;
use proto::peer;
use raft::convert::{self, Malformed};

use crate::input::{decode, seed};

/// Reads what was written of what was read, and compares.
fn again<W, T>(bytes: &[u8], read: impl Fn(W) -> Result<T, Malformed>, write: impl Fn(&T) -> W)
where
    W: Message + Default + PartialEq + Debug,
    T: Debug,
{
    let Some(Ok(value)) = decode::<W>(bytes).map(&read) else {
        return;
    };
    let written = write(&value);
    let back = read(written).expect("written by this build");
    // Not all of openraft's messages can be compared; all can be told.
    assert_eq!(format!("{value:?}"), format!("{back:?}"));
}

/// First byte: which message. Then the message.
pub fn run(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    match which % 10 {
        0 => again(rest, convert::entry_in, convert::entry_out),
        1 => again(rest, convert::append_request_in, convert::append_request_out),
        2 => again(
            rest,
            |wire| convert::append_response_in(&wire),
            convert::append_response_out,
        ),
        3 => again(
            rest,
            |wire| convert::stream_result_in(&wire),
            convert::stream_result_out,
        ),
        4 => again(
            rest,
            |wire| convert::vote_request_in(&wire),
            convert::vote_request_out,
        ),
        5 => again(
            rest,
            |wire| convert::vote_response_in(&wire),
            convert::vote_response_out,
        ),
        6 => again(
            rest,
            |wire| convert::membership_in(&wire),
            convert::membership_out,
        ),
        7 => again(
            rest,
            |wire| convert::stored_membership_in(&wire),
            convert::stored_membership_out,
        ),
        8 => again(
            rest,
            |wire| convert::snapshot_meta_in(&wire),
            convert::snapshot_meta_out,
        ),
        _ => again(
            rest,
            |wire| convert::transfer_request_in(&wire),
            convert::transfer_request_out,
        ),
    }
}

/// A log id.
pub fn log_id(index: u64) -> Option<peer::LogId> {
    Some(peer::LogId {
        term: 2,
        replica: 3,
        index,
    })
}

/// A vote.
pub fn vote() -> Option<peer::Vote> {
    Some(peer::Vote {
        term: 2,
        replica: 3,
        committed: true,
    })
}

/// Three members, two of whom vote in both sets.
pub fn membership() -> peer::Membership {
    let set = |replicas: &[u64]| peer::VoterSet {
        replicas: replicas.to_vec(),
    };
    peer::Membership {
        configs: vec![set(&[1, 2]), set(&[1, 2, 3])],
        members: (1..=3)
            .map(|replica| peer::Member {
                replica,
                node: replica,
            })
            .collect(),
    }
}

/// A membership and where it was set.
pub fn stored_membership() -> peer::StoredMembership {
    peer::StoredMembership {
        log_id: log_id(4),
        membership: Some(membership()),
    }
}

/// An append with an entry of each kind.
pub fn append_request() -> peer::AppendRequest {
    let payloads = [
        peer::entry::Payload::Blank(true),
        peer::entry::Payload::Normal(b"batch".to_vec().into()),
        peer::entry::Payload::Membership(membership()),
    ];
    let entries = (6..).zip(payloads).map(|(index, payload)| peer::Entry {
        log_id: log_id(index),
        payload: Some(payload),
    });
    peer::AppendRequest {
        vote: vote(),
        prev_log_id: log_id(5),
        entries: entries.collect(),
        leader_commit: log_id(6),
    }
}

/// A request for votes.
pub fn vote_request() -> peer::VoteRequest {
    peer::VoteRequest {
        vote: vote(),
        last_log_id: log_id(6),
        leadership_transfer: true,
        ..peer::VoteRequest::default()
    }
}

/// A request to take over.
pub fn transfer_request() -> peer::TransferRequest {
    peer::TransferRequest {
        from: vote(),
        to: 2,
        last_log_id: log_id(6),
    }
}

/// What a checkpoint contains.
pub fn snapshot_meta() -> peer::SnapshotMeta {
    peer::SnapshotMeta {
        last_log_id: log_id(5),
        membership: Some(stored_membership()),
        snapshot_id: "s".into(),
    }
}

/// Each message there is.
pub fn seeds() -> Vec<Vec<u8>> {
    use peer::append_response::Result as Wire;
    let response = |result, matching| peer::AppendResponse {
        result: Some(result),
        matching,
    };
    let request = append_request();
    let vote_response = peer::VoteResponse {
        vote: vote(),
        granted: true,
        last_log_id: log_id(6),
    };
    let mut seeds: Vec<Vec<u8>> = request.entries.iter().map(|entry| seed(0, entry)).collect();
    for which in [2, 3] {
        seeds.push(seed(which, &response(Wire::Success(true), log_id(6))));
        seeds.push(seed(which, &response(Wire::Conflict(true), log_id(6))));
        let higher = Wire::HigherVote(vote().unwrap_or_default());
        seeds.push(seed(which, &response(higher, None)));
    }
    seeds.extend([
        seed(1, &request),
        seed(4, &vote_request()),
        seed(5, &vote_response),
        seed(6, &membership()),
        seed(7, &stored_membership()),
        seed(8, &snapshot_meta()),
        seed(9, &transfer_request()),
    ]);
    seeds
}
