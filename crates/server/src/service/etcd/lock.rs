//! etcd's `v3lock`: a mutex per name, held as long as the session's lease lives or until it is unlocked.

use etcd_client::proto::{PbDeleteRequest, PbRangeRequest, PbResponseHeader};
use machine::command::Body;
use proto::lock::{LockRequest, LockResponse, ResponseHeader, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status, async_trait};

use super::session::{self, Standing};
use super::{Etcd, check, convert};
use crate::service::error;

/// etcd's `concurrency.ErrSessionExpired`.
const SESSION_EXPIRED: &str = "mutex: session is expired";

#[async_trait]
impl proto::lock::lock_server::Lock for Etcd {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let asked = request.into_inner();
        let lease = self.session(&space, asked.lease).await?;
        let prefix = session::prefix(&asked.name);
        let mine = self.stand(&space, &prefix, lease, Vec::new()).await?;
        if mine.oldest.is_none_or(|oldest| oldest == mine.create_revision) {
            return Ok(Response::new(LockResponse {
                header: header(Some(mine.header)),
                key: mine.key,
            }));
        }
        let standing = Standing::new(self, &space, &mine);
        self.wait_for_turn(&space, &prefix, mine.create_revision).await?;
        let get = PbRangeRequest {
            key: mine.key.clone(),
            ..PbRangeRequest::default()
        };
        let held = self.read_range(&space, get).await.map_err(error::after_write)?;
        if held
            .kvs
            .first()
            .is_none_or(|kv| kv.create_revision != mine.create_revision)
        {
            return Err(session::unknown(SESSION_EXPIRED));
        }
        standing.keep();
        Ok(Response::new(LockResponse {
            header: header(held.header),
            key: mine.key,
        }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let delete = PbDeleteRequest {
            key: request.into_inner().key,
            ..PbDeleteRequest::default()
        };
        check::delete(&delete).map_err(|status| session::unknown(status.message()))?;
        let written = self
            .write(&space, Body::DeleteRange(convert::delete(delete)))
            .await?;
        Ok(Response::new(UnlockResponse {
            header: header(Some(written.header)),
        }))
    }
}

fn header(header: Option<PbResponseHeader>) -> Option<ResponseHeader> {
    header.map(|h| ResponseHeader {
        cluster_id: h.cluster_id,
        member_id: h.member_id,
        revision: h.revision,
        raft_term: h.raft_term,
    })
}
