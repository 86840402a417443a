//! Leaders and replicas move from node to node while others work. Nothing to judge here: the others' histories, and that
//! everything comes to order in the end, tell whether it went well.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::v1;
use proto::v1::cluster_client::ClusterClient;
use tonic::Status;

use crate::client::{Client, PATIENCE};
use crate::{Finding, Tally, Workload};

/// How long a move of a replica is followed.
const FOLLOWED: Duration = Duration::from_secs(20);

/// The workload.
#[derive(Default)]
pub struct Moves {
    tally: Mutex<Tally>,
}

#[async_trait]
impl Workload for Moves {
    fn name(&self) -> &'static str {
        "moves"
    }

    fn disturbs(&self) -> bool {
        true
    }

    async fn work(&self, client: Client) {
        // One is enough to keep partitions moving.
        if !client.id.is_multiple_of(3) {
            return;
        }
        while client.goes_on() {
            let moved = match client.once_in(8) {
                true => drain(&client).await,
                false => self.one(&client).await,
            };
            self.count(moved.is_ok());
            client.pause(50, 500).await;
        }
    }

    fn judge(&self) -> Vec<Finding> {
        Vec::new()
    }

    fn tally(&self) -> Tally {
        *self.tally.lock()
    }

    fn history(&self) -> String {
        String::new()
    }
}

impl Moves {
    fn count(&self, moved: bool) {
        let mut tally = self.tally.lock();
        match moved {
            true => tally.ok += 1,
            false => tally.failed += 1,
        }
    }

    async fn one(&self, client: &Client) -> Result<(), Status> {
        let mut cluster = ClusterClient::new(client.channel(client.any_node()));
        let late = |_| Status::deadline_exceeded("no answer in time");
        let asked = cluster.list_partitions(v1::ListPartitionsRequest::default());
        let listed = tokio::time::timeout(PATIENCE, asked)
            .await
            .map_err(late)??
            .into_inner();
        let count = listed.partitions.len() as u64;
        if count == 0 {
            return Ok(());
        }
        let partition = &listed.partitions[client.below(count) as usize];
        let nodes = client.site.endpoints.len() as u64;
        let holders: Vec<u64> = partition.replicas.iter().map(|replica| replica.node).collect();
        let free = (1..=nodes).find(|node| !holders.contains(node));
        match free {
            Some(to_node) if client.once_in(2) && !holders.is_empty() => {
                let request = v1::MoveReplicaRequest {
                    partition: partition.id,
                    from_node: holders[client.below(holders.len() as u64) as usize],
                    to_node,
                    session: None,
                };
                let following = async {
                    let mut progress = cluster.move_replica(request).await?.into_inner();
                    while progress.message().await?.is_some() {}
                    Ok(())
                };
                tokio::time::timeout(FOLLOWED, following).await.map_err(late)?
            }
            _ => {
                let request = v1::TransferLeaderRequest {
                    partition: partition.id,
                    node: 1 + client.below(nodes),
                    session: None,
                };
                let asked = cluster.transfer_leader(request);
                tokio::time::timeout(PATIENCE, asked)
                    .await
                    .map_err(late)?
                    .map(drop)
            }
        }
    }
}

/// Empties a node for a while. However that goes, the node is taken back in.
async fn drain(client: &Client) -> Result<(), Status> {
    let mut cluster = ClusterClient::new(client.channel(client.any_node()));
    let late = |_| Status::deadline_exceeded("no answer in time");
    let listed = cluster.list_nodes(v1::ListNodesRequest::default());
    let listed = tokio::time::timeout(PATIENCE, listed).await.map_err(late)??;
    let nodes = listed.into_inner().nodes;
    if nodes.is_empty() {
        return Ok(());
    }
    let node = nodes[client.below(nodes.len() as u64) as usize].id;
    let request = || v1::NodeRequest { node, session: None };
    let following = async {
        let mut progress = cluster.drain_node(request()).await?.into_inner();
        while progress.message().await?.is_some() {}
        Ok(())
    };
    let limit = Duration::from_millis(client.site.env.rng.between(200, 8000));
    let drained = tokio::time::timeout(limit, following).await.map_err(late);
    loop {
        let mut cluster = ClusterClient::new(client.channel(client.any_node()));
        match tokio::time::timeout(PATIENCE, cluster.undrain_node(request())).await {
            Ok(Ok(_)) => break,
            // Removed meanwhile.
            Ok(Err(status)) if status.code() == tonic::Code::NotFound => break,
            Ok(Err(_)) | Err(_) => client.pause(20, 200).await,
        }
    }
    drained?
}
