//! What other nodes ask of this one. A forwarded request is answered by the replica here or refused with the leader's
//! name; it is never passed on, so that no request makes more than one hop.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use machine::outcome::{Refusal, RefusalKind};
use machine::{Command, Query};
use prost::Message;
use proto::peer::{self, Kind};
use tokio::sync::mpsc;
use tonic::Status;
use types::{NodeId, PartitionId, ReplicaId};

use super::attempt::Failed;
use super::{Core, ServerError};
use crate::request;

/// Largest answer to a forwarded write.
const ANSWER_BYTES: usize = raft::FRAME_BYTES_MAX - 64;

/// The handler given to `raft`.
pub struct Handler {
    core: Weak<Core>,
}

impl Handler {
    /// Serves with `core`.
    pub fn new(core: &Arc<Core>) -> Handler {
        Handler {
            core: Arc::downgrade(core),
        }
    }

    fn core(&self) -> Result<Arc<Core>, Status> {
        self.core
            .upgrade()
            .ok_or_else(|| Status::failed_precondition("0 the node is stopping"))
    }
}

#[async_trait]
impl raft::RequestHandler for Handler {
    async fn handle(
        &self,
        from: NodeId,
        kind: Kind,
        partition: PartitionId,
        body: Bytes,
        request_id: Bytes,
    ) -> Result<Bytes, Status> {
        let core = self.core()?;
        let answered = match kind {
            Kind::Propose => propose(&core, partition, body).await,
            Kind::Query => query(&core, partition, body).await,
            Kind::ReadIndex => read_index(&core, partition).await,
            Kind::Status | Kind::Admin => admin(&core, kind, partition, body).await,
            other => Err(invalid(format!("{} is not a request", other.as_str_name()))),
        };
        tracing::debug!(
            request = request::shown(&request_id),
            %from,
            kind = kind.as_str_name(),
            %partition,
            failed = answered.as_ref().err().map(tracing::field::debug),
            "asked by another node"
        );
        answered.map_err(|failed| failed.to_wire())
    }

    async fn handle_stream(
        &self,
        _: NodeId,
        kind: Kind,
        partition: PartitionId,
        body: Bytes,
        out: mpsc::Sender<Bytes>,
    ) -> Result<(), Status> {
        let core = self.core()?;
        match kind {
            Kind::Watch if !core.is_local(partition) => Err(not_here().to_wire()),
            Kind::Watch => crate::watch::serve_remote(&core, partition, body, out).await,
            other => Err(invalid(format!("{} is not a stream", other.as_str_name())).to_wire()),
        }
    }

    async fn join(&self, request: peer::JoinRequest) -> Result<peer::JoinReply, Status> {
        let core = self.core()?;
        crate::join::admit(&core, request).await
    }
}

/// The cluster's own business: reports, transfers, hashes.
pub(super) async fn admin(
    core: &Core,
    kind: Kind,
    partition: PartitionId,
    body: Bytes,
) -> Result<Bytes, Failed> {
    if kind == Kind::Status {
        let ask = decode::<peer::StatusAsk>(body)?;
        return Ok(core.report(&ask.partitions, ask.sizes).encode_to_vec().into());
    }
    let replica = core.replica(partition).ok_or_else(not_here)?;
    match decode::<peer::AdminAsk>(body)?.ask {
        Some(peer::admin_ask::Ask::TransferTo(to)) => {
            replica.transfer_leader(ReplicaId(to)).await.map_err(membership)?;
            Ok(Bytes::new())
        }
        Some(peer::admin_ask::Ask::HashAt(index)) => hash_at(core, &replica, index).await,
        None => Err(invalid("an unknown administrative request".into())),
    }
}

/// The state's hash after `index` (0: the newest applied).
async fn hash_at(core: &Core, replica: &raft::Replica, index: u64) -> Result<Bytes, Failed> {
    let partition = replica.partition();
    let corrupt = |text: String| Failed::Final(ServerError::Corrupt { partition, text });
    if index != 0 {
        replica
            .wait_applied(index, Duration::from_secs(2))
            .await
            .map_err(Failed::read)?;
        if let Some(hash) = core.hashes.at(partition, index) {
            return Ok(hash_reply(index, hash));
        }
    }
    let state = machine::record::state::read(&*replica.view()).map_err(|error| corrupt(error.to_string()))?;
    Ok(hash_reply(state.index, state.digest()))
}

fn hash_reply(index: u64, hash: u128) -> Bytes {
    peer::AdminReply {
        index,
        hash: Bytes::copy_from_slice(&hash.to_be_bytes()),
    }
    .encode_to_vec()
    .into()
}

async fn propose(core: &Core, partition: PartitionId, body: Bytes) -> Result<Bytes, Failed> {
    let replica = leading(core, partition)?;
    let command = decode::<Command>(body)?;
    if !command.is_known() {
        return Err(invalid("a command that this node does not understand".into()));
    }
    let done = core.propose_here(&replica, command, core.timeout).await?;
    let reply = Bytes::from(done.reply.encode_to_vec());
    if reply.len() > ANSWER_BYTES {
        // It has happened: this must not read as a refusal.
        return Err(Failed::Unknown(format!(
            "applied at index {}, but the answer of {} bytes is more than nodes carry for each other",
            done.index,
            reply.len()
        )));
    }
    Ok(peer::Proposed {
        term: done.term,
        leader: done.leader.0,
        index: done.index,
        reply,
    }
    .encode_to_vec()
    .into())
}

async fn query(core: &Core, partition: PartitionId, body: Bytes) -> Result<Bytes, Failed> {
    let ask = decode::<peer::QueryRequest>(body)?;
    let query = decode::<Query>(ask.query)?;
    let queried = if ask.serializable {
        let replica = core
            .replica(partition)
            .filter(|_| core.is_local(partition))
            .ok_or_else(not_here)?;
        core.query_applied(&replica, query, core.timeout).await?
    } else {
        core.query_here(&leading(core, partition)?, query, core.timeout)
            .await?
    };
    let answer = Bytes::from(queried.answer.encode_to_vec());
    Ok(peer::Queried {
        term: queried.term,
        index: queried.index,
        answer,
    }
    .encode_to_vec()
    .into())
}

async fn read_index(core: &Core, partition: PartitionId) -> Result<Bytes, Failed> {
    let point = leading(core, partition)?
        .read_index(core.timeout)
        .await
        .map_err(Failed::read)?;
    Ok(peer::ReadIndex {
        term: point.term,
        leader: point.leader.0,
        index: point.index,
    }
    .encode_to_vec()
    .into())
}

/// The replica here, if it leads; else a refusal that names who does.
fn leading(core: &Core, partition: PartitionId) -> Result<raft::Replica, Failed> {
    match core.replica(partition) {
        Some(replica) if replica.is_leader() => Ok(replica),
        Some(replica) => Err(Failed::Again {
            leader: replica
                .leader()
                .map(|(_, node)| node)
                .filter(|node| *node != core.node),
            text: format!("node {} does not lead partition {partition}", core.node),
        }),
        None => Err(not_here()),
    }
}

fn not_here() -> Failed {
    Failed::Again {
        leader: None,
        text: "the partition has no replica there".into(),
    }
}

fn invalid(text: String) -> Failed {
    Failed::Final(ServerError::Invalid { text })
}

fn decode<M: Message + Default>(body: Bytes) -> Result<M, Failed> {
    M::decode(body).map_err(|error| invalid(format!("malformed request: {error}")))
}

fn membership(error: raft::MembershipError) -> Failed {
    use raft::MembershipError as E;
    match error {
        E::NotLeader { leader } => Failed::Again {
            leader,
            text: "the leader changed".into(),
        },
        E::InProgress | E::Stopped => Failed::Again {
            leader: None,
            text: error.to_string(),
        },
        E::Lagging { lag, .. } => Failed::Final(ServerError::Refused(Refusal {
            kind: RefusalKind::Stale as i32,
            text: error.to_string(),
            detail: lag as i64,
        })),
        E::Unreachable { .. } | E::PassedOn { .. } => Failed::Final(ServerError::Refused(Refusal {
            kind: RefusalKind::Stale as i32,
            text: error.to_string(),
            detail: 0,
        })),
        E::Invalid(text) => Failed::Final(ServerError::Invalid { text }),
        E::Unknown(text) => Failed::Unknown(text),
    }
}
