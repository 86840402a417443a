//! Everything that goes over the wire or to disk comes back the same, and garbage is refused without a panic.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn log_id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(term, node_id, index)| LogId {
        leader_id: LeaderId { term, node_id },
        index,
    })
}

fn vote() -> impl Strategy<Value = Vote> {
    (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, node_id, committed)| Vote {
        leader_id: LeaderId { term, node_id },
        committed,
    })
}

fn membership() -> impl Strategy<Value = Membership> {
    let members = prop::collection::btree_map(any::<u64>(), any::<u64>(), 1..6);
    (members, any::<u64>(), any::<bool>()).prop_map(|(members, mask, joint)| {
        let members: BTreeMap<u64, ReplicaNode> = members
            .into_iter()
            .map(|(id, node)| (id, ReplicaNode { node }))
            .collect();
        let some: BTreeSet<u64> = members
            .keys()
            .enumerate()
            .filter(|(at, _)| *at == 0 || mask >> at & 1 == 1)
            .map(|(_, id)| *id)
            .collect();
        let all: BTreeSet<u64> = members.keys().copied().collect();
        Membership::new(if joint { vec![some, all] } else { vec![some] }, members).expect("valid")
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let payload = prop_oneof![
        Just(Payload::Blank),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|data| Payload::Normal(EncodedBatch(data.into()))),
        membership().prop_map(Payload::Membership),
    ];
    (log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
}

fn append_response() -> impl Strategy<Value = AppendResponse> {
    prop_oneof![
        Just(AppendResponse::Success),
        Just(AppendResponse::Conflict),
        prop::option::of(log_id()).prop_map(AppendResponse::PartialSuccess),
        vote().prop_map(AppendResponse::HigherVote),
    ]
}

fn stream_result() -> impl Strategy<Value = StreamAppendResult> {
    prop_oneof![
        prop::option::of(log_id()).prop_map(Ok),
        log_id().prop_map(|id| Err(StreamAppendError::Conflict(id))),
        vote().prop_map(|vote| Err(StreamAppendError::HigherVote(vote))),
    ]
}

proptest! {
    #[test]
    fn identities_and_memberships_round_trip(id in log_id(), vote in vote(), membership in membership()) {
        prop_assert_eq!(log_id_from_bytes(&log_id_bytes(&id)), Ok(id));
        prop_assert_eq!(vote_from_bytes(&vote_bytes(&vote)), Ok(vote));
        let stored = StoredMembership::new(Some(id), membership);
        prop_assert_eq!(stored_membership_from_bytes(&stored_membership_bytes(&stored)), Ok(stored.clone()));
        prop_assert_eq!(applied_in(&applied_out(&id, &stored)), Ok((id, stored.clone())));
        let meta = SnapshotMeta { last_log_id: Some(id), last_membership: stored };
        prop_assert_eq!(snapshot_meta_in(&snapshot_meta_out(&meta)), Ok(meta));
    }

    #[test]
    fn entries_round_trip(entry in entry()) {
        prop_assert_eq!(entry_in(decode("entry", encode(&entry_out(&entry))).expect("decodes")), Ok(entry));
    }

    #[test]
    fn requests_and_responses_round_trip(
        vote in vote(), last in prop::option::of(log_id()), transfer: bool, granted: bool,
        response in append_response(), result in stream_result(),
    ) {
        let mut request = VoteRequest::new(vote, last);
        request.leadership_transfer = transfer;
        prop_assert_eq!(vote_request_in(&vote_request_out(&request)), Ok(request));
        let answer = VoteResponse::new(vote, last, granted);
        prop_assert_eq!(vote_response_in(&vote_response_out(&answer)), Ok(answer));
        prop_assert_eq!(append_response_in(&append_response_out(&response)), Ok(response));
        prop_assert_eq!(stream_result_in(&stream_result_out(&result)), Ok(result));
        let request = TransferRequest::new(vote, 7, last);
        prop_assert_eq!(transfer_request_in(&transfer_request_out(&request)), Ok(request));
    }

    #[test]
    fn appends_round_trip(vote in vote(), prev in log_id(), count in 0u64..5, commit in prop::option::of(log_id())) {
        let prev = LogId { index: prev.index >> 1, ..prev };
        let entry = |n| Entry { log_id: LogId { index: prev.index + n, ..prev }, payload: Payload::Blank };
        let entries = (1..=count).map(entry).collect();
        let request = AppendRequest { vote, prev_log_id: Some(prev), entries, leader_commit: commit };
        let back = append_request_in(append_request_out(&request)).expect("accepted");
        prop_assert_eq!(format!("{back:?}"), format!("{request:?}"));
    }

    #[test]
    fn garbage_is_refused_without_a_panic(data in prop::collection::vec(any::<u8>(), 0..60)) {
        let data = Bytes::from(data);
        let _ = log_id_from_bytes(&data);
        let _ = vote_from_bytes(&data);
        let _ = stored_membership_from_bytes(&data);
        let _ = decode("entry", data.clone()).and_then(entry_in);
        let _ = decode("append", data.clone()).and_then(append_request_in);
        let _ = decode("vote", data.clone()).and_then(|request| vote_request_in(&request));
        let _ = decode("transfer", data.clone()).and_then(|request| transfer_request_in(&request));
        let _ = decode("meta", data).and_then(|meta| snapshot_meta_in(&meta));
    }
}

#[test]
fn malformed_input_is_named() {
    let hole = peer::AppendRequest {
        vote: Some(peer::Vote::default()),
        entries: vec![peer::Entry {
            log_id: Some(peer::LogId {
                index: 3,
                ..peer::LogId::default()
            }),
            payload: Some(peer::entry::Payload::Blank(true)),
        }],
        ..peer::AppendRequest::default()
    };
    let error = append_request_in(hole).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "malformed append request: entry 3 stands where 0 should"
    );
    let stranger = peer::Membership {
        configs: vec![peer::VoterSet { replicas: vec![9] }],
        members: Vec::new(),
    };
    assert!(membership_in(&stranger).is_err());
    let empty = peer::Membership {
        configs: vec![peer::VoterSet::default()],
        members: Vec::new(),
    };
    assert!(membership_in(&empty).is_err());
    let member = peer::Member { replica: 1, node: 1 };
    let twice = peer::Membership {
        configs: Vec::new(),
        members: vec![member, member],
    };
    assert!(membership_in(&twice).is_err());
    assert!(vote_request_in(&peer::VoteRequest::default()).is_err());
    assert!(entry_in(peer::Entry::default()).is_err());
}
