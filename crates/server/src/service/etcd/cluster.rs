//! etcd's `Cluster` service: the list of nodes. Changing it is Holdfast's own business, since nodes hold many
//! partitions and are drained before they go.

use etcd_client::proto::{
    PbClusterService, PbMember, PbMemberAddRequest, PbMemberAddResponse, PbMemberListRequest,
    PbMemberListResponse, PbMemberPromoteRequest, PbMemberPromoteResponse, PbMemberRemoveRequest,
    PbMemberRemoveResponse, PbMemberUpdateRequest, PbMemberUpdateResponse,
};
use machine::outcome::Empty;
use machine::query::Ask;
use machine::record::meta::{Node, NodeState};
use tonic::{Request, Response, Status, async_trait};

use super::Etcd;

fn elsewhere(call: &str) -> Status {
    Status::unimplemented(format!(
        "{call} is not part of Holdfast's etcd API; use `holdfast nodes add|drain|remove` \
         (holdfast.v1.Cluster), which move the data first"
    ))
}

#[async_trait]
impl PbClusterService for Etcd {
    async fn member_add(
        &self,
        _: Request<PbMemberAddRequest>,
    ) -> Result<Response<PbMemberAddResponse>, Status> {
        Err(elsewhere("MemberAdd"))
    }

    async fn member_remove(
        &self,
        _: Request<PbMemberRemoveRequest>,
    ) -> Result<Response<PbMemberRemoveResponse>, Status> {
        Err(elsewhere("MemberRemove"))
    }

    async fn member_update(
        &self,
        _: Request<PbMemberUpdateRequest>,
    ) -> Result<Response<PbMemberUpdateResponse>, Status> {
        Err(elsewhere("MemberUpdate"))
    }

    async fn member_list(
        &self,
        request: Request<PbMemberListRequest>,
    ) -> Result<Response<PbMemberListResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        if request.into_inner().linearizable {
            self.core.read_map().await?;
        }
        let queried = self.ask(&space, Ask::Namespace(Empty {}), true).await?;
        let map = self.core.map();
        let members = map
            .nodes
            .iter()
            .filter(|n| n.state() != NodeState::Removed)
            .map(member)
            .collect();
        Ok(Response::new(PbMemberListResponse {
            header: Some(self.header_of(&queried)),
            members,
        }))
    }

    async fn member_promote(
        &self,
        _: Request<PbMemberPromoteRequest>,
    ) -> Result<Response<PbMemberPromoteResponse>, Status> {
        Err(elsewhere("MemberPromote"))
    }
}

fn member(node: &Node) -> PbMember {
    PbMember {
        id: node.id,
        name: if node.name.is_empty() {
            format!("node-{}", node.id)
        } else {
            node.name.clone()
        },
        peer_ur_ls: vec![format!("http://{}", node.peer_address)],
        client_ur_ls: vec![format!("http://{}", node.client_address)],
        is_learner: false,
    }
}
