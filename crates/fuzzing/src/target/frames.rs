//! What a peer sends on a lane, known or not: its hello is taken or refused by a rule with a name; a frame's body is what
//! its kind says, or is refused.

use machine::{Command, Query, Reply};
use prost::Message;
use proto::peer::{self, Frame, Frames, Hello, Kind, Lane};
use raft::peer::{Known, Mine, Refusal, Seen, check_cluster, check_node, reply_frame};
use tonic::{Code, Status};
use types::{BootId, ClusterId, ClusterVersion, Incarnation, NodeId};

use super::entries::{self, log_id, vote};
use super::world;
use crate::input::decode;

fn mine() -> Mine {
    Mine {
        cluster: ClusterId(0xc1),
        node: NodeId(1),
        incarnation: Incarnation(0xa),
        boot: BootId(11),
        boots: 3,
        version: ClusterVersion(1),
        oldest: ClusterVersion(1),
        address: "a:2380".into(),
    }
}

/// The hello and frames of one message.
pub fn run(bytes: &[u8]) {
    let Some(message) = decode::<Frames>(bytes) else {
        return;
    };
    if let Some(hello) = &message.hello {
        meet(hello);
    }
    message.frames.into_iter().for_each(take);
}

fn meet(hello: &Hello) {
    let mine = mine();
    let seen = Seen {
        boot: BootId(22),
        boots: 2,
        listed: 1,
        address: "b:2380".into(),
        live: hello.boots.is_multiple_of(2),
    };
    let known = [
        Known::Member(Incarnation(0xb), "b:2380"),
        Known::Member(Incarnation(0), ""),
        Known::Removed,
        Known::No,
    ];
    let judged = [
        check_cluster(hello, &mine, false),
        check_cluster(hello, &mine, true),
    ];
    let judged = judged
        .into_iter()
        .chain(known.iter().map(|known| check_node(hello, *known, &seen)));
    for refusal in judged.filter_map(Result::err) {
        // A sentence may hold what no header can: then at least the rule arrives.
        let arrived = Refusal::from_status(&refusal.status());
        assert_eq!(arrived.as_ref(), Some(&refusal));
        let _ = refusal.kind.is_fatal();
    }
    let cluster = hello.cluster_id == mine.cluster.0 && hello.node_id != mine.node.0;
    let accepted = check_cluster(hello, &mine, true).is_ok();
    assert!(cluster || !accepted, "a stranger was taken: {hello:?}");
    assert!(check_node(hello, Known::Removed, &seen).is_err());
    assert!(check_node(hello, Known::No, &Seen::default()).is_err());
}

fn take(frame: Frame) {
    let body: &[u8] = &frame.body;
    match Kind::try_from(frame.kind) {
        Ok(Kind::Append | Kind::Heartbeat) => entries::run(&of(1, body)),
        Ok(Kind::Vote | Kind::PreVote) => entries::run(&of(4, body)),
        Ok(Kind::TransferLeader) => entries::run(&of(9, body)),
        Ok(Kind::CheckpointBegin) => ignore(decode::<peer::CheckpointBegin>(body)),
        Ok(Kind::CheckpointChunk) => ignore(decode::<peer::CheckpointChunk>(body)),
        Ok(Kind::CheckpointEnd) => ignore(decode::<peer::CheckpointEnd>(body)),
        Ok(Kind::LastLog) => ignore(decode::<peer::LastLogs>(body)),
        Ok(Kind::Propose) => ignore(decode::<Command>(body).map(|command| command.is_known())),
        Ok(Kind::Query) => {
            if let Some(request) = decode::<peer::QueryRequest>(body) {
                ignore(decode::<Query>(&request.query));
            }
        }
        Ok(Kind::Status) => ignore(decode::<peer::StatusAsk>(body)),
        Ok(Kind::Admin) => ignore(decode::<peer::AdminAsk>(body)),
        // Bodies that are empty, opaque or answers.
        Ok(_) => {
            ignore(decode::<peer::Proposed>(body).map(|proposed| decode::<Reply>(&proposed.reply)));
            ignore(decode::<peer::NodeReport>(body));
        }
        Err(_) => {}
    }
    let status = Status::new(Code::from_i32(frame.code as i32), "no");
    let reply = reply_frame(frame.id, frame.kind, Err(status));
    assert!(reply.reply && (reply.id, reply.kind) == (frame.id, frame.kind));
}

fn of(which: u8, body: &[u8]) -> Vec<u8> {
    [&[which][..], body].concat()
}

fn ignore<T>(_: Option<T>) {}

/// A hello, and a frame of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut theirs = mine();
    (theirs.node, theirs.incarnation, theirs.boot) = (NodeId(2), Incarnation(0xb), BootId(22));
    let hello = Frames {
        hello: Some(theirs.hello(Lane::Log, NodeId(1))),
        frames: Vec::new(),
    };
    let begin = peer::CheckpointBegin {
        vote: vote(),
        meta: Some(entries::snapshot_meta()),
        files: vec![peer::FileSize {
            name: "STATE".into(),
            size_bytes: 100,
        }],
    };
    let logs = peer::LastLogs {
        groups: vec![peer::LastLog {
            partition: 1,
            replica: 2,
            last_log_id: log_id(6),
        }],
    };
    let propose = world::command(world::put("a", "1", 0));
    let bodies = [
        (Kind::Ping, Vec::new()),
        (Kind::Append, entries::append_request().encode_to_vec()),
        (Kind::Vote, entries::vote_request().encode_to_vec()),
        (Kind::TransferLeader, entries::transfer_request().encode_to_vec()),
        (Kind::CheckpointBegin, begin.encode_to_vec()),
        (Kind::LastLog, logs.encode_to_vec()),
        (Kind::Propose, propose.encode_to_vec()),
        (Kind::StreamCredit, vec![0; 8]),
    ];
    let frames = bodies.into_iter().map(|(kind, body)| Frame {
        id: 7,
        kind: kind as i32,
        partition: 1,
        to_replica: 2,
        from_replica: 3,
        body: body.into(),
        ..Frame::default()
    });
    let mut seeds = vec![hello.encode_to_vec()];
    seeds.extend(frames.map(|frame| {
        let frames = Frames {
            hello: None,
            frames: vec![frame],
        };
        frames.encode_to_vec()
    }));
    seeds
}
