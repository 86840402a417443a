//! etcd's `Maintenance` service, about the partition that holds the request's namespace.

use std::pin::Pin;

use etcd_client::proto::{
    PbAlarmMember, PbAlarmRequest, PbAlarmResponse, PbDefragmentRequest, PbDefragmentResponse,
    PbDowngradeRequest, PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest,
    PbHashResponse, PbMaintenanceService, PbMoveLeaderRequest, PbMoveLeaderResponse, PbSnapshotRequest,
    PbSnapshotResponse, PbStatusRequest, PbStatusResponse,
};
use futures::Stream;
use machine::outcome::Empty;
use machine::query::{Ask, AskRevision, HashKv, Told};
use machine::record::meta::NodeState;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};
use types::{NodeId, limits};

use super::{ETCD_VERSION, Etcd, mismatch, told};
use crate::core::{Alarm, KeySpace, Queried, ServerError};
use crate::service::error;
use crate::watch::stream::LEADERLESS;

/// Says what an answer does not (defragmentation, deactivated alarms).
const NOTE: &str = "holdfast-note";

/// etcd's number of an alarm.
fn alarm_number(alarm: Alarm) -> i32 {
    match alarm {
        Alarm::NoSpace => 1,
        Alarm::Corrupt => 2,
    }
}

#[async_trait]
impl PbMaintenanceService for Etcd {
    /// Lists the alarms of all nodes that answer. They are raised and cleared by the nodes themselves.
    async fn alarm(&self, request: Request<PbAlarmRequest>) -> Result<Response<PbAlarmResponse>, Status> {
        let queried = self.namespace(request.metadata()).await?.1;
        let asked = request.into_inner();
        if asked.action == 1 {
            return Err(Status::unimplemented("alarms are raised by the nodes themselves"));
        }
        let mut alarms = Vec::new();
        for (node, alarm) in self.core.alarms_everywhere().await {
            let wanted_node = asked.member_id == 0 || asked.member_id == node.0;
            let alarm = alarm_number(alarm);
            if wanted_node && (asked.alarm == 0 || asked.alarm == alarm) {
                alarms.push(PbAlarmMember {
                    member_id: node.0,
                    alarm,
                });
            }
        }
        let header = Some(self.header_of(&queried));
        let mut response = Response::new(PbAlarmResponse { header, alarms });
        if asked.action == 2 {
            note(
                &mut response,
                "alarms clear by themselves once there is room on the disk again",
            );
        }
        Ok(response)
    }

    async fn status(&self, request: Request<PbStatusRequest>) -> Result<Response<PbStatusResponse>, Status> {
        let (space, queried) = self.namespace(request.metadata()).await?;
        let header = self.header_of(&queried);
        let index = queried.index;
        let Told::Namespace(info) = told(queried)? else {
            return Err(mismatch("a namespace query"));
        };
        let leader = self.core.find_leader(space.partition, LEADERLESS).await;
        let applied = self.core.applied(space.partition).unwrap_or(index);
        let mut errors = Vec::new();
        if leader.is_none() {
            errors.push(error::NO_LEADER.text.to_owned());
        }
        // Its own only: others are asked for by the alarm call, since an answer here must not wait for a silent node.
        let node = self.core.node_id();
        for alarm in self.core.alarms() {
            errors.push(format!("memberID:{node} alarm:{}", alarm.name()));
        }
        let quota_bytes = info.settings.map_or(0, |settings| settings.quota_bytes);
        let quota_bytes = if quota_bytes == 0 {
            limits::NAMESPACE_QUOTA_BYTES
        } else {
            quota_bytes
        };
        Ok(Response::new(PbStatusResponse {
            header: Some(header),
            version: ETCD_VERSION.to_owned(),
            db_size: signed(info.total_bytes),
            leader: leader.map_or(0, |(node, _)| node.0),
            raft_index: applied.max(index),
            raft_term: leader.map_or(header.raft_term, |(_, term)| term),
            raft_applied_index: applied,
            errors,
            db_size_in_use: signed(info.live_bytes),
            is_learner: false,
            storage_version: String::new(),
            db_size_quota: signed(quota_bytes),
            downgrade_info: None,
        }))
    }

    async fn defragment(
        &self,
        request: Request<PbDefragmentRequest>,
    ) -> Result<Response<PbDefragmentResponse>, Status> {
        let queried = self.namespace(request.metadata()).await?.1;
        tracing::info!("Defragment was asked for; nothing was done, space comes back by itself");
        let mut response = Response::new(PbDefragmentResponse {
            header: Some(self.header_of(&queried)),
        });
        note(
            &mut response,
            "nothing was done: space comes back by itself, without a pause",
        );
        Ok(response)
    }

    async fn hash(&self, request: Request<PbHashRequest>) -> Result<Response<PbHashResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let (queried, hash) = self.hash_at(&space, 0).await?;
        let header = Some(self.header_of(&queried));
        Ok(Response::new(PbHashResponse {
            header,
            hash: hash.hash,
        }))
    }

    async fn hash_kv(&self, request: Request<PbHashKvRequest>) -> Result<Response<PbHashKvResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let (queried, hash) = self.hash_at(&space, request.into_inner().revision).await?;
        Ok(Response::new(PbHashKvResponse {
            header: Some(self.header_of(&queried)),
            hash: hash.hash,
            compact_revision: match hash.compact_revision {
                // etcd's number for a history that is whole.
                0 => -1,
                revision => revision,
            },
            hash_revision: hash.hash_revision,
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<PbSnapshotResponse, Status>> + Send>>;

    async fn snapshot(
        &self,
        _: Request<PbSnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(Status::unimplemented(
            "a copy of one etcd backend file cannot hold a cluster of partitions; \
             use Holdfast's own snapshots (`holdfast snapshots`)",
        ))
    }

    async fn move_leader(
        &self,
        request: Request<PbMoveLeaderRequest>,
    ) -> Result<Response<PbMoveLeaderResponse>, Status> {
        let (space, queried) = self.namespace(request.metadata()).await?;
        let target = NodeId(request.into_inner().target_id);
        let map = self.core.map();
        let known = |n: &&machine::record::meta::Node| n.id == target.0 && n.state() != NodeState::Removed;
        if !map.nodes.iter().any(|n| known(&n)) {
            return Err(error::BAD_TRANSFEREE.status(&format!("there is no node {target}")));
        }
        match self.core.transfer_leader(space.partition, target).await {
            Ok(()) => {}
            Err(ServerError::Timeout { text }) => return Err(error::TRANSFER_TIMEOUT.status(&text)),
            Err(ServerError::Invalid { text }) => return Err(error::BAD_TRANSFEREE.status(&text)),
            Err(other) => return Err(other.into()),
        }
        Ok(Response::new(PbMoveLeaderResponse {
            header: Some(self.header_of(&queried)),
        }))
    }

    async fn downgrade(
        &self,
        _: Request<PbDowngradeRequest>,
    ) -> Result<Response<PbDowngradeResponse>, Status> {
        Err(Status::unimplemented(
            "Holdfast raises its cluster version by itself and never lowers it",
        ))
    }
}

impl Etcd {
    /// The namespace's numbers as this node (or the nearest with a replica) has them, leader or not.
    async fn namespace(&self, metadata: &MetadataMap) -> Result<(KeySpace, Queried), Status> {
        let space = self.space(metadata).await?;
        let queried = self.ask(&space, Ask::Namespace(Empty {}), true).await?;
        Ok((space, queried))
    }

    async fn hash_at(&self, space: &KeySpace, revision: i64) -> Result<(Queried, HashKv), Status> {
        let queried = self
            .ask(space, Ask::HashKv(AskRevision { revision }), true)
            .await?;
        match told(queried.clone())? {
            Told::HashKv(hash) => Ok((queried, hash)),
            _ => Err(mismatch("a hash query")),
        }
    }
}

fn note<T>(response: &mut Response<T>, text: &'static str) {
    response
        .metadata_mut()
        .insert(NOTE, tonic::metadata::MetadataValue::from_static(text));
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
