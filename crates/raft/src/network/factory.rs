//! What openraft makes its clients with.

use std::sync::Arc;

use openraft::network::RaftNetworkFactory;
use types::{NodeId, PartitionId, ReplicaId};

use super::Network;
use super::client::{GroupClient, Purpose};
use crate::trouble::Trouble;
use crate::types::{ReplicaNode, TypeConfig};

/// Makes clients for the group of one replica here.
pub struct Factory {
    network: Arc<Network>,
    partition: PartitionId,
    trouble: Arc<Trouble>,
}

impl Factory {
    pub(super) fn new(network: Arc<Network>, partition: PartitionId, trouble: Arc<Trouble>) -> Factory {
        Factory {
            network,
            partition,
            trouble,
        }
    }

    fn client(&self, target: u64, node: &ReplicaNode, purpose: Purpose) -> GroupClient {
        GroupClient {
            network: self.network.clone(),
            partition: self.partition,
            own: self.trouble.replica(),
            trouble: self.trouble.clone(),
            target: ReplicaId(target),
            node: NodeId(node.node),
            purpose,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = GroupClient;

    async fn new_client(&mut self, target: u64, node: &ReplicaNode) -> GroupClient {
        self.client(target, node, Purpose::Replicate)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &ReplicaNode) -> GroupClient {
        self.client(target, node, Purpose::Heartbeat)
    }
}
