//! etcd's `Lease` service. Lease time runs on the machine's clock; nothing is timed here.

use std::pin::Pin;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService,
    PbLeaseStatus, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use futures::{Stream, StreamExt};
use machine::command::{Body, LeaseGrant, LeaseId};
use machine::outcome::{Done, Empty, Refusal, RefusalKind};
use machine::query::{Ask, AskLease, Told};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Etcd, command, mismatch, told};
use crate::core::{KeySpace, ServerError};

/// Renewals of one stream that are under way at once; they share log entries.
const RENEWALS_IN_FLIGHT: usize = 128;

#[async_trait]
impl PbLeaseService for Etcd {
    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let asked = request.into_inner();
        Ok(Response::new(self.grant(&space, asked.id, asked.ttl).await?))
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let id = request.into_inner().id;
        let written = self.write(&space, Body::LeaseRevoke(LeaseId { id })).await?;
        Ok(Response::new(PbLeaseRevokeResponse {
            header: Some(written.header),
        }))
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<PbLeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let space = self.space(request.metadata()).await?;
        let etcd = self.clone();
        let answers = request
            .into_inner()
            .map(move |asked| {
                let (etcd, space) = (etcd.clone(), space.clone());
                async move { etcd.keep_alive(&space, asked?.id).await }
            })
            .buffered(RENEWALS_IN_FLIGHT);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let asked = request.into_inner();
        let ask = Ask::Lease(AskLease {
            id: asked.id,
            keys: asked.keys,
        });
        let queried = self.ask(&space, ask, false).await?;
        let header = Some(self.header_of(&queried));
        let Told::Lease(lease) = told(queried)? else {
            return Err(mismatch("a lease query"));
        };
        let ttl = if lease.granted_s == 0 {
            -1
        } else {
            lease.remaining_ms.max(0) / 1000
        };
        Ok(Response::new(PbLeaseTimeToLiveResponse {
            header,
            id: asked.id,
            ttl,
            granted_ttl: lease.granted_s,
            keys: lease.keys.into_iter().map(Into::into).collect(),
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let queried = self.ask(&space, Ask::Leases(Empty {}), false).await?;
        let header = Some(self.header_of(&queried));
        let Told::Leases(list) = told(queried)? else {
            return Err(mismatch("a lease list"));
        };
        let leases = list.ids.into_iter().map(|id| PbLeaseStatus { id }).collect();
        Ok(Response::new(PbLeaseLeasesResponse { header, leases }))
    }
}

impl Etcd {
    pub(super) async fn grant(
        &self,
        space: &KeySpace,
        id: i64,
        ttl_s: i64,
    ) -> Result<PbLeaseGrantResponse, Status> {
        let written = self
            .write(space, Body::LeaseGrant(LeaseGrant { id, ttl_s }))
            .await?;
        match written.done {
            Some(Done::Lease(lease)) => Ok(PbLeaseGrantResponse {
                header: Some(written.header),
                id: lease.id,
                ttl: lease.ttl_s,
                error: String::new(),
            }),
            _ => Err(mismatch("a lease grant")),
        }
    }

    /// Renews a lease. One that does not exist (any more) is told by a TTL of 0, not by an error.
    async fn keep_alive(&self, space: &KeySpace, id: i64) -> Result<PbLeaseKeepAliveResponse, Status> {
        let body = Body::LeaseKeepAlive(LeaseId { id });
        match self.core.propose(space.partition, command(space, body)).await {
            Ok(proposed) => {
                let header = Some(self.header(proposed.reply.revision, proposed.term));
                match proposed.reply.done {
                    Some(Done::Lease(lease)) => Ok(PbLeaseKeepAliveResponse {
                        header,
                        id,
                        ttl: lease.ttl_s,
                    }),
                    _ => Err(mismatch("a renewal")),
                }
            }
            Err(ServerError::Refused(refusal)) if is_absent(&refusal) => {
                let queried = self
                    .ask(space, Ask::Lease(AskLease { id, keys: false }), true)
                    .await?;
                Ok(PbLeaseKeepAliveResponse {
                    header: Some(self.header_of(&queried)),
                    id,
                    ttl: 0,
                })
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_absent(refusal: &Refusal) -> bool {
    refusal.kind == RefusalKind::LeaseNotFound as i32
}
